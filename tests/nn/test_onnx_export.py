"""A layer and its ONNX node compute the same, in both directions."""

import re

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import checker, helper, numpy_helper

from onnx_graphs import by_onnx_runtime
from strategies import draws, integers_like, same_numbers
from tconv.errors import DTypeError, ParameterError, ShapeError, TConvError, UnsupportedError
from tconv.nn.conv import ConvTranspose, ConvTranspose1d, ConvTranspose2d
from tconv.onnx import Session

TYPES = ["float16", "bfloat16", "float32", "float64"]


def with_integers(layer, seed=0):
    for n, parameter in enumerate(layer.parameters()):
        parameter.value = integers_like(parameter.shape, parameter.dtype, seed + n, largest=2)
    return layer


@st.composite
def layers(draw, types=("float32",)):
    """Layers that ONNX can express, and an x for each."""
    rank = draw(st.integers(1, 3))
    axes = st.tuples(*[st.integers(1, 3)] * rank)
    stride, dilation, groups = draw(axes), draw(axes), draw(st.integers(1, 3))
    pairs = st.tuples(*[st.tuples(st.integers(0, 2), st.integers(0, 2))] * rank)
    names = st.sampled_from(["valid", "same", "same_upper"])
    padding = draw(st.one_of(pairs, st.integers(0, 2), names))
    extra = [draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation, strict=True)]
    layer = ConvTranspose(
        groups * draw(st.integers(1, 2)),
        groups * draw(st.integers(1, 2)),
        draw(axes),
        stride,
        padding,
        0 if isinstance(padding, str) else tuple(extra),
        groups,
        draw(st.booleans()),
        dilation,
        dtype=draw(st.sampled_from(types)),
        initialiser="zeros",
    )
    x = integers_like((2, layer.in_channels, *[5] * rank), layer.dtype, 7, largest=2)
    return with_integers(layer), x


def round_trip(layer):
    model = layer.to_onnx()
    return type(layer).from_onnx(model.graph.node[0], model.graph.initializer)


@draws()
@given(layers(TYPES))
def test_a_layer_comes_back_as_it_was(drawn):
    layer, x = drawn
    again = round_trip(layer)
    assert again.dtype == layer.dtype
    for old, new in zip(layer.parameters(), again.parameters(), strict=True):
        assert old.name == new.name
        assert old.value.dtype == new.value.dtype
        assert same_numbers(old.value, new.value)
    assert same_numbers(again(x), layer(x))
    assert round_trip(again).describe() == again.describe()


ACTIVATIONS = [
    *("relu", ("leaky_relu", 0.25), ("prelu", -0.5), ("elu", 1.5), ("clip", -1, 6)),
    *(("clip", None, 6), ("clip", -1, None), ("hard_sigmoid", 0.2, 0.5), "tanh", "sigmoid"),
    *("silu", "hard_swish", "gelu", ("gelu", "tanh"), ("snake", 0.5)),
]


