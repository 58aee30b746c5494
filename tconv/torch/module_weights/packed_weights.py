"""Cache of packed weights, valid as long as the weights do not change."""

from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import Parameter

from tconv.arrays.dtypes import dtype_name
from tconv.engine import hashes_natively
from tconv.geometry.geometry import Geometry, Letter
from tconv.ops.call_cache import BoundCall
from tconv.ops.dispatch import native
from tconv.ops.planned_call import PackedWeights, Packings
from tconv.torch.interop import as_array
from tconv.torch.module_weights.choices import Choices
from tconv.torch.module_weights.fingerprints import Fingerprint, count_optimiser_steps
from tconv.torch.module_weights.weight_norm import compute_weight, weight_norm_originals
from tconv.torch.openmp import torch_threads

__all__ = ["WeightCache"]


@dataclass(frozen=True, eq=False)
class _NormalisedWeight:
    """A weight computed by weight norm, and the fingerprints of its norms and directions."""

    weight: Tensor
    norms: Fingerprint
    directions: Fingerprint
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
    source: Fingerprint | _NormalisedWeight
    packed: PackedWeights

    def is_of(self, made: _NormalisedWeight | None, weight: Tensor, threads: int) -> bool:
        """Whether a weight, perhaps one that weight norm computed, is still the one packed."""
        if made is not None:  # no one else has it to write to it
            return self.source is made
        return isinstance(self.source, Fingerprint) and self.source.matches(weight, threads)


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
    choices : whether tconv or PyTorch computes the module

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
        self.packings, self.choices = Packings(), Choices()
        self.freeze(is_frozen)

    def clear(self) -> None:
        """Release the weights."""
        self._entry: _Entry | None = None
        self._normalised: _NormalisedWeight | None = None

    def freeze(self, is_frozen: bool) -> None:
        """Detect changes without reading the elements at each call, or by reading them."""
        self.is_frozen, self.choices.left = is_frozen, None
        if is_frozen:
            count_optimiser_steps()
        self.clear()  # its fingerprints are of the other kind

    def weight(self, module: Any) -> Tensor:
        """Return the module's weight, the cached one if norms and directions are unchanged."""
        parts, made = weight_norm_originals(module), self._normalised
        if parts is None or not hashes_natively():  # hashing would take longer than weight norm
            self._normalised = None
            weight: Tensor = module.weight
            return weight
        norms, directions, axis = parts.norms, parts.directions, parts.axis
        threads = torch.get_num_threads()
        with torch_threads(threads):
            if made is not None and made.is_of(norms, directions, axis, threads):
                return made.weight
            self._normalised = made = None  # free its memory first
            # Hashed before the weight is computed: see `packed`.
            seen = [Fingerprint.of(part, threads, self.is_frozen) for part in (norms, directions)]
        weight = compute_weight(module, parts.is_computed)
        if seen[0] is not None and seen[1] is not None:
            shapes = norms.shape, directions.shape
            self._normalised = _NormalisedWeight(weight, seen[0], seen[1], shapes, axis)
        return weight

    def takes(
        self, geometry: Geometry, want: Letter, x: Tensor, weight: Tensor, learns: bool
    ) -> bool:
        """Whether tconv is to compute a call of the module, for which it is predicted faster."""
        return self.choices.takes(geometry, want, x, weight, self.is_frozen, learns)

    def packed(self, bound: BoundCall, weight: Tensor, want: Letter = "y") -> Any:
        """Return the weight as `BoundCall.solve` takes it: packed, or an array."""
        plan, geometry, threads = bound.plan(want), bound.geometry, bound.call.threads or 1
        if plan is None:
            array = as_array(weight)
            plan = native(geometry, want, dtype_name(array.dtype), threads)
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
            seen = made or Fingerprint.of(weight, threads, self.is_frozen)
            if seen is None:
                return self._uncached(weight)
            self._entry = entry = _Entry(shape, seen, PackedWeights(self.packings))
        found = entry.packed.packed_for(plan)
        if found is None:
            found = entry.packed.of(geometry, as_array(weight), 0, threads, plan=plan, want=want)
        return found

    def _uncached(self, weight: Tensor) -> NDArray[Any]:
        """Return the weight as an array, which is packed for this call only."""
        self.packings.count += 1
        return as_array(weight)

    def __reduce__(self) -> Any:
        return WeightCache, (self.is_frozen,)
