"""Reduction blocks of the weight gradient, and the panel of the cells of y that one reads.

Along one axis, cell i of x and tap k read y at ``i*stride - padding_begin + k*dilation``. In a
panel each tap is a fixed offset. For dot kernels, whose lanes are cells, neighbours of x must be
neighbours in the panel: it holds the residue classes of y modulo the stride, one after the other.
For rank-1 kernels it holds the cells in the order of y, which is faster to copy, or residue classes
where some of these are not read at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.engine.direct.offsets import grid, residue_classes
from tconv.engine.plan.phases import as_three
from tconv.geometry.axis import Axis
from tconv.system.fork_lock import cached_property

__all__ = ["Panel", "Reach", "ReductionBlock"]


class ReductionBlock(NamedTuple):
    """A k-block: cells of x that are whole images, or whole planes, rows or columns of one.

    >>> ReductionBlock.of(64, (1, 8, 6), 100)
    ReductionBlock(images=2, planes=1, rows=8, columns=6)
    """

    images: int
    planes: int
    rows: int
    columns: int

    @classmethod
    def of(cls, batch: int, size: Sequence[int], cells: int) -> "ReductionBlock":
        """Return blocks of at most so many cells, nearly equal in size."""
        found, inner = [1, 1, 1, 1], 1
        for n, count in reversed(list(enumerate((batch, *size)))):
            most = max(1, cells // inner)
            found[n] = ceil(count / ceil(count / most))
            inner *= count
            if found[n] < count:
                break
        return cls(*found)

    @property
    def cells(self) -> int:
        """Number of cells."""
        return prod(self)


@dataclass(frozen=True)
class Reach:
    """The cells of y that x reads along one axis, by residue classes.

    A class has the cells ``n*step + first`` of y. Cell i of x and a tap read its cell
    ``i*spacing + place``.

    >>> Reach.of(Axis(input=4, kernel=4, output=8, stride=2, begin=1, end=1), True).taps
    ((1, -1), (0, 0), (1, 0), (0, 1))
    """

    count: int  # cells of x
    size: int  # cells of y
    step: int
    spacing: int
    residue_classes: tuple[int, ...]
    taps: tuple[tuple[int, int], ...]  # the class and the place of each
    low: int  # the least and the greatest place
    high: int

    @classmethod
    def of(cls, axis: Axis, is_parted: bool) -> "Reach":
        """Return the reach, with all cells in one class unless `is_parted`."""
        step = axis.stride if is_parted and axis.input > 1 else 1
        spaced = axis._replace(stride=step)
        found = [spaced.phase_and_shift(tap) for tap in range(axis.kernel)]
        residue_classes = tuple(sorted({first for first, _ in found}))
        taps = tuple((residue_classes.index(first), place) for first, place in found)
        places = [place for _, place in found]
        spacing = axis.stride // step if axis.input > 1 else 1
        return cls(
            axis.input, axis.output, step, spacing, residue_classes, taps, min(places), max(places)
        )

    def span(self, count: int) -> int:
        """Return the cells of a class that so many neighbours of x read."""
        return (count - 1) * self.spacing + 1 + self.high - self.low

    def pitch(self, columns: int) -> int:
        """Return the cells from one row of the panel to the next.

        Whole rows share the zeros between them: they pad the end of one and the beginning of the
        next. Cells of x that are cropped read these zeros, and have places of their own, too.
        """
        span = self.span(columns)
        if columns < self.count or self.low > 0:
            return span
        cells = min(-(-self.size // self.step), span + self.low)
        return max(span + self.low, cells - self.low, columns)


@dataclass(frozen=True)
class Panel:
    """The residue classes of one channel of y that a k-block reads."""

    reaches: tuple[Reach, Reach, Reach]
    k_block: ReductionBlock
    lanes: int  # of a vector

    @classmethod
    def of(
        cls, axes: tuple[Axis, ...], k_block: ReductionBlock, lanes: int, is_dot: bool
    ) -> "Panel":
        """Return the panel for dot kernels or for rank-1 kernels."""
        found = []
        for axis in as_three(axes):
            reach = Reach.of(axis, True)
            whole = reach if is_dot else Reach.of(axis, False)
            read = len(reach.residue_classes) * reach.span(axis.input)
            found.append(whole if is_dot or whole.span(axis.input) <= 2 * read else reach)
        z, y, x = found
        return cls((z, y, x), k_block, lanes)

    @cached_property
    def size(self) -> tuple[int, int, int, int]:
        """Images, planes, rows and columns of a class."""
        (z, y, x), (images, planes, rows, columns) = self.reaches, self.k_block
        return images, z.span(planes), y.span(rows), x.pitch(columns)

    @cached_property
    def residue_classes(self) -> int:
        """Number of residue classes."""
        return prod(len(reach.residue_classes) for reach in self.reaches)

    @cached_property
    def residue_class_cells(self) -> int:
        """Elements from one class to the next."""
        return prod(self.size)

    @cached_property
    def cells(self) -> int:
        """Elements from one channel to the next."""
        return self.residue_classes * self.residue_class_cells

    @cached_property
    def room(self) -> int:
        """Elements after the last class that are read or written.

        The zeros at a row's end may be those before the next row, and kernels access whole vectors.
        """
        return 2 * self.lanes + max(-self.reaches[2].low, 0)

    @cached_property
    def lane_count(self) -> int:
        """Places from the first cell of a whole k-block to the last one."""
        return int(self._places([range(n - 1, n) for n in self.k_block])[0]) + 1

    def places(self) -> NDArray[np.int32]:
        """Return the place of each cell of a k-block in a class."""
        return self._places([range(n) for n in self.k_block]).astype(np.int32)

    def _places(self, cells: Sequence[range]) -> NDArray[np.int64]:
        spacings = (1, *(reach.spacing for reach in self.reaches))
        places = [np.array(each) * spacing for each, spacing in zip(cells, spacings, strict=True)]
        return grid(places, self.size)

    def first_cells(self) -> NDArray[np.int64]:
        """Return where each class begins in a channel of y, and its planes, rows and columns."""
        reaches = self.reaches
        return residue_classes(
            [reach.residue_classes for reach in reaches],
            [reach.size for reach in reaches],
            [reach.step for reach in reaches],
        )

    def taps(self) -> NDArray[np.int64]:
        """Return the offset of each tap in the panel of a channel, for a cell at place 0."""
        of_taps = [
            np.array([residue_class for residue_class, _ in reach.taps]) for reach in self.reaches
        ]
        places = [
            np.array([place for _, place in reach.taps]) - reach.low for reach in self.reaches
        ]
        residue_class = grid(of_taps, [len(reach.residue_classes) for reach in self.reaches])
        return residue_class * self.residue_class_cells + grid(places, self.size[1:])
