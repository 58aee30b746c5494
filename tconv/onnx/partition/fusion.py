"""Fusion of the nodes after a layer: affine per channel, folded into its weight, and an activation.

    layer -> any of Add, Sub, Mul, Div, BatchNormalization -> Relu, Clip, Gelu and others, or none

An Identity may stand anywhere. Operands are constants: those of arithmetic have one number for each
channel, the bounds of a Clip and the slope of a PRelu one in all. A value between two fused nodes
must have the second one as its only consumer, and be no output of the model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import nan
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto

from tconv.arrays.activations import Activation, as_activation
from tconv.errors import ParameterError
from tconv.geometry.arguments import number_of
from tconv.nn.batch_norm import BatchNorm, scaled
from tconv.onnx.model.nodes import is_operator

__all__ = ["NO_FUSED_OPS", "Affine", "FusedOps", "find_fused_ops", "fold_affine"]

_ACTIVATIONS: dict[str, tuple[str, dict[str, float]]] = {
    "Relu": ("relu", {}),
    "LeakyRelu": ("leaky_relu", {"alpha": 0.01}),
    "Elu": ("elu", {"alpha": 1.0}),
    "HardSigmoid": ("hard_sigmoid", {"alpha": 0.2, "beta": 0.5}),
    "Tanh": ("tanh", {}),
    "Sigmoid": ("sigmoid", {}),
    "HardSwish": ("hard_swish", {}),
}
"""By operator with one input: the activation, and its attributes with their defaults, in order."""
_ARITHMETIC, _COMMUTE = ("Add", "Sub", "Mul", "Div"), ("Add", "Mul")
_EPSILON = 1e-5  # default of BatchNormalization

FindConsumer = Callable[[str], tuple[int, NodeProto] | None]
"""Returns the only consumer of a value, with its index; None if there is no such node."""

ScalarOf = Callable[[str], float | None]
"""Returns the value of a constant of one element; None for any other name."""

Values = Mapping[str, NDArray[Any]]
Vectors = tuple[NDArray[np.float64], NDArray[np.float64]]


class Affine(Protocol):
    """A node that computes ``scale*y + shift``, with one scale and one shift for each channel."""

    @property
    def operands(self) -> tuple[str, ...]:
        """Names of its constant operands."""

    def scale_and_shift(self, values: Values, channels: int) -> Vectors:
        """Return scale and shift, each (M,).

        Raises
        ------
        ParameterError, ShapeError : the constants do not fit the channels, or are not finite
        """


@dataclass(frozen=True)
class Normalisation:
    """A BatchNormalization with constant operands: names of scale, bias, mean and variance."""

    operands: tuple[str, ...]
    epsilon: float

    def scale_and_shift(self, values: Values, channels: int) -> Vectors:
        gamma, beta, mean, variance = (values[name] for name in self.operands)
        return BatchNorm(gamma, beta, mean, variance, self.epsilon).scale_and_shift(channels)


@dataclass(frozen=True)
class Arithmetic:
    """An Add, Sub, Mul or Div with one constant operand, whose name `operands` holds."""

    operator: str
    operands: tuple[str, ...]

    def scale_and_shift(self, values: Values, channels: int) -> Vectors:
        (name,) = self.operands
        constant = np.broadcast_to(values[name].ravel().astype(np.float64), (channels,))
        ones, zeros = np.ones(channels), np.zeros(channels)
        with np.errstate(divide="ignore"):
            scale, shift = {
                "Add": (ones, constant),
                "Sub": (ones, -constant),
                "Mul": (constant, zeros),
                "Div": (1 / constant, zeros),
            }[self.operator]
        if not (np.isfinite(scale).all() and np.isfinite(shift).all()):
            raise ParameterError(f"{name} must have finite values; check the model.")
        return scale, shift


def fold_affine(
    affine: Sequence[Affine],
    values: Values,
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    groups: int | None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Fold affine nodes into the weight and bias of the layer before them; `groups` as in `scaled`.

    Both are computed in float64 and rounded once.

    Raises
    ------
    ParameterError, ShapeError : as `Affine.scale_and_shift`
    """
    channels = len(weight) if groups is None else weight.shape[1] * groups
    scale, shift = np.ones(channels), np.zeros(channels)
    for node in affine:
        own, added = node.scale_and_shift(values, channels)
        scale, shift = scale * own, shift * own + added
    return scaled(weight, bias, scale, shift, groups)


@dataclass(frozen=True)
class FusedOps:
    """Nodes fused into a layer: indices, operators, affine nodes and activation.

    `scalars` are the names of the constants that are its parameters. `result` is the output of the
    last node, "" if there is none.
    """

    nodes: tuple[int, ...] = ()
    operators: tuple[str, ...] = ()
    affine: tuple[Affine, ...] = ()
    activation: Activation | None = None
    scalars: tuple[str, ...] = ()
    result: str = ""


NO_FUSED_OPS = FusedOps()


