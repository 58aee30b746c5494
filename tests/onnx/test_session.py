"""Session against ONNX Runtime's: the same outputs, interface and refusals."""

import copy
import os
import pickle
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from processes import run_script

import tconv.onnx.subgraphs
from onnx_graphs import DEFECTS, FEATURES, by_onnx_runtime, model_of, models, transposed
from onnx_laws import assert_as_onnx_runtime, assert_same_results, attempt
from strategies import draws, integers_like, same_numbers
from tconv.definition import contract
from tconv.engine.target.target import target
from tconv.errors import DTypeError, ModelError, ParameterError, ShapeError, TConvError
from tconv.geometry.geometry import Geometry
from tconv.onnx import Session
from tconv.onnx.subgraphs import LayerKernel, SubgraphSession

# ---- the law -------------------------------------------------------------------------------------

THREADS = st.sampled_from([None, 1, 2])


def test_a_session_gives_what_onnx_runtime_gives_or_both_raise():
    examples, seen = settings().max_examples, set()

    # Up to "ci" the same models in every run, so that it is certain what has been drawn.
    @settings(max_examples=max(300, examples), derandomize=examples <= 500)
    @given(models(), st.booleans(), THREADS)
    def law(drawn, force, threads):
        seen.update(drawn.features)
        assert_as_onnx_runtime(drawn, force, threads)

    law()
    assert not FEATURES - seen


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_refused_where_onnx_runtime_refuses_it(defect):
    @draws(0.2)
    @given(models(defect), st.booleans())
    def law(drawn, force):
        assert_as_onnx_runtime(drawn, force, None)

    law()


# ---- the interface -------------------------------------------------------------------------------


def described(values):
    return [(value.name, value.type, value.shape) for value in values]


@draws()
@given(models(), st.booleans())
def test_names_and_types_are_onnx_runtimes(drawn, force):
    plain, refusal = attempt_by_loading(drawn.model)
    session, error = attempt(lambda: Session(drawn.model, force=force))
    if refusal or error:
        return
    assert described(session.get_inputs()) == described(plain.get_inputs())
    overridable = session.get_overridable_initializers()
    assert described(overridable) == described(plain.get_overridable_initializers())
    outputs = [(value.name, value.type) for value in plain.get_outputs()]
    assert [(value.name, value.type) for value in session.get_outputs()] == outputs


def attempt_by_loading(model):
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    source = model if isinstance(model, bytes | str) else model.SerializeToString()
    try:
        return onnxruntime.InferenceSession(source, options, ["CPUExecutionProvider"]), None
    except Exception as error:
        return None, error


W1, W2 = integers_like((2, 3, 3, 3), "float32", 1), integers_like((3, 1, 2, 2), "float32", 2)
BIAS = integers_like((3,), "float32", 3)
X = integers_like((1, 2, 4, 5), "float32", 4)
FEEDS = {"x": X}


def two_layers(**options):
    """x -> up a -> Abs r -> up b -> y, and the weights of the second made of two constants."""
    nodes = [
        transposed("x", "w1", "a", "bias", strides=[2, 1], pads=[1, 0, 1, 0]),
        helper.make_node("Abs", ["a"], ["r"]),
        helper.make_node("Mul", ["w2", "one"], ["w"]),
        transposed("r", "w", "b", strides=[2, 2]),
        helper.make_node("Neg", ["b"], ["y"]),
    ]
    stored = {"w1": W1, "bias": BIAS, "w2": W2, "one": np.ones(1, np.float32)}
    return model_of(nodes, FEEDS, ["y", "r"], stored, **options)


@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize(
    ("sizes", "dims"),
    [
        (True, None),
        (False, None),
        (False, ["N", 1, "H", "W"]),
        (False, [None] * 4),
        (False, [1, 1, "H", None]),
    ],
)
def test_inputs_and_outputs_are_described_as_by_onnx_runtime(force, sizes, dims):
    model = two_layers(sizes=sizes)
    model.graph.output[0].CopyFrom(helper.make_tensor_value_info("y", TensorProto.FLOAT, dims))
    plain, session = attempt_by_loading(model)[0], Session(model, force=force)
    assert described(session.get_inputs()) == described(plain.get_inputs())
    assert described(session.get_outputs()) == described(plain.get_outputs())
    assert session.get_overridable_initializers() == []
    assert session.get_providers() == plain.get_providers()


