"""Laws of one axis: sizes, phases, bands and windows."""

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tconv
from strategies import axes, draws
from tconv.errors import MemoryLimitError, ShapeError
from tconv.geometry.axis import Axis, bands
from tconv.geometry.geometry import Geometry

small = st.integers(1, 9)


def test_the_worked_example_is_reached_by_these_taps():
    o, exists = Axis(input=2, kernel=2, output=3).joins()
    assert o.tolist() == [[0, 1], [1, 2]]
    assert exists.all()


@draws()
@given(axes())
def test_joins_are_the_law(axis):
    o, exists = axis.joins()
    for i in range(axis.input):
        for k in range(axis.kernel):
            assert o[i, k] == i * axis.stride - axis.begin + k * axis.dilation
            assert exists[i, k] == (0 <= o[i, k] < axis.output)


@draws()
@given(axes())
def test_a_tap_joins_input_q_minus_shift_to_output_q_at_its_phase(axis):
    o, _ = axis.joins()
    for k in range(axis.kernel):
        phase, shift = axis.phase_and_shift(k)
        assert 0 <= phase < axis.stride
        for i in range(axis.input):
            assert o[i, k] == (i + shift) * axis.stride + phase


@draws()
@given(axes())
def test_the_full_output_ends_where_the_last_tap_lands(axis):
    o, _ = axis._replace(begin=0).joins()
    assert o.min() == 0
    assert o.max() + 1 == axis.full
    assert axis.law == axis.full - axis.begin - axis.end + axis.extra == axis.output


@draws()
@given(small, small, small)
def test_bands_hold_every_tap_once(kernel, stride, dilation):
    found = bands(kernel, stride, dilation)
    assert [band.start for band in found] == [0, *(band.stop for band in found[:-1])]
    assert found[-1].stop == stride
    taps = []
    for band in found:
        assert len(band.taps) == len(band.shifts)
        assert list(band.shifts) == sorted(set(band.shifts))
        for shift, row in zip(band.shifts, band.taps, strict=True):
            assert len(row) == band.width
            for phase, k in enumerate(row, band.start):
                assert k * dilation == shift * stride + phase
                taps.append(k)
    assert sorted(taps) == list(range(kernel))


@draws()
@given(small, small, small)
def test_bands_are_few(kernel, stride, dilation):
    found = bands(kernel, stride, dilation)
    assert len(found) <= (2 if dilation == 1 else 2 * kernel + 1)
    for one, other in pairwise(found):
        assert one.shifts != other.shifts


def test_bands_of_very_many_phases_take_no_time():
    assert bands(200_000, 200_000, 1)[0].width == 200_000
    assert bands(1, 2**63, 1)[1].width == 2**63 - 1


@draws()
@given(small, small, small)
def test_taps_per_phase_are_counted(kernel, stride, dilation):
    axis = Axis(1, kernel, 1, stride, dilation)
    counts = np.bincount(np.arange(kernel) * dilation % stride, minlength=stride)
    assert axis.taps_per_phase == (counts.min(), counts.max())
    assert axis.even == (counts.min() == counts.max())


@draws()
@given(axes(), st.data())
def test_input_window_holds_the_inputs_whose_reach_covers_the_outputs(axis, data):
    start = data.draw(st.integers(0, axis.output - 1))
    stop = data.draw(st.integers(start + 1, axis.output))
    first, last = axis.input_window(start, stop)
    for i in range(axis.input):
        low = i * axis.stride - axis.begin
        assert (first <= i < last) == (low < stop and low + axis.reach > start)
    assert 0 <= first <= last <= axis.input


@draws()
@given(axes(), st.data())
def test_output_window_ends_at_the_outermost_cells(axis, data):
    start = data.draw(st.integers(0, axis.input - 1))
    stop = data.draw(st.integers(start + 1, axis.input))
    o, exists = axis.joins()
    first, last = axis.output_window(start, stop)
    reached = o[start:stop][exists[start:stop]]
    assert 0 <= first <= last <= axis.output
    assert ((first <= reached) & (reached < last)).all()
    if exists[start:stop].all():
        assert (first, last) == (reached.min(), reached.max() + 1)


def test_windows_of_nothing_are_empty():
    axis = Axis(input=4, kernel=3, output=9, stride=2)
    assert axis.output_window(2, 2) == (0, 0)
    axis = Axis(input=4, kernel=1, output=10, stride=3)  # cells 1 and 2 of every 3 are gaps
    first, last = axis.input_window(1, 3)
    assert first == last


@st.composite
def far_axes(draw):
    """Axes whose steps are beyond 64 bits, cropped to a few cells about one that a tap reaches."""
    steps = st.sampled_from([1, 2, 3, 2**31, 2**32 + 1, 2**62, 2**63 - 1, 2**63, 2**64 + 1])
    size, kernel = draw(st.integers(1, 3)), draw(st.integers(1, 4))
    axis = Axis(size, kernel, draw(st.integers(1, 4)), draw(steps), draw(steps))
    i, k = draw(st.integers(0, size - 1)), draw(st.integers(0, kernel - 1))
    begin = i * axis.stride + k * axis.dilation - draw(st.integers(0, axis.output - 1))
    return axis._replace(begin=begin, end=axis.full - axis.output - begin)


@draws()
@given(far_axes())
def test_joins_are_the_law_beyond_64_bits(axis):
    o, exists = axis.joins()
    assert (o.dtype, exists.dtype) == (np.int64, np.bool_)
    for i in range(axis.input):
        for k in range(axis.kernel):
            cell = i * axis.stride - axis.begin + k * axis.dilation
            assert exists[i, k] == (0 <= cell < axis.output)
            assert not exists[i, k] or o[i, k] == cell
    assert exists.any()


@draws(0.1)
@given(far_axes(), st.sampled_from("yxw"), st.sampled_from(["float32", "float64", "int64"]))
def test_contractions_of_such_axes_are_right_or_refused(axis, want, dtype):
    settings = {
        "stride": axis.stride,
        "dilation": axis.dilation,
        "padding": ((axis.begin, axis.end),),
        "max_bytes": 2**28,  # or a step of 2**31 would take all the memory that is free
    }
    x, w, y = (
        np.arange(1, n + 1).reshape(1, 1, n).astype(dtype)
        for n in (axis.input, axis.kernel, axis.output)
    )
    exact = {"x": x * 0, "w": w * 0, "y": y * 0}[want]
    for i in range(axis.input):
        for k in range(axis.kernel):
            o = i * axis.stride - axis.begin + k * axis.dilation
            if 0 <= o < axis.output:
                if want == "y":
                    exact[..., o] += x[..., i] * w[..., k]
                elif want == "x":
                    exact[..., i] += y[..., o] * w[..., k]
                else:
                    exact[..., k] += x[..., i] * y[..., o]
    try:
        if want == "y":
            found = tconv.conv_transpose(x, w, **settings)
        elif want == "x":
            found = tconv.conv(y, w, input_size=axis.input, **settings)
        else:
            found = tconv.conv_weight_gradient(x, y, axis.kernel, **settings)
    except MemoryLimitError:  # the portable path lays out every phase
        assert axis.stride > 2**30 or axis.dilation > 2**30
        return
    assert np.array_equal(found, exact)


def test_cells_that_64_bits_do_not_count_are_refused():
    with pytest.raises(ShapeError, match="than 64 bits count"):
        Axis(1, 2, 2**63, 1, 2**63).joins()
    with pytest.raises(ShapeError, match="than 64 bits count"):
        Geometry.of((1, 1, 1, 1), (1, 1, 1, 2), dilation=2**40, padding=-(2**40)).unrolled_indices()
