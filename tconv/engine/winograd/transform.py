"""Winograd transforms: matrices of the input, filter and output transform of a problem.

F(m, r) makes m neighbouring outputs of r taps with n = m + r - 1 products instead of m*r:

    y[j] = sum over i of A[j, i] * (sum over k of G[i, k] * w[k]) * (sum over l of B[i, l] * x[l])

A is the output transform, G the filter transform and B the input transform. The points of Toom and
Cook are 0, 1, -1 and infinity, so A and B contain 0, 1 and -1 only, and G halves; with more points
the error would exceed what the documentation promises. On several axes each transform is applied
axis by axis. Phases of a strided problem, and residue classes of a dilated one, that read
overlapping cells share rows of B. The products are batched GEMMs, one per point.

Source: Winograd, Arithmetic Complexity of Computations (1980); Lavin & Gray, arXiv:1509.09308.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from itertools import pairwise, product
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.engine.plan.phases import AxisPhases, Phases
from tconv.system.fork_lock import cached_property

__all__ = [
    "LARGE",
    "AxisTransform",
    "GroupTransform",
    "PointGemm",
    "WinogradTransform",
    "transform_matrices",
]

LARGE = {4: 2.0**100, 8: 2.0**900}
"""Cells from which on transforms, and products of these, may overflow; by the bytes of a cell."""

_POINTS = (0, 1, -1)  # and infinity
_MOST_TAPS = 3
Matrix = tuple[tuple[float, ...], ...]


@lru_cache(maxsize=16)
def transform_matrices(outputs: int, taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """Return A, G and B of F(outputs, taps).

    >>> a, g, b = transform_matrices(2, 3)
    >>> np.array(a).shape, np.array(g).shape, np.array(b).shape
    ((2, 4), (4, 3), (4, 4))
    """
    if taps == 1:  # nothing to save: each output is one product
        one = tuple(tuple(map(float, row)) for row in np.eye(outputs))
        return one, ((1.0,),) * outputs, one
    count = outputs + taps - 1
    points = _POINTS[: count - 1]
    a = [[*(float(p**j) for p in points), float(j == outputs - 1)] for j in range(outputs)]
    g, b = [], []
    for p in points:
        others = [q for q in points if q != p]
        scale = reduce(lambda found, q: found * (p - q), others, 1)
        sign = -1 if scale < 0 else 1
        g.append([float(sign * p**k / scale) for k in range(taps)])
        b.append([sign * c for c in _with_roots(others)] + [0.0])
    g.append([float(k == taps - 1) for k in range(taps)])
    b.append(_with_roots(points))
    for n, row in enumerate(b):  # halves go to the filter transform
        most = max(map(abs, row))
        b[n], g[n] = [c / most for c in row], [c * most for c in g[n]]
    return _frozen(a), _frozen(g), _frozen(b)


def _with_roots(roots: Sequence[int]) -> list[float]:
    """Return the coefficients of the polynomial with these roots, the constant first."""
    found = [1.0]
    for root in roots:
        found = [b - root * a for a, b in zip([*found, 0.0], [0.0, *found], strict=True)]
    return found


def _frozen(rows: list[list[float]]) -> Matrix:
    return tuple(map(tuple, rows))


class GroupTransform(NamedTuple):
    """Phases of an axis that read the same cells, so that they share an input transform.

    Each run of taps, one per residue class of cells, is a term: its products are added at each
    point before the output transform.
    """

    phases: tuple[int, ...]
    output_matrix: Matrix  # A: outputs, points
    reads: tuple[tuple[int, ...], ...]  # points, terms: a row of `AxisTransform.input_matrix`
    filter_matrix: NDArray[np.float64]  # G: phases, points, terms, taps

    @property
    def points(self) -> int:
        """Products of each term for the outputs of one phase."""
        return len(self.reads)

    @property
    def terms(self) -> int:
        """Products that are added at each point, for one channel of x."""
        return len(self.reads[0])


class AxisTransform(NamedTuple):
    """The transforms of one axis, for `outputs` outputs of each phase at a time."""

    outputs: int
    places: tuple[int, ...]  # of the cells that the input transform reads for the first output
    input_matrix: Matrix  # B, of all phase groups: one row per transformed cell
    groups: tuple[GroupTransform, ...]

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, axis: AxisPhases, outputs: int) -> "AxisTransform | None":
        """Return the transforms; None where the taps of a phase are no runs of 1, 2 or 3.

        >>> from tconv.geometry.axis import Axis
        >>> axis = AxisPhases.of(Axis(input=4, kernel=4, output=8, stride=2, begin=1, end=1))
        >>> transform = AxisTransform.of(axis, 2)
        >>> len(transform.input_matrix), [group.points for group in transform.groups]
        (5, [3, 3])
        """
        found, rows = [], dict[tuple[tuple[int, float], ...], int]()
        for shifts, phases in axis.groups().items():
            runs = _runs(axis, shifts, outputs)
            if not runs:
                return None
            a, g, b = transform_matrices(outputs, len(runs[0]))
            matrix = np.zeros((len(phases), len(g), len(runs), axis.kernel))
            reads = [[0] * len(runs) for _ in g]
            for term, run in enumerate(runs):
                cells = [-shifts[run[0]] + n * axis.step for n in range(len(b))]
                for point, row in enumerate(b):
                    reads[point][term], sign = _row_of(rows, cells, row)
                    for n, phase in enumerate(phases):
                        for k, position in enumerate(run):
                            tap, _ = axis.taps[phase][position]
                            matrix[n, point, term, tap] += sign * g[point][k]
            found.append(GroupTransform(tuple(phases), a, tuple(map(tuple, reads)), matrix))
        places = tuple(sorted({place for cells in rows for place, _ in cells}))
        inputs = tuple(tuple(dict(cells).get(n, 0.0) for n in places) for cells in rows)
        return cls(outputs, places, inputs, tuple(found))


def _runs(axis: AxisPhases, shifts: tuple[int, ...], outputs: int) -> list[list[int]]:
    """Return runs of taps that read neighbours in a residue class, as positions in `shifts`.

    One output at a time needs no runs: every tap is one. Empty if the lengths differ, or are more
    than F(outputs, taps) computes exactly enough.
    """
    if outputs == 1:
        return [[n] for n in range(len(shifts))]
    classes: dict[int, list[int]] = {}
    for position in sorted(range(len(shifts)), key=lambda n: -shifts[n]):
        classes.setdefault(-shifts[position] % axis.step, []).append(position)
    runs = list(classes.values())
    for run in runs:
        steps = {shifts[a] - shifts[b] for a, b in pairwise(run)}
        if len(run) != len(runs[0]) or len(run) > _MOST_TAPS or not steps <= {axis.step}:
            return []
    return runs if not runs or len(runs[0]) + outputs - 1 <= len(_POINTS) + 1 else []


def _row_of(
    rows: dict[tuple[tuple[int, float], ...], int], cells: list[int], row: Sequence[float]
) -> tuple[int, float]:
    """Return the index of a row of B, and its sign: a negated row is the same row."""
    some = [(cell, value) for cell, value in zip(cells, row, strict=True) if value]
    sign = 1.0 if some[0][1] > 0 else -1.0
    key = tuple((cell, sign * value) for cell, value in some)
    return rows.setdefault(key, len(rows)), sign


class PointGemm(NamedTuple):
    """The GEMM at one point of a phase group: a row per phase and channel that is written."""

    groups: tuple[GroupTransform, GroupTransform, GroupTransform]
    point: tuple[int, int, int]

    @property
    def rows(self) -> int:
        """Rows per channel that is written: the phases of the group."""
        z, y, x = (len(group.phases) for group in self.groups)
        return z * y * x

    @property
    def terms(self) -> int:
        """Terms of each sum per channel that is read."""
        z, y, x = (group.terms for group in self.groups)
        return z * y * x


@dataclass(frozen=True, eq=False)
class WinogradTransform:
    """The transforms along depth, height and width, and the GEMMs between them."""

    axes: tuple[AxisTransform, AxisTransform, AxisTransform]

    @classmethod
    def of(cls, phases: Phases, outputs: tuple[int, int, int]) -> "WinogradTransform | None":
        """Return the transforms for so many outputs at a time; None where there are none."""
        z, y, x = phases.axes
        return _transform((z.unsized, y.unsized, x.unsized), outputs)

    @cached_property
    def groups(self) -> list[tuple[GroupTransform, GroupTransform, GroupTransform]]:
        """Phase groups, along all axes."""
        z, y, x = (axis.groups for axis in self.axes)
        return list(product(z, y, x))

    @cached_property
    def gemms(self) -> list[PointGemm]:
        """One GEMM for each point of each phase group."""
        found = []
        for groups in self.groups:
            z, y, x = (range(group.points) for group in groups)
            found += [PointGemm(groups, point) for point in product(z, y, x)]
        return found

    @cached_property
    def input_points(self) -> int:
        """Transformed cells of each channel of x."""
        z, y, x = (len(axis.input_matrix) for axis in self.axes)
        return z * y * x

    @cached_property
    def gemm_shapes(self) -> tuple[tuple[int, int], ...]:
        """Rows and terms of every GEMM, for one channel."""
        return tuple((gemm.rows, gemm.terms) for gemm in self.gemms)

    @cached_property
    def gemm_counts(self) -> Counter[tuple[int, int]]:
        """The number of GEMMs of each shape."""
        return Counter(self.gemm_shapes)

    @cached_property
    def products(self) -> int:
        """Rows of all GEMMs for one channel that is written."""
        return sum(gemm.rows for gemm in self.gemms)

    @cached_property
    def transformed_weights(self) -> int:
        """Elements of a transformed filter, for one pair of channels."""
        return sum(gemm.terms * gemm.rows for gemm in self.gemms)

    def reads(self, gemm: PointGemm) -> NDArray[np.int64]:
        """Return the transformed cell that each term of a GEMM reads."""
        z, y, x = (
            np.array(group.reads[point], np.int64)
            for group, point in zip(gemm.groups, gemm.point, strict=True)
        )
        _, many_y, many_x = (len(axis.input_matrix) for axis in self.axes)
        return ((z[:, None, None] * many_y + y[:, None]) * many_x + x).ravel()

    @cached_property
    def filter_matrix(self) -> NDArray[np.float64]:
        """The filter transform: a row of taps for each GEMM, term and phase."""
        found = []
        for gemm in self.gemms:
            z, y, x = (
                group.filter_matrix[:, point]  # phases, terms, taps
                for group, point in zip(gemm.groups, gemm.point, strict=True)
            )
            rows = np.einsum("ptk,qul,rvm->tuvpqrklm", z, y, x)
            found.append(rows.reshape(gemm.terms * gemm.rows, -1))
        return np.concatenate(found)


@lru_cache(maxsize=64)
def _transform(
    axes: tuple[AxisPhases, ...], outputs: tuple[int, int, int]
) -> WinogradTransform | None:
    """Return the transforms of axes, which do not depend on sizes."""
    z, y, x = (AxisTransform.of(axis, n) for axis, n in zip(axes, outputs, strict=True))
    return None if z is None or y is None or x is None else WinogradTransform((z, y, x))
