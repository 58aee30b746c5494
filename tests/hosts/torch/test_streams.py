"""Streams of PyTorch's modules: the numbers of the whole, exported once for all lengths."""

import warnings

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

import tconv.torch
from tconv.errors import DTypeError, ParameterError, ShapeError, UnsupportedError


class Vocoder(nn.Module):
    """A generator as HiFi-GAN has them, with weights under both kinds of weight norm."""

    def __init__(self):
        super().__init__()
        new = nn.utils.parametrizations.weight_norm
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", FutureWarning)  # the older one is still in use
            self.before = nn.utils.weight_norm(nn.Conv1d(8, 12, 7, padding=3))
        self.up = new(nn.ConvTranspose1d(12, 6, 8, 4, 2))
        self.block = nn.Conv1d(6, 6, 3, padding=3, dilation=3)
        self.after = nn.Conv1d(6, 1, 7, padding=3)

    def forward(self, x):
        x = self.up(F.leaky_relu(self.before(x), 0.1))
        x = x + self.block(F.leaky_relu(x, 0.1))
        return torch.tanh(self.after(x))


class Causal(nn.Module):
    """Padding before, and results cut off at the end by a number that follows from the length."""

    def __init__(self):
        super().__init__()
        self.conv = nn.Conv1d(4, 6, 5, dilation=2)
        self.up = nn.ConvTranspose1d(6, 2, 6, 3)

    def forward(self, x):
        y = self.up(F.elu(self.conv(F.pad(x, (8, 0)))))
        return y[..., : y.shape[-1] - 3]


class Snake(nn.Module):
    """An activation that flattens its input, as DAC has it."""

    def __init__(self, channels):
        super().__init__()
        self.alpha = nn.Parameter(torch.rand(1, channels, 1) + 0.5)

    def forward(self, x):
        shape = x.shape
        x = x.reshape(shape[0], shape[1], -1)
        x = x + (self.alpha + 1e-9).reciprocal() * torch.sin(self.alpha * x).pow(2)
        return x.reshape(shape)


class TwoInputs(nn.Module):
    """Joins two inputs of the same rate."""

    def __init__(self):
        super().__init__()
        self.first, self.second = nn.Conv1d(2, 3, 5, padding=2), nn.Conv1d(1, 3, 1)

    def forward(self, x, pitch):
        return self.first(x) * torch.sigmoid(self.second(pitch))


def _pieces(stream, *x, seed=0):
    rng, count, start, found = np.random.default_rng(seed), x[0].shape[-1], 0, []
    while start < count:
        stop = min(start + int(rng.integers(0, 9)), count)
        found.append(stream.push(*[each[..., start:stop] for each in x]))
        start = stop
    return torch.cat([*found, stream.flush()], -1)


@pytest.mark.parametrize(
    ("module", "channels", "latency"),
    [
        (Vocoder(), 8, 20),
        (Causal(), 4, 0),
        (nn.Sequential(nn.Conv1d(3, 4, 4, 2, 1), Snake(4), nn.ConvTranspose1d(4, 2, 4, 2, 1)),
         3, 3),
        (nn.Sequential(nn.Conv1d(3, 4, 3), nn.BatchNorm1d(4), nn.PReLU(4)), 3, 2),
    ],
)  # fmt: skip
@pytest.mark.parametrize("batch", [1, 3])
def test_pieces_are_the_whole(module, channels, latency, batch):
    torch.manual_seed(0)
    module = module.train()
    stream = tconv.torch.stream(module, torch.randn(batch, channels, 24), threads=1)
    assert module.training
    assert all(each.training for each in module.modules())
    assert stream.latency == latency
    for count in (1, 7, 40, 130):
        x = torch.randn(batch, channels, count)
        stream.reset()
        with torch.no_grad():
            try:
                whole = module.eval()(x)
            except RuntimeError:  # too short for PyTorch
                whole = None
        found = _pieces(stream, x, seed=count)
        assert isinstance(found, torch.Tensor)
        if whole is not None:
            torch.testing.assert_close(found, whole, rtol=1e-5, atol=1e-5)


def test_several_inputs_are_pushed_together():
    module, x, pitch = TwoInputs(), torch.randn(1, 2, 30), torch.randn(1, 1, 30)
    stream = tconv.torch.stream(module, (x, pitch), threads=1)
    with torch.no_grad():
        torch.testing.assert_close(_pieces(stream, x, pitch), module(x, pitch))
    with pytest.raises(ParameterError, match="takes 2 arrays"):
        stream.push(x)


def test_tensors_that_require_gradients_may_be_pushed():
    module = nn.Conv1d(1, 1, 3, padding=1)
    stream = tconv.torch.stream(module, torch.randn(1, 1, 9), threads=1)
    assert not stream.push(torch.ones(1, 1, 4, requires_grad=True)).requires_grad


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.GroupNorm(2, 4)), "native_group_norm"),
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.AdaptiveAvgPool1d(1)), "mean|adaptive"),
        (nn.Sequential(nn.ReflectionPad1d(2), nn.Conv1d(2, 4, 3)), "reflect"),
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.Softmax(2)), "softmax.*over time"),
        (nn.Sequential(nn.Conv1d(2, 4, 3), nn.Upsample(scale_factor=2, mode="linear")), "length"),
    ],
)
def test_what_needs_all_of_time_is_named(module, words):
    with pytest.raises(UnsupportedError, match=f"(?is){words}"):
        tconv.torch.stream(module, torch.randn(1, 2, 16), threads=1)


def test_bad_examples():
    module = nn.Conv1d(2, 2, 3)
    with pytest.raises(DTypeError, match="float32"):
        tconv.torch.stream(module.double(), torch.randn(1, 2, 9).double())
    module = module.float()
    with pytest.raises(ParameterError, match="must be tensors"):
        tconv.torch.stream(module, (np.ones((1, 2, 9), np.float32),))
    with pytest.raises(ShapeError, match="after the first"):
        tconv.torch.stream(module, torch.randn(1, 2, 9), axis=0)
    with pytest.raises(ParameterError, match=r"torch.nn.Module"):
        tconv.torch.stream(lambda x: x, torch.randn(1, 2, 9))
    with pytest.raises(UnsupportedError, match=r"torch\.export cannot export"):
        tconv.torch.stream(module, torch.randn(1, 5, 9))
