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
    constants, activations, opset = network.constants, network.activations, network.opset
    for node in reversed(network.between(layer)):
        row = REVERSALS.get(node.op)
        for output in node.outputs:
            if output not in boxes:
                continue
            reached = boxes[output]
            context = NodeContext(node, constants, shapes, activations, opset, output)
            for n, name in enumerate(node.inputs):
                if name not in activations:
                    continue
                found: Box | None = None  # all of the input
                if row and reached is not None and len(shapes[name]) - 2 == len(reached):
                    found = row.box(context, n, reached)
                boxes[name] = _hull(boxes[name], found) if name in boxes else found
    return boxes.get(network.input)


def _hull(a: Box | None, b: Box | None) -> Box | None:
    if a is None or b is None:
        return None
    return tuple((min(p[0], q[0]), max(p[1], q[1])) for p, q in zip(a, b, strict=True))
