"""Chains of elementwise nodes are one loop; the numbers stay."""

import numpy as np
import pytest
from hypothesis import given

from network_graphs import assert_alike_without, networks
from strategies import draws, integers_like
from tconv.graph import Graph, Input, Node, Programs
from tconv.graph.steps import LoopStep

AMONG = [
    *("Add", "Sub", "Mul", "Max", "Sum", "Relu", "Clip", "Neg", "Sigmoid", "PRelu", "Transpose"),
    *("Slice", "Pad", "MaxPool", "Resize", "Expand", "Concat", "Reshape", "Identity", "Floor"),
]


def computed(*nodes, outputs=("y",), shape=(2, 3, 4), **constants):
    """The steps of a graph, and its outputs for x."""
    graph = Graph((Input("x", "float32"),), outputs, nodes, constants)
    programs, x = Programs(graph, 2), integers_like(shape, "float32")
    return programs.program((x.shape,)).steps, x, programs([x])


@draws()
@given(networks("Add", among=AMONG, most=8))
def test_the_numbers_stay(drawn):
    assert_alike_without("fuse_loops", lambda steps, _: steps, drawn)


def test_a_chain_is_one_loop():
    steps, x, (y,) = computed(
        Node("Relu", ("x",), ("a",)),
        Node("Mul", ("a", "two"), ("b",)),
        Node("Sub", ("x", "b"), ("c",)),
        Node("Abs", ("c",), ("y",)),
        two=np.array(2, np.float32),
    )
    (step,) = steps
    assert isinstance(step, LoopStep)
    assert [name for name, _ in step.expression.instructions] == ["relu", "mul", "sub", "fabs"]
    assert len(step.operands) == 2
    assert step.nodes == ["a", "b", "c", "y"]
    assert np.array_equal(y, abs(x - 2 * np.maximum(x, 0)))


def test_a_value_is_read_twice_by_one_loop():
    steps, x, (y,) = computed(Node("Neg", ("x",), ("a",)), Node("Mul", ("a", "a"), ("y",)))
    assert len(steps) == 1
    assert np.array_equal(y, x * x)


def test_a_value_that_two_steps_read_is_written():
    steps, x, (y, z) = computed(
        Node("Neg", ("x",), ("a",)),
        Node("Relu", ("a",), ("y",)),
        Node("Abs", ("a",), ("z",)),
        outputs=("y", "z"),
    )
    assert len(steps) == 3
    assert np.array_equal(y, np.maximum(-x, 0))
    assert np.array_equal(z, abs(x))


def test_an_output_is_written():
    steps, x, (y, a) = computed(
        Node("Neg", ("x",), ("a",)), Node("Relu", ("a",), ("y",)), outputs=("y", "a")
    )
    assert len(steps) == 2
    assert np.array_equal(a, -x)
    assert np.array_equal(y, np.maximum(-x, 0))


@pytest.mark.parametrize(
    ("op", "attributes", "function"),
    [
        ("Transpose", {"perm": [0, 2, 1]}, lambda a: a.transpose(0, 2, 1)),
        ("Expand", {}, lambda a: np.broadcast_to(a, (5, 2, 4, 4))),
        ("Slice", {"starts": [1], "ends": [3], "axes": [2]}, lambda a: a[:, :, 1:3]),
    ],
)
def test_a_value_that_is_read_otherwise_than_it_lies_is_written(op, attributes, function):
    more = ("sizes",) if op == "Expand" else ()
    steps, x, (y,) = computed(
        Node("Neg", ("x",), ("a",)),
        Node(op, ("a", *more), ("b",), attributes),
        Node("Relu", ("b",), ("y",)),
        shape=(2, 4, 4),
        sizes=np.array([5, 2, 4, 4]),
    )
    assert len(steps) == 2
    assert np.array_equal(y, np.maximum(function(-x), 0))


def test_a_long_chain_of_many_operands_is_computed():
    names = [f"c{n}" for n in range(30)]
    nodes = [
        Node("Max", (before, name), (f"a{n}",))
        for n, (before, name) in enumerate(
            zip(["x", *(f"a{n}" for n in range(29))], names, strict=True)
        )
    ]
    constants = {name: np.full((3, 1), n - 20, np.float32) for n, name in enumerate(names)}
    steps, x, (y,) = computed(*nodes, Node("Neg", ("a29",), ("y",)), **constants)
    assert 1 < len(steps) < 8
    assert np.array_equal(y, -np.maximum(x, 9))
