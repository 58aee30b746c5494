"""A comparison runs a model both ways, in two processes, and says how far apart the answers are."""

import json
import sys
from math import inf, nan

import numpy as np
import onnxruntime
import pytest
from onnx import TensorProto, helper

from onnx_graphs import by_onnx_runtime, model_of, transposed
from strategies import integers_like, same_numbers
from tconv.errors import ModelError, ParameterError, ShapeError, UnsupportedError
from tconv.onnx import Session, compare

MODULE = sys.modules["tconv.onnx.compare"]  # tconv.onnx.compare is the function
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


def test_nodes_left_to_onnx_runtime_are_shown_too():
    both = compare(two_layers(), {"x": X}, method="onnxruntime", seconds=0.01)
    assert [node.reason for node in both.nodes] == ["method='onnxruntime'"] * 2
    assert [node.tconv_ms for node in both.nodes] == [None] * 2
    assert both.largest_difference == 0
    assert "0 of 2 ConvTranspose computed by tconv" in str(both)


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


# ---- what goes wrong -----------------------------------------------------------------------------


def test_the_other_process_ends(processes):
    compare(two_layers(), {"x": X}, force=True, seconds=0.01)
    (process,) = processes
    assert process.returncode is not None


@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError, SystemExit])
def test_the_other_process_ends_with_an_interruption(processes, monkeypatch, error):
    def interrupt(*arguments):
        raise error

    monkeypatch.setattr(MODULE, "_take_turns", interrupt)
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
    monkeypatch.setattr(MODULE, "_take_turns", lambda *_: processes[0].kill())
    with pytest.raises(ModelError, match=r"^the process of ONNX Runtime alone ended with code -9"):
        compare(two_layers(), {"x": X}, force=True)


@pytest.mark.parametrize(
    ("feeds", "error"), [({}, ParameterError), ({"x": X[0]}, ShapeError)], ids=["none", "rank"]
)
def test_a_wrong_call_is_refused_before_a_process_starts(processes, feeds, error):
    with pytest.raises(error):
        compare(two_layers(), feeds)
    assert not processes
