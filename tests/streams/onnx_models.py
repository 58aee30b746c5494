"""Small ONNX models along time, by lists of nodes."""

import numpy as np
from onnx import helper, numpy_helper

__all__ = ["CONV", "MODEL", "SPEAKER", "TWO", "W", "model", "numbers", "whole"]


def numbers(*shape, scale=1.0):
    rng = np.random.default_rng(sum(shape))
    return rng.standard_normal(shape, np.float32) * np.float32(scale)


def whole(*sizes):
    return np.array(sizes, np.int64)


def model(nodes, stored=None, inputs=None, outputs=("y",), opset=17, kind=1):
    """A model of nodes, each (op, inputs, outputs, attributes), named after their first result."""
    made = [
        helper.make_node(
            op,
            ["" if name == "-" else name for name in reads.split()],
            makes.split(),
            name=f"node {makes.split()[0]}",
            **attributes,
        )
        for op, reads, makes, attributes in nodes
    ]
    inputs = inputs or {"x": (1, 2, None)}
    graph = helper.make_graph(
        made,
        "made",
        [helper.make_tensor_value_info(name, kind, each) for name, each in inputs.items()],
        [helper.make_tensor_value_info(name, 1, None) for name in outputs],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in (stored or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


W = {"w": numbers(3, 2, 3)}
CONV = ("Conv", "x w", "y", {"pads": [1, 1]})
MODEL = model([CONV], W)
SPEAKER = model(
    [("Conv", "x w", "a", {"pads": [1, 1]}), ("Add", "a g", "b", {}), ("Relu", "b", "y", {})],
    W,
    {"x": (1, 2, None), "g": (1, 3, 1)},
)
TWO = model(
    [("Conv", "x w", "a", {"pads": [1, 1]}), ("Mul", "a z", "y", {})],
    W,
    {"x": (1, 2, None), "z": (1, 3, None)},
)
