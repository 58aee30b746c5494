"""Members of InferenceSession: all present, with the same results."""

import copy
import inspect
import os
import pickle
import threading
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from processes import run_script

from onnx_graphs import by_onnx_runtime, model_of, models, transposed
from strategies import draws, integers_like, same_numbers
from tconv.errors import ModelError, ParameterError, TConvError
from tconv.onnx import Session

PLAIN = onnxruntime.InferenceSession
X = integers_like((1, 2, 4, 5), "float32", 4)
FEEDS = {"x": X}
STORED = {
    "w1": integers_like((2, 3, 3, 3), "float32", 1),
    "w2": integers_like((3, 1, 2, 2), "float32", 2),
}


def two_layers(stored=None, *, sizes=False):
    """x -> Neg -> up a -> Abs -> up b -> Neg -> y."""
    nodes = [
        helper.make_node("Neg", ["x"], ["n"]),
        transposed("n", "w1", "a", strides=[2, 1]),
        helper.make_node("Abs", ["a"], ["r"]),
        transposed("r", "w2", "b", strides=[2, 2]),
        helper.make_node("Neg", ["b"], ["y"]),
    ]
    return model_of(nodes, FEEDS, ["y", "r"], stored or STORED, sizes=sizes)


MODEL = two_layers()
EXPECTED = by_onnx_runtime(MODEL, FEEDS)
BYTES = MODEL.SerializeToString()


def plain(*arguments, **keywords):
    return PLAIN(BYTES, *arguments, **({"providers": ["CPUExecutionProvider"]} | keywords))


def assert_expected(found, expected=EXPECTED):
    assert len(found) == len(expected)
    assert all(map(same_numbers, found, expected))


def taken(session):
    return sum(node.computed_by == "tconv" for node in session.report().nodes)


@pytest.fixture
def made(monkeypatch):
    """The sources of all sessions of ONNX Runtime that are made."""
    sources, begin = [], PLAIN.__init__

    def record(self, source, *arguments, **keywords):
        sources.append(source)
        begin(self, source, *arguments, **keywords)

    monkeypatch.setattr(PLAIN, "__init__", record)
    return sources


# ---- what there is -------------------------------------------------------------------------------


def members(kind):
    return {
        name: value
        for name in dir(kind)
        if not name.startswith("_") and callable(value := getattr(kind, name))
    }


def shapes(parameters):
    return [(each.name, each.kind, each.default) for each in parameters]


@pytest.mark.parametrize("name", ["__init__", *members(PLAIN)])
def test_each_member_takes_the_same_arguments(name):
    theirs = shapes(inspect.signature(getattr(PLAIN, name)).parameters.values())
    ours = shapes(inspect.signature(getattr(Session, name)).parameters.values())
    if name == "__init__":
        keywords = [each for each in ours if each[1] is inspect.Parameter.KEYWORD_ONLY]
        assert all(each[2] is not inspect.Parameter.empty for each in keywords)
        ours = [each for each in ours if each not in keywords]
    assert ours == theirs


def test_only_what_explains_is_new():
    assert members(Session).keys() - members(PLAIN).keys() == {"profile", "report"}


@pytest.mark.parametrize("force", [False, True])
def test_attributes_are_onnx_runtimes(force):
    other, session = plain(onnxruntime.SessionOptions()), Session(BYTES, force=force)
    assert isinstance(session, PLAIN)
    assert not vars(session).keys() & vars(other).keys()
    for name, value in vars(other).items():
        assert type(getattr(session, name)) is type(value), name
    assert session._model_bytes == BYTES
    assert [value.name for value in session._inputs_meta] == ["x"]


def test_an_unknown_attribute_loads_nothing(made):
    session = Session(BYTES, force=True)
    before = len(made)
    for name in ("get_input", "_repr_html_", "__array__", "_sessions"):
        with pytest.raises(AttributeError, match=f"'Session' object has no attribute '{name}'"):
            getattr(session, name)
    assert made[before:].count(BYTES) == 0


def test_half_of_a_session_has_no_attributes():
    for name in ("_sess", "_loaded", "_whole_", "anything"):
        with pytest.raises(AttributeError, match="has no attribute"):
            getattr(Session.__new__(Session), name)


