"""WHICH CELLS ARE SUMMED AT A TIME FOR w: chunks of x, and how they and what they meet lie in panels.

A chunk is summed in registers. Its panel of y has the lattices that a stride leaves, as the panel
of a convolution does, each with the zeros around it and image after image; so a tap is a step to
another cell. A cell of x has the place in such a lattice that its first tap would read.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.engine.phases import AxisPhases

__all__ = ["Chunk", "Panel"]


class Chunk(NamedTuple):
    """Cells of x: whole images, or some whole planes of one, or some whole rows, or part of one.

    >>> Chunk.of(64, (1, 8, 6), 100)
    Chunk(images=2, planes=1, rows=8, columns=6)
    """

    images: int
    planes: int
    rows: int
    columns: int

    @classmethod
    def of(cls, batch: int, size: Sequence[int], cells: int) -> "Chunk":
        """About so many cells, at most, in chunks that are nearly equal."""
        found, inner = [1, 1, 1, 1], 1
        for n, count in reversed(list(enumerate((batch, *size)))):
            most = max(1, cells // inner)
            found[n] = ceil(count / ceil(count / most))
            inner *= count
            if found[n] < count:
                break
        return cls(*found)


@dataclass(frozen=True)
class Panel:
    """The lattices of a channel of y that the cells of a chunk meet."""

    axes: tuple[AxisPhases, AxisPhases, AxisPhases]
    chunk: Chunk
    lanes: int  # of a vector

    @cached_property
    def size(self) -> tuple[int, int, int, int]:
        """Images, planes, rows and columns of a lattice."""
        (z, y, x), (images, planes, rows, columns) = self.axes, self.chunk
        return images, planes + z.high - z.low, rows + y.high - y.low, x.pitch(columns)

    @cached_property
    def lattices(self) -> int:
        """Number of lattices."""
        return prod(len(axis.lattices) for axis in self.axes)

    @cached_property
    def lattice_cells(self) -> int:
        """Numbers from one lattice to the next."""
        return prod(self.size)

    @cached_property
    def cells(self) -> int:
        """Numbers from one channel to the next."""
        return self.lattices * self.lattice_cells

    @cached_property
    def room(self) -> int:
        """Numbers after the last lattice that are read or written.

        The zeros at a row's end may be those before the next row, and vectors are whole.
        """
        return 2 * self.lanes + max(self.axes[2].high, 0)

    @cached_property
    def lane_count(self) -> int:
        """Places from the first cell of a whole chunk to the last one."""
        return int(_grid([np.array([n - 1]) for n in self.chunk], self.size)[0]) + 1

    @cached_property
    def chunk_cells(self) -> int:
        """Cells of a whole chunk."""
        return prod(self.chunk)

    def places(self) -> NDArray[np.int32]:
        """Where each cell of a chunk is in a lattice."""
        return _grid([np.arange(n) for n in self.chunk], self.size).astype(np.int32)

    def first_cells(self) -> NDArray[np.int64]:
        """For every lattice where it begins in a channel of y, and its planes, rows and columns."""
        z, y, x = self.axes
        entries = []
        for first in product(z.lattices, y.lattices, x.lattices):
            start = (first[0] * y.input + first[1]) * x.input + first[2]
            sizes = [
                max(0, -(-(axis.input - n) // axis.step))
                for axis, n in zip(self.axes, first, strict=True)
            ]
            entries.append((start, *sizes))
        return np.array(entries, np.int64)

    def taps(self) -> NDArray[np.int64]:
        """Where in a channel each tap is for a cell at place 0."""
        places, lattices = [], []
        for axis in self.axes:
            back, first = np.divmod(-np.array([n for _, n in axis.taps[0]]), axis.step)
            places.append(axis.high + back)
            lattices.append(np.array([axis.lattices.index(n) for n in first]))
        lattice = _grid(lattices, [len(axis.lattices) for axis in self.axes])
        return lattice * self.lattice_cells + _grid(places, self.size[1:])


def _grid(places: Sequence[NDArray[Any]], sizes: Sequence[int]) -> NDArray[np.int64]:
    """Flat indices of all combinations of places along each axis."""
    found = np.zeros(1, np.int64)
    for of_axis, size in zip(places, sizes, strict=True):
        found = (found[:, np.newaxis] * size + of_axis).ravel()
    return found
