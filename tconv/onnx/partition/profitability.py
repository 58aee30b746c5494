"""Profitability of partitioning a model of known sizes: predicted times of both executions."""

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
    RUN_US,
    SUBGRAPH_US,
    WAKE_US,
    Machine,
    node_us,
    reorder_us,
)
from tconv.onnx.partition.partition import Graph, Layer, Partition

__all__ = ["LEAST_GAIN", "Decision", "Prediction", "nodes_us", "predict", "whole_us"]

LEAST_GAIN = 0.03
"""Share of a run's time that a partition must save; below it ONNX Runtime runs the whole model."""

_NCHWC_OPERATORS = frozenset(  # which ONNX Runtime computes in its blocked layout NCHWc
    {"AveragePool", "BatchNormalization", "Clip", "Conv", "GlobalAveragePool", "MaxPool", "Relu"}
)
_TYPES = {int(TensorProto.FLOAT16): "float16", int(TensorProto.DOUBLE): "float64"}


@dataclass(frozen=True)
class Decision:
    """Who runs a model whose inputs have certain shapes, and why.

    `by` is "tconv" if tconv computes layers, else "onnxruntime". `onnxruntime_ms` and `tconv_ms`
    are the times of a run in milliseconds by ONNX Runtime alone and with tconv's layers, predicted
    or measured; None if the decision needed no times. `is_program` is true if programs compute the
    model, or regions of it.
    """

    by: str
    reason: str
    onnxruntime_ms: float | None = None
    tconv_ms: float | None = None
    is_measured: bool = False
    is_program: bool = False

    @property
    def sentence(self) -> str:
        """The decision in words, with both times if they are known."""
        ours = "a program of tconv" if self.is_program else "cut for tconv"
        who = ours if self.by == "tconv" else "left to ONNX Runtime"
        if self.onnxruntime_ms is None or self.tconv_ms is None:
            return f"{who}: {self.reason}" if self.reason else who
        how = "measured" if self.is_measured else "predicted"
        return (
            f"{who}: {how} {self.onnxruntime_ms:.3g} ms by ONNX Runtime alone, "
            f"{self.tconv_ms:.3g} ms with tconv"
        )


@dataclass(frozen=True)
class Prediction:
    """Layers worth assigning to tconv; microseconds of a run without and with them."""

    assigned: tuple[Layer, ...]
    onnxruntime_us: float
    tconv_us: float

    @property
    def gain(self) -> float:
        """The share of a run's time that the layers save."""
        return 1 - self.tconv_us / self.onnxruntime_us if self.assigned else 0.0


def predict(graph: Graph, shapes: Shapes, threads: int | None) -> Prediction | None:
    """Predict both times of a model; None if the sizes of a layer are unknown."""
    layers = [layer for layer in graph.layers if not layer.reason]
    if not layers or any(layer.inputs[0] not in shapes for layer in layers):
        return None
    # Layers that would not gain even if they took no time and ONNX Runtime twice as long need no
    # plans, and to plan loads LLVM.
    at_most = _best(graph, layers, shapes, ANY_MACHINE, dict.fromkeys(layers, 0.0), 2.0)
    if at_most.gain < LEAST_GAIN:
        return _best(graph, layers, shapes, ANY_MACHINE, dict.fromkeys(layers), 1.0)
    here_us = {layer: _layer_us(layer, graph, shapes, threads) for layer in layers}
    return _best(graph, layers, shapes, Machine.of(target(), threads), here_us, 1.0)


def nodes_us(nodes: Iterable[NodeProto], shapes: Shapes, threads: int | None) -> float:
    """Predicted microseconds of nodes within a run by ONNX Runtime."""
    machine = Machine.of(target(), threads)
    return sum(node_us(node, shapes, machine, 1) for node in nodes)


