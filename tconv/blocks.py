"""HOW MUCH AT A TIME: a contraction cut into blocks of bounded scratch.

A block is a run of the groups, of the batch and of the rows of every axis; the result's channels
are cut too where the sorted weights alone would be too large.
"""

from collections.abc import Callable, Iterator
from math import prod
from typing import NamedTuple

from tconv.geometry import Geometry, Letter
from tconv.grid import Combination, Grid

__all__ = ["SCRATCH_BYTES", "Blocks", "runs", "windows_come_first"]

SCRATCH_BYTES = 64 * 2**20
"""Most scratch, in bytes, that a contraction of NumPy arrays holds at a time."""

_BLOCK_BYTES = 16 * 2**20
_PACK_BYTES = 16 * 2**20  # sorted weights, besides which a second copy may be held
_WIDE = 16  # rows; between shifts further apart products would mostly be computed for nothing


def windows_come_first(geometry: Geometry, combination: Combination, want: Letter) -> bool:
    """Whether the windowed side is a known one. For want "w" both are: whether it is x.

    Only channels, kernel, stride and dilation decide, so that the order of summation never depends
    on the image or the batch.
    """
    c = geometry.in_channels // geometry.groups
    m = geometry.out_channels // geometry.groups * combination.sizes[1]
    if want == "w":
        return c <= m
    return max(combination.spans) > _WIDE or (c <= m if want == "y" else m <= c)


class Blocks(NamedTuple):
    """Run lengths of one contraction's blocks, and the bytes that they need."""

    groups: int
    channels: int  # of one group: c for want "x", else m
    batch: int
    rows: tuple[int, ...]
    workspace_bytes: int

    @classmethod
    def of(cls, geometry: Geometry, want: Letter, itemsize: int, whole: bool = False) -> "Blocks":
        """Choose run lengths; `whole` means one block, for arrays that cannot be written in parts."""
        grid, g = Grid.of(geometry.axes), geometry.groups
        c, m = geometry.in_channels // g, geometry.out_channels // g
        combinations = [each for each in grid.combinations() if each.sizes[0]]

        def pack_bytes(groups: int, channels: int) -> int:
            other = m if want == "x" else c
            return groups * channels * other * prod(geometry.kernel_size) * itemsize

        def block_bytes(groups: int, channels: int, batch: int, rows: tuple[int, ...]) -> int:
            inputs = channels if want == "x" else c
            outputs = m if want == "x" else channels
            numbers = 0
            for combination in combinations:
                shifts, phases = combination.sizes
                first = windows_come_first(geometry, combination, want)
                on_x = first if want != "x" else not first
                if on_x:
                    held = inputs * shifts + outputs * phases
                else:
                    held = inputs + outputs * phases * shifts
                cells = prod(n + span for n, span in zip(rows, combination.spans, strict=True))
                numbers = max(numbers, held * cells)
            if want == "y":
                numbers += 3 * outputs * prod(grid.strides) * prod(rows)
            elif want == "x":
                numbers += 2 * inputs * prod(rows)
            return groups * batch * numbers * itemsize

        rows = grid.rows if want == "y" else geometry.input_size
        run = [g, m if want != "x" else c, max(geometry.batch, 1), *(max(n, 1) for n in rows)]
        if not whole:
            _halve(run, (0, 1), lambda: pack_bytes(*run[:2]) > _PACK_BYTES)
            order = (2, 0, *range(3, len(run)))
            _halve(run, order, lambda: block_bytes(*run[:3], tuple(run[3:])) > _BLOCK_BYTES)
        needed = 2 * pack_bytes(*run[:2]) + block_bytes(*run[:3], tuple(run[3:]))
        return cls(run[0], run[1], run[2], tuple(run[3:]), needed)


def runs(total: int, length: int) -> Iterator[slice]:
    """Cut 0..total into slices of at most `length`; an empty range is one empty slice.

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
