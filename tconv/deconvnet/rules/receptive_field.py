"""WHAT A UNIT SEES: the box of the image that can change it, by interval arithmetic.

The box of a layer's unit has one size wherever the unit lies, so it may reach beyond the image.
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tconv.deconvnet.network.network import Network, Node
from tconv.deconvnet.rules.derivatives import DERIVATIVES
from tconv.deconvnet.rules.windows import Interval, WindowAxis, transposed_windows_of, windows_of

__all__ = ["Box", "unit_box", "receptive_field"]

Box = tuple[Interval, ...]
"""First and last cell along each spatial axis."""

# Nodes that make each cell of the cell at the same place, whatever they do with channels.
_IN_PLACE = {"Relu", "Clip", "BatchNormalization", "LRN", "Add", "Sub", "Sum", "Mean", "Neg"}
_IN_PLACE |= {"Mul", "Div", "Identity", "Dropout", "Cast", *DERIVATIVES}


def unit_box(position: Sequence[int]) -> Box:
    """The box of one cell.

    >>> unit_box((3, 4))
    ((3, 3), (4, 4))
    """
    return tuple((int(at), int(at)) for at in position)


def receptive_field(
    network: Network, layer: str, box: Box, shapes: Mapping[str, Any]
) -> Box | None:
    """Return the box of the image that a box of a layer depends on; None for all of the image.

    References
    ----------
    Araujo, Norris & Sim 2019, Computing Receptive Fields of Convolutional Neural Networks, Distill.
    """
    boxes: dict[str, Box | None] = {layer: box if box else None}
    for node in reversed(network.between(layer)):
        for output in node.outputs:
            if output not in boxes:
                continue
            reached = boxes[output]
            for n, name in enumerate(node.inputs):
                if name in network.activations:
                    found = None if reached is None else _reach(network, node, n, reached, shapes)
                    boxes[name] = _hull(boxes[name], found) if name in boxes else found
    return boxes.get(network.input)


def _hull(a: Box | None, b: Box | None) -> Box | None:
    if a is None or b is None:
        return None
    return tuple((min(p[0], q[0]), max(p[1], q[1])) for p, q in zip(a, b, strict=True))


def _reach(network: Network, node: Node, n: int, box: Box, shapes: Mapping[str, Any]) -> Box | None:
    """The box of input n that a box of the output depends on; None for all of it."""
    shape = shapes[node.inputs[n]]
    if len(shape) - 2 != len(box):
        return None
    if node.op in _IN_PLACE:  # a signal that was broadcast along an axis counts as a whole
        same = shape[2:] == shapes[node.outputs[0]][2:]
        return box if same else None
    if node.op == "Concat":
        return box if node.attributes["axis"] in (1, 1 - len(shape)) else None
    if node.op == "Split":
        return box if node.attributes.get("axis", 0) in (1, 1 - len(shape)) else None
    if node.op == "Pad":
        return _through_pad(network, node, box)
    if node.op in ("Resize", "Upsample"):
        return _through_resize(node, box, shape, shapes[node.outputs[0]])
    axes = _windows(network, node, shape)
    if axes is None:
        return None
    if node.op == "ConvTranspose":
        return tuple(axis.windows_over(each) for axis, each in zip(axes, box, strict=True))
    return tuple(axis.cells_under(each) for axis, each in zip(axes, box, strict=True))


def _windows(network: Network, node: Node, shape: tuple[int, ...]) -> tuple[WindowAxis, ...] | None:
    if node.op in ("Conv", "ConvTranspose"):
        weight = network.constants.get(node.inputs[1])
        if weight is None:
            return None
        if node.op == "ConvTranspose":
            return transposed_windows_of(node.attributes, shape, weight.shape)
        return windows_of(node.attributes, weight.shape[2:], shape[2:])
    if node.op in ("MaxPool", "AveragePool"):
        return windows_of(node.attributes, node.attributes["kernel_shape"], shape[2:])
    return None


def _through_pad(network: Network, node: Node, box: Box) -> Box | None:
    pads = node.attributes.get("pads")
    if pads is None and len(node.inputs) > 1 and node.inputs[1] in network.constants:
        pads = network.constants[node.inputs[1]].tolist()
    rank = len(box) + 2
    plain = node.attributes.get("mode", b"constant") == b"constant"
    if pads is None or len(pads) != 2 * rank or not plain:
        return None
    return tuple((a - pads[n], b - pads[n]) for n, (a, b) in enumerate(box, 2))


def _through_resize(node: Node, box: Box, shape: tuple[int, ...], resized: tuple[int, ...]) -> Box:
    """Enough for every way to interpolate: the nearest cells and two more on either side."""
    found = []
    for n, (first, last) in enumerate(box, 2):
        if shape[n] == resized[n]:
            found.append((first, last))
            continue
        scale = shape[n] / resized[n]
        found.append((int(first * scale // 1) - 2, int((last + 1) * scale // 1) + 2))
    return tuple(found)
