"""HOW MORE THAN THREE AXES ARE COMPUTED: as calls of three, with taps of the others as channels.

for block in images and rows:
    for fold in folds:                                      # engine/folds.py
        folded[n, q, c, j] = x[n, c, q - shifts[j]], or zeros
        for phase in fold:
            y[n, m, q*stride + phase] = contract(folded[nq, cj], w[cj, m, taps of the phase])

All terms of an output are in one call, so that is where its activation is, too. If x is wanted,
there is one fold and one phase of all taps, and what is folded is y. So it is for w, too:

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
from tconv.engine.executor import Ready
from tconv.engine.plan.axis_folding import Fold, Folds
from tconv.engine.plan.problem import Problem
from tconv.engine.runtime.reorder import Prepared
from tconv.engine.target.target import Target
from tconv.geometry.geometry import Letter
from tconv.system.allocator import empty
from tconv.system.fork_lock import cached_property

__all__ = ["Folded", "FoldedSums", "folded", "folded_sums"]

_Make = Callable[[Problem, str, Target, int], Any]


class _Folding(Prepared):
    """What is read, brought block by block into the order of calls of three axes."""

    def __init__(
        self, problem: Problem, dtype: str, target: Target, threads: int, make: _Make
    ) -> None:
        super().__init__(problem, dtype, target, threads)
        self.folds = folds = Folds.of(problem.geometry, self.dtype.itemsize, problem.want)
        self.inner: dict[int, Any] = {
            n: make(replace(problem, geometry=folds.inner(n)), dtype, target, threads)
            for n in folds.all_taps
        }
        self._folded_axes = len(folds.counts)

    def _seen(self, letter: Letter, array: NDArray[Any]) -> NDArray[Any]:
        """See x or y, C-contiguous, as (images, groups, channels, *cells)."""
        return array.reshape(canonical_shape(self.problem.geometry, letter))

    def _blocks(self) -> Iterator[tuple[slice, int, tuple[int, int]]]:
        """Images and the first row of every block; the last ones end where all do.

        And how many images and rows, at the beginning, were in blocks before.
        """
        folds, batch = self.folds, self.problem.geometry.batch
        for n in range(0, batch, folds.images):
            first = min(n, batch - folds.images)
            for row in range(0, folds.counts[0], folds.rows):
                first_row = min(row, folds.counts[0] - folds.rows)
                yield slice(first, first + folds.images), first_row, (n - first, row - first_row)

    def _room(self) -> tuple[NDArray[Any], NDArray[Any]]:
        """Memory for what is folded of a block, and for the other array's part of it."""
        return empty((self._folded_size,), self.dtype), empty(self._block_shape, self.dtype)

    def _fold(
        self, read: NDArray[Any], first_row: int, fold: Fold, room: NDArray[Any]
    ) -> NDArray[Any]:
        """The cells that each tap reads, (images, q, groups, channels, taps, *inner)."""
        folds, count, axes = self.folds, self._folded_axes, self.problem.geometry.axes
        size = (folds.images, folds.rows, *folds.counts[1:], *read.shape[1:3], fold.taps)
        size += read.shape[3 + count :]
        folded, cells = room[: prod(size)].reshape(size), read.shape[3:]
        read = read.transpose(0, *range(3, 3 + count), 1, 2, *range(3 + count, read.ndim))
        starts = (first_row, *[0] * (count - 1))
        for n, shifts in enumerate(product(*fold.shifts)):
            of_tap = folded[(slice(None),) * (3 + count) + (n,)]
            to, source = [], []
            for axis, start, many, shift, end in zip(
                axes, starts, size[1:], shifts, cells, strict=False
            ):
                step, _ = folds.steps(axis)
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
        """A block's shape of what is not folded, (images, q, groups, channels, *inner)."""
        folds, (_, *sizes) = self.folds, canonical_shape(self.problem.geometry, self.problem.want)
        inner = sizes[2 + self._folded_axes :]
        return (folds.images, folds.rows, *folds.counts[1:], *sizes[:2], *inner)

    def _as_whole(self, block: NDArray[Any]) -> NDArray[Any]:
        """A block (images, q, groups, channels, *inner) with its axes as the whole has them."""
        q = range(1, 1 + self._folded_axes)
        return block.transpose(0, q.stop, q.stop + 1, *q, *range(q.stop + 2, block.ndim))

    @cached_property
    def _folded_size(self) -> int:
        sizes = [self.folds.inner(taps).shape_of(self.problem.read) for taps in self.inner]
        found: int = max(map(prod, sizes), default=0)
        return found

    @cached_property
    def workspace_bytes(self) -> int:
        """Bytes of a block's x and y, scratch for all threads, packed weights and copies of w."""
        copies = prod(self.problem.geometry.weight_shape) if self._copies_w else 0
        numbers = self._folded_size + prod(self._block_shape) + copies
        calls: int = sum(
            self.inner[fold.taps].workspace_bytes * len(fold.phases)
            for fold in self.folds.folds
            if fold.taps
        )
        return numbers * self.dtype.itemsize + calls

    @property
    def _copies_w(self) -> bool:
        """Whether as many numbers as w has are held besides."""
        raise NotImplementedError

    def describe(self) -> list[str]:
        """What was chosen: into how many calls it is folded, and the plan of each kind."""
        folds = self.folds
        blocks = sum(1 for _ in self._blocks())
        lines = [
            f"folded to three axes: {blocks:,} blocks of {folds.images} images and {folds.rows} "
            f"rows, {self.workspace_bytes:,} bytes of workspace and packed weights in all"
        ]
        for taps, ready in self.inner.items():
            phases = sum(len(fold.phases) for fold in folds.folds if fold.taps == taps)
            lines += [f"{phases} phases of {taps} taps, each:", *ready.describe()]
        return lines


