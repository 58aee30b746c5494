"""Comparison of a session with ONNX Runtime in another process: differences and times."""

import json
import sys
from importlib import import_module
from itertools import count
from math import inf, nan
from statistics import median

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from onnx_graphs import by_onnx_runtime, model_of, transposed
from strategies import integers_like, same_numbers
from tconv.errors import ModelError, ParameterError, ShapeError, UnsupportedError
from tconv.onnx import Comparison, NodeComparison, NodeReport, Report, Session, compare

MODULE = sys.modules["tconv.onnx.compare"]  # tconv.onnx.compare is the function
BASELINE = import_module("tconv.onnx.baseline")
W1, W2 = integers_like((2, 3, 3, 3), "float32", 1), integers_like((3, 1, 2, 2), "float32", 2)
X = integers_like((1, 2, 4, 5), "float32", 4)


def two_layers(x="x", **options):
    nodes = [
        transposed(x, "w1", "a/b", strides=[2, 2]),
        helper.make_node("Relu", ["a/b"], ["r"]),
        transposed("r", "w2", "y"),
    ]
    return model_of(nodes, {x: X}, ["y", "r"], {"w1": W1, "w2": W2}, **options)


@pytest.fixture
def processes(monkeypatch):
    """Every process that a comparison has started."""
    started, start = [], MODULE.subprocess.Popen
    monkeypatch.setattr(
        MODULE.subprocess, "Popen", lambda *a, **k: started.append(start(*a, **k)) or started[-1]
    )
    return started


@pytest.fixture(scope="module")
def both():
    return compare(two_layers(), {"x": X}, force=True, threads=1, seconds=0.01)


def test_outputs_are_tconvs(both):
    session = Session(two_layers(), force=True)
    assert list(both.outputs) == ["y", "r"]
    for value, expected in zip(both.outputs.values(), session.run(None, {"x": X}), strict=True):
        assert same_numbers(value, expected)


def test_every_node_and_every_output_is_compared(both):
    assert [(node.name, node.computed_by, node.reason) for node in both.nodes] == [
        ("up a/b", "tconv", ""),
        ("up y", "tconv", ""),
    ]
    assert [(node.x_shape, node.y_shape) for node in both.nodes] == [
        ((1, 2, 4, 5), (1, 3, 9, 11)),
        ((1, 3, 9, 11), (1, 1, 10, 12)),
    ]
    assert [(result.name, result.shape) for result in both.results] == [
        ("y", (1, 1, 10, 12)),
        ("r", (1, 3, 9, 11)),
    ]
    assert both.largest_difference == 0
    for each in (*both.nodes, *both.results):
        assert each.difference == 0
    y, r = both.outputs.values()
    assert [result.largest for result in both.results] == [abs(y).max(), abs(r).max()]


def test_everything_is_timed(both):
    assert both.runs >= 1
    for ms in (both.tconv_ms, both.onnxruntime_ms):
        assert ms > 0
    for node in both.nodes:
        assert node.tconv_ms > 0
        assert node.onnxruntime_ms > 0


def test_a_comparison_is_plain_values(both):
    shown = json.loads(json.dumps(both.as_dict()))
    assert shown["largest_difference"] == 0
    assert [node["name"] for node in shown["nodes"]] == ["up a/b", "up y"]
    assert shown["results"][0]["shape"] == [1, 1, 10, 12]
    assert "outputs" not in shown


def test_a_comparison_prints_a_row_for_each(both):
    lines = str(both).splitlines()
    for start in (
        "layer ",
        "up a/b ",
        "up y ",
        "output y ",
        "output r ",
        "whole model ",
        "2 of 2 ",
    ):
        assert sum(line.startswith(start) for line in lines) == 1, start
    assert f"medians of {both.runs} runs each" in lines[-1]
    assert not any("moves" in line for line in lines)


