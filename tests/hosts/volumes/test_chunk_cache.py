"""Chunk cache: the cells that the source has, and each chunk decoded once while it is kept."""

from collections import Counter

import numpy as np
import zarr
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws
from tconv.dask.source import Source, open_source
from tconv.volumes import convert
from tconv.volumes.chunk_cache import ChunkCache, chunks_to_keep
from volume_files import make_source, weights


@draws(0.4)
@given(st.data(), st.lists(st.integers(1, 12), min_size=1, max_size=4), st.integers(1, 9))
def test_a_box_has_the_cells_of_the_source(data, shape, count):
    values = np.arange(np.prod(shape)).reshape(shape)
    chunks = tuple(data.draw(st.integers(1, size)) for size in shape)
    cache = ChunkCache(open_source(zarr.create_array({}, data=values, chunks=chunks)), count)
    for _ in range(5):
        ends = [sorted(data.draw(st.tuples(*[st.integers(0, size)] * 2))) for size in shape]
        box = tuple(map(tuple, ends))
        found = cache.read(box)
        np.testing.assert_array_equal(found, values[tuple(slice(*each) for each in box)])
        found[...] = -1  # it is the caller's


def test_a_run_decodes_each_chunk_once_where_all_that_is_met_again_fits(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_source("x.zarr", (1, 40, 40, 40), (1, 8, 8, 8))
    w, seen, read = weights((1, 1, 3, 3, 3)), Counter(), Source.read

    def counting(self, box):
        seen[box] += 1
        return read(self, box)

    monkeypatch.setattr(Source, "read", counting)
    convert("x.zarr", w, target="y.zarr", stride=2, padding=1, workers=1)
    assert len(seen) == 5**3
    assert set(seen.values()) == {1}


def test_nothing_is_kept_where_no_chunk_is_met_twice_or_too_few_fit():
    source = open_source(zarr.zeros((1, 64, 64), chunks=(1, 8, 8), dtype="float32"))
    apart = [[(0, 1)], [(0, 8), (8, 16)], [(0, 8), (8, 16)]]
    beside = [[(0, 1)], [(0, 9), (8, 17)], [(0, 9), (8, 17)]]
    assert chunks_to_keep(source, apart, 2, 10**9) == 0
    assert chunks_to_keep(source, beside, 2, 11 * 256) == 0
    assert chunks_to_keep(source, beside, 2, 12 * 256) == 4 + 8  # a window, and two tasks ahead
    assert chunks_to_keep(source, beside, 2, 24 * 256) == 2 * 8 + 8  # two rows
    assert chunks_to_keep(source, beside, 2, 10**9) == 64 + 8
