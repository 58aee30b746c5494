"""Convolution layers compute their operation, and backward its two adjoints."""

import copy
import ctypes
import pickle
import re
from dataclasses import replace

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import (
    draws,
    geometries,
    integer_operands,
    integers_like,
    keywords_of,
    padded_calls,
    same_numbers,
)
from tconv.arrays.activations import Activation, as_activation
from tconv.engine.target.target import target
from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.nn.activations import LeakyReLU, ReLU
from tconv.nn.conv import Conv, Conv2d, ConvTranspose, ConvTranspose1d, ConvTranspose2d
from tconv.nn.layer import Sequential
from tconv.nn.optim import SGD
from tconv.ops.functional import conv, conv_transpose

TYPES = ["float16", "bfloat16", "float32", "float64"]
SETTINGS = ("stride", "dilation", "padding", "output_padding", "groups", "data_format")


def layer_of(kind, geometry, bias=True, **more):
    """A layer of one geometry whose parameters are integers, and x or y to put into it."""
    keywords = {name: keywords_of(geometry)[name] for name in SETTINGS} | more
    x, w, y = integer_operands(geometry)
    channels = geometry.in_channels, geometry.out_channels
    if kind is Conv:
        keywords.pop("output_padding")
        channels = channels[::-1]
    layer = kind(*channels, geometry.kernel_size, bias=bias, dtype="float64", **keywords)
    layer.weight.value = w
    if bias:
        layer.bias.value = integers_like((layer.out_channels,), seed=1)
    return layer, y if kind is Conv else x


def plain_geometries():
    """Random geometries in the weight format that layers have, the data in either format."""
    return geometries(plain=True, batches=(1, 2))


def channel_sum(array, geometry):
    last = geometry.data_format == "channels_last"
    channel = array.ndim - 1 if last else int(geometry.batched)
    return array.sum(axis=tuple(n for n in range(array.ndim) if n != channel))


@given(plain_geometries(), st.booleans())
def test_a_transposed_convolution_is_the_operation(geometry, bias):
    layer, x = layer_of(ConvTranspose, geometry, bias)
    b = layer.bias.value if bias else None
    expected = conv_transpose(x, layer.weight.value, b, **keywords_of(geometry))
    assert same_numbers(layer(x), expected)
    assert same_numbers(layer.predict(x), expected)


@given(plain_geometries(), st.booleans())
def test_a_convolution_is_the_operation(geometry, bias):
    layer, y = layer_of(Conv, geometry, bias)
    keywords = {name: v for name, v in keywords_of(geometry).items() if name != "output_padding"}
    expected = conv(y, layer.weight.value, layer.bias.value if bias else None, **keywords)
    assert same_numbers(layer(y), expected)


@given(st.sampled_from([Conv, ConvTranspose]), plain_geometries(), st.integers(0, 99))
def test_backward_is_the_adjoint_of_forward(kind, geometry, seed):
    layer, x = layer_of(kind, geometry)
    y = layer(x)
    dy = integers_like(y.shape, seed=seed)
    dx = layer.backward(dy)
    assert dx.shape == x.shape
    # y is bilinear in x and weight, and the bias stands alone: one number, seen from four sides.
    layer.bias.value = np.zeros(layer.out_channels)
    energy = np.sum(layer.predict(x) * dy)
    assert energy == np.sum(x * dx)
    assert energy == np.sum(layer.weight.value * layer.weight.gradient)
    assert same_numbers(layer.bias.gradient, channel_sum(dy, geometry))


@draws(0.5)
@given(st.sampled_from([Conv, ConvTranspose]), plain_geometries(), st.data())
def test_gradients_are_central_differences(kind, geometry, data):
    layer, x = layer_of(kind, geometry)
    dy = integers_like(layer(x).shape, seed=5)
    dx = layer.backward(dy)
    parameters = layer.weight, layer.bias
    for array, gradient in [(x, dx), *((each.value, each.gradient) for each in parameters)]:
        place = data.draw(st.integers(0, array.size - 1))
        before, sums = array.flat[place], []
        for step in (1, -1):  # integers: the differences are exact, whatever the step
            array.flat[place] = before + step
            sums.append(np.sum(layer.predict(x) * dy))
        array.flat[place] = before
        assert sums[0] - sums[1] == 2 * gradient.flat[place]


