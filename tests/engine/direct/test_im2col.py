"""Im2col: the runs that are found, and the cells that are gathered."""

import ctypes

import numpy as np
import pytest

from tconv.engine.codegen.code import ElementType
from tconv.engine.compile.jit import load_kernel
from tconv.engine.direct.im2col import find_runs, gather
from tconv.engine.target.target import named_target, target

HERE = [target(), *(each for each in map(named_target, ["haswell", "x86-64"]) if each.runs_here)]
APART, VECTORS, CELLS, CHANNELS = -(2**63), 200, 300, 3


def kernel_of(name, emit, dtype, here, pointers, sizes):
    address = load_kernel(name, emit, dtype=dtype, target=here)
    kinds = [ctypes.c_void_p] * pointers + [ctypes.c_int64] * sizes
    return ctypes.CFUNCTYPE(None, *kinds)(address)


def vectors_of(lanes):
    """Vectors of cells: some follow each other, of some a few are missing, or all; some do not."""
    rng = np.random.default_rng(lanes)
    cells = rng.integers(0, CELLS, (VECTORS, lanes))
    follow = rng.random(VECTORS) < 0.7
    first = rng.integers(1 - lanes, CELLS, (VECTORS, 1))
    cells[follow] = (first + np.arange(lanes))[follow]
    cells[rng.random(cells.shape) < rng.choice([0, 0.1, 0.9, 1], (VECTORS, 1))] = -1
    cells[(cells < 0) | (cells >= CELLS)] = -1
    return cells.astype(np.int32)


@pytest.mark.parametrize("here", HERE, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_runs_begin_near_x_and_their_cells_are_those_of_the_table(dtype, here):
    """Where a vector has no cell at all, too: an address that is nowhere takes very long."""
    lanes = ElementType(dtype, here).lanes
    table = vectors_of(lanes)
    runs = np.empty((VECTORS, 3), np.int64)
    find = kernel_of("find_runs", find_runs, dtype, here, 2, 5)
    find(runs.ctypes.data, table.ctypes.data, 0, table.size, 0, lanes, lanes)
    starts = runs[:, 0]
    for cells, start in zip(table, starts, strict=True):
        places = (cells - np.arange(lanes))[cells >= 0]
        assert start == (APART if np.ptp(places) else places[0]) if places.size else start == 0
    assert np.array_equal(runs[:, 1:], np.arange(VECTORS)[:, None] * [lanes, lanes])
    assert {APART, 0} < set(starts.tolist())

    x = np.random.default_rng(1).integers(1, 99, (CHANNELS + 2, CELLS)).astype(dtype)[1:-1]
    panel = np.full((CHANNELS, VECTORS * lanes), np.nan, dtype)
    read = kernel_of("gather", gather, dtype, here, 4, 4)
    pointers = [array.ctypes.data for array in (panel, x, table, runs)]
    read(*pointers, VECTORS, CHANNELS, CELLS, table.size)
    expected = np.where(table.ravel() >= 0, x[:, table.ravel()], 0)
    assert np.array_equal(panel, expected)
