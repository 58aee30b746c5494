"""Fingerprints of tensors, by which changes to weights are detected."""

from typing import Any

import numpy as np
from torch import Tensor
from torch.optim.optimizer import register_optimizer_step_post_hook

from tconv.engine import hash_memory
from tconv.system.pointers import address
from tconv.torch.interop import as_array

__all__ = ["Fingerprint", "count_optimiser_steps"]


class Fingerprint:
    """Fingerprint of a tensor's contents: address, layout and a hash of all elements.

    Only the elements show every change. A tensor's version counts PyTorch's writes in place, but
    not those through ``.data``, by NumPy, or by other libraries; nor is the tensor's identity
    enough, for `torch.utils.swap_tensors` exchanges the contents of two tensors.

    A frozen tensor is recognised by identity, version and address, and is read only after an
    optimiser's step, since some optimisers write without a new version. The fingerprint holds a
    reference to the tensor, and to its memory by a second tensor, so that nothing else can take
    their addresses. It holds no weak reference, with which `swap_tensors` refuses a tensor.
    """

    def __init__(self, tensor: Tensor, threads: int, is_frozen: bool) -> None:
        self._layout, self._place = _layout(tensor), tensor.data_ptr()
        self._held: tuple[Tensor, Tensor] | None = None
        if is_frozen and not tensor.is_inference():  # inference tensors have no version
            self._held, self._version = (tensor, tensor.detach()), tensor._version
            self._steps = _steps.count
        self._hash = hash_memory(self._place, tensor.nbytes, threads) if tensor.nbytes else 0

    @classmethod
    def of(cls, tensor: Tensor, threads: int, is_frozen: bool) -> "Fingerprint | None":
        """Take a fingerprint; None if a tensor is not dense or its elements are not in memory."""
        if not tensor.nbytes:
            return cls(tensor, threads, is_frozen)
        array = as_array(tensor)
        row = array.ravel(order="K")
        is_in_place = np.may_share_memory(row, array) and address(array) == tensor.data_ptr()
        return cls(tensor, threads, is_frozen) if is_in_place else None

    def matches(self, tensor: Tensor, threads: int) -> bool:
        """Whether a tensor of the same shape has the same elements at the same address."""
        place, held = tensor.data_ptr(), self._held
        if not tensor.nbytes:  # nothing that could change
            return _layout(tensor) == self._layout
        if not place or place != self._place or _layout(tensor) != self._layout:
            return False  # the packed weight may be a view of the weight at this address
        if held is None:
            return hash_memory(place, tensor.nbytes, threads) == self._hash
        if tensor is not held[0] or tensor._version != self._version:
            return False
        steps = _steps.count  # before the tensor is read
        if steps != self._steps:
            if hash_memory(place, tensor.nbytes, threads) != self._hash:
                return False
            self._steps = steps
        return True


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    """Strides, size, type, and whether elements are negated views."""
    return tensor.stride(), tensor.nbytes, tensor.dtype, tensor.is_neg()


class _OptimiserSteps:
    """Count of all optimisers' steps; fused optimisers write parameters without a new version."""

    def __init__(self) -> None:
        self.count = 0
        self._handle: Any = None

    def begin(self) -> None:
        """Begin to count."""
        if self._handle is None:
            self._handle = register_optimizer_step_post_hook(self._add)

    def _add(self, *_: Any) -> None:
        self.count += 1


_steps = _OptimiserSteps()


def count_optimiser_steps() -> None:
    """Count the steps of all optimisers from now on: frozen fingerprints need that."""
    _steps.begin()