def test_what_describes_the_model_does_without_a_session_of_the_whole(made):
    session, other = Session(BYTES, force=True), plain()
    made.clear()
    for name in ("get_inputs", "get_outputs", "get_overridable_initializers"):
        found = [(each.name, each.type, each.shape) for each in getattr(session, name)()]
        assert found == [(each.name, each.type, each.shape) for each in getattr(other, name)()]
    assert session.get_modelmeta().graph_name == other.get_modelmeta().graph_name
    assert session.get_providers() == other.get_providers()
    assert session.get_provider_options() == other.get_provider_options()
    session.get_session_options()
    session.disable_fallback()
    session.enable_fallback()
    session.run(None, FEEDS)
    session.report()
    assert taken(session) == 2
    assert BYTES not in made
    session.io_binding()
    session.run_with_ort_values(None, {"x": onnxruntime.OrtValue.ortvalue_from_numpy(X)})
    assert made.count(BYTES) == 1


# ---- other ways to run ---------------------------------------------------------------------------


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("bind", [Session.io_binding, onnxruntime.IOBinding])
def test_a_run_with_bound_memory(force, bind):
    session = Session(BYTES, force=force)
    assert_expected(session.run(None, FEEDS))
    bound = bind(session)
    bound.bind_cpu_input("x", X)
    out = onnxruntime.OrtValue.ortvalue_from_numpy(np.zeros_like(EXPECTED[0]))
    bound.bind_ortvalue_output("y", out)
    bound.bind_output("r")
    session.run_with_iobinding(bound)
    assert_expected(bound.copy_outputs_to_cpu())
    assert same_numbers(out.numpy(), EXPECTED[0])
    assert_expected(session.run(None, FEEDS))


@draws(0.4)
@given(models(), st.booleans())
def test_a_run_with_ort_values_gives_what_onnx_runtime_gives(drawn, force):
    try:
        expected = by_onnx_runtime(drawn.model, drawn.feeds)
        session = Session(drawn.model, force=force)
    except Exception:  # other laws look at what is refused
        return
    if "output_padding from stride on" in drawn.features:  # garbage before ONNX Runtime 1.32
        return
    feeds = {
        name: onnxruntime.OrtValue.ortvalue_from_numpy(value) for name, value in drawn.feeds.items()
    }
    found = session.run_with_ort_values(None, feeds)
    for a, b in zip(found, expected, strict=True):
        if drawn.exact:
            assert same_numbers(a.numpy(), b)
        else:
            np.testing.assert_allclose(
                a.numpy(), b, rtol=1e-5, atol=1e-5 * np.abs(b).max(initial=1)
            )


@pytest.mark.parametrize("names", [None, ["r"], ["r", "y"]])
@pytest.mark.parametrize("force", [False, True])
def test_an_asynchronous_run_calls_back(names, force):
    session, called, results = Session(BYTES, threads=2, force=force), threading.Event(), []

    def call_back(*arguments):
        results.append(arguments)
        called.set()

    session.run_async(names, FEEDS, call_back, "mine")
    assert called.wait(60)
    found, mine, error = results[0]
    assert (mine, error) == ("mine", "")
    assert_expected(found, by_onnx_runtime(MODEL, FEEDS, names))


def test_a_run_with_a_vector():
    session, kind = Session(BYTES, force=True), onnxruntime.capi._pybind_state
    feeds, fetches = kind.OrtValueVector(), kind.OrtValueVector()
    feeds.push_back(onnxruntime.OrtValue.ortvalue_from_numpy(X)._ortvalue)
    device = onnxruntime.OrtDevice.make("cpu", 0)._get_c_device()
    options = onnxruntime.RunOptions()
    session.run_with_ortvaluevector(options, ["x"], feeds, ["y", "r"], fetches, [device] * 2)
    assert_expected([value.numpy() for value in fetches])


def test_a_value_of_the_session():
    if not hasattr(PLAIN, "create_ortvalue_from_shape_and_type"):
        return  # which came after ONNX Runtime 1.26
    session = Session(BYTES, force=True)
    value = session.create_ortvalue_from_shape_and_type(X.shape, np.float32, "cpu")
    value.update_inplace(X)
    (y,) = session.run_with_ort_values(["y"], {"x": value})
    assert same_numbers(y.numpy(), EXPECTED[0])


@pytest.mark.parametrize("force", [False, True])
def test_what_is_fed_may_be_ort_values(force):
    feeds = {"x": onnxruntime.OrtValue.ortvalue_from_numpy(X)}
    assert_expected(Session(BYTES, force=force).run(None, feeds))


