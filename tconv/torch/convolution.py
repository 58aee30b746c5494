"""Convolutions of PyTorch's modules, computed by tconv where that is predicted to be faster."""

from collections.abc import Sequence
from functools import lru_cache
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from tconv.errors import TConvError
from tconv.geometry.arguments import is_cache_key
from tconv.geometry.geometry import Geometry
from tconv.torch.autograd import contract
from tconv.torch.interop import is_channels_last, is_supported
from tconv.torch.module_weights.packed_weights import WeightCache

__all__ = ["convolve"]

_TORCH_FUNCTIONS = {1: functional.conv1d, 2: functional.conv2d, 3: functional.conv3d}
_TYPES = (torch.float32, torch.float64)


def convolve(
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
    cache: WeightCache,
    learns: bool,
) -> Tensor:
    """Compute PyTorch's convolution of this rank; `cache` holds the packed weight.

    What tconv does not compute, or not faster, is PyTorch's, errors included. The weight of a
    module that `learns` changes with every step, and is not kept.
    """
    settings = stride, padding, dilation, groups
    geometry = None
    if (
        not torch.compiler.is_compiling()
        and is_supported(input, weight, bias)
        and input.dtype in _TYPES
        and input.ndim == rank + 2
        and not is_channels_last(input)  # oneDNN's own format, of which results may be as well
        and not is_channels_last(weight)
        and not torch._C._are_functorch_transforms_active()
        and not torch.is_autocast_enabled("cpu")
        and all(map(is_cache_key, settings))
    ):
        of_bias = None if bias is None else bias.shape
        geometry = _geometry(rank, input.shape, weight.shape, of_bias, *settings)
    if geometry is None or not cache.takes(geometry, "x", input, weight, learns):
        return _TORCH_FUNCTIONS[rank](input, weight, bias, *settings)
    return contract(geometry, "x", input, weight, bias, None, None if learns else cache)


@lru_cache(maxsize=1024, typed=True)  # True equals 1
def _geometry(
    rank: int,
    shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    bias_shape: tuple[int, ...] | None,
    stride: Any,
    padding: Any,
    dilation: Any,
    groups: int,
) -> Geometry | None:
    """Geometry of a convolution; None if PyTorch has to compute it, or to refuse it."""
    if not shape[0] or len(weight_shape) != rank + 2 or bias_shape not in (None, weight_shape[:1]):
        return None
    try:
        return Geometry.of_conv(
            shape,
            weight_shape,
            stride=stride,
            padding=_pairs(padding, weight_shape[2:], dilation),
            dilation=dilation,
            groups=groups,
        )
    except TConvError:
        return None


def _pairs(padding: Any, kernel: Sequence[int], dilation: Any) -> Any:
    """Padding at both ends of each axis; of "same" the end has the odd cell."""
    if padding == "valid":
        return 0
    if padding != "same":
        return padding
    dilations = dilation if isinstance(dilation, tuple) else (dilation,) * len(kernel)
    totals = [by * (size - 1) for by, size in zip(dilations, kernel, strict=True)]
    return tuple([(total // 2, total - total // 2) for total in totals])
