"""Axis folding: a contraction over more than three axes as calls over the last three.

    y[n, m, q*stride + phase] = sum over c, j of w[c, m, taps[j]] * x[n, c, q - shifts[j]]
    x[n, c, q] = sum over m, j of w[c, m, j] * y[n, m, q*step - shifts[j]]

Here q, phase, taps and shifts belong to the axes before the last three, the folded axes; products
and sums are those of a call over three axes, with channels (c, j) or (m, j) and images (n, q). For
w, y is read as for x. Which terms are summed for y and x follows from kernel, stride, dilation and
padding: the size of an image changes no bits.
"""

from dataclasses import replace
from functools import lru_cache
from itertools import product
from math import ceil, prod
from typing import NamedTuple

from tconv.engine.plan.plan import even_size
from tconv.geometry.axis import Axis
from tconv.geometry.geometry import Geometry, Letter

__all__ = ["AxisFolding", "FoldedGroup"]

_KEPT_AXES = 3  # the last ones
_BLOCK_BYTES = 2**23  # of x and y, folded
_MOST_CALLS = 256
_MOST_WASTE = 3  # so many times more products, along an axis, with the zeros around x
_FEW_CELLS, _FEW_SINGLE_TAP_CELLS = 4, 64  # of x: most of the time goes into packing weights
_CALL_FLOPS = 30_000  # that the portable path computes while a call is made

_PhasesByShifts = dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]]


class FoldedGroup(NamedTuple):
    """Phases of the folded axes that share their shifts, and so read the same cells.

    Each phase is its first output and its taps, by axis.
    """

    shifts: tuple[tuple[int, ...], ...]
    phases: tuple[tuple[tuple[int, ...], tuple[tuple[int, ...], ...]], ...]

    @property
    def taps(self) -> int:
        """Taps of each phase; without any nothing is computed."""
        return prod(map(len, self.shifts))


