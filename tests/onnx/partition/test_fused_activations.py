"""Activations with parameters after a ConvTranspose: which are fused, and that answers stay."""

import numpy as np
import onnxruntime
import pytest
from onnx import helper, numpy_helper

from onnx_graphs import by_onnx_runtime, model_of, transposed
from tconv.onnx import Session

X = np.random.default_rng(0).standard_normal((2, 3, 6, 5)).astype(np.float32)
W = np.random.default_rng(1).standard_normal((3, 4, 3, 3)).astype(np.float32)


def model_with(node, stored=None, before=(), opset=20, kind=np.float32, feeds=None):
    """A model x -> up -> node -> Neg, and feeds for it."""
    feeds = {"x": X.astype(kind), **(feeds or {})}
    stored = {"w": W.astype(kind), **{n: np.array(v, kind) for n, v in (stored or {}).items()}}
    last = helper.make_node("Neg", [node.output[0]], ["y"])
    nodes = [*before, transposed("x", "w", "up", strides=[2, 2]), node, last]
    return model_of(nodes, feeds, ["y"], stored, opset=opset), feeds


def assert_as_onnx_runtime(model, feeds, folded):
    session = Session(model, force=True)
    (found,), (expected,) = session.run(None, feeds), by_onnx_runtime(model, feeds)
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-5)
    assert session.report().nodes[0].folded == folded


def act(operator, *inputs, **attributes):
    return helper.make_node(operator, ["up", *inputs], ["act"], **attributes)


@pytest.mark.parametrize(
    "node",
    [
        *(act("LeakyRelu"), act("LeakyRelu", alpha=-0.5), act("LeakyRelu", alpha=0.0)),
        *(act("Elu"), act("Elu", alpha=0.5), act("Elu", alpha=0.0)),
        *(act("HardSigmoid"), act("HardSigmoid", alpha=-0.3), act("HardSigmoid", beta=0.1)),
        *(act("HardSwish"), act("Gelu"), act("Gelu", approximate="none")),
        act("Gelu", approximate="tanh"),
    ],
    ids=lambda node: f"{node.op_type} {[each.name for each in node.attribute]}",
)
def test_attributes_are_read(node):
    assert_as_onnx_runtime(*model_with(node), (node.op_type,))


@pytest.mark.parametrize("how", ["stored", "constant"])
@pytest.mark.parametrize("shape", [(), (1,), (1, 1, 1)])
@pytest.mark.parametrize("slope", [0.25, -0.5, 2.0])
def test_a_prelu_of_one_constant_slope_is_fused(slope, shape, how):
    value = np.full(shape, slope, np.float32)
    constant = helper.make_node("Constant", [], ["a"], value=numpy_helper.from_array(value))
    stored, before = ({"a": value}, ()) if how == "stored" else ({}, (constant,))
    assert_as_onnx_runtime(*model_with(act("PRelu", "a"), stored, before), ("PRelu",))


@pytest.mark.parametrize("opset", [11, 13, 20])
@pytest.mark.parametrize("how", ["stored", "constant"])
@pytest.mark.parametrize("bounds", [(-0.5, 1.5), (None, 0.5), (0.0, None)], ids=str)
def test_a_clip_with_constant_bounds_is_fused(bounds, how, opset):
    pairs = zip(("low", "high"), bounds, strict=True)
    values = {name: np.float32(value) for name, value in pairs if value is not None}
    inputs = [name if name in values else "" for name in ("low", "high")]
    inputs = inputs if bounds[1] is not None else inputs[:1]
    before = [
        helper.make_node("Constant", [], [n], value=numpy_helper.from_array(np.array(v)))
        for n, v in values.items()
    ]
    stored, before = (values, ()) if how == "stored" else ({}, before)
    assert_as_onnx_runtime(*model_with(act("Clip", *inputs), stored, before, opset), ("Clip",))


@pytest.mark.parametrize(
    ("node", "stored"),
    [
        (act("PRelu", "a"), {"a": np.full((4, 1, 1), 0.25)}),  # one slope for each channel
        (act("Clip", "low", "high"), {"low": 1.0, "high": -1.0}),  # all is the upper bound
        (act("Clip"), {}),
        (act("Clip", "low"), {"low": -np.inf}),
        (act("Elu", alpha=-1.0), {}),
    ],
    ids=["channels", "order", "none", "infinite", "negative"],
)
def test_others_are_left(node, stored):
    assert_as_onnx_runtime(*model_with(node, stored), ())


def test_what_may_change_is_left():
    """An input, an initialiser that is the default of an input, and what is computed."""
    given = {"low": np.array(-0.25, np.float32)}
    assert_as_onnx_runtime(*model_with(act("Clip", "low"), feeds=given), ())
    model, feeds = model_with(act("Clip", "low"), {"low": -0.5}, feeds=given)
    assert_as_onnx_runtime(model, feeds, ())
    double = helper.make_node("Add", ["a", "a"], ["low"])
    model, feeds = model_with(act("Clip", "low"), {"a": -0.25}, [double])
    assert_as_onnx_runtime(model, feeds, ())


@pytest.mark.parametrize("kind", [np.float16, np.float64])
@pytest.mark.parametrize("operator", ["Clip", "PRelu", "HardSwish", "Gelu"])
def test_other_types(operator, kind):
    """ONNX Runtime lacks some of these; it computes the reference in float32."""
    inputs = {"Clip": ["a", "b"], "PRelu": ["a"]}.get(operator, [])
    stored = {"a": 0.1, "b": 0.7}
    model, feeds = model_with(act(operator, *inputs), stored, kind=kind)
    session = Session(model, force=True)
    (found,) = session.run(None, feeds)
    assert found.dtype == kind
    assert session.report().nodes[0].folded == (operator,)
    (expected,) = by_onnx_runtime(*model_with(act(operator, *inputs), stored))
    np.testing.assert_allclose(found, expected, rtol=5e-3, atol=5e-3)


def test_a_bound_that_options_replace_leaves_the_model_whole():
    model, feeds = model_with(act("Clip", "low"), {"low": -0.5})
    options = onnxruntime.SessionOptions()
    other = onnxruntime.OrtValue.ortvalue_from_numpy(np.array(0.25, np.float32))
    options.add_initializer("low", other)
    session = Session(model, options, force=True)
    alone = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    np.testing.assert_array_equal(session.run(None, feeds)[0], alone.run(None, feeds)[0])
    (node,) = session.report().nodes
    assert (node.computed_by, node.reason) == (
        "onnxruntime",
        "sess_options: initialiser 'low' replaced",
    )
