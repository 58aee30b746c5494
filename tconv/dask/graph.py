"""Graphs as Dask arrays, and the call that each of their tasks makes."""

from collections.abc import Sequence
from typing import Any

import dask.array as da
import numpy as np
from dask.highlevelgraph import HighLevelGraph

from tconv.arrays.dtypes import TYPES, as_dtype
from tconv.dask.windows import Graph
from tconv.errors import UnsupportedError
from tconv.ops.dispatch import Call

__all__ = ["as_array", "call_of"]


def as_array(
    graph: Graph,
    label: str,
    used: Sequence[Any],
    chunks: tuple[tuple[int, ...], ...],
    dtype: str,
    like: Any = np.empty(0),  # noqa: B008 (a constant)
) -> Any:
    """Return the Dask array whose chunks are the tasks ``(label, *index)`` of a graph.

    Parameters
    ----------
    used : the Dask arrays that the graph names
    chunks : of the result
    dtype : of the operands, which says that of the result
    like : an array of the library whose arrays the chunks are
    """
    kind = as_dtype(np, TYPES[dtype].result)
    layers = HighLevelGraph.from_collections(label, graph, dependencies=used)
    return da.Array(layers, label, chunks, meta=np.empty_like(like, kind, shape=(0,) * len(chunks)))


def call_of(name: str, method: str, threads: int | None, max_bytes: int | None) -> Call:
    """Return the call that each task makes: with the one order of sums, and one thread by default.

    >>> call_of("conv", "auto", None, None).method
    'direct'

    Raises
    ------
    UnsupportedError : method "measure", which times a call, where there is none yet; "fft"
    """
    if method == "fft":
        raise UnsupportedError(
            'method="fft" rounds by blocks, and the chunks of Dask have the bits of the whole; '
            'pass "direct".'
        )
    if method == "measure":
        raise UnsupportedError(
            'method="measure" times a call, and arrays of Dask are computed later; pass "direct".'
        )
    return Call(name, method="direct", threads=threads or 1, max_bytes=max_bytes)
