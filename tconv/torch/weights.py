"""WHICH WEIGHTS ARE KEPT, and when they have changed."""

import weakref
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

from tconv.planned import PackedWeights
from tconv.repeated import Repeated
from tconv.torch.norms import made_anew, parts_of
from tconv.torch.tensors import as_array

__all__ = ["Kept"]

_SMALL_BYTES = 2**12  # are compared as a whole, in less than a microsecond
_SAMPLES = 64  # of larger ones


class _Watched:
    """A tensor and its numbers, as they were.

    A change in place counts up the tensor's version. What is written through ``.data`` or by NumPy
    does not, so some of the numbers, spread over all of them, are compared besides.
    """

    def __init__(self, tensor: Tensor, view: NDArray[Any]) -> None:
        if view.nbytes > _SMALL_BYTES:
            view = view[:: view.size // _SAMPLES]
        self._tensor = weakref.ref(tensor)
        self._state = tensor._version, tensor.data_ptr()
        self._view, self._sample = view, view.tobytes()

    @classmethod
    def of(cls, tensor: Tensor) -> "_Watched | None":
        """Watch a tensor; None for one with holes, whose numbers cannot be seen as one row."""
        array = as_array(tensor)
        view = array.ravel(order="K")
        return cls(tensor, view) if np.may_share_memory(view, array) else None

    def still_is(self, tensor: Tensor) -> bool:
        """Whether it is the same tensor with the same numbers."""
        is_same = self._tensor() is tensor  # else it may have no version
        is_same = is_same and self._state == (tensor._version, tensor.data_ptr())
        return is_same and self._view.tobytes() == self._sample


class _Made(NamedTuple):
    """A weight that was made by weight norm, and what it was made of."""

    weight: Tensor
    norms: _Watched
    directions: _Watched
    axis: int

    def is_of(self, norms: Tensor, directions: Tensor, axis: int) -> bool:
        """Whether the same would be made of these."""
        return (
            self.axis == axis
            and self.norms.still_is(norms)
            and self.directions.still_is(directions)
        )


class Kept:
    """The weight of one module, packed for as long as it does not change.

    That of a weight norm is kept itself, too, as long as what it is made of does not change. A copy
    of a module, and one that is pickled, begins with nothing kept.

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
        self._state: tuple[_Watched, NDArray[Any], PackedWeights] | None = None
        self._made: _Made | None = None

    def weight(self, module: Any) -> Tensor:
        """Return the module's weight: that of before, if it would be made of the same again."""
        parts, made = parts_of(module), self._made
        if parts is None:
            self._made = None
            weight: Tensor = module.weight
            return weight
        norms, directions, axis = parts
        if made is not None and made.is_of(norms, directions, axis):
            return made.weight
        self._made = made = None  # so that it makes room
        seen = _Watched.of(norms), _Watched.of(directions)  # first, and then what they become
        weight = made_anew(module)
        if seen[0] is not None and seen[1] is not None:
            self._made = _Made(weight, seen[0], seen[1], axis)
        return weight

    def of(self, repeated: Repeated, weight: Tensor) -> Any:
        """Return the weight as `Repeated.solve` takes it: packed for y, or an array."""
        made, state = self._made, self._state
        if state is None or not state[0].still_is(weight):
            self._state = state = None  # so that what was packed before makes room
            if (
                # Computed anew for each call, as by other parametrisations.
                (type(weight) is not Parameter and (made is None or made.weight is not weight))
                or weight.is_inference()  # has no version
                or weight.is_shared()  # other processes write it; what becomes so lies elsewhere
            ):
                return as_array(weight)
            seen, array = _Watched.of(weight), as_array(weight)
            if seen is None:
                return array
            self._state = state = seen, array, PackedWeights()
        _, array, packed = state
        plan, threads = repeated.plan("y"), repeated.call.threads
        return packed.of(repeated.geometry, array, 0, threads, plan=plan)

    def __reduce__(self) -> Any:
        return Kept, ()
