"""Chunk grids: the chunks of a result, and the part that computes each.

Chunks of y begin at the boundaries of x's chunks times the stride, so regular chunks stay regular,
as Zarr needs them; those of x, for a convolution, at y's boundaries divided by it.
"""

from bisect import bisect_right
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import accumulate, pairwise, product
from math import prod
from typing import NamedTuple

from tconv.geometry.axis import Axis
from tconv.geometry.geometry import Geometry, Letter
from tconv.geometry.parts import Box, Interval, Part, axis_part, channel_cuts, part_of

__all__ = ["ChunkGrid", "Piece", "grid_of", "intervals", "pieces", "regular"]


class Piece(NamedTuple):
    """What a window takes of one chunk of its operand."""

    chunk: int
    cells: Interval
    is_whole: bool


@dataclass(frozen=True)
class ChunkGrid:
    """Chunks of a result, as intervals along each of its axes.

    For want "w" the boxes of y whose weight gradients are summed, `channels` being all.

    >>> geometry = Geometry.of((2, 4, 8), (4, 6, 3), stride=2)
    >>> grid = ChunkGrid(geometry, "y", ((0, 1), (1, 2)), ((0, 6),), (((0, 8), (8, 17)),))
    >>> grid.chunks, len(grid)
    (((1, 1), (6,), (8, 9)), 4)
    >>> grid.part((1, 0, 1)).read, grid.reads
    (((1, 2), (0, 4), (3, 8)), [[(0, 1), (1, 2)], [(0, 4)], [(0, 4), (3, 8)]])
    """

    geometry: Geometry
    want: Letter
    images: tuple[Interval, ...]
    channels: tuple[Interval, ...]
    axes: tuple[tuple[Interval, ...], ...]

    @property
    def intervals(self) -> tuple[tuple[Interval, ...], ...]:
        """Intervals of every axis of the result, in its layout."""
        is_last = self.geometry.data_format == "channels_last"
        found = (*self.axes, self.channels) if is_last else (self.channels, *self.axes)
        return (self.images, *found) if self.geometry.batched else found

    @property
    def chunks(self) -> tuple[tuple[int, ...], ...]:
        """Sizes of the chunks of every axis of the result, in its layout."""
        return tuple(tuple(stop - start for start, stop in each) for each in self.intervals)

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of chunks along every axis of the result."""
        return tuple(map(len, self.intervals))

    def __len__(self) -> int:
        return prod(self.shape)

    def __iter__(self) -> Iterator[tuple[int, ...]]:
        """Every chunk's index, the last axis fastest."""
        return product(*map(range, self.shape))

    def index_of(self, number: int) -> tuple[int, ...]:
        """Index of the chunk of a number, counted in C order."""
        found = []
        for size in reversed(self.shape):
            number, n = divmod(number, size)
            found.append(n)
        return tuple(reversed(found))

    def box(self, index: Sequence[int]) -> Box:
        """Cells of the result that are in a chunk."""
        return tuple(each[n] for each, n in zip(self.intervals, index, strict=True))

    @property
    def reads(self) -> list[list[Interval]]:
        """What each chunk along every axis reads of the first operand, in its layout."""
        geometry, want = self.geometry, self.want
        found = [
            [axis_part(axis, want, *cut).read for cut in cuts]
            for axis, cuts in zip(geometry.axes, self.axes, strict=True)
        ]
        place = geometry.rank if geometry.data_format == "channels_last" else 0
        n, first = place + geometry.batched, [0] * len(self.shape)
        found.insert(place, [])
        for first[n] in range(len(self.channels)):
            found[place].append(self.part(first).read[n])
        return [list(self.images), *found] if geometry.batched else found

    def part(self, index: Sequence[int]) -> Part:
        """The part that computes a chunk."""
        found = list(self.box(index))
        images = found.pop(0) if self.geometry.batched else None
        channels = found.pop(-1 if self.geometry.data_format == "channels_last" else 0)
        of_result = None if self.want == "w" else channels
        return part_of(self.geometry, self.want, found, batch=images, channels=of_result)

    def largest(self) -> Part:
        """The part of a chunk that is the longest along every axis."""
        return self.part([max(range(len(each)), key=each.__getitem__) for each in self.chunks])


