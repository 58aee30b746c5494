"""Laws of the public functions: the meaning of the keywords, and equality of all layouts."""

from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tconv
from strategies import (
    draws,
    geometries,
    integer_operands,
    integers_like,
    keywords_of,
    named_paddings,
    same_numbers,
)
from tconv.errors import ShapeError
from tconv.geometry.weight_formats import WEIGHT_FORMATS
from tconv.ops.functional import (
    conv,
    conv_output_shape,
    conv_transpose,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
    conv_weight_gradient,
    output_shape,
)


def transpose(geometry, x, w, **more):
    return conv_transpose(x, w, **keywords_of(geometry) | more)


def adjoint(geometry, w, y, **more):
    keywords = keywords_of(geometry) | {"output_padding": 0, "input_size": geometry.input_size}
    return conv(y, w, **keywords | more)


def weight_gradient(geometry, x, y, **more):
    return conv_weight_gradient(x, y, geometry.kernel_size, **keywords_of(geometry) | more)


def inner(a, b):
    return np.sum(a * b)


# ---- the three letters ---------------------------------------------------------------------------


def test_the_worked_example():
    W = np.array([[1, 2], [3, 4]]).reshape(1, 1, 2, 2)
    Y = np.array([[37, 47], [67, 77]]).reshape(1, 1, 2, 2)
    X = np.arange(1, 10).reshape(1, 1, 3, 3)
    assert conv(X, W).tolist() == Y.tolist()
    large = [[37, 121, 94], [178, 500, 342], [201, 499, 308]]
    assert conv_transpose(Y, W).tolist() == [[large]]
    assert tconv.conv_transpose2d(Y, W).tolist() == [[large]]
    assert conv_weight_gradient(Y, conv_transpose(Y, W), 2).shape == W.shape


@draws(0.4)
@given(geometries())
def test_every_operation_is_linear_in_each_operand(geometry):
    x, w, v = integer_operands(geometry)
    a, b, _ = (np.flip(v) + 1 for v in (x, w, v))
    for operation, one, other, more in (
        (partial(transpose, geometry), x, w, a),
        (partial(adjoint, geometry), w, v, b),
        (partial(weight_gradient, geometry), x, v, a),
    ):
        assert same_numbers(
            operation(2 * one + 3 * more, other),
            2 * operation(one, other) + 3 * operation(more, other),
        )


# ---- sizes ---------------------------------------------------------------------------------------


@draws(0.4)
@given(geometries(plain=True), st.data())
def test_one_sample_shift_in_gives_stride_shift_out(geometry, data):
    x, w, _ = integer_operands(geometry)
    n = data.draw(st.integers(0, geometry.rank - 1))
    place, axis = x.ndim - geometry.rank + n, geometry.axes[n]
    before = [(0, 0)] * x.ndim
    before[place] = (1, 0)
    y, shifted = transpose(geometry, x, w), transpose(geometry, np.pad(x, before), w)
    later = [slice(None)] * y.ndim
    later[place] = slice(axis.stride, None)
    # Shifted, the first cells of y are what was cropped before.
    assert same_numbers(shifted[tuple(later)], y)


@draws(0.4)
@given(geometries(plain=True))
def test_padding_crops_the_full_output(geometry):
    x, w, _ = integer_operands(geometry)
    full = transpose(geometry, x, w, padding=0)
    place = full.ndim - geometry.rank
    extended = [(0, 0)] * place + [
        (max(-axis.begin, 0), max(-axis.end, 0)) for axis in geometry.axes
    ]
    crops = [slice(None)] * place + [
        slice(max(axis.begin, 0), max(-axis.begin, 0) + axis.full + axis.extra - axis.end)
        if axis.end > 0
        else slice(max(axis.begin, 0), None)
        for axis in geometry.axes
    ]
    assert same_numbers(transpose(geometry, x, w), np.pad(full, extended)[tuple(crops)])


