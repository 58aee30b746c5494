"""WHAT RUNS: the pieces of a cut model in ONNX Runtime, and tconv's layers between them."""

import re
from dataclasses import dataclass, field, replace
from functools import lru_cache
from time import perf_counter
from typing import Any

import onnxruntime
from onnx import GraphProto, ModelProto, TypeProto, ValueInfoProto
from onnx.helper import make_tensor_type_proto

from tconv.activations import Activation
from tconv.constants import stored_array
from tconv.dispatch import Call
from tconv.errors import DTypeError, ModelError, TConvError
from tconv.geometry import Geometry
from tconv.nodes import NodeSettings
from tconv.onnx.graph import TAKEN_TYPES, Cut, Layer, NotCut, Piece, names_needed, type_name
from tconv.onnx.model import Source, parse_type
from tconv.planned import PackedWeights
from tconv.repeated import Repeated

__all__ = ["LayerRun", "PieceRun", "Values", "build", "clean_message", "load"]

Values = dict[str, Any]
"""Everything known at one moment of a run, by name."""

_PROVIDERS = ["CPUExecutionProvider"]


@dataclass(frozen=True)
class PieceRun:
    """A piece that ONNX Runtime has loaded; an input that has a default may be missing."""

    session: Any
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]

    def __call__(self, values: Values, options: Any = None) -> None:
        """Add the outputs to the values; arrays are handed over without a copy."""
        feeds = {name: values[name] for name in self.inputs if name in values}
        try:
            found = self.session.run(list(self.outputs), feeds, options)
        except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
            raise ModelError(clean_message(error)) from error
        values.update(zip(self.outputs, found, strict=True))


@dataclass(frozen=True)
class LayerRun:
    """A ConvTranspose or Conv that tconv computes, with what follows it as part of it.

    `constants` are the operands that never change.
    """

    layer: Layer
    constants: Values
    threads: int | None
    packed: PackedWeights = field(default_factory=PackedWeights, compare=False)

    def __call__(self, values: Values) -> tuple[Geometry, float]:
        """Add the output to the values; return the sizes and the milliseconds it took."""
        began = perf_counter()
        operands: list[Any] = [
            None if not name else self.constants[name] if name in self.constants else values[name]
            for name in self.layer.inputs
        ]
        x, weight, bias = operands
        want = self.layer.settings.want
        try:
            _check_types(x, weight, bias)
            geometry = _geometry(self.layer.settings, x.shape, weight.shape)
            follows = self.layer.followers.activation
            repeated = _repeated(geometry, x.dtype, self.threads, follows)
            if self.layer.inputs[1] in self.constants:
                plan = repeated.plan(want)
                weight = self.packed.of(geometry, weight, 0, self.threads, follows, want, plan)
            values[self.layer.result] = repeated.solve(want, x, weight, bias)
        except TConvError as error:
            raise type(error)(f"node {self.layer.name!r}: {error}") from error
        return geometry, (perf_counter() - began) * 1e3


def _check_types(x: Any, weight: Any, bias: Any) -> None:
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and value.dtype != x.dtype:
            raise DTypeError(
                f"{name} has dtype {value.dtype}, must be {x.dtype} as x; export the model again."
            )


@lru_cache(maxsize=1024)
def _geometry(
    settings: NodeSettings, x_shape: tuple[int, ...], weight_shape: tuple[int, ...]
) -> Geometry:
    return settings.geometry(x_shape, weight_shape)


@lru_cache(maxsize=1024)
def _repeated(
    geometry: Geometry, dtype: Any, threads: int | None, follows: Activation | None
) -> Repeated:
    """Calls of a layer with sizes that come again."""
    return Repeated(geometry, dtype, Call("ConvTranspose", threads=threads, activation=follows))


def build(
    model: ModelProto, division: Cut, threads: int | None
) -> tuple[list[PieceRun | LayerRun], dict[str, TypeProto]]:
    """Load every piece; return what to run in order, and the type of every value in between.

    Raises
    ------
    NotCut : a value that would have to be handed over is of a type that cannot be
    ModelError : ONNX Runtime refuses a piece
    """
    overridable = {value.name for value in model.graph.input if model.ir_version >= 4}
    stored = {t.name: t for t in model.graph.initializer if t.name not in overridable}
    types = {name: value.type for name, value in division.values.items()}
    constants: Values = {}
    if division.folded.outputs:
        _load_piece(model, division.folded, types, threads)(constants)
    steps: list[PieceRun | LayerRun] = []
    for piece, layers in zip(division.pieces, division.layers, strict=True):
        if piece.outputs:
            steps.append(_load_piece(model, piece, types, threads))
        for layer in layers:
            for name in layer.needs:
                if name in stored and name not in constants:
                    constants[name] = stored_array(stored[name])
            steps.append(LayerRun(*_with_constants(layer, constants), threads))
            kind = types[layer.inputs[0]].tensor_type.elem_type
            if kind not in TAKEN_TYPES:
                raise NotCut(f"type {type_name(kind)}")
            types.setdefault(layer.result, make_tensor_type_proto(kind, None))
    return steps, types


