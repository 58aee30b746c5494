"""HOW A CALL FOR w GOES THROUGH ITS ITEMS: the native function that every thread runs.

while (item := counter++) < items:         # a segment of the cells, blocks of channels
    for chunk in the segment's chunks:
        pack the chunk's cells of y, lattice by lattice, and those of x
        for tile in channels of x:
            for tile in channels of y and taps:
                outer or dot               # products.py
    write the block of the segment's part of dw
"""

from tconv.engine.codegen.abi import LATTICE, Record
from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.llvm import I32, I64, PTR, Module, Value
from tconv.engine.kernels.limits import CHANNELS_AHEAD

__all__ = ["GRADIENT_ARGUMENTS", "run_dot", "run_outer"]

GRADIENT_ARGUMENTS = Record(
    pointers=(
        *("x", "y", "to", "counter", "scratch"),  # of a call
        *("offsets", "places", "x_tiles", "last_x_tiles", "tap_tiles", "last_tap_tiles", "kernels"),
        *("lattices_of_y", "pack_rows", "copy_rows", "turn_in", "turn_out"),
    ),
    words=(
        *("items", "x_blocks", "y_blocks", "groups", "segments", "chunks"),
        *("image_chunks", "plane_chunks", "row_chunks", "column_chunks"),
        *("images", "planes", "rows", "columns"),  # of a chunk
        *("all_images", "all_planes", "all_rows", "all_columns"),
        *("channels", "x_block", "outputs", "y_block", "taps"),
        *("x_batch", "x_channel", "x_plane", "x_row"),
        *("y_batch", "y_channel", "y_plane", "y_row"),
        *("lattices", "step_z", "step_y", "step_x", "low_z", "low_y", "low_x"),
        *("spacing_z", "spacing_y", "spacing_x"),
        *("panel_depth", "panel_height", "pitch", "lattice_cells", "y_pitch", "room"),
        *("x_pitch", "tile_size", "most_width", "ldc"),
        *("scratch_size", "y_size", "x_size", "to_segment"),
        *("x_tile_count", "last_x_tile_count", "tap_tile_count", "last_tap_tile_count"),
    ),
)
"""Arguments of the drivers of the weight gradient; `Correlated` writes them."""

_TILE = Record(words=("first", "size"))  # in a list of tiles


def run_outer(module: Module, name: str, element: ElementType) -> None:
    """Emit ``run_outer(arguments, thread)`` for lanes that are channels of x."""
    _emit(module, name, element, is_dot=False)


def run_dot(module: Module, name: str, element: ElementType) -> None:
    """Emit the same for lanes that are cells."""
    _emit(module, name, element, is_dot=True)


class _Call:
    """The code being written, with the call's arguments by name, and places of this thread."""

    def __init__(self, code: Code, arguments: Value, thread: Value) -> None:
        self.code = code
        self._arguments = GRADIENT_ARGUMENTS.load(code, arguments)
        self.y_panel = code.at(self.scratch, code.mul(thread, self.scratch_size))
        self.x_panel = code.at(self.y_panel, self.y_size)
        self.block = code.at(self.x_panel, self.x_size)

    def __getattr__(self, name: str) -> Value:
        found: Value = self.__dict__["_arguments"][name]
        return found