class AxisFolding(NamedTuple):
    """The folding of a geometry, channels first, for a letter: phase groups, and blocks of x and y.

    A block is `images` images and `rows` rows, places q of the first axis; `counts` has the number
    of places q along every folded axis.
    """

    geometry: Geometry
    want: Letter
    groups: tuple[FoldedGroup, ...]
    counts: tuple[int, ...]
    images: int
    rows: int

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, geometry: Geometry, itemsize: int, want: Letter = "y") -> "AxisFolding":
        """Fold all axes but three for y, or for x and so for w.

        >>> geometry = Geometry.of((1, 2, 9, 4, 5, 6), (2, 3, 3, 3, 3, 3), stride=2)
        >>> folding = AxisFolding.of(geometry, 4)
        >>> [(group.taps, folding.inner(group.taps).x_shape) for group in folding.groups]
        [(2, (10, 4, 4, 5, 6)), (1, (10, 2, 4, 5, 6))]
        >>> folding = AxisFolding.of(folding.geometry, 4, "x")
        >>> [(group.taps, folding.inner(group.taps).y_shape) for group in folding.groups]
        [(3, (9, 9, 9, 11, 13))]
        """
        axes, inner = geometry.axes[:-_KEPT_AXES], geometry.axes[-_KEPT_AXES:]
        groups = tuple(
            _group(each) for each in product(*(_by_shifts(a, want).items() for a in axes))
        )
        if want == "y":
            counts = tuple(ceil(axis.output / axis.stride) for axis in axes)
        else:
            counts = tuple(axis.input for axis in axes)
        taps = max(group.taps for group in groups)
        of_x = geometry.in_channels * prod(axis.input for axis in inner)
        of_y = geometry.out_channels * prod(axis.output for axis in inner)
        cells = of_x * taps + of_y if want == "y" else of_x + of_y * taps
        row_bytes = prod(counts[1:]) * cells * itemsize
        rows = even_size(counts[0], _BLOCK_BYTES // row_bytes)
        images = _BLOCK_BYTES // (rows * row_bytes) if rows == counts[0] else 1
        return cls(geometry, want, groups, counts, even_size(geometry.batch, images), rows)

    @staticmethod
    def is_too_large(geometry: Geometry) -> bool:
        """Whether y would take more calls than is worth while."""
        folded = geometry.axes[:-_KEPT_AXES]
        return prod(min(axis.stride, axis.output) for axis in folded) > _MOST_CALLS

    def inner(self, taps: int) -> Geometry:
        """The call over three axes for a block, and for phases with so many taps."""
        geometry, is_y = self.geometry, self.want == "y"
        return replace(
            geometry,
            batch=self.images * self.rows * prod(self.counts[1:]),
            in_channels=geometry.in_channels * (taps if is_y else 1),
            out_channels=geometry.out_channels * (1 if is_y else taps),
            axes=geometry.axes[-_KEPT_AXES:],
        )

    def steps(self, axis: Axis) -> tuple[int, int]:
        """Cells from one place q to the next, in what is read and in what is written."""
        return (1, axis.stride) if self.want == "y" else (axis.stride, 1)

    @property
    def all_taps(self) -> list[int]:
        """The numbers of taps that occur, without 0."""
        return sorted({group.taps for group in self.groups} - {0})

    @property
    def is_wasteful(self) -> bool:
        """Whether the portable path is as fast.

        It is where it computes one matrix product, or where most products of the calls are with
        zeros. Elsewhere it takes 2 to 50 times as long (Xeon, 2 cores); for x and w about as long
        where kernels reach no further than strides or most axes have one tap.
        """
        geometry, axes = self.geometry, self.geometry.axes
        is_point = prod(axis.kernel * axis.stride for axis in axes[-_KEPT_AXES:]) == 1
        if self.want == "x":  # of which a block is one call
            folded = axes[:-_KEPT_AXES]
            return is_point and all(axis.taps_per_phase[1] == 1 for axis in folded)
        calls = sum(len(group.phases) for group in self.groups)
        if any(q > _MOST_WASTE * a.input for q, a in zip(self.counts, axes, strict=False)):
            return True
        all_cells = geometry.batch * prod(geometry.input_size)
        if max(group.taps for group in self.groups) > 1:
            return all_cells < _FEW_CELLS
        # No two taps are summed, so the portable path multiplies x and w as they lie.
        is_small = geometry.flops < _CALL_FLOPS * calls or all_cells < _FEW_SINGLE_TAP_CELLS
        return is_small or is_point


def _by_shifts(axis: Axis, want: Letter) -> _PhasesByShifts:
    """The phases of an axis by their shifts, each with its taps.

    >>> axis = Axis(input=4, kernel=3, output=9, stride=2)
    >>> _by_shifts(axis, "y")
    {(0, 1): [(0, (0, 2))], (0,): [(1, (1,))]}
    >>> _by_shifts(axis, "x")
    {(0, -1, -2): [(0, (0, 1, 2))]}
    """
    if want == "x":
        every = tuple(range(axis.kernel))
        return {tuple(axis.begin - tap * axis.dilation for tap in every): [(0, every)]}
    found: _PhasesByShifts = {}
    places = [axis.phase_and_shift(tap) for tap in range(axis.kernel)]
    for phase in range(min(axis.stride, axis.output)):
        taps = tuple(tap for tap, (of_tap, _) in enumerate(places) if of_tap == phase)
        found.setdefault(tuple(places[tap][1] for tap in taps), []).append((phase, taps))
    return found


def _group(
    of_axes: tuple[tuple[tuple[int, ...], list[tuple[int, tuple[int, ...]]]], ...],
) -> FoldedGroup:
    """The phases of all axes together, from phases of each axis that share their shifts."""
    shifts = tuple(shifts for shifts, _ in of_axes)
    phases = product(*(phases for _, phases in of_axes))
    return FoldedGroup(
        shifts,
        tuple(
            (tuple(first for first, _ in each), tuple(taps for _, taps in each)) for each in phases
        ),
    )
