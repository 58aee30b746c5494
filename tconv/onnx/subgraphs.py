"""Steps of a partitioned model: subgraphs run by ONNX Runtime, and layers computed by tconv."""

from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache
from time import perf_counter
from typing import Any

from onnx import GraphProto, ModelProto, TypeProto, ValueInfoProto
from onnx.helper import make_tensor_type_proto

from tconv.arrays.activations import Activation
from tconv.arrays.dtypes import dtype_name
from tconv.arrays.onnx_constants import stored_array
from tconv.errors import DTypeError, ModelError, TConvError
from tconv.geometry.geometry import Geometry
from tconv.geometry.onnx_attributes import NodeAttributes
from tconv.onnx.model.model import parse_type
from tconv.onnx.model.nodes import NotPartitionable, names_needed, type_name
from tconv.onnx.ort.options import Settings
from tconv.onnx.ort.sessions import clean_message, load
from tconv.onnx.partition.fusion import fold_affine
from tconv.onnx.partition.partition import SUPPORTED_TYPES, Layer, Partition, Subgraph
from tconv.ops.call_cache import BoundCall
from tconv.ops.dispatch import Call
from tconv.ops.planned_call import Packed, PackedWeights, PlannedCall

__all__ = ["LayerKernel", "SubgraphSession", "Values", "load_steps", "load_subgraph"]

Values = dict[str, Any]
"""Values that are alive at one moment of a run, by name."""

_MOST_PLANNED = 64  # planned calls of a layer, one for each shape and type of x


class SubgraphSession:
    """A subgraph as a session of ONNX Runtime; an input with a default may be missing."""

    def __init__(self, session: Any, inputs: Sequence[str], outputs: Sequence[str]) -> None:
        self.session, self.inputs, self.outputs = session, tuple(inputs), list(outputs)
        # The C++ session: the checks of ONNX Runtime's Python class take 2 to 4 us.
        self.run = getattr(session, "_sess", session).run

    def __call__(self, values: Values, options: Any = None) -> None:
        """Run and add the outputs to the values; arrays are passed without a copy."""
        feeds = {name: values[name] for name in self.inputs if name in values}
        try:
            found = self.run(self.outputs, feeds, options)
        except Exception as error:  # ONNX Runtime's exceptions have no common class of their own
            raise ModelError(clean_message(error)) from error
        values.update(zip(self.outputs, found, strict=True))


class LayerKernel:
    """Computation of a layer and its fused nodes by tconv.

    `constants` are its constant operands. A call is planned for each shape and type of x.
    """

    def __init__(self, layer: Layer, constants: Values, threads: int | None) -> None:
        self.layer, self.constants, self.threads = layer, constants, threads
        self.inputs, self.outputs = layer.inputs, (layer.result,)
        self._x, self._weight, self._bias = layer.inputs
        self._constant_x = constants.get(self._x)
        self._packed = PackedWeights()
        self._planned: dict[Any, tuple[PlannedCall, Packed, Any]] = {}

    def __call__(self, values: Values) -> tuple[Geometry, float]:
        """Compute and add the output to the values; return the geometry and the milliseconds."""
        began = perf_counter()
        x = values[self._x] if self._constant_x is None else self._constant_x
        try:
            planned = self._planned.get((x.shape, x.dtype))
            if planned is not None:
                call, packed, bias = planned
                geometry = call.geometry
                values[self.layer.result] = call(x, packed, bias)
            else:
                values[self.layer.result], geometry = self._first(x, values)
        except TConvError as error:
            raise type(error)(f"node {self.layer.name!r}: {error}") from error
        return geometry, (perf_counter() - began) * 1e3

    def _first(self, x: Any, values: Values) -> tuple[Any, Geometry]:
        """Compute for an x of a new shape; plan its calls if weight and bias are constant."""
        constants = self.constants
        operands: list[Any] = [
            None if not name else constants[name] if name in constants else values[name]
            for name in (self._weight, self._bias)
        ]
        weight, bias = operands
        _check_types(x, weight, bias)
        geometry = _geometry(self.layer.settings, x.shape, weight.shape)
        activation, want = self.layer.fused.activation, self.layer.settings.want
        if self._weight in constants and (not self._bias or self._bias in constants):
            dtype = dtype_name(x.dtype)
            call = PlannedCall(geometry, dtype, self.threads, "auto", activation, want)
            if call.is_short:
                if len(self._planned) >= _MOST_PLANNED:
                    self._planned.clear()
                packed = self._packed.of_call(call, weight)
                self._planned[x.shape, x.dtype] = call, packed, bias
                return call(x, packed, bias), geometry
        bound = _bound_call(geometry, x.dtype, self.threads, activation)
        if self._weight in constants:
            plan = bound.plan(want)
            weight = self._packed.of(geometry, weight, 0, self.threads, activation, want, plan)
        return bound.solve(want, x, weight, bias), geometry


def _check_types(x: Any, weight: Any, bias: Any) -> None:
    for name, value in (("weight", weight), ("bias", bias)):
        if value is not None and value.dtype != x.dtype:
            raise DTypeError(
                f"{name} has dtype {value.dtype}, must be {x.dtype} as x; export the model again."
            )


