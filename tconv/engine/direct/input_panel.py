"""Input panels: the cells of x that a task reads, padded or by im2col."""

from tconv.engine.codegen.abi import RESIDUE_CLASS, RUN, Call, Task
from tconv.engine.codegen.llvm import I64, Index, Value
from tconv.engine.kernels.limits import CHANNELS_AHEAD

__all__ = ["find_runs", "gather", "pack"]


def pack(c: Call, task: Task, panel: Value, first_channel: Index, channels: Index) -> None:
    """Fill a padded panel: copy the cells that the task reads, by residue class and row."""
    code, pitch = c.code, c.pitch
    x = code.cell(task.x, code.mul(first_channel, c.x_channel))
    plane = code.mul(c.panel_height, pitch)
    volume = code.mul(c.panel_depth, plane)
    first = code.sub(task.column, c.reach_x)
    left = code.least(code.most(code.sub(0, first), 0), pitch)
    start, room = code.add(first, left), code.sub(pitch, left)
    of_y = code.sub(task.row, c.reach_y)
    top = code.least(code.most(code.sub(0, of_y), 0), c.panel_height)
    x_plane, x_row = code.mul(c.x_plane, c.step_z), code.mul(c.x_row, c.step_y)
    with code.loop(c.residue_classes) as n:
        residue_class = RESIDUE_CLASS.load(code, c.residue_classes_of_x, n)
        count = code.most(code.least(code.sub(residue_class["width"], start), room), 0)
        right = code.sub(room, count)
        bottom = code.least(code.sub(residue_class["height"], of_y), c.panel_height)
        rows = code.most(code.sub(bottom, top), 0)
        of_rows = code.mul(code.add(of_y, top), x_row)
        in_channel = code.add(residue_class["start"], of_rows, code.mul(start, c.step_x))
        with code.loop(channels) as channel, code.loop(c.panel_depth) as z:
            # In the order of the panel, for rows are written a little beyond their ends.
            of_class = code.add(code.mul(n, channels), channel)
            of_plane = code.add(code.mul(of_class, c.panel_depth), z)
            to = code.at(panel, code.mul(of_plane, plane))
            of_z = code.sub(code.add(task.plane, z), c.reach_z)
            exists = code.is_within(of_z, residue_class["depth"])
            of_channel = code.add(code.mul(channel, c.x_channel), code.mul(of_z, x_plane))
            source = code.cell(x, code.add(of_channel, in_channel))
            some = code.pick(exists, rows, 0)
            above = code.pick(exists, code.mul(top, pitch), plane)
            below = code.sub(plane, code.add(above, code.mul(some, pitch)))
            ahead = code.mul(c.x_channel, CHANNELS_AHEAD)
            sizes = (above, some, x_row, left, count, right, below, c.step_x, ahead)
            code.call(c.pack_rows, to, source, *sizes)
    end = code.at(panel, code.mul(code.mul(channels, c.residue_classes), volume))
    code.call(c.pack_rows, end, x, code.most(c.reach_x, 0), 0, 0, 0, 0, 0, 0, 1, 0)


def find_runs(c: Call, task: Task) -> None:
    """Find which cells of a task are contiguous, the same ones in all channels."""
    code = c.code
    first = code.add(code.mul(task.row, c.all_columns), task.column)
    count = code.mul(task.rows, task.columns)
    with code.loop(c.shifts) as shift:
        runs = code.at(c.runs, code.mul(shift, _vectors(c, count), len(RUN)), I64)
        place = code.add(first, code.mul(shift, c.table_row))
        to = code.mul(shift, c.im2col_lanes)
        code.call(c.find_runs, runs, c.table, place, count, to, c.im2col_lanes, c.panel_tile)


def gather(c: Call, task: Task, panel: Value, first_channel: Index, channels: Index) -> None:
    """Fill an im2col panel: gather the cells that the task reads, channel by channel.

    A tile has all terms one after the other, in the order in which micro-kernels read them.
    """
    code = c.code
    count = code.mul(c.shifts, _vectors(c, code.mul(task.rows, task.columns)))
    x = code.cell(task.x, code.mul(first_channel, c.x_channel))
    step = code.mul(c.shifts, c.im2col_lanes)
    code.call(c.gather, panel, x, c.table, c.runs, count, channels, c.x_channel, step)


def _vectors(c: Call, count: Value) -> Value:
    """Vectors that so many cells fill."""
    lanes = c.code.element.lanes
    return c.code.div(c.code.add(count, lanes - 1), lanes)