@given(st.sampled_from([Conv, ConvTranspose]), padded_calls())
def test_padding_modes_go_backward(kind, case):
    geometry, keywords = case
    plain = replace(geometry, weight_format="IO*", flip_kernel=False)
    layer, x = layer_of(kind, plain, padding_mode=keywords["padding_mode"])
    y = layer(x)
    dy = integers_like(y.shape, seed=2)
    dx = layer.backward(dy)
    layer.bias.value = np.zeros(layer.out_channels)
    assert np.sum(layer.predict(x) * dy) == np.sum(x * dx)
    assert np.sum(x * dx) == np.sum(layer.weight.value * layer.weight.gradient)


@given(
    st.sampled_from([Conv, ConvTranspose]),
    st.sampled_from(["same", "same_upper", "same_lower", "valid"]),
    st.integers(1, 3),
    st.integers(1, 5),
    st.integers(1, 3),
    st.integers(1, 2),
)
def test_named_padding_goes_backward(kind, padding, rank, kernel, stride, dilation):
    layer = kind(
        2, 3, (kernel,) * rank, stride, padding, dilation=dilation, bias=False, dtype="float64"
    )
    layer.weight.value = integers_like(layer.weight.shape)
    size = 7 if rank < 3 else 5
    if padding == "valid" and kind is Conv and dilation * (kernel - 1) >= size:
        return
    x = integers_like((1, 2, *[size] * rank), seed=1)
    y = layer(x)
    if padding != "valid":
        expected = -(-size // stride) if kind is Conv else size * stride
        assert y.shape == (1, 3, *[expected] * rank)
    dy = integers_like(y.shape, seed=2)
    dx = layer.backward(dy)
    assert np.sum(y * dy) == np.sum(x * dx) == np.sum(layer.weight.value * layer.weight.gradient)


@given(st.sampled_from([Conv, ConvTranspose]), plain_geometries())
def test_groups_are_layers_side_by_side(kind, geometry):
    layer, x = layer_of(kind, geometry)
    keywords = {name: getattr(layer, name) for name in SETTINGS if name != "groups"}
    if kind is Conv:
        keywords.pop("output_padding")
    y = layer(x)
    dy = integers_like(y.shape, seed=4)
    dx, g = layer.backward(dy), layer.groups
    axis = int(geometry.batched)
    shares = [np.split(array, g, axis) for array in (x, y, dy, dx)]
    parameters = [
        np.split(array, g)
        for array in (
            layer.weight.value,
            layer.weight.gradient,
            layer.bias.value,
            layer.bias.gradient,
        )
    ]
    for part in zip(*shares, *parameters, strict=True):
        x_part, y_part, dy_part, dx_part, w, dw, b, db = part
        one = kind(x_part.shape[axis], len(b), geometry.kernel_size, dtype="float64", **keywords)
        one.weight.value, one.bias.value = w, b
        assert same_numbers(one(x_part), y_part)
        assert same_numbers(one.backward(dy_part), dx_part)
        assert same_numbers(one.weight.gradient, dw)
        assert same_numbers(one.bias.gradient, db)


@given(st.sampled_from([Conv, ConvTranspose]), plain_geometries())
def test_channels_last_is_channels_first_moved(kind, geometry):
    first, x = layer_of(kind, geometry)
    last, _ = layer_of(kind, geometry, data_format="channels_last")
    channel = int(geometry.batched)
    y = first(x)
    moved = last(np.moveaxis(x, channel, -1))
    assert same_numbers(np.moveaxis(moved, -1, channel), y)
    dy = integers_like(y.shape, seed=6)
    dx = last.backward(np.moveaxis(dy, channel, -1))
    assert same_numbers(np.moveaxis(dx, -1, channel), first.backward(dy))
    assert same_numbers(last.weight.gradient, first.weight.gradient)
    assert same_numbers(last.bias.gradient, first.bias.gradient)


@pytest.mark.parametrize("wanted", [9, (9,), (2, 3, 9), [10]])
def test_output_size(wanted):
    layer = ConvTranspose1d(1, 3, 3, stride=2, dtype="float64")
    layer.weight.value = integers_like((1, 3, 3))
    x = integers_like((2, 1, 4), seed=1)
    y = layer(x, output_size=wanted)
    expected = conv_transpose(x, layer.weight.value, stride=2, output_size=wanted)
    assert same_numbers(y, expected)
    assert np.sum(y * y) == np.sum(x * layer.backward(y))
    assert layer(x).shape == (2, 3, 9)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
def test_every_type_stays_what_it_is(kind, dtype):
    layer = kind(2, 4, 3, stride=2, padding=1, groups=2, dtype=dtype, rng=0)
    exact = kind(2, 4, 3, stride=2, padding=1, groups=2, dtype="float64", rng=0)
    exact.load_state_dict(layer.state_dict())
    x = integers_like((2, 2, 5, 5))
    y = layer(x.astype(layer.dtype))
    dx = layer.backward(y)
    found = [y, dx, *(each.gradient for each in layer.parameters())]
    y = exact(x)
    dx = exact.backward(y)
    tolerance = {"float16": 2e-2, "bfloat16": 1e-1, "float32": 1e-5, "float64": 0}[dtype]
    expected = [y, dx, *(each.gradient for each in exact.parameters())]
    for array, value in zip(found, expected, strict=True):
        assert array.dtype == dtype
        np.testing.assert_allclose(
            array.astype(np.float64), value, rtol=tolerance, atol=tolerance * abs(value).max()
        )


# ---- with an activation --------------------------------------------------------------------------

EXACT = {
    "relu": ReLU(),
    ("leaky_relu", 0.25): LeakyReLU(0.25),
    ("leaky_relu", 2): LeakyReLU(2),
    ("prelu", -0.5): LeakyReLU(-0.5),  # backward needs the sums
}
BY_Y = ["tanh", "sigmoid", ("elu", 1.5), ("clip", -0.5, 0.75), ("hard_sigmoid", 0.2, 0.5)]
BY_SUMS = ["silu", "hard_swish", "gelu", ("gelu", "tanh"), ("snake", 0.5)]
ROUNDED = BY_Y + BY_SUMS


@given(st.sampled_from([Conv, ConvTranspose]), plain_geometries(), st.sampled_from(list(EXACT)))
def test_a_rectifier_is_the_layer_that_follows(kind, geometry, activation):
    plain, x = layer_of(kind, geometry)
    fused, _ = layer_of(kind, geometry, activation=activation)
    both = Sequential(plain, EXACT[activation])
    y = fused(x)
    assert same_numbers(y, both(x))
    assert same_numbers(y, fused.predict(x))
    dy = integers_like(y.shape, seed=3)
    assert same_numbers(fused.backward(dy), both.backward(dy))
    for one, other in zip(fused.parameters(), plain.parameters(), strict=True):
        assert same_numbers(one.gradient, other.gradient)


@given(st.sampled_from([Conv, ConvTranspose]), plain_geometries(), st.sampled_from(ROUNDED))
def test_a_smooth_activation_follows_and_goes_backward(kind, geometry, activation):
    plain, x = layer_of(kind, geometry)
    fused, _ = layer_of(kind, geometry, activation=activation)
    for layer in (plain, fused):
        layer.weight.value = layer.weight.value / 64
    follows, sums = as_activation(activation), plain(x)
    expected = sums.copy()
    follows.apply(expected)
    y = fused(x)
    np.testing.assert_allclose(y, expected, rtol=1e-12, atol=1e-15)
    np.testing.assert_allclose(fused.predict(x), y, rtol=1e-12, atol=1e-14)
    values = sums if activation in BY_SUMS else expected
    dy = integers_like(y.shape, seed=3)
    dx = plain.backward(follows.pull_back(values, dy))
    np.testing.assert_allclose(fused.backward(dy), dx, rtol=1e-12, atol=1e-12)
    for one, other in zip(fused.parameters(), plain.parameters(), strict=True):
        np.testing.assert_allclose(one.gradient, other.gradient, rtol=1e-12, atol=1e-12)


@given(st.sampled_from([Conv, ConvTranspose]), padded_calls(), st.sampled_from(list(EXACT)))
def test_under_a_padding_mode_it_follows_what_is_folded(kind, case, activation):
    geometry, keywords = case
    geometry = replace(geometry, weight_format="IO*", flip_kernel=False)
    mode = keywords["padding_mode"]
    plain, x = layer_of(kind, geometry, padding_mode=mode)
    fused, _ = layer_of(kind, geometry, padding_mode=mode, activation=activation)
    both = Sequential(plain, EXACT[activation])
    y = fused(x)
    assert same_numbers(y, both(x))
    dy = integers_like(y.shape, seed=3)
    assert same_numbers(fused.backward(dy), both.backward(dy))


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
@pytest.mark.parametrize("activation", [*EXACT, *ROUNDED], ids=str)
def test_halves_are_activated_in_float32(kind, dtype, activation):
    options = {"stride": 2, "padding": 1, "dtype": dtype}
    plain, fused = kind(2, 4, 3, rng=0, **options), kind(2, 4, 3, rng=0, **options)
    fused.activation = activation
    x = integers_like((2, 2, 5, 5)).astype(plain.dtype)
    if target().uses_engine:  # else sums are rounded before they are activated, too
        plain = kind(2, 4, 3, **options | {"dtype": np.promote_types(plain.dtype, "float32")})
        plain.weight.value = fused.weight.value.astype(plain.dtype)
    expected = plain(x.astype(plain.dtype))
    as_activation(activation).apply(expected)
    y = fused.predict(x)  # forward rounds the sums that it keeps
    assert y.dtype == x.dtype
    # Where the last digits of float32 decide, the next number is as right.
    place = ml_dtypes.finfo(x.dtype).eps if y.itemsize == 2 else 1e-6
    found, rounded = y.astype(np.float64), expected.astype(x.dtype).astype(np.float64)
    np.testing.assert_allclose(found, rounded, rtol=place, atol=1e-7)
    assert (found != rounded).mean() < 0.05 or y.itemsize > 2
    fused(x)
    assert fused.backward(y).dtype == x.dtype


def test_an_activation_may_be_changed_and_backward_goes_by_that_of_the_forward():
    layer = ConvTranspose1d(1, 1, 2, stride=2, dtype="float64", activation="relu")
    layer.weight.value = np.array([[[1.0, -1.0]]])
    x = np.array([[[1.0, 2.0]]])
    assert same_numbers(layer(x), [[[1, 0, 2, 0]]])
    layer.activation = None
    assert same_numbers(layer.backward(np.ones((1, 1, 4))), [[[1, 1]]])
    assert same_numbers(layer(x), [[[1, -1, 2, -2]]])
    assert same_numbers(layer.backward(np.ones((1, 1, 4))), [[[0, 0]]])
    layer.activation = ("leaky_relu", 0.5)
    assert same_numbers(layer(x), [[[1, -0.5, 2, -1]]])
    assert layer.activation == ("leaky_relu", 0.5)


@pytest.mark.parametrize("activation", BY_SUMS, ids=str)
@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
def test_only_forward_computes_the_sums_apart(kind, activation):
    layer = kind(2, 3, 3, rng=0, dtype="float64", activation=activation)
    x, applied = np.random.default_rng(0).standard_normal((2, 2, 6, 6)), []
    layer(x)
    dx = layer.backward(np.ones_like(layer(x)))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Activation, "apply", lambda self, y: applied.append(self.name))
        layer.predict(x)
        assert not applied or not target().uses_engine
        layer(x)
        assert applied
    assert layer.backward(np.ones_like(layer.predict(x))).shape == dx.shape


