"""Streams of ONNX models that there are none of: the node or the argument, and what can be done."""

import re

import numpy as np
import pytest
from streams.onnx_models import CONV, MODEL, SPEAKER, TWO, W, model, numbers, whole

from tconv.engine.target.target import target
from tconv.errors import DTypeError, ModelError, ParameterError, ShapeError, UnsupportedError
from tconv.onnx import Stream

pytestmark = pytest.mark.skipif(not target().uses_engine, reason="programs are machine code")

ENDS = "; compute the network in one call, or end the model before this node."
OPEN = "leave these sizes open in the model, or end it before this node."
AFTER_CONV = [("Conv", "x w", "a", {"pads": [1, 1]})]
SIZE = "as its result has one size for any length"


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (("InstanceNormalization", "a s b", "y", {}), "InstanceNormalization needs all of time"),
        (("GlobalAveragePool", "a", "y", {}), f"GlobalAveragePool needs all of time, {SIZE}"),
        (("ReduceMean", "a", "y", {"axes": [2]}), f"ReduceMean needs all of time, {SIZE}"),
        (("ReduceMax", "a", "y", {}), f"ReduceMax needs all of time, {SIZE}"),
        (("Softmax", "a", "y", {}), "Softmax over time"),
        (("LogSoftmax", "a", "y", {"axis": 2}), "LogSoftmax over time"),
        (
            ("Pad", "a p", "y", {"mode": "reflect"}),
            "Pad in mode reflect, whose border follows from cells at the ends",
        ),
        (
            ("Pad", "a p", "y", {"mode": "edge"}),
            "Pad in mode edge, whose border follows from cells at the ends",
        ),
        (
            ("Resize", "a - two", "y", {"mode": "linear"}),
            "Resize, whose border follows from cells at both ends",
        ),
        (
            (
                "Resize",
                "a - two",
                "y",
                {"mode": "linear", "coordinate_transformation_mode": "align_corners"},
            ),
            "Resize by align_corners, which follows from the size",
        ),
        (
            ("AveragePool", "a", "y", {"kernel_shape": [3], "pads": [1, 1]}),
            "AveragePool, whose border follows from cells at both ends",
        ),
        (
            ("MaxPool", "a", "y", {"kernel_shape": [3], "strides": [2], "ceil_mode": 1}),
            "MaxPool with ceil_mode, whose last window follows from the size",
        ),
        (
            ("Conv", "a v", "y", {"strides": [2], "auto_pad": "SAME_UPPER"}),
            "Conv with auto_pad=SAME_UPPER and a stride, which pads by the size",
        ),
        (("Concat", "a a", "y", {"axis": 2}), "Concat along time"),
        (("Split", "a", "y z", {"axis": -1}), "Split along time"),
        (("Slice", "a zero many time three", "y", {}), "Slice with a step"),
        (
            ("Slice", "a last many time", "y", {}),
            f"Slice needs all of time, {SIZE}",
        ),
        (("Gather", "a zero", "y", {"axis": 2}), f"Gather needs all of time, {SIZE}"),
        (("Flatten", "a", "y", {}), "Flatten that joins time with another axis"),
        (("Shape", "a", "y", {}), f"Shape needs all of time, {SIZE}"),
    ],
)
def test_nodes_that_need_more_than_their_neighbourhood(node, why):
    stored = W | {
        "s": numbers(3),
        "b": numbers(3),
        "v": numbers(3, 3, 3),
        "p": whole(0, 0, 1, 0, 0, 1),
        "two": np.array([1, 1, 2], np.float32),
        "zero": whole(0),
        "many": whole(2**40),
        "time": whole(2),
        "three": whole(3),
        "last": whole(-3),
    }
    message = f"node 'node y' cannot be computed piece by piece: {why}{ENDS}"
    with pytest.raises(UnsupportedError, match=f"^{re.escape(message)}$"):
        Stream(model([*AFTER_CONV, node], stored))


def test_the_softmax_of_older_models_is_over_all_axes():
    old = model([*AFTER_CONV, ("Softmax", "a", "y", {})], W, opset=11)
    with pytest.raises(UnsupportedError, match=r"^node 'node y' .*: Softmax over time;"):
        Stream(old)
    Stream(model([*AFTER_CONV, ("Softmax", "a", "y", {"axis": 1})], W))


@pytest.mark.parametrize("op", ["LSTM", "GRU"])
def test_operators_without_a_program(op):
    gates = {"LSTM": 4, "GRU": 3}[op]
    stored = {"wl": numbers(1, 2 * gates, 2), "rl": numbers(1, 2 * gates, 2)}
    nodes = [
        ("Transpose", "x", "a", {"perm": [2, 0, 1]}),
        (op, "a wl rl", "b", {"hidden_size": 2}),
        ("Relu", "b", "y", {}),
    ]
    message = (
        f"node 'node b' cannot be computed piece by piece: tconv has no program for {op}; end the "
        "model before this node by outputs, or begin after it by inputs."
    )
    with pytest.raises(UnsupportedError, match=f"^{re.escape(message)}$"):
        Stream(model(nodes, stored))


