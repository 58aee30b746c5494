"""Constants are found wherever a model stores them; other values are refused."""

import re
from itertools import pairwise

import ml_dtypes
import numpy as np
import pytest
from onnx import TensorProto, checker, helper, load, numpy_helper, save
from onnx.external_data_helper import set_external_data

import tconv.onnx
from strategies import integers_like, same_numbers
from tconv.arrays.onnx_constants import constant_of
from tconv.errors import ModelError, ParameterError
from tconv.nn.conv import ConvTranspose1d, ConvTranspose2d

W = integers_like((2, 3, 4), "float32", 3)
B = integers_like((3,), "float32", 4)
X = integers_like((1, 2, 5), "float32", 5)


def tensor(value, name):
    return numpy_helper.from_array(np.asarray(value), name)


def sparse(value, name, *, flat=True):
    at = np.argwhere(value) if not flat else np.flatnonzero(value)
    return helper.make_sparse_tensor(
        tensor(value[value != 0], name), tensor(at.astype(np.int64), f"{name}-at"), value.shape
    )


def node(kind, inputs, outputs, **attributes):
    return helper.make_node(kind, inputs, outputs, **attributes)


def constant(value, name):
    return node("Constant", [], [name], value=tensor(value, name))


LOW, SCALE, ZERO = W.astype(np.int8), np.float32(0.5), np.int8(2)
# Nodes, initialisers, sparse initialisers, and what "w" is.
PLACES = {
    "initialiser": ([], [tensor(W, "w")], [], W),
    "Constant": ([constant(W, "w")], [], [], W),
    "Constant after its reader": ([constant(W, "w")], [], [], W),
    "Identity": ([constant(W, "a"), node("Identity", ["a"], ["w"])], [], [], W),
    "Identities": (
        [node("Identity", ["a"], ["b"]), node("Identity", ["b"], ["w"])], [tensor(W, "a")], [], W,
    ),
    "sparse initialiser": ([], [], [sparse(W, "w")], W),
    "sparse initialiser by axes": ([], [], [sparse(W, "w", flat=False)], W),
    "sparse Constant": (
        [node("Constant", [], ["w"], sparse_value=sparse(W, "w"))], [], [], W,
    ),
    "Cast": (
        [constant(W.astype(np.float16), "a"), node("Cast", ["a"], ["w"], to=TensorProto.FLOAT)],
        [], [], W,
    ),
    "DequantizeLinear": (
        [node("DequantizeLinear", ["a", "s", "z"], ["w"])],
        [tensor(LOW, "a"), tensor(SCALE, "s"), tensor(ZERO, "z")], [], (W - 2) * SCALE,
    ),
    "Transpose": (
        [node("Transpose", ["a"], ["w"], perm=[2, 0, 1])],
        [tensor(W.transpose(1, 2, 0).copy(), "a")], [], W,
    ),
    "Reshape": (
        [constant(np.array([2, 3, 4]), "shape"), node("Reshape", ["a", "shape"], ["w"])],
        [tensor(W.ravel(), "a")], [], W,
    ),
    "Mul": (
        [node("Constant", [], ["two"], value_float=2.0), node("Mul", ["a", "two"], ["w"])],
        [tensor(W, "a")], [], W * 2,
    ),
}  # fmt: skip


