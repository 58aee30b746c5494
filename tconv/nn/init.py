"""Initialisers: weights drawn for a stride, so that all sizes and phases start with one variance.

A transposed convolution of stride s reaches each output cell with K/s of its K taps on average, so

    fan_in  = C/groups * prod(K) / prod(s)       products summed to one output cell
    fan_out = M/groups * prod(K)                 output cells that one input cell takes part in

and for the ordinary convolution, its transpose, the two swap. PyTorch takes M/groups*prod(K) as
fan_in of both, so its transposed convolutions start off scale by the ratio of the two.

All functions take a weight's shape (C, M // groups, *K) and return a float64 array of that shape.
"""

from __future__ import annotations

from collections.abc import Callable
from math import gcd, prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.errors import ParameterError
from tconv.geometry.arguments import as_choice, as_flag, as_generator, as_number
from tconv.geometry.geometry import Geometry
from tconv.geometry.shape_rules import as_shape
from tconv.signatures import readable
from tconv.system.memory import check_room

__all__ = [
    "ENDLESS",
    "INITIALISERS",
    "Initialiser",
    "as_initialiser",
    "fans",
    "init_bilinear",
    "init_icnr",
    "init_kaiming_normal",
    "init_kaiming_uniform",
    "init_torch",
    "init_xavier_normal",
    "init_xavier_uniform",
    "init_zeros",
    "initial_bias",
    "initialiser_name",
]

Initialiser = Callable[..., NDArray[np.float64]]
"""``f(shape, *, stride, dilation, groups, transposed, rng) -> array``."""

ENDLESS = 2**100  # cells: with an x so large only the arguments themselves can be wrong


