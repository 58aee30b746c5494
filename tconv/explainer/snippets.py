"""Code snippets of a transposed convolution in five libraries."""

from collections.abc import Iterable

from tconv.geometry.axis import Axis
from tconv.geometry.conventions import conventions

__all__ = ["snippets"]


def snippets(axes: tuple[Axis, ...], outputs: int = 1) -> dict[str, str]:
    """Write the call in each library, or why there is none; x is (1, C, *I) and w (C, M, *K).

    M, the number of output channels, is `outputs`: only Keras is told it.

    >>> for text in snippets((Axis(2, 3, 3, stride=2, begin=1, end=1),)).values():
    ...     print(text.partition("#")[0].strip())
    y = tconv.conv_transpose(x, w, stride=2, padding=1)
    y = torch.nn.functional.conv_transpose1d(x, w, stride=2, padding=1)
    node = onnx.helper.make_node(
        "ConvTranspose", ["x", "w"], ["y"], strides=[2], pads=[1, 1]
    )
    layer = keras.layers.Conv1DTranspose(
        1, (3,), strides=(2,), padding="same", output_padding=0, use_bias=False
    )
    y = jax.lax.conv_transpose(
        x, w, strides=(2,), padding=((1, 1),),
        dimension_numbers=("NCW", "OIW", "NCW"), transpose_kernel=True,
    )
    """
    arguments_of = {row.library: row.arguments for row in conventions(axes)}
    strides, dilations = [a.stride for a in axes], [a.dilation for a in axes]
    rank = len(axes)
    stride = f", stride={_per_axis(strides)}" if max(strides) > 1 else ""
    dilation = f", dilation={_per_axis(dilations)}" if max(dilations) > 1 else ""
    return {
        "tconv": f"y = tconv.conv_transpose(x, w{stride}{_more(arguments_of['tconv'])}{dilation})",
        "PyTorch": _pytorch(rank, stride, arguments_of["PyTorch"], dilation),
        "ONNX": _onnx(strides, arguments_of["ONNX"], dilations),
        "Keras": _keras(axes, arguments_of["Keras, TensorFlow"], outputs),
        "JAX": _jax(strides, arguments_of["JAX, Flax"], dilations),
    }


def _pytorch(rank: int, stride: str, arguments: str, dilation: str) -> str:
    if not arguments:
        return (
            "not expressible: needs asymmetric crop, and PyTorch crops both sides alike\n"
            "# crop y afterwards"
        )
    call = f"torch.nn.functional.conv_transpose{rank}d"
    return f"y = {call}(x, w{stride}{_more(arguments)}{dilation})"


def _onnx(strides: list[int], arguments: str, dilations: list[int]) -> str:
    if not arguments:
        return "not expressible: ONNX wants output_padding smaller than the stride"
    dilation = f", dilations={dilations}" if max(dilations) > 1 else ""
    return (
        "node = onnx.helper.make_node(\n"
        f'    "ConvTranspose", ["x", "w"], ["y"], strides={strides}, {arguments}{dilation}\n)'
    )


def _keras(axes: tuple[Axis, ...], arguments: str, outputs: int) -> str:
    strided, dilated = max(a.stride for a in axes) > 1, max(a.dilation for a in axes) > 1
    if strided and dilated:
        return "not expressible: Keras refuses dilation together with a stride"
    if not arguments:
        return 'not expressible: Keras crops as "valid" or "same" does, and not by number'
    rank = len(axes)
    dilation = f", dilation_rate={_tuple(a.dilation for a in axes)}" if dilated else ""
    return (
        f"layer = keras.layers.Conv{rank}DTranspose(\n"
        f"    {outputs}, {_tuple(a.kernel for a in axes)}, "
        f"strides={_tuple(a.stride for a in axes)}, {arguments}{dilation}, use_bias=False\n)\n"
        "# its kernel is numpy.moveaxis(w, (0, 1), (-1, -2)), x is channels last"
    )


def _jax(strides: list[int], arguments: str, dilations: list[int]) -> str:
    dilation = f" rhs_dilation={_tuple(dilations)}," if max(dilations) > 1 else ""
    space = "HW"[2 - len(strides) :]
    names = f'("NC{space}", "OI{space}", "NC{space}")'
    return (
        "y = jax.lax.conv_transpose(\n"
        f"    x, w, strides={_tuple(strides)}, {arguments},{dilation}\n"
        f"    dimension_numbers={names}, transpose_kernel=True,\n)\n"
        "# without transpose_kernel=True JAX leaves the kernel unflipped: another result"
    )


def _more(arguments: str) -> str:
    return "" if arguments == "padding=0" else f", {arguments}"


def _per_axis(numbers: list[int]) -> str:
    return str(numbers[0]) if len(set(numbers)) == 1 else _tuple(numbers)


def _tuple(numbers: Iterable[int]) -> str:
    parts = list(map(str, numbers))
    return f"({', '.join(parts)}{',' if len(parts) == 1 else ''})"