def grid_of(
    geometry: Geometry,
    want: Letter,
    chunks: Sequence[Sequence[int]],
    channels: Sequence[int] | None = None,
) -> ChunkGrid:
    """Chunks of a result that belong to those of an operand; for want "w" the chunks of y as boxes.

    Parameters
    ----------
    chunks : sizes of the operand's chunks along each of its axes
    channels : sizes of the chunks of the result's channels; by default one

    >>> grid_of(Geometry.of((1, 4, 8), (4, 6, 3), stride=2), "y", [[1], [4], [4, 4]]).chunks
    ((1,), (6,), (8, 8, 1))
    """
    images = intervals(chunks[0]) if geometry.batched else ((0, 1),)
    spatial = chunks[geometry.batched :]
    spatial = spatial[:-1] if geometry.data_format == "channels_last" else spatial[1:]
    whole = geometry.in_channels if want == "x" else geometry.out_channels
    cuts = channel_cuts(geometry, want, channels or (whole,))
    along = zip(geometry.axes, spatial, strict=True)
    axes = [
        intervals(each) if want == "w" else _of_result(axis, want, each) for axis, each in along
    ]
    return ChunkGrid(geometry, want, images, tuple(cuts), tuple(axes))


def intervals(chunks: Iterable[int]) -> tuple[Interval, ...]:
    """Intervals of chunks of these sizes.

    >>> intervals([2, 3])
    ((0, 2), (2, 5))
    """
    return tuple(pairwise(accumulate(chunks, initial=0)))


def regular(size: int, step: int) -> tuple[Interval, ...]:
    """Intervals of one step each, but for the last.

    >>> regular(7, 3)
    ((0, 3), (3, 6), (6, 7))
    """
    return tuple((start, min(start + step, size)) for start in range(0, size, step))


def _of_result(axis: Axis, want: Letter, chunks: Sequence[int]) -> tuple[Interval, ...]:
    """Intervals of a result's axis that belong to an operand's chunks.

    What the result has beyond them is cut into pieces as long as the longest.

    >>> axis = Axis(input=5, kernel=8, output=16, stride=2)
    >>> _of_result(axis, "y", [2, 2, 1])
    ((0, 4), (4, 8), (8, 12), (12, 16))
    >>> _of_result(Axis(input=5, kernel=2, output=10, stride=2), "x", [4, 4, 2])
    ((0, 2), (2, 4), (4, 5))
    """
    ends, longest = list(accumulate(chunks)), max(chunks, default=0)
    if not longest:  # an operand without cells
        return ((0, axis.output if want == "y" else axis.input),)
    if want == "y":
        size, step = axis.output, longest * axis.stride
        found = [end * axis.stride for end in ends]
    else:
        size, step = axis.input, -(-longest // axis.stride)
        found = [-(-end // axis.stride) for end in ends]
    kept = sorted({end for end in found[:-1] if 0 < end < size})
    while size - (last := kept[-1] if kept else 0) > step:
        kept.append(last + step)
    return tuple(pairwise([0, *kept, size]))


def pieces(starts: Sequence[int], start: int, stop: int) -> list[Piece]:
    """The chunks of an operand that a window reads, and which of their cells.

    Parameters
    ----------
    starts : first cell of each chunk, and at last the number of cells

    >>> pieces([0, 4, 8, 10], 3, 9)
    [Piece(chunk=0, cells=(3, 4), is_whole=False), Piece(chunk=1, cells=(0, 4), is_whole=True), \
Piece(chunk=2, cells=(0, 1), is_whole=False)]
    """
    found, n = [], max(bisect_right(starts, start) - 1, 0)
    while n < len(starts) - 1 and starts[n] < stop:
        size = starts[n + 1] - starts[n]
        first, last = max(start - starts[n], 0), min(stop - starts[n], size)
        if last > first:
            found.append(Piece(n, (first, last), last - first == size))
        n += 1
    return found
