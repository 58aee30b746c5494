"""HOW MORE THAN THREE AXES ARE COMPUTED: as calls of three, with taps of the others as channels.

for block in images and rows:
    for fold in folds:                                      # engine/folds.py
        folded[n, q, c, j] = x[n, c, q - shifts[j]], or zeros
        for phase in fold:
            y[n, m, q*stride + phase] = contract(folded[nq, cj], w[cj, m, taps of the phase])

All terms of an output are in one call, so that is where its activation is, too.
"""

from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cached_property, lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.canonical import canonical_shape
from tconv.engine.arena import empty
from tconv.engine.executor import Prepared, Ready
from tconv.engine.folds import Fold, Folds
from tconv.engine.problem import Problem
from tconv.engine.target import Target

__all__ = ["Folded", "folded"]

_Make = Callable[[Problem, str, Target, int], Ready]


class Folded(Prepared):
    """What `Ready` is, for more than three axes."""

    def __init__(
        self, problem: Problem, dtype: str, target: Target, threads: int, make: _Make
    ) -> None:
        super().__init__(problem, dtype, target, threads)
        self.folds = folds = Folds.of(problem.geometry, self.dtype.itemsize)
        self.inner = {
            n: make(replace(problem, geometry=folds.inner(n)), dtype, target, threads)
            for n in folds.all_taps
        }
        self._folded_axes = len(folds.counts)

    def pack(self, weight: NDArray[Any]) -> Any:
        """Bring weights (groups, C, M, *kernel) into the order of the kernels: a list, by phase."""
        weight = weight.reshape(canonical_shape(self.problem.geometry, "w"))
        packed = []
        for fold in self.folds.folds:
            for _, taps in fold.phases if fold.taps else ():
                some = [weight[(slice(None),) * 3 + tap] for tap in product(*taps)]
                packed.append(self.inner[fold.taps].pack(np.stack(some, axis=2)))
        return packed

    def pack_bias(self, bias: NDArray[Any] | None) -> Any:
        """Repeat the bias as the calls for so many taps want it; for 0, as y does."""
        found = {taps: ready.pack_bias(bias) for taps, ready in self.inner.items()}
        geometry, activation = self.problem.geometry, self.problem.activation
        bias = np.zeros(geometry.out_channels, self.dtype) if bias is None else bias
        if activation is not None:
            bias = bias.copy()
            activation.apply(bias)
        shape = (geometry.groups, -1, *[1] * len(geometry.axes))
        return found | {0: bias.reshape(shape)}

    def __call__(self, x: NDArray[Any], packed: Any, bias: Any, y: NDArray[Any]) -> None:
        """Write y; x and y are C-contiguous and channels first, bias is packed too."""
        x = x.reshape(canonical_shape(self.problem.geometry, "x"))
        y = y.reshape(canonical_shape(self.problem.geometry, "y"))
        room, block_y = empty((self._folded_size,), self.dtype), empty(self._block_shape, y.dtype)
        for images, first_row in self._blocks():
            weights = iter(packed)
            for fold in self.folds.folds:
                if fold.taps:
                    folded = self._fold(x[images], first_row, fold, room)
                for first, _ in fold.phases:
                    to, kept = self._outputs(first, first_row)
                    if fold.taps:
                        inner = self.inner[fold.taps]
                        inner(folded, next(weights), bias[fold.taps], block_y)
                        y[(images, slice(None), slice(None), *to)] = self._as_y(block_y[kept])
                    else:
                        y[(images, slice(None), slice(None), *to)] = bias[0]

    def _blocks(self) -> Iterator[tuple[slice, int]]:
        """Images and the first row of every block; the last ones end where all do."""
        folds, batch = self.folds, self.problem.geometry.batch
        for n in range(0, batch, folds.images):
            first = min(n, batch - folds.images)
            for row in range(0, folds.counts[0], folds.rows):
                yield (
                    slice(first, first + folds.images),
                    min(row, folds.counts[0] - folds.rows),
                )

    def _fold(
        self, x: NDArray[Any], first_row: int, fold: Fold, room: NDArray[Any]
    ) -> NDArray[Any]:
        """The cells that each tap reads, (images, q, groups, C, taps, *inner)."""
        folds, count = self.folds, self._folded_axes
        size = (folds.images, folds.rows, *folds.counts[1:], *x.shape[1:3], fold.taps)
        size += x.shape[3 + count :]
        folded = room[: prod(size)].reshape(size)
        x = x.transpose(0, *range(3, 3 + count), 1, 2, *range(3 + count, x.ndim))
        starts = (first_row, *[0] * (count - 1))
        for n, shifts in enumerate(product(*fold.shifts)):
            of_tap = folded[(slice(None),) * (3 + count) + (n,)]
            to, source = [], []
            for axis, start, many, shift in zip(
                self.problem.geometry.axes, starts, size[1:], shifts, strict=False
            ):
                low = min(max(start, shift), start + many)
                high = max(low, min(start + many, axis.input + shift))
                to.append(slice(low - start, high - start))
                source.append(slice(low - shift, high - shift))
            if any(each != slice(0, many) for each, many in zip(to, size[1:], strict=False)):
                of_tap[...] = 0
            of_tap[(slice(None), *to)] = x[(slice(None), *source)]
        return folded

    def _outputs(
        self, first: tuple[int, ...], first_row: int
    ) -> tuple[list[slice], tuple[slice, ...]]:
        """Where the outputs of a phase are in y, and where in a block: a last q may have none."""
        folds, to, kept = self.folds, [], [slice(None)]
        rows = ((first_row, folds.rows), *((0, count) for count in folds.counts[1:]))
        for axis, phase, (start, many) in zip(
            self.problem.geometry.axes, first, rows, strict=False
        ):
            cells = range(phase + start * axis.stride, axis.output, axis.stride)[:many]
            to.append(slice(cells.start, cells.stop, axis.stride))
            kept.append(slice(len(cells)))
        return to, tuple(kept)

    def _as_y(self, block: NDArray[Any]) -> NDArray[Any]:
        """A block (images, q, groups, M, *inner) with its axes as y has them."""
        q = range(1, 1 + self._folded_axes)
        return block.transpose(0, q.stop, q.stop + 1, *q, *range(q.stop + 2, block.ndim))

    @cached_property
    def _block_shape(self) -> tuple[int, ...]:
        folds, (_, *channels) = self.folds, canonical_shape(self.problem.geometry, "y")
        inner = channels[2 + self._folded_axes :]
        return (folds.images, folds.rows, *folds.counts[1:], *channels[:2], *inner)

    @cached_property
    def _folded_size(self) -> int:
        return max((ready.problem.read_count for ready in self.inner.values()), default=0)

    @cached_property
    def workspace_bytes(self) -> int:
        """Bytes of a block's x and y, scratch for all threads, and packed weights and a copy."""
        numbers = (
            self._folded_size + prod(self._block_shape) + prod(self.problem.geometry.weight_shape)
        )
        calls = sum(
            self.inner[fold.taps].workspace_bytes * len(fold.phases)
            for fold in self.folds.folds
            if fold.taps
        )
        return numbers * self.dtype.itemsize + calls

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


@lru_cache(maxsize=256)
def folded(problem: Problem, dtype: str, target: Target, threads: int, make: _Make) -> Folded:
    """Return the plan for more than three axes, ready to run."""
    return Folded(problem, dtype, target, threads, make)
