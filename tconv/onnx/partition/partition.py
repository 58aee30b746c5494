"""Partition of a model: the layers that tconv computes, and ONNX Runtime's subgraphs between them.

A value has *depth* d if the longest path to it passes through d of tconv's nodes. Subgraph d holds
the nodes whose inputs have a depth of at most d; tconv's nodes of depth d follow it. Nodes that
depend on constants only are copied into every subgraph that uses them: ONNX Runtime folds them.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from math import prod

import onnx
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto

from tconv.arrays.onnx_constants import stored_array
from tconv.errors import ModelError, TConvError
from tconv.geometry.onnx_attributes import ConvAttributes, NodeAttributes
from tconv.onnx.model.nodes import (
    NotPartitionable,
    is_conv_transpose,
    is_operator,
    name_of,
    names_needed,
    subgraphs_of,
    type_name,
)
from tconv.onnx.model.shape_inference import fixed_shape, infer_value_infos
from tconv.onnx.partition.fusion import NO_FUSED_OPS, FusedOps, find_fused_ops

__all__ = [
    "SUPPORTED_TYPES",
    "Graph",
    "Layer",
    "Partition",
    "Subgraph",
    "find_layer_shapes",
    "find_layers",
    "is_supported",
]

SUPPORTED_TYPES = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
_RANDOM = frozenset(  # operators whose results may differ from run to run
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike"}
    | {"RandomUniform", "RandomUniformLike"}
)
_BATCH_NORM_OPSET = 9  # earlier versions of BatchNormalization have other inputs and attributes


@dataclass(frozen=True)
class Layer:
    """A ConvTranspose, or a Conv that tconv computes, of a model's main graph.

    `inputs` are the names of x, weight and bias, "" for none. `reason` says why ONNX Runtime
    computes the node, "" where tconv can. `fused` are the following nodes that it computes too.
    """

    name: str
    index: int
    settings: NodeAttributes
    inputs: tuple[str, str, str]
    output: str
    reason: str = ""
    fused: FusedOps = NO_FUSED_OPS

    @property
    def result(self) -> str:
        """Name of its output, that of the last fused node if there is one."""
        return self.fused.result or self.output

    @property
    def needs(self) -> tuple[str, ...]:
        """Names of all values that it reads, operands of fused nodes included."""
        more = (name for node in self.fused.affine for name in node.operands)
        return (*filter(None, self.inputs), *more)


@dataclass(frozen=True)
class Subgraph:
    """Nodes for ONNX Runtime by index, and the names of the subgraph's inputs and outputs."""

    nodes: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Partition:
    """Subgraphs and layers by depth; subgraph 0 runs first, then the layers of depth 0, and so on.

    `constants` computes the layers' operands that depend on constants only, once, at load time.
    `values` holds types and shapes of the values between, as far as shape inference knows them.
    """

    constants: Subgraph
    subgraphs: tuple[Subgraph, ...]
    layers: tuple[tuple[Layer, ...], ...]
    values: dict[str, ValueInfoProto]


def is_supported(node: NodeProto, values: Mapping[str, ValueInfoProto]) -> bool:
    """Whether tconv may compute a node: a ConvTranspose, or a Conv of float64.

    ONNX Runtime has no kernel for the latter. `values` holds the types that are known.
    """
    if not is_operator(node, "Conv"):
        return is_conv_transpose(node)
    known = (values.get(name, ValueInfoProto()) for name in node.input[:2])
    return any(each.type.tensor_type.elem_type == TensorProto.DOUBLE for each in known)


def find_layers(
    model: ModelProto, values: Mapping[str, ValueInfoProto] | None = None
) -> list[Layer]:
    """Return the nodes of the main graph that are `is_supported`; `reason` names a broken rule."""
    layers, known = [], values or {}
    for index, node in enumerate(model.graph.node):
        if is_supported(node, known):
            kind = NodeAttributes if is_conv_transpose(node) else ConvAttributes
            settings, reason = kind(), ""
            try:
                settings = kind.of_node(node)
            except TConvError as error:
                reason = f"attributes refused: {error}"
            inputs, outputs = [*node.input, "", "", ""], [*node.output, ""]
            x, weight, bias = inputs[:3]
            if not (x and weight and outputs[0]) or any(inputs[3:]) or any(outputs[1:]):
                reason = "not two or three inputs and one output"
            operands = (x, weight, bias)
            layers.append(Layer(name_of(node), index, settings, operands, outputs[0], reason))
    return layers


def find_layer_shapes(
    model: ModelProto,
) -> list[tuple[Layer, str, tuple[int, ...] | None, tuple[int, ...] | None]]:
    """Return the layers of the main graph with element type and the shapes of x and weight.

    A shape that is known only at run time is None.
    """
    graph = Graph(model)
    found = []
    for layer in map(graph.with_fused_ops, graph.layers):
        x, weight, _ = layer.inputs
        value = graph.values.get(x, ValueInfoProto())
        kind = value.type.tensor_type.elem_type
        dtype = {10: "float16", 11: "float64"}.get(int(kind), "float32")  # numbers of TensorProto
        found.append((layer, dtype, fixed_shape(value), graph.shape(weight)))
    return found


