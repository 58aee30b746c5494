"""Weight-gradient driver: the native function that every thread runs.

while (task := counter++) < tasks:         # one k-split, one block of channels of x and of y
    for k_block in the split's k-blocks:
        pack the k-block's cells of y, class by class, and those of x
        for tile in channels of x:
            for tile in channels of y and taps:
                rank1_kernel or dot_kernel                                # kernels.py
    write the block to the split's partial sum of dw
"""

from tconv.engine.codegen.abi import RESIDUE_CLASS, Record
from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.llvm import I32, I64, PTR, Module, Value
from tconv.engine.kernels.limits import CHANNELS_AHEAD

__all__ = ["GRADIENT_ARGUMENTS", "run_dot", "run_rank1"]

GRADIENT_ARGUMENTS = Record(
    pointers=(
        *("x", "y", "to", "counter", "scratch"),  # of a call
        *("offsets", "places", "x_tiles", "last_x_tiles", "tap_tiles", "last_tap_tiles", "kernels"),
        *("residue_classes_of_y", "pack_rows", "copy_rows", "transpose_in", "transpose_out"),
    ),
    words=(
        *("tasks", "x_blocks", "y_blocks", "groups", "k_splits", "k_blocks"),
        *("image_blocks", "plane_blocks", "row_blocks", "column_blocks"),
        *("images", "planes", "rows", "columns"),  # of a k-block
        *("all_images", "all_planes", "all_rows", "all_columns"),
        *("channels", "x_block", "outputs", "y_block", "taps"),
        *("x_batch", "x_channel", "x_plane", "x_row"),
        *("y_batch", "y_channel", "y_plane", "y_row"),
        *("residue_classes", "step_z", "step_y", "step_x", "low_z", "low_y", "low_x"),
        *("spacing_z", "spacing_y", "spacing_x"),
        *("panel_depth", "panel_height", "pitch", "residue_class_cells", "y_pitch", "room"),
        *("x_pitch", "tile_size", "most_width", "ldc"),
        *("scratch_size", "y_size", "x_size", "to_k_split"),
        *("x_tile_count", "last_x_tile_count", "tap_tile_count", "last_tap_tile_count"),
    ),
)
"""Arguments of the drivers of the weight gradient; `WeightGradientPrimitive` writes them."""

_TILE = Record(words=("first", "size"))  # in a list of tiles


def run_rank1(module: Module, name: str, element: ElementType) -> None:
    """Emit ``run_rank1(arguments, thread)``, the driver of rank-1 kernels."""
    _emit(module, name, element, is_dot=False)


def run_dot(module: Module, name: str, element: ElementType) -> None:
    """Emit ``run_dot(arguments, thread)``, the driver of dot kernels."""
    _emit(module, name, element, is_dot=True)


class _Call:
    """The code under construction, the call's arguments by name, and this thread's buffers."""

    def __init__(self, code: Code, arguments: Value, thread: Value) -> None:
        self.code = code
        self._arguments = GRADIENT_ARGUMENTS.load(code, arguments)
        self.y_panel = code.at(self.scratch, code.mul(thread, self.scratch_size))
        self.x_panel = code.at(self.y_panel, self.y_size)
        self.block = code.at(self.x_panel, self.x_size)

    def __getattr__(self, name: str) -> Value:
        found: Value = self.__dict__["_arguments"][name]
        return found


class _Task:
    """The task of a thread: blocks of channels of a group, and the k-blocks of a split."""

    def __init__(self, c: _Call, number: Value) -> None:
        code = c.code
        rest, y_block = code.divmod(number, c.y_blocks)
        rest, x_block = code.divmod(rest, c.x_blocks)
        self.k_split, self.group = code.divmod(rest, c.groups)
        self.is_last_x = code.is_equal(x_block, code.sub(c.x_blocks, 1))
        self.is_last_y = code.is_equal(y_block, code.sub(c.y_blocks, 1))
        self.channel, self.output = code.mul(x_block, c.x_block), code.mul(y_block, c.y_block)
        self.channels = code.least(c.x_block, code.sub(c.channels, self.channel))
        self.outputs = code.least(c.y_block, code.sub(c.outputs, self.output))
        share, more = code.divmod(c.k_blocks, c.k_splits)
        self.start = code.add(code.mul(self.k_split, share), code.least(self.k_split, more))
        one = code.pick(code.is_less(self.k_split, more), 1, 0)
        self.stop = code.add(self.start, share, one)
        of_x = code.add(code.mul(self.group, c.channels), self.channel)
        of_y = code.add(code.mul(self.group, c.outputs), self.output)
        self.x = code.at(c.x, code.mul(of_x, c.x_channel))
        self.y = code.at(c.y, code.mul(of_y, c.y_channel))
        row = code.mul(c.outputs, c.taps)
        to = code.add(code.mul(of_x, row), code.mul(self.output, c.taps))
        self.to = code.at(c.to, code.add(code.mul(self.k_split, c.to_k_split), to))