def test_a_subclass_that_overrides_compute_predicts_by_it():
    class Doubled(Conv2d):
        def compute(self, x):
            y, kept = super().compute(x)
            return 2 * y, kept

    x = np.ones((1, 2, 5, 5), np.float32)
    layer, plain = (kind(2, 3, 3, rng=0, activation="silu") for kind in (Doubled, Conv2d))
    np.testing.assert_allclose(layer.predict(x), 2 * plain.predict(x), rtol=1e-6)


# ---- weights that change -------------------------------------------------------------------------


def large_pair(kind):
    """A layer whose weight is packed, what goes into it, and what it should give."""
    layer = kind(32, 32, (4, 4), 2, 1, dtype="float32", bias=False)
    layer.weight.value = integers_like(layer.weight.shape)
    x = integers_like((1, 32, 5, 6), seed=1).astype(np.float32)

    def agrees():
        weight, function = layer.weight._value.copy(), conv if kind is Conv else conv_transpose
        expected = function(x, weight, stride=2, padding=1)
        return all(np.array_equal(layer.predict(x), expected) for _ in range(2))

    assert agrees()
    return layer, agrees


WRITES = {
    "an item": lambda a: a.__setitem__((3, 5, 1, 2), 7),
    "all but one column": lambda a: a[:, 1:].fill(0),
    "one channel": lambda a: a[4].fill(0),
    "a sign": lambda a: np.negative(a[2, 3], out=a[2, 3]),
    "swapped channels": lambda a: a.__setitem__([3, 11], a[[11, 3]]),
}
HOLDS = {
    "the array": lambda a: a,
    "a part": lambda a: a.reshape(a.shape),
    "a memoryview": memoryview,
    "ctypes": lambda a: (np.ctypeslib.as_ctypes_type(a.dtype) * a.size).from_buffer(a),
    "another library": np.from_dlpack,
}


