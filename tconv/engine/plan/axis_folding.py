"""WHICH CALLS OF THREE AXES make one of more: phases of the first axes, with their shifts and taps.

    y[n, m, q*stride + phase] = sum over c, j of w[c, m, taps[j]] * x[n, c, q - shifts[j]]
    x[n, c, q] = sum over m, j of w[c, m, j] * y[n, m, q*step - shifts[j]]

Here q, phase, taps and shifts are of all axes before the last three, and products and sums those of
a call of three axes, with channels (c, j) or (m, j) of images (n, q). For w y is read as for x.
What is summed for y and x follows from kernel, stride, dilation and padding: the size of an image
changes no bits.
"""

from dataclasses import replace
from functools import lru_cache
from itertools import product
from math import ceil, prod
from typing import NamedTuple

from tconv.engine.plan.plan import even_size
from tconv.geometry.axis import Axis
from tconv.geometry.geometry import Geometry, Letter

__all__ = ["Fold", "AxisFolding"]

_KEPT_AXES = 3  # the last ones
_BLOCK_BYTES = 2**23  # of x and y in the order of such calls
_MOST_CALLS = 256
_MOST_WASTE = 3  # products with the zeros beside x are computed too: so many times more, by axis
_FEW_CELLS, _FEW_PLAIN_CELLS = 4, 64  # of x: then most of the time goes into packing weights
_CALL_FLOPS = 30_000  # that the portable path computes while a call is made

_Alike = dict[tuple[int, ...], list[tuple[int, tuple[int, ...]]]]


class Fold(NamedTuple):
    """Phases that read the same cells: the shifts of every folded axis.

    Of every phase it has where its outputs begin, and which taps reach them.
    """

    shifts: tuple[tuple[int, ...], ...]
    phases: tuple[tuple[tuple[int, ...], tuple[tuple[int, ...], ...]], ...]

    @property
    def taps(self) -> int:
        """Taps that reach each of the phases; if none does, nothing is computed."""
        return prod(map(len, self.shifts))


