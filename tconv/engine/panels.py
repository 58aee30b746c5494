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
    with code.loop(c.channels) as channel:
        with code.loop(c.panel_depth) as z:
            of_x_z = code.sub(code.add(item.plane, z), c.reach_z)
            with code.loop(c.panel_height) as y:
                of_x_y = code.sub(code.add(item.row, y), c.reach_y)
                exists = code.both(
                    code.is_within(of_x_z, c.input_depth), code.is_within(of_x_y, c.input_height)
                )
                rows = code.add(code.mul(channel, c.panel_depth), z)
                cell = code.mul(code.add(code.mul(rows, c.panel_height), y), c.pitch)
                source = code.add(
                    code.mul(channel, c.x_channel),
                    code.mul(of_x_z, c.x_plane),
                    code.mul(of_x_y, c.x_row),
                    start,
                )
                zeros = code.pick(exists, left, c.pitch)
                cells, after = code.pick(exists, count, 0), code.pick(exists, right, 0)
                code.call(c.pack_row, code.at(panel, cell), code.at(x, source), zeros, cells, after)
    rows = code.mul(c.channels, code.mul(c.panel_depth, c.panel_height))
    end, zeros = code.at(panel, code.mul(rows, c.pitch)), code.most(c.reach_x, 0)
    code.call(c.pack_row, end, x, zeros, 0, 0)


def gather(c: Call, item: Item) -> None:
    """Make a gathered panel: collect what the item reads of x, shift by shift."""
    code = c.code
    first, count = code.mul(item.row, c.columns), code.mul(item.rows, c.columns)
    with code.loop(c.channels) as channel:
        source = code.at(item.x, code.mul(channel, c.x_channel))
        with code.loop(c.shifts) as shift:
            cell = code.mul(code.add(code.mul(channel, c.shifts), shift), c.line_pitch)
            entry = code.add(code.mul(shift, c.table_row), first)
            table = code.at(c.table, entry, I32)
            code.call(c.gather, code.at(c.panel, cell), source, table, count)
