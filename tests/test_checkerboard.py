"""Overlap counts and phase sums equal the outputs for ones and constants, off the border."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tconv
from strategies import draws
from tconv.checkerboard import decibels, overlap_counts, phase_sums, ripple
from tconv.errors import DTypeError, MemoryLimitError, ParameterError, ShapeError
from tconv.geometry.axis import Axis
from tconv.geometry.weight_formats import WEIGHT_FORMATS, WeightLayout
from tconv.nn.init import init_bilinear


@st.composite
def kernels(draw):
    """A weight of two axes with strides and dilations, integers stored as floats."""
    sizes = [draw(st.integers(1, 5)) for _ in range(2)]
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    w = rng.integers(-9, 10, (2, 3, *sizes)).astype(float)
    pairs = [tuple(draw(st.integers(1, 4)) for _ in range(2)) for _ in range(2)]
    return w, {"stride": pairs[0], "dilation": pairs[1]}


def interior(w, settings):
    """The output over a constant input of 1, one period away from the border, by full phase."""
    starts = [
        -(-(k - 1) * d // s) * s
        for k, d, s in zip(w.shape[2:], settings["dilation"], settings["stride"], strict=True)
    ]
    cells = [start // s + 2 for start, s in zip(starts, settings["stride"], strict=True)]
    y = tconv.conv_transpose(np.ones((1, w.shape[0], *cells)), w, **settings)[0]
    windows = (slice(a, a + s) for a, s in zip(starts, settings["stride"], strict=True))
    return y[:, *windows]


@draws(2)
@given(kernels())
def test_a_constant_input_becomes_the_phase_sums(drawn):
    w, settings = drawn
    assert np.array_equal(interior(w, settings), phase_sums(w, **settings).sum(axis=0))


@draws(2)
@given(kernels())
def test_ones_over_ones_become_the_overlap_counts(drawn):
    w, settings = drawn
    ones = np.ones((1, 1, *w.shape[2:]))
    assert np.array_equal(interior(ones, settings)[0], overlap_counts(w.shape[2:], **settings))


@given(st.integers(1, 9), st.integers(1, 6), st.integers(1, 6))
def test_counts_are_even_exactly_where_the_axis_says_so(kernel, stride, dilation):
    counts = overlap_counts((kernel,), stride=stride, dilation=dilation)
    axis = Axis(1, kernel, 1, stride, dilation)
    assert (len(set(counts.tolist())) == 1) == axis.even
    assert (counts.min(), counts.max()) == axis.taps_per_phase


@draws(2)
@given(
    st.integers(1, 6),
    st.integers(1, 6),
    st.sampled_from([1, 2, 3, 2**31, 2**32 + 1, 2**62, 2**63, 2**63 + 1, 2**70 - 1]),
)
def test_counts_are_those_of_a_loop_beyond_64_bits(kernel, stride, dilation):
    counts = [0] * stride
    for k in range(kernel):
        counts[k * dilation % stride] += 1
    found = overlap_counts((kernel,), stride=stride, dilation=dilation)
    assert found.dtype == np.int64
    assert found.tolist() == counts
    both = overlap_counts((kernel, 2), stride=(stride, 1), dilation=dilation)
    assert both.tolist() == [[2 * count] for count in counts]
    w = np.ones((1, 1, kernel))
    assert phase_sums(w, stride=stride, dilation=dilation)[0, 0].tolist() == counts


def test_counts_of_very_large_kernels_take_no_time():
    assert overlap_counts((2**62,), stride=3, dilation=2**62).tolist() == [
        2**62 // 3 + 1, *[2**62 // 3] * 2
    ]  # fmt: skip
    with pytest.raises(ParameterError, match="more taps for a phase than 64 bits count"):
        overlap_counts((2**32, 2**32))
    with pytest.raises(MemoryLimitError, match="phases, which need"):
        overlap_counts((3,), stride=2**62)
    with pytest.raises(MemoryLimitError, match="phases, which need"):
        phase_sums(np.ones((1, 1, 3)), stride=2**62)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16"])
def test_phase_sums_of_integers_are_exact_or_refused(dtype):
    most = np.iinfo(dtype).max
    fits, wraps = np.full((1, 1, 4), most // 2, dtype), np.full((1, 1, 4), most // 2 + 1, dtype)
    assert (phase_sums(fits, stride=2) == most // 2 * 2).all()
    with pytest.raises(DTypeError, match="could reach"):
        phase_sums(wraps, stride=2)


@pytest.mark.parametrize(
    ("kernel", "stride", "index"),
    [(3, 2, 0.28), (5, 2, 0.165), (5, 3, 0.144), (4, 2, 0), (6, 3, 0)],
)
def test_the_ripple_of_ones(kernel, stride, index):
    found = ripple(np.ones((1, 1, kernel, kernel)), stride=stride)
    assert found / (stride**2 - 1) ** 0.5 == pytest.approx(index, abs=0.005)


@pytest.mark.parametrize("stride", [1, 2, 3, 4])
def test_interpolation_leaves_no_ripple(stride):
    size = 2 * stride - stride % 2
    assert ripple(init_bilinear((1, 1, size, size), stride=stride), stride=stride) < 1e-12


def test_ripple_without_a_mean_is_infinite():
    assert ripple(np.array([[[1.0, -1.0]]]), stride=2) == float("inf")
    assert ripple(np.zeros((1, 1, 4)), stride=2) == 0
    assert decibels(float("inf")) == float("inf")
    assert decibels(0.1) == pytest.approx(-20)


def test_bad_input():
    with pytest.raises(ShapeError, match=r"^weight\.shape=\(3, 3\) must be those of channels"):
        phase_sums(np.ones((3, 3)), stride=2)
    with pytest.raises(DTypeError, match=r"^weight\.dtype=bool must be a type of numbers"):
        phase_sums(np.ones((1, 1, 3), bool), stride=2)
    with pytest.raises(ParameterError, match=r"^stride\[0\]=0 must be at least 1"):
        overlap_counts((3, 3), stride=0)


@pytest.mark.parametrize("kind", [tconv.ConvTranspose2d, tconv.Conv2d])
def test_a_layer_brings_its_weight_and_its_settings(kind):
    layer = kind(4, 6, (3, 5), stride=(2, 3), dilation=(1, 2), groups=2, rng=0)
    weight, settings = layer.weight.value, {"stride": (2, 3), "dilation": (1, 2)}
    assert overlap_counts(layer).tolist() == overlap_counts((3, 5), **settings).tolist()
    assert np.array_equal(phase_sums(layer), phase_sums(weight, **settings))
    assert ripple(layer) == ripple(weight, **settings) > 0
    # What is given counts, whatever the layer has.
    assert overlap_counts(layer, stride=1).tolist() == [[15]]
    assert phase_sums(layer, stride=1).shape == (*weight.shape[:2], 1, 1)
    assert ripple(layer, stride=1) == 0


def test_a_layer_without_a_weight_yet_says_so():
    layer = tconv.ConvTranspose2d(None, 6, 3, stride=2)
    assert overlap_counts(layer).tolist() == [[4, 2], [2, 1]]
    with pytest.raises(ParameterError, match=r"^weight has no value yet"):
        ripple(layer)
    with pytest.raises(ParameterError, match=r'^weight_format="OI\*" must be left out'):
        phase_sums(tconv.Conv2d(1, 1, 3), weight_format="OI*")


@draws(2)
@given(kernels(), st.sampled_from(sorted(WEIGHT_FORMATS)))
def test_sums_and_ripple_are_the_same_in_every_weight_format(drawn, weight_format):
    w, settings = drawn
    layout = WeightLayout.of(weight_format, 2)
    moved = np.empty(layout.shape(*w.shape[:2], 1, w.shape[2:]))
    moved.transpose(layout.inputs, layout.outputs, *layout.kernel)[...] = w
    settings |= {"weight_format": weight_format}
    own = {name: settings[name] for name in ("stride", "dilation")}
    assert np.array_equal(phase_sums(moved, **settings), phase_sums(w, **own))
    assert ripple(moved, **settings) == ripple(w, **own)


@pytest.mark.parametrize("scale", [2.0**-1060, 2.0**-600, 2.0**600, 2.0**1010])
def test_the_ripple_has_no_scale(scale):
    weight = np.array([[[1.0, 2.0, 4.0]]])
    assert ripple(weight * scale, stride=2) == ripple(weight, stride=2) == pytest.approx(3 / 7)


def test_the_ripple_of_small_integers_is_summed_in_float64():
    weight = np.full((1, 1, 4), 100, np.int8)
    weight[..., 0] = 50
    assert ripple(weight, stride=2) == ripple(weight.astype(float), stride=2) > 0


@pytest.mark.parametrize("kernel_size", [3, None, (), "33", {3: 3}, [3] * 100])
def test_a_kernel_size_is_a_tuple(kernel_size):
    with pytest.raises(ParameterError, match=r"^kernel_size"):
        overlap_counts(kernel_size)


@pytest.mark.parametrize("weight", [None, "words", {}, [[1], [1, 2]], np.zeros((1, 1, 3), "V8")])
def test_a_weight_is_an_array_of_numbers(weight):
    with pytest.raises((DTypeError, ShapeError), match=r"^weight"):
        phase_sums(weight)


@pytest.mark.parametrize("ratio", [None, "1", -1.0, np.nan, [1.0], 1j])
def test_a_ratio_is_a_number(ratio):
    with pytest.raises(ParameterError, match=r"^ratio=.* must be a number of at least 0"):
        decibels(ratio)
