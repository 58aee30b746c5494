"""Streams of layers: which layers have them, of what channels and type, and what is refused."""

import re

import numpy as np
import pytest
from streams.pushes import all_of, same_bits

import tconv
from tconv.errors import (
    DTypeError,
    MemoryLimitError,
    ParameterError,
    ShapeError,
    UnsupportedError,
)
from tconv.nn.activations import ReLU, Snake, Tanh
from tconv.nn.conv import Conv1d, Conv2d, ConvTranspose1d
from tconv.nn.layer import Layer, Residual, Sequential
from tconv.nn.pooling import MaxPool1d


class Doubled(Layer):
    """A layer of a user's, which works cell by cell."""

    is_pointwise = True

    def __init__(self):
        self.factor = tconv.Parameter(np.array([2.0], np.float32), "factor")

    def compute(self, x):
        return x * self.factor.value, None


class Summed(Layer):
    """One that does not."""

    def compute(self, x):
        return np.cumsum(x, -1, dtype=x.dtype), None


class Late(Doubled):
    """One that says so and does not."""

    def compute(self, x):
        return x[..., 1:], None


class Wide(Doubled):
    """One of another type."""

    def compute(self, x):
        return x.astype(np.float64), None


def conv(channels=1, made=1, kernel=3, **settings):
    return Conv1d(channels, made, kernel, **{"rng": 0, **settings})


def up(channels=1, made=1, kernel=3, **settings):
    return ConvTranspose1d(channels, made, kernel, **{"rng": 0, **settings})


def noise(*shape, dtype="float32"):
    return np.random.default_rng(0).standard_normal(shape).astype(dtype)


def test_a_layer_of_a_users_streams():
    net, x = Sequential(conv(2, 2), Doubled(), up(2, 2)), noise(1, 2, 30)
    assert same_bits(all_of(net.stream(), x, [7, 23]), net.predict(x))
    stream = Doubled().stream(3, channels=2, dtype="float32")
    assert stream.push(noise(3, 2, 4)).shape == (3, 2, 4)


@pytest.mark.parametrize("padding", ["valid", "same", "same_upper", "same_lower"])
@pytest.mark.parametrize(
    ("kind", "stride"), [(Conv1d, 1), (ConvTranspose1d, 1), (ConvTranspose1d, 3)]
)
@pytest.mark.parametrize("kernel", [1, 4, 5])
def test_named_paddings(kind, stride, padding, kernel):
    layer = kind(1, 2, kernel, stride=stride, padding=padding, rng=0)
    x = noise(1, 1, 20)
    assert same_bits(all_of(layer.stream(), x, [3, 17]), layer.predict(x))


def test_channels_and_the_type_follow_from_the_layers():
    for net in (conv(3, 2), Sequential(ReLU(), conv(3, 2)), Sequential(Tanh(), Snake(3)), Snake(3)):
        assert net.stream().push(noise(1, 3, 9)).shape[0] == 1
    net = Sequential(ReLU(), Residual(Tanh()), up(2, 2, dtype="float64"))
    assert net.stream().push(noise(1, 2, 9, dtype="float64")).dtype == np.float64
    stream = ReLU().stream(2, channels=1, dtype="float16")
    assert stream.push(noise(2, 1, 3, dtype="float16")).dtype == np.float16
    assert Sequential().stream(channels=2).push(noise(1, 2, 9)).shape == (1, 2, 9)


SAME = "fit each other at one length only; compute the network in one call."


