"""Linear operators of SciPy: transposed convolution and convolution on flat vectors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from math import prod
from typing import Any, Literal, Unpack

import numpy as np
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator

from tconv.arrays.dtypes import TYPES
from tconv.errors import DTypeError, ShapeError
from tconv.geometry.arguments import (
    DATA_FORMATS,
    PerAxis,
    as_array,
    as_choice,
    as_integer,
    as_per_axis,
)
from tconv.geometry.geometry import OPERANDS, Geometry, Letter
from tconv.geometry.keywords import SizeKeywords
from tconv.geometry.weight_formats import WEIGHT_FORMATS, WeightLayout
from tconv.ops.dispatch import Call, check_padding_mode, solve_for
from tconv.signatures import readable
from tconv.system.memory import check_room

__all__ = ["ConvOperator", "ConvTransposeOperator", "Operator"]

_BLOCK_BYTES = 2**27  # of the columns of a matrix that are computed at once
_NUMBERS = "biufc"
_TRANSPOSED: dict[Letter, Letter] = {"y": "x", "x": "y"}


class Operator(LinearOperator):  # type: ignore[misc]  # SciPy has no types
    """A transposed convolution or a convolution as a matrix that is never made.

    Attributes
    ----------
    dims, dimsd : shapes of the arrays that it reads and returns, which vectors hold flat: channels
        and size, and the batch before them if it is not 1
    weight : array, as given
    geometry : Geometry of one transposed convolution with this weight, of the whole batch
    padding_mode : str
    """

    letter: Letter  # of what it returns
    dims: tuple[int, ...]
    dimsd: tuple[int, ...]

    def _set(self, geometry: Geometry, weight: NDArray[Any], call: Call) -> None:
        self.geometry, self.weight, self._call = geometry, weight, call
        self._weights: dict[tuple[str, bool], NDArray[Any]] = {}
        given: Letter = OPERANDS[self.letter][0]
        drop = int(geometry.batch == 1)
        self.dims, self.dimsd = (geometry.shape_of(each)[drop:] for each in (given, self.letter))
        super().__init__(weight.dtype, (prod(self.dimsd), prod(self.dims)))

    @property
    def padding_mode(self) -> str:
        """Padding mode of the convolution, see `tconv.conv_transpose`."""
        return self._call.padding_mode

    # ---- products --------------------------------------------------------------------------------

    def _matvec(self, x: NDArray[Any]) -> NDArray[Any]:
        return self._applied(self.letter, x.reshape(1, -1)).reshape(-1)

    def _rmatvec(self, x: NDArray[Any]) -> NDArray[Any]:
        return self._applied(OPERANDS[self.letter][0], x.reshape(1, -1)).reshape(-1)

    def _matmat(self, x: NDArray[Any]) -> NDArray[Any]:
        return self._applied(self.letter, x.T).T

    def _rmatmat(self, x: NDArray[Any]) -> NDArray[Any]:
        return self._applied(OPERANDS[self.letter][0], x.T).T

    def _applied(self, want: Letter, rows: NDArray[Any]) -> NDArray[Any]:
        """The operator, or its adjoint if it returns another letter, on every row."""
        if rows.dtype.kind not in _NUMBERS:
            raise DTypeError(
                f"x has dtype {rows.dtype}, must be of numbers; convert it by astype(float)."
            )
        weight = self._weight(np.result_type(self.dtype, rows.dtype), want != self.letter)
        rows = np.ascontiguousarray(rows, weight.dtype)
        size = max(*self.shape) * weight.itemsize
        block = max(min(self._call.max_bytes or _BLOCK_BYTES, _BLOCK_BYTES) // (4 * size), 1)
        parts = [self._block(want, rows[n : n + block], weight) for n in range(0, len(rows), block)]
        if not parts:
            return np.zeros((0, self.shape[want != self.letter]), weight.dtype)
        return parts[0] if len(parts) == 1 else np.concatenate(parts)

    def _block(self, want: Letter, rows: NDArray[Any], weight: NDArray[Any]) -> NDArray[Any]:
        geometry, count = self.geometry, len(rows)
        if count > 1:
            geometry = replace(geometry, batch=count * geometry.batch)
        a = rows.reshape(geometry.shape_of(OPERANDS[want][0]))
        made: NDArray[Any] = solve_for(want, geometry, a, weight, None, self._call)
        return made.reshape(len(rows), -1)

    def _weight(self, dtype: np.dtype[Any], is_conjugate: bool) -> NDArray[Any]:
        """The weight in a type; conjugate for an adjoint."""
        is_conjugate &= dtype.kind == "c"
        found = self._weights.get((dtype.name, is_conjugate))
        if found is None:
            found = np.ascontiguousarray(self.weight, dtype)
            found = found.conj() if is_conjugate else found
            self._weights[dtype.name, is_conjugate] = found
        return found

    # ---- other operators -------------------------------------------------------------------------

    def _adjoint(self) -> Operator:
        return self._made(_TRANSPOSED[self.letter], self.weight.conj())

    def _transpose(self) -> Operator:
        return self._made(_TRANSPOSED[self.letter], self.weight)

    def with_weight(self, weight: NDArray[Any]) -> Operator:
        """The operator of another weight of the same shape."""
        return self._made(self.letter, weight)

    def _made(self, letter: Letter, weight: NDArray[Any]) -> Operator:
        kind = ConvTransposeOperator if letter == "y" else ConvOperator
        made: Operator = kind.__new__(kind)
        made._set(self.geometry, weight, self._call)
        return made

    def to_pylops(self) -> Any:
        """Return this as an operator of PyLops, with the same dims and dimsd.

        Raises
        ------
        ImportError : PyLops is not installed
        """
        from tconv.scipy.pylops import as_pylops

        return as_pylops(self)

    def __repr__(self) -> str:
        rows, columns = self.shape
        return (
            f"<{rows}x{columns} {type(self).__name__} of {self.dtype}, {self.dims} to {self.dimsd}>"
        )

    __str__ = __repr__


class ConvTransposeOperator(Operator):
    """`tconv.conv_transpose` as a `scipy.sparse.linalg.LinearOperator`: y = A x on flat vectors.

    ``op @ x.ravel()`` has the numbers of ``tconv.conv_transpose(x, weight).ravel()``. `rmatvec` and
    ``op.H`` are the adjoint, the convolution with the conjugate weight; ``op.T`` is the transpose.
    Columns of a matrix are computed as a batch. Products of float64 vectors are computed in
    float64, also by a weight of float32.

    Parameters
    ----------
    weight : array (C, M // groups, *K)
    input_size : int, or one int per axis: the size of x
    batch : int, samples in one vector
    output_size : the size of y, in place of output_padding
    padding_mode, method, threads, max_bytes, stride, padding, output_padding, dilation, groups, \
data_format, weight_format, flip_kernel : as for `tconv.conv_transpose`; method is "direct"

    Raises
    ------
    ParameterError, ShapeError, DTypeError : as `tconv.conv_transpose`

    >>> import numpy as np
    >>> op = ConvTransposeOperator(np.array([[[1.0, 2.0, 1.0]]]), 3, stride=2)
    >>> op.dims, op.dimsd, op @ np.array([1.0, 0.0, 1.0])
    ((1, 3), (1, 7), array([1., 2., 1., 0., 1., 2., 1.]))
    >>> op.H @ np.ones(7)
    array([4., 4., 4.])
    """

    letter = "y"

    @readable
    def __init__(
        self,
        weight: Any,
        input_size: PerAxis,
        *,
        batch: int = 1,
        output_size: PerAxis | None = None,
        padding_mode: str = "zeros",
        method: str = "direct",
        threads: int | None = None,
        max_bytes: int | None = None,
        **keywords: Unpack[SizeKeywords],
    ) -> None:
        call = Call("ConvTransposeOperator", padding_mode, method, threads, max_bytes, kept=False)
        array, shape = _arguments("x", weight, input_size, batch, keywords)
        geometry = Geometry.of(shape, array.shape, output_size=output_size, **keywords)
        _check_padding(padding_mode, geometry, keywords, "the output size")
        self._set(geometry, array, call)


class ConvOperator(Operator):
    """`tconv.conv` as a `scipy.sparse.linalg.LinearOperator`: x = W* y on flat vectors.

    ``op @ y.ravel()`` has the numbers of ``tconv.conv(y, weight).ravel()``: the convolution of
    neural networks, a blur that is strided, a forward model of samples. See
    `ConvTransposeOperator`, which is its transpose.

    Parameters
    ----------
    weight : array (C, M // groups, *K); C are the channels of the result
    input_size : int, or one int per axis: the size of y, which the operator reads
    batch : int, samples in one vector
    output_size : the size of the result, where several are possible
    padding_mode, method, threads, max_bytes, stride, padding, output_padding, dilation, groups, \
data_format, weight_format, flip_kernel : as for `tconv.conv`; method is "direct"

    Raises
    ------
    ParameterError, ShapeError, DTypeError : as `tconv.conv`

    >>> import numpy as np
    >>> op = ConvOperator(np.array([[[1.0, 2.0, 1.0]]]), 7, stride=2)
    >>> op.dims, op.dimsd, op @ np.arange(7.0)
    ((1, 7), (1, 3), array([ 4., 12., 20.]))
    """

    letter = "x"

    @readable
    def __init__(
        self,
        weight: Any,
        input_size: PerAxis,
        *,
        batch: int = 1,
        output_size: PerAxis | None = None,
        padding_mode: str = "zeros",
        method: str = "direct",
        threads: int | None = None,
        max_bytes: int | None = None,
        **keywords: Unpack[SizeKeywords],
    ) -> None:
        call = Call("ConvOperator", padding_mode, method, threads, max_bytes, kept=False)
        array, shape = _arguments("y", weight, input_size, batch, keywords)
        geometry = Geometry.of_conv(shape, array.shape, input_size=output_size, **keywords)
        _check_padding(padding_mode, geometry, keywords, "y's size")
        self._set(geometry, array, call)


def _arguments(
    letter: Literal["x", "y"],
    weight: Any,
    input_size: Any,
    batch: Any,
    keywords: Mapping[str, Any],
) -> tuple[NDArray[Any], tuple[int, ...]]:
    """The weight as an array of floats, and the shape of what the operator reads."""
    array = as_array(weight, "weight")
    if array.dtype.kind in "biu":
        check_room("the weight in float64", 8 * array.size)
        array = array.astype(np.float64)
    known = [name for name in TYPES if not TYPES[name].is_integer]
    if array.dtype.name not in known:
        raise DTypeError(
            f"weight has dtype {array.dtype}, must be one of {', '.join(known)}, or integers; "
            "convert it by astype(float)."
        )
    if array.ndim < 3:
        raise ShapeError(
            f"weight has shape {array.shape}, must have two axes of channels and at least one of "
            "the kernel; for a kernel without channels pass weight[None, None]."
        )
    form = as_choice(keywords.get("weight_format", "IO*"), "weight_format", WEIGHT_FORMATS)
    layout = WeightLayout.of(form, array.ndim - 2)
    groups = as_integer(keywords.get("groups", 1), "groups", 1)
    is_divided = layout.outputs_divided == (letter == "y")
    channels = array.shape[layout.inputs if letter == "x" else layout.outputs]
    channels *= groups if is_divided else 1
    size = as_per_axis(input_size, "input_size", array.ndim - 2, 1)
    batch = as_integer(batch, "batch", 1)
    form = keywords.get("data_format", DATA_FORMATS[0])
    if as_choice(form, "data_format", DATA_FORMATS) == "channels_last":
        return array, (batch, *size, channels)
    return array, (batch, channels, *size)


def _check_padding(mode: str, geometry: Geometry, keywords: Mapping[str, Any], size: str) -> None:
    padding, extra = keywords.get("padding", 0), keywords.get("output_padding", 0)
    check_padding_mode(mode, geometry, padding, extra, size)
