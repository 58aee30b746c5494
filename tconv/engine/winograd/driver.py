"""HOW AN ITEM IS TILED: sums of cells made of each channel, products of them, outputs of those.

    for channel in channels of x:
        pack its cells; set the flag if any is very large, or not finite  # transforms.screen
        sums[:, channel] = sums of these cells                           # transforms.sum_cells
    for block in channels of y:
        products[kind] = weights[kind] @ sums[of the kind]               # kernels.micro
        for phase of a channel: lines[phase] = products restored         # transforms.restore

A lane is a tile of outputs; `winograd.py` says which sums there are and what they are good for.
Sums of cells that are not finite, or of which sums overflow, would spread to outputs that do not
read them. The flag tells the caller, who computes such images otherwise (`executor.py`).
"""

from tconv.engine.codegen.abi import RESTORED, Call, Item
from tconv.engine.codegen.llvm import I64, Value
from tconv.engine.direct.input_panel import find_runs, gather, pack

__all__ = ["prepare", "restore"]


def prepare(c: Call, item: Item) -> None:
    """Make the sums of the cells that an item reads, channel by channel."""
    code = c.code
    cells = code.at(c.panel, c.sums_size)
    flag = code.at(c.counter, 1, I64)
    volume = code.mul(c.lattices, c.panel_depth, c.panel_height, c.pitch)
    with code.when(code.is_equal(c.is_gathered, 1)):
        find_runs(c, item)
        # A gathered panel has most cells several times. It is for small images, which the caches
        # hold, so each item looks at its share of all of them, whichever it reads itself.
        share = code.div(code.add(c.x_size, code.sub(c.items, 1)), c.items)
        first = code.least(code.mul(item.number, share), c.x_size)
        cells_of_x = code.cell(c.x, first)
        code.call(c.screen, flag, cells_of_x, code.least(share, code.sub(c.x_size, first)))
    with code.loop(c.channels) as channel:
        with code.if_else(code.is_equal(c.is_gathered, 0)) as (flat, gathered):
            with flat:
                pack(c, item, cells, channel, 1)
                code.call(c.screen, flag, cells, volume)
            with gathered:
                gather(c, item, cells, channel, 1)
        to = code.at(c.panel, code.mul(channel, c.wide_lanes))
        sizes = (c.sum_pitch, c.product_pitch, c.wide_lanes, c.panel_tile)
        code.call(c.sum_cells, to, cells, c.places, *sizes)
    is_set = code.is_equal(code.load(flag, kind=I64), 1)
    is_one_image = code.both(code.is_equal(c.batch, 1), code.is_equal(c.is_gathered, 0))
    with code.when(code.both(is_set, is_one_image)):
        code.store(c.items, c.counter)  # it is computed otherwise as a whole: no other items matter


def restore(c: Call, bias: Value, is_last: Value) -> None:
    """Make the lines of a block of products."""
    code = c.code
    channels = code.pick(is_last, c.last_block, c.block)
    with code.loop(channels) as channel:
        line = code.at(c.line, code.mul(code.mul(channel, c.phases), c.line_pitch))
        with code.loop(c.restored_count) as n:
            phase = RESTORED.load(code, c.restored, n)
            of_group = code.mul(phase["before"], channels)
            row = code.add(of_group, code.mul(channel, phase["phases"]), phase["place"])
            products = code.at(c.products, code.mul(row, c.product_pitch))
            pitch = code.mul(code.mul(channels, phase["phases"]), c.product_pitch)
            to = code.at(line, code.mul(phase["line"], c.line_pitch))
            steps = (c.restored_z, c.restored_y, c.restored_x)
            value = code.at(bias, channel)
            code.call(phase["kernel"], to, products, value, pitch, *steps, c.product_pitch)
