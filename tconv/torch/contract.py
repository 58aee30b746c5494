"""Contraction of tensors by the engine, without autograd."""

from dataclasses import replace
from functools import lru_cache

import numpy as np
import torch
from torch import Tensor

from tconv.arrays.dtypes import as_dtype, dtype_name
from tconv.errors import TConvError
from tconv.geometry.arguments import MOST_THREADS
from tconv.geometry.geometry import Geometry, Letter
from tconv.ops.call_cache import BoundCall
from tconv.ops.dispatch import Call
from tconv.torch.interop import (
    as_array,
    as_tensor,
    as_torch_error,
    is_channels_last,
    to_channels_last,
)
from tconv.torch.module_weights.packed_weights import WeightCache
from tconv.torch.openmp import torch_threads

__all__ = ["compute"]

_HALVES = (torch.float16, torch.bfloat16)


def compute(
    geometry: Geometry,
    want: Letter,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None = None,
    threads: int | None = None,
    cache: WeightCache | None = None,
) -> Tensor:
    """Solve F(x, w, y) for a letter; the result has no autograd history.

    Parameters
    ----------
    geometry : batched, channels first, weight "IO*"; tensors may have any memory format
    want, a, b : as in `portable.contract`
    bias : tensor, a number for each channel of the result, if y or x is wanted
    threads : int; None means PyTorch's number of threads
    cache : holds the packed weight, if y or x is wanted, for one of the two

    Returns
    -------
    tensor, in channels_last memory format if a or the weight is

    >>> geometry = Geometry.of((1, 1, 2), (1, 1, 3), stride=2)
    >>> compute(geometry, "x", torch.ones(1, 1, 5), torch.ones(1, 1, 3))
    tensor([[[3., 3.]]])
    """
    if want == "w" and a.dtype in _HALVES:  # summed in float32, rounded once
        return compute(geometry, want, a.float(), b.float(), None, threads).to(a.dtype)
    last = is_channels_last(a) and (want != "w" or is_channels_last(b))
    threads = threads or torch.get_num_threads()
    bound = _bound_call(geometry, a.dtype, threads, last, cache is not None)
    if last:
        a = a.movedim(1, -1)
        b = b.movedim(1, -1) if want == "w" else b
    try:
        with torch_threads(threads):
            other = as_array(b) if cache is None else cache.packed(bound, b, want)
            of_bias = None if bias is None else as_array(bias)
            result = bound.solve(want, as_array(a), other, of_bias)
    except TConvError as error:
        raise as_torch_error(error) from None
    found = as_tensor(result).contiguous()
    if not result.size:  # give it contiguous strides, which callers may compare
        found = torch.empty_like(found, memory_format=torch.contiguous_format)
    if want == "w":
        return found
    if last:
        return found.movedim(-1, 1)
    return to_channels_last(found) if is_channels_last(b) else found


@lru_cache(maxsize=1024)
def _bound_call(
    geometry: Geometry, dtype: torch.dtype, threads: int, last: bool, kept: bool
) -> BoundCall:
    """Cache of repeatable contractions, by geometry, type and memory format.

    A weight that is not kept is packed for each call, and the plan is chosen for that.
    """
    if last:
        geometry = replace(geometry, data_format="channels_last")
    call = Call("conv_transpose", threads=min(threads, MOST_THREADS), kept=kept)
    return BoundCall(geometry, as_dtype(np, dtype_name(dtype)), call)
