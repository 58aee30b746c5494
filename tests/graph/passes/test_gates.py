"""Products that are activations become one node; the numbers stay."""

from math import sqrt

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from network_graphs import OPERATORS, assert_alike_without, networks
from onnx_graphs import by_onnx_runtime, model_of
from strategies import draws, integers_like
from tconv.graph import Graph, Input, Node, Programs
from tconv.graph.passes.gates import find_gates
from tconv.onnx.front_end import graph_of

SPELT = [name for name in OPERATORS if " by " in name or name == "spelt Swish"]
NUMBERS = {
    "half": 0.5,
    "one": 1,
    "root": sqrt(2),
    "three": 3,
    "six": 6,
    "zero": 0,
    "limit": 6,
    "sixth": 1 / 6,
    "other": 0.7,
    "near": 1.001,
}
GATES = {
    "Swish": "a=Sigmoid(x) y=Mul(x,a)",
    "Gelu": "a=Div(x,root) b=Erf(a) c=Add(b,one) d=Mul(x,c) y=Mul(d,half)",
    "Gelu, halved first": "a=Div(x,root) b=Erf(a) c=Add(one,b) d=Mul(half,x) y=Mul(d,c)",
    "Gelu, halved at the gate": "a=Div(x,root) b=Erf(a) c=Add(b,one) d=Mul(c,half) y=Mul(x,d)",
    "HardSwish": "a=Add(x,three) b=Clip(a,zero,limit) c=Mul(x,b) y=Div(c,six)",
    "HardSwish, divided first": "a=Add(three,x) b=Clip(a,zero,limit) c=Div(b,six) y=Mul(c,x)",
    "HardSwish by a factor": "a=Add(x,three) b=Clip(a,zero,limit) c=Mul(sixth,b) y=Mul(c,x)",
}
NO_GATES = {
    "another value's gate": "r=Relu(x) a=Sigmoid(r) y=Mul(x,a)",
    "a Sigmoid of another sum": "a=Sigmoid(x) b=Mul(x,a) y=Mul(b,other)",
    "a product read elsewhere": "a=Add(x,three) b=Clip(a,zero,limit) c=Mul(x,b) d=Div(c,six)"
    " y=Add(c,d)",
    "another bound": "a=Add(x,three) b=Clip(a,zero,three) c=Mul(x,b) y=Div(c,six)",
    "another summand": "a=Add(x,one) b=Clip(a,zero,limit) c=Mul(x,b) y=Div(c,six)",
    "another divisor": "a=Add(x,three) b=Clip(a,zero,limit) c=Mul(x,b) y=Div(c,three)",
}


def graph_of_text(text, outputs=("y",)):
    nodes = []
    for each in text.split():
        result, call = each.split("=")
        op, operands = call.rstrip(")").split("(")
        nodes.append(Node(op, tuple(operands.split(",")), (result,)))
    constants = {name: np.array(each, np.float32) for name, each in NUMBERS.items()}
    return Graph((Input("x", "float32"),), outputs, tuple(nodes), constants)


def model_of_graph(graph, feeds):
    nodes = [helper.make_node(node.operator, node.inputs, node.outputs) for node in graph.nodes]
    return model_of(nodes, feeds, graph.outputs, dict(graph.constants))


@draws(0.3)
@given(st.sampled_from(SPELT).flatmap(lambda name: networks(name, among=[*SPELT, "Add", "Mul"])))
def test_the_numbers_stay(drawn):
    assert_alike_without("find_gates", lambda graph: graph, drawn)


@pytest.mark.parametrize("name", GATES)
def test_a_spelt_activation_is_one_node(name):
    (node,) = find_gates(graph_of_text(GATES[name])).nodes
    assert node == Node(name.partition(",")[0].partition(" by")[0], ("x",), ("y",))


@pytest.mark.parametrize("name", NO_GATES)
def test_other_products_stay(name):
    graph = graph_of_text(NO_GATES[name])
    left = find_gates(graph)
    kept = [node for node in graph.nodes if node in left.nodes]
    feeds = {"x": integers_like((3, 17), "float32")}
    (expected,) = by_onnx_runtime(model_of_graph(graph, feeds), feeds)
    (found,) = Programs(graph, 1)([feeds["x"]])
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
    if name != "a product read elsewhere" and "Sigmoid of another" not in name:
        assert kept == list(graph.nodes)


def test_a_gate_that_is_read_elsewhere_is_computed_still():
    graph = graph_of_text("a=Sigmoid(x) b=Mul(x,a) y=Add(a,b)")
    assert [node.operator for node in find_gates(graph).nodes] == ["Sigmoid", "Swish", "Add"]
    graph = graph_of_text("a=Sigmoid(x) y=Mul(x,a)", ("y", "a"))
    assert [node.operator for node in find_gates(graph).nodes] == ["Sigmoid", "Swish"]


@pytest.mark.parametrize("name", [*GATES])
@pytest.mark.parametrize("wide", ["half", "one", "root", "three", "six", "sixth"])
def test_a_number_of_more_axes_adds_axes_to_the_result(name, wide):
    graph = graph_of_text(GATES[name])
    graph.constants[wide] = graph.constants[wide].reshape(1, 1, 1)
    feeds = {"x": integers_like((2, 5), "float32")}
    model = model_of_graph(graph, feeds)
    (expected,) = by_onnx_runtime(model, feeds)
    (found,) = Programs(graph_of(model), 1)([feeds["x"]])
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-5 * np.abs(expected).max()
