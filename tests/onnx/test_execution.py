"""Choice between executions: ONNX Runtime's outputs in any case, few decisions, each made once."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor
from itertools import count

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper

from onnx_graphs import by_onnx_runtime, model_of, models, transposed
from strategies import draws, integers_like, same_numbers
from tconv.errors import ModelError, ParameterError
from tconv.onnx import Decision, Session, execution
from tconv.onnx.partition.profitability import Prediction, predict


class NoPrograms:
    """A search that finds none."""

    programs, why = None, ""

    def __init__(self, *_):
        pass

    def forecast(self, *_):
        return None


@pytest.fixture(autouse=True)
def without_programs(monkeypatch):
    """These tests are about the choice between ONNX Runtime alone and a partition."""
    monkeypatch.setattr(execution, "ProgramSearch", NoPrograms)


W1, W2 = integers_like((2, 3, 3, 3), "float32", 1), integers_like((3, 2, 2, 2), "float32", 2)


def two_layers(**options):
    nodes = [
        transposed("x", "w1", "a", strides=[2, 2]),
        helper.make_node("Abs", ["a"], ["b"]),
        transposed("b", "w2", "c", strides=[2, 2]),
        helper.make_node("Neg", ["c"], ["y"]),
    ]
    return model_of(nodes, feeds(), ["y"], {"w1": W1, "w2": W2}, **options)


def feeds(*sizes, batch=1):
    return {"x": integers_like((batch, 2, *(sizes or (4, 5))), "float32", 3)}


def deciding(monkeypatch, *taken, gain=0.5):
    """Let every prediction be that these layers, or none, are worth taking; return its calls."""
    calls = []

    def predicted(graph, shapes, threads):
        layers = [each for each in graph.layers if not each.reason]
        calls.append(shapes)
        chosen = tuple(layers[n] for n in taken)
        return Prediction(chosen, 1000.0, 1000.0 * (1 - gain) if chosen else 1000.0)

    monkeypatch.setattr(execution, "predict", predicted)
    return calls


def taken(session):
    return [node.computed_by == "tconv" for node in session.report().nodes]


# ---- the law -------------------------------------------------------------------------------------


@draws()
@given(models(), st.data())
def test_whatever_is_decided_answers_agree_and_bits_repeat(drawn, data):
    try:
        expected = by_onnx_runtime(drawn.model, drawn.feeds)
    except Exception:
        return
    ways = [set(), {0}, {1}, {0, 1, 2, 3}]
    way, rest = data.draw(st.sampled_from(ways)), data.draw(st.sampled_from(ways))
    calls = count()

    def predicted(graph, shapes, threads):
        layers = [each for each in graph.layers if not each.reason]
        chosen = tuple(e for n, e in enumerate(layers) if n in (way if next(calls) < 2 else rest))
        return Prediction(chosen, 1.0, 0.5 if chosen else 1.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(execution, "predict", predicted)
        session = Session(drawn.model)
        first = session.run(None, drawn.feeds)
        again = session.run(None, drawn.feeds)
    for a, b, c in zip(first, again, expected, strict=True):
        assert same_numbers(a, b)
        assert a.dtype == c.dtype
        if drawn.exact:
            assert same_numbers(a, c)
        else:
            np.testing.assert_allclose(
                a, c, rtol=1e-5, atol=1e-5 * max(1, np.abs(c).max(initial=0))
            )


@pytest.mark.parametrize("sizes", [True, False])
@pytest.mark.parametrize("which", [(), (0,), (1,), (0, 1)])
def test_the_layers_that_gain_are_taken_and_no_others(monkeypatch, which, sizes):
    deciding(monkeypatch, *which)
    session = Session(two_layers(sizes=sizes))
    for _ in range(2):
        found = session.run(None, feeds())
        assert same_numbers(found[0], by_onnx_runtime(two_layers(), feeds())[0])
    assert taken(session) == [n in which for n in range(2)]
    report = session.report()
    assert report.decision == Decision(
        "tconv" if which else "onnxruntime",
        "predicted to gain" if which else "predicted gain below 3 %",
        1.0,
        0.5 if which else 1.0,
    )
    reasons = {node.reason for node in report.nodes if node.computed_by != "tconv"}
    assert reasons <= {"too small to gain" if which else "predicted gain below 3 %"}


@pytest.mark.parametrize(
    ("gain", "by"), [(0.029, "onnxruntime"), (0.031, "tconv"), (-1, "onnxruntime")]
)
def test_a_gain_of_three_per_cent_decides(monkeypatch, gain, by):
    deciding(monkeypatch, 0, 1, gain=gain)
    session = Session(two_layers())
    session.run(None, feeds())
    assert session.report().decision.by == by
    assert taken(session) == [by == "tconv"] * 2


def test_one_session_of_onnx_runtime_runs_what_is_left_to_it(monkeypatch):
    deciding(monkeypatch)
    session = Session(two_layers())
    session.run(None, feeds())
    assert session.report().pieces == 1
    assert (
        "0 of 2 ConvTranspose computed by tconv · left to ONNX Runtime: predicted 1 ms by ONNX "
        "Runtime alone, 1 ms with tconv · whole model "
    ) in str(session.report())
    shown = session.report().as_dict()["decision"]
    assert (shown["by"], shown["onnxruntime_ms"], shown["is_measured"]) == ("onnxruntime", 1, False)


# ---- sizes ---------------------------------------------------------------------------------------


def test_sizes_that_the_file_says_are_decided_as_it_is_loaded(monkeypatch):
    calls = deciding(monkeypatch, 0)
    session = Session(two_layers())
    assert len(calls) == 1
    assert calls[0]["x"] == (1, 2, 4, 5)
    assert calls[0]["a"] == (1, 3, 9, 11)
    session.run(None, feeds())
    assert len(calls) == 1


def test_other_sizes_are_decided_anew_and_bounded(monkeypatch):
    by_size = {}

    def predicted(graph, shapes, threads):
        rows = shapes["x"][2]
        by_size[rows] = rows >= 20
        layers = tuple(graph.layers) if rows >= 20 else ()
        return Prediction(layers, 1000.0, 500.0 if layers else 1000.0)

    monkeypatch.setattr(execution, "predict", predicted)
    model = two_layers(sizes=False)
    model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 2, "H", "W"])
    )
    session = Session(model)
    by_size.clear()
    sizes = [4, 5, 20, 21, 6, 22, 7, 23, 8, 24, 3, 25, 26]
    for rows in [*sizes, *sizes]:
        (y,) = session.run(None, feeds(rows, 5))
        assert same_numbers(y, by_onnx_runtime(model, feeds(rows, 5))[0])
        # Those that are not decided go the way of those of about their size.
        assert taken(session) == [rows >= 20] * 2
    assert list(by_size) == sizes[:8]


def test_sizes_that_all_go_one_way_are_looked_at_no_more(monkeypatch):
    calls = deciding(monkeypatch)
    model = two_layers(sizes=False)
    session = Session(model)
    for rows in range(2, 30):
        session.run(None, feeds(rows, 3))
    assert len(calls) <= 9  # one of them a guess
    assert not any(taken(session))


def test_sizes_that_follow_from_values_are_found_by_a_run(monkeypatch):
    """x is as long as there are numbers above 0."""
    nodes = [
        helper.make_node("Compress", ["v", "keep"], ["k"], axis=2),
        transposed("k", "w", "a", strides=[2]),
        helper.make_node("Neg", ["a"], ["y"]),
    ]
    v = integers_like((1, 2, 30), "float32", 5)
    w = integers_like((2, 2, 3), "float32", 6)
    feed = {"v": v, "keep": v[0, 0] > 0}
    model = model_of(nodes, feed, ["y"], {"w": w})
    seen = []

    def predicted(graph, shapes, threads):
        found = predict(graph, shapes, threads)
        if found is not None:
            seen.append((shapes["k"], shapes["a"]))
        return found

    monkeypatch.setattr(execution, "predict", predicted)
    session = Session(model)
    expected = by_onnx_runtime(model, feed)
    for _ in range(2):
        assert same_numbers(session.run(None, feed)[0], expected[0])
    length = int(feed["keep"].sum())
    assert seen == [((1, 2, length), (1, 2, 2 * length + 1))]
    assert session.report().decision.onnxruntime_ms > 0


def test_first_runs_of_several_threads_decide_once(monkeypatch):
    calls = deciding(monkeypatch, 0)
    session = Session(two_layers(sizes=False))
    calls.clear()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: session.run(None, feeds())[0], range(16)))
    assert all(same_numbers(y, found[0]) for y in found)
    assert len(calls) == 1


# ---- what was asked ------------------------------------------------------------------------------


def test_method_onnxruntime_takes_no_node(monkeypatch):
    calls = deciding(monkeypatch, 0, 1)
    session = Session(two_layers(), method="onnxruntime")
    (y,) = session.run(None, feeds())
    assert same_numbers(y, by_onnx_runtime(two_layers(), feeds())[0])
    assert not any(taken(session))
    assert not calls
    assert {node.reason for node in session.report().nodes} == {"method='onnxruntime'"}


def test_force_hands_nothing_over(monkeypatch):
    calls = deciding(monkeypatch)
    session = Session(two_layers(), force=True)
    session.run(None, feeds())
    assert all(taken(session))
    assert not calls


@pytest.mark.parametrize("quicker", ["onnxruntime", "tconv"])
def test_measure_keeps_the_quicker(monkeypatch, quicker):
    monkeypatch.setattr(execution, "_MEASURED_S", 0.0)
    run = execution.LoadedModel.run

    def timed(self, *args, **options):
        results, ran = run(self, *args, **options)
        by = "tconv" if self.assigned else "onnxruntime"
        return results, execution.RunProfile(ran.layers, 1.0 if by == quicker else 2.0, 0.0)

    monkeypatch.setattr(execution.LoadedModel, "run", timed)
    session = Session(two_layers(), method="measure")
    for _ in range(2):
        assert same_numbers(
            session.run(None, feeds())[0], by_onnx_runtime(two_layers(), feeds())[0]
        )
    decision = session.report().decision
    assert (decision.by, decision.is_measured) == (quicker, True)
    assert sorted((decision.onnxruntime_ms, decision.tconv_ms)) == [1.0, 2.0]
    assert "measured" in str(session.report())


def test_measure_keeps_what_runs(monkeypatch):
    monkeypatch.setattr(execution, "_MEASURED_S", 0.0)
    session = Session(refused_by_onnx_runtime(), method="measure")
    session.run(None, feeds())
    assert taken(session) == [True]
    assert session.report().decision.reason.startswith("by onnxruntime it does not run: ")


def test_an_error_while_it_is_measured_is_told_and_decides_nothing(monkeypatch):
    monkeypatch.setattr(execution, "_MEASURED_S", 0.0)
    nodes = [transposed("x", "w1", "a"), helper.make_node("Reshape", ["a", "shape"], ["y"])]
    feed = feeds() | {"shape": np.array([5, -1])}
    model = model_of(nodes, feed, ["y"], {"w1": W1})
    session = Session(model, method="measure")
    with pytest.raises(ModelError, match=r"Reshape.*check the model, and the inputs: x \(1, 2"):
        session.run(None, feed)
    good = feed | {"shape": np.array([3, -1])}
    assert same_numbers(session.run(None, good)[0], by_onnx_runtime(model, good)[0])
    assert session.report().decision.is_measured


@pytest.mark.parametrize("which", [(), (0,)])
@pytest.mark.parametrize("method", ["auto", "measure"])
def test_inputs_may_be_sequences(monkeypatch, which, method):
    monkeypatch.setattr(execution, "_MEASURED_S", 0.0)
    deciding(monkeypatch, *which)
    nodes = [
        helper.make_node("SequenceAt", ["s", "n"], ["x"]),
        transposed("x", "w1", "y", strides=[2, 2]),
    ]
    model = model_of(nodes, {"n": np.array(0)}, ["y"], {"w1": W1})
    model.graph.output[0].type.tensor_type.elem_type = onnx.TensorProto.FLOAT
    tensor = helper.make_tensor_type_proto(onnx.TensorProto.FLOAT, None)
    kind = helper.make_sequence_type_proto(tensor)
    model.graph.input.append(onnx.ValueInfoProto(name="s", type=kind))
    feed = {"s": [feeds()["x"], feeds(2, 2)["x"]], "n": np.array(1)}
    session = Session(model, method=method)
    expected = by_onnx_runtime(model, feed)[0]
    for _ in range(2):
        assert same_numbers(session.run(None, feed)[0], expected)


@pytest.mark.parametrize("method", ["tconv", "", None, 3])
def test_a_method_is_one_of_three(method):
    with pytest.raises(ParameterError, match=r"^method="):
        Session(two_layers(), method=method)


def test_force_excludes_a_method():
    with pytest.raises(ParameterError, match=r"^force=True excludes method='measure'; pass one of"):
        Session(two_layers(), force=True, method="measure")


def test_a_pickle_keeps_what_was_asked():
    session = pickle.loads(pickle.dumps(Session(two_layers(), method="onnxruntime")))
    session.run(None, feeds())
    assert session.report().decision.reason == "method='onnxruntime'"


# ---- what may go wrong ---------------------------------------------------------------------------


def refused_by_onnx_runtime():
    """A node that the specification allows; a dilation larger than the output padding."""
    nodes = [transposed("x", "w1", "y", dilations=[2, 2], output_padding=[1, 1])]
    model = model_of(nodes, feeds(), ["y"], {"w1": W1}, sizes=False)
    with pytest.raises(Exception, match="output_padding"):
        by_onnx_runtime(model, feeds())
    return model


def test_what_onnx_runtime_alone_refuses_is_computed(monkeypatch):
    deciding(monkeypatch)  # that it is left
    session = Session(refused_by_onnx_runtime())
    (y,) = session.run(None, feeds())
    geometry = {"stride": 1, "dilation": 2, "output_padding": 1}
    import tconv

    assert same_numbers(y, tconv.conv_transpose(feeds()["x"], W1, **geometry))
    assert taken(session) == [True]
    assert session.report().decision.reason.startswith("ONNX Runtime alone refuses it: ")
    with pytest.raises(ModelError):
        Session(refused_by_onnx_runtime(), method="onnxruntime").run(None, feeds())


def test_an_error_of_a_run_is_onnx_runtimes_and_loses_nothing(monkeypatch):
    """Reshape to what does not fit, by an input."""
    deciding(monkeypatch)
    nodes = [transposed("x", "w1", "a"), helper.make_node("Reshape", ["a", "shape"], ["y"])]
    feed = feeds() | {"shape": np.array([5, -1])}
    model = model_of(nodes, feed, ["y"], {"w1": W1})
    session = Session(model)
    for _ in range(3):
        with pytest.raises(ModelError, match=r"Reshape.*check the model, and the inputs: x \(1, 2"):
            session.run(None, feed)
    good = feed | {"shape": np.array([3, -1])}
    assert same_numbers(session.run(None, good)[0], by_onnx_runtime(model, good)[0])


@pytest.mark.parametrize("change", ["rewritten", "removed"])
@pytest.mark.parametrize("guess", [True, False])
def test_a_file_that_changes_before_the_first_run_changes_no_answer(
    monkeypatch, tmp_path, guess, change
):
    model, path = two_layers(sizes=False), tmp_path / "model.onnx"
    onnx.save(model, path)
    guesses = iter([guess])

    def predicted(graph, shapes, threads):
        is_taken = next(guesses, not guess)
        layers = tuple(graph.layers) if is_taken else ()
        return Prediction(layers, 1.0, 0.5 if layers else 1.0)

    monkeypatch.setattr(execution, "predict", predicted)
    model.graph.input[0].CopyFrom(
        helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 2, "H", "W"])
    )
    onnx.save(model, path)
    session = Session(path)
    if change == "removed":
        path.unlink()
    else:
        other = two_layers(sizes=False)
        for tensor in other.graph.initializer:
            tensor.raw_data = bytes(len(tensor.raw_data))
        onnx.save(other, path)
        os.utime(path, ns=(1, 1))
    expected = by_onnx_runtime(model, feeds())
    for _ in range(2):
        assert same_numbers(session.run(None, feeds())[0], expected[0])
    assert taken(session) == [guess] * 2  # what was loaded stays


@pytest.mark.parametrize(
    "form",
    [np.ndarray.tolist, onnxruntime.OrtValue.ortvalue_from_numpy, lambda x: x.astype(">f4")],
    ids=["list", "OrtValue", "big-endian"],
)
@pytest.mark.parametrize("sizes", [True, False])
@pytest.mark.parametrize("which", [(), (0, 1)])
def test_inputs_of_any_form_take_either_way(monkeypatch, form, which, sizes):
    deciding(monkeypatch, *which)
    session = Session(two_layers(sizes=sizes))
    expected = by_onnx_runtime(two_layers(), feeds())
    for _ in range(2):
        assert same_numbers(session.run(None, {"x": form(feeds()["x"])})[0], expected[0])
        assert same_numbers(session.run(["y"], feeds())[0], expected[0])
