"""HOW A CALL GOES THROUGH ITS ITEMS: the one native function that every thread runs.

    while (item := counter++) < items:                     # a block of rows, a run of channels
        pack the cells of x that the item reads into a panel, zeros around them     # panels.py
        for block in channels of y:
            for tiles in the block's tiles:                # rows that read the same cells
                for part in the sum's parts:               # terms whose weights the L1 holds
                    for lane in the panel's lanes:
                        for tile in tiles:                 # whose weights the L1 holds, too
                            micro(weights, panel, line)    # kernels.py
            activate the lines                             # epilogue.py, if anything follows
            interleave the phases of the lines into y      # output.py

A lane is a cell of the panel. In a *flat* panel every channel has its planes and rows of x as they
are, so a tap is a step to another cell; the lanes run on across rows, and those in the borders are
computed in vain. In a *gathered* panel every channel has one row of cells for each shift, so no
lane is in vain, whatever rows and images they come from; that pays for small images. An item that
is *spread* has no panel: `spread`. One that is *tiled* has sums of cells in its place: `tiles`.
"""

from tconv.engine.codegen.abi import TILE, Call, Item, each_tile
from tconv.engine.codegen.code import ElementType, begin
from tconv.engine.codegen.llvm import I32, I64, PTR, Module, Value
from tconv.engine.direct.col2im import Cells, add_up, multiply
from tconv.engine.direct.input_panel import find_runs, gather, pack
from tconv.engine.direct.write_output import copy_out
from tconv.engine.winograd.driver import prepare, restore

__all__ = ["run", "run_spread", "run_tiled"]


def run(module: Module, name: str, element: ElementType) -> None:
    """Emit ``run(arguments, thread)``: take items until there are none."""
    _emit(module, name, element)


def run_spread(module: Module, name: str, element: ElementType) -> None:
    """Emit the same for items that are spread."""
    _emit(module, name, element, spreads=True)


def run_tiled(module: Module, name: str, element: ElementType) -> None:
    """Emit the same for items that are tiled."""
    _emit(module, name, element, tiles=True)


def _emit(
    module: Module, name: str, element: ElementType, *, spreads: bool = False, tiles: bool = False
) -> None:
    code, a = begin(module, name, {"arguments": PTR, "thread": I64}, element)
    c = Call(code, a["arguments"])
    _share_scratch(c, a["thread"])
    with code.items(c.counter, c.items) as taken:
        item = Item(c, taken)
        if spreads:
            cells = Cells(c, item)
        elif tiles:
            prepare(c, item)
        else:
            with code.if_else(code.is_equal(c.is_gathered, 0)) as (flat, gathered):
                with flat:
                    pack(c, item, c.panel, 0, c.channels)
                with gathered:
                    find_runs(c, item)
                    gather(c, item, c.panel, 0, c.channels)
        share = code.div(code.add(c.blocks, code.sub(c.splits, 1)), c.splits)
        start = code.mul(item.split, share)
        with code.loop(code.least(c.blocks, code.add(start, share)), start) as block:
            is_last = code.is_equal(block, code.sub(c.blocks, 1))
            of_group = code.add(code.mul(item.group, c.blocks), block)
            weight = code.at(c.weight, code.mul(of_group, c.weight_block))
            bias = code.at(c.bias, code.mul(of_group, c.bias_block))
            if spreads:
                with code.loop(c.channels, step=c.part) as channel:
                    multiply(c, cells, weight, bias, is_last, channel)
                    with code.when(code.is_equal(c.is_plain, 0)):
                        add_up(c, item, cells, bias, is_last, channel)
            elif tiles:
                _sum(c, item, weight, None, is_last, c.products, c.product_pitch)
                restore(c, bias, is_last)
            else:
                _sum(c, item, weight, bias, is_last, c.line, c.line_pitch)
            _activate(c, is_last)
            of_block = code.mul(code.mul(block, c.block), c.y_channel)
            y = code.add(code.mul(item.group, c.y_group), of_block)
            copy_out(c, item, code.cell(c.y, y), is_last)
    code.fence()
    code.end()


