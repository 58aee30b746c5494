"""Tokens: what the numbers of a target follow from, told in words and as one hash."""

from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from numpy.typing import NDArray

from tconv import __version__
from tconv.dask.volume import Contraction

__all__ = ["Token"]


@dataclass(frozen=True)
class Token:
    """Operation, settings, weight, bias, source and version of a target.

    >>> Token({"settings": "stride=2"}).difference({"settings": "stride=3"})
    'settings: stride=3 there, stride=2 here'
    """

    parts: Mapping[str, str]

    @classmethod
    def of(
        cls,
        made: Contraction,
        weight: NDArray[Any],
        bias: NDArray[Any] | None,
        settings: Mapping[str, Any],
    ) -> "Token":
        """Token of a contraction with its weight and bias; threads change no number."""
        told = [f"{key}={value!r}" for key, value in sorted(settings.items()) if key != "threads"]
        source = made.source
        return cls(
            {
                "operation": made.call.name,
                "settings": ", ".join(told) or "none",
                "weight": _told(weight),
                "bias": "none" if bias is None else _told(bias),
                "source": f"{source.dtype} {source.shape} in state {source.state[:16]}",
                "version": __version__,
            }
        )

    @property
    def hash(self) -> str:
        """One word for all parts."""
        return sha256(repr(sorted(self.parts.items())).encode()).hexdigest()

    def difference(self, other: Mapping[str, Any]) -> str:
        """The parts in which another token differs, with both values."""
        return "; ".join(
            f"{name}: {other.get(name)} there, {mine} here"
            for name, mine in self.parts.items()
            if other.get(name) != mine
        )


def _told(array: NDArray[Any]) -> str:
    """Type, shape and hash of an array."""
    content = sha256(array.tobytes()).hexdigest()[:16]
    return f"{array.dtype} {array.shape} sha256 {content}"
