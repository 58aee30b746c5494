"""Folding of arithmetic with constants for each channel into the weights of a layer beside it.

    (W*x + b)*s + t  =  (s*W)*x + (s*b + t)              the layer comes before
    W*(s*x + t) + b  =  (W*s)*x + (W*t + b)              it comes after, and pads nothing

A BatchNormalization is such a product and sum. Weights are computed in float64 and rounded once.
"""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.graph.graph import Graph, Node

__all__ = ["fold_affine", "fold_affine_forward"]

_LAYERS = ("Conv", "ConvTranspose")
_ARITHMETIC = ("Add", "Sub", "Mul", "Div")
_KEEPING = frozenset(  # operators whose results have the channels of their first operand
    {"BatchNormalization", "Clip", "Elu", "Gelu", "HardSigmoid", "HardSwish", "LeakyRelu", "Relu"}
    | {"Sigmoid", "Swish", "Tanh", "MaxPool", "AveragePool", "GlobalAveragePool"}
)
Array = NDArray[Any]
_LARGEST = 1e30


def fold_affine(graph: Graph) -> Graph:
    """Return the graph with such nodes folded, where nothing else reads the value between."""
    readers, constants = graph.readers(), dict(graph.constants)
    places: dict[str, int] = {}  # of layers, by the name of their result
    nodes: list[Node] = []
    for node in graph.nodes:
        read = next((name for name in node.inputs if name in places), "")
        folded = None
        if read and readers[read] == 1:
            folded = _folded(nodes[places[read]], node, constants)
        if folded is not None:
            place = places.pop(read)
            nodes[place] = folded
            places[folded.outputs[0]] = place
            continue
        if node.operator in _LAYERS and _is_constant(node, constants):
            places[node.outputs[0]] = len(nodes)
        nodes.append(node)
    return replace(graph, nodes=tuple(nodes), constants=constants)


def fold_affine_forward(graph: Graph) -> Graph:
    """Return the graph with such nodes folded into the convolution that alone reads their result.

    It has no padding: zeros beside x would have to become zeros of ``s*x + t``.
    """
    readers, constants = graph.readers(), dict(graph.constants)
    makers = {node.outputs[0]: n for n, node in enumerate(graph.nodes)}
    nodes: list[Node | None] = list(graph.nodes)
    made = _channels_made(graph)
    for n, layer in enumerate(graph.nodes):
        while _is_unpadded(layer, constants) and readers[layer.inputs[0]] == 1:
            place = makers.get(layer.inputs[0], -1)
            node = nodes[place] if place >= 0 else None
            folded = None if node is None else _folded_forward(node, layer, constants, made)
            if folded is None:
                break
            nodes[place], nodes[n], layer = None, folded, folded
    return replace(graph, nodes=tuple(each for each in nodes if each), constants=constants)


def _channels_made(graph: Graph) -> dict[str, int]:
    """How many channels values have, where they come from a layer by way of other functions."""
    found: dict[str, int] = {}
    for node in graph.nodes:
        weight = graph.constants.get(node.reads(1))
        if node.operator in _LAYERS and weight is not None and weight.ndim > 2:
            is_conv = node.operator == "Conv"
            channels = weight.shape[0] if is_conv else weight.shape[1] * node.argument("group", 1)
            found[node.outputs[0]] = channels
        elif node.operator in _KEEPING and node.inputs[0] in found:
            found[node.outputs[0]] = found[node.inputs[0]]
    return found


def _is_unpadded(node: Node, constants: dict[str, Array]) -> bool:
    is_conv = node.operator == "Conv" and _is_constant(node, constants)
    is_explicit = node.argument("auto_pad", "NOTSET") in ("NOTSET", "", "VALID")
    return is_conv and is_explicit and not any(node.argument("pads") or ())


@np.errstate(all="ignore")
def _folded_forward(
    node: Node, layer: Node, constants: dict[str, Array], made: Mapping[str, int]
) -> Node | None:
    """The layer with the arithmetic of the node before it in new constants."""
    weight, groups = constants[layer.inputs[1]], layer.argument("group", 1)
    channels = weight.shape[1] * groups
    # Which operand the arithmetic is of: the one that is no constant.
    x = next((name for name in node.inputs if name not in constants), "")
    is_number = all(constants[name].size == 1 for name in node.inputs if name in constants)
    if node.operator in _ARITHMETIC and not is_number and made.get(x) != channels:
        return None  # x may have a single channel, which the constant repeats
    both = _scale_and_shift(x, node, constants, channels, weight.ndim) if x else None
    if both is None:
        return None
    scale, shift = (each.reshape(groups, 1, -1, *[1] * (weight.ndim - 2)) for each in both)
    wide = weight.astype(np.float64).reshape(groups, -1, *weight.shape[1:])
    bias = constants[layer.reads(2)].astype(np.float64) if layer.reads(2) else 0.0
    bias = bias + (wide * shift).reshape(weight.shape[0], -1).sum(axis=1)
    names = f"weight after {x}", f"bias after {x}"
    arrays = (wide * scale).reshape(weight.shape), bias
    if not _fits(arrays):
        return None
    constants |= {
        f"{name} in {layer.outputs[0]}": np.ascontiguousarray(each, np.float32)
        for name, each in zip(names, arrays, strict=True)
    }
    inputs = (x, *(f"{name} in {layer.outputs[0]}" for name in names))
    return replace(layer, inputs=inputs)


