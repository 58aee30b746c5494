"""A parameter owns its value, keeps its type and sums its gradient."""

import re

import numpy as np
import pytest

from tconv.errors import DTypeError, MemoryLimitError, ParameterError, ShapeError
from tconv.nn.parameter import Parameter

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


def test_a_value_must_fit_the_shape_that_is_passed_with_it():
    with pytest.raises(ShapeError, match=r"^w has shape \(3,\), must be \(7, 7\); "):
        Parameter(np.ones(3), "w", shape=(7, 7))
    assert Parameter(np.ones(3), "w", shape=(None,)).shape == (3,)
    assert Parameter(np.ones(3), "w", dtype="float32").value.dtype == np.float32


@pytest.mark.parametrize("shape", [3, "33", [1.5], [-1], np.ones((2, 2)), [1] * 100, {}])
def test_a_shape_is_a_tuple_of_sizes(shape):
    with pytest.raises(ParameterError, match=r"^shape"):
        Parameter(None, shape=shape, dtype="float32")


@pytest.mark.parametrize("dtype", [[], {}, "no", 3, "complex64", object(), np.dtype("V8")])
def test_a_type_is_one_of_real_numbers(dtype):
    with pytest.raises(DTypeError, match=r"^dtype=.* must name one of float16, "):
        Parameter(None, shape=(3,), dtype=dtype)


@pytest.mark.parametrize("name", [None, 3, ["w"]])
def test_a_name_is_a_string(name):
    with pytest.raises(ParameterError, match=r"^name=.* must be a string; pass one\.$"):
        Parameter(np.ones(3), name)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [(1e300, "float32"), (-1e5, "float16"), (1e300, "bfloat16"), (10**5, "float16")],
)
def test_a_number_never_becomes_infinite(value, dtype):
    parameter = Parameter(None, "w", shape=(2,), dtype=dtype)
    with pytest.raises(DTypeError, match=r"^w holds .*, which \w+ cannot; pass smaller numbers\.$"):
        parameter.value = np.array([1, value])
    parameter.value = np.array([1.0, np.inf])  # which it was before
    assert np.isinf(parameter.value[1])


def test_what_there_is_no_memory_for_is_refused_before():
    huge = np.broadcast_to(np.float32(0), (2**55,))
    with pytest.raises(MemoryLimitError, match=r"^w needs 144,115,188,075,855,872 bytes but "):
        Parameter(huge, "w")
