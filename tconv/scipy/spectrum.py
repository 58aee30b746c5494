"""Spectrum of a transposed convolution: small matrices for each frequency, singular values, norm.

Of a circular transposed convolution whose y has stride times the cells of x, every shift of x by a
cell shifts y by the stride. So the Fourier transform parts it into matrices F(q), one for each
frequency q of x: C columns, and M rows for each of the prod(stride) frequencies of y that x's
frequency q becomes. Its singular values are those of all F(q). With zeros around y, the operator is
a part of an endless one, whose norm is the maximum of the norm of F over all real frequencies.
"""

from math import ceil, cos, pi, prod, sqrt
from typing import Any

import numpy as np
import scipy.fft
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, svds

from tconv.arrays.canonical import canonical
from tconv.errors import ParameterError
from tconv.geometry.arguments import as_integer
from tconv.geometry.geometry import Geometry
from tconv.messages import show
from tconv.ops.dispatch import uncropped
from tconv.scipy.operators import Operator
from tconv.system.memory import check_room

__all__ = ["as_operator", "bound", "is_circulant", "norm", "singular_values", "symbol"]

_DENSE_ENTRIES = 2**22  # of a matrix whose singular values are computed at once
_POINTS, _MOST_POINTS = 32, 2**15  # of the grid for a bound: for each degree, and in all
_TOLERANCE = 1e-12


def singular_values(op: Operator, k: int | None = None) -> NDArray[Any]:
    """Return the singular values of an operator, the largest first.

    Circular operators whose larger array has stride times the cells of the smaller one have exact
    values from Fourier transforms. Those of others are computed from the dense matrix where that is
    small, or, for `k` of them, by `scipy.sparse.linalg.svds`.

    Parameters
    ----------
    op : ConvTransposeOperator or ConvOperator
    k : int, how many of the largest; None for all ``min(op.shape)``

    Returns
    -------
    array of floats, descending

    Raises
    ------
    ParameterError : all values are asked for, of an operator that is neither circular nor small

    References
    ----------
    Sedghi, Gupta & Long 2019, arXiv:1805.10408, for a stride of 1.

    >>> from tconv.scipy import ConvTransposeOperator
    >>> op = ConvTransposeOperator(np.ones((1, 1, 2)), 4, stride=2)
    >>> singular_values(op)
    array([1.41421356, 1.41421356, 1.41421356, 1.41421356])
    """
    as_operator(op)
    most = min(op.shape)
    count = most if k is None else min(as_integer(k, "k", 1), most)
    if is_circulant(op.geometry, op.padding_mode):
        values = np.linalg.svd(symbol(op.geometry, op.weight), compute_uv=False)
        values = np.repeat(values.reshape(-1), op.geometry.batch)
    elif prod(op.shape) <= _DENSE_ENTRIES:
        values = np.linalg.svd(op @ np.eye(op.shape[1]), compute_uv=False)
    elif k is None:
        raise ParameterError(
            f"singular_values of an operator of {op.shape[0]:,} x {op.shape[1]:,} with "
            f"padding_mode={show(op.padding_mode)} would need the dense matrix; pass k for the "
            'largest ones, or padding_mode="circular" and padding such that y has stride times '
            "the cells of x."
        )
    else:
        values = svds(_as_float64(op), min(count, most - 1), return_singular_vectors=False, tol=0)
    return np.sort(values.real.astype(np.float64))[::-1][:count]


def norm(op: Operator) -> float:
    """Return the 2-norm of an operator: its largest singular value.

    Exact where `singular_values` is; else by Lanczos' method to 12 digits.

    >>> from tconv.scipy import ConvOperator
    >>> op = ConvOperator(np.ones((1, 1, 3)), 30, padding=1, padding_mode="circular")
    >>> round(norm(op), 10)
    3.0
    """
    as_operator(op)
    if is_circulant(op.geometry, op.padding_mode) or prod(op.shape) <= _DENSE_ENTRIES:
        return float(singular_values(op)[0])
    start = np.random.default_rng(0).standard_normal(min(op.shape))
    values = svds(_as_float64(op), 1, v0=start, return_singular_vectors=False, tol=_TOLERANCE)
    return float(values[0])


def bound(op: Operator) -> float:
    """Return an upper bound of the norm, in the time of a few products.

    The lesser of two: the maximum of the symbol on a grid of frequencies, raised by as much as may
    be missed between the points; and the geometric mean of the largest sums of a row and of a
    column of absolute values (Schur). Gradient methods take ``1 / bound(op)**2`` for their step.

    References
    ----------
    Ehlich & Zeller 1964, Math. Z. 86, for trigonometric polynomials on a grid.

    >>> from tconv.scipy import ConvTransposeOperator
    >>> op = ConvTransposeOperator(np.ones((1, 1, 4)), 100, stride=2, padding=1)
    >>> 2.0 <= norm(op) <= bound(op) <= 2.05 * 2**0.5
    True
    """
    as_operator(op)
    geometry, mode = op.geometry, op.padding_mode
    if is_circulant(geometry, mode):
        return float(np.linalg.norm(symbol(geometry, op.weight), 2, (-2, -1)).max())
    return min(_bound_by_grid(geometry, op.weight, mode), _bound_by_sums(op))


