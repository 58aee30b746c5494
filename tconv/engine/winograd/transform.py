"""Winograd transforms: matrices of the input, filter and output transform of a problem.

F(m, r) makes m neighbouring outputs of r taps with n = m + r - 1 products instead of m*r:

    y[j] = sum over i of A[j, i] * (sum over k of G[i, k] * w[k]) * (sum over l of B[i, l] * x[l])

A is the output transform, G the filter transform and B the input transform. The points of Toom and
Cook are 0, 1, -1 and infinity, so A and B contain 0, 1 and -1 only, and G halves; with more points
the error would exceed what the documentation promises. On several axes each transform is applied
axis by axis. Phases of a strided problem, and residue classes of a dilated one, that read
overlapping cells share rows of B. The products are batched GEMMs, one per point.

More than 3 taps are split into pieces of 2 and 3, and the products of all pieces are added at each
point before the output transform: F(2, 2) has the points of F(2, 3) but -1, and the same A without
its column. So 5 taps take 7 products for 10, and 11 take 15 for 22. Residue classes of a strided
convolution are such pieces, too: those of a kernel of 3 with stride 2 have 2 taps and 1, and take 5
products for 6.

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
_MOST_POINTS, _MOST_TAPS, _MOST_OUTPUTS = 4, 3, 3
_MOST_AXIS_TAPS = 64  # with more there are more points than a kernel has instructions for
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

    Each piece of taps is a term at its points: its products are added to those of the others before
    the output transform.
    """

    phases: tuple[int, ...]
    output_matrix: Matrix  # A: outputs, points
    reads: tuple[tuple[int, ...], ...]  # points, terms: a row of `AxisTransform.input_matrix`
    filter_matrices: tuple[NDArray[np.float64], ...]  # G of each point: phases, terms, taps

    @property
    def points(self) -> int:
        """Products of each term for the outputs of one phase, at most."""
        return len(self.reads)


class AxisTransform(NamedTuple):
    """The transforms of one axis, for `outputs` outputs of each phase at a time."""

    outputs: int
    places: tuple[int, ...]  # of the cells that the input transform reads for the first output
    input_matrix: Matrix  # B, of all phase groups: one row per transformed cell
    groups: tuple[GroupTransform, ...]

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, axis: AxisPhases, outputs: int) -> "AxisTransform | None":
        """Return the transforms; None where the taps of a phase are no runs of neighbours.

        >>> from tconv.geometry.axis import Axis
        >>> axis = AxisPhases.of(Axis(input=4, kernel=4, output=8, stride=2, begin=1, end=1))
        >>> transform = AxisTransform.of(axis, 2)
        >>> len(transform.input_matrix), [group.points for group in transform.groups]
        (5, [3, 3])
        """
        found, rows = [], dict[tuple[tuple[int, float], ...], int]()
        for shifts, phases in axis.groups().items():
            pieces = _pieces(axis, shifts, outputs)
            if not pieces:
                return None
            a, _, _ = transform_matrices(outputs, max(map(len, pieces)))
            reads = [list[int]() for _ in a[0]]
            filters = [list[NDArray[np.float64]]() for _ in a[0]]
            for piece in pieces:
                _, g, b = transform_matrices(outputs, len(piece))
                cells = [-shifts[piece[0]] + n * axis.step for n in range(len(b))]
                for n, row in enumerate(b):
                    point = n if n < len(b) - 1 else -1  # the last is infinity
                    read, sign = _row_of(rows, cells, row)
                    reads[point].append(read)
                    of_taps = np.zeros((len(phases), axis.kernel))
                    for place, phase in enumerate(phases):
                        for k, position in enumerate(piece):
                            tap, _ = axis.taps[phase][position]
                            of_taps[place, tap] += sign * g[n][k]
                    filters[point].append(of_taps)
            matrices = tuple([np.stack(some, axis=1) for some in filters])
            found.append(GroupTransform(tuple(phases), a, tuple(map(tuple, reads)), matrices))
        places = tuple(sorted({place for cells in rows for place, _ in cells}))
        inputs = tuple(tuple(dict(cells).get(n, 0.0) for n in places) for cells in rows)
        return cls(outputs, places, inputs, tuple(found))


def _pieces(axis: AxisPhases, shifts: tuple[int, ...], outputs: int) -> list[list[int]]:
    """Return pieces of taps that read neighbours in a residue class, as positions in `shifts`.

    One output at a time needs none: every tap is one. Empty if the taps of a class are no
    neighbours, cannot be split into pieces with the same points, or are too many.
    """
    if outputs == 1:
        return [[n] for n in range(len(shifts))]
    if len(shifts) > _MOST_AXIS_TAPS:
        return []
    classes: dict[int, list[int]] = {}
    for position in sorted(range(len(shifts)), key=lambda n: -shifts[n]):
        classes.setdefault(-shifts[position] % axis.step, []).append(position)
    found = []
    for run in classes.values():
        steps = {shifts[a] - shifts[b] for a, b in pairwise(run)}
        if not steps <= {axis.step}:
            return []
        first = 0
        for taps in _piece_sizes(len(run), outputs):
            found.append(run[first : first + taps])
            first += taps
    sizes = set(map(len, found))
    # Of three outputs of one tap each there are other points than of three of two.
    return [] if outputs == _MOST_OUTPUTS and len(sizes) > 1 else found


def _piece_sizes(taps: int, outputs: int) -> list[int]:
    """Split taps into pieces of 2 and 3 for two outputs at a time, of 2 for three.

    >>> _piece_sizes(7, 2), _piece_sizes(11, 2), _piece_sizes(6, 3), _piece_sizes(5, 3)
    ([3, 2, 2], [3, 3, 3, 2], [2, 2, 2], [2, 2, 1])
    """
    most = _MOST_POINTS + 1 - outputs
    if taps <= most:
        return [taps]
    if most < _MOST_TAPS:
        return [most] * (taps // most) + [1] * (taps % most)
    twos = -taps % _MOST_TAPS
    return [_MOST_TAPS] * ((taps - 2 * twos) // _MOST_TAPS) + [2] * twos


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
        pairs = zip(self.groups, self.point, strict=True)
        z, y, x = (len(group.reads[point]) for group, point in pairs)
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
                group.filter_matrices[point]  # phases, terms, taps
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
