"""Nodes after a layer that become part of it: affine per channel, then an activation.

    layer -> any of Add, Sub, Mul, Div, BatchNormalization -> Relu, LeakyRelu, Tanh, Sigmoid

An Identity may stand anywhere. Operands are constants, one for each channel. What lies between two
nodes must be read by the next one alone, and be no output of the model: then nobody misses it.
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

__all__ = ["NO_FOLLOWERS", "Affine", "Followers", "find_followers", "folded"]

_ACTIVATIONS = {"Relu": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid"}
_ARITHMETIC, _COMMUTE = ("Add", "Sub", "Mul", "Div"), ("Add", "Mul")
_ALPHA = 0.01  # of a LeakyRelu that does not say it
_EPSILON = 1e-5

Reader = Callable[[str], tuple[int, NodeProto] | None]
"""The node that alone reads a value, with its index; None where there is no such node."""


Values = Mapping[str, NDArray[Any]]
Vectors = tuple[NDArray[np.float64], NDArray[np.float64]]


class Affine(Protocol):
    """A node that makes ``scale*y + shift`` of y, with one of either for each channel."""

    @property
    def operands(self) -> tuple[str, ...]:
        """The names of the constants that it needs."""

    def scale_and_shift(self, values: Values, channels: int) -> Vectors:
        """Return both, (M,).

        Raises
        ------
        ParameterError, ShapeError : the constants are none of so many channels, or not finite
        """


@dataclass(frozen=True)
class Normalisation:
    """A BatchNormalization of constants: the names of scale, bias, mean and variance."""

    operands: tuple[str, ...]
    epsilon: float

    def scale_and_shift(self, values: Values, channels: int) -> Vectors:
        gamma, beta, mean, variance = (values[name] for name in self.operands)
        return BatchNorm(gamma, beta, mean, variance, self.epsilon).scale_and_shift(channels)


@dataclass(frozen=True)
class Arithmetic:
    """An Add, Sub, Mul or Div by a constant: its name, alone in a tuple."""

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


def folded(
    affine: Sequence[Affine],
    values: Values,
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    groups: int | None,
) -> tuple[NDArray[Any], NDArray[Any]]:
    """Return weight and bias of a layer that such nodes are part of; `groups` as for `scaled`.

    They are computed in float64 and rounded once.

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
class Followers:
    """Nodes that a layer computes as well: their indices and operators, and what they are.

    `result` is what the last of them makes, "" if there is none.
    """

    nodes: tuple[int, ...] = ()
    operators: tuple[str, ...] = ()
    affine: tuple[Affine, ...] = ()
    activation: Activation | None = None
    result: str = ""


NO_FOLLOWERS = Followers()


def find_followers(
    output: str,
    reader: Reader,
    is_vector: Callable[[str], bool] | None,
    is_per_channel: Callable[[str], bool],
) -> Followers:
    """Tell what may become part of a layer.

    `is_vector` says whether a name is that of one constant for each channel, `is_per_channel` the
    same of an array that is broadcast to the layer's result. Without the former nothing affine can
    be folded.
    """
    nodes: list[int] = []
    operators: list[str] = []
    affine: list[Affine] = []
    activation = None

    while found := reader(output):
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
    return Followers(tuple(nodes), tuple(operators), tuple(affine), activation, result)


def _as_normalisation(
    node: NodeProto, value: str, is_constant: Callable[[str], bool]
) -> Normalisation | None:
    """A BatchNormalization, as it has been since version 9, that is not in training."""
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
    """A binary operator whose other operand is a constant, on the right unless they commute."""
    operator = node.op_type
    if operator not in _ARITHMETIC or not _is(node, operator, 2) or _attributes(node):
        return None
    a, b = node.input
    if operator in _COMMUTE and b == value:
        a, b = b, a
    return Arithmetic(operator, (b,)) if a == value and is_per_channel(b) else None


def _as_activation(node: NodeProto, value: str) -> Activation | None:
    """An activation whose derivative can be told from its value; it has no other attributes."""
    given = _attributes(node)
    if node.input[0] != value:
        return None
    if node.op_type in _ACTIVATIONS and _is(node, node.op_type, 1) and not given:
        return Activation(_ACTIVATIONS[node.op_type])
    if _is(node, "LeakyRelu", 1) and given.keys() <= {"alpha"}:
        try:
            return as_activation(("leaky_relu", given.get("alpha", _ALPHA)))
        except ParameterError:  # of a negative slope
            return None
    return None


def _is(node: NodeProto, operator: str, inputs: int) -> bool:
    """Whether a node is this operator of ONNX itself, with so many inputs and one output."""
    return (
        node.op_type == operator
        and node.domain in ("", "ai.onnx")
        and len(node.input) == inputs
        and all(node.input)
        and bool(node.output)
        and bool(node.output[0])
        and not any(node.output[1:])
    )


def _attributes(node: NodeProto) -> dict[str, Any]:
    """Numbers by name; of what is no number, None."""
    fields = {AttributeProto.FLOAT: "f", AttributeProto.INT: "i"}
    return {
        each.name: getattr(each, fields[each.type]) if each.type in fields else None
        for each in node.attribute
    }
