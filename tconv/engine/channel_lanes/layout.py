"""Memory layout of a channel-lanes plan: lists of phases, tiles of outputs, and their taps."""

from dataclasses import dataclass
from itertools import accumulate, product
from math import ceil, prod
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.engine.codegen.abi import CHANNEL_LANES_TILE, PHASE
from tconv.engine.direct.layout import Layout
from tconv.engine.direct.offsets import strides
from tconv.engine.plan.phases import AxisPhases
from tconv.engine.plan.plan import Tile, tile_rows
from tconv.system.fork_lock import cached_property
from tconv.system.topology import CACHE_LINE_BYTES

__all__ = ["ChannelLanesLayout"]


class ChannelLanesLayout(Layout):
    """The `Layout` of a plan whose lanes are output channels.

    Packed weights are (groups, blocks, phases, channels of x, taps of the phase, channels of the
    block); with per-tap accumulation taps come before channels of x. Sums are (images, cells,
    channels of the block).
    """

    def _kinds(self) -> tuple[tuple[int, int], ...]:
        by_axis = [[len(taps) for taps in axis.taps] for axis in self.phases.axes]
        return tuple([(1, z * y * x) for z, y, x in product(*by_axis)])

    def _tiles(self, block: int) -> tuple[Tile, ...]:
        """One packed tile per phase: all channels of a block."""
        sizes = [block * taps * self.channels for _, taps in self.kinds]
        starts = [0, *accumulate(sizes[:-1])]
        return tuple([Tile(n, 0, block, start, 0) for n, start in enumerate(starts)])

    def taps(self) -> list[NDArray[np.int64]]:
        """For every phase the flat indices of its taps, (taps, 1)."""
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
        self.cells, self.acc_pitch = prod(self.problem.written_size), plan.vectors * self.lanes
        self.widths = (plan.vectors, ceil(self.last_block / self.lanes))
        self.image_blocks = ceil(self.problem.geometry.batch / plan.planes)

    @property
    def scratch_size(self) -> int:
        """Elements of a thread's buffer: sums, padded to whole vectors of cells to transpose."""
        align = CACHE_LINE_BYTES // self.computed.itemsize
        size = (self.plan.planes * self.cells + self.lanes) * self.acc_pitch
        return ceil(size / align) * align

    def _set_fields(self) -> None:
        geometry, plan, problem = self.problem.geometry, self.plan, self.problem
        self.fields = {
            "tasks": geometry.groups * self.blocks * self.image_blocks,
            "image_blocks": self.image_blocks,
            "images": plan.planes,
            "cells": self.cells,
            "batch": geometry.batch,
            "scratch_size": self.scratch_size,
            "channels": self.channels,
            "k_block": plan.k_block.channels,
            **strides("x", self.channels, geometry.groups, problem.read_size),
            **strides("y", self.outputs, geometry.groups, problem.written_size),
            "acc_pitch": self.acc_pitch,
            "per_tap": int(plan.k_block.per_tap),
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
        """The key of `fixed` and of all kernels."""
        plan, made_for = self.plan, (self.unsized, self.dtype.name, self.target)
        kinds = (plan.vectors, plan.block, plan.k_block, plan.threads, self.widths)
        return (*made_for, "channel_lanes", *kinds, *self._micro_heights())

    def fixed(self) -> dict[str, NDArray[Any]]:
        """Arrays for the driver that do not depend on sizes."""
        return {"parameters": self.parameters}

    def sized(self) -> dict[str, NDArray[Any]]:
        """Arrays for the driver that depend on sizes: all lists."""
        return self.lists

    def _micro_heights(self) -> list[int]:
        """Heights of the tiles that occur."""
        tiles = np.concatenate([self.lists[name] for name in ("tiles", "last_tiles")])
        return sorted(
            {micro // 2 for micro in tiles[:, CHANNEL_LANES_TILE.place("micro")].tolist()}
        )

    def _biased(self) -> list[int]:
        return [1]  # one per channel

    def kernels(
        self, kernel: Any, broadcast: Any, transpose_out: Any
    ) -> tuple[dict[str, int], dict[str, NDArray[Any]]]:
        """Number the kernels of such plans; return the numbers, and the table of micro-kernels."""
        heights = self._micro_heights()
        micros = np.zeros((2 * max(heights) + 2, 1), np.int64)
        for rows in heights:
            for n, vectors in enumerate(self.widths):
                name = f"broadcast_{rows}_{vectors}"
                micros[2 * rows + n] = kernel(name, broadcast(rows, vectors))
        return {"transpose_out": kernel("transpose_out", transpose_out)}, {"micros": micros}


class _Lists:
    """The driver's lists, for the images of a whole task and for those of the last one."""

    def __init__(self, layout: ChannelLanesLayout) -> None:
        self.layout, fields, sizes = layout, layout.fields, layout.problem.written_size
        axes = layout.phases.axes
        x_steps, y_steps = (
            (fields["x_plane"], fields["x_row"], 1),
            (sizes[1] * sizes[2], sizes[2], 1),
        )
        self.by_axis = [
            [_AxisPhase.of(axis, n, size, *steps) for n in range(axis.stride)]
            for axis, size, *steps in zip(axes, sizes, x_steps, y_steps, strict=True)
        ]
        self.taps = list[tuple[int, int]]()
        self.cells, self.outputs = list[NDArray[np.int64]](), list[NDArray[np.int64]]()
        self.place = 0  # after the last one in the lists
        tiles, phases = self._of(fields["images"])
        last = fields["batch"] - (fields["image_blocks"] - 1) * fields["images"]
        is_short = last < fields["images"]
        last_tiles, last_phases = self._of(last) if is_short else (tiles, phases)
        taps = np.array(self.taps, np.int64).reshape(-1, 2)
        step = layout.channels if fields["per_tap"] else 1
        of_blocks = [taps * [1, step * fields[name]] for name in ("block", "last_block")]
        self.kept = {
            "tiles": tiles,
            "phase_list": phases,
            "last_tiles": last_tiles,
            "last_phase_list": last_phases,
            "taps_of_tiles": np.concatenate(of_blocks),
            "places": np.stack([np.concatenate(self.cells), np.concatenate(self.outputs)], axis=-1),
        }

    def _of(self, images: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Return tiles and phases for so many images; append their taps and places to the lists."""
        tiles, phases, before, layout = list[list[int]](), list[list[int]](), 0, self.layout
        vector_bytes = layout.acc_pitch * layout.computed.itemsize
        image = np.arange(images)[:, np.newaxis, np.newaxis, np.newaxis]
        x_images, y_images = image * layout.fields["x_batch"], image * layout.cells
        for z, y, x in product(*self.by_axis):
            first, terms, count = len(tiles), 0, z.count * y.count * x.count
            cells = x_images + _outer(z.cells, y.cells, x.cells)
            outputs = (y_images + _outer(z.outputs, y.outputs, x.outputs)) * layout.acc_pitch
            for of_z, of_y, of_x in product(z.runs, y.runs, x.runs):
                block = (slice(None), of_z.span, of_y.span, of_x.span)
                self.cells.append(cells[block].ravel())
                self.outputs.append(outputs[block].ravel())
                place, rows = self.place, self.cells[-1].size
                self.place += rows
                entry = {"taps": len(self.taps)}
                self.taps += [
                    (shift_z + shift_y + shift_x, (tap_z * y.count + tap_y) * x.count + tap_x)
                    for tap_z, shift_z in of_z.taps
                    for tap_y, shift_y in of_y.taps
                    for tap_x, shift_x in of_x.taps
                ]
                entry["reached"] = reached = len(self.taps) - entry["taps"]
                for height in tile_rows(rows, layout.plan.tile):
                    entry |= {"micro": 2 * height, "places": 2 * place}
                    tiles.append(CHANNEL_LANES_TILE.row(entry))
                    place, terms = place + height, terms + reached
            found = {"tiles": first, "end": len(tiles), "taps": count, "before": before}
            found["prefetch_bytes"] = ceil(count * vector_bytes / max(1, terms))
            phases.append(PHASE.row(found))
            before += count
        return np.array(tiles, np.int64), np.array(phases, np.int64)


class _AxisRun(NamedTuple):
    """Neighbouring outputs of a phase along one axis, and the taps that reach them.

    Each tap is its index in the phase, and the step to the cell that it reads.
    """

    span: slice
    taps: list[tuple[int, int]]


@dataclass(frozen=True)
class _AxisPhase:
    """A phase along one axis: offsets of its cells of x and of its outputs, run after run."""

    cells: NDArray[np.int64]
    outputs: NDArray[np.int64]
    runs: list[_AxisRun]
    count: int  # of taps

    @classmethod
    def of(cls, axis: AxisPhases, phase: int, size: int, x_step: int, y_step: int) -> "_AxisPhase":
        """Return a phase of an axis with `size` outputs; steps are those between neighbours."""
        taps, places, runs = axis.taps[phase], list[int](), list[_AxisRun]()
        for run in axis.runs(phase, size):
            span = slice(len(places), len(places) + len(run.places))
            runs.append(_AxisRun(span, [(n, -taps[n][1] * x_step) for n in run.taps]))
            places += run.places
        each = np.array(places, np.int64)
        cells, outputs = each * (axis.step * x_step), (each * axis.stride + phase) * y_step
        return cls(cells, outputs, runs, len(taps))


def _outer(z: NDArray[np.int64], y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sums of all combinations, (z, y, x)."""
    found: NDArray[np.int64] = z[:, np.newaxis, np.newaxis] + y[:, np.newaxis] + x
    return found


def _sums(z: NDArray[np.int64], y: NDArray[np.int64], x: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the sums of all combinations, flat."""
    return _outer(z, y, x).ravel()
