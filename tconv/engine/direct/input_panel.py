"""HOW X IS READ: an item's cells copied to a panel, where every tap is a step to another cell."""

from tconv.engine.codegen.abi import LATTICE, RUN, Call, Item
from tconv.engine.codegen.llvm import I64, Index, Value
from tconv.engine.kernels.limits import CHANNELS_AHEAD

__all__ = ["find_runs", "gather", "pack"]


def pack(c: Call, item: Item, panel: Value, first_channel: Index, channels: Index) -> None:
    """Make a flat panel: copy what the item reads of x, lattice by lattice, row by row."""
    code, pitch = c.code, c.pitch
    x = code.cell(item.x, code.mul(first_channel, c.x_channel))
    plane = code.mul(c.panel_height, pitch)
    volume = code.mul(c.panel_depth, plane)
    first = code.sub(item.column, c.reach_x)
    left = code.least(code.most(code.sub(0, first), 0), pitch)
    start, room = code.add(first, left), code.sub(pitch, left)
    of_y = code.sub(item.row, c.reach_y)
    top = code.least(code.most(code.sub(0, of_y), 0), c.panel_height)
    x_plane, x_row = code.mul(c.x_plane, c.step_z), code.mul(c.x_row, c.step_y)
    with code.loop(c.lattices) as n:
        lattice = LATTICE.load(code, c.lattices_of_x, n)
        count = code.most(code.least(code.sub(lattice["width"], start), room), 0)
        right = code.sub(room, count)
        bottom = code.least(code.sub(lattice["height"], of_y), c.panel_height)
        rows = code.most(code.sub(bottom, top), 0)
        of_rows = code.mul(code.add(of_y, top), x_row)
        in_channel = code.add(lattice["start"], of_rows, code.mul(start, c.step_x))
        with code.loop(channels) as channel, code.loop(c.panel_depth) as z:
            # In the order of the panel, for rows are written a little beyond their ends.
            of_lattice = code.add(code.mul(n, channels), channel)
            of_plane = code.add(code.mul(of_lattice, c.panel_depth), z)
            to = code.at(panel, code.mul(of_plane, plane))
            of_z = code.sub(code.add(item.plane, z), c.reach_z)
            exists = code.is_within(of_z, lattice["depth"])
            of_channel = code.add(code.mul(channel, c.x_channel), code.mul(of_z, x_plane))
            source = code.cell(x, code.add(of_channel, in_channel))
            some = code.pick(exists, rows, 0)
            above = code.pick(exists, code.mul(top, pitch), plane)
            below = code.sub(plane, code.add(above, code.mul(some, pitch)))
            ahead = code.mul(c.x_channel, CHANNELS_AHEAD)
            numbers = (above, some, x_row, left, count, right, below, c.step_x, ahead)
            code.call(c.pack_rows, to, source, *numbers)
    end = code.at(panel, code.mul(code.mul(channels, c.lattices), volume))
    code.call(c.pack_rows, end, x, code.most(c.reach_x, 0), 0, 0, 0, 0, 0, 0, 1, 0)


def find_runs(c: Call, item: Item) -> None:
    """Find which cells of an item follow each other, the same ones in all channels."""
    code = c.code
    first = code.add(code.mul(item.row, c.all_columns), item.column)
    count = code.mul(item.rows, item.columns)
    with code.loop(c.shifts) as shift:
        runs = code.at(c.runs, code.mul(shift, _vectors(c, count), len(RUN)), I64)
        place = code.add(first, code.mul(shift, c.table_row))
        to = code.mul(shift, c.gathered_lanes)
        code.call(c.find_runs, runs, c.table, place, count, to, c.gathered_lanes, c.panel_tile)


def gather(c: Call, item: Item, panel: Value, first_channel: Index, channels: Index) -> None:
    """Make a gathered panel: collect what the item reads of x, channel by channel.

    A tile has all terms one after the other, in the order in which micro-kernels read them.
    """
    code = c.code
    count = code.mul(c.shifts, _vectors(c, code.mul(item.rows, item.columns)))
    x = code.cell(item.x, code.mul(first_channel, c.x_channel))
    step = code.mul(c.shifts, c.gathered_lanes)
    code.call(c.gather, panel, x, c.table, c.runs, count, channels, c.x_channel, step)


def _vectors(c: Call, count: Value) -> Value:
    """Vectors that so many cells fill."""
    lanes = c.code.element.lanes
    return c.code.div(c.code.add(count, lanes - 1), lanes)