@pytest.mark.parametrize("force", [False, True])
def test_metadata_are_onnx_runtimes(force):
    model = two_layers()
    fields = [
        "custom_metadata_map", "description", "domain", "graph_description", "graph_name",
        "producer_name", "version",
    ]  # fmt: skip
    for _ in range(2):
        plain, own = attempt_by_loading(model)[0], Session(model, force=force)
        for field in fields:
            assert getattr(own.get_modelmeta(), field) == getattr(plain.get_modelmeta(), field)
        model.doc_string, model.domain, model.model_version = "words", "tconv", 7
        model.producer_name, model.graph.doc_string = "us", "more words"
        helper.set_model_props(model, {"author": "me", "licence": "MIT"})


@pytest.mark.parametrize("names", [["r"], ["r", "y"], ["y", "r"], ["y", "r", "y"], [], None])
@pytest.mark.parametrize("force", [False, True])
def test_outputs_come_in_the_order_asked_for(names, force):
    expected = by_onnx_runtime(two_layers(), FEEDS, names)
    found = Session(two_layers(), force=force).run(names, FEEDS)
    assert_same_results(found, expected, exactly=True)


def test_the_order_of_feeds_does_not_matter():
    feeds = {"x": X, "w1": W1, "w2": W2}
    model = model_of([transposed("x", "w1", "a"), transposed("a", "w2", "y")], feeds, ["y"])
    session, expected = Session(model, force=True), by_onnx_runtime(model, feeds)
    for names in (["x", "w1", "w2"], ["w2", "x", "w1"]):
        assert_same_results(
            session.run(None, {name: feeds[name] for name in names}), expected, exactly=True
        )


FORMS = {
    "list": lambda x: x.tolist(),
    "tuple": lambda x: tuple(map(np.ndarray.tolist, x)),
    "OrtValue": onnxruntime.OrtValue.ortvalue_from_numpy,
    "big-endian": lambda x: x.astype(">f4"),
    "Fortran": np.asfortranarray,
    "strided": lambda x: np.repeat(x, 2, axis=3)[..., ::2],
    "backwards": lambda x: x[:, :, ::-1].copy()[:, :, ::-1],
    "read-only": lambda x: np.frombuffer(x.tobytes(), x.dtype).reshape(x.shape),
    "unaligned": lambda x: np.frombuffer(b" " + x.tobytes(), x.dtype, offset=1).reshape(x.shape),
    "subclass": lambda x: x.view(np.memmap),
}


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("force", [False, True])
@pytest.mark.parametrize("first", ["ConvTranspose", "Relu"])
def test_an_input_may_come_in_any_form(form, force, first):
    relu = [helper.make_node("Relu", ["x"], ["r"])]
    nodes = [transposed("x", "w", "y")] if first != "Relu" else [*relu, transposed("r", "w", "y")]
    model = model_of(nodes, FEEDS, ["y"], {"w": W1})
    found = Session(model, force=force).run(None, {"x": FORMS[form](X)})
    assert_same_results(found, by_onnx_runtime(model, FEEDS), exactly=True)


@draws()
@given(models())
def test_feeds_stay_and_results_are_the_callers(drawn):
    session, error = attempt(lambda: Session(drawn.model, force=True))
    feeds = {name: value.copy() for name, value in drawn.feeds.items()}
    for value in feeds.values():
        value.flags.writeable = False
    first, error = attempt(lambda: session.run(None, feeds)) if session else (None, error)
    if error:
        return
    assert all(same_numbers(feeds[name], value) for name, value in drawn.feeds.items())
    kept = [value.copy() for value in first]
    for value in first:
        assert not any(np.shares_memory(value, fed) for fed in feeds.values())
        value[...] = np.nan
    assert_same_results(session.run(None, feeds), kept, exactly=True)


@pytest.mark.parametrize("threads", [0, -1, True, 1.5, "2"])
def test_threads_are_a_positive_integer(threads):
    with pytest.raises(ParameterError, match=r"^threads"):
        Session(two_layers(), threads=threads)


def test_force_is_a_flag():
    with pytest.raises(ParameterError, match=r"^force=1 must be"):
        Session(two_layers(), force=1)


def test_any_number_of_threads_gives_the_same_bits():
    x = np.random.default_rng(0).standard_normal((1, 2, 40, 40), np.float32)
    results = [
        Session(two_layers(sizes=False), threads=threads, force=True).run(None, {"x": x})
        for threads in (None, 1, 2, 3)
    ]
    for found in results[1:]:
        assert_same_results(found, results[0], exactly=True)


