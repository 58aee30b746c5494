"""Arithmetic for each channel goes into the weights beside it; the numbers stay."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from network_graphs import assert_alike_without, networks
from onnx_graphs import by_onnx_runtime, model_of
from strategies import draws, integers_like
from tconv.graph import Graph, Input, Node, Programs
from tconv.graph.passes.affine import fold_affine, fold_affine_forward
from tconv.onnx.front_end import graph_of

LAYERS = ["Conv", "ConvTranspose", "padded Conv", "BatchNormalization"]
AMONG = [*LAYERS, "Add", "Sub", "Mul", "Div"]
STORED = {
    "w": integers_like((4, 4, 3, 3), "float32", 1),
    "b": integers_like((4,), "float32", 2),
    "channels": np.array([1, -2, 4, 0.5], np.float32).reshape(4, 1, 1),
    "columns": np.array([1, 2, -3, 4, 5, 6], np.float32),
    "images": np.array([1, 2], np.float32).reshape(2, 1, 1, 1),
    "number": np.array(3, np.float32),
    "scale": np.array([1, 2, -1, 3], np.float32),
    "variance": np.array([1, 2, 3, 4], np.float32),
}


def graph_of_nodes(*nodes, outputs=("y",)):
    return Graph((Input("x", "float32"),), outputs, nodes, dict(STORED))


def layer(x="x", y="a", op="Conv", **attributes):
    return Node(op, (x, "w", "b"), (y,), attributes)


def assert_computed(graph, shape=(2, 4, 6, 6)):
    """As ONNX Runtime computes it."""
    feeds = {"x": integers_like(shape, "float32", 3)}
    nodes = [
        helper.make_node(node.operator, node.inputs, node.outputs, **node.attributes)
        for node in graph.nodes
    ]
    read = {name for node in graph.nodes for name in node.inputs}
    stored = {name: array for name, array in graph.constants.items() if name in read}
    model = model_of(nodes, feeds, graph.outputs, stored)
    for got, wanted in zip(
        Programs(graph_of(model), 1)([feeds["x"]]), by_onnx_runtime(model, feeds), strict=True
    ):
        assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


@draws()
@given(st.sampled_from(LAYERS).flatmap(lambda op: networks(op, among=AMONG)))
@pytest.mark.parametrize("name", ["fold_affine", "fold_affine_forward"])
def test_the_numbers_stay(name, drawn):
    assert_alike_without(name, lambda graph: graph, drawn)


NORM = ("scale", "b", "scale", "variance")
AFFINE = {
    "BatchNormalization": ("BatchNormalization", "a", *NORM),
    "Mul by channels": ("Mul", "a", "channels"),
    "Mul from the left": ("Mul", "channels", "a"),
    "Div by channels": ("Div", "a", "channels"),
    "Sub of channels": ("Sub", "a", "channels"),
    "Sub from channels": ("Sub", "channels", "a"),
    "Add of a number": ("Add", "a", "number"),
}


@pytest.mark.parametrize("name", AFFINE)
@pytest.mark.parametrize("op", ["Conv", "ConvTranspose"])
@pytest.mark.parametrize("group", [1, 2])
def test_arithmetic_after_a_layer_is_in_its_weights(name, op, group):
    op_type, *operands = AFFINE[name]
    first = layer(op=op, group=group, pads=[1] * 4)
    graph = graph_of_nodes(first, Node(op_type, tuple(operands), ("y",)))
    graph.constants["w"] = np.ascontiguousarray(STORED["w"][:, : 4 // group])
    (folded,) = fold_affine(graph).nodes
    assert (folded.operator, folded.outputs) == (op, ("y",))
    assert_computed(graph)


@pytest.mark.parametrize("name", AFFINE)
def test_arithmetic_before_a_layer_is_in_its_weights(name):
    op_type, *operands = AFFINE[name]
    graph = graph_of_nodes(
        layer(y="l"),
        Node("Relu", ("l",), ("a",)),
        Node(op_type, tuple(operands), ("m",)),
        layer("m", "y"),
    )
    *_, before, folded = fold_affine_forward(graph).nodes
    assert before == graph.nodes[1]
    assert (folded.operator, folded.inputs[0]) == ("Conv", "a")
    assert_computed(graph)


def test_a_chain_goes_into_one_layer():
    graph = graph_of_nodes(
        layer(y="a"),
        Node("Mul", ("a", "channels"), ("b1",)),
        Node("BatchNormalization", ("b1", *NORM), ("c",)),
        Node("Add", ("number", "c"), ("y",)),
    )
    assert len(fold_affine(graph).nodes) == 1
    assert_computed(graph)


STAY = {
    "read elsewhere": [
        layer(),
        Node("Mul", ("a", "number"), ("b1",)),
        Node("Add", ("a", "b1"), ("y",)),
    ],
    "numbers of columns": [layer(pads=[1] * 4), Node("Mul", ("a", "columns"), ("y",))],
    "numbers of images": [layer(), Node("Mul", ("a", "images"), ("y",))],
    "a number over the layer": [layer(), Node("Div", ("number", "a"), ("y",))],
    "the value itself": [layer(), Node("Mul", ("a", "a"), ("y",))],
}


@pytest.mark.parametrize("name", STAY)
def test_other_arithmetic_stays(name):
    graph = graph_of_nodes(*STAY[name])
    assert fold_affine(graph).nodes == graph.nodes
    if "columns" in name:
        assert_computed(graph)


def test_a_layer_that_is_an_output_stays():
    graph = graph_of_nodes(layer(), Node("Mul", ("a", "number"), ("y",)), outputs=("y", "a"))
    assert fold_affine(graph).nodes == graph.nodes
    assert_computed(graph)


@pytest.mark.parametrize(
    "attributes", [{"pads": [0, 0, 0, 1]}, {"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}]
)
def test_a_shift_does_not_pass_padding(attributes):
    graph = graph_of_nodes(Node("Add", ("x", "channels"), ("a",)), layer("a", "y", **attributes))
    assert fold_affine_forward(graph).nodes == graph.nodes
    assert_computed(graph)


def test_what_is_read_elsewhere_or_is_an_output_is_not_folded_forward():
    nodes = Node("Add", ("x", "channels"), ("a",)), layer("a", "y"), Node("Relu", ("a",), ("z",))
    graph = graph_of_nodes(*nodes, outputs=("y", "z"))
    assert fold_affine_forward(graph).nodes == graph.nodes
    graph = graph_of_nodes(*nodes[:2], outputs=("y", "a"))
    assert fold_affine_forward(graph).nodes == graph.nodes
    assert_computed(graph)


def test_one_channel_is_broadcast_to_those_of_a_layer():
    graph = graph_of_nodes(Node("Add", ("x", "channels"), ("a",)), layer("a", "y"))
    assert_computed(graph, (2, 1, 6, 6))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("factor", [0.0, np.inf, np.nan, 1e38])
@pytest.mark.parametrize("op", ["Mul", "Div"])
def test_factors_that_no_weight_takes_stay_factors(op, factor):
    """NumPy says what is right: ONNX Runtime folds them, and a weight that overflows makes NaN."""
    graph = graph_of_nodes(layer(), Node(op, ("a", "number"), ("y",)), outputs=("y",))
    graph.constants["number"] = np.full((), factor, np.float32)
    x = np.abs(integers_like((1, 4, 5, 5), "float32")) * np.float32(1e-3)
    (sums,) = Programs(graph_of_nodes(layer(), outputs=("a",)), 1)([x])
    with np.errstate(all="ignore"):
        function = np.multiply if op == "Mul" else np.divide
        expected = function(sums, np.float32(factor))
    (found,) = Programs(graph, 1)([x])
    assert np.allclose(found, expected, 1e-4, equal_nan=True)
