"""Col2im: a GEMM of x by all taps, then a scatter-add of the products.

    for k_block in channels of x:
        product[m, tap][cell] = sum of w[c, m, tap] * x[c][cell]                  # micro-kernel
        for phase: acc[m, phase][q] += product[m, tap][q - shift] for its taps   # add_rows

x is read in place, each cell once for all taps; nothing is copied, and no zeros around it are
multiplied. The sums and their order are those of the other algorithms. If no outputs overlap, the
products are the accumulators and the scatter-add is skipped.
"""

from tconv.engine.codegen.abi import TILE, Call, Task, each_tile
from tconv.engine.codegen.llvm import I32, I64, PTR, Value
from tconv.engine.kernels.limits import CHANNELS_AHEAD

__all__ = ["Cells", "multiply", "scatter_add"]

_SUM = 4  # words of an entry of `Layout.sums`


class Cells:
    """The cells of x that a task reads: of each channel some pieces, all of one length.

    A piece is whole planes, or rows of one plane that are whole, or a part of a row.
    """

    def __init__(self, c: Call, task: Task) -> None:
        code, lanes = c.code, c.code.element.lanes
        self.z, depth = self._range(c, task.plane, task.planes, "depth", "z", c.all_planes)
        self.y, height = self._range(c, task.row, task.rows, "height", "y", c.all_rows)
        self.x, self.width = self._range(c, task.column, task.columns, "width", "x", c.all_columns)
        has_planes = code.is_equal(task.rows, c.all_rows)
        plane = code.mul(height, self.width)
        count = code.mul(plane, code.pick(has_planes, depth, 1))
        self.vectors = code.div(code.add(count, lanes - 1), lanes)
        self.pieces, room = code.pick(has_planes, 1, depth), code.mul(self.vectors, lanes)
        self.plane = code.pick(has_planes, plane, room)  # cells from plane to plane of products
        first = code.add(code.mul(self.z, c.x_plane), code.mul(self.y, c.x_row), self.x)
        # The last vector may reach beyond the last cell, even beyond x: then the cells are copied.
        steps = code.mul(code.sub(c.channels, 1), c.x_channel)
        steps = code.add(steps, code.mul(code.sub(self.pieces, 1), c.x_plane))
        reaches_over = code.is_less(c.x_size, code.add(task.x_cell, first, steps, room))
        if code.element.is_half:  # copied and widened
            reaches_over = code.is_equal(0, 0)
        self.offsets = code.at(c.offsets, code.pick(reaches_over, c.channels, 0), I32)
        self.piece = code.pick(reaches_over, room, c.x_plane)  # cells from piece to piece of x
        self.source = code.builder.select(reaches_over, c.panel, code.cell(task.x, first))
        with code.when(reaches_over), code.loop(c.channels) as channel:
            row = code.at(c.panel, code.mul(channel, c.panel_pitch))
            x = code.cell(task.x, code.add(first, code.mul(channel, c.x_channel)))
            with code.loop(self.pieces) as piece:
                to, of_piece = code.mul(piece, room), code.mul(piece, c.x_plane)
                sizes = (0, 1, 0, 0, count, 0, 0, 1, code.mul(c.x_channel, CHANNELS_AHEAD))
                code.call(c.pack_rows, code.at(row, to), code.cell(x, of_piece), *sizes)

    def _range(
        self, c: Call, start: Value, count: Value, size: str, axis: str, everything: Value
    ) -> tuple[Value, Value]:
        """First and number of the planes, rows or columns of x; all for a task with all q."""
        code, input_size = c.code, getattr(c, f"input_{size}")
        reach, low = getattr(c, f"reach_{axis}"), getattr(c, f"low_{axis}")
        first = code.most(0, code.sub(start, reach))
        end = code.least(input_size, code.sub(code.add(start, count), low))
        has_all = code.is_equal(count, everything)
        first = code.pick(has_all, 0, code.least(first, input_size))
        end = code.pick(has_all, input_size, code.most(first, end))
        return first, code.sub(end, first)


