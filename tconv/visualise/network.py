"""WHAT A NETWORK COMPUTES: the nodes from the image to a layer, their constants, and their values.

A value is a *signal* if the image's numbers go into it, not only its sizes. Everything else that a
node reads is *known*: it stands in the file, is folded from what stands there, or is recorded as
the network runs.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from graphlib import CycleError, TopologicalSorter
from hashlib import sha256
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tconv.errors import ModelError, ShapeError, UnsupportedError

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

__all__ = ["Network", "Node", "Opened", "Recorder", "Values", "run_node"]

Values = Mapping[str, NDArray[Any]]

_MANY = 1000  # numbers; shapes, which inference looks into, have fewer
_DOUBLE = 11  # ONNX's number of float64

# Nodes that read the sizes of a value only.
_SIZES_ONLY = frozenset({"Shape", "Size"})
_CHANGING = frozenset(
    {"Bernoulli", "Multinomial", "RandomNormal", "RandomNormalLike", "RandomUniform"}
    | {"RandomUniformLike"}
)


@dataclass(frozen=True)
class Node:
    """One node: its place in the file, its names, and its attributes as plain values."""

    index: int
    name: str
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]

    def __str__(self) -> str:
        return f'node {self.index} "{self.name or self.outputs[0]}"'


@dataclass(frozen=True, eq=False)
class Opened:
    """A model as it stands in a file, whose first input is an image.

    ``spatial`` are the sizes that it declares, None where it takes any.
    """

    name: str
    sha256: str
    proto: "ModelProto"
    input: str
    channels: int
    spatial: tuple[int | None, ...]

    @classmethod
    def of(cls, model: Any) -> "Opened":
        """Read a model.

        Parameters
        ----------
        model : path, bytes or onnx.ModelProto

        Raises
        ------
        ModelError : the model is damaged
        ShapeError : its first input is no image
        UnsupportedError : its weights lie where only ONNX Runtime finds them
        OSError : the file cannot be read
        ImportError : the ONNX tools are not installed
        """
        from tconv.onnx.graph import NotCut
        from tconv.onnx.model import as_source, read_model

        source = as_source(model)
        try:
            proto = read_model(source)
        except NotCut as why:
            raise UnsupportedError(
                f"the model cannot be looked into: {why}; export it as an ordinary ONNX file."
            ) from None
        data = Path(source).read_bytes() if isinstance(source, str) else source
        name = Path(source).stem if isinstance(source, str) else proto.graph.name or "model"
        return cls(name, sha256(data).hexdigest(), proto, *_image_of(proto))

    def sized(self, size: Sequence[int] | None) -> tuple[int, ...]:
        """The full shape of an image of a spatial size, by default that which is declared.

        Raises
        ------
        ShapeError : the model takes another size, or leaves it open and none is given
        """
        fixed = "x".join(str(each or "?") for each in self.spatial)
        if size is None:
            if None in self.spatial:
                raise ShapeError(
                    f"the network takes images of any size ({fixed}); pass an image, or a size."
                )
            size = tuple(each or 0 for each in self.spatial)
        fits = len(size) == len(self.spatial) and all(
            declared in (None, each) for declared, each in zip(self.spatial, size, strict=True)
        )
        if not fits:
            raise ShapeError(
                f"the image is {'x'.join(map(str, size))}, but the network takes {fixed}; pass "
                f"size={self.spatial} (--size {fixed}), and pictures are resized."
            )
        return (1, self.channels, *map(int, size))


@dataclass(frozen=True, eq=False)
class Network:
    """A model whose constants are folded, with one image of a fixed size as its input.

    `shapes` has what is known of the values' sizes before a run; `nodes` are in an order in which
    they can be computed.
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
    def of(cls, model: "Opened", size: Sequence[int] | None = None) -> "Network":
        """Fix the size of the image, by default as the model declares it, and fold constants.

        Raises
        ------
        ModelError : the nodes form a circle, or constants cannot be computed
        ShapeError : the model takes images of another size
        """
        from onnx import ModelProto

        from tconv.onnx.inference import fixed_shape, inferred

        proto = ModelProto()
        proto.CopyFrom(model.proto)
        shape = model.sized(size)
        for value in proto.graph.input:
            if value.name == model.input:
                _declare(value, shape)
        nodes = _in_order(proto)
        stored = _stored(proto)
        constants = {**stored, **_folded(proto, nodes, stored)}
        shapes = {name: fixed_shape(value) for name, value in inferred(_light(proto)).items()}
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
    def signals(self) -> frozenset[str]:
        """Names of the values that the image's numbers go into."""
        found = {self.input}
        for node in self.nodes:
            if node.op not in _SIZES_ONLY and not found.isdisjoint(node.inputs):
                found.update(node.outputs)
        return frozenset(found)

    @cached_property
    def opset(self) -> int:
        """Version of ONNX's own operations."""
        versions = {each.domain or "ai.onnx": each.version for each in self.proto.opset_import}
        return int(versions.get("ai.onnx", 1))

    @cached_property
    def makers(self) -> Mapping[str, Node]:
        """Which node makes a value."""
        return {name: node for node in self.nodes for name in node.outputs if name}

    def between(self, layer: str) -> tuple[Node, ...]:
        """The nodes that carry the image to a layer, in order."""
        wanted, found = {layer}, []
        for node in reversed(self.nodes):
            carries = not wanted.isdisjoint(node.outputs) and node.op not in _SIZES_ONLY
            if carries and not self.signals.isdisjoint(node.outputs):
                found.append(node)
                wanted.update(name for name in node.inputs if name in self.signals)
        return tuple(reversed(found))

    def recorder(self, names: Iterable[str], threads: int | None = None) -> "Recorder":
        """Make ready to compute values, some of which may be constants or the image itself."""
        return Recorder(self, tuple(dict.fromkeys(names)), threads)

    def with_constants(self, constants: Values) -> "Network":
        """The same network with other values for some of its constants."""
        from onnx import ModelProto, numpy_helper

        proto = ModelProto()
        proto.CopyFrom(self.proto)
        for node in list(proto.graph.node):
            if not set(node.output).isdisjoint(constants):
                proto.graph.node.remove(node)  # what a constant was folded from
        kept = [each for each in proto.graph.initializer if each.name not in constants]
        del proto.graph.initializer[:]
        proto.graph.initializer.extend(kept)
        proto.graph.initializer.extend(
            numpy_helper.from_array(np.ascontiguousarray(value), name)
            for name, value in constants.items()
        )
        nodes = tuple(node for node in self.nodes if set(node.outputs).isdisjoint(constants))
        return replace(
            self, proto=proto, nodes=nodes, constants={**self.constants, **constants}
        )


