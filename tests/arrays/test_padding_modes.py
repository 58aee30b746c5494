"""Padding modes pad as NumPy does, and the transposed pad is the transpose of the pad."""

from math import prod

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws, integer_operands, integers_like, padded_calls, same_numbers
from tconv.arrays.padding_modes import pad, transposed_pad, transposed_pad_factor
from tconv.definition import contract, unrolled_filter
from tconv.geometry.geometry import Geometry
from tconv.ops.functional import conv, conv_transpose, conv_weight_gradient

IN_NUMPY = {"circular": "wrap", "reflect": "reflect", "replicate": "edge"}
modes = st.sampled_from(sorted(IN_NUMPY))


@st.composite
def paddings(draw):
    """A mode, a shape, and what may be padded in this mode."""
    mode, shape = draw(modes), draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    pairs = []
    for size in shape:
        most = 9 if mode == "circular" else size - 1
        pairs.append((draw(st.integers(0, most)), draw(st.integers(0, most))))
    return mode, tuple(shape), pairs


@draws()
@given(paddings())
def test_pads_as_numpy_does(case):
    mode, shape, pairs = case
    y = np.arange(1.0, prod(shape) + 1).reshape(shape)
    assert same_numbers(pad(np, y, mode, pairs, 0), np.pad(y, pairs, IN_NUMPY[mode]))


@draws()
@given(paddings())
def test_fold_is_the_transpose_of_pad(case):
    mode, shape, pairs = case
    cells = prod(shape)
    units = np.eye(cells).reshape(cells, *shape)
    matrix = pad(np, units, mode, pairs, 1)  # row i: where cell i is copied to
    full = np.random.default_rng(0).integers(-4, 5, matrix.shape[1:]).astype(float)
    expected = matrix.reshape(cells, -1) @ full.ravel()
    assert same_numbers(transposed_pad(np, full, mode, pairs, 0).ravel(), expected)
    assert matrix.reshape(cells, -1).sum(axis=1).max() <= transposed_pad_factor(pairs)


def padded_matrix(geometry, mode, w):
    """The matrix of ``conv`` under a padding mode: W* of the padded y, after the padding."""
    pairs = [(axis.begin, axis.end) for axis in geometry.axes]
    axes = tuple(
        axis._replace(begin=0, end=0, output=axis.output + axis.begin + axis.end)
        for axis in geometry.axes
    )
    inner = Geometry(1, geometry.in_channels, geometry.out_channels, geometry.groups, axes)
    size = geometry.out_channels * prod(geometry.output_size)
    units = np.eye(size).reshape(size, geometry.out_channels, *geometry.output_size)
    padding = pad(np, units, mode, pairs, 2).reshape(size, -1)
    return unrolled_filter(inner, w) @ padding.T  # (C*prod(I), M*prod(O))


@draws()
@given(padded_calls())
def test_the_transposed_convolution_is_the_transposed_matrix(case):
    geometry, keywords = case
    plain = keywords | {
        "data_format": "channels_first",
        "weight_format": "IO*",
        "flip_kernel": False,
    }
    geometry = Geometry.of(
        (1, geometry.in_channels, *geometry.input_size),
        (geometry.in_channels, geometry.out_channels // geometry.groups, *geometry.kernel_size),
        **{name: value for name, value in plain.items() if name != "padding_mode"},
    )
    x, w, y = integer_operands(geometry)
    matrix = padded_matrix(geometry, keywords["padding_mode"], w)
    assert same_numbers(conv_transpose(x, w, **plain).ravel(), x.ravel() @ matrix)
    back = conv(y, w, **plain | {"output_padding": 0}, input_size=geometry.input_size)
    assert same_numbers(back.ravel(), matrix @ y.ravel())


@draws()
@given(padded_calls())
def test_the_form_has_one_value_under_every_padding_mode(case):
    geometry, keywords = case
    x, w, v = integer_operands(geometry)
    energy = np.sum(conv_transpose(x, w, **keywords) * v)
    assert np.sum(conv(v, w, **keywords, input_size=geometry.input_size) * x) == energy
    assert np.sum(conv_weight_gradient(x, v, geometry.kernel_size, **keywords) * w) == energy


@draws(0.2)
@given(padded_calls())
def test_bias_is_not_folded(case):
    geometry, keywords = case
    x, w, _ = integer_operands(geometry)
    bias = np.arange(1.0, geometry.out_channels + 1)
    last = geometry.data_format == "channels_last"
    shaped = bias if last else bias.reshape(-1, *[1] * geometry.rank)
    expected = conv_transpose(x, w, **keywords) + shaped
    assert same_numbers(conv_transpose(x, w, bias, **keywords), expected)


@draws(0.2)
@given(padded_calls())
def test_output_size_leaves_cells_over_that_are_folded_too(case):
    geometry, keywords = case
    size = tuple(axis.output + axis.stride - 1 for axis in geometry.axes)
    keywords = {name: v for name, v in keywords.items() if name != "output_padding"}
    sizes = {name: v for name, v in keywords.items() if name != "padding_mode"}
    larger = Geometry.of(geometry.x_shape, geometry.weight_shape, output_size=size, **sizes)
    x, w, v = integer_operands(larger)
    y = conv_transpose(x, w, output_size=size, **keywords)
    assert y.shape == larger.y_shape
    back = conv(v, w, input_size=geometry.input_size, **keywords)
    assert np.sum(back * x) == np.sum(y * v)


@pytest.mark.parametrize("mode", sorted(IN_NUMPY))
@pytest.mark.parametrize("dtype", ["float16", "float32", "int8"])
def test_without_padding_there_is_nothing_to_fold(mode, dtype):
    geometry = Geometry.of((2, 2, 5), (2, 2, 3), stride=2)
    x, w, _ = integer_operands(geometry, dtype)
    y = conv_transpose(x, w, stride=2, padding_mode=mode)
    assert same_numbers(y, contract(geometry, "y", x.astype(int), w.astype(int)))


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
@pytest.mark.parametrize("mode", sorted(IN_NUMPY))
def test_the_halves_are_folded_in_float32_and_rounded_once(mode, dtype):
    shapes = (2, 3, 9, 9), (3, 2, 4, 4), (2,)
    x, w, bias = (
        (integers_like(shape, seed=n, largest=63) / 8).astype(dtype)
        for n, shape in enumerate(shapes)
    )
    keywords = {"stride": 2, "padding": 3, "padding_mode": mode}
    y = conv_transpose(x, w, bias, **keywords)
    exact = conv_transpose(*(v.astype(np.float64) for v in (x, w, bias)), **keywords)
    assert np.array_equal(exact, exact.astype(np.float32))
    assert y.dtype == dtype
    assert same_numbers(y, exact.astype(np.float32).astype(dtype))


def test_an_empty_input_folds_to_the_bias():
    x, w, bias = np.ones((1, 2, 0)), np.ones((2, 3, 2)), np.arange(3.0)
    for mode in IN_NUMPY:
        y = conv_transpose(x, w, bias, output_size=5, padding=1, padding_mode=mode)
        assert same_numbers(y, np.broadcast_to(bias[:, None], (1, 3, 5)))
