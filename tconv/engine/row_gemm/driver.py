"""Row GEMM driver: each column of the GEMM is a cell of y, written in place.

    while a task is left:                            # rows of a plane, or a part of one; a block
        for k_block in channels of x:
            fill a panel with what the cells of the task read                     # panel.py
            for cells in tiles of the task:
                for tile in the block's tiles:
                    row_kernel(weights, panel, y)                                 # kernel.py

Rows of y follow each other, so a tile may begin in one row and end in the next. A kernel of one tap
without stride makes an image of y one row, and needs no panel: the first tile reads x in place, and
copies what it reads to a panel, which later tiles read from the L1 cache. The last cells of a task,
which fill no tile, have kernels that write as many as there are.
"""

from tconv.engine.codegen.abi import TILE, Call
from tconv.engine.codegen.code import ElementType, begin
from tconv.engine.codegen.llvm import I64, PTR, Module, Value

__all__ = ["run_row_gemm"]


def run_row_gemm(module: Module, name: str, element: ElementType) -> None:
    """Emit ``run(arguments, thread)``: take tasks until there are none."""
    code, a = begin(module, name, {"arguments": PTR, "thread": I64}, element)
    c = Call(code, a["arguments"])
    c.panel = code.at(c.scratch, code.mul(a["thread"], c.scratch_size))
    with c.all_tasks(a["thread"]) as task:
        rest, block = code.divmod(task, c.blocks)
        rest, column_block = code.divmod(rest, c.column_blocks)
        rest, row_block = code.divmod(rest, c.row_blocks)
        image, plane = code.divmod(rest, c.plane_blocks)
        row, column = code.mul(row_block, c.rows), code.mul(column_block, c.columns)
        rows = code.least(c.rows, code.sub(c.all_rows, row))
        columns = code.least(c.columns, code.sub(c.all_columns, column))
        _Task(c, (image, block), (plane, row, column), (rows, columns)).compute()
    code.end()


class _Task:
    """Some cells of a plane of y, and a block of its channels."""

    def __init__(
        self,
        c: Call,
        of: tuple[Value, Value],
        place: tuple[Value, Value, Value],
        size: tuple[Value, Value],
    ) -> None:
        code, self.c, self.place, self.size = c.code, c, place, size
        (image, block), (plane, row, self.column) = of, place
        image_of_batch, group = code.divmod(image, c.groups)
        number = code.add(code.mul(group, c.blocks), block)
        is_last = code.is_equal(block, code.sub(c.blocks, 1))
        self.weight = code.at(c.weight, code.mul(number, c.weight_block))
        self.bias = code.at(c.bias, code.mul(number, c.bias_block))
        self.x = code.at(c.x, code.mul(image, c.x_group))
        first = code.add(code.mul(group, c.y_group), code.mul(block, c.block, c.y_channel))
        first = code.add(first, code.mul(image_of_batch, c.y_batch), code.mul(plane, c.y_plane))
        self.first = code.add(first, code.mul(row, c.y_row), self.column)
        self.tiles = code.builder.select(is_last, c.last_tiles, c.tiles)
        self.count = code.pick(is_last, c.last_tile_count, c.tile_count)

    def compute(self) -> None:
        """Emit the loops over k-blocks and cells."""
        c, code = self.c, self.c.code
        rows, columns = self.size
        lanes = code.mul(rows, columns)
        whole, rest = code.divmod(lanes, c.wide_lanes)
        # A short task, the last one of a plane or a row, has other cells left than the others.
        kernel = code.pick(code.is_less(lanes, code.mul(c.rows, c.columns)), 2, 1)
        width = code.pick(code.is_equal(kernel, 2), c.last_rest_lanes, c.rest_lanes)
        with code.loop(c.channels, step=c.k_block) as channel:
            channels = code.least(c.k_block, code.sub(c.channels, channel))
            x = code.at(self.x, code.mul(channel, c.x_channel))
            with code.when(code.is_given(c.fill)):
                plane, row, column = self.place
                where = (c.arguments, c.panel, x, channels, plane, row, rows, column, columns)
                code.call(c.fill, *where, c.pitch)
            with code.loop(whole) as n:
                cell = code.mul(n, c.wide_lanes)
                of = (code.index(0), c.wide_lanes, code.index(0))
                self._multiply(x, channel, channels, cell, of)
            with code.when(code.is_less(0, rest)):
                cell = code.mul(whole, c.wide_lanes)
                self._multiply(x, channel, channels, cell, (kernel, width, rest))

    def _multiply(
        self,
        x: Value,
        channel: Value,
        channels: Value,
        cell: Value,
        of: tuple[Value, Value, Value],
    ) -> None:
        """Emit the GEMM of a tile's cells by a kernel of a width, or of the `rest` last ones."""
        c, code, (kernel, width, rest) = self.c, self.c.code, of
        before = code.mul(channel, c.taps)  # terms
        is_last = code.is_equal(code.add(channel, channels), c.channels)
        flags = (code.pick(code.is_equal(channel, 0), 1, 0), code.pick(is_last, 1, 0))
        copies = code.is_equal(c.copies, 1)
        step, source = code.pick(copies, width, c.pitch), code.pick(copies, 0, cell)
        sizes = (code.mul(channels, c.taps), step, c.y_channel, rest, *flags)
        with code.loop(self.count) as n:
            tile = TILE.load(code, self.tiles, n)
            of_tile = code.add(tile["weight"], code.mul(before, tile["rows"]))
            w, bias = code.at(self.weight, of_tile), code.at(self.bias, tile["acc"])
            of_y = code.add(self.first, cell, code.mul(tile["acc"], c.y_channel))
            to, residual = code.at(c.y, of_y), code.at(c.residual, of_y)
            place, ends = code.add(tile["micro"], kernel), (to, bias, c.panel, residual)
            is_first = code.both(code.is_equal(n, 0), copies)
            with code.if_else(is_first) as (first_tile, later_tile):
                with first_tile:
                    micro = code.load(c.copying_micros, place, PTR)
                    in_x = code.at(x, code.add(self.column, cell))
                    of_x = (sizes[0], c.x_channel, *sizes[2:])
                    code.call(micro, w, in_x, *ends, c.parameters, *of_x)
                with later_tile:
                    micro = code.load(c.micros, place, PTR)
                    in_panel = code.at(c.panel, source)
                    code.call(micro, w, in_panel, *ends, c.parameters, *sizes)
