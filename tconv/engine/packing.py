"""HOW WEIGHTS ARE PACKED: into the order in which the micro-kernels read them, natively.

    while (item := counter++) < items:                # a group's channels of x, some of them
        for block in channels of y:
            make what is packed of it, if outputs share products                # making.py
            for tile in the block's tiles, or for each tap of a tile if sums are made by tap:
                for channel in channels of the item:
                    packed[tile][channel] = w[channel, block][table of the tile]       # taps, rows

In this order w is read nearly as it lies, and each tile gets a run of some KB. A table says where
the numbers of a few channels are that together fill whole vectors, and so the processor gathers
them, or LLVM loads one after the other where that is as fast.
"""

from itertools import groupby
from math import gcd
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.engine import values as ir
from tconv.engine.halves import load_cell, widened
from tconv.engine.ir import I32, I64, PTR, Code, Number, begin
from tconv.engine.layout import Layout
from tconv.engine.making import MAKE_FIELDS, MAKE_POINTERS, VECTORS, factors, make

__all__ = ["PACK_FIELDS", "pack_arguments", "pack_made_run", "pack_run"]

_POINTERS = (
    *("weight", "packed", "counter", "scratch"),
    *("tables", "tiles", "last_tiles"),
    *MAKE_POINTERS,
)
PACK_FIELDS = (
    *("items", "chunks", "chunk", "blocks", "channels"),
    *("weight_group", "weight_channel", "weight_block", "packed_group", "packed_block"),
    *("tile_count", "last_tile_count", "block", "last_block"),
    "table_channel",
    *MAKE_FIELDS,
)
_TILE = ("weight", "table", "count", "channels")
# 20 GB/s where memcpy makes 28 (Xeon, 2 cores). With 1 KB at a time for a tile it is half of that;
# more channels are no faster.
_RUN_BYTES, _MOST_CHANNELS = 4096, 32
# The tiles of a block read the same lines of w again. Steps of whole pages between channels bring
# them all to one place in a cache, which holds so many: 512 to 256 channels, kernel 16, took 5.1 ms
# on one thread with 32 channels and 2.5 with 8 (Zen 3).
_WAYS, _WAY_BYTES = 8, 4096
_ITEMS_PER_THREAD = 4
_MADE_BYTES = 2**20  # at most, of numbers that are made before they are packed
_LONG = 256  # numbers of a channel in a tile: what fills no vector then is little
Value = Any


def pack_run(module: ir.Module, name: str, number: Number) -> None:
    """Emit ``pack_run(arguments, thread)``: take channels of groups until there are none."""
    _emit(module, name, number)


def pack_made_run(module: ir.Module, name: str, number: Number) -> None:
    """Emit the same for numbers that are made of the weights."""
    _emit(module, name, number, makes=True)


def _emit(module: ir.Module, name: str, number: Number, *, makes: bool = False) -> None:
    code, a = begin(module, name, {"arguments": PTR, "thread": I64}, number)
    f = code.record(a["arguments"], PACK_FIELDS, _POINTERS)
    with code.items(f["counter"], f["items"]) as item:
        group, chunk = code.divmod(item, f["chunks"])
        first = code.mul(chunk, f["chunk"])
        channels = code.least(f["chunk"], code.sub(f["channels"], first))
        start = code.add(code.mul(group, f["weight_group"]), code.mul(first, f["weight_channel"]))
        weight = code.cell(f["weight"], start)
        packed = code.at(f["packed"], code.mul(group, f["packed_group"]))
        with code.loop(f["blocks"]) as block:
            is_last = code.is_equal(block, code.sub(f["blocks"], 1))
            tiles = code.pick(is_last, f["last_tiles"], f["tiles"])
            of_block = code.cell(weight, code.mul(block, f["weight_block"]))
            if makes:
                outputs = code.pick(is_last, f["last_block"], f["block"])
                made = code.at(f["scratch"], code.mul(a["thread"], f["made_size"]))
                make(code, f, made, of_block, channels, outputs)
                of_block = made
            to = code.at(packed, code.mul(block, f["packed_block"]))
            with code.loop(code.pick(is_last, f["last_tile_count"], f["tile_count"])) as n:
                entry = code.at(tiles, code.mul(n, len(_TILE)), I64)
                tile = code.record(entry, _TILE)
                table = code.at(f["tables"], tile["table"], I32)
                of_tile = code.at(to, code.add(tile["weight"], code.mul(first, tile["count"])))
                with code.loop(channels, step=tile["channels"]) as channel:
                    many = code.least(tile["channels"], code.sub(channels, channel))
                    row = code.at(of_tile, code.mul(channel, tile["count"]))
                    source = code.cell(of_block, code.mul(channel, f["table_channel"]))
                    _gather(code, row, source, table, code.mul(many, tile["count"]))
    code.end()


def _gather(code: Code, row: Value, source: Value, table: Value, count: Value) -> None:
    """``row[:count] = source[table[:count]]``."""
    lanes = code.number.lanes
    whole = code.mul(code.div(count, lanes), lanes)
    with code.loop(whole, step=lanes) as n:
        code.store_vector(_gathered(code, source, code.at(table, n, I32)), row, n)
    with code.loop(count, whole) as n:
        cell = code.builder.sext(code.load(table, n, I32), I64)
        code.store(load_cell(code, source, cell), row, n)