class _Item:
    """What a thread has taken: blocks of channels of a group, and the chunks of a segment."""

    def __init__(self, c: _Call, number: Value) -> None:
        code = c.code
        rest, y_block = code.divmod(number, c.y_blocks)
        rest, x_block = code.divmod(rest, c.x_blocks)
        self.segment, self.group = code.divmod(rest, c.groups)
        self.is_last_x = code.is_equal(x_block, code.sub(c.x_blocks, 1))
        self.is_last_y = code.is_equal(y_block, code.sub(c.y_blocks, 1))
        self.channel, self.output = code.mul(x_block, c.x_block), code.mul(y_block, c.y_block)
        self.channels = code.least(c.x_block, code.sub(c.channels, self.channel))
        self.outputs = code.least(c.y_block, code.sub(c.outputs, self.output))
        share, more = code.divmod(c.chunks, c.segments)
        self.start = code.add(code.mul(self.segment, share), code.least(self.segment, more))
        one = code.pick(code.is_less(self.segment, more), 1, 0)
        self.stop = code.add(self.start, share, one)
        of_x = code.add(code.mul(self.group, c.channels), self.channel)
        of_y = code.add(code.mul(self.group, c.outputs), self.output)
        self.x = code.at(c.x, code.mul(of_x, c.x_channel))
        self.y = code.at(c.y, code.mul(of_y, c.y_channel))
        row = code.mul(c.outputs, c.taps)
        to = code.add(code.mul(of_x, row), code.mul(self.output, c.taps))
        self.to = code.at(c.to, code.add(code.mul(self.segment, c.to_segment), to))


class _Chunk:
    """The cells of a chunk: the first image, plane, row and column, and how many of each."""

    def __init__(self, c: _Call, number: Value) -> None:
        code = c.code
        rest, column = code.divmod(number, c.column_chunks)
        rest, row = code.divmod(rest, c.row_chunks)
        image, plane = code.divmod(rest, c.plane_chunks)
        self.image, self.plane = code.mul(image, c.images), code.mul(plane, c.planes)
        self.row, self.column = code.mul(row, c.rows), code.mul(column, c.columns)
        self.images = code.least(c.images, code.sub(c.all_images, self.image))
        self.planes = code.least(c.planes, code.sub(c.all_planes, self.plane))
        self.rows = code.least(c.rows, code.sub(c.all_rows, self.row))
        self.columns = code.least(c.columns, code.sub(c.all_columns, self.column))
        # A chunk is a part of one row, or of one plane whole rows, and so on.
        self.of_image = code.mul(self.planes, code.mul(self.rows, self.columns))
        of_planes, of_rows = code.mul(self.plane, c.x_plane), code.mul(self.row, c.x_row)
        self.x_start = code.add(code.mul(self.image, c.x_batch), of_planes, of_rows, self.column)


def _emit(module: Module, name: str, element: ElementType, *, is_dot: bool) -> None:
    code, a = begin(module, name, {"arguments": PTR, "thread": I64}, element)
    c = _Call(code, a["arguments"], a["thread"])
    with code.items(c.counter, c.items) as taken:
        item = _Item(c, taken)
        with code.loop(item.stop, item.start) as n:
            chunk = _Chunk(c, n)
            _pack_y(c, item, chunk)
            (_pack_rows_of_x if is_dot else _turn_x)(c, item, chunk)
            first = code.pick(code.is_equal(n, item.start), 1, 0)
            _sum(c, item, chunk, first, is_dot=is_dot)
        (_copy_sums if is_dot else _turn_sums)(c, item)
    code.end()


