"""Options of ONNX Runtime: honoured in subgraphs, or the model runs as a whole."""

import copy
import json
import pickle
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

import tconv.onnx.model.model
from onnx_graphs import by_onnx_runtime, model_of, models, transposed
from strategies import draws, integers_like, same_numbers
from tconv.errors import ModelError, ParameterError, UnsupportedError
from tconv.onnx import Session
from tconv.onnx.ort.options import Settings

CPU = "CPUExecutionProvider"
X = integers_like((1, 2, 4, 5), "float32", 4)
FEEDS = {"x": X}
STORED = {
    "w1": integers_like((2, 3, 3, 3), "float32", 1),
    "bias": integers_like((3,), "float32", 3),
    "w2": integers_like((3, 1, 2, 2), "float32", 2),
    "one": np.ones(1, np.float32),
    "added": integers_like((3, 1, 1), "float32", 5),
}


def network(kind="float32"):
    """x -> up a -> Abs -> Add r -> up b -> Neg y; the second weight is made of two constants."""
    nodes = [
        transposed("x", "w1", "a", "bias", strides=[2, 1]),
        helper.make_node("Abs", ["a"], ["m"]),
        helper.make_node("Add", ["m", "added"], ["r"]),
        helper.make_node("Mul", ["w2", "one"], ["w"]),
        transposed("r", "w", "b", strides=[2, 2]),
        helper.make_node("Neg", ["b"], ["y"]),
    ]
    stored = {name: value.astype(kind) for name, value in STORED.items()}
    model = model_of(nodes, {"x": X.astype(kind)}, ["y", "r"], stored, sizes=False)
    shape = [helper.make_tensor_value_info("x", 1, ["N", 2, "H", "W"]).type.tensor_type.shape]
    model.graph.input[0].type.tensor_type.shape.CopyFrom(shape[0])
    model.graph.input[0].type.tensor_type.shape.dim[0].denotation = "DATA_BATCH"
    return model


MODEL = network()
BYTES = MODEL.SerializeToString()


def options_with(**attributes):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    for name, value in attributes.items():
        setattr(options, name, value)
    return options


def plain(options, source=BYTES):
    providers = None if getattr(options, "has_providers", bool)() else [CPU]
    return onnxruntime.InferenceSession(source, options, providers=providers)


def reasons(session):
    return {node.reason for node in session.report().nodes}


def assert_same(found, expected):
    assert len(found) == len(expected)
    assert all(map(same_numbers, found, expected))


def assert_as_onnx_runtime(options, reason, source=BYTES, feeds=FEEDS):
    """The answers of ONNX Runtime with these options, and the reason, "" where tconv computes."""
    session, other = Session(source, options, force=True), plain(options, source)
    assert len(reasons(session)) == 1
    assert reason in (found := reasons(session).pop())
    assert bool(reason) == bool(found)
    assert_same(session.run(None, feeds), other.run(None, feeds))
    assert [v.shape for v in session.get_inputs()] == [v.shape for v in other.get_inputs()]
    return session


# ---- arguments -----------------------------------------------------------------------------------

WRONG = [
    ({"thread": 2}, "thread=2 must be an argument of Session; did you mean 'threads'"),
    ({"session_options": None}, "did you mean 'sess_options'"),
    ({"colour": 1}, "known are 'sess_options', 'providers', 'provider_options', 'threads'"),
    ({"sess_options": [CPU]}, "must be onnxruntime.SessionOptions"),
    ({"sess_options": onnxruntime.RunOptions()}, "must be onnxruntime.SessionOptions"),
    ({"providers": CPU}, f"must be a list of names; pass ['{CPU}']"),
    ({"providers": 5}, "providers=5 must be a list of names"),
    ({"providers": {CPU: {}}}, "must be a list of names"),
    ({"providers": [5]}, "providers has 5, must have names"),
    ({"providers": [(CPU,)]}, "must have names or pairs of a name and a dict"),
    ({"providers": [(CPU, 5)]}, "must have names or pairs of a name and a dict"),
    ({"providers": [CPU], "provider_options": {}}, "provider_options={} must be a list of dicts"),
    ({"providers": [CPU], "provider_options": [5]}, "must be a list of dicts"),
    ({"providers": [CPU], "provider_options": [{}, {}]}, "must have one dict for each name"),
    ({"providers": [(CPU, {})], "provider_options": [{}]}, "or pairs in providers alone"),
    ({"enable_fallback": 2}, "enable_fallback=2 must be 0 or 1"),
    ({"read_config_from_model": "yes"}, "read_config_from_model='yes' must be 0 or 1"),
    ({"disabled_optimizers": "Fusion"}, "must be a list of names of optimizers"),
    ({"disabled_optimizers": [1]}, "must be a list of names of optimizers"),
]


