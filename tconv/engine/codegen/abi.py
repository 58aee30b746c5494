"""WHAT A CALL IS TOLD: the addresses and sizes that generated code reads, by name."""

from tconv.engine.codegen.code import Code
from tconv.engine.codegen.llvm import I64, PTR, Value

__all__ = [
    "FIELDS",
    "LATTICE",
    "PHASE",
    "POINTERS",
    "RESTORED",
    "RUN",
    "TERMS_AHEAD",
    "TILE",
    "TURNED_TILE",
    "Call",
    "Item",
    "each_tile",
]

POINTERS = (
    *("x", "weight", "bias", "y", "counter", "scratch"),  # of a call
    *("offsets", "tiles", "last_tiles", "lines", "micros", "table", "sums", "sum_starts", "zeros"),
    *("lattices_of_x", "places", "restored"),
    *("phase_list", "last_phase_list", "taps_of_tiles"),
    *("pack_rows", "find_runs", "gather", "add_rows", "copy_row", "stream", "sum_cells"),  # kernels
    *("screen", "turn_out"),
    *("activate", "slope"),  # a kernel, or none, and what it is told
)
FIELDS = (
    *("items", "splits", "segments", "row_blocks", "plane_blocks", "batch", "scratch_size"),
    *("channels", "part", "x_size", "x_batch", "x_group", "x_channel", "x_plane", "x_row"),
    *("input_depth", "input_height", "input_width"),
    *("lattices", "step_z", "step_y", "step_x"),
    *("panel_depth", "panel_height", "pitch", "panel_size"),
    *("reach_z", "reach_y", "reach_x", "low_z", "low_y", "low_x"),
    *("planes", "rows", "columns", "all_planes", "all_rows", "all_columns"),
    *("height_rows", "depth_rows"),
    *(
        "is_gathered",
        "shifts",
        "table_row",
        "runs_size",
        "gathered_lanes",
        "line_pitch",
        "line_size",
    ),
    *("wide_lanes", "wide_calls", "rest_calls", "panel_tile", "by_tap"),
    *("is_plain", "taps", "panel_pitch", "product_pitch", "product_size"),
    *("y_batch", "y_group", "y_channel", "y_plane", "y_row"),
    *("output_depth", "output_height", "output_width", "stride_z", "stride_y", "stride_x"),
    *("lead_z", "lead_y", "lead_x"),
    *("blocks", "block", "last_block", "tile_count", "last_tile_count", "phases"),
    *("weight_block", "bias_block", "streams", "held_size"),
    *("sums_size", "sum_pitch", "restored_count", "restored_z", "restored_y", "restored_x"),
    *("images", "chunks", "cells", "taps_of_last"),
)
"""What stands in a call's arguments, in this order: addresses, then sizes, 64 bits each."""

_PLACES = {name: place for place, name in enumerate((*POINTERS, *FIELDS))}

TILE = ("rows", "weight", "offsets", "taps", "line", "micro", "count")
"""What stands in a plan's list of tiles, 64 bits each: the first of `count` that are alike."""

RESTORED = ("kernel", "before", "phases", "place", "line")
"""What stands in a plan's list of phases to restore, 64 bits each: of every group and phase of it.

`before` counts rows of products, of a channel, of earlier groups; `line` is the phase of y.
"""

PHASE = ("tiles", "end", "taps", "before", "asked")
"""What stands in a turned plan's list of phases, 64 bits each.

Its tiles, its taps and those before it, and bytes that each term asks for of the weights to come.
"""

TURNED_TILE = ("micro", "taps", "reached", "places")
"""What stands in its list of tiles: `taps` and `places` are tables' begins."""

RUN = ("start", "to", "place")
"""Of a vector of a gathered panel: the first cell, where it goes, and its place in the table."""

TERMS_AHEAD = 24
"""So many terms on, cells of x are asked for; lists of terms are so much longer."""

LATTICE = ("start", "depth", "height", "width")
"""What stands in a plan's list of the lattices of x, 64 bits each."""


class Call:
    """The code being written, with the call's arguments by name, and places of this thread."""

    panel: Value  # cells of x
    runs: Value  # where cells of x that are gathered follow each other
    products: Value  # of a spread item
    line: Value  # sums, before they are interleaved
    row_lines: Value  # where in the line buffer the phases of a row of y begin
    row_of_y: Value  # cells of y that are not there yet, if it streams: `held` of them, ...
    held: Value
    begun: Value  # ... the first of them for this place
    to: Value

    def __init__(self, code: Code, arguments: Value) -> None:
        self.code = code
        self.arguments = arguments

    def __getattr__(self, name: str) -> Value:
        """Read an argument where it is used: so many do not stay in registers anyway."""
        place = _PLACES[name]
        return self.code.load(self.arguments, place, PTR if place < len(POINTERS) else I64)


class Item:
    """What a thread has taken: a part of a group's channels of y, at some cells q.

    These are `rows` rows from `row` on in each of `planes` planes from `plane` on, and `columns`
    columns from `column` on. Gathered rows are counted through all planes and images.
    """

    def __init__(self, c: Call, number: Value) -> None:
        code, self.number = c.code, number
        rest, self.split = code.divmod(number, c.splits)
        rest, segment = code.divmod(rest, c.segments)
        rest, row_block = code.divmod(rest, c.row_blocks)
        rest, plane_block = code.divmod(rest, c.plane_blocks)
        self.group, self.image = code.divmod(rest, c.batch)
        self.plane, self.row = code.mul(plane_block, c.planes), code.mul(row_block, c.rows)
        self.column = code.mul(segment, c.columns)
        self.planes = code.least(c.planes, code.sub(c.all_planes, self.plane))
        self.rows = code.least(c.rows, code.sub(c.all_rows, self.row))
        self.columns = code.least(c.columns, code.sub(c.all_columns, self.column))
        of_x = code.add(code.mul(self.image, c.x_batch), code.mul(self.group, c.x_group))
        self.x_cell, self.x = of_x, code.cell(c.x, of_x)


def each_tile(
    c: Call,
    kernel: Value,
    tile: dict[str, Value],
    place: tuple[Value, ...],
    sizes: tuple[Value, Value, Value],
) -> None:
    """Call a micro-kernel for all tiles that follow each other, the first one at a place.

    A place is where its weights, cells, offsets, lines and biases are; the other tiles have
    weights, lines and biases of their own. `sizes` are terms, the pitch of lines, and whether sums
    begin.
    """
    code, (w, x, offsets, to, bias) = c.code, place
    w_step = code.mul(tile["rows"], tile["taps"], c.channels)
    to_step = code.mul(tile["rows"], sizes[1])
    with code.loop_carrying(tile["count"], (w, to, bias)) as ((w, to, bias), following):
        code.call(kernel, w, x, offsets, to, bias, *sizes)
        following += [code.at(w, w_step), code.at(to, to_step), code.at(bias, tile["rows"])]