@pytest.mark.parametrize("write", WRITES)
@pytest.mark.parametrize("kind", [Conv, ConvTranspose])
def test_a_weight_is_followed_however_it_is_written(kind, write):
    layer, agrees = large_pair(kind)
    WRITES[write](layer.weight.value)
    assert agrees()


@pytest.mark.parametrize("hold", HOLDS)
@pytest.mark.parametrize("kind", [Conv, ConvTranspose])
def test_a_weight_is_followed_while_somebody_holds_it_and_after(kind, hold):
    layer, agrees = large_pair(kind)
    held = HOLDS[hold](layer.weight.value)
    for write in WRITES.values():
        array = np.asarray(held).reshape(layer.weight.shape)
        array.flags.writeable = True
        write(array)
        del array
        assert agrees()
    array = np.asarray(held).reshape(layer.weight.shape)
    array.flags.writeable = True
    array[1:] += 1
    del held, array
    assert agrees()


def test_what_is_written_at_an_address_is_seen_when_the_value_is_asked_for():
    layer, agrees = large_pair(ConvTranspose)
    place = layer.weight.value.ctypes.data
    assert agrees()
    (ctypes.c_float * 100).from_address(place)[99] = 3.0
    _ = layer.weight.value
    assert agrees()


@pytest.mark.parametrize("kind", [Conv, ConvTranspose])
def test_another_parameter_is_another_however_often_both_were_asked_for(kind):
    for asked in range(4):
        layer, agrees = large_pair(kind)
        other, others_agree = large_pair(kind)
        other.weight.value = other.weight._value * 2
        for _ in range(asked):
            assert layer.weight.value.shape == other.weight.shape
        assert agrees()
        assert others_agree()
        layer.weight = other.weight
        assert agrees()
    for made in (copy.deepcopy(layer.weight), pickle.loads(pickle.dumps(layer.weight))):
        held = made.value
        layer.weight, before = made, layer.weight
        assert agrees()
        held[1:] = -1
        del held
        assert agrees()
        layer.weight = before
        assert agrees()


