"""Windows against the definition of a contraction: sizes, what is read, and the call of a piece."""

from fractions import Fraction

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from strategies import draws
from tconv import definition
from tconv.geometry.geometry import Geometry
from tconv.geometry.window import SAME, Window


@st.composite
def windows(draw):
    """A window, with the kernel and the dilation that have its reach."""
    kernel, dilation, stride = (
        draw(st.integers(1, 5)),
        draw(st.integers(1, 3)),
        draw(st.integers(1, 4)),
    )
    reach = dilation * (kernel - 1) + 1
    begin, end = draw(st.integers(-3, reach + 2)), draw(st.integers(-3, reach + 2))
    want = draw(st.sampled_from("yx"))
    extra = draw(st.integers(0, max(stride, dilation) - 1)) if want == "y" else 0
    return Window(want, reach, stride, begin, end, extra), kernel, dilation


def geometry_of(window, kernel, dilation, count):
    """The whole call; None where it has no result."""
    settings = {"stride": window.stride, "dilation": dilation}
    settings["padding"] = ((window.begin, window.end),)
    if window.size(count) < 1:
        return None
    if window.want == "x":
        return Geometry.of_conv((1, 1, count), (1, 1, kernel), **settings)
    settings["output_size"] = window.size(count)
    return Geometry.of((1, 1, count), (1, 1, kernel), **settings)


def whole(window, kernel, dilation, x):
    geometry = geometry_of(window, kernel, dilation, x.size)
    weight = np.arange(1.0, kernel + 1).reshape(1, 1, kernel)
    return definition.contract(geometry, window.want, x.reshape(1, 1, -1), weight).ravel()


@draws(2)
@given(windows(), st.integers(1, 12))
def test_sizes_are_those_of_the_call(drawn, count):
    window, kernel, dilation = drawn
    geometry = geometry_of(window, kernel, dilation, count)
    if geometry is not None:
        assert geometry.shape_of(window.want) == (1, 1, window.size(count))
    assert window.rate in (window.stride, Fraction(1, window.stride))
    assert window.size(count + 60) - window.size(count) == 60 * window.rate or window.want == "x"


@draws(2)
@given(windows(), st.integers(1, 12), st.data())
def test_results_change_with_no_cell_but_those_that_are_read(drawn, count, data):
    window, kernel, dilation = drawn
    assume(window.size(count) > 0)
    start = data.draw(st.integers(0, window.size(count) - 1))
    stop = data.draw(st.integers(start + 1, window.size(count)))
    first, last = window.reads(start, stop)
    assert first < last
    x = np.zeros(count)
    for cell in range(count):
        x[...] = 0
        x[cell] = 1
        if whole(window, kernel, dilation, x)[start:stop].any():
            assert first <= cell < last


@draws(2)
@given(windows(), st.integers(1, 12), st.data())
def test_a_piece_is_a_call_on_the_cells_that_it_reads(drawn, count, data):
    """Cells outside of the operand are zeros there."""
    window, kernel, dilation = drawn
    assume(window.size(count) > 0)
    start = data.draw(st.integers(0, window.size(count) - 1))
    stop = data.draw(st.integers(start + 1, window.size(count)))
    first, last = window.reads(start, stop)
    begin, end, extra = window.piece(start, stop, (first, last))
    assert min(begin, end, extra) >= 0
    x = np.arange(1.0, count + 1)
    wide = np.concatenate([np.zeros(40), x, np.zeros(40)])
    piece = window._replace(begin=begin, end=end, extra=extra)
    assert piece.size(last - first) == stop - start
    found = whole(piece, kernel, dilation, wide[40 + first : 40 + last])
    assert np.array_equal(found, whole(window, kernel, dilation, x)[start:stop])


@draws(2)
@given(windows(), st.integers(1, 12), st.integers(1, 8))
def test_what_is_ready_reads_no_later_cell_and_the_next_one_does(drawn, count, more):
    window, _, _ = drawn
    ready = window.ready(count)
    for result in range(max(ready - 3, -9), ready):
        assert window.reads(result, result + 1)[1] <= count
    assert window.reads(ready, ready + 1)[1] > count
    assert window.ready(count + window.stride * more) - ready == (
        more if window.want == "x" else more * window.stride**2
    )


@pytest.mark.parametrize(
    ("window", "is_local"),
    [
        (SAME, True),
        (Window("x"), True),
        (Window(extra=1), False),  # whose last result has no cell
        (Window(begin=1, end=-1), False),
        (Window("x", reach=1, begin=1), False),
        (Window(stride=2), False),
        (Window("x", stride=2), False),
        (Window(reach=3, begin=1, end=1), False),
    ],
)
def test_local_windows_read_the_cell_of_the_same_number_alone(window, is_local):
    assert window.is_local == is_local
    if is_local:
        assert window.reads(3, 7) == (3, 7)
        assert window.size(9) == window.ready(9) == 9
