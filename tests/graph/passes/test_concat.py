"""Parts of a Concat are written where they lie; the numbers stay."""

import numpy as np
import pytest
from hypothesis import given
from onnx import helper

from network_graphs import assert_alike_without, networks
from onnx_graphs import by_onnx_runtime, model_of
from strategies import draws, integers_like
from tconv.graph import Programs
from tconv.graph.steps import LoopStep
from tconv.onnx.front_end import graph_of

AMONG = [
    *("Concat", "Conv", "Relu", "Add", "Split", "Slice", "MaxPool", "Pad", "Resize", "Reshape"),
    *("ReduceMax", "ConvTranspose", "Transpose", "Identity"),
]
STORED = {
    "w": integers_like((4, 4, 3, 3), "float32", 1, 2),
    "c": integers_like((2, 4, 5, 5), "float32", 1, 2),
    "shape": np.array([2, 2, 2, 5, 5]),
}


def node(op, x, y, **attributes):
    return helper.make_node(op, x.split(), [y], **attributes)


def layer(x, y):
    return node("Conv", f"{x} w", y, pads=[1] * 4)


def copies_of(*nodes, outputs=("y",), batch=2):
    """The copies among the steps of a model, which computes what ONNX Runtime does."""
    read = {name for each in nodes for name in each.input}
    stored = {name: each for name, each in STORED.items() if name in read}
    feeds = {"x": integers_like((batch, 4, 5, 5), "float32", 7)}
    model = model_of(nodes, feeds, outputs, stored)
    programs = Programs(graph_of(model), 2)
    for got, wanted in zip(programs([feeds["x"]]), by_onnx_runtime(model, feeds), strict=True):
        assert np.array_equal(got, wanted)
    steps = programs.program((feeds["x"].shape,)).steps
    return [step for step in steps if isinstance(step, LoopStep) and step.is_copy]


@draws()
@given(networks("Concat", among=AMONG, most=8))
def test_the_numbers_stay(drawn):
    assert_alike_without("write_in_place", lambda steps, _: steps, drawn)


JOINS = [
    layer("x", "a"),
    node("Abs", "x", "b"),
    node("Neg", "x", "c1"),
]


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("axis", [0, 1])
def test_no_copy_is_left(batch, axis):
    assert not copies_of(*JOINS, node("Concat", "a b c1", "y", axis=axis), batch=batch)


def test_a_value_that_others_read_is_moved_where_its_part_is_contiguous():
    nodes = [layer("x", "a"), node("Concat", "a x", "b", axis=1), node("Add", "a x", "c1")]
    nodes += [node("Neg", "b", "y"), node("Relu", "c1", "z")]
    assert len(copies_of(*nodes, outputs=("y", "z"), batch=1)) == 1  # x, an input


def test_concats_of_concats_copy_nothing():
    nodes = [*JOINS, node("Concat", "a b", "d", axis=1), node("Concat", "d c1", "e", axis=1)]
    assert not copies_of(*nodes, node("Neg", "e", "y"), batch=1)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize(
    ("name", "nodes", "outputs"),
    [
        ("an input", [node("Neg", "x", "a"), node("Concat", "a x", "y", axis=1)], "y"),
        ("twice", [layer("x", "a"), node("Concat", "a a", "y", axis=1)], "y"),
        ("an output", [layer("x", "a"), node("Concat", "a x", "y", axis=1)], "ya"),
        ("in two", [layer("x", "a"), node("Concat", "a x", "y", axis=1)], "yz"),
    ],
)
def test_other_parts_are_copied(name, nodes, outputs, batch):
    if name == "in two":
        nodes = [*nodes, node("Concat", "x a", "z", axis=1)]
    assert copies_of(*nodes, outputs=[*outputs], batch=batch)


def test_a_part_that_is_read_elsewhere_is_copied_where_images_lie_apart():
    nodes = [layer("x", "a"), node("Concat", "a x", "y", axis=1), node("Relu", "a", "z")]
    assert len(copies_of(*nodes, outputs=["y", "z"], batch=2)) == 2


@pytest.mark.parametrize("axis", [-1, -2])
def test_parts_of_rows_and_columns_are_joined(axis):
    nodes = [*JOINS, node("ReduceMax", "b", "d", axes=[axis], keepdims=1)]
    nodes += [node("ReduceMax", "c1", "e", axes=[axis], keepdims=1)]
    nodes += [node("Neg", "e", "f"), node("Concat", "a d f b e", "y", axis=axis)]
    copies_of(*nodes)


@pytest.mark.parametrize("batch", [1, 2])
def test_an_epilogue_is_computed_where_the_part_lies(batch):
    """A sum and an activation join their contraction, or at least the copy."""
    nodes = [
        layer("x", "a"),
        node("Add", "a x", "b"),
        node("Relu", "b", "r"),
        node("Neg", "x", "n"),
    ]
    assert not copies_of(*nodes, node("Concat", "r n", "y", axis=1), batch=batch)