def test_a_copy_and_what_it_was_made_of_have_no_common_version():
    layer, agrees = large_pair(ConvTranspose)
    held = layer.weight.value
    made = copy.deepcopy(layer.weight)
    held[:, 1:] = 0
    del held
    assert agrees()
    layer.weight = made
    assert agrees()


@pytest.mark.parametrize("dtype", [[], {}, 3, "int8", object(), np.ndarray])
def test_a_type_is_a_floating_one(dtype):
    with pytest.raises(DTypeError, match=r"^dtype=.* must name one of float16, bfloat16, "):
        ConvTranspose1d(1, 1, 1, dtype=dtype)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("groups", (1,)),
        ("data_format", np.ones(2)),
        ("padding_mode", 3),
        ("weight", None),
        ("activation", np.ones(3)),
        ("activation", [np.ones(3), 1]),
    ],
    ids=str,
)
def test_a_setting_is_checked_when_it_is_set(name, value):
    layer = ConvTranspose1d(1, 1, 1, rng=0)
    with pytest.raises(ParameterError, match=f"^{name}=.* must be"):
        setattr(layer, name, value)
    assert layer(np.ones((1, 1, 1), np.float32)).shape == (1, 1, 1)


@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
@pytest.mark.parametrize("convert", [np.asarray, np.ndarray.tolist])
def test_an_array_that_is_assigned_sets_the_values_of_the_parameter(kind, convert):
    layer = kind(2, 3, 2, rng=0)
    weight, bias = layer.weight, layer.bias
    optimiser = SGD(layer.parameters(), lr=0.5)
    x = np.ones((1, 2, 4, 4), np.float32)
    layer(x)  # which binds a call and packs the weight
    array = integers_like(weight.shape)
    layer.weight, layer.bias = convert(array), convert(np.arange(3.0))
    assert layer.weight is weight
    assert layer.bias is bias
    assert weight.value.tolist() == array.tolist()
    assert bias.value.tolist() == [0, 1, 2]
    function = conv if kind is Conv2d else conv_transpose
    y = layer(x)
    assert y.tolist() == function(x, array.astype("f4"), np.arange(3, dtype="f4")).tolist()
    layer.backward(np.ones_like(y))
    optimiser.step()
    assert layer.bias.value.tolist() != [0, 1, 2]
    layer.bias = None
    assert layer.parameters() == [weight]


@pytest.mark.parametrize(
    ("name", "value", "error", "message"),
    [
        (
            "weight",
            np.ones((3, 2, 2, 2)),
            ShapeError,
            "weight has shape (3, 2, 2, 2), must be (2, 3, 2, 2); pass such an array.",
        ),
        (
            "weight",
            np.ones((2, 3, 2, 2), complex),
            DTypeError,
            "weight has dtype complex128, must be of real numbers; convert it.",
        ),
        ("weight", None, ParameterError, "weight=None must be a Parameter or an array; pass one."),
        (
            "bias",
            2.0,
            ParameterError,
            "bias=2.0 must be a Parameter, the layer has none yet; pass tconv.Parameter(array, "
            '"bias") or make the layer with bias=True.',
        ),
    ],
)
def test_a_wrong_array_that_is_assigned_changes_nothing(name, value, error, message):
    layer = ConvTranspose2d(2, 3, 2, bias=False, rng=0)
    weight, before = layer.weight, layer.weight.value.copy()
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        setattr(layer, name, value)
    assert layer.parameters() == [weight]
    assert np.array_equal(weight.value, before)
