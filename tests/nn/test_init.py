"""Initial weights: constant variance, equal phases, exact ramps."""

import re
from math import prod

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from strategies import draws
from tconv.errors import MemoryLimitError, ParameterError, ShapeError
from tconv.nn import init
from tconv.nn.conv import Conv2d, ConvTranspose1d, ConvTranspose2d
from tconv.nn.init import INITIALISERS, fans, init_bilinear, init_icnr, init_torch
from tconv.ops.functional import conv, conv_transpose

DRAWN = sorted(set(INITIALISERS) - {"bilinear", "zeros"})
kernels = st.integers(1, 9)
strides = st.integers(1, 4)


def phase_sums(weight, stride, dilation):
    """Return per phase the sum of the taps with k*dilation = phase mod stride."""
    found = np.zeros((*weight.shape[:2], *stride))
    for tap in np.ndindex(*weight.shape[2:]):
        phase = tuple(k * d % s for k, d, s in zip(tap, dilation, stride, strict=True))
        found[(slice(None), slice(None), *phase)] += weight[(slice(None), slice(None), *tap)]
    return found


# ---- fan and variance ----------------------------------------------------------------------------


def test_fans():
    assert fans((6, 4, 4, 6), stride=(2, 3)) == (6 * 24 / 6, 4 * 24)
    assert fans((6, 4, 4, 6), stride=(2, 3), groups=3) == (2 * 24 / 6, 4 * 24)
    assert fans((6, 4, 3), stride=2, transposed=False) == (12, 9)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(1, 4), st.integers(1, 3), st.booleans())
