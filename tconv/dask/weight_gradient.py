"""Weight gradients of Dask arrays: a sum over boxes of y, by a tree that is always the same.

The boxes are numbered; neighbours are added first. So the bits follow from the chunks alone, not
from the scheduler, the number of workers or the order in which tasks end.
"""

from collections.abc import Hashable
from dataclasses import dataclass
from typing import Any

import numpy as np
from dask.base import tokenize

from tconv.arrays.dtypes import TYPES, as_dtype, dtype_name
from tconv.arrays.operands import namespace
from tconv.dask.chunk_grid import ChunkGrid, grid_of
from tconv.dask.graph import as_array
from tconv.dask.windows import Graph, Windows, joined
from tconv.errors import DTypeError
from tconv.geometry.geometry import Geometry
from tconv.geometry.parts import sizes
from tconv.ops.dispatch import Call, solve_for
from tconv.ops.part_memory import check_part

__all__ = ["weight_gradient"]


def weight_gradient(geometry: Geometry, x: Any, y: Any, call: Call) -> Any:
    """Return the lazy weight gradient of Dask arrays, each with all its channels in one chunk."""
    dtype = dtype_name(x.dtype)
    summed = _summed_type(dtype)
    grid = grid_of(geometry, "w", y.chunks)
    check_part("w", grid.largest().geometry, dtype, call)
    task = _Task(grid, call, summed)
    label = f"{call.name}-{tokenize(repr(task), x.name, y.name)}"
    graph: Graph = {f"task-{label}": task}
    windows = Windows(x, grid, f"window-{label}", graph)
    level: list[tuple[Hashable, ...]] = []
    for number, index in enumerate(grid):
        counts, keys = windows.keys_of(index)
        if not keys or 0 in sizes(grid.box(index)):  # no tap reaches the box, or it is empty
            continue
        key = (f"box-{label}", number)
        graph[key] = (_run, f"task-{label}", index, counts, keys, (y.name, *index))
        level.append(key)
    depth = 0
    while len(level) > 1:
        depth += 1
        above: list[tuple[Hashable, ...]] = []
        for n in range(0, len(level) - 1, 2):
            above.append((f"sum-{label}", depth, n // 2))
            graph[above[-1]] = (_add, level[n], level[n + 1])
        level = above + level[2 * len(above) :]
    shape = geometry.weight_shape
    found = as_dtype(np, TYPES[dtype].result)
    last = (label, *(0,) * len(shape))
    graph[last] = (_rounded, level[0], found) if level else (np.zeros, shape, found)
    return as_array(graph, label, [x, y], tuple((size,) for size in shape), dtype, x._meta)


@dataclass(frozen=True)
class _Task:
    """What the tasks of one weight gradient have in common."""

    grid: ChunkGrid
    call: Call
    summed: str

    def run(self, index: Any, counts: Any, found: Any, y: Any) -> Any:
        """Compute the weight gradient of one box of y."""
        part = self.grid.part(index)
        operands = joined(counts, found, sizes(part.read), y), y
        xp = namespace(y)
        if dtype_name(y.dtype) in ("float16", "bfloat16"):  # rounded once, after the last sum
            operands = tuple(xp.astype(each, as_dtype(xp, self.summed)) for each in operands)
        box = solve_for("w", part.geometry, *operands, None, self.call)
        return xp.astype(box, as_dtype(xp, self.summed), copy=False)


def _run(task: _Task, *arguments: Any) -> Any:
    return task.run(*arguments)


def _summed_type(dtype: str) -> str:
    """The type that boxes are added in: all integers in 64 bits."""
    types = TYPES[dtype]
    return "int64" if types.is_integer else types.accumulator


def _add(a: Any, b: Any) -> Any:
    """Add two sums of boxes; integers that overflow are refused."""
    total = a + b
    if dtype_name(total.dtype) == "int64" and (((a ^ total) & (b ^ total)) < 0).any():
        raise DTypeError('the weight gradient overflows int64; pass dtype="float64".')
    return total


def _rounded(total: Any, dtype: Any) -> Any:
    """Convert the last sum to the type of the result."""
    xp = namespace(total)
    if dtype.kind == "i" and total.size:
        low, high, info = int(xp.min(total)), int(xp.max(total)), np.iinfo(dtype)
        if low < info.min or high > info.max:
            raise DTypeError(
                f"the weight gradient reaches {low if low < info.min else high:,}, beyond {dtype}; "
                'pass dtype="int32", whose sums have 64 bits, or dtype="float64".'
            )
    return xp.astype(total, as_dtype(xp, dtype_name(dtype)), copy=False)
