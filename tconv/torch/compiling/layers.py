"""Translations of convolutions, products with matrices, normalisations, pooling and resampling."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from tconv.graph import UnknownOperator
from tconv.torch.compiling.translation import Translator, translate

__all__: list[str] = []


@translate("convolution")
def _convolution(
    g: Translator,
    x: Any,
    weight: Any,
    bias: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    transposed: bool,
    output_padding: Any,
    groups: int,
) -> None:
    array = g.array(weight)
    assert array is not None
    rank = array.ndim - 2
    if rank < 1 or g.rank(x) != array.ndim:
        raise UnknownOperator("a convolution without an axis for the batch")
    g.array(bias)
    begin = _per_axis(g, padding, rank)
    attributes: dict[str, Any] = {
        "strides": _per_axis(g, stride, rank),
        "pads": [*begin, *begin],
        "dilations": _per_axis(g, dilation, rank),
        "group": groups,
    }
    if transposed:
        attributes["output_padding"] = _per_axis(g, output_padding, rank)
    g.write("ConvTranspose" if transposed else "Conv", [x, weight, bias], **attributes)


@translate("contract")
def _contract(g: Translator, want: str, a: Any, b: Any, bias: Any, **settings: Any) -> None:
    """Translate the operator of modules that `accelerate` changed."""
    if want != "y":
        raise UnknownOperator("a gradient")
    g.array(b)
    g.array(bias)
    g.write(
        "ConvTranspose",
        [a, b, bias],
        strides=g.known(settings["stride"]),
        pads=g.known(settings["padding"]),
        output_padding=g.known(settings["output_padding"]),
        dilations=g.known(settings["dilation"]),
        group=settings["groups"],
    )


def _per_axis(g: Translator, values: Any, rank: int) -> list[int]:
    found = g.known(values)
    return found * rank if len(found) == 1 else found


# ---- products ------------------------------------------------------------------------------------


@translate("mm")
def _mm(g: Translator, x: Any, mat2: Any) -> None:
    if g.is_constant(x):
        made = g.add("Unsqueeze", [mat2, g.numbers([0])])
        made = _columns(g, x, made[0])
        g.write("Squeeze", [*made, g.numbers([0])])
    else:
        g.write("MatMul", [x, mat2])


@translate("bmm")
def _bmm(g: Translator, x: Any, mat2: Any) -> None:
    if g.shape(x)[0] != 1:
        raise UnknownOperator("a product of many matrices")
    left, right = g.is_constant(x), g.is_constant(mat2)
    if left == right:
        raise UnknownOperator("a product of two matrices that are computed")
    if left:
        g.give(*_columns(g, x, mat2))
        return
    array = g.array(mat2)
    assert array is not None
    g.write("MatMul", [x, g.constant(np.ascontiguousarray(array[0]))])


def _columns(g: Translator, matrix: Any, x: Any) -> list[str]:
    """A constant matrix times x (1, K, N): a convolution of one tap, whose channels are rows."""
    array = g.array(matrix)
    assert array is not None
    weight = g.constant(np.ascontiguousarray(array).reshape(*array.shape[-2:], 1))
    return g.add("Conv", [x, weight])


@translate("addmm")
def _addmm(g: Translator, x: Any, mat1: Any, mat2: Any, beta: Any, alpha: Any) -> None:
    if (beta, alpha) != (1, 1):
        raise UnknownOperator(f"beta={beta}, alpha={alpha}")
    g.write("Add", [*g.add("MatMul", [mat1, mat2]), x])


# ---- normalisations ------------------------------------------------------------------------------


@translate("_native_batch_norm_legit_no_training")
def _batch_norm(
    g: Translator,
    x: Any,
    weight: Any,
    bias: Any,
    running_mean: Any,
    running_var: Any,
    momentum: Any,
    eps: float,
) -> None:
    mean = g.array(running_mean)
    assert mean is not None
    scale, shift = _affine(g, weight, bias, mean.size)
    g.write("BatchNormalization", [x, scale, shift, running_mean, running_var], epsilon=eps)


@translate("_native_batch_norm_legit.no_stats")
def _instance_norm(
    g: Translator, x: Any, weight: Any, bias: Any, training: bool, momentum: Any, eps: float
) -> None:
    batch, channels = g.shape(x)[:2]
    if batch != 1 or not isinstance(channels, int) or g.rank(x) < 3 or not training:
        raise UnknownOperator("a batch normalisation in training")
    scale, shift = _affine(g, weight, bias, channels)
    g.write("InstanceNormalization", [x, scale, shift], epsilon=eps)


@translate("native_group_norm")
def _group_norm(
    g: Translator,
    x: Any,
    weight: Any,
    bias: Any,
    N: Any,
    C: Any,
    HxW: Any,
    group: int,
    eps: float,
) -> None:
    rank, channels = g.rank(x), g.shape(x)[1]
    if not isinstance(channels, int) or rank < 3:
        raise UnknownOperator("a group normalisation of such an operand")
    rows = g.add("Reshape", [x, g.numbers([0, group, -1])])
    ones, zeros = _affine(g, None, None, group)
    made = g.add("InstanceNormalization", [*rows, ones, zeros], epsilon=eps)
    # The sizes of x again, without their numbers: its axes are those of the operand.
    made = g.add("Reshape", [*made, *g.add("Shape", [x])])
    shape = (channels, *[1] * (rank - 2))
    for operator, given in (("Mul", weight), ("Add", bias)):
        array = g.array(given)
        if array is not None:
            made = g.add(operator, [*made, g.constant(array.reshape(shape))])
    g.give(*made)


@translate("native_layer_norm")
def _layer_norm(
    g: Translator, x: Any, normalized_shape: Sequence[int], weight: Any, bias: Any, eps: float
) -> None:
    shape = tuple(g.known(normalized_shape))
    if weight is None:
        weight = g.constant(np.ones(shape, np.float32))
    operands = [x, weight] if bias is None else [x, weight, bias]
    g.write("LayerNormalization", operands, axis=-len(shape), epsilon=eps)


def _affine(g: Translator, weight: Any, bias: Any, channels: int) -> tuple[str, str]:
    """Scale and shift of a normalisation, 1 and 0 where it has none."""
    for each in (weight, bias):
        g.array(each)
    scale = g.read(weight) or g.constant(np.ones(channels, np.float32))
    return scale, g.read(bias) or g.constant(np.zeros(channels, np.float32))


# ---- pooling -------------------------------------------------------------------------------------


@translate("max_pool2d_with_indices", "max_pool3d_with_indices")
def _max_pool(
    g: Translator,
    x: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    dilation: Any,
    ceil_mode: bool,
) -> None:
    window = _window(g, x, kernel_size, stride, padding, ceil_mode)
    g.write("MaxPool", [x], **window, dilations=_per_axis(g, dilation, g.rank(x) - 2))


@translate("avg_pool1d", "avg_pool2d", "avg_pool3d")
def _avg_pool(
    g: Translator,
    x: Any,
    kernel_size: Any,
    stride: Any,
    padding: Any,
    ceil_mode: bool,
    count_include_pad: bool,
    divisor_override: Any = None,
) -> None:
    if divisor_override is not None:
        raise UnknownOperator(f"divisor_override={divisor_override}")
    window = _window(g, x, kernel_size, stride, padding, ceil_mode)
    g.write("AveragePool", [x], **window, count_include_pad=int(count_include_pad))


def _window(
    g: Translator, x: Any, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool
) -> dict[str, Any]:
    rank = g.rank(x) - 2
    kernel, pads = _per_axis(g, kernel_size, rank), _per_axis(g, padding, rank)
    if len(kernel) != rank:
        raise UnknownOperator(f"windows of {len(kernel)} axes")
    return {
        "kernel_shape": kernel,
        "strides": _per_axis(g, stride, rank) or kernel,
        "pads": [*pads, *pads],
        "ceil_mode": int(ceil_mode),
    }


# ---- resampling ----------------------------------------------------------------------------------


@translate("interpolate")
def _interpolate(
    g: Translator, x: Any, size: Any, scale: Any, mode: str, align_corners: bool
) -> None:
    rank = g.rank(x)
    axes = list(range(2, rank))
    if scale is None:
        to = g.numbers(size)
    elif all(by == int(by) for by in scale):
        to = g.constant(np.array(scale, np.float32))
    else:  # PyTorch and ONNX round sizes in their own ways
        raise UnknownOperator(f"scales {list(scale)}")
    operands = [x, "", to] if scale is not None else [x, "", "", to]
    if mode == "nearest":
        how = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
        g.write("Resize", operands, mode="nearest", axes=axes, version=18, **how)
        return
    how = {"coordinate_transformation_mode": "align_corners" if align_corners else "half_pixel"}
    g.write("Resize", operands, mode="linear", axes=axes, version=18, **how)