class Recorder:
    """A network made ready to tell some of its values for an image; by ONNX Runtime.

    Only the nodes that these values need are computed.
    """

    def __init__(self, network: Network, names: tuple[str, ...], threads: int | None) -> None:
        self.network, self.names = network, names
        self._made = [name for name in names if name in network.makers]
        self._session = _session(_until(network, self._made), threads) if self._made else None

    def __call__(self, image: NDArray[Any], names: Iterable[str] | None = None) -> Values:
        """Compute the values, or those of `names`, for one image (1, C, *size)."""
        network = self.network
        wanted = self.names if names is None else tuple(names)
        made = [name for name in wanted if name in network.makers]
        found: dict[str, NDArray[Any]] = {}
        if made and self._session is not None:
            feed = {network.input: image}
            found = dict(zip(made, _run(self._session, made, feed), strict=True))
        known = {**network.constants, network.input: image}
        return {name: found[name] if name in found else known[name] for name in wanted}


def run_node(
    op: str,
    attributes: Mapping[str, Any],
    operands: Sequence[NDArray[Any] | None],
    outputs: int,
    opset: int,
) -> list[NDArray[Any]]:
    """Compute one node by itself; None stands for an operand that is left out.

    >>> run_node("Neg", {}, [np.ones(2)], 1, 17)
    [array([-1., -1.])]
    """
    from onnx import helper

    feeds = {f"in{n}": value for n, value in enumerate(operands) if value is not None}
    names = [f"in{n}" if f"in{n}" in feeds else "" for n in range(len(operands))]
    results = [f"out{n}" for n in range(outputs)]
    node = helper.make_node(op, names, results, **attributes)
    return _run_nodes([node], feeds, results, {"": opset})


def _run_nodes(
    nodes: Sequence["NodeProto"], feeds: Values, names: Sequence[str], opsets: Mapping[str, int]
) -> list[NDArray[Any]]:
    """Compute some nodes by themselves, from arrays for all that they read."""
    from onnx import helper

    inputs = [
        helper.make_tensor_value_info(
            name, helper.np_dtype_to_tensor_dtype(value.dtype), value.shape
        )
        for name, value in feeds.items()
    ]
    outputs = [helper.make_empty_tensor_value_info(name) for name in names]
    graph = helper.make_graph(nodes, "nodes", inputs, outputs)
    opset_imports = [helper.make_opsetid(domain, n) for domain, n in opsets.items()]
    model = helper.make_model(graph, opset_imports=opset_imports, ir_version=8)
    return _run(_session(model, 1), names, dict(feeds))


