"""Weight packing: weights in the order in which the micro-kernels read them.

    while (task := counter++) < tasks:                # some channels of x of one group
        for block in channels of y:
            transform the block's weights, for Winograd                # transform_weights.py
            for tile in the block's tiles, or for each tap of a tile with per-tap accumulation:
                for channel in channels of the task:
                    packed[tile][channel] = w[channel, block][table of the tile]       # taps, rows

In this order w is read nearly as it lies in memory, and each tile gets a run of some KB. A table
has the offsets of the elements of a few channels, which together fill whole vectors: the CPU
gathers them, or loads them one by one where that is as fast.
"""

from tconv.engine.codegen.abi import Record
from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.half import load_cell, widened
from tconv.engine.codegen.llvm import (
    I32,
    I64,
    PTR,
    Constant,
    IntType,
    Module,
    Undefined,
    Value,
    VectorType,
)
from tconv.engine.kernels.transform_weights import TRANSFORM_ARGUMENTS, transform

__all__ = ["PACKED_TILE", "PACK_ARGUMENTS", "run_packing", "run_transformed_packing"]

PACK_ARGUMENTS = Record(
    pointers=(
        *("weight", "packed", "counter", "scratch"),  # written for each call, by `Job`
        *("tables", "tiles", "last_tiles"),
        *TRANSFORM_ARGUMENTS.pointers,
    ),
    words=(
        *("tasks", "channel_blocks", "channel_block", "blocks", "channels"),
        *("weight_group", "weight_channel", "weight_block", "packed_group", "packed_block"),
        *("tile_count", "last_tile_count", "block", "last_block"),
        "table_channel",
        *TRANSFORM_ARGUMENTS.words,
    ),
)
"""Arguments of the drivers that pack weights; `weight_tables.pack_arguments` writes them."""

PACKED_TILE = Record(words=("weight", "table", "count", "channels"))


def run_packing(module: Module, name: str, element: ElementType) -> None:
    """Emit ``run_packing(arguments, thread)``: take channels of groups until there are none."""
    _emit(module, name, element)


def run_transformed_packing(module: Module, name: str, element: ElementType) -> None:
    """Emit the same, which transforms the weights before it packs them."""
    _emit(module, name, element, transforms=True)


def _emit(module: Module, name: str, element: ElementType, *, transforms: bool = False) -> None:
    code, a = begin(module, name, {"arguments": PTR, "thread": I64}, element)
    f = PACK_ARGUMENTS.load(code, a["arguments"])
    with code.tasks(f["counter"], f["tasks"]) as task:
        group, n = code.divmod(task, f["channel_blocks"])
        first = code.mul(n, f["channel_block"])
        channels = code.least(f["channel_block"], code.sub(f["channels"], first))
        start = code.add(code.mul(group, f["weight_group"]), code.mul(first, f["weight_channel"]))
        weight = code.cell(f["weight"], start)
        packed = code.at(f["packed"], code.mul(group, f["packed_group"]))
        with code.loop(f["blocks"]) as block:
            is_last = code.is_equal(block, code.sub(f["blocks"], 1))
            tiles = code.pick(is_last, f["last_tiles"], f["tiles"])
            of_block = code.cell(weight, code.mul(block, f["weight_block"]))
            if transforms:
                outputs = code.pick(is_last, f["last_block"], f["block"])
                transformed = code.at(f["scratch"], code.mul(a["thread"], f["transformed_size"]))
                transform(code, f, transformed, of_block, channels, outputs)
                of_block = transformed
            to = code.at(packed, code.mul(block, f["packed_block"]))
            with code.loop(code.pick(is_last, f["last_tile_count"], f["tile_count"])) as n:
                tile = PACKED_TILE.load(code, tiles, n)
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
    lanes = code.element.lanes
    whole = code.mul(code.div(count, lanes), lanes)
    with code.loop(whole, step=lanes) as n:
        code.store_vector(_gathered(code, source, code.at(table, n, I32)), row, n)
    with code.loop(count, whole) as n:
        cell = code.builder.sext(code.load(table, n, I32), I64)
        code.store(load_cell(code, source, cell), row, n)


def _gathered(code: Code, source: Value, table: Value) -> Value:
    """Return the vector ``source[table[:lanes]]``."""
    element = code.element
    vector = VectorType(element.cell, element.lanes)
    if not element.gathers:
        found: Value = Constant(vector, Undefined)
        for lane in range(element.lanes):
            cell = code.cell(source, code.builder.sext(code.load(table, lane, I32), I64))
            value = code.builder.load(cell, typ=element.cell)
            found = code.builder.insert_element(found, value, Constant(I32, lane))
        return widened(code, found)
    cells = code.builder.load(table, align=4, typ=VectorType(I32, element.lanes))
    places = code.builder.gep(source, [cells], source_etype=element.cell)
    mask = VectorType(IntType(1), element.lanes)
    suffix = "i16" if element.is_half else element.suffix
    name = f"llvm.masked.gather.v{element.lanes}{suffix}.v{element.lanes}p0"
    gather = code.builder.module.declared(name, vector, [places.type, I32, mask, vector])
    everything = Constant(mask, [1] * element.lanes)
    nothing, align = Constant(vector, None), I32(element.cell_bytes)
    return widened(code, code.builder.call(gather, [places, align, everything, nothing]))
