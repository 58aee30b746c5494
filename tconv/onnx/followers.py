"""WHAT FOLLOWS A LAYER AND BECOMES PART OF IT: a normalisation, then an activation.

    ConvTranspose or Conv -> BatchNormalization -> Relu, LeakyRelu, Tanh or Sigmoid

Either may be missing. What lies between them must be read by the next one alone, and be no output
of the model: then nobody misses it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from numpy.typing import NDArray
from onnx import AttributeProto, NodeProto

from tconv.activations import Activation, as_activation
from tconv.errors import ParameterError
from tconv.normalisation import BatchNorm, scaled

__all__ = ["NO_FOLLOWERS", "Followers", "Normalisation", "find_followers"]

_ACTIVATIONS = {"Relu": "relu", "Tanh": "tanh", "Sigmoid": "sigmoid"}
_ALPHA = 0.01  # of a LeakyRelu that does not say it
_EPSILON = 1e-5

Reader = Callable[[str], tuple[int, NodeProto] | None]
"""The node that alone reads a value, with its index; None where there is no such node."""


@dataclass(frozen=True)
class Normalisation:
    """A BatchNormalization of constants: the names of scale, bias, mean and variance."""

    operands: tuple[str, str, str, str]
    epsilon: float

    def fold(
        self,
        values: Mapping[str, NDArray[Any]],
        weight: NDArray[Any],
        bias: NDArray[Any] | None,
        groups: int | None,
    ) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return weight and bias of the layer that it is part of; `groups` as for `scaled`.

        Raises
        ------
        ParameterError, ShapeError : its values are no normalisation of so many channels
        """
        gamma, beta, mean, variance = (values[name] for name in self.operands)
        bn = BatchNorm(gamma, beta, mean, variance, self.epsilon)
        channels = len(weight) if groups is None else weight.shape[1] * groups
        scale, shift = bn.scale_and_shift(channels)
        return scaled(weight, bias, scale, shift, groups)


@dataclass(frozen=True)
class Followers:
    """Nodes that a layer computes as well: their indices and operators, and what they are.

    `result` is what the last of them makes, "" if there is none.
    """

    nodes: tuple[int, ...] = ()
    operators: tuple[str, ...] = ()
    normalisation: Normalisation | None = None
    activation: Activation | None = None
    result: str = ""


NO_FOLLOWERS = Followers()


def find_followers(
    output: str, reader: Reader, is_constant: Callable[[str], bool] | None
) -> Followers:
    """Tell what may become part of a layer.

    `is_constant` says whether a name is that of one constant for each channel; None, that no
    normalisation can be folded.
    """
    nodes, operators, normalisation, activation = [], [], None, None
    found = reader(output)
    if found and is_constant and (normalisation := _as_normalisation(found[1], is_constant)):
        index, node = found
        nodes, operators, output = [index], [node.op_type], node.output[0]
        found = reader(output)
    if found and (activation := _as_activation(found[1])):
        index, node = found
        nodes.append(index)
        operators.append(node.op_type)
        output = node.output[0]
    result = output if nodes else ""
    return Followers(tuple(nodes), tuple(operators), normalisation, activation, result)


def _as_normalisation(node: NodeProto, is_constant: Callable[[str], bool]) -> Normalisation | None:
    """A BatchNormalization, as it has been since version 9, that is not in training."""
    given = _attributes(node)
    if (
        not _is(node, "BatchNormalization", 5)
        or not given.keys() <= {"epsilon", "momentum", "training_mode"}
        or given.get("training_mode", 0) != 0
        or not all(map(is_constant, node.input[1:]))
    ):
        return None
    scale, bias, mean, variance = node.input[1:]
    return Normalisation((scale, bias, mean, variance), given.get("epsilon", _EPSILON))


def _as_activation(node: NodeProto) -> Activation | None:
    """An activation whose derivative can be told from its value; it has no other attributes."""
    given = _attributes(node)
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
