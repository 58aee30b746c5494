"""Sparse attribution map: an array, and the box of a value's cells that it fills.

The attribution of one unit is zero outside the unit's receptive field; those zeros are not stored.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.deconvnet.rules.windows import Box, Interval

__all__ = [
    "SparseMap",
    "add_maps",
    "box_index",
    "cast_like",
    "clip_box",
    "sum_to_shape",
    "unbroadcast",
]


@dataclass(frozen=True)
class SparseMap:
    """``array`` (1, C, *sizes) lies at ``start`` of the spatial axes of a value of ``shape``."""

    array: NDArray[Any]
    start: tuple[int, ...]
    shape: tuple[int, ...]

    @classmethod
    def whole(cls, array: NDArray[Any]) -> "SparseMap":
        """Return a map that fills all of its value."""
        return cls(array, (0,) * max(0, array.ndim - 2), array.shape)

    @classmethod
    def at(cls, array: NDArray[Any], box: Box, shape: tuple[int, ...]) -> "SparseMap":
        """Return a map whose array begins where a box begins."""
        return cls(array, tuple(first for first, _ in box), shape)

    @property
    def box(self) -> Box:
        """First and last cell along each spatial axis."""
        return tuple(
            (first, first + size - 1)
            for first, size in zip(self.start, self.array.shape[2:], strict=True)
        )

    def with_array(self, array: NDArray[Any]) -> "SparseMap":
        """Return other numbers at the same place."""
        return SparseMap(array, self.start, self.shape)

    def part_of(self, value: NDArray[Any]) -> NDArray[Any]:
        """Return the cells that the map fills, of a value or of an array that broadcasts to it.

        >>> SparseMap(np.zeros((1, 1, 2)), (3,), (1, 1, 9)).part_of(np.arange(9).reshape(1, 1, 9))
        array([[[3, 4]]])
        """
        lacking = len(self.shape) - value.ndim
        cuts = [
            slice(None) if value.shape[n - lacking] == 1 else slice(first, last + 1)
            for n, (first, last) in enumerate(self.box, 2)
            if n >= lacking
        ]
        return value[(..., *cuts)]

    def dense(self) -> NDArray[Any]:
        """Return the whole value, with the zeros outside of the box."""
        if self.array.shape == self.shape:
            return self.array
        full = np.zeros(self.shape, self.array.dtype)
        full[box_index(self.box)] = self.array
        return full


def box_index(box: Sequence[Interval]) -> tuple[Any, ...]:
    """Return a box as an index of the spatial axes."""
    return (..., *(slice(first, last + 1) for first, last in box))


def clip_box(box: Sequence[Interval], size: Sequence[int]) -> Box:
    """Return the part of a box that lies on an array of a spatial size.

    >>> clip_box([(-2, 3), (5, 9)], (8, 8))
    ((0, 3), (5, 7))
    """
    return tuple(
        (max(0, first), min(each - 1, last)) for (first, last), each in zip(box, size, strict=True)
    )


def add_maps(a: SparseMap, b: SparseMap) -> SparseMap:
    """Add two maps of one value, in the smallest box that holds both.

    >>> one = SparseMap(np.ones((1, 1, 2)), (0,), (1, 1, 5))
    >>> add_maps(one, SparseMap(np.ones((1, 1, 2)), (1,), (1, 1, 5))).array
    array([[[1., 2., 1.]]])
    """
    if a.start == b.start and a.array.shape == b.array.shape:
        return a.with_array(a.array + b.array)
    hull = [(min(p[0], q[0]), max(p[1], q[1])) for p, q in zip(a.box, b.box, strict=True)]
    start = tuple(first for first, _ in hull)
    total = np.zeros((*a.shape[:2], *(last - first + 1 for first, last in hull)), a.array.dtype)
    for each in (a, b):
        moved = [(f - s, last - s) for (f, last), s in zip(each.box, start, strict=True)]
        total[box_index(moved)] += each.array
    return SparseMap(total, start, a.shape)


def cast_like(array: NDArray[Any], r: SparseMap) -> NDArray[Any]:
    """Return an array in the map's type."""
    return array.astype(r.array.dtype, copy=False)


def sum_to_shape(r: SparseMap, shape: tuple[int, ...]) -> SparseMap:
    """Return the attribution of an operand of this shape, which was broadcast."""
    if r.shape == shape:
        return r
    return SparseMap.whole(unbroadcast(r.dense(), shape))


def unbroadcast(array: NDArray[Any], shape: tuple[int, ...]) -> NDArray[Any]:
    """Sum over the axes along which an operand of this shape was broadcast.

    >>> unbroadcast(np.ones((2, 3)), (3,))
    array([2., 2., 2.])
    """
    extra = array.ndim - len(shape)
    array = array.sum(axis=tuple(range(extra))) if extra > 0 else array
    axes = tuple(n for n, size in enumerate(shape) if size == 1 and array.shape[n] != 1)
    return array.sum(axis=axes, keepdims=True) if axes else array