class Waiting:
    """A session whose node waits for its team in all runs but one of each round."""

    def __init__(self):
        self.runs = 0

    def run(self, names, feed):
        self.runs += 1

    def report(self):
        ms = 0.125 if self.runs % 3 == 0 else 12.0
        node = NodeReport("up", "y", "", "tconv", ms=ms)
        return Report((node,), 1, 20.0, 8.0)


def test_a_node_that_waits_for_its_team_is_not_slow(monkeypatch):
    monkeypatch.setattr(MODULE, "perf_counter", count().__next__)  # a second at each look

    def ask(do, **_):
        if do == "node_times":
            return {"tconv.compare.0": [9.0, 0.25] * MODULE._ROUNDS}
        return 2 if do == "time_nodes" else [30.0, 31.0]

    times = MODULE._time_rounds(Waiting(), {}, ask, 10 * MODULE._ROUNDS)
    own, other = times.layers["y"], times.others["tconv.compare.0"]
    assert own.median == 12
    assert (own.fastest, other.fastest) == (0.125, 0.25)
    assert own.faster_than(other, min) is True
    assert times.own.faster_than(times.other, median) is True
    assert len(times.own.rounds) == len(times.other.rounds) == len(own.rounds) == len(other.rounds)


@pytest.mark.parametrize(
    ("faster", "shown"), [("tconv", "0.50×"), ("onnxruntime", "0.50×"), (None, "≈")]
)
def test_a_ratio_is_shown_where_the_rounds_agree(faster, shown):
    node = NodeComparison("up", "tconv", "", None, None, 0.0, 1.0, 2.0, 1.0, (), faster)
    both = Comparison((node,), (), 2.0, 1.0, 5, {}, faster)
    _, row, whole, _, last = str(both).splitlines()
    assert row.split()[-1] == whole.split()[-1] == shown
    assert last.endswith("≈ not told apart") == (faster is None)


def test_nodes_left_to_onnx_runtime_are_shown_too():
    both = compare(two_layers(), {"x": X}, method="onnxruntime", seconds=0.01)
    assert [node.reason for node in both.nodes] == ["method='onnxruntime'"] * 2
    assert [node.tconv_ms for node in both.nodes] == [None] * 2
    assert both.largest_difference == 0
    assert (
        "0 of 2 ConvTranspose computed by tconv · left to ONNX Runtime: method='onnxruntime'\n"
    ) in str(both)


def test_a_model_may_come_in_any_form(tmp_path):
    model, path = two_layers(), tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    for source in (path, path.read_bytes()):
        both = compare(source, {"x": X}, force=True, seconds=0.01)
        assert both.largest_difference == 0
        assert len(both.nodes) == 2


@pytest.mark.parametrize(
    "form",
    [np.ndarray.tolist, onnxruntime.OrtValue.ortvalue_from_numpy, lambda x: x.astype(">f4")],
    ids=["list", "OrtValue", "big-endian"],
)
def test_an_input_may_come_in_any_form(form):
    assert compare(two_layers(), {"x": form(X)}, force=True, seconds=0.01).largest_difference == 0


@pytest.mark.parametrize("name", ["a/x", "../x", "/x", "x y", "ü:\\x", "file", "allow_pickle"])
def test_names_may_be_anything(name):
    both = compare(two_layers(name), {name: X}, force=True, seconds=0.01)
    assert both.largest_difference == 0


@pytest.mark.parametrize(
    "words", [["one", "two", "twelve"], np.array([["a"], ["bc"]], object)], ids=str
)
def test_words_are_compared(words):
    feeds = {"x": X, "words": np.array(words)}
    nodes = [transposed("x", "w", "y"), helper.make_node("Identity", ["words"], ["same"])]
    model = model_of(nodes, {"x": X}, ["y"], {"w": W1})
    for values, name in ((model.graph.input, "words"), (model.graph.output, "same")):
        values.append(helper.make_tensor_value_info(name, TensorProto.STRING, None))
    both = compare(model, feeds | {"words": words}, force=True, seconds=0.01)
    assert both.outputs["same"].tolist() == np.array(words, object).tolist()
    assert both.largest_difference == 0


