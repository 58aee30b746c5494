"""WHICH TENSORS tconv computes with: as arrays and back without copying, and how they lie."""

from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter
from torch.utils.dlpack import to_dlpack

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
    """The array in a tensor's memory, to be read; a copy only of what lies nowhere as it reads.

    It does not come from ``tensor.numpy()``, which forbids that memory to be resized from then on:
    PyTorch's FSDP resizes that of weights.

    >>> tensor = torch.zeros(3, dtype=torch.bfloat16)
    >>> array = as_array(tensor)
    >>> tensor[:] = torch.arange(3)
    >>> array
    array([0, 1, 2], dtype=bfloat16)
    >>> tensor.untyped_storage().resizable()
    True
    """
    if tensor.requires_grad or type(tensor) is Parameter:
        tensor = tensor.detach()  # else nobody may swap the parameter while the array is there
    if tensor.is_neg() or tensor._is_zerotensor():  # views of complex numbers, and of nothing
        tensor = tensor.clone()
    is_brief = tensor.dtype is torch.bfloat16  # which no exchange of arrays knows
    made = _Exchanged()
    made.capsule = to_dlpack(tensor.view(torch.int16) if is_brief else tensor)
    found: NDArray[Any] = np.from_dlpack(made)  # type: ignore[arg-type]
    return found.view(_BFLOAT16) if is_brief else found


class _Exchanged:
    """What NumPy takes a tensor's memory from, sooner than from the tensor's own ``__dlpack__``."""

    __slots__ = ("capsule",)
    capsule: Any

    def __dlpack__(self, max_version: Any = None, dl_device: Any = None, copy: Any = None) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # the CPU


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
