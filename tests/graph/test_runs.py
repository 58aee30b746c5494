"""Runs of programs: sizes in turn, wrong arrays, threads, forks, and values that are not finite."""

import os
from concurrent.futures import ThreadPoolExecutor
from threading import Barrier

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from processes import run_script

from onnx_graphs import by_onnx_runtime, conv, model_of, transposed
from strategies import draws, integers_like
from tconv.graph import Graph, Input, Node, Programs, UnknownOperator
from tconv.onnx import Session
from tconv.onnx.front_end import graph_of

RELU = Graph((Input("x", "float32"),), ("y",), (Node("Relu", ("x",), ("y",)),), {})


def node(op, x, y, **attributes):
    return helper.make_node(op, x.split(), [y], name=f"node {y}", **attributes)


def unet(shape=(2, 8, 24, 24), kernel=3, dtype="float32"):
    """A model of convolutions, a sum, gates for each channel, pooling, and a path beside it."""
    channels = shape[1]

    def numbers(*sizes):
        return integers_like(sizes, dtype, len(stored), largest=1)

    stored = {}
    for name in ("w1", "w2", "w4"):
        stored[name] = numbers(channels, channels, kernel, kernel)
    stored |= {"b1": numbers(channels), "gate": numbers(channels, channels, 1, 1)}
    stored |= {"w3": numbers(channels, 2 * channels, 3, 3), "up": numbers(2 * channels, 4, 2, 2)}
    stored["w3"] = np.ascontiguousarray(stored["w3"].swapaxes(0, 1))
    pads = [kernel // 2] * 4
    nodes = [
        conv("x", "w1", "a", "b1", pads=pads),
        node("Relu", "a", "b"),
        conv("b", "w2", "c", pads=pads),
        node("Add", "c x", "sum"),
        node("Clip", "sum low high", "d"),
        node("GlobalAveragePool", "d", "mean"),
        conv("mean", "gate", "e"),
        node("HardSigmoid", "e", "f"),
        node("Mul", "d f", "gated"),
        node("MaxPool", "gated", "small", kernel_shape=[2, 2], strides=[2, 2]),
        conv("small", "w3", "g", pads=[1] * 4),
        node("Elu", "g", "h"),
        transposed("h", "up", "i", strides=[2, 2]),
        conv("gated", "w4", "j", pads=pads),
        node("Concat", "i j x", "y", axis=1),
    ]
    stored |= {"low": np.float32(-8), "high": np.float32(8)}
    feeds = {"x": integers_like(shape, dtype, largest=2)}
    return model_of(nodes, feeds, ["y", "small"], stored, sizes=False), feeds


def assert_close(found, expected):
    for got, wanted in zip(found, expected, strict=True):
        assert got.shape == wanted.shape
        assert np.abs(got - wanted).max() <= 1e-5 * np.abs(wanted).max()


def same_bits(some, others):
    return all(a.tobytes() == b.tobytes() for a, b in zip(some, others, strict=True))


@pytest.mark.parametrize("threads", [1, 2, 3])
def test_a_network_is_computed_the_same_way_in_every_run(threads):
    model, feeds = unet()
    programs = Programs(graph_of(model), threads)
    first = programs([feeds["x"]])
    assert_close(first, by_onnx_runtime(model, feeds))
    for _ in range(20):
        assert same_bits(programs([feeds["x"]]), first)
    assert same_bits(Programs(graph_of(model), 1)([feeds["x"]]), first)


# ---- arrays --------------------------------------------------------------------------------------


@draws(0.1)
@given(st.lists(st.tuples(*[st.integers(1, 3), st.integers(1, 5)]), min_size=2, max_size=4))
def test_sizes_take_turns(sizes):
    model, _ = unet((1, 4, 8, 8))
    programs = Programs(graph_of(model), 2)
    for batch, size in sizes * 2:
        feeds = {"x": integers_like((batch, 4, 2 * size, 4 * size), "float32", largest=2)}
        assert_close(programs([feeds["x"]]), by_onnx_runtime(model, feeds))


def test_programs_of_few_sizes_are_kept():
    programs = Programs(RELU, 1)
    for size in range(1, 60):
        x = integers_like((size,), "float32")
        (y,) = programs([x])
        assert np.array_equal(y, np.maximum(x, 0))
    assert len(programs._programs) <= 16
    assert programs.program(((59,),)) is programs.program(((59,),))


def test_weights_of_sizes_are_kept_for_as_long_as_their_programs():
    """Of interpolation; the convolution's own weight stays."""
    nodes = [
        helper.make_node("Conv", ["x", "w"], ["a"]),
        helper.make_node(
            *("Resize", ["a", "", "by"], ["y"]),
            mode="linear",
            coordinate_transformation_mode="align_corners",
        ),
    ]
    stored = {"w": integers_like((2, 2, 1), "float32"), "by": np.array([1, 1, 2], np.float32)}
    model = model_of(nodes, {"x": np.ones((1, 2, 9), np.float32)}, ["y"], stored, sizes=False)
    programs = Programs(graph_of(model), 1)
    for size in range(2, 40):
        x = integers_like((1, 2, size), "float32")
        assert_close(programs([x]), by_onnx_runtime(model, {"x": x}))
        assert len(programs._binder._packed) <= 17
    assert len(programs._binder._packed) == 17


@pytest.mark.parametrize("dtype", ["float64", "float16", "int32", "int64", "bool", "complex64"])
def test_arrays_of_another_type_are_refused(dtype):
    with pytest.raises((TypeError, ValueError, UnknownOperator)):
        Programs(RELU, 1)([np.ones(3, dtype)])


@pytest.mark.parametrize("count", [0, 2])
def test_too_many_or_too_few_arrays_are_refused(count):
    with pytest.raises((TypeError, ValueError, UnknownOperator)):
        Programs(RELU, 1)([np.ones(3, np.float32)] * count)


@pytest.mark.parametrize("shape", [(2,), (4,), (3, 1), ()])
def test_a_program_takes_arrays_of_its_sizes_alone(shape):
    program = Programs(RELU, 1).program(((3,),))
    with pytest.raises((TypeError, ValueError, UnknownOperator)):
        program([np.ones(shape, np.float32)])


def test_arrays_of_any_layout_are_read():
    programs, x = Programs(RELU, 2), integers_like((6, 8), "float32")
    shifted = np.empty(4 * 48 + 1, np.uint8)[1:].view(np.float32).reshape(6, 8)
    shifted[...] = x
    frozen = x.copy()
    frozen.flags.writeable = False
    for array in (x[::2, ::-1], x.T, np.asfortranarray(x), shifted, frozen):
        (y,) = programs([array])
        assert np.array_equal(y, np.maximum(array, 0))
        assert y.flags.c_contiguous


# ---- constants that depend on sizes --------------------------------------------------------------


def test_a_resize_to_sizes_interpolates_by_other_factors_for_other_inputs():
    stored = {"sizes": np.array([1, 2, 48, 24])}
    given = {"mode": "linear", "coordinate_transformation_mode": "half_pixel"}
    nodes = [helper.make_node("Resize", ["x", "", "", "sizes"], ["y"], **given)]
    arrays = [integers_like((1, 2, *size), "float32") for size in [(24, 24), (16, 8), (12, 24)]]
    model = model_of(nodes, {"x": arrays[0]}, ["y"], stored, sizes=False)
    programs = Programs(graph_of(model), 2)
    for x in arrays * 2:
        assert_close(programs([x]), by_onnx_runtime(model, {"x": x}))


def of_rows(last, factor, x):
    """A model of one node whose weight is a factor times the number of rows of x."""
    nodes = [
        helper.make_node("Shape", ["x"], ["rows"], start=0, end=1),
        node("Cast", "rows", "number", to=1),
        node("Mul", "number factor", "weight"),
        last,
    ]
    return model_of(nodes, {"x": x}, ["y"], {"factor": factor}, sizes=False)


WEIGHTS = {
    "MatMul": (node("MatMul", "x weight", "y"), (5, 3), (5,)),
    "Gemm": (node("Gemm", "x weight", "y", transB=1), (3, 5), (5,)),
    "Conv": (conv("x", "weight", "y"), (3, 5, 2), (5, 7)),
    "ConvTranspose": (transposed("x", "weight", "y"), (5, 3, 2), (5, 7)),
}


@pytest.mark.parametrize("name", WEIGHTS)
def test_a_weight_made_of_sizes_is_left_to_onnx_runtime(name):
    last, weight, sizes = WEIGHTS[name]
    arrays = [integers_like((rows, *sizes), "float32") for rows in (4, 7, 2)]
    model = of_rows(last, integers_like(weight, "float32"), arrays[0])
    programs = Programs(graph_of(model), 2)
    for x in arrays * 2:
        expected = by_onnx_runtime(model, {"x": x})
        assert_close(Session(model.SerializeToString()).run(None, {"x": x}), expected)
        with pytest.raises(UnknownOperator, match="a weight that is computed"):
            programs([x])


# ---- threads and processes -----------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_several_threads_run_one_program(threads):
    model, feeds = unet()
    programs, x = Programs(graph_of(model), threads), feeds["x"]
    expected = [Programs(graph_of(model), threads)([x + n]) for n in range(6)]
    start = Barrier(6)

    def several(n):
        start.wait()
        return all(same_bits(programs([x + n]), expected[n]) for _ in range(10))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(several, range(6)))


