"""Lazy results of arrays on disk: one task a chunk, which reads its own window of the source."""

from __future__ import annotations

import os
from typing import Any, Unpack

from dask.array.core import normalize_chunks
from dask.base import tokenize

from tconv.dask.chunk_grid import grid_of
from tconv.dask.graph import as_array
from tconv.dask.source import open_source
from tconv.dask.volume import Contraction, Volume
from tconv.dask.windows import Graph
from tconv.geometry.geometry import OPERANDS
from tconv.geometry.keywords import VolumeKeywords
from tconv.ops.part_memory import check_part
from tconv.signatures import readable

__all__ = ["from_zarr"]


@readable
def from_zarr(
    source: str | os.PathLike[str] | Any,
    weight: Any,
    bias: Any = None,
    *,
    adjoint: bool = False,
    **settings: Unpack[VolumeKeywords],
) -> Any:
    """Return a lazy transposed convolution of a Zarr array: one task for each chunk of the result.

    A task reads the cells that its chunk needs straight from the source, those beside its own chunk
    too. So a graph has one task a chunk, nothing is sent between workers, and no chunk of the
    source waits in memory for its neighbours. (`dask.array.from_zarr` followed by
    `tconv.conv_transpose` has 9 or more in three dimensions, and reads every chunk once.)

    Parameters
    ----------
    source : path or URL of a Zarr array (of format 2 or 3), of an .npy file, or a `zarr.Array`; of
        shape (N, C, *I), (C, *I), or (*I) for one channel
    weight : array (C, M // groups, *K)
    bias : array (M,)
    adjoint : compute the adjoint, ``conv(source, weight, conjugate=True)``
    method : as for `conv_transpose`, but "direct" by default
    threads : of each task, 1 by default
    all others : as for `conv_transpose`, or with `adjoint` as for `conv`

    Returns
    -------
    dask.array.Array : (N, M, *O), (M, *O), or (*O) where neither has an axis of channels, in chunks
        of the source times the stride

    Raises
    ------
    ParameterError, ShapeError, DTypeError, MemoryLimitError : as `conv_transpose`, at once
    OSError : there is no such source; from `compute`, it cannot be read

    >>> import numpy as np, tempfile, zarr
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     x = zarr.create_array(folder, shape=(8, 8), chunks=(4, 4), dtype="float64")
    ...     x[:] = 1
    ...     y = from_zarr(folder, np.ones((1, 1, 2, 2)), stride=2)
    ...     y.chunks, float(y.sum().compute())
    (((8, 8), (8, 8)), 256.0)
    """
    made, weight, bias = Contraction.of(open_source(source), weight, bias, adjoint, settings)
    geometry, want = made.geometry, made.want
    grid = grid_of(geometry, want, _chunks(made))
    check_part(want, grid.largest().geometry, made.dtype, made.call)
    volume = Volume(made, grid)
    label = f"from-zarr-{tokenize(repr(volume), weight, bias)}"
    names = [f"{what}-{label}" for what in ("volume", "weight", "bias")]
    graph: Graph = dict(zip(names, (volume, weight, bias), strict=True))
    for index in grid:
        graph[label, *made.without_channels(index)] = (_compute, *names, index)
    return as_array(graph, label, [], made.without_channels(grid.chunks), made.dtype)


def _chunks(made: Contraction) -> tuple[tuple[int, ...], ...]:
    """Sizes of the operand's chunks; those of a file as Dask chooses them."""
    shape = made.geometry.shape_of(OPERANDS[made.want][0])
    chunks: Any = made.source_chunks
    if chunks is None:
        chunks = ["auto"] * len(shape)
        chunks[made.channel_axis] = -1
    found = normalize_chunks(tuple(chunks), shape, dtype=made.source.dtype)
    return tuple(map(tuple, found))


def _compute(volume: Volume, weight: Any, bias: Any, index: tuple[int, ...]) -> Any:
    return volume.compute(index, weight, bias)
