"""Graphs of ONNX models: nodes of the main graph in order, initialisers and constants as arrays."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
import onnx
from numpy.typing import NDArray
from onnx import AttributeProto, ModelProto, NodeProto
from onnx.helper import tensor_dtype_to_np_dtype

from tconv.arrays.onnx_constants import stored_array
from tconv.graph import Graph, Input, Node, UnknownOperator, known_operators
from tconv.onnx.model.nodes import is_operator, name_of

__all__ = ["graph_of"]

_CONSTANTS = ("value", "value_float", "value_floats", "value_int", "value_ints")
_OPSETS = range(7, 24)
_VERSIONED = ("Resize", "Softmax", "LogSoftmax")  # whose rules follow the opset


def graph_of(
    model: ModelProto,
    part: Sequence[NodeProto] | None = None,
    inputs: Sequence[str] = (),
    outputs: Sequence[str] = (),
) -> Graph:
    """Return a model's main graph, whose data have been read; or a part of its nodes.

    Initialisers are constants, those that a caller may override as well. A part has inputs and
    outputs of its own, all of float32.

    Raises
    ------
    UnknownOperator : it has what no program has, such as a subgraph or a type other than float32,
        or what ONNX's own rules for nodes do not allow
    ModelError : an initialiser is damaged
    """
    opsets = {each.domain or "ai.onnx": each.version for each in model.opset_import}
    protos = model.graph.node if part is None else part
    if part is None:
        outputs = [each.name for each in model.graph.output]
    _check(model, opsets, protos, outputs)
    read = {name for proto in protos for name in proto.input}
    read.update(value.name for value in model.graph.output)
    stored = [each for each in model.graph.initializer if part is None or each.name in read]
    constants = {each.name: stored_array(each) for each in stored}
    if part is None:
        given = [Input(v.name, _type_of(v)) for v in model.graph.input if v.name not in constants]
    else:
        given = [Input(name, "float32") for name in inputs]
    nodes = list[Node]()
    for proto in protos:
        attributes = {each.name: _value_of(each) for each in proto.attribute}
        if proto.op_type == "Constant":
            constants[proto.output[0]] = _constant(attributes)
            continue
        if proto.op_type in _VERSIONED:
            attributes["version"] = opsets["ai.onnx"]
        reads, makes = tuple(proto.input), tuple(proto.output)
        nodes.append(Node(proto.op_type, reads, makes, attributes, name_of(proto)))
    graph = Graph(tuple(given), tuple(outputs), tuple(nodes), constants)
    _check_order(graph)
    return graph


def _check(
    model: ModelProto,
    opsets: dict[str, int],
    protos: Iterable[NodeProto],
    outputs: Collection[str],
) -> None:
    """Refuse what no program has before any data are copied."""
    if opsets.get("ai.onnx", 0) not in _OPSETS:
        raise UnknownOperator(f"opset {opsets.get('ai.onnx', 0)}")
    if model.functions or model.graph.sparse_initializer:
        raise UnknownOperator("functions, or sparse weights")
    known = known_operators() | {"Constant"}
    context = onnx.checker.C.CheckerContext()
    context.ir_version = model.ir_version
    context.opset_imports = {"" if name == "ai.onnx" else name: n for name, n in opsets.items()}
    for proto in protos:
        if not is_operator(proto, proto.op_type) or proto.op_type not in known:
            raise UnknownOperator(
                f"operator {proto.domain}{'.' * bool(proto.domain)}{proto.op_type}"
            )
        try:
            onnx.checker.check_node(proto, context)
        except (onnx.checker.ValidationError, ValueError, RuntimeError) as error:
            title = name_of(proto)
            raise UnknownOperator(f"node {title!r}: {error}", title) from None
    for value in model.graph.output:
        if value.name in outputs and _type_of(value) not in ("float32", "none"):
            raise UnknownOperator(f"output {value.name!r} of {_type_of(value)}")


def _check_order(graph: Graph) -> None:
    """Refuse nodes that read what comes later, make what is there, or make what nobody reads."""
    there = {*graph.constants, *(each.name for each in graph.inputs)}
    if len(there) != len(graph.constants) + len(graph.inputs):
        raise UnknownOperator("an input that is there twice")
    for node in graph.nodes:
        makes = [name for name in node.outputs if name]
        if any(name and name not in there for name in node.inputs):
            raise UnknownOperator(f"node {node.name!r}, which reads what is made after it")
        if there.intersection(makes) or len(set(makes)) < len(makes) or not makes:
            raise UnknownOperator(f"node {node.name!r}, whose result is there already")
        there.update(makes)
    readers = graph.readers()
    for node in graph.nodes:
        if not any(name in readers for name in node.outputs):
            raise UnknownOperator(f"node {node.name!r}, whose result nobody reads")
    for name in graph.outputs:
        if name not in there:
            raise UnknownOperator(f"output {name!r}, which nothing makes")


def _type_of(value: onnx.ValueInfoProto) -> str:
    kind = value.type.tensor_type.elem_type
    try:
        return str(tensor_dtype_to_np_dtype(kind)) if kind else "none"
    except KeyError:
        return "none"


def _value_of(attribute: AttributeProto) -> Any:
    if attribute.ref_attr_name:
        raise UnknownOperator(f"attribute {attribute.name!r} of a function, outside of one")
    value = onnx.helper.get_attribute_value(attribute)
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    if isinstance(value, onnx.TensorProto):
        return stored_array(value)
    if isinstance(value, (int, float, str)):
        return value
    return [each.decode("utf-8", "replace") if isinstance(each, bytes) else each for each in value]


def _constant(attributes: Mapping[str, Any]) -> NDArray[Any]:
    for name in _CONSTANTS:
        if name in attributes:
            value = attributes[name]
            if isinstance(value, np.ndarray):
                return value
            return np.array(value, np.float32 if "float" in name else np.int64)
    raise UnknownOperator(f"Constant of {', '.join(attributes) or 'nothing'}")
