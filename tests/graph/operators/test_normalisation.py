"""Softmax and layer normalisation: equal to ONNX Runtime, whatever the numbers."""

import numpy as np
import pytest
from graph.operators.nodes import both, node, numbers, refused

from tconv.graph import UnknownOperator

INF, NAN = np.inf, np.nan
each_softmax = pytest.mark.parametrize("op", ["Softmax", "LogSoftmax"])
SHAPES = [(5, 1), (3, 7), (2, 64), (3, 130), (2, 3, 4), (2, 5, 33), (1, 2, 3, 17), (70, 2)]


def normal(shape, scale=1.0):
    return (np.random.default_rng(0).standard_normal(shape) * scale).astype(np.float32)


def assert_close(pair):
    found, expected = pair
    assert np.allclose(found, expected, 1e-6, 1e-6, equal_nan=True)


# ---- Softmax -------------------------------------------------------------------------------------


@each_softmax
@pytest.mark.parametrize("opset", [9, 11, 12, 13, 17])
@pytest.mark.parametrize("shape", SHAPES)
def test_every_axis_of_every_opset(shape, opset, op):
    """Up to opset 12 all axes from one on, by default the second; then one, by default the last."""
    x = normal(shape, 4)
    assert_close(both(x, node(op, "x", "y"), opset=opset))
    for axis in range(0 if opset < 11 else -len(shape), len(shape)):
        assert_close(both(x, node(op, "x", "y", axis=axis), opset=opset))


ROWS = np.array(
    [
        [1, 2, 3, -INF],  # masked
        [-INF, -INF, 7, -INF],
        [-INF, -INF, -INF, -INF],
        [1, INF, 2, 3],
        [INF, INF, 0, -INF],
        [1, NAN, 2, 3],
        [NAN, -INF, INF, NAN],
        [5, 5, 5, 5],
        [0, -0.0, 0, -0.0],
        [1e30, 1e30, -1e30, 0],
        [3e38, -3e38, 3e38, 3e38],
        [1e-45, 0, 0, 1e-40],
        [-100, 0, 0, -88],
    ],
    np.float32,
)


@each_softmax
@pytest.mark.parametrize("axis", [0, 1])
def test_masks_infinities_and_nan(axis, op):
    """Each row as by ONNX Runtime, and without a trace of the others."""
    rows = np.tile(ROWS, 5)  # more than a vector
    x = rows if axis else np.ascontiguousarray(rows.T)
    found, expected = both(x, node(op, "x", "y", axis=axis))
    assert np.allclose(found, expected, 1e-6, 1e-6, equal_nan=True)
    found = found if axis else found.T
    is_nan = np.isnan(found)
    assert np.array_equal(is_nan.any(1), is_nan.all(1))
    assert np.flatnonzero(is_nan.any(1)).tolist() == [2, 3, 4, 5, 6]
    masked = np.isneginf(rows) & ~is_nan
    assert np.array_equal(found[masked], np.full(masked.sum(), 0 if op == "Softmax" else -INF))


@pytest.mark.parametrize("count", [1, 2, 3, 7, 16, 49, 1000])
@pytest.mark.parametrize("number", [0.0, 1.5, -88.0, 3e38])
def test_equal_numbers_share_alike(number, count):
    x = np.full((3, count), number, np.float32)
    found, _ = both(x, node("Softmax", "x", "y"))
    assert np.array_equal(found, np.full((3, count), np.float32(1) / np.float32(count)))


@each_softmax
def test_softmax_of_a_view(op):
    """A transposed or sliced value is copied first; with what goes before and comes after."""
    x = normal((2, 3, 40))
    nodes = node("Transpose", "x", "t", perm=[0, 2, 1]), node(op, "t", "s", axis=1)
    assert_close(both(x, *nodes, node("Add", "s s", "y")))
    halves = node("Split", "x", "a b", axis=2)
    assert_close(both(x, halves, node(op, "b", "s"), node("Mul", "a s", "y")))


