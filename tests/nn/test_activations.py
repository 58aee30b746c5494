"""Tanh, sigmoid and snake as layers: values, gradients, parameters and what is refused."""

import copy
import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tconv
from activation_formulas import FORMULAS
from strategies import draws
from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.nn.activations import Sigmoid, Snake, Tanh
from tconv.nn.layer import Sequential

TYPES = ["float16", "bfloat16", "float32", "float64"]
each_type = pytest.mark.parametrize("dtype", TYPES)
LAYERS = {
    "tanh": (Tanh, ()),
    "sigmoid": (Sigmoid, ()),
    "snake": (lambda: Snake(alpha=1.5), (1.5,)),
    "snake of channels": (lambda: Snake(3, 1.5, dtype="float64"), (1.5,)),
}
each_layer = pytest.mark.parametrize("name", LAYERS)


def made(name):
    make, parameters = LAYERS[name]
    return make(), FORMULAS[name.split()[0]], parameters


@each_type
@each_layer
def test_values_are_those_of_the_formula(name, dtype):
    layer, formula, parameters = made(name)
    x = np.linspace(-9, 9, 3 * 101).reshape(1, 3, 101).astype(dtype)
    exact = formula(x.astype(np.longdouble), *map(np.longdouble, parameters))
    before = x.copy()
    for y in (layer(x), layer.predict(x)):
        assert (y.shape, y.dtype) == (x.shape, dtype)
        computed = "float32" if x.dtype.itemsize == 2 else dtype
        most = 0.51 * np.spacing(np.abs(exact.astype(dtype))).astype(np.float64)
        most = np.maximum(most, 8 * np.finfo(computed).eps * np.maximum(np.abs(exact), 1))
        assert np.all(np.abs(y.astype(np.longdouble) - exact) <= most)
    assert np.array_equal(x, before)


@each_layer
@draws()
@given(st.integers(0, 2**32 - 1))
def test_gradients_are_central_differences(name, seed):
    layer, _, _ = made(name)
    rng = np.random.default_rng(seed)
    x = rng.normal(size=(2, 3, 4))
    dy = rng.normal(size=layer(x).shape)
    dx, step = layer.backward(dy), 1e-6
    for place in range(x.size):
        before, values = x.flat[place], []
        for change in (step, -step):
            x.flat[place] = before + change
            values.append(np.sum(layer.predict(x) * dy))
        x.flat[place] = before
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(dx.flat[place], abs=1e-7)


@draws()
@given(st.integers(0, 2**32 - 1), st.sampled_from([(2, 3), (2, 3, 4), (1, 3, 2, 2)]))
def test_the_gradient_of_alpha_is_a_central_difference(seed, shape):
    rng = np.random.default_rng(seed)
    layer = Snake(3, dtype="float64")
    layer.alpha.value = rng.uniform(0.3, 2, 3) * rng.choice([-1, 1], 3)
    x = rng.normal(size=shape)
    dy = rng.normal(size=layer(x).shape)
    layer.backward(dy)
    once, step = layer.alpha.gradient.copy(), 1e-6
    for channel in range(3):
        before, values = layer.alpha.value, []
        for change in (step, -step):
            layer.alpha.value = before + change * (np.arange(3) == channel)
            values.append(np.sum(layer.predict(x) * dy))
        layer.alpha.value = before
        assert (values[0] - values[1]) / (2 * step) == pytest.approx(once[channel], abs=1e-6)
    layer.backward(dy)
    assert np.allclose(layer.alpha.gradient, 2 * once)


@each_type
def test_gradients_are_of_the_type_of_x(dtype):
    x = np.linspace(-3, 3, 12).reshape(1, 3, 4).astype(dtype)
    for layer in (Tanh(), Sigmoid(), Snake(alpha=0.5), Snake(3, 0.5, dtype=dtype)):
        dx = layer.backward(np.ones_like(layer(x)))
        assert (dx.shape, dx.dtype) == (x.shape, dtype)
    assert layer.alpha.gradient.dtype == layer.alpha.dtype == dtype
    exact = Snake(3, 0.5, dtype="float64")
    exact(x.astype(np.float64))
    exact.backward(np.ones(x.shape))
    error = np.abs(layer.alpha.gradient.astype(np.float64) - exact.alpha.gradient)
    assert (
        error.max()
        <= 8 * float(np.spacing(np.ones((), dtype))) * np.abs(exact.alpha.gradient).max()
    )


def test_a_fixed_alpha_is_no_parameter():
    assert list(Snake(alpha=0.5).parameters()) == []
    net = Sequential(Snake(2), Snake(alpha=2), Tanh())
    assert list(net.state_dict()) == ["0.alpha"]
    net.load_state_dict({"0.alpha": [0.25, 4]})
    x = np.ones((1, 2, 3))
    assert np.allclose(net[0](x)[0, :, 0], 1 + np.sin([0.25, 4]) ** 2 / [0.25, 4])


