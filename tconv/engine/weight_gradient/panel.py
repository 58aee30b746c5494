"""WHICH CELLS ARE SUMMED AT A TIME FOR w: chunks of x, and the panel of what they meet of y.

Along one axis, cell i of x and tap k meet at ``i*stride - padding_begin + k*dilation``. In a panel
a tap is a step to another cell. If lanes are cells, neighbours must be so in the panel, too: then
it has the lattices of cells that are a stride apart, one after the other. Else it has the cells as
they lie, which are quicker to copy, or their lattices where some of these are not met at all.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from math import ceil, prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.engine.direct.offsets import grid, lattices
from tconv.engine.plan.phases import as_three
from tconv.geometry.axis import Axis
from tconv.system.fork_lock import cached_property

__all__ = ["ReductionBlock", "Panel", "Reach"]


class ReductionBlock(NamedTuple):
    """Cells of x: whole images, or some whole planes of one, or some whole rows, or part of one.

    >>> ReductionBlock.of(64, (1, 8, 6), 100)
    Chunk(images=2, planes=1, rows=8, columns=6)
    """

    images: int
    planes: int
    rows: int
    columns: int

    @classmethod
    def of(cls, batch: int, size: Sequence[int], cells: int) -> "ReductionBlock":
        """At most so many cells, in chunks that are nearly equal."""
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
        """How many there are."""
        return prod(self)


@dataclass(frozen=True)
class Reach:
    """What x meets of y along one axis: cells ``n*step + first`` are a lattice, for each `first`.

    Cell i of x and a tap meet cell ``i*spacing + place`` of a lattice.

    >>> Reach.of(Axis(input=4, kernel=4, output=8, stride=2, begin=1, end=1), True).taps
    ((1, -1), (0, 0), (1, 0), (0, 1))
    """

    count: int  # cells of x
    size: int  # cells of y
    step: int
    spacing: int
    lattices: tuple[int, ...]
    taps: tuple[tuple[int, int], ...]  # for each the lattice and the place
    low: int  # the least and the largest place
    high: int

    @classmethod
    def of(cls, axis: Axis, is_parted: bool) -> "Reach":
        """The reach with lattices or, where nothing speaks for them, without."""
        step = axis.stride if is_parted and axis.input > 1 else 1
        found = [divmod(tap * axis.dilation - axis.begin, step) for tap in range(axis.kernel)]
        lattices = tuple(sorted({first for _, first in found}))
        taps = tuple((lattices.index(first), place) for place, first in found)
        places = [place for place, _ in found]
        spacing = axis.stride // step if axis.input > 1 else 1
        return cls(axis.input, axis.output, step, spacing, lattices, taps, min(places), max(places))

    def span(self, count: int) -> int:
        """Cells of a lattice that so many neighbours meet."""
        return (count - 1) * self.spacing + 1 + self.high - self.low

    def pitch(self, columns: int) -> int:
        """Cells from one row to the next.

        Rows that are whole have zeros between them once, for the end of one and the beginning of
        the next. Cells of x that are cropped meet these, and have places of their own, too.
        """
        span = self.span(columns)
        if columns < self.count or self.low > 0:
            return span
        cells = min(-(-self.size // self.step), span + self.low)
        return max(span + self.low, cells - self.low, columns)


@dataclass(frozen=True)
class Panel:
    """The lattices of a channel of y that the cells of a chunk meet."""

    reaches: tuple[Reach, Reach, Reach]
    k_block: ReductionBlock
    lanes: int  # of a vector

    @classmethod
    def of(
        cls, axes: tuple[Axis, ...], k_block: ReductionBlock, lanes: int, is_dot: bool
    ) -> "Panel":
        """The panel for lanes that are cells, or for others."""
        found = []
        for axis in as_three(axes):
            reach = Reach.of(axis, True)
            whole = reach if is_dot else Reach.of(axis, False)
            met = len(reach.lattices) * reach.span(axis.input)
            found.append(whole if is_dot or whole.span(axis.input) <= 2 * met else reach)
        z, y, x = found
        return cls((z, y, x), k_block, lanes)

    @cached_property
    def size(self) -> tuple[int, int, int, int]:
        """Images, planes, rows and columns of a lattice."""
        (z, y, x), (images, planes, rows, columns) = self.reaches, self.k_block
        return images, z.span(planes), y.span(rows), x.pitch(columns)

    @cached_property
    def lattices(self) -> int:
        """Number of lattices."""
        return prod(len(reach.lattices) for reach in self.reaches)

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
        return 2 * self.lanes + max(-self.reaches[2].low, 0)

    @cached_property
    def lane_count(self) -> int:
        """Places from the first cell of a whole chunk to the last one."""
        return int(self._places([range(n - 1, n) for n in self.k_block])[0]) + 1

    def places(self) -> NDArray[np.int32]:
        """Where each cell of a chunk is in a lattice."""
        return self._places([range(n) for n in self.k_block]).astype(np.int32)

    def _places(self, cells: Sequence[range]) -> NDArray[np.int64]:
        spacings = (1, *(reach.spacing for reach in self.reaches))
        places = [np.array(each) * spacing for each, spacing in zip(cells, spacings, strict=True)]
        return grid(places, self.size)

    def first_cells(self) -> NDArray[np.int64]:
        """For every lattice where it begins in a channel of y, and its planes, rows and columns."""
        reaches = self.reaches
        return lattices(
            [reach.lattices for reach in reaches],
            [reach.size for reach in reaches],
            [reach.step for reach in reaches],
        )

    def taps(self) -> NDArray[np.int64]:
        """Where in a channel each tap is for a cell at place 0."""
        of_taps = [np.array([lattice for lattice, _ in reach.taps]) for reach in self.reaches]
        places = [
            np.array([place for _, place in reach.taps]) - reach.low for reach in self.reaches
        ]
        lattice = grid(of_taps, [len(reach.lattices) for reach in self.reaches])
        return lattice * self.lattice_cells + grid(places, self.size[1:])