@pytest.mark.parametrize(("arguments", "message"), WRONG)
def test_a_wrong_argument_is_named(arguments, message):
    with pytest.raises(ParameterError) as raised:
        Session(BYTES, **arguments)
    assert message in str(raised.value)


@pytest.mark.parametrize("inside", [0, 1, 2, 3])
@pytest.mark.parametrize("outside", [None, 1, 2, 3])
def test_both_numbers_of_threads_are_one(inside, outside):
    options = options_with(intra_op_num_threads=inside)
    if outside in (None, inside):
        assert Settings.of(outside, options).threads == (inside or None)
        return
    with pytest.raises(ParameterError, match=f"^threads={outside} must be .*threads={inside};"):
        Session(BYTES, options, threads=outside)


def test_all_arguments_may_be_given_by_position():
    expected = plain(None).run(None, FEEDS)
    assert_same(Session(BYTES, options_with(), [CPU], [{}], force=True).run(None, FEEDS), expected)
    others = {"enable_fallback": 0, "read_config_from_model": 0, "disabled_optimizers": {"None"}}
    assert_same(Session(BYTES, None, [CPU], **others, force=True).run(None, FEEDS), expected)


def test_a_provider_that_is_not_here_is_warned_of_and_done_without():
    absent = set(onnxruntime.get_all_providers()) - {*onnxruntime.get_available_providers()}
    name = min(absent)
    for make in (
        lambda: Session(BYTES, None, [name, CPU], force=True),
        lambda: Session(BYTES, None, [name], [{"device_id": 0}], force=True),
    ):
        with pytest.warns(
            UserWarning, match=f"providers has '{name}', which this .* lacks"
        ) as seen:
            session = make()
        assert [each.filename for each in seen] == [__file__]
        assert session.get_providers() == [CPU]
        assert reasons(session) == {""}
        session.io_binding()  # which warns no more


# ---- options that can be kept --------------------------------------------------------------------

KEPT = {
    "graph_optimization_level": onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL,
    "enable_cpu_mem_arena": False,
    "enable_mem_pattern": False,
    "enable_mem_reuse": False,
    "intra_op_num_threads": 2,
    "inter_op_num_threads": 2,
    "execution_order": onnxruntime.ExecutionOrder.PRIORITY_BASED,
    "log_severity_level": 3,
    "log_verbosity_level": 1,
    "logid": "mine",
    "profile_file_prefix": "elsewhere",
    "use_deterministic_compute": True,
}


@pytest.fixture
def made(monkeypatch):
    """Sources and options of all sessions of ONNX Runtime that are made."""
    seen, begin = [], onnxruntime.InferenceSession.__init__

    def record(self, source, options=None, *arguments, **keywords):
        seen.append((source, options))
        begin(self, source, options, *arguments, **keywords)

    monkeypatch.setattr(onnxruntime.InferenceSession, "__init__", record)
    return seen


def entry(options, key):
    try:
        return options.get_session_config_entry(key)
    except RuntimeError:
        return None


STOP, SPIN = "session.force_spinning_stop", "session.intra_op.allow_spinning"


