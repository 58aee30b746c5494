"""A parameter owns its value, keeps its type and adds up its gradient."""

import re

import numpy as np
import pytest

from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.parameter import Parameter

TYPES = ["float16", "bfloat16", "float32", "float64"]


def integers(shape, seed=0):
    return np.random.default_rng(seed).integers(-4, 5, shape)


def test_a_parameter_owns_its_value():
    given_value = np.ones(3)
    parameter = Parameter(given_value, "weight")
    given_value[0] = 5
    assert parameter.value.tolist() == [1, 1, 1]
    parameter.value = given_value
    given_value[1] = 7
    assert parameter.value.tolist() == [5, 1, 1]


def test_a_parameter_changes_in_place():
    parameter = Parameter(np.ones(2), "weight")
    value = parameter.value
    parameter.value -= 3.0
    parameter.gradient += 2.0
    parameter.gradient *= 4.0
    assert parameter.value is value
    assert parameter.value.tolist() == [-2, -2]
    assert parameter.gradient.tolist() == [8, 8]
    parameter.zero_gradient()
    assert parameter.gradient.tolist() == [0, 0]


@pytest.mark.parametrize("dtype", TYPES)
def test_a_parameter_keeps_its_type(dtype):
    parameter = Parameter(integers((2, 2)).astype(dtype), "weight")
    parameter.value = np.full((2, 2), 0.5)
    parameter.gradient = [[1, 2], [3, 4]]
    assert parameter.value.dtype == parameter.gradient.dtype == parameter.dtype == dtype


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        (
            lambda p: setattr(p, "value", np.ones(3)),
            ShapeError,
            "weight has shape (3,), must be (2,); pass such an array.",
        ),
        (
            lambda p: setattr(p, "gradient", np.ones(1)),
            ShapeError,
            "gradient of weight has shape (1,), must be (2,); pass such an array.",
        ),
        (
            lambda p: setattr(p, "value", np.ones(2) * 1j),
            DTypeError,
            "weight has dtype complex128, must be of real numbers; convert it.",
        ),
        (
            lambda _: Parameter(np.ones(2, int), "bias"),
            DTypeError,
            "bias has dtype int64, layers need a floating type; pass "
            'bias.astype("float32") for example.',
        ),
        (
            lambda _: Parameter(None, "bias"),
            ParameterError,
            "bias=None must come with shape and dtype; pass both.",
        ),
        (
            lambda _: Parameter(None, "bias", shape=(None,), dtype="float32").gradient,
            ParameterError,
            "bias has no value yet, in_channels=None is filled at the first forward; call "
            "forward(x) or predict(x) first, or pass in_channels.",
        ),
    ],
)
def test_bad_values_of_a_parameter(change, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        change(Parameter(np.ones(2), "weight"))
