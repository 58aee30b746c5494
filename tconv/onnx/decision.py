"""Whether a model of known sizes is cut: the predicted times of both ways."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass

from onnx import NodeProto, TensorProto

import tconv.engine as engine
from tconv.errors import TConvError
from tconv.onnx.costs import CALL_US, PIECE_US, RUN_US, WAKE_US, Machine, node_us, passes_us
from tconv.onnx.graph import Cut, Graph, Layer
from tconv.onnx.inference import Shapes

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
    machine = Machine.of(threads)
    layers = [layer for layer in graph.layers if not layer.reason]
    known = [shapes[layer.inputs[0]] for layer in layers if layer.inputs[0] in shapes]
    if len(known) < len(layers) or not known:
        return None
    cells = _cells(known)

    def there_us(nodes: Iterable[int]) -> float:
        return sum(node_us(graph.nodes[n], shapes, machine, cells) for n in nodes)

    moving = set(range(len(graph.nodes))) - graph.static
    whole_us = RUN_US + there_us(_unfused(graph, moving))
    here_us: dict[int, float] = {}
    saved_us: dict[int, float] = {}
    for layer in layers:
        us = _layer_us(layer, graph, shapes, threads)
        if us is not None:
            here_us[layer.index] = us
            saved_us[layer.index] = there_us((layer.index, *layer.followers.nodes)) - us
    best = Prediction((), whole_us, whole_us)
    wake_us = WAKE_US if machine.threads > 1 else 0.0
    for least in (0.0, CALL_US + PIECE_US + wake_us):  # all that are faster; those worth a piece
        taken = [each for each in layers if saved_us.get(each.index, 0.0) > least]
        if not taken:
            break
        division = graph.divide(taken)
        within = {n for each in taken for n in (each.index, *each.followers.nodes)}
        pieces = sum(bool(piece.outputs) for piece in division.pieces)
        cut_us = there_us(_unfused(graph, moving - within)) + pieces * (PIECE_US + wake_us)
        cut_us += sum(CALL_US + here_us[each.index] for each in taken)
        cut_us += _reordered_us(graph, division, shapes, machine)
        if cut_us < best.tconv_us:
            best = Prediction(tuple(taken), whole_us, cut_us)
    return best


def _cells(shapes: Collection[tuple[int, ...]]) -> int:
    """How many cells a value has whose shape is not known: as many as the first layer's x."""
    cells = 1
    for size in next(iter(shapes))[2:]:
        cells *= size
    return cells


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
