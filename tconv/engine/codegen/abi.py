"""Arguments of native functions, as records of 64-bit words: their names, in order.

A record is written in one place in Python and read by name in generated code.
"""

from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager

import numpy as np
from numpy.typing import NDArray

from tconv.engine.codegen.code import Code
from tconv.engine.codegen.llvm import I64, PTR, Index, Type, Value

__all__ = [
    "ARGUMENTS",
    "CHANNEL_LANES_TILE",
    "OUTPUT_TRANSFORM",
    "PHASE",
    "RESIDUE_CLASS",
    "RUN",
    "TERMS_AHEAD",
    "TILE",
    "Call",
    "Record",
    "Task",
    "each_tile",
]


class Record:
    """Names of 64-bit words that follow each other in memory: addresses, then integers.

    >>> entry = Record(pointers=("kernel",), words=("rows", "acc"))
    >>> entry.place("rows"), len(entry)
    (1, 3)
    >>> entry.pack(kernel=0, acc=7, rows=2)
    array([0, 2, 7])
    >>> entry.pack(kernel=0, rows=2)
    Traceback (most recent call last):
    ...
    ValueError: a record of 3 words lacks acc
    """

    __slots__ = ("places", "pointers", "words")

    def __init__(self, *, pointers: tuple[str, ...] = (), words: tuple[str, ...] = ()) -> None:
        self.pointers, self.words = pointers, words
        self.places = {name: place for place, name in enumerate((*pointers, *words))}
        assert len(self.places) == len(self), "a name stands twice"

    def __len__(self) -> int:
        return len(self.pointers) + len(self.words)

    def __iter__(self) -> Iterator[str]:
        return iter(self.places)

    def place(self, name: str) -> int:
        """Return where a word stands."""
        return self.places[name]

    # ---- in Python -------------------------------------------------------------------------------

    def row(self, values: Mapping[str, int] | None = None, /, **more: int) -> list[int]:
        """Return the words in order; each must be given, and nothing else."""
        given = {**(values or {}), **more}
        if given.keys() != self.places.keys():
            lacks = ", ".join(name for name in self if name not in given)
            other = ", ".join(name for name in given if name not in self.places)
            fault = " and ".join(
                [f"lacks {lacks}"] * bool(lacks) + [f"has no {other}"] * bool(other)
            )
            raise ValueError(f"a record of {len(self)} words {fault}")
        return [given[name] for name in self]

    def pack(self, values: Mapping[str, int] | None = None, /, **more: int) -> NDArray[np.int64]:
        """Return the words as `row` does, as an array."""
        return np.array(self.row(values, **more), np.int64)

    def addresses(self) -> dict[str, int]:
        """Return 0 for every address: those that are known later."""
        return dict.fromkeys(self.pointers, 0)

    # ---- in generated code -----------------------------------------------------------------------

    def entry(self, code: Code, table: Value, n: Index) -> Value:
        """``&table[n]``, of a table of such records."""
        return code.at(table, code.mul(n, len(self)), I64)

    def read(self, code: Code, pointer: Value, name: str) -> Value:
        """Read one word of the record at a pointer."""
        place = self.places[name]
        return code.load(pointer, place, self._kind(place))

    def load(self, code: Code, pointer: Value, n: Index = 0) -> dict[str, Value]:
        """Read the record at a pointer, or the n-th of those there: its words by name."""
        pointer = self.entry(code, pointer, n)
        return {name: self.read(code, pointer, name) for name in self}

    def store(self, code: Code, pointer: Value, **values: Value) -> None:
        """Write a record to a pointer; each word must be given."""
        assert values.keys() == self.places.keys()
        for place, name in enumerate(self):
            code.store(values[name], pointer, place)

    def _kind(self, place: int) -> Type:
        return PTR if place < len(self.pointers) else I64


ARGUMENTS = Record(
    pointers=(
        *("x", "weight", "bias", "y", "counter", "scratch", "residual"),  # by `Job`, for each call
        *("offsets", "tiles", "last_tiles", "acc_starts", "micros", "table", "sums", "sum_starts"),
        *("zeros", "residue_classes_of_x", "places", "output_transforms", "copying_micros"),
        *("phase_list", "last_phase_list", "taps_of_tiles", "untapped_rows"),
        *("pack_rows", "find_runs", "gather", "add_rows", "interleave_row", "stream"),  # kernels
        *("fill_row", "transform_input", "flag_large", "transpose_out", "slide", "fill"),
        *("activate", "finish_row", "parameters"),  # a kernel, or none, and its argument
    ),
    words=(
        *("tasks", "both_ends", "splits", "column_blocks", "row_blocks", "plane_blocks", "batch"),
        *("scratch_size", "channels", "k_block"),
        *("x_size", "x_batch", "x_group", "x_channel", "x_plane", "x_row"),
        *("input_depth", "input_height", "input_width"),
        *("residue_classes", "step_z", "step_y", "step_x"),
        *("panel_depth", "panel_height", "pitch", "panel_size"),
        *("reach_z", "reach_y", "reach_x", "low_z", "low_y", "low_x"),
        *("planes", "rows", "columns", "all_planes", "all_rows", "all_columns"),
        *("height_rows", "depth_rows"),
        *("is_im2col", "shifts", "table_row", "runs_size", "im2col_lanes"),
        *("acc_pitch", "acc_size"),
        *("wide_lanes", "wide_calls", "rest_calls", "panel_tile", "per_tap"),
        *("skips_scatter", "taps", "panel_pitch", "product_pitch", "product_size"),
        *("y_batch", "y_group", "y_channel", "y_plane", "y_row"),
        *("output_depth", "output_height", "output_width", "stride_z", "stride_y", "stride_x"),
        *("crop_offset_z", "crop_offset_y", "crop_offset_x"),
        *("blocks", "block", "last_block", "tile_count", "last_tile_count", "phases"),
        *("weight_block", "bias_block", "streams", "held_size"),
        *("transformed_size", "transformed_pitch", "output_transform_count"),
        *("output_step_z", "output_step_y", "output_step_x"),
        *(
            "images",
            "image_blocks",
            "cells",
            "taps_of_last",
            "groups",
            "rest_lanes",
            "last_rest_lanes",
            "copies",
        ),
    ),
)
"""Arguments of the drivers of y and x: `Layout.arguments` writes the integers, and
`lowered_plan.LoweredPlan` the addresses of kernels and tables."""

