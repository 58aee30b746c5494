"""Nodes of constants alone are computed once; the numbers stay."""

import numpy as np
import pytest
from hypothesis import given
from onnx import helper

from network_graphs import assert_alike_without, networks
from onnx_graphs import by_onnx_runtime, model_of
from strategies import draws, integers_like
from tconv.graph import Graph, Input, Node, Programs, UnknownOperator
from tconv.graph.passes.constants import fold_constants
from tconv.onnx.front_end import graph_of

TWO = np.array([2, 3], np.float32)


@draws(0.3)
@given(networks("Shape chain", among=["Shape chain", "ConstantOfShape", "Add", "Reshape", "Mul"]))
def test_the_numbers_stay(drawn):
    assert_alike_without("fold_constants", lambda graph: graph, drawn)


def test_a_chain_of_them_is_a_constant():
    nodes = (
        Node("Mul", ("two", "two"), ("a",)),
        Node("Neg", ("a",), ("b",)),
        Node("Add", ("x", "b"), ("y",)),
    )
    graph = fold_constants(Graph((Input("x", "float32"),), ("y",), nodes, {"two": TWO}))
    assert graph.nodes == nodes[2:]
    assert np.array_equal(graph.constants["b"], [-4, -9])


def test_what_reads_an_input_stays():
    nodes = (Node("Shape", ("x",), ("s",)), Node("Reshape", ("x", "s"), ("y",)))
    graph = Graph((Input("x", "float32"),), ("y",), nodes, {})
    assert fold_constants(graph).nodes == nodes


def test_what_cannot_be_computed_stays():
    nodes = (Node("Add", ("a", "b"), ("c",)), Node("Add", ("x", "c"), ("y",)))
    constants = {"a": TWO, "b": np.zeros(3, np.float32)}
    graph = Graph((Input("x", "float32"),), ("y",), nodes, constants)
    assert fold_constants(graph).nodes == nodes


# ---- each operator of constants ------------------------------------------------------------------

C = {"c": integers_like((2, 3, 4), "float32"), "n": np.array([2, 3, 4])}
NODES = {  # nodes that make "made" of constants
    "ReduceProd": [("ReduceProd", "n", {"keepdims": 1})],
    "ReduceProd without keepdims": [("ReduceProd", "n", {"keepdims": 0})],
    "ReduceProd of an axis": [("ReduceProd", "c", {"axes": [1]})],
    "Shape": [("Shape", "c", {})],
    "Shape from start": [("Shape", "c", {"start": 1})],
    "Shape to end": [("Shape", "c", {"end": 2})],
    "Shape from start to end": [("Shape", "c", {"start": -2, "end": -1})],
    "Transpose": [("Transpose", "c", {"perm": [2, 0, 1]})],
    "Transpose of all": [("Transpose", "c", {})],
    "Concat": [("Concat", "c c", {"axis": -1})],
    "Gather": [("Gather", "c last", {"axis": -1})],
    "Slice": [("Slice", "c start end axis step", {})],
    "Slice from before the beginning": [("Slice", "c before end axis step", {})],
    "Squeeze": [("Unsqueeze", "c one", {}), ("Squeeze", "made", {})],
    "Unsqueeze": [("Unsqueeze", "c last", {})],
    "Expand": [("Unsqueeze", "c one", {}), ("Expand", "made wide", {})],
    "Where": [("Equal", "c two", {}), ("Where", "made c two", {})],
    "Div of integers": [("Neg", "n", {}), ("Div", "made seven", {})],
    "Cast": [("Cast", "c", {"to": 7})],
    "Cast to bool": [("Cast", "c", {"to": 9})],
    "Max of scalars": [("Max", "two one_f", {})],
    "Min with broadcasting": [("Min", "c two", {})],
    "Range": [("Range", "zero five two_i", {})],
    "Reshape": [("Reshape", "c kept", {})],
    "Sqrt": [("Mul", "c c", {}), ("Sqrt", "made", {})],
    "Floor": [("Div", "c four", {}), ("Floor", "made", {})],
    "Ceil": [("Div", "c four", {}), ("Ceil", "made", {})],
}
STORED = C | {
    "last": np.array([-1]),
    "one": np.array([1]),
    "two": np.float32(2),
    "one_f": np.float32(1),
    "four": np.float32(4),
    "seven": np.array(-3),
    "start": np.array([-1]),
    "end": np.array([-(2**31)]),
    "axis": np.array([2]),
    "before": np.array([-9]),
    "step": np.array([-1]),
    "wide": np.array([2, 5, 3, 4]),
    "zero": np.array(0),
    "five": np.array(5),
    "two_i": np.array(2),
    "kept": np.array([0, -1]),
}


@pytest.mark.parametrize("name", NODES)
def test_constants_are_what_onnx_runtime_computes(name):
    nodes = [
        helper.make_node(op, inputs.replace("made", f"made{n}").split(), [f"made{n + 1}"], **given)
        for n, (op, inputs, given) in enumerate(NODES[name])
    ]
    read = {word for node in nodes for word in node.input}
    stored = {key: np.asarray(each) for key, each in STORED.items() if key in read}
    nodes.append(helper.make_node("Cast", [f"made{len(nodes)}"], ["f"], to=1))
    nodes.append(helper.make_node("Add", ["x", "f"], ["y"]))
    feeds = {"x": np.zeros((), np.float32)}  # which shows the rank of what is added
    model = model_of(nodes, feeds, ["y"], stored)
    (expected,) = by_onnx_runtime(model, feeds)
    try:
        (found,) = Programs(graph_of(model), 1)([feeds["x"]])
    except UnknownOperator:
        return  # it is refused, which is right as well
    assert found.shape == expected.shape
    assert np.array_equal(found, expected)