def test_several_threads_ask_for_programs_of_new_sizes():
    model, _ = unet((1, 4, 8, 8))
    graph, sizes = graph_of(model), [(1, 4, 4 * n, 4 * m) for n in (1, 2, 3) for m in range(1, 7)]
    arrays = [integers_like(shape, "float32", largest=2) for shape in sizes]
    expected = [Programs(graph, 1)([x]) for x in arrays]
    for _ in range(3):
        programs, start = Programs(graph, 1), Barrier(6)

        def several(n, programs=programs, start=start):
            start.wait()
            places = [(n + m) % len(arrays) for m in range(len(arrays))]
            return all(same_bits(programs([arrays[p]]), expected[p]) for p in places)

        with ThreadPoolExecutor(6) as pool:
            assert all(pool.map(several, range(6)))


FORKING = """
import os, sys
import numpy as np
from tconv.graph import Graph, Input, Node, Programs
weight = np.ones((8, 8, 3, 3), np.float32)
nodes = (Node("Conv", ("x", "w"), ("a",), {"pads": [1] * 4}), Node("Tanh", ("a",), ("b",)),
         Node("MaxPool", ("b",), ("y",), {"kernel_shape": [2, 2]}))
graph = Graph((Input("x", "float32"),), ("y",), nodes, {"w": weight})
programs, x = Programs(graph, 2), np.arange(8 * 900, dtype=np.float32).reshape(1, 8, 30, 30) / 7200
(expected,) = programs([x])
child = os.fork()
if not child:
    right = all(np.array_equal(programs([x])[0], expected) for _ in range(5))
    other = np.ascontiguousarray(x[:, :, 3:, 5:])
    right &= np.array_equal(programs([other]), Programs(graph, 1)([other]))
    os._exit(0 if right else 3)
assert np.array_equal(programs([x])[0], expected)
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork on this system")
def test_a_program_runs_in_a_forked_process():
    run_script(FORKING, timeout=100)


# ---- values that are not finite ------------------------------------------------------------------


def winograd_model(images):
    """Layers of which several are computed by Winograd's algorithm, in a block and in a Concat."""
    stored = {f"w{n}": integers_like((64, 64, 3, 3), "float32", n, 1) / 64 for n in range(3)}
    stored |= {"b": integers_like((64,), "float32")}
    nodes = [
        conv("x", "w0", "a", "b", pads=[1] * 4),
        node("Relu", "a", "r"),
        conv("r", "w1", "c", pads=[1] * 4),
        node("Add", "c r", "s"),
        node("Relu", "s", "t"),
        conv("t", "w2", "d", pads=[1] * 4),
        node("Concat", "x d", "y", axis=1),
    ]
    feeds = {"x": integers_like((images, 64, 28, 28), "float32")}
    return model_of(nodes, feeds, ["y", "r"], stored), feeds