def _gathered(code: Code, source: Value, table: Value) -> Value:
    """The vector ``source[table[:lanes]]``."""
    number = code.number
    vector = ir.VectorType(number.cell, number.lanes)
    if not number.gathers:
        found: Value = ir.Constant(vector, ir.Undefined)
        for lane in range(number.lanes):
            cell = code.cell(source, code.builder.sext(code.load(table, lane, I32), I64))
            value = code.builder.load(cell, typ=number.cell)
            found = code.builder.insert_element(found, value, ir.Constant(I32, lane))
        return widened(code, found)
    cells = code.builder.load(table, align=4, typ=ir.VectorType(I32, number.lanes))
    places = code.builder.gep(source, [cells], source_etype=number.cell)
    mask = ir.VectorType(ir.IntType(1), number.lanes)
    suffix = "i16" if number.is_half else number.suffix
    name = f"llvm.masked.gather.v{number.lanes}{suffix}.v{number.lanes}p0"
    gather = code.builder.module.declared(name, vector, [places.type, I32, mask, vector])
    everything = ir.Constant(mask, [1] * number.lanes)
    nothing, align = ir.Constant(vector, None), I32(number.cell_bytes)
    return widened(code, code.builder.call(gather, [places, align, everything, nothing]))


def pack_arguments(layout: Layout) -> tuple[NDArray[np.int64], list[NDArray[Any]], int]:
    """Arguments of `pack_run` but for addresses, the arrays they point to, and bytes of scratch."""
    taps, problem, matrix = list(layout.taps()), layout.problem, layout.weight_matrix
    by_tap = layout.plan.part.by_tap
    counts = {
        tile.rows * (1 if by_tap else len(taps[tile.kind]))
        for tile in (*layout.block_tiles, *layout.last_tiles)
    }
    together = max(_channels(count, layout) for count in counts)
    chunk = _chunk(layout, together)
    if matrix is not None:
        of_channel_bytes = layout.plan.block * matrix.shape[1] * layout.computed.itemsize
        chunk = min(chunk, max(1, _MADE_BYTES // of_channel_bytes // together) * together)
    of_channel, of_output = problem.weight_steps(problem.taps)
    made = {"table_channel": of_channel} | dict.fromkeys(MAKE_FIELDS, 0)
    table_output, of_number = of_output, 1
    if matrix is not None:
        made, table_output, of_number = _made(layout, matrix.shape[1], chunk)
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
            whole = of_kind[:, np.newaxis] * of_number
            whole = whole + np.arange(block)[:, np.newaxis] * table_output
            whole = whole.reshape(len(of_kind), block * of_kind.shape[1])  # (taps, rows)
            for tile in group:
                of_rows = whole[:, tile.first : tile.first + tile.rows]
                for n, table in enumerate(of_rows if by_tap else [of_rows.ravel()]):
                    channels = _channels(table.size, layout)
                    weight = tile.weight + n * layout.channels * tile.rows
                    entries.append((weight, start, table.size, channels))
                    if channels > 1:
                        of_channels = np.arange(channels)[:, np.newaxis] * table_channel
                        table = (of_channels + table).ravel()
                    tables.append(table)
                    start += table.size
        lists.append(np.array(entries, np.int64).reshape(-1, len(_TILE)))
    kept: list[NDArray[Any]] = [np.concatenate(tables).astype(np.int32), *lists]
    kept += factors(np.zeros((1, 0), layout.computed) if matrix is None else matrix, layout.lanes)
    chunks = -(-layout.channels // chunk)
    fields = {
        "items": problem.geometry.groups * chunks,
        "chunks": chunks,
        "chunk": chunk,
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
    addresses = [0, 0, 0, 0, *(array.ctypes.data for array in kept)]
    fields |= made
    words = np.array(addresses + [fields[name] for name in PACK_FIELDS], np.int64)
    return words, kept, made["made_size"] * layout.plan.threads * layout.computed.itemsize


def _made(layout: Layout, numbers: int, chunk: int) -> tuple[dict[str, int], int, int]:
    """Sizes of what is made of some channels and a block; steps to an output and to a number."""
    taps, block, together = layout.problem.taps, layout.plan.block, VECTORS * layout.lanes
    of_channel, of_output = layout.problem.weight_steps(taps)
    is_by_channel = of_channel > of_output
    runs, pairs = (chunk, block) if is_by_channel else (block, chunk)
    run = -(-pairs // together) * together
    pitch = runs * run + together  # not all numbers at the same place in the cache
    sizes = {
        "taps": taps,
        "numbers": numbers,
        "made_size": numbers * pitch + max(taps, layout.lanes) * together,
        "made_pitch": pitch,
        "made_run": run,
        "weight_run": max(of_channel, of_output),
        "is_by_channel": int(is_by_channel),
        "table_channel": run if is_by_channel else 1,
    }
    return sizes, 1 if is_by_channel else run, pitch


def _channels(count: int, layout: Layout) -> int:
    """How many channels, of `count` numbers each, fill whole vectors together."""
    if not 0 < count <= _LONG:
        return 1
    return min(layout.lanes // gcd(layout.lanes, count), layout.channels)


def _chunk(layout: Layout, channels: int) -> int:
    """Channels of an item: a multiple of `channels`."""
    of_tile = layout.weight_block // layout.channels / len(layout.block_tiles)
    wanted = _RUN_BYTES / max(1.0, of_tile * layout.computed.itemsize)
    items = _ITEMS_PER_THREAD * layout.plan.threads
    most = layout.problem.geometry.groups * layout.channels / items
    if layout.weight_matrix is None:  # else tiles read what was made
        step, _ = layout.problem.weight_steps(layout.problem.taps)
        most = min(most, _WAYS * _WAY_BYTES // gcd(step * layout.dtype.itemsize, _WAY_BYTES))
    return channels * max(1, int(min(wanted, _MOST_CHANNELS, most) / channels))