@draws(0.4)
@given(geometries(plain=True))
def test_cells_of_output_padding_are_computed(geometry):
    x, w, _ = integer_operands(geometry)
    without = {
        "padding": tuple((axis.begin, axis.end - axis.extra) for axis in geometry.axes),
        "output_padding": 0,
    }
    assert same_numbers(transpose(geometry, x, w), transpose(geometry, x, w, **without))


def test_output_padding_reaches_taps_that_dilation_has_set_beyond():
    x, w = np.ones((1, 1, 3)), np.array([[[1.0, 10.0]]])
    cropped = {"dilation": 3, "padding": ((0, 2),)}
    assert conv_transpose(x, w, **cropped).tolist() == [[[1, 1, 1, 10]]]
    assert conv_transpose(x, w, **cropped, output_padding=2).tolist() == [[[1, 1, 1, 10, 10, 10]]]


@draws(0.4)
@given(geometries())
def test_bias_is_in_every_cell_also_where_no_tap_reaches(geometry):
    x, w, _ = integer_operands(geometry)
    bias = integers_like((geometry.out_channels,), seed=1)
    last = geometry.data_format == "channels_last"
    everywhere = bias if last else bias.reshape(-1, *[1] * geometry.rank)
    y = transpose(geometry, x, w)
    assert same_numbers(conv_transpose(x, w, bias, **keywords_of(geometry)), y + everywhere)
    reached = transpose(geometry, np.ones_like(x), np.ones_like(w)) > 0
    filled = conv_transpose(x, w, bias, **keywords_of(geometry))
    assert same_numbers(filled[~reached], np.broadcast_to(everywhere, y.shape)[~reached])


@draws(0.4)
@given(named_paddings())
def test_same_lower_is_the_mirror_of_same(case):
    x_shape, weight_shape, keywords = case
    x, w = integers_like(x_shape, seed=1), integers_like(weight_shape, seed=2)
    spatial = tuple(range(2, x.ndim))
    upper = conv_transpose(x, w, **keywords | {"padding": "same"})
    mirrored = conv_transpose(
        np.flip(x, spatial), np.flip(w, spatial), **keywords | {"padding": "same_lower"}
    )
    assert same_numbers(np.flip(mirrored, spatial), upper)
    assert same_numbers(conv_transpose(x, w, **keywords | {"padding": "same_upper"}), upper)


@pytest.mark.parametrize(
    ("n", "k", "s", "padding", "size"), [(3, 2, 3, "same", 9), (5, 3, 5, 0, 23)]
)
def test_golden_sizes(n, k, s, padding, size):
    y = conv_transpose(np.ones((1, 1, n)), np.ones((1, 1, k)), stride=s, padding=padding)
    assert y.ravel().tolist() == ([1] * k + [0] * (s - k)) * (n - 1) + [1] * k + [0] * (
        size - (n - 1) * s - k
    )


def test_stride_1_dilation_2_output_padding_1_is_legal():
    y = conv_transpose(np.ones((1, 1, 3)), np.ones((1, 1, 2)), dilation=2, output_padding=1)
    assert y.tolist() == [[[1, 1, 2, 1, 1, 0]]]


@draws(0.4)
@given(geometries())
def test_output_shape_is_the_shape(geometry):
    x, w, _ = integer_operands(geometry)
    keywords = {k: v for k, v in keywords_of(geometry).items() if k != "flip_kernel"}
    assert output_shape(x.shape, w.shape, **keywords) == transpose(geometry, x, w).shape


@draws(0.4)
@given(geometries())
def test_conv_output_shape_is_the_shape(geometry):
    _, w, y = integer_operands(geometry)
    keywords = {k: v for k, v in keywords_of(geometry).items() if k != "flip_kernel"}
    keywords |= {"output_padding": 0, "input_size": geometry.input_size}
    assert conv_output_shape(y.shape, w.shape, **keywords) == adjoint(geometry, w, y).shape


@draws(0.4)
@given(geometries())
def test_output_size_is_another_way_to_say_output_padding(geometry):
    x, w, _ = integer_operands(geometry)
    expected = transpose(geometry, x, w)
    for size in (geometry.output_size, expected.shape):
        found = transpose(geometry, x, w, output_padding=0, output_size=size)
        assert same_numbers(found, expected)


