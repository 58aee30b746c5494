"""Receptive field of a unit: the box of the image that can change it, by interval arithmetic.

The box of a layer's unit has one size wherever the unit lies, so it may reach beyond the image.
"""

from collections.abc import Mapping, Sequence
from typing import Any

import tconv.deconvnet.rules.rules  # noqa: F401  (enters all rows)
from tconv.deconvnet.network.network import Network
from tconv.deconvnet.rules.registry import REVERSALS, NodeContext
from tconv.deconvnet.rules.windows import Box

__all__ = ["receptive_field", "unit_box"]


def unit_box(position: Sequence[int]) -> Box:
    """Return the box of one cell.

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
            context = NodeContext(
                node, network.constants, shapes, network.activations, network.opset, output
            )
            for n in context.activation_inputs():
                name, found = node.inputs[n], _input_box(context, n, boxes[output])
                boxes[name] = _hull(boxes[name], found) if name in boxes else found
    return boxes.get(network.input)


def _input_box(context: NodeContext, n: int, box: Box | None) -> Box | None:
    """The box of input n that a box of the output depends on; None for all of it."""
    row = REVERSALS.get(context.node.op)
    if row is None or box is None or len(context.shape(n)) - 2 != len(box):
        return None
    return row.box(context, n, box)


def _hull(a: Box | None, b: Box | None) -> Box | None:
    if a is None or b is None:
        return None
    return tuple((min(p[0], q[0]), max(p[1], q[1])) for p, q in zip(a, b, strict=True))
