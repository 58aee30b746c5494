"""Streams of layers: bit by bit what the whole input gives, whatever the pushes."""

from hypothesis import given
from hypothesis import strategies as st
from processes import run_script
from streams.drawn_layers import convolutions, directly_or_none, noise, sequences
from streams.pushes import LENGTHS, all_of, cuts, in_runs, same_bits

import tconv
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


def test_a_result_beyond_the_last_cell_is_its_bias():
    """Of a value that is not zero there."""
    net = tconv.Sequential(
        tconv.Conv1d(1, 1, 3, padding=1, rng=0),
        tconv.ConvTranspose1d(1, 1, 1, dilation=2, output_padding=1, rng=1),
    )
    x = noise((1, 1, 7), "float32", 0)
    assert same_bits(all_of(net.stream(), x, [3, 4]), directly_or_none(net, x))


def test_without_machine_code_up_to_rounding(monkeypatch):
    monkeypatch.setenv("TCONV_CPU", "portable")
    run_script(
        "import numpy as np, tconv\n"
        "rng = np.random.default_rng(0)\n"
        "for n in range(40):\n"
        "    kind = (tconv.Conv1d, tconv.ConvTranspose1d)[n % 2]\n"
        "    dtype = ('float32', 'float64', 'float16')[n % 3]\n"
        "    kernel = 1 + n % 7\n"
        "    layer = kind(2, 3, kernel, stride=1 + n % 4, padding=n % kernel, dtype=dtype, rng=n)\n"
        "    x = rng.standard_normal((2, 2, 20)).astype(dtype)\n"
        "    stream = layer.stream(2)\n"
        "    parts = [stream.push(x[:, :, :7]), stream.push(x[:, :, 7:]), stream.flush()]\n"
        "    found, expected = np.concatenate(parts, 2), layer.predict(x)\n"
        "    assert found.shape == expected.shape\n"
        "    assert np.allclose(found, expected, 0, 1e-2 if dtype == 'float16' else 1e-5)\n"
    )


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
