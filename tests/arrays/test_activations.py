"""Activations against their formulas, derivatives against differences."""

import re

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation_formulas import FORMULAS
from strategies import draws, integers_like
from tconv.arrays.activations import ACTIVATIONS, Activation, as_activation
from tconv.errors import DTypeError, ParameterError

ARGUMENTS = [
    *("relu", ("leaky_relu", 0.25), ("leaky_relu", 3.0), ("prelu", 0.25), ("prelu", -0.5)),
    *(("elu", 1.0), ("elu", 2.5), ("clip", -1, 6), ("clip", None, 0.75), ("clip", -0.25, None)),
    *(("hard_sigmoid", 1 / 6, 0.5), ("hard_sigmoid", -0.25, 0.25), "tanh", "sigmoid", "silu"),
    *("hard_swish", "gelu", ("gelu", "tanh"), ("snake", 1.0), ("snake", -2.5)),
]
SUMS = ["silu", "hard_swish", "gelu", "gelu_tanh", "snake"]  # besides a prelu that falls
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
    computed = np.promote_types(dtype, "float32").type  # in which the parameters are
    parameters = [np.longdouble(computed(each)) for each in follows.parameters]
    exact = FORMULAS[follows.name](x.astype(np.longdouble), *parameters)
    y = applied(argument, x)
    assert y.dtype == x.dtype
    rounded = np.abs(exact.astype(dtype))
    # Half a place for the rounding of a half; of the others NumPy's functions are a few places off.
    places = 0.501 if y.dtype.itemsize == 2 else 8 if follows.name == "gelu" else 4
    # Those with cancellation or with a rounded argument of exp are so near for terms of 1.
    near = np.finfo(computed).eps * np.minimum(1, np.abs(x).astype(computed))
    is_sum = follows.name in ("hard_sigmoid", "gelu_tanh", "snake")
    most = places * np.spacing(rounded).astype(computed) + (4 * near if is_sum else 0)
    assert np.all(np.abs(y.astype(np.longdouble) - exact) <= most)


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
    follows = as_activation(argument)
    limits = {"relu": (np.inf, 0), "leaky_relu": (np.inf, -np.inf), "tanh": (1, -1)}
    limits |= {"sigmoid": (1, 0), "snake": (np.nan, np.nan), "clip": follows.parameters[::-1]}
    for name in ("silu", "hard_swish", "gelu", "gelu_tanh"):
        limits[name] = np.inf, np.nan  # -inf times 0
    if follows.name == "elu":
        limits["elu"] = np.inf, -follows.parameters[0]
    if follows.name in ("prelu", "hard_sigmoid"):
        falls = follows.parameters[0] < 0
        limits["prelu"] = np.inf, np.inf if falls else -np.inf
        limits["hard_sigmoid"] = (0, 1) if falls else (1, 0)
    for dtype in ("float32", "float64"):
        least = np.finfo(dtype).smallest_subnormal
        x = np.array([np.inf, -np.inf, np.nan, 0, -0.0, least, -least, 1e30, -1e30], dtype)
        y = applied(argument, x)
        assert np.isnan(y[2])
        assert np.array_equal(y[:2], np.array(limits[follows.name], dtype), equal_nan=True)
        assert np.isfinite(y[3:]).all()
        if not follows.needs_sums and follows.parameters != (-0.25, 0.25):
            assert np.all(np.diff(y[[1, 8, 6, 4, 5, 7, 0]]) >= 0)


@each_argument
def test_the_derivative_is_that_of_central_differences(argument):
    follows = as_activation(argument)
    x = np.array([-3.25, -1.5, -0.5, 0.25, 1.125, 2.5, 7.0])
    dy = np.array([1.0, -2.0, 3.0, 4.0, -5.0, 6.0, 2.0])
    step = 1e-6
    slope = (applied(argument, x + step) - applied(argument, x - step)) / (2 * step)
    found = follows.pull_back(x if follows.needs_sums else applied(argument, x), dy)
    assert np.allclose(found, slope * dy, rtol=1e-8, atol=1e-8)
    for dtype in TYPES:
        y = x.astype(dtype) if follows.needs_sums else applied(argument, x.astype(dtype))
        half = follows.pull_back(y, dy.astype(dtype))
        assert half.dtype == dtype
        assert np.allclose(half.astype(float), found, rtol=0.03, atol=0.03)


@each_argument
def test_a_gradient_may_have_any_layout(argument):
    x = integers_like((4, 6, 5), "float64")
    follows, dy = as_activation(argument), integers_like((4, 6, 5), "float64", 2)
    values = x if follows.needs_sums else applied(argument, x)
    expected = follows.pull_back(values, dy)
    moved = (np.asfortranarray(each)[:, ::-1][:, ::-1] for each in (values, dy))
    assert np.array_equal(follows.pull_back(*moved), expected)
    assert follows.pull_back(values[:0], dy[:0]).shape == (0, 6, 5)


@pytest.mark.parametrize("argument", [("clip", -0.1, 0.1), ("hard_sigmoid", 0.2, 0.5)], ids=str)
@pytest.mark.parametrize("dtype", TYPES, ids=lambda dtype: np.dtype(dtype).name)
def test_at_a_bound_the_derivative_is_0(argument, dtype):
    follows, x = as_activation(argument), np.array([-9, -0.05, 0, 0.05, 9]).astype(dtype)
    found = follows.pull_back(applied(argument, x), np.ones_like(x))
    assert np.array_equal(found != 0, [False, True, True, True, False])
    assert np.isnan(follows.pull_back(np.full(2, np.nan), np.full(2, np.nan))).all()


