"""Programs against ONNX Runtime, on random networks of every operator."""

from collections import Counter
from itertools import combinations

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from onnx import helper

from network_graphs import OPERATORS, assert_as_onnx_runtime, networks, run
from onnx_graphs import by_onnx_runtime, model_of
from strategies import draws, integers_like
from tconv.graph import Programs, UnknownOperator
from tconv.graph.operators.registry import REGISTRY
from tconv.onnx.front_end import graph_of

COMPOSED = {  # of several nodes
    *("padded Conv", "bordered Pad", "Shape chain", "ConstantOfShape"),
    *("linear Resize", "weighted Resize"),
    *("spelt Gelu", "spelt Swish", "HardSwish by Clip", "HardSwish by HardSigmoid"),
}
NAMED_OTHERWISE = {  # or not in models
    *("Swish", "Erf", "Upsample", "Shape", "Size", "Cast", "Masked")
}


def test_networks_are_drawn_with_every_operator():
    assert {*REGISTRY} - NAMED_OTHERWISE == {*OPERATORS} - COMPOSED


def test_most_networks_become_programs():
    """At least 80 in 100; the others are counted by their reasons."""
    found = Counter()

    @draws()
    @given(networks())
    def tried(drawn):
        try:
            Programs(graph_of(drawn.model), 1).program(
                tuple([each.shape for each in drawn.feeds.values()])
            )
            found["a program"] += 1
        except UnknownOperator as reason:
            found[str(reason).rpartition(": ")[2]] += 1

    tried()
    assert found["a program"] >= 0.8 * found.total(), found


@pytest.mark.parametrize("operator", sorted(OPERATORS))
def test_programs_compute_what_onnx_runtime_does(operator):
    @draws(0.08)
    @given(networks(operator))
    def is_right(drawn):
        try:
            found = run(drawn)
        except UnknownOperator:
            assume(False)
        assert_as_onnx_runtime(drawn, found)

    is_right()


@draws(0.5)
@given(networks())
def test_results_have_the_same_bits_for_every_number_of_threads(drawn):
    arrays = list(drawn.feeds.values())
    try:
        programs = [Programs(graph_of(drawn.model), threads) for threads in (1, 2, 3)]
        first, *others = [each(arrays) for each in (*programs, programs[-1])]
    except UnknownOperator:
        assume(False)
    for found in others:
        assert all(a.tobytes() == b.tobytes() for a, b in zip(first, found, strict=True))


@draws(0.5)
@given(networks())
def test_results_are_memory_of_their_own(drawn):
    """Whoever writes into a result changes no input, no other result and no later run."""
    arrays = list(drawn.feeds.values())
    kept = [each.copy() for each in arrays]
    try:
        programs = Programs(graph_of(drawn.model), 2)
        found = programs(arrays)
    except UnknownOperator:
        assume(False)
    for one, other in combinations([*arrays, *found], 2):
        assert not np.shares_memory(one, other)
    expected = [each.copy() for each in found]
    for each in found:
        each[...] = np.nan
    for one, other in zip([*arrays, *programs(arrays)], [*kept, *expected], strict=True):
        assert np.array_equal(one, other)


# ---- sizes that several tasks share --------------------------------------------------------------


def _resized(by):
    scales = {"scales": np.array([1, 1, by], np.float32)}
    given = {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return helper.make_node("Resize", ["x", "", "scales"], ["y"], **given), scales


def _sliced(step):
    start, end = (-1, -(2**31)) if step < 0 else (0, 2**31)
    numbers = {"start": [start], "end": [end], "axis": [2], "step": [step]}
    return helper.make_node("Slice", ["x", *numbers], ["y"]), {
        name: np.array(each) for name, each in numbers.items()
    }


def _padded(begin):
    pads = {"pads": np.array([0, 0, begin, 0, 0, 1]), "seven": np.float32(7)}
    return helper.make_node("Pad", ["x", "pads", "seven"], ["y"]), pads


def _reduced(axis):
    return helper.make_node("ReduceMax", ["x"], ["y"], axes=[axis]), {}


def _pooled(stride):
    given = {"kernel_shape": [stride + 1], "strides": [stride], "pads": [1, 1]}
    return helper.make_node("MaxPool", ["x"], ["y"], **given), {}


def _joined(count):
    parts = np.arange(count, dtype=np.float32).reshape(1, 1, count).repeat(2, 1)
    return helper.make_node("Concat", ["x", "parts", "x"], ["y"], axis=2), {"parts": parts}


def _scaled(count):
    factors = np.arange(2, dtype=np.float32).reshape(2, 1)
    return helper.make_node("Mul", ["x", "factors"], ["y"]), {"factors": factors}


WIDE = {
    **{f"Resize by {by}": _resized(by) for by in (2, 3, 4, 5)},
    **{f"Slice by {step}": _sliced(step) for step in (1, 2, 3, -1, -2)},
    **{f"Pad by {begin}": _padded(begin) for begin in (0, 1)},
    **{f"ReduceMax of axis {axis}": _reduced(axis) for axis in (0, 1, 2)},
    **{f"MaxPool by {stride}": _pooled(stride) for stride in (1, 2, 3)},
    **{f"Concat with {count}": _joined(count) for count in (1, 5)},
    "Mul for each channel": _scaled(2),
}


@pytest.mark.parametrize("name", WIDE)
@draws(0.02)
@given(st.integers(4000, 30000))
def test_rows_that_several_tasks_share_are_computed_as_a_whole(name, size):
    node, stored = WIDE[name]
    feeds = {"x": integers_like((1, 2, size), "float32")}
    model = model_of([node], feeds, ["y"], stored)
    (expected,) = by_onnx_runtime(model, feeds)
    for threads in (1, 2, 3):
        (found,) = Programs(graph_of(model), threads)(list(feeds.values()))
        assert np.array_equal(found, expected)
