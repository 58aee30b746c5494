"""Sparse matrix of a transposed convolution, made without a dense one."""

from __future__ import annotations

from math import prod
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray
from scipy import sparse

from tconv.arrays.canonical import canonical
from tconv.arrays.padding_modes import pad
from tconv.errors import DTypeError
from tconv.geometry.arguments import PerAxis, as_choice, as_flag
from tconv.geometry.geometry import Geometry
from tconv.geometry.keywords import SizeKeywords
from tconv.ops.dispatch import uncropped
from tconv.scipy.operators import ConvTransposeOperator, Operator
from tconv.signatures import readable
from tconv.system.memory import check_room

__all__ = ["matrix"]

_FORMATS = ("csr", "csc")


@readable
def matrix(
    weight: Any,
    input_size: PerAxis,
    *,
    format: str = "csr",
    unrolled: bool = False,
    output_size: PerAxis | None = None,
    padding_mode: str = "zeros",
    **keywords: Unpack[SizeKeywords],
) -> Any:
    """Return the matrix of a transposed convolution: ``vec(y) = A vec(x)`` for one sample.

    Parameters
    ----------
    weight : array (C, M // groups, *K) of a type that `scipy.sparse` has: float32, float64,
        complex64, complex128; integers become float64
    input_size : int, or one int per axis: the size of x
    format : "csr" or "csc". The matrix W* in "csr" and its transpose in "csc" are the same arrays,
        which are what is made; the other two are converted by SciPy.
    unrolled : bool, return W* itself, one row per input cell, in place of its transpose A
    output_size, padding_mode, stride, padding, output_padding, dilation, groups, data_format, \
weight_format, flip_kernel : as for `tconv.conv_transpose`

    Returns
    -------
    scipy.sparse.csr_array or csc_array of shape (prod of y's, prod of x's shape); with `unrolled`
    of the transposed shape. Indices are sorted, no entry stands twice; taps of value 0 are entries.

    Raises
    ------
    ParameterError, ShapeError, DTypeError, MemoryLimitError : as `tconv.conv_transpose`

    References
    ----------
    Dumoulin & Visin 2016, arXiv:1603.07285, section 4.1.

    >>> import numpy as np
    >>> matrix(np.array([[[1.0, 2.0, 1.0]]]), 3, stride=2).toarray()
    array([[1., 0., 0.],
           [2., 0., 0.],
           [1., 1., 0.],
           [0., 2., 0.],
           [0., 1., 1.],
           [0., 0., 2.],
           [0., 0., 1.]])
    """
    form, is_unrolled = as_choice(format, "format", _FORMATS), as_flag(unrolled, "unrolled")
    operator = ConvTransposeOperator(
        weight, input_size, output_size=output_size, padding_mode=padding_mode, **keywords
    )
    if operator.dtype.name not in ("float32", "float64", "complex64", "complex128"):
        raise DTypeError(
            f"weight has dtype {operator.dtype}, which scipy.sparse has no matrices of; convert "
            'it by astype("float32").'
        )
    arrays = _unrolled(operator)
    rows, columns = operator.shape
    if is_unrolled:
        made = sparse.csr_array(arrays, shape=(columns, rows))
        return made if form == "csr" else made.tocsc()
    made = sparse.csc_array(arrays, shape=(rows, columns))
    return made if form == "csc" else made.tocsr()


def _unrolled(operator: Operator) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """Values, columns and beginnings of the rows of W*, in the caller's layout of x and y."""
    geometry, mode = operator.geometry, operator.padding_mode
    places = None
    if mode != "zeros" and any(axis.begin or axis.end for axis in geometry.axes):
        places = _places(geometry, mode)
        geometry = uncropped(geometry)
    cells, exist = geometry.unrolled_cells()  # (I, K), of y
    taps = cells.shape[1]
    groups, ins, outs = geometry.groups, geometry.in_channels, geometry.out_channels
    share = outs // groups
    count = int(np.count_nonzero(exist)) * ins * share
    kind = np.int32 if max(count, *operator.shape) < 2**31 else np.int64
    item = operator.weight.itemsize + np.dtype(kind).itemsize
    check_room("the sparse matrix", count * (2 * item + 2) + 16 * sum(operator.shape))
    w = canonical(np, geometry, "w", operator.weight).reshape(ins, share, taps)
    is_last = geometry.data_format == "channels_last"
    if places is not None:
        cells = places[cells]
    size = prod(operator.geometry.output_size)
    channels = np.arange(share)
    # Of one input channel: all rows i, and in each row the columns in their order.
    if is_last:
        columns = cells[:, :, None] * outs + channels
        mask = np.broadcast_to(exist[:, :, None], columns.shape)
        values = w.transpose(0, 2, 1)
    else:
        columns = channels[:, None] * size + cells[:, None, :]
        mask = np.broadcast_to(exist[:, None, :], columns.shape)
        values = w
    columns = columns.astype(kind)
    is_whole = bool(exist.all())
    lengths = exist.sum(1) * share
    shape = (len(cells), *values.shape[1:])
    if not is_whole:
        mask, columns = np.ascontiguousarray(mask), columns[mask]
    columns = columns.reshape(-1)
    step = share if is_last else share * size  # from a group's columns to the next one's
    per = ins // groups
    data, indices = np.empty((ins, columns.size), w.dtype), np.empty((ins, columns.size), kind)
    for c in range(ins):
        every = np.broadcast_to(values[c], shape)
        data[c] = every.reshape(-1) if is_whole else every[mask]
        np.add(columns, kind(c // per * step), out=indices[c])
    starts = np.zeros(ins * len(cells) + 1, kind)
    if is_last and ins > 1:  # rows go by cell, then by channel
        bounds = np.cumsum(lengths)[:-1]
        data = _by_cell(data, bounds, lengths)
        indices = _by_cell(indices, bounds, lengths)
        np.cumsum(np.repeat(lengths, ins), out=starts[1:])
    else:
        np.cumsum(np.tile(lengths, ins), out=starts[1:])
    if places is None:
        return data.reshape(-1), indices.reshape(-1), starts
    # Several cells of the padded y are one cell of y.
    made = sparse.csr_array(
        (data.reshape(-1), indices.reshape(-1), starts), shape=operator.shape[::-1]
    )
    made.sum_duplicates()
    return made.data, made.indices, made.indptr


def _by_cell(array: NDArray[Any], bounds: NDArray[Any], lengths: NDArray[Any]) -> NDArray[Any]:
    """Rows of channels, each with a part for each cell, with the parts of a cell side by side."""
    if len({*lengths.tolist()}) == 1:
        return array.reshape(len(array), len(lengths), -1).transpose(1, 0, 2).reshape(-1)
    return np.concatenate([part.reshape(-1) for part in np.split(array, bounds, axis=1)])


def _places(geometry: Geometry, mode: str) -> NDArray[Any]:
    """Of each cell of the padded y, the cell of y that it is a copy of."""
    size = geometry.output_size
    cells = np.arange(prod(size)).reshape(size)
    pairs = [(axis.begin, axis.end) for axis in geometry.axes]
    return np.asarray(pad(np, cells, mode, pairs, 0)).reshape(-1)
