"""The portable contractions are the definition's: in every type, block and array library."""

import array_api_strict
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import (
    draws,
    framed,
    geometries,
    integer_operands,
    integers_like,
    operands_of,
    same_numbers,
)
from tconv import blocks, definition, portable
from tconv.dtypes import TYPES
from tconv.geometry import Geometry

EXACT = ["float32", "float64", "complex64", "complex128"]
INTEGERS = ["int8", "uint8", "int16", "uint16", "int32", "uint32", "int64"]
budgets = st.sampled_from([1, 100, 1000, 10_000])


@pytest.mark.parametrize("want", ["y", "x", "w"])
@draws()
@given(geometry=geometries())
def test_equals_the_definition(want, geometry):
    operands = operands_of(want, *integer_operands(geometry))
    expected = definition.contract(geometry, want, *operands)
    assert same_numbers(portable.contract(geometry, want, *operands), expected)


@draws()
@given(geometries(), st.sampled_from("yxw"), st.sampled_from(EXACT + INTEGERS))
def test_equals_the_definition_in_every_type(geometry, want, dtype):
    operands = operands_of(want, *integer_operands(geometry, dtype))
    result = portable.contract(geometry, want, *operands)
    assert result.dtype == TYPES[dtype].result
    wide = [v.astype(np.result_type(v, np.int64)) for v in operands]
    assert same_numbers(result, definition.contract(geometry, want, *wide))


@draws(0.4)
@given(geometries(), st.sampled_from("yxw"), st.sampled_from(["float16", "bfloat16"]))
def test_the_halves_are_summed_in_float32_and_rounded_once(geometry, want, name):
    dtype = np.float16 if name == "float16" else ml_dtypes.bfloat16
    x, w, y = (v / 8 for v in integer_operands(geometry))
    operands = [(v * 15).astype(dtype) for v in operands_of(want, x, w, y)]  # up to 7.5, exactly
    bias = None
    if want != "w":
        channels = geometry.out_channels if want == "y" else geometry.in_channels
        bias = (integers_like((channels,), seed=1) / 8).astype(dtype)
    wide = [v.astype(np.float64) for v in operands]
    expected = definition.contract(geometry, want, *wide)
    if bias is not None:
        expected = definition.contract(geometry, want, *wide, bias=bias.astype(np.float64))
    assert np.array_equal(expected, expected.astype(np.float32))  # the sums are exact
    result = portable.contract(geometry, want, *operands, bias=bias)
    assert result.dtype == dtype
    assert same_numbers(result, expected.astype(np.float32).astype(dtype))


@draws()
@given(geometries(), st.sampled_from("yxw"), budgets, budgets)
def test_blocks_of_any_size_give_the_same(geometry, want, block_bytes, pack_bytes):
    operands = operands_of(want, *integer_operands(geometry))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_BLOCK_BYTES", block_bytes)
        patch.setattr(blocks, "_PACK_BYTES", pack_bytes)
        result = portable.contract(geometry, want, *operands)
    assert same_numbers(result, definition.contract(geometry, want, *operands))


@draws(0.4)
@given(geometries(), st.sampled_from("yxw"))
def test_nothing_but_the_array_api_is_used(geometry, want):
    operands = operands_of(want, *integer_operands(geometry))
    result = portable.contract(geometry, want, *map(array_api_strict.asarray, operands))
    assert isinstance(result, type(array_api_strict.asarray(0)))
    assert same_numbers(np.asarray(result), definition.contract(geometry, want, *operands))


@draws(0.4)
@given(geometries(), st.sampled_from("yx"), budgets)
def test_bias_is_added_once_to_every_cell(geometry, want, block_bytes):
    operands = operands_of(want, *integer_operands(geometry))
    channels = geometry.out_channels if want == "y" else geometry.in_channels
    bias = integers_like((channels,), seed=7)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_BLOCK_BYTES", block_bytes)
        result = portable.contract(geometry, want, *operands, bias=bias)
    assert same_numbers(result, definition.contract(geometry, want, *operands, bias=bias))


@draws(0.4)
@given(geometries(), st.sampled_from("yxw"), budgets)
def test_reads_and_writes_nothing_outside(geometry, want, block_bytes):
    operands = operands_of(want, *integer_operands(geometry))
    expected = definition.contract(geometry, want, *operands)
    views, memories = zip(*(framed(v, np.nan) for v in operands), strict=True)
    before = [memory.copy() for memory in memories]
    out, memory = framed(np.zeros(geometry.shape_of(want)), np.nan)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(blocks, "_BLOCK_BYTES", block_bytes)
        result = portable.contract(geometry, want, *views, out=out)
    assert result is out
    assert same_numbers(out, expected)
    out[...] = np.nan
    assert np.isnan(memory).all()
    for each, copy in zip(memories, before, strict=True):
        assert np.array_equal(each, copy, equal_nan=True)


@draws(0.4)
@given(geometries(), st.sampled_from("yxw"))
def test_products_either_way_round_give_the_same(geometry, want):
    operands = operands_of(want, *integer_operands(geometry))
    expected = definition.contract(geometry, want, *operands)
    for first in (True, False):
        with pytest.MonkeyPatch.context() as patch:
            for module in (blocks, portable):
                patch.setattr(module, "windows_come_first", lambda *_, first=first: first)
            assert same_numbers(portable.contract(geometry, want, *operands), expected)


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
    assert portable.contract(geometry, "y", x, w).ravel().tolist() == expected


def test_wide_kernels_and_strides_beyond_the_blocks():
    x, w = integers_like((1, 1, 40), seed=1), integers_like((1, 2, 300), seed=2)
    for stride, dilation in ((1, 1), (7, 1), (300, 1), (1, 50), (1000, 3)):
        geometry = Geometry.of(x.shape, w.shape, stride=stride, dilation=dilation)
        expected = np.zeros(geometry.y_shape)
        for i in range(40):
            stop = i * stride + dilation * 299 + 1
            expected[0, :, i * stride : stop : dilation] += x[0, 0, i] * w[0]
        assert same_numbers(portable.contract(geometry, "y", x, w), expected)
        y = integers_like(geometry.y_shape, seed=3)
        energy = np.sum(expected * y)
        assert np.sum(portable.contract(geometry, "x", y, w) * x) == energy
        assert np.sum(portable.contract(geometry, "w", x, y) * w) == energy


def test_a_stride_far_beyond_the_array_costs_nothing():
    y, w = np.ones((1, 2, 3)), np.ones((4, 2, 1))
    geometry = Geometry.of_conv(y.shape, w.shape, stride=2**40, padding=2**40)
    x = portable.contract(geometry, "x", y, w)
    assert x.ravel().tolist() == [0, 2, 0] * 4
    assert portable.contract(geometry, "w", x, y).ravel().tolist() == [2, 2] * 4
