"""Pretrained decoders: a session's outputs against ONNX Runtime's."""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest

from tconv.onnx import Session, compare

DATA = Path(__file__).parents[3] / ".data"  # fetched by `make test-hosts`
DETECTOR = DATA / "rapidocr/rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx"
DECODER = DATA / "deepfilternet/erb_dec.onnx"


def noise(shape):
    rng = np.random.default_rng(sum(shape))
    return rng.standard_normal(shape).astype(np.float32)


def by_onnx_runtime(path, feeds):
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    return session.run(None, feeds)


def detector_feeds(size):
    return {"x": noise((1, 3, *size))}


def decoder_feeds(frames):
    """Bands are halved twice on the way down, 32 -> 16 -> 8; every level has 64 channels."""
    session = onnxruntime.InferenceSession(DECODER, providers=["CPUExecutionProvider"])
    sizes = {"S": frames}
    return {
        each.name: noise(
            tuple(size if isinstance(size, int) else sizes[size] for size in each.shape)
        )
        for each in session.get_inputs()
    }


CASES = [
    *((DETECTOR, detector_feeds, size) for size in [(32, 32), (384, 192), (96, 480)]),
    *((DECODER, decoder_feeds, frames) for frames in (1, 7, 100)),
]


@pytest.mark.parametrize(
    ("path", "make_feeds", "size"), CASES, ids=[f"{path.stem} {size}" for path, _, size in CASES]
)
def test_a_pretrained_decoder_gives_what_onnx_runtime_gives(path, make_feeds, size):
    session, feeds = Session(path, force=True), make_feeds(size)
    found, expected = session.run(None, feeds), by_onnx_runtime(path, feeds)
    assert [node.computed_by for node in session.report().nodes] == ["tconv", "tconv"]
    for y, other in zip(found, expected, strict=True):
        np.testing.assert_allclose(y, other, rtol=0, atol=1e-5)


@pytest.mark.parametrize(("path", "make_feeds", "size"), CASES[1::3], ids=["detector", "decoder"])
def test_a_comparison_says_so(path, make_feeds, size):
    both = compare(path, make_feeds(size), force=True, seconds=0.1)
    assert both.largest_difference < 1e-5
    assert [node.computed_by for node in both.nodes] == ["tconv", "tconv"]
    assert all(node.difference < 1e-5 * max(1, node.largest) for node in both.nodes)
