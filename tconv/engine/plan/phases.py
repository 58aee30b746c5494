"""Phases of the outputs, and phase groups: phases that share their shifts.

Along one axis output ``q*stride + phase`` reads cell ``q*step - shift`` for every tap of its phase
(cropped coordinates: q and phase count from the first output that is kept). A transposed
convolution has a stride and a step of 1, a convolution the opposite. Phases with the same shifts
read the same cells and differ in their weights only, so they are rows of one matrix product.
"""

from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise, product
from math import prod
from typing import NamedTuple

from tconv.geometry.axis import Axis
from tconv.geometry.geometry import Letter
from tconv.system.fork_lock import cached_property

__all__ = ["AxisPhases", "PhaseGroup", "Phases", "Run", "Taps", "as_three", "is_single"]

_MOST_SPACING = 8  # with more the input transform costs more than the products it saves

Taps = tuple[tuple[tuple[int, int], ...], ...]
"""For every phase its (tap, shift) pairs."""


class Run(NamedTuple):
    """Places q of a phase that the same taps reach, and these taps by their place in the phase."""

    places: tuple[int, ...]
    taps: tuple[int, ...]


@dataclass(frozen=True)
class AxisPhases:
    """The phases of one axis: for each its (tap, shift) pairs.

    The cells that are read fall into `step` residue classes: cell ``n*step + first`` is the nth of
    the class of `first`.

    >>> axis = Axis(input=4, kernel=4, output=8, stride=2, begin=1, end=1)
    >>> AxisPhases.of(axis).taps
    (((1, 0), (3, 1)), ((0, -1), (2, 0)))
    >>> AxisPhases.of(axis, "x").taps
    (((0, 1), (1, 0), (2, -1), (3, -2)),)
    """

    input: int  # cells to read
    kernel: int
    stride: int
    step: int
    count: int  # places q, from 0 to count - 1
    taps: Taps
    shifts: tuple[int, ...]  # all that occur, the largest first
    residue_classes: tuple[int, ...]  # that are read, by their first cells
    low: int  # the least and the largest shift, in steps
    high: int

    @classmethod
    def of(cls, axis: Axis, want: Letter = "y") -> "AxisPhases":
        """Sort the taps of an axis by the phases of y, or of x, whichever is wanted."""
        if want == "x":  # every cell of x reads all taps
            step = axis.stride if axis.input > 1 else 1
            taps = _taps_of_x(axis.kernel, axis.dilation, axis.begin)
            return cls(axis.output, axis.kernel, 1, step, axis.input, taps, *_read(taps, step))
        single = is_single(axis)
        stride = axis.output if single else axis.stride
        if single:
            taps = _taps_of_single(axis)
        else:
            taps = _taps_of_phases(axis._replace(input=1, output=1, end=0, extra=0))
        count = -(-axis.output // stride)
        return cls(axis.input, axis.kernel, stride, 1, count, taps, *_read(taps, 1))

    def unrolled(self, outputs: int) -> "AxisPhases":
        """The same with `outputs` times more phases, and fewer places q."""
        taps = _unrolled(self.taps, self.step, outputs)
        count = -(-self.count // outputs)
        stride, step = self.stride * outputs, self.step * outputs
        return AxisPhases(self.input, self.kernel, stride, step, count, taps, *_read(taps, step))

    def residue(self, shift: int) -> tuple[int, int]:
        """Steps to the cell that a shift reads at q = 0, and the first cell of its class."""
        return _residue(shift, self.step)

    @property
    def spacing(self) -> int:
        """Steps between neighbouring cells that a phase reads in a residue class; 1 if they vary.

        >>> AxisPhases.of(Axis(input=9, kernel=3, output=13, dilation=2)).spacing
        2
        """
        return _spacing(self.taps, self.step)

    @property
    def unsized(self) -> "AxisPhases":
        """The same for an axis without cells: what does not depend on sizes."""
        kept = self.shifts, self.residue_classes, self.low, self.high
        return AxisPhases(0, self.kernel, self.stride, self.step, 0, self.taps, *kept)

    @property
    def residue_class_cells(self) -> int:
        """Cells of the longest residue class."""
        return -(-self.input // self.step)

    def cells(self, count: int) -> int:
        """Cells of x that `count` neighbouring places q read, at most; all cells for all places."""
        return self.input if count == self.count else min(self.input, count + self.high - self.low)

    def pitch(self, columns: int) -> int:
        """Cells from one row of `columns` lanes to the next, with the zeros around them.

        Whole rows share the zeros between the end of one and the beginning of the next.
        """
        if columns < self.count or self.high < 0:
            return columns + self.high - self.low
        cells = min(self.residue_class_cells, columns - self.low)
        return max(columns, columns - self.low, cells + self.high)

    def runs(self, phase: int, size: int) -> list[Run]:
        """Sort the outputs of a phase by the taps that reach a cell; the axis has `size` outputs.

        >>> AxisPhases.of(Axis(input=4, kernel=4, output=8, stride=2, begin=1, end=1)).runs(0, 8)
        [Run(places=(0,), taps=(0,)), Run(places=(1, 2, 3), taps=(0, 1))]
        """
        count, step = max(0, -(-(size - phase) // self.stride)), self.step
        reach = []  # for every tap the first q whose cell is in x, and the first one beyond
        for _, shift in self.taps[phase]:
            begin, end = -(-shift // step), (self.input - 1 + shift) // step + 1
            reach.append((min(max(begin, 0), count), min(max(end, 0), count)))
        found: dict[tuple[int, ...], list[int]] = {}
        for begin, end in pairwise(sorted({0, count}.union(*reach))):
            reached = tuple(n for n, (a, b) in enumerate(reach) if a <= begin < b)
            found.setdefault(reached, []).extend(range(begin, end))
        return [Run(tuple(places), taps) for taps, places in found.items()]

    def groups(self) -> dict[tuple[int, ...], list[int]]:
        """The phases by their shifts."""
        return _groups(self.taps)


@dataclass(frozen=True)
class PhaseGroup:
    """Phases that share their shifts: ``phases`` as (z, y, x), ``shifts`` by axis."""

    phases: tuple[tuple[int, int, int], ...]
    shifts: tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]]

    @property
    def taps(self) -> int:
        """Taps of each phase."""
        return prod(map(len, self.shifts))


@dataclass(frozen=True)
class Phases:
    """The phases of a problem of up to three axes, seen as three: depth, height, width."""

    axes: tuple[AxisPhases, AxisPhases, AxisPhases]
    groups: tuple[PhaseGroup, ...]
    crop_offset: tuple[int, int, int] = (0, 0, 0)  # outputs before the first one that is kept

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, axes: tuple[Axis, ...], is_uncropped: bool = False, want: Letter = "y") -> "Phases":
        """Group the phases of up to three axes.

        Uncropped, q and phase count from the last multiple of the stride that is not kept: more
        phases share their shifts then, and up to ``stride - 1`` outputs before the `crop_offset`
        are dropped.
        """
        is_uncropped = is_uncropped and want == "y"
        crop_offset = [axis.begin % axis.stride if is_uncropped else 0 for axis in as_three(axes)]
        z, y, x = (
            AxisPhases.of(axis._replace(begin=axis.begin - more, output=axis.output + more), want)
            for axis, more in zip(as_three(axes), crop_offset, strict=True)
        )
        return cls(
            (z, y, x),
            _phase_groups(z.taps, y.taps, x.taps),
            (crop_offset[0], crop_offset[1], crop_offset[2]),
        )

    def unrolled(self, outputs: tuple[int, int, int]) -> "Phases":
        """The same with so many times more phases along the axes and fewer q, without groups."""
        if outputs == (1, 1, 1):
            return self
        z, y, x = (axis.unrolled(n) for axis, n in zip(self.axes, outputs, strict=True))
        return Phases((z, y, x), (), self.crop_offset)

    @classmethod
    @lru_cache(maxsize=256)
    def of_winograd(
        cls,
        axes: tuple[Axis, ...],
        is_uncropped: bool,
        want: Letter,
        outputs: tuple[int, int, int],
    ) -> "Phases":
        """The phases of Winograd: spaced, then unrolled so that each q is a set of `outputs`."""
        return cls.of(axes, is_uncropped, want).spaced().unrolled(outputs)

    def spaced(self) -> "Phases":
        """The same with so many more phases that each reads neighbours in its residue classes."""
        z, y, x = (n if (n := axis.spacing) <= _MOST_SPACING else 1 for axis in self.axes)
        return self.unrolled((z, y, x))

    @cached_property
    def count(self) -> int:
        """Number of phases."""
        return prod(axis.stride for axis in self.axes)

    @cached_property
    def residue_classes(self) -> int:
        """Number of residue classes that are read."""
        return prod(len(axis.residue_classes) for axis in self.axes)

    @cached_property
    def shifts(self) -> int:
        """Number of cells that one place q reads."""
        return prod(len(axis.shifts) for axis in self.axes)

    @cached_property
    def taps_are_phases(self) -> bool:
        """Whether every tap is a phase of its own and reads the cell at place q."""
        return all(
            axis.count == axis.input
            and len(axis.taps) == axis.kernel
            and axis.taps == tuple(((n, 0),) for n in range(axis.stride))
            for axis in self.axes
        )

    def pieces(self, planes: int, rows: int, columns: int) -> tuple[int, int]:
        """The most contiguous pieces of x that so many places q read, and the length of one.

        A piece is whole planes, or whole rows of a plane, or a part of a row.
        """
        z, y, x = self.axes
        depth, row_cells = z.cells(planes), y.cells(rows) * x.cells(columns)
        return (1, depth * row_cells) if rows == y.count else (depth, row_cells)


def as_three(axes: tuple[Axis, ...]) -> tuple[Axis, ...]:
    """Depth, height and width; a missing axis has one cell.

    >>> len(as_three((Axis(4, 3, 6),)))
    3
    """
    return (Axis(1, 1, 1),) * (3 - len(axes)) + tuple(axes)


def is_single(axis: Axis) -> bool:
    """Whether an axis has a single cell of x, or a single place q.

    Then its stride counts as all of y: every output is a phase of its own, and no tap reads
    outside x.
    """
    return axis.input == 1 or axis.output <= axis.stride


# ---- what does not depend on sizes, so that many share it ----------------------------------------


@lru_cache(maxsize=256)
def _taps_of_x(kernel: int, dilation: int, begin: int) -> Taps:
    return (tuple((tap, begin - tap * dilation) for tap in range(kernel)),)


@lru_cache(maxsize=256)
def _taps_of_phases(axis: Axis) -> Taps:
    found: list[list[tuple[int, int]]] = [[] for _ in range(axis.stride)]
    for tap in range(axis.kernel):
        phase, shift = axis.phase_and_shift(tap)
        found[phase].append((tap, shift))
    return tuple(map(tuple, found))


def _taps_of_single(axis: Axis) -> Taps:
    found: list[list[tuple[int, int]]] = [[] for _ in range(axis.output)]
    for tap in range(axis.kernel):
        for cell in range(axis.input):
            place = cell * axis.stride + tap * axis.dilation - axis.begin
            if 0 <= place < axis.output:
                found[place].append((tap, -cell))
    return tuple(map(tuple, found))


@lru_cache(maxsize=256)
def _unrolled(taps: Taps, step: int, outputs: int) -> Taps:
    return tuple(
        tuple((tap, shift - n * step) for tap, shift in of_phase)
        for n in range(outputs)
        for of_phase in taps
    )


def _residue(shift: int, step: int) -> tuple[int, int]:
    return divmod(-shift, step)


@lru_cache(maxsize=256)
def _read(taps: Taps, step: int) -> tuple[tuple[int, ...], tuple[int, ...], int, int]:
    """The shifts that occur, the residue classes that are read, the least and the largest shift."""
    shifts = sorted({shift for of_phase in taps for _, shift in of_phase}, reverse=True) or [0]
    places = [_residue(shift, step) for shift in shifts]
    residue_classes = tuple(sorted({first for _, first in places}))
    steps = [-back for back, _ in places]
    return tuple(shifts), residue_classes, min(steps), max(steps)


@lru_cache(maxsize=256)
def _spacing(taps: Taps, step: int) -> int:
    gaps = set()
    for of_phase in taps:
        cells = sorted(((-shift) % step, -shift) for _, shift in of_phase)
        gaps |= {b - a for (one, a), (other, b) in pairwise(cells) if one == other}
    return gaps.pop() // step if len(gaps) == 1 else 1


@lru_cache(maxsize=256)
def _groups(taps: Taps) -> dict[tuple[int, ...], list[int]]:
    found: dict[tuple[int, ...], list[int]] = {}
    for phase, of_phase in enumerate(taps):
        found.setdefault(tuple(shift for _, shift in of_phase), []).append(phase)
    return found


@lru_cache(maxsize=256)
def _phase_groups(z: Taps, y: Taps, x: Taps) -> tuple[PhaseGroup, ...]:
    found = []
    for (shifts_z, in_z), (shifts_y, in_y), (shifts_x, in_x) in product(
        *(_groups(taps).items() for taps in (z, y, x))
    ):
        phases = tuple(product(in_z, in_y, in_x))
        found.append(PhaseGroup(phases, (shifts_z, shifts_y, shifts_x)))
    return tuple(found)