class _KBlock:
    """The cells of a k-block: the first image, plane, row and column, and the number of each."""

    def __init__(self, c: _Call, number: Value) -> None:
        code = c.code
        rest, column = code.divmod(number, c.column_blocks)
        rest, row = code.divmod(rest, c.row_blocks)
        image, plane = code.divmod(rest, c.plane_blocks)
        self.image, self.plane = code.mul(image, c.images), code.mul(plane, c.planes)
        self.row, self.column = code.mul(row, c.rows), code.mul(column, c.columns)
        self.images = code.least(c.images, code.sub(c.all_images, self.image))
        self.planes = code.least(c.planes, code.sub(c.all_planes, self.plane))
        self.rows = code.least(c.rows, code.sub(c.all_rows, self.row))
        self.columns = code.least(c.columns, code.sub(c.all_columns, self.column))
        # A k-block is part of one row, or whole rows of one plane, and so on.
        self.of_image = code.mul(self.planes, code.mul(self.rows, self.columns))
        of_planes, of_rows = code.mul(self.plane, c.x_plane), code.mul(self.row, c.x_row)
        self.x_start = code.add(code.mul(self.image, c.x_batch), of_planes, of_rows, self.column)


def _emit(module: Module, name: str, element: ElementType, *, is_dot: bool) -> None:
    code, a = begin(module, name, {"arguments": PTR, "thread": I64}, element)
    c = _Call(code, a["arguments"], a["thread"])
    with code.tasks(c.counter, c.tasks) as index:
        task = _Task(c, index)
        with code.loop(task.stop, task.start) as n:
            k_block = _KBlock(c, n)
            _pack_y(c, task, k_block)
            (_pack_x if is_dot else _transpose_x)(c, task, k_block)
            first = code.pick(code.is_equal(n, task.start), 1, 0)
            _sum(c, task, k_block, first, is_dot=is_dot)
        (_copy_sums if is_dot else _transpose_sums)(c, task)
    code.end()


def _pack_y(c: _Call, task: _Task, k_block: _KBlock) -> None:
    """Pack the cells of y that a k-block reads, by channel, residue class and image."""
    code, pitch = c.code, c.pitch
    plane = code.mul(c.panel_height, pitch)
    volume = code.mul(c.panel_depth, plane)
    first = code.add(code.mul(k_block.column, c.spacing_x), c.low_x)
    left = code.least(code.most(code.sub(0, first), 0), pitch)
    start, room = code.add(first, left), code.sub(pitch, left)
    of_y = code.add(code.mul(k_block.row, c.spacing_y), c.low_y)
    top = code.least(code.most(code.sub(0, of_y), 0), c.panel_height)
    y_plane, y_row = code.mul(c.y_plane, c.step_z), code.mul(c.y_row, c.step_y)
    # Images that have one row in the panel are the rows of one.
    is_one_row = code.is_equal(code.mul(c.panel_depth, c.panel_height), 1)
    many, step = code.pick(is_one_row, k_block.images, 1), code.pick(is_one_row, c.y_batch, y_row)
    of_row, of_planes = code.mul(pitch, many), code.mul(plane, many)
    with code.loop(task.outputs) as output, code.loop(c.residue_classes) as n:
        residue_class = RESIDUE_CLASS.load(code, c.residue_classes_of_y, n)
        count = code.most(code.least(code.sub(residue_class["width"], start), room), 0)
        right = code.sub(room, count)
        bottom = code.least(code.sub(residue_class["height"], of_y), c.panel_height)
        rows = code.most(code.sub(bottom, top), 0)
        of_rows = code.mul(code.add(of_y, top), y_row)
        in_channel = code.add(residue_class["start"], of_rows, code.mul(start, c.step_x))
        in_channel = code.add(in_channel, code.mul(output, c.y_channel))
        # Rows that are contiguous in the panel and in y are copied as one.
        is_one = code.both(code.is_equal(count, pitch), code.is_equal(pitch, y_row))
        one_count = code.pick(is_one, code.mul(count, rows), count)
        one_row = code.mul(code.pick(is_one, 1, rows), many)
        to = code.at(c.y_panel, code.mul(output, c.y_pitch))
        to = code.at(to, code.mul(n, c.residue_class_cells))
        images = code.pick(is_one_row, 1, k_block.images)
        with code.loop(images) as image, code.loop(c.panel_depth) as z:
            # In the order of the panel: rows are written a little beyond their ends.
            of_z = code.add(code.mul(k_block.plane, c.spacing_z), z, c.low_z)
            exists = code.is_within(of_z, residue_class["depth"])
            of_image = code.mul(code.add(k_block.image, image), c.y_batch)
            source = code.at(task.y, code.add(of_image, code.mul(of_z, y_plane), in_channel))
            above = code.pick(exists, code.mul(top, of_row), of_planes)
            filled = code.add(above, code.pick(exists, code.mul(rows, of_row), 0))
            some, below = code.pick(exists, one_row, 0), code.sub(of_planes, filled)
            ahead = code.mul(c.y_channel, CHANNELS_AHEAD)
            sizes = (above, some, step, left, one_count, right, below, c.step_x, ahead)
            of_panel = code.add(code.mul(image, volume), code.mul(z, plane))
            code.call(c.pack_rows, code.at(to, of_panel), source, *sizes)
        end = code.at(to, code.mul(k_block.images, volume))
        code.call(c.pack_rows, end, c.y, c.room, 0, 0, 0, 0, 0, 0, 1, 0)


