"""HOW A MODEL IS LOADED: cut into steps, or whole where it cannot be cut."""

import os
from collections.abc import Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, fields
from typing import Any

from onnx import ModelProto, TypeProto, ValueInfoProto
from onnx.helper import make_tensor_type_proto

from tconv.constants import stored_array
from tconv.errors import ModelError, TConvError
from tconv.nodes import NodeSettings
from tconv.onnx.graph import Layer, NotCut, cut, layers_of, nodes_within
from tconv.onnx.model import (
    ModelMetadata,
    NodeArg,
    Source,
    metadata_of,
    node_arg,
    read_model,
)
from tconv.onnx.pieces import LayerRun, PieceRun, Values, build, load
from tconv.onnx.refusals import explained
from tconv.onnx.report import NodeReport

__all__ = ["Loaded", "load_model"]


@dataclass(frozen=True)
class Loaded:
    """What one process has made of a model.

    `steps` are run in order, the only one being the whole model where it is not cut. After each of
    them the names in `last_use` are needed no more. `nodes` has an entry for every ConvTranspose,
    and for every Conv that tconv computes.
    """

    process: int
    inputs: tuple[NodeArg, ...]
    overridable: tuple[NodeArg, ...]
    outputs: tuple[NodeArg, ...]
    metadata: ModelMetadata
    nodes: tuple[NodeReport, ...]
    steps: tuple[PieceRun | LayerRun, ...]
    last_use: tuple[tuple[str, ...], ...]
    defaults: Values = field(default_factory=dict)

    @property
    def pieces(self) -> int:
        """How many sessions of ONNX Runtime there are."""
        return sum(isinstance(step, PieceRun) for step in self.steps)


def load_model(source: Source, threads: int | None, force: bool) -> Loaded:
    """Cut a model and load its pieces; what cannot be cut is loaded as it is.

    Raises
    ------
    ModelError, OSError : as `read_model` and `load`; or ONNX Runtime would not survive the model
    """
    try:
        model = read_model(source)
    except NotCut:
        return _load_whole(source, threads, ())  # its nodes are unknown
    try:
        return _load_read(source, model, threads, force)
    except ModelError as error:
        raise explained(error, model) from error


def _load_read(source: Source, model: ModelProto, threads: int | None, force: bool) -> Loaded:
    reason, layers = "", layers_of(model)
    try:
        division, layers = cut(model, force=force)
        steps, types = build(model, division, threads) if division else ([], {})
        _check_declared(model, types)
    except NotCut as why:
        reason, division = str(why), None
    nodes = tuple(_node_reports(model, layers, reason))
    if division is None:
        return _load_whole(source, threads, nodes)
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
        os.getpid(),
        tuple(map(node_arg, inputs)),
        tuple(map(node_arg, overridable)),
        tuple(node_arg(ValueInfoProto(name=name, type=types[name])) for name in outputs),
        metadata_of(model),
        nodes,
        steps=tuple(steps),
        last_use=_last_use(steps, outputs),
        defaults={
            name: stored_array(stored[name])
            for name in (*(value.name for value in overridable), *outputs)
            if name in stored
        },
    )


def _check_declared(model: ModelProto, types: dict[str, TypeProto]) -> None:
    """Leave a model to ONNX Runtime that declares outputs as what they are not."""
    for value in model.graph.output:
        found, declared = (
            kind.tensor_type.elem_type for kind in (types.get(value.name, value.type), value.type)
        )
        if found and declared and found != declared:
            raise NotCut(f"output {value.name!r} declared as another type than it has")


def _load_whole(source: Source, threads: int | None, nodes: tuple[NodeReport, ...]) -> Loaded:
    session = load(source, threads, spin=True)
    inputs = tuple(map(_node_arg, session.get_inputs()))
    overridable = tuple(map(_node_arg, session.get_overridable_initializers()))
    outputs = tuple(map(_node_arg, session.get_outputs()))
    found = session.get_modelmeta()
    metadata = ModelMetadata(*(getattr(found, field.name) for field in fields(ModelMetadata)))
    names = tuple(each.name for each in (*inputs, *overridable))
    step = PieceRun(session, names, tuple(each.name for each in outputs))
    return Loaded(
        os.getpid(), inputs, overridable, outputs, metadata, nodes, steps=(step,), last_use=((),)
    )


def _node_arg(value: Any) -> NodeArg:
    """Copy ONNX Runtime's record; it shows a shape of unknown length as []."""
    return NodeArg(value.name, value.type, list(value.shape), bool(value.shape))


def _node_reports(model: ModelProto, layers: list[Layer], reason: str) -> Iterator[NodeReport]:
    """One entry for every layer; `reason` is why the model is not cut."""
    for layer in layers:
        why = layer.reason or reason
        by = "onnxruntime" if why else "tconv"
        folded = () if why else layer.followers.operators
        settings, operator = str(layer.settings), layer.settings.operator
        yield NodeReport(layer.name, layer.output, settings, by, why, folded, operator=operator)
    for node, place in nodes_within(model):
        settings = ""
        with suppress(TConvError):
            settings = str(NodeSettings.of_node(node))
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
