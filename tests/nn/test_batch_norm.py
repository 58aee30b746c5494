"""A folded layer computes what the layer and the normalisation do."""

import copy
import pickle
import re
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws, geometries, integer_operands, integers_like, keywords_of, same_numbers
from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.nn.activations import ReLU
from tconv.nn.batch_norm import BatchNorm, fold_batch_norm
from tconv.nn.conv import Conv, Conv2d, ConvTranspose, ConvTranspose1d, ConvTranspose2d

SETTINGS = ("stride", "dilation", "padding", "output_padding", "groups", "data_format")


def made(kind, geometry, bias, dtype="float64"):
    keywords = {name: keywords_of(geometry)[name] for name in SETTINGS}
    x, w, y = integer_operands(geometry)
    channels = geometry.in_channels, geometry.out_channels
    if kind is Conv:
        keywords.pop("output_padding")
        x, channels = y, channels[::-1]
    layer = kind(*channels, geometry.kernel_size, bias=bias, dtype=dtype, **keywords)
    layer.weight.value = w
    if bias:
        layer.bias.value = integers_like((layer.out_channels,), seed=1)
    return layer, x.astype(dtype)


def exact(channels, seed=0):
    """A normalisation of integers, whose variances are squares of powers of two."""
    gamma, beta, mean = (integers_like((channels,), seed=seed + n) for n in range(3))
    variance = 4.0 ** np.random.default_rng(seed).integers(-1, 3, channels)
    return BatchNorm(gamma, beta, mean, variance, 0)


def normalised(y, bn, layer, batched):
    last = layer.data_format == "channels_last"
    shape = [1] * y.ndim
    shape[-1 if last else int(batched)] = -1
    gamma, beta, mean, variance = (
        np.reshape(each, shape) for each in (bn.weight, bn.bias, bn.running_mean, bn.running_var)
    )
    return gamma * (y - mean) / np.sqrt(variance + bn.eps) + beta


@given(
    st.sampled_from([Conv, ConvTranspose]),
    geometries(plain=True, batches=(1, 2)),
    st.booleans(),
    st.sampled_from(["channels_first", "channels_last"]),
)
def test_equals_the_layer_and_then_the_normalisation(kind, geometry, bias, data_format):
    """Exactly, for its values are powers of two and integers; for any groups."""
    layer, x = made(kind, geometry, bias)
    if data_format == "channels_last":
        layer.data_format = data_format
        x = np.moveaxis(x, int(geometry.batched), -1)
    bn = exact(layer.out_channels, seed=len(repr(geometry)))
    before = layer.state_dict()
    folded = fold_batch_norm(layer, bn)
    assert type(folded) is type(layer)
    assert same_numbers(folded(x), normalised(layer(x), bn, layer, geometry.batched))
    assert all(same_numbers(value, before[name]) for name, value in layer.state_dict().items())
    assert (layer.bias is not None) == bias
    assert folded.describe().replace(", bias=False", "") == layer.describe().replace(
        ", bias=False", ""
    )


@draws(0.5)
@given(st.sampled_from([Conv, ConvTranspose]), st.integers(1, 3), st.integers(0, 99))
def test_real_values_are_folded_in_double_precision(kind, groups, seed):
    rng = np.random.default_rng(seed)
    channels = 2 * groups
    values = (rng.standard_normal(channels) for _ in range(3))
    bn = BatchNorm(*values, rng.random(channels) + 0.1, 1e-5)
    layer = kind(3 * groups, channels, (3, 3), groups=groups, dtype="float64", rng=rng)
    x = rng.standard_normal((2, 3 * groups, 6, 5))
    expected = normalised(layer(x), bn, layer, True)
    np.testing.assert_allclose(fold_batch_norm(layer, bn)(x), expected, rtol=1e-12, atol=1e-12)
    single = kind(3 * groups, channels, (3, 3), groups=groups, rng=0)
    double = kind(3 * groups, channels, (3, 3), groups=groups, dtype="float64", rng=0)
    double.load_state_dict(single.state_dict())
    rounded = fold_batch_norm(double, bn).state_dict()
    for name, value in fold_batch_norm(single, bn).state_dict().items():
        assert same_numbers(value, rounded[name].astype("float32"))


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
@pytest.mark.parametrize("kind", [Conv2d, ConvTranspose2d])
def test_padding_modes_stay(kind, mode):
    layer = kind(2, 4, 3, padding=1, padding_mode=mode, dtype="float64", rng=0)
    layer.weight.value = integers_like(layer.weight.shape)
    x, bn = integers_like((2, 2, 6, 5), seed=3), exact(4)
    assert same_numbers(fold_batch_norm(layer, bn)(x), normalised(layer(x), bn, layer, True))