class Folded(_Folding):
    """What `Ready` is, for more than three axes."""

    inner: dict[int, Ready]

    @property
    def keeps_weight(self) -> bool:
        """Whether what `pack` gives holds the weight itself, not only copies of its parts."""
        is_whole = self.problem.want == "x"
        return is_whole and any(ready.keeps_weight for ready in self.inner.values())

    def pack(self, weight: NDArray[Any]) -> Any:
        """Bring weights (groups, C, M, *kernel) into the order of the kernels: a list, by phase."""
        if self.problem.want == "x":  # with all taps, which follow the channels of y as they lie
            return [ready.pack(weight) for ready in self.inner.values()]
        weight = weight.reshape(canonical_shape(self.problem.geometry, "w"))
        packed = []
        for fold in self.folds.folds:
            for _, taps in fold.phases if fold.taps else ():
                some = [weight[(slice(None),) * 3 + tap] for tap in product(*taps)]
                packed.append(self.inner[fold.taps].pack(np.stack(some, axis=2)))
        return packed

    @property
    def _copies_w(self) -> bool:
        return self.problem.want == "y"

    def pack_bias(self, bias: NDArray[Any] | None) -> Any:
        """Repeat the bias as the calls for so many taps want it; for 0, as what is written does."""
        found = {taps: ready.pack_bias(bias) for taps, ready in self.inner.items()}
        geometry, activation = self.problem.geometry, self.problem.activation
        if bias is None:
            bias = np.zeros(geometry.groups * self.problem.outputs, self.dtype)
        if activation is not None:
            bias = bias.copy()
            activation.apply(bias)
        shape = (geometry.groups, -1, *[1] * len(geometry.axes))
        return found | {0: bias.reshape(shape)}

    def __call__(self, read: NDArray[Any], packed: Any, bias: Any, written: NDArray[Any]) -> None:
        """Write what is wanted; both arrays are C-contiguous and channels first.

        The bias is packed, too.
        """
        read = self._seen(self.problem.read, read)
        written = self._seen(self.problem.want, written)
        room, block = self._room()
        for images, first_row, _ in self._blocks():
            weights = iter(packed)
            for fold in self.folds.folds:
                if fold.taps:
                    folded = self._fold(read[images], first_row, fold, room)
                for first, _ in fold.phases:
                    to, kept = self._outputs(first, first_row)
                    if fold.taps:
                        inner = self.inner[fold.taps]
                        inner(folded, next(weights), bias[fold.taps], block)
                        found = self._as_whole(block[kept])
                    else:
                        found = bias[0]
                    written[(images, slice(None), slice(None), *to)] = found

    def _outputs(
        self, first: tuple[int, ...], first_row: int
    ) -> tuple[list[slice], tuple[slice, ...]]:
        """Where the outputs of a phase are in all, and in a block: a last q may have none."""
        folds, to, kept = self.folds, [], [slice(None)]
        geometry, is_y = self.problem.geometry, self.problem.want == "y"
        sizes = geometry.output_size if is_y else geometry.input_size
        rows = ((first_row, folds.rows), *((0, count) for count in folds.counts[1:]))
        for axis, size, phase, (start, many) in zip(
            geometry.axes, sizes, first, rows, strict=False
        ):
            _, stride = folds.steps(axis)
            cells = range(phase + start * stride, size, stride)[:many]
            to.append(slice(cells.start, cells.stop, stride))
            kept.append(slice(len(cells)))
        return to, tuple(kept)


class FoldedSums(_Folding):
    """`WeightGradientPrimitive` for more than three axes: w is the sum of the results of blocks.

    How many there are follows from the sizes, and so does the order of this sum.
    """

    _turns_back = False

    def __call__(self, x: NDArray[Any], y: NDArray[Any], dw: NDArray[Any]) -> None:
        """Write dw (groups*C, M, *kernel); x and y are (N, groups*channels, *spatial).

        All are C-contiguous.
        """
        x, y = self._seen("x", x), self._seen("y", y)
        (fold,), rows = self.folds.folds, self.folds.rows
        inner, (room, block) = self.inner[fold.taps], self._room()
        part, to = empty(dw.shape, self.dtype) if self._copies_w else dw, dw
        for images, first_row, (old_images, old_rows) in self._blocks():
            folded = self._fold(y[images], first_row, fold, room)
            self._as_whole(block)[...] = x[images, :, :, first_row : first_row + rows]
            for array in (folded, block):  # what was in blocks before counts no second time
                array[:old_images] = 0
                array[:, :old_rows] = 0
            inner(block, folded, to)
            if to is not dw:
                dw += to
            to = part  # after the first block, what is added

    @property
    def _copies_w(self) -> bool:
        return sum(1 for _ in self._blocks()) > 1


def _every(step: int, start: int, count: int) -> slice:
    """So many cells from the first one on, a step apart."""
    return slice(start, start + (count - 1) * step + 1, step) if count else slice(0)


@lru_cache(maxsize=256)
def folded(problem: Problem, dtype: str, target: Target, threads: int, make: _Make) -> Folded:
    """Return the plan for more than three axes, ready to run."""
    return Folded(problem, dtype, target, threads, make)


@lru_cache(maxsize=256)
def folded_sums(
    problem: Problem, dtype: str, target: Target, threads: int, make: _Make
) -> FoldedSums:
    """Return the plan for w of more than three axes, ready to run."""
    return FoldedSums(problem, dtype, target, threads, make)
