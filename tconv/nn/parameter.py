"""Parameters: one array and its gradient each."""

import sys
from collections.abc import Mapping
from itertools import count
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.checks import as_real
from tconv.arrays.dtypes import TYPES, as_dtype, as_type_name
from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.geometry.arguments import as_array, as_integer, as_word, entries_of
from tconv.geometry.shape_rules import MOST_AXES, as_shape
from tconv.messages import show
from tconv.signatures import no_attribute
from tconv.system.memory import check_room
from tconv.system.public_pickles import reduce_by_public_name

__all__ = ["Parameter"]

_versions = count()  # of all parameters, so no two values ever share a version
_REAL = [name for name, types in TYPES.items() if not types.accumulator.startswith("complex")]
_OWN_REFERENCES = 2  # to the value: the attribute and the argument of getrefcount


class Parameter:
    """A learnt array, and its gradient, to which `Layer.backward` adds.

    Parameters
    ----------
    value : array of a floating type, copied; or None if it is not known yet
    name : str, for error messages
    shape : tuple, the shape that a value must have, None for every size not known yet
    dtype : type of the value; without a value both must be given

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
        self.name = name = as_word(name, "name")
        self._value: NDArray[Any] | None = None
        self._version = next(_versions)  # a new one whenever the value is read or set
        self._gradient: NDArray[Any] | None = None
        if value is not None:
            value = as_real(value, name)
            shape = value.shape if shape is None else shape
            dtype = value.dtype if dtype is None else dtype
        if shape is None or dtype is None:
            raise ParameterError(f"{name}=None must come with shape and dtype; pass both.")
        self.shape: tuple[int | None, ...] = _as_known_shape(shape)
        self.dtype: np.dtype[Any] = as_dtype(np, as_type_name(dtype, _REAL))
        if value is not None:
            self.value = value

    @property
    def is_filled(self) -> bool:
        """Whether it has a value."""
        return self._value is not None

    @property
    def value(self) -> NDArray[Any]:
        """The array itself, not a copy."""
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
        if value is not self._value:  # parameter.value -= step has updated it in place
            self._value = self.converted(value, self.name)
            self.shape = self._value.shape

    def peek(self) -> tuple[NDArray[Any], int | None]:
        """Return the value, for reading only, and its version: equal versions mean equal elements.

        The version is None while other references to the array or to a view exist, through which it
        may be written. Code that keeps only its address must read `value` again after writing.
        """
        if self._value is None:
            return self.value, None  # it raises the error
        references = getattr(sys, "getrefcount", lambda _: 0)(self._value)
        return self._value, self._version if references == _OWN_REFERENCES else None

    @property
    def gradient(self) -> NDArray[Any]:
        """The sum of all gradients since the last `zero_gradient`."""
        if self._gradient is None:
            value = self.value
            check_room(f"gradient of {self.name}", value.nbytes)
            self._gradient = np.zeros_like(value)
        return self._gradient

    @gradient.setter
    def gradient(self, gradient: Any) -> None:
        if gradient is not self._gradient:
            _ = self.value
            self._gradient = self.converted(gradient, f"gradient of {self.name}")

    def zero_gradient(self) -> None:
        """Set the gradient to zero."""
        if self._gradient is not None:
            self._gradient.fill(0)

    def converted(self, value: Any, name: str) -> NDArray[Any]:
        """Return `value` as a new array of this parameter's type, if its shape fits.

        The conversion may round; a finite number never becomes an infinite one.
        """
        value = as_array(value, as_word(name, "name"))
        if not self.fits(value.shape):
            raise ShapeError(
                f"{name} has shape {value.shape}, must be {self.shape}; pass such an array."
            )
        if value.dtype.name not in TYPES or value.dtype.kind == "c":
            raise DTypeError(
                f"{name} has dtype {value.dtype}, must be of real numbers; convert it."
            )
        check_room(name, value.size * self.dtype.itemsize)
        with np.errstate(over="ignore"):
            found = np.array(value, self.dtype, order="C")
        if not np.can_cast(value.dtype, self.dtype, "safe"):
            lost = np.isinf(found) & np.isfinite(value)
            if lost.any():
                raise DTypeError(
                    f"{name} holds {value[lost][0]}, which {self.dtype.name} cannot; pass smaller "
                    "numbers."
                )
        return found

    def fits(self, shape: tuple[int, ...]) -> bool:
        """Whether a value may have this shape."""
        shape = as_shape(shape, "shape")
        return len(shape) == len(self.shape) and all(
            known in (None, size) for known, size in zip(self.shape, shape, strict=True)
        )

    __reduce_ex__ = reduce_by_public_name

    if not TYPE_CHECKING:  # for type checkers a class has the attributes that it names

        def __getattr__(self, name: str) -> Any:
            raise no_attribute(self, name)

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        # Set the state of a copy or a pickle, with a version of its own.
        vars(self).update(state)
        self._version = next(_versions)

    def __repr__(self) -> str:
        return f"Parameter({self.name}: {self.dtype.name} {self.shape})"


def _as_known_shape(shape: Any) -> tuple[int | None, ...]:
    entries = entries_of(shape)
    if entries is None or len(entries) > MOST_AXES + 2:
        raise ParameterError(
            f"shape={show(shape)} must be a tuple of integers, None for what is not known; pass "
            "one."
        )
    sizes = enumerate(entries)
    return tuple(s if s is None else as_integer(s, f"shape[{n}]", 0) for n, s in sizes)
