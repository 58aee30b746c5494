"""Phase grid: output cells as rows and phases, and the groups of phases that share a window.

With ``f = o + begin = q*stride + r`` every output cell has a row q and a phase r (see axis.py). A
*phase group* is one band of phases per axis: the same shifts reach all its cells, so one matrix
product computes them.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import chain, product
from math import prod
from typing import NamedTuple

from tconv.geometry.axis import Axis, Band, bands

__all__ = ["Grid", "PhaseGroup"]


class PhaseGroup(NamedTuple):
    """One band of phases per axis; the same shifts reach all of them."""

    bands: tuple[Band, ...]

    @property
    def starts(self) -> tuple[int, ...]:
        """First phase on every axis."""
        return tuple(band.start for band in self.bands)

    @property
    def widths(self) -> tuple[int, ...]:
        """Number of phases on every axis."""
        return tuple(band.width for band in self.bands)

    @property
    def counts(self) -> tuple[int, ...]:
        """Number of shifts on every axis."""
        return tuple(len(band.shifts) for band in self.bands)

    @property
    def shifts(self) -> list[tuple[int, ...]]:
        """Every shift, the last axis running fastest."""
        return list(product(*(band.shifts for band in self.bands)))

    @property
    def reached(self) -> bool:
        """Whether any tap reaches these phases."""
        return self.sizes[0] > 0

    @property
    def low(self) -> tuple[int, ...]:
        """Smallest shift on every axis."""
        return tuple(band.shifts[0] for band in self.bands)

    @property
    def spans(self) -> tuple[int, ...]:
        """Largest minus smallest shift on every axis."""
        return tuple(band.shifts[-1] - band.shifts[0] for band in self.bands)

    @property
    def taps(self) -> tuple[tuple[int, ...], ...]:
        """Tap numbers on every axis in (shift, phase) order."""
        return tuple(tuple(chain.from_iterable(band.taps)) for band in self.bands)

    @property
    def sizes(self) -> tuple[int, int]:
        """(shifts, phases) over all axes."""
        return prod(self.counts), prod(self.widths)


class Grid(NamedTuple):
    """Rows and phases of every axis.

    >>> grid = Grid.of((Axis(input=4, kernel=3, output=7, stride=2, begin=1, end=1),))
    >>> grid.rows, grid.first, grid.crop_offset  # f = 1..7 lies in rows 0..3, one cell into row 0
    ((4,), (0,), (1,))
    """

    strides: tuple[int, ...]
    begins: tuple[int, ...]
    rows: tuple[int, ...]
    bands: tuple[tuple[Band, ...], ...]

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, axes: tuple[Axis, ...]) -> "Grid":
        """Lay out the outputs of `axes`; see `_stride` for a single input."""
        strides = tuple(_stride(axis) for axis in axes)
        begins = tuple(axis.begin for axis in axes)
        rows = tuple(
            (axis.begin + axis.output - 1) // s - axis.begin // s + 1
            for axis, s in zip(axes, strides, strict=True)
        )
        found = tuple(
            bands(axis.kernel, s, axis.dilation) for axis, s in zip(axes, strides, strict=True)
        )
        return cls(strides, begins, rows, found)

    @property
    def first(self) -> tuple[int, ...]:
        """Row that holds output cell 0, per axis."""
        return tuple(begin // s for begin, s in zip(self.begins, self.strides, strict=True))

    @property
    def crop_offset(self) -> tuple[int, ...]:
        """Cells of the first row before output cell 0, per axis."""
        return tuple(begin % s for begin, s in zip(self.begins, self.strides, strict=True))

    def cells(
        self, rows: Sequence[slice], output_size: Sequence[int]
    ) -> tuple[list[slice], list[slice]]:
        """Output cells of a run of rows per axis, and their places among the cells of the rows."""
        cells, kept = [], []
        for run, s, crop_offset, size in zip(
            rows, self.strides, self.crop_offset, output_size, strict=True
        ):
            start = run.start * s - crop_offset
            low, high = max(start, 0), min(run.stop * s - crop_offset, size)
            cells.append(slice(low, high))
            kept.append(slice(low - start, high - start))
        return cells, kept

    def phase_groups(self) -> list[PhaseGroup]:
        """Every phase group, the last axis running fastest."""
        return [PhaseGroup(chosen) for chosen in product(*self.bands)]


def _stride(axis: Axis) -> int:
    """Stride of the grid along an axis; for one input cell its reach, which has no overlap."""
    return axis.reach if axis.input == 1 else axis.stride
