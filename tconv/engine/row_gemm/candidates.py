"""Candidate row GEMMs, for results of one phase, and their cost."""

from math import ceil, prod

import numpy as np

from tconv.arrays.dtypes import TYPES
from tconv.engine.plan.cost_constants import cost_constants
from tconv.engine.plan.cost_model import Considered
from tconv.engine.plan.plan import KBlock, Plan, even_size, tile_heights
from tconv.engine.plan.problem import Problem
from tconv.engine.row_gemm.panel import RowPanel
from tconv.engine.row_gemm.tasks import RowTasks
from tconv.engine.target.target import Target
from tconv.system.fork_lock import cached_property

__all__ = ["RowGemmCosts", "candidates"]

_BLOCKS = (1, 2, 4)  # of the channels of y, and as many as it takes for their weights to fit
_MOST_LOADS = 96  # of vectors for a row of x: the kernel has instructions for each
_TASK_CYCLES = 20_000  # of a task, about
_WAY_BYTES = 4096  # of a way of the L1 cache: planes so far apart share its sets
_MOST_ROWS, _TASKS = 4, 16  # of a larger task, of which there are to be so many at least


def candidates(problem: Problem, dtype: str, target: Target) -> list[Considered]:
    """Return row GEMMs for one thread, of several tiles and blocks."""
    if not _is_served(problem, dtype, target):
        return []
    costs, found = RowGemmCosts(problem, dtype, target), dict[Plan, None]()
    if not costs.copies and costs.loads > _MOST_LOADS:
        return []
    k_block = KBlock.of(problem)
    of_channel = problem.channels * problem.taps * costs.bytes  # weights of a channel of y
    least = max(1, ceil(problem.outputs * of_channel / (target.l2_bytes // 2)))
    for tile, most in target.isa.gemm_tiles:
        vectors = min(most, max(1, ceil(costs.rows * costs.columns / costs.lanes)))
        for blocks in _BLOCKS:
            tiles = ceil(problem.outputs / (tile * least * blocks))
            block = min(problem.outputs, tile * tiles)
            plan = Plan(
                tile=min(tile, problem.outputs),
                vectors=vectors,
                algorithm="row_gemm",
                panel="none" if costs.copies else "rows",
                planes=1,
                rows=costs.rows,
                columns=costs.columns,
                block=block,
                k_block=k_block,
            )
            found[costs.fitted(plan)] = None
    return [(plan, 1, costs.of(plan)) for plan in found]


def _is_served(problem: Problem, dtype: str, target: Target) -> bool:
    """Whether y has one phase, and taps evenly apart, not too many in a row."""
    x = problem.phases().axes[2]
    return (
        target.isa.has_masks
        and TYPES[dtype].accumulator == dtype
        and not KBlock.of(problem).per_tap
        and problem.phases().count == 1
        and max(x.kernel, x.step) <= _MOST_LOADS
        and RowPanel.of(problem.phases(), 1) is not None
    )


class RowGemmCosts:
    """Costs of the row GEMMs for one problem."""

    def __init__(self, problem: Problem, dtype: str, target: Target) -> None:
        self.problem, self.target, phases = problem, target, problem.phases()
        self.model = cost_constants(target).row_gemm
        self.bytes = np.dtype(dtype).itemsize
        self.vector_bytes = target.vector_bits // 8
        self.lanes = self.vector_bytes // self.bytes
        z, y, x = phases.axes
        is_in_place = all(axis.step == 1 for axis in phases.axes)
        self.copies = is_in_place and phases.taps_are_phases
        self.planes, self.rows, self.columns = z.count, y.count, x.count
        if self.copies:
            self.planes, self.rows, self.columns = 1, 1, prod(problem.written_size)
        self.images = problem.geometry.batch * problem.geometry.groups
        self.terms = problem.channels * problem.taps
        clashes = prod(problem.written_size) * self.bytes % _WAY_BYTES == 0
        is_far = problem.written_count * self.bytes > target.l2_bytes
        # Of a tile, that the L1 cache holds lines of.
        self.most_rows = target.l1_bytes // _WAY_BYTES if clashes and is_far else problem.outputs
        moved = (problem.read_count + problem.written_count) * self.bytes
        self.moved_bytes = (
            self.model.near_bytes if moved <= target.l2_bytes else self.model.far_bytes
        )

    @cached_property
    def loads(self) -> int:
        """Loads for some vectors of a row of x."""
        return len(self._panel.cells.loads(self.lanes))

    @cached_property
    def _panel(self) -> RowPanel:
        found = RowPanel.of(self.problem.phases(), self.lanes)
        assert found is not None, "not served"
        return found

    def fitted(self, plan: Plan) -> Plan:
        """Return the plan with tasks for these sizes: some rows of a plane, or a part of one."""
        vectors = min(plan.vectors, ceil(self.rows * self.columns / self.lanes))
        plan, lanes = plan._replace(vectors=vectors), vectors * self.lanes
        tiles = max(1, int(_TASK_CYCLES / self._tile_cycles(plan, plan.block, vectors)))
        fit = tiles  # in the L2 cache
        if not self.copies:
            of_cell = plan.k_block.channels * self.problem.taps * self.bytes
            fit = max(1, self.target.l2_bytes // 2 // (of_cell * lanes))
        if self.columns > min(tiles, fit) * lanes:
            # Some rows together may waste fewer cells of their tiles than one.
            most = min(fit * lanes // self.columns, self.rows * self.planes * self.images // _TASKS)
            if most < 2 or tiles * lanes * _MOST_ROWS < self.columns:
                columns = even_size(self.columns, min(tiles, fit) * lanes, lanes)
                return plan._replace(rows=1, columns=columns)
            most = min(most, _MOST_ROWS)
        else:
            most = min(tiles, fit) * lanes // self.columns
        plan, most = plan._replace(columns=self.columns), min(self.rows, max(1, most))
        counts = range(max(1, most // 2) if most > _MOST_ROWS else 1, most + 1)
        cycles = {n: self._plane_cycles(plan._replace(rows=n), plan.block) for n in counts}
        return plan._replace(rows=min(counts, key=lambda n: (cycles[n], n)))

    def of(self, plan: Plan) -> tuple[float, float, int]:
        """Return the cycles of a task and the number of tasks, as `Costs.of` does."""
        blocks = ceil(self.problem.outputs / plan.block)
        last = self.problem.outputs - (blocks - 1) * plan.block
        cycles = (blocks - 1) * self._plane_cycles(plan, plan.block)
        cycles += self._plane_cycles(plan, last)
        of_plane = ceil(self.columns / plan.columns) * ceil(self.rows / plan.rows)
        count = of_plane * blocks
        of_task = cycles / count + self.model.task_cycles
        return 0.0, of_task, count * self.planes * self.images

    def _plane_cycles(self, plan: Plan, block: int) -> float:
        """Cycles of a block of channels of a plane of y."""
        tasks = RowTasks.of((plan.rows, plan.columns), (self.rows, self.columns))
        cycles = tasks.whole * self._task_cycles(plan, block, tasks.cells)
        cycles += self._task_cycles(plan, block, tasks.last) if tasks.last else 0.0
        return cycles * tasks.repeats

    def _task_cycles(self, plan: Plan, block: int, cells: int) -> float:
        """Cycles of a block of channels, for so many cells."""
        whole, rest = divmod(cells, plan.vectors * self.lanes)
        cycles = whole * self._tile_cycles(plan, block, plan.vectors)
        if rest:
            cycles += self._tile_cycles(plan, block, ceil(rest / self.lanes))
        rows = ceil(cells / self.columns)
        return cycles + rows * self.model.row_cycles

    def _tile_cycles(self, plan: Plan, block: int, vectors: int) -> float:
        """Cycles of a block of channels of y, for the cells of a tile."""
        channels, steps, terms = self.problem.channels, self.target.steps, self.terms
        k_blocks, compute = ceil(channels / plan.k_block.channels), 0.0
        panel = plan.k_block.channels * self.problem.taps * vectors * self.vector_bytes
        is_near = panel <= self.target.l1_bytes // 2
        near = 0.0 if is_near else vectors * self.vector_bytes / self.model.panel_bytes
        for height, tiles in tile_heights(block, plan.tile):
            loads = (height + vectors * steps + 1) / 2
            term = max(height * vectors * steps / 2, loads, self.model.latency_cycles, near)
            of_call = self.model.tile_cycles + height * vectors * steps * self.model.store_cycles
            if height > self.most_rows:
                of_call += height * self.model.clash_cycles
            compute += tiles * (terms * term + k_blocks * of_call)
        compute += self._panel_cycles(vectors)
        moved = (channels + 2 * block * k_blocks) * vectors * self.vector_bytes / self.moved_bytes
        of_block = block * terms * self.bytes
        if of_block > self.target.l1_bytes // 2:
            is_near = of_block <= self.target.l2_bytes // 2
            moved += of_block / (
                self.model.weight_bytes if is_near else self.model.far_weight_bytes
            )
        return max(compute, moved) + self.model.overlap * min(compute, moved)

    def _panel_cycles(self, vectors: int) -> float:
        """Cycles to fill the panel of a tile, or to copy what its first tile reads."""
        if self.copies:
            return self.terms * vectors * self.model.read_cycles
        _, _, x = self.problem.phases().axes
        of_cells = (x.step - 1) * self.model.shuffle_cycles + self.model.put_cycles
        # Of the vectors that a row of x fills, the last one in part.
        filled = vectors * ceil(x.count / self.lanes) * self.lanes / x.count
        loads = filled * self.loads / self._panel.vectors
        of_row = loads * self.model.load_cycles + x.kernel * filled * of_cells
        rows = self.terms // x.kernel
        return self.model.fill_cycles + rows * (
            self.model.fill_row_cycles + of_row * self.target.steps
        )
