"""Activations against their formulas, derivatives against differences."""

import re

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws, integers_like
from tconv.arrays.activations import ACTIVATIONS, Activation, apply_mask, as_activation, select
from tconv.arrays.dtypes import as_dtype
from tconv.errors import DTypeError, ParameterError

ARGUMENTS = ["relu", ("leaky_relu", 0.25), ("leaky_relu", 3.0), "tanh", "sigmoid"]
FORMULAS = {
    "relu": lambda x, _: np.where(x < 0, 0, x),
    "leaky_relu": lambda x, slope: np.where(x < 0, slope * x, x),
    "tanh": lambda x, _: np.tanh(x),
    "sigmoid": lambda x, _: 1 / (1 + np.exp(-x)),
}
TYPES = ["float16", ml_dtypes.bfloat16, "float32", "float64"]
each_argument = pytest.mark.parametrize("argument", ARGUMENTS, ids=str)


def applied(argument, x):
    y = np.array(x)
    as_activation(argument).apply(y)
    return y


def test_each_has_a_law():
    assert {as_activation(each).name for each in ARGUMENTS} == set(ACTIVATIONS) == set(FORMULAS)


@each_argument
@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_equals_its_formula_within_the_type(argument, dtype):
    x = np.linspace(-20, 20, 100_003).astype(dtype)
    follows = as_activation(argument)
    exact = FORMULAS[follows.name](x.astype(np.longdouble), follows.slope)
    y = applied(argument, x)
    assert y.dtype == x.dtype
    rounded = np.abs(exact.astype(dtype))
    # Half a place for the rounding of a half; of the others NumPy's functions are a few places off.
    places = 0.501 if y.dtype.itemsize == 2 else 4
    assert np.all(np.abs(y.astype(np.longdouble) - exact) <= places * np.spacing(rounded))


@each_argument
@draws(0.3)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=4), st.permutations(range(4)), st.data())
def test_any_layout_is_written_in_place(argument, shape, order, data):
    x = integers_like([2 * n for n in shape], "float32")
    x = x.transpose([n for n in order if n < x.ndim])
    x = x[tuple(slice(None, None, data.draw(st.sampled_from([1, 2, -1]))) for _ in shape)]
    expected = applied(argument, np.ascontiguousarray(x))
    as_activation(argument).apply(x)
    assert np.array_equal(x, expected)


@each_argument
def test_the_ends_of_the_range_warn_of_nothing(argument):
    for dtype in ("float32", "float64"):
        least = np.finfo(dtype).smallest_subnormal
        x = np.array([np.inf, -np.inf, np.nan, 0, -0.0, least, -least, 1e30, -1e30], dtype)
        y = applied(argument, x)
        assert np.isnan(y[2])
        assert np.isnan(y).sum() == 1
        limits = {"relu": (np.inf, 0), "leaky_relu": (np.inf, -np.inf), "tanh": (1, -1)}
        assert tuple(y[:2]) == limits.get(as_activation(argument).name, (1, 0))
        assert np.all(np.diff(y[[1, 8, 6, 4, 5, 7, 0]]) >= 0)


@each_argument
def test_the_derivative_is_that_of_central_differences(argument):
    x = np.array([-3.0, -1.25, -0.5, 0.25, 1.0, 2.5])
    dy = np.array([1.0, -2.0, 3.0, 4.0, -5.0, 6.0])
    step = 1e-6
    slope = (applied(argument, x + step) - applied(argument, x - step)) / (2 * step)
    found = as_activation(argument).pull_back(applied(argument, x), dy)
    assert np.allclose(found, slope * dy, rtol=1e-8, atol=1e-9)
    for dtype in TYPES:
        y = applied(argument, x.astype(dtype))
        half = as_activation(argument).pull_back(y, dy.astype(dtype))
        assert half.dtype == dtype
        assert np.allclose(half.astype(float), found, rtol=0.03, atol=0.03)


def test_an_argument_says_what_it_is():
    for argument in ARGUMENTS:
        follows = as_activation(argument)
        assert as_activation(follows.argument) == follows == as_activation(follows)
        assert hash(follows) == hash(as_activation(argument))
    assert as_activation(None) is None
    assert as_activation(["leaky_relu", np.float32(0.5)]) == Activation("leaky_relu", 0.5)
    assert as_activation(("leaky_relu", 0)) == Activation("relu")


@pytest.mark.parametrize(
    "wrong",
    ["gelu", "ReLU", "", True, 1, ("relu",), ("tanh", 1), ("leaky_relu", 1, 2), {}, np.tanh],
    ids=str,
)
def test_what_is_none_of_them_is_refused(wrong):
    rule = "must be None, 'relu', ('leaky_relu', slope), 'tanh' or 'sigmoid'; pass one of these."
    with pytest.raises(ParameterError, match=rf"^activation=.* {re.escape(rule)}$"):
        as_activation(wrong)


def test_a_leaky_relu_without_a_slope_is_told_what_to_pass():
    with pytest.raises(ParameterError, match=r'; pass \("leaky_relu", 0\.01\)\.$'):
        as_activation("leaky_relu")


@pytest.mark.parametrize("slope", [-0.1, float("nan"), float("inf"), "0.1", None, True, 1j])
def test_a_slope_is_finite_and_not_negative(slope):
    message = rf"^activation\[1\]={re.escape(repr(slope))} must be a finite number of at least 0"
    with pytest.raises(ParameterError, match=message):
        as_activation(("leaky_relu", slope))


@pytest.mark.parametrize("dtype", ["int8", "int64", "complex64"])
def test_only_floating_numbers_are_taken(dtype):
    with pytest.raises(DTypeError, match=rf'^activation="tanh" takes one of .*, not {dtype}; '):
        Activation("tanh").check_type(dtype)


# ---- choices without branches --------------------------------------------------------------------

SPECIAL = [np.nan, np.inf, -np.inf, 0.0, -0.0, 1.5, -2.0, 1e-40]


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("step", [1, -2])
def test_they_are_where(dtype, step):
    numbers = np.array(SPECIAL).astype(as_dtype(np, dtype))
    a, b = (each.reshape(8, 8).copy() for each in (numbers.repeat(8), np.tile(numbers, 8)))
    a, b = a[:, ::step], b[:, ::step]
    mask = np.random.default_rng(0).random(a.shape) < 0.5
    bits = f"i{a.itemsize}"
    zeroed, expected = apply_mask(a, mask), np.where(mask, a, a.dtype.type(0))
    assert np.array_equal(zeroed.view(bits), expected.view(bits))
    expected = np.where(mask, a, b)
    assert np.array_equal(select(mask, a, b.copy()).view(bits), expected.view(bits))


def test_also_of_one_number():
    for mask in (True, False):
        assert select(np.bool_(mask), np.array(1.0), np.float64(2.0)) == (1 if mask else 2)
        assert apply_mask(np.array(1.0), np.bool_(mask)) == mask
