"""Streams of ONNX models: a causal decoder, whole and piece by piece, and parts of models."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper
from streams.onnx_models import CONV, MODEL, SPEAKER, TWO, W, model, numbers, whole
from streams.pushes import all_of, cuts, piecewise, same_bits

from onnx_graphs import by_onnx_runtime
from tconv.engine.target.target import target
from tconv.errors import UnsupportedError
from tconv.graph import Programs
from tconv.onnx import Stream
from tconv.onnx.front_end import graph_of

pytestmark = pytest.mark.skipif(not target().uses_engine, reason="programs are machine code")

# ---- a decoder -----------------------------------------------------------------------------------

RATES = (8, 5, 4, 2)


def decoder():
    """As EnCodec's: padded on the left, trimmed on the right, with residual blocks."""
    nodes, stored, channels = [], {"right": whole(2)}, 32
    last = "z"

    def add(op, reads, **attributes):
        nonlocal last
        last = f"v{len(nodes)}"
        nodes.append((op, reads, last, attributes))
        return last

    def constant(array):
        name = f"c{len(stored)}"
        stored[name] = array
        return name

    def causal(x, taken, made, kernel, dilation=1):
        pads = constant(whole(0, 0, dilation * (kernel - 1), 0, 0, 0))
        padded = add("Pad", f"{x} {pads}")
        weight = constant(numbers(made, taken, kernel, scale=(taken * kernel) ** -0.5))
        bias = constant(numbers(made, scale=0.1))
        return add("Conv", f"{padded} {weight} {bias}", dilations=[dilation])

    causal("z", 16, channels, 7)
    for stride in RATES:
        x, half = add("Elu", last), channels // 2
        weight = constant(numbers(channels, half, 2 * stride, scale=(2 * channels) ** -0.5))
        up = add("ConvTranspose", f"{x} {weight} {constant(numbers(half))}", strides=[stride])
        start, end = constant(whole(0)), constant(whole(-stride))
        x = add("Slice", f"{up} {start} {end} right")
        inner = causal(add("Elu", x), half, half // 2 or 1, 3, dilation=2)
        inner = causal(add("Elu", inner), half // 2 or 1, half, 1)
        add("Add", f"{inner} {causal(x, half, half, 1)}")
        channels = half
    causal(add("Elu", last), channels, 1, 7)
    nodes.append(("Tanh", last, "y", {}))
    return model(nodes, stored, {"z": (1, 16, "frames")})


DECODER = decoder()


@pytest.fixture(scope="module")
def decoded():
    """Latents, the sound of one call, and a stream."""
    z = np.random.default_rng(0).standard_normal((1, 16, 25), np.float32)
    (expected,) = Programs(graph_of(DECODER), 1, method="direct")([z])
    return z, expected, Stream(DECODER, threads=1)


def test_a_causal_decoder_is_never_behind(decoded):
    z, expected, stream = decoded
    assert (stream.latency, stream.ratio) == (0, 320)
    assert stream.latency_parts == []
    (other,) = by_onnx_runtime(DECODER, {"z": z})
    assert expected.shape == other.shape == (1, 1, 320 * 25)
    assert np.abs(expected - other).max() <= 1e-5 * np.abs(other).max()


@pytest.mark.parametrize("seed", range(20))
def test_a_causal_decoder_gives_the_bits_of_one_call(decoded, seed):
    z, expected, stream = decoded
    rng = np.random.default_rng(seed)
    lengths = [seed] if seed in (1, 25) else rng.integers(0, [3, 6, 12][seed % 3], 60).tolist()
    lengths = [n for n, end in zip(lengths, np.cumsum(lengths), strict=True) if end <= 25]
    stream.reset()
    assert same_bits(all_of(stream, z, [*lengths, 25 - sum(lengths)]), expected)


def test_fixed_lengths_give_the_bits_of_one_call(decoded):
    z, expected, _ = decoded
    stream = Stream(DECODER, threads=1, frames=5)
    y = np.concatenate([stream.push(z[:, :, n : n + 5]) for n in range(0, 25, 5)], 2)
    assert same_bits(y, expected)
    assert stream.flush().shape == (1, 1, 0)


@pytest.mark.parametrize("threads", [2, 3, None])
def test_threads_do_not_count(decoded, threads):
    z, expected, _ = decoded
    assert same_bits(all_of(Stream(DECODER, threads=threads), z, [9, 16]), expected)


# ---- inputs, outputs and constants ---------------------------------------------------------------


def test_a_part_of_a_model():
    x, g = numbers(1, 2, 30), numbers(1, 3, 1)
    (a, b, y) = by_onnx_runtime(_with_outputs(SPEAKER, "a", "b", "y"), {"x": x, "g": g})
    for arguments, source, outputs, expected in [
        ({"constants": {"g": g}}, x, "y", y),
        ({"constants": {"g": g}}, x, ["b"], b),
        ({"constants": {"g": g}, "inputs": "a"}, a, "y", y),
        ({"constants": {"g": g}, "inputs": {"a": (1, 3, None)}}, a, None, y),
        ({"inputs": ["b"]}, b, None, y),
        ({"inputs": "x"}, x, "a", a),
        ({"inputs": ("x",)}, x, ["a"], a),
    ]:
        stream = Stream(SPEAKER, outputs=outputs, **arguments)
        assert np.allclose(all_of(stream, source, [7, 20, 3]), expected, atol=1e-5)
    stream = Stream(SPEAKER, outputs=["y", "a", "y"], constants={"g": g})
    for found, expected in zip(piecewise(stream, [x], [11, 19]), (y, a, y), strict=True):
        assert np.allclose(found, expected, atol=1e-5)


def _with_outputs(proto, *names):
    other = type(proto)()
    other.CopyFrom(proto)
    del other.graph.output[:]
    other.graph.output.extend(helper.make_tensor_value_info(name, 1, None) for name in names)
    return other


@given(st.integers(1, 3), st.integers(0, 40), st.data())
def test_two_inputs_of_a_batch(batch, size, data):
    stream = Stream(TWO, batch=batch, threads=1)
    inputs = [numbers(batch, 2, size), numbers(batch, 3, size)]
    (y,) = piecewise(stream, inputs, data.draw(cuts(size)))
    if size:
        (expected,) = Programs(graph_of(TWO), 1, method="direct")(inputs)
        assert same_bits(y, expected)


@pytest.mark.parametrize(
    ("nodes", "shape"),
    [
        ([CONV], ("b", "c", "t")),
        ([CONV], (1, 2, "t")),
        ([CONV], None),
        ([("ConvTranspose", "x u", "y", {})], ("b", 2, "t")),
        ([("Conv", "x v", "y", {"group": 2})], ("b", "c", "t")),
    ],
)
def test_the_axis_of_time_and_the_channels_are_found(nodes, shape):
    stored = W | {"u": numbers(2, 3, 4), "v": numbers(4, 1, 3)}
    stream = Stream(model(nodes, stored, {"x": shape}), batch=2)
    assert stream.push(np.zeros((2, 2, 0), np.float32)).shape[0] == 2
    assert stream._runner.axis("x") == 2


def test_paths_and_bytes(tmp_path):
    path = tmp_path / "model.onnx"
    path.write_bytes(MODEL.SerializeToString())
    x = numbers(1, 2, 9)
    found = [all_of(Stream(each), x, [9]) for each in (MODEL, path, str(path), path.read_bytes())]
    assert all(same_bits(each, found[0]) for each in found[1:])


def test_a_batch_that_is_not_the_first_axis():
    """One stream may have its axis anywhere, several must be told apart."""
    turned = model(
        [
            ("Conv", "x w", "a", {"pads": [1, 1]}),
            ("Transpose", "a", "b", {"perm": [2, 0, 1]}),
            ("Tanh", "b", "y", {}),
        ],
        W,
    )
    x = numbers(1, 2, 30)
    stream = Stream(turned)
    y = piecewise(stream, [x], [7, 23])[0]
    assert same_bits(y, Programs(graph_of(turned), 1, method="direct")([x])[0])
    message = (
        "value 'y' of shape (26880, 2, 3) does not have the batch as its first axis, so its "
        "streams cannot be told apart; pass batch=1, and make more streams."
    )
    with pytest.raises(UnsupportedError, match=f"^{re.escape(message)}$"):
        Stream(turned, batch=2)


@pytest.mark.parametrize("batch", [1, 3])
@pytest.mark.parametrize("frames", [1, 4])
def test_two_inputs_by_fixed_lengths(batch, frames):
    """Both arrive in pushes of one length; zeros come first, then the results of one call."""
    proto = model(
        [("Conv", "x w", "a", {"pads": [2, 2], "dilations": [2]}), ("Mul", "a z", "y", {})],
        W,
        {"x": (batch, 2, None), "z": (batch, 3, None)},
    )
    stream = Stream(proto, threads=1, batch=batch, frames=frames)
    x, z = numbers(batch, 2, 12), numbers(batch, 3, 12)
    (expected,) = Programs(graph_of(proto), 1, method="direct")([x, z])
    parts = [
        stream.push(x[:, :, n : n + frames], z[:, :, n : n + frames]) for n in range(0, 12, frames)
    ]
    assert {part.shape for part in parts} == {(batch, 3, frames)}
    found = np.concatenate([*parts, stream.flush()], 2)
    assert stream.latency == 2
    assert not found[:, :, :2].any()
    assert same_bits(found[:, :, 2:], expected)