def whole_us(graph: Graph, shapes: Shapes, threads: int | None) -> float:
    """Predicted microseconds of a run by ONNX Runtime alone."""
    machine = Machine.of(target(), threads)
    nodes = _unfused(graph, set(range(len(graph.nodes))) - graph.constant_nodes)
    return RUN_US + sum(node_us(graph.nodes[n], shapes, machine, 1) for n in nodes)


def _best(
    graph: Graph,
    layers: Sequence[Layer],
    shapes: Shapes,
    machine: Machine,
    here_us: Mapping[Layer, float | None],
    times: float,
) -> Prediction:
    """Choose the layers to assign; ONNX Runtime takes `times` its predicted time for a layer."""
    cells = prod(shapes[layers[0].inputs[0]][2:])  # assumed of all values of unknown shape

    def there_us(nodes: Iterable[int]) -> float:
        return sum(node_us(graph.nodes[n], shapes, machine, cells) for n in nodes)

    within = {layer: (layer.index, *layer.fused.nodes) for layer in layers}
    others = set(range(len(graph.nodes))) - graph.constant_nodes
    others -= {n for nodes in within.values() for n in nodes}
    layers_us = {layer: times * there_us(nodes) for layer, nodes in within.items()}
    others_us = there_us(_unfused(graph, others))
    whole_us = RUN_US + others_us + sum(layers_us.values())
    best = Prediction((), whole_us, whole_us)
    subgraph_us = SUBGRAPH_US + 2 * COLD_US + (WAKE_US if machine.threads > 1 else 0.0)
    # All layers, the faster ones, and those that are worth a subgraph of their own.
    for least in (-inf, 0.0, CALL_US + subgraph_us):
        assigned: dict[Layer, float] = {}
        for layer, us in layers_us.items():
            ours = here_us[layer]
            if ours is not None and us - ours > least:
                assigned[layer] = ours
        if not assigned:
            break
        partition = graph.partition(assigned)
        count = sum(bool(subgraph.outputs) for subgraph in partition.subgraphs)
        partitioned_us = others_us + subgraph_us * count
        partitioned_us += sum(
            assigned[each] + CALL_US if each in assigned else layers_us[each] for each in layers
        )
        partitioned_us += _reorder_us(graph, partition, shapes, machine)
        if partitioned_us < best.tconv_us:
            best = Prediction(tuple(assigned), whole_us, partitioned_us)
    return best


def _unfused(graph: Graph, nodes: Iterable[int]) -> list[int]:
    """Nodes without those that ONNX Runtime fuses into the Conv before them."""
    found = []
    for index in nodes:
        node = graph.nodes[index]
        producer = graph.producer.get(node.input[0]) if node.input else None
        before = None if producer is None else graph.nodes[producer].op_type
        if not (node.op_type in ("Relu", "BatchNormalization") and before == "Conv"):
            found.append(index)
    return found


def _layer_us(layer: Layer, graph: Graph, shapes: Shapes, threads: int | None) -> float | None:
    """Microseconds of a layer in tconv; None if the engine does not support it."""
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


def _reorder_us(graph: Graph, partition: Partition, shapes: Shapes, machine: Machine) -> float:
    """Microseconds of reordering values between subgraphs that could have stayed NCHWc."""
    within = {n: d for d, subgraph in enumerate(partition.subgraphs) for n in subgraph.nodes}
    us = 0.0
    for d, subgraph in enumerate(partition.subgraphs):
        for name in subgraph.inputs:
            producer = graph.producer.get(name)
            if producer is None or within.get(producer, d) == d or len(shapes.get(name, ())) != 4:
                continue
            inside = set(graph.consumers.get(name, ())).intersection(subgraph.nodes)
            consumers = (graph.nodes[n] for n in inside)
            if _is_nchwc(graph.nodes[producer]) and any(map(_is_nchwc, consumers)):
                us += reorder_us(shapes[name], machine)
    return us


def _is_nchwc(node: NodeProto) -> bool:
    return node.op_type in _NCHWC_OPERATORS