@pytest.mark.parametrize("stops", [None, "0", "1"])
@pytest.mark.parametrize("name", KEPT)
def test_subgraphs_get_the_options(made, capfd, name, stops):
    options = options_with(**{name: KEPT[name]})
    options.add_session_config_entry(SPIN, "0")
    if stops is not None:
        options.add_session_config_entry(STOP, stops)
        capfd.readouterr()
    before = {each: getattr(options, each) for each in KEPT}
    session = assert_as_onnx_runtime(options, "")
    subgraphs = [o for source, o in made if b"subgraph of " in source]
    session.io_binding()
    wholes = [o for source, o in made if source == BYTES]
    assert subgraphs
    for each in (*subgraphs, *wholes):
        assert getattr(each, name) == KEPT[name]
        assert entry(each, SPIN) == "0"
        assert entry(each, STOP) == ("1" if each in subgraphs else stops)
    assert {each: getattr(options, each) for each in KEPT} == before
    assert entry(options, STOP) == stops
    out = capfd.readouterr()
    assert "force_spinning_stop" not in out.out + out.err or stops == "0"


def test_options_changed_later_do_not_matter(tmp_path):
    options = options_with()
    session = Session(BYTES, options, force=True)
    options.optimized_model_filepath = str(tmp_path / "wrong")
    other = onnxruntime.OrtValue.ortvalue_from_numpy(STORED["w1"] + 1)
    options.add_initializer("w1", other)
    feeds = {"x": onnxruntime.OrtValue.ortvalue_from_numpy(X)}
    found = [value.numpy() for value in session.run_with_ort_values(None, feeds)]
    assert_same(found, by_onnx_runtime(MODEL, FEEDS))
    assert not list(tmp_path.iterdir())


def test_options_can_be_copied_but_not_pickled():
    options = options_with(intra_op_num_threads=1)
    for force in (False, True):
        session = Session(BYTES, options, force=force)
        for again in (copy.copy(session), copy.deepcopy(session)):
            assert again.get_session_options().intra_op_num_threads == 1
            assert_same(again.run(None, FEEDS), session.run(None, FEEDS))
        with pytest.raises(UnsupportedError, match=r"sess_options cannot be pickled.*threads="):
            pickle.dumps(session)


# ---- options that leave the model to ONNX Runtime ------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value", "shown"),
    [
        ("execution_mode", onnxruntime.ExecutionMode.ORT_PARALLEL, "ORT_PARALLEL"),
        ("session.set_denormal_as_zero", "1", "1"),
        ("session.strict_shape_type_inference", "1", "1"),
    ],
)
def test_some_options_leave_the_model_whole(name, value, shown):
    options = options_with()
    if "." in name:
        options.add_session_config_entry(name, value)
    else:
        setattr(options, name, value)
    assert_as_onnx_runtime(options, f"sess_options: {name}={shown}")


def test_threads_pinned_to_cores_leave_the_model_whole():
    options = options_with(intra_op_num_threads=2)
    options.add_session_config_entry("session.intra_op_thread_affinities", "1")
    session = Session(BYTES, options, force=True)
    assert reasons(session) == {"sess_options: session.intra_op_thread_affinities=1"}


@pytest.mark.skipif(
    not hasattr(onnxruntime.SessionOptions, "add_provider"),
    reason="ONNX Runtime 1.20 has no providers in its options",
)
def test_providers_in_the_options_leave_the_model_whole():
    options = options_with()
    options.add_provider(CPU, {})
    assert_as_onnx_runtime(options, "sess_options: providers")


def test_a_profile_is_of_the_whole_model(tmp_path):
    options = options_with(enable_profiling=True, profile_file_prefix=str(tmp_path / "profile"))
    session = Session(BYTES, options, force=True)
    assert reasons(session) == {"sess_options: enable_profiling=True"}
    assert session.get_profiling_start_time_ns() > 0
    session.run(None, FEEDS)
    (file,) = tmp_path.iterdir()
    assert session.end_profiling() == str(file)
    events = json.loads(file.read_text())
    nodes = {each["name"] for each in events if each.get("cat") == "Node"}
    assert {"up a_kernel_time", "up b_kernel_time"} <= nodes


