"""Portable contractions: halves, large integers, strides beyond the array, NaN."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import (
    draws,
    geometries,
    integers_like,
    operands_of,
    same_numbers,
)
from tconv import definition
from tconv.geometry.geometry import Geometry
from tconv.portable import blocking, contract

EXACT = ["float32", "float64", "complex64", "complex128"]
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"]
budgets = st.sampled_from([1, 100, 1000, 10_000])


def halves(shape, name, seed):
    """Numbers of 6 bits: sums of products are exact in float32, but not in the halves."""
    dtype = np.float16 if name == "float16" else ml_dtypes.bfloat16
    return (integers_like(shape, seed=seed, largest=63) / 8).astype(dtype)


@draws(0.4)
@given(
    geometries(), st.sampled_from("yxw"), st.sampled_from(["float16", "bfloat16"]), st.booleans()
)
def test_the_halves_are_summed_in_float32_and_rounded_once(geometry, want, name, first):
    letters = operands_of(want, "x", "w", "y")
    operands = [halves(geometry.shape_of(v), name, n) for n, v in enumerate(letters)]
    bias = None
    if want != "w":
        bias = halves((geometry.out_channels if want == "y" else geometry.in_channels,), name, 2)
    wide = [None if v is None else v.astype(np.float64) for v in (*operands, bias)]
    expected = definition.contract(geometry, want, *wide[:2], bias=wide[2])
    assert np.array_equal(expected, expected.astype(np.float32))
    with pytest.MonkeyPatch.context() as patch:
        for module in (blocking, contract):  # whether products are windowed or windows multiplied
            patch.setattr(module, "windows_come_first", lambda *_: first)
        result = contract.contract(geometry, want, *operands, bias=bias)
    assert result.dtype == operands[0].dtype
    assert same_numbers(result, expected.astype(np.float32).astype(result.dtype))


@pytest.mark.parametrize("dtype", ["int32", "int64"])
@pytest.mark.parametrize("size", [2**12, 2**26, 2**30])  # via float32, float64 and int64
def test_large_integers_are_exact(dtype, size):
    geometry = Geometry.of((1, 2, 3), (2, 1, 2))
    x = np.array([[[size - 1, -size, 1], [3, size - 3, 7]]], dtype)
    w = np.array([[[size - 1, 3]], [[-5, size - 7]]], dtype)
    expected = [0] * 4
    for c in range(2):
        for i in range(3):
            for k in range(2):
                expected[i + k] += int(x[0, c, i]) * int(w[c, 0, k])
    assert contract.contract(geometry, "y", x, w).ravel().tolist() == expected


@pytest.mark.parametrize("largest", [2896, 4095, 67108863, 94906265, 3 * 10**9 // 2])
def test_odd_sums_about_the_last_that_a_float_holds_are_exact(largest):
    """Bounds just below and above 2**24 and 2**53, and a sum that no larger float holds."""
    x, w = np.array([[[largest, largest]]]), np.array([[[largest, largest - 1]]])
    geometry = Geometry.of(x.shape, w.shape)
    y = contract.contract(geometry, "y", x, w)
    assert y[0, 0, 1] == largest * (2 * largest - 1)


@pytest.mark.parametrize("bias", [2**24 + 1, 2**31 - 2])
def test_bias_counts_towards_what_a_float_must_hold(bias):
    x = np.ones((1, 1, 1), np.int8)
    geometry = Geometry.of(x.shape, x.shape)
    y = contract.contract(geometry, "y", x, x, bias=np.array([bias], np.int32))
    assert y.item() == bias + 1


def test_wide_kernels_and_strides_beyond_the_blocks():
    x, w = integers_like((1, 1, 40), seed=1), integers_like((1, 2, 300), seed=2)
    for stride, dilation in ((1, 1), (7, 1), (300, 1), (1, 50), (1000, 3)):
        geometry = Geometry.of(x.shape, w.shape, stride=stride, dilation=dilation)
        expected = np.zeros(geometry.y_shape)
        for i in range(40):
            stop = i * stride + dilation * 299 + 1
            expected[0, :, i * stride : stop : dilation] += x[0, 0, i] * w[0]
        assert same_numbers(contract.contract(geometry, "y", x, w), expected)
        y = integers_like(geometry.y_shape, seed=3)
        energy = np.sum(expected * y)
        assert np.sum(contract.contract(geometry, "x", y, w) * x) == energy
        assert np.sum(contract.contract(geometry, "w", x, y) * w) == energy


def test_a_stride_far_beyond_the_array_costs_nothing():
    y, w = np.ones((1, 2, 3)), np.ones((4, 2, 1))
    geometry = Geometry.of_conv(y.shape, w.shape, stride=2**40, padding=2**40)
    x = contract.contract(geometry, "x", y, w)
    assert x.ravel().tolist() == [0, 2, 0] * 4
    assert contract.contract(geometry, "w", x, y).ravel().tolist() == [2, 2] * 4


@draws(0.4)
@given(geometries(), st.sampled_from("yx"), st.integers(0, 10**6))
def test_a_nan_goes_where_the_kernel_takes_it_and_nowhere_else(geometry, want, place):
    given_letter = "x" if want == "y" else "y"
    data = np.zeros(geometry.shape_of(given_letter))
    weight = np.ones(geometry.weight_shape)
    if data.size:
        data.flat[place % data.size] = 1
    reached = contract.contract(geometry, want, data, weight) != 0
    data[data == 1] = np.nan
    assert np.array_equal(np.isnan(contract.contract(geometry, want, data, weight)), reached)
