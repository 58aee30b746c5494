"""Fusion of the nodes after a layer: affine per channel, folded into its weight, and an activation.

    layer -> any of Add, Sub, Mul, Div, BatchNormalization -> Relu, LeakyRelu, Tanh, Sigmoid

An Identity may stand anywhere. Operands are constants, one for each channel. A value between two
fused nodes must have the second one as its only consumer, and be no output of the model.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto

from tconv.arrays.activations import Activation, as_activation
from tconv.errors import ParameterError
from tconv.nn.batch_norm import BatchNorm, scaled
from tconv.onnx.model.nodes import is_operator

__all__ = ["NO_FUSED_OPS", "Affine", "FusedOps", "find_fused_ops", "fold_affine"]

_ACTIVATIONS = {"Relu": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid"}
_ARITHMETIC, _COMMUTE = ("Add", "Sub", "Mul", "Div"), ("Add", "Mul")
_ALPHA, _EPSILON = 0.01, 1e-5  # defaults of LeakyRelu and BatchNormalization

FindConsumer = Callable[[str], tuple[int, NodeProto] | None]
"""Returns the only consumer of a value, with its index; None if there is no such node."""

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

    `result` is the output of the last one, "" if there is none.
    """

    nodes: tuple[int, ...] = ()
    operators: tuple[str, ...] = ()
    affine: tuple[Affine, ...] = ()
    activation: Activation | None = None
    result: str = ""


NO_FUSED_OPS = FusedOps()


def find_fused_ops(
    output: str,
    find_consumer: FindConsumer,
    is_vector: Callable[[str], bool] | None,
    is_per_channel: Callable[[str], bool],
) -> FusedOps:
    """Find the nodes after a layer that can be fused into it.

    `is_vector` tells whether a name is that of a constant (M,), `is_per_channel` that of a constant
    with one value per channel once it is broadcast to the layer's result. If `is_vector` is None,
    no affine node is fused.
    """
    nodes: list[int] = []
    operators: list[str] = []
    affine: list[Affine] = []
    activation = None

    while found := find_consumer(output):
        index, node = found
        step: Affine | None = None
        if is_vector and activation is None:
            step = _as_normalisation(node, output, is_vector)
            step = step or _as_arithmetic(node, output, is_per_channel)
        if step is not None:
            affine.append(step)
        elif activation is None and (activation := _as_activation(node, output)):
            pass
        elif not _is(node, "Identity", 1):
            break
        nodes.append(index)
        if node.op_type != "Identity":
            operators.append(node.op_type)
        output = str(node.output[0])
    result = output if nodes else ""
    return FusedOps(tuple(nodes), tuple(operators), tuple(affine), activation, result)


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


def _as_activation(node: NodeProto, value: str) -> Activation | None:
    """Match an activation that tconv's epilogue computes, without unknown attributes."""
    given = _attributes(node)
    if node.input[0] != value:
        return None
    if node.op_type in _ACTIVATIONS and _is(node, node.op_type, 1) and not given:
        return Activation(_ACTIVATIONS[node.op_type])
    if _is(node, "LeakyRelu", 1) and given.keys() <= {"alpha"}:
        try:
            return as_activation(("leaky_relu", given.get("alpha", _ALPHA)))
        except ParameterError:  # negative slope
            return None
    return None


def _is(node: NodeProto, operator: str, inputs: int) -> bool:
    """Whether a node is this operator of the default domain, with that many inputs, one output."""
    return (
        is_operator(node, operator)
        and len(node.input) == inputs
        and all(node.input)
        and bool(node.output)
        and bool(node.output[0])
        and not any(node.output[1:])
    )


def _attributes(node: NodeProto) -> dict[str, Any]:
    """Attributes by name: numbers, and None for those of other types."""
    fields = {AttributeProto.FLOAT: "f", AttributeProto.INT: "i"}
    return {
        each.name: getattr(each, fields[each.type]) if each.type in fields else None
        for each in node.attribute
    }
