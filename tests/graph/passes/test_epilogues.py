"""Sums and activations after a contraction are computed by it; the numbers stay."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from network_graphs import assert_alike_without, networks
from onnx_graphs import by_onnx_runtime, model_of
from strategies import draws, integers_like
from tconv.graph import Programs
from tconv.graph.steps import ContractionStep, LoopStep
from tconv.onnx.front_end import graph_of

LAYERS = ["Conv", "ConvTranspose", "MatMul", "Gemm"]
AMONG = [
    *LAYERS,
    *("Add", "Sum", "Relu", "LeakyRelu", "Elu", "Clip", "HardSigmoid", "Sigmoid", "Tanh", "Mul"),
    *("HardSwish", "PRelu", "spelt Swish", "spelt Gelu", "Concat", "Slice"),
]
STORED = {
    "w": integers_like((4, 4, 3, 3), "float32", 1, 2),
    "v": integers_like((4, 4, 1, 1), "float32", 2, 2),
    "slope": np.array([0.5], np.float32),
    "slopes": np.array([0.5, 0.25, 2, -1], np.float32).reshape(4, 1, 1),
    "zero": np.array(0, np.float32),
    "six": np.array(6, np.float32),
    "whole": integers_like((2, 4, 5, 5), "float32"),
    "start": np.array([0]),
    "end": np.array([1]),
}


def node(op, x, y, **attributes):
    return helper.make_node(op, x.split(), [y], **attributes)


def layer(x="x", y="a", weight="w", **attributes):
    pads = [1] * 4 if weight == "w" else [0] * 4
    return node("Conv", f"{x} {weight}", y, pads=pads, **attributes)


def steps_of(*nodes, outputs=("y",), opset=17):
    """The contractions and the loops of a model, which computes what ONNX Runtime does."""
    read = {name for each in nodes for name in each.input}
    stored = {name: each for name, each in STORED.items() if name in read}
    feeds = {"x": integers_like((2, 4, 5, 5), "float32", 7)}
    model = model_of(nodes, feeds, outputs, stored, opset=opset)
    programs = Programs(graph_of(model), 2)
    found, expected = programs([feeds["x"]]), by_onnx_runtime(model, feeds)
    for got, wanted in zip(found, expected, strict=True):
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() <= 1e-5 * max(1, np.abs(wanted).max())
    steps = programs.program((feeds["x"].shape,)).steps
    kinds = ContractionStep, LoopStep
    return [[step for step in steps if isinstance(step, kind)] for kind in kinds]


@draws()
@given(st.sampled_from(LAYERS).flatmap(lambda op: networks(op, among=AMONG)))
def test_the_numbers_stay(drawn):
    assert_alike_without("fuse_epilogues", lambda steps, _: steps, drawn)


ACTIVATIONS = {
    "Relu": ([node("Relu", "a", "y")], "relu"),
    "LeakyRelu": ([node("LeakyRelu", "a", "y", alpha=0.2)], "leaky_relu"),
    "LeakyRelu that turns": ([node("LeakyRelu", "a", "y", alpha=-0.5)], "prelu"),
    "PRelu": ([node("PRelu", "a slope", "y")], "prelu"),
    "Elu": ([node("Elu", "a", "y", alpha=0.5)], "elu"),
    "Clip": ([node("Clip", "a zero six", "y")], "clip"),
    "Clip from below": ([node("Clip", "a zero", "y")], "clip"),
    "HardSigmoid": ([node("HardSigmoid", "a", "y")], "hard_sigmoid"),
    "HardSwish": ([node("HardSwish", "a", "y")], "hard_swish"),
    "Sigmoid": ([node("Sigmoid", "a", "y")], "sigmoid"),
    "Tanh": ([node("Tanh", "a", "y")], "tanh"),
    "Gelu": ([node("Gelu", "a", "y")], "gelu"),
    "Gelu by tanh": ([node("Gelu", "a", "y", approximate="tanh")], "gelu"),
    "Swish": ([node("Sigmoid", "a", "b"), node("Mul", "a b", "y")], "silu"),
}


@pytest.mark.parametrize("name", ACTIVATIONS)
@pytest.mark.parametrize("adds", [False, True], ids=["", "after a sum"])
def test_an_activation_is_the_contractions(name, adds):
    nodes, kind = ACTIVATIONS[name]
    first = [layer(y="c"), node("Add", "x c", "a")] if adds else [layer()]
    (step,), loops = steps_of(*first, *nodes, opset=20)
    assert not loops
    assert str(step.activation).startswith(kind) or kind in repr(step.activation)
    assert (step.residual is not None) == adds


def test_of_two_contractions_one_adds_the_other():
    one, two = steps_of(layer(), layer(y="b", weight="v"), node("Add", "a b", "y"))[0]
    assert sorted([one.residual is None, two.residual is None]) == [False, True]


def test_what_follows_an_activation_is_a_loop():
    (step,), (loop,) = steps_of(layer(), node("Relu", "a", "b"), node("Mul", "b x", "y"))
    assert step.activation is not None
    assert [name for name, _ in loop.expression.instructions] == ["mul"]


NOT_TAKEN = {
    "a sum after an activation": [node("Relu", "a", "b"), node("Add", "b x", "y")],
    "another channel's number": [node("PRelu", "a slopes", "y")],
    "a constant as large": [node("Add", "a whole", "y")],
    "twice the value": [node("Add", "a a", "y")],
    "an activation of a difference": [node("Sub", "a x", "b"), node("Relu", "b", "y")],
    "one image for all": [node("Slice", "x start end start", "b"), node("Add", "a b", "y")],
    "a value that is transposed": [
        node("Transpose", "x", "b", perm=[0, 1, 3, 2]),
        node("Add", "a b", "y"),
    ],
    "the sum's other operand twice": [node("Add", "a x", "b"), node("Mul", "b x", "y")],
}


@pytest.mark.parametrize("name", NOT_TAKEN)
def test_no_other_operand_is_a_residual(name):
    (step,), _ = steps_of(layer(), *NOT_TAKEN[name])
    assert step.residual is None


def test_what_is_read_elsewhere_has_no_epilogue():
    for nodes, outputs in (
        ([node("Relu", "a", "y"), node("Neg", "a", "z")], "yz"),
        ([node("Relu", "a", "y")], "ya"),
        ([node("Add", "a x", "y")], "ya"),
    ):
        (step,), loops = steps_of(layer(), *nodes, outputs=[*outputs])
        assert loops
        assert step.residual is None
        assert step.activation is None


def test_a_contraction_waits_for_its_residual():
    """It moves to where the sum was: after what makes the residual, itself a chain."""
    nodes = [
        layer(),
        node("MaxPool", "x", "p", kernel_shape=[3, 3], pads=[1] * 4),
        layer("p", "q", "v"),
        node("Tanh", "q", "r"),
        node("Add", "a r", "y"),
    ]
    steps_of(*nodes)


STRANGE = {
    "Elu of a negative alpha": [node("Elu", "a", "y", alpha=-1.0)],
    "Clip with crossed bounds": [node("Clip", "a six zero", "y")],
    "LeakyRelu of an infinite slope": [node("LeakyRelu", "a", "y", alpha=float("inf"))],
    "LeakyRelu of no slope": [node("LeakyRelu", "a", "y", alpha=0.0)],
    "HardSigmoid that falls": [node("HardSigmoid", "a", "y", alpha=-0.5, beta=0.25)],
}


@pytest.mark.parametrize("name", STRANGE)
def test_parameters_that_no_epilogue_takes_are_computed_too(name):
    nodes = STRANGE[name]
    if "infinite" in name:
        nodes = [node("Clip", "a zero", "b"), node("Neg", "b", "c"), node("Abs", "c", "d")]
        nodes += [node("Add", "d six", "e"), node("LeakyRelu", "e", "y", alpha=float("inf"))]
    steps_of(layer(), *nodes)