def find_fused_ops(
    output: str,
    find_consumer: FindConsumer,
    is_vector: Callable[[str], bool] | None,
    is_per_channel: Callable[[str], bool],
    scalar_of: ScalarOf,
) -> FusedOps:
    """Find the nodes after a layer that can be fused into it.

    `is_vector` tells whether a name is that of a constant (M,), `is_per_channel` that of a constant
    with one value per channel once it is broadcast to the layer's result. If `is_vector` is None,
    no affine node is fused. `scalar_of` gives the value of a constant of one element.
    """
    nodes: list[int] = []
    operators: list[str] = []
    affine: list[Affine] = []
    activation, scalars = None, tuple[str, ...]()

    while found := find_consumer(output):
        index, node = found
        step: Affine | None = None
        if is_vector and activation is None:
            step = _as_normalisation(node, output, is_vector)
            step = step or _as_arithmetic(node, output, is_per_channel)
        if step is not None:
            affine.append(step)
        elif activation is None and (activation := _as_activation(node, output, scalar_of)):
            scalars = tuple(filter(None, node.input[1:]))
        elif not _is(node, "Identity", 1):
            break
        nodes.append(index)
        if node.op_type != "Identity":
            operators.append(node.op_type)
        output = str(node.output[0])
    result = output if nodes else ""
    return FusedOps(tuple(nodes), tuple(operators), tuple(affine), activation, scalars, result)


def _as_normalisation(
    node: NodeProto, value: str, is_constant: Callable[[str], bool]
) -> Normalisation | None:
    """Match a BatchNormalization of version 9 or later that is not in training mode."""
    given = _attributes(node)
    if (
        not _is(node, "BatchNormalization", 5)
        or node.input[0] != value
        or not given.keys() <= {"epsilon", "momentum", "training_mode"}
        or given.get("training_mode", 0) != 0
        or not all(map(is_constant, node.input[1:]))
    ):
        return None
    scale, bias, mean, variance = node.input[1:]
    return Normalisation((scale, bias, mean, variance), given.get("epsilon", _EPSILON))


def _as_arithmetic(
    node: NodeProto, value: str, is_per_channel: Callable[[str], bool]
) -> Arithmetic | None:
    """Match a binary operator with a constant operand, the second one unless it commutes."""
    operator = node.op_type
    if operator not in _ARITHMETIC or not _is(node, operator, 2) or _attributes(node):
        return None
    a, b = node.input
    if operator in _COMMUTE and b == value:
        a, b = b, a
    return Arithmetic(operator, (b,)) if a == value and is_per_channel(b) else None


def _as_activation(node: NodeProto, value: str, scalar_of: ScalarOf) -> Activation | None:
    """Match an activation that tconv's epilogue computes, without unknown attributes."""
    count = len(node.input)
    if not count or node.input[0] != value or not _is(node, node.op_type, count, needed=1):
        return None
    given, operands = _attributes(node), list(node.input[1:])
    argument: Any = None
    if node.op_type == "PRelu" and len(operands) == 1 and not given:
        argument = "prelu", scalar_of(operands[0])
    elif node.op_type == "Clip" and operands and not given:
        argument = "clip", *_bounds(operands, scalar_of)
    elif node.op_type == "Gelu" and not operands and given.keys() <= {"approximate"}:
        argument = "gelu", given.get("approximate", "none")
    elif node.op_type in _ACTIVATIONS and not operands:
        name, defaults = _ACTIVATIONS[node.op_type]
        if given.keys() <= defaults.keys():
            argument = (name, *(defaults | given).values()) if defaults else name
    if node.op_type == "LeakyRelu" and argument and number_of(argument[1]) < 0:
        argument = "prelu", argument[1]
    try:
        return as_activation(argument)
    except ParameterError:  # a value that is not known, or that tconv refuses
        return None


def _bounds(operands: list[str], scalar_of: ScalarOf) -> list[float | None]:
    """Bounds of a Clip: constants, which may be left out; NaN for what is no constant."""
    found = [scalar_of(name) if name else None for name in operands]
    bounds = [nan if name and v is None else v for name, v in zip(operands, found, strict=True)]
    return [*bounds, *[None] * (2 - len(bounds))]


def _is(node: NodeProto, operator: str, inputs: int, needed: int | None = None) -> bool:
    """Whether a node is this operator of the default domain, with that many inputs, one output.

    Inputs beyond those that are `needed` may be left out by the name "".
    """
    return (
        is_operator(node, operator)
        and len(node.input) == inputs
        and all(node.input[:needed])
        and bool(node.output)
        and bool(node.output[0])
        and not any(node.output[1:])
    )


def _attributes(node: NodeProto) -> dict[str, Any]:
    """Attributes by name: numbers and strings, and None for those of other types."""
    fields = {AttributeProto.FLOAT: "f", AttributeProto.INT: "i", AttributeProto.STRING: "s"}
    found = {
        each.name: getattr(each, fields[each.type]) if each.type in fields else None
        for each in node.attribute
    }
    return {
        name: value.decode(errors="replace") if isinstance(value, bytes) else value
        for name, value in found.items()
    }