class AxisFolding(NamedTuple):
    """How a geometry, channels first, is folded for a letter: blocks of images and rows.

    A block has `images` images and `rows` rows, which are q of the first axis; `counts` has how
    many q every folded axis has.
    """

    geometry: Geometry
    want: Letter
    folds: tuple[Fold, ...]
    counts: tuple[int, ...]
    images: int
    rows: int

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, geometry: Geometry, itemsize: int, want: Letter = "y") -> "AxisFolding":
        """Fold all axes but three, for y or x, or x and so for w.

        >>> folds = AxisFolding.of(Geometry.of((1, 2, 9, 4, 5, 6), (2, 3, 3, 3, 3, 3), stride=2), 4)
        >>> [(fold.taps, folds.inner(fold.taps).x_shape) for fold in folds.folds]
        [(2, (10, 4, 4, 5, 6)), (1, (10, 2, 4, 5, 6))]
        >>> folds = AxisFolding.of(folds.geometry, 4, "x")
        >>> [(fold.taps, folds.inner(fold.taps).y_shape) for fold in folds.folds]
        [(3, (9, 9, 9, 11, 13))]
        """
        axes, inner = geometry.axes[:-_KEPT_AXES], geometry.axes[-_KEPT_AXES:]
        folds = tuple(_fold(each) for each in product(*(_alike(a, want).items() for a in axes)))
        if want == "y":
            counts = tuple(ceil(axis.output / axis.stride) for axis in axes)
        else:
            counts = tuple(axis.input for axis in axes)
        taps = max(fold.taps for fold in folds)
        of_x = geometry.in_channels * prod(axis.input for axis in inner)
        of_y = geometry.out_channels * prod(axis.output for axis in inner)
        cells = of_x * taps + of_y if want == "y" else of_x + of_y * taps
        row_bytes = prod(counts[1:]) * cells * itemsize
        rows = even_size(counts[0], _BLOCK_BYTES // row_bytes)
        images = _BLOCK_BYTES // (rows * row_bytes) if rows == counts[0] else 1
        return cls(geometry, want, folds, counts, even_size(geometry.batch, images), rows)

    @staticmethod
    def are_too_many(geometry: Geometry) -> bool:
        """Whether there would be more calls for y than it is worth to list."""
        folded = geometry.axes[:-_KEPT_AXES]
        return prod(min(axis.stride, axis.output) for axis in folded) > _MOST_CALLS

    def inner(self, taps: int) -> Geometry:
        """The call of three axes for a block, and for phases that so many taps reach."""
        geometry, is_y = self.geometry, self.want == "y"
        return replace(
            geometry,
            batch=self.images * self.rows * prod(self.counts[1:]),
            in_channels=geometry.in_channels * (taps if is_y else 1),
            out_channels=geometry.out_channels * (1 if is_y else taps),
            axes=geometry.axes[-_KEPT_AXES:],
        )

    def steps(self, axis: Axis) -> tuple[int, int]:
        """Cells from one q to the next, in what is read and in what is written."""
        return (1, axis.stride) if self.want == "y" else (axis.stride, 1)

    @property
    def all_taps(self) -> list[int]:
        """The numbers of taps that occur, but for none."""
        return sorted({fold.taps for fold in self.folds} - {0})

    @property
    def is_wasteful(self) -> bool:
        """Whether the portable path is as fast.

        So it is where it makes one product of all, or where most of what the calls compute are
        products with zeros. Elsewhere it takes 2 to 50 times as long (Xeon, 2 cores); for x and w
        about as long where kernels reach no further than strides or most axes have one tap.
        """
        geometry, axes = self.geometry, self.geometry.axes
        is_point = prod(axis.kernel * axis.stride for axis in axes[-_KEPT_AXES:]) == 1
        if self.want == "x":  # of which a block is one call
            folded = axes[:-_KEPT_AXES]
            return is_point and all(axis.taps_per_phase[1] == 1 for axis in folded)
        calls = sum(len(fold.phases) for fold in self.folds)
        if any(q > _MOST_WASTE * a.input for q, a in zip(self.counts, axes, strict=False)):
            return True
        all_cells = geometry.batch * prod(geometry.input_size)
        if max(fold.taps for fold in self.folds) > 1:
            return all_cells < _FEW_CELLS
        # No two taps are summed there, so the portable path multiplies x and w as they are.
        is_small = geometry.flops < _CALL_FLOPS * calls or all_cells < _FEW_PLAIN_CELLS
        return is_small or is_point


def _alike(axis: Axis, want: Letter) -> _Alike:
    """Shifts to the phases of an axis that have them, each with its taps.

    >>> axis = Axis(input=4, kernel=3, output=9, stride=2)
    >>> _alike(axis, "y")
    {(0, 1): [(0, (0, 2))], (0,): [(1, (1,))]}
    >>> _alike(axis, "x")
    {(0, -1, -2): [(0, (0, 1, 2))]}
    """
    if want == "x":
        every = tuple(range(axis.kernel))
        return {tuple(axis.begin - tap * axis.dilation for tap in every): [(0, every)]}
    found: _Alike = {}
    places = [axis.phase_and_shift(tap) for tap in range(axis.kernel)]
    for phase in range(min(axis.stride, axis.output)):
        taps = tuple(tap for tap, (of_tap, _) in enumerate(places) if of_tap == phase)
        found.setdefault(tuple(places[tap][1] for tap in taps), []).append((phase, taps))
    return found


def _fold(of_axes: tuple[tuple[tuple[int, ...], list[tuple[int, tuple[int, ...]]]], ...]) -> Fold:
    """Phases of all axes together, from those of each that have the same shifts."""
    shifts = tuple(shifts for shifts, _ in of_axes)
    phases = product(*(phases for _, phases in of_axes))
    return Fold(
        shifts,
        tuple(
            (tuple(first for first, _ in each), tuple(taps for _, taps in each)) for each in phases
        ),
    )
