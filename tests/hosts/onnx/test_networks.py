"""Published networks: a session's outputs against ONNX Runtime's, whoever computes."""

from functools import cache

import numpy as np
import onnxruntime
import pytest
import torch

from bench import pupils
from bench.networks import DATA, NETWORKS, feed_of, path_of, plain_session
from exact_networks import exact_outputs
from tconv.onnx import Session

SIZES = {
    "piper": [(7,), (25,), (16,)],
    "ppocr5": [(320, 480), (64, 96)],
    "ppocr4": [(320, 480), (64, 96)],
    "pupils": [(100, 132), (148, 148), (4, 4)],
    "spindles": [(1,), (2,)],
    "unet3d": [(16, 32, 24), (8, 40, 16), (16, 32, 24)],
    "gtcrn": [()],
    "erb1": [(1,), (2,), (100,)],
}
"""Of each network, in this order; where sizes are dynamic they change within one session."""

NEAR = 1e-5
"""Of the largest value: how far from ONNX Runtime's answer."""
AMPLIFYING = ("piper", "ppocr5", "ppocr4")
"""They amplify rounding: ONNX Runtime's own answer is 1e-5 to 3e-4 from that of float64."""
TIMES = 3.0
"""Ours may be so many times as far from the answer of float64 as ONNX Runtime's, in those."""

LAYERS = {
    "piper": 3,
    "ppocr5": 2,
    "ppocr4": 2,
    "pupils": 2,
    "spindles": 4,
    "unet3d": 3,
    "gtcrn": 11,
    "erb1": 2,
}


@cache
def alone(name):
    return plain_session(name, 2)


def apart(found, expected):
    """The largest difference, of the largest value, of the output that is furthest off."""
    for y, other in zip(found, expected, strict=True):
        assert (y.shape, y.dtype) == (other.shape, other.dtype)
        assert np.isfinite(y).all()
    return max(
        np.abs(y - other).max() / np.abs(other).max()
        for y, other in zip(found, expected, strict=True)
    )


def assert_as_exact(name, feed, found, expected):
    if name not in AMPLIFYING:
        assert apart(found, expected) <= NEAR
        return
    exact = [each.astype(np.float32) for each in exact_outputs(path_of(name), feed)]
    assert apart(found, exact) <= max(NEAR, TIMES * apart(expected, exact))


def same_bits(found, expected):
    return all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


@pytest.mark.parametrize("force", [False, True], ids=["default", "forced"])
@pytest.mark.parametrize("name", SIZES)
def test_a_network_gives_what_onnx_runtime_gives_each_time(name, force):
    session, first = Session(path_of(name), threads=2, force=force), []
    for sizes in SIZES[name]:
        feed = feed_of(name, *sizes)
        first.append(session.run(None, feed))
        assert_as_exact(name, feed, first[-1], alone(name).run(None, feed))
        assert same_bits(session.run(None, feed), first[-1])
    for sizes, found in zip(SIZES[name], first, strict=True):  # sizes that it had before
        assert same_bits(session.run(None, feed_of(name, *sizes)), found)
    if force:
        assert [node.computed_by for node in session.report().nodes] == ["tconv"] * LAYERS[name]


@pytest.mark.parametrize("force", [False, True], ids=["default", "forced"])
def test_frame_by_frame_a_stream_stays_together(force):
    session, both = Session(path_of("gtcrn"), threads=2, force=force), {}
    noise = np.random.default_rng(1).standard_normal((12, 1, 257, 1, 2), np.float32)
    for one in (session, alone("gtcrn")):
        caches = {name: array * 0 for name, array in feed_of("gtcrn").items() if name != "mix"}
        frames = []
        for mix in noise:
            found, *after = one.run(None, {"mix": mix, **caches})
            caches = dict(zip(caches, after, strict=True))
            frames.append(found)
        both[one] = frames
    assert apart(both[session], both[alone("gtcrn")]) <= NEAR


@pytest.mark.parametrize("name", NETWORKS)
def test_what_is_measured_is_a_network_that_gives_one_answer(name):
    feed, session = feed_of(name), alone(name)
    for each in session.get_inputs():
        assert feed[each.name].ndim == len(each.shape)
    first, second = (session.run(None, feed) for _ in range(2))
    assert same_bits(first, second)
    assert max(np.abs(y).max() for y in first) > 1e-3  # else the differences are of nothing


@pytest.mark.parametrize("size", [(148, 148), (52, 96)])
def test_the_pupils_network_is_that_of_pytorch(size):
    feed = feed_of("pupils", *size)
    with torch.no_grad():
        expected = pupils.network(DATA / "pupils")(torch.from_numpy(feed["x"])).numpy()
    assert apart(alone("pupils").run(None, feed), [expected]) <= NEAR


def test_a_missing_file_is_told(monkeypatch, tmp_path):
    monkeypatch.setattr("bench.networks.DATA", tmp_path)
    with pytest.raises(FileNotFoundError, match=r"erb_dec\.onnx is missing: `make bench-networks`"):
        path_of("erb1")


def test_onnx_runtime_alone_has_the_threads_that_it_is_given():
    for threads in (1, 2):
        options = plain_session("erb1", threads).get_session_options()
        assert options.intra_op_num_threads == threads
    assert alone("erb1").get_providers() == ["CPUExecutionProvider"]
    assert isinstance(alone("erb1"), onnxruntime.InferenceSession)