def _transpose_x(c: _Call, task: _Task, k_block: _KBlock) -> None:
    """Pack x for rank-1 kernels: tiles of channels, and within each its cells one by one.

    Where an image is a single cell, its channels are contiguous already.
    """
    code, lanes = c.code, c.code.element.lanes
    end = code.mul(code.div(code.add(task.channels, lanes - 1), lanes), lanes)
    start = code.at(task.x, k_block.x_start)
    with code.if_else(code.is_equal(c.x_channel, 1)) as (cells, images):
        with cells, code.loop(task.channels, step=c.tile_size) as channel:
            to = code.at(c.x_panel, code.mul(code.div(channel, c.tile_size), c.x_pitch))
            width = code.least(c.tile_size, code.sub(end, channel))
            count = code.least(width, code.sub(task.channels, channel))
            right = code.sub(width, count)
            sizes = (0, k_block.images, c.x_batch, 0, count, right, 0, 1, 0)
            code.call(c.copy_rows, to, code.at(start, channel), *sizes)
        with images, code.loop(task.channels, step=lanes) as channel:
            tile, within = code.divmod(channel, c.tile_size)
            to = code.at(c.x_panel, code.mul(tile, c.x_pitch))
            # The last tile may be narrower.
            width = code.least(c.tile_size, code.sub(end, code.mul(tile, c.tile_size)))
            channels = code.least(code.sub(task.channels, channel), lanes)
            source = code.at(start, code.mul(channel, c.x_channel))
            with code.loop(k_block.images) as image:
                cell = code.mul(code.mul(image, k_block.of_image), width)
                row = code.at(to, code.add(cell, within))
                x = code.at(source, code.mul(image, c.x_batch))
                code.call(c.transpose_in, row, x, width, c.x_channel, channels, k_block.of_image)


def _pack_x(c: _Call, task: _Task, k_block: _KBlock) -> None:
    """Pack x for dot kernels: cells at their places in a residue class, and zeros between them."""
    code, pitch = c.code, c.pitch
    plane = code.mul(c.panel_height, pitch)
    volume = code.mul(c.panel_depth, plane)
    right = code.sub(pitch, k_block.columns)
    rest = code.sub(c.panel_height, k_block.rows)
    beyond = code.mul(code.sub(c.panel_depth, k_block.planes), plane)
    with code.loop(task.channels) as channel, code.loop(k_block.images) as image:
        of_channel = code.at(c.x_panel, code.mul(channel, c.x_pitch))
        to = code.at(of_channel, code.mul(image, volume))
        x = code.add(k_block.x_start, code.mul(image, c.x_batch), code.mul(channel, c.x_channel))
        source = code.at(task.x, x)
        with code.loop(k_block.planes) as z:
            is_last = code.is_equal(code.add(z, 1), k_block.planes)
            below = code.add(code.mul(rest, pitch), code.pick(is_last, beyond, 0))
            of_plane = code.at(source, code.mul(z, c.x_plane))
            rows, columns = k_block.rows, k_block.columns
            sizes = (0, rows, c.x_row, 0, columns, right, below, 1, 0)
            code.call(c.copy_rows, code.at(to, code.mul(z, plane)), of_plane, *sizes)
        with code.when(code.is_equal(code.add(image, 1), k_block.images)):
            end, lanes = code.at(to, volume), code.element.lanes
            code.call(c.copy_rows, end, c.x, lanes, 0, 0, 0, 0, 0, 0, 1, 0)