def test_a_sequence_cannot_be_handed_over():
    nodes = [
        helper.make_node("SequenceAt", ["several", "first"], ["x"]),
        transposed("x", "w", "y"),
    ]
    model = model_of(nodes, {"x": X}, ["y"], {"w": W1, "first": np.array(0)})
    sequence = helper.make_tensor_sequence_value_info("several", TensorProto.FLOAT, None)
    model.graph.input[0].CopyFrom(sequence)
    (y,) = Session(model, force=True).run(None, {"several": [X, X]})
    assert same_numbers(y, by_onnx_runtime(model, {"several": [X, X]})[0])
    with pytest.raises(UnsupportedError, match=r"^input_feed\['several'\] is a sequence of arrays"):
        compare(model, {"several": [X, X]}, force=True, seconds=0.01)


# ---- how far apart -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("a", "b", "difference", "largest"),
    [
        ([1.0, -5], [1.5, -5], 0.5, 5),
        ([nan, 1], [nan, 1], 0, 1),
        ([nan, 1], [2, 1], inf, 2),
        ([inf, -inf], [inf, -inf], 0, inf),
        ([inf], [-inf], inf, inf),
        ([inf], [3], inf, 3),
        ([nan], [inf], inf, inf),
        ([1.0, 2], [[1.0, 2]], inf, inf),
        ([], [], 0, 0),
        ([True, False], [True, True], 1, 1),
        ([1 + 1j], [1 - 2j], 3, 5**0.5),
        (["a"], ["a"], 0, inf),
        (["a"], ["b"], inf, inf),
        (None, [1.0], inf, inf),
    ],
    ids=str,
)
def test_the_difference_of_two_results(a, b, difference, largest):
    found = MODULE._difference(a if a is None else np.array(a), np.array(b))
    assert found == (pytest.approx(difference), pytest.approx(largest))


def test_unsigned_numbers_do_not_wrap_around():
    a, b = np.array([0, 255], np.uint8), np.array([255, 0], np.uint8)
    assert MODULE._difference(a, b) == (255, 255)


# ---- what a difference is worth ------------------------------------------------------------------

WIDE = np.random.default_rng(5).standard_normal((64, 2, 3, 3)).astype(np.float32) / 4
SEEN = np.random.default_rng(6).standard_normal((1, 64, 4, 5)).astype(np.float32)


