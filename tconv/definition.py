"""The definition: the unrolled filter matrix W* and the three contractions by it. The oracle.

Readable, slow and right: only tests and docs use it.

The worked example: a filter W slides over a 3x3 image X in 2x2 positions. Unrolled, each position
is a row of W*, and convolution is a product with it:

>>> W = np.array([[1, 2], [3, 4]])
>>> geometry = Geometry.of((1, 1, 2, 2), (1, 1, 2, 2))
>>> print(unrolled_filter(geometry, W.reshape(1, 1, 2, 2)))
[[1 2 0 3 4 0 0 0 0]
 [0 1 2 0 3 4 0 0 0]
 [0 0 0 1 2 0 3 4 0]
 [0 0 0 0 1 2 0 3 4]]
>>> X = np.arange(1, 10).reshape(1, 1, 3, 3)
>>> Y = contract(geometry, "x", X, W.reshape(1, 1, 2, 2))
>>> print(Y.reshape(2, 2))
[[37 47]
 [67 77]]

Its transpose takes Y back to the *shape* of X, not to its values:

>>> print(contract(geometry, "y", Y, W.reshape(1, 1, 2, 2)).reshape(3, 3))
[[ 37 121  94]
 [178 500 342]
 [201 499 308]]
"""

from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.canonical import canonical, canonical_shape, from_canonical
from tconv.geometry.geometry import Geometry, Letter
from tconv.system.memory import check_room

__all__ = ["contract", "unrolled_filter"]


def unrolled_filter(geometry: Geometry, weight: NDArray[Any]) -> NDArray[Any]:
    """W*: one row per input channel and position, one column per output channel and cell.

    Parameters
    ----------
    geometry : Geometry
    weight : array of ``geometry.weight_shape``

    Returns
    -------
    array (C*prod(I), M*prod(O)), zero where the filter does not cover the cell and between groups

    Raises
    ------
    MemoryLimitError : the matrix needs more memory than there is

    References
    ----------
    Dumoulin & Visin 2016, arXiv:1603.07285, section 4.1.
    """
    rows = geometry.in_channels * prod(geometry.input_size)
    columns = geometry.out_channels * prod(geometry.output_size)
    check_room(f"W* of {rows:,} x {columns:,}", rows * columns * weight.dtype.itemsize)
    w = canonical(np, geometry, "w", weight)  # (G, C/G, M/G, *K)
    groups, inputs, outputs = w.shape[:3]
    w = w.reshape(groups, inputs, outputs, -1)
    cells, outs = prod(geometry.input_size), prod(geometry.output_size)
    matrix = np.zeros((groups, inputs, cells, groups, outputs, outs), weight.dtype)
    i, k, o = geometry.unrolled_indices()
    for g in range(groups):
        for c in range(inputs):
            for m in range(outputs):
                matrix[g, c, i, g, m, o] = w[g, c, m, k]
    return matrix.reshape(groups * inputs * cells, groups * outputs * outs)


def contract(
    geometry: Geometry, want: Letter, a: NDArray[Any], b: NDArray[Any], *, bias: Any = None
) -> NDArray[Any]:
    """Solve F(x, w, y) for the wanted letter: (a, b) is (x, w) for y, (y, w) for x, (x, y) for w.

    ``y = (W*)^T x``, ``x = W* y``, and ``w[c, m, k]`` sums ``x[c, i] * y[m, o]`` over the entries
    of W* that hold tap k.
    """
    result: NDArray[Any]
    if want == "w":
        result = _weight_gradient(geometry, a, b)
    else:
        given: Letter = "x" if want == "y" else "y"
        matrix = unrolled_filter(geometry, b)  # (C*I, M*O)
        matrix = matrix if want == "y" else matrix.T
        result = canonical(np, geometry, given, a).reshape(-1, len(matrix)) @ matrix
    result = result.reshape(canonical_shape(geometry, want))
    result = from_canonical(np, geometry, want, result)
    if bias is not None:
        channels_last = geometry.data_format == "channels_last"
        result = result + (bias if channels_last else bias.reshape(-1, *[1] * geometry.rank))
    return result


def _weight_gradient(geometry: Geometry, x: NDArray[Any], y: NDArray[Any]) -> NDArray[Any]:
    x, y = canonical(np, geometry, "x", x), canonical(np, geometry, "y", y)
    n, g, c, m = geometry.batch, geometry.groups, x.shape[2], y.shape[2]
    x, y = (
        x.reshape(n, g, c, prod(geometry.input_size)),
        y.reshape(n, g, m, prod(geometry.output_size)),
    )
    result = np.zeros((g, c, m, prod(geometry.kernel_size)), np.result_type(x, y))
    for i, k, o in zip(*geometry.unrolled_indices(), strict=True):
        result[..., k] += np.einsum("ngc,ngm->gcm", x[..., i], y[..., o])
    return result
