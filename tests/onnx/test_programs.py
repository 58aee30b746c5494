"""Models as programs of tconv: outputs, refusals and interface of ONNX Runtime, for any model."""

import os
import pickle
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnxruntime
import pytest
from hypothesis import given, settings
from onnx import TensorProto, helper, numpy_helper
from processes import run_script

from onnx_graphs import DEFECTS, by_onnx_runtime, conv, model_of, models, transposed
from onnx_laws import assert_as_onnx_runtime
from strategies import draws, integers_like, same_numbers
from tconv.engine.target.target import target
from tconv.errors import ModelError, ParameterError, UnsupportedError
from tconv.onnx import Session, execution
from tconv.onnx.programs import search

pytestmark = pytest.mark.skipif(not target().uses_engine, reason="programs are machine code")

W1, W2 = integers_like((8, 2, 3, 3), "float32", 1), integers_like((8, 3, 2, 2), "float32", 2)


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Whatever a program can have is one, also where it is slower."""
    monkeypatch.setattr(execution, "LEAST_GAIN", -1e9)
    monkeypatch.setattr(search, "BORDER_US", -1e9)


def has_subgraph(report):
    """Whether ONNX Runtime computes a part beside the programs."""
    return bool(report.programs) and report.pieces > 0


def feeds(*sizes, batch=1):
    return {"x": integers_like((batch, 2, *(sizes or (6, 5))), "float32", 3)}


def decoder(**options):
    """A convolution, a branch around an activation, and a transposed convolution."""
    nodes = [
        conv("x", "w1", "a", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Neg", ["b"], ["c"]),
        helper.make_node("Add", ["a", "c"], ["d"]),
        transposed("d", "w2", "y", strides=[2, 2]),
    ]
    return model_of(nodes, feeds(), ["y"], {"w1": W1, "w2": W2}, sizes=False, **options)


def voice(outputs=("y",)):
    """A tail of convolutions after a node that programs do not have, and a branch before it."""
    nodes = [
        helper.make_node("CumSum", ["x", "axis"], ["sums"]),
        helper.make_node("Softplus", ["x"], ["gate"]),
        conv("sums", "w1", "a", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        transposed("b", "w2", "c", strides=[2, 2]),
        helper.make_node("ReduceMean", ["gate"], ["mean"], axes=[1, 2, 3]),
        helper.make_node("Mul", ["c", "mean"], ["y"]),
    ]
    stored = {"w1": W1, "w2": W2, "axis": np.array(3, np.int64)}
    return model_of(nodes, feeds(), list(outputs), stored, sizes=False)


def agree(model, session, given, exactly=True):
    found, expected = session.run(None, given), by_onnx_runtime(model, given)
    for a, b in zip(found, expected, strict=True):
        assert (a.shape, a.dtype) == (b.shape, b.dtype)
        if exactly:
            assert same_numbers(a, b)
        else:
            np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1, np.abs(b).max()))
    return found


# ---- the laws ------------------------------------------------------------------------------------


def test_programs_give_what_onnx_runtime_gives_or_both_raise():
    taken, examples = [], settings().max_examples

    # Up to "ci" the same models in every run, so that it is certain how many have programs.
    @settings(max_examples=max(300, examples), derandomize=examples <= 500)
    @given(models())
    def law(drawn):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(execution, "LEAST_GAIN", -1e9)
            patch.setattr(search, "BORDER_US", -1e9)
            patch.setattr(
                execution.Executions,
                "_program_execution",
                lambda self, programs, decision, regions: (
                    taken.append(regions) or original(self, programs, decision, regions)
                ),
            )
            assert_as_onnx_runtime(drawn, False, 2)

    original = execution.Executions._program_execution
    law()
    assert len(taken) > 5


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_refused_where_onnx_runtime_refuses_it(defect):
    @draws(0.2)
    @given(models(defect))
    def law(drawn):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(execution, "LEAST_GAIN", -1e9)
            patch.setattr(search, "BORDER_US", -1e9)
            assert_as_onnx_runtime(drawn, False, None)

    law()


@pytest.mark.parametrize("make", [decoder, voice])
def test_sizes_may_change_from_run_to_run(make):
    model = make()
    session = Session(model, threads=2)
    for sizes in ((6, 5), (4, 9), (12, 7), (6, 5), *((n, n + 1) for n in range(3, 23))):
        agree(model, session, feeds(*sizes), exactly=make is decoder)
        assert session.report().programs
    agree(model, session, feeds(batch=3), exactly=make is decoder)


@pytest.mark.parametrize("make", [decoder, voice])
def test_any_number_of_threads_gives_the_same_bits(make):
    given = feeds(40, 30)
    found = [Session(make(), threads=n).run(None, given)[0] for n in (1, 2, 3)]
    assert same_numbers(found[0], found[1])
    assert same_numbers(found[0], found[2])


# ---- the interface -------------------------------------------------------------------------------


def test_outputs_are_asked_for_by_name_and_own_their_memory():
    model = voice(["y", "gate", "b", "c"])
    session, given = Session(model), feeds()
    whole = session.run(None, given)
    assert has_subgraph(session.report())
    for names in (["c"], ["b", "y"], ["gate", "gate"], ["c", "c", "y"]):
        found = session.run(names, given)
        for name, array in zip(names, found, strict=True):
            assert same_numbers(array, whole[["y", "gate", "b", "c"].index(name)])
            array[...] = -7
        assert same_numbers(session.run(None, given)[3], whole[3])
    with pytest.raises(ParameterError, match="outputs of the model"):
        session.run(["b", "z"], given)


def test_an_input_that_is_an_output_is_a_copy():
    nodes = [conv("x", "w1", "y", pads=[1, 1, 1, 1])]
    model = model_of(nodes, feeds(), ["y", "x"], {"w1": W1})
    session, given = Session(model), feeds()
    for names in (None, ["x"], ["x", "x"]):
        found = session.run(names, given)
        assert session.report().programs
        found[-1][...] = 9
        assert same_numbers(given["x"], feeds()["x"])


def test_wrong_inputs_are_refused_and_the_session_goes_on():
    model = decoder()
    session = Session(model)
    agree(model, session, feeds())
    with pytest.raises(ParameterError, match="lacks"):
        session.run(None, {})
    with pytest.raises(ParameterError, match="must be inputs"):
        session.run(None, feeds() | {"z": np.ones(3, np.float32)})
    with pytest.raises(ModelError, match="rank"):
        session.run(None, {"x": np.ones((1, 2, 3), np.float32)})
    assert same_numbers(
        session.run(None, {"x": feeds()["x"].astype(">f4")})[0], session.run(None, feeds())[0]
    )
    agree(model, session, feeds())


def test_run_options_and_lists_are_taken():
    model = decoder()
    session, options = Session(model), onnxruntime.RunOptions()
    expected = by_onnx_runtime(model, feeds())[0]
    assert same_numbers(session.run(None, feeds(), options)[0], expected)
    assert same_numbers(session.run(None, {"x": feeds()["x"].tolist()})[0], expected)
    assert same_numbers(session.run(None, {"x": feeds(5, 6)["x"].transpose(0, 1, 3, 2)})[0],
                        by_onnx_runtime(model, {"x": np.ascontiguousarray(
                            feeds(5, 6)["x"].transpose(0, 1, 3, 2))})[0])  # fmt: skip


@pytest.mark.parametrize("make", [decoder, voice])
def test_options_that_do_not_change_what_is_computed_are_taken(make):
    options, model = onnxruntime.SessionOptions(), make()
    options.intra_op_num_threads, options.log_severity_level = 2, 4
    session = Session(model, options)
    options.intra_op_num_threads = 1  # later, which changes nothing
    agree(model, session, feeds(), exactly=make is decoder)
    assert session.report().programs
    assert session.get_session_options().intra_op_num_threads == 2


def replacing(options):
    value = onnxruntime.OrtValue.ortvalue_from_numpy(W1 + 1)
    options.add_initializer("w1", value)
    return value  # which has to live as long as the options


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        (lambda options: setattr(options, "enable_profiling", True), "enable_profiling"),
        (replacing, "initialiser 'w1' replaced"),
    ],
    ids=["profile", "another weight"],
)
def test_options_that_programs_do_not_follow_leave_the_model_to_onnx_runtime(
    change, reason, tmp_path, monkeypatch
):
    monkeypatch.chdir(tmp_path)  # a profile is written where the process is
    options = onnxruntime.SessionOptions()
    kept = change(options)
    session = Session(decoder(), options)
    session.run(None, feeds())
    assert session.report().programs == ()
    with pytest.raises(UnsupportedError, match=reason):
        session.profile(feeds())
    del kept


def test_an_overridden_initialiser_is_used():
    nodes = [conv("x", "w", "y", pads=[1, 1, 1, 1])]
    model = model_of(nodes, feeds() | {"w": W1}, ["y"], {"w": W1})
    session, other = Session(model), feeds() | {"w": W1 + 1}
    agree(model, session, other)
    agree(model, session, feeds())
    assert session.report().programs
    agree(model, session, other)


def test_the_report_and_the_profile_tell_of_the_program():
    session = Session(decoder(), threads=1)
    session.run(None, feeds())
    (program,) = session.report().programs
    assert (len(program.steps), session.report().pieces) == (3, 0)
    assert program.steps[1].nodes == ("b", "c", "d")
    assert all(step.expected_ms > 0 and step.ms is None for step in program.steps)
    assert 0 < program.memory_bytes <= program.unshared_bytes
    assert program.packed_bytes > 0
    assert "3 steps of 5 nodes" in str(session.report())
    times = session.profile(feeds(), runs=2)
    assert times.steps[0].step == "conv 3x3, 2 -> 8"
    assert all(step.ms > 0 for step in times.steps)
    assert "conv_transpose 2x2, 8 -> 3, stride 2x2" in str(times)
    assert times.as_dict()["runs"] == 2
    with pytest.raises(ParameterError, match="runs=0"):
        session.profile(feeds(), runs=0)


def test_a_profile_needs_a_program(monkeypatch):
    monkeypatch.setattr(execution, "LEAST_GAIN", 1e9)
    session = Session(decoder())
    with pytest.raises(UnsupportedError, match="predicted gain below"):
        session.profile(feeds())


def test_a_program_is_taken_only_where_it_is_predicted_to_gain(monkeypatch):
    model = decoder()
    for least, by in ((1e9, "onnxruntime"), (-1e9, "tconv")):
        monkeypatch.setattr(execution, "LEAST_GAIN", least)
        session = Session(model)
        agree(model, session, feeds())
        assert session.report().decision.is_program == (by == "tconv")


# ---- processes, threads, memory ------------------------------------------------------------------


@pytest.mark.parametrize("make", [decoder, voice])
def test_several_threads_run_one_session(make):
    model = make()
    session, sizes = Session(model, threads=2), [(6, 5), (9, 4), (20, 31)]
    expected = [by_onnx_runtime(model, feeds(*size))[0] for size in sizes]

    def run(n):
        return session.run(None, feeds(*sizes[n % 3]))[0]

    with ThreadPoolExecutor(6) as pool:
        for n, found in enumerate(pool.map(run, range(90))):
            np.testing.assert_allclose(found, expected[n % 3], rtol=1e-5, atol=1e-4)


def test_a_session_is_pickled_and_computes_the_same():
    session = Session(decoder())
    again = pickle.loads(pickle.dumps(session))
    assert same_numbers(again.run(None, feeds())[0], session.run(None, feeds())[0])
    assert again.report().programs


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_the_child_of_a_fork_computes_the_same(tmp_path):
    (tmp_path / "m.onnx").write_bytes(decoder().SerializeToString())
    script = f"""
