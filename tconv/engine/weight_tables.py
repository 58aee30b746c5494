"""Tables of weight packing: the arguments of `run_packing` for a layout."""

from itertools import groupby
from math import gcd
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.engine.direct.layout import Layout
from tconv.engine.kernels.pack_weights import PACK_ARGUMENTS, PACKED_TILE
from tconv.engine.kernels.transform_weights import TRANSFORM_ARGUMENTS, VECTORS, transform_factors

__all__ = ["pack_arguments"]

# In a tile of more elements a channel, vectors of one channel leave few lanes empty.
_LONG = 256

# 20 GB/s where memcpy reaches 28 (Xeon, 2 cores). With 1 KB at a time for a tile it is half of
# that; more channels are no faster.
_RUN_BYTES, _MOST_CHANNELS = 4096, 32

# The tiles of a block read the same cache lines of w again. With whole pages between channels all
# of them share one cache set, which has so many ways: 512 to 256 channels, kernel 16, took 5.1 ms
# on one thread with 32 channels and 2.5 with 8 (Zen 3).
_WAYS, _WAY_BYTES = 8, 4096

_TASKS_PER_THREAD = 4
_MADE_BYTES = 2**20  # at most, of weights that are transformed before they are packed


def pack_arguments(layout: Layout) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]], int]:
    """Arguments of `run_packing` but addresses, arrays by name, and bytes of scratch."""
    taps, problem, matrix = list(layout.taps()), layout.problem, layout.weight_matrix
    per_tap = layout.plan.k_block.per_tap
    counts = {
        tile.rows * (1 if per_tap else len(taps[tile.kind]))
        for tile in (*layout.block_tiles, *layout.last_tiles)
    }
    together = max(_channels(count, layout) for count in counts)
    channel_block = _channel_block(layout, together)
    if matrix is not None:
        of_channel_bytes = layout.plan.block * matrix.shape[1] * layout.computed.itemsize
        channel_block = min(
            channel_block, max(1, _MADE_BYTES // of_channel_bytes // together) * together
        )
    of_channel, of_output = problem.weight_steps(problem.taps)
    made = {"table_channel": of_channel} | dict.fromkeys(TRANSFORM_ARGUMENTS.words, 0)
    table_output, of_element = of_output, 1
    if matrix is not None:
        made, table_output, of_element = _made(layout, matrix.shape[1], channel_block)
    table_channel = made["table_channel"]
    tables, start, lists = [np.zeros(0, np.int64)], 0, list[NDArray[np.int64]]()
    for tiles, block in (
        (layout.block_tiles, layout.plan.block),
        (layout.last_tiles, layout.last_block),
    ):
        if lists and tiles == layout.block_tiles:
            lists.append(lists[0])
            break
        entries = []
        for kind, group in groupby(tiles, attrgetter("kind")):
            of_kind = taps[kind]  # (taps, phases)
            whole = of_kind[:, np.newaxis] * of_element
            whole = whole + np.arange(block)[:, np.newaxis] * table_output
            whole = whole.reshape(len(of_kind), block * of_kind.shape[1])  # (taps, rows)
            for tile in group:
                of_rows = whole[:, tile.first : tile.first + tile.rows]
                for n, table in enumerate(of_rows if per_tap else [of_rows.ravel()]):
                    channels = _channels(table.size, layout)
                    weight = tile.weight + n * layout.channels * tile.rows
                    entries.append(
                        PACKED_TILE.row(
                            weight=weight, table=start, count=table.size, channels=channels
                        )
                    )
                    if channels > 1:
                        of_channels = np.arange(channels)[:, np.newaxis] * table_channel
                        table = (of_channels + table).ravel()
                    tables.append(table)
                    start += table.size
        lists.append(np.array(entries, np.int64).reshape(-1, len(PACKED_TILE)))
    made_by = transform_factors(
        np.zeros((1, 0), layout.computed) if matrix is None else matrix, layout.lanes
    )
    kept: dict[str, NDArray[Any]] = {
        "tables": np.concatenate(tables).astype(np.int32),
        "tiles": lists[0],
        "last_tiles": lists[1],
        **dict(zip(TRANSFORM_ARGUMENTS.pointers, made_by, strict=True)),
    }
    channel_blocks = -(-layout.channels // channel_block)
    fields = {
        "tasks": problem.geometry.groups * channel_blocks,
        "channel_blocks": channel_blocks,
        "channel_block": channel_block,
        "blocks": layout.blocks,
        "channels": layout.channels,
        "weight_group": layout.channels * layout.outputs * problem.taps,
        "weight_channel": of_channel,
        "weight_block": layout.plan.block * of_output,
        "packed_group": layout.blocks * layout.weight_block,
        "packed_block": layout.weight_block,
        "tile_count": len(lists[0]),
        "last_tile_count": len(lists[1]),
        "block": layout.plan.block,
        "last_block": layout.last_block,
    }
    words = PACK_ARGUMENTS.pack(PACK_ARGUMENTS.addresses() | fields | made)
    return words, kept, made["transformed_size"] * layout.plan.threads * layout.computed.itemsize


def _made(layout: Layout, points: int, channel_block: int) -> tuple[dict[str, int], int, int]:
    """Sizes of a task's transformed weights; steps to an output and to a point."""
    taps, block, together = layout.problem.taps, layout.plan.block, VECTORS * layout.lanes
    of_channel, of_output = layout.problem.weight_steps(taps)
    is_by_channel = of_channel > of_output
    runs, pairs = (channel_block, block) if is_by_channel else (block, channel_block)
    run = -(-pairs // together) * together
    pitch = runs * run + together  # so that points do not share a cache set
    sizes = {
        "taps": taps,
        "elements": points,
        "transformed_size": points * pitch + max(taps, layout.lanes) * together,
        "transformed_pitch": pitch,
        "transformed_run": run,
        "weight_run": max(of_channel, of_output),
        "is_by_channel": int(is_by_channel),
        "table_channel": run if is_by_channel else 1,
    }
    return sizes, 1 if is_by_channel else run, pitch


def _channels(count: int, layout: Layout) -> int:
    """How many channels, of `count` elements each, fill whole vectors together."""
    if not 0 < count <= _LONG:
        return 1
    return min(layout.lanes // gcd(layout.lanes, count), layout.channels)


def _channel_block(layout: Layout, channels: int) -> int:
    """Channels of a task: a multiple of `channels`."""
    of_tile = layout.weight_block // layout.channels / len(layout.block_tiles)
    wanted = _RUN_BYTES / max(1.0, of_tile * layout.computed.itemsize)
    tasks = _TASKS_PER_THREAD * layout.plan.threads
    most = layout.problem.geometry.groups * layout.channels / tasks
    if layout.weight_matrix is None:  # else tiles read the transformed weights
        step, _ = layout.problem.weight_steps(layout.problem.taps)
        most = min(most, _WAYS * _WAY_BYTES // gcd(step * layout.dtype.itemsize, _WAY_BYTES))
    return channels * max(1, int(min(wanted, _MOST_CHANNELS, most) / channels))
