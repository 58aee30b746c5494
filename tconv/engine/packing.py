"""HOW WEIGHTS ARE PACKED: into the order in which the micro-kernels read them, natively.

for tile in tiles of a block:                        # (terms, rows), terms = (channels, taps)
    for channel in channels:
        packed[tile][channel] = w[channel, block][table of the tile]      # kernels.gather
"""

from typing import Any

import numpy as np
from llvmlite import ir
from numpy.typing import NDArray

from tconv.engine.ir import I32, I64, PTR, Number, begin
from tconv.engine.layout import Layout

__all__ = ["PACK_FIELDS", "pack_arguments", "pack_run"]

_POINTERS = ("weight", "packed", "counter", "tables", "tiles", "last_tiles", "gather")
PACK_FIELDS = (
    *("items", "blocks", "channels", "weight_group", "weight_channel", "weight_block"),
    *("packed_block", "tile_count", "last_tile_count"),
)
_TILE = ("weight", "table", "count")
Value = Any


def pack_run(module: ir.Module, name: str, number: Number) -> None:
    """Emit ``pack_run(arguments, thread)``: take blocks of groups until there are none."""
    code, a = begin(module, name, {"arguments": PTR, "thread": I64}, number)
    p = {name: code.load(a["arguments"], n, PTR) for n, name in enumerate(_POINTERS)}
    f = {
        name: code.load(a["arguments"], len(_POINTERS) + n, I64)
        for n, name in enumerate(PACK_FIELDS)
    }
    with code.forever() as done:
        item = code.builder.atomic_rmw("add", p["counter"], code.index(1), "monotonic")
        code.leave_when(code.is_less(code.sub(f["items"], 1), item), done)
        group, block = code.divmod(item, f["blocks"])
        is_last = code.is_equal(block, code.sub(f["blocks"], 1))
        tiles = code.pick(is_last, p["last_tiles"], p["tiles"])
        count = code.pick(is_last, f["last_tile_count"], f["tile_count"])
        start = code.add(code.mul(group, f["weight_group"]), code.mul(block, f["weight_block"]))
        weight = code.at(p["weight"], start)
        packed = code.at(p["packed"], code.mul(item, f["packed_block"]))
        with code.loop(count) as n:
            entry = code.at(tiles, code.mul(n, len(_TILE)), I64)
            tile = {name: code.load(entry, place, I64) for place, name in enumerate(_TILE)}
            table = code.at(p["tables"], tile["table"], I32)
            to = code.at(packed, tile["weight"])
            with code.loop(f["channels"]) as channel:
                row = code.at(to, code.mul(channel, tile["count"]))
                source = code.at(weight, code.mul(channel, f["weight_channel"]))
                code.call(p["gather"], row, source, table, tile["count"])
    code.end()


def pack_arguments(layout: Layout, gather: int) -> tuple[NDArray[np.int64], list[NDArray[Any]]]:
    """Arguments of `pack_run` but weight, packed and counter; and the arrays they point to."""
    taps = list(layout.taps())
    size = int(np.prod([axis.kernel for axis in layout.geometry.axes]))
    tables, start = [], 0
    lists = []
    for tiles in (layout.block_tiles, layout.last_tiles):
        entries = []
        for tile in tiles:
            of_tile = taps[tile.alike]  # (taps, phases)
            rows = np.arange(tile.first, tile.first + tile.rows)
            output, phase = np.divmod(rows, of_tile.shape[1])
            table = of_tile[:, phase] + output * size if of_tile.size else of_tile[:, :0]
            entries.append((tile.weight, start, table.size))
            tables.append(table.ravel())
            start += table.size
        lists.append(np.array(entries, np.int64).reshape(-1, len(_TILE)))
    kept: list[NDArray[Any]] = [np.concatenate(tables).astype(np.int32), *lists]
    fields = {
        "items": layout.geometry.groups * layout.blocks,
        "blocks": layout.blocks,
        "channels": layout.channels,
        "weight_group": layout.channels * layout.outputs * size,
        "weight_channel": layout.outputs * size,
        "weight_block": layout.plan.block * size,
        "packed_block": layout.weight_block,
        "tile_count": len(layout.block_tiles),
        "last_tile_count": len(layout.last_tiles),
    }
    addresses = [0, 0, 0, *(array.ctypes.data for array in kept), gather]
    sizes = [fields[name] for name in PACK_FIELDS]
    return np.array(addresses + sizes, np.int64), kept