def _is_constant(node: Node, constants: dict[str, Array]) -> bool:
    """Whether weight and bias of a layer are constants of shapes that agree."""
    names, groups = [name for name in node.inputs[1:] if name], node.argument("group", 1)
    arrays = [constants[name] for name in names if name in constants]
    is_sound = bool(names) and len(arrays) == len(names) and arrays[0].ndim > 2 and groups > 0
    if not is_sound or any(array.dtype != np.float32 for array in arrays):
        return False
    shape = arrays[0].shape
    channels = shape[0] if node.operator == "Conv" else shape[1] * groups
    return not shape[0] % groups and all(each.shape == (channels,) for each in arrays[1:])


@np.errstate(all="ignore")  # what overflows is not folded
def _folded(layer: Node, node: Node, constants: dict[str, Array]) -> Node | None:
    """The layer with the node's arithmetic in new constants; None if it is no such node."""
    weight = constants[layer.inputs[1]]
    groups, is_conv = layer.argument("group", 1), layer.operator == "Conv"
    channels = weight.shape[0] if is_conv else weight.shape[1] * groups
    both = _scale_and_shift(layer.outputs[0], node, constants, channels, weight.ndim)
    if both is None:
        return None
    scale, shift = both
    wide = weight.astype(np.float64)
    if is_conv:
        wide = wide * scale.reshape(-1, *[1] * (weight.ndim - 1))
    else:
        by_group = wide.reshape(groups, -1, *weight.shape[1:])
        wide = by_group * scale.reshape(groups, 1, -1, *[1] * (weight.ndim - 2))
    bias = constants[layer.reads(2)].astype(np.float64) if layer.reads(2) else 0.0
    result = node.outputs[0]
    names = f"weight of {result}", f"bias of {result}"
    arrays = wide.reshape(weight.shape), np.broadcast_to(bias * scale + shift, (channels,))
    if not _fits(arrays):
        return None
    constants |= {
        name: np.ascontiguousarray(each, np.float32)
        for name, each in zip(names, arrays, strict=True)
    }
    return replace(layer, inputs=(layer.inputs[0], *names), outputs=(result,))


def _fits(arrays: Iterable[Array]) -> bool:
    """Whether all numbers are finite in float32: a product may overflow that a value does not."""
    return all(bool(np.all(np.abs(each) < _LARGEST)) for each in arrays)


def _scale_and_shift(
    x: str, node: Node, constants: dict[str, Array], channels: int, rank: int
) -> tuple[Array, Array] | None:
    """The factor and the summand of each channel of x, if a node computes nothing else."""
    one, none = np.ones(channels), np.zeros(channels)
    if node.operator == "BatchNormalization":
        others = [constants.get(name) for name in node.inputs[1:]]
        is_plain = node.inputs[0] == x and not node.argument("training_mode", 0)
        if not is_plain or any(node.outputs[1:]) or any(each is None for each in others):
            return None
        scale, bias, mean, variance = (np.asarray(each, np.float64) for each in others)
        scale = scale / np.sqrt(variance + node.argument("epsilon", 1e-5))
        return scale, bias - mean * scale
    if node.operator not in _ARITHMETIC or len(node.inputs) != 2:
        return None
    is_left = node.inputs[0] == x
    other = constants.get(node.inputs[is_left])
    if other is None or node.inputs[0] == node.inputs[1] or other.dtype != np.float32:
        return None
    most = (1, channels, *[1] * (rank - 2))
    shape = (1,) * (rank - other.ndim) + other.shape
    if other.ndim > rank or any(a not in (1, b) for a, b in zip(shape, most, strict=True)):
        return None
    values = np.broadcast_to(other.astype(np.float64).reshape(-1), (channels,))
    if node.operator == "Mul":
        return one * values, none
    if node.operator == "Div":
        return (one / values, none) if is_left else None
    sign = -1.0 if node.operator == "Sub" else 1.0
    if is_left:
        return one, sign * values
    return sign * one, one * values
