"""A model as it is read, and what is loaded of it: the whole, or pieces and layers between them."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from functools import partial
from time import perf_counter
from typing import Any

from onnx import ModelProto, TensorProto, TypeProto, ValueInfoProto
from onnx.helper import make_tensor_type_proto

from tconv.arrays.onnx_constants import stored_array
from tconv.errors import ModelError, TConvError
from tconv.geometry.geometry import Geometry
from tconv.geometry.onnx_attributes import NodeAttributes
from tconv.onnx.model.model import (
    ModelMetadata,
    NodeArg,
    Source,
    metadata_of,
    node_arg,
    read_model,
)
from tconv.onnx.model.nodes import NotCut, nodes_within
from tconv.onnx.model.shape_inference import outline
from tconv.onnx.ort.options import Settings
from tconv.onnx.ort.sessions import Whole, check_files, copied_options
from tconv.onnx.partition.partition import Cut, Graph, Layer, layers_of
from tconv.onnx.report import NodeReport
from tconv.onnx.subgraphs import LayerRun, PieceRun, Values, build

__all__ = ["Loaded", "Opened", "Ran", "load_cut", "load_whole", "open_model"]


@dataclass(frozen=True)
class Opened:
    """What is known of a model before anything of it is loaded.

    `outline` is the model without its weights, `graph` who needs what in it: None where it cannot
    be cut, and `reason` says why. `layers` has every ConvTranspose on the top level, and every Conv
    that tconv may compute. `whole` is the model as one session of ONNX Runtime.
    """

    source: Source
    settings: Settings
    whole: Whole
    outline: ModelProto | None = None
    graph: Graph | None = None
    layers: tuple[Layer, ...] = ()
    reason: str = ""

    @property
    def candidates(self) -> tuple[Layer, ...]:
        """The layers that tconv can compute."""
        return () if self.graph is None else tuple(each for each in self.layers if not each.reason)

    @property
    def has_float64(self) -> bool:
        """Whether a layer is of a type for which ONNX Runtime has none."""
        values: Any = {} if self.graph is None else self.graph.values
        return any(
            name in values and values[name].type.tensor_type.elem_type == TensorProto.DOUBLE
            for layer in self.candidates
            for name in layer.inputs[:2]
        )

    def reports(self, taken: Sequence[int], reason: str) -> tuple[NodeReport, ...]:
        """One entry for every layer; `reason` is why layers that are not taken are left."""
        return tuple(_node_reports(self, taken, reason))


@dataclass(frozen=True)
class Ran:
    """What is remembered of a run: sizes and milliseconds by the names of the layers' outputs."""

    layers: Mapping[str, tuple[Geometry, float]]
    elapsed_ms: float
    elsewhere_ms: float


@dataclass(frozen=True)
class Loaded:
    """One way in which a process can run a model.

    `steps` are run in order, the only one being the whole model where it is not cut. After each of
    them the names in `last_use` are needed no more. `taken` has the indices of tconv's layers,
    `whole` is the model as one session of ONNX Runtime.
    """

    inputs: tuple[NodeArg, ...]
    overridable: tuple[NodeArg, ...]
    outputs: tuple[NodeArg, ...]
    metadata: ModelMetadata
    taken: tuple[int, ...]
    steps: tuple[PieceRun | LayerRun, ...]
    last_use: tuple[tuple[str, ...], ...]
    whole: Whole
    defaults: Values = field(default_factory=dict)

    @property
    def pieces(self) -> int:
        """How many sessions of ONNX Runtime there are."""
        return sum(isinstance(step, PieceRun) for step in self.steps)

    def run(
        self, feed: Values, names: Sequence[str], options: Any = None, shapes: Any = None
    ) -> tuple[list[Any], Ran]:
        """Return the outputs of these names, and what is to be told of the run.

        The types and shapes of all arrays in between are added to the dict `shapes`.

        Raises
        ------
        ModelError, ShapeError, DTypeError : a node cannot compute
        """
        began, elsewhere_ms = perf_counter(), 0.0
        values = self.defaults | feed
        given, ran = set(values), dict[str, tuple[Geometry, float]]()
        for step, finished in zip(self.steps, self.last_use, strict=True):
            if isinstance(step, LayerRun):
                ran[step.layer.output] = step(values)
            else:
                before = perf_counter()
                step(values, options)
                elsewhere_ms += (perf_counter() - before) * 1e3
            if shapes is not None:
                shapes.update(
                    (name, (value.dtype, value.shape))
                    for name, value in values.items()
                    if hasattr(value, "dtype")
                )
            for name in finished:
                values.pop(name, None)
        results = [values[name].copy() if name in given else values[name] for name in names]
        return results, Ran(ran, (perf_counter() - began) * 1e3, elsewhere_ms)


