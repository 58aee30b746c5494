"""Values as error messages show them: short, whatever they are."""

import sys
from typing import Any

__all__ = ["show"]

_MOST_SHOWN = 80  # characters
_MOST_NESTED = 6  # levels of lists that are shown


def show(value: Any) -> str:
    """Return `value` as an error message shows it: its repr, at most 80 characters of it.

    Large values, and values that contain themselves, take little time and memory.

    >>> show([1, "two"]), show(10**5000)
    ("[1, 'two']", '<integer of 16,610 bits>')
    """
    text = _text(value, 0)
    return text if len(text) <= _MOST_SHOWN else text[: _MOST_SHOWN - 3] + "..."


def _text(value: Any, level: int) -> str:
    """The repr of a value, or enough of it for the message."""
    if type(value) is int and value.bit_length() > 512:  # Python refuses to print very long ones
        return f"<integer of {value.bit_length():,} bits>"
    if isinstance(value, str):
        return repr(str(value)[: _MOST_SHOWN + 1])
    if isinstance(value, bytes | bytearray):
        return repr(value[: _MOST_SHOWN + 1])
    if isinstance(value, list):
        return f"[{_texts(list.__iter__(value), level)}]"
    if isinstance(value, tuple):
        comma = "," if len(value) == 1 else ""
        return f"({_texts(tuple.__iter__(value), level)}{comma})"
    if isinstance(value, dict):
        return f"{{{_texts(dict.items(value), level, ': ')}}}"
    numpy = sys.modules.get("numpy")
    is_array = numpy is not None and isinstance(value, numpy.ndarray)
    if is_array and (value.size > _MOST_SHOWN or value.dtype.hasobject or value.ndim > 4):
        return f"<array of shape {value.shape}, {value.dtype}>"
    try:
        return repr(value)
    except Exception:  # from a method of the value, or from recursion
        return f"<{type(value).__name__}>"


def _texts(values: Any, level: int, colon: str = "") -> str:
    """The texts of entries, or of keys and values, until they fill the message."""
    if level == _MOST_NESTED:
        return "..."
    texts, size = [], 0
    for each in values:
        pair = each if colon else (each,)
        texts.append(colon.join(_text(part, level + 1) for part in pair))
        size += len(texts[-1]) + 2
        if size > _MOST_SHOWN:
            break
    return ", ".join(texts)
