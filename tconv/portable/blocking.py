"""Blocks of a contraction, within a bounded scratch.

A block is a run of groups, of the batch and of rows per axis. The channels of the result
are split too if the sorted weights alone would be too large.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

from tconv.geometry.geometry import Geometry, Letter
from tconv.portable.phase_grid import Grid, PhaseGroup

__all__ = ["SCRATCH_BYTES", "Blocks", "runs", "windows_come_first"]

SCRATCH_BYTES = 64 * 2**20
"""Most scratch, in bytes, that a contraction of NumPy arrays holds at a time."""

_BLOCK_BYTES = 24 * 2**20
_PACK_BYTES = 16 * 2**20  # sorted weights; a second copy may be held as well
_WIDE = 16  # rows; for shifts further apart most products would be unused


def windows_come_first(geometry: Geometry, phase_group: PhaseGroup, want: Letter) -> bool:
    """Whether the windowed side is an operand. For want "w" both are operands: whether it is x.

    Channels, kernel, stride and dilation decide, not the batch or the image size, except on an axis
    of one input cell, which is laid out without overlap (see phase_grid.py).
    """
    c = geometry.in_channels // geometry.groups
    m = geometry.out_channels // geometry.groups * phase_group.sizes[1]
    if want == "w":
        return c <= m
    return max(phase_group.spans) > _WIDE or (c <= m if want == "y" else m <= c)


class Blocks(NamedTuple):
    """Run lengths of one contraction's blocks, and the bytes that they need."""

    groups: int
    channels: int  # of one group: c for want "x", else m
    batch: int
    rows: tuple[int, ...]
    workspace_bytes: int

    @classmethod
    def of(
        cls, geometry: Geometry, want: Letter, itemsize: int, unblocked: bool = False
    ) -> "Blocks":
        """Choose run lengths; `unblocked`: one block, for arrays that are not writable."""
        budgets = None if unblocked else (_PACK_BYTES, _BLOCK_BYTES)
        return cls._choose(geometry, want, itemsize, budgets)

    @classmethod
    @lru_cache(maxsize=1024)
    def _choose(
        cls, geometry: Geometry, want: Letter, itemsize: int, budgets: tuple[int, int] | None
    ) -> "Blocks":
        c = geometry.in_channels // geometry.groups
        m = geometry.out_channels // geometry.groups
        grid = Grid.of(geometry.axes)
        rows = grid.rows if want == "y" else geometry.input_size
        run = [geometry.groups, c if want == "x" else m, geometry.batch, *rows]
        run = [max(length, 1) for length in run]

        def pack_bytes() -> int:
            return run[0] * run[1] * (m if want == "x" else c) * taps * itemsize

        def block_bytes() -> int:
            return run[0] * run[2] * _elements(geometry, grid, want, run[1], run[3:]) * itemsize

        taps = prod(geometry.kernel_size)
        if budgets is not None:
            _halve(run, (0, 1), lambda: pack_bytes() > budgets[0])
            _halve(run, (2, 0, *range(3, len(run)), 1), lambda: block_bytes() > budgets[1])
        needed = 2 * pack_bytes() + block_bytes()
        return cls(run[0], run[1], run[2], tuple(run[3:]), needed)


def _elements(
    geometry: Geometry, grid: Grid, want: Letter, channels: int, rows: Sequence[int]
) -> int:
    """Elements held at a time for one image and group, for `channels` channels of the result."""
    c = channels if want == "x" else geometry.in_channels // geometry.groups
    m = channels if want != "x" else geometry.out_channels // geometry.groups
    most = 0
    for phase_group in grid.phase_groups():
        shifts, phases = phase_group.sizes
        if not shifts:
            continue
        first = windows_come_first(geometry, phase_group, want)
        # Windows are held singly and stacked, or they are products, longer by the span, and summed.
        on_x = first == (want != "x")
        held = 2 * c * shifts + m * phases if on_x else c + 2 * m * phases * shifts
        spans = [0] * len(rows) if first or want == "w" else phase_group.spans
        if want != "y" and phase_group.widths != grid.strides:
            # Phases are sliced out of y axis by axis: all phases of the later axes are still held.
            widths, strides = phase_group.widths, grid.strides
            held += m * max(prod(widths[:n]) * prod(strides[n:]) for n in range(1, len(rows) + 1))
        cells = prod(n + span for n, span in zip(rows, spans, strict=True))
        most = max(most, held * cells)
    if want == "y":  # all phases, joined and then sorted
        return most + 3 * m * prod(grid.strides) * prod(rows)
    return most + 2 * c * prod(rows)


def runs(total: int, length: int) -> Iterator[slice]:
    """Split 0..total into slices of at most `length`; an empty range is one empty slice.

    >>> list(runs(5, 2)), list(runs(0, 2))
    ([slice(0, 2, None), slice(2, 4, None), slice(4, 5, None)], [slice(0, 0, None)])
    """
    for start in range(0, max(total, 1), max(length, 1)):
        yield slice(start, min(start + length, total))


def _halve(run: list[int], order: tuple[int, ...], too_large: Callable[[], bool]) -> None:
    """Halve the first entry of `run` above 1, in `order`, as long as it is too large."""
    for n in order:
        while run[n] > 1 and too_large():
            run[n] = -(-run[n] // 2)
