"""Default layers: the activation of the last convolution, and the logits of a classifier."""

from collections.abc import Iterator
from math import prod

import numpy as np

from tconv.deconvnet.network.network import Network, Node
from tconv.deconvnet.rules.derivatives import DERIVATIVES

__all__ = ["activated_convolutions", "logits_of"]

_CONVOLUTIONS = ("Conv", "ConvTranspose")
_DENSE = ("Gemm", "MatMul")
_POOLS = ("AveragePool", "GlobalAveragePool", "GlobalMaxPool", "MaxPool", "ReduceMean")
_GLOBAL = ("GlobalAveragePool", "GlobalMaxPool", "GlobalLpPool", "ReduceMean", "ReduceMax")
_RECTIFIERS = ("Relu", "Clip", *DERIVATIVES)
_PRODUCTS = ("Mul", "Div")
_BETWEEN = (  # a convolution and its activation
    *("Add", "BatchNormalization", "Cast", "Dropout", "Identity", "Neg", "Sub", "Sum"),
    *("InstanceNormalization", "LayerNormalization", "LRN"),
    "Reshape",  # of which groups are made for normalisation, and undone
    *("Slice", "Split"),  # halves of channels, one of which may be the gate of the other
)
_SQUASHING = ("HardSigmoid", "Sigmoid", "Softsign", "Tanh")
_TO_PROBABILITIES = ("HardSigmoid", "LogSoftmax", "Sigmoid", "Softmax")
_SAME_NUMBERS = ("Cast", "Dropout", "Flatten", "Identity", "Reshape", "Squeeze")


def activated_convolutions(network: Network) -> Iterator[str]:
    """Yield the activation of each convolution, the last one first; then convolutions without one.

    An activation is the last nonlinear value that follows from a convolution cell by cell: of
    ``x * sigmoid(x)`` the product and not its gate, likewise of gated halves and of squeeze and
    excitation. Convolutions of pooled values, which compute such gates, do not count. Maps that a
    Sigmoid or Tanh makes the network's result come after all others: those are answers, not
    features.
    """
    spatial = _spatial_values(network)
    convolutions = [
        node
        for node in network.nodes
        if node.op in _CONVOLUTIONS and not spatial.isdisjoint(node.outputs)
    ]
    further = _values_computed_with(network)
    answers = []
    for conv in reversed(convolutions):
        last = _activation(network, conv, spatial)
        if last is None:
            continue
        if last.op in _SQUASHING and further.isdisjoint(last.outputs):
            answers.append(last.outputs[0])
        else:
            yield last.outputs[0]
    yield from answers
    for conv in reversed(convolutions):
        yield conv.outputs[0]


def logits_of(network: Network) -> tuple[str, int] | None:
    """Return the scores (1, classes) of a classifier before they become probabilities.

    None if the network's first output is of another shape. A shape that inference does not find is
    that of a run on a black image.

    Returns
    -------
    name, int : the scores' value, and the number of classes
    """
    name = network.proto.graph.output[0].name
    chain = [name]
    while name in network.producers:
        node = network.producers[name]
        if node.op not in (*_TO_PROBABILITIES, *_SAME_NUMBERS):
            break
        name = node.inputs[0]
        chain.append(name)
    chain = [name for name in chain if name in network.activations and name != network.input]
    unknown = [name for name in chain if name not in network.shapes]
    black = np.zeros(network.input_shape, network.dtype)
    run = network.recorder(unknown)(black) if unknown else {}
    found = None
    for name in chain:
        shape = run[name].shape if name in run else network.shapes[name]
        if len(shape) < 2 or shape[0] != 1 or shape[1] < 2 or set(shape[2:]) - {1}:
            break
        found = name, int(shape[1])
    return found


def _spatial_values(network: Network) -> set[str]:
    """Names of the values that have the image's axes and were not pooled over all of them."""
    rank, kept = len(network.input_shape), {network.input}
    for node in network.nodes:
        if kept.isdisjoint(node.inputs):
            continue
        for name in network.activations.intersection(node.outputs):
            shape, before = network.shapes.get(name), network.shapes.get(node.inputs[0])
            if shape is None or before is None:
                is_pooled = node.op in (*_GLOBAL, "Flatten")
            else:
                is_reducing = node.op in (*_GLOBAL, *_POOLS)
                is_pooled = is_reducing and prod(shape[2:]) == 1 < prod(before[2:])
            if not is_pooled:
                kept.add(name)
    return {name for name in kept if len(network.shapes.get(name, (0,) * rank)) == rank}


def _activation(network: Network, conv: Node, spatial: set[str]) -> Node | None:
    """Return the last nonlinear node that follows from a convolution cell by cell."""
    reached, last = set(conv.outputs), None
    for node in network.nodes:
        if reached.isdisjoint(node.inputs):
            continue
        several = sum(name in network.activations for name in node.inputs) > 1
        is_product = node.op in _PRODUCTS and several
        is_nonlinear = is_product or node.op in _RECTIFIERS
        if is_nonlinear or node.op in (*_BETWEEN, *_PRODUCTS):
            reached.update(filter(None, node.outputs))
            last = node if is_nonlinear and not spatial.isdisjoint(node.outputs) else last
    return last


def _values_computed_with(network: Network) -> set[str]:
    """Names of the values that a later filter or pooling reads, at once or through others."""
    found: set[str] = set()
    for node in reversed(network.nodes):
        if node.op in (*_CONVOLUTIONS, *_DENSE, *_POOLS) or not found.isdisjoint(node.outputs):
            found.update(filter(None, node.inputs))
    return found