class Graph:
    """A model's main graph: producer and consumers of each value, and the layers.

    `layers` has every node that tconv may compute, with a reason if ONNX Runtime computes it.

    Raises
    ------
    NotPartitionable : ONNX Runtime must run the model as a whole
    """

    def __init__(self, model: ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self._check_head(model)
        self.inputs = {value.name for value in model.graph.input}
        self.outputs = list(dict.fromkeys(value.name for value in model.graph.output))
        self.sparse = {tensor.values.name for tensor in model.graph.sparse_initializer}
        stored = {tensor.name for tensor in model.graph.initializer} | self.sparse
        if model.ir_version < 4:  # which lists every initialiser among the inputs, too
            self.inputs -= stored
        self.constants = stored - self.inputs
        self.functions = {(function.domain, function.name) for function in model.functions}
        self.needs = [tuple(dict.fromkeys(names_needed(node))) for node in self.nodes]
        self.producer = self._find_producers()
        self.consumers: dict[str, list[int]] = {}
        for index, needs in enumerate(self.needs):
            for name in needs:
                self.consumers.setdefault(name, []).append(index)
        self.order = self._order()
        self.values = infer_value_infos(model)
        layers = find_layers(model, self.values)
        self.constant_nodes = self._find_constant_nodes({layer.index for layer in layers})
        self.scalars = {each.name: each for each in model.graph.initializer if prod(each.dims) == 1}
        self.shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        self.layers = [self._with_reason(layer) for layer in layers]

    def _check_head(self, model: ModelProto) -> None:
        """Leave to ONNX Runtime what this version of onnx does not know, and unsound inputs."""
        opsets = {opset.domain or "ai.onnx": opset.version for opset in model.opset_import}
        self.opset = opset = opsets.get("ai.onnx", 0)
        if not 1 <= opset <= onnx.defs.onnx_opset_version() or model.ir_version > onnx.IR_VERSION:
            raise NotPartitionable(f"opset {opset}, IR version {model.ir_version}")
        names = set()
        for value in model.graph.input:
            if value.name in names or value.type.WhichOneof("value") is None:
                raise NotPartitionable(f"input {value.name!r} has no type or is there twice")
            names.add(value.name)

    def _find_producers(self) -> dict[str, int]:
        makers: dict[str, int] = {}
        for index, node in enumerate(self.nodes):
            for name in filter(None, node.output):
                if name in makers or name in self.inputs or name in self.constants:
                    raise NotPartitionable(f"{name!r} is made twice")
                makers[name] = index
        needed = {name for needs in (*self.needs, self.outputs) for name in needs}
        for name in sorted(needed - makers.keys() - self.inputs - self.constants):
            raise NotPartitionable(f"nothing makes {name!r}")
        return makers

    def _order(self) -> tuple[int, ...]:
        try:
            return tuple(
                TopologicalSorter(
                    {index: self._producers_of(needs) for index, needs in enumerate(self.needs)}
                ).static_order()
            )
        except CycleError:
            raise NotPartitionable("its nodes form a circle") from None

    def _producers_of(self, names: Iterable[str]) -> set[int]:
        return {self.producer[name] for name in names if name in self.producer}

    def _find_constant_nodes(self, layers: set[int]) -> set[int]:
        """Indices of deterministic nodes, layers aside, that depend on constants only."""
        found: set[int] = set()
        for index in self.order:
            node, needs = self.nodes[index], self.needs[index]
            if (
                index not in layers
                and node.op_type not in _RANDOM
                and (node.domain, node.op_type) not in self.functions
                and not any(True for _ in subgraphs_of(node))
                and self.inputs.isdisjoint(needs)
                and self._producers_of(needs) <= found
            ):
                found.add(index)
        return found

    def _with_reason(self, layer: Layer) -> Layer:
        """Add the fused nodes, or the reason why ONNX Runtime computes the layer."""
        x, weight, bias = layer.inputs
        kind = self.values.get(x, ValueInfoProto()).type.tensor_type.elem_type
        reason = layer.reason
        if kind and kind not in SUPPORTED_TYPES:
            reason = f"type {type_name(kind)}"
        elif self.sparse & {weight, bias}:
            reason = "sparse weight"
        return replace(layer, reason=reason) if reason else self.with_fused_ops(layer)

    def with_fused_ops(self, layer: Layer) -> Layer:
        """Add the following nodes that can be fused into the layer."""
        shape, groups, want = self.shape(layer.inputs[1]), layer.settings.group, layer.settings.want
        kind = self.values.get(layer.inputs[1], ValueInfoProto()).type.tensor_type.elem_type
        # Not in half precision: rounding the folded weights once more would change the model.
        folds = shape is not None and len(shape) > 2 and shape[0] % groups == 0
        folds = folds and kind in (TensorProto.FLOAT, TensorProto.DOUBLE)
        folds = folds and self.opset >= _BATCH_NORM_OPSET
        folds = folds and all(map(self._is_constant, filter(None, layer.inputs[1:])))

        channels = 0 if not shape else shape[1] * groups if want == "y" else shape[0]

        def is_vector(name: str) -> bool:
            return self.shape(name) == (channels,) and self._is_constant(name)

        def is_per_channel(name: str) -> bool:
            other = self.shape(name)
            if shape is None or other is None or not self._is_constant(name):
                return False
            most = (1, channels, *[1] * (len(shape) - 2))[::-1]
            return len(other) <= len(most) and all(
                size in (1, along) for size, along in zip(other[::-1], most, strict=False)
            )

        found = find_fused_ops(
            layer.output,
            self._only_consumer,
            is_vector if folds else None,
            is_per_channel,
            self._scalar_of,
        )
        return replace(layer, fused=found)

    def _only_consumer(self, name: str) -> tuple[int, NodeProto] | None:
        consumers = self.consumers.get(name, [])
        if len(consumers) != 1 or name in self.outputs:
            return None
        node = self.nodes[consumers[0]]
        is_read_once = list(node.input).count(name) == 1
        is_its_own = (node.domain, node.op_type) in self.functions
        return (consumers[0], node) if is_read_once and not is_its_own else None

    def _is_constant(self, name: str) -> bool:
        is_stored = name in self.constants and name not in self.sparse
        return is_stored or self.producer.get(name) in self.constant_nodes

    def _scalar_of(self, name: str) -> float | None:
        """Value of an initialiser or Constant of one element; None for any other name."""
        tensor = self.scalars.get(name) if name in self.constants else None
        if name in self.producer and is_operator(
            node := self.nodes[self.producer[name]], "Constant"
        ):
            tensor = next((each.t for each in node.attribute if each.name == "value"), None)
        if tensor is None or prod(tensor.dims) != 1 or tensor.data_type not in SUPPORTED_TYPES:
            return None
        try:
            return float(stored_array(tensor).reshape(()))
        except ModelError:  # it lies in another file, or is damaged
            return None

    def shape(self, name: str) -> tuple[int, ...] | None:
        """Shape of a value, None if a size is unknown."""
        return self.shapes.get(name) or fixed_shape(self.values.get(name))

    def partition(self, layers: Iterable[Layer]) -> Partition:
        """Assign every node to a stage by its depth, and make a subgraph of each stage.

        `layers` are the layers that tconv computes, at least one.
        """
        assigned = {layer.index: layer for layer in layers}
        within = {index for layer in assigned.values() for index in layer.fused.nodes}
        producer = self.producer | {layer.result: index for index, layer in assigned.items()}
        depth: dict[int, int] = {}
        for index in filter(lambda index: index not in within, self.order):
            inputs = {producer[name] for name in self.needs[index] if name in producer}
            depth[index] = max((depth[n] + (n in assigned) for n in inputs), default=0)
        stages: list[list[int]] = [[] for _ in range(max(depth.values()) + 1)]
        for index in sorted(depth.keys() - assigned.keys() - self.constant_nodes):
            stages[depth[index]].append(index)

        outside = {name for layer in assigned.values() for name in layer.needs}
        constants = sorted(n for n in outside if self.producer.get(n) in self.constant_nodes)
        outside |= set(self.outputs)
        subgraphs = []
        for d, stage in enumerate(stages):
            others = (self.needs[i] for n, other in enumerate(stages) if n != d for i in other)
            needed = outside.union(*others)
            made = [name for i in stage for name in self.nodes[i].output if name in needed]
            if stage and not made:  # its results are unused, but ONNX Runtime would compute them
                made = [next(filter(None, self.nodes[stage[-1]].output))]
            if d == 0:  # outputs of the model that depend on no input
                made += [n for n in self.outputs if self.producer.get(n) in self.constant_nodes]
            subgraphs.append(self._subgraph(stage, made))
        by_depth = [
            tuple(assigned[i] for i in sorted(assigned) if depth[i] == d)
            for d in range(len(subgraphs))
        ]
        constant = self._subgraph([], constants)
        return Partition(constant, tuple(subgraphs), tuple(by_depth), self.values)

    def _subgraph(self, stage: list[int], outputs: list[str]) -> Subgraph:
        """Subgraph of a stage's nodes and of the constant nodes that they or the outputs need."""
        within = set(stage)
        pending = [*outputs, *(name for index in stage for name in self.needs[index])]
        while pending:
            index = self.producer.get(pending.pop())
            if index in self.constant_nodes and index not in within:
                within.add(index)
                pending += self.needs[index]
        needed = {name for index in within for name in self.needs[index]}
        own = {name for index in within for name in self.nodes[index].output}
        return Subgraph(
            tuple(sorted(within)), tuple(sorted(needed - own - self.constants)), tuple(outputs)
        )