def _with_constants(layer: Layer, constants: Values) -> tuple[Layer, Values]:
    """A layer and its constant operands, those of a normalisation folded into weight and bias."""
    own = {name: constants[name] for name in layer.inputs if name in constants}
    normalisation = layer.followers.normalisation
    if normalisation is None:
        return layer, own
    x, weight, bias = layer.inputs
    try:
        groups = layer.settings.group if layer.settings.want == "y" else None
        folded = normalisation.fold(constants, own[weight], own.get(bias), groups)
    except TConvError as error:
        raise NotCut(f"a BatchNormalization after {layer.name!r}: {error}") from None
    bias = bias or normalisation.operands[1]
    return replace(layer, inputs=(x, weight, bias)), own | dict(
        zip((weight, bias), folded, strict=True)
    )


def _load_piece(
    model: ModelProto, piece: Piece, types: dict[str, TypeProto], threads: int | None
) -> PieceRun:
    session = load(_extract(model, piece, types).SerializeToString(), threads, spin=False)
    for output in session.get_outputs():
        if output.name not in types:
            types[output.name] = parse_type(output.type)
    return PieceRun(session, piece.inputs, piece.outputs)


def _extract(model: ModelProto, piece: Piece, types: dict[str, TypeProto]) -> ModelProto:
    """Make a model of a piece; ONNX Runtime finds out the types of its outputs."""
    graph = GraphProto(name=f"piece of {model.graph.name}")
    graph.node.extend(model.graph.node[index] for index in piece.nodes)
    needed = {name for index in piece.nodes for name in names_needed(model.graph.node[index])}
    needed.update(piece.outputs)
    needed.difference_update(piece.inputs)
    graph.initializer.extend(t for t in model.graph.initializer if t.name in needed)
    graph.sparse_initializer.extend(
        t for t in model.graph.sparse_initializer if t.values.name in needed
    )
    given = {value.name for value in model.graph.input}
    graph.input.extend(
        ValueInfoProto(name=name, type=types[name] if name in given else _unsized(types[name]))
        for name in piece.inputs
    )
    graph.output.extend(ValueInfoProto(name=name) for name in piece.outputs)
    return ModelProto(
        ir_version=max(model.ir_version, 4),  # before 4, initialisers had to be inputs as well
        opset_import=model.opset_import,
        functions=model.functions,
        graph=graph,
    )


def _unsized(kind: TypeProto) -> TypeProto:
    """A type without its sizes, of which inference tells wrong ones for many a ConvTranspose.

    ONNX Runtime shrugs that off within a graph, but refuses such an input.
    """
    unsized = TypeProto()
    unsized.CopyFrom(kind)
    if kind.HasField("tensor_type"):
        unsized.tensor_type.ClearField("shape")
    return unsized


def load(source: Source, threads: int | None, *, spin: bool) -> Any:
    """Load a model with ONNX Runtime.

    Its threads spin while they wait for work, which is quick, and for a while after a run, which
    slows whoever computes next. Without `spin` they stop as the run ends.

    Raises
    ------
    ModelError : ONNX Runtime refuses it
    """
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads or 0
    options.log_severity_level = 4  # what goes wrong is raised, so it need not be printed too
    if not spin:  # Tried no spinning at all: a quarter slower (DBNet, 2 cores of a Xeon).
        options.add_session_config_entry("session.force_spinning_stop", "1")
    try:
        return onnxruntime.InferenceSession(
            source,
            options,
            providers=_PROVIDERS,
            enable_fallback=0,  # which prints on standard output and tries the same once more
        )
    except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
        what = f"{source!r}" if isinstance(source, str) else "the model"
        raise ModelError(
            f"ONNX Runtime refuses {what}: {clean_message(error)}; check the model."
        ) from error


def clean_message(error: Exception) -> str:
    """Say what ONNX Runtime says without its codes, source files and C++ signatures.

    >>> clean_message(ValueError("[ONNXRuntimeError] : 2 : INVALID_ARGUMENT : Bad size. "))
    'Bad size'
    """
    text = re.sub(r"\[ONNXRuntimeError\] : \d+ : \w+ : ", "", str(error))
    text = re.sub(r"Non-zero status code returned while running (\w+) node. ", r"\1 node. ", text)
    text = re.sub(r"(\w+) node. Name:'(.*?)' Status Message: ", r"node '\2' (\1): ", text)
    lacks = r"ONNX Runtime has no float64 \1: export the model in float32 (PyTorch: model.float())"
    text = re.sub(r"(\w+) operator does not support double yet", lacks, text)
    text = re.sub(r"/\S+\.(h|cc):\d+ .*?\) (const )?(\[.*?\] )?", "", text)
    text = re.sub(r"\w+\.(h|cc):\d+ \w+ ", "", text)
    return " ".join(text.split()).rstrip(". ")[:400]