def test_an_optimised_model_is_written_of_the_whole(tmp_path):
    path = tmp_path / "optimised.onnx"
    assert_as_onnx_runtime(options_with(optimized_model_filepath=str(path)), str(path))
    kinds = [node.op_type for node in onnx.load(path).graph.node]
    assert kinds.count("ConvTranspose") == 2


def test_the_model_of_another_format_is_refused_as_such():
    options = options_with()
    options.add_session_config_entry("session.load_model_format", "ORT")
    with pytest.raises(ModelError, match="ONNX Runtime refuses the model"):
        Session(BYTES, options)


def test_loading_that_is_cancelled_is_refused():
    if not hasattr(onnxruntime.SessionOptions, "set_load_cancellation_flag"):
        return  # as ONNX Runtime 1.20 has not
    options = options_with()
    options.set_load_cancellation_flag(True)
    with pytest.raises(ModelError, match=r"ONNX Runtime refuses the model: .*cancel"):
        Session(BYTES, options, force=True)


def test_options_in_the_model_leave_it_whole(monkeypatch):
    model = copy.deepcopy(MODEL)
    helper.set_model_props(model, {"ort_config": '{"session_options": {"log_severity_level": 4}}'})
    for keywords in ({}, {"read_config_from_model": 1}):
        session = Session(model, force=True, **keywords)
        assert reasons(session) == {"ort_config of the model"}
        assert_same(session.run(None, FEEDS), by_onnx_runtime(MODEL, FEEDS))


@pytest.mark.parametrize("name", [*STORED, "w", "a", "unknown"])
@pytest.mark.parametrize("optimise", [False, True])
def test_a_replaced_initialiser_is_seen(name, optimise):
    """One that tconv reads leaves the model whole; others are replaced in the subgraphs."""
    level = onnxruntime.GraphOptimizationLevel
    options = options_with(
        graph_optimization_level=level.ORT_ENABLE_ALL if optimise else level.ORT_DISABLE_ALL
    )
    other = onnxruntime.OrtValue.ortvalue_from_numpy(STORED.get(name, STORED["w2"]) - 3)
    options.add_initializer(name, other)
    is_read = name in ("w1", "bias", "w")
    reason = f"sess_options: initialiser {name!r} replaced" if is_read else ""
    assert_as_onnx_runtime(options, reason)


def test_a_replaced_initialiser_that_is_given_out_is_seen():
    """As a result, and as the default of an input."""
    model = copy.deepcopy(MODEL)
    model.graph.output.append(helper.make_tensor_value_info("added", 1, None))
    model.graph.input.append(helper.make_tensor_value_info("one", 1, [1]))
    for name in ("added", "one"):
        options = options_with()
        value = onnxruntime.OrtValue.ortvalue_from_numpy(STORED[name] + 5)
        options.add_initializer(name, value)
        reason = f"sess_options: initialiser {name!r} replaced"
        assert_as_onnx_runtime(options, reason, model.SerializeToString())


@draws()
@given(models(), st.data())
def test_whatever_is_replaced_the_answers_are_onnx_runtimes(drawn, data):
    tensors = {t.name: numpy_helper.to_array(t) for t in drawn.model.graph.initializer}
    replaced = data.draw(st.sets(st.sampled_from(sorted(tensors)))) if tensors else set()
    options, kept = options_with(intra_op_num_threads=1), []
    for name in replaced:
        kept.append(onnxruntime.OrtValue.ortvalue_from_numpy(tensors[name] * 2))
        options.add_initializer(name, kept[-1])
    source = drawn.model.SerializeToString()
    try:
        expected = plain(options, source).run(None, drawn.feeds)
        session = Session(source, options, force=True)
    except Exception:  # other laws look at what is refused
        return
    if "output_padding from stride on" in drawn.features:  # garbage before ONNX Runtime 1.32
        return
    for a, b in zip(session.run(None, drawn.feeds), expected, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * np.abs(b).max(initial=1))


