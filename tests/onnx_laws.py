"""Laws of sessions: outputs and refusals as ONNX Runtime's, for any model that is drawn."""

from dataclasses import replace

import numpy as np

from onnx_graphs import by_onnx_runtime, explicit, in_float32
from strategies import same_numbers
from tconv.errors import TConvError
from tconv.onnx import Session

__all__ = ["assert_as_onnx_runtime", "assert_same_results", "attempt"]

STRICTER = {
    "output_padding from stride on",
    "negative pads",
    "output_shape",
    "Conv SAME with dilations",
    *("auto_pad SAME_UPPER", "auto_pad SAME_LOWER"),
}
"""Where ONNX Runtime may refuse what tconv computes. It takes no output_padding from stride up to
dilation, which the specification allows. And where it knows sizes in advance, it refuses negative
pads, and expects wrong sizes of some output_shape and SAME, for which it refuses its own results.
It has no SAME with dilations in a Conv, which tconv computes in float64.
"""


def attempt(run):
    """What it gives and None, or None and what it raises."""
    try:
        return run(), None
    except TConvError as error:
        return None, error


def attempt_by_onnx_runtime(model, feeds):
    try:
        return by_onnx_runtime(model, feeds), None
    except Exception as error:  # there is no class for all that ONNX Runtime raises
        return None, error


def assert_same_results(found, expected, *, exactly):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        if exactly:
            assert same_numbers(a, b)
        else:
            np.testing.assert_allclose(
                a, b, rtol=1e-5, atol=1e-5 * max(1, np.abs(b).max(initial=0))
            )


def assert_as_onnx_runtime(drawn, force, threads):
    plain, is_wide = drawn, "float64" in drawn.features
    if is_wide:  # of which ONNX Runtime has neither Conv nor ConvTranspose
        model, feeds = in_float32(drawn.model, drawn.feeds)
        plain = replace(drawn, model=model, feeds=feeds)
    expected, refusal = attempt_by_onnx_runtime(plain.model, plain.feeds)
    found, error = attempt(
        lambda: Session(drawn.model, force=force, threads=threads).run(None, drawn.feeds)
    )
    if refusal and error:
        return
    assert error is None
    if refusal:
        assert drawn.features & STRICTER, refusal
        expected = by_onnx_runtime(*explicit(plain))
    if is_wide:
        expected = [value.astype(np.float64) for value in expected]
    assert_same_results(found, expected, exactly=drawn.exact)
