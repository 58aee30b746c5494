"""WHAT FOLLOWS A SUM: the activation of a result, as a function of it, with its derivative.

Every activation here grows, and tells its derivative from its value: backward needs y alone, and
the sum that y was made of may be overwritten.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.errors import DTypeError, ParameterError
from tconv.geometry.arguments import number_of
from tconv.messages import show

__all__ = ["ACTIVATIONS", "Activation", "as_activation", "select", "apply_mask"]

ACTIVATIONS = ("relu", "leaky_relu", "tanh", "sigmoid")

_TYPES = ("float16", "bfloat16", "float32", "float64")
_PIECE = 2**15  # numbers at a time, which stay in the caches with what is made of them


@dataclass(frozen=True)
class Activation:
    """A function of one number: its name, and the slope of "leaky_relu" below 0.

    >>> print(Activation("relu"), Activation("leaky_relu", 0.2))
    relu leaky_relu 0.2
    """

    name: str
    slope: float = 0.0

    @property
    def argument(self) -> Any:
        """What `as_activation` makes this of."""
        return (self.name, self.slope) if self.name == "leaky_relu" else self.name

    def check_type(self, dtype: str) -> None:
        """Refuse numbers that are not real or have no fractions."""
        if dtype not in _TYPES:
            raise DTypeError(
                f'activation="{self.name}" takes one of {", ".join(_TYPES)}, not {dtype}; convert '
                "x and weight to one of these, or pass activation=None."
            )

    def apply(self, y: NDArray[Any]) -> None:
        """Replace sums by the function of them. NaN stays NaN.

        >>> y = np.array([-2.0, 0.0, 3.0])
        >>> Activation("leaky_relu", 0.25).apply(y)
        >>> y
        array([-0.5,  0. ,  3. ])
        """
        whole = y.reshape(-1) if y.flags.c_contiguous else y
        step = _PIECE if whole.ndim == 1 else 1
        for n in range(0, len(whole), step):
            piece = whole[n : n + step]
            if y.dtype.itemsize == 2:  # computed in float32, rounded once
                piece[...] = self._of(piece.astype(np.float32))
            else:
                piece[...] = self._of(piece)

    def pull_back(self, y: NDArray[Any], dy: NDArray[Any]) -> NDArray[Any]:
        """Multiply a gradient by the derivative, which is told from y; at 0 it is that below 0.

        >>> Activation("tanh").pull_back(np.array([0.5]), np.array([4.0]))
        array([3.])
        """
        dtype = dy.dtype
        if dtype.itemsize == 2:
            y, dy = y.astype(np.float32), dy.astype(np.float32)
        if self.name == "relu":
            found = apply_mask(dy, ~(y <= 0))
        elif self.name == "leaky_relu":
            found = select(y > 0, dy, dy * self.slope)
        elif self.name == "tanh":
            found = dy * ((1 - y) * (1 + y))
        else:
            found = dy * (y * (1 - y))
        return found.astype(dtype, copy=False)

    def _of(self, x: NDArray[Any]) -> NDArray[Any]:
        found: NDArray[Any]
        if self.name == "relu":
            found = np.maximum(x, 0)
        elif self.name == "leaky_relu":  # one of the two is 0
            found = np.maximum(x, 0) + np.minimum(x, 0) * self.slope
        elif self.name == "tanh":
            found = np.tanh(x)
        else:  # exp of what is not positive does not overflow, and small results stay exact
            small = np.exp(-np.abs(x))
            found = np.where(x < 0, small, x.dtype.type(1)) / (1 + small)
        return found

    def __str__(self) -> str:
        return f"{self.name} {self.slope:g}" if self.name == "leaky_relu" else self.name


def apply_mask(
    array: NDArray[Any], mask: NDArray[np.bool_], out: NDArray[Any] | None = None
) -> NDArray[Any]:
    """Return an array of a floating type where mask is True, else 0, as ``np.where`` does.

    That branches for each number, and takes 26 ms for 4 million of either sign where the product of
    bits and mask takes 4 (Zen 3). A product of numbers would not be 0 for infinity and NaN.

    >>> apply_mask(np.array([np.inf, 2.0]), np.array([False, True]))
    array([0., 2.])
    """
    bits = f"i{array.dtype.itemsize}"
    out = np.empty_like(array) if out is None else out
    np.multiply(array.view(bits), mask, out=out.view(bits))
    return out


def select(mask: NDArray[np.bool_], a: NDArray[Any], b: NDArray[Any]) -> NDArray[Any]:
    """Return ``np.where(mask, a, b)`` for a and b of one floating type; b is overwritten.

    >>> select(np.array([False, True]), np.array([1.0, 2.0]), np.array([3.0, 4.0]))
    array([3., 2.])
    """
    b, bits = np.asarray(b), f"i{a.dtype.itemsize}"
    changed, result = a.view(bits) ^ b.view(bits), b.view(bits)
    changed *= mask
    result ^= changed
    return b


def as_activation(value: Any, name: str = "activation") -> Activation | None:
    """Return the activation that an argument names; None for none.

    The slope of a leaky_relu is finite and not negative: with another one y would not tell where
    its derivative is 1. One of slope 0 is a relu.

    >>> as_activation(("leaky_relu", 0.1))
    Activation(name='leaky_relu', slope=0.1)
    >>> as_activation("gelu")
    Traceback (most recent call last):
    ...
    tconv.errors.ParameterError: activation='gelu' must be None, 'relu', ('leaky_relu', slope), \
'tanh' or 'sigmoid'; pass one of these.
    """
    if value is None or isinstance(value, Activation):
        return value
    text = str.__str__(value) if issubclass(type(value), str) else None  # not a subclass's words
    if text in ACTIVATIONS and text != "leaky_relu":
        return Activation(text)
    is_pair = isinstance(value, tuple | list) and len(value) == 2 and isinstance(value[0], str)
    if is_pair and value[0] == "leaky_relu":
        slope = _as_slope(value[1], f"{name}[1]")
        return Activation("leaky_relu", slope) if slope else Activation("relu")
    is_bare = isinstance(value, str) and value == "leaky_relu"
    fix = 'pass ("leaky_relu", 0.01)' if is_bare else "pass one of these"
    raise ParameterError(
        f"{name}={show(value)} must be None, 'relu', ('leaky_relu', slope), 'tanh' or 'sigmoid'; "
        f"{fix}."
    )


def _as_slope(value: Any, name: str) -> float:
    slope = number_of(value)
    if not (math.isfinite(slope) and slope >= 0):
        raise ParameterError(
            f"{name}={show(value)} must be a finite number of at least 0, the slope below 0; pass "
            "0.01 for example."
        )
    return slope