@lru_cache(maxsize=1024)
def _geometry(
    settings: NodeAttributes, x_shape: tuple[int, ...], weight_shape: tuple[int, ...]
) -> Geometry:
    return settings.geometry(x_shape, weight_shape)


@lru_cache(maxsize=1024)
def _bound_call(
    geometry: Geometry, dtype: Any, threads: int | None, activation: Activation | None
) -> BoundCall:
    """Repeatable calls of a layer with these sizes."""
    return BoundCall(geometry, dtype, Call("ConvTranspose", threads=threads, activation=activation))


def load_steps(
    model: ModelProto, partition: Partition, settings: Settings
) -> tuple[list[SubgraphSession | LayerKernel], dict[str, TypeProto]]:
    """Load every subgraph; return the steps in order, and the types of all values between them.

    Raises
    ------
    NotPartitionable : a value has a type that cannot be passed between steps
    ModelError : ONNX Runtime refuses a subgraph
    """
    overridable = {value.name for value in model.graph.input if model.ir_version >= 4}
    stored = {t.name: t for t in model.graph.initializer if t.name not in overridable}
    types = {name: value.type for name, value in partition.values.items()}
    constants: Values = {}
    if partition.constants.outputs:
        load_subgraph(model, partition.constants, types, settings)(constants)
    steps: list[SubgraphSession | LayerKernel] = []
    for subgraph, layers in zip(partition.subgraphs, partition.layers, strict=True):
        if subgraph.outputs:
            steps.append(load_subgraph(model, subgraph, types, settings))
        for layer in layers:
            for name in layer.needs:
                if name in stored and name not in constants:
                    constants[name] = stored_array(stored[name])
            steps.append(LayerKernel(*_with_constants(layer, constants), settings.threads))
            kind = types[layer.inputs[0]].tensor_type.elem_type
            if kind not in SUPPORTED_TYPES:
                raise NotPartitionable(f"type {type_name(kind)}")
            types.setdefault(layer.result, make_tensor_type_proto(kind, None))
    return steps, types


def _with_constants(layer: Layer, constants: Values) -> tuple[Layer, Values]:
    """A layer and its constant operands, with its affine nodes folded into weight and bias."""
    own = {name: constants[name] for name in layer.inputs if name in constants}
    affine, (x, weight, bias) = layer.fused.affine, layer.inputs
    if not affine:
        return layer, own
    try:
        groups = layer.settings.group if layer.settings.want == "y" else None
        both = fold_affine(affine, constants, own[weight], own.get(bias), groups)
    except TConvError as error:
        operators = " and ".join(layer.fused.operators[: len(affine)])
        raise NotPartitionable(f"{operators} after {layer.name!r}: {error}") from None
    bias = f"bias of {layer.result}"
    return replace(layer, inputs=(x, weight, bias)), own | dict(
        zip((weight, bias), both, strict=True)
    )


def load_subgraph(
    model: ModelProto, subgraph: Subgraph, types: dict[str, TypeProto], settings: Settings
) -> SubgraphSession:
    """Load a subgraph; add the types of its outputs to `types`.

    Raises
    ------
    ModelError : ONNX Runtime refuses it
    NotPartitionable : an output has a type that cannot be passed on
    """
    session = load(_extract(model, subgraph, types).SerializeToString(), settings, spin=False)
    for output in session.get_outputs():
        if output.name not in types:
            types[output.name] = parse_type(output.type)
    return SubgraphSession(session, subgraph.inputs, subgraph.outputs)


def _extract(model: ModelProto, subgraph: Subgraph, types: dict[str, TypeProto]) -> ModelProto:
    """Make a model of a subgraph; ONNX Runtime infers the types of its outputs."""
    graph = GraphProto(name=f"subgraph of {model.graph.name}")
    graph.node.extend(model.graph.node[index] for index in subgraph.nodes)
    needed = {name for index in subgraph.nodes for name in names_needed(model.graph.node[index])}
    needed.update(subgraph.outputs)
    needed.difference_update(subgraph.inputs)
    graph.initializer.extend(t for t in model.graph.initializer if t.name in needed)
    graph.sparse_initializer.extend(
        t for t in model.graph.sparse_initializer if t.values.name in needed
    )
    given = {value.name for value in model.graph.input}
    graph.input.extend(
        ValueInfoProto(name=name, type=types[name] if name in given else _unsized(types[name]))
        for name in subgraph.inputs
    )
    graph.output.extend(ValueInfoProto(name=name) for name in subgraph.outputs)
    return ModelProto(
        ir_version=max(model.ir_version, 4),  # before 4, initialisers must be inputs, too
        opset_import=model.opset_import,
        functions=model.functions,
        graph=graph,
    )


def _unsized(kind: TypeProto) -> TypeProto:
    """Remove the sizes from a type, since onnx infers wrong ones after many a ConvTranspose.

    ONNX Runtime tolerates them within a graph, but refuses such an input.
    """
    unsized = TypeProto()
    unsized.CopyFrom(kind)
    if kind.HasField("tensor_type"):
        unsized.tensor_type.ClearField("shape")
    return unsized
