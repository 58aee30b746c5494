"""Normalisation over the cells of each channel."""

from collections.abc import Sequence
from math import prod

import numpy as np

from tconv.graph.graph import Node
from tconv.graph.operators.registry import Writer, register
from tconv.graph.steps import ReductionStep
from tconv.graph.values import Operand, UnknownOperator, Value

__all__: list[str] = []


@register("InstanceNormalization")
def _instance_norm(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, scale, bias = operands
    if not isinstance(x, Value) or x.rank < 3:
        raise UnknownOperator("InstanceNormalization of such an operand")
    if not isinstance(scale, np.ndarray) or not isinstance(bias, np.ndarray):
        raise UnknownOperator("InstanceNormalization with computed parameters")
    if scale.shape != (x.shape[1],) or bias.shape != scale.shape:
        raise UnknownOperator(f"InstanceNormalization of {x.shape} by {scale.shape}")
    x = writer.contiguous(node, x)
    apart = writer.loop(node, [("sub", (0, 1))], [x, _mean(writer, node, x)])
    variance = _mean(writer, node, writer.loop(node, [("square", (0,))], [apart]))
    of_channels = [each.reshape(-1, *[1] * (x.rank - 2)) for each in (scale, bias)]
    epsilon = np.full((), node.argument("epsilon", 1e-5), np.float32)
    factor = writer.loop(
        node,
        [("add", (0, 1)), ("sqrt", (3,)), ("div", (2, 4))],
        [variance, epsilon, of_channels[0]],
    )
    return [writer.loop(node, [("mul", (0, 1)), ("add", (3, 2))], [apart, factor, of_channels[1]])]


def _mean(writer: Writer, node: Node, x: Value) -> Value:
    """The mean of each channel of each image, with an axis of one cell for each axis."""
    outer, count = prod(x.shape[:2]), prod(x.shape[2:])
    y = Value.whole((outer, 1))
    read = x.reshaped((outer, count, 1))
    writer.steps.append(ReductionStep("sum", read, y, count, [node.name or node.operator]))
    return y.reshaped((*x.shape[:2], *[1] * (x.rank - 2)))
