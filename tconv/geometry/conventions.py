"""Padding conventions of other libraries: the sizes they give, and their arguments for the same."""

from typing import NamedTuple

from tconv.geometry.axis import Axis
from tconv.geometry.onnx_attributes import NodeAttributes

__all__ = ["Convention", "conventions"]

Size = tuple[int, ...]
Axes = tuple[Axis, ...]


class Convention(NamedTuple):
    """Output sizes of a library under "valid", "same" and a given padding, and its arguments.

    A size is None where the library has no such word or cannot express the padding; ``arguments``
    then names the nearest that it can, or is empty.
    """

    library: str
    valid: Size | None
    same: Size | None
    this: Size | None
    arguments: str


def conventions(axes: Axes) -> tuple[Convention, ...]:
    """Compare the libraries for the kernel, stride, dilation and padding of `axes`.

    References
    ----------
    Keras 3, `keras.src.backend.common.backend_utils`; JAX, `jax.lax.conv_transpose`; ONNX operator
    ConvTranspose 22 as ONNX Runtime 1.32 reads it; PyTorch 2, `torch.nn.ConvTranspose2d`.

    >>> for row in conventions((Axis(5, 3, 23, 5),)):
    ...     print(row.library, row.valid, row.arguments)
    tconv (23,) padding=0
    PyTorch (23,) padding=0
    ONNX (23,) pads=[0, 0]
    Keras, TensorFlow (25,) padding="valid", output_padding=0
    JAX, Flax (25,) padding=((2, 2),)
    """
    output = tuple(axis.output for axis in axes)
    plain = tuple(axis.full for axis in axes)
    filled = tuple(axis.full + max(axis.stride - axis.reach, 0) for axis in axes)
    same = tuple(axis.input * axis.stride for axis in axes)
    found = []
    layers, refused = len(axes) <= 3, not _keras_takes(axes)
    for library, valid, same_there, arguments in (
        ("tconv", plain, same, _tconv(axes)),
        ("PyTorch", plain if layers else None, None, _pytorch(axes)),
        ("ONNX", _onnx_size(axes, "VALID"), _onnx_size(axes, "SAME_UPPER"), _onnx(axes)),
        (
            "Keras, TensorFlow",
            None if refused else filled,
            None if refused else same,
            "" if refused else _keras(axes),
        ),
        ("JAX, Flax", filled, same, _jax(axes)),
    ):
        found.append(
            Convention(library, valid, same_there, output if arguments else None, arguments)
        )
    return tuple(found)


def _tconv(axes: Axes) -> str:
    pairs = [(axis.begin, axis.end) for axis in axes]
    if all(begin == end for begin, end in pairs):
        padding = _per_axis([begin for begin, _ in pairs])
    else:
        padding = f"({', '.join(map(str, pairs))}{',' if len(pairs) == 1 else ''})"
    return _joined(f"padding={padding}", [axis.extra for axis in axes])


def _pytorch(axes: Axes) -> str:
    """Crop both sides equally, then lengthen the end by output_padding if it crops less."""
    begins = [axis.begin for axis in axes]
    extras = [axis.begin - axis.end + axis.extra for axis in axes]
    possible = len(axes) <= 3 and all(
        begin >= 0 and 0 <= extra < max(axis.stride, axis.dilation)
        for begin, extra, axis in zip(begins, extras, axes, strict=True)
    )
    return _joined(f"padding={_per_axis(begins)}", extras) if possible else ""


def _onnx(axes: Axes) -> str:
    """Pads of 0 or more; a negative one at the end becomes output_padding, below the stride."""
    begins, ends = [axis.begin for axis in axes], [max(axis.end, 0) for axis in axes]
    extras = [axis.extra - min(axis.end, 0) for axis in axes]
    below = all(extra < axis.stride for extra, axis in zip(extras, axes, strict=True))
    if min(begins) < 0 or not below:
        return ""
    output_padding = f", output_padding={extras}" if any(extras) else ""
    return f"pads={[*begins, *ends]}{output_padding}"


def _onnx_size(axes: Axes, auto_pad: str) -> Size:
    settings = NodeAttributes(
        auto_pad=auto_pad,
        strides=tuple(axis.stride for axis in axes),
        dilations=tuple(axis.dilation for axis in axes),
    )
    shapes = (1, 1, *(axis.input for axis in axes)), (1, 1, *(axis.kernel for axis in axes))
    return settings.geometry(*shapes).output_size


def _keras_takes(axes: Axes) -> bool:
    """Whether Keras has such a layer; it refuses stride and dilation above 1 together."""
    strided, dilated = max(a.stride for a in axes) > 1, max(a.dilation for a in axes) > 1
    return len(axes) <= 3 and not (strided and dilated)


def _keras(axes: Axes) -> str:
    """Find the padding word of Keras, with or without output_padding, that crops the same."""
    if all(a.begin == 0 and a.output == a.full + max(a.stride - a.reach, 0) for a in axes):
        return 'padding="valid"'
    if all(a.begin == max(a.reach - a.stride, 0) // 2 for a in axes) and all(
        a.output == a.input * a.stride for a in axes
    ):
        return 'padding="same"'
    extras = [a.output - a.full for a in axes]
    if all(a.begin == 0 and 0 <= extra < a.stride for a, extra in zip(axes, extras, strict=True)):
        return f'padding="valid", output_padding={_per_axis(extras)}'
    extras = [a.output - (a.input - 1) * a.stride - a.reach % 2 for a in axes]
    if all(
        0 <= extra < a.stride and a.begin == max((a.reach - a.reach % 2 - extra) // 2, 0)
        for a, extra in zip(axes, extras, strict=True)
    ):
        return f'padding="same", output_padding={_per_axis(extras)}'
    return ""


def _jax(axes: Axes) -> str:
    """Pad the dilated input by the reach of the kernel beyond it, minus the crop."""
    pairs = [(a.reach - 1 - a.begin, a.reach - 1 - a.end + a.extra) for a in axes]
    return f"padding=({', '.join(map(str, pairs))}{',' if len(pairs) == 1 else ''})"


def _joined(padding: str, extras: list[int]) -> str:
    return f"{padding}, output_padding={_per_axis(extras)}" if any(extras) else padding


def _per_axis(numbers: list[int]) -> str:
    """Write one number if all are equal, else a tuple."""
    return str(numbers[0]) if len(set(numbers)) == 1 else f"({', '.join(map(str, numbers))})"
