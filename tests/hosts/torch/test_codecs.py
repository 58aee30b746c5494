"""Decoders of codecs and vocoders: accelerated and compiled, they give what PyTorch gives."""

import copy

import pytest
import torch
from torch import nn

from bench.codecs import CODECS, codec
from tconv.torch import accelerate, report

LAYERS = (nn.Conv1d, nn.ConvTranspose1d)


def small(name):
    """A decoder, and less of its input than the benchmark has."""
    model, x = codec(name)
    return model.eval(), x[:12] if name == "speech" else x[..., :9]


@pytest.mark.usefixtures("predicted")
@pytest.mark.parametrize("name", CODECS)
def test_every_layer_is_taken_and_no_wrapper(name):
    model, x = small(name)
    fast = copy.deepcopy(model)
    found = accelerate(fast)
    layers = [name for name, each in model.named_modules() if isinstance(each, LAYERS)]
    assert (list(found.swapped), found.left) == (layers, {})
    with torch.inference_mode():
        expected = model(x)
        for _ in range(2):
            atol = 1e-5 * expected.abs().max().item()
            torch.testing.assert_close(fast(x), expected, rtol=0, atol=atol)
    assert set(found.computed_by()) == set(layers)


@pytest.mark.parametrize("name", CODECS)
def test_compiled_decoders(name):
    torch._dynamo.reset()
    model, x = small(name)
    fast = torch.compile(model, backend="tconv")
    with torch.inference_mode():
        expected = model(x)
        for _ in range(2):
            atol = 1e-5 * expected.abs().max().item()
            torch.testing.assert_close(fast(x), expected, rtol=0, atol=atol)
    assert report(fast).graphs
    torch._dynamo.reset()