def test_only_y_that_tells_x_replaces_the_sums():
    found = [each for each in ARGUMENTS if as_activation(each).needs_sums]
    assert [as_activation(each).name for each in found] == ["prelu", *SUMS, "snake"]
    assert as_activation(("prelu", -0.5)).needs_sums
    assert not as_activation(("prelu", 0.5)).needs_sums


def test_an_argument_says_what_it_is():
    for argument in ARGUMENTS:
        follows = as_activation(argument)
        assert as_activation(follows.argument) == follows == as_activation(follows)
        assert hash(follows) == hash(as_activation(argument))
    assert as_activation(None) is None
    assert as_activation(["leaky_relu", np.float32(0.5)]) == Activation("leaky_relu", (0.5,))
    for name in ("leaky_relu", "prelu", "elu"):
        assert as_activation((name, 0)) == Activation("relu")
    assert as_activation(("gelu", "none")) == as_activation("gelu") == Activation("gelu")
    assert as_activation(("clip", -np.inf, 6)).argument == ("clip", None, 6)
    assert str(as_activation(("clip", None, 6))) == "clip -inf 6"


@pytest.mark.parametrize(
    "wrong",
    [
        *("mish", "ReLU", "", True, 1, ("relu",), ("tanh", 1), ("leaky_relu", 1, 2), {}, np.tanh),
        *(("clip", 1), ("gelu", "erf"), ("gelu", 1), ("gelu", "tanh", 1), ("gelu_tanh", 1), ()),
        *("gelu_tanh", ("hard_sigmoid", 1), ("elu",), ("snake", 1, 2), ([1], 2), ("silu", None)),
    ],
    ids=str,
)
def test_what_is_none_of_them_is_refused(wrong):
    rule = "'hard_swish', 'gelu', ('gelu', 'tanh') or ('snake', a); pass one of these."
    with pytest.raises(ParameterError, match=r"^activation=.* must be None, 'relu', "):
        as_activation(wrong)
    with pytest.raises(ParameterError, match=rf"{re.escape(rule)}$"):
        as_activation(wrong)


@pytest.mark.parametrize(
    ("bare", "example"),
    [
        ("leaky_relu", '("leaky_relu", 0.01)'),
        ("prelu", '("prelu", 0.25)'),
        ("elu", '("elu", 1.0)'),
        ("clip", '("clip", 0, 6)'),
        ("hard_sigmoid", '("hard_sigmoid", 1/6, 0.5) as PyTorch or .* as ONNX'),
        ("snake", '("snake", 1.0)'),
    ],
)
def test_one_without_its_parameters_is_told_what_to_pass(bare, example):
    example = example if ".*" in example else re.escape(example)
    example = example.replace('("hard_sigmoid", 1/6, 0.5)', r'\("hard_sigmoid", 1/6, 0\.5\)')
    with pytest.raises(ParameterError, match=rf"; pass {example}\.$"):
        as_activation(bare)


@pytest.mark.parametrize("name", ["leaky_relu", "elu", "prelu", "snake"])
@pytest.mark.parametrize("value", [-0.1, float("nan"), float("inf"), 1e300, "0.1", None, True, 1j])
def test_a_parameter_is_finite_and_where_it_must_not_negative(name, value):
    if value == -0.1 and name in ("prelu", "snake"):
        assert as_activation((name, value)).parameters == (-0.1,)
        return
    message = rf"^activation\[1\]={re.escape(repr(value))} must be .*number.*; pass .* for example"
    with pytest.raises(ParameterError, match=message):
        as_activation((name, value))


@pytest.mark.parametrize("slopes", [np.ones(3), [0.1, 0.2]], ids=["array", "list"])
def test_a_prelu_has_one_slope(slopes):
    with pytest.raises(ParameterError, match=r" must be one finite number, .* of all channels; "):
        as_activation(("prelu", slopes))


@pytest.mark.parametrize("a", [0, 1e-31, -1e31])
def test_a_snake_has_a_frequency_that_float32_can_invert(a):
    with pytest.raises(ParameterError, match=r"must be one number of a size from 1e-30 to 1e30"):
        as_activation(("snake", a))


@pytest.mark.parametrize(
    ("bounds", "message"),
    [
        ((1, 0), r"=\('clip', 1, 0\) must have a finite bound and low <= high; pass \(\"clip"),
        ((None, None), r"=\('clip', None, None\) must have a finite bound"),
        ((float("inf"), None), r"=\('clip', inf, None\) must have a finite bound"),
        ((0, float("nan")), r"\[2\]=nan must be a number of float32, or None; pass one"),
        (("0", 1), r"\[1\]='0' must be a number of float32, or None"),
        ((0, 1e300), r"\[2\]=1e\+300 must be a number of float32, or None"),
    ],
)
def test_bounds_of_a_clip_are_numbers_in_order(bounds, message):
    with pytest.raises(ParameterError, match=f"^activation{message}"):
        as_activation(("clip", *bounds))


@pytest.mark.parametrize("value", [None, float("nan"), "1"])
def test_parameters_of_a_hard_sigmoid_are_finite(value):
    with pytest.raises(ParameterError, match=r"^activation\[2\]=.* must be a finite number; pass"):
        as_activation(("hard_sigmoid", 1, value))


@pytest.mark.parametrize("dtype", ["int8", "int64", "complex64"])
def test_only_floating_numbers_are_taken(dtype):
    with pytest.raises(DTypeError, match=rf'^activation="tanh" takes one of .*, not {dtype}; '):
        Activation("tanh").check_type(dtype)
