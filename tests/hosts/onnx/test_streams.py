"""A published decoder frame by frame: the bits of one call, and the sound of ONNX Runtime."""

import numpy as np
import onnxruntime
import pytest
from streams.pushes import all_of, same_bits

from bench.networks import path_of
from tconv.graph import Programs
from tconv.onnx import Stream
from tconv.onnx.model_part import model_of_part, open_model, part_of_model

LATENTS, SOUND, FRAMES = "/Mul_7_output_0", "/dec/Tanh_output_0", 60
"""Piper's decoder: 20 Conv, 3 ConvTranspose, and residual blocks of three delays side by side."""


@pytest.fixture(scope="module")
def piper():
    """The model, latents, the sound of one call, and a stream."""
    model = open_model(path_of("piper"))
    z = np.random.default_rng(0).standard_normal((1, 192, FRAMES), np.float32)
    graph = part_of_model(model, [LATENTS], [SOUND], {})
    (expected,) = Programs(graph, 1, method="direct")([z])
    return model, z, expected, Stream(model, inputs=LATENTS, outputs=SOUND, threads=1)


def test_one_call_gives_the_sound_of_onnx_runtime(piper):
    model, z, expected, _ = piper
    part = model_of_part(model, {LATENTS: (1, 192, "frames")}, [SOUND], {})
    assert [node.op_type for node in part.graph.node].count("ConvTranspose") == 3
    session = onnxruntime.InferenceSession(
        part.SerializeToString(), providers=["CPUExecutionProvider"]
    )
    (other,) = session.run(None, {LATENTS: z})
    assert expected.shape == other.shape == (1, 1, 256 * FRAMES)
    assert np.abs(expected - other).max() <= 1e-5 * np.abs(other).max()


def test_it_lags_as_the_formula_says(piper):
    """By 117.1 ms: the first sound comes after 11 frames."""
    _, z, _, stream = piper
    assert (stream.latency, stream.ratio) == (2582, 256)
    assert sum(cells for _, cells in stream.latency_parts) == 2582
    stream.reset()
    sizes = [stream.push(z[:, :, n : n + 1]).shape[2] for n in range(12)]
    assert sizes == [0] * 10 + [11 * 256 - 2582, 256]


@pytest.mark.parametrize("seed", range(20))
def test_any_pushes_give_the_bits_of_one_call(piper, seed):
    _, z, expected, stream = piper
    rng, before = np.random.default_rng(seed), stream.state_bytes
    fixed = {0: [FRAMES], 1: [1] * FRAMES, 2: [4] * (FRAMES // 4), 3: [16, 16, 16]}
    lengths = fixed.get(seed, rng.integers(0, 1 + 3 * seed, FRAMES).tolist())
    lengths = [n for n, end in zip(lengths, np.cumsum(lengths), strict=True) if end <= FRAMES]
    stream.reset()
    assert same_bits(all_of(stream, z, [*lengths, FRAMES - sum(lengths)]), expected)
    assert stream.state_bytes == before
    assert len(stream._runner.lengths.all) <= 8


def test_a_batch_of_streams_that_begin_at_other_times(piper):
    model, z, expected, _ = piper
    both = Stream(model, inputs={LATENTS: (2, 192, None)}, outputs=SOUND, batch=2, threads=2)
    parts = [[], []]
    for n in range(0, 24, 4):
        x = np.zeros((2, 192, 4), np.float32)
        x[0] = z[0, :, n : n + 4]
        x[1] = z[0, :, n - 8 : n - 4] if n >= 8 else 0
        y = both.push(x, active=np.array([True, n >= 8]))
        for b in range(2):
            parts[b].append(y[b : b + 1, :, : both.counts[b]])
    for found in parts:
        sound = np.concatenate(found, 2)
        assert sound.shape[2] > 0
        assert same_bits(sound, expected[:, :, : sound.shape[2]])