def model_of(nodes, initialisers, sparse_ones, *, last=False):
    """A model of one ConvTranspose, whose bias is a Constant of floats."""
    bias = node("Constant", [], ["bias"], value_floats=B.tolist())
    layer = node("ConvTranspose", ["x", "w", "bias"], ["y"], strides=[2], name="up")
    graph = helper.make_graph(
        [bias, layer, *nodes] if last else [bias, *nodes, layer],
        "up",
        [helper.make_tensor_value_info("x", 1, ["N", 2, "L"])],
        [helper.make_tensor_value_info("y", 1, ["N", 3, "M"])],
        initialisers,
        sparse_initializer=sparse_ones,
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


@pytest.mark.parametrize("place", PLACES)
@pytest.mark.parametrize("form", ["model", "graph"])
def test_a_layer_finds_its_weights(place, form):
    nodes, initialisers, sparse_ones, w = PLACES[place]
    model = model_of(nodes, initialisers, sparse_ones, last="after" in place)
    if "after" not in place:  # inference of shapes knows no sparse weights
        checker.check_model(model, full_check="sparse" not in place)
    (up,) = (each for each in model.graph.node if each.name == "up")
    layer = ConvTranspose1d.from_onnx(up, model if form == "model" else model.graph)
    assert layer.weight.value.dtype == np.float32
    assert same_numbers(layer.weight.value, w)
    assert same_numbers(layer.bias.value, B)
    if "after" not in place and "sparse" not in place:  # ONNX Runtime has them of two axes only
        assert same_numbers(layer(X), tconv.onnx.Session(model).run(None, {"x": X})[0])


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_types_stay(dtype):
    w = W.astype(getattr(ml_dtypes, dtype, dtype))
    model = model_of([constant(w, "w")], [], [])
    found = constant_of(model, "w")
    assert found.dtype == w.dtype
    assert same_numbers(found, w)


def external():
    outside = tensor(W, "w")
    set_external_data(outside, "weights.bin")
    outside.ClearField("raw_data")
    outside.data_location = TensorProto.EXTERNAL
    return outside


def damaged():
    broken = tensor(W, "w")
    broken.raw_data = broken.raw_data[:5]
    return broken


def wrong_place(at):
    found = sparse(W, "w")
    found.indices.CopyFrom(tensor(np.full(np.count_nonzero(W), at), "w-at"))
    return found


def chain(length):
    names = [*map(str, range(length)), "w"]
    return [node("Identity", [a], [b]) for a, b in pairwise(names)]


@pytest.mark.parametrize(
    ("nodes", "initialisers", "sparse_ones", "error", "message"),
    [
        ([node("Relu", ["a"], ["w"])], [tensor(W, "a")], [], ParameterError, "but Relu makes it"),
        ([node("Identity", ["x"], ["w"])], [], [], ParameterError, "but it is an input"),
        ([node("Identity", ["a"], ["w"])], [], [], ParameterError, "but nothing makes it"),
        ([node("Identity", ["w"], ["w"])], [], [], ParameterError, "but its nodes form a circle"),
        ([], [], [], ParameterError, "weights must have 'w', which the node reads, as a constant"),
        (chain(5000), [tensor(W, "0")], [], ParameterError, "long chain"),
        ([node("Identity", ["a"], ["w"], domain="my")], [tensor(W, "a")], [], ParameterError,
         "but my.Identity makes it"),
        ([node("Constant", [], ["w"], value_string="w")], [], [], ModelError, "holds no numbers"),
        ([node("Transpose", ["a"], ["w"], perm=[0])], [tensor(W, "a")], [], ModelError,
         "weight 'w' cannot be computed by Transpose"),
        ([], [damaged()], [], ModelError, "weight 'w' of shape (2, 3, 4) is damaged"),
        ([], [external()], [], ModelError, "lies in another file, which was not loaded"),
        ([], [], [wrong_place(-1)], ModelError, "is sparse and damaged"),
        ([], [], [wrong_place(24)], ModelError, "is sparse and damaged"),
        ([], [], [helper.make_sparse_tensor(tensor(W[0, 0], "w"), tensor(np.arange(4), "at"),
                                            (1 << 20, 1 << 20))], ModelError, "too large to be"),
    ],
)  # fmt: skip
def test_what_is_no_weight_is_refused_in_words(nodes, initialisers, sparse_ones, error, message):
    model = model_of(nodes, initialisers, sparse_ones)
    with pytest.raises(error, match=re.escape(message)) as found:
        constant_of(model, "w")
    if error is ParameterError:  # and the remedy that it names works
        assert str(found.value).endswith("or pass a mapping of names to arrays.")
        assert same_numbers(constant_of({"w": W}, "w"), W)


@pytest.mark.parametrize("weights", [None, 3, 1.5, "w", b"w", [1], [None], object(), np.ones(3)])
def test_what_holds_no_weights_is_refused_in_words(weights):
    with pytest.raises(
        ParameterError, match=r"^weights must be a model, its graph, tensors or a m"
    ):
        constant_of(weights, "w")


def test_a_mapping_may_have_names_of_all_kinds():
    with pytest.raises(ParameterError, match=r"^weights must have 'w', which the node reads, has "):
        constant_of({1: W, None: W}, "w")
    assert same_numbers(constant_of({"w": tensor(W, "other")}, "w"), W)


@pytest.mark.parametrize("outside", [False, True], ids=["inside", "in another file"])
@pytest.mark.parametrize("place", ["Constant", "initialiser"])
def test_a_command_explains_the_kernel_of_a_model(monkeypatch, tmp_path, capsys, place, outside):
    from tconv.cli import main

    monkeypatch.chdir(tmp_path)
    w = np.random.default_rng(0).standard_normal((2, 3, 3, 3), np.float32)
    up = node("ConvTranspose", ["x", "w"], ["y"], strides=[2, 2], name="up1")
    values = [helper.make_tensor_value_info(name, 1, ["N", None, None, None]) for name in "xy"]
    nodes, stored = ([constant(w, "w")], []) if place == "Constant" else ([], [tensor(w, "w")])
    graph = helper.make_graph([*nodes, up], "up", values[:1], values[1:], stored)
    where = {"save_as_external_data": True, "convert_attribute": True, "size_threshold": 0}
    save(helper.make_model(graph), "model.onnx", **(where if outside else {}))
    assert len(list(tmp_path.iterdir())) == 1 + outside
    assert main(["explain", "model.onnx", "--layer", "up1", "--pair", "1,2", "-o", "a.html"]) == 0
    capsys.readouterr()
    page = (tmp_path / "a.html").read_text("utf-8")
    state = tconv.explain(np.arange(1.0, 10).reshape(3, 3), w[1, 2], stride=2).scene.state
    assert str(state).replace(" ", "").replace("'", '"') in page
    layer = ConvTranspose2d.from_onnx(up, load("model.onnx"))
    assert same_numbers(layer.weight.value, w)


def test_nan_is_found_in_sparse_weights():
    w = W.copy()
    w[1, 0, 0] = np.nan
    model = model_of([], [], [sparse(w, "w")])
    with pytest.raises(ModelError, match="weight 'w' holds NaN at"):
        tconv.onnx.check_weights(model)


@pytest.mark.parametrize("opset", [1, 11, 12, 13, 22])
@pytest.mark.parametrize("axes", [[0], [3], [0, 2], [-1]])
def test_unsqueeze_of_every_version_is_followed(opset, axes):
    given = [constant(np.array(axes), "axes")]
    attributes, inputs = {}, ["a", "axes"]
    if opset < 13:
        given, attributes, inputs = [], {"axes": axes}, ["a"]
    made = node("Unsqueeze", inputs, ["w"], **attributes)
    graph = helper.make_graph([*given, made], "g", [], [], [tensor(W, "a")])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)])
    assert same_numbers(constant_of(model, "w"), np.expand_dims(W, tuple(axes)))


def test_unsqueeze_that_cannot_be_is_refused():
    graph = helper.make_graph(
        [node("Unsqueeze", ["a"], ["w"], axes=[9])], "g", [], [], [tensor(W, "a")]
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 11)])
    with pytest.raises(ModelError, match=r"^weight 'w' cannot be computed by Unsqueeze: axis 9"):
        constant_of(model, "w")
