"""WHICH TURNED PLANS ARE CONSIDERED: those of small images, and what they cost."""

from collections import Counter
from collections.abc import Iterator
from itertools import product
from math import ceil, prod

import numpy as np

from tconv.arrays.dtypes import TYPES
from tconv.engine.kernels.limits import LINE_BYTES
from tconv.engine.plan.cost_model import CALL_CYCLES, Considered, heights
from tconv.engine.plan.phases import AxisPhases
from tconv.engine.plan.plan import DIRECT, Part, Plan
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import Target

__all__ = ["MOST_ROWS", "TurnedCosts", "channel_lanes_candidates"]

MOST_ROWS = 7  # whose cells of x have a register each
_MOST_CELLS = 2048  # of y, of the images of an item; larger images have few zeros around them
_IMAGES = (1, 2, 4, 8, 16, 32, 64)  # of an item, at most
_LEAST_FILLED, _LEAST_VECTORS = 0.5, 2  # of the lanes; with fewer, few sums are made at a time
_LATENCY_CYCLES = 4
# Fitted to 374 plans for 75 random shapes (Zen 3, one and two threads). Cycles of a term and of a
# channel for what is not arithmetic, of a row of a call and of each of its vectors, of a part of a
# phase, and of a vector of y that is turned.
_TERM_CYCLES, _CHANNEL_CYCLES, _ROW_CYCLES, _SUM_CYCLES = 1.0, 0.5, 3, 3
_PART_CYCLES, _TURN_CYCLES = 60, 4
# Bytes per cycle of what the L2 cache holds, of weights that it does not and that no cache does.
_NEAR_BYTES, _STREAM_BYTES, _FAR_BYTES = 28, 16, 4
_BESIDE = 0.3  # what the shorter of two takes of its time, where they are done together


def channel_lanes_candidates(problem: Problem, dtype: str, target: Target) -> Iterator[Considered]:
    """Return turned plans of several tiles and numbers of images."""
    cells, batch = prod(problem.written_size), problem.geometry.batch
    if TYPES[dtype].accumulator != dtype or cells > _MOST_CELLS:
        return
    costs, part, plans = TurnedCosts(problem, dtype, target), Part.of(problem), set[Plan]()
    for images in {ceil(batch / ceil(batch / n)) for n in _IMAGES if n * cells <= _MOST_CELLS}:
        if images * part.channels * costs.plane_bytes > target.l2_bytes // 4:
            continue  # each tile reads all of that, and not in order
        for tile, most in target.isa.gemm_tiles:
            blocks = ceil(problem.outputs / (most * costs.lanes))
            vectors = ceil(ceil(problem.outputs / blocks) / costs.lanes)
            block = vectors * costs.lanes
            filled = problem.outputs / (ceil(problem.outputs / block) * block)
            if vectors >= _LEAST_VECTORS and filled >= _LEAST_FILLED:
                rows = min(tile, MOST_ROWS, images * cells)
                sizes = (rows, vectors, False, False, False, DIRECT, images, 1, 1, block, 1)
                plans.add(Plan(*sizes, part, 1, 0.0, is_turned=True))
    for plan in sorted(plans):
        yield plan, 1, costs.of(plan)  # blocks are items already, so none is split


class TurnedCosts:
    """What turned plans for one problem cost."""

    def __init__(self, problem: Problem, dtype: str, target: Target) -> None:
        self.problem, self.target = problem, target
        self.bytes = np.dtype(dtype).itemsize
        self.vector_bytes = target.vector_bits // 8
        self.lanes = self.vector_bytes // self.bytes
        axes, sizes = problem.phases().axes, problem.written_size
        by_axis = [_runs(axis, size).items() for axis, size in zip(axes, sizes, strict=True)]
        # Outputs of a phase that the same taps reach: those of a row and all, rows of x that a row
        # reads, and taps; and how many times there are such.
        self.kinds = Counter[tuple[int, int, int, int]]()
        for (z, of_z), (y, of_y), (x, of_x) in product(*by_axis):
            kind = (x[0], z[0] * y[0] * x[0], z[1] * y[1], z[1] * y[1] * x[1])
            self.kinds[kind] += of_z * of_y * of_x
        self.phases = prod(axis.stride for axis in axes)
        self.plane_bytes = prod(problem.read_size) * self.bytes

    def of(self, plan: Plan) -> tuple[float, float, int]:
        """Cycles of an item, as `Costs.of` has it, and the number of items."""
        problem, channels = self.problem, self.problem.channels
        compute = sum(count * self._summed(plan, *kind) for kind, count in self.kinds.items())
        compute += ceil(channels / plan.part.channels) * self.phases * _PART_CYCLES
        weights = problem.taps * channels * self.bytes  # of a channel of y
        all_weights, of_block = problem.outputs * weights, plan.block * weights
        if all_weights > self.target.l3_bytes:
            compute = _beside(compute, of_block / _FAR_BYTES)
        elif all_weights > self.target.l2_bytes // 2:
            compute = _beside(compute, of_block / _STREAM_BYTES)
        cells = plan.planes * prod(problem.written_size)
        blocks = ceil(problem.outputs / plan.block)
        count = blocks * ceil(problem.geometry.batch / plan.planes) * problem.geometry.groups
        return 0.0, compute + cells * plan.vectors * _TURN_CYCLES, count

    def _summed(self, plan: Plan, run: int, outputs: int, rows_of_x: int, taps: int) -> float:
        """Cycles of all outputs that the same taps reach, in a phase of all images of an item."""
        part, vectors, channels = plan.part.channels, plan.vectors, self.problem.channels
        steps = self.target.steps
        calls = ceil(channels / part) * (max(1, taps) if plan.part.by_tap else 1)
        of_term, near = vectors * self.vector_bytes, self.target.l1_bytes // 2
        of_weights = 0 if part * taps * of_term <= near else taps * of_term  # bytes of a channel
        x_is_near = part * plan.planes * self.plane_bytes <= near
        cycles = 0.0
        for height, tiles in heights(outputs * plan.planes, plan.tile):
            bytes_ = float(of_weights)
            if not x_is_near:
                lines = ceil(height / outputs) * (self.plane_bytes / LINE_BYTES + 0.5)
                bytes_ += min(lines, ceil(height / run) + rows_of_x - 1) * LINE_BYTES
            loads = (height + vectors * steps + 2) / 2
            term = max(height * vectors * steps / 2, loads, _LATENCY_CYCLES) + _TERM_CYCLES
            of_channel = _beside(taps * term + _CHANNEL_CYCLES, bytes_ / _NEAR_BYTES)
            of_call = CALL_CYCLES + height * (_ROW_CYCLES + vectors * _SUM_CYCLES)
            cycles += tiles * (channels * of_channel + calls * of_call)
        return cycles


def _runs(axis: AxisPhases, size: int) -> Counter[tuple[int, int]]:
    """How many runs of so many outputs there are, along an axis, that so many taps reach."""
    found = Counter[tuple[int, int]]()
    for phase in range(axis.stride):
        found.update((len(run.places), len(run.taps)) for run in axis.runs(phase, size))
    return found


def _beside(a: float, b: float) -> float:
    """Cycles of two things at the same time, which get in each other's way a little."""
    return max(a, b) + _BESIDE * min(a, b)