def open_model(source: Source, settings: Settings) -> tuple[Opened, ModelProto | None]:
    """Read a model and find out where it may be cut; None if it is to be left as it is.

    Raises
    ------
    ModelError, OSError : as `read_model`
    """
    whole, reason = Whole(source, settings), settings.left
    model = None
    try:
        if not reason:
            try:
                model = read_model(source, partial(check_files, settings=settings))
            except NotCut as why:
                reason = str(why)
        bare = outline(model or read_model(source, weights=False))
    except NotCut:  # its nodes are unknown
        return Opened(source, settings, whole), None
    except (TConvError, OSError):
        if not settings.left:
            raise
        return Opened(source, settings, whole), None
    graph, layers = None, layers_of(bare)
    if model is not None:
        try:
            graph = Graph(bare)
            layers = graph.layers
        except NotCut as why:
            reason, model = str(why), None
    return Opened(source, settings, whole, bare, graph, tuple(layers), reason), model


def load_cut(opened: Opened, model: ModelProto, taken: Sequence[int]) -> Loaded:
    """Load the pieces of a model between the layers of these indices.

    Raises
    ------
    NotCut : values that would have to be handed over cannot be
    ModelError : ONNX Runtime refuses a piece
    """
    assert opened.graph is not None
    division = opened.graph.divide(each for each in opened.layers if each.index in taken)
    settings = copied_options(model, division, opened.settings)
    steps, types = _build(model, division, settings)
    _check_declared(model, types)
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    overridable = [] if model.ir_version < 4 else [v for v in graph.input if v.name in stored]
    outputs = [value.name for value in graph.output]
    for value in graph.output:  # as declared; where no shape is, as inferred
        if value.type.tensor_type.HasField("shape") or value.name not in types:
            types[value.name] = value.type
    types |= {name: make_tensor_type_proto(t.data_type, t.dims) for name, t in stored.items()}
    return Loaded(
        tuple(map(node_arg, inputs)),
        tuple(map(node_arg, overridable)),
        tuple(node_arg(ValueInfoProto(name=name, type=types[name])) for name in outputs),
        metadata_of(model),
        tuple(taken),
        steps=tuple(steps),
        last_use=_last_use(steps, outputs),
        whole=Whole(opened.source, settings, opened.whole.stamp),
        defaults={
            name: stored_array(stored[name])
            for name in (*(value.name for value in overridable), *outputs)
            if name in stored
        },
    )


def load_whole(whole: Whole) -> Loaded:
    """Load a model as one session of ONNX Runtime.

    Raises
    ------
    ModelError : ONNX Runtime refuses it
    """
    session = whole.session()
    inputs = tuple(map(_node_arg, session.get_inputs()))
    overridable = tuple(map(_node_arg, session.get_overridable_initializers()))
    outputs = tuple(map(_node_arg, session.get_outputs()))
    found = session.get_modelmeta()
    metadata = ModelMetadata(*(getattr(found, field.name) for field in fields(ModelMetadata)))
    names = tuple(each.name for each in (*inputs, *overridable))
    step = PieceRun(session, names, tuple(each.name for each in outputs))
    return Loaded(inputs, overridable, outputs, metadata, (), (step,), ((),), whole=whole)


def _build(
    model: ModelProto, division: Cut, settings: Settings
) -> tuple[list[PieceRun | LayerRun], dict[str, TypeProto]]:
    """Load every piece; a caller's options may suit the whole model alone."""
    try:
        return build(model, division, settings)
    except ModelError as error:
        if settings.sess_options is None and not settings.others:
            raise
        raise NotCut(f"a piece with these options: {error}") from error


def _check_declared(model: ModelProto, types: dict[str, TypeProto]) -> None:
    """Leave a model to ONNX Runtime that declares outputs as what they are not."""
    for value in model.graph.output:
        found, declared = (
            kind.tensor_type.elem_type for kind in (types.get(value.name, value.type), value.type)
        )
        if found and declared and found != declared:
            raise NotCut(f"output {value.name!r} declared as another type than it has")


def _node_arg(value: Any) -> NodeArg:
    """Copy ONNX Runtime's record; it shows a shape of unknown length as []."""
    return NodeArg(value.name, value.type, list(value.shape), bool(value.shape))


def _node_reports(opened: Opened, taken: Sequence[int], reason: str) -> Iterator[NodeReport]:
    for layer in opened.layers:
        is_taken = layer.index in taken
        why = "" if is_taken else layer.reason or opened.reason or reason
        by = "tconv" if is_taken else "onnxruntime"
        folded = layer.followers.operators if is_taken else ()
        settings, operator = str(layer.settings), layer.settings.operator
        yield NodeReport(layer.name, layer.output, settings, by, why, folded, operator=operator)
    if opened.outline is None:
        return
    for node, place in nodes_within(opened.outline):
        settings = ""
        with suppress(TConvError):
            settings = str(NodeAttributes.of_node(node))
        name = node.name or next(iter(node.output), "")
        yield NodeReport(name, "", settings, "onnxruntime", place)


def _last_use(
    steps: Sequence[PieceRun | LayerRun], outputs: Sequence[str]
) -> tuple[tuple[str, ...], ...]:
    """For each step the names that no later step needs, the model's outputs not counted."""
    seen, found = set(outputs), []
    for step in reversed(steps):
        if isinstance(step, PieceRun):
            names = {*step.inputs, *step.outputs}
        else:
            names = {*step.layer.inputs, step.layer.result}
        found.append(tuple(names - seen))
        seen |= names
    return tuple(reversed(found))
