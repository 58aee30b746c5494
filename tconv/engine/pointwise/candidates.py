"""Candidate pointwise plans, for kernels of one tap that read x cell by cell, and their cost."""

from math import ceil, prod

import numpy as np

from tconv.arrays.dtypes import TYPES
from tconv.engine.plan.cost_model import MODEL, Considered
from tconv.engine.plan.plan import KBlock, Plan, even_size, tile_heights
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import Target

__all__ = ["PointwiseCosts", "candidates"]

_BLOCKS = (1, 2, 4)  # of the channels of y, and as many as it takes for their weights to fit
_TASK_CYCLES = 20_000  # of a task, about
# Cycles of a task; of a call of a micro-kernel, and of each vector that it writes; of a vector of x
# that is read in place.
_CALL_CYCLES, _TILE_CYCLES, _STORE_CYCLES, _READ_CYCLES = 300, 15, 1.5, 1.0
_NEAR_BYTES, _FAR_BYTES = 30, 16  # per cycle, of x and y from the L2 cache and from beyond it
_WEIGHT_BYTES, _FAR_WEIGHT_BYTES = 40, 12  # of weights
_OVERLAP = 0.2  # the share of the shorter of two times that is not hidden by the longer


def candidates(problem: Problem, dtype: str, target: Target) -> list[Considered]:
    """Return pointwise plans for one thread, of several tiles and blocks."""
    if not _is_served(problem, dtype, target):
        return []
    costs, found = PointwiseCosts(problem, dtype, target), dict[Plan, None]()
    k_block = KBlock.of(problem)
    of_channel = problem.channels * costs.bytes  # weights of a channel of y
    least = max(1, ceil(problem.outputs * of_channel / (target.l2_bytes // 2)))
    for tile, most in target.isa.gemm_tiles:
        vectors = min(most, max(1, ceil(costs.cells / costs.lanes)))
        for blocks in _BLOCKS:
            block = even_size(problem.outputs, problem.outputs / (least * blocks), tile)
            plan = Plan(
                tile=min(tile, problem.outputs),
                vectors=vectors,
                algorithm="pointwise",
                panel="none",
                planes=1,
                rows=1,
                columns=costs.cells,
                block=block,
                k_block=k_block,
            )
            found[costs.fitted(plan)] = None
    return [(plan, 1, costs.of(plan)) for plan in found]


def _is_served(problem: Problem, dtype: str, target: Target) -> bool:
    """Whether every output reads the one cell at its own place."""
    return (
        target.isa.has_masks
        and TYPES[dtype].accumulator == dtype
        and problem.phases().count == 1
        and problem.phases().taps_are_phases
        and all(axis.step == 1 for axis in problem.phases().axes)
    )


class PointwiseCosts:
    """Costs of the pointwise plans for one problem."""

    def __init__(self, problem: Problem, dtype: str, target: Target) -> None:
        self.problem, self.target = problem, target
        self.bytes = np.dtype(dtype).itemsize
        self.vector_bytes = target.vector_bits // 8
        self.lanes = self.vector_bytes // self.bytes
        self.cells = prod(problem.written_size)
        self.images = problem.geometry.batch * problem.geometry.groups
        self.weight_bytes = problem.outputs * problem.channels * self.bytes
        moved = (problem.read_count + problem.written_count) * self.bytes
        self.moved_bytes = _NEAR_BYTES if moved <= target.l2_bytes else _FAR_BYTES

    def fitted(self, plan: Plan) -> Plan:
        """Return the plan with tasks for these sizes."""
        lanes = min(plan.vectors, ceil(self.cells / self.lanes)) * self.lanes
        plan = plan._replace(vectors=lanes // self.lanes)
        tiles = max(1, round(_TASK_CYCLES / self._tile_cycles(plan, plan.block, plan.vectors)))
        columns = even_size(self.cells, tiles * lanes, lanes)
        return plan._replace(columns=columns)

    def of(self, plan: Plan) -> tuple[float, float, int]:
        """Return the cycles of a task and the number of tasks, as `Costs.of` does."""
        lanes, outputs = plan.vectors * self.lanes, self.problem.outputs
        whole, rest = divmod(self.cells, lanes)
        blocks, cycles = ceil(outputs / plan.block), 0.0
        last = outputs - (blocks - 1) * plan.block
        for block, of_blocks in ((plan.block, blocks - 1), (last, 1)):
            of_block = whole * self._tile_cycles(plan, block, plan.vectors)
            if rest:
                narrow = ceil(rest / self.lanes)
                of_block += self._tile_cycles(plan, block, narrow)
                of_block += 2 * narrow * (block + self.problem.channels)
            cycles += of_block * of_blocks
        count = ceil(self.cells / plan.columns) * blocks
        return 0.0, cycles / count + _CALL_CYCLES, count * self.images

    def _tile_cycles(self, plan: Plan, block: int, vectors: int) -> float:
        """Cycles of a block of channels of y, for the lanes of a tile."""
        channels, steps = self.problem.channels, self.target.steps
        k_blocks = ceil(channels / plan.k_block.channels)
        compute = 0.0
        panel = plan.k_block.channels * vectors * self.vector_bytes
        near = (
            vectors * self.vector_bytes / _WEIGHT_BYTES if panel > self.target.l1_bytes // 2 else 0
        )
        for height, tiles in tile_heights(block, plan.tile):
            loads = (height + vectors * steps + 1) / 2
            term = max(height * vectors * steps / 2, loads, MODEL.latency_cycles, near)
            of_call = _TILE_CYCLES + height * vectors * steps * _STORE_CYCLES
            compute += tiles * (channels * term + k_blocks * of_call)
        compute += channels * vectors * _READ_CYCLES
        moved = (channels + 2 * block * k_blocks) * vectors * self.vector_bytes / self.moved_bytes
        of_block = block * channels * self.bytes
        if of_block > self.target.l1_bytes // 2:
            is_near = of_block <= self.target.l2_bytes // 2
            moved += of_block / (_WEIGHT_BYTES if is_near else _FAR_WEIGHT_BYTES)
        return max(compute, moved) + _OVERLAP * min(compute, moved)