import os, sys, numpy as np
from tconv.onnx import Session, execution
from tconv.onnx.programs import search
execution.LEAST_GAIN = -1e9
session, x = Session({str(tmp_path / "m.onnx")!r}, threads=2), np.ones((1, 2, 40, 30), np.float32)
(before,) = session.run(None, {{"x": x}})
assert session.report().programs
if os.fork() == 0:
    (after,) = session.run(None, {{"x": x}})
    os._exit(0 if np.array_equal(before, after) else 1)
sys.exit(os.WEXITSTATUS(os.wait()[1]))
"""
    run_script(script)


def test_cells_that_are_not_finite_stay_in_their_image():
    """Winograd's algorithm would spread them; the other images keep their bits."""
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((32, 32, 3, 3)).astype(np.float32)
    given = {"x": rng.standard_normal((3, 32, 24, 24)).astype(np.float32)}
    nodes = [conv("x", "w", "a", pads=[1] * 4), helper.make_node("Relu", ["a"], ["y"])]
    model = model_of(nodes, given, ["y"], {"w": weight})
    session = Session(model, threads=2)
    (clean,) = session.run(None, given)
    for value in (np.inf, np.nan, 1e30):
        given["x"][1, 3, 5, 7] = value
        (found,) = session.run(None, given)
        (expected,) = by_onnx_runtime(model, given)
        assert same_numbers(found[[0, 2]], clean[[0, 2]])
        assert np.array_equal(np.isfinite(found), np.isfinite(expected))


