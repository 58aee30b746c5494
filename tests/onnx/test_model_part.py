"""Parts of models: the nodes between values, and models of them that run by themselves."""

import numpy as np
import pytest
from onnx import helper

from onnx_graphs import by_onnx_runtime, model_of
from strategies import integers_like
from tconv.onnx.model_part import model_of_part, nodes_between

NODES = [
    helper.make_node("Mul", ["x", "g"], ["h"]),
    helper.make_node("Conv", ["h", "w"], ["c"]),
    helper.make_node("Split", ["c", "halves"], ["left", "right"], axis=1),
    helper.make_node("Relu", ["left"], ["y"]),
    helper.make_node("Neg", ["right"], ["z"]),
]
STORED = {"w": integers_like((4, 3, 1), "float32", 1), "halves": np.array([2, 2], np.int64)}
FEEDS = {"x": integers_like((1, 3, 5), "float32", 2), "g": integers_like((1, 3, 1), "float32", 3)}


@pytest.mark.parametrize(
    ("starts", "outputs", "found"),
    [
        ((), ["y"], "Mul Conv Split Relu"),
        ((), ["y", "z"], "Mul Conv Split Relu Neg"),
        (("h",), ["c"], "Conv"),
        (("left",), ["y"], "Relu"),
        (("left", "right"), ["y", "z"], "Relu Neg"),
        (("left",), ["y", "z"], "Mul Conv Split Relu Neg"),  # right is still to be made
        (("y",), ["y"], ""),
    ],
)
def test_nodes_are_those_that_the_outputs_depend_on(starts, outputs, found):
    nodes = nodes_between(model_of(NODES, FEEDS, ["y", "z"], STORED), starts, outputs)
    assert [node.op_type for node in nodes] == found.split()


def test_a_part_computes_what_the_whole_does():
    model = model_of(NODES, FEEDS, ["y", "z"], STORED)
    whole = dict(
        zip(["h", "c", "y", "z"], by_onnx_runtime(_open(model, "h", "c"), FEEDS), strict=True)
    )
    part = model_of_part(model, {"h": (1, 3, 5)}, ["c", "z"], {})
    assert [each.name for each in part.graph.initializer] == ["w", "halves"]
    for found, name in zip(by_onnx_runtime(part, {"h": whole["h"]}), ("c", "z"), strict=True):
        np.testing.assert_array_equal(found, whole[name])


def _open(model, *names):
    """The model with inner values among its outputs, before the others."""
    made = type(model)()
    made.CopyFrom(model)
    del made.graph.output[:]
    made.graph.output.extend(helper.make_tensor_value_info(name, 1, None) for name in names)
    made.graph.output.extend(model.graph.output)
    return made


def test_constants_become_part_of_it():
    model = model_of(NODES, FEEDS, ["y"], STORED)
    part = model_of_part(
        model, {"x": (1, 3, "time")}, ["y"], {"g": FEEDS["g"], "unread": FEEDS["x"]}
    )
    assert [each.name for each in part.graph.input] == ["x"]
    (found,) = by_onnx_runtime(part, {"x": FEEDS["x"]})
    np.testing.assert_array_equal(found, by_onnx_runtime(model, FEEDS)[0])