def repairs(programs, x):
    """The steps of which others mend results: Winograd's algorithm spreads what is not finite."""
    return [step for step in programs.program((x.shape,))._runner.steps if step.repair is not None]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan, 1e30, 3e38])
def test_an_image_that_is_not_finite_leaves_the_others_alone(special, threads):
    model, feeds = winograd_model(3)
    programs, x = Programs(graph_of(model), threads), feeds["x"]
    assert repairs(programs, x)
    clean = programs([x])
    assert_close(clean, by_onnx_runtime(model, feeds))
    spoilt = x.copy()
    spoilt[1, 5, 7, 11] = special
    found = programs([spoilt])
    with np.errstate(all="ignore"):
        expected = by_onnx_runtime(model, {"x": spoilt})
    for got, before, wanted in zip(found, clean, expected, strict=True):
        assert np.array_equal(got[[0, 2]], before[[0, 2]])
        assert np.array_equal(np.isfinite(got), np.isfinite(wanted))
        assert np.array_equal(np.isnan(got), np.isnan(wanted))
        cells = np.isfinite(wanted)
        assert np.array_equal(got[~cells], wanted[~cells], equal_nan=True)
        error = np.abs(got[cells].astype(np.float64) - wanted[cells])
        assert error.max() <= 1e-5 * np.abs(wanted[cells]).max()
    assert same_bits(programs([x]), clean)


@pytest.mark.parametrize("special", [np.inf, -np.inf, np.nan])
@pytest.mark.parametrize("op", ["Relu", "Add", "Mul", "Max", "Min", "Neg", "Abs"])
def test_elementwise_nodes_hand_on_what_is_not_finite(op, special):
    feeds = {"x": integers_like((2, 37), "float32")}
    feeds["x"][0, [1, 17]] = special
    more = " two" if op in ("Add", "Mul", "Max", "Min") else ""
    model = model_of([node(op, f"x{more}", "y")], feeds, ["y"], {"two": np.float32(2)})
    (expected,) = by_onnx_runtime(model, feeds)
    (found,) = Programs(graph_of(model), 1)([feeds["x"]])
    assert np.array_equal(found, expected, equal_nan=True)


@pytest.mark.parametrize("op", ["ReduceMax", "ReduceMin", "ReduceSum"])
def test_a_reduction_is_nan_where_an_element_is(op):
    """As NumPy's are; ONNX Runtime's extremes differ from size to size."""
    x = integers_like((2, 3, 37), "float32")
    x[0, 1, 17] = np.nan
    for axis in (1, 2):
        model = model_of([node(op, "x a", "y")], {"x": x}, ["y"], {"a": np.array([axis])}, opset=18)
        (found,) = Programs(graph_of(model), 1)([x])
        function = {"ReduceMax": np.max, "ReduceMin": np.min, "ReduceSum": np.sum}[op]
        assert np.array_equal(found, function(x, axis, keepdims=True), equal_nan=True)
