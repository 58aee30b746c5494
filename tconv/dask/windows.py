"""Windows of a Dask array as tasks: the pieces of its chunks that a part reads, and their joining."""

from collections.abc import Hashable, MutableMapping, Sequence
from itertools import product
from math import prod
from operator import getitem
from typing import Any

import numpy as np

from tconv.dask.chunk_grid import ChunkGrid, Piece, intervals, pieces
from tconv.geometry.parts import slices

__all__ = ["Graph", "Windows", "joined"]

Graph = MutableMapping[Hashable, Any]
"""Tasks by key, in the notation of tuples: a function and its arguments, keys among them."""


class Windows:
    """Windows that the chunks of a grid read of one array; a piece that several read is one task.

    A piece is cut where its chunk lies, so that a worker sends a few cells and not the chunk.
    """

    def __init__(self, array: Any, grid: ChunkGrid, label: str, graph: Graph) -> None:
        self._name, self._label, self._graph = array.name, label, graph
        self._pieces = [
            [pieces(chunks, *read) for read in reads]
            for chunks, reads in zip(array.chunks, grid.reads, strict=True)
        ]

    def keys_of(self, index: Sequence[int]) -> tuple[tuple[int, ...], list[Any]]:
        """Number of pieces of a chunk's window along each axis, and their keys, in C order."""
        along = [of_axis[n] for of_axis, n in zip(self._pieces, index, strict=True)]
        return tuple(map(len, along)), [self._key(found) for found in product(*along)]

    def _key(self, found: Sequence[Piece]) -> Any:
        chunk = (self._name, *(piece.chunk for piece in found))
        if all(piece.is_whole for piece in found):
            return chunk
        key = (self._label, *chunk[1:], *(end for piece in found for end in piece.cells))
        if key not in self._graph:
            cells = tuple(slice(*piece.cells) for piece in found)
            self._graph[key] = (getitem, chunk, cells)
        return key


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
