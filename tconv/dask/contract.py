"""Contraction of Dask arrays: one task a chunk of the result, which gets the cells it needs.

A chunk of y needs its x and a few cells of the neighbours. Nothing is trimmed afterwards, and
chunks may have any sizes. The channels that are summed over are in one chunk: partial sums would
change the bits.
"""

from dataclasses import dataclass
from typing import Any

from dask.base import tokenize

from tconv.arrays.dtypes import dtype_name
from tconv.dask.chunk_grid import ChunkGrid, grid_of
from tconv.dask.graph import as_array, call_of
from tconv.dask.volume import keeps_order
from tconv.dask.weight_gradient import weight_gradient
from tconv.dask.windows import Graph, Windows, joined
from tconv.geometry.geometry import Geometry, Letter
from tconv.geometry.parts import sizes, slices
from tconv.geometry.weight_formats import WeightLayout
from tconv.ops.dispatch import Call, solve_for
from tconv.ops.part_memory import check_part

__all__ = ["contract"]


def contract(
    geometry: Geometry,
    want: Letter,
    a: Any,
    b: Any,
    *,
    bias: Any = None,
    method: str = "auto",
    threads: int | None = None,
    name: str = "contract",
    max_bytes: int | None = None,
) -> Any:
    """Solve F(x, w, y) for a letter, lazily.

    Parameters
    ----------
    geometry, want, a, b, bias : as in `portable.contract`; Dask arrays of any chunks
    method : "auto" and "direct" are the same: every chunk has the bits of the whole
    threads : of each task; 1 by default, for the scheduler runs several tasks at once
    name, max_bytes : the function called, and a bound on the memory of each task

    Returns
    -------
    dask.array.Array; for want "w" of one chunk

    >>> import dask.array as da
    >>> x = da.arange(8, chunks=3, dtype="float64").reshape(1, 1, 8)
    >>> geometry = Geometry.of(x.shape, (1, 1, 2), stride=2)
    >>> contract(geometry, "y", x, da.ones((1, 1, 2)))[0, 0, :5].compute()
    array([0., 0., 1., 1., 2.])
    """
    call = call_of(name, method, threads, max_bytes)
    channel = geometry.batched if geometry.data_format == "channels_first" else a.ndim - 1
    a = a.rechunk({channel: -1})
    if want == "w":
        return weight_gradient(geometry, a, b.rechunk({channel: -1}), call)
    dtype = dtype_name(a.dtype)
    axis = _axis_of_chunks(geometry, want, dtype)  # of the weight
    b = b.rechunk({n: -1 for n in range(b.ndim) if n != axis})
    bias = None if bias is None else bias.rechunk(-1)
    chunks = None if axis is None else b.chunks[axis]
    grid = grid_of(geometry, want, a.chunks, chunks)
    check_part(want, grid.largest().geometry, dtype, call)
    task = _Task(grid, call, cuts_weight=axis is None)
    used = [a, b] if bias is None else [a, b, bias]
    label = f"{name}-{tokenize(repr(task), *(each.name for each in used))}"
    graph: Graph = {f"task-{label}": task}
    windows = Windows(a, grid, f"window-{label}", graph)
    of_bias = () if bias is None else ((bias.name, 0),)
    for index in grid:
        corner = [index[channel] if n == axis else 0 for n in range(b.ndim)]
        counts, keys = windows.keys_of(index)
        others = ((b.name, *corner), *of_bias)
        graph[label, *index] = (_run, f"task-{label}", index, counts, keys, *others)
    return as_array(graph, label, used, grid.chunks, dtype, a._meta)


@dataclass(frozen=True)
class _Task:
    """What all tasks of one contraction have in common."""

    grid: ChunkGrid
    call: Call
    cuts_weight: bool
    """Whether the weight that a task gets is that of all channels."""

    def run(self, index: Any, counts: Any, found: Any, weight: Any, bias: Any = None) -> Any:
        """Compute a chunk from the pieces of its window."""
        part = self.grid.part(index)
        window = joined(counts, found, sizes(part.read), weight)
        if self.cuts_weight:
            weight = weight[slices(part.weight)]
        of_part = None if bias is None else bias[slice(*part.channels)]
        return solve_for(self.grid.want, part.geometry, window, weight, of_part, self.call)


def _run(task: _Task, *arguments: Any) -> Any:
    return task.run(*arguments)


def _axis_of_chunks(geometry: Geometry, want: Letter, dtype: str) -> int | None:
    """The axis of the weight whose chunks are those of the result's channels; None for one chunk.

    With groups a chunk may cut one.
    """
    if geometry.groups > 1 or not keeps_order(geometry, dtype):
        return None
    layout = WeightLayout.of(geometry.weight_format, geometry.rank)
    return layout.inputs if want == "x" else layout.outputs
