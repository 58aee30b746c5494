"""WHAT IS LEARNT: one array and its gradient; what layers accept as arrays and as arguments."""

import math
import sys
from collections.abc import Mapping
from itertools import count
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.arguments import as_per_axis, show
from tconv.dtypes import TYPES, USUAL, dtype_name
from tconv.errors import DTypeError, ParameterError, ShapeError, UnsupportedError
from tconv.operands import as_operands, library_of, refuse_mask

__all__ = ["Parameter", "as_gradient", "as_kernel_size", "as_number", "as_real"]

_versions = count()  # of all parameters: no two have the same, so one is not taken for the other
_OWN_REFERENCES = 2  # to the value: the attribute, and the argument of the function that counts


class Parameter:
    """An array that is learnt, and the gradient that `Layer.backward` adds up for it.

    Parameters
    ----------
    value : array of a floating type, copied; or None if it is not known yet
    name : str, what error messages call it
    shape : tuple, for ``value=None``: the shape, None for every size not known yet
    dtype : type, for ``value=None``

    Attributes
    ----------
    value : array; assigning copies, converts to `dtype` and never changes a known shape
    gradient : array of the same shape and type, zero until `Layer.backward` adds to it
    shape, dtype, name

    >>> weight = Parameter(np.array([1.0, 2.0]), "weight")
    >>> weight.gradient += 3.0
    >>> weight.gradient
    array([3., 3.])
    >>> weight
    Parameter(weight: float64 (2,))
    """

    def __init__(
        self,
        value: Any,
        name: str = "parameter",
        *,
        shape: tuple[int | None, ...] | None = None,
        dtype: Any = None,
    ) -> None:
        self.name = name
        self._value: NDArray[Any] | None = None
        self._version = next(_versions)  # another whenever the value is handed out or set
        self._gradient: NDArray[Any] | None = None
        if value is not None:
            value = as_real(value, name)
            shape, dtype = value.shape, value.dtype
        if shape is None or dtype is None:
            raise ParameterError(f"{name}=None must come with shape and dtype; pass both.")
        self.shape: tuple[int | None, ...] = shape
        self.dtype: np.dtype[Any] = np.dtype(dtype)
        if value is not None:
            self.value = value

    @property
    def is_filled(self) -> bool:
        """Whether there is a value."""
        return self._value is not None

    @property
    def value(self) -> NDArray[Any]:
        """The numbers."""
        if self._value is None:
            raise ParameterError(
                f"{self.name} has no value yet, in_channels=None is filled at the first forward; "
                "call forward(x) or predict(x) first, or pass in_channels."
            )
        self._version = next(_versions)
        return self._value

    @value.setter
    def value(self, value: Any) -> None:
        self._version = next(_versions)
        if value is not self._value:  # parameter.value -= step has written already
            self._value = self.converted(value, self.name)
            self.shape = self._value.shape

    def peek(self) -> tuple[NDArray[Any], int | None]:
        """Return the value, only to be read, and its version: while that stays, so do the numbers.

        The version is None while somebody else holds the array, or a view, and may write to it. Who
        holds nothing but its address has to ask for the value again after writing.
        """
        if self._value is None:
            return self.value, None  # which says what is wrong
        references = getattr(sys, "getrefcount", lambda _: 0)(self._value)
        return self._value, self._version if references == _OWN_REFERENCES else None

    @property
    def gradient(self) -> NDArray[Any]:
        """The sum of all gradients since the last `zero_gradient`."""
        if self._gradient is None:
            self._gradient = np.zeros_like(self.value)
        return self._gradient

    @gradient.setter
    def gradient(self, gradient: Any) -> None:
        if gradient is not self._gradient:
            _ = self.value
            self._gradient = self.converted(gradient, f"gradient of {self.name}")

    def zero_gradient(self) -> None:
        """Start the sum of gradients anew."""
        if self._gradient is not None:
            self._gradient.fill(0)

    def converted(self, value: Any, name: str) -> NDArray[Any]:
        """Return `value` as a new array of this parameter's type, if its shape fits."""
        refuse_mask(value, name)
        value = np.asarray(value)
        if not self.fits(value.shape):
            raise ShapeError(
                f"{name} has shape {value.shape}, must be {self.shape}; pass such an array."
            )
        if value.dtype.name not in TYPES or value.dtype.kind == "c":
            raise DTypeError(
                f"{name} has dtype {value.dtype}, must be of real numbers; convert it."
            )
        return np.array(value, self.dtype, order="C")

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a value may have this shape."""
        return len(shape) == len(self.shape) and all(
            known in (None, size) for known, size in zip(self.shape, shape, strict=True)
        )

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        """Become a copy, or what was pickled: whose numbers may differ from now on."""
        vars(self).update(state)
        self._version = next(_versions)

    def __repr__(self) -> str:
        return f"Parameter({self.name}: {self.dtype.name} {self.shape})"


def as_real(value: Any, name: str, *, floating: bool = True) -> NDArray[Any]:
    """Return a NumPy array of real numbers, without `floating` also of integers.

    >>> as_real(np.array([1 + 2j]), "x")
    Traceback (most recent call last):
    ...
    tconv.errors.DTypeError: x has dtype complex128, layers need a floating type; pass \
