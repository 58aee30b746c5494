"""Nodes of a model, those inside other nodes and functions included."""

from collections.abc import Iterable, Iterator

from onnx import AttributeProto, GraphProto, ModelProto, NodeProto, TensorProto

__all__ = [
    "NotPartitionable",
    "all_nodes",
    "is_conv_transpose",
    "is_operator",
    "name_of",
    "names_needed",
    "nested_conv_transposes",
    "subgraphs_of",
    "type_name",
]


class NotPartitionable(Exception):
    """The reason why ONNX Runtime runs a model as a whole."""


def is_operator(node: NodeProto, *names: str) -> bool:
    """Whether a node is one of these operators of the default domain."""
    return node.op_type in names and node.domain in ("", "ai.onnx")


def is_conv_transpose(node: NodeProto) -> bool:
    """Whether a node is a ConvTranspose of the default domain."""
    return is_operator(node, "ConvTranspose")


def type_name(kind: int) -> str:
    """Return the name of an element type; of an unknown one, as in a damaged model, its number."""
    known = kind in TensorProto.DataType.values()
    return str(TensorProto.DataType.Name(kind)).lower() if known else str(kind)


def nested_conv_transposes(model: ModelProto) -> Iterator[tuple[NodeProto, str]]:
    """Yield every ConvTranspose inside another node or a function, and its place."""
    return ((node, place) for node, place in all_nodes(model) if place and is_conv_transpose(node))


def all_nodes(model: ModelProto) -> Iterator[tuple[NodeProto, str]]:
    """Yield every node and its place, "" for the main graph."""

    def walk(nodes: Iterable[NodeProto], place: str) -> Iterator[tuple[NodeProto, str]]:
        for node in nodes:
            yield node, place
            for inner in subgraphs_of(node):
                yield from walk(inner.node, f"inside {node.op_type} {name_of(node)}".rstrip())

    yield from walk(model.graph.node, "")
    for function in model.functions:
        yield from walk(function.node, f"inside function {function.name}")


def name_of(node: NodeProto) -> str:
    """Return the name of a node, or of its first output."""
    return node.name or next(filter(None, node.output), "")


def subgraphs_of(node: NodeProto) -> Iterator[GraphProto]:
    """Yield the graphs among the attributes of a node."""
    for attribute in node.attribute:
        if attribute.type == AttributeProto.GRAPH:
            yield attribute.g
        elif attribute.type == AttributeProto.GRAPHS:
            yield from attribute.graphs


def names_needed(node: NodeProto) -> Iterator[str]:
    """Yield the names of the values that a node reads, outer values of its subgraphs included."""
    yield from filter(None, node.input)
    for graph in subgraphs_of(node):
        own = {value.name for value in graph.input}
        own |= {tensor.name for tensor in graph.initializer}
        own |= {tensor.values.name for tensor in graph.sparse_initializer}
        own |= {name for inner in graph.node for name in inner.output}
        read = [name for inner in graph.node for name in names_needed(inner)]
        yield from (name for name in (*read, *(v.name for v in graph.output)) if name not in own)
