"""Memory layout of a plan: buffer sizes, tables of the driver, order of packed weights."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from functools import lru_cache
from itertools import accumulate, groupby, product
from math import ceil, prod
from operator import attrgetter
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.dtypes import TYPES
from tconv.engine.codegen.abi import ARGUMENTS, RUN, TERMS_AHEAD, TILE
from tconv.engine.direct.offsets import (
    grid,
    im2col_table,
    in_im2col_panel,
    in_padded_panel,
    residue_classes,
    strides,
)
from tconv.engine.plan.phases import Phases
from tconv.engine.plan.plan import KBlock, Plan, Tile, tile_rows
from tconv.engine.plan.problem import Problem
from tconv.engine.plan.size_bands import unsized
from tconv.engine.target.target import Target
from tconv.system.fork_lock import cached_property
from tconv.system.topology import CACHE_LINE_BYTES

__all__ = ["NO_TABLE", "ROWS_WITH_TIME", "Layout"]

_FORESEEN_BYTES, ROWS_WITH_TIME = 2**13, 6
_HELD_BYTES = 2**14  # of y that are held in the L1 cache before they are stored
NO_TABLE = np.zeros(1, np.int32)
_RUN_BYTES = 2**13  # of weights of tiles that are called in a row: the L1 cache holds them


@dataclass(eq=False, repr=False)
class Layout:
    """All arguments of a plan's driver but the addresses of kernels and operands.

    Rows are channels of y and within them the phases of a phase group; for col2im all taps. Packed
    weights are (groups, blocks, tiles, terms, rows of the tile). Terms are channels of x and within
    them the taps that a row sums, or, with per-tap accumulation, taps and within them channels. The
    last block is as long as the others, its end unused.
    """

    problem: Problem
    plan: Plan
    dtype: np.dtype[Any]  # of x, y and the weight; buffers have the type `computed`
    target: Target
    phases: Phases = field(init=False)
    fields: dict[str, int] = field(init=False)

    def __post_init__(self) -> None:
        problem, plan = self.problem, self.plan
        self.phases = problem.phases(plan.is_uncropped)
        if plan.algorithm == "winograd":
            self.phases = problem.winograd_phases(plan.is_uncropped, plan.outputs)
        self.computed = np.dtype(TYPES[self.dtype.name].accumulator)
        self.lanes = self.target.vector_bits // 8 // self.computed.itemsize
        self.is_im2col, self.is_col2im = plan.panel == "im2col", plan.algorithm == "col2im"
        self.channels, self.outputs = problem.channels, problem.outputs
        self.blocks = ceil(self.outputs / plan.block)
        self.last_block = self.outputs - (self.blocks - 1) * plan.block
        self.kinds = self._kinds()
        self.block_tiles, self.last_tiles = map(self._tiles, (plan.block, self.last_block))
        elements = sum([rows * taps for rows, taps in self.kinds])
        self.weight_block = elements * plan.block * self.channels
        self._set_sizes()
        self._set_fields()

    def _kinds(self) -> tuple[tuple[int, int], ...]:
        """Kinds of rows: how many a channel of y has, and the number of taps that each sums."""
        if self.is_col2im:
            return ((self.problem.taps, 1),)
        return tuple([(len(group.phases), group.taps) for group in self.phases.groups])

    @property
    def unroll(self) -> int:
        """Terms that a micro-kernel takes at a time: all sums are multiples of it."""
        if not self.target.has_fma:  # two terms would need more registers
            return 1
        for _, taps in self.kinds:
            together = 1 if self.plan.k_block.per_tap else taps
            if together * self.channels % 2 or together * self.plan.k_block.channels % 2:
                return 1
        return 2

    def reads_ahead(self, rows: int) -> int:
        """Whether, and how, a tile of so many rows prefetches the next cells of x.

        It does where x is not in the L2 cache, channels are too far apart for the hardware's
        prefetcher, and the tile has rows enough to hide the instructions.
        """
        x_bytes = self.problem.read_count * self.dtype.itemsize
        plane_bytes = prod(self.problem.read_size) * self.dtype.itemsize
        is_far = x_bytes > self.target.l2_bytes and plane_bytes >= _FORESEEN_BYTES
        is_far = is_far and self.dtype == self.computed  # else it has been copied
        if self.plan.algorithm == "im2col" and self.shifts > 1:
            return 0 if self.plan.k_block.per_tap else 2
        return int(self.is_col2im and is_far and rows >= ROWS_WITH_TIME)

    @property
    def weight_matrix(self) -> NDArray[Any] | None:
        """The matrix that transforms the taps of two channels before they are packed, if any."""
        return None

    @cached_property
    def heights(self) -> list[int]:
        """Heights of tiles that occur."""
        return sorted({tile.rows for tile in (*self.block_tiles, *self.last_tiles)})

    def _tiles(self, block: int) -> tuple[Tile, ...]:
        return _tiles_of(self.kinds, block, self.plan.tile, self.channels)

    def _runs(self, tiles: tuple[Tile, ...]) -> list[tuple[Tile, int]]:
        """Runs of equal tiles whose weights the L1 cache holds: the first tile and their number."""
        return _runs_of(tiles, self.kinds, self.plan.k_block, self.computed.itemsize)

    def _set_sizes(self) -> None:
        """Elements of a thread's buffers: the panel, products, accumulators, and a piece of y."""
        plan, (z, y, x) = self.plan, self.phases.axes
        self.taps_in_all, self.shifts = self.problem.taps, self.phases.shifts
        pieces = 1
        if self.is_col2im:
            pieces, cells = self.phases.pieces(plan.planes, plan.rows, plan.columns)
            self.pitch = plan.columns
        else:
            self.pitch = plan.columns if self.is_im2col else x.pitch(plan.columns)
            cells = (plan.rows - 1) * self.pitch + plan.columns
        self.vectors = ceil(cells / self.lanes)
        self.tile_lanes = plan.vectors * self.lanes
        self.lanes_in_all = pieces * self.vectors * self.lanes
        self.widths: tuple[int, ...] = (
            plan.vectors,
            1 if self.is_col2im else self.vectors % plan.vectors,
        )
        self.panel_rows = plan.rows + y.high - y.low
        if self.is_col2im:
            self.cells = self.lanes_in_all  # of a channel in the panel
        elif self.is_im2col:
            self.cells = self.shifts * self.im2col_lanes  # and of a tile
        else:
            planes = 1 + z.high - z.low
            self.cells = planes * self.panel_rows * self.pitch  # and of a residue class
        # Vectors are whole, so up to one is read beyond the last cell, and the zeros after it.
        room = self.lanes + max(x.high, 0)
        copies = self.phases.residue_classes
        if self.is_im2col:
            copies = ceil(self.lanes_in_all / self.im2col_lanes)
        self.panel_size = self._rounded(copies * self.channels * self.cells + room) + self.runs_size
        self.skips_scatter = self.is_col2im and self.phases.taps_are_phases and pieces == 1
        adds = self.is_col2im and not self.skips_scatter
        self.product_size = self.taps_in_all * plan.block * self.lanes_in_all if adds else 0
        q_cells = plan.planes * plan.rows * plan.columns if self.is_col2im else self.lanes_in_all
        self.acc_pitch, self.acc_rows = self._rounded(q_cells), self.phases.count * plan.block
        y_bytes = self.problem.written_count * self.dtype.itemsize
        self.held_size = _HELD_BYTES // self.dtype.itemsize
        cells = plan.columns * x.stride
        self.streams = plan.streams(y_bytes, cells * self.dtype.itemsize, x.count)
        self.streams = self.streams and cells < self.held_size

    @property
    def im2col_lanes(self) -> int:
        """Contiguous lanes of an im2col panel, for every channel and shift."""
        return self.tile_lanes

    @property
    def runs_size(self) -> int:
        """Elements at the panel's end for the runs of cells that vectors read, 64 bits a word."""
        found = len(RUN) * self.shifts * self.vectors * 8 // self.computed.itemsize
        return self._rounded(found) if self.is_im2col else 0

    @property
    def panel_tile(self) -> int:
        """Elements of the panel from one call of a micro-kernel to the next."""
        return self.channels * self.cells if self.is_im2col else self.tile_lanes

    @property
    def scratch_size(self) -> int:
        """Elements of all buffers of a thread."""
        itemsize, (_, y, x) = self.computed.itemsize, self.phases.axes
        align = CACHE_LINE_BYTES // itemsize
        size = self.panel_size + self.product_size + self.acc_rows * self.acc_pitch
        size += self.lanes  # accumulator rows are read by whole vectors
        size += y.stride * x.stride * 8 // itemsize  # where phases begin, 64 bits each
        size += _HELD_BYTES // itemsize + align if self.streams else 0
        return ceil(size / align) * align

    def _rounded(self, count: int) -> int:
        """Elements of whole vectors."""
        return ceil(count / self.lanes) * self.lanes

    def _set_fields(self) -> None:
        problem, plan, (z, y, x) = self.problem, self.plan, self.phases.axes
        geometry = problem.geometry
        image_rows = y.count * z.count
        column_blocks = ceil(x.count / plan.columns)
        all_rows = geometry.batch * image_rows if self.is_im2col else y.count
        row_blocks = ceil(all_rows / plan.rows)
        all_planes, batch = (1, 1) if self.is_im2col else (z.count, geometry.batch)
        planes = ceil(all_planes / plan.planes)
        x_sizes, y_sizes = problem.read_size, problem.written_size
        self.fields = {
            "tasks": geometry.groups * batch * planes * row_blocks * column_blocks * plan.splits,
            "splits": plan.splits,
            "column_blocks": column_blocks,
            "row_blocks": row_blocks,
            "plane_blocks": planes,
            "batch": batch,
            "scratch_size": self.scratch_size,
            "channels": self.channels,
            "k_block": plan.k_block.channels,
            "x_size": problem.read_count,
            **strides("x", self.channels, geometry.groups, x_sizes),
            "input_depth": x_sizes[0],
            "input_height": x_sizes[1],
            "input_width": x_sizes[2],
            "residue_classes": self.phases.residue_classes,
            "step_z": z.step,
            "step_y": y.step,
            "step_x": x.step,
            "panel_depth": 1 + z.high - z.low,
            "panel_height": self.panel_rows,
            "pitch": self.pitch,
            "panel_size": self.panel_size,
            "reach_z": z.high,
            "reach_y": y.high,
            "reach_x": x.high,
            "low_z": z.low,
            "low_y": y.low,
            "low_x": x.low,
            "planes": plan.planes,
            "rows": plan.rows,
            "columns": plan.columns,
            "all_planes": all_planes,
            "all_rows": all_rows,
            "all_columns": x.count,
            "height_rows": y.count,
            "depth_rows": z.count,
            "is_im2col": int(self.is_im2col),
            "shifts": self.shifts,
            "table_row": geometry.batch * image_rows * x.count,
            "runs_size": self.runs_size,
            "im2col_lanes": self.im2col_lanes,
            "acc_pitch": self.acc_pitch,
            "acc_size": self.acc_rows * self.acc_pitch,
            "wide_lanes": self.tile_lanes,
            "wide_calls": self.vectors // plan.vectors,
            "rest_calls": min(self.vectors % plan.vectors, 1),
            "panel_tile": self.panel_tile,
            "per_tap": int(plan.k_block.per_tap),
            "skips_scatter": int(self.skips_scatter),
            "taps": self.taps_in_all,
            "panel_pitch": self.cells,
            "product_pitch": self.lanes_in_all,
            "product_size": self.product_size,
            **strides("y", self.outputs, geometry.groups, y_sizes),
            "output_depth": y_sizes[0],
            "output_height": y_sizes[1],
            "output_width": y_sizes[2],
            "stride_z": z.stride,
            "stride_y": y.stride,
            "stride_x": x.stride,
            **dict(
                zip(
                    ("crop_offset_z", "crop_offset_y", "crop_offset_x"),
                    self.phases.crop_offset,
                    strict=True,
                )
            ),
            "blocks": self.blocks,
            "block": plan.block,
            "last_block": self.last_block,
            "tile_count": len(self._runs(self.block_tiles)),
            "last_tile_count": len(self._runs(self.last_tiles)),
            "phases": self.phases.count,
            "weight_block": self.weight_block,
            "bias_block": self.acc_rows,
            "streams": int(self.streams),
            "held_size": self.held_size,
        }

    def arguments(self) -> NDArray[np.int64]:
        """The driver's arguments with 0 for addresses, and for what this plan does not use."""
        moved = (self.problem.read_count + self.problem.written_count) * self.dtype.itemsize
        given = dict.fromkeys(ARGUMENTS, 0) | {"both_ends": int(moved <= self.target.l3_bytes)}
        return ARGUMENTS.pack(given | self.fields)

    @cached_property
    def unsized(self) -> Problem:
        """The problem without sizes, which stands for all sizes of the layer."""
        return unsized(self.problem)

    @property
    def family(self) -> tuple[Any, ...]:
        """The key of `fixed` and all kernels, which many sizes of a layer share."""
        plan = self.plan
        words = (plan.tile, plan.vectors, plan.is_uncropped, plan.algorithm, plan.panel)
        ahead = tuple([self.reads_ahead(rows) for rows in self.heights])
        kinds = (*words, plan.outputs, plan.block, plan.k_block, plan.threads, self.widths)
        made_for = self.unsized, self.dtype.name, self.target
        return (*made_for, *kinds, ahead, self.streams, self.skips_scatter)

    @property
    def packing(self) -> tuple[Any, ...]:
        """The key of the order of packed weights."""
        problem = self.unsized
        if problem.activation is not None or problem.residual:
            problem = replace(problem, activation=None, residual=False)
        return (problem, self.dtype.name, self.target, *self.plan.packing)

    def fixed(self) -> dict[str, NDArray[Any]]:
        """Arrays that the driver reads and that do not depend on sizes."""
        none = np.zeros(1, np.int64)
        sums, sum_starts = self.sums() if self.is_col2im else (none, none)
        lists = [self.tiles(tiles) for tiles in (self.block_tiles, self.last_tiles)]
        rows, count = (np.concatenate(lists)[:, TILE.place(name)] for name in ("rows", "count"))
        return {
            "sums": sums,
            "sum_starts": sum_starts,
            "zeros": np.zeros((rows * count).max(), self.computed),
            "parameters": self.parameters,
            "tiles": lists[0],
            "last_tiles": lists[1],
            "acc_starts": self.acc_starts(),
            "untapped_rows": self.untapped_rows,
        }

    @property
    def parameters(self) -> NDArray[Any]:
        """The parameters of the activation, one at least."""
        activation = self.problem.activation
        return np.array([*(activation.parameters if activation else ()), 0], self.computed)

    def sized(self) -> dict[str, NDArray[Any]]:
        """Arrays that the driver reads and that depend on sizes."""
        return {
            "offsets": self.offsets(),
            "table": self.table() if self.is_im2col else NO_TABLE,
            "residue_classes_of_x": self.residue_classes(),
        }

    @property
    def starts(self) -> list[int]:
        """Where each kind of rows begins in `offsets`."""
        counts = [taps * self.channels for _, taps in self.kinds]
        return [0, *accumulate(counts[:-1])]

    def offsets(self) -> NDArray[np.int32]:
        """Where each term reads in a panel, for each kind of rows in turn.

        For col2im: in x, and then in the panel that is a copy of it.
        """
        channels = np.arange(self.channels)
        if self.is_col2im:
            steps = (self.fields["x_channel"], self.cells)
            return np.concatenate([channels * step for step in steps]).astype(np.int32)
        parts = []
        for group in self.phases.groups:
            at = self.cells_at(group.shifts, self.channels)
            cells = channels[:, np.newaxis] * self.cells + at
            if self.plan.k_block.per_tap:
                step = self.plan.k_block.channels
                runs = [cells[n : n + step].T.ravel() for n in range(0, self.channels, step)]
                cells = np.concatenate(runs)
            parts.append(cells.ravel())
        parts.append(np.full(TERMS_AHEAD, 0))
        return np.concatenate(parts).astype(np.int32)

    def cells_at(self, shifts: Sequence[Sequence[int]], channels: int) -> NDArray[np.int64]:
        """Cells that the first lane reads, in a panel of so many channels."""
        if self.is_im2col:
            return in_im2col_panel(self.phases, shifts) * self.im2col_lanes
        depth = self.fields["panel_depth"]
        return in_padded_panel(self.phases, shifts, (depth, self.panel_rows, self.pitch), channels)

    def residue_classes(self) -> NDArray[np.int64]:
        """Where the residue classes of x begin, and their sizes."""
        axes = self.phases.axes
        firsts, sizes = [axis.residue_classes for axis in axes], [axis.input for axis in axes]
        return residue_classes(firsts, sizes, [axis.step for axis in axes])

    def table(self) -> NDArray[np.int32]:
        """For an im2col panel: the cell of x that every shift reads for every lane, or -1."""
        found = im2col_table(self.phases, self.problem.geometry.batch, self.fields["x_batch"])
        return np.append(found, np.full(self.lanes, -1, np.int32))  # for the last vector

    def tiles(self, tiles: tuple[Tile, ...]) -> NDArray[np.int64]:
        """The driver's list of tiles, one entry for each run."""
        rows, kinds, starts = [], self.kinds, self.starts
        for tile, count in self._runs(tiles):
            entry = {
                "rows": tile.rows,
                "weight": tile.weight,
                "offsets": starts[tile.kind],
                "taps": kinds[tile.kind][1],
                "acc": tile.acc,
                "micro": 2 * tile.rows,
                "count": count,
            }
            rows.append(TILE.row(entry))
        return np.array(rows, np.int64)

    def acc_starts(self) -> NDArray[np.int64]:
        """For every phase its first accumulator row and the step, in full blocks and the last."""
        z, y, x = self.phases.axes
        found = np.zeros((2, z.stride, y.stride, x.stride, 2), np.int64)
        if self.skips_scatter:  # accumulators are products, of taps that are phases
            taps = np.arange(self.taps_in_all).reshape(z.stride, y.stride, x.stride)
            found[..., 0], found[..., 1] = taps, self.taps_in_all
            return found.ravel()
        for n, block in enumerate((self.plan.block, self.last_block)):
            first = 0
            for group in self.phases.groups:
                for place, phase in enumerate(group.phases):
                    found[(n, *phase)] = first + place, len(group.phases)
                first += block * len(group.phases)
        return found.ravel()

    @property
    def untapped_rows(self) -> NDArray[np.int64]:
        """For every phase of planes and rows of y whether no tap reaches it: 1, else 0."""
        z, y, x = ([not taps for taps in axis.taps] for axis in self.phases.axes)
        return np.array([row or plane or all(x) for plane, row in product(z, y)], np.int64)

    def sums(self) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """The taps that are added for every phase, with shifts; and where each phase begins."""
        kernel = self.problem.kernel_size
        entries, starts = [], [0]
        for phase in product(*(range(axis.stride) for axis in self.phases.axes)):
            by_axis = (axis.taps[n] for axis, n in zip(self.phases.axes, phase, strict=True))
            for (tap_z, z), (tap_y, y), (tap_x, x) in product(*by_axis):
                tap = (tap_z * kernel[1] + tap_y) * kernel[2] + tap_x
                entries.append((tap, z, y, x))
            starts.append(len(entries))
        return np.array(entries, np.int64).reshape(-1, 4), np.array(starts, np.int64)

    def taps(self) -> Iterable[NDArray[np.int64]]:
        """For every kind of rows the flat indices of taps, (taps, rows of a channel of y)."""
        if self.is_col2im:
            yield np.arange(self.taps_in_all)[np.newaxis]
            return
        for group in self.phases.groups:
            columns = []
            for phase in group.phases:
                by_axis = [
                    [tap for tap, _ in axis.taps[n]]
                    for axis, n in zip(self.phases.axes, phase, strict=True)
                ]
                columns.append(grid(by_axis, self.problem.kernel_size))
            yield np.stack(columns, axis=1)

    def _biased(self) -> list[int]:
        """For every kind of accumulator rows how many a channel of y has, each with its bias."""
        kinds = [len(group.phases) for group in self.phases.groups]
        return [self.taps_in_all] if self.skips_scatter else kinds

    def bias_sources(self) -> NDArray[np.int64]:
        """For every accumulator row of every block of every group the channel of its bias."""
        groups, block, last = self.problem.geometry.groups, self.plan.block, self.last_block
        found = np.zeros((groups, self.blocks, self.fields["bias_block"]), np.int64)
        of_groups = np.arange(groups)[:, np.newaxis, np.newaxis] * self.outputs
        firsts = of_groups + np.arange(self.blocks)[:, np.newaxis] * block
        for blocks, size in ((slice(-1), block), (slice(-1, None), last)):
            rows = np.concatenate([np.arange(size).repeat(count) for count in self._biased()])
            found[:, blocks, : rows.size] = firsts[:, blocks] + rows
        return found


@lru_cache(maxsize=256)
def _tiles_of(
    kinds: tuple[tuple[int, int], ...], block: int, tile: int, channels: int
) -> tuple[Tile, ...]:
    """The tiles of a block, from the kinds of rows of a channel of y."""
    found, weight, acc = [], 0, 0
    for n, (count, taps) in enumerate(kinds):
        first = 0
        for rows in tile_rows(count * block, tile):
            found.append(Tile(n, first, rows, weight, acc + first))
            weight += rows * taps * channels
            first += rows
        acc += first
    return tuple(found)


@lru_cache(maxsize=256)
def _runs_of(
    tiles: tuple[Tile, ...], kinds: tuple[tuple[int, int], ...], k_block: KBlock, itemsize: int
) -> list[tuple[Tile, int]]:
    found = list[tuple[Tile, int]]()
    for (kind, rows), same in groupby(tiles, attrgetter("kind", "rows")):
        run = list(same)
        terms = k_block.channels * (1 if k_block.per_tap else max(1, kinds[kind][1]))
        most = max(1, _RUN_BYTES // (terms * rows * itemsize))
        found += [(run[n], min(most, len(run) - n)) for n in range(0, len(run), most)]
    return found