@pytest.mark.parametrize(
    ("override", "shape"),
    [
        (lambda options: options.add_free_dimension_override_by_name("H", 4), ["N", 2, 4, "W"]),
        (
            lambda options: options.add_free_dimension_override_by_denotation("DATA_BATCH", 1),
            [1, 2, "H", "W"],
        ),
        (lambda options: options.add_free_dimension_override_by_name("Q", 4), None),
    ],
)
def test_overridden_sizes_are_the_inputs(override, shape):
    options = options_with()
    override(options)
    reason = "sess_options: sizes of inputs replaced" if shape else ""
    session = assert_as_onnx_runtime(options, reason)
    assert session.get_inputs()[0].shape == (shape or ["N", 2, "H", "W"])


def saved_apart(folder):
    path = folder / "model.onnx"
    kept = {"save_as_external_data": True, "location": "weights", "size_threshold": 0}
    onnx.save_model(copy.deepcopy(MODEL), path, **kept)
    return str(path)


def test_weights_in_another_file_are_cut_with_options(tmp_path):
    assert_as_onnx_runtime(options_with(), "", saved_apart(tmp_path))


def test_a_model_that_is_left_is_told_of_without_its_weights(tmp_path, monkeypatch):
    read = []
    monkeypatch.setattr(tconv.onnx.model.model, "load_external_data_for_model", read.append)
    options = options_with(execution_mode=onnxruntime.ExecutionMode.ORT_PARALLEL)
    session = assert_as_onnx_runtime(options, "execution_mode", saved_apart(tmp_path))
    assert [node.name for node in session.report().nodes] == ["up a", "up b"]
    assert not read


def test_without_a_place_for_temporary_files_the_model_is_left(tmp_path, monkeypatch):
    path = saved_apart(tmp_path)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "none"))
    session = Session(path, options_with(), force=True)
    assert {reason[:13] for reason in reasons(session)} == {"sess_options:"}
    assert_same(session.run(None, FEEDS), by_onnx_runtime(MODEL, FEEDS))


def test_replaced_weights_of_another_file_are_seen(tmp_path):
    options = options_with()
    value = onnxruntime.OrtValue.ortvalue_from_numpy(STORED["w1"] + 1)
    options.add_external_initializers(["w1"], [value])
    session = assert_as_onnx_runtime(options, "sess_options: ", saved_apart(tmp_path))
    assert not np.array_equal(session.run(["y"], FEEDS)[0], by_onnx_runtime(MODEL, FEEDS)[0])


@pytest.mark.skipif(
    not hasattr(onnxruntime.SessionOptions, "add_external_initializers_from_files_in_memory"),
    reason="files in memory came after ONNX Runtime 1.20",
)
@pytest.mark.parametrize("is_there", [False, True])
def test_a_file_replaced_by_memory_is_seen(tmp_path, monkeypatch, is_there):
    path = saved_apart(tmp_path)
    weights = np.frombuffer((tmp_path / "weights").read_bytes(), np.float32)
    data = (weights * 2).tobytes()
    if not is_there:
        (tmp_path / "weights").unlink()
    monkeypatch.chdir(tmp_path)
    options = options_with()
    options.add_external_initializers_from_files_in_memory(["weights"], [data], [len(data)])
    session, other = Session(path, options, force=True), plain(options, path)
    assert_same(session.run(None, FEEDS), other.run(None, FEEDS))
    assert reasons(session) == {"sess_options: file 'weights' replaced"}
    assert not np.array_equal(session.run(["y"], FEEDS)[0], by_onnx_runtime(MODEL, FEEDS)[0])
    assert {file.name for file in Path(tmp_path).iterdir()} <= {"model.onnx", "weights"}