def test_channels_are_those_of_batches_of_pictures_as_well():
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 5))
    layer = Snake(3, dtype="float64")
    layer.alpha.value = np.array([0.5, 1.0, 2.0])
    for channel, alpha in enumerate((0.5, 1.0, 2.0)):
        assert np.array_equal(layer(x)[:, channel], Snake(alpha=alpha)(x[:, channel]))


@pytest.mark.parametrize("layer", [Tanh(), Sigmoid(), Snake(alpha=0.5), Snake(3, -0.5)], ids=repr)
def test_copies_and_pickles(layer):
    x = np.linspace(-2, 2, 12, dtype=np.float32).reshape(1, 3, 4)
    y = layer(x)
    for other in (copy.deepcopy(layer), pickle.loads(pickle.dumps(layer))):
        assert repr(other) == repr(layer)
        assert np.array_equal(other.predict(x), y)


def test_layers_are_shown():
    assert [repr(each) for each in (Tanh(), Sigmoid(), Snake(), Snake(4), Snake(alpha=-0.25))] == [
        "Tanh()",
        "Sigmoid()",
        "Snake(alpha=1)",
        "Snake(4)",
        "Snake(alpha=-0.25)",
    ]


@pytest.mark.parametrize("layer", [Tanh(), Sigmoid(), Snake()], ids=repr)
def test_any_shape(layer):
    for x in (np.array(0.5), np.zeros((0, 3)), np.zeros((2, 0, 3)), np.ones((4, 6))[::2, ::3]):
        y = layer(x)
        assert y.shape == x.shape
        assert layer.backward(np.ones_like(x)).shape == x.shape


@pytest.mark.parametrize("layer", [Tanh(), Sigmoid(), Snake(), Snake(3)], ids=repr)
def test_what_is_not_finite(layer):
    x = np.array([np.nan, np.inf, -np.inf, 0], np.float32)
    x = np.repeat(x[np.newaxis, np.newaxis], 3, 1)
    with np.errstate(invalid="ignore"):  # of the sine of infinity
        y = layer(x)[0, 0]
    assert np.isnan(y[0])
    if not isinstance(layer, Snake):
        assert y[1:3].tolist() == [1, -1 if isinstance(layer, Tanh) else 0]


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (
            lambda: Snake(0),
            ParameterError,
            "channels=0 must be at least 1; pass a positive integer.",
        ),
        (
            lambda: Snake(2, 0),
            ParameterError,
            "alpha=0 must be another number, as y is divided by it; pass 1.0.",
        ),
        (
            lambda: Snake(alpha=np.inf),
            ParameterError,
            "alpha=inf must be a finite number; pass one.",
        ),
        (
            lambda: Snake(2, dtype="int8"),
            DTypeError,
            "dtype='int8' must name one of float16, bfloat16, float32, float64; pass one of these.",
        ),
        (
            lambda: Snake(2)(np.ones((1, 3, 2))),
            ShapeError,
            "x has shape (1, 3, 2), must have 2 channels as axis 1; pass such an array, or make "
            "the layer with the channels of x.",
        ),
        (
            lambda: Snake(3)(np.ones(3)),
            ShapeError,
            "x has shape (3,), must have 3 channels as axis 1; pass such an array, or make the "
            "layer with the channels of x.",
        ),
        *(
            (
                lambda layer=layer: layer(np.ones((1, 2, 2), int)),
                DTypeError,
                'x has dtype int64, layers need a floating type; pass x.astype("float32") for '
                "example.",
            )
            for layer in (Tanh(), Sigmoid(), Snake(), Snake(2))
        ),
    ],
)
def test_what_is_refused(use, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        use()


def test_a_wrong_keyword_is_told():
    with pytest.raises(TypeError, match="beta"):
        Snake(2, beta=3)


@pytest.mark.parametrize("layer", [Tanh(), Sigmoid(), Snake(2)], ids=repr)
def test_a_gradient_is_like_the_output(layer):
    layer(np.ones((1, 2, 3)))
    with pytest.raises(ShapeError, match=r"^dy has shape \(3,\), must be that of y"):
        layer.backward(np.ones(3))
    with pytest.raises(DTypeError, match=r"^dy has dtype float32, must be that of y, float64"):
        layer.backward(np.ones((1, 2, 3), np.float32))


def test_they_are_trained():
    """A snake finds the period of a wave."""
    x = np.linspace(-2, 2, 200).reshape(1, 1, 200)
    target = x + np.sin(1.7 * x) ** 2 / 1.7
    layer = Snake(1, 1.2, dtype="float64")
    optimiser = tconv.Adam(layer.parameters(), lr=0.05)
    for _ in range(120):
        y = layer(x)
        optimiser.zero_gradients()
        layer.backward(2 * (y - target) / x.size)
        optimiser.step()
    assert layer.alpha.value == pytest.approx(1.7, abs=1e-2)
