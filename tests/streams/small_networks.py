"""Two networks along time, of layers and of a graph, and what they give of a whole input."""

import numpy as np
from streams.drawn_layers import directly

import tconv
from tconv.graph import Graph, Input, Node, Programs
from tconv.streams.network_runner import NetworkRunner
from tconv.streams.stream import Stream

__all__ = ["CHANNELS", "KINDS", "noise", "stream_of", "whole"]

CHANNELS = 2
KINDS = ["layers", "network"]


def _layers():
    """Two cells become three, with a residual block between."""
    return tconv.Sequential(
        tconv.Conv1d(CHANNELS, 3, 4, stride=2, padding=1, rng=0),
        tconv.Residual(tconv.Tanh(), tconv.Conv1d(3, 3, 3, dilation=2, padding=2, rng=1)),
        tconv.ConvTranspose1d(3, 2, 7, stride=3, padding=2, rng=2),
    )


def _graph():
    """The same."""
    net = _layers()
    w0, b0, w1, b1, w2, b2 = (each.value for each in net.parameters())
    constants = {"w0": w0, "b0": b0, "w1": w1, "b1": b1, "w2": w2, "b2": b2}
    nodes = (
        Node("Conv", ("x", "w0", "b0"), ("a",), {"strides": [2], "pads": [1, 1]}, "down"),
        Node("Tanh", ("a",), ("t",), {}, "tanh"),
        Node("Conv", ("t", "w1", "b1"), ("c",), {"dilations": [2], "pads": [2, 2]}, "inner"),
        Node("Add", ("a", "c"), ("s",), {}, "sum"),
        Node("ConvTranspose", ("s", "w2", "b2"), ("y",), {"strides": [3], "pads": [2, 2]}, "up"),
    )
    return Graph((Input("x", "float32"),), ("y",), nodes, constants)


NET, GRAPH = _layers(), _graph()


def stream_of(kind, batch=1, **given):
    """A new stream."""
    if kind == "layers":
        return NET.stream(batch, **given)
    shapes = {"x": (batch, CHANNELS, None)}
    return Stream(NetworkRunner(GRAPH, {"x": 2}, shapes, 1), **given)


def whole(kind, x):
    """What the network gives in one call."""
    if kind == "layers":
        return directly(NET, x)
    return Programs(GRAPH, 1, method="direct")([np.ascontiguousarray(x)])[0]


def noise(batch, size, seed=0):
    """An input."""
    return np.random.default_rng(seed).standard_normal((batch, CHANNELS, size), np.float32)
