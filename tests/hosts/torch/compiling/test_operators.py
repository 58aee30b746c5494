"""Operators in regions: each between two convolutions, its results those of PyTorch."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from tconv.torch import report

pytestmark = pytest.mark.usefixtures("forced")
C = 6


class Between(nn.Module):
    """A function of images between two convolutions, with parameters of its own."""

    def __init__(self, function, rank=2, channels=C):
        super().__init__()
        conv = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
        torch.manual_seed(0)
        self.first, self.function = conv(2, channels, 3, padding=1), function
        if isinstance(function, nn.Module):
            self.inner = function
        self.second = conv(channels, 3, 1)

    def forward(self, x):
        return self.second(self.function(self.first(x)))


def found_and_expected(module, *inputs, **options):
    module.eval()
    compiled = torch.compile(module, backend="tconv", **options)
    with torch.no_grad():
        expected, found = module(*inputs), compiled(*inputs)
        again = compiled(*inputs)
    assert found.shape == expected.shape
    assert found.stride() == expected.stride()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=2e-5)
    assert torch.equal(found, again)
    return report(compiled).graphs


def image(rank=2, size=12, batch=2):
    generator = torch.Generator().manual_seed(1)
    return torch.randn(batch, 2, *[size] * rank, generator=generator)


ELEMENTWISE = {
    "relu": F.relu,
    "relu6": F.relu6,
    "leaky_relu": lambda x: F.leaky_relu(x, 0.2),
    "elu": F.elu,
    "selu": F.selu,
    "celu": lambda x: F.celu(x, 0.7),
    "gelu": F.gelu,
    "gelu, tanh": lambda x: F.gelu(x, approximate="tanh"),
    "silu": F.silu,
    "mish": F.mish,
    "softplus": F.softplus,
    "hardswish": F.hardswish,
    "hardsigmoid": F.hardsigmoid,
    "hardtanh": lambda x: F.hardtanh(x, -0.3, 0.4),
    "clamp": lambda x: x.clamp(-0.5, 0.25),
    "clamp from below": lambda x: x.clamp(min=-0.1),
    "sigmoid": torch.sigmoid,
    "tanh": torch.tanh,
    "sin": torch.sin,
    "cos": torch.cos,
    "exp": torch.exp,
    "erf": torch.erf,
    "log": lambda x: torch.log(x.abs() + 0.5),
    "sqrt": lambda x: torch.sqrt(x.abs()),
    "rsqrt": lambda x: torch.rsqrt(x.abs() + 0.5),
    "square": torch.square,
    "power": lambda x: x**3,
    "floor, ceil, round, sign": lambda x: x.floor() + x.ceil() * 2 + x.round() + x.sign(),
    "reciprocal": lambda x: 1 / (x.abs() + 1),
    "numbers": lambda x: 2 - (x * 3 + 1) / 4,
    "with alpha": lambda x: torch.add(x, x.tanh(), alpha=3),
    "rsub": lambda x: torch.rsub(x, x.tanh(), alpha=2),
    "neg, abs": lambda x: -x.abs(),
    "max, min": lambda x: torch.maximum(x, -x) + torch.minimum(x, x * 2),
    "in place": lambda x: x.mul_(2).add_(1).relu_(),
    "snake": lambda x: x + torch.sin(x * 1.5) ** 2 / 1.5,
    "a gate of a channel": lambda x: x * torch.sigmoid(x.mean((2, 3), keepdim=True)),
    "dropout": lambda x: F.dropout(x, 0.5, False),
}


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_elementwise(name):
    (graph,) = found_and_expected(Between(ELEMENTWISE[name]), image())
    assert (len(graph.regions), graph.others) == (1, {})


OTHERS = {
    "prelu": nn.PReLU(C, 0.3),
    "prelu, one slope": nn.PReLU(),
    "glu": lambda x: F.glu(torch.cat([x, x * 2], 1), 1),
    "batch norm": nn.BatchNorm2d(C),
    "batch norm without a scale": nn.BatchNorm2d(C, affine=False),
    "group norm": nn.GroupNorm(3, C),
    "group norm without a scale": nn.GroupNorm(2, C, affine=False),
    "layer norm": nn.LayerNorm([C, 12, 12]),
    "layer norm of rows": nn.LayerNorm(12, bias=False),
    "max pool": nn.MaxPool2d(2),
    "max pool with padding": nn.MaxPool2d(3, 2, 1),
    "max pool to the end": nn.MaxPool2d(3, 2, ceil_mode=True),
    "mean pool": nn.AvgPool2d(2),
    "mean pool with padding": nn.AvgPool2d(3, 2, 1, count_include_pad=False),
    "mean of all": nn.AdaptiveAvgPool2d(1),
    "sums and extremes": lambda x: x.sum(3, keepdim=True) + x.amax(2, keepdim=True) + x.amin(),
    "nearest": lambda x: F.interpolate(x, scale_factor=2),
    "nearest to a size": lambda x: F.interpolate(x, size=36),
    "linear": lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
    "linear to a size": lambda x: F.interpolate(x, size=(18, 17), mode="bilinear"),
    "linear with corners": lambda x: F.interpolate(
        x, scale_factor=2, mode="bilinear", align_corners=True
    ),
    "softmax": lambda x: x.softmax(1),
    "log softmax": lambda x: x.log_softmax(-1),
    "concatenation": lambda x: torch.cat([x[:, :2], x[:, 2:]], 1),
    "stack": lambda x: torch.stack([x, x * 2], 2).sum(2),
    "split": lambda x: sum(x.split(2, 1)).repeat(1, 3, 1, 1),
    "chunk": lambda x: torch.cat(x.chunk(3, 1)[::-1], 1),
    "split by sizes": lambda x: torch.cat(x.split([1, 2, 3], 1)[::-1], 1),
    "select": lambda x: x + x[:, 1:2] + x[:, 2].unsqueeze(1) + x.select(3, -1)[..., None],
    "slice with a step": lambda x: x[:, :, ::2, 1:-1:3],
    "transposed": lambda x: x.transpose(2, 3).permute(0, 1, 3, 2).mT,
    "shapes": lambda x: x.reshape(2, C, -1).view(2, C, 12, 12).unsqueeze(2).squeeze(2),
    "flattened": lambda x: x.flatten(2).unflatten(2, (12, 12)),
    "expanded": lambda x: x.mean(3, keepdim=True).expand(-1, -1, -1, 12),
    "padded": lambda x: F.pad(x, (1, 2, 0, 3), value=0.5),
    "mirrored": lambda x: F.pad(x, (1, 2, 3, 0), mode="reflect"),
    "repeated": lambda x: F.pad(x, (1, 2, 3, 0), mode="replicate"),
    "cropped": lambda x: F.pad(x, (-1, -2, 1, -3)),
    "pixel shuffle": lambda x: F.pixel_shuffle(torch.cat([x] * 4, 1), 2),
    "pixel unshuffle": lambda x: F.pixel_unshuffle(x, 2)[:, 3:9],
}


@pytest.mark.parametrize("name", OTHERS)
def test_others(name):
    function = OTHERS[name]
    if isinstance(function, nn.Module):
        torch.manual_seed(3)
        for parameter in function.parameters():
            nn.init.uniform_(parameter, 0.2, 0.9)
        if isinstance(function, nn.BatchNorm2d):
            function(torch.randn(4, C, 5, 5) * 2 + 1)
    (graph,) = found_and_expected(Between(function), image())
    kept = {"repeat", "interpolate"}  # of PyTorch's: copies, and sizes that are no multiple
    assert kept.issuperset(graph.others)
    assert graph.regions


LAYERS = {
    "transposed": nn.ConvTranspose2d(C, C, 4, 2, 1),
    "transposed, output padding": nn.ConvTranspose2d(C, C, 3, 2, 1, 1, groups=2),
    "transposed, dilated": nn.ConvTranspose2d(C, C, 2, 3, (1, 0), dilation=2, bias=False),
    "strided": nn.Conv2d(C, C, 3, 2, 1),
    "dilated": nn.Conv2d(C, C, (3, 1), padding=(2, 0), dilation=2),
    "same": nn.Conv2d(C, C, (5, 3), padding="same", dilation=(1, 2)),
    "depthwise": nn.Conv2d(C, C, 3, padding=1, groups=C),
    "weight norm": nn.utils.parametrizations.weight_norm(nn.Conv2d(C, C, 3, padding=1)),
    "linear": nn.Sequential(nn.Flatten(2), nn.Linear(144, 144), nn.Unflatten(2, (12, 12))),
}


@pytest.mark.parametrize("name", LAYERS)
def test_layers(name):
    (graph,) = found_and_expected(Between(LAYERS[name]), image())
    assert (len(graph.regions), graph.others) == (1, {})


@pytest.mark.parametrize("rank", [1, 3])
def test_other_ranks(rank):
    norm, pool = ((nn.BatchNorm1d, nn.MaxPool1d), (), (nn.BatchNorm3d, nn.MaxPool3d))[rank - 1]
    up = (nn.ConvTranspose1d, None, nn.ConvTranspose3d)[rank - 1]
    inner = nn.Sequential(norm(C), nn.SiLU(), pool(2), up(C, C, 2, 2), nn.Upsample(scale_factor=2))
    (graph,) = found_and_expected(Between(inner, rank), image(rank, 8))
    assert (len(graph.regions), graph.others) == (1, {})


def test_an_image_at_a_time_is_normalised_as_an_instance():
    inner = nn.InstanceNorm2d(C, affine=True)
    (graph,) = found_and_expected(Between(inner), image(batch=1))
    assert (len(graph.regions), graph.others) == (1, {})


def test_a_matrix_of_parameters_times_an_image():
    class Read(nn.Module):
        def __init__(self):
            super().__init__()
            self.tokens = nn.Parameter(torch.randn(C, C))

        def forward(self, x):
            return torch.einsum("tc,nchw->nthw", self.tokens.tanh(), x)

    (graph,) = found_and_expected(Between(Read()), image(batch=1))
    assert (len(graph.regions), graph.others) == (1, {})


OUTSIDE = {
    "circular": lambda x: F.pad(x, (1, 1, 1, 1), mode="circular"),
    "sort": lambda x: x.sort(2).values,
    "cumulative": lambda x: x.cumsum(3),
    "unpooled": lambda x: F.max_unpool2d(*F.max_pool2d(x, 2, return_indices=True), 2),
    "of another type": lambda x: (x > 0).float() * x,
    "half": lambda x: x.half().float(),
    "double": lambda x: (x.double() * 2).float(),
    "bicubic": lambda x: F.interpolate(x, scale_factor=2, mode="bicubic"),
    "scales that are no integers": lambda x: F.interpolate(x, scale_factor=1.7, mode="bilinear"),
    "nearest by less than 1": lambda x: F.interpolate(x, scale_factor=0.5),
    "a product of two images": lambda x: x @ x.mT,
    "a weight that is computed": lambda x: F.conv2d(x, x[:C, :, :3, :3].repeat(3, 1, 1, 1)),
    "permuted result": lambda x: x.permute(0, 1, 3, 2),
}


@pytest.mark.parametrize("name", OUTSIDE)
def test_what_no_program_has_stays_with_pytorch(name):
    (graph,) = found_and_expected(Between(OUTSIDE[name]), image())
    assert graph.regions
