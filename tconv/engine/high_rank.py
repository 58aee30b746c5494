"""High rank: more than three axes as calls over three, with taps of the others as channels.

    for block in images and rows:
        for group in phase groups of the folded axes:           # plan/axis_folding.py
            folded[n, q, c, j] = x[n, c, q - shifts[j]], or zeros
            for phase in group:
                y[n, m, q*stride + phase] = contract(folded[nq, cj], w[cj, m, taps of the phase])

All terms of an output are in one call, so the activation is applied there, too. For x there is one
group with one phase of all taps, and y is folded. The same holds for w:

    dw[c, m, j] += contract(x[nq, c], folded[nq, mj])
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.canonical import canonical_shape
from tconv.engine.executor import Primitive
from tconv.engine.plan.axis_folding import AxisFolding, FoldedGroup
from tconv.engine.plan.problem import Problem
from tconv.engine.runtime.reorder import Reorders
from tconv.engine.target.target import Target
from tconv.geometry.geometry import Letter
from tconv.system.allocator import empty
from tconv.system.fork_lock import cached_property

__all__ = [
    "HighRankPrimitive",
    "HighRankWeightGradient",
    "create_high_rank",
    "create_high_rank_weight_gradient",
]

_Make = Callable[[Problem, str, Target, int], Any]


class _HighRank(Reorders):
    """Folds the array that is read, block by block, into the order of calls over three axes."""

    def __init__(
        self, problem: Problem, dtype: str, target: Target, threads: int, make: _Make
    ) -> None:
        super().__init__(problem, dtype, target, threads)
        self.folding = folding = AxisFolding.of(problem.geometry, self.dtype.itemsize, problem.want)
        self.inner: dict[int, Any] = {
            n: make(replace(problem, geometry=folding.inner(n)), dtype, target, threads)
            for n in folding.all_taps
        }
        self._folded_axes = len(folding.counts)

    def _seen(self, letter: Letter, array: NDArray[Any]) -> NDArray[Any]:
        """See x or y, C-contiguous, as (images, groups, channels, *cells)."""
        return array.reshape(canonical_shape(self.problem.geometry, letter))

    def _blocks(self) -> Iterator[tuple[slice, int, tuple[int, int]]]:
        """Yield the images and the first row of every block, and how many of each came before.

        The last blocks end where the array ends, so their first images and rows may stand in
        earlier blocks.
        """
        folding, batch = self.folding, self.problem.geometry.batch
        for n in range(0, batch, folding.images):
            first = min(n, batch - folding.images)
            for row in range(0, folding.counts[0], folding.rows):
                first_row = min(row, folding.counts[0] - folding.rows)
                yield slice(first, first + folding.images), first_row, (n - first, row - first_row)

    def _buffers(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Memory for a block of the folded array, and of the other one."""
        return empty((self._folded_size,), self.dtype), empty(self._block_shape, self.dtype)

    def _fold(
        self, read: NDArray[Any], first_row: int, group: FoldedGroup, room: NDArray[Any]
    ) -> NDArray[Any]:
        """Return the cells that each tap reads, (images, q, groups, channels, taps, *inner)."""
        folding, count, axes = self.folding, self._folded_axes, self.problem.geometry.axes
        size = (folding.images, folding.rows, *folding.counts[1:], *read.shape[1:3], group.taps)
        size += read.shape[3 + count :]
        folded, cells = room[: prod(size)].reshape(size), read.shape[3:]
        read = read.transpose(0, *range(3, 3 + count), 1, 2, *range(3 + count, read.ndim))
        starts = (first_row, *[0] * (count - 1))
        for n, shifts in enumerate(product(*group.shifts)):
            of_tap = folded[(slice(None),) * (3 + count) + (n,)]
            to, source = [], []
            for axis, start, many, shift, end in zip(
                axes, starts, size[1:], shifts, cells, strict=False
            ):
                step, _ = folding.steps(axis)
                low = min(max(start, -(-shift // step)), start + many)
                high = max(low, min(start + many, -(-(end + shift) // step)))
                to.append(slice(low - start, high - start))
                source.append(_every(step, low * step - shift, high - low))
            if any(each != slice(0, many) for each, many in zip(to, size[1:], strict=False)):
                of_tap[...] = 0
            of_tap[(slice(None), *to)] = read[(slice(None), *source)]
        return folded

    @cached_property
    def _block_shape(self) -> tuple[int, ...]:
        """Shape of a block of the other array, (images, q, groups, channels, *inner)."""
        folding, (_, *sizes) = (
            self.folding,
            canonical_shape(self.problem.geometry, self.problem.want),
        )
        inner = sizes[2 + self._folded_axes :]
        return (folding.images, folding.rows, *folding.counts[1:], *sizes[:2], *inner)

    def _in_array_order(self, block: NDArray[Any]) -> NDArray[Any]:
        """See a block (images, q, groups, channels, *inner) with the axes in the array's order."""
        q = range(1, 1 + self._folded_axes)
        return block.transpose(0, q.stop, q.stop + 1, *q, *range(q.stop + 2, block.ndim))

    @cached_property
    def _folded_size(self) -> int:
        sizes = [self.folding.inner(taps).shape_of(self.problem.read) for taps in self.inner]
        found: int = max(map(prod, sizes), default=0)
        return found

    @cached_property
    def workspace_bytes(self) -> int:
        """Bytes of a block's x and y, scratch for all threads, packed weights and copies of w."""
        copies = prod(self.problem.geometry.weight_shape) if self._copies_w else 0
        elements = self._folded_size + prod(self._block_shape) + copies
        calls: int = sum(
            self.inner[group.taps].workspace_bytes * len(group.phases)
            for group in self.folding.groups
            if group.taps
        )
        return elements * self.dtype.itemsize + calls

    @property
    def _copies_w(self) -> bool:
        """Whether a copy of w is held besides."""
        raise NotImplementedError

    def describe(self) -> list[str]:
        """What was chosen: how many calls there are, and the plan of each kind."""
        folding = self.folding
        blocks = sum(1 for _ in self._blocks())
        lines = [
            f"folded to three axes: {blocks:,} blocks of {folding.images} images and "
            f"{folding.rows} rows, {self.workspace_bytes:,} bytes of workspace and packed weights "
            "in all"
        ]
        for taps, primitive in self.inner.items():
            phases = sum(len(group.phases) for group in folding.groups if group.taps == taps)
            lines += [f"{phases} phases of {taps} taps, each:", *primitive.describe()]
        return lines


class HighRankPrimitive(_HighRank):
    """A primitive for more than three axes."""

    inner: dict[int, Primitive]

    @property
    def keeps_weight(self) -> bool:
        """Whether packed weights hold the weight itself, not only copies of its taps."""
        has_all_taps = self.problem.want == "x"
        return has_all_taps and any(primitive.keeps_weight for primitive in self.inner.values())

    def pack(self, weight: NDArray[Any]) -> Any:
        """Pack weights (groups, C, M, *kernel) for each phase: a list."""
        if self.problem.want == "x":  # with all taps, which follow the channels of y as they lie
            return [primitive.pack(weight) for primitive in self.inner.values()]
        weight = weight.reshape(canonical_shape(self.problem.geometry, "w"))
        packed = []
        for group in self.folding.groups:
            for _, taps in group.phases if group.taps else ():
                some = [weight[(slice(None),) * 3 + tap] for tap in product(*taps)]
                packed.append(self.inner[group.taps].pack(np.stack(some, axis=2)))
        return packed

    @property
    def _copies_w(self) -> bool:
        return self.problem.want == "y"

    def pack_bias(self, bias: NDArray[Any] | None) -> Any:
        """Pack the bias for the calls of each number of taps; for 0, shape it as the result."""
        found = {taps: primitive.pack_bias(bias) for taps, primitive in self.inner.items()}
        geometry, activation = self.problem.geometry, self.problem.activation
        if bias is None:
            bias = np.zeros(geometry.groups * self.problem.outputs, self.dtype)
        if activation is not None:
            bias = bias.copy()
            activation.apply(bias)
        shape = (geometry.groups, -1, *[1] * len(geometry.axes))
        return found | {0: bias.reshape(shape)}

    def __call__(self, read: NDArray[Any], packed: Any, bias: Any, written: NDArray[Any]) -> None:
        """Write the result; both arrays are C-contiguous and channels first, the bias is packed."""
        read = self._seen(self.problem.read, read)
        written = self._seen(self.problem.want, written)
        room, block = self._buffers()
        for images, first_row, _ in self._blocks():
            weights = iter(packed)
            for group in self.folding.groups:
                if group.taps:
                    folded = self._fold(read[images], first_row, group, room)
                for first, _ in group.phases:
                    to, kept = self._outputs(first, first_row)
                    if group.taps:
                        inner = self.inner[group.taps]
                        inner(folded, next(weights), bias[group.taps], block)
                        found = self._in_array_order(block[kept])
                    else:
                        found = bias[0]
                    written[(images, slice(None), slice(None), *to)] = found

    def write_images(self, read: NDArray[Any], packed: Any, bias: Any, y: NDArray[Any]) -> None:
        """Write the result as `__call__` does, to images that are contiguous but apart."""
        self(read, packed, bias, y)  # which copies block by block, to strides of any kind

    def _outputs(
        self, first: tuple[int, ...], first_row: int
    ) -> tuple[list[slice], tuple[slice, ...]]:
        """Where the outputs of a phase are in the result and in a block; a last q may have none."""
        folding, to, kept = self.folding, [], [slice(None)]
        geometry, is_y = self.problem.geometry, self.problem.want == "y"
        sizes = geometry.output_size if is_y else geometry.input_size
        rows = ((first_row, folding.rows), *((0, count) for count in folding.counts[1:]))
        for axis, size, phase, (start, many) in zip(
            geometry.axes, sizes, first, rows, strict=False
        ):
            _, stride = folding.steps(axis)
            cells = range(phase + start * stride, size, stride)[:many]
            to.append(slice(cells.start, cells.stop, stride))
            kept.append(slice(len(cells)))
        return to, tuple(kept)


class HighRankWeightGradient(_HighRank):
    """The weight gradient for more than three axes: the sum over blocks.

    The number of blocks, and so the order of this sum, follows from the sizes.
    """

    _turns_back = False

    def __call__(self, x: NDArray[Any], y: NDArray[Any], dw: NDArray[Any]) -> None:
        """Write dw (groups*C, M, *kernel); x and y are (N, groups*channels, *spatial).

        All are C-contiguous.
        """
        x, y = self._seen("x", x), self._seen("y", y)
        (group,), rows = self.folding.groups, self.folding.rows
        inner, (room, block) = self.inner[group.taps], self._buffers()
        partial, to = empty(dw.shape, self.dtype) if self._copies_w else dw, dw
        for images, first_row, (old_images, old_rows) in self._blocks():
            folded = self._fold(y[images], first_row, group, room)
            self._in_array_order(block)[...] = x[images, :, :, first_row : first_row + rows]
            for array in (folded, block):  # what stood in earlier blocks is not added again
                array[:old_images] = 0
                array[:, :old_rows] = 0
            inner(block, folded, to)
            if to is not dw:
                dw += to
            to = partial  # after the first block, a partial sum that is added

    @property
    def _copies_w(self) -> bool:
        return sum(1 for _ in self._blocks()) > 1


def _every(step: int, start: int, count: int) -> slice:
    """The slice of `count` cells from `start` on, a step apart."""
    return slice(start, start + (count - 1) * step + 1, step) if count else slice(0)


@lru_cache(maxsize=256)
def create_high_rank(
    problem: Problem, dtype: str, target: Target, threads: int, make: _Make
) -> HighRankPrimitive:
    """Return the primitive for more than three axes."""
    return HighRankPrimitive(problem, dtype, target, threads, make)


@lru_cache(maxsize=256)
def create_high_rank_weight_gradient(
    problem: Problem, dtype: str, target: Target, threads: int, make: _Make
) -> HighRankWeightGradient:
    """Return the primitive for w over more than three axes."""
    return HighRankWeightGradient(problem, dtype, target, threads, make)