def test_an_empty_axis_gives_the_bias_where_output_size_says_how_much():
    x, w, bias = np.ones((2, 3, 0, 4)), np.ones((3, 2, 3, 3)), np.array([5.0, 7.0])
    y = conv_transpose(x, w, bias, output_size=(4, 6))
    assert same_numbers(y, np.broadcast_to(bias[:, None, None], (2, 2, 4, 6)))
    assert same_numbers(conv_weight_gradient(x, y, 3), np.zeros(w.shape))


# ---- layouts -------------------------------------------------------------------------------------


@draws(0.4)
@given(geometries())
def test_channels_last_is_channels_first_transposed(geometry):
    x, w, y = integer_operands(geometry)
    n = int(geometry.batched)
    if geometry.data_format == "channels_last":
        there, back, other = -1, n, "channels_first"
    else:
        there, back, other = n, -1, "channels_last"

    def move(array):
        return np.moveaxis(array, there, back)

    def undo(array):
        return np.moveaxis(array, back, there)

    other = {"data_format": other}
    assert same_numbers(undo(transpose(geometry, move(x), w, **other)), transpose(geometry, x, w))
    assert same_numbers(undo(adjoint(geometry, w, move(y), **other)), adjoint(geometry, w, y))
    assert same_numbers(
        weight_gradient(geometry, move(x), move(y), **other), weight_gradient(geometry, x, y)
    )


def from_io(w, weight_format, groups):
    """A weight (I, O/G, *K) as another format has it."""
    if not WEIGHT_FORMATS[weight_format]:  # (I/G, O, *K) first
        w = np.concatenate(np.split(w, groups), axis=1)
    star = weight_format.index("*")
    rank = w.ndim - 2
    order = {"I": 0, "O": 1}
    letters = [order[letter] for letter in weight_format if letter != "*"]
    return w.transpose(*letters[:star], *range(2, 2 + rank), *letters[star:])


@pytest.mark.parametrize("weight_format", WEIGHT_FORMATS)
@draws(0.2)
@given(geometry=geometries(plain=True))
def test_every_weight_format_is_the_first_permuted(weight_format, geometry):
    x, w, y = integer_operands(geometry)
    permuted, other = from_io(w, weight_format, geometry.groups), {"weight_format": weight_format}
    assert same_numbers(transpose(geometry, x, permuted, **other), transpose(geometry, x, w))
    assert same_numbers(adjoint(geometry, permuted, y, **other), adjoint(geometry, w, y))
    expected = from_io(weight_gradient(geometry, x, y), weight_format, geometry.groups)
    assert same_numbers(weight_gradient(geometry, x, y, **other), expected)


@draws(0.4)
@given(geometries(plain=True))
def test_flip_kernel_reverses_the_kernel(geometry):
    x, w, y = integer_operands(geometry)
    flipped = np.flip(w, tuple(range(2, w.ndim)))
    other = {"flip_kernel": True}
    assert same_numbers(transpose(geometry, x, w, **other), transpose(geometry, x, flipped))
    assert same_numbers(adjoint(geometry, w, y, **other), adjoint(geometry, flipped, y))
    expected = np.flip(weight_gradient(geometry, x, y), tuple(range(2, w.ndim)))
    assert same_numbers(weight_gradient(geometry, x, y, **other), expected)


@draws(0.4)
@given(geometries(plain=True))
def test_groups_are_a_loop_of_calls(geometry):
    x, w, y = integer_operands(geometry)
    g, n = geometry.groups, int(geometry.batched)
    xs, ws, ys = np.split(x, g, axis=n), np.split(w, g), np.split(y, g, axis=n)
    one = {"groups": 1}
    join = partial(np.concatenate, axis=n)
    assert same_numbers(
        transpose(geometry, x, w),
        join([transpose(geometry, a, b, **one) for a, b in zip(xs, ws, strict=True)]),
    )
    assert same_numbers(
        adjoint(geometry, w, y),
        join([adjoint(geometry, a, b, **one) for a, b in zip(ws, ys, strict=True)]),
    )
    assert same_numbers(
        weight_gradient(geometry, x, y),
        np.concatenate(
            [weight_gradient(geometry, a, b, **one) for a, b in zip(xs, ys, strict=True)]
        ),
    )


