"""WHICH WEIGHTS ARE KEPT PACKED, and when they have changed."""

import weakref
from typing import Any

import numpy as np
from torch import Tensor
from torch.nn import Parameter

from tconv.planned import PackedWeights
from tconv.repeated import Repeated
from tconv.torch.tensors import as_array

__all__ = ["Kept"]

_SMALL_BYTES = 2**12  # are compared as a whole, in less than a microsecond
_SAMPLES = 64  # of larger ones


class Kept:
    """The weight of one module, packed for as long as it does not change.

    A change in place counts up the tensor's version. What is written through ``.data`` or by NumPy
    does not, so some of the numbers, spread over all of them, are compared besides. A copy of a
    module, and one that is pickled, begins with nothing kept.

    >>> import torch
    >>> from tconv.dispatch import Call
    >>> weight = Parameter(torch.ones(16, 16, 4, 4))
    >>> geometry = tconv.Geometry.of((1, 16, 3, 3), weight.shape)
    >>> repeated = Repeated(geometry, np.dtype("float32"), Call("conv_transpose"))
    >>> kept = Kept()
    >>> first = kept.of(repeated, weight)
    >>> kept.of(repeated, weight) is first
    True
    >>> _ = weight.data.add_(1)
    >>> kept.of(repeated, weight) is first
    False
    """

    def __init__(self) -> None:
        self._state: tuple[Any, ...] | None = None

    def of(self, repeated: Repeated, weight: Tensor) -> Any:
        """Return the weight as `Repeated.solve` takes it: packed for y, or an array."""
        if (
            type(weight) is not Parameter  # computed anew for each call, as by weight norm
            or weight.is_inference()  # has no version
            or weight.is_shared()  # other processes write it
        ):
            self._state = None
            return as_array(weight)
        state, now = self._state, (weight._version, weight.data_ptr())
        if state is not None:
            of, then, array, view, sample, packed = state
            if of() is not weight or then != now or view.tobytes() != sample:
                state = None
        if state is None:
            array = as_array(weight)
            view = array.ravel(order="K")  # which copies what has holes
            if not np.may_share_memory(view, array):
                return array
            if view.nbytes > _SMALL_BYTES:
                view = view[:: view.size // _SAMPLES]
            packed = PackedWeights()
            self._state = weakref.ref(weight), now, array, view, view.tobytes(), packed
        plan, threads = repeated.plan("y"), repeated.call.threads
        return packed.of(repeated.geometry, array, 0, threads, plan=plan)

    def __reduce__(self) -> Any:
        return Kept, ()
