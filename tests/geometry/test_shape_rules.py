"""Laws of the size keywords, and of the remedies that their errors propose."""

import ast
import re

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from strategies import axes, draws, geometries, keywords_of, named_paddings
from tconv.errors import OutputSizeError, ParameterError, ShapeError
from tconv.geometry.geometry import Geometry


@pytest.mark.parametrize(
    ("n", "k", "keywords", "size"),
    [
        (3, 2, {"stride": 3, "padding": "same"}, 9),  # JAX, Keras; ONNX gives 8
        (5, 3, {"stride": 5, "padding": "valid"}, 23),  # PyTorch; JAX and Keras give 25
        (4, 3, {"dilation": 2, "output_padding": 1}, 9),  # legal though the stride is 1
        (4, 3, {"stride": 2, "padding": 1, "output_padding": 1}, 8),
        (4, 3, {"stride": 2, "padding": ((0, 1),)}, 8),
        (4, 3, {"stride": 2, "padding": -1}, 11),
        (4, 4, {"stride": 2, "padding": 1}, 8),
        (1, 1, {}, 1),
        (1, 1, {"stride": 7, "output_padding": 6}, 7),
    ],
)
def test_golden_sizes(n, k, keywords, size):
    assert Geometry.of((1, 1, n), (1, 1, k), **keywords).output_size == (size,)


@draws()
@given(named_paddings())
def test_named_padding_sets_the_size(case):
    x_shape, weight_shape, keywords = case
    geometry = Geometry.of(x_shape, weight_shape, **keywords)
    if keywords["padding"] == "valid":
        assert geometry == Geometry.of(x_shape, weight_shape, **keywords | {"padding": 0})
        return
    for axis in geometry.axes:
        assert axis.output == axis.input * axis.stride == axis.law
        less, more = sorted((axis.begin, axis.end))
        assert more - less <= 1 or less < 0 <= more or axis.full < axis.output
        if axis.full >= axis.output:
            assert 0 <= less <= more <= less + 1
        else:  # the kernel does not fill its stride: the far side is extended
            assert (less, more) == (axis.full - axis.output, 0)
        if axis.begin != axis.end:
            upper = keywords["padding"] != "same_lower"
            assert (axis.begin < axis.end) == (upper == (axis.full > axis.output))


@draws()
@given(named_paddings())
def test_same_lower_is_the_mirror_of_same(case):
    x_shape, weight_shape, keywords = case
    upper = Geometry.of(x_shape, weight_shape, **keywords | {"padding": "same"})
    lower = Geometry.of(x_shape, weight_shape, **keywords | {"padding": "same_lower"})
    assert [(axis.end, axis.begin) for axis in lower.axes] == [
        (axis.begin, axis.end) for axis in upper.axes
    ]


@draws()
@given(named_paddings())
def test_a_named_padding_is_the_pairs_it_stands_for(case):
    x_shape, weight_shape, keywords = case
    geometry = Geometry.of(x_shape, weight_shape, **keywords)
    pairs = [(axis.begin, axis.end) for axis in geometry.axes]
    assert Geometry.of(x_shape, weight_shape, **keywords | {"padding": pairs}) == geometry
    assert Geometry.of_conv(geometry.y_shape, weight_shape, **keywords).axes == geometry.axes


@draws()
@given(axes(), st.integers(1, 40))
def test_output_size_reaches_exactly_the_reachable(axis, wanted):
    keywords = {"stride": axis.stride, "dilation": axis.dilation}
    keywords["padding"] = ((axis.begin, axis.end),)
    shapes = (1, 1, axis.input), (1, 1, axis.kernel)
    least = axis.law - axis.extra
    if least <= wanted < least + max(axis.stride, axis.dilation):
        geometry = Geometry.of(*shapes, output_size=wanted, **keywords)
        assert geometry.axes[0] == axis._replace(extra=wanted - least, output=wanted)
        return
    with pytest.raises(OutputSizeError) as raised:
        Geometry.of(*shapes, output_size=wanted, **keywords)
    message = str(raised.value)
    keywords["padding"] = ast.literal_eval(message.rpartition("padding=")[2].rstrip("."))
    assert Geometry.of(*shapes, output_size=wanted, **keywords).output_size == (wanted,)
    spans = re.findall(r"reachable (?:is only|are) (\d+)(?: to (\d+))?", message)
    most = least + max(axis.stride, axis.dilation) - 1
    if most < 1:
        assert "reachable is no size" in message
    else:
        low, high = spans[0]
        assert (int(low), int(high or low)) == (max(least, 1), most)


