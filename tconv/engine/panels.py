"""HOW X IS READ: an item's cells copied to a panel, where every tap is a step to another cell."""

from typing import Any

from tconv.engine.call import Call, Item
from tconv.engine.ir import I32

__all__ = ["gather", "pack"]

Value = Any


def pack(c: Call, item: Item) -> None:
    """Make a flat panel: copy what the item reads of x, row by row."""
    code, panel, x = c.code, c.panel, item.x
    first = code.sub(item.column, c.reach_x)
    left = code.least(code.most(code.sub(0, first), 0), c.pitch)
    start, room = code.add(first, left), code.sub(c.pitch, left)
    count = code.most(code.least(code.sub(c.input_width, start), room), 0)
    right = code.sub(room, count)
    of_y = code.sub(item.row, c.reach_y)
    top = code.least(code.most(code.sub(0, of_y), 0), c.panel_height)
    bottom = code.least(code.sub(c.input_height, of_y), c.panel_height)
    rows = code.most(code.sub(bottom, top), 0)
    plane, pitch = code.mul(c.panel_height, c.pitch), c.pitch
    with code.loop(c.channels) as channel, code.loop(c.panel_depth) as z:
        to = code.at(panel, code.mul(code.add(code.mul(channel, c.panel_depth), z), plane))
        of_z = code.sub(code.add(item.plane, z), c.reach_z)
        exists = code.is_within(of_z, c.input_depth)
        source = code.add(
            code.mul(channel, c.x_channel),
            code.mul(of_z, c.x_plane),
            code.mul(code.add(of_y, top), c.x_row),
            start,
        )
        some = code.pick(exists, rows, 0)
        above = code.pick(exists, code.mul(top, pitch), plane)
        below = code.sub(plane, code.add(above, code.mul(some, pitch)))
        numbers = (above, some, c.x_row, left, count, right, below)
        code.call(c.pack_rows, to, code.cell(x, source), *numbers)
    end = code.at(panel, code.mul(code.mul(c.channels, c.panel_depth), plane))
    code.call(c.pack_rows, end, x, code.most(c.reach_x, 0), 0, 0, 0, 0, 0, 0)


def gather(c: Call, item: Item) -> None:
    """Make a gathered panel: collect what the item reads of x, shift by shift."""
    code = c.code
    first, count = code.mul(item.row, c.columns), code.mul(item.rows, c.columns)
    with code.loop(c.channels) as channel:
        source = code.cell(item.x, code.mul(channel, c.x_channel))
        with code.loop(c.shifts) as shift:
            cell = code.mul(code.add(code.mul(channel, c.shifts), shift), c.line_pitch)
            entry = code.add(code.mul(shift, c.table_row), first)
            table = code.at(c.table, entry, I32)
            code.call(c.gather, code.at(c.panel, cell), source, table, count)
