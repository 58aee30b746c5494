"""HOW A CALL GOES THROUGH ITS ITEMS: the one native function that every thread runs.

    while (item := counter++) < items:                     # a block of rows, a run of channels
        pack the cells of x that the item reads into a panel, zeros around them
        for block in channels of y:
            for tile in the block's tiles:                 # rows that read the same cells
                for part in the sum's parts:               # terms whose weights the L1 holds
                    for lane in the panel's lanes:
                        micro(weights, panel, line)        # kernels.py
            interleave the phases of the lines into y

A lane is a cell of the panel. In a *flat* panel every channel has its planes and rows of x as they
are, so a tap is a step to another cell; the lanes run on across rows, and those in the borders are
computed in vain. In a *gathered* panel every channel has one row of cells for each shift, so no
lane is in vain, whatever rows and images they come from; that pays for small images.
"""

from typing import Any

from llvmlite import ir

from tconv.engine.ir import I32, I64, PTR, Code, Number, begin

__all__ = ["FIELDS", "POINTERS", "TILE", "run"]

POINTERS = (
    *("x", "weight", "bias", "y", "counter", "scratch"),  # of a call
    *("offsets", "tiles", "last_tiles", "lines", "micros", "table"),  # of a plan
    *("pack_row", "gather", "copy_row", "stream"),  # kernels
)
FIELDS = (
    *("items", "splits", "segments", "row_blocks", "planes", "batch", "scratch_size"),
    *("in_channels", "x_batch", "x_group", "x_channel", "x_plane", "x_row"),
    *("input_depth", "input_height", "input_width"),
    *("panel_depth", "panel_height", "pitch", "panel_size", "reach_z", "reach_y", "reach_x"),
    *("rows", "columns", "all_rows", "all_columns", "height_rows", "depth_rows"),
    *("is_gathered", "shifts", "table_row", "line_pitch", "line_size"),
    *("wide_lanes", "wide_calls", "rest_calls"),
    *("y_batch", "y_group", "y_channel", "y_plane", "y_row"),
    *("output_depth", "output_height", "output_width", "stride_z", "stride_y", "stride_x"),
    *("lead_z", "lead_y", "lead_x"),
    *("blocks", "block", "last_block", "tile_count", "last_tile_count", "phases"),
    *("weight_block", "bias_block", "streams", "held_size"),
)
"""What stands in a call's arguments, in this order: addresses, then sizes, 64 bits each."""

TILE = ("rows", "weight", "offsets", "terms", "all_terms", "line", "micro")
"""What stands in a plan's list of tiles, 64 bits each."""

Value = Any


class _Call:
    """The code being written, with the call's arguments by name."""

    row_lines: Value  # of the thread: where in its line buffer the phases of a row of y begin
    row_of_y: Value  # cells of y that are not there yet, if it streams: `held` of them, ...
    held: Value
    begun: Value  # ... the first of them for this place
    to: Value

    def __init__(self, code: Code, arguments: Value) -> None:
        self.code = code
        self.pointers = {name: code.load(arguments, n, PTR) for n, name in enumerate(POINTERS)}
        self.fields = {
            name: code.load(arguments, len(POINTERS) + n, I64) for n, name in enumerate(FIELDS)
        }

    def __getattr__(self, name: str) -> Value:
        fields = self.__dict__["fields"]
        return fields[name] if name in fields else self.__dict__["pointers"][name]


def run(module: ir.Module, name: str, number: Number) -> None:
    """Emit ``run(arguments, thread)``: take items until there are none."""
    code, a = begin(module, name, {"arguments": PTR, "thread": I64}, number)
    c = _Call(code, a["arguments"])
    scratch = code.at(c.scratch, code.mul(a["thread"], c.scratch_size))
    line = code.at(scratch, c.panel_size)
    c.row_lines = code.at(line, c.line_size)
    c.row_of_y = code.at(c.row_lines, code.mul(c.stride_y, c.stride_x), I64)
    c.held, c.begun, c.to = (code.builder.alloca(kind) for kind in (I64, PTR, PTR))
    code.builder.store(code.index(0), c.held)
    code.builder.store(c.y, c.begun)
    with code.forever() as done:
        item = code.builder.atomic_rmw("add", c.counter, code.index(1), "monotonic")
        code.leave_when(code.is_less(code.sub(c.items, 1), item), done)
        rest, split = code.divmod(item, c.splits)
        rest, segment = code.divmod(rest, c.segments)
        rest, row_block = code.divmod(rest, c.row_blocks)
        rest, plane = code.divmod(rest, c.planes)
        group, image = code.divmod(rest, c.batch)
        row, column = code.mul(row_block, c.rows), code.mul(segment, c.columns)
        rows = code.least(c.rows, code.sub(c.all_rows, row))
        columns = code.least(c.columns, code.sub(c.all_columns, column))
        x = code.at(c.x, code.add(code.mul(image, c.x_batch), code.mul(group, c.x_group)))
        with code.builder.if_else(code.is_equal(c.is_gathered, 0)) as (flat, gathered):
            with flat:
                _pack(c, scratch, x, plane, row, column)
            with gathered:
                _gather(c, scratch, x, row, rows)
        share = code.div(code.add(c.blocks, code.sub(c.splits, 1)), c.splits)
        start = code.mul(split, share)
        with code.loop(code.least(c.blocks, code.add(start, share)), start) as block:
            is_last = code.is_equal(block, code.sub(c.blocks, 1))
            _compute(c, group, block, is_last, scratch, line)
            y = code.add(
                code.mul(group, c.y_group), code.mul(code.mul(block, c.block), c.y_channel)
            )
            place = (image, plane, row, rows, column, columns)
            _copy_out(c, code.at(c.y, y), is_last, place, line)
    code.fence()
    code.end()


