"""Loading of a model: as one session of ONNX Runtime, or partitioned into subgraphs and layers."""

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
from tconv.onnx.model.nodes import NotPartitionable, is_operator, name_of, nested_conv_transposes
from tconv.onnx.model.shape_inference import strip_weights
from tconv.onnx.ort.options import Settings
from tconv.onnx.ort.sessions import WholeModel, check_files, copied_options
from tconv.onnx.partition.partition import Graph, Layer, Partition, find_layers
from tconv.onnx.programs.region_step import RegionStep
from tconv.onnx.report import NodeReport
from tconv.onnx.subgraphs import LayerKernel, SubgraphSession, Values, load_steps

__all__ = [
    "LoadedModel",
    "ModelAnalysis",
    "RunProfile",
    "analyse_model",
    "load_partitioned",
    "load_whole",
]

Step = SubgraphSession | LayerKernel | RegionStep
"""What runs in order, each reading and adding values by their names."""


@dataclass(frozen=True)
class ModelAnalysis:
    """What is known of a model before any of it is loaded.

    `stripped` is the model without its weights. `graph` is None if the model cannot be partitioned;
    then `reason` says why. `layers` has every ConvTranspose of the main graph, and every Conv that
    tconv may compute. `whole` is the model as one session of ONNX Runtime.
    """

    source: Source
    settings: Settings
    whole: WholeModel
    stripped: ModelProto | None = None
    graph: Graph | None = None
    layers: tuple[Layer, ...] = ()
    reason: str = ""

    @property
    def candidates(self) -> tuple[Layer, ...]:
        """The layers that tconv can compute."""
        return () if self.graph is None else tuple(each for each in self.layers if not each.reason)

    @property
    def has_convolution(self) -> bool:
        """Whether the main graph has a convolution, transposed or not."""
        nodes = () if self.graph is None else self.graph.nodes
        return any(is_operator(node, "Conv", "ConvTranspose") for node in nodes)

    @property
    def has_float64(self) -> bool:
        """Whether a layer is of float64, for which ONNX Runtime has no kernel."""
        values: Any = {} if self.graph is None else self.graph.values
        return any(
            name in values and values[name].type.tensor_type.elem_type == TensorProto.DOUBLE
            for layer in self.candidates
            for name in layer.inputs[:2]
        )

    def reports(self, assigned: Sequence[int], reason: str) -> tuple[NodeReport, ...]:
        """Report every layer; `reason` says why layers that are not assigned are left."""
        return tuple(_node_reports(self, assigned, reason))


@dataclass(frozen=True)
class RunProfile:
    """Times of a run: sizes and milliseconds of layers by the names of their outputs."""

    layers: Mapping[str, tuple[Geometry, float]]
    elapsed_ms: float
    elsewhere_ms: float


