"""Part of a model between some of its values: as a graph, or as a model of its own."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from numpy.typing import NDArray
from onnx import ModelProto, NodeProto, TensorProto, ValueInfoProto, helper, numpy_helper

from tconv.errors import ParameterError, UnsupportedError
from tconv.graph import Graph, Input, UnknownOperator, known_operators
from tconv.onnx.front_end import graph_of
from tconv.onnx.model.model import as_source, read_model
from tconv.onnx.model.nodes import NotPartitionable, is_operator, name_of
from tconv.onnx.model.shape_inference import infer_value_infos, strip_weights

__all__ = [
    "known_sizes",
    "model_of_part",
    "nodes_between",
    "open_model",
    "part_of_model",
    "value_names",
]


def open_model(model: Any, *, weights: bool = True) -> ModelProto:
    """Read a model, of which a part will be a graph; with ``weights=False`` not those beside it.

    Raises
    ------
    ModelError, OSError : it is damaged, or its file cannot be read
    UnsupportedError : only ONNX Runtime can read it
    """
    try:
        return read_model(as_source(model), weights=weights)
    except NotPartitionable as why:
        raise UnsupportedError(f"the model cannot be computed piece by piece: {why}.") from None


def value_names(model: ModelProto) -> tuple[list[str], set[str]]:
    """Names of the inputs that are no weights, and of all values that nodes make."""
    stored = {each.name for each in model.graph.initializer}
    declared = [each.name for each in model.graph.input if each.name not in stored]
    return declared, {name for node in model.graph.node for name in node.output if name}


def known_sizes(model: ModelProto, name: str) -> list[int | None]:
    """Sizes of a value as the model declares them, or as the convolution asks that reads it.

    None for any size; an empty list if even the number of axes is unknown.
    """
    values = {each.name: each for each in (*model.graph.input, *model.graph.value_info)}
    if name not in values:
        values |= infer_value_infos(strip_weights(model))
    sizes: list[int | None] = []
    if name in values and values[name].type.tensor_type.HasField("shape"):
        dims = values[name].type.tensor_type.shape.dim
        sizes = [int(dim.dim_value) or None for dim in dims]
    weights = {each.name: tuple(each.dims) for each in model.graph.initializer}
    for node in model.graph.node:
        if is_operator(node, "Conv", "ConvTranspose") and node.input[0] == name:
            weight = weights.get(node.input[1], ())
            group = next((each.i for each in node.attribute if each.name == "group"), 1)
            if len(weight) > 2:
                sizes = sizes if len(sizes) == len(weight) else [None] * len(weight)
                sizes[1] = weight[1] * group if node.op_type == "Conv" else weight[0]
                break
    return sizes


def part_of_model(
    model: ModelProto,
    inputs: Sequence[str],
    outputs: Sequence[str],
    constants: Mapping[str, NDArray[Any]],
) -> Graph:
    """Return the nodes between values as a graph; `constants` are inputs that stay the same.

    Raises
    ------
    ParameterError : outputs depend on more inputs, or not on all of these
    UnsupportedError : tconv has no program for a node
    """
    nodes = nodes_between(model, {*inputs, *constants}, outputs)
    known = known_operators() | {"Constant"}
    for node in nodes:
        if node.op_type not in known:
            raise UnsupportedError(
                f"node {name_of(node)!r} cannot be computed piece by piece: tconv has no program "
                f"for {node.op_type}; end the model before this node by outputs, or begin after it "
                "by inputs."
            )
    made = {name for node in nodes for name in node.output}
    stored = {each.name for each in model.graph.initializer}
    for node in nodes:
        for name in node.input:
            if name and name not in {*made, *stored, *inputs, *constants}:
                raise ParameterError(
                    f"outputs depend on {name!r}, which is not among inputs; add it there, or to "
                    "constants with its array."
                )
    read = {name for node in nodes for name in node.input}
    unread = [name for name in inputs if name not in read]
    if unread:
        raise ParameterError(f"inputs has {unread[0]!r}, which outputs do not depend on; drop it.")
    used = {name: array for name, array in constants.items() if name in read}
    try:
        graph = graph_of(model, nodes, [*inputs, *used], outputs)
    except UnknownOperator as error:
        raise UnsupportedError(
            f"the model cannot be computed piece by piece: {error}, which tconv has no program "
            "for; end the model before it by outputs, or begin after it by inputs."
        ) from None
    kept = tuple(Input(name, "float32") for name in inputs)
    return replace(graph, inputs=kept, constants={**graph.constants, **used})


def nodes_between(
    model: ModelProto, starts: Iterable[str], outputs: Iterable[str]
) -> list[NodeProto]:
    """The nodes that outputs depend on, from the values `starts` on, in order.

    >>> nodes = [helper.make_node("Relu", ["x"], ["h"]), helper.make_node("Tanh", ["h"], ["y"])]
    >>> model = helper.make_model(helper.make_graph(nodes, "net", [], []))
    >>> [node.op_type for node in nodes_between(model, {"h"}, ["y"])]
    ['Tanh']
    """
    given, wanted, found = set(starts), set(outputs), list[NodeProto]()
    for node in reversed(model.graph.node):
        makes = {name for name in node.output if name}
        if makes & wanted and not makes <= given:
            found.append(node)
            wanted |= {name for name in node.input if name} - given
    return found[::-1]


def model_of_part(
    model: ModelProto,
    inputs: Mapping[str, Sequence[int | str | None]],
    outputs: Sequence[str],
    constants: Mapping[str, NDArray[Any]],
) -> ModelProto:
    """Return the nodes between values as a model; inputs are of float32 and of these shapes.

    `constants` become part of it.
    """
    nodes = nodes_between(model, {*inputs, *constants}, outputs)
    read = {name for node in nodes for name in node.input} - constants.keys()
    made = ModelProto(ir_version=model.ir_version, opset_import=model.opset_import)
    made.functions.extend(model.functions)
    made.graph.name = model.graph.name or "part"
    made.graph.node.extend(nodes)
    made.graph.initializer.extend(each for each in model.graph.initializer if each.name in read)
    for name, array in constants.items():
        made.graph.initializer.append(numpy_helper.from_array(array, name))
    for name, shape in inputs.items():
        made.graph.input.append(helper.make_tensor_value_info(name, TensorProto.FLOAT, shape))
    made.graph.output.extend(ValueInfoProto(name=name) for name in outputs)
    return made
