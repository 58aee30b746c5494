"""Profitability of cutting a model of known sizes: predicted times of both executions."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from math import inf, prod

from onnx import NodeProto, TensorProto

import tconv.engine as engine
from tconv.engine import host_target as target
from tconv.errors import TConvError
from tconv.onnx.model.shape_inference import Shapes
from tconv.onnx.partition.cost_model import (
    ANY_MACHINE,
    CALL_US,
    COLD_US,
    PIECE_US,
    RUN_US,
    WAKE_US,
    Machine,
    node_us,
    passes_us,
)
from tconv.onnx.partition.partition import Cut, Graph, Layer

__all__ = ["LEAST_GAIN", "Decision", "Prediction", "predict"]

LEAST_GAIN = 0.03
"""Of a whole run, below which a model is left to ONNX Runtime."""

_IN_BLOCKS = frozenset(  # operators whose values ONNX Runtime keeps in blocks of channels
    {"AveragePool", "BatchNormalization", "Clip", "Conv", "GlobalAveragePool", "MaxPool", "Relu"}
)
_TYPES = {int(TensorProto.FLOAT16): "float16", int(TensorProto.DOUBLE): "float64"}


@dataclass(frozen=True)
class Decision:
    """Who runs a model whose inputs have certain shapes, and why.

    `by` is "tconv" where it computes nodes, else "onnxruntime". `onnxruntime_ms` and `tconv_ms` are
    the times of a whole run in milliseconds by ONNX Runtime alone and with tconv's layers,
    predicted or measured; None where neither was asked for.
    """

    by: str
    reason: str
    onnxruntime_ms: float | None = None
    tconv_ms: float | None = None
    is_measured: bool = False

    @property
    def sentence(self) -> str:
        """The decision in words, with both times where there are."""
        who = "cut for tconv" if self.by == "tconv" else "left to ONNX Runtime"
        if self.onnxruntime_ms is None or self.tconv_ms is None:
            return f"{who}: {self.reason}" if self.reason else who
        how = "measured" if self.is_measured else "predicted"
        return (
            f"{who}: {how} {self.onnxruntime_ms:.3g} ms by ONNX Runtime alone, "
            f"{self.tconv_ms:.3g} ms with tconv"
        )


@dataclass(frozen=True)
class Prediction:
    """The layers worth taking, and microseconds of a run by ONNX Runtime alone and with these."""

    taken: tuple[Layer, ...]
    onnxruntime_us: float
    tconv_us: float

    @property
    def gain(self) -> float:
        """The share of a run's time that is saved."""
        return 1 - self.tconv_us / self.onnxruntime_us if self.taken else 0.0


def predict(graph: Graph, shapes: Shapes, threads: int | None) -> Prediction | None:
    """Predict both times of a model; None if sizes of a layer are not known."""
    layers = [layer for layer in graph.layers if not layer.reason]
    if not layers or any(layer.inputs[0] not in shapes for layer in layers):
        return None
    # Where layers would not gain even if they took no time and ONNX Runtime twice as long, nobody
    # needs to plan them, for which LLVM is loaded.
    at_most = _best(graph, layers, shapes, ANY_MACHINE, dict.fromkeys(layers, 0.0), 2.0)
    if at_most.gain < LEAST_GAIN:
        return _best(graph, layers, shapes, ANY_MACHINE, dict.fromkeys(layers), 1.0)
    here_us = {layer: _layer_us(layer, graph, shapes, threads) for layer in layers}
    return _best(graph, layers, shapes, Machine.of(target(), threads), here_us, 1.0)


def _best(
    graph: Graph,
    layers: Sequence[Layer],
    shapes: Shapes,
    machine: Machine,
    here_us: Mapping[Layer, float | None],
    times: float,
) -> Prediction:
    """The best choice of layers, which take ONNX Runtime so many times as long as it should."""
    cells = prod(shapes[layers[0].inputs[0]][2:])  # as of all values whose shape is not known

    def there_us(nodes: Iterable[int]) -> float:
        return sum(node_us(graph.nodes[n], shapes, machine, cells) for n in nodes)

    within = {layer: (layer.index, *layer.followers.nodes) for layer in layers}
    moving = set(range(len(graph.nodes))) - graph.static
    others = moving - {n for nodes in within.values() for n in nodes}
    layers_us = {layer: times * there_us(nodes) for layer, nodes in within.items()}
    others_us = there_us(_unfused(graph, others))
    whole_us = RUN_US + others_us + sum(layers_us.values())
    best = Prediction((), whole_us, whole_us)
    piece_us = PIECE_US + 2 * COLD_US + (WAKE_US if machine.threads > 1 else 0.0)
    # All of them, all that are faster, and those worth a piece of their own.
    for least in (-inf, 0.0, CALL_US + piece_us):
        taken: dict[Layer, float] = {}
        for layer, us in layers_us.items():
            ours = here_us[layer]
            if ours is not None and us - ours > least:
                taken[layer] = ours
        if not taken:
            break
        division = graph.divide(taken)
        cut_us = others_us + piece_us * sum(bool(piece.outputs) for piece in division.pieces)
        cut_us += sum(
            taken[each] + CALL_US if each in taken else layers_us[each] for each in layers
        )
        cut_us += _reordered_us(graph, division, shapes, machine)
        if cut_us < best.tconv_us:
            best = Prediction(tuple(taken), whole_us, cut_us)
    return best


def _unfused(graph: Graph, nodes: Iterable[int]) -> list[int]:
    """Nodes without the activations that ONNX Runtime makes part of a convolution before them."""
    found = []
    for index in nodes:
        node = graph.nodes[index]
        maker = graph.maker.get(node.input[0]) if node.input else None
        before = None if maker is None else graph.nodes[maker].op_type
        if not (node.op_type in ("Relu", "BatchNormalization") and before == "Conv"):
            found.append(index)
    return found


def _layer_us(layer: Layer, graph: Graph, shapes: Shapes, threads: int | None) -> float | None:
    """Microseconds of a layer in tconv; None where the engine does not serve it."""
    x, weight, _ = layer.inputs
    value = graph.values.get(x)
    kind = value.type.tensor_type.elem_type if value else 0
    weight_shape = shapes.get(weight) or graph.shape(weight)
    if weight_shape is None:
        return None
    try:
        geometry = layer.settings.geometry(shapes[x], weight_shape)
        return engine.expected_us(geometry, "y", _TYPES.get(kind, "float32"), threads)
    except TConvError:
        return None


def _reordered_us(graph: Graph, division: Cut, shapes: Shapes, machine: Machine) -> float:
    """Microseconds of values that pass between pieces and would have stayed in blocks."""
    within = {n: d for d, piece in enumerate(division.pieces) for n in piece.nodes}
    us = 0.0
    for d, piece in enumerate(division.pieces):
        for name in piece.inputs:
            maker = graph.maker.get(name)
            if maker is None or within.get(maker, d) == d or len(shapes.get(name, ())) != 4:
                continue
            readers = [graph.nodes[n] for n in graph.readers.get(name, ()) if n in piece.nodes]
            if _in_blocks(graph.nodes[maker]) and any(map(_in_blocks, readers)):
                us += passes_us(shapes[name], machine)
    return us


def _in_blocks(node: NodeProto) -> bool:
    return node.op_type in _IN_BLOCKS
