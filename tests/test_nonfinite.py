"""Infinity and NaN: which cells of the result they reach, in x and in the weight."""

from itertools import product
from math import prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import geometries, integer_operands, keywords_of
from tconv import definition, engine, plan
from tconv.geometry.geometry import Geometry
from tconv.ops.functional import conv, conv_transpose, conv_weight_gradient

SPECIAL = st.sampled_from([np.inf, -np.inf, np.nan])
LARGE = {
    "k4 s2": ((1, 16, 8, 8), (16, 16, 4, 4), {"stride": 2, "padding": 1}),
    "k3 s1": ((1, 16, 8, 8), (16, 16, 3, 3), {"padding": 1}),
    "k3 s2": ((1, 8, 5, 6), (8, 6, 3, 3), {"stride": 2, "padding": 1}),
    "signal": ((1, 8, 33), (8, 6, 16), {"stride": 8, "padding": 4}),
    "groups": ((1, 8, 5, 6), (8, 16, 4, 4), {"stride": 2, "padding": 1, "groups": 2}),
    "depthwise": ((1, 32, 5, 6), (32, 1, 4, 4), {"stride": 2, "padding": 1, "groups": 32}),
    "volume": ((1, 4, 3, 3, 4), (4, 5, 4, 4, 4), {"stride": 2, "padding": 1}),
    "dilated": ((1, 8, 5, 6), (8, 6, 3, 3), {"dilation": 2}),
}


def operands(geometry, dtype):
    """x without zeros, whose products with infinity are NaN, and a weight without them."""
    x, w, _ = integer_operands(geometry, dtype)
    return np.abs(x) + 1, np.abs(w) + 1


def direct(geometry, x, w):
    return conv_transpose(x, w, method="direct", **keywords_of(geometry))


def beside_x(geometry, tap):
    """Cells of y at which a tap falls outside of x, on a padding zero."""
    falls, lies = [], []
    for axis, k in zip(geometry.axes, tap, strict=True):
        at = np.arange(axis.output) + axis.begin - k * axis.dilation
        falls.append(at % axis.stride == 0)
        lies.append((at >= 0) & (at < axis.input * axis.stride))
    falls, lies = (np.array(np.meshgrid(*each, indexing="ij")).all(0) for each in (falls, lies))
    return falls & ~lies


def check_x(geometry, place, special):
    """All cells are those of a finite x but where a tap takes what is not finite."""
    x, w = operands(geometry, "float32")
    at = np.unravel_index(place % x.size, x.shape)
    expected = direct(geometry, x, w)
    spike = np.zeros_like(x)
    spike[at] = 1
    x[at] = special
    expected[definition.contract(geometry, "y", spike, w) > 0] = special  # w > 0
    assert np.array_equal(direct(geometry, x, w), expected, equal_nan=True)


def check_weight(geometry, place, special):
    """All cells are as defined, but NaN of the channel: in machine code where the tap is off x."""
    x, w = operands(geometry, "float32")
    at = np.unravel_index(place % w.size, w.shape)
    w[at] = special
    with np.errstate(invalid="ignore"):
        found = direct(geometry, x, w)
        expected = definition.contract(geometry, "y", x, w)
    differ = ~((found == expected) | (np.isnan(found) & np.isnan(expected)))
    assert np.isnan(found[differ]).all()
    group = at[0] // (geometry.in_channels // geometry.groups)
    channel = group * (geometry.out_channels // geometry.groups) + at[1]
    differ = differ.reshape(geometry.batch, geometry.out_channels, *geometry.output_size)
    assert not np.delete(differ, channel, 1).any()
    if engine.serves(geometry, "y", "float32"):
        assert not (differ[:, channel] & ~beside_x(geometry, at[2:])).any()
    return differ


@given(geometries(plain=True), st.integers(0, 2**32), SPECIAL)
def test_what_is_in_x_goes_where_taps_take_it(geometry, place, special):
    if geometry.batch:
        check_x(geometry, place, special)


@given(geometries(plain=True), st.integers(0, 2**32), SPECIAL)
def test_what_is_in_the_weight_goes_no_further_than_its_tap(geometry, place, special):
    check_weight(geometry, place, special)


@pytest.mark.parametrize("special", [np.inf, np.nan])
@pytest.mark.parametrize("name", LARGE)
def test_the_same_holds_for_layers_of_networks(name, special):
    x_shape, w_shape, keywords = LARGE[name]
    geometry = Geometry.of(x_shape, w_shape, **keywords)
    for place in (0, prod(w_shape[1:]) + 1):
        check_x(geometry, place, special)
        check_weight(geometry, place, special)


def test_a_weight_that_is_infinite_makes_nan_at_the_border():
    """What the documentation warns of is there; where it is not any more, that is to change."""
    geometry = Geometry.of(*LARGE["k4 s2"][:2], **LARGE["k4 s2"][2])
    differ = check_weight(geometry, 0, np.inf)
    assert differ.any()
    x, w = operands(geometry, "float32")
    w[0, 0, 0, 0] = np.inf
    assert not np.isnan(direct(geometry, x, w)[..., 3:-3, 3:-3]).any()


@pytest.mark.parametrize("special", [np.inf, np.nan])
def test_other_channels_have_no_part_in_it_where_winograds_algorithm_is_chosen(special):
    geometry = Geometry.of((1, 64, 40, 40), (64, 64, 4, 4), stride=2, padding=1)
    x, w = operands(geometry, "float32")
    call = plan(geometry.x_shape, geometry.weight_shape, **keywords_of(geometry))
    assert "Winograd" in str(call) or not engine.serves(geometry, "y", "float32")
    expected = call(x, call.pack(w))
    w[0, 5, 0, 0] = special
    found = call(x, call.pack(w))
    assert np.array_equal(np.delete(found, 5, 1), np.delete(expected, 5, 1))
    assert np.isnan(found[:, 5]).any()


@pytest.mark.parametrize("axes", [1, 4])
@pytest.mark.parametrize("want", ["y", "x", "w"])
def test_infinities_that_meet_no_zero_raise_no_warning(want, axes, monkeypatch):
    """Warnings are errors here. BLAS fills up products of few channels with zeros."""
    monkeypatch.setattr(engine, "serves", lambda *_: False)  # the portable path
    compute = {
        "y": lambda x, w, y: conv_transpose(x, w),
        "x": lambda x, w, y: conv(y, w),
        "w": lambda x, w, y: conv_weight_gradient(x, y, w.shape[2:]),
    }[want]
    for batch, channels, outputs in product((1, 2), range(1, 6), range(1, 6)):
        x = np.ones((batch, channels, *[1] * axes), np.float32)
        w = np.ones((channels, outputs, *[1] * axes), np.float32)
        y = np.ones((batch, outputs, *[1] * axes), np.float32)
        (y if want == "x" else x)[0, 0] = np.inf
        reached = {"y": outputs, "x": channels, "w": outputs}[want]
        assert np.isinf(compute(x, w, y)).sum() == reached
