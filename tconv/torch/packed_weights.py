"""Cache of packed weights, and detection of changes to weights."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter
from torch.optim.optimizer import register_optimizer_step_post_hook

from tconv.arrays.dtypes import dtype_name
from tconv.engine import hash_memory, hashes_natively
from tconv.ops.call_cache import BoundCall
from tconv.ops.dispatch import native
from tconv.ops.planned_call import PackedWeights, Packings
from tconv.system.pointers import address
from tconv.torch.interop import as_array
from tconv.torch.openmp import torch_threads
from tconv.torch.weight_norm import compute_weight, weight_norm_originals

__all__ = ["WeightCache"]


class _Fingerprint:
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
        self._hash = hash_memory(self._place, tensor.nbytes, threads)

    @classmethod
    def of(cls, tensor: Tensor, threads: int, is_frozen: bool) -> "_Fingerprint | None":
        """Take a fingerprint; None if a tensor is not dense or its elements are not in memory."""
        array = as_array(tensor)
        row = array.ravel(order="K")
        is_in_place = np.may_share_memory(row, array) and address(array) == tensor.data_ptr()
        return cls(tensor, threads, is_frozen) if is_in_place else None

    def matches(self, tensor: Tensor, threads: int) -> bool:
        """Whether a tensor of the same shape has the same elements at the same address."""
        place, held = tensor.data_ptr(), self._held
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


@dataclass(frozen=True, eq=False)
class _NormalisedWeight:
    """A weight computed by weight norm, and the fingerprints of its norms and directions."""

    weight: Tensor
    norms: _Fingerprint
    directions: _Fingerprint
    shapes: tuple[Any, ...]
    axis: int

    def is_of(self, norms: Tensor, directions: Tensor, axis: int, threads: int) -> bool:
        """Whether these norms and directions give the same weight."""
        return (
            self.axis == axis
            and self.shapes == (norms.shape, directions.shape)
            and self.norms.matches(norms, threads)
            and self.directions.matches(directions, threads)
        )


class _Entry(NamedTuple):
    """A packed weight, and what it was packed from."""

    shape: tuple[int, ...]
    source: _Fingerprint | _NormalisedWeight
    packed: PackedWeights

    def is_of(self, made: _NormalisedWeight | None, weight: Tensor, threads: int) -> bool:
        """Whether a weight, perhaps one that weight norm computed, is still the one packed."""
        if made is not None:  # no one else has it to write to it
            return self.source is made
        return isinstance(self.source, _Fingerprint) and self.source.matches(weight, threads)


class WeightCache:
    """Cache of one module's packed weight, valid as long as the weight does not change.

    Of a weight-normalised module it also holds the weight, as long as norms and directions do not
    change. Copies and pickles of a module start with an empty cache.

    Parameters
    ----------
    is_frozen : whether changes are detected without reading the elements at each call

    Attributes
    ----------
    packings : count of how often the weight was packed

    >>> import torch
    >>> from tconv.ops.dispatch import Call
    >>> weight = Parameter(torch.ones(16, 16, 4, 4))
    >>> geometry = tconv.Geometry.of((1, 16, 3, 3), weight.shape)
    >>> bound = BoundCall(geometry, np.dtype("float32"), Call("conv_transpose"))
    >>> cache = WeightCache()
    >>> first = cache.packed(bound, weight)
    >>> cache.packed(bound, weight) is first
    True
    >>> weight.data[3, 5, 0, 2] = 2
    >>> cache.packed(bound, weight) is first
    False
    """

    def __init__(self, is_frozen: bool = False) -> None:
        self.packings = Packings()
        self.freeze(is_frozen)

    def clear(self) -> None:
        """Release the weights."""
        self._entry: _Entry | None = None
        self._normalised: _NormalisedWeight | None = None

    def freeze(self, is_frozen: bool) -> None:
        """Detect changes without reading the elements at each call, or by reading them."""
        self.is_frozen = is_frozen
        if is_frozen:
            _steps.begin()
        self.clear()  # its fingerprints are of the other kind

    def weight(self, module: Any) -> Tensor:
        """Return the module's weight, the cached one if norms and directions are unchanged."""
        parts, made = weight_norm_originals(module), self._normalised
        if parts is None or not hashes_natively():  # hashing would take longer than weight norm
            self._normalised = None
            weight: Tensor = module.weight
            return weight
        norms, directions, axis = parts
        threads = torch.get_num_threads()
        with torch_threads(threads):
            if made is not None and made.is_of(norms, directions, axis, threads):
                return made.weight
            self._normalised = made = None  # free its memory first
            # Hashed before the weight is computed: see `packed`.
            seen = [_Fingerprint.of(part, threads, self.is_frozen) for part in (norms, directions)]
        weight = compute_weight(module)
        if seen[0] is not None and seen[1] is not None:
            shapes = norms.shape, directions.shape
            self._normalised = _NormalisedWeight(weight, seen[0], seen[1], shapes, axis)
        return weight

    def packed(self, bound: BoundCall, weight: Tensor) -> Any:
        """Return the weight as `BoundCall.solve` takes it: packed for y, or an array."""
        plan, geometry, threads = bound.plan("y"), bound.geometry, bound.call.threads or 1
        if plan is None:
            array = as_array(weight)
            plan = native(geometry, "y", dtype_name(array.dtype), threads)
            if plan is None:  # the portable path packs nothing
                return array
        made, entry = self._normalised, self._entry
        if made is not None and made.weight is not weight:
            made = None
        if made is None and type(weight) is not Parameter:
            return self._uncached(weight)  # computed for each call, as by parametrizations
        shape = geometry.weight_shape
        if entry is None or entry.shape != shape or not entry.is_of(made, weight, threads):
            self._entry = entry = None  # free its memory first
            if weight.is_shared():
                return self._uncached(weight)  # other processes may write it meanwhile
            # Hashed first, then packed: if another thread writes between the two, the packed weight
            # does not have this hash, and the next call packs again. In the other order the change
            # would go unnoticed. Reading the weight twice costs little: it is in a cache the second
            # time, and packing a weight that is too large for that takes several times as long.
            seen = made or _Fingerprint.of(weight, threads, self.is_frozen)
            if seen is None:
                return self._uncached(weight)
            self._entry = entry = _Entry(shape, seen, PackedWeights(self.packings))
        found = entry.packed.packed_for(plan)
        if found is None:
            found = entry.packed.of(geometry, as_array(weight), 0, threads, plan=plan)
        return found

    def _uncached(self, weight: Tensor) -> NDArray[Any]:
        """Return the weight as an array, which is packed for this call only."""
        self.packings.count += 1
        return as_array(weight)

    def __reduce__(self) -> Any:
        return WeightCache, (self.is_frozen,)