@pytest.mark.parametrize(
    ("net", "given", "error", "message"),
    [
        *(
            (
                layer,
                {},
                UnsupportedError,
                f'layer {title} has no stream, as it has padding_mode="{mode}", whose border '
                "follows from cells at the ends; pad x before, and make it without padding.",
            )
            for mode in ("circular", "reflect", "replicate")
            for layer, title in (
                (conv(padding=1, padding_mode=mode), "Conv1d"),
                (Sequential(ReLU(), up(padding=1, padding_mode=mode)), "1.ConvTranspose1d"),
            )
        ),
        (
            conv(stride=2, padding="same"),
            {},
            UnsupportedError,
            'layer Conv1d has no stream, as it has padding="same" and a stride, which pads by the '
            "size; pass numbers.",
        ),
        (
            Conv2d(1, 1, 3, rng=0),
            {},
            UnsupportedError,
            "layer Conv2d has no stream, as it has more axes than time; pass one of rank 1.",
        ),
        (
            conv(data_format="channels_last"),
            {},
            UnsupportedError,
            "layer Conv1d has no stream, as it is channels last; make it with "
            'data_format="channels_first".',
        ),
        (
            Conv1d(None, 1, 3),
            {},
            UnsupportedError,
            "layer Conv1d has no stream, as it has no weights yet; make it with in_channels.",
        ),
        *(
            (
                net,
                {},
                UnsupportedError,
                f"layer {title} has no stream, as it may need all of time; leave it out, or set "
                "is_pointwise = True on its class if y at each cell follows from x at that cell "
                "alone.",
            )
            for net, title in (
                (Summed(), "Summed"),
                (Sequential({"a": Sequential(conv(), Summed())}), "a.1.Summed"),
                (Sequential(conv(), Residual(MaxPool1d(1))), "1.0.MaxPool1d"),
            )
        ),
        (
            Sequential(conv(), up(dtype="float64")),
            {},
            DTypeError,
            "layers of a stream must be of one type, but are of float32 (0) and float64 (1).",
        ),
        (
            conv(),
            {"dtype": "float16"},
            DTypeError,
            "layers of a stream must be of one type, but are of float32 (0) and float16 (the "
            "argument dtype).",
        ),
        (
            ReLU(),
            {},
            ParameterError,
            "channels must be given, as no layer says how many x has; pass channels=1, for "
            "example.",
        ),
        (
            conv(2),
            {"channels": 3},
            ParameterError,
            "channels=3 must be 2, which the layers take.",
        ),
        (
            Snake(2),
            {"channels": 3},
            ParameterError,
            "channels=3 must be 2, which the layers take.",
        ),
        (
            Sequential(conv(2, 3), conv(2, 3)),
            {},
            ShapeError,
            "layer 1 takes 2 channels, but gets 3; make it with so many.",
        ),
        (
            Sequential(conv(2, 3), Snake(2)),
            {},
            ShapeError,
            "layer 1 takes 2 channels, but gets 3; make it with so many.",
        ),
        (
            Residual(conv(2, 3, padding=1)),
            {},
            ShapeError,
            "layer 0 joins values of 3 and 2 channels; make them alike.",
        ),
        (
            Residual(conv(stride=2, padding=1)),
            {},
            UnsupportedError,
            "node '0' joins values that move at different rates, 1/2 and 1 cells for each of the "
            f"input, which {SAME}",
        ),
        (
            Sequential(ReLU(), Residual(conv())),
            {},
            ShapeError,
            "node '1' joins values of 65534 and 65536 cells, for 65536 cells of the input; pad "
            "the shorter one.",
        ),
        (
            conv(),
            {"batch": 0},
            ParameterError,
            "batch=0 must be at least 1; pass a positive integer.",
        ),
        (
            ReLU(),
            {"channels": 0},
            ParameterError,
            "channels=0 must be at least 1; pass a positive integer.",
        ),
        (
            ReLU(),
            {"channels": 1, "dtype": "int32"},
            DTypeError,
            "dtype='int32' must name one of float16, bfloat16, float32, float64; pass one of "
            "these.",
        ),
        (
            conv(),
            {"threads": 9999},
            ParameterError,
            "threads=9999 must be at most 1,024; pass fewer, or None for as many as there are "
            "cores.",
        ),
    ],
)
def test_what_has_no_stream(net, given, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        net.stream(**given)


def test_a_batch_beyond_memory():
    with pytest.raises(MemoryLimitError, match=r"^the state needs 8,000,000,000,000 bytes but"):
        conv().stream(10**12)


@pytest.mark.parametrize(
    ("layer", "missing", "dtype"), [(Late(), 1, "float32"), (Wide(), 0, "float64")]
)
def test_layers_that_do_not_work_cell_by_cell_though_they_say_so(layer, missing, dtype):
    stream = Sequential(conv(), layer).stream()
    with pytest.raises(ShapeError, match="layer 1 has is_pointwise") as caught:
        stream.push(noise(1, 1, 9))
    count = int(str(caught.value).rpartition("of x of (1, 1, ")[2].partition(")")[0])
    assert count >= 9
    assert str(caught.value) == (
        f"layer 1 has is_pointwise, but makes (1, 1, {count - missing}), {dtype} of x of "
        f"(1, 1, {count}), float32; return an array like x, or leave is_pointwise out."
    )