def test_fan_in_counts_what_an_output_cell_is_the_sum_of(c, m, kernel, stride, transposed):
    """By counting: all-ones weights and inputs give the number of products in every cell."""
    size = 60
    weight, keywords = np.ones((c, m, kernel)), {"stride": stride}
    x, y = np.ones((1, c, size)), np.ones((1, m, size * stride + kernel))
    if transposed:
        counts = conv_transpose(x, weight, **keywords)[0, 0, 12:-12]
        counts = counts[: len(counts) // stride * stride]  # whole periods
    else:
        counts = conv(y, weight, **keywords)[0, 0]
    fan_in, _ = fans(weight.shape, stride=stride, transposed=transposed)
    assert counts.mean() == pytest.approx(fan_in)


@pytest.mark.parametrize("name", ["kaiming_uniform", "kaiming_normal"])
@pytest.mark.parametrize(("kernel", "stride"), [(4, 2), (3, 2), (2, 4), (5, 1), (6, 3)])
@pytest.mark.parametrize("transposed", [True, False])
def test_the_variance_is_kept(name, kernel, stride, transposed):
    rng = np.random.default_rng(0)
    operation = conv_transpose if transposed else conv
    channels = 48
    weight = INITIALISERS[name](
        (channels, channels, kernel, kernel),
        stride=stride,
        transposed=transposed,
        negative_slope=1.0,
        rng=rng,
    )
    size = 24 if transposed else 24 * stride
    y = operation(rng.normal(size=(2, channels, size, size)), weight, stride=stride, padding="same")
    border = 2 * kernel if transposed else 2
    assert y[..., border:-border, border:-border].var() == pytest.approx(1, rel=0.1)


@pytest.mark.parametrize("stride", [1, 2, 3])
def test_a_deep_decoder_keeps_its_variance_between_rectifiers(stride):
    rng = np.random.default_rng(1)
    x = rng.normal(size=(4, 256, 64))
    for _ in range(6):
        weight = init.init_kaiming_normal((256, 256, 4), stride=stride, rng=rng)
        y = conv_transpose(np.maximum(x, 0), weight, stride=stride, padding="same")
        x = y[..., y.shape[-1] // 2 - 32 : y.shape[-1] // 2 + 32]
    assert 0.5 < x.var() < 2


@pytest.mark.parametrize("name", ["xavier_uniform", "xavier_normal"])
def test_xavier_lies_between_the_two_fans(name):
    shape = (64, 32, 4, 4)
    weight = INITIALISERS[name](shape, stride=2, rng=0)
    assert weight.var() == pytest.approx(2 / sum(fans(shape, stride=2)), rel=0.03)


@pytest.mark.parametrize("name", DRAWN)
def test_uniform_ones_are_bounded(name):
    shape = (32, 16, 4, 4)
    weight = INITIALISERS[name](shape, stride=2, rng=0)
    assert weight.mean() == pytest.approx(0, abs=4 * weight.std() / np.sqrt(weight.size))
    uniform = "normal" not in name
    assert (abs(weight).max() < np.sqrt(3.1) * weight.std()) == uniform


def test_torch_ignores_the_stride():
    for stride in (1, 2):
        weight = init_torch((64, 8, 5, 5), stride=stride, rng=0)
        assert 0.99 < abs(weight).max() * np.sqrt(8 * 25) <= 1
    layer = Conv2d(8, 64, 5, initialiser="torch", rng=0)
    assert 0.9 < abs(layer.bias.value).max() * np.sqrt(8 * 25) <= 1


@pytest.mark.parametrize("name", DRAWN)
def test_seeds(name):
    draw = INITIALISERS[name]
    first, again, other = (draw((3, 2, 4), stride=2, rng=rng) for rng in (5, 5, 6))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)
    rng = np.random.default_rng(5)
    assert np.array_equal(draw((3, 2, 4), stride=2, rng=rng), first)
    assert not np.array_equal(draw((3, 2, 4), stride=2, rng=rng), first)
    assert not np.array_equal(draw((3, 2, 4), stride=2), draw((3, 2, 4), stride=2))


@pytest.mark.parametrize("name", INITIALISERS)
def test_a_layer_takes_every_name(name):
    layer = ConvTranspose2d(4, 4, 4, stride=2, groups=2, initialiser=name, rng=2, dtype="float64")
    expected = INITIALISERS[name]((4, 2, 4, 4), stride=2, groups=2, rng=2)
    assert np.array_equal(layer.weight.value, expected)
    assert layer.bias.value.any() == (name == "torch")


def test_a_function_may_be_given():
    layer = ConvTranspose1d(1, 2, 3, stride=2, initialiser=lambda shape, **_: np.ones(shape))
    assert np.array_equal(layer.weight.value, np.ones((1, 2, 3)))


# ---- bilinear ------------------------------------------------------------------------------------


@draws(2)
@given(st.data(), st.integers(1, 3), st.integers(1, 3))
def test_bilinear_reproduces_ramps(data, rank, groups):
    stride = tuple(data.draw(strides) for _ in range(rank))
    kernel = tuple(data.draw(st.integers(2 * s - 1, 2 * s + 3)) for s in stride)
    channels = groups * data.draw(st.integers(1, 2))
    slopes = [data.draw(st.integers(-3, 3)) for _ in range(rank)]
    size = 7
    weight = init_bilinear((channels, channels // groups, *kernel), stride=stride, groups=groups)
    ramp = sum(a * i for a, i in zip(slopes, np.indices([size] * rank), strict=True)) + 2.0
    x = np.stack([ramp * (c + 1) for c in range(channels)])[None]
    y = conv_transpose(x, weight, stride=stride, groups=groups)
    f = np.indices(y.shape[2:])
    per_axis = zip(slopes, f, kernel, stride, strict=True)
    expected = sum(a * (i - (k - 1) / 2) / s for a, i, k, s in per_axis) + 2.0
    inner = tuple(slice(k + s, (size - 1) * s - s) for k, s in zip(kernel, stride, strict=True))
    for c in range(channels):
        np.testing.assert_allclose(y[0, c][inner], (expected * (c + 1))[inner], atol=1e-12)


@given(strides, st.integers(1, 3), st.integers(0, 4))
def test_bilinear_reproduces_ramps_when_dilated(stride, dilation, longer):
    assume(np.gcd(stride, dilation) == 1)
    kernel, size = 2 * stride - 1 + longer, 40
    weight = init_bilinear((1, 1, kernel), stride=stride, dilation=dilation)
    x = np.arange(float(size)).reshape(1, 1, size)
    y = conv_transpose(x, weight, stride=stride, dilation=dilation)[0, 0]
    f = np.arange(y.size)
    expected = (f - dilation * (kernel - 1) / 2) / stride
    border = dilation * (kernel + stride)
    inner = slice(border, (size - 1) * stride - border)
    np.testing.assert_allclose(y[inner], expected[inner], atol=1e-10)


@pytest.mark.parametrize("stride", [1, 2, 3, 4, 5, 8])
def test_bilinear_is_the_classic_kernel(stride):
    """The formula of Caffe and FCN, at the kernel they use it with: K = 2*s - s % 2."""
    kernel = 2 * stride - stride % 2
    factor = (kernel + 1) // 2
    centre = factor - 1 if kernel % 2 else factor - 0.5
    one = 1 - abs(np.arange(kernel) - centre) / factor
    weight = init_bilinear((2, 2, kernel, kernel), stride=stride)
    for c in range(2):
        np.testing.assert_allclose(weight[c, c], np.outer(one, one), atol=1e-15)
        assert not weight[c, 1 - c].any()


@given(strides, st.integers(0, 4), st.integers(1, 2))
def test_bilinear_has_equal_phase_sums(stride, longer, rank):
    kernel = (2 * stride - 1 + longer,) * rank
    sums = phase_sums(init_bilinear((1, 1, *kernel), stride=stride), (stride,) * rank, (1,) * rank)
    np.testing.assert_allclose(sums, 1, atol=1e-14)


# ---- icnr ----------------------------------------------------------------------------------------


@given(st.data(), st.integers(1, 3))
def test_icnr_has_equal_phases(data, rank):
    stride = tuple(data.draw(strides) for _ in range(rank))
    kernel = tuple(data.draw(st.integers(s, 3 * s)) for s in stride)
    weight = init_icnr((2, 3, *kernel), stride=stride, rng=data.draw(st.integers(0, 99)))
    x = np.random.default_rng(0).normal(size=(1, 2, *[4] * rank))
    y = conv_transpose(x, weight, stride=stride)
    # Every input cell becomes a block of equal cells; what is over belongs to taps that are zero.
    for axis, s in enumerate(stride, 2):
        whole = y.shape[axis] // s
        y = np.take(y, range(whole * s), axis)
        blocks = y.reshape(*y.shape[:axis], whole, s, *y.shape[axis + 1 :])
        assert np.array_equal(blocks, np.take(blocks, [0] * s, axis + 1))
    sums = phase_sums(weight, stride, (1,) * rank)
    flat = sums.reshape(*sums.shape[:2], -1)
    assert np.array_equal(flat, np.repeat(flat[..., :1], flat.shape[-1], -1))


@given(strides, st.integers(1, 4), st.integers(0, 9), st.integers(0, 99))
def test_icnr_has_equal_phase_sums_when_dilated(stride, dilation, longer, seed):
    assume(np.gcd(stride, dilation) == 1)
    weight = init_icnr((2, 2, stride + longer), stride=stride, dilation=dilation, rng=seed)
    sums = phase_sums(weight, (stride,), (dilation,))
    np.testing.assert_allclose(sums, np.repeat(sums[..., :1], stride, -1), atol=1e-12)


def test_icnr_keeps_the_variance():
    weight = init_icnr((64, 64, 4, 4), stride=2, negative_slope=1.0, rng=0)
    rng = np.random.default_rng(1)
    y = conv_transpose(rng.normal(size=(2, 64, 16, 16)), weight, stride=2, padding=1)
    assert y[..., 4:-4, 4:-4].var() == pytest.approx(1, rel=0.1)


def test_random_weights_do_ripple():
    """What icnr is for: the ripple index of random weights is 1."""
    for name, index in (("kaiming_normal", 1), ("icnr", 0), ("bilinear", 0)):
        sums = phase_sums(INITIALISERS[name]((48, 48, 4, 4), stride=2, rng=0), (2, 2), (1, 1))
        mean = sums.mean(axis=(2, 3), keepdims=True)
        ripple = np.sqrt(np.sum((sums - mean) ** 2) / 4 / np.sum(mean**2))
        assert ripple / np.sqrt(3) == pytest.approx(index, abs=0.05)


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (
            lambda: init_bilinear((1, 1, 2), stride=2),
            ParameterError,
            "kernel_size[0]=2 must be at least 2*stride[0] - 1=3 for bilinear; pass 4 or use icnr.",
        ),
        (
            lambda: init_bilinear((2, 1, 4), stride=2),
            ParameterError,
            "initialiser bilinear keeps channels, but the weight of shape (2, 1, 4) turns 2 into "
            "1; pass equal numbers or use icnr.",
        ),
        (
            lambda: ConvTranspose2d(3, 3, 5, stride=2, dilation=(1, 2), initialiser="bilinear"),
            ParameterError,
            "dilation[1]=2 must share no divisor with stride[1]=2 for bilinear, or no tap reaches "
            "some outputs; pass another dilation.",
        ),
        (
            lambda: init_icnr((1, 1, 4, 2), stride=3),
            ParameterError,
            "kernel_size[1]=2 must be at least stride[1]=3 for icnr, or no tap reaches some "
            "outputs; pass 3 or a multiple.",
        ),
        (
            lambda: Conv2d(3, 3, 3, initialiser="icnr"),
            ParameterError,
            "initialiser icnr is for the phases of a transposed convolution, an ordinary one has "
            "none; pass another initialiser.",
        ),
        (
            lambda: init_torch((1, 1, 4), rng=-1),
            ParameterError,
            "rng=-1 must be a numpy.random.Generator or a seed; pass an integer of 0 or more.",
        ),
        (
            lambda: fans((4, 1, 4), stride=0),
            ParameterError,
            "stride[0]=0 must be at least 1; pass a positive integer.",
        ),
        (
            lambda: fans((4, 1)),
            ShapeError,
            "weight.ndim=2 must be at least 3 (two channel axes and one or more spatial axes); "
            "a kernel without channels needs two more axes of size 1: weight[None, None].",
        ),
        (
            lambda: init.init_kaiming_normal((4, 1, 4), groups=3),
            ShapeError,
            "groups=3 must divide the 4 input channels of weight of shape (4, 1, 4) "
            '(weight_format="IO*"); pass a divisor such as 1, 2, 4.',
        ),
        (
            lambda: init.init_kaiming_uniform((4, 1, 4), negative_slope=None),
            ParameterError,
            "negative_slope=None must be a finite number; pass one.",
        ),
    ],
)
def test_exact_messages(use, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        use()


def test_shapes_are_kept():
    for name, draw in INITIALISERS.items():
        shape = (4, 2, 4, 5)
        weight = draw(shape, stride=2, groups=2, rng=0)
        assert weight.shape == shape, name
        assert weight.dtype == np.float64
        assert prod(weight.shape) == weight.size


@pytest.mark.parametrize("initialise", INITIALISERS.values())
@pytest.mark.parametrize("shape", [5, None, "abc", [[1, 2, 3]], (1.0, 1, 3), [1] * 100])
def test_a_shape_is_a_sequence_of_sizes(initialise, shape):
    with pytest.raises(ParameterError, match=r"^shape"):
        initialise(shape)


DRAWING = [each for name, each in INITIALISERS.items() if name != "zeros"]


@pytest.mark.parametrize("initialise", DRAWING)
@pytest.mark.parametrize("name", ["transposed", "stride", "dilation", "groups", "rng"])
def test_no_keyword_is_taken_for_what_it_is_not(initialise, name):
    with pytest.raises(ParameterError, match=f"^{name}.*'no'.* must be"):
        initialise((2, 2, 4), **{name: "no"})


@pytest.mark.parametrize("initialise", INITIALISERS.values())
def test_what_there_is_no_memory_for_is_not_drawn(initialise):
    with pytest.raises(MemoryLimitError, match=r"^weight of shape .* needs [\d,]+ bytes but "):
        initialise((2**25, 2**25, 4))
