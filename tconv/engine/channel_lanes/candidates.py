"""Candidate channel-lanes plans, for small images, and their cost."""

from collections import Counter
from itertools import product
from math import ceil, prod

import numpy as np

from tconv.arrays.dtypes import TYPES
from tconv.engine.plan.cost_constants import cost_constants
from tconv.engine.plan.cost_model import Considered
from tconv.engine.plan.phases import AxisPhases
from tconv.engine.plan.plan import KBlock, Plan, tile_heights
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import Target
from tconv.system.topology import CACHE_LINE_BYTES

__all__ = ["MOST_ROWS", "ChannelLanesCosts", "candidates"]

MOST_ROWS = 7  # of a tile: the address of each row's cell of x needs a general register
_MOST_CELLS = 2048  # of y, of the images of a task; larger images have few zeros around them
_IMAGES = (1, 2, 4, 8, 16, 32, 64)  # of a task, at most
_LEAST_FILLED, _LEAST_VECTORS = 0.5, 2  # of the lanes; with fewer, a tile has too few sums


def candidates(problem: Problem, dtype: str, target: Target) -> list[Considered]:
    """Return channel-lanes plans for one thread, of several tiles and numbers of images."""
    cells, batch = prod(problem.written_size), problem.geometry.batch
    if TYPES[dtype].accumulator != dtype or cells > _MOST_CELLS:
        return []
    costs, k_block, plans = (
        ChannelLanesCosts(problem, dtype, target),
        KBlock.of(problem),
        set[Plan](),
    )
    for images in {ceil(batch / ceil(batch / n)) for n in _IMAGES if n * cells <= _MOST_CELLS}:
        if images * k_block.channels * costs.plane_bytes > target.l2_bytes // 4:
            continue  # each tile reads all of x, and not in order
        for tile, most in target.isa.gemm_tiles:
            blocks = ceil(problem.outputs / (most * costs.lanes))
            vectors = ceil(ceil(problem.outputs / blocks) / costs.lanes)
            block = vectors * costs.lanes
            filled = problem.outputs / (ceil(problem.outputs / block) * block)
            if vectors >= _LEAST_VECTORS and filled >= _LEAST_FILLED:
                rows = min(tile, MOST_ROWS, images * cells)
                plans.add(
                    Plan(
                        tile=rows,
                        vectors=vectors,
                        algorithm="channel_lanes",
                        panel="none",
                        planes=images,
                        rows=1,
                        columns=1,
                        block=block,
                        k_block=k_block,
                    )
                )
    # Blocks are tasks of their own, so none is split.
    return [(plan, 1, costs.of(plan)) for plan in sorted(plans)]


class ChannelLanesCosts:
    """Costs of the channel-lanes plans for one problem."""

    def __init__(self, problem: Problem, dtype: str, target: Target) -> None:
        self.problem, self.target = problem, target
        self.model, self.gemm = cost_constants(target).channel_lanes, cost_constants(target).gemm
        self.bytes = np.dtype(dtype).itemsize
        self.vector_bytes = target.vector_bits // 8
        self.lanes = self.vector_bytes // self.bytes
        axes, sizes = problem.phases().axes, problem.written_size
        by_axis = [_runs(axis, size).items() for axis, size in zip(axes, sizes, strict=True)]
        # Regions of a phase's outputs that the same taps reach, counted by: outputs of a row, all
        # outputs, rows of x that a row of outputs reads, and taps.
        self.regions = Counter[tuple[int, int, int, int]]()
        for (z, of_z), (y, of_y), (x, of_x) in product(*by_axis):
            region = (x[0], z[0] * y[0] * x[0], z[1] * y[1], z[1] * y[1] * x[1])
            self.regions[region] += of_z * of_y * of_x
        self.phases = prod(axis.stride for axis in axes)
        self.plane_bytes = prod(problem.read_size) * self.bytes

    def of(self, plan: Plan) -> tuple[float, float, int]:
        """Return the cycles of a task and the number of tasks, as `Costs.of` does."""
        problem, channels = self.problem, self.problem.channels
        compute = sum(count * self._of_region(plan, *each) for each, count in self.regions.items())
        compute += ceil(channels / plan.k_block.channels) * self.phases * self.model.k_block_cycles
        weights = problem.taps * channels * self.bytes  # of a channel of y
        all_weights, of_block = problem.outputs * weights, plan.block * weights
        if all_weights > self.target.l3_bytes:
            compute = self._overlapped(compute, of_block / self.model.far_bytes)
        elif all_weights > self.target.l2_bytes // 2:
            compute = self._overlapped(compute, of_block / self.model.stream_bytes)
        cells = plan.planes * prod(problem.written_size)
        blocks = ceil(problem.outputs / plan.block)
        count = blocks * ceil(problem.geometry.batch / plan.planes) * problem.geometry.groups
        return 0.0, compute + cells * plan.vectors * self.model.transpose_cycles, count

    def _of_region(self, plan: Plan, run: int, outputs: int, rows_of_x: int, taps: int) -> float:
        """Return the cycles of a region, in all images of a task."""
        k_block, vectors, channels = plan.k_block.channels, plan.vectors, self.problem.channels
        steps = self.target.steps
        calls = ceil(channels / k_block) * (max(1, taps) if plan.k_block.per_tap else 1)
        of_term, near = vectors * self.vector_bytes, self.target.l1_bytes // 2
        of_weights = 0 if k_block * taps * of_term <= near else taps * of_term  # bytes of a channel
        x_is_near = k_block * plan.planes * self.plane_bytes <= near
        cycles = 0.0
        for height, tiles in tile_heights(outputs * plan.planes, plan.tile):
            bytes_ = float(of_weights)
            if not x_is_near:
                lines = ceil(height / outputs) * (self.plane_bytes / CACHE_LINE_BYTES + 0.5)
                bytes_ += min(lines, ceil(height / run) + rows_of_x - 1) * CACHE_LINE_BYTES
            loads = (height + vectors * steps + 2) / 2
            term = (
                max(height * vectors * steps / 2, loads, self.gemm.latency_cycles)
                + self.model.term_cycles
            )
            of_channel = self._overlapped(
                taps * term + self.model.channel_cycles, bytes_ / self.model.near_bytes
            )
            of_call = self.gemm.call_cycles + height * (
                self.model.row_cycles + vectors * self.model.sum_cycles
            )
            cycles += tiles * (channels * of_channel + calls * of_call)
        return cycles

    def _overlapped(self, a: float, b: float) -> float:
        """Return the cycles of two overlapping activities, which slow each other down a little."""
        return max(a, b) + self.model.overlap * min(a, b)


def _runs(axis: AxisPhases, size: int) -> Counter[tuple[int, int]]:
    """Count the runs along an axis by their outputs and the taps that reach these."""
    found = Counter[tuple[int, int]]()
    for phase in range(axis.stride):
        found.update((len(run.places), len(run.taps)) for run in axis.runs(phase, size))
    return found
