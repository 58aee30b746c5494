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
from tconv.engine.kernels.transform_weights import TRANSFORM_ARGUMENTS, make

__all__ = ["PACK_ARGUMENTS", "PACKED_TILE", "pack_made_run", "pack_run"]

PACK_ARGUMENTS = Record(
    pointers=(
        *("weight", "packed", "counter", "scratch"),  # written for each call, by `Job`
        *("tables", "tiles", "last_tiles"),
        *TRANSFORM_ARGUMENTS.pointers,
    ),
    words=(
        *("items", "chunks", "chunk", "blocks", "channels"),
        *("weight_group", "weight_channel", "weight_block", "packed_group", "packed_block"),
        *("tile_count", "last_tile_count", "block", "last_block"),
        "table_channel",
        *TRANSFORM_ARGUMENTS.words,
    ),
)
"""Arguments of the drivers that pack weights; `weight_tables.pack_arguments` writes them."""

PACKED_TILE = Record(words=("weight", "table", "count", "channels"))
_LONG = 256  # numbers of a channel in a tile: what fills no vector then is little


def pack_run(module: Module, name: str, element: ElementType) -> None:
    """Emit ``pack_run(arguments, thread)``: take channels of groups until there are none."""
    _emit(module, name, element)


def pack_made_run(module: Module, name: str, element: ElementType) -> None:
    """Emit the same for numbers that are made of the weights."""
    _emit(module, name, element, makes=True)


def _emit(module: Module, name: str, element: ElementType, *, makes: bool = False) -> None:
    code, a = begin(module, name, {"arguments": PTR, "thread": I64}, element)
    f = PACK_ARGUMENTS.load(code, a["arguments"])
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
    """The vector ``source[table[:lanes]]``."""
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