def multiply(
    c: Call, cells: Cells, weight: Value, bias: Value, is_last: Value, channel: Value
) -> None:
    """Multiply a k-block of x, from a channel on, by all taps of a block of channels of y."""
    code, lanes = c.code, c.code.element.lanes
    terms = code.least(c.k_block, code.sub(c.channels, channel))
    offsets = code.at(cells.offsets, channel, I32)
    skips_scatter = code.is_equal(c.skips_scatter, 1)
    first = code.pick(skips_scatter, code.pick(code.is_equal(channel, 0), 1, 0), 1)
    tiles = code.pick(is_last, c.last_tiles, c.tiles)
    count = code.pick(is_last, c.last_tile_count, c.tile_count)
    width = code.div(c.wide_lanes, lanes)
    wide, single = code.divmod(cells.vectors, width)
    done = code.mul(wide, c.wide_lanes)
    for kernel, calls, step, start in ((0, wide, c.wide_lanes, 0), (1, single, lanes, done)):
        with code.loop(cells.pieces) as piece, code.loop(calls) as call:
            lane = code.add(start, code.mul(call, step))
            x = code.at(cells.source, code.add(code.mul(piece, cells.piece), lane))
            lane = code.add(lane, code.mul(piece, code.mul(cells.vectors, lanes)))
            with code.loop(count) as n:
                tile = TILE.load(code, tiles, n)
                micro = code.load(c.micros, code.add(tile["micro"], kernel), PTR)
                of_tile = code.add(tile["weight"], code.mul(channel, tile["rows"]))
                row = code.mul(tile["acc"], c.product_pitch)
                to = code.at(c.products, code.add(row, lane))
                of_rows = code.builder.select(skips_scatter, code.at(bias, tile["acc"]), c.zeros)
                place = (code.at(weight, of_tile), x, offsets, to, of_rows)
                each_tile(c, micro, tile, place, (terms, c.product_pitch, first))


def scatter_add(
    c: Call, task: Task, cells: Cells, bias: Value, is_last: Value, channel: Value
) -> None:
    """Add products to the accumulators, which start with the bias at the first channel of x."""
    code = c.code
    phases = code.at(c.acc_starts, code.pick(is_last, code.mul(c.phases, 2), 0), I64)
    with code.loop(code.pick(is_last, c.last_block, c.block)) as of_y:
        with code.loop(c.phases) as phase:
            first = code.load(phases, code.mul(phase, 2), I64)
            step = code.load(phases, code.add(code.mul(phase, 2), 1), I64)
            number = code.add(first, code.mul(of_y, step))
            acc = code.at(c.acc, code.mul(number, c.acc_pitch))
            with code.when(code.is_equal(channel, 0)):
                untapped = code.load(c.untapped_rows, code.div(phase, c.stride_x), I64)
                # One vector of a row that is filled with bias is enough to read the bias from.
                count = code.pick(code.is_equal(untapped, 1), code.element.lanes, c.acc_pitch)
                _fill(c, acc, code.load(bias, number), count)
            start = code.load(c.sum_starts, phase, I64)
            end = code.load(c.sum_starts, code.add(phase, 1), I64)
            with code.loop(end, start) as n:
                entry = code.at(c.sums, code.mul(n, _SUM), I64)
                tap, *shifts = (code.load(entry, place, I64) for place in range(_SUM))
                row = code.mul(code.add(code.mul(of_y, c.taps), tap), c.product_pitch)
                _add(c, task, cells, acc, code.at(c.products, row), shifts)


def _fill(c: Call, acc: Value, bias: Value, count: Value) -> None:
    """Write a bias to the first vectors of an accumulator row."""
    code = c.code
    values = code.splat(bias)
    with code.loop(count, step=code.element.lanes) as lane:
        code.store_vector(values, acc, lane)


def _add(
    c: Call, task: Task, cells: Cells, acc: Value, product: Value, shifts: list[Value]
) -> None:
    """``acc[q] += product[q - shift]`` wherever there is such a cell of x."""
    code = c.code
    shift_z, shift_y, shift_x = shifts
    left, columns = _reached(c, task.column, task.columns, c.input_width, shift_x)
    top, rows = _reached(c, task.row, task.rows, c.input_height, shift_y)
    exists = code.both(code.is_less(0, columns), code.is_less(0, rows))
    with code.when(exists), code.loop(task.planes) as plane:
        z = code.sub(code.add(task.plane, plane), shift_z)
        with code.when(code.is_within(z, c.input_depth)):
            y = code.sub(code.add(task.row, top), code.add(shift_y, cells.y))
            x = code.sub(code.add(task.column, left), code.add(shift_x, cells.x))
            plane_at = code.mul(code.sub(z, cells.z), cells.plane)
            source = code.at(product, code.add(plane_at, code.mul(y, cells.width), x))
            q_row = code.add(code.mul(plane, task.rows), top)
            to = code.at(acc, code.add(code.mul(q_row, c.pitch), left))
            code.call(c.add_rows, to, source, columns, rows, c.pitch, cells.width)


def _reached(
    c: Call, start: Value, count: Value, input_size: Value, shift: Value
) -> tuple[Value, Value]:
    """First and number of a task's q, along one axis, that a shift takes to a cell of x."""
    code = c.code
    first = code.most(0, code.sub(shift, start))
    end = code.least(count, code.sub(code.add(input_size, shift), start))
    return first, code.sub(end, first)
