"""Tokens: what the numbers of a target follow from, told in words and as one hash."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from hashlib import sha256
from typing import Any

from numpy.typing import NDArray

from tconv import __version__
from tconv.dask.volume import Contraction

__all__ = ["Token", "told"]

_SETTING = re.compile(r"\w+=.*?(?=, \w+=|$)")


@dataclass(frozen=True)
class Token:
    """Operation, settings, weight, bias, source and version of a target.

    >>> token = Token({"settings": "stride=2, groups=1", "bias": "none"})
    >>> token.difference({"settings": "stride=3, groups=1", "bias": "none"})
    'settings: stride=3 there, stride=2 here'
    """

    parts: Mapping[str, str]

    @classmethod
    def of(
        cls,
        made: Contraction,
        weight: NDArray[Any],
        bias: NDArray[Any] | None,
    ) -> "Token":
        """Token of a contraction with its weight and bias; threads change no number."""
        source = made.source
        return cls(
            {
                "operation": made.call.name,
                "settings": _settings(made),
                "weight": told(weight),
                "bias": "none" if bias is None else told(bias),
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
        found = []
        for name, mine in self.parts.items():
            there = str(other.get(name))
            if there != mine and name == "settings":
                there, mine = _differing(there, mine), _differing(mine, there)
            if there != mine:
                found.append(f"{name}: {there} there, {mine} here")
        return "; ".join(found)


def _settings(made: Contraction) -> str:
    """The settings, the same in whatever way they were written.

    Padding and output_padding are told as the crop at both ends and the size of the result.
    """
    axes, geometry = made.geometry.axes, made.geometry
    told = {
        "stride": tuple(axis.stride for axis in axes),
        "padding": tuple((axis.begin, axis.end) for axis in axes),
        "dilation": tuple(axis.dilation for axis in axes),
        "size": geometry.input_size if made.want == "x" else geometry.output_size,
        "groups": geometry.groups,
        "formats": f"{geometry.data_format} {geometry.weight_format}",
        "flip_kernel": geometry.flip_kernel,
        "dtype": made.dtype,
        "method": made.call.method,
    }
    return ", ".join(f"{name}={value}" for name, value in told.items())


def _differing(some: str, others: str) -> str:
    """The settings of one list that are not in another."""
    listed = _SETTING.findall(others)
    return ", ".join(each for each in _SETTING.findall(some) if each not in listed)


def told(array: NDArray[Any]) -> str:
    """Return type, shape and hash of an array in words."""
    content = sha256(array.tobytes()).hexdigest()[:16]
    return f"{array.dtype} {array.shape} sha256 {content}"