@dataclass(frozen=True)
class LoadedModel:
    """A model ready to run, whole or partitioned.

    `steps` run in order; a whole model is a single step. After each step, the values that
    `last_use` names for it are released. `assigned` has the indices of tconv's layers, those within
    regions included, `whole` is the model as one session of ONNX Runtime.
    """

    inputs: tuple[NodeArg, ...]
    overridable: tuple[NodeArg, ...]
    outputs: tuple[NodeArg, ...]
    metadata: ModelMetadata
    assigned: tuple[int, ...]
    steps: tuple[Step, ...]
    last_use: tuple[tuple[str, ...], ...]
    whole: WholeModel
    defaults: Values = field(default_factory=dict)

    @property
    def subgraph_count(self) -> int:
        """Number of sessions of ONNX Runtime."""
        return sum(isinstance(step, SubgraphSession) for step in self.steps)

    @classmethod
    def of_model(
        cls,
        model: ModelProto,
        analysis: ModelAnalysis,
        settings: Settings,
        assigned: Sequence[int],
        steps: Sequence[Step],
    ) -> "LoadedModel":
        """Describe a model whose regions programs compute; `assigned` has the layers in them.

        `settings` have private copies of the caller's options.
        """
        assert analysis.graph is not None
        graph, known = model.graph, analysis.graph.values
        stored = {tensor.name: tensor for tensor in graph.initializer}
        outputs = [value.name for value in graph.output]
        overridable = [] if model.ir_version < 4 else [v for v in graph.input if v.name in stored]
        return cls(
            tuple([node_arg(value) for value in graph.input if value.name not in stored]),
            tuple(map(node_arg, overridable)),
            tuple([node_arg(_declared(value, known)) for value in graph.output]),
            metadata_of(model),
            tuple(assigned),
            steps=tuple(steps),
            last_use=_last_use(steps, outputs),
            whole=analysis.whole
            if settings is analysis.settings
            else WholeModel(analysis.source, settings, analysis.whole.stamp),
            defaults={name: stored_array(stored[name]) for name in outputs if name in stored},
        )

    def run(
        self, feed: Values, names: Sequence[str], options: Any = None, shapes: Any = None
    ) -> tuple[list[Any], RunProfile]:
        """Return the outputs of these names, and the times of the run.

        Types and shapes of all intermediate arrays are added to the dict `shapes`.

        Raises
        ------
        ModelError, ShapeError, DTypeError : a node cannot compute
        """
        began, elsewhere_ms = perf_counter(), 0.0
        values = self.defaults | feed
        given, ran = set(values), dict[str, tuple[Geometry, float]]()
        for step, finished in zip(self.steps, self.last_use, strict=True):
            if isinstance(step, LayerKernel):
                ran[step.layer.output] = step(values)
            elif isinstance(step, SubgraphSession):
                before = perf_counter()
                step(values, options)
                elsewhere_ms += (perf_counter() - before) * 1e3
            else:
                step(values)
            if shapes is not None:
                shapes.update(
                    (name, (value.dtype, value.shape))
                    for name, value in values.items()
                    if hasattr(value, "dtype")
                )
            for name in finished:
                values.pop(name, None)
        # An output that is asked for twice is two arrays, as ONNX Runtime's are.
        results = [
            values[name].copy() if name in given or name in names[:place] else values[name]
            for place, name in enumerate(names)
        ]
        return results, RunProfile(ran, (perf_counter() - began) * 1e3, elsewhere_ms)


def analyse_model(source: Source, settings: Settings) -> tuple[ModelAnalysis, ModelProto | None]:
    """Read a model and find its layers; return None for the model if it must run as a whole.

    Raises
    ------
    ModelError, OSError : as `read_model`
    """
    whole, reason = WholeModel(source, settings), settings.why_whole
    model = None
    try:
        if not reason:
            try:
                model = read_model(source, partial(check_files, settings=settings))
            except NotPartitionable as why:
                reason = str(why)
        bare = strip_weights(model or read_model(source, weights=False))
    except NotPartitionable:  # only ONNX Runtime can read it
        return ModelAnalysis(source, settings, whole), None
    except (TConvError, OSError):
        if not settings.why_whole:
            raise
        return ModelAnalysis(source, settings, whole), None
    graph, layers = None, find_layers(bare)
    if model is not None:
        try:
            graph = Graph(bare)
            layers = graph.layers
        except NotPartitionable as why:
            reason, model = str(why), None
    return ModelAnalysis(source, settings, whole, bare, graph, tuple(layers), reason), model


def load_partitioned(
    analysis: ModelAnalysis, model: ModelProto, assigned: Sequence[int]
) -> LoadedModel:
    """Load a model partitioned at the layers of these indices.

    Raises
    ------
    NotPartitionable : a value cannot be passed between ONNX Runtime and tconv
    ModelError : ONNX Runtime refuses a subgraph
    """
    assert analysis.graph is not None
    partition = analysis.graph.partition(each for each in analysis.layers if each.index in assigned)
    taken = [layer for step in partition.layers for layer in step]
    read = {name for layer in taken for name in (*layer.needs, *layer.fused.scalars)}
    settings = copied_options(model, read, analysis.settings)
    steps, types = _load_steps(model, partition, settings)
    _check_declared(model, types)
    graph = model.graph
    stored = {tensor.name: tensor for tensor in graph.initializer}
    inputs = [value for value in graph.input if value.name not in stored]
    overridable = [] if model.ir_version < 4 else [v for v in graph.input if v.name in stored]
    outputs = [value.name for value in graph.output]
    for value in graph.output:  # as declared, or as inferred if no shape is declared
        if value.type.tensor_type.HasField("shape") or value.name not in types:
            types[value.name] = value.type
    types |= {name: make_tensor_type_proto(t.data_type, t.dims) for name, t in stored.items()}
    return LoadedModel(
        tuple(map(node_arg, inputs)),
        tuple(map(node_arg, overridable)),
        tuple(node_arg(ValueInfoProto(name=name, type=types[name])) for name in outputs),
        metadata_of(model),
        tuple(assigned),
        steps=tuple(steps),
        last_use=_last_use(steps, outputs),
        whole=WholeModel(analysis.source, settings, analysis.whole.stamp),
        defaults={
            name: stored_array(stored[name])
            for name in (*(value.name for value in overridable), *outputs)
            if name in stored
        },
    )