@draws(0.5)
@given(layers(), st.sampled_from(ACTIVATIONS), st.booleans())
def test_an_activation_follows_in_nodes_of_its_own(drawn, activation, force):
    layer, x = drawn
    layer.activation = activation
    model = layer.to_onnx()
    checker.check_model(model, full_check=True)
    assert len(model.graph.node) == {"silu": 3, ("snake", 0.5): 6}.get(activation, 2)
    (found,) = Session(model, force=force).run(None, {"x": x})
    np.testing.assert_allclose(found, layer(x), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("dtype", TYPES)
def test_an_activation_has_an_operator_of_every_type(activation, dtype):
    layer = ConvTranspose1d(1, 2, 2, dtype=dtype, activation=activation, rng=0)
    checker.check_model(layer.to_onnx(), full_check=True)
    assert same_numbers(round_trip(layer).weight.value, layer.weight.value)


@draws()
@given(layers(), st.booleans())
def test_the_model_of_a_layer_computes_what_the_layer_does(drawn, force):
    layer, x = drawn
    model, y = layer.to_onnx(), layer(x)
    assert same_numbers(Session(model, force=force).run(None, {"x": x})[0], y)
    attributes = {each.name: list(each.ints) for each in model.graph.node[0].attribute}
    beyond = zip(attributes["output_padding"], attributes["strides"], strict=True)
    if all(extra < stride for extra, stride in beyond):  # ONNX Runtime refuses others
        assert same_numbers(by_onnx_runtime(model, {"x": x})[0], y)


@draws(0.5)
@given(layers(["float16", "float64"]))
def test_types_that_onnx_runtime_lacks(drawn):
    layer, x = drawn
    (y,) = Session(layer.to_onnx()).run(None, {"x": x})
    assert y.dtype == layer.dtype
    assert same_numbers(y, layer(x))


@draws(0.2)
@given(layers(TYPES))
def test_a_model_is_valid(drawn):
    checker.check_model(drawn[0].to_onnx(), full_check=True)


@pytest.mark.parametrize(
    ("arguments", "pads", "output_padding"),
    [
        ({"padding": "same", "stride": 2}, [0, 1], [0]),
        ({"padding": "same_lower", "stride": 2}, [1, 0], [0]),
        ({"padding": ((2, 0),)}, [2, 0], [0]),
        ({"padding": ((1, -1),), "stride": 2}, [1, 0], [1]),
        ({"padding": ((1, -1),), "stride": 3, "output_padding": 1}, [1, 0], [2]),
        ({"padding": "same", "stride": 5}, [0, 0], [2]),
    ],
)
def test_padding_is_said_by_pads_and_output_padding(arguments, pads, output_padding):
    layer = with_integers(ConvTranspose1d(2, 2, 3, **arguments))
    (node,) = layer.to_onnx().graph.node
    found = {each.name: list(each.ints) for each in node.attribute}
    assert (found["pads"], found["output_padding"]) == (pads, output_padding)
    x = integers_like((1, 2, 5), "float32")
    assert same_numbers(round_trip(layer)(x), layer(x))
    assert same_numbers(by_onnx_runtime(layer.to_onnx(), {"x": x})[0], layer(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"data_format": "channels_last"},
            'data_format="channels_last" has no place in ONNX, which ',
        ),
        (
            {"padding_mode": "circular"},
            'padding_mode="circular" has no place in ONNX, which has zero',
        ),
        (
            {"padding": ((-1, 0),)},
            "padding[0]=(-1, 0) has no place in ONNX, which extends an output ",
        ),
        (
            {"padding": ((0, -1),)},
            "padding[0]=(0, -1) has no place in ONNX, which extends an output ",
        ),
        (
            {"padding": ((0, -1),), "stride": 2, "output_padding": 1},
            "padding[0]=(0, -1) has no place in ONNX, which extends an output at its end only "
            "and by less than max(stride[0]=2, dilation[0]=1); ",
        ),
    ],
    ids=str,
)
def test_what_onnx_cannot_say_is_refused(arguments, message):
    with pytest.raises(UnsupportedError, match="^" + re.escape(message)):
        ConvTranspose1d(1, 1, 3, **arguments).to_onnx()


def test_a_layer_without_values_has_no_model():
    with pytest.raises(ParameterError, match=r"^weight has no value yet, in_channels=None"):
        ConvTranspose1d(None, 4, 3).to_onnx()


def test_bfloat16_has_its_opset():
    layer = with_integers(ConvTranspose1d(1, 1, 2, dtype="bfloat16"))
    assert layer.to_onnx().opset_import[0].version == 22
    assert round_trip(layer).weight.value.dtype == ml_dtypes.bfloat16


# ---- nodes of others -----------------------------------------------------------------------------

W, B = integers_like((2, 3, 4), "float32", 1), integers_like((3,), "float32", 2)
NODE = helper.make_node("ConvTranspose", ["x", "w", "b"], ["y"], strides=[2])


def stored(values):
    return [numpy_helper.from_array(value, name) for name, value in values.items()]


@pytest.mark.parametrize("form", [dict, stored])
def test_weights_may_be_a_mapping_or_initialisers(form):
    layer = ConvTranspose1d.from_onnx(NODE, form({"b": B, "other": W[:1], "w": W}))
    assert repr(layer) == "ConvTranspose1d(2, 3, kernel_size=(4,), stride=(2,))"
    assert same_numbers(layer.weight.value, W)
    assert same_numbers(layer.bias.value, B)


