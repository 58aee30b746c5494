"""Windows of a Dask array as tasks: the pieces of its chunks that a part reads, joined."""

from collections.abc import Sequence
from itertools import accumulate, product
from math import prod
from operator import getitem
from typing import Any

import numpy as np

from tconv.dask.chunk_grid import ChunkGrid, Piece, intervals, pieces
from tconv.geometry.parts import slices

__all__ = ["Graph", "Windows", "joined"]

Graph = dict[Any, Any]
"""Tasks by key, in the notation of tuples: a function and its arguments, keys among them."""


class Windows:
    """Windows that the chunks of a grid read of one array; a piece that several read is one task.

    A piece is cut where its chunk lies, so that a worker sends a few cells and not the chunk.
    """

    def __init__(self, array: Any, grid: ChunkGrid, label: str, graph: Graph) -> None:
        self._name, self._label, self._graph = array.name, label, graph
        axes = [
            _numbered(len(starts) - 1, [pieces(starts, *read) for read in reads])
            for starts, reads in zip(
                (list(accumulate(chunks, initial=0)) for chunks in array.chunks),
                grid.reads,
                strict=True,
            )
        ]
        self._windows, self._chunks, self._cells = zip(*axes, strict=True)

    def keys_of(self, index: Sequence[int]) -> tuple[tuple[int, ...], list[Any]]:
        """Number of pieces of a chunk's window along each axis, and their keys, in C order."""
        along = list(map(getitem, self._windows, index))
        keys: list[Any] = []
        for numbers in product(*along):
            if min(numbers) >= 0:
                keys.append((self._name, *numbers))
                continue
            key = (self._label, *numbers)
            if key not in self._graph:
                chunk = (self._name, *map(getitem, self._chunks, numbers))
                self._graph[key] = (getitem, chunk, tuple(map(getitem, self._cells, numbers)))
            keys.append(key)
        return tuple(map(len, along)), keys


def _numbered(
    count: int, windows: Sequence[Sequence[Piece]]
) -> tuple[list[list[int]], list[int], list[slice]]:
    """Number the pieces of windows along an axis: a whole chunk by its number, others from -1 down.

    Returns
    -------
    the numbers of each window's pieces, and by them the chunk and the cells of each

    >>> _numbered(2, [[Piece(0, (0, 4), True), Piece(1, (0, 1), False)]])
    ([[0, -1]], [0, 1, 1], [slice(None, None, None), slice(None, None, None), slice(0, 1, None)])
    """
    cut: dict[Piece, int] = {}
    numbers = [
        [p.chunk if p.is_whole else cut.setdefault(p, -1 - len(cut)) for p in window]
        for window in windows
    ]
    parts = list(reversed(cut))  # so that a negative number is an index
    chunks = [*range(count), *(part.chunk for part in parts)]
    cells = [slice(None)] * count + [slice(*part.cells) for part in parts]
    return numbers, chunks, cells


def joined(counts: Sequence[int], found: Sequence[Any], shape: tuple[int, ...], like: Any) -> Any:
    """Join pieces to one window of a shape, in C order; one that is whole already is not copied.

    `like` is an array of the library and type that a window without pieces gets.

    >>> joined((2,), [np.ones(2), np.zeros(1)], (3,), np.ones(1))
    array([1., 1., 0.])
    """
    if len(found) == 1:
        return found[0]
    whole = np.empty_like(found[0] if found else like, shape=shape)
    if not found:
        return whole
    steps = [prod(counts[axis + 1 :]) for axis in range(len(counts))]
    cuts = [
        intervals([found[n * step].shape[axis] for n in range(count)])
        for axis, (count, step) in enumerate(zip(counts, steps, strict=True))
    ]
    for piece, box in zip(found, product(*cuts), strict=True):
        whole[slices(box)] = piece
    return whole
