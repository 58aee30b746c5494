"""Division of a contraction into blocks whose transforms are multiplied, chosen by a cost model."""

from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import ceil, log2, prod

import numpy as np

from tconv.arrays.dtypes import TYPES
from tconv.geometry.geometry import OPERANDS, Geometry, Letter
from tconv.spectral.transforms import fast_length
from tconv.system.fork_lock import cached_property

__all__ = ["Division", "kernel_bytes", "workspace_bytes"]

_BLOCK_BYTES = 2**27  # of the transforms that are held at once
_SPANS = (1, 2, 3, 5, 8, 15, 31)  # lengths of a block, in kernels
# Nanoseconds of a thread, float32, Zen 5 (SciPy 1.17): of a real transform, for each element and
# doubling of the length; and of a product of two complex numbers that is added.
_TRANSFORM_NS, _PRODUCT_NS, _MOVED_NS = 0.22, 1.0, 0.7
_CALL_US = 60.0


@dataclass(frozen=True)
class Division:
    """Sizes of the blocks of x, and of their transforms, along each axis.

    A tap k is reached from shift ``k*dilation // stride`` and phase ``k*dilation % stride``. So
    phases are channels, and what is left has stride 1: y's phases have ``input + span - 1`` cells.

    Attributes
    ----------
    geometry : Geometry
    spans : shifts of the kernel along each axis
    lengths : cells of x in a block
    sizes : of its transform, at least ``length + span - 1``
    """

    geometry: Geometry
    spans: tuple[int, ...]
    lengths: tuple[int, ...]
    sizes: tuple[int, ...]

    @classmethod
    def of(cls, geometry: Geometry, want: Letter = "y", is_complex: bool = False) -> "Division":
        """The division that is expected to take the least time.

        >>> Division.of(Geometry.of((1, 1, 30_000), (1, 1, 1000), stride=2))
        x in 12 blocks of 2,501, transforms of 3,000, 2 phases
        """
        return _chosen(geometry, want, is_complex)

    @property
    def phases(self) -> int:
        """How many phases y has."""
        return prod(axis.stride for axis in self.geometry.axes)

    @property
    def blocks(self) -> int:
        """How many blocks x is divided into."""
        sizes = zip(self.geometry.input_size, self.lengths, strict=True)
        return prod(ceil(size / length) for size, length in sizes)

    @property
    def _channels(self) -> tuple[int, int]:
        """Of a group: x's channels, and y's channels times phases."""
        geometry = self.geometry
        return (
            geometry.in_channels // geometry.groups,
            geometry.out_channels // geometry.groups * self.phases,
        )

    def expected_us(self, itemsize: int = 4) -> float:
        """Predicted microseconds of one thread."""
        geometry, (ins, outs) = self.geometry, self._channels
        size = prod(self.sizes)
        depth = log2(max(size, 2))
        each = size * depth * _TRANSFORM_NS
        arrays = geometry.batch * geometry.groups * (ins + outs) * self.blocks
        weights = geometry.groups * ins * outs
        products = geometry.batch * self.blocks * weights * size / 2
        moved = geometry.batch * geometry.groups * (ins + 3 * outs) * size * self.blocks
        ns = (arrays + weights) * each + products * _PRODUCT_NS + moved * _MOVED_NS
        return _CALL_US + ns / 1e3 * itemsize / 4

    def bytes_of(self, batch: int, groups: int, itemsize: int) -> int:
        """What so many samples and groups hold at once: transforms, blocks, y's phases."""
        geometry, (ins, outs) = self.geometry, self._channels
        size = prod(self.sizes)
        cells = prod(
            axis.input + span - 1 for axis, span in zip(geometry.axes, self.spans, strict=True)
        )
        transforms = groups * (3 * ins * outs + batch * 2 * (ins + 2 * outs)) * size
        return itemsize * (transforms + groups * batch * 2 * outs * cells)

    @cached_property
    def at_once(self) -> tuple[int, int]:
        """Samples and groups that are computed at once."""
        batch, groups = max(self.geometry.batch, 1), self.geometry.groups
        while self.bytes_of(batch, groups, 8) > _BLOCK_BYTES and batch * groups > 1:
            if batch > 1:
                batch = ceil(batch / 2)
            else:
                groups = ceil(groups / 2)
        return batch, groups

    def workspace_bytes(self, itemsize: int, threads: int = 1) -> int:
        """Memory besides operands and result; each thread has a block, and some results wait."""
        (batch, groups), (ins, outs) = self.at_once, self._channels
        waiting = min(2 * threads, self.blocks) * groups * prod(self.sizes) * 2
        waiting *= max(batch * (ins + 2 * outs), ins * outs)
        return self.bytes_of(batch, groups, itemsize) + waiting * itemsize

    def __str__(self) -> str:
        lengths, sizes = ("x".join(f"{n:,}" for n in each) for each in (self.lengths, self.sizes))
        count, phases = self.blocks, self.phases
        return (
            f"x in {count:,} block{'s' * (count > 1)} of {lengths}, transforms of "
            f"{sizes}, {phases} phase{'s' * (phases > 1)}"
        )

    __repr__ = __str__


@lru_cache(maxsize=256)
def _chosen(geometry: Geometry, want: Letter, is_complex: bool) -> Division:
    spans = tuple(axis.dilation * (axis.kernel - 1) // axis.stride + 1 for axis in geometry.axes)
    candidates = []
    for n, (axis, span) in enumerate(zip(geometry.axes, spans, strict=True)):
        is_halved = n == geometry.rank - 1 and not is_complex
        whole = max(axis.input, 1)
        found = {(whole, fast_length(whole + span - 1, is_halved))}
        for factor in _SPANS:
            size = fast_length((factor + 1) * span, is_halved)
            if size - span + 1 < whole and span > 1:
                found.add((size - span + 1, size))
        candidates.append(sorted(found))
    divisions = [
        Division(geometry, spans, *zip(*each, strict=True)) for each in product(*candidates)
    ]
    return min(divisions, key=lambda each: (each.expected_us(), each.bytes_of(1, 1, 8)))


def workspace_bytes(geometry: Geometry, want: Letter, dtype: str, threads: int = 1) -> int:
    """Bytes that `contract` holds besides operands and result.

    `dtype` is that of the operands; halves are converted to float32.
    """
    kind = np.dtype(TYPES[dtype].accumulator)
    division = Division.of(geometry, want, kind.kind == "c")
    needed = division.workspace_bytes(kind.itemsize, threads)
    if kind.name != dtype:
        needed += kind.itemsize * sum(prod(geometry.shape_of(n)) for n in OPERANDS[want])
    return needed


def kernel_bytes(geometry: Geometry, dtype: str) -> int:
    """Bytes of the transforms of a weight, and of what making them takes."""
    kind = np.dtype(TYPES[dtype].accumulator)
    division = Division.of(geometry, "y", kind.kind == "c")
    ins, outs = division._channels
    return 3 * kind.itemsize * geometry.groups * ins * outs * prod(division.sizes)