# ---- tails ---------------------------------------------------------------------------------------


def test_a_tail_follows_one_subgraph_of_onnx_runtime():
    model = voice()
    session = Session(model)
    agree(model, session, feeds(), exactly=False)
    report = session.report()
    assert has_subgraph(report)
    assert report.pieces == 1
    assert [node.computed_by for node in report.nodes] == ["tconv"]


def test_a_tail_reads_values_of_float32_only():
    """What reads integers, and all before it, stays with ONNX Runtime."""
    nodes = [
        helper.make_node("CumSum", ["x", "axis"], ["sums"]),
        helper.make_node("Cast", ["sums"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Add", ["whole", "one"], ["more"]),
        helper.make_node("Cast", ["more"], ["back"], to=TensorProto.FLOAT),
        conv("back", "w1", "a", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Neg", ["b"], ["c"]),
        helper.make_node("Exp", ["c"], ["y"]),
    ]
    stored = {"w1": W1, "axis": np.array(3, np.int64), "one": np.array(1, np.int64)}
    model = model_of(nodes, feeds(), ["y"], stored, sizes=False)
    session = Session(model)
    agree(model, session, feeds(), exactly=False)
    assert has_subgraph(session.report())


def test_sizes_that_are_computed_from_values_stay_with_onnx_runtime():
    nodes = [
        helper.make_node("Slice", ["x", "start", "end", "axis"], ["part"]),
        conv("part", "w1", "a", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Neg", ["b"], ["c"]),
        helper.make_node("Neg", ["c"], ["y"]),
    ]
    ends = {"start": np.array([0], np.int64), "end": np.array([4], np.int64)}
    stored = {"w1": W1, "axis": np.array([3], np.int64)}
    model = model_of(nodes, feeds() | ends, ["y"], stored, sizes=False)
    session = Session(model)
    for end in (4, 2, 5):
        agree(model, session, feeds() | ends | {"end": np.array([end], np.int64)})
    assert has_subgraph(session.report())


def test_a_node_with_a_subgraph_stays_with_onnx_runtime():
    branch = [
        helper.make_graph([helper.make_node(name, ["x"], ["z"])], "g", [],
                          [helper.make_tensor_value_info("z", TensorProto.FLOAT, None)])
        for name in ("Neg", "Abs")
    ]  # fmt: skip
    nodes = [
        helper.make_node("If", ["is"], ["k"], then_branch=branch[0], else_branch=branch[1]),
        conv("k", "w1", "a", pads=[1, 1, 1, 1]),
        helper.make_node("Relu", ["a"], ["b"]),
        transposed("b", "w2", "c", strides=[2, 2]),
        helper.make_node("Neg", ["c"], ["y"]),
    ]
    model = model_of(nodes, feeds() | {"is": np.array(True)}, ["y"], {"w1": W1, "w2": W2})
    session = Session(model)
    for value in (True, False):
        agree(model, session, feeds() | {"is": np.array(value)})
    assert has_subgraph(session.report())


def test_a_model_without_a_convolution_has_no_program():
    model = model_of([helper.make_node("Relu", ["x"], ["y"])], feeds(), ["y"])
    session = Session(model)
    agree(model, session, feeds())
    assert session.report().programs == ()


def test_a_weight_that_is_shared_is_packed_for_both():
    nodes = [
        conv("x", "w", "a", pads=[1, 1, 1, 1]),
        conv("a", "w", "y", pads=[1, 1, 1, 1]),
    ]
    weight = integers_like((2, 2, 3, 3), "float32", 4)
    model = model_of(nodes, feeds(), ["y"], {"w": weight})
    assert numpy_helper.to_array(model.graph.initializer[0]).shape == (2, 2, 3, 3)
    agree(model, Session(model), feeds())
