"""Conversion between tensors and NumPy arrays without copies, and memory formats of tensors."""

from typing import Any

import ml_dtypes
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter
from torch.utils.dlpack import to_dlpack

from tconv.errors import TConvError

__all__ = [
    "as_array",
    "as_tensor",
    "as_torch_error",
    "is_channels_last",
    "is_supported",
    "to_channels_last",
]

_BFLOAT16 = np.dtype(ml_dtypes.bfloat16)
_TYPES = frozenset({torch.float16, torch.bfloat16, torch.float32, torch.float64})
_CLASSES = (Tensor, Parameter)  # other subclasses may redefine operations
_LAST = {4: torch.channels_last, 5: torch.channels_last_3d}


def is_supported(first: Any, *others: Any) -> bool:
    """Whether tconv computes with these tensors: dense, real, floating, of one type, on the CPU.

    None among the others stands for a missing tensor. False under a dispatch mode or a trace, which
    record or replace PyTorch's own operations.

    >>> is_supported(torch.ones(1), torch.ones(1), None), is_supported(torch.ones(1, device="meta"))
    (True, False)
    """
    if type(first) not in _CLASSES or (dtype := first.dtype) not in _TYPES:
        return False
    for tensor in (first, *others):
        if tensor is not None and (
            type(tensor) not in _CLASSES
            or tensor.dtype is not dtype
            or not tensor.is_cpu
            or tensor.layout is not torch.strided
        ):
            return False
    return not (torch._C._len_torch_dispatch_stack() or torch._C._is_tracing())


def as_array(tensor: Tensor) -> NDArray[Any]:
    """Return an array to read a tensor's memory; a copy only if its elements are not in memory.

    ``tensor.numpy()`` would mark the storage as not resizable, and FSDP resizes that of weights.

    >>> tensor = torch.zeros(3, dtype=torch.bfloat16)
    >>> array = as_array(tensor)
    >>> tensor[:] = torch.arange(3)
    >>> array.dtype.name, array.astype(int)
    ('bfloat16', array([0, 1, 2]))
    >>> tensor.untyped_storage().resizable()
    True
    """
    if tensor.requires_grad or type(tensor) is Parameter:
        tensor = tensor.detach()  # or swap_tensors would refuse the parameter
    if tensor.is_neg() or tensor._is_zerotensor():  # elements that are not in memory
        tensor = tensor.clone()
    is_bfloat16 = tensor.dtype is torch.bfloat16  # which NumPy's DLPack does not support
    exporter = _DLPackExporter()
    exporter.capsule = to_dlpack(tensor.view(torch.int16) if is_bfloat16 else tensor)
    found: NDArray[Any] = np.from_dlpack(exporter)  # type: ignore[arg-type]
    return found.view(_BFLOAT16) if is_bfloat16 else found


class _DLPackExporter:
    """A DLPack capsule as NumPy takes it, faster than by the tensor's own ``__dlpack__``."""

    __slots__ = ("capsule",)
    capsule: Any

    def __dlpack__(self, max_version: Any = None, dl_device: Any = None, copy: Any = None) -> Any:
        return self.capsule

    def __dlpack_device__(self) -> tuple[int, int]:
        return 1, 0  # the CPU


def as_tensor(array: NDArray[Any]) -> Tensor:
    """Return a tensor that shares an array's memory.

    >>> as_tensor(np.ones(2, np.float32))
    tensor([1., 1.])
    """
    if array.dtype == _BFLOAT16:
        return torch.from_numpy(array.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(array)


def is_channels_last(tensor: Tensor) -> bool:
    """Whether a tensor (N, C, *I) is dense in channels_last memory format.

    >>> is_channels_last(torch.ones(1, 2, 3, 4).to(memory_format=torch.channels_last))
    True
    """
    if tensor.is_contiguous() or (last := _LAST.get(tensor.ndim)) is None:
        return False
    return bool(tensor.is_contiguous(memory_format=last))


def to_channels_last(tensor: Tensor) -> Tensor:
    """Convert a tensor of four or five axes to channels_last memory format."""
    return tensor.contiguous(memory_format=_LAST[tensor.ndim])


def as_torch_error(error: TConvError) -> TConvError:
    """Return the error as a RuntimeError as well, which callers of PyTorch catch.

    >>> isinstance(as_torch_error(TConvError("why")), RuntimeError)
    True
    """
    kind = type(error)
    if isinstance(error, RuntimeError):
        return error
    return type(kind.__name__, (kind, RuntimeError), {"__module__": kind.__module__})(*error.args)