# ---- symbol --------------------------------------------------------------------------------------


def is_circulant(geometry: Geometry, padding_mode: str) -> bool:
    """Whether a shift of x by a cell shifts y around by the stride."""
    crops = padding_mode == "circular" or not any(axis.begin or axis.end for axis in geometry.axes)
    return crops and all(axis.output == axis.input * axis.stride for axis in geometry.axes)


def symbol(
    geometry: Geometry, weight: NDArray[Any], cells: tuple[int, ...] | None = None
) -> NDArray[np.complex128]:
    """Return F(q) of the circular transposed convolution with so many cells of x.

    Returns
    -------
    array (G, prod(cells), prod(stride) * M/G, C/G): for each group and frequency q of x, in the
    order of an FFT, the matrix from x's channels to y's, at y's frequencies q + j*cells. Both
    transforms are unitary.
    """
    cells = geometry.input_size if cells is None else cells
    strides = [axis.stride for axis in geometry.axes]
    sizes = [n * stride for n, stride in zip(cells, strides, strict=True)]
    w = canonical(np, geometry, "w", np.asarray(weight))  # (G, C/G, M/G, *K)
    groups, ins, outs = w.shape[:3]
    check_room("the symbol", 3 * 16 * groups * ins * outs * prod(sizes))
    places: list[Any] = [
        (np.arange(axis.kernel) * axis.dilation - axis.begin) % size
        for axis, size in zip(geometry.axes, sizes, strict=True)
    ]
    taps = np.zeros((groups, ins, outs, *sizes), np.complex128)
    every: Any = (..., *np.ix_(*places))
    np.add.at(taps, every, w)
    taps = scipy.fft.fftn(taps, axes=range(3, taps.ndim), overwrite_x=True) / sqrt(prod(strides))
    split = [n for pair in zip(strides, cells, strict=True) for n in pair]  # f = j*cells + q
    rank = geometry.rank
    taps = taps.reshape(groups, ins, outs, *split)
    order = [0, *range(4, 4 + 2 * rank, 2), *range(3, 3 + 2 * rank, 2), 2, 1]
    taps = taps.transpose(order)
    return np.ascontiguousarray(taps.reshape(groups, prod(cells), prod(strides) * outs, ins))


def _bound_by_grid(geometry: Geometry, weight: NDArray[Any], mode: str) -> float:
    factor = 1.0
    if mode != "zeros":  # several cells of the padded y are added to one
        for axis in geometry.axes:
            factor *= _most_copies(axis.output, axis.begin, axis.end, mode)
        geometry = uncropped(geometry)
    degrees = [
        (axis.dilation * (axis.kernel - 1)) // axis.stride for axis in geometry.axes
    ]  # of F*F, in each direction
    points = _POINTS
    while True:
        cells = tuple(max(points * degree, 1) for degree in degrees)
        if prod(cells) <= _MOST_POINTS or points == 4:
            break
        points //= 2
    for degree, n in zip(degrees, cells, strict=True):
        factor /= cos(pi * degree / n) if degree else 1.0
    found = symbol(geometry, weight, cells)
    if found.shape[-2] < found.shape[-1]:
        squares = found @ found.conj().swapaxes(-1, -2)
    else:
        squares = found.conj().swapaxes(-1, -2) @ found
    most = float(np.linalg.eigvalsh(squares)[..., -1].max())
    return sqrt(most * factor) * (1 + 1e-12)


def _most_copies(size: int, begin: int, end: int, mode: str) -> int:
    """Cells of a padded axis that are added to one cell, at most."""
    if mode == "circular":
        return ceil((begin + size + end) / size)
    if mode == "reflect":
        return 1 + (begin > 0) + (end > 0)
    return 1 + max(begin, end) if size > 1 else begin + size + end


def _bound_by_sums(op: Operator) -> float:
    """The root of the largest sum of a column times that of a row."""
    positive = op.with_weight(np.abs(op.weight).astype(np.float64))
    rows = positive @ np.ones(positive.shape[1])
    columns = positive.H @ np.ones(positive.shape[0])
    return sqrt(float(rows.max()) * float(columns.max())) * (1 + 1e-12)


# ---- arguments -----------------------------------------------------------------------------------


def as_operator(op: Any) -> None:
    """Refuse what is no operator of this package."""
    if not isinstance(op, Operator):
        raise ParameterError(
            f"op={show(op)} must be an operator of tconv.scipy; pass a ConvTransposeOperator or a "
            "ConvOperator. Sums and products of operators have norms by scipy.sparse.linalg.svds."
        )


def _as_float64(op: Operator) -> LinearOperator:
    """The operator in double precision."""
    kind = np.result_type(op.dtype, np.float64)
    return op.with_weight(op.weight.astype(kind))
