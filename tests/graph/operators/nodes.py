"""Single nodes by a program and by ONNX Runtime."""

import numpy as np
from onnx import helper

from onnx_graphs import by_onnx_runtime, model_of
from strategies import integers_like
from tconv.graph import Programs
from tconv.onnx.front_end import graph_of

__all__ = ["assert_equal", "both", "case", "computed", "node", "numbers", "refused", "whole"]


def node(op, x, y, **attributes):
    return helper.make_node(
        op, ["" if each == "-" else each for each in x.split()], y.split(), **attributes
    )


def whole(*numbers):
    return np.array(numbers, np.int64)


def numbers(*shape):
    return integers_like(shape, "float32", sum(shape))


def case(shape, *nodes, outputs=("y",), opset=17, **stored):
    """A shape of x, nodes that make y of it, and constants."""
    return shape, nodes, outputs, opset, stored


def computed(shape, nodes, outputs, opset, stored, threads=2):
    """The outputs by a program, and by ONNX Runtime."""
    feeds = {"x": integers_like(shape, "float32", 11)}
    stored = {name: np.asarray(each) for name, each in stored.items()}
    model = model_of(nodes, feeds, outputs, stored, opset=opset)
    found = Programs(graph_of(model), threads)([feeds["x"]])
    return found, by_onnx_runtime(model, feeds)


def both(x, *nodes, opset=17, **stored):
    """The output y of any numbers x, by a program and by ONNX Runtime."""
    stored = {name: np.asarray(each) for name, each in stored.items()}
    model = model_of(nodes, {"x": x}, ["y"], stored, opset=opset)
    (found,), (expected,) = Programs(graph_of(model), 2)([x]), by_onnx_runtime(model, {"x": x})
    assert found.shape == expected.shape
    return found, expected


def refused(shape, *nodes, opset=17, **stored):
    """A program of such nodes, which there is none of: for `pytest.raises`."""
    x = integers_like(shape, "float32", 11)
    stored = {name: np.asarray(each) for name, each in stored.items()}
    model = model_of(nodes, {"x": x}, ["y"], stored, opset=opset, sizes=False)
    Programs(graph_of(model), 1).program((shape,))


def assert_equal(found, expected):
    for got, wanted in zip(found, expected, strict=True):
        assert got.shape == wanted.shape
        assert np.allclose(got, wanted, 1e-5, 1e-5, equal_nan=True)