def fans(
    shape: Any,
    *,
    stride: Any = 1,
    dilation: Any = 1,
    groups: int = 1,
    transposed: bool = True,
) -> tuple[float, float]:
    """Return (fan_in, fan_out) of a weight, averaged over output cells far from the border.

    Parameters
    ----------
    shape : shape of the weight, (C, M // groups, *K); for `conv` C counts the output channels
    stride : int or one int per spatial axis
    dilation : int or one int per spatial axis; changes nothing here
    groups : int
    transposed : bool, False for the weight of an ordinary convolution

    Raises
    ------
    ParameterError, ShapeError : as for `conv_transpose`

    >>> fans((64, 32, 4, 4), stride=2)
    (256.0, 512.0)
    >>> fans((64, 32, 4, 4), stride=2, transposed=False)
    (512.0, 256.0)
    """
    geometry = _geometry(shape, stride, dilation, groups)
    taps = prod(geometry.kernel_size)
    gathered = geometry.in_channels // geometry.groups * taps
    gathered_per_cell = gathered / prod(axis.stride for axis in geometry.axes)
    spread = float(geometry.out_channels // geometry.groups * taps)
    if as_flag(transposed, "transposed"):
        return gathered_per_cell, spread
    return spread, gathered_per_cell


@readable
def init_kaiming_uniform(
    shape: Any,
    *,
    stride: Any = 1,
    dilation: Any = 1,
    groups: int = 1,
    transposed: bool = True,
    negative_slope: float = 0.0,
    rng: Any = None,
) -> NDArray[np.float64]:
    """Draw uniformly with variance ``2 / (1 + negative_slope**2) / fan_in``.

    This keeps the variance constant between rectifiers. ``negative_slope=1`` suits linear layers.

    Parameters
    ----------
    shape, stride, dilation, groups, transposed : as for `fans`
    negative_slope : float, of the preceding `LeakyReLU`; 0 for `ReLU`
    rng : numpy.random.Generator or a seed

    References
    ----------
    He, Zhang, Ren & Sun 2015, arXiv:1502.01852, with the stride counted.

    >>> init_kaiming_uniform((1, 2, 2), stride=2, rng=0).round(2)
    array([[[ 0.67, -1.13],
            [-2.25, -2.37]]])
    """
    variance = _kaiming_variance(shape, stride, dilation, groups, transposed, negative_slope)
    return _uniform(shape, variance, rng)


@readable
def init_kaiming_normal(
    shape: Any,
    *,
    stride: Any = 1,
    dilation: Any = 1,
    groups: int = 1,
    transposed: bool = True,
    negative_slope: float = 0.0,
    rng: Any = None,
) -> NDArray[np.float64]:
    """Draw from a normal distribution with the variance of `init_kaiming_uniform`.

    >>> init_kaiming_normal((1, 2, 2), stride=2, rng=0).shape
    (1, 2, 2)
    """
    variance = _kaiming_variance(shape, stride, dilation, groups, transposed, negative_slope)
    return _normal(shape, variance, rng)


@readable
def init_xavier_uniform(
    shape: Any,
    *,
    stride: Any = 1,
    dilation: Any = 1,
    groups: int = 1,
    transposed: bool = True,
    rng: Any = None,
) -> NDArray[np.float64]:
    """Draw uniformly with variance ``2 / (fan_in + fan_out)``.

    References
    ----------
    Glorot & Bengio 2010, with the stride counted.

    >>> init_xavier_uniform((1, 2, 2), stride=2, rng=0).shape
    (1, 2, 2)
    """
    return _uniform(shape, _xavier_variance(shape, stride, dilation, groups, transposed), rng)


@readable
def init_xavier_normal(
    shape: Any,
    *,
    stride: Any = 1,
    dilation: Any = 1,
    groups: int = 1,
    transposed: bool = True,
    rng: Any = None,
) -> NDArray[np.float64]:
    """Draw from a normal distribution with the variance of `init_xavier_uniform`.

    >>> init_xavier_normal((1, 2, 2), stride=2, rng=0).shape
    (1, 2, 2)
    """
    variance = _xavier_variance(shape, stride, dilation, groups, transposed)
    return _normal(shape, variance, rng)


@readable
def init_torch(
    shape: Any,
    *,
    stride: Any = 1,
    dilation: Any = 1,
    groups: int = 1,
    transposed: bool = True,
    rng: Any = None,
) -> NDArray[np.float64]:
    """Draw as PyTorch does: uniformly within ``1 / sqrt(shape[1]*prod(K))``, whatever the stride.

    Scale and distribution are equal, the values are not: the generators differ. Layers draw the
    bias within the same bound.

    >>> weight = init_torch((8, 4, 5, 5), stride=2, rng=0)
    >>> bool(abs(weight).max() <= 0.1)
    True
    """
    _ = fans(shape, stride=stride, dilation=dilation, groups=groups, transposed=transposed)
    return _uniform(shape, 1 / 3 / _torch_fan_in(shape, groups), rng)


def init_zeros(shape: Any, **keywords: Any) -> NDArray[np.float64]:
    """Return zeros, for weights that are loaded afterwards.

    >>> init_zeros((1, 1, 2))
    array([[[0., 0.]]])
    """
    return np.zeros(_drawn_shape(shape))


@readable
def init_bilinear(
    shape: Any,
    *,
    stride: Any = 1,
    dilation: Any = 1,
    groups: int = 1,
    transposed: bool = True,
    rng: Any = None,
) -> NDArray[np.float64]:
    """Return the weight of exact linear (bilinear, trilinear) interpolation by the stride.

    Per axis ``w[k] = max(0, 1 - |k - (K - 1)/2| / s)``. Cell f of the uncropped output is the input
    at position ``(f - (K - 1)/2) / s``, linearly interpolated; so away from the border constants
    and linear ramps come out exactly. Each output channel is its own input channel, interpolated.
    The usual kernel is ``K = 2*s - s % 2``; a longer one only adds taps that are zero.

    Parameters
    ----------
    shape, stride, groups : as for `fans`
    dilation : int or one int per spatial axis; interpolates between every dilation-th input cell
    transposed, rng : part of the common signature; nothing is drawn

    Raises
    ------
    ParameterError : the kernel is shorter than 2*s - 1, stride and dilation share a divisor, the
        numbers of channels differ, or transposed=False

    References
    ----------
    Long, Shelhamer & Darrell 2015, arXiv:1411.4038, section 4.1.

    >>> init_bilinear((1, 1, 4), stride=2)
    array([[[0.25, 0.75, 0.75, 0.25]]])
    >>> ramp = np.array([[[0.0, 4.0, 8.0, 12.0]]])
    >>> tconv.conv_transpose(ramp, init_bilinear((1, 1, 4), stride=2), stride=2, padding=1)
    array([[[ 0.,  1.,  3.,  5.,  7.,  9., 11.,  9.]]])
    """
    geometry = _phases("bilinear", shape, stride, dilation, groups, transposed)
    rng = as_generator(rng)  # checked, though nothing is drawn
    channels = geometry.in_channels // geometry.groups
    if geometry.in_channels != geometry.out_channels:
        raise ParameterError(
            f"initialiser bilinear keeps channels, but the weight of shape {geometry.weight_shape} "
            f"turns {geometry.in_channels} into {geometry.out_channels}; pass equal numbers"
            f"{_or_icnr(geometry)}."
        )
    kernel = np.ones(())
    for n, axis in enumerate(geometry.axes):
        k, s = axis.kernel, axis.stride
        if k < 2 * s - 1:
            raise ParameterError(
                f"kernel_size[{n}]={k} must be at least 2*stride[{n}] - 1={2 * s - 1} for "
                f"bilinear; pass {2 * s - s % 2}{_or_icnr(geometry)}."
            )
        distance = np.abs(np.arange(k) - (k - 1) / 2)
        kernel = kernel[..., np.newaxis] * np.maximum(0.0, 1 - distance / s)
    weight = np.zeros(_drawn_shape(shape))
    for c in range(geometry.in_channels):
        weight[c, c % channels] = kernel
    return weight


def _or_icnr(geometry: Geometry) -> str:
    """Advice to use icnr, where it accepts these sizes."""
    return " or use icnr" if all(axis.kernel >= axis.stride for axis in geometry.axes) else ""


@readable
def init_icnr(
    shape: Any,
    *,
    stride: Any = 1,
    dilation: Any = 1,
    groups: int = 1,
    transposed: bool = True,
    negative_slope: float = 0.0,
    rng: Any = None,
) -> NDArray[np.float64]:
    """Draw a weight whose phases are equal, so that learning starts without a checkerboard.

    ``w[k] = v[k // s]`` per axis, v drawn by `init_kaiming_uniform`: the output starts as that of
    an ordinary convolution, each cell repeated s times. If s does not divide K, the last K mod s
    taps start as 0. With a dilation the phases' sums are equal, so that a constant stays constant.

    Parameters
    ----------
    shape, stride, groups : as for `fans`
    dilation : int or one int per spatial axis
    transposed : must be True
    negative_slope, rng : as for `init_kaiming_uniform`

    Raises
    ------
    ParameterError : the kernel is shorter than the stride, stride and dilation share a divisor, or
        transposed=False

    References
    ----------
    Aitken et al. 2017, arXiv:1707.02937.

    >>> init_icnr((1, 1, 5), stride=2, rng=0).round(2)
    array([[[ 0.47,  0.47, -0.8 , -0.8 ,  0.  ]]])
    """
    geometry = _phases("icnr", shape, stride, dilation, groups, transposed)
    for n, axis in enumerate(geometry.axes):
        if axis.kernel < axis.stride:
            raise ParameterError(
                f"kernel_size[{n}]={axis.kernel} must be at least stride[{n}]={axis.stride} for "
                f"icnr, or no tap reaches some outputs; pass {axis.stride} or a multiple."
            )
    channels = geometry.weight_shape[:2]
    small = (*channels, *(axis.kernel // axis.stride for axis in geometry.axes))
    weight = init_kaiming_uniform(small, groups=groups, negative_slope=negative_slope, rng=rng)
    for n, axis in enumerate(geometry.axes, 2):
        weight = np.repeat(weight, axis.stride, axis=n)
    _drawn_shape(shape)
    rest = [(0, axis.kernel % axis.stride) for axis in geometry.axes]
    return np.pad(weight, [(0, 0), (0, 0), *rest])


INITIALISERS: dict[str, Initialiser] = {
    "kaiming_uniform": init_kaiming_uniform,
    "kaiming_normal": init_kaiming_normal,
    "xavier_uniform": init_xavier_uniform,
    "xavier_normal": init_xavier_normal,
    "bilinear": init_bilinear,
    "icnr": init_icnr,
    "torch": init_torch,
    "zeros": init_zeros,
}
"""Functions by the name that ``initialiser=`` of a layer takes."""


def as_initialiser(initialiser: str | Initialiser) -> Initialiser:
    """Return the function of a name, or the function that is passed."""
    if callable(initialiser):
        return initialiser
    return INITIALISERS[as_choice(initialiser, "initialiser", INITIALISERS)]


def initialiser_name(initialiser: Initialiser) -> str | Initialiser:
    """Return the name of an initialiser, or itself if it has none.

    >>> initialiser_name(init_bilinear)
    'bilinear'
    """
    return next((name for name, each in INITIALISERS.items() if each is initialiser), initialiser)


def initial_bias(
    initialiser: Initialiser, shape: Any, groups: int, channels: int, rng: Any
) -> NDArray[np.float64]:
    """Return the bias for a weight: zeros, except for `init_torch`."""
    if initialiser is not init_torch:
        return np.zeros(channels)
    return _uniform((channels,), 1 / 3 / _torch_fan_in(shape, groups), rng)


def _geometry(shape: Any, stride: Any, dilation: Any, groups: int) -> Geometry:
    """Sizes of a weight, every keyword checked as `conv_transpose` does."""
    shape = as_shape(shape, "shape")
    x_shape = (1, shape[0], *[ENDLESS] * (len(shape) - 2)) if shape else ()
    return Geometry.of(x_shape, shape, stride=stride, dilation=dilation, groups=groups)


def _phases(
    name: str, shape: Any, stride: Any, dilation: Any, groups: int, transposed: bool
) -> Geometry:
    """Sizes of a weight whose taps reach every phase."""
    if not as_flag(transposed, "transposed"):
        raise ParameterError(
            f"initialiser {name} is for the phases of a transposed convolution, an ordinary one "
            "has none; pass another initialiser."
        )
    geometry = _geometry(shape, stride, dilation, groups)
    for n, axis in enumerate(geometry.axes):
        if gcd(axis.stride, axis.dilation) > 1:
            raise ParameterError(
                f"dilation[{n}]={axis.dilation} must share no divisor with "
                f"stride[{n}]={axis.stride} for {name}, or no tap reaches some outputs; pass "
                "another dilation."
            )
    return geometry


def _kaiming_variance(
    shape: Any, stride: Any, dilation: Any, groups: int, transposed: bool, negative_slope: float
) -> float:
    slope = as_number(negative_slope, "negative_slope")
    fan_in, _ = fans(shape, stride=stride, dilation=dilation, groups=groups, transposed=transposed)
    return 2 / (1 + slope * slope) / fan_in


def _xavier_variance(
    shape: Any, stride: Any, dilation: Any, groups: int, transposed: bool
) -> float:
    return 2 / sum(
        fans(shape, stride=stride, dilation=dilation, groups=groups, transposed=transposed)
    )


def _torch_fan_in(shape: Any, groups: int) -> float:
    return fans(shape, groups=groups, transposed=False)[0]


def _uniform(shape: Any, variance: float, rng: Any) -> NDArray[np.float64]:
    bound = sqrt(3 * variance)
    return as_generator(rng).uniform(-bound, bound, _drawn_shape(shape))


def _normal(shape: Any, variance: float, rng: Any) -> NDArray[np.float64]:
    return as_generator(rng).normal(0.0, sqrt(variance), _drawn_shape(shape))


def _drawn_shape(shape: Any) -> tuple[int, ...]:
    """The shape of a weight, checked against the memory."""
    sizes = as_shape(shape, "shape")
    check_room(f"weight of shape {sizes}", 8 * prod(sizes))
    return sizes
