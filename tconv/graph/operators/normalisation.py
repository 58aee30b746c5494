"""Normalisation to mean 0 and variance 1, and to a sum of 1."""

from collections.abc import Sequence

import numpy as np

from tconv.graph.graph import Node
from tconv.graph.operators.registry import Writer, axis_of, register
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
    of_channels = [each.reshape(-1, *[1] * (x.rank - 2)) for each in (scale, bias)]
    x = writer.contiguous(node, x)
    mean, deviation = _moments(writer, node, x, 2)
    factor = writer.loop(node, [("div", (0, 1))], [of_channels[0], deviation])
    return [
        writer.loop(
            node,
            [("sub", (0, 1)), ("mul", (4, 2)), ("add", (5, 3))],
            [x, mean, factor, of_channels[1]],
        )
    ]


@register("LayerNormalization")
def _layer_norm(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, scale, bias, *_ = (*operands, None)
    if not isinstance(x, Value) or scale is None or any(node.outputs[1:]):
        raise UnknownOperator("LayerNormalization of a constant, or with its statistics")
    axis = axis_of(node.argument("axis", -1), x.rank, node)
    factors = [each for each in (scale, bias) if each is not None]
    for each in factors:
        shape = np.broadcast_shapes(x.shape[axis:], each.shape)
        if shape != x.shape[axis:]:
            raise UnknownOperator(f"LayerNormalization of {x.shape} by {each.shape}")
    x = writer.contiguous(node, x)
    mean, deviation = _moments(writer, node, x, axis)
    instructions = [("sub", (0, 1)), ("div", (len(factors) + 3, 2))]
    for n, name in enumerate(("mul", "add")[: len(factors)]):
        instructions.append((name, (len(factors) + 4 + n, 3 + n)))
    return [writer.loop(node, instructions, [x, mean, deviation, *factors])]


def _moments(writer: Writer, node: Node, x: Value, first: int) -> tuple[Value, Value]:
    """The mean over axes from one on, and the root of the variance and epsilon."""
    mean = writer.reduce(node, "sum", x, first, x.rank - 1, is_mean=True)
    squares = writer.loop(node, [("sub", (0, 1)), ("square", (2,))], [x, mean])
    variance = writer.reduce(node, "sum", squares, first, x.rank - 1, is_mean=True)
    epsilon = np.full((), node.argument("epsilon", 1e-5), np.float32)
    return mean, writer.loop(node, [("add", (0, 1)), ("sqrt", (2,))], [variance, epsilon])


@register("Softmax", "LogSoftmax")
def _softmax(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    (x,) = operands
    if not isinstance(x, Value):
        raise UnknownOperator(f"{node.operator} of a constant")
    is_old = node.argument("version", 13) < 13  # over all axes from one on
    axis = axis_of(node.argument("axis", 1 if is_old else -1), x.rank, node)
    last = x.rank - 1 if is_old else axis
    x = writer.contiguous(node, x)
    largest = writer.reduce(node, "max", x, axis, last)
    powers = writer.loop(node, [("sub", (0, 1)), ("exp", (2,))], [x, largest])
    total = writer.reduce(node, "sum", powers, axis, last)
    if node.operator == "Softmax":
        return [writer.loop(node, [("div", (0, 1))], [powers, total])]
    total = writer.loop(node, [("log", (0,))], [total])
    return [writer.loop(node, [("sub", (0, 1)), ("sub", (3, 2))], [x, largest, total])]