def repeating(times, factor):
    """x -> up, Sigmoid -> y <- factor*y*(1 - y), so many times, in a Loop."""
    body = helper.make_graph(
        [
            helper.make_node("Sub", ["one", "last"], ["rest"]),
            helper.make_node("Mul", ["last", "rest"], ["product"]),
            helper.make_node("Mul", ["product", "factor"], ["next"]),
            helper.make_node("Identity", ["so"], ["goes on"]),
        ],
        "body",
        [
            helper.make_tensor_value_info("n", TensorProto.INT64, []),
            helper.make_tensor_value_info("so", TensorProto.BOOL, []),
            helper.make_tensor_value_info("last", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("goes on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("next", TensorProto.FLOAT, None),
        ],
    )
    nodes = [
        transposed("x", "w", "up"),
        helper.make_node("Sigmoid", ["up"], ["first"]),
        helper.make_node("Loop", ["times", "", "first"], ["y"], body=body),
    ]
    one = np.ones((), np.float32)
    stored = {"w": WIDE, "times": np.array(times), "one": one, "factor": one * factor}
    return model_of(nodes, {"x": SEEN}, ["y"], stored)


def test_a_model_that_amplifies_rounding_is_said_to():
    """The logistic map doubles a difference at every step."""
    both = compare(repeating(80, 4), {"x": SEEN}, force=True, seconds=0.01)
    (result,) = both.results
    assert both.nodes[0].difference < 1e-5 * both.nodes[0].largest
    assert result.difference > 1e-5
    assert result.moved > result.difference / 3
    assert result.varied == 0
    last = str(both).splitlines()[-1]
    assert last == (
        f"changing the inputs by 1e-07 moves ONNX Runtime's own answer y by {result.moved:.2g} of "
        f"{result.largest:.3g}: the model amplifies rounding, which explains the difference"
    )
    shown = json.loads(json.dumps(both.as_dict()))
    assert shown["results"][0]["moved"] == result.moved
    assert shown["explanation"] == last


def test_a_model_that_does_not_needs_no_words():
    both = compare(repeating(80, 0.5), {"x": SEEN}, force=True, seconds=0.01)
    assert both.results[0].moved is None
    assert both.explanation() == both.as_dict()["explanation"] == ""
    assert "moves" not in str(both)


def test_a_fault_is_not_explained_by_rounding(monkeypatch):
    class Wrong(Session):
        def run(self, *arguments):
            return [value * np.float32(1.001) for value in super().run(*arguments)]

    monkeypatch.setattr(MODULE, "Session", Wrong)
    both = compare(two_layers(), {"x": X}, force=True, seconds=0.01)
    y, r = both.results
    assert 0 < y.moved < 1e-5 * y.largest < y.difference
    assert 0 < r.moved < 1e-5 * r.largest < r.difference
    assert both.explanation().endswith(
        ": less than the difference, which rounding does not explain"
    )


@pytest.mark.parametrize("draws_size", [False, True], ids=["numbers", "sizes"])
def test_a_model_that_draws_numbers_is_said_to(draws_size):
    nodes = [transposed("x", "w1", "up"), helper.make_node("RandomNormalLike", ["up"], ["noise"])]
    if draws_size:  # as many as were above zero
        nodes += [
            helper.make_node("Greater", ["noise", "none"], ["which"]),
            helper.make_node("Compress", ["up", "flat"], ["y"]),
            helper.make_node("Reshape", ["which", "row"], ["flat"]),
        ]
    else:
        nodes.append(helper.make_node("Add", ["up", "noise"], ["y"]))
    stored = {"w1": W1, "none": np.zeros(1, np.float32), "row": np.array([-1])}
    x = integers_like((1, 2, 200, 200), "float32")  # so many that two counts are hardly ever equal
    both = compare(model_of(nodes, {"x": x}, ["y"], stored), {"x": x}, force=True, seconds=0.01)
    (result,) = both.results
    assert result.varied > 0
    how = "to another shape" if draws_size else f"by {result.varied:.2g} of {result.largest:.3g}"
    assert both.explanation() == (
        f"with the same inputs ONNX Runtime's own answer y moves {how} from run to run: the model "
        "draws random numbers, and two answers are never the same"
    )


def test_inputs_without_fractions_cannot_be_changed_a_little(monkeypatch):
    class Wrong(Session):
        def run(self, *arguments):
            return [value + 1 for value in super().run(*arguments)]

    monkeypatch.setattr(MODULE, "Session", Wrong)
    nodes = [
        helper.make_node("Cast", ["x"], ["f"], to=TensorProto.FLOAT),
        transposed("f", "w1", "y"),
    ]
    x = X.astype(np.int64)
    model = model_of(nodes, {"x": x}, ["y"], {"w1": W1})
    model.graph.output[0].type.tensor_type.elem_type = TensorProto.FLOAT
    both = compare(model, {"x": x}, force=True, seconds=0.01)
    assert both.largest_difference == 1
    assert both.results[0].moved is None
    assert both.explanation() == ""


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_every_floating_number_is_changed_a_little(kind):
    x = np.concatenate([np.linspace(-3, 3, 1001), [1, 2, 1024]]).astype(kind)
    changed = BASELINE._nudged(x, 1e-7, np.random.default_rng(0))
    assert changed.dtype == x.dtype
    assert np.array_equal(changed == x, x == 0)
    by = max(1e-7, float(np.finfo(kind).eps))
    assert (abs(changed.astype(float) - x) <= 2 * by * abs(x.astype(float))).all()


# ---- what goes wrong -----------------------------------------------------------------------------


def test_the_other_process_ends(processes):
    compare(two_layers(), {"x": X}, force=True, seconds=0.01)
    (process,) = processes
    assert process.returncode is not None


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
def test_the_other_process_ends_with_an_interruption(processes, monkeypatch, error):
    def interrupt(*arguments):
        raise error

    monkeypatch.setattr(MODULE, "_time_rounds", interrupt)
    with pytest.raises(error):
        compare(two_layers(), {"x": X}, force=True)
    (process,) = processes
    assert process.returncode is not None
    assert process.stdin.closed
    assert process.stdout.closed


def test_a_model_that_onnx_runtime_cannot_run_is_not_compared(processes):
    x = X.astype(np.float64)
    model = model_of([transposed("x", "w", "y")], {"x": x}, ["y"], {"w": W1.astype(np.float64)})
    with pytest.raises(
        ModelError, match=r"^ONNX Runtime alone cannot run the model: .*ConvTranspose"
    ):
        compare(model, {"x": x}, force=True)
    (process,) = processes
    assert process.returncode is not None


def test_a_process_that_dies_is_noticed(processes, monkeypatch):
    monkeypatch.setattr(MODULE, "_time_rounds", lambda *_: processes[0].kill())
    with pytest.raises(ModelError, match=r"^the process of ONNX Runtime alone ended with code -9"):
        compare(two_layers(), {"x": X}, force=True)


@pytest.mark.parametrize(
    ("feeds", "error"), [({}, ParameterError), ({"x": X[0]}, ShapeError)], ids=["none", "rank"]
)
def test_a_wrong_call_is_refused_before_a_process_starts(processes, feeds, error):
    with pytest.raises(error):
        compare(two_layers(), feeds)
    assert not processes


# ---- results of another way ----------------------------------------------------------------------


def other_way(change, name="y"):
    """The results of the two layers, one of them changed, beside those of ONNX Runtime alone."""
    found = dict(zip(["y", "r"], by_onnx_runtime(two_layers(), {"x": X}), strict=True))
    found[name] = change(found[name])
    return MODULE.compare_results(two_layers(), {"x": X}, found, threads=1, seconds=0.01)


def test_results_of_another_way_are_compared_with_onnx_runtime_of_the_whole(processes):
    found = other_way(lambda y: y * np.float32(1 + 1e-6))
    assert [result.name for result in found.results] == ["y", "r"]
    assert 0 < found.largest_difference <= 2e-6 * found.results[0].largest
    assert found.results[1].difference == 0
    assert found.onnxruntime_ms > 0
    assert found.explanation() == ""
    assert str(found).endswith("\nno more than another order of summation explains")
    assert found.as_dict()["largest_difference"] == found.largest_difference
    assert processes[-1].poll() is not None


def test_what_rounding_does_not_explain_is_told():
    found = other_way(lambda y: y + np.float32(1))
    assert found.largest_difference == pytest.approx(1)
    assert found.explanation().endswith("less than the difference, which rounding does not explain")
    assert str(found).splitlines()[-1] == found.explanation()
    shorter = other_way(lambda y: y[..., :-1])
    assert shorter.largest_difference == inf


def test_without_an_explanation_a_large_difference_is_not_called_rounding():
    from tconv.onnx.report import OfflineComparison, ResultComparison

    found = OfflineComparison((ResultComparison("y", (1, 2), 0.5, 1.0),), 1.0)
    assert str(found).endswith("\nmore than another order of summation explains")
