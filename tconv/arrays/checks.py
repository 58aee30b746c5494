"""Checks of the arrays and kernel sizes that layers and poolings are given."""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.dtypes import NATIVE_DTYPES, TYPES, type_name
from tconv.arrays.operands import as_operands, library_of
from tconv.errors import DTypeError, ParameterError, ShapeError, UnsupportedError
from tconv.geometry.arguments import as_per_axis, entries_of
from tconv.geometry.shape_rules import MOST_AXES
from tconv.messages import show

__all__ = ["as_gradient", "as_kernel_size", "as_real"]


def as_real(value: Any, name: str, *, floating: bool = True) -> NDArray[Any]:
    """Return a NumPy array of a floating type; ``floating=False`` allows integers too.

    >>> as_real(np.array([1 + 2j]), "x")
    Traceback (most recent call last):
    ...
    tconv.errors.DTypeError: x has dtype complex128, layers need a floating type; pass \
x.astype("float32") for example.
    """
    if type(value) is np.ndarray and value.dtype in NATIVE_DTYPES:
        return value
    if not hasattr(value, "dtype"):
        _, (value,) = as_operands({name: value})
    found = type_name(value.dtype)
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


def as_kernel_size(value: Any, rank: int | None, name: str = "kernel_size") -> tuple[int, ...]:
    """Return one size per spatial axis; if `rank` is None, the number of sizes is the rank.

    >>> as_kernel_size(3, 2), as_kernel_size((1, 3, 3), None)
    ((3, 3), (1, 3, 3))
    """
    if rank is None:
        entries = entries_of(value)
        if not entries or len(entries) > MOST_AXES:
            raise ParameterError(
                f"{name}={show(value)} must be a tuple, whose length is the number of spatial "
                "axes; pass (3, 3) for two of them."
            )
        rank = len(entries)
    return as_per_axis(value, name, rank, 1)
