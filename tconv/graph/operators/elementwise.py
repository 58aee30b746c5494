"""Arithmetic and activations, element by element."""

import math
from collections.abc import Sequence

import numpy as np

from tconv.graph.graph import Node
from tconv.graph.operators.registry import Writer, register
from tconv.graph.values import Operand, UnknownOperator, Value

__all__: list[str] = []

Instruction = tuple[str, tuple[int, ...]]

_BINARY = {"Add": "add", "Sub": "sub", "Mul": "mul", "Div": "div"}
_VARIADIC = {"Max": "max", "Min": "min", "Sum": "add", "Mean": "add"}
_UNARY = {
    "Relu": "relu",
    "Sigmoid": "sigmoid",
    "Tanh": "tanh",
    "HardSwish": "hard_swish",
    "Neg": "neg",
    "Exp": "exp",
    "Sqrt": "sqrt",
    "Abs": "fabs",
    "Floor": "floor",
    "Ceil": "ceil",
    "Erf": "erf",
    "Sin": "sin",
    "Cos": "cos",
    "Log": "log",
    "Softplus": "softplus",
    "Sign": "sign",
    "Round": "round",
}
_FORMULAS: dict[str, tuple[Sequence[Instruction], Sequence[tuple[str, float]]]] = {
    "LeakyRelu": ([("leaky_relu", (0, 1))], [("alpha", 0.01)]),
    "Elu": ([("elu", (0, 1))], [("alpha", 1.0)]),
    "HardSigmoid": ([("hard_sigmoid", (0, 1, 2))], [("alpha", 0.2), ("beta", 0.5)]),
    "Selu": ([("elu", (0, 1)), ("mul", (3, 2))], [("alpha", 1.6732632), ("gamma", 1.0507010)]),
    "Celu": (  # alpha*elu(min(x, 0)/alpha) + relu(x), which is x where x > 0
        [
            *(("min", (0, 3)), ("div", (4, 1)), ("elu", (5, 2)), ("mul", (6, 1))),
            *(("relu", (0,)), ("add", (7, 8))),
        ],
        [("alpha", 1.0), ("", 1.0), ("", 0.0)],
    ),
    "Reciprocal": ([("div", (1, 0))], [("", 1.0)]),
    "Softsign": ([("fabs", (0,)), ("add", (2, 1)), ("div", (0, 3))], [("", 1.0)]),
    "Mish": ([("softplus", (0,)), ("tanh", (1,)), ("mul", (0, 2))], []),
}
"""Instructions on x and numbers: attributes with their defaults, or numbers without a name."""
_POWERS: dict[float, Sequence[Instruction]] = {
    0.5: [("sqrt", (0,))],
    1.0: [],
    2.0: [("square", (0,))],
    3.0: [("square", (0,)), ("mul", (0, 1))],
}


@register("Identity", "Dropout")
def _identity(_: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, training = operands[0], (*operands, None, None)[2]
    is_trained = isinstance(training, Value) or (training is not None and training.any())
    if any(node.outputs[1:]) or x is None or is_trained:
        raise UnknownOperator(f"{node.operator} in training, or with a mask")
    return [x]


@register(*_BINARY)
def _binary(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    return [writer.loop(node, [(_BINARY[node.operator], (0, 1))], _given(node, operands))]


@register(*_VARIADIC)
def _variadic(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    given, name = _given(node, operands), _VARIADIC[node.operator]
    if len(given) == 1:
        return [given[0]]
    # The result of instruction n is value count + n.
    count, instructions = len(given), [(name, (0, 1))]
    instructions += [(name, (count + n - 2, n)) for n in range(2, count)]
    total = writer.loop(node, instructions, given)
    if node.operator != "Mean":
        return [total]
    return [writer.loop(node, [("div", (0, 1))], [total, _number(count)])]


@register(*_UNARY)
def _unary(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    return [writer.loop(node, [(_UNARY[node.operator], (0,))], _given(node, operands))]


@register(*_FORMULAS)
def _formula(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    instructions, parameters = _FORMULAS[node.operator]
    if node.operator == "Celu" and not node.argument("alpha", 1.0) > 0:
        raise UnknownOperator(f"Celu with alpha {node.argument('alpha')}")
    numbers = [_number(node.argument(name, default)) for name, default in parameters]
    return [writer.loop(node, instructions, [*_given(node, operands), *numbers])]


@register("Masked")
def _masked(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    """X where a mask is above 0, else a number: an operator of ours, for cells beyond the ends."""
    x, mask = _given(node, operands)
    return [writer.loop(node, [("where", (1, 0, 2))], [x, mask, _number(node.argument("fill"))])]


@register("PRelu")
def _prelu(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, slope = _given(node, operands)
    if np.broadcast_shapes(x.shape, slope.shape) != x.shape:
        raise UnknownOperator(f"PRelu of {x.shape} with slopes {slope.shape}")
    return [writer.loop(node, [("prelu", (0, 1))], [x, slope])]


@register("Gelu")
def _gelu(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    name = "gelu_tanh" if node.argument("approximate") == "tanh" else "gelu"
    return [writer.loop(node, [(name, (0,))], _given(node, operands))]


@register("Swish")
def _swish(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    if node.argument("alpha", 1.0) != 1.0:
        raise UnknownOperator("Swish with alpha")
    return [writer.loop(node, [("silu", (0,))], _given(node, operands))]


@register("Clip")
def _clip(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    given = [*operands, None, None]
    x, bounds = given[0], given[1:3]
    low, high = (
        given if given is not None else _number(node.argument(name, default))
        for given, name, default in zip(bounds, ("min", "max"), (-math.inf, math.inf), strict=True)
    )
    return [writer.loop(node, [("clip", (0, 1, 2))], _given(node, [x, low, high]))]


@register("Pow")
def _pow(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, exponent = _given(node, operands)
    if isinstance(exponent, Value) or exponent.size != 1 or exponent.ndim > len(x.shape):
        raise UnknownOperator("Pow with exponents that are computed")
    instructions = _POWERS.get(float(exponent.ravel()[0]))
    if instructions is None or isinstance(x, np.ndarray):
        raise UnknownOperator(f"Pow with the exponent {float(exponent.ravel()[0]):g}")
    return [writer.loop(node, instructions, [x])] if instructions else [x]


@register("BatchNormalization")
def _batch_norm(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, *parameters = _given(node, operands)
    if any(node.outputs[1:]) or node.argument("training_mode", 0):
        raise UnknownOperator("BatchNormalization in training")
    if len(parameters) != 4 or not isinstance(x, Value) or x.rank < 2:
        raise UnknownOperator("BatchNormalization of such operands")
    wide = [each.astype(np.float64) for each in parameters if isinstance(each, np.ndarray)]
    if len(wide) != 4:
        raise UnknownOperator("BatchNormalization with computed parameters")
    scale, bias, mean, variance = wide
    scale = scale / np.sqrt(variance + node.argument("epsilon", 1e-5))
    shape = (-1, *[1] * (x.rank - 2))
    factors = [each.astype(np.float32).reshape(shape) for each in (scale, bias - mean * scale)]
    return [writer.loop(node, [("mul", (0, 1)), ("add", (3, 2))], [x, *factors])]


def _given(node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    if any(each is None for each in operands):
        raise UnknownOperator(f"{node.operator} without an operand")
    return [each for each in operands if each is not None]


def _number(value: float) -> Operand:
    return np.full((), value, np.float32)