def test_affine_may_be_missing_and_names_may_be_kerass():
    layer = ConvTranspose1d(1, 2, 2, dtype="float64", rng=0)
    mean, variance = np.array([1.0, 2.0]), np.array([4.0, 1.0])
    plain = BatchNorm(None, None, mean, variance, 0)
    same = SimpleNamespace(
        gamma=np.ones(2), beta=np.zeros(2), running_mean=mean, running_var=variance, eps=0
    )
    expected = BatchNorm(np.ones(2), np.zeros(2), mean, variance, 0)
    x = integers_like((1, 1, 4))
    results = [fold_batch_norm(layer, each)(x) for each in (plain, same, expected)]
    assert same_numbers(results[0], results[2])
    assert same_numbers(results[1], results[2])


def test_the_folded_layer_learns_and_takes_an_activation():
    layer = ConvTranspose1d(2, 2, 3, stride=2, bias=False, dtype="float64", rng=0)
    folded = fold_batch_norm(layer, exact(2))
    folded.activation = "relu"
    x = integers_like((1, 2, 5))
    y = folded(x)
    assert y.min() >= 0
    folded.backward(np.ones_like(y))
    assert folded.bias.gradient.any()
    assert layer(x).shape == y.shape
    assert not layer.weight.gradient.any()
    for again in (copy.deepcopy(folded), pickle.loads(pickle.dumps(folded))):
        assert same_numbers(again(x), y)
    assert sorted(folded.state_dict()) == ["bias", "weight"]


def bn_of(**changed):
    values = {"weight": np.ones(2), "bias": np.ones(2), "running_mean": np.ones(2)}
    return SimpleNamespace(**(values | {"running_var": np.ones(2), "eps": 0.0} | changed))


LAYER = ConvTranspose1d(1, 2, 2)


@pytest.mark.parametrize(
    ("bn", "error", "message"),
    [
        (bn_of(training=True), ParameterError, "bn is in training"),
        (bn_of(running_mean=None), ParameterError, "bn.running_mean=None must be an array of"),
        (bn_of(running_var=None), ParameterError, "bn.running_var=None must be an array of"),
        (bn_of(weight=np.ones(3)), ShapeError, "bn.weight has shape (3,), must be (2,), one"),
        (bn_of(running_var=np.ones(1)), ShapeError, "bn.running_var has shape (1,), must be (2,)"),
        (bn_of(bias=np.array([1, np.nan])), ParameterError, "bn.bias must be finite, holds nan"),
        (bn_of(running_var=np.array([np.inf, 1])), ParameterError, "bn.running_var must be finite"),
        (bn_of(running_var=np.array([1.0, -2])), ParameterError, "bn.running_var=-2 must be at le"),
        (bn_of(running_var=np.zeros(2)), ParameterError, "bn.running_var=0 must be at least 0, an"),
        (bn_of(eps=np.inf), ParameterError, "bn.eps must be finite, holds inf"),
        (object(), ParameterError, "bn=<object object"),
    ],
)
def test_what_cannot_be_folded_is_refused(bn, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}.*; "):
        fold_batch_norm(LAYER, bn)


@pytest.mark.parametrize(
    ("layer", "message"),
    [
        (ReLU(), "layer=ReLU() must be a ConvTranspose or a Conv; pass such a layer."),
        (ConvTranspose1d(None, 2, 2), "weight has no value yet"),
        (ConvTranspose1d(1, 2, 2, activation="tanh"), "layer has activation='tanh', which comes"),
    ],
    ids=["ReLU", "not drawn", "activation"],
)
def test_what_cannot_be_folded_into_is_refused(layer, message):
    with pytest.raises(ParameterError, match=f"^{re.escape(message)}"):
        fold_batch_norm(layer, bn_of())


@pytest.mark.parametrize("value", ["words", [None] * 3, [[1], [2, 3]], {}, [1j] * 3, object()])
def test_statistics_are_real_numbers(value):
    bn = BatchNorm(None, None, value, np.ones(3), 0)
    with pytest.raises((DTypeError, ShapeError), match=r"^bn\.running_mean"):
        fold_batch_norm(ConvTranspose1d(1, 3, 1, rng=0), bn)


@pytest.mark.parametrize("channels", [None, 1.5, "3", -1])
def test_a_number_of_channels_is_an_integer(channels):
    with pytest.raises(ParameterError, match=r"^channels="):
        BatchNorm(None, None, np.zeros(3), np.ones(3)).scale_and_shift(channels)
