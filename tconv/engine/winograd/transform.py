"""HOW FEWER PRODUCTS ARE ENOUGH: several outputs at a time from sums of the cells that they read.

Of m neighbouring outputs with `a` taps each, n = m + a - 1 products are enough instead of m*a:

    y[j] = sum over i of A[j, i] * (sum over k of G[i, k] * w[k]) * (sum over l of B[i, l] * x[l])

Here the points of Toom and Cook are 0, 1, -1 and infinity, so A and B have ones only and G halves;
with more points the error grows beyond what is promised. On several axes the three steps are made
axis by axis. Where phases or lattices read beside each other they share what B makes of x.

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
    "PhaseGroup",
    "PointGemm",
    "WinogradTransform",
    "transform_matrices",
]

LARGE = {4: 2.0**100, 8: 2.0**900}
"""Cells from which on sums, and products of these, may overflow, by the bytes of a number."""

_POINTS = (0, 1, -1)  # and infinity
_MOST_TAPS = 3
Matrix = tuple[tuple[float, ...], ...]


@lru_cache(maxsize=16)
def transform_matrices(outputs: int, taps: int) -> tuple[Matrix, Matrix, Matrix]:
    """Return A, G and B for so many outputs of so many taps.

    >>> a, g, b = transform_matrices(2, 3)
    >>> np.array(a).shape, np.array(g).shape, np.array(b).shape
    ((2, 4), (4, 3), (4, 4))
    """
    if taps == 1:  # nothing to save: every output is its own product
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
    for n, row in enumerate(b):  # halves belong to the weights
        most = max(map(abs, row))
        b[n], g[n] = [c / most for c in row], [c * most for c in g[n]]
    return _frozen(a), _frozen(g), _frozen(b)


def _with_roots(roots: Sequence[int]) -> list[float]:
    """Coefficients of the polynomial with such roots, the constant first."""
    found = [1.0]
    for root in roots:
        found = [b - root * a for a, b in zip([*found, 0.0], [0.0, *found], strict=True)]
    return found


def _frozen(rows: list[list[float]]) -> Matrix:
    return tuple(map(tuple, rows))


class PhaseGroup(NamedTuple):
    """Phases of an axis that read alike, `points` products for `outputs` outputs of each.

    A term is a run of cells that is multiplied at the same points as the others, and added.
    """

    phases: tuple[int, ...]
    output_matrix: Matrix  # outputs, points
    reads: tuple[tuple[int, ...], ...]  # points, terms: which sum of cells
    weights: NDArray[np.float64]  # phases, points, terms, taps

    @property
    def points(self) -> int:
        """Products for the outputs of a phase, of each term."""
        return len(self.reads)

    @property
    def terms(self) -> int:
        """Products that are added at each point, of a channel."""
        return len(self.reads[0])


class AxisTransform(NamedTuple):
    """How outputs along an axis are made so many at a time."""

    outputs: int
    places: tuple[int, ...]  # of the cells that are read for the first output
    sums: Matrix  # of these cells, each a row
    groups: tuple[PhaseGroup, ...]

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, axis: AxisPhases, outputs: int) -> "AxisTransform | None":
        """Tile an axis; None where the taps of a phase are no run of 2 or 3, or of 1.

        >>> from tconv.geometry.axis import Axis
        >>> axis = AxisPhases.of(Axis(input=4, kernel=4, output=8, stride=2, begin=1, end=1))
        >>> transform = AxisTransform.of(axis, 2)
        >>> len(transform.sums), [group.points for group in transform.groups]
        (5, [3, 3])
        """
        found, sums = [], dict[tuple[tuple[int, float], ...], int]()
        for shifts, phases in axis.groups().items():
            runs = _runs(axis, shifts, outputs)
            if not runs:
                return None
            a, g, b = transform_matrices(outputs, len(runs[0]))
            weights = np.zeros((len(phases), len(g), len(runs), axis.kernel))
            reads = [[0] * len(runs) for _ in g]
            for term, run in enumerate(runs):
                cells = [-shifts[run[0]] + n * axis.step for n in range(len(b))]
                for point, row in enumerate(b):
                    reads[point][term], sign = _sum_of(sums, cells, row)
                    for n, phase in enumerate(phases):
                        for k, position in enumerate(run):
                            tap, _ = axis.taps[phase][position]
                            weights[n, point, term, tap] += sign * g[point][k]
            found.append(PhaseGroup(tuple(phases), a, tuple(map(tuple, reads)), weights))
        places = tuple(sorted({place for cells in sums for place, _ in cells}))
        matrix = tuple(tuple(dict(cells).get(n, 0.0) for n in places) for cells in sums)
        return cls(outputs, places, matrix, tuple(found))


def _runs(axis: AxisPhases, shifts: tuple[int, ...], outputs: int) -> list[list[int]]:
    """Positions in `shifts` of taps that read neighbouring cells of a lattice, in their order.

    One output at a time needs no runs: every tap is one. Empty if they are of several lengths, or
    longer than is exact.
    """
    if outputs == 1:
        return [[n] for n in range(len(shifts))]
    lattices: dict[int, list[int]] = {}
    for position in sorted(range(len(shifts)), key=lambda n: -shifts[n]):
        lattices.setdefault(-shifts[position] % axis.step, []).append(position)
    runs = list(lattices.values())
    for run in runs:
        steps = {shifts[a] - shifts[b] for a, b in pairwise(run)}
        if len(run) != len(runs[0]) or len(run) > _MOST_TAPS or not steps <= {axis.step}:
            return []
    return runs if not runs or len(runs[0]) + outputs - 1 <= len(_POINTS) + 1 else []


def _sum_of(
    sums: dict[tuple[tuple[int, float], ...], int], cells: list[int], row: Sequence[float]
) -> tuple[int, float]:
    """Number of a sum of cells, and its sign: one that is only negated is the same."""
    some = [(cell, value) for cell, value in zip(cells, row, strict=True) if value]
    sign = 1.0 if some[0][1] > 0 else -1.0
    key = tuple((cell, sign * value) for cell, value in some)
    return sums.setdefault(key, len(sums)), sign


class PointGemm(NamedTuple):
    """Products at one point of a group: `rows` for a channel that is written."""

    groups: tuple[PhaseGroup, PhaseGroup, PhaseGroup]
    point: tuple[int, int, int]

    @property
    def rows(self) -> int:
        """Phases of the group."""
        z, y, x = (len(group.phases) for group in self.groups)
        return z * y * x

    @property
    def terms(self) -> int:
        """Products that are added, of a channel that is read."""
        z, y, x = (group.terms for group in self.groups)
        return z * y * x


@dataclass(frozen=True, eq=False)
class WinogradTransform:
    """How outputs are made so many at a time along depth, height and width."""

    axes: tuple[AxisTransform, AxisTransform, AxisTransform]

    @classmethod
    def of(cls, phases: Phases, outputs: tuple[int, int, int]) -> "WinogradTransform | None":
        """Tile phases that are not tiled yet; None where that cannot be."""
        z, y, x = phases.axes
        return _tiling((z.unsized, y.unsized, x.unsized), outputs)

    @cached_property
    def groups(self) -> list[tuple[PhaseGroup, PhaseGroup, PhaseGroup]]:
        """Phases that read alike along all axes."""
        z, y, x = (axis.groups for axis in self.axes)
        return list(product(z, y, x))

    @cached_property
    def gemms(self) -> list[PointGemm]:
        """Every point of every group."""
        found = []
        for groups in self.groups:
            z, y, x = (range(group.points) for group in groups)
            found += [PointGemm(groups, point) for point in product(z, y, x)]
        return found

    @cached_property
    def sums(self) -> int:
        """Sums of cells that are made of each channel."""
        z, y, x = (len(axis.sums) for axis in self.axes)
        return z * y * x

    @cached_property
    def gemm_shapes(self) -> tuple[tuple[int, int], ...]:
        """Of every kind."""
        return tuple((kind.rows, kind.terms) for kind in self.gemms)

    @cached_property
    def gemm_counts(self) -> Counter[tuple[int, int]]:
        """How many kinds there are of so many rows and terms."""
        return Counter(self.gemm_shapes)

    @cached_property
    def products(self) -> int:
        """Products for a channel that is written."""
        return sum(kind.rows for kind in self.gemms)

    @cached_property
    def transformed_weights(self) -> int:
        """Numbers that are made of the taps of a kernel."""
        return sum(kind.terms * kind.rows for kind in self.gemms)

    def reads(self, kind: PointGemm) -> NDArray[np.int64]:
        """Which sum of cells every term of a kind is multiplied with."""
        z, y, x = (
            np.array(group.reads[point], np.int64)
            for group, point in zip(kind.groups, kind.point, strict=True)
        )
        _, many_y, many_x = (len(axis.sums) for axis in self.axes)
        return ((z[:, None, None] * many_y + y[:, None]) * many_x + x).ravel()

    @cached_property
    def weights(self) -> NDArray[np.float64]:
        """What to make of the taps: for every kind, term and phase a row of taps."""
        found = []
        for kind in self.gemms:
            z, y, x = (
                group.weights[:, point]  # phases, terms, taps
                for group, point in zip(kind.groups, kind.point, strict=True)
            )
            of_kind = np.einsum("ptk,qul,rvm->tuvpqrklm", z, y, x)
            found.append(of_kind.reshape(kind.terms * kind.rows, -1))
        return np.concatenate(found)


@lru_cache(maxsize=64)
def _tiling(
    axes: tuple[AxisPhases, ...], outputs: tuple[int, int, int]
) -> WinogradTransform | None:
    """Tile axes, whose sizes have no part in it."""
    z, y, x = (AxisTransform.of(axis, n) for axis, n in zip(axes, outputs, strict=True))
    return None if z is None or y is None or x is None else WinogradTransform((z, y, x))
