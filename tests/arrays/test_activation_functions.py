"""Choices without branches against ``np.where``, and the table of functions."""

import numpy as np
import pytest

from tconv.arrays.activation_functions import (
    GRADIENTS_BY_X,
    GRADIENTS_BY_Y,
    VALUES,
    apply_mask,
    select,
)
from tconv.arrays.dtypes import as_dtype


def test_every_function_has_a_derivative():
    assert VALUES.keys() == GRADIENTS_BY_X.keys() | GRADIENTS_BY_Y.keys()


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