TILE = Record(words=("rows", "weight", "offsets", "taps", "acc", "micro", "count"))
"""An entry of a plan's list of tiles: the first of `count` tiles that differ in nothing else."""

OUTPUT_TRANSFORM = Record(pointers=("kernel",), words=("before", "phases", "place", "acc"))
"""An entry of a plan's list of output transforms, for every group and phase of it.

`before` counts rows of products, of a channel, of earlier groups; `acc` is the phase of y.
"""

PHASE = Record(words=("tiles", "end", "taps", "before", "prefetch_bytes"))
"""An entry of the list of phases of a plan whose lanes are output channels.

Its tiles, its taps and those before it, and bytes that each term prefetches of later weights.
"""

CHANNEL_LANES_TILE = Record(words=("micro", "taps", "reached", "places"))
"""An entry of its list of tiles: `taps` and `places` are where its part of a table begins."""

RUN = Record(words=("start", "to", "place"))
"""A vector of an im2col panel: the first cell, where it goes, and its place in the table."""

TERMS_AHEAD = 24
"""So many terms on, cells of x are prefetched; lists of terms are so much longer."""

RESIDUE_CLASS = Record(words=("start", "depth", "height", "width"))
"""An entry of a plan's list of residue classes of x."""


class Call:
    """The driver that is being written: its arguments by name, and this thread's buffers."""

    panel: Value  # cells of x
    runs: Value  # of an im2col panel: which cells of x are contiguous
    products: Value  # of a GEMM, before they are added to their outputs
    acc: Value  # accumulator rows, before they are interleaved
    row_accumulators: Value  # where the accumulator rows of the phases of a row of y begin
    row_of_y: Value  # of non-temporal stores: `held` cells that are not yet written, ...
    held: Value
    begun: Value  # ... and the place in y of the first
    to: Value

    def __init__(self, code: Code, arguments: Value) -> None:
        self.code = code
        self.arguments = arguments

    def all_tasks(self, thread: Value) -> AbstractContextManager[Value]:
        """Take tasks, from either end if the call's operands are small enough for that."""
        end = self.code.builder.and_(thread, self.both_ends)
        return self.code.tasks(self.counter, self.tasks, end)

    def __getattr__(self, name: str) -> Value:
        """Read an argument where it is used: there are more than registers hold."""
        return ARGUMENTS.read(self.code, self.arguments, name)


class Task:
    """A task: some channels of a group of y, at some cells.

    The cells are `rows` rows from `row` on in each of `planes` planes from `plane` on, and
    `columns` columns from `column` on. Rows of an im2col panel are numbered through all planes and
    images.
    """

    def __init__(self, c: Call, number: Value) -> None:
        code, self.number = c.code, number
        rest, self.split = code.divmod(number, c.splits)
        rest, column_block = code.divmod(rest, c.column_blocks)
        rest, row_block = code.divmod(rest, c.row_blocks)
        rest, plane_block = code.divmod(rest, c.plane_blocks)
        self.group, self.image = code.divmod(rest, c.batch)
        self.plane, self.row = code.mul(plane_block, c.planes), code.mul(row_block, c.rows)
        self.column = code.mul(column_block, c.columns)
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
    """Call a micro-kernel for all tiles of an entry of the list of tiles.

    `place` has the addresses of the first tile's weights, cells, offsets, accumulator rows and
    biases; weights, rows and biases of the other tiles follow. `sizes` are the number of terms, the
    pitch of rows, and whether the sums begin here.
    """
    code, (w, x, offsets, to, bias) = c.code, place
    w_step = code.mul(tile["rows"], tile["taps"], c.channels)
    to_step = code.mul(tile["rows"], sizes[1])
    with code.loop_carrying(tile["count"], (w, to, bias)) as ((w, to, bias), following):
        code.call(kernel, w, x, offsets, to, bias, *sizes)
        following += [code.at(w, w_step), code.at(to, to_step), code.at(bias, tile["rows"])]