def _pack_y(c: _Call, item: _Item, chunk: _Chunk) -> None:
    """Copy what a chunk meets of y, channel by channel, lattice by lattice, image by image."""
    code, pitch = c.code, c.pitch
    plane = code.mul(c.panel_height, pitch)
    volume = code.mul(c.panel_depth, plane)
    first = code.add(code.mul(chunk.column, c.spacing_x), c.low_x)
    left = code.least(code.most(code.sub(0, first), 0), pitch)
    start, room = code.add(first, left), code.sub(pitch, left)
    of_y = code.add(code.mul(chunk.row, c.spacing_y), c.low_y)
    top = code.least(code.most(code.sub(0, of_y), 0), c.panel_height)
    y_plane, y_row = code.mul(c.y_plane, c.step_z), code.mul(c.y_row, c.step_y)
    # Images that have one row in the panel are the rows of one.
    is_flat = code.is_equal(code.mul(c.panel_depth, c.panel_height), 1)
    many, step = code.pick(is_flat, chunk.images, 1), code.pick(is_flat, c.y_batch, y_row)
    of_row, of_planes = code.mul(pitch, many), code.mul(plane, many)
    with code.loop(item.outputs) as output, code.loop(c.lattices) as n:
        lattice = LATTICE.load(code, c.lattices_of_y, n)
        count = code.most(code.least(code.sub(lattice["width"], start), room), 0)
        right = code.sub(room, count)
        bottom = code.least(code.sub(lattice["height"], of_y), c.panel_height)
        rows = code.most(code.sub(bottom, top), 0)
        of_rows = code.mul(code.add(of_y, top), y_row)
        in_channel = code.add(lattice["start"], of_rows, code.mul(start, c.step_x))
        in_channel = code.add(in_channel, code.mul(output, c.y_channel))
        # Rows without zeros between them, if there are none in y either, are copied as one.
        is_one = code.both(code.is_equal(count, pitch), code.is_equal(pitch, y_row))
        one_count = code.pick(is_one, code.mul(count, rows), count)
        one_row = code.mul(code.pick(is_one, 1, rows), many)
        to = code.at(c.y_panel, code.mul(output, c.y_pitch))
        to = code.at(to, code.mul(n, c.lattice_cells))
        images = code.pick(is_flat, 1, chunk.images)
        with code.loop(images) as image, code.loop(c.panel_depth) as z:
            # In the order of the panel, for rows are written a little beyond their ends.
            of_z = code.add(code.mul(chunk.plane, c.spacing_z), z, c.low_z)
            exists = code.is_within(of_z, lattice["depth"])
            of_image = code.mul(code.add(chunk.image, image), c.y_batch)
            source = code.at(item.y, code.add(of_image, code.mul(of_z, y_plane), in_channel))
            above = code.pick(exists, code.mul(top, of_row), of_planes)
            filled = code.add(above, code.pick(exists, code.mul(rows, of_row), 0))
            some, below = code.pick(exists, one_row, 0), code.sub(of_planes, filled)
            ahead = code.mul(c.y_channel, CHANNELS_AHEAD)
            numbers = (above, some, step, left, one_count, right, below, c.step_x, ahead)
            of_panel = code.add(code.mul(image, volume), code.mul(z, plane))
            code.call(c.pack_rows, code.at(to, of_panel), source, *numbers)
        end = code.at(to, code.mul(chunk.images, volume))
        code.call(c.pack_rows, end, c.y, c.room, 0, 0, 0, 0, 0, 0, 1, 0)


def _turn_x(c: _Call, item: _Item, chunk: _Chunk) -> None:
    """Write cells one after the other, a tile of channels of x after the other.

    Where an image is a single cell, its channels lie so already.
    """
    code, lanes = c.code, c.code.element.lanes
    end = code.mul(code.div(code.add(item.channels, lanes - 1), lanes), lanes)
    start = code.at(item.x, chunk.x_start)
    with code.if_else(code.is_equal(c.x_channel, 1)) as (cells, images):
        with cells, code.loop(item.channels, step=c.tile_size) as channel:
            to = code.at(c.x_panel, code.mul(code.div(channel, c.tile_size), c.x_pitch))
            width = code.least(c.tile_size, code.sub(end, channel))
            count = code.least(width, code.sub(item.channels, channel))
            numbers = (0, chunk.images, c.x_batch, 0, count, code.sub(width, count), 0, 1, 0)
            code.call(c.copy_rows, to, code.at(start, channel), *numbers)
        with images, code.loop(item.channels, step=lanes) as channel:
            tile, within = code.divmod(channel, c.tile_size)
            to = code.at(c.x_panel, code.mul(tile, c.x_pitch))
            # The last tile may be narrower.
            width = code.least(c.tile_size, code.sub(end, code.mul(tile, c.tile_size)))
            channels = code.least(code.sub(item.channels, channel), lanes)
            source = code.at(start, code.mul(channel, c.x_channel))
            with code.loop(chunk.images) as image:
                cell = code.mul(code.mul(image, chunk.of_image), width)
                row = code.at(to, code.add(cell, within))
                x = code.at(source, code.mul(image, c.x_batch))
                code.call(c.turn_in, row, x, width, c.x_channel, channels, chunk.of_image)