@pytest.mark.parametrize("feeds", [[X], X, None, 5])
def test_feeds_without_names_are_refused(feeds):
    with pytest.raises(ParameterError, match=r"(?s)^input_feed=.* must be a mapping of names"):
        Session(BYTES, force=True).run(None, feeds)


def test_other_members_answer_as_onnx_runtimes():
    other, session = plain(), Session(BYTES, force=True)
    assert session.get_tuning_results() == other.get_tuning_results()
    assert session.end_profiling() == other.end_profiling()
    assert session.get_profiling_start_time_ns() == other.get_profiling_start_time_ns()
    for name in ("get_input_memory_infos", "get_output_memory_infos", "get_input_epdevices"):
        if hasattr(PLAIN, name):
            found, expected = getattr(session, name)(), getattr(other, name)()
            assert list(map(type, found)) == list(map(type, expected))
            assert len(found) == 1 + ("output" in name)


def test_a_model_that_onnx_runtime_cannot_run_whole_says_so():
    """ONNX Runtime has no ConvTranspose of float64 on CPUs."""
    stored = {name: value.astype("float64") for name, value in STORED.items()}
    feeds = {"x": X.astype("float64")}
    model = model_of([transposed("x", "w1", "y")], feeds, ["y"], stored)
    session = Session(model)
    (y,) = session.run(None, feeds)
    for ask in (session.io_binding, lambda: hasattr(session, "_sess")):
        with pytest.raises(ModelError, match="ONNX Runtime refuses the model"):
            ask()
    assert same_numbers(session.run(None, feeds)[0], y)


# ---- providers and options -----------------------------------------------------------------------

CPU, AZURE = "CPUExecutionProvider", "AzureExecutionProvider"
LISTS = [None, [], [CPU], (CPU,), [(CPU, {})], [(CPU, {"a": 1})], [CPU, CPU]]
LISTS += [[AZURE], [AZURE, CPU], [CPU, AZURE]] * (AZURE in onnxruntime.get_available_providers())


@pytest.mark.filterwarnings("ignore:Duplicate provider:UserWarning")
@pytest.mark.parametrize("providers", LISTS)
@pytest.mark.parametrize("set_later", [False, True])
def test_providers_are_named_as_by_onnx_runtime(providers, set_later):
    expected = plain(providers=providers)
    session = Session(BYTES, None, None if set_later else providers, force=True)
    if set_later:
        session.set_providers(providers)
    for _ in range(2):
        assert session.get_providers() == expected.get_providers()
        assert session.get_provider_options() == expected.get_provider_options()
        assert taken(session) == 2
        assert_expected(session.run(None, FEEDS))
        session.io_binding()  # which loads the whole model


def test_other_providers_get_the_whole_model(capsys):
    """ONNX Runtime falls back to the CPU, and prints so."""
    session = Session(BYTES, force=True)
    with pytest.warns(UserWarning, match="Specified provider 'None such'"):
        session.set_providers(["None such"])
    assert "Falling back to ['CPUExecutionProvider']" in capsys.readouterr().out
    assert {node.reason for node in session.report().nodes} == {"None such"}
    assert session.get_providers() == [CPU]
    assert_expected(session.run(None, FEEDS))
    session.set_providers()
    assert taken(session) == 2
    assert session.report().nodes[0].x_shape is None  # of the last run with other providers
    assert_expected(session.run(None, FEEDS))


@pytest.mark.filterwarnings("ignore:Specified provider 'None such':UserWarning")
def test_providers_that_fail_leave_the_session_as_it_was():
    session = Session(BYTES, force=True)
    session.disable_fallback()
    for providers in ([("None such", {})], CPU, [[CPU, {}]]):
        error = ModelError if "None such" in str(providers) else ParameterError
        with pytest.raises(error):
            session.set_providers(providers)
        assert session.get_providers() == [CPU]
        assert taken(session) == 2
        assert_expected(session.run(None, FEEDS))
        assert_expected(copy.deepcopy(session).run(None, FEEDS))


def test_fallback_reaches_onnx_runtime():
    for force in (False, True):
        session = Session(BYTES, force=force)
        for load in (lambda session=session: None, session.io_binding):
            load()
            session.enable_fallback()
            assert session._enable_fallback
            session.disable_fallback()
            assert not session._enable_fallback
            assert not copy.deepcopy(session)._enable_fallback