def _share_scratch(c: Call, thread: Value) -> None:
    """Find the places of a thread in what all threads are given."""
    code = c.code
    c.panel = code.at(c.scratch, code.mul(thread, c.scratch_size))
    c.products = code.at(c.panel, c.panel_size)
    c.runs = code.at(c.products, code.sub(0, c.runs_size))
    c.line = code.at(c.products, c.product_size)
    c.row_lines = code.at(c.line, c.line_size)
    c.row_of_y = code.at(c.row_lines, code.mul(c.stride_y, c.stride_x), I64)
    c.held, c.begun, c.to = (code.builder.alloca(kind) for kind in (I64, PTR, PTR))
    code.builder.store(code.index(0), c.held)
    code.builder.store(c.y, c.begun)


def _activate(c: Call, is_last: Value) -> None:
    """Replace all lines of a block by what follows them, the lanes in vain included."""
    code = c.code
    lines = code.mul(code.pick(is_last, c.last_block, c.block), c.phases)
    with code.when(code.is_given(c.activate)):
        code.call(c.activate, c.line, code.mul(lines, c.line_pitch), c.slope)


def _sum(
    c: Call,
    item: Item,
    weight: Value,
    bias: Value | None,
    is_last: Value,
    lines: Value,
    pitch: Value,
) -> None:
    """Fill the lines of a block of channels, tile by tile; without a bias from zero."""
    code = c.code
    tiles = code.pick(is_last, c.last_tiles, c.tiles)
    # An item at an edge has fewer lanes: then the last of them are computed as if there were more.
    lanes = code.add(code.mul(code.sub(item.rows, 1), c.pitch), item.columns)
    needed = code.div(code.add(lanes, code.sub(c.wide_lanes, 1)), c.wide_lanes)
    is_short = code.is_less(needed, code.add(c.wide_calls, c.rest_calls))
    wide_calls = code.pick(is_short, needed, c.wide_calls)
    rest_calls = code.pick(is_short, 0, c.rest_calls)
    with code.loop(code.pick(is_last, c.last_tile_count, c.tile_count)) as number:
        tile = TILE.load(code, tiles, number)
        wide = code.load(c.micros, tile["micro"], PTR)
        narrow = code.load(c.micros, code.add(tile["micro"], 1), PTR)
        to = code.at(lines, code.mul(tile["line"], pitch))
        of_rows = c.zeros if bias is None else code.at(bias, tile["line"])
        of_tile = code.at(weight, tile["weight"])
        by_tap = code.is_equal(c.by_tap, 1)
        together = code.pick(by_tap, 1, tile["taps"])  # taps that are summed as one
        # A phase that no tap reaches has no terms, but its bias is still to be written.
        turns = code.pick(by_tap, code.most(tile["taps"], 1), 1)
        with code.loop(c.channels, step=c.part) as channel:
            channels = code.least(c.part, code.sub(c.channels, channel))
            before = code.mul(channel, tile["taps"])  # terms
            terms = code.mul(channels, code.least(together, tile["taps"]))
            with code.loop(turns) as tap:
                term = code.add(code.mul(tap, c.channels), channel)
                w = code.at(of_tile, code.mul(code.pick(by_tap, term, before), tile["rows"]))
                offset = code.add(tile["offsets"], before, code.mul(tap, channels))
                offsets = code.at(c.offsets, offset, I32)
                first = code.pick(code.is_equal(code.add(channel, tap), 0), 1, 0)
                calls = ((wide, wide_calls, 0), (narrow, rest_calls, wide_calls))
                for kernel, count, earlier in calls:
                    with code.loop(count) as call:
                        n = code.add(call, earlier)
                        x = code.at(c.panel, code.mul(n, c.panel_tile))
                        place = (w, x, offsets, code.at(to, code.mul(n, c.wide_lanes)), of_rows)
                        each_tile(c, kernel, tile, place, (terms, pitch, first))
