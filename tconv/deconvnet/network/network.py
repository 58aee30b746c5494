"""Graph of a network: nodes from the image to a layer, constants, and recorded values.

A value is an *activation* if it depends on the numbers of the image, and not only on its sizes. All
other values are *known*: stored in the model, folded from stored ones, or recorded in a run.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.onnx_constants import stored_arrays
from tconv.deconvnet.network.model import ImageModel
from tconv.deconvnet.network.runtime import Values, run, run_nodes, session_of
from tconv.errors import ModelError
from tconv.system.fork_lock import cached_property

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["Network", "Node", "Recorder"]

_MANY = 1000  # elements; shapes, whose values inference reads, have fewer
_DOUBLE = 11  # float64 in TensorProto.DataType

# Operators that read only the sizes of a value.
_SIZES_ONLY = frozenset({"Shape", "Size"})
_CHANGING = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
    | {"RandomUniformLike"}
)


@dataclass(frozen=True)
class Node:
    """A node: its place in the model, its names, and its attributes as plain values."""

    index: int
    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        return f'node {self.index} "{self.name or next(iter(self.outputs), "")}"'


@dataclass(frozen=True, eq=False)
class Network:
    """A model with folded constants, whose input is one image of a fixed size.

    `shapes` are the shapes that inference finds; `nodes` are sorted topologically.
    """

    name: str
    sha256: str
    proto: "ModelProto"
    input: str
    input_shape: tuple[int, ...]
    dtype: np.dtype[Any]
    nodes: tuple[Node, ...]
    constants: Values
    shapes: Mapping[str, tuple[int, ...]]

    @classmethod
    def of(cls, model: ImageModel, size: Sequence[int] | None = None) -> "Network":
        """Fix the size of the image, by default the declared one, and fold constants.

        Raises
        ------
        ModelError : the graph has a cycle, or constants cannot be computed
        ShapeError : the model takes images of another size
        """
        from onnx import ModelProto

        from tconv.onnx.model.shape_inference import fixed_shape, infer_value_infos

        proto = ModelProto()
        proto.CopyFrom(model.proto)
        shape = model.sized(size)
        for value in proto.graph.input:
            if value.name == model.input:
                _declare(value, shape)
        nodes = _in_order(proto)
        stored = stored_arrays(proto.graph)
        constants = {**stored, **_folded(proto, nodes, stored)}
        shapes = {
            name: fixed_shape(value) for name, value in infer_value_infos(_light(proto)).items()
        }
        return cls(
            model.name,
            model.sha256,
            proto,
            model.input,
            shape,
            np.dtype(np.float64 if _type_of(proto, model.input) == _DOUBLE else np.float32),
            nodes,
            constants,
            {each: sizes for each, sizes in shapes.items() if sizes is not None},
        )

    @cached_property
    def activations(self) -> frozenset[str]:
        """Names of the values that depend on the image."""
        found = {self.input}
        for node in self.nodes:
            if node.op not in _SIZES_ONLY and not found.isdisjoint(node.inputs):
                found.update(filter(None, node.outputs))
        return frozenset(found)

    @cached_property
    def opset(self) -> int:
        """Version of ONNX's own operations."""
        versions = {each.domain or "ai.onnx": each.version for each in self.proto.opset_import}
        return int(versions.get("ai.onnx", 1))

    @cached_property
    def producers(self) -> Mapping[str, Node]:
        """The node that computes each value, by the value's name."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    def between(self, layer: str) -> tuple[Node, ...]:
        """Return the nodes between the image and a layer, in order."""
        wanted, found = {layer}, []
        for node in reversed(self.nodes):
            is_needed = not wanted.isdisjoint(node.outputs) and node.op not in _SIZES_ONLY
            if is_needed and not self.activations.isdisjoint(node.outputs):
                found.append(node)
                wanted.update(name for name in node.inputs if name in self.activations)
        return tuple(reversed(found))

    def recorder(self, names: Iterable[str], threads: int | None = None) -> "Recorder":
        """Return a recorder of values, some of which may be constants or the image itself."""
        return Recorder(self, tuple(dict.fromkeys(names)), threads)

    def with_constants(self, constants: Values) -> "Network":
        """Return the same network with other values for some of its constants."""
        from onnx import ModelProto, numpy_helper

        proto = ModelProto()
        proto.CopyFrom(self.proto)
        for node in list(proto.graph.node):
            if not set(node.output).isdisjoint(constants):
                proto.graph.node.remove(node)  # which the constant was folded from
        kept = [each for each in proto.graph.initializer if each.name not in constants]
        others = [t for t in proto.graph.sparse_initializer if t.values.name not in constants]
        del proto.graph.initializer[:], proto.graph.sparse_initializer[:]
        proto.graph.initializer.extend(kept)
        proto.graph.sparse_initializer.extend(others)
        proto.graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(value), name)
            for name, value in constants.items()
        )
        nodes = tuple(node for node in self.nodes if set(node.outputs).isdisjoint(constants))
        return replace(self, proto=proto, nodes=nodes, constants={**self.constants, **constants})


class Recorder:
    """Forward pass that records some values of a network, run by ONNX Runtime.

    It computes only the nodes that these values need.
    """

    def __init__(self, network: Network, names: tuple[str, ...], threads: int | None) -> None:
        self.network, self.names = network, names
        self._computed = [name for name in names if name in network.producers]
        self._session = (
            session_of(_until(network, self._computed), threads) if self._computed else None
        )

    def __call__(self, image: NDArray[Any], names: Iterable[str] | None = None) -> Values:
        """Compute the values, or those of `names`, for one image (1, C, *size)."""
        network = self.network
        wanted = self.names if names is None else tuple(names)
        computed = [name for name in wanted if name in network.producers]
        found: dict[str, NDArray[Any]] = {}
        if computed and self._session is not None:
            feed = {network.input: image}
            found = dict(zip(computed, run(self._session, computed, feed), strict=True))
        known = {**network.constants, network.input: image}
        return {name: found[name] if name in found else known[name] for name in wanted}


# ---- the stored model ----------------------------------------------------------------------------


def _declare(value: Any, shape: tuple[int, ...]) -> None:
    for dim, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
        dim.Clear()
        dim.dim_value = size


def _light(proto: "ModelProto") -> "ModelProto":
    """Return the model without the data of its weights, which shape inference would copy."""
    from onnx import ModelProto, helper

    light = ModelProto(ir_version=proto.ir_version, opset_import=proto.opset_import)
    light.functions.extend(proto.functions)
    graph = light.graph
    graph.node.extend(proto.graph.node)
    graph.output.extend(proto.graph.output)
    large = {t.name: t for t in proto.graph.initializer if prod(t.dims) > _MANY}
    graph.initializer.extend(t for t in proto.graph.initializer if t.name not in large)
    graph.input.extend(value for value in proto.graph.input if value.name not in large)
    graph.input.extend(
        helper.make_tensor_value_info(name, tensor.data_type, tensor.dims)
        for name, tensor in large.items()
    )
    return light


def _type_of(proto: "ModelProto", name: str) -> int:
    found = (v.type.tensor_type.elem_type for v in proto.graph.input if v.name == name)
    return int(next(found))


def _in_order(proto: "ModelProto") -> tuple[Node, ...]:
    """Return the nodes of the top level in topological order."""
    from tconv.onnx.model.nodes import names_needed

    nodes = []
    for index, node in enumerate(proto.graph.node):
        attributes = {each.name: _value(each, index) for each in node.attribute}
        op = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        nodes.append(Node(index, node.name, op, tuple(node.input), tuple(node.output), attributes))
    maker = {name: node.index for node in nodes for name in node.outputs if name}
    needs = {
        index: {maker[name] for name in names_needed(node) if name in maker}
        for index, node in enumerate(proto.graph.node)
    }
    try:
        return tuple(nodes[index] for index in TopologicalSorter(needs).static_order())
    except CycleError:
        raise ModelError("the nodes of the model form a circle; export it again.") from None


def _value(attribute: Any, index: int) -> Any:
    from onnx import helper

    try:
        return helper.get_attribute_value(attribute)
    except ValueError:  # without a type, or with a reference that only functions may have
        raise ModelError(
            f"attribute {attribute.name!r} of node {index} has no value; export the model again."
        ) from None


def _folded(proto: "ModelProto", nodes: Sequence[Node], stored: Values) -> Values:
    """Return the values of all nodes that read only constants."""
    from onnx import AttributeProto

    known, static = set(stored), []
    for node in nodes:
        source = proto.graph.node[node.index]
        plain = not any(a.type == AttributeProto.GRAPH for a in source.attribute)
        if plain and node.op not in _CHANGING and known.issuperset(filter(None, node.inputs)):
            static.append(source)
            known.update(filter(None, node.outputs))
    if not static:
        return {}
    made = {name for node in static for name in node.output if name}
    reads = {name for node in static for name in node.input if name}
    feeds = {name: stored[name] for name in sorted(reads - made)}
    names = sorted(made)
    opsets = {each.domain: each.version for each in proto.opset_import}
    return dict(zip(names, run_nodes(static, feeds, names, opsets), strict=True))


def _until(network: Network, names: Sequence[str]) -> "ModelProto":
    """Return the model up to some values, which become its outputs."""
    from onnx import ModelProto, helper

    from tconv.onnx.model.nodes import names_needed

    proto, producers = network.proto, network.producers
    needed, kept = list(names), set[int]()
    while needed:
        name = needed.pop()
        if name in producers and producers[name].index not in kept:
            kept.add(producers[name].index)
            needed += names_needed(_source(network, producers[name]))
    model = ModelProto()
    model.CopyFrom(proto)
    del model.graph.node[:], model.graph.output[:], model.graph.value_info[:]
    del model.graph.initializer[:]
    chosen = [node for node in network.nodes if node.index in kept]
    sources = [_source(network, node) for node in chosen]
    model.graph.node.extend(sources)
    read = {name for node in sources for name in names_needed(node)}
    model.graph.initializer.extend(t for t in proto.graph.initializer if t.name in read)
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in names)
    return model


def _source(network: Network, node: Node) -> "NodeProto":
    """Return the stored form of a node; `with_constants` may have removed nodes before it."""
    first = next(filter(None, node.outputs))
    found: NodeProto = next(each for each in network.proto.graph.node if first in each.output)
    return found
