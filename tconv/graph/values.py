"""Values of a program: strided views of buffers, as arrays of NumPy are of memory.

Reshape, Squeeze, Slice, Split and Transpose make a view; what needs contiguous elements copies it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import accumulate
from math import prod
from operator import mul
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["Buffer", "Operand", "UnknownOperator", "Value", "contiguous_strides"]


class UnknownOperator(Exception):
    """The reason why tconv does not compute a graph; `node` names the one at fault, "" if none."""

    def __init__(self, reason: str, node: str = "") -> None:
        super().__init__(reason)
        self.node = node


@dataclass(eq=False)
class Buffer:
    """Memory of a program: an input, an output, a constant, or a part of the program's block.

    `place` is its number among the inputs or outputs. `array` holds a constant.
    """

    size: int  # in elements
    kind: str = "block"
    place: int = 0
    array: NDArray[Any] | None = None


class Value(NamedTuple):
    """A view of a buffer; offset and strides count elements of float32."""

    buffer: Buffer
    shape: tuple[int, ...]
    strides: tuple[int, ...]
    offset: int = 0

    @classmethod
    def whole(cls, shape: Sequence[int], kind: str = "block", place: int = 0) -> "Value":
        """A new buffer, of this shape."""
        shape = tuple(shape)
        return cls(Buffer(prod(shape), kind, place), shape, contiguous_strides(shape), 0)

    @classmethod
    def constant(cls, array: NDArray[Any]) -> "Value":
        """A constant; one number for all indices is kept once."""
        if array.size > 1 and not any(array.strides):
            one = np.full(1, array[(0,) * array.ndim], np.float32)
            return cls(Buffer(1, "constant", 0, one), array.shape, (0,) * array.ndim)
        array = np.require(array, np.float32, ("C", "A"))
        buffer = Buffer(array.size, "constant", 0, array)
        return cls(buffer, array.shape, contiguous_strides(array.shape))

    @property
    def rank(self) -> int:
        """The number of axes."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def is_contiguous(self) -> bool:
        """Whether elements follow each other in the order of the axes."""
        expected = contiguous_strides(self.shape)
        return self.strides == expected or all(
            size == 1 or stride == wanted
            for size, stride, wanted in zip(self.shape, self.strides, expected, strict=True)
        )

    @property
    def is_whole(self) -> bool:
        """Whether it is all of its buffer, in the order of the axes."""
        return self.offset == 0 and self.size == self.buffer.size and self.is_contiguous

    def is_same(self, other: "Value") -> bool:
        """Whether both are the same view of the same buffer, axes of one index aside."""
        if self.buffer is not other.buffer or self.offset != other.offset:
            return False
        is_equal = self.shape == other.shape and self.strides == other.strides
        return is_equal or _steps(self) == _steps(other)

    def broadcast(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Strides along the axes of a larger shape, 0 where this value is repeated."""
        missing = len(shape) - self.rank
        own = zip(self.shape, self.strides, shape[missing:], strict=True)
        return (0,) * missing + tuple([0 if size == 1 else step for size, step, _ in own])

    def reshaped(self, shape: Sequence[int]) -> "Value":
        """The same elements by another shape; the value is contiguous."""
        shape = tuple(shape)
        return self._replace(shape=shape, strides=contiguous_strides(shape))

    def transposed(self, order: Sequence[int]) -> "Value":
        """The same elements with axes in another order."""
        shape, strides = ([each[n] for n in order] for each in (self.shape, self.strides))
        return self._replace(shape=tuple(shape), strides=tuple(strides))

    def sliced(self, axis: int, start: int, count: int, step: int = 1) -> "Value":
        """`count` indices of an axis, `step` apart."""
        shape, strides = list(self.shape), list(self.strides)
        offset = self.offset + start * strides[axis]
        shape[axis], strides[axis] = count, strides[axis] * step
        return self._replace(shape=tuple(shape), strides=tuple(strides), offset=offset)


Operand = Value | NDArray[Any]
"""What a node reads: a value of the program, or a constant."""


@lru_cache(maxsize=4096)
def contiguous_strides(shape: tuple[int, ...]) -> tuple[int, ...]:
    """Elements from index to index of a C-contiguous array.

    >>> contiguous_strides((2, 3, 4))
    (12, 4, 1)
    """
    return tuple(accumulate((1, *shape[:0:-1]), mul))[::-1] if shape else ()


def _steps(value: Value) -> list[tuple[int, int]]:
    return [each for each in zip(value.shape, value.strides, strict=True) if each[0] != 1]
