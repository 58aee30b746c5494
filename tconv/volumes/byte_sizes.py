"""Amounts of memory as people write and read them."""

import re
from typing import Any

from tconv.errors import ParameterError
from tconv.geometry.arguments import integer_of
from tconv.messages import show

__all__ = ["as_bytes", "in_words"]

_UNITS = {"": 1, "k": 10**3, "m": 10**6, "g": 10**9, "t": 10**12}
_UNITS |= {f"{unit}i": 2 ** (10 * n) for n, unit in enumerate("kmgt", 1)}


def as_bytes(value: Any, name: str) -> int:
    """Return a number of bytes from an integer, or from words such as "2GB" and "512 MiB".

    >>> as_bytes("1.5GB", "memory"), as_bytes("512 MiB", "memory"), as_bytes(4096, "memory")
    (1500000000, 536870912, 4096)
    """
    found = integer_of(value)
    if found is None and isinstance(value, str):
        parts = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmgt]?i?)b?\s*", value.lower())
        if parts and (unit := _UNITS.get(parts[2])):
            found = int(float(parts[1]) * unit)
    if found is None or found < 1:
        raise ParameterError(
            f"{name}={show(value)} must be a number of bytes, such as 2GB or 512MiB; pass one."
        )
    return found


def in_words(size: float) -> str:
    """Return bytes in the decimal unit that fits.

    >>> in_words(1_234_567_890), in_words(512)
    ('1.23 GB', '512 bytes')
    """
    if size < 1000:
        return f"{size:.0f} bytes"
    for unit in ("kB", "MB", "GB", "TB"):
        size /= 1000
        if size < 999.5 or unit == "TB":
            break
    return f"{size:.3g} {unit}" if size < 999.5 else f"{size:,.0f} {unit}"
