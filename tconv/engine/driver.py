"""Drivers of the cell algorithms: the native function in which every thread takes tasks.

    while a task is left:                                  # a block of rows, a run of channels
        pack the cells of x that the task reads into a panel, zeros around them   # input_panel.py
        for block in output channels:
            for tiles in the block's tiles:                # rows that read the same cells
                for k_block in channels of x:              # terms whose weights the L1 holds
                    for lane in the panel's lanes:
                        for tile in tiles:                 # whose weights the L1 holds, too
                            micro_kernel(weights, panel, accumulators)            # gemm.py
            activate the accumulators                      # activation.py, if there is one
            interleave the phases of the accumulators into y                      # write_output.py

A lane is a cell of the panel. In a *padded* panel (implicit GEMM) every channel has its planes and
rows of x as they are, so a tap is a step to another cell; lanes run on across rows, and those in
the borders are computed in vain. In an *im2col* panel every channel has one row of cells for each
shift, so no lane is in vain, whatever rows and images they come from; that pays for small images.
A col2im task has no panel (`direct/col2im.py`). A Winograd task transforms the cells of the panel
(`winograd/driver.py`).
"""

from tconv.engine.codegen.abi import TILE, Call, Task, each_tile
from tconv.engine.codegen.code import ElementType, begin
from tconv.engine.codegen.llvm import I32, I64, PTR, Module, Value
from tconv.engine.direct.col2im import Cells, multiply, scatter_add
from tconv.engine.direct.input_panel import find_runs, gather, pack
from tconv.engine.direct.write_output import copy_out
from tconv.engine.winograd.driver import run_input_transform, run_output_transform

__all__ = ["run", "run_col2im", "run_winograd"]


def run(module: Module, name: str, element: ElementType) -> None:
    """Emit ``run(arguments, thread)``: take tasks until there are none."""
    _emit(module, name, element)


def run_col2im(module: Module, name: str, element: ElementType) -> None:
    """Emit the same for col2im."""
    _emit(module, name, element, is_col2im=True)


def run_winograd(module: Module, name: str, element: ElementType) -> None:
    """Emit the same for Winograd."""
    _emit(module, name, element, is_winograd=True)


def _emit(
    module: Module,
    name: str,
    element: ElementType,
    *,
    is_col2im: bool = False,
    is_winograd: bool = False,
) -> None:
    code, a = begin(module, name, {"arguments": PTR, "thread": I64}, element)
    c = Call(code, a["arguments"])
    _share_scratch(c, a["thread"])
    with c.all_tasks(a["thread"]) as taken:
        task = Task(c, taken)
        if is_col2im:
            cells = Cells(c, task)
        elif is_winograd:
            run_input_transform(c, task)
        else:
            with code.if_else(code.is_equal(c.is_im2col, 0)) as (padded, im2col):
                with padded:
                    pack(c, task, c.panel, 0, c.channels)
                with im2col:
                    find_runs(c, task)
                    gather(c, task, c.panel, 0, c.channels)
        share = code.div(code.add(c.blocks, code.sub(c.splits, 1)), c.splits)
        start = code.mul(task.split, share)
        with code.loop(code.least(c.blocks, code.add(start, share)), start) as block:
            is_last = code.is_equal(block, code.sub(c.blocks, 1))
            of_group = code.add(code.mul(task.group, c.blocks), block)
            weight = code.at(c.weight, code.mul(of_group, c.weight_block))
            bias = code.at(c.bias, code.mul(of_group, c.bias_block))
            if is_col2im:
                with code.loop(c.channels, step=c.k_block) as channel:
                    multiply(c, cells, weight, bias, is_last, channel)
                    with code.when(code.is_equal(c.skips_scatter, 0)):
                        scatter_add(c, task, cells, bias, is_last, channel)
            elif is_winograd:
                _sum(c, task, weight, None, is_last, c.products, c.product_pitch)
                run_output_transform(c, bias, is_last)
            else:
                _sum(c, task, weight, bias, is_last, c.acc, c.acc_pitch)
            _activate(c, is_last)
            of_block = code.mul(code.mul(block, c.block), c.y_channel)
            y = code.add(code.mul(task.group, c.y_group), of_block)
            copy_out(c, task, y, is_last)
    code.fence()
    code.end()


def _share_scratch(c: Call, thread: Value) -> None:
    """Find the buffers of a thread in the scratch of all threads."""
    code = c.code
    c.panel = code.at(c.scratch, code.mul(thread, c.scratch_size))
    c.products = code.at(c.panel, c.panel_size)
    c.runs = code.at(c.products, code.sub(0, c.runs_size))
    c.acc = code.at(c.products, c.product_size)
    c.row_accumulators = code.at(c.acc, c.acc_size)
    c.row_of_y = code.at(c.row_accumulators, code.mul(c.stride_y, c.stride_x), I64)
    c.held, c.begun, c.to = (code.builder.alloca(kind) for kind in (I64, PTR, PTR))
    code.builder.store(code.index(0), c.held)
    code.builder.store(c.y, c.begun)


def _activate(c: Call, is_last: Value) -> None:
    """Apply the activation to all accumulators of a block, those in vain included."""
    code = c.code
    rows = code.mul(code.pick(is_last, c.last_block, c.block), c.phases)
    with code.when(code.is_given(c.activate)):
        code.call(c.activate, c.acc, code.mul(rows, c.acc_pitch), c.parameters)


def _sum(
    c: Call,
    task: Task,
    weight: Value,
    bias: Value | None,
    is_last: Value,
    accumulators: Value,
    pitch: Value,
) -> None:
    """Compute the accumulators of a block of channels, tile by tile; without a bias from zero."""
    code = c.code
    tiles = code.pick(is_last, c.last_tiles, c.tiles)
    # A task at an edge has fewer lanes: then the last vectors are computed as if there were more.
    lanes = code.add(code.mul(code.sub(task.rows, 1), c.pitch), task.columns)
    needed = code.div(code.add(lanes, code.sub(c.wide_lanes, 1)), c.wide_lanes)
    is_short = code.is_less(needed, code.add(c.wide_calls, c.rest_calls))
    wide_calls = code.pick(is_short, needed, c.wide_calls)
    rest_calls = code.pick(is_short, 0, c.rest_calls)
    with code.loop(code.pick(is_last, c.last_tile_count, c.tile_count)) as number:
        tile = TILE.load(code, tiles, number)
        wide = code.load(c.micros, tile["micro"], PTR)
        narrow = code.load(c.micros, code.add(tile["micro"], 1), PTR)
        to = code.at(accumulators, code.mul(tile["acc"], pitch))
        of_rows = c.zeros if bias is None else code.at(bias, tile["acc"])
        of_tile = code.at(weight, tile["weight"])
        per_tap = code.is_equal(c.per_tap, 1)
        together = code.pick(per_tap, 1, tile["taps"])  # taps that are summed together
        # A phase that no tap reaches has no terms, but its bias is still to be written.
        turns = code.pick(per_tap, code.most(tile["taps"], 1), 1)
        with code.loop(c.channels, step=c.k_block) as channel:
            channels = code.least(c.k_block, code.sub(c.channels, channel))
            before = code.mul(channel, tile["taps"])  # terms
            terms = code.mul(channels, code.least(together, tile["taps"]))
            with code.loop(turns) as tap:
                term = code.add(code.mul(tap, c.channels), channel)
                w = code.at(of_tile, code.mul(code.pick(per_tap, term, before), tile["rows"]))
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