# ---- what a file holds ---------------------------------------------------------------------------


def _image_of(proto: "ModelProto") -> tuple[str, int, tuple[int | None, ...]]:
    """Name, channels and declared size of the first input, if that can be an image."""
    from tconv.onnx.model import node_arg

    stored = {tensor.name for tensor in proto.graph.initializer}
    first = next((value for value in proto.graph.input if value.name not in stored), None)
    if first is None:
        raise ShapeError("the model has no input, must have an image first; pass another model.")
    found = node_arg(first)
    sizes = ", ".join(str(each or "?") for each in found.shape) if found.has_rank else "any shape"
    what = f"the first input {found.name!r} is {found.type} ({sizes})"
    batch, channels = (*found.shape, None, None)[:2]
    if (
        len(found.shape) not in (3, 4)
        or channels not in (1, 3)
        or found.type not in ("tensor(float)", "tensor(double)")
    ):
        raise ShapeError(
            f"{what}, must be an image: float (N, C, H, W), or (N, C, L), with 1 or 3 channels C; "
            "pass a network that takes one."
        )
    if isinstance(batch, int) and batch != 1:
        raise ShapeError(f"{what}, must take one image at a time; export it for a batch of 1.")
    spatial = tuple(each if isinstance(each, int) else None for each in found.shape[2:])
    return found.name, int(channels or 0), spatial


def _declare(value: Any, shape: tuple[int, ...]) -> None:
    for dim, size in zip(value.type.tensor_type.shape.dim, shape, strict=True):
        dim.Clear()
        dim.dim_value = size


def _light(proto: "ModelProto") -> "ModelProto":
    """The model without the numbers of its weights, which inference would copy to and fro."""
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
    return next(v.type.tensor_type.elem_type for v in proto.graph.input if v.name == name)


def _in_order(proto: "ModelProto") -> tuple[Node, ...]:
    """All nodes on the top level, each after those whose values it reads."""
    from onnx import helper

    from tconv.onnx.graph import names_needed

    nodes = []
    for index, node in enumerate(proto.graph.node):
        attributes = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        op = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        nodes.append(
            Node(index, node.name, op, tuple(node.input), tuple(node.output), attributes)
        )
    maker = {name: node.index for node in nodes for name in node.outputs if name}
    needs = {
        index: {maker[name] for name in names_needed(node) if name in maker}
        for index, node in enumerate(proto.graph.node)
    }
    try:
        return tuple(nodes[index] for index in TopologicalSorter(needs).static_order())
    except CycleError:
        raise ModelError("the nodes of the model form a circle; export it again.") from None


def _stored(proto: "ModelProto") -> dict[str, NDArray[Any]]:
    from tconv.onnx.model import stored_array

    return {tensor.name: stored_array(tensor) for tensor in proto.graph.initializer}


def _folded(proto: "ModelProto", nodes: Sequence[Node], stored: Values) -> Values:
    """Values of all nodes that read nothing but constants."""
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
    return dict(zip(names, _run_nodes(static, feeds, names, opsets), strict=True))


def _until(network: Network, names: Sequence[str]) -> "ModelProto":
    """The model up to some values, which become its outputs."""
    from onnx import ModelProto, helper

    from tconv.onnx.graph import names_needed

    proto, makers = network.proto, network.makers
    leaning, kept = list(names), set[int]()
    while leaning:
        name = leaning.pop()
        if name in makers and makers[name].index not in kept:
            kept.add(makers[name].index)
            leaning += names_needed(_source(network, makers[name]))
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
    """A node as it stands in the file, which may have lost some before it."""
    first = next(filter(None, node.outputs))
    return next(each for each in network.proto.graph.node if first in each.output)


# ---- ONNX Runtime --------------------------------------------------------------------------------


def _session(model: "ModelProto", threads: int | None) -> Any:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads or 0
    # Fused nodes round otherwise: a value must not depend on which others are recorded beside it.
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(
            model.SerializeToString(), options, providers=["CPUExecutionProvider"]
        )
    except Exception as error:  # ONNX Runtime has many classes of errors, and no base of them all
        raise ModelError(f"ONNX Runtime refuses the model: {_line(error)}; check it.") from error


def _run(session: Any, names: Sequence[str], feed: dict[str, NDArray[Any]]) -> list[NDArray[Any]]:
    try:
        found: list[NDArray[Any]] = session.run(list(names), feed)
    except Exception as error:
        raise ModelError(
            f"ONNX Runtime cannot run the network: {_line(error)}; check the size of the image."
        ) from error
    return found


def _line(error: Exception) -> str:
    return " ".join(str(error).split())
