"""Advice about axes: what a message proposes is done, and the call succeeds."""

import re

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

import tconv
from strategies import draws
from tconv.errors import ShapeError
from tconv.geometry.weight_formats import WEIGHT_FORMATS, WeightLayout

FORMATS = st.sampled_from(sorted(WEIGHT_FORMATS))
DATA_FORMATS = st.sampled_from(["channels_first", "channels_last"])


def done(message, **arrays):
    """The arrays after what the message proposes for them, such as ``x[None, None]``."""
    proposed = re.findall(r"\b((\w+)\[(?:None|\.\.\.|:)[^\]]*\])", message)
    assert proposed, message
    return arrays | {name: eval(expression, {}, arrays) for expression, name in proposed}


@draws(0.5)
@given(st.integers(1, 3), FORMATS, DATA_FORMATS)
def test_a_sample_and_a_kernel_without_channels_get_their_axes(rank, weight_format, data_format):
    x, kernel = np.ones((5,) * rank), np.arange(3.0**rank).reshape((3,) * rank)
    formats = {"weight_format": weight_format, "data_format": data_format}
    weight = kernel
    if rank < 3:  # a kernel of three axes is a weight of one
        with pytest.raises(ShapeError) as raised:
            tconv.conv_transpose(x, kernel, **formats)
        weight = done(str(raised.value), weight=kernel)["weight"]
    else:
        layout = WeightLayout.of(weight_format, rank)
        weight = kernel.reshape(layout.shape(1, 1, 1, kernel.shape))
    for call, name in ((tconv.conv_transpose, "x"), (tconv.conv, "y")):
        with pytest.raises(ShapeError) as raised:
            call(x, weight, **formats)
        (data,) = done(str(raised.value), **{name: x}).values()
        found = call(data, weight, **formats)
        assert found.size == (7 if name == "x" else 3) ** rank
    with pytest.raises(ShapeError) as raised:
        tconv.conv_weight_gradient(x, np.ones((7,) * rank), (3,) * rank, **formats)
    pair = done(str(raised.value), x=x, y=np.ones((7,) * rank))
    gradient = tconv.conv_weight_gradient(**pair, kernel_size=(3,) * rank, **formats)
    assert gradient.shape == weight.shape


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_a_volume_and_a_kernel_of_three_axes_get_theirs(data_format):
    x, weight = np.ones((8, 8, 8)), np.ones((3, 3, 3))
    with pytest.raises(ShapeError, match="for a volume and a kernel without channels") as raised:
        tconv.conv_transpose(x, weight, data_format=data_format)
    both = done(str(raised.value), x=x, weight=weight)
    assert tconv.conv_transpose(**both, data_format=data_format).size == 10**3


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
def test_a_batch_without_channels_gets_them(data_format):
    x, weight = np.ones((4, 8, 8)), np.ones((1, 1, 3, 3))
    with pytest.raises(ShapeError, match="if x is a batch without channels") as raised:
        tconv.conv_transpose(x, weight, data_format=data_format)
    both = done(str(raised.value), x=x, weight=weight)
    assert tconv.conv_transpose(**both, data_format=data_format).shape[0] == 4


@draws(0.5)
@given(FORMATS, FORMATS, st.integers(1, 6), st.integers(1, 6), st.integers(1, 3))
def test_a_weight_of_another_format_is_taken_by_the_one_that_is_proposed(
    given_format, own_format, channels, others, rank
):
    weight = np.ones(WeightLayout.of(own_format, rank).shape(channels, others, 1, (3,) * rank))
    for call, count in ((tconv.conv_transpose, channels), (tconv.conv, others)):
        data = np.ones((2, count, *(9,) * rank))
        try:
            call(data, weight, weight_format=given_format)
        except ShapeError as error:
            found = re.search(r'or weight_format="(.+?)" if the axes', str(error))
            assume(found)  # something else may be likelier
            call(data, weight, weight_format=found[1])
        else:
            assume(given_format != own_format)


def test_the_layers_and_the_poolings_say_it_in_their_words():
    image = np.ones((8, 8), np.float32)
    for layer in (tconv.Conv2d(1, 2, 3), tconv.ConvTranspose2d(1, 2, 3), tconv.MaxPool2d(2)):
        with pytest.raises(ShapeError, match=r"^x\.ndim=2 must be .* pass x\[None, None\]\.$"):
            layer(image)
    for layer in (tconv.Conv2d(3, 2, 3), tconv.ConvTranspose2d(3, 2, 3)):
        with pytest.raises(ShapeError, match=r"^x has 8 channels but the layer has in_channels=3"):
            layer(np.ones((1, 8, 8, 3), np.float32))
