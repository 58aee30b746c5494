"""Broken model files: every refusal says what is wrong, and a way out."""

import os
import re
from contextlib import suppress

import numpy as np
import onnx
import pytest
from onnx import ModelProto, helper, numpy_helper

from onnx_graphs import by_onnx_runtime, model_of, transposed
from strategies import integers_like, same_numbers
from tconv.errors import DTypeError, ModelError, ParameterError, ShapeError, TConvError
from tconv.onnx import Session, check_weights

X, W = integers_like((1, 2, 4, 5), "float32", 1), integers_like((2, 3, 3, 3), "float32", 2)
FEEDS = {"x": X}


def good(**options):
    """x -> ConvTranspose "up a" -> Relu "relu" -> y."""
    relu = helper.make_node("Relu", ["a"], ["y"], name="relu")
    return model_of([transposed("x", "w", "a"), relu], FEEDS, ["y"], {"w": W}, **options)


GOOD = good().SerializeToString()


def run(source):
    return Session(source, force=True).run(None, FEEDS)


# ---- bytes and files -----------------------------------------------------------------------------

DAMAGED = "model is damaged or no ONNX model: it cannot be parsed; export or download it again."
NO_MODELS = [
    (b"", "model is empty; pass an ONNX model."),
    (ModelProto(), "model is empty; pass an ONNX model."),
    (b"Some words.\n" * 20, DAMAGED),
    (b"\x89PNG\r\n\x1a\n" + bytes(50), DAMAGED),
    (bytes(100), DAMAGED),
    (b'{"ir_version": 8}', DAMAGED),
    (ModelProto(ir_version=8).SerializeToString(), "model holds no graph; pass an ONNX model."),
    (onnx.GraphProto(name="g").SerializeToString(), "model "),
]


@pytest.mark.parametrize(("source", "message"), NO_MODELS, ids=str)
def test_what_is_no_model_is_refused(tmp_path, source, message):
    with pytest.raises(ModelError, match="^" + re.escape(message)):
        Session(source)
    if isinstance(source, bytes):
        path = tmp_path / "file"
        path.write_bytes(source)
        message = message.replace("model", repr(str(path)), 1)
        with pytest.raises(ModelError, match="^" + re.escape(message)):
            Session(path)


def test_a_file_cut_short_is_refused():
    for length in range(1, len(GOOD)):
        with pytest.raises(ModelError, match=r"^(model|ONNX Runtime refuses) .*; .*\.$"):
            Session(GOOD[:length])


def test_a_byte_gone_wrong_never_ends_the_process():
    for at in range(0, len(GOOD), 3):
        with suppress(TConvError):
            Session(GOOD[:at] + bytes([GOOD[at] ^ 0xFF]) + GOOD[at + 1 :], force=True)


@pytest.mark.parametrize(
    ("path", "error"),
    [
        ("missing.onnx", FileNotFoundError),
        (".", IsADirectoryError),
        ("", IsADirectoryError),
        ("file/model.onnx", NotADirectoryError),
    ],
)
def test_a_file_that_cannot_be_read(tmp_path, monkeypatch, path, error):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "file").write_bytes(GOOD)
    with pytest.raises(error) as found:
        Session(path)
    assert os.fspath(found.value.filename) == os.path.abspath(path)


@pytest.mark.parametrize("source", [None, 3, ["model.onnx"], FEEDS, "a\0b"], ids=type)
def test_a_model_is_a_path_or_bytes_or_a_proto(source):
    with pytest.raises(ParameterError, match=r"^model.* must be a (path|string).*; pass "):
        Session(source)


# ---- graphs --------------------------------------------------------------------------------------


def edited(edit):
    """A good model after one edit."""
    model = good()
    edit(model, model.graph)
    return model


def replaced(array):
    return lambda model, graph: graph.initializer[0].CopyFrom(numpy_helper.from_array(array, "w"))


def biased(array):
    def edit(model, graph):
        graph.initializer.append(numpy_helper.from_array(array, "b"))
        graph.node[0].input.append("b")

    return edit


def attribute(*values):
    return lambda model, graph: graph.node[0].attribute.extend(
        helper.make_attribute("strides", value) for value in values
    )


