"""WHICH WEIGHTS ARE KEPT, and when they have changed."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter
from torch.optim.optimizer import register_optimizer_step_post_hook

from tconv.arrays.dtypes import dtype_name
from tconv.engine.content_hash import content_hash, is_native
from tconv.ops.call_cache import BoundCall
from tconv.ops.dispatch import native
from tconv.ops.planned_call import PackedWeights, Packings
from tconv.system.pointers import address
from tconv.torch.interop import as_array
from tconv.torch.openmp import working
from tconv.torch.weight_norm import made_anew, parts_of

__all__ = ["Kept"]


class _Watched:
    """A tensor's numbers, as they were: where they lie and a hash of all of them.

    Only the numbers tell whether they have changed. A tensor's version counts what PyTorch does to
    it in place, but nothing that is written through ``.data``, by NumPy, or by other libraries; and
    who the tensor is says little, for `torch.utils.swap_tensors` gives it what another one held.

    One that is frozen is told by what it is, its version and its place, and is read only after
    steps of optimisers, of which some do not count as changes of the version. The tensor is held
    for that, and its memory by another tensor, so that nothing else can be found at their
    addresses. It is not held weakly, with which `swap_tensors` refuses it.
    """

    def __init__(self, tensor: Tensor, threads: int, is_frozen: bool) -> None:
        self._layout, self._place = _layout(tensor), tensor.data_ptr()
        self._held: tuple[Tensor, Tensor] | None = None
        if is_frozen and not tensor.is_inference():  # which has no version
            self._held, self._version = (tensor, tensor.detach()), tensor._version
            self._steps = _steps.count
        self._hash = content_hash(self._place, tensor.nbytes, threads)

    @classmethod
    def of(cls, tensor: Tensor, threads: int, is_frozen: bool) -> "_Watched | None":
        """Watch a tensor; None for one with holes, or whose numbers are not those in its memory."""
        array = as_array(tensor)
        row = array.ravel(order="K")
        is_in_place = np.may_share_memory(row, array) and address(array) == tensor.data_ptr()
        return cls(tensor, threads, is_frozen) if is_in_place else None

    def still_is(self, tensor: Tensor, threads: int) -> bool:
        """Whether a tensor of the same shape has the same numbers, in the same order."""
        place, held = tensor.data_ptr(), self._held
        if not place or place != self._place or _layout(tensor) != self._layout:
            return False  # what is packed may hold the weight itself, too: that of this place
        if held is None:
            return content_hash(place, tensor.nbytes, threads) == self._hash
        if tensor is not held[0] or tensor._version != self._version:
            return False
        steps = _steps.count  # as of before it is read
        if steps != self._steps:
            if content_hash(place, tensor.nbytes, threads) != self._hash:
                return False
            self._steps = steps
        return True


def _layout(tensor: Tensor) -> tuple[Any, ...]:
    """How numbers of a shape lie in memory, and whether they read as they lie."""
    return tensor.stride(), tensor.nbytes, tensor.dtype, tensor.is_neg()


class _Steps:
    """Steps that optimisers have made since somebody began to count them.

    Fused ones write parameters, and leave their versions as they are.
    """

    def __init__(self) -> None:
        self.count = 0
        self._handle: Any = None

    def begin(self) -> None:
        """Count from now on."""
        if self._handle is None:
            self._handle = register_optimizer_step_post_hook(self._add)

    def _add(self, *_: Any) -> None:
        self.count += 1


_steps = _Steps()


@dataclass(frozen=True, eq=False)
class _Made:
    """A weight that was made by weight norm, and what it was made of."""

    weight: Tensor
    norms: _Watched
    directions: _Watched
    shapes: tuple[Any, ...]
    axis: int

    def is_of(self, norms: Tensor, directions: Tensor, axis: int, threads: int) -> bool:
        """Whether the same would be made of these."""
        return (
            self.axis == axis
            and self.shapes == (norms.shape, directions.shape)
            and self.norms.still_is(norms, threads)
            and self.directions.still_is(directions, threads)
        )


class _State(NamedTuple):
    """A weight packed, and what tells that it is still the same."""

    shape: tuple[int, ...]
    seen: _Watched | _Made
    packed: PackedWeights

    def is_of(self, made: _Made | None, weight: Tensor, threads: int) -> bool:
        """Whether a weight, which may be one that was made, is still the one that was packed."""
        if made is not None:  # which nobody else can write
            return self.seen is made
        return isinstance(self.seen, _Watched) and self.seen.still_is(weight, threads)


class Kept:
    """The weight of one module, packed for as long as it does not change.

    That of a weight norm is kept itself, too, as long as what it is made of does not change. A copy
    of a module, and one that is pickled, begins with nothing kept.

    Parameters
    ----------
    is_frozen : whether changes are told without reading the numbers each time

    Attributes
    ----------
    packings : how often the weight was packed

    >>> import torch
    >>> from tconv.ops.dispatch import Call
    >>> weight = Parameter(torch.ones(16, 16, 4, 4))
    >>> geometry = tconv.Geometry.of((1, 16, 3, 3), weight.shape)
    >>> bound = BoundCall(geometry, np.dtype("float32"), Call("conv_transpose"))
    >>> kept = Kept()
    >>> first = kept.of(bound, weight)
    >>> kept.of(bound, weight) is first
    True
    >>> weight.data[3, 5, 0, 2] = 2
    >>> kept.of(bound, weight) is first
    False
    """

    def __init__(self, is_frozen: bool = False) -> None:
        self.packings = Packings()
        self.freeze(is_frozen)

    def forget(self) -> None:
        """Let go of what is kept."""
        self._state: _State | None = None
        self._made: _Made | None = None

    def freeze(self, is_frozen: bool) -> None:
        """Tell changes without reading the numbers each time, or by reading them."""
        self.is_frozen = is_frozen
        if is_frozen:
            _steps.begin()
        self.forget()  # what was told in the other way

    def weight(self, module: Any) -> Tensor:
        """Return the module's weight: that of before, if it would be made of the same again."""
        parts, made = parts_of(module), self._made
        if parts is None or not is_native():  # then to compare takes longer than to make
            self._made = None
            weight: Tensor = module.weight
            return weight
        norms, directions, axis = parts
        threads = torch.get_num_threads()
        with working(threads):
            if made is not None and made.is_of(norms, directions, axis, threads):
                return made.weight
            self._made = made = None  # so that it makes room
            # First, and then what they become: see `of`.
            seen = [_Watched.of(part, threads, self.is_frozen) for part in (norms, directions)]
        weight = made_anew(module)
        if seen[0] is not None and seen[1] is not None:
            shapes = norms.shape, directions.shape
            self._made = _Made(weight, seen[0], seen[1], shapes, axis)
        return weight

    def of(self, bound: BoundCall, weight: Tensor) -> Any:
        """Return the weight as `BoundCall.solve` takes it: packed for y, or an array."""
        plan, geometry, threads = bound.plan("y"), bound.geometry, bound.call.threads or 1
        if plan is None:
            array = as_array(weight)
            plan = native(geometry, "y", dtype_name(array.dtype), threads)
            if plan is None:  # nobody packs
                return array
        made, state = self._made, self._state
        if made is not None and made.weight is not weight:
            made = None
        if made is None and type(weight) is not Parameter:
            return self._unkept(weight)  # computed anew for each call, as by parametrisations
        shape = geometry.weight_shape
        if state is None or state.shape != shape or not state.is_of(made, weight, threads):
            self._state = state = None  # so that what was packed before makes room
            if weight.is_shared():
                return self._unkept(weight)  # which other processes write, perhaps meanwhile
            # First hashed, and then packed: what another thread writes between the two is packed,
            # but does not have this hash, so the next call packs again. The other way round that
            # would never be found. That the weight is read twice costs little: the second time it
            # lies in a cache, and where it is too large, packing still takes several times as long.
            seen = made or _Watched.of(weight, threads, self.is_frozen)
            if seen is None:
                return self._unkept(weight)
            self._state = state = _State(shape, seen, PackedWeights(self.packings))
        found = state.packed.packed_for(plan)
        if found is None:
            found = state.packed.of(geometry, as_array(weight), 0, threads, plan=plan)
        return found

    def _unkept(self, weight: Tensor) -> NDArray[Any]:
        """Return the weight as an array, which is packed for this call only."""
        self.packings.count += 1
        return as_array(weight)

    def __reduce__(self) -> Any:
        return Kept, (self.is_frozen,)
