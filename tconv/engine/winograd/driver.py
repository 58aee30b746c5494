"""Winograd driver: the transforms of one task, before and after its batched GEMMs.

    for channel in channels of x:                                   # run_input_transform
        pack its cells; set the flag if any is very large, or not finite  # flag_large
        transformed[:, channel] = input transform of the cells            # transform_input
    for block in channels of y:
        products[point] = weights[point] @ transformed[point]       # gemm.micro_kernel
        for phase of a channel:                                     # run_output_transform
            acc[phase] = output transform of the products           # transform_output

A lane is one set of outputs that share products; `transform.py` has the matrices. Cells that are
not finite, or so large that the input transform overflows, would reach outputs that do not read
them. The flag tells the caller, who computes such images by another plan (`executor.py`).
"""

from tconv.engine.codegen.abi import OUTPUT_TRANSFORM, Call, Task
from tconv.engine.codegen.llvm import I64, Value
from tconv.engine.direct.input_panel import find_runs, gather, pack

__all__ = ["run_input_transform", "run_output_transform"]


def run_input_transform(c: Call, task: Task) -> None:
    """Emit the input transform of the cells that a task reads, channel by channel."""
    code = c.code
    cells = code.at(c.panel, c.transformed_size)
    flag = code.at(c.counter, 1, I64)
    volume = code.mul(c.residue_classes, c.panel_depth, c.panel_height, c.pitch)
    with code.when(code.is_equal(c.is_im2col, 1)):
        find_runs(c, task)
        # An im2col panel has most cells several times. It serves small images, which the caches
        # hold, so each task checks its share of all cells, whether or not it reads them itself.
        share = code.div(code.add(c.x_size, code.sub(c.tasks, 1)), c.tasks)
        first = code.least(code.mul(task.number, share), c.x_size)
        cells_of_x = code.cell(c.x, first)
        code.call(c.flag_large, flag, cells_of_x, code.least(share, code.sub(c.x_size, first)))
    with code.loop(c.channels) as channel:
        with code.if_else(code.is_equal(c.is_im2col, 0)) as (padded, im2col):
            with padded:
                pack(c, task, cells, channel, 1)
                code.call(c.flag_large, flag, cells, volume)
            with im2col:
                gather(c, task, cells, channel, 1)
        to = code.at(c.panel, code.mul(channel, c.wide_lanes))
        sizes = (c.transformed_pitch, c.product_pitch, c.wide_lanes, c.panel_tile)
        code.call(c.transform_input, to, cells, c.places, *sizes)
    is_set = code.is_equal(code.load(flag, kind=I64), 1)
    is_one_image = code.both(code.is_equal(c.batch, 1), code.is_equal(c.is_im2col, 0))
    with code.when(code.both(is_set, is_one_image)):
        code.store(c.tasks, c.counter)  # the caller discards y: no task is left to do


def run_output_transform(c: Call, bias: Value, is_last: Value) -> None:
    """Emit the output transform of a block's products."""
    code = c.code
    channels = code.pick(is_last, c.last_block, c.block)
    with code.loop(channels) as channel:
        acc = code.at(c.acc, code.mul(code.mul(channel, c.phases), c.acc_pitch))
        with code.loop(c.output_transform_count) as n:
            phase = OUTPUT_TRANSFORM.load(code, c.output_transforms, n)
            of_group = code.mul(phase["before"], channels)
            row = code.add(of_group, code.mul(channel, phase["phases"]), phase["place"])
            products = code.at(c.products, code.mul(row, c.product_pitch))
            pitch = code.mul(code.mul(channels, phase["phases"]), c.product_pitch)
            to = code.at(acc, code.mul(phase["acc"], c.acc_pitch))
            steps = (c.output_step_z, c.output_step_y, c.output_step_x)
            value = code.at(bias, channel)
            code.call(phase["kernel"], to, products, value, pitch, *steps, c.product_pitch)