def _pack(c: _Call, panel: Value, x: Value, plane: Value, row: Value, column: Value) -> None:
    """Copy what the item reads of x, row by row."""
    code = c.code
    first = code.sub(column, c.reach_x)
    left = code.least(code.most(code.sub(0, first), 0), c.pitch)
    start, room = code.add(first, left), code.sub(c.pitch, left)
    count = code.most(code.least(code.sub(c.input_width, start), room), 0)
    right = code.sub(room, count)
    with code.loop(c.in_channels) as channel:
        with code.loop(c.panel_depth) as z:
            of_x_z = code.sub(code.add(plane, z), c.reach_z)
            with code.loop(c.panel_height) as y:
                of_x_y = code.sub(code.add(row, y), c.reach_y)
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
    rows = code.mul(c.in_channels, code.mul(c.panel_depth, c.panel_height))
    end, zeros = code.at(panel, code.mul(rows, c.pitch)), code.most(c.reach_x, 0)
    code.call(c.pack_row, end, x, zeros, 0, 0)


def _gather(c: _Call, panel: Value, x: Value, row: Value, rows: Value) -> None:
    """Collect what the item reads of x, shift by shift."""
    code = c.code
    first, count = code.mul(row, c.columns), code.mul(rows, c.columns)
    with code.loop(c.in_channels) as channel:
        source = code.at(x, code.mul(channel, c.x_channel))
        with code.loop(c.shifts) as shift:
            cell = code.mul(code.add(code.mul(channel, c.shifts), shift), c.line_pitch)
            entry = code.add(code.mul(shift, c.table_row), first)
            table = code.at(c.table, entry, I32)
            code.call(c.gather, code.at(panel, cell), source, table, count)


def _compute(
    c: _Call, group: Value, block: Value, is_last: Value, panel: Value, line: Value
) -> None:
    """Fill the lines of a block of channels, tile by tile."""
    code = c.code
    tiles = code.pick(is_last, c.last_tiles, c.tiles)
    count = code.pick(is_last, c.last_tile_count, c.tile_count)
    of_group = code.add(code.mul(group, c.blocks), block)
    weight = code.at(c.weight, code.mul(of_group, c.weight_block))
    bias = code.at(c.bias, code.mul(of_group, c.bias_block))
    with code.loop(count) as n:
        entry = code.at(tiles, code.mul(n, len(TILE)), I64)
        tile = {name: code.load(entry, place, I64) for place, name in enumerate(TILE)}
        wide = code.load(c.micros, tile["micro"], PTR)
        narrow = code.load(c.micros, code.add(tile["micro"], 1), PTR)
        to = code.at(line, code.mul(tile["line"], c.line_pitch))
        of_rows = code.at(bias, tile["line"])
        rest = code.sub(code.add(tile["all_terms"], tile["terms"]), 1)
        # A phase that no tap reaches has no terms, but its bias is still to be written.
        parts = code.most(code.div(rest, tile["terms"]), 1)
        with code.loop(parts) as part:
            start = code.mul(part, tile["terms"])
            terms = code.least(tile["terms"], code.sub(tile["all_terms"], start))
            w = code.at(weight, code.add(tile["weight"], code.mul(start, tile["rows"])))
            offsets = code.at(c.offsets, code.add(tile["offsets"], start), I32)
            first = code.pick(code.is_equal(part, 0), 1, 0)
            calls = ((wide, c.wide_calls, 0), (narrow, c.rest_calls, c.wide_calls))
            for kernel, count, before in calls:
                with code.loop(count) as call:
                    lane = code.mul(code.add(call, before), c.wide_lanes)
                    place = (w, code.at(panel, lane), offsets, code.at(to, lane))
                    code.call(kernel, *place, of_rows, terms, c.line_pitch, first)