def _tiles(c: _Call, task: _Task, which: str) -> tuple[Value, Value]:
    """Return the list of a block's tiles, and its length: of channels of x, or of taps."""
    is_last = task.is_last_x if which == "x" else task.is_last_y
    tiles = (getattr(c, f"{last}{which}_tiles") for last in ("last_", ""))
    counts = (getattr(c, f"{last}{which}_tile_count") for last in ("last_", ""))
    return c.code.pick(is_last, *tiles), c.code.pick(is_last, *counts)


def _sum(c: _Call, task: _Task, k_block: _KBlock, first: Value, *, is_dot: bool) -> None:
    """Add the products of a k-block to the sums of a block."""
    code, lanes = c.code, c.code.element.lanes
    x_tiles, x_count = _tiles(c, task, "x")
    tap_tiles, tap_count = _tiles(c, task, "tap")
    cells = code.mul(k_block.images, k_block.of_image)
    if is_dot:
        last = code.builder.sext(code.load(c.places, code.sub(cells, 1), I32), I64)
        vectors = code.add(code.div(last, lanes), 1)
    with code.loop(x_count) as n:
        x_tile = _TILE.load(code, x_tiles, n)
        if is_dot:
            x = code.at(c.x_panel, code.mul(x_tile["first"], c.x_pitch))
        else:
            x = code.at(c.x_panel, code.mul(n, c.x_pitch))
        with code.loop(tap_count) as m:
            tap_tile = _TILE.load(code, tap_tiles, m)
            offsets = code.at(c.offsets, tap_tile["first"], I32)
            entry = code.add(code.mul(tap_tile["size"], c.most_width), x_tile["size"])
            kernel = code.load(c.kernels, entry, PTR)
            if is_dot:
                tile = code.add(code.mul(n, tap_count), m)
                to = code.at(c.block, code.mul(tile, c.tile_size))
                code.call(kernel, x, c.y_panel, offsets, to, c.x_pitch, vectors, first)
            else:
                to = code.add(code.mul(tap_tile["first"], c.ldc), code.mul(n, c.tile_size))
                to = code.at(c.block, to)
                code.call(kernel, c.y_panel, x, c.places, offsets, to, cells, c.ldc, first)


def _transpose_sums(c: _Call, task: _Task) -> None:
    """Write the block's sums, whose rows are taps, to dw, whose rows are channels of x."""
    code = c.code
    rows, pitch = code.mul(task.outputs, c.taps), code.mul(c.outputs, c.taps)
    code.call(c.transpose_out, task.to, c.block, pitch, c.ldc, rows, task.channels)


def _copy_sums(c: _Call, task: _Task) -> None:
    """Write the block's sums, which are stored tile by tile, to dw."""
    code = c.code
    x_tiles, x_count = _tiles(c, task, "x")
    tap_tiles, tap_count = _tiles(c, task, "tap")
    pitch = code.mul(c.outputs, c.taps)
    with code.loop(x_count) as n, code.loop(tap_count) as m:
        x_tile = _TILE.load(code, x_tiles, n)
        tap_tile = _TILE.load(code, tap_tiles, m)
        tile = code.add(code.mul(n, tap_count), m)
        sums = code.at(c.block, code.mul(tile, c.tile_size))
        with code.loop(x_tile["size"]) as r:
            row = code.mul(code.add(x_tile["first"], r), pitch)
            to = code.at(task.to, code.add(row, tap_tile["first"]))
            of_row = code.at(sums, code.mul(r, tap_tile["size"]))
            with code.loop(tap_tile["size"]) as k:
                code.store(code.load(of_row, k), to, k)
