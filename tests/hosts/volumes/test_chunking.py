"""Chunks of a target: the source's times the stride, smaller where memory is short."""

from itertools import pairwise

import numpy as np
import pytest
import zarr

from tconv.dask.source import open_source
from tconv.dask.volume import Contraction
from tconv.errors import MemoryLimitError
from tconv.volumes.chunking import plan_layout


def contraction(shape, chunks, weight, adjoint=False, **settings):
    source = zarr.create_array({}, shape=shape, chunks=chunks, dtype="float32")
    weight = np.zeros(weight, np.float32)
    return Contraction.of(open_source(source), weight, None, adjoint, settings)[0]


def layout(made, memory, chunks=None, shards=None, workers=2):
    return plan_layout(made, chunks, shards, memory, workers, 1024)


VOLUME = (2, 64, 64, 64), (2, 32, 32, 32), (2, 4, 3, 3, 3)


def test_chunks_are_the_source_s_times_the_stride():
    assert layout(contraction(*VOLUME, stride=2), 10**9).chunks == (4, 64, 64, 64)
    assert layout(contraction(*VOLUME, stride=(1, 2, 3)), 10**9).chunks == (4, 32, 64, 96)
    batched = contraction((6, 2, 64), (4, 2, 16), (2, 5, 4), stride=3)
    assert layout(batched, 10**9).chunks == (4, 5, 48)


def test_chunks_of_the_adjoint_are_the_source_s():
    made = contraction((4, 128, 128), (4, 32, 32), (2, 4, 2, 2), adjoint=True, stride=2)
    assert layout(made, 10**9).chunks == (2, 32, 32)


def test_less_memory_makes_chunks_smaller_and_every_task_keeps_within_its_share():
    made = contraction(*VOLUME, stride=2)
    amounts = [10**8, 6 * 10**7, 4 * 10**7, 2 * 10**7]
    found = [layout(made, memory) for memory in amounts]
    for each, memory in zip(found, amounts, strict=True):
        assert each.needed_bytes <= memory
        kept = each.kept_chunks * made.source.chunk_bytes
        assert each.needed_bytes == 1024 + 2 * each.task_bytes + kept
    sizes = [np.prod(each.chunks) for each in found]
    assert all(a >= b for a, b in pairwise(sizes))
    assert sizes[0] > sizes[-1]


def test_the_longest_axis_is_halved_first_then_channels():
    made = contraction((2, 8, 64), (2, 8, 64), (2, 2**15, 1, 1))
    seen, memory = [], 10**9
    while True:
        try:
            found = layout(made, memory, workers=1)
        except MemoryLimitError:
            break
        if found.chunks not in seen:
            seen.append(found.chunks)
        memory = found.needed_bytes - 1
    assert seen[0] == (2**15, 8, 64)
    assert seen[1] == (2**15, 8, 32)
    assert seen[-1] == (2**14, 1, 1)
    assert all(b[n] <= a[n] for a, b in pairwise(seen) for n in range(3))


def test_chunks_that_are_small_already_are_not_halved():
    made = contraction((1, 64), (1, 64), (1, 1, 3))
    with pytest.raises(MemoryLimitError, match=r"pass memory=\"\d+MB\" or fewer workers"):
        layout(made, 10**6)


def test_a_source_of_one_chunk_counts_with_all_of_it():
    shape, weight = (1, 1024, 1024), (1, 1, 2, 2)
    fine = layout(contraction(shape, (1, 64, 64), weight, stride=2), 10**9, (1, 64, 64))
    whole = layout(contraction(shape, shape, weight, stride=2), 10**9, (1, 64, 64))
    assert whole.task_bytes >= 4 * 2**20 > fine.task_bytes


def test_large_chunks_are_decoded_one_after_the_other_where_memory_is_short():
    """Of 16 MiB, which windows of k3 meet four at a time."""
    made = contraction((16, 2048, 2048), (16, 512, 512), (16, 4, 3, 3), stride=2)
    plenty, short = layout(made, 2 * 10**9), layout(made, 200 * 10**6)
    assert plenty.kept_chunks >= 4
    assert short.kept_chunks == 1
    assert short.needed_bytes <= 200 * 10**6


def test_a_task_is_a_shard():
    found = layout(contraction(*VOLUME, stride=2), 10**9, (4, 16, 16, 16), (4, 64, 64, 64))
    assert found.volume.grid.shape == (1, 3, 3, 3)
    assert found.chunks == (4, 16, 16, 16)


@pytest.mark.parametrize("shape", [(1, 10**6, 10**6), (1, 10**4, 10**4, 10**4)])
def test_a_volume_of_any_size_is_planned_at_once(shape):
    rank = len(shape) - 1
    made = contraction(shape, (1,) + (100,) * rank, (1, 1) + (3,) * rank, stride=2)
    found = layout(made, 10**9)
    assert len(found.volume.grid) >= 10**6
    assert found.volume.grid.index_of(len(found.volume.grid) - 1) == tuple(
        n - 1 for n in found.volume.grid.shape
    )
