"""Predicted times: more for more work, and those of a partition for the layers it assigns."""

from dataclasses import replace
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from onnx_graphs import model_of, models, transposed
from strategies import draws
from tconv.engine.target.target import named_target, target
from tconv.onnx import Decision
from tconv.onnx.model.nodes import NotPartitionable
from tconv.onnx.model.shape_inference import infer_shapes, strip_weights
from tconv.onnx.partition import cost_model
from tconv.onnx.partition.cost_model import Machine, conv_transpose_us, node_us
from tconv.onnx.partition.partition import Graph
from tconv.onnx.partition.profitability import LEAST_GAIN, predict


def predicted(model, feeds, threads=1):
    bare = strip_weights(model)
    shapes = infer_shapes(bare, {name: value.shape for name, value in feeds.items()}, {})
    return predict(Graph(bare), shapes, threads)


@draws()
@given(models(), st.sampled_from([1, 2]))
def test_a_prediction_is_finite_and_its_layers_are_the_models(drawn, threads):
    try:
        found = predicted(drawn.model, drawn.feeds, threads)
    except NotPartitionable:
        return
    if found is None:
        return
    assert 0 < found.tconv_us <= found.onnxruntime_us < 1e9
    assert (found.gain > 0) == bool(found.assigned)
    assert {node.op_type for node in drawn.model.graph.node if node.op_type} >= {
        "ConvTranspose" for _ in found.assigned
    }


def decoder(cells, others):
    """A ConvTranspose of many columns, and so many products of matrices beside it."""
    w = np.ones((8, 8, 16), np.float32)
    x = np.ones((1, 8, cells), np.float32)
    m = np.ones((256, 256), np.float32)
    nodes = [transposed("x", "w", "y", strides=[2])]
    names = ["m", *(f"p{n}" for n in range(others))]
    nodes += [helper.make_node("MatMul", [a, "m"], [b]) for a, b in pairwise(names)]
    feeds = {"x": x, "m": m}
    return model_of(nodes, feeds, ["y", names[-1]], {"w": w}), feeds


def test_the_share_of_the_layer_decides():
    gains = [predicted(*decoder(20_000, others)).gain for others in (0, 4, 64, 4000)]
    if not target().uses_engine:  # then no call has a predicted time
        assert gains == [0.0] * 4
        return
    assert gains == sorted(gains, reverse=True)
    assert gains[0] > 2 * LEAST_GAIN
    assert gains[-1] < LEAST_GAIN


def test_a_layer_too_small_for_a_partition_is_not_taken():
    assert predicted(*decoder(20, 4)).assigned == ()


def test_layers_of_unknown_sizes_are_not_predicted():
    model, feeds = decoder(100, 1)
    assert predicted(model, {"m": feeds["m"]}) is not None  # the file says the sizes
    model.graph.input[0].type.tensor_type.ClearField("shape")
    assert predicted(model, {"m": feeds["m"]}) is None


def test_a_model_without_layers_is_not_predicted():
    nodes = [helper.make_node("Neg", ["x"], ["y"])]
    assert predicted(model_of(nodes, {"x": np.ones(3, np.float32)}, ["y"]), {}) is None


@pytest.mark.parametrize("cpu", ["x86-64", "haswell", "znver4", "skylake-avx512", "cortex-a72"])
@pytest.mark.parametrize("threads", [1, 2])
def test_more_work_takes_longer(cpu, threads):
    machine = Machine.of(named_target(cpu, threads=2), threads)

    def us(*cells, channels=32, kernel=4, batch=1):
        weight = (channels, 16, *[kernel] * len(cells))
        return conv_transpose_us((batch, channels, *cells), weight, 1, machine)

    for grown in (us(64, 64), us(32, 32, channels=64), us(32, 32, kernel=5), us(32, 32, batch=2)):
        assert grown > us(32, 32)
    assert us(2000) > us(1000)
    if threads == 2:
        alone = replace(machine, threads=1)
        assert us(64, 64) <= conv_transpose_us((1, 32, 64, 64), (32, 16, 4, 4), 1, alone)


def test_a_wider_processor_is_quicker():
    x, weight = (1, 64, 64, 64), (64, 64, 4, 4)
    times = [
        conv_transpose_us(x, weight, 1, Machine.of(named_target(cpu), 1))
        for cpu in ("x86-64", "haswell", "skylake-avx512")
    ]
    assert times == sorted(times, reverse=True)


def test_nodes_that_move_nothing_take_least():
    machine = Machine.of(target(), 1)
    shapes = {"a": (1, 64, 64, 64), "b": (1, 64, 64, 64), "c": (64, 64, 64), "s": (3,)}
    view = node_us(helper.make_node("Reshape", ["a", "s"], ["c"]), shapes, machine, 1)
    work = node_us(helper.make_node("Add", ["a", "b"], ["b"]), shapes, machine, 1)
    assert view < 2 < work


def test_threads_are_at_most_the_cores():
    assert Machine.of(target(), 1024).threads == target().cores
    assert Machine.of(target(), 1).threads == 1


@pytest.mark.parametrize(
    ("decision", "sentence"),
    [
        (Decision("tconv", "why", 2.0, 1.0), "cut for tconv: predicted 2 ms by ONNX Runtime alone, "
         "1 ms with tconv"),
        (Decision("onnxruntime", "why", 2.0, 1.999, is_measured=True), "left to ONNX Runtime: "
         "measured 2 ms by ONNX Runtime alone, 2 ms with tconv"),
        (Decision("onnxruntime", "opset 99"), "left to ONNX Runtime: opset 99"),
        (Decision("onnxruntime", ""), "left to ONNX Runtime"),
    ],
)  # fmt: skip
def test_a_decision_says_what_and_why(decision, sentence):
    assert decision.sentence == sentence


def test_costs_are_told_in_one_scale():
    assert (
        0 < cost_model.RUN_US < cost_model.SUBGRAPH_US < cost_model.SUBGRAPH_US + cost_model.WAKE_US
    )
