"""WHICH TENSORS tconv computes with: as arrays and back without copying, and how they lie."""

from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

from tconv.errors import TConvError

__all__ = ["as_array", "as_tensor", "as_torch_error", "is_channels_last", "is_served", "lay_last"]

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_TYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_KINDS = (Tensor, Parameter)  # others may mean something else by what is done to them
_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def is_served(first: Any, *others: Any) -> bool:
    """Whether tensors are what tconv computes with: real floating ones of one type on the CPU.

    None among the others is no tensor. Not while somebody records or replaces what is done to
    tensors: their own operations are what such a mode knows.

    >>> is_served(torch.ones(1), torch.ones(1), None), is_served(torch.ones(1, device="meta"))
    (True, False)
    """
    if type(first) not in _KINDS or (dtype := first.dtype) not in _TYPES:
        return False
    for tensor in (first, *others):
        if tensor is not None and (
            type(tensor) not in _KINDS
            or tensor.dtype is not dtype
            or not tensor.is_cpu
            or tensor.layout is not torch.strided
        ):
            return False
    return not (torch._C._len_torch_dispatch_stack() or torch._C._is_tracing())


def as_array(tensor: Tensor) -> NDArray[Any]:
    """The array in a tensor's memory; a copy only of what lies nowhere as it reads.

    >>> tensor = torch.zeros(3, dtype=torch.bfloat16)
    >>> as_array(tensor)[:] = 1
    >>> tensor
    tensor([1., 1., 1.], dtype=torch.bfloat16)
    """
    if tensor.requires_grad:
        tensor = tensor.detach()
    if tensor.is_neg() or tensor._is_zerotensor():  # views of complex numbers, and of nothing
        tensor = tensor.clone()
    found: NDArray[Any]
    if tensor.dtype is torch.bfloat16:
        found = tensor.view(torch.int16).numpy().view(_BFLOAT16)
    else:
        found = tensor.numpy()
    return found


def as_tensor(array: NDArray[Any]) -> Tensor:
    """The tensor in an array's memory.

    >>> as_tensor(np.ones(2, np.float32))
    tensor([1., 1.])
    """
    if array.dtype == _BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def is_channels_last(tensor: Tensor) -> bool:
    """Whether the channels of (N, C, *I) are the last axis in memory, and the tensor is whole.

    >>> is_channels_last(torch.ones(1, 2, 3, 4).to(memory_format=torch.channels_last))
    True
    """
    if tensor.is_contiguous() or (last := _LAST.get(tensor.ndim)) is None:
        return False
    return bool(tensor.is_contiguous(memory_format=last))


def lay_last(tensor: Tensor) -> Tensor:
    """Move channels to the last axis in memory, of a tensor of four or five axes."""
    return tensor.contiguous(memory_format=_LAST[tensor.ndim])


def as_torch_error(error: TConvError) -> TConvError:
    """The same error, which is PyTorch's RuntimeError besides: what its callers look out for.

    >>> isinstance(as_torch_error(TConvError("why")), RuntimeError)
    True
    """
    kind = type(error)
    if isinstance(error, RuntimeError):
        return error
    return type(kind.__name__, (kind, RuntimeError), {"__module__": kind.__module__})(*error.args)
