"""Cells of a row: every lane gets its own, and zero where the row has none."""

import ctypes
from functools import partial
from hashlib import sha256

import numpy as np
import pytest
from engine.guarded import guarded
from engine.row_laws import draws_of_kernels
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws
from tconv.engine.codegen.code import ElementType, begin
from tconv.engine.codegen.llvm import I64, PTR
from tconv.engine.compile.jit import load
from tconv.engine.kernels.row_cells import RowCells
from tconv.engine.target.target import named_target, read_target

NAMED = [read_target({}), named_target("haswell")]
HERE = [here for here in dict.fromkeys(NAMED) if here.runs_here and here.isa.has_masks]
TYPES = ("float32", "float64")
each_target = pytest.mark.parametrize("here", HERE, ids=lambda here: here.isa.name)


def emitted(cells):
    """A kernel that stores the vectors of every offset, and whether it read without masks."""

    def emit(module, name, element):
        pointers, sizes = dict.fromkeys(("x", "to"), PTR), dict.fromkeys(("start", "room"), I64)
        code, a = begin(module, name, pointers | sizes, element)
        source = code.at(a["x"], a["start"])

        def store(masks):
            vectors = cells.vectors_at(code, source, masks)
            assert [*vectors] == [*cells.offsets]
            for n, vector in enumerate(v for each in vectors.values() for v in each):
                code.store_vector(vector, a["to"], n * element.lanes)
            code.store(element.kind(float(not masks)), a["to"], (n + 1) * element.lanes)

        with code.if_else(cells.is_inner(code, a["start"], a["room"])) as (inner, outer):
            with inner:
                store({})
            with outer:
                store(cells.masks(code, a["start"], a["room"]))
        code.end()

    return emit


def read_by_kernel(cells, dtype, here, row, start):
    """Cells by offset and output, and whether they were read without masks."""
    lanes = ElementType(dtype, here).lanes
    name = f"cells_{sha256(repr((cells, dtype)).encode()).hexdigest()}"
    emit = partial(emitted(cells), name=name, element=ElementType(dtype, here))
    to = np.full((len(cells.offsets) * cells.vectors + 1) * lanes, np.nan, dtype)
    kind = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 2)
    kind(load(name, emit, here))(row.ctypes.data, to.ctypes.data, start, row.size - start)
    return to[:-lanes].reshape(len(cells.offsets), -1), bool(to[-lanes])


@st.composite
def some_cells(draw):
    """Offsets of any distance, some of which share what is loaded."""
    offsets = draw(st.sets(st.integers(-9, 9), min_size=1, max_size=5))
    return RowCells(tuple(sorted(offsets)), draw(st.integers(1, 4)), draw(st.integers(1, 3)))


@each_target
@pytest.mark.parametrize("dtype", TYPES)
def test_every_lane_has_its_cell_or_zero(here, dtype):
    lanes = ElementType(dtype, here).lanes

    @draws_of_kernels()
    @given(some_cells(), st.integers(0, 1), st.integers(0, 3), st.data())
    def law(cells, vector, kind, data):
        loads, start = cells.loads(lanes), cells.step * lanes * cells.vectors * vector
        width = start + loads[-1] + lanes - (kind == 1)  # all that is read, or one cell less
        if kind > 1:
            width = data.draw(st.integers(start + 1, start + 6 * lanes))
        width = max(width, start + 1)
        memory = np.full(width + 64 * lanes, np.nan, dtype)
        row = memory[32 * lanes :][:width]
        row[...] = np.arange(1, width + 1)
        places = start + cells.step * np.arange(cells.vectors * lanes)
        places = places + np.array(cells.offsets)[:, np.newaxis]
        exists = (places >= 0) & (places < width)
        expected = np.where(exists, row[np.clip(places, 0, width - 1)], 0)
        found, is_inner = read_by_kernel(cells, dtype, here, row, start)
        assert np.array_equal(found, expected)
        stays = start + loads[0] >= 0 and start + loads[-1] + lanes <= width
        assert is_inner == stays
        for at_end in (False, True):  # where memory ends
            found, _ = read_by_kernel(cells, dtype, here, guarded(row, at_end), start)
            assert np.array_equal(found, expected)

    law()


@draws(5)
@given(some_cells(), st.sampled_from([2, 4, 8, 16]))
def test_loads_are_all_that_is_read_and_no_more(cells, lanes):
    """Each is used by some output, and no two of one offset's are the same."""
    loads, used = cells.loads(lanes), set()
    assert loads == sorted(set(loads))
    for offset in cells.offsets:
        for place in range(offset, offset + cells.vectors * lanes * cells.step, cells.step):
            holding = {first for first in loads if first <= place < first + lanes}
            assert holding, (offset, place)
            used |= holding
    assert used == set(loads) or cells.step > lanes