x.astype("float32") for example.
    """
    if type(value) is np.ndarray and value.dtype in USUAL:
        return value
    if not hasattr(value, "dtype"):
        _, (value,) = as_operands({name: value})
    found = dtype_name(value.dtype)
    types = TYPES.get(found)
    if types is None or types.accumulator.startswith("complex") or (floating and types.is_integer):
        raise DTypeError(
            f"{name} has dtype {found}, layers need a {'floating' if floating else 'real'} type; "
            f'pass {name}.astype("float32") for example.'
        )
    xp, (array,) = as_operands({name: value})
    if xp is not np:
        raise UnsupportedError(
            f"{name} is an array of {library_of(value)}, layers compute on NumPy; pass "
            f"numpy.asarray({name})."
        )
    return array  # type: ignore[no-any-return]


def as_gradient(dy: Any, shape: tuple[int, ...], dtype: Any) -> NDArray[Any]:
    """Return dy as a NumPy array if it has y's shape and type."""
    gradient = as_real(dy, "dy")
    if gradient.shape != shape:
        raise ShapeError(f"dy has shape {gradient.shape}, must be that of y, {shape}; reshape dy.")
    if gradient.dtype != dtype:
        raise DTypeError(
            f'dy has dtype {gradient.dtype}, must be that of y, {dtype}; pass dy.astype("{dtype}").'
        )
    return gradient


def as_number(value: Any, name: str, low: float = -math.inf, below: float = math.inf) -> float:
    """Return a finite Python float of at least `low` and below `below`.

    >>> as_number(-1, "lr", 0)
    Traceback (most recent call last):
    ...
    tconv.errors.ParameterError: lr=-1 must be a finite number of at least 0; pass one.
    """
    try:
        number = math.nan if isinstance(value, str | bytes) else float(value)
    except (TypeError, ValueError, OverflowError):
        number = math.nan
    if not (math.isfinite(number) and low <= number < below):
        rule = "" if low == -math.inf else f" of at least {low:g}"
        rule += "" if below == math.inf else f" and below {below:g}"
        raise ParameterError(f"{name}={show(value)} must be a finite number{rule}; pass one.")
    return number


def as_kernel_size(value: Any, rank: int | None, name: str = "kernel_size") -> tuple[int, ...]:
    """Return one size per spatial axis; where `rank` is None the number of sizes sets the rank.

    >>> as_kernel_size(3, 2), as_kernel_size((1, 3, 3), None)
    ((3, 3), (1, 3, 3))
    """
    if rank is None:
        if isinstance(value, str) or not hasattr(value, "__len__") or not len(value):
            raise ParameterError(
                f"{name}={show(value)} must be a tuple, whose length is the number of spatial "
                "axes; pass (3, 3) for two of them."
            )
        rank = len(value)
    return as_per_axis(value, name, rank, 1)