def attributes(options):
    values = {name: getattr(options, name) for name in dir(options) if name[0] != "_"}
    return {name: value for name, value in values.items() if not callable(value)}


@pytest.mark.parametrize("force", [False, True])
def test_session_options_are_those_that_were_given(force):
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.logid, options.intra_op_num_threads = 3, "mine", 2
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.add_session_config_entry("session.intra_op.allow_spinning", "0")
    session = Session(BYTES, options, force=force)
    for _ in range(2):
        found = session.get_session_options()
        assert attributes(found) == attributes(plain(options).get_session_options())
        assert found.get_session_config_entry("session.intra_op.allow_spinning") == "0"
        with pytest.raises(RuntimeError):  # those of subgraphs are others
            found.get_session_config_entry("session.force_spinning_stop")
        session.io_binding()
    assert Session(BYTES, threads=3, force=force).get_session_options().intra_op_num_threads == 3


# ---- files, copies, threads, processes -----------------------------------------------------------


def test_another_file_in_its_place_is_not_taken_for_the_whole(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(BYTES)
    session, bound = Session(path, force=True), Session(path, force=True)
    bound.io_binding()
    zeros = {name: np.zeros_like(value) for name, value in STORED.items()}
    path.write_bytes(two_layers(zeros).SerializeToString() + b"")
    os.utime(path, ns=(1, 1))
    with pytest.raises(ModelError, match=r"model\.onnx' is no longer the file .* make another"):
        session.io_binding()
    assert_expected(session.run(None, FEEDS))
    feeds = {"x": onnxruntime.OrtValue.ortvalue_from_numpy(X)}
    assert_expected([value.numpy() for value in bound.run_with_ort_values(None, feeds)])


DUPLICATES = {
    "pickle": lambda session: pickle.loads(pickle.dumps(session)),
    "copy": copy.copy,
    "deepcopy": copy.deepcopy,
}


@pytest.mark.parametrize("duplicate", DUPLICATES)
@pytest.mark.parametrize("used", [False, True])
def test_a_copy_keeps_what_was_asked_for(duplicate, used):
    providers = [(CPU, {"a": "1"})]
    session = Session(BYTES, None, providers, threads=2, force=True, enable_fallback=1)
    if used:
        session.io_binding()
    again = DUPLICATES[duplicate](session)
    assert again._sess is not session._sess
    assert again.get_session_options().intra_op_num_threads == 2
    assert again._enable_fallback
    assert taken(again) == 2
    assert_expected(again.run(None, FEEDS))


def test_threads_that_ask_at_once_get_one_session(made):
    session = Session(BYTES, force=True)
    made.clear()
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda _: session._sess, range(16)))
    assert all(each is found[0] for each in found)
    assert made.count(BYTES) == 1


FORK = """
import os, sys
import numpy as np
import onnxruntime
from tconv.onnx import Session

options = onnxruntime.SessionOptions()
options.intra_op_num_threads = 2
session, x = Session(sys.argv[1], options, force=True), np.load(sys.argv[2])


def both():
    bound = session.io_binding()
    bound.bind_cpu_input("x", x)
    for name in ("y", "r"):
        bound.bind_output(name)
    session.run_with_iobinding(bound)
    return session.run(None, {"x": x}) + bound.copy_outputs_to_cpu()


expected, last = both(), session._sess
child = os.fork()
if not child:
    if sys.argv[3] == "providers":
        session.set_providers(["CPUExecutionProvider"])
    right = all(map(np.array_equal, both(), expected)) and session._sess is not last
    session.__dict__.clear()
    os._exit(not right)
assert os.waitpid(child, 0)[1] == 0
assert session._sess is last and all(map(np.array_equal, both(), expected))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("first", ["run", "providers"])
def test_the_child_of_a_fork_loads_the_whole_anew(tmp_path, first):
    onnx.save(MODEL, tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", X)
    words = [tmp_path / "model.onnx", tmp_path / "x.npy", first]
    run_script(FORK, *words)


def test_errors_of_the_constructor_are_tconvs():
    for wrong in (5, None, object(), [BYTES]):
        with pytest.raises(TConvError, match="must be a path, bytes or an"):
            Session(wrong)
