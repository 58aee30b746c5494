"""Row GEMM driver: each column of the GEMM is a cell of a row of y, and is written there.

    while (task := counter++) < tasks:               # rows of an image, or a part of one; a block
        for row in rows of the task:
            for cells in tiles of the row:
                for k_block in channels of x:
                    fill a panel with what the cells read                         # panel.py
                    for tile in the block's tiles:
                        row_kernel(weights, panel, y)                             # kernel.py

A kernel of one tap without stride makes an image of y one row, and needs no panel: the first tile
reads x in place, and copies what it reads to a panel, which later tiles read from the L1 cache.
The last cells of a row, which fill no tile, have kernels that write as many as there are.
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
    with code.tasks(c.counter, c.tasks) as task:
        rest, block = code.divmod(task, c.blocks)
        rest, column_block = code.divmod(rest, c.column_blocks)
        image, row_block = code.divmod(rest, c.row_blocks)
        first_row = code.mul(row_block, c.rows)
        end_row = code.least(code.add(first_row, c.rows), c.all_rows)
        start = code.mul(column_block, c.columns)
        end = code.least(code.add(start, c.columns), c.all_columns)
        whole = code.div(code.sub(end, start), c.wide_lanes)
        done = code.add(start, code.mul(whole, c.wide_lanes))
        of_block = _Block(c, image, block)
        with code.loop(end_row, first_row) as row:
            of_block.find_row(row)
            with code.loop(whole) as n:
                column = code.add(start, code.mul(n, c.wide_lanes))
                of_block.multiply(column, code.index(0))
            with code.when(code.is_less(done, end)):
                of_block.multiply(done, code.sub(end, done))
    code.end()


class _Block:
    """A block of channels of y of an image, whose sums are computed for some cells at a time."""

    plane: Value
    row: Value
    in_y: Value

    def __init__(self, c: Call, image: Value, block: Value) -> None:
        code, self.c = c.code, c
        image_of_batch, group = code.divmod(image, c.groups)
        number = code.add(code.mul(group, c.blocks), block)
        is_last = code.is_equal(block, code.sub(c.blocks, 1))
        self.weight = code.at(c.weight, code.mul(number, c.weight_block))
        self.bias = code.at(c.bias, code.mul(number, c.bias_block))
        self.x = code.at(c.x, code.mul(image, c.x_group))
        first = code.add(code.mul(group, c.y_group), code.mul(block, c.block, c.y_channel))
        self.first = code.add(code.mul(image_of_batch, c.y_batch), first)
        self.tiles = code.builder.select(is_last, c.last_tiles, c.tiles)
        self.count = code.pick(is_last, c.last_tile_count, c.tile_count)
        self.channels = code.pick(is_last, c.last_block, c.block)

    def find_row(self, row: Value) -> None:
        """Take the cells that follow from a row of y."""
        code = self.c.code
        self.plane, self.row = code.divmod(row, self.c.height_rows)
        self.in_y = code.mul(row, self.c.y_row)

    def multiply(self, column: Value, rest: Value) -> None:
        """Emit the GEMM of a tile's cells from a column on, or of the `rest` last ones of a row."""
        c, code = self.c, self.c.code
        is_rest = code.is_less(0, rest)
        kernel, width = code.pick(is_rest, 1, 0), code.pick(is_rest, c.rest_lanes, c.wide_lanes)
        fill = code.builder.select(is_rest, c.fill_rest, c.fill)
        cell = code.add(self.first, self.in_y, column)
        with code.loop(c.channels, step=c.k_block) as channel:
            channels = code.least(c.k_block, code.sub(c.channels, channel))
            before = code.mul(channel, c.taps)  # terms
            is_last = code.is_equal(code.add(channel, channels), c.channels)
            flags = (code.pick(code.is_equal(channel, 0), 1, 0), code.pick(is_last, 1, 0))
            sizes = (code.mul(channels, c.taps), width, c.y_channel, rest, *flags)
            x = code.at(self.x, code.mul(channel, c.x_channel))
            with code.when(code.is_given(fill)):
                where = (c.arguments, c.panel, x, channels, self.plane, self.row, column)
                code.call(fill, *where)
            with code.loop(self.count) as n:
                tile = TILE.load(code, self.tiles, n)
                of_tile = code.add(tile["weight"], code.mul(before, tile["rows"]))
                w, bias = code.at(self.weight, of_tile), code.at(self.bias, tile["acc"])
                of_tile = code.add(cell, code.mul(tile["acc"], c.y_channel))
                to, residual = code.at(c.y, of_tile), code.at(c.residual, of_tile)
                of_y = (to, bias, c.panel, residual, c.parameters)
                place = code.add(tile["micro"], kernel)
                copies = code.both(code.is_equal(n, 0), code.is_equal(c.copies, 1))
                with code.if_else(copies) as (first_tile, later_tile):
                    with first_tile:
                        micro = code.load(c.copying_micros, place, PTR)
                        of_x = (sizes[0], c.x_channel, *sizes[2:])
                        code.call(micro, w, code.at(x, column), *of_y, *of_x)
                    with later_tile:
                        micro = code.load(c.micros, place, PTR)
                        code.call(micro, w, c.panel, *of_y, *sizes)