@pytest.mark.parametrize("inputs", [["x", "w"], ["x", "w", ""]])
def test_a_bias_may_be_missing(inputs):
    node = helper.make_node("ConvTranspose", inputs, ["y"])
    assert ConvTranspose1d.from_onnx(node, {"w": W}).bias is None


def test_values_are_copies():
    weights = {"w": W.copy(), "b": B.copy()}
    layer = ConvTranspose1d.from_onnx(NODE, weights)
    for value in weights.values():
        value[...] = 99
    assert same_numbers(layer.weight.value, W)
    assert same_numbers(layer.bias.value, B)
    layer.weight.value[...] = 0  # and they can be written to
    model = layer.to_onnx()
    layer.weight.value[...] = 1
    assert not numpy_helper.to_array(model.graph.initializer[0]).any()


def changed(op_type="ConvTranspose", inputs=("x", "w", "b"), **attributes):
    return helper.make_node(op_type, inputs, ["y"], **attributes)


@pytest.mark.parametrize(
    ("node", "weights", "error", "message"),
    [
        (changed(op_type="Conv"), {}, ParameterError, "node must be a ConvTranspose, not Conv; "),
        ("up", {}, ParameterError, "node must be a ConvTranspose, not str; "),
        (NODE, {"b": B}, ParameterError, "weights must have 'w', which the node reads, has ["),
        (NODE, {"w": W}, ParameterError, "weights must have 'b', which the node reads, has ["),
        (NODE, {"w": W[0], "b": B}, ShapeError, "weight 'w' has shape (3, 4), must be (C, M "),
        (NODE, {"w": W[:0], "b": B}, ShapeError, "weight 'w' has shape (0, 3, 4), must be (C, M "),
        (NODE, {"w": W, "b": B[:2]}, ShapeError, "bias has shape (2,), must be (3,)"),
        (NODE, {"w": W.astype(int), "b": B}, DTypeError, "dtype="),
        (changed(strides=[0]), {"w": W, "b": B}, ParameterError, "strides[0]=0 must be at "),
        (changed(group=3), {"w": W, "b": B}, ShapeError, "groups=3 must divide in_channels=2; "),
        (changed(output_shape=[9]), {"w": W, "b": B}, UnsupportedError, "output_shape=[9] fits "),
        (changed(inputs=["x"]), {"w": W}, ParameterError, "weights must have ''"),
    ],
    ids=str,
)  # fmt: skip
def test_a_wrong_node_is_refused_in_words(node, weights, error, message):
    with pytest.raises(TConvError) as found:
        ConvTranspose1d.from_onnx(node, weights)
    assert type(found.value) is error
    assert str(found.value).startswith(message)


def test_the_rank_of_a_node_is_the_rank_of_the_layer():
    with pytest.raises(ShapeError, match=r"^weight has shape \(2, 3, 4\), must be "):
        ConvTranspose2d.from_onnx(NODE, {"w": W, "b": B})
    x = np.ones((1, 2, 3), np.float32)
    layer = ConvTranspose.from_onnx(NODE, {"w": W, "b": B})
    assert same_numbers(layer(x), ConvTranspose1d.from_onnx(NODE, {"w": W, "b": B})(x))


@pytest.mark.parametrize("weights", [None, 3, "weight", [1], np.ones(3), np.ma.masked])
def test_weights_are_named_values(weights):
    node = ConvTranspose1d(1, 1, 1, rng=0).to_onnx().graph.node[0]
    with pytest.raises(ParameterError, match=r"^weights"):
        ConvTranspose1d.from_onnx(node, weights)


@pytest.mark.parametrize("value", ["words", {}, [[1], [1, 2]], object()])
def test_a_weight_is_an_array(value):
    node = ConvTranspose1d(1, 1, 1, rng=0).to_onnx().graph.node[0]
    with pytest.raises(TConvError):
        ConvTranspose1d.from_onnx(node, {"weight": value, "bias": np.ones(1)})