REFUSED = "ONNX Runtime refuses the model: "
DAMAGED_WEIGHT = "weight 'w' of shape (2, 3, 3, 3) is damaged: "
BROKEN = {
    # versions and operators
    "opset 99": (lambda m, g: setattr(m.opset_import[0], "version", 99), REFUSED),
    "no opset": (lambda m, g: m.ClearField("opset_import"), REFUSED),
    "IR version 99": (lambda m, g: setattr(m, "ir_version", 99), REFUSED),
    "unknown operator": (lambda m, g: setattr(g.node[1], "op_type", "Frobnicate"), REFUSED),
    "unknown domain": (lambda m, g: setattr(g.node[1], "domain", "my.own"), REFUSED),
    # names
    "nobody makes it": (lambda m, g: g.node[1].input.__setitem__(0, "nothing"), REFUSED),
    "made twice": (lambda m, g: g.node[1].output.__setitem__(0, "a"), REFUSED),
    "a circle": (lambda m, g: g.node[0].input.__setitem__(0, "y"), REFUSED),
    "no nodes": (lambda m, g: g.ClearField("node"), REFUSED),
    "no inputs": (lambda m, g: g.ClearField("input"), REFUSED),
    "one input twice": (lambda m, g: g.input.append(g.input[0]), REFUSED),
    "input without a type": (lambda m, g: g.input[0].ClearField("type"), REFUSED),
    "input of no type": (
        lambda m, g: setattr(g.input[0].type.tensor_type, "elem_type", 0),
        REFUSED,
    ),
    "input of no such type": (
        lambda m, g: setattr(g.input[0].type.tensor_type, "elem_type", 95),
        REFUSED,
    ),
    "output of another type": (
        lambda m, g: setattr(g.output[0].type.tensor_type, "elem_type", 7),
        REFUSED,
    ),
    # the node
    "no weight": (lambda m, g: g.node[0].input.pop(), REFUSED),
    "weight of no name": (lambda m, g: g.node[0].input.__setitem__(1, ""), REFUSED),
    "x of no name": (lambda m, g: g.node[0].input.__setitem__(0, ""), REFUSED),
    "nothing at all": (lambda m, g: g.node[0].ClearField("input"), REFUSED),
    "no output": (lambda m, g: g.node[0].ClearField("output"), REFUSED),
    "two outputs": (lambda m, g: g.node[0].output.append("more"), REFUSED),
    "four inputs": (lambda m, g: g.node[0].input.extend(["w", "w"]), REFUSED),
    "attribute given twice": (attribute([1, 1], [2, 2]), REFUSED),
    "attribute of another type": (attribute(2), REFUSED),
    "stride 0": (attribute([0, 1]), REFUSED),
    "group 0": (
        lambda m, g: g.node[0].attribute.append(helper.make_attribute("group", 0)),
        "node 'up a': group=0 must be at least 1; export or download the model again.",
    ),
    # weights
    "4 bytes too few": (
        lambda m, g: setattr(g.initializer[0], "raw_data", g.initializer[0].raw_data[4:]),
        DAMAGED_WEIGHT,
    ),
    "4 bytes too many": (
        lambda m, g: setattr(g.initializer[0], "raw_data", bytes(4 * W.size + 4)),
        DAMAGED_WEIGHT,
    ),
    "1 byte too many": (
        lambda m, g: setattr(g.initializer[0], "raw_data", bytes(4 * W.size + 1)),
        DAMAGED_WEIGHT,
    ),
    "no values": (lambda m, g: g.initializer[0].ClearField("raw_data"), DAMAGED_WEIGHT),
    "no type": (lambda m, g: setattr(g.initializer[0], "data_type", 0), DAMAGED_WEIGHT),
    "no such type": (
        lambda m, g: setattr(g.initializer[0], "data_type", 77),
        DAMAGED_WEIGHT + "there is no type 77; export or download the model again.",
    ),
    "negative size": (
        lambda m, g: g.initializer[0].dims.__setitem__(0, -2),
        "weight 'w' of shape (-2, 3, 3, 3) is damaged: a size is negative; ",
    ),
    "huge size": (
        lambda m, g: g.initializer[0].dims.__setitem__(0, 2**62),
        "weight 'w' of shape (",
    ),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_graph_is_refused(name):
    edit, message = BROKEN[name]
    model = edited(edit)
    for force in (False, True):
        with pytest.raises(ModelError) as found:
            Session(model, force=force).run(None, FEEDS)
        if force or message.startswith((REFUSED, "node")):  # else ONNX Runtime reads the weights
            assert str(found.value).startswith(message)
        assert str(found.value).endswith(".")
        assert ".cc:" not in str(found.value)


def test_a_refusal_prints_nothing(capfd):
    model = edited(lambda m, g: setattr(g.node[1], "op_type", "Frobnicate"))
    data = model.SerializeToString()
    for source, why in ((data, REFUSED), (data.replace(b"Frob", b"\x80rob"), "is not UTF-8")):
        with pytest.raises(ModelError, match=why):
            Session(source)
    assert capfd.readouterr() == ("", "")


CLASHING = {
    "weight of another type": (
        replaced(W.astype(np.float64)),
        DTypeError,
        "node 'up a': weight has dtype float64, must be float32 as x; export the model again.",
    ),
    "bias of another type": (
        biased(np.zeros(3)),
        DTypeError,
        "node 'up a': bias has dtype float64,",
    ),
    "weight of another rank": (
        replaced(W[0]),
        ShapeError,
        "node 'up a': X has shape (1, 2, 4, 5) and ",
    ),
    "weight without axes": (
        replaced(W[0, 0, 0, 0]),
        ShapeError,
        "node 'up a': X has shape (1, 2, ",
    ),
    "weight of other channels": (replaced(W[:1]), ShapeError, "node 'up a': X has 2 channels but "),
    "bias of another size": (
        biased(W[0, 0, 0, :2]),
        ShapeError,
        "node 'up a': bias has shape (2,), ",
    ),
    "bias of another rank": (biased(W), ShapeError, "node 'up a': bias has shape (2, 3, 3, 3), "),
    "attribute of another length": (
        attribute([1]),
        ParameterError,
        "node 'up a': strides=[1] must ",
    ),
}


@pytest.mark.parametrize("name", CLASHING)
def test_clashing_sizes_name_the_node(name):
    edit, error, message = CLASHING[name]
    session = Session(edited(edit), force=True)
    with pytest.raises(TConvError) as found:
        session.run(None, FEEDS)
    assert type(found.value) is error
    assert str(found.value).startswith(message)
    with pytest.raises(Exception, match="ConvTranspose"):  # and so does ONNX Runtime
        by_onnx_runtime(edited(edit), FEEDS)


def test_a_model_of_constants_needs_no_input():
    model = edited(lambda m, g: g.ClearField("input"))
    model.graph.initializer.append(numpy_helper.from_array(X, "x"))
    for force in (False, True):
        (y,) = Session(model, force=force).run(None, {})
        assert same_numbers(y, by_onnx_runtime(model, {})[0])


@pytest.mark.parametrize("version", [99, None])
def test_a_version_of_tomorrow_is_refused_even_where_only_tconv_computes(version):
    model = model_of([transposed("x", "w", "y")], FEEDS, ["y"], {"w": W})
    del model.opset_import[:]
    if version:
        model.opset_import.append(helper.make_opsetid("", version))
    with pytest.raises(ModelError, match=r"^ONNX Runtime refuses the model: .*[Oo]pset"):
        Session(model, force=True)


# ---- weights in other files ----------------------------------------------------------------------


@pytest.fixture
def external(tmp_path):
    """Write a model with its weight in the file "weights"; return a function that edits that."""
    folder = tmp_path / "model"
    folder.mkdir()
    path = folder / "model.onnx"
    kept = {"save_as_external_data": True, "location": "weights", "size_threshold": 0}
    onnx.save_model(good(), path, **kept)

    def edit(**changes):
        model = onnx.load(path, load_external_data=False)
        entries = {e.key: e.value for e in model.graph.initializer[0].external_data} | changes
        del model.graph.initializer[0].external_data[:]
        for key, value in entries.items():
            model.graph.initializer[0].external_data.add(key=key, value=value)
        path.write_bytes(model.SerializeToString())
        return path

    return edit


def test_weights_lie_next_to_the_model(external):
    assert same_numbers(run(external())[0], run(GOOD)[0])


def test_a_missing_file_of_weights(external):
    path = external()
    (path.parent / "weights").unlink()
    message = f"'{path}' keeps its weight 'w' in 'weights', which is missing; put that file into "
    for check in (Session, check_weights):
        with pytest.raises(ModelError, match="^" + re.escape(message)):
            check(path)


@pytest.mark.parametrize("length", [0, 2, 4 * W.size - 4])
def test_a_file_of_weights_cut_short(external, length):
    path = external()
    file = path.parent / "weights"
    file.write_bytes(file.read_bytes()[:length])
    with pytest.raises(
        ModelError, match=r"keeps weights in other files, which cannot be read: .*'w'"
    ):
        Session(path)


@pytest.mark.parametrize("place", ["../outside", "{}/outside", "../model/../outside", "link", ""])
def test_weights_outside_of_the_folder_are_not_read(external, tmp_path, place):
    (tmp_path / "outside").write_bytes(W.tobytes())
    (tmp_path / "model" / "link").symlink_to(tmp_path / "outside")
    path = external(location=place.format(tmp_path))
    with pytest.raises(ModelError, match=r"^'.*model.onnx' keeps .*; .*\.$"):
        Session(path)


@pytest.mark.parametrize(
    "changes",
    [
        {"offset": "-4"},
        {"offset": "four"},
        {"offset": "99999"},
        {"length": "-1"},
        {"length": "9"},
        {"length": "4"},
        {"length": "9" * 9},
        {"length": "?"},
        {"location": "a\0b"},
    ],
    ids=str,
)
def test_a_wrong_place_in_a_file_of_weights(external, changes):
    with pytest.raises(ModelError, match=r"'w'.*; .*\.$"):
        Session(external(**changes), force=True)


def test_bytes_have_no_folder_to_look_into(external, tmp_path, monkeypatch):
    data = external().read_bytes()
    monkeypatch.chdir(tmp_path)
    with pytest.raises(
        ModelError, match=r"^ONNX Runtime refuses the model: .*; check the model\.$"
    ):
        Session(data)


# ---- NaN -----------------------------------------------------------------------------------------


def with_nan(array, *at):
    array = array.copy()
    array[at] = np.nan
    return array


@pytest.mark.parametrize("kind", [np.float16, np.float32, np.float64])
def test_nan_in_a_weight_is_found(kind):
    model = edited(replaced(with_nan(W.astype(kind), 1, 2, 0, 1)))
    with pytest.raises(
        ModelError, match=r"^weight 'w' holds NaN at \[1, 2, 0, 1\], which would .*; "
    ):
        check_weights(model.SerializeToString())


def test_nan_in_a_constant_and_in_a_branch_is_found():
    value = numpy_helper.from_array(with_nan(W[0, 0], 2, 1), "inner")
    constant = helper.make_node("Constant", [], ["c"], value=value)
    model = good()
    model.graph.node.append(constant)
    with pytest.raises(ModelError, match=r"^weight 'inner' holds NaN at \[2, 1\]"):
        check_weights(model.SerializeToString())
    result = helper.make_tensor_value_info("c", 1, None)
    branch = helper.make_graph([constant], "branch", [], [result])
    model = good()
    model.graph.node.append(
        helper.make_node("If", ["condition"], ["z"], then_branch=branch, else_branch=branch)
    )
    with pytest.raises(ModelError, match=r"^weight 'inner' holds NaN at \[2, 1\]"):
        check_weights(model.SerializeToString())


def test_sound_weights_pass():
    model = good()
    extreme = np.array([np.inf, -np.inf, 0, np.finfo("f").max], "f")
    for name, array in (
        ("words", np.array(["a"], object)),
        ("whole", np.arange(3)),
        ("f", extreme),
    ):
        model.graph.initializer.append(numpy_helper.from_array(array, name))
    check_weights(model.SerializeToString())


def test_a_session_runs_with_nan():
    model = edited(replaced(with_nan(W, 1, 2, 0, 1)))
    model.graph.node[1].op_type = "Identity"  # what Relu makes of NaN depends on where it lies
    (found,), (expected,) = run(model), by_onnx_runtime(model, FEEDS)
    assert np.isnan(found[np.isnan(expected)]).all()
    assert same_numbers(found[:, :2], expected[:, :2])  # the channels that it does not touch