@each_softmax
def test_softmax_that_is_refused(op):
    for axis in (2, -3, 9):
        with pytest.raises(UnknownOperator, match="axis"):
            refused((3, 4), node(op, "x", "y", axis=axis))
    with pytest.raises(UnknownOperator, match="axis 1 of 1"):
        refused((3,), node(op, "x", "y"), opset=11)
    with pytest.raises(UnknownOperator, match="empty"):
        refused((0, 4), node(op, "x", "y"))
    with pytest.raises(UnknownOperator, match="empty"):
        refused((4, 0), node(op, "x", "y"))
    with pytest.raises(UnknownOperator, match="constant"):
        refused((4,), node(op, "c", "s"), node("Add", "x s", "y"), c=numbers(4))


# ---- LayerNormalization --------------------------------------------------------------------------


@pytest.mark.parametrize("shape", SHAPES)
def test_layers_over_all_axes_from_one_on(shape):
    x = normal(shape)
    for axis in range(len(shape)):
        scale, bias = normal(shape[axis:], 2), normal(shape[axis:])
        for written in (axis, axis - len(shape)):
            more = {"axis": written, "epsilon": 1e-3}
            assert_close(both(x, node("LayerNormalization", "x s b", "y", **more), s=scale, b=bias))
            assert_close(both(x, node("LayerNormalization", "x s", "y", **more), s=scale))
    assert_close(both(x, node("LayerNormalization", "x s", "y"), s=np.float32([1.5])))


@pytest.mark.parametrize("number", [3, 41, -33333])
@pytest.mark.parametrize("count", [3, 7, 48, 768])
def test_a_layer_of_equal_numbers_is_its_bias(count, number):
    """To the bit, however small epsilon is, as long as the sum is exact."""
    x, bias = np.full((2, count), number, np.float32), numbers(count)
    found, _ = both(
        x, node("LayerNormalization", "x s b", "y", epsilon=1e-12), s=normal(count), b=bias
    )
    assert np.array_equal(found, np.broadcast_to(bias, x.shape))


def test_a_layer_keeps_its_nan_and_infinities():
    x = normal((5, 40))
    x[1, 7], x[3, 9] = NAN, INF
    found, _ = both(x, node("LayerNormalization", "x s", "y"), s=normal(40))
    assert np.isnan(found[[1, 3]]).all()
    assert np.isfinite(found[[0, 2, 4]]).all()


def test_a_scale_that_is_computed():
    x = normal((3, 40))
    nodes = node("ReduceMax", "x", "m", axes=[0], keepdims=0), node("Relu", "x", "r")
    assert_close(both(x, *nodes, node("LayerNormalization", "r m m", "y")))


def test_layers_that_are_refused():
    layer = "LayerNormalization"
    for axis in (2, -3):
        with pytest.raises(UnknownOperator, match="axis"):
            refused((3, 4), node(layer, "x s", "y", axis=axis), s=numbers(4))
    for shape in ((3,), (3, 4), (2, 4), (5, 3, 4)):
        with pytest.raises(UnknownOperator):
            refused((3, 4), node(layer, "x s", "y"), s=numbers(*shape))
        with pytest.raises(UnknownOperator):
            refused((3, 4), node(layer, "x t s", "y"), s=numbers(*shape), t=numbers(4))
    with pytest.raises(UnknownOperator, match="statistics"):
        refused((3, 4), node(layer, "x s", "y mean"), s=numbers(4))
    with pytest.raises(UnknownOperator, match="constant"):
        refused((4,), node(layer, "s s", "l"), node("Add", "x l", "y"), s=numbers(4))
    with pytest.raises(UnknownOperator, match="empty"):
        refused((0, 4), node(layer, "x s", "y"), s=numbers(4))
    with pytest.raises(UnknownOperator, match="float64"):
        refused((3, 4), node(layer, "x s", "y"), s=numbers(4).astype(np.float64))
