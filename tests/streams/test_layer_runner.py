"""Streams of layers: bit by bit what the whole input gives, whatever the pushes."""

from hypothesis import given
from hypothesis import strategies as st
from streams.drawn_layers import convolutions, directly_or_none, noise, sequences
from streams.pushes import LENGTHS, all_of, cuts, in_runs, same_bits

from strategies import draws
from tconv.errors import ShapeError


@draws(2)
@given(convolutions(), st.integers(1, 3), st.integers(0, 40), st.data())
def test_pushes_give_the_bits_of_the_whole(layer, batch, size, data):
    x = noise((batch, layer.in_channels, size), layer.dtype, size)
    expected = directly_or_none(layer, x)
    found = all_of(in_runs(layer.stream(batch), data.draw(LENGTHS)), x, data.draw(cuts(size)))
    if expected is None:
        assert found.shape == (batch, layer.out_channels, 0)
    else:
        assert same_bits(found, expected)


@draws()
@given(st.data(), st.sampled_from(["float32", "float64", "float16"]), st.integers(1, 60))
def test_sequences_and_residual_blocks_as_well(data, dtype, size):
    net, channels = data.draw(sequences(dtype))
    x = noise((2, channels, size), dtype, size)
    expected = directly_or_none(net, x)
    try:
        stream = in_runs(net.stream(2, channels=channels), data.draw(LENGTHS))
    except ShapeError:  # an hourglass between values whose lengths are always odd
        assert expected is None
        return
    found = all_of(stream, x, data.draw(cuts(size)))
    if expected is not None:
        assert same_bits(found, expected)