def load_whole(whole: WholeModel) -> LoadedModel:
    """Load a model as one session of ONNX Runtime.

    Raises
    ------
    ModelError : ONNX Runtime refuses the model
    """
    session = whole.session()
    inputs = tuple(map(_from_ort, session.get_inputs()))
    overridable = tuple(map(_from_ort, session.get_overridable_initializers()))
    outputs = tuple(map(_from_ort, session.get_outputs()))
    found = session.get_modelmeta()
    metadata = ModelMetadata(*(getattr(found, field.name) for field in fields(ModelMetadata)))
    names = tuple(each.name for each in (*inputs, *overridable))
    step = SubgraphSession(session, names, tuple(each.name for each in outputs))
    return LoadedModel(inputs, overridable, outputs, metadata, (), (step,), ((),), whole=whole)


def _load_steps(
    model: ModelProto, partition: Partition, settings: Settings
) -> tuple[list[SubgraphSession | LayerKernel], dict[str, TypeProto]]:
    """Load every subgraph; a caller's options may suit the whole model only."""
    try:
        return load_steps(model, partition, settings)
    except ModelError as error:
        if settings.sess_options is None and not settings.others:
            raise
        raise NotPartitionable(f"a subgraph with these options: {error}") from error


def _check_declared(model: ModelProto, types: dict[str, TypeProto]) -> None:
    """Leave a model to ONNX Runtime that declares a wrong type for an output."""
    for value in model.graph.output:
        found, declared = (
            kind.tensor_type.elem_type for kind in (types.get(value.name, value.type), value.type)
        )
        if found and declared and found != declared:
            raise NotPartitionable(f"output {value.name!r} declared as another type than it has")


def _declared(value: ValueInfoProto, known: Mapping[str, ValueInfoProto]) -> ValueInfoProto:
    """An output as declared, or as inferred if no shape is declared."""
    has_shape = value.type.tensor_type.HasField("shape")
    return value if has_shape else known.get(value.name, value)


def _from_ort(value: Any) -> NodeArg:
    """Convert ONNX Runtime's NodeArg, which shows a shape of unknown rank as []."""
    return NodeArg(value.name, value.type, list(value.shape), bool(value.shape))


def _node_reports(
    analysis: ModelAnalysis, assigned: Sequence[int], reason: str
) -> Iterator[NodeReport]:
    for layer in analysis.layers:
        is_assigned = layer.index in assigned
        why = "" if is_assigned else layer.reason or analysis.reason or reason
        by = "tconv" if is_assigned else "onnxruntime"
        folded = layer.fused.operators if is_assigned else ()
        settings, operator = str(layer.settings), layer.settings.operator
        yield NodeReport(layer.name, layer.output, settings, by, why, folded, operator=operator)
    if analysis.stripped is None:
        return
    for node, place in nested_conv_transposes(analysis.stripped):
        settings = ""
        with suppress(TConvError):
            settings = str(NodeAttributes.of_node(node))
        yield NodeReport(name_of(node), "", settings, "onnxruntime", place)


def _last_use(steps: Sequence[Step], outputs: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Names per step that no later step needs, outputs of the model excepted."""
    seen, found = set(outputs), []
    for step in reversed(steps):
        names = {*step.inputs, *step.outputs}
        found.append(tuple(names - seen))
        seen |= names
    return tuple(reversed(found))