def test_a_session_may_be_called_from_many_threads_at_once():
    model = two_layers(sizes=False)
    session = Session(model, force=True)
    feeds = [{"x": integers_like((1, 2, 3 + n % 5, 6), "float32", n)} for n in range(64)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda feed: session.run(None, feed), feeds))
    for results, feed in zip(found, feeds, strict=True):
        assert_same_results(results, by_onnx_runtime(model, feed), exactly=True)


COPIES = {"pickle": lambda session: pickle.loads(pickle.dumps(session)), "deepcopy": copy.deepcopy}


@pytest.mark.parametrize("duplicate", COPIES)
@pytest.mark.parametrize("force", [False, True])
def test_a_session_can_be_copied(duplicate, force):
    session = Session(two_layers(), threads=1, force=force)
    again = COPIES[duplicate](session)
    assert_same_results(again.run(None, FEEDS), session.run(None, FEEDS), exactly=True)
    assert repr(again) == repr(session)
    assert repr(session) == f"Session(<bytes>: {2 * force} of 2 ConvTranspose by tconv)"


FORK = """
import multiprocessing, sys
import numpy as np
from tconv.onnx import Session

session = Session(sys.argv[1], force=sys.argv[2] == "True")
held, feeds = [session], {"x": np.load(sys.argv[3])}
expected = session.run(None, feeds)


def run_and_drop(connection):
    connection.send(held[0].run(None, feeds))
    held.clear()
    connection.send("dropped")


here, there = multiprocessing.Pipe()
child = multiprocessing.get_context("fork").Process(target=run_and_drop, args=(there,))
child.start()
assert here.poll(60), "it hangs when it is run"
assert all(map(np.array_equal, here.recv(), expected))
assert here.poll(60), "it hangs when it is dropped"
assert here.recv() == "dropped"
child.kill()
child.join()
assert all(map(np.array_equal, session.run(None, feeds), expected))
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="there is no fork here")
@pytest.mark.parametrize("force", [False, True])
def test_a_session_survives_a_fork(tmp_path, force):
    onnx.save(two_layers(), tmp_path / "model.onnx")
    np.save(tmp_path / "x.npy", FEEDS["x"])
    words = [tmp_path / "model.onnx", force, tmp_path / "x.npy"]
    run_script(FORK, *words)


@pytest.mark.parametrize("external", [False, True])
def test_a_model_may_come_in_any_form(tmp_path, monkeypatch, external):
    model, path = two_layers(), tmp_path / "model.onnx"
    expected = by_onnx_runtime(model, FEEDS)
    kept = {"save_as_external_data": True, "location": "weights", "size_threshold": 0}
    onnx.save_model(copy.deepcopy(model), path, **(kept if external else {}))
    assert (tmp_path / "weights").exists() == external
    monkeypatch.chdir(tmp_path)
    sources = [path, str(path), "model.onnx", os.fsencode(path).decode()]
    if not external:
        data = path.read_bytes()
        sources += [model, data, bytearray(data), memoryview(data)]
    for source in sources:
        assert_same_results(Session(source, force=True).run(None, FEEDS), expected, exactly=True)
    by_path = Session("model.onnx", force=True)
    assert repr(by_path) == f"Session({str(path)!r}: 2 of 2 ConvTranspose by tconv)"
    monkeypatch.chdir(os.sep)
    again = pickle.loads(pickle.dumps(by_path))
    assert_same_results(again.run(None, FEEDS), expected, exactly=True)


def test_a_model_edited_after_loading_does_not_matter():
    model = two_layers()
    expected, session = by_onnx_runtime(model, FEEDS), Session(model, force=True)
    del model.graph.node[:]
    model.graph.initializer[0].raw_data = bytes(len(model.graph.initializer[0].raw_data))
    for each in (session, copy.deepcopy(session)):
        assert_same_results(each.run(None, FEEDS), expected, exactly=True)


def test_a_file_written_anew_after_loading_does_not_matter(tmp_path):
    model = two_layers()
    expected = by_onnx_runtime(model, FEEDS)
    path = tmp_path / "model.onnx"
    path.write_bytes(model.SerializeToString())
    session = Session(path, force=True)
    for tensor in model.graph.initializer:
        tensor.raw_data = bytes(len(tensor.raw_data))
    path.write_bytes(model.SerializeToString())
    for _ in range(2):
        assert_same_results(session.run(None, FEEDS), expected, exactly=True)


@pytest.mark.parametrize("made", ["w", "copied", "negated"])
def test_a_weight_that_is_an_output_is_the_callers_to_write(made):
    """A session keeps weights packed and looks at them once: nobody may reach them."""
    w = integers_like((16, 16, 4, 4)).astype(np.float32)
    nodes = [helper.make_node("ConvTranspose", ["x", made], ["y"], strides=[2, 2])]
    if made != "w":
        how = "Identity" if made == "copied" else "Neg"
        nodes.insert(0, helper.make_node(how, ["w"], [made]))
    graph = helper.make_graph(
        nodes,
        "graph",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [1, 16, 3, 3])],
        [helper.make_tensor_value_info(n, TensorProto.FLOAT, None) for n in ("y", made)],
        [numpy_helper.from_array(w, "w")],
    )
    opset = [helper.make_opsetid("", 17)]
    session = Session(helper.make_model(graph, opset_imports=opset, ir_version=8), force=True)
    x = integers_like((1, 16, 3, 3), seed=1).astype(np.float32)
    y, weight = session.run(None, {"x": x})
    expected = y.copy(), weight.copy()
    for _ in range(2):
        weight[...] = 0
        y, weight = session.run(None, {"x": x})
        assert np.array_equal(y, expected[0])
        assert np.array_equal(weight, expected[1])


@pytest.mark.parametrize("force", [False, True])
def test_run_options_reach_onnx_runtime(force):
    options = onnxruntime.RunOptions()
    session = Session(two_layers(), force=force)
    assert len(session.run(None, FEEDS, options)) == 2
    options.terminate = True
    with pytest.raises(ModelError, match="terminate"):
        session.run(None, FEEDS, options)


# ---- what is left to ONNX Runtime, and what report says ------------------------------------------


def reasons(session):
    return [(node.name, node.computed_by, node.reason) for node in session.report().nodes]


def test_the_report_tells_sizes_attributes_and_times():
    session = Session(two_layers(), force=True)
    report = session.report()
    assert report.elapsed_ms is report.elsewhere_ms is report.nodes[0].ms is None
    session.run(None, FEEDS)
    report = session.report()
    first, second = report.nodes
    assert (first.name, first.output, first.computed_by, first.reason) == ("up a", "a", "tconv", "")
    assert first.attributes == "pads 1,0,1,0, strides 2x1"
    assert (first.x_shape, first.weight_shape) == (X.shape, W1.shape)
    assert (first.y_shape, second.y_shape) == ((1, 3, 7, 7), (1, 1, 14, 14))
    assert 0 < first.ms + second.ms < report.elapsed_ms
    assert 0 < report.elsewhere_ms < report.elapsed_ms
    assert report.pieces == 2  # Abs, Neg
    assert report.as_dict()["nodes"][1]["weight_shape"] == W2.shape
    for word in ("up a", "1×2×4×5", "2×3×3×3", "1×3×7×7", "strides 2x1", "2 of 2 ConvTranspose"):
        assert word in str(report)


def test_nodes_that_gain_nothing_are_left_to_onnx_runtime_unless_forced():
    nodes = [transposed("x", "w", "a"), helper.make_node("MatMul", ["m", "m"], ["y"])]
    feeds = FEEDS | {"m": np.ones((300, 300), np.float32)}
    model = model_of(nodes, feeds, ["a", "y"], {"w": W1})
    left = Session(model)
    assert reasons(left) == [("up a", "onnxruntime", "predicted gain below 3 %")]
    assert left.report().pieces == 1
    left.run(None, feeds)
    assert left.report().elapsed_ms == left.report().elsewhere_ms > 0
    assert "left to ONNX Runtime: predicted " in str(left.report())
    assert reasons(Session(model, force=True)) == [("up a", "tconv", "")]


def graph_of(nodes, output):
    result = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
    return helper.make_graph(nodes, "inner", [], [result])


def test_a_node_inside_if_is_left_to_onnx_runtime():
    branches = {
        "then_branch": graph_of([transposed("x", "w", "inner")], "inner"),
        "else_branch": graph_of([helper.make_node("Neg", ["a"], ["minus"])], "minus"),
    }
    nodes = [
        transposed("x", "w", "a"),
        helper.make_node("If", ["condition"], ["y"], name="choice", **branches),
    ]
    feeds = {"x": X, "condition": np.array(True)}
    model = model_of(nodes, feeds, ["y"], {"w": W1})
    session = Session(model, force=True)
    assert reasons(session) == [
        ("up a", "tconv", ""),
        ("up inner", "onnxruntime", "inside If choice"),
    ]
    for condition in (np.array(True), np.array(False)):
        feeds["condition"] = condition
        found = session.run(None, feeds)
        assert_same_results(found, by_onnx_runtime(model, feeds), exactly=True)


def test_a_node_inside_loop_is_left_to_onnx_runtime():
    body = helper.make_graph(
        [
            helper.make_node("Identity", ["on"], ["still on"]),
            transposed("before", "w", "after"),
        ],
        "body",
        [
            helper.make_tensor_value_info("n", TensorProto.INT64, []),
            helper.make_tensor_value_info("on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("before", TensorProto.FLOAT, None),
        ],
        [
            helper.make_tensor_value_info("still on", TensorProto.BOOL, []),
            helper.make_tensor_value_info("after", TensorProto.FLOAT, None),
        ],
    )
    w = integers_like((2, 2, 2, 2), "float32")
    loop = helper.make_node("Loop", ["times", "", "x"], ["y"], body=body)
    model = model_of([loop], FEEDS, ["y"], {"w": w, "times": np.array(3)})
    session = Session(model, force=True)
    assert reasons(session) == [("up after", "onnxruntime", "inside Loop y")]
    assert_same_results(session.run(None, FEEDS), by_onnx_runtime(model, FEEDS), exactly=True)


def test_a_node_inside_a_function_is_taken():
    opsets = [helper.make_opsetid("", 17), helper.make_opsetid("own", 1)]
    body = [transposed("v", "k", "inner"), helper.make_node("Relu", ["inner"], ["result"])]
    function = helper.make_function("own", "Up", ["v", "k"], ["result"], body, opsets[:1])
    nodes = [
        helper.make_node("Up", ["x", "w"], ["a"], domain="own"),
        helper.make_node("Up", ["a", "w2"], ["y"], domain="own"),
    ]
    model = model_of(nodes, FEEDS, ["y"], {"w": W1, "w2": W2})
    model.functions.append(function)
    del model.opset_import[:]
    model.opset_import.extend(opsets)
    session = Session(model, force=True)
    assert [node.computed_by for node in session.report().nodes] == ["tconv", "tconv"]
    assert_same_results(session.run(None, FEEDS), by_onnx_runtime(model, FEEDS), exactly=True)


def test_a_sparse_weight_is_left_to_onnx_runtime():
    model = model_of([transposed("x", "w", "y")], FEEDS, ["y"])
    values = numpy_helper.from_array(np.array([5.0], np.float32), "w")
    at = numpy_helper.from_array(np.array([7]), "w at")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, at, [2, 3, 3, 3]))
    session = Session(model, force=True)
    assert reasons(session) == [("up y", "onnxruntime", "sparse weight")]
    assert_same_results(session.run(None, FEEDS), by_onnx_runtime(model, FEEDS), exactly=True)


def test_ort_format_is_left_to_onnx_runtime(tmp_path):
    options = onnxruntime.SessionOptions()
    options.optimized_model_filepath = str(tmp_path / "model.ort")
    options.add_session_config_entry("session.save_model_format", "ORT")
    model = two_layers()
    onnxruntime.InferenceSession(model.SerializeToString(), options, ["CPUExecutionProvider"])
    for source in (tmp_path / "model.ort", (tmp_path / "model.ort").read_bytes()):
        session = Session(source, force=True)
        assert session.report().nodes == ()  # nobody can look inside
        assert session.report().pieces == 1
        assert described(session.get_inputs()) == [("x", "tensor(float)", [1, 2, 4, 5])]
        assert_same_results(session.run(None, FEEDS), by_onnx_runtime(model, FEEDS), exactly=True)


@pytest.mark.parametrize("kind", ["bfloat16", "int32", "uint8", "bool"])
def test_a_type_that_neither_takes_is_refused(kind):
    half = TensorProto.BFLOAT16 if kind == "bfloat16" else getattr(TensorProto, kind.upper())
    model = model_of([transposed("x", "w", "y")], FEEDS, ["y"], opset=22)
    for value in (*model.graph.input, *model.graph.output):
        value.type.tensor_type.elem_type = half
    model.graph.initializer.append(helper.make_tensor("w", half, W1.shape, abs(W1).ravel()))
    with pytest.raises(
        ModelError, match=r"^ONNX Runtime refuses the model: .*; check the model\.$"
    ):
        Session(model, force=True)


@pytest.mark.parametrize("kind", ["float16", "float64"])
def test_types_that_onnx_runtime_lacks_are_computed_by_tconv(kind):
    x, w, b = X.astype(kind), W1.astype(kind), BIAS.astype(kind)
    nodes = [
        transposed("x", "w", "a", "b", strides=[2, 2]),
        helper.make_node("Identity", ["a"], ["y"]),
    ]
    model = model_of(nodes, {"x": x}, ["y"], {"w": w, "b": b})
    geometry = Geometry.of(x.shape, w.shape, stride=2)
    # Of float16 ONNX Runtime computes in float32, of float64 it has none.
    for force in (False, True) if kind == "float64" else (True,):
        session = Session(model, force=force)
        assert session.report().nodes[0].computed_by == "tconv"
        (y,) = session.run(None, {"x": x})
        assert y.dtype == kind
        assert same_numbers(y, contract(geometry, "y", x, w, bias=b))


# ---- wrong calls ---------------------------------------------------------------------------------


@pytest.mark.parametrize("how", [{"force": True}, {"method": "onnxruntime"}, {"method": "measure"}])
@pytest.mark.parametrize(
    ("names", "feeds", "error", "message"),
    [
        (
            ["z"],
            FEEDS,
            ParameterError,
            "output_names has 'z', must be outputs of the model: 'y', 'r'; ",
        ),
        (
            None,
            {},
            ParameterError,
            "input_feed lacks 'x', must have every input; pass x tensor(float)[",
        ),
        (None, {"X": X}, ParameterError, "input_feed has 'X', must be inputs of the model: 'x'; "),
        (
            None,
            {"x": X, "w1": W1},
            ParameterError,
            "input_feed has 'w1', must be inputs of the model",
        ),
        (
            None,
            {"x": X.astype("float64")},
            DTypeError,
            "input 'x' has dtype float64, must be float32; pass x.astype('float32').",
        ),
        (None, {"x": X[0]}, ShapeError, "input 'x' has shape (2, 4, 5), must be x tensor(float)["),
        (None, {"x": X[:, :1]}, ShapeError, "input 'x' has shape (1, 1, 4, 5), must be x tensor("),
        (None, {"x": [[1, 2], [3]]}, DTypeError, "input 'x' is no array of float32 ("),
        (None, {"x": ["one"]}, DTypeError, "input 'x' is no array of float32 ("),
        (None, {"x": None}, DTypeError, "input 'x' has dtype object, must be float32; "),
        (None, {"x": "words"}, DTypeError, "input 'x' has dtype <U5, must be float32; "),
    ],
    ids=str,
)
def test_a_wrong_call_is_refused_in_words(how, names, feeds, error, message):
    session = Session(two_layers(), **how)
    with pytest.raises(error) as found:
        session.run(names, feeds)
    assert str(found.value).startswith(message)
    assert_same_results(  # and the session is as good as before
        session.run(None, FEEDS), by_onnx_runtime(two_layers(), FEEDS), exactly=True
    )


def test_a_clash_inside_names_the_node():
    session = Session(two_layers(sizes=False), force=True)
    with pytest.raises(ShapeError, match=r"^node 'up a': X has 5 channels but W of shape"):
        session.run(None, {"x": np.ones((1, 5, 4, 4), np.float32)})
    with pytest.raises(ShapeError, match=r"^node 'up a': X has shape \(2, 4\) and W"):
        session.run(None, {"x": np.ones((2, 4), np.float32)})


# ---- no copies -----------------------------------------------------------------------------------


def watch_layers(patch, before=lambda: None, after=lambda x, y: None):
    """Call `before` ahead of each layer of tconv, and `after` with what goes in and comes out."""
    compute = LayerKernel.__call__

    def watched(self, values):
        before()
        found = compute(self, values)
        after(values.get(self.layer.inputs[0]), values[self.layer.result])
        return found

    patch.setattr(LayerKernel, "__call__", watched)


@pytest.fixture
def handed_over(monkeypatch):
    """What goes into and comes out of tconv and ONNX Runtime, in order."""
    calls, subgraph = [], SubgraphSession.__call__

    def watch_subgraph(self, values, options=None):
        fed = [values[name] for name in self.inputs]
        subgraph(self, values, options)
        calls.append(("subgraph", fed, [values[name] for name in self.outputs]))

    watch_layers(monkeypatch, after=lambda x, y: calls.append(("tconv", [x], [y])))
    monkeypatch.setattr(SubgraphSession, "__call__", watch_subgraph)
    return calls


def test_arrays_are_handed_over_as_they_are(handed_over):
    (y,) = Session(two_layers(), force=True).run(["y"], FEEDS)
    who, fed, made = zip(*(call for call in handed_over if call[1]), strict=True)
    assert who == ("tconv", "subgraph", "tconv", "subgraph")
    for (before,), (after,) in zip(made[:-1], fed[1:], strict=True):
        assert before is after
        assert after.flags.c_contiguous  # ONNX Runtime would copy others
        assert after.flags.aligned
    assert fed[0][0] is X
    assert made[-1][0] is y


@draws(0.5)
@given(models())
def test_what_tconv_makes_is_contiguous(drawn):
    made = []
    with pytest.MonkeyPatch.context() as patch:
        watch_layers(patch, after=lambda x, y: made.append(y))
        session, error = attempt(lambda: Session(drawn.model, force=True))
        if not error:
            _, error = attempt(lambda: session.run(None, drawn.feeds))
    if not error:
        assert bool(made) == any(n.computed_by == "tconv" for n in session.report().nodes)
    assert all(y.flags.c_contiguous for y in made)


def test_what_is_needed_no_more_is_let_go(monkeypatch):
    kept, alive = [], []
    watch_layers(
        monkeypatch,
        before=lambda: alive.append([each() is not None for each in kept]),
        after=lambda x, y: kept.append(weakref.ref(y)),
    )
    w = integers_like((2, 2, 2, 2), "float32")
    nodes = [transposed(a, "w", b) for a, b in ("xa", "ab", "bc", "cy")]
    session = Session(model_of(nodes, FEEDS, ["y"], {"w": w}), force=True)
    session.run(None, FEEDS)
    assert alive == [[], [True], [False, True], [False, False, True]]
    assert not any(each() is not None for each in kept)


def test_a_size_that_comes_again_is_planned(monkeypatch):
    made, plan = [], tconv.onnx.subgraphs.PlannedCall
    monkeypatch.setattr(
        tconv.onnx.subgraphs, "PlannedCall", lambda *how: (made.append(how), plan(*how))[1]
    )
    model = two_layers(sizes=False)
    session = Session(model, force=True)
    feeds = [{"x": integers_like((1, 2, n, 5), "float32", n)} for n in (4, 9, 4, 9, 4)]
    found = [session.run(["y"], feed)[0] for feed in feeds]
    assert len(made) == (4 if target().uses_engine else 10)  # for two sizes of two layers
    for feed, y in zip(feeds, found, strict=True):
        assert same_numbers(y, by_onnx_runtime(model, feed, ["y"])[0])
    assert not np.shares_memory(found[0], found[2])


@pytest.mark.parametrize("names", [1.0, 3, "y", {"y"}, [None], [["y"]], object()])
def test_names_are_a_list_of_outputs(names):
    with pytest.raises(ParameterError, match=r"^output_names"):
        Session(two_layers(), force=True).run(names, FEEDS)
    if not isinstance(names, set):  # of which ONNX Runtime makes a list
        with pytest.raises(ParameterError, match=r"^output_names"):
            Session(two_layers(), method="onnxruntime").run(names, FEEDS)


@pytest.mark.parametrize("feed", [None, 3, [], "x", [("x", X)], {1: X}])
@pytest.mark.parametrize("how", [{"force": True}, {"method": "onnxruntime"}, {"method": "measure"}])
def test_a_feed_is_a_mapping_of_names(feed, how):
    with pytest.raises(ParameterError, match=r"^input_feed"):
        Session(two_layers(), **how).run(None, feed)


@pytest.mark.parametrize("value", [{}, object(), np.ma.ones(X.shape), range(2**60), [None]])
@pytest.mark.parametrize("how", [{"force": True}, {"method": "onnxruntime"}, {"method": "measure"}])
def test_an_input_is_an_array(value, how):
    with pytest.raises(TConvError, match=r"^input 'x'"):
        Session(two_layers(), **how).run(None, {"x": value})
