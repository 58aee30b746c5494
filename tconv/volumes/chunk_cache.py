"""Chunk cache: decoded chunks of a source that the windows of neighbouring tasks share.

Zarr decodes a whole chunk for the few cells of it that a window reads. A window that lies across
the borders of chunks meets up to 2, 4 or 8 of them, and most are met again by the next tasks: the
next one along the last axis, then the next row of tasks, then the next plane.
"""

from collections.abc import Sequence
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.dask.chunk_grid import pieces
from tconv.dask.source import Source
from tconv.geometry.parts import Box, Interval, sizes, slices

__all__ = ["ChunkCache", "chunks_to_keep"]


class ChunkCache:
    """Reads boxes of a source, and keeps the chunks that were used last.

    Several threads may read at once; two that miss the same chunk both decode it.

    >>> import zarr
    >>> from tconv.dask.source import open_source
    >>> source = open_source(zarr.create_array({}, data=np.arange(10), chunks=4))
    >>> cache = ChunkCache(source, 2)
    >>> cache.read(((3, 9),))
    array([3, 4, 5, 6, 7, 8])
    """

    def __init__(self, source: Source, count: int) -> None:
        assert source.chunks is not None, "a file has no chunks"
        self._source = source
        self._starts = _starts(source)
        self._decoded = lru_cache(maxsize=count)(self._decode)

    def _decode(self, index: tuple[int, ...]) -> NDArray[Any]:
        along = zip(self._starts, index, strict=True)
        return self._source.read(tuple((starts[n], starts[n + 1]) for starts, n in along))

    def read(self, box: Box) -> NDArray[Any]:
        """Return the cells of a box, in new memory.

        Raises
        ------
        OSError : as `Source.read`
        """
        found = np.empty(sizes(box), np.dtype(self._source.dtype))
        cuts = [pieces(starts, *cut) for starts, cut in zip(self._starts, box, strict=True)]
        for met in product(*cuts):
            chunk = self._decoded(tuple(piece.chunk for piece in met))
            place, along = [], zip(met, self._starts, box, strict=True)
            for piece, starts, (start, _) in along:
                shift = starts[piece.chunk] - start
                place.append((piece.cells[0] + shift, piece.cells[1] + shift))
            found[slices(tuple(place))] = chunk[slices(tuple(piece.cells for piece in met))]
        return found


def chunks_to_keep(
    source: Source, reads: Sequence[Sequence[Interval]], tasks: int, room: int
) -> int:
    """Return how many chunks are worth keeping; 0 where each is read by one task, or too few fit.

    These are the chunks that one window meets, or all that a row of tasks meets, or a plane, and
    so on: the most that fit.

    Parameters
    ----------
    reads : intervals of the source that the tasks read, along each of its axes
    tasks : that run at once
    room : bytes for all that are kept

    >>> import zarr
    >>> from tconv.dask.source import open_source
    >>> source = open_source(zarr.zeros((40, 40), chunks=(4, 4), dtype="float32"))
    >>> reads = [[(0, 5), (4, 9)], [(0, 5), (4, 9)]]
    >>> [chunks_to_keep(source, reads, 1, room) for room in (10**6, 2000, 500)]
    [104, 24, 0]
    """
    if source.chunks is None:
        return 0
    starts = _starts(source)
    met = [max(len(pieces(s, *cut)) for cut in cuts) for s, cuts in zip(starts, reads, strict=True)]
    if prod(met) == 1:
        return 0
    every = [len(each) - 1 for each in starts]
    fitting = room // source.chunk_bytes
    # Those of a window along the first axes, all along the others; the next tasks begin meanwhile.
    steps = [prod(met[:n]) * prod(every[n:]) + tasks * prod(met) for n in range(len(met) + 1)]
    return max((step for step in steps if step <= fitting), default=0)


def _starts(source: Source) -> list[list[int]]:
    """First cell of each chunk along every axis, and at last the number of cells."""
    along = zip(source.shape, source.chunks or (), strict=True)
    return [[*range(0, size, chunk), size] for size, chunk in along]
