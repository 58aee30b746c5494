"""PyTorch modules of published decoders, with random weights.

A decoder is made from the width of its layers, so that tests can make narrow ones. The layers
around the transposed convolutions are as published, because the gain end to end depends on them.
"""

from collections.abc import Callable
from itertools import pairwise
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.utils.parametrizations import weight_norm

__all__ = ["DECODERS", "Decoder", "made"]


class Residual(nn.Module):
    """Three pairs of convolutions, one of them dilated, each with a skip connection (HiFi-GAN)."""

    def __init__(self, channels: int, kernel: int) -> None:
        super().__init__()

        def conv(dilation: int) -> nn.Module:
            padding = dilation * (kernel - 1) // 2
            return weight_norm(
                nn.Conv1d(channels, channels, kernel, padding=padding, dilation=dilation)
            )

        self.first = nn.ModuleList(conv(dilation) for dilation in (1, 3, 5))
        self.second = nn.ModuleList(conv(1) for _ in range(3))

    def forward(self, x: Tensor) -> Tensor:
        for first, second in zip(self.first, self.second, strict=True):
            x = x + second(functional.leaky_relu(first(functional.leaky_relu(x, 0.1)), 0.1))
        return x


class HiFiGAN(nn.Module):
    """Generator V1: a spectrogram of 80 bands becomes 256 samples per frame."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.before = weight_norm(nn.Conv1d(80, channels, 7, padding=3))
        self.ups, self.blocks = nn.ModuleList(), nn.ModuleList()
        for kernel, stride in ((16, 8), (16, 8), (4, 2), (4, 2)):
            up = nn.ConvTranspose1d(
                channels, channels // 2, kernel, stride, padding=(kernel - stride) // 2
            )
            channels //= 2
            self.ups.append(weight_norm(up))
            self.blocks.append(nn.ModuleList(Residual(channels, size) for size in (3, 7, 11)))
        self.after = weight_norm(nn.Conv1d(channels, 1, 7, padding=3))

    def forward(self, x: Tensor) -> Tensor:
        x = self.before(x)
        for up, blocks in zip(self.ups, self.blocks, strict=True):
            x = up(functional.leaky_relu(x, 0.1))
            x = sum(block(x) for block in blocks) / len(blocks)
        return torch.tanh(self.after(functional.leaky_relu(x)))


class UNet(nn.Module):
    """A U-Net of two or three axes: an encoder, a decoder and skip connections."""

    def __init__(self, rank: int, given: int, channels: int, levels: int, found: int) -> None:
        super().__init__()
        conv = getattr(nn, f"Conv{rank}d")
        up = getattr(nn, f"ConvTranspose{rank}d")
        norm = getattr(nn, f"BatchNorm{rank}d")
        self.pool = getattr(nn, f"MaxPool{rank}d")(2)

        def twice(a: int, b: int) -> nn.Module:
            one = [conv(a, b, 3, padding=1), norm(b), nn.ReLU()]
            return nn.Sequential(*one, conv(b, b, 3, padding=1), norm(b), nn.ReLU())

        widths = [channels * 2**n for n in range(levels + 1)]
        self.down = nn.ModuleList(map(twice, [given, *widths], widths))
        pairs = [*zip(widths[1:], widths[:-1], strict=True)][::-1]
        self.ups = nn.ModuleList(up(wide, narrow, 2, stride=2) for wide, narrow in pairs)
        self.merge = nn.ModuleList(twice(wide, narrow) for wide, narrow in pairs)
        self.last = conv(channels, found, 1)

    def forward(self, x: Tensor) -> Tensor:
        seen = [x := self.down[0](x)]
        for down in self.down[1:]:
            seen.append(x := down(self.pool(x)))
        x = seen.pop()
        for up, merge in zip(self.ups, self.merge, strict=True):
            x = merge(torch.cat([seen.pop(), up(x)], 1))
        return self.last(x)


def dcgan(channels: int) -> nn.Module:
    """A picture of 64 x 64 from 100 numbers, by transposed convolutions only."""
    layers: list[nn.Module] = []
    widths = (100, channels * 8, channels * 4, channels * 2, channels)
    for n, (a, b) in enumerate(pairwise(widths)):
        up = nn.ConvTranspose2d(a, b, 4, 2 if n else 1, 1 if n else 0, bias=False)
        layers += [up, nn.BatchNorm2d(b), nn.ReLU()]
    return nn.Sequential(*layers, nn.ConvTranspose2d(channels, 3, 4, 2, 1, bias=False), nn.Tanh())


class LayerNorm2d(nn.Module):
    """Layer normalisation over the channels of each cell."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.ones(channels))
        self.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor) -> Tensor:
        mean = x.mean(1, keepdim=True)
        x = (x - mean) / torch.sqrt(((x - mean) ** 2).mean(1, keepdim=True) + 1e-6)
        return self.weight[:, None, None] * x + self.bias[:, None, None]


class MaskHead(nn.Module):
    """The end of SAM's mask decoder: an embedding grown fourfold, and masks read off by tokens."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.grow = nn.Sequential(
            nn.ConvTranspose2d(channels, channels // 4, 2, stride=2),
            LayerNorm2d(channels // 4),
            nn.GELU(),
            nn.ConvTranspose2d(channels // 4, channels // 8, 2, stride=2),
            nn.GELU(),
        )
        self.tokens = nn.Parameter(torch.randn(4, channels))
        self.readers = nn.ModuleList(
            nn.Sequential(
                nn.Linear(channels, channels), nn.ReLU(),
                nn.Linear(channels, channels), nn.ReLU(),
                nn.Linear(channels, channels // 8),
            )
            for _ in range(4)
        )  # fmt: skip

    def forward(self, x: Tensor) -> Tensor:
        read = [reader(token) for reader, token in zip(self.readers, self.tokens, strict=True)]
        return torch.einsum("tc,nchw->nthw", torch.stack(read), self.grow(x))


class Decoder(NamedTuple):
    """A model: its title, a function of its width that makes it, its width and its input shape."""

    title: str
    make: Callable[[int], nn.Module]
    width: int
    shape: tuple[int, ...]


DECODERS = {
    "hifigan": Decoder("HiFi-GAN V1 generator, 32 frames", HiFiGAN, 512, (1, 80, 32)),
    "unet": Decoder("U-Net, 128 x 128", lambda w: UNet(2, 3, w, 4, 2), 32, (1, 3, 128, 128)),
    "dcgan": Decoder("DCGAN generator, batch 16", dcgan, 64, (16, 100, 1, 1)),
    "unet3d": Decoder(
        "3-D U-Net, 32 x 32 x 32", lambda w: UNet(3, 1, w, 3, 3), 16, (1, 1, *[32] * 3)
    ),
    "masks": Decoder("SAM's mask decoder head", MaskHead, 256, (1, 256, 64, 64)),
}
"""Kong 2020 (arXiv:2010.05646), Ronneberger 2015 (1505.04597), Radford 2015 (1511.06434), Çiçek
2016 (1606.06650), Kirillov 2023 (2304.02643)."""


def made(
    name: str, dtype: Any = torch.float32, width: int | None = None
) -> tuple[nn.Module, Tensor]:
    """A model and its input, the same each time, with other widths of layers if `width` says so."""
    decoder = DECODERS[name]
    width = width or decoder.width
    torch.manual_seed(0)
    model = decoder.make(width)
    shape = [*decoder.shape]
    if name == "masks":
        shape[1] = width
    return model.to(dtype), torch.randn(shape).to(dtype)