@pytest.mark.parametrize(
    ("node", "why"),
    [
        (("Add", "a x", "y", {}), "Add of shapes (1, 3, 26880), (1, 2, 26880)"),
        (("Add", "a place", "y", {}), "Add of shapes (1, 3, 26880), (1, 3, 40)"),
        (("Add", "half x", "y", {}), "Add of shapes (1, 2, 13440), (1, 2, 26880)"),
        (
            ("MaxPool", "a", "y", {"kernel_shape": [3], "auto_pad": "SAME_UPPER"}),
            "MaxPool with auto_pad=SAME_UPPER",
        ),
    ],
)
def test_sizes_that_do_not_fit(node, why):
    half = ("Conv", "x h", "half", {"strides": [2], "pads": [1, 1]})
    stored = W | {"place": numbers(1, 3, 40), "h": numbers(2, 2, 4)}
    nodes = [*AFTER_CONV, *([half] if "half" in node[1] else []), node]
    message = (
        f"the network cannot be computed piece by piece: node 'node y': {why}, for inputs of "
        f"shapes (1, 2, 26880); {OPEN}"
    )
    with pytest.raises(UnsupportedError, match=f"^{re.escape(message)}$"):
        Stream(model(nodes, stored))


G = numbers(1, 3, 1)


@pytest.mark.parametrize(
    ("of", "given", "error", "message"),
    [
        (
            MODEL,
            {"inputs": "z"},
            ParameterError,
            "inputs has 'z', which is no value of the model; pass inputs of it, 'x', or names of "
            "values within it.",
        ),
        (
            MODEL,
            {"outputs": ["y", "q"]},
            ParameterError,
            "outputs has 'q', which no node makes; pass outputs of the model, 'y', or names of "
            "values within it.",
        ),
        (
            MODEL,
            {"constants": {"q": G}},
            ParameterError,
            "constants has 'q', which is no value of the model; pass inputs of it, 'x', or names "
            "of values within it.",
        ),
        (
            SPEAKER,
            {"inputs": "x"},
            ParameterError,
            "outputs depend on 'g', which is not among inputs; add it there, or to constants with "
            "its array.",
        ),
        (
            SPEAKER,
            {},
            ShapeError,
            "input 'g' has shape (1, 3, 1) in the model, where None is any size: which axis is "
            "time is not clear. Pass inputs={'g': (1, channels, None)}, with None along time, or "
            "put an input that stays the same into constants.",
        ),
        (
            SPEAKER,
            {"inputs": ["x", "g"], "constants": {"g": G}},
            ParameterError,
            "'g' is in inputs and in constants; drop it from one.",
        ),
        (
            SPEAKER,
            {"constants": {"g": G.astype(np.float64)}},
            DTypeError,
            "constants['g'] has dtype float64, must be float32; convert it by astype('float32').",
        ),
        (
            SPEAKER,
            {"constants": [1]},
            ParameterError,
            "constants=[1] must be a mapping of names, such as a dict; pass one.",
        ),
        (
            SPEAKER,
            {"inputs": ["x", "a"], "constants": {"g": G}},
            ParameterError,
            "inputs has 'x', which outputs do not depend on; drop it.",
        ),
        (
            MODEL,
            {"inputs": 3},
            ParameterError,
            "inputs=3 must be names; pass a list of strings.",
        ),
        (
            MODEL,
            {"outputs": [3]},
            ParameterError,
            "outputs has 3 for a name, must have strings; pass names of values.",
        ),
        (
            MODEL,
            {"outputs": []},
            ParameterError,
            "outputs must name at least one value; pass its name.",
        ),
        (
            MODEL,
            {"inputs": {}},
            ParameterError,
            "inputs must name at least one value; leave one out of constants.",
        ),
        (
            MODEL,
            {"inputs": {"x": 3}},
            ParameterError,
            "inputs['x']=3 must be a shape; pass (1, channels, None) for example.",
        ),
        *(
            (
                MODEL,
                {"inputs": {"x": shape}},
                ShapeError,
                f"inputs['x']={shape} must have None along time alone, and batch=1 first; pass (1, "
                "channels, None) for example.",
            )
            for shape in [(1, 2, 5), (2, 2, None), (None, 2, 5), (1, None, None), ()]
        ),
        (
            MODEL,
            {"batch": 0},
            ParameterError,
            "batch=0 must be at least 1; pass a positive integer.",
        ),
        (
            model([("Relu", "x", "y", {})], inputs={"x": (1, None, None)}),
            {},
            ShapeError,
            "input 'x' has shape (1, None, None) in the model, where None is any size: which axis "
            "is time is not clear. Pass inputs={'x': (1, channels, None)}, with None along time, "
            "or put an input that stays the same into constants.",
        ),
        (
            model([("Relu", "x", "y", {})], kind=10),
            {},
            UnsupportedError,
            "input 'x' is of float16, tconv has programs for float32; convert the model, or begin "
            "after this value, by inputs.",
        ),
        (
            model([CONV, ("Relu", "w", "z", {})], W, outputs=("y", "z")),
            {},
            UnsupportedError,
            "output 'z' is the same at all times, so it has no pieces; compute it by a model of "
            "its own.",
        ),
    ],
)
def test_arguments(of, given, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        Stream(of, **given)


def test_damaged_models():
    with pytest.raises(ModelError):
        Stream(b"no model")
    with pytest.raises(FileNotFoundError):
        Stream("there/is/none.onnx")


def test_inputs_of_other_lengths():
    stream = Stream(TWO)
    with pytest.raises(
        ShapeError, match=r"^the inputs must have the same number of cells along time; cut them\.$"
    ):
        stream.push(numbers(1, 2, 4), numbers(1, 3, 5))
    with pytest.raises(ShapeError, match=r"^z has shape \(1, 4, 4\), must have shape \(1, 3, n\)"):
        stream.push(numbers(1, 2, 4), numbers(1, 4, 4))
    with pytest.raises(
        ParameterError, match=r"^push takes 2 arrays, for 'x', 'z', not 1; pass one"
    ):
        stream.push(numbers(1, 2, 4))
