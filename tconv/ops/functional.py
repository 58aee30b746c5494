"""Public functions: transposed convolution, its transpose and its weight gradient."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Never, TypeVar

from tconv.arrays.dtypes import dtype_name
from tconv.arrays.operands import Array, as_operands, check_out
from tconv.errors import ShapeError
from tconv.geometry.arguments import Padding, PerAxis, as_flag
from tconv.geometry.geometry import Geometry
from tconv.ops.call_cache import cache_entry, solve_and_cache
from tconv.ops.dispatch import Call, check_padding_mode
from tconv.signatures import readable, unknown_keyword

__all__ = [
    "conv",
    "conv_output_shape",
    "conv_transpose",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "conv_weight_gradient",
    "output_shape",
]

ArrayT = TypeVar("ArrayT", bound=Array)


@readable
def conv_transpose(
    x: ArrayT,
    weight: ArrayT,
    bias: ArrayT | None = None,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    output_size: PerAxis | None = None,
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    weight_format: str = "IO*",
    flip_kernel: bool = False,
    dtype: Any = None,
    out: ArrayT | None = None,
    method: str = "auto",
    threads: int | None = None,
    max_bytes: int | None = None,
    **unknown: Never,
) -> ArrayT:
    """Spread every input sample over the output through the kernel: the transpose of `conv`.

    ``y[n, m, i*stride - padding + k*dilation] += x[n, c, i] * weight[c, m, k]``, per spatial axis.

    Parameters
    ----------
    x : array (N, C, *I), or (C, *I) for one sample without a batch
    weight : array (C, M // groups, *K) of x's type; the weight of the `conv` being transposed
    bias : array (M,), added to every output cell
    stride, dilation : int or one int per spatial axis, in samples of y
    padding : int, one int or (begin, end) pair per axis, "valid", "same", "same_upper" or
        "same_lower"; crops the full output, a negative number extends it. "same" gives
        ``O = I*stride`` and crops the odd sample at the end, "same_lower" at the beginning.
    output_padding : int or one int per axis, smaller than max(stride, dilation); lengthens the end
        by cells that are computed like all others
    groups : int, number of groups of channels, each computed from its own input channels
    output_size : int, one int per axis or the full shape of y, instead of output_padding
    padding_mode : "zeros", "circular", "reflect" or "replicate": of the `conv` being transposed
    data_format : "channels_first", or "channels_last" for x and y (N, *spatial, channels)
    weight_format : "IO*" (PyTorch, ONNX), "*OI" (Keras, TensorFlow), "*IO" (Flax), "OI*" (Equinox)
        or "O*I" (MLX); * stands for the kernel's axes
    flip_kernel : bool, reverse the kernel along its spatial axes first (JAX's default)
    dtype : the type both operands are converted to first; without it they must agree
    out : array of the result's shape and type to write to; must not overlap x, weight or bias
    method : "auto", "direct", "measure" or "fft" (of floats, on NumPy). "direct" sums in one order
        for all image sizes, and a cell of y depends only on the cells that its taps reach. "auto"
        may choose Winograd's algorithm for float32, where the error of a cell is bounded by the
        largest cell in a neighbourhood of these (docs/algorithms.md has the bound); an infinity, a
        NaN or a cell of 2^100 and more reaches no further than with "direct". "measure" times
        several plans that sum in the order of "auto". "fft" is for long kernels: its error is
        relative to a block of x, over which an infinity or a NaN spreads.
    threads : int up to 1024, threads to use; None leaves it to the library that computes
    max_bytes : int, bound on output, workspace and packed weights; by default 80 % of the memory
        available to the process

    Returns
    -------
    y : array (N, M, *O) of x's library, device and type (int8 and uint8 give int32, other integers
        int64), where per axis
        ``O = (I - 1)*stride + dilation*(K - 1) + 1 - padding_begin - padding_end + output_padding``

    Raises
    ------
    ParameterError : an argument breaks its own rule
    ShapeError, OutputSizeError : sizes do not fit together
    DTypeError : an operand is no array or not of a supported type, or integers could overflow
    MemoryLimitError : more than `max_bytes` would be needed

    References
    ----------
    Dumoulin & Visin 2016, arXiv:1603.07285, relationship 14 (dilation: relationship 15).

    >>> conv_transpose(np.ones((1, 1, 2)), np.ones((1, 1, 3)), stride=2)
    array([[[1., 1., 2., 1., 1.]]])
    """
    if unknown:
        raise unknown_keyword(conv_transpose, unknown)
    entry = None
    if dtype is None:
        # One flat tuple: to unpack smaller ones takes a tenth of a microsecond.
        key = ("y", stride, padding, output_padding, dilation, groups, output_size, padding_mode,
               data_format, weight_format, flip_kernel, method, threads, max_bytes)  # fmt: skip
        entry = cache_entry(x, weight, key)
    if entry and (found := entry[0].run("y", x, weight, bias, out)) is not None:
        return found
    call = Call("conv_transpose", padding_mode, method, threads, max_bytes, kept=False)
    _, (x, weight, bias) = as_operands({"x": x, "weight": weight, "bias": bias}, dtype)
    geometry = Geometry.of(
        x.shape,
        weight.shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        output_size=output_size,
        data_format=data_format,
        weight_format=weight_format,
        flip_kernel=flip_kernel,
    )
    check_padding_mode(padding_mode, geometry, padding, output_padding)
    result: ArrayT = solve_and_cache(entry, "y", geometry, x, weight, bias, call, out)
    return result


@readable
def conv(
    y: ArrayT,
    weight: ArrayT,
    bias: ArrayT | None = None,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    input_size: PerAxis | None = None,
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    weight_format: str = "IO*",
    flip_kernel: bool = False,
    conjugate: bool = False,
    dtype: Any = None,
    out: ArrayT | None = None,
    method: str = "auto",
    threads: int | None = None,
    max_bytes: int | None = None,
    **unknown: Never,
) -> ArrayT:
    """Gather what the kernel covers at every position: the transpose of `conv_transpose`.

    ``x[n, c, i] = sum over m, k of weight[c, m, k] * y[n, m, i*stride - padding + k*dilation]``,
    the ordinary convolution of neural networks: weight (C, M // groups, *K) is PyTorch's own layout
    for it, where C are the output channels. The keywords are those of the `conv_transpose` whose
    transpose this is.

    The transpose conjugates nothing: ``sum(conv_transpose(x, w) * y) == sum(x * conv(y, w))``. With
    ``conjugate=True`` `conv` computes the adjoint, for which
    ``np.vdot(y, conv_transpose(x, w)) == np.vdot(conv(y, w), x)``. For real numbers both are equal.

    Parameters
    ----------
    y : array (N, M, *O) or (M, *O)
    weight : array (C, M // groups, *K) of y's type
    bias : array (C,), added to every cell of the result
    output_padding : int or one int per axis: how many cells of y are left over after the last
        window. 0 allows any number below the stride, as convolutions do.
    input_size : int, one int per axis or the full shape of x, where several inputs are possible
        (dilation greater than stride)
    padding, padding_mode : zeros, or what `padding_mode` says, put around y
    conjugate : bool, take the complex conjugate of weight, which makes this the adjoint
    stride, dilation, groups, data_format, weight_format, flip_kernel, dtype, out, method, \
threads, max_bytes : as for `conv_transpose`

    Returns
    -------
    x : array (N, C, *I), where per axis
        ``I = (O + padding_begin + padding_end - dilation*(K - 1) - 1) // stride + 1``

    Raises
    ------
    ParameterError, ShapeError, DTypeError, MemoryLimitError : as for `conv_transpose`

    References
    ----------
    Dumoulin & Visin 2016, arXiv:1603.07285, relationship 6 (dilation: relationship 15).

    >>> conv(np.arange(1.0, 6.0).reshape(1, 1, 5), np.ones((1, 1, 3)), stride=2)
    array([[[ 6., 12.]]])
    >>> y, w = np.ones((1, 1, 2), complex), np.full((1, 1, 1), 1 + 2j)
    >>> conv(y, w), conv(y, w, conjugate=True)
    (array([[[1.+2.j, 1.+2.j]]]), array([[[1.-2.j, 1.-2.j]]]))
    """
    if unknown:
        raise unknown_keyword(conv, unknown)
    is_adjoint = conjugate is not False and as_flag(conjugate, "conjugate")
    entry = None
    if dtype is None:
        key = ("x", stride, padding, output_padding, dilation, groups, input_size, padding_mode,
               data_format, weight_format, flip_kernel, method, threads, max_bytes)  # fmt: skip
        entry = cache_entry(y, weight, key)
    if entry and (found := entry[0].run("x", y, weight, bias, out)) is not None:
        return found
    call = Call("conv", padding_mode, method, threads, max_bytes, kept=False)
    xp, (y, weight, bias) = as_operands({"y": y, "weight": weight, "bias": bias}, dtype)
    geometry = Geometry.of_conv(
        y.shape,
        weight.shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        input_size=input_size,
        data_format=data_format,
        weight_format=weight_format,
        flip_kernel=flip_kernel,
    )
    check_padding_mode(padding_mode, geometry, padding, output_padding, "y's size")
    if is_adjoint and (kind := dtype_name(y.dtype)).startswith("complex"):
        if out is not None:  # before the copy below, which overlaps nothing
            check_out(out, xp, geometry.x_shape, kind, [weight])
        weight = xp.conj(weight)
    result: ArrayT = solve_and_cache(entry, "x", geometry, y, weight, bias, call, out)
    return result


@readable
def conv_weight_gradient(
    x: ArrayT,
    y: ArrayT,
    kernel_size: PerAxis,
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    weight_format: str = "IO*",
    flip_kernel: bool = False,
    dtype: Any = None,
    out: ArrayT | None = None,
    method: str = "auto",
    threads: int | None = None,
    max_bytes: int | None = None,
    **unknown: Never,
) -> ArrayT:
    """Correlate x with y: the gradient of ``<conv_transpose(x, w), y>`` with respect to w.

    ``w[c, m, k] = sum over n, i of x[n, c, i] * y[n, m, i*stride - padding + k*dilation]``. This
    is also the weight gradient of `conv`, if x is the gradient of its result.

    Parameters
    ----------
    x : array (N, C, *I) or (C, *I)
    y : array (N, M, *O) or (M, *O), of x's type
    kernel_size : one int per spatial axis, or one int for all of them (x and y then have a batch)
    stride, padding, output_padding, dilation, groups, padding_mode, data_format, weight_format, \
flip_kernel, dtype, out, method, threads, max_bytes : as for `conv_transpose`

    Returns
    -------
    w : array (C, M // groups, *K)

    Raises
    ------
    ParameterError, ShapeError, DTypeError, MemoryLimitError : as for `conv_transpose`

    >>> conv_weight_gradient(np.ones((1, 1, 2)), np.arange(5.0).reshape(1, 1, 5), 3, stride=2)
    array([[[2., 4., 6.]]])
    """
    if unknown:
        raise unknown_keyword(conv_weight_gradient, unknown)
    entry = None
    if dtype is None:
        key = ("w", kernel_size, stride, padding, output_padding, dilation, groups, padding_mode,
               data_format, weight_format, flip_kernel, method, threads, max_bytes)  # fmt: skip
        entry = cache_entry(x, y, key)
    if entry and (found := entry[0].run("w", x, y, None, out)) is not None:
        return found
    call = Call("conv_weight_gradient", padding_mode, method, threads, max_bytes)
    _, (x, y) = as_operands({"x": x, "y": y}, dtype)
    geometry = Geometry.of_weight_gradient(
        x.shape,
        y.shape,
        kernel_size,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        data_format=data_format,
        weight_format=weight_format,
        flip_kernel=flip_kernel,
    )
    check_padding_mode(padding_mode, geometry, padding, output_padding, "y's size")
    return solve_and_cache(entry, "w", geometry, x, y, None, call, out)


@readable
def conv_transpose1d(
    input: ArrayT,
    weight: ArrayT,
    bias: ArrayT | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
    **unknown: Never,
) -> ArrayT:
    """`conv_transpose` of one spatial axis with the arguments in the order of PyTorch's function.

    >>> conv_transpose1d(np.ones((1, 1, 2)), np.ones((1, 1, 3)), None, 2)
    array([[[1., 1., 2., 1., 1.]]])
    """
    if unknown:
        raise unknown_keyword(conv_transpose1d, unknown)
    return _of_rank(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


@readable
def conv_transpose2d(
    input: ArrayT,
    weight: ArrayT,
    bias: ArrayT | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
    **unknown: Never,
) -> ArrayT:
    """`conv_transpose` of two spatial axes with the arguments in the order of PyTorch's function.

    >>> y = np.array([[37, 47], [67, 77]]).reshape(1, 1, 2, 2)
    >>> conv_transpose2d(y, np.array([[1, 2], [3, 4]]).reshape(1, 1, 2, 2))
    array([[[[ 37, 121,  94],
             [178, 500, 342],
             [201, 499, 308]]]])
    """
    if unknown:
        raise unknown_keyword(conv_transpose2d, unknown)
    return _of_rank(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


@readable
def conv_transpose3d(
    input: ArrayT,
    weight: ArrayT,
    bias: ArrayT | None = None,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    groups: int = 1,
    dilation: PerAxis = 1,
    **unknown: Never,
) -> ArrayT:
    """`conv_transpose` of three spatial axes with the arguments in the order of PyTorch's function.

    >>> conv_transpose3d(np.ones((1, 1, 1, 2, 2)), np.ones((1, 1, 1, 1, 2)), None, (1, 1, 2)).shape
    (1, 1, 1, 2, 4)
    """
    if unknown:
        raise unknown_keyword(conv_transpose3d, unknown)
    return _of_rank(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


@readable
def output_shape(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    output_size: PerAxis | None = None,
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    weight_format: str = "IO*",
    **unknown: Never,
) -> tuple[int, ...]:
    """Shape of ``conv_transpose(x, weight)`` with the same keywords, without computing it.

    Parameters
    ----------
    x_shape, weight_shape : shapes of x and weight
    stride, padding, output_padding, dilation, groups, output_size, padding_mode, data_format, \
weight_format : as for `conv_transpose`

    Returns
    -------
    tuple of int : the shape of y

    Raises
    ------
    ParameterError, ShapeError, OutputSizeError : as for `conv_transpose`

    >>> output_shape((1, 64, 16, 16), (64, 32, 4, 4), stride=2, padding=1)
    (1, 32, 32, 32)
    """
    if unknown:
        raise unknown_keyword(output_shape, unknown)
    geometry = Geometry.of(
        x_shape,
        weight_shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        output_size=output_size,
        data_format=data_format,
        weight_format=weight_format,
    )
    check_padding_mode(padding_mode, geometry, padding, output_padding)
    return geometry.y_shape


@readable
def conv_output_shape(
    y_shape: Sequence[int],
    weight_shape: Sequence[int],
    *,
    stride: PerAxis = 1,
    padding: Padding = 0,
    output_padding: PerAxis = 0,
    dilation: PerAxis = 1,
    groups: int = 1,
    input_size: PerAxis | None = None,
    padding_mode: str = "zeros",
    data_format: str = "channels_first",
    weight_format: str = "IO*",
    **unknown: Never,
) -> tuple[int, ...]:
    """Shape of ``conv(y, weight)`` with the same keywords, without computing it.

    Parameters
    ----------
    y_shape, weight_shape : shapes of y, the array that is convolved, and of weight
    stride, padding, output_padding, dilation, groups, input_size, padding_mode, data_format, \
weight_format : as for `conv`

    Returns
    -------
    tuple of int : the shape of the result

    Raises
    ------
    ParameterError, ShapeError : as for `conv`

    >>> conv_output_shape((1, 3, 32, 32), (64, 3, 4, 4), stride=2, padding=1)
    (1, 64, 16, 16)
    """
    if unknown:
        raise unknown_keyword(conv_output_shape, unknown)
    geometry = Geometry.of_conv(
        y_shape,
        weight_shape,
        stride=stride,
        padding=padding,
        output_padding=output_padding,
        dilation=dilation,
        groups=groups,
        input_size=input_size,
        data_format=data_format,
        weight_format=weight_format,
    )
    check_padding_mode(padding_mode, geometry, padding, output_padding, "y's size")
    return geometry.x_shape


def _of_rank(rank: int, input: ArrayT, weight: ArrayT, bias: ArrayT | None, *others: Any) -> ArrayT:
    _, (weight,) = as_operands({"weight": weight})
    if weight.ndim != rank + 2:
        raise ShapeError(
            f"weight.ndim={weight.ndim} must be {rank + 2} for conv_transpose{rank}d; reshape "
            "weight or call conv_transpose, which takes any rank."
        )
    names = ("stride", "padding", "output_padding", "groups", "dilation")
    y: ArrayT = conv_transpose(input, weight, bias, **dict(zip(names, others, strict=True)))
    return y