def _pack_rows_of_x(c: _Call, item: _Item, chunk: _Chunk) -> None:
    """Copy cells of x to the places that they have in a lattice, zeros between them."""
    code, pitch = c.code, c.pitch
    plane = code.mul(c.panel_height, pitch)
    volume = code.mul(c.panel_depth, plane)
    right = code.sub(pitch, chunk.columns)
    rest = code.sub(c.panel_height, chunk.rows)
    beyond = code.mul(code.sub(c.panel_depth, chunk.planes), plane)
    with code.loop(item.channels) as channel, code.loop(chunk.images) as image:
        of_channel = code.at(c.x_panel, code.mul(channel, c.x_pitch))
        to = code.at(of_channel, code.mul(image, volume))
        x = code.add(chunk.x_start, code.mul(image, c.x_batch), code.mul(channel, c.x_channel))
        source = code.at(item.x, x)
        with code.loop(chunk.planes) as z:
            is_last = code.is_equal(code.add(z, 1), chunk.planes)
            below = code.add(code.mul(rest, pitch), code.pick(is_last, beyond, 0))
            of_plane = code.at(source, code.mul(z, c.x_plane))
            numbers = (0, chunk.rows, c.x_row, 0, chunk.columns, right, below, 1, 0)
            code.call(c.copy_rows, code.at(to, code.mul(z, plane)), of_plane, *numbers)
        with code.when(code.is_equal(code.add(image, 1), chunk.images)):
            end, lanes = code.at(to, volume), code.element.lanes
            code.call(c.copy_rows, end, c.x, lanes, 0, 0, 0, 0, 0, 0, 1, 0)


def _tiles(c: _Call, item: _Item, which: str) -> tuple[Value, Value]:
    """The list of a block's tiles, and its length: of channels of x, or of taps."""
    is_last = item.is_last_x if which == "x" else item.is_last_y
    tiles = c.code.builder.select(
        is_last, getattr(c, f"last_{which}_tiles"), getattr(c, f"{which}_tiles")
    )
    counts = (getattr(c, f"{last}{which}_tile_count") for last in ("last_", ""))
    return tiles, c.code.pick(is_last, *counts)


def _sum(c: _Call, item: _Item, chunk: _Chunk, first: Value, *, is_dot: bool) -> None:
    """Add the products of a chunk to the sums of a block."""
    code, lanes = c.code, c.code.element.lanes
    x_tiles, x_count = _tiles(c, item, "x")
    tap_tiles, tap_count = _tiles(c, item, "tap")
    cells = code.mul(chunk.images, chunk.of_image)
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


def _turn_sums(c: _Call, item: _Item) -> None:
    """Write the block's sums, whose rows are taps, as rows that are channels of x."""
    code = c.code
    rows, pitch = code.mul(item.outputs, c.taps), code.mul(c.outputs, c.taps)
    code.call(c.turn_out, item.to, c.block, pitch, c.ldc, rows, item.channels)


def _copy_sums(c: _Call, item: _Item) -> None:
    """Write the block's sums, which lie tile by tile."""
    code = c.code
    x_tiles, x_count = _tiles(c, item, "x")
    tap_tiles, tap_count = _tiles(c, item, "tap")
    pitch = code.mul(c.outputs, c.taps)
    with code.loop(x_count) as n, code.loop(tap_count) as m:
        x_tile = _TILE.load(code, x_tiles, n)
        tap_tile = _TILE.load(code, tap_tiles, m)
        tile = code.add(code.mul(n, tap_count), m)
        sums = code.at(c.block, code.mul(tile, c.tile_size))
        with code.loop(x_tile["size"]) as r:
            row = code.mul(code.add(x_tile["first"], r), pitch)
            to = code.at(item.to, code.add(row, tap_tile["first"]))
            of_row = code.at(sums, code.mul(r, tap_tile["size"]))
            with code.loop(tap_tile["size"]) as k:
                code.store(code.load(of_row, k), to, k)
