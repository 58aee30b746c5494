"""Random networks, compiled: forward and, where gradients are on, backward as PyTorch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn import functional as F

from tconv.torch import report

pytestmark = pytest.mark.usefixtures("forced")
ACTIVATIONS = (nn.ReLU(), nn.ReLU(inplace=True), nn.SiLU(), nn.LeakyReLU(0.1), nn.GELU(), nn.Tanh())


class Network(nn.Module):
    """Layers, each of which reads one or two of the values before it."""

    def __init__(self, seed, rank, layers, channels):
        super().__init__()
        torch.manual_seed(seed)
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
        norm = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1]
        self.rank, self.plan, self.parts = rank, layers, nn.ModuleList()
        for kind, *_ in layers:
            self.parts.append(
                {
                    "conv": lambda: conv(channels, channels, 3, padding=1),
                    "one tap": lambda: conv(channels, channels, 1, bias=False),
                    "depthwise": lambda: conv(channels, channels, 3, padding=1, groups=channels),
                    "norm": lambda: norm(channels),
                    "weight norm": lambda: nn.utils.parametrizations.weight_norm(
                        conv(channels, channels, 3, padding=2, dilation=2)
                    ),
                }.get(kind, nn.Identity)()
            )

    def forward(self, x):
        values = [x]
        for part, (kind, first, second) in zip(self.parts, self.plan, strict=True):
            a, b = values[first % len(values)], values[second % len(values)]
            values.append(self.value(part, kind, a, b, second))
        found = values[-1]
        return (found, values[len(values) // 2] + found.mean(1, keepdim=True))

    def value(self, part, kind, a, b, second):
        if kind == "sum":
            return a + b
        if kind == "product":
            return a * torch.sigmoid(b)
        if kind == "in place":
            return a.clone().mul_(0.5).add_(b)
        if kind == "activation":
            return ACTIVATIONS[second % len(ACTIVATIONS)](a.clone())
        if kind == "halves":
            left, right = a.chunk(2, 1)
            return torch.cat([right, left], 1)
        if kind == "there and back":
            small = (F.max_pool1d, F.max_pool2d, F.max_pool3d)[self.rank - 1](a, 2)
            return F.interpolate(small, scale_factor=2) + b
        if kind == "outside":
            return a.sort(1).values
        if kind == "view":
            return a.flatten(1).view(a.shape) - b.mean()
        return part(a)


KINDS = (
    *("conv", "conv", "one tap", "depthwise", "weight norm", "norm", "sum", "product", "in place"),
    *("activation", "activation", "halves", "there and back", "outside", "view"),
)
layers = st.lists(
    st.tuples(st.sampled_from(KINDS), st.integers(0, 9), st.integers(0, 9)), min_size=2, max_size=9
)


@settings(max_examples=settings.default.max_examples * 4 // 5)
@given(
    st.integers(0, 99), st.integers(1, 3), layers, st.sampled_from([2, 4]), st.booleans(),
    st.sampled_from([torch.float32, torch.float32, torch.float64]),
)  # fmt: skip
def test_a_random_network_gives_what_pytorch_gives(seed, rank, plan, channels, learns, dtype):
    torch._dynamo.reset()
    model = Network(seed, rank, [("conv", 0, 0), *plan], channels).to(dtype)
    close = 1e-4 if dtype is torch.float32 else 1e-10
    compiled = torch.compile(model, backend="tconv")
    for size in (8, 12):
        x = torch.randn(2, channels, *[size] * rank, dtype=dtype)
        model(x)  # running statistics
        model.eval()
        with torch.no_grad():
            expected = model(x)
            found = compiled(x)
        for each, other in zip(found, expected, strict=True):
            assert each.stride() == other.stride()
            torch.testing.assert_close(each, other, rtol=close, atol=close)
    if learns:
        gradients = []
        for each in (model, compiled):
            y, z = each(x.requires_grad_())
            found = torch.autograd.grad(y.square().sum() + z.sum(), [x, *model.parameters()],
                                        allow_unused=True)  # fmt: skip
            gradients.append([each for each in found if each is not None])
        for pair in zip(*gradients, strict=True):
            torch.testing.assert_close(*pair, rtol=10 * close, atol=10 * close)
    assert "convolution" not in report(compiled).graphs[0].others
