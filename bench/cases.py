"""Layers that are measured: those of published networks, and others drawn at random.

FLOPs count a multiplication and an addition per input cell, tap and channel pair:
``2 * N * C * (M / G) * prod(I) * prod(K)``; inserted zeros are no work.
"""

from collections.abc import Callable
from itertools import pairwise
from math import prod
from random import Random
from typing import Any, NamedTuple

from tconv import Geometry
from tconv.geometry.geometry import Letter


class Case(NamedTuple):
    """One layer: sizes as in shapes, then stride, padding, output_padding, dilation and groups."""

    name: str
    N: int
    C: int
    M: int
    I: tuple[int, ...]
    K: int
    s: int
    p: int
    a: int
    d: int
    G: int
    source: str

    @property
    def keywords(self) -> dict[str, Any]:
        """The keywords of the call, which PyTorch and tconv share."""
        return {
            "stride": self.s,
            "padding": self.p,
            "output_padding": self.a,
            "dilation": self.d,
            "groups": self.G,
        }

    @property
    def keywords_of_conv(self) -> dict[str, Any]:
        """The keywords of the convolution that gives x; the size of x says the rest."""
        return {n: value for n, value in self.keywords.items() if n != "output_padding"}

    @property
    def x_shape(self) -> tuple[int, ...]:
        """Shape of x."""
        return (self.N, self.C, *self.I)

    @property
    def weight_shape(self) -> tuple[int, ...]:
        """Shape of the weight."""
        return (self.C, self.M // self.G, *[self.K] * len(self.I))

    @property
    def geometry(self) -> Geometry:
        """All sizes of the call."""
        return Geometry.of(self.x_shape, self.weight_shape, **self.keywords)

    def products(self, letter: Letter) -> int:
        """How many products a number of x, w or y is the sum of, in the mean."""
        geometry = self.geometry
        return geometry.flops // (2 * prod(geometry.shape_of(letter)))

    @property
    def family(self) -> str:
        """The first family that the case belongs to, over which means are taken."""
        return next(name for name, belongs in FAMILIES.items() if belongs(self))

    def __str__(self) -> str:
        """Show the sizes on one line, and other settings where they are not the default."""
        sizes = "×".join(map(str, self.x_shape))
        unusual = {"a": self.a, "d": self.d - 1 and self.d, "g": self.G - 1 and self.G}
        extras = "".join(f" {name}{value}" for name, value in unusual.items() if value)
        return f"{sizes} → {self.M}, k{self.K} s{self.s} p{self.p}{extras}"


FAMILIES: dict[str, Callable[[Case], bool]] = {
    "depthwise": lambda case: case.C == case.G > 1,
    "1-D": lambda case: len(case.I) == 1,
    "3-D": lambda case: len(case.I) == 3,
    "few output channels": lambda case: case.M // case.G <= 4,
    "k = s": lambda case: case.K - case.s == 0,
    "k > s": lambda case: case.K - case.s > 0,
    "k < s": lambda case: case.K - case.s < 0,
}

# fmt: off
PUBLISHED = [
    #     name             N     C     M  I                  K    s  p  a  d   G   source
    Case("hifigan-up1",    1,  512,  256, (100,),           16,   8, 4, 0, 1,  1, "HiFi-GAN V1 vocoder, 1 s of speech"),
    Case("hifigan-up3",    1,  128,   64, (6400,),           4,   2, 1, 0, 1,  1, "HiFi-GAN V1"),
    Case("hifigan-up4",    1,   64,   32, (12800,),          4,   2, 1, 0, 1,  1, "HiFi-GAN V1"),
    Case("istft-1026",     1, 1026,    1, (224,),         1024, 256, 0, 0, 1,  1, "inverse STFT as a layer; pytorch#120982"),
    Case("waveglow-up",    1,   80,   80, (63,),          1024, 256, 0, 0, 1,  1, "WaveGlow mel upsampler"),
    Case("convtasnet",     1,  512,    1, (3999,),          16,   8, 0, 0, 1,  1, "Conv-TasNet decoder"),
    Case("dcgan-l1",      64,  100,  512, (1, 1),            4,   1, 0, 0, 1,  1, "DCGAN generator, batch 64"),
    Case("dcgan-l2",      64,  512,  256, (4, 4),            4,   2, 1, 0, 1,  1, "DCGAN generator"),
    Case("dcgan-l4",      64,  128,   64, (16, 16),          4,   2, 1, 0, 1,  1, "DCGAN generator"),
    Case("dcgan-l5",      64,   64,    3, (32, 32),          4,   2, 1, 0, 1,  1, "DCGAN generator"),
    Case("dcgan-l2-b1",    1,  512,  256, (4, 4),            4,   2, 1, 0, 1,  1, "DCGAN generator, one image"),
    Case("dcgan-l5-b1",    1,   64,    3, (32, 32),          4,   2, 1, 0, 1,  1, "DCGAN generator, one image"),
    Case("unet-up1",       1, 1024,  512, (28, 28),          2,   2, 0, 0, 1,  1, "U-Net"),
    Case("unet-up3",       1,  256,  128, (104, 104),        2,   2, 0, 0, 1,  1, "U-Net"),
    Case("unet-up4",       1,  128,   64, (200, 200),        2,   2, 0, 0, 1,  1, "U-Net"),
    Case("fcn8s",          1,   21,   21, (70, 70),         16,   8, 0, 0, 1,  1, "FCN-8s upsampling"),
    Case("fcn8s-dw",       1,   21,   21, (70, 70),         16,   8, 0, 0, 1, 21, "FCN-8s upsampling, depthwise"),
    Case("fsrcnn-x3",      1,   56,    1, (180, 320),        9,   3, 4, 2, 1,  1, "FSRCNN super-resolution"),
    Case("sam-up1",        1,  256,   64, (64, 64),          2,   2, 0, 0, 1,  1, "Segment Anything mask decoder"),
    Case("dbnet-up2",      1,   64,    1, (320, 320),        2,   2, 0, 0, 1,  1, "DBNet text detector head"),
    Case("stylegan-256",   1,  128,   64, (256, 256),        3,   2, 0, 0, 1,  1, "StyleGAN2 upsampling convolution"),
    Case("centernet-dw",   1,   64,   64, (64, 64),          4,   2, 1, 0, 1, 64, "CenterNet DLA, depthwise bilinear"),
    Case("pose-1",         1, 2048,  256, (8, 6),            4,   2, 1, 0, 1,  1, "SimpleBaseline pose, first upsampling"),
    Case("pillars-4x",     1,  256,  128, (62, 54),          4,   4, 0, 0, 1,  1, "PointPillars"),
    Case("vgg-inv-in",     1,   64,    3, (224, 224),        3,   1, 1, 0, 1,  1, "deconvnet of VGG, image layer"),
    Case("vgg-inv-mid",    1,  256,  256, (56, 56),          3,   1, 1, 0, 1,  1, "deconvnet of VGG, middle"),
    Case("zfnet-inv",      1,   96,    3, (110, 110),        7,   2, 1, 1, 1,  1, "deconvnet of ZFNet, image layer"),
    Case("dilated",        1,   64,   64, (64, 64),          3,   1, 2, 0, 2,  1, "dilated decoder block"),
    Case("groups4",        1,  256,  256, (32, 32),          4,   2, 1, 0, 1,  4, "grouped upsampling"),
    Case("unet3d-hi",      1,   64,   32, (48, 48, 48),      2,   2, 0, 0, 1,  1, "3-D U-Net, fine level"),
    Case("voxgan-last",    1,   64,    1, (32, 32, 32),      4,   2, 1, 0, 1,  1, "3-D GAN, last layer"),
]
# fmt: on

# The shapes that the NumPy tutorial library is compared on; it computes no others of interest.
TUTORIAL = [
    Case("tinyml-64", 1, 64, 64, (64, 64), 4, 2, 0, 0, 1, 1, "tinyml's Deconv2D"),
    Case("tinyml-3", 1, 3, 3, (128, 128), 5, 1, 0, 0, 1, 1, "tinyml's Deconv2D, a picture"),
]

# The convolutions of the network that examples/double_photo.py runs, by the transposed ones that
# they are the transposes of: each makes x, here on the left, of the y that the layer before made.
UPCONV7 = [
    Case(
        f"upconv7-{n}",
        1,
        made,
        given,
        (78 - 2 * n,) * 2,
        3,
        1,
        0,
        0,
        1,
        1,
        "UpConv-7, a tile of 64",
    )
    for n, (given, made) in enumerate(pairwise((3, 16, 32, 64, 128, 256, 256)), 1)
]

# ---- drawn ---------------------------------------------------------------------------------------

SEED = 20261122  # the day it was written; never changed since a result was seen
LEAST_FLOPS, MOST_FLOPS = 10**6, 5 * 10**9
MOST_CELLS = 2**24  # of x, of the weight and of y: 64 MiB in float32
CELLS_OF_AN_AXIS = {1: (4, 20_000), 2: (4, 300), 3: (4, 64)}  # by rank


def sampled(count: int = 30, seed: int = SEED) -> list[Case]:
    """Draw cases unseen; draw a case again as a whole if it is out of bounds.

    >>> sampled(3) == sampled(30)[:3]
    True
    """
    rng, cases = Random(seed), list[Case]()
    while len(cases) < count:
        case = _drawn(rng, f"sampled-{len(cases) + 1:02}")
        if _is_within_bounds(case):
            cases.append(case)
    return cases


def _drawn(rng: Random, name: str) -> Case:
    """Any case, by `Random.random` alone, whose numbers are the same in every Python."""
    rank = 1 + int(3 * rng.random())
    batch = _log_uniform(rng, 1, 64)
    channels, outputs = _log_uniform(rng, 1, 1024), _log_uniform(rng, 1, 1024)
    sizes = tuple(_log_uniform(rng, *CELLS_OF_AN_AXIS[rank]) for _ in range(rank))
    stride = _log_uniform(rng, 1, 8)
    doubled, other = rng.random() < 0.5, 1 + int(9 * rng.random())
    kernel = 2 * stride if doubled and stride > 1 else other
    dilation = 2 if rng.random() < 0.15 else 1
    padding = int(rng.random() * (dilation * (kernel - 1) // 2 + 1))
    extra = int(rng.random() * max(stride, dilation)) if rng.random() < 0.2 else 0
    groups, kind = 1, rng.random()
    if kind < 0.15:
        groups = outputs = channels
    elif kind < 0.3:
        groups = _log_uniform(rng, 2, 16)
        channels, outputs = (max(n // groups, 1) * groups for n in (channels, outputs))
    return Case(
        name, batch, channels, outputs, sizes, kernel, stride, padding, extra, dilation, groups,
        "drawn at random",
    )  # fmt: skip


def _log_uniform(rng: Random, low: int, high: int) -> int:
    return int(low * ((high + 1) / low) ** rng.random())


def _is_within_bounds(case: Case) -> bool:
    outputs = [(i - 1) * case.s + case.d * (case.K - 1) + 1 - 2 * case.p + case.a for i in case.I]
    if min(outputs) < 1:
        return False
    shapes = case.x_shape, case.weight_shape, (case.N, case.M, *outputs)
    flops = 2 * prod(case.x_shape) * prod(case.weight_shape[1:])
    return LEAST_FLOPS <= flops <= MOST_FLOPS and max(map(prod, shapes)) <= MOST_CELLS


GROUPS: dict[str, list[Case]] = {
    "published": PUBLISHED,
    "sampled": sampled(),
    "tutorial": TUTORIAL,
    "upconv7": UPCONV7,
}
