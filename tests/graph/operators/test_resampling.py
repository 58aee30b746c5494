"""Linear interpolation by any factor: weighted sums, equal to ONNX Runtime."""

import numpy as np
import pytest
from graph.operators.nodes import both, node, numbers, refused, whole
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws
from tconv.graph import Graph, Input, Node, Programs, UnknownOperator

HOWS = ["align_corners", "asymmetric", "half_pixel", "pytorch_half_pixel"]
each_how = pytest.mark.parametrize("how", HOWS)


def resize(how, by="- - to", **more):
    return node("Resize", f"x {by}", "y", mode="linear", coordinate_transformation_mode=how, **more)


def assert_close(pair):
    found, expected = pair
    assert np.allclose(found, expected, 0, 3e-6 * np.abs(expected).max())


@each_how
@pytest.mark.parametrize(
    ("size", "to"),
    [
        *((1, 1), (1, 5), (5, 1), (2, 3), (7, 10), (10, 7), (16, 32), (33, 65), (64, 64)),
        *((65, 128), (100, 130), (64, 192), (300, 100), (129, 517)),  # in bands
    ],
)
def test_sizes_of_every_kind(size, to, how):
    x = numbers(2, 3, size, 5)
    assert_close(both(x, resize(how), to=whole(2, 3, to, 5)))
    x = np.ascontiguousarray(x.transpose(0, 1, 3, 2))
    assert_close(both(x, resize(how), to=whole(2, 3, 5, to)))


@each_how
@draws(0.5)
@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 12)), min_size=1, max_size=3))
def test_several_axes(how, sizes):
    shape = (1, 2, *[size for size, _ in sizes])
    assert_close(both(numbers(*shape), resize(how), to=whole(1, 2, *[to for _, to in sizes])))


@each_how
@pytest.mark.parametrize("by", [1.5, 10 / 7, 0.6, 1.2, 2.0, 2.7])
def test_factors(by, how):
    """Sizes are rounded down, and the factors stay what they are."""
    x, scales = numbers(1, 2, 7, 3), np.array([1, 1, by, by], np.float32)
    assert_close(both(x, resize(how, "- by"), by=scales))


def test_old_opsets_place_cells_at_their_corners():
    x, scales = numbers(1, 2, 7, 4), np.array([1, 1, 2, 3], np.float32)
    assert_close(both(x, node("Upsample", "x by", "y", mode="linear"), opset=9, by=scales))
    assert_close(both(x, node("Resize", "x by", "y", mode="linear"), opset=10, by=scales))


@each_how
def test_equal_numbers_stay(how):
    """Both weights of a cell have the sum 1."""
    x = np.full((1, 2, 13, 9), 41, np.float32)
    found, _ = both(x, resize(how), to=whole(1, 2, 150, 31))
    assert np.allclose(found, 41, 2e-7, 0)


@each_how
def test_what_follows_bands_reads_all_of_them(how):
    """No band computes a Relu that others are part of."""
    x = numbers(2, 3, 70, 4)
    more = node("Resize", "x - - to", "r", mode="linear", coordinate_transformation_mode=how)
    assert_close(both(x, more, node("Relu", "r", "y"), to=whole(2, 3, 140, 9)))
    nodes = more, node("Add", "r c", "s"), node("Sigmoid", "s", "y")
    assert_close(both(x, *nodes, to=whole(2, 3, 140, 4), c=numbers(2, 3, 140, 4)))


def test_a_transposed_value():
    x = numbers(1, 6, 5, 2)
    turned = node("Transpose", "x", "t", perm=[0, 3, 1, 2])
    more = node("Resize", "t - - to", "y", mode="linear", coordinate_transformation_mode=HOWS[0])
    assert_close(both(x, turned, more, to=whole(1, 2, 9, 7)))


def test_weights_are_packed_once_for_programs_of_other_batches():
    given = {"mode": "linear", "coordinate_transformation_mode": "align_corners"}
    nodes = (Node("Resize", ("x", "", "by"), ("y",), given),)
    by = {"by": np.array([1, 1, 2, 2], np.float32)}
    programs = Programs(Graph((Input("x", "float32"),), ("y",), nodes, by), 1)
    programs([numbers(1, 2, 20, 20)])
    before = programs.packed_bytes
    assert before > 0
    programs([numbers(3, 2, 20, 20)])
    assert programs.packed_bytes <= 2 * before  # another layout, but not another array
    programs([numbers(1, 5, 20, 20)])
    assert programs.packed_bytes <= 2 * before


def test_resampling_that_is_refused():
    to = whole(1, 2, 9, 9)
    for how in ("tf_crop_and_resize", "half_pixel_symmetric"):
        with pytest.raises(UnknownOperator):
            refused((1, 2, 4, 5), resize(how), to=to, opset=19)
    with pytest.raises(UnknownOperator, match="antialiasing"):
        refused((1, 2, 4, 5), resize("half_pixel", antialias=1), to=to, opset=18)
    with pytest.raises(UnknownOperator, match="cubic"):
        refused((1, 2, 4, 5), node("Resize", "x - - to", "y", mode="cubic"), to=to)
    with pytest.raises(UnknownOperator, match="channels"):
        refused((1, 2, 4, 5), resize("align_corners"), to=whole(1, 3, 9, 9))
    with pytest.raises(UnknownOperator):
        refused((1, 2, 4, 5), resize("align_corners"), to=whole(1, 2, 0, 9))
    with pytest.raises(UnknownOperator):
        refused((1, 2, 0, 5), resize("align_corners"), to=whole(1, 2, 3, 9))
    with pytest.raises(UnknownOperator, match="nearest"):
        refused((1, 2, 4, 5), node("Resize", "x - - to", "y", mode="nearest"), to=to)
