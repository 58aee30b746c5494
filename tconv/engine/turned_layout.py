"""HOW A TURNED PLAN LIES IN MEMORY: phases, tiles of their outputs, taps that reach those."""

from dataclasses import dataclass
from functools import cached_property
from itertools import accumulate, product
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.engine.bands import unsized
from tconv.engine.cells import strides
from tconv.engine.layout import LINE_BYTES, Layout
from tconv.engine.phases import AxisPhases, Run
from tconv.engine.plan import Tile, tile_rows
from tconv.engine.transposing import turn_out
from tconv.engine.turned import PHASE, TURNED_TILE, broadcast

__all__ = ["TurnedLayout"]


class TurnedLayout(Layout):
    """What `Layout` says, of a plan whose lanes are channels.

    Packed weights are (groups, blocks, phases, channels of x, taps of the phase, channels of the
    block), or with taps before channels of x if sums are made by tap. Sums are (images, cells,
    channels of the block).
    """

    def _kinds(self) -> tuple[tuple[int, int], ...]:
        by_axis = [[len(taps) for taps in axis.taps] for axis in self.phases.axes]
        return tuple([(1, z * y * x) for z, y, x in product(*by_axis)])

    def _tiles(self, block: int) -> tuple[Tile, ...]:
        """What is packed together: all channels of a block."""
        sizes = [block * taps * self.channels for _, taps in self.kinds]
        starts = [0, *accumulate(sizes[:-1])]
        return tuple([Tile(n, 0, block, start, 0) for n, start in enumerate(starts)])

    def taps(self) -> list[NDArray[np.int64]]:
        """For every phase the flat taps, (taps, 1)."""
        return self._taps

    @cached_property
    def _taps(self) -> list[NDArray[np.int64]]:
        _, size_y, size_x = self.problem.kernel_size
        by_axis = [
            [np.array([tap for tap, _ in taps], np.int64) * step for taps in axis.taps]
            for axis, step in zip(self.phases.axes, (size_y * size_x, size_x, 1), strict=True)
        ]
        return [_sums(*phase)[:, np.newaxis] for phase in product(*by_axis)]

    def _set_sizes(self) -> None:
        plan = self.plan
        self.cells, self.line_pitch = prod(self.problem.written_size), plan.vectors * self.lanes
        self.widths = (plan.vectors, ceil(self.last_block / self.lanes))
        self.chunks = ceil(self.problem.geometry.batch / plan.planes)

    @property
    def scratch_size(self) -> int:
        """Numbers that a thread's buffers hold: sums, turned by whole vectors of cells."""
        align = LINE_BYTES // self.computed.itemsize
        size = (self.plan.planes * self.cells + self.lanes) * self.line_pitch
        return ceil(size / align) * align

    def _set_fields(self) -> None:
        geometry, plan, problem = self.problem.geometry, self.plan, self.problem
        self.fields = {
            "items": geometry.groups * self.blocks * self.chunks,
            "chunks": self.chunks,
            "images": plan.planes,
            "cells": self.cells,
            "batch": geometry.batch,
            "scratch_size": self.scratch_size,
            "channels": self.channels,
            "part": plan.part.channels,
            **strides("x", self.channels, geometry.groups, problem.read_size),
            **strides("y", self.outputs, geometry.groups, problem.written_size),
            "line_pitch": self.line_pitch,
            "by_tap": int(plan.part.by_tap),
            "blocks": self.blocks,
            "block": plan.block,
            "last_block": self.last_block,
            "phases": self.phases.count,
            "weight_block": self.weight_block,
            "bias_block": plan.block,
            "streams": 0,
        }
        self.lists = _Lists(self).kept
        self.fields["taps_of_last"] = self.lists["taps_of_tiles"].size // 2

    @property
    def family(self) -> tuple[Any, ...]:
        plan, made_for = self.plan, (unsized(self.problem), self.dtype.name, self.target)
        kinds = (plan.vectors, plan.block, plan.part, plan.threads, self.widths)
        return (*made_for, "turned", *kinds, *self._micro_heights())

    def fixed(self) -> dict[str, NDArray[Any]]:
        activation = self.problem.activation
        return {"slope": np.array([activation.slope if activation else 0], self.computed)}

    def sized(self) -> dict[str, NDArray[Any]]:
        return self.lists

    def _micro_heights(self) -> list[int]:
        """Rows of the tiles that occur."""
        tiles = np.concatenate([self.lists[name] for name in ("tiles", "last_tiles")])
        return sorted({micro // 2 for micro in tiles[:, TURNED_TILE.index("micro")].tolist()})

    def _biased(self) -> list[int]:
        return [1]  # channels have one each

    def kernels(self, kernel: Any) -> tuple[dict[str, int], dict[str, NDArray[Any]]]:
        """Numbers of what turned plans call; those of micro-kernels in a list."""
        heights = self._micro_heights()
        micros = np.zeros((2 * max(heights) + 2, 1), np.int64)
        for rows in heights:
            for n, vectors in enumerate(self.widths):
                name = f"broadcast_{rows}_{vectors}"
                micros[2 * rows + n] = kernel(name, broadcast(rows, vectors))
        return {"turn_out": kernel("turn_out", turn_out)}, {"micros": micros}


class _Lists:
    """What the driver goes through, for the images of an item and for those of the last one."""

    def __init__(self, layout: TurnedLayout) -> None:
        self.layout, fields, sizes = layout, layout.fields, layout.problem.written_size
        axes = layout.phases.axes
        x_steps, y_steps = (
            (fields["x_plane"], fields["x_row"], 1),
            (sizes[1] * sizes[2], sizes[2], 1),
        )
        self.by_axis = [
            [
                [_AxisRun.of(axis, n, run, *steps) for run in axis.runs(n, size)]
                for n in range(axis.stride)
            ]
            for axis, size, *steps in zip(axes, sizes, x_steps, y_steps, strict=True)
        ]
        self.taps, self.places = _Pairs(), _Pairs()
        tiles, phases = self._of(fields["images"])
        last = fields["batch"] - (fields["chunks"] - 1) * fields["images"]
        is_short = last < fields["images"]
        last_tiles, last_phases = self._of(last) if is_short else (tiles, phases)
        taps, step = self.taps.array(), layout.channels if fields["by_tap"] else 1
        of_blocks = [taps * [1, step * fields[name]] for name in ("block", "last_block")]
        self.kept = {
            "tiles": tiles,
            "phase_list": phases,
            "last_tiles": last_tiles,
            "last_phase_list": last_phases,
            "taps_of_tiles": np.concatenate(of_blocks),
            "places": self.places.array(),
        }

    def _of(self, images: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Tiles and phases for so many images; their taps and places are noted."""
        tiles, phases, before, layout = list[list[int]](), list[list[int]](), 0, self.layout
        vector_bytes = layout.line_pitch * layout.computed.itemsize
        image = np.arange(images)[:, np.newaxis]
        x_images, y_images = image * layout.fields["x_batch"], image * layout.cells
        for of_phase in product(*self.by_axis):
            first, terms, count = len(tiles), 0, prod(runs[0].count for runs in of_phase)
            for z, y, x in product(*of_phase):
                place = self.places.note(
                    x_images + _sums(z.cells, y.cells, x.cells),
                    (y_images + _sums(z.outputs, y.outputs, x.outputs)) * layout.line_pitch,
                )
                numbers = _sums(z.taps * (y.count * x.count), y.taps * x.count, x.taps)
                tap = self.taps.note(_sums(z.shifts, y.shifts, x.shifts), numbers)
                rows = images * z.outputs.size * y.outputs.size * x.outputs.size
                entry = {"taps": tap, "reached": numbers.size}
                for height in tile_rows(rows, layout.plan.tile):
                    entry |= {"micro": 2 * height, "places": 2 * place}
                    tiles.append([entry[name] for name in TURNED_TILE])
                    place, terms = place + height, terms + numbers.size
            asked = ceil(count * vector_bytes / max(1, terms))
            found = {"tiles": first, "end": len(tiles), "taps": count, "before": before}
            found["asked"] = asked
            phases.append([found[name] for name in PHASE])
            before += count
        return np.array(tiles, np.int64), np.array(phases, np.int64)


@dataclass(frozen=True)
class _AxisRun:
    """A run along one axis: steps to its cells of x and to its outputs, and of its taps."""

    cells: NDArray[np.int64]
    outputs: NDArray[np.int64]
    shifts: NDArray[np.int64]  # to the cell that a tap reads
    taps: NDArray[np.int64]  # by their place in the phase, ...
    count: int  # ... which has so many

    @classmethod
    def of(cls, axis: AxisPhases, phase: int, run: Run, x_step: int, y_step: int) -> "_AxisRun":
        """The run of a phase, of an axis along which neighbours are so far from each other."""
        places, taps = np.array(run.places), axis.taps[phase]
        shifts = np.array([-taps[n][1] for n in run.taps], np.int64)
        outputs = (places * axis.stride + phase) * y_step
        numbers = np.array(run.taps, np.int64)
        return cls(places * (axis.step * x_step), outputs, shifts * x_step, numbers, len(taps))


class _Pairs:
    """A table of pairs that grows."""

    def __init__(self) -> None:
        self._columns: tuple[list[NDArray[np.int64]], list[NDArray[np.int64]]] = [], []
        self._size = 0

    def note(self, *columns: NDArray[np.int64]) -> int:
        """Append pairs; return how many were there."""
        before = self._size
        for found, column in zip(self._columns, columns, strict=True):
            found.append(column.ravel())
        self._size += columns[0].size
        return before

    def array(self) -> NDArray[np.int64]:
        """All pairs."""
        return np.stack([np.concatenate(column) for column in self._columns], axis=-1)


def _sums(z: NDArray[np.int64], y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.int64]:
    """The sums of all combinations, flat."""
    found: NDArray[np.int64] = z[:, np.newaxis, np.newaxis] + y[:, np.newaxis] + x
    return found.ravel()
