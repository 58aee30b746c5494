"""Rows of y: phases interleaved at every length, and nothing beside them is written."""

import ctypes

import numpy as np
import pytest

from tconv.engine.codegen.code import ElementType
from tconv.engine.compile.jit import load_kernel
from tconv.engine.kernels.interleave import interleave_row
from tconv.engine.kernels.limits import MOST_INTERLEAVED
from tconv.engine.target.target import named_target, target

HERE = [target(), *(each for each in map(named_target, ["haswell", "x86-64"]) if each.runs_here)]
UNTOUCHED, MARGIN = -5, 64


def kernel_of(stride, dtype, here):
    built_in = min(stride, MOST_INTERLEAVED + 1)
    address = load_kernel(
        f"interleave_row_{built_in}", interleave_row(built_in), dtype=dtype, target=here
    )
    return ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 3, *[ctypes.c_int64] * 5)(address)


@pytest.mark.parametrize("here", HERE, ids=str)
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("stride", [1, 2, 3, 6, 8, 9, 11, 17])
def test_a_row_is_what_its_phases_are_whatever_its_length(stride, dtype, here):
    kernel, lanes = kernel_of(stride, dtype, here), ElementType(dtype, here).lanes
    vector, longest, lane = stride * lanes, 3 * stride * lanes, 3
    columns = longest // stride + 2 * lanes  # accumulator rows are read by whole vectors
    order = np.random.default_rng(stride).permutation(stride)
    acc = np.arange(stride * columns).reshape(stride, columns) % 251.0
    phases = acc[order, lane:].T.ravel()  # of all columns, as y has them
    acc = acc.astype("f8" if dtype == "float64" else "f4")
    starts = order.astype(np.int64) * columns
    lengths = {0, 1, longest - 1}
    lengths |= {
        edge + n for edge in (lanes, vector, 2 * vector) for n in (-stride, -1, 0, 1, stride)
    }
    for skipped in {0, 1, stride // 2, stride - 1} & set(range(stride)):
        for count in sorted(n for n in lengths if 0 <= n <= longest):
            y = np.full(count + 2 * MARGIN, UNTOUCHED, dtype)
            place, sizes = y[MARGIN:].ctypes.data, (lane, skipped, count, stride, 0)
            kernel(place, acc.ctypes.data, starts.ctypes.data, *sizes)
            row = y[MARGIN : MARGIN + count]
            assert np.array_equal(row, phases[skipped : skipped + count]), (skipped, count)
            assert (y[:MARGIN] == UNTOUCHED).all()
            assert (y[MARGIN + count :] == UNTOUCHED).all()