@draws(0.4)
@given(geometries(batches=(0, 1, 2, 3)))
def test_a_batch_is_a_loop_of_calls(geometry):
    x, w, y = integer_operands(geometry)
    if not geometry.batched:
        return
    result = transpose(geometry, x, w)
    assert result.shape[0] == len(x)
    for sample, expected in zip(x, result, strict=True):
        assert same_numbers(transpose(geometry, sample, w), expected)
    for sample, expected in zip(y, adjoint(geometry, w, y), strict=True):
        assert same_numbers(adjoint(geometry, w, sample), expected)
    total = np.zeros_like(w)
    for one, other in zip(x, y, strict=True):
        total += weight_gradient(geometry, one, other)
    assert same_numbers(weight_gradient(geometry, x, y), total)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_an_axis_of_size_1_is_no_axis(axis):
    x, w = integers_like((2, 2, 4, 5), seed=1), integers_like((2, 3, 3, 2), seed=2)
    flat = conv_transpose(x, w, stride=(2, 3), padding=1)
    wide = conv_transpose(
        np.expand_dims(x, 2 + axis),
        np.expand_dims(w, 2 + axis),
        stride=tuple(np.insert((2, 3), axis, 7)),
        padding=tuple(np.insert((1, 1), axis, 0)),
    )
    assert same_numbers(wide.squeeze(2 + axis), flat)


# ---- PyTorch's order of arguments ----------------------------------------------------------------


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_functions_of_a_rank_have_pytorchs_order(rank):
    function = (conv_transpose1d, conv_transpose2d, conv_transpose3d)[rank - 1]
    x, w = integers_like((2, 4, *[3] * rank), seed=1), integers_like((4, 3, *[3] * rank), seed=2)
    bias = integers_like((6,), seed=3)
    keywords = {
        "stride": 3,
        "padding": 1,
        "output_padding": 1,
        "groups": 2,
        "dilation": 2,
    }
    expected = conv_transpose(x, w, bias, **keywords)
    assert same_numbers(function(x, w, bias, 3, 1, 1, 2, 2), expected)
    assert same_numbers(function(input=x, weight=w, bias=bias, **keywords), expected)
    assert same_numbers(
        function(x.tolist(), w.tolist(), bias.tolist(), *keywords.values()), expected
    )
    for other in {1, 2, 3} - {rank}:
        wrong = np.ones((1,) * (other + 2))
        for weight in (wrong, wrong.tolist()):
            with pytest.raises(ShapeError, match=f"must be {rank + 2} for conv_transpose{rank}d"):
                function(wrong, weight)


# ---- numbers -------------------------------------------------------------------------------------


def test_infinity_and_nan_go_where_they_must():
    x, w = np.ones((1, 1, 6)), np.array([[[1.0, 2.0]]])
    for special in (np.inf, np.nan):
        x[0, 0, 2] = special
        y = conv_transpose(x, w, stride=2).ravel()
        assert np.array_equal(np.flatnonzero(~np.isfinite(y)), [4, 5])
        back = conv(conv_transpose(x, w, stride=2), w, stride=2).ravel()
        assert np.array_equal(np.flatnonzero(~np.isfinite(back)), [2])


def test_operands_are_never_changed():
    x, w, bias = np.ones((1, 2, 4)), np.ones((2, 3, 3)), np.ones(3)
    for array in (x, w, bias):
        array.flags.writeable = False
    y = conv_transpose(x, w, bias, stride=2)
    y.flags.writeable = False
    conv(y, w, np.ones(2), stride=2)
    conv_weight_gradient(x, y, 3, stride=2)


def test_a_result_is_a_new_array():
    x, w = np.ones((1, 1, 4)), np.ones((1, 1, 1))
    y = conv_transpose(x, w)
    assert not np.shares_memory(y, x)
    assert y.flags.writeable
    assert y.flags.owndata