def _copy_out(
    c: _Call, y: Value, is_last: Value, place: tuple[Value, ...], line: Value
) -> None:
    """Interleave the phases of every row, without what is cropped."""
    code = c.code
    image, plane, row, rows, column, columns = place
    begin = code.sub(code.mul(column, c.stride_x), c.lead_x)
    skipped = code.most(code.sub(0, begin), 0)  # cells of the first column that are not kept
    start = code.add(begin, skipped)
    cells = code.sub(code.mul(columns, c.stride_x), skipped)
    count = code.least(cells, code.sub(c.output_width, start))
    head = code.pick(code.is_equal(skipped, 0), 0, code.least(code.sub(c.stride_x, skipped), count))
    more = code.pick(code.is_equal(skipped, 0), 0, 1)  # columns that begin in the head
    rest, first_y = code.divmod(row, c.height_rows)
    first_image, first_z = code.divmod(rest, c.depth_rows)
    of_image = code.mul(code.add(image, first_image), c.y_batch)
    starts = [code.index(0), first_y, first_z, of_image]
    with code.loop(code.pick(is_last, c.last_block, c.block)) as channel:
        of_channel = code.add(code.mul(channel, c.y_channel), start)
        with code.loop(c.stride_z) as phase_z:
            _find_lines(c, is_last, phase_z, channel)
            with code.loop_carrying(rows, starts) as ((n, y_row, z_row, image_at), following):
                of_y_z = code.sub(code.add(code.mul(code.add(plane, z_row), c.stride_z), phase_z), c.lead_z)
                at_row = code.add(image_at, of_channel, code.mul(of_y_z, c.y_plane))
                lane = code.mul(n, c.pitch)
                with code.loop(c.stride_y) as phase_y:
                    of_y_y = code.sub(code.add(code.mul(y_row, c.stride_y), phase_y), c.lead_y)
                    exists = code.both(
                        code.is_within(of_y_z, c.output_depth),
                        code.is_within(of_y_y, c.output_height),
                    )
                    with code.when(exists):
                        lines = code.at(c.row_lines, code.mul(phase_y, c.stride_x), I64)
                        far = code.at(y, code.add(at_row, code.mul(of_y_y, c.y_row)))
                        code.builder.store(far, c.to)
                        with code.when(code.is_equal(c.streams, 1)):
                            _hold(c, far, count)
                        to = code.load(c.to, kind=PTR)
                        with code.loop(head) as phase_x:
                            of_line = code.load(lines, code.add(skipped, phase_x), I64)
                            code.store(code.load(line, code.add(of_line, lane)), to, phase_x)
                        kept, after = code.sub(count, head), code.at(to, head)
                        lane_of = code.add(lane, more)
                        code.call(c.copy_row, after, line, lines, lane_of, kept, c.stride_x)
                next_y = code.add(y_row, 1)
                wraps_y = code.is_equal(next_y, c.height_rows)
                next_z = code.add(z_row, code.pick(wraps_y, 1, 0))
                wraps_z = code.is_equal(next_z, c.depth_rows)
                following += [
                    code.add(n, 1),
                    code.pick(wraps_y, 0, next_y),
                    code.pick(wraps_z, 0, next_z),
                    code.add(image_at, code.pick(wraps_z, c.y_batch, 0)),
                ]
    with code.when(code.is_equal(c.streams, 1)):
        _write_held(c)


def _hold(c: _Call, far: Value, count: Value) -> None:
    """Keep a row of y back, in one piece with what is held, so that few lines are half written."""
    code, bytes_ = c.code, c.code.number.bytes
    held = code.load(c.held, kind=I64)
    place, begun = (code.builder.ptrtoint(p, I64) for p in (far, code.load(c.begun, kind=PTR)))
    follows = code.is_equal(place, code.add(begun, code.mul(held, bytes_)))
    fits = code.is_less(code.add(held, count), c.held_size)
    with code.when(code.builder.not_(code.both(follows, fits))):
        _write_held(c)
        code.builder.store(far, c.begun)
    held = code.load(c.held, kind=I64)
    code.builder.store(code.at(_held_cells(c), held), c.to)
    code.builder.store(code.add(held, count), c.held)


def _held_cells(c: _Call) -> Value:
    """Where the cells lie that are held: as far from a line's begin as they will in y."""
    code, number = c.code, c.code.number
    cell = code.div(code.builder.ptrtoint(code.load(c.begun, kind=PTR), I64), number.bytes)
    _, beyond = code.divmod(cell, number.lanes)
    return code.at(c.row_of_y, beyond)


def _write_held(c: _Call) -> None:
    """Write to y what is held."""
    code = c.code
    begun, held = code.load(c.begun, kind=PTR), code.load(c.held, kind=I64)
    code.call(c.stream, begun, _held_cells(c), held)
    code.builder.store(code.index(0), c.held)


def _find_lines(c: _Call, is_last: Value, phase_z: Value, channel: Value) -> None:
    """Write where in the line buffer the phases of a plane of y begin, for a channel."""
    code = c.code
    in_plane = code.mul(c.stride_y, c.stride_x)
    first = code.add(code.pick(is_last, c.phases, 0), code.mul(phase_z, in_plane))
    entries = code.at(c.lines, code.mul(first, 2), I64)
    with code.loop(in_plane) as phase:
        entry = code.mul(phase, 2)
        step = code.load(entries, code.add(entry, 1), I64)
        number = code.add(code.load(entries, entry, I64), code.mul(channel, step))
        code.store(code.mul(number, c.line_pitch), c.row_lines, phase)