@draws()
@given(geometries())
def test_output_size_may_be_full_spatial_or_stand_for_output_padding(geometry):
    keywords = keywords_of(geometry) | {"output_padding": 0}
    for size in (geometry.output_size, list(geometry.output_size), geometry.y_shape):
        found = Geometry.of(geometry.x_shape, geometry.weight_shape, output_size=size, **keywords)
        assert found == geometry


@draws(0.2)
@given(axes(), st.integers(0, 12))
def test_output_padding_is_smaller_than_stride_or_dilation(axis, extra):
    keywords = {"stride": axis.stride, "dilation": axis.dilation, "output_padding": extra}
    shapes = (1, 1, axis.input), (1, 1, axis.kernel)
    if extra < max(axis.stride, axis.dilation):
        assert Geometry.of(*shapes, **keywords).output_size == (axis.full + extra,)
    else:
        with pytest.raises(ParameterError, match=rf"output_padding\[0\]={extra} must be smaller"):
            Geometry.of(*shapes, **keywords)


@draws(0.2)
@given(axes(), st.integers(0, 9))
def test_cropping_everything_away_is_refused_with_what_may_be_cropped(axis, more):
    keywords = {"stride": axis.stride, "dilation": axis.dilation, "output_padding": axis.extra}
    shapes = (1, 1, axis.input), (1, 1, axis.kernel)
    crop = axis.full + axis.extra + more
    with pytest.raises(ShapeError, match="must be at least 1; lower") as raised:
        Geometry.of(*shapes, padding=((0, crop),), **keywords)
    most = int(re.findall(r"at most (-?\d+)\.", str(raised.value))[0])
    assert Geometry.of(*shapes, padding=((0, most),), **keywords).output_size == (1,)


@draws(0.2)
@given(axes(), st.integers(1, 12))
def test_input_size_reaches_exactly_the_possible(axis, wanted):
    keywords = {"stride": axis.stride, "dilation": axis.dilation}
    keywords["padding"] = ((axis.begin, axis.end),)
    shapes = (1, 1, axis.output), (1, 1, axis.kernel)
    left_over = axis.output - axis._replace(input=wanted, extra=0).law
    if 0 <= left_over < max(axis.stride, axis.dilation):
        found = Geometry.of_conv(*shapes, input_size=wanted, **keywords).axes[0]
        assert found == axis._replace(input=wanted, extra=left_over)
        return
    with pytest.raises(ShapeError) as raised:
        Geometry.of_conv(*shapes, input_size=wanted, **keywords)
    for size in set(map(int, re.findall(r"(\d+)(?: to (\d+))?; pass", str(raised.value))[0][:1])):
        Geometry.of_conv(*shapes, input_size=size, **keywords)


@draws(0.2)
@given(axes(), st.integers(1, 5))
def test_a_convolution_says_what_its_output_padding_must_be(axis, extra):
    keywords = {"stride": axis.stride, "dilation": axis.dilation}
    keywords["padding"] = ((axis.begin, axis.end),)
    shapes = (1, 1, axis.output), (1, 1, axis.kernel)
    assume(extra < max(axis.stride, axis.dilation))
    slack = axis.output - axis._replace(input=1, extra=extra).law
    if slack >= 0 and slack % axis.stride == 0:
        found = Geometry.of_conv(*shapes, output_padding=extra, **keywords).axes[0]
        assert (found.extra, found.law) == (extra, axis.output)
        return
    with pytest.raises(ShapeError) as raised:
        Geometry.of_conv(*shapes, output_padding=extra, **keywords)
    assert ("but the kernel needs" in str(raised.value)) == (slack < 0)
    if slack >= 0:
        proposed = re.findall(r"pass output_padding\[0\]=(\d+)\.$", str(raised.value))[0]
        Geometry.of_conv(*shapes, output_padding=int(proposed), **keywords)


def test_an_empty_axis_needs_an_output_size():
    with pytest.raises(ShapeError, match="pass output_size"):
        Geometry.of((1, 1, 0), (1, 1, 3))
    for wanted in (1, 7, 1000):
        assert Geometry.of((1, 1, 0), (1, 1, 3), output_size=wanted).y_shape == (1, 1, wanted)
