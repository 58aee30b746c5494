"""Candidate depthwise plans, for few channels a group, and their cost."""

from functools import cache
from math import ceil, prod

import numpy as np

from tconv.arrays.dtypes import TYPES
from tconv.engine.depthwise.kernel import Window
from tconv.engine.plan.cost_constants import cost_constants
from tconv.engine.plan.cost_model import Considered
from tconv.engine.plan.plan import KBlock, Plan, even_size
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import Target

__all__ = ["DepthwiseCosts", "candidates"]

_ROWS, _VECTORS = (1, 2, 3, 4, 5, 6, 8), (1, 2, 3, 4, 6)  # of a block
_MOST_PAIRS = 16  # of channels of a group that are joined
_MOST_PHASES, _MOST_STEP = 4, 4
_OTHER_REGISTERS = 10  # for cells and weights
_MOST_PRODUCTS = 400  # of vectors that a kernel has instructions for
_TASK_CYCLES = 16_000  # of a task, about


def candidates(problem: Problem, dtype: str, target: Target) -> list[Considered]:
    """Return depthwise plans for one thread, of several blocks of rows and vectors."""
    if not _is_served(problem, dtype, target):
        return []
    costs, found = DepthwiseCosts(problem, dtype, target), []
    _, y, x = costs.axes
    for rows in _ROWS:
        for vectors in _VECTORS:
            sums = rows * vectors * y.stride * x.stride
            is_wide = vectors > 1 and (vectors - 1) * costs.lanes >= x.count
            products = sums * prod(problem.kernel_size) // (y.stride * x.stride)
            if rows > y.count or is_wide or products > _MOST_PRODUCTS:
                continue
            if sums > target.isa.registers - _OTHER_REGISTERS:
                continue
            plan = Plan(
                tile=rows,
                vectors=vectors,
                algorithm="depthwise",
                panel="none",
                planes=1,
                rows=y.count,
                columns=x.count,
                block=1,
                k_block=KBlock.of(problem),
            )
            plan = costs.fitted(plan)
            found.append((plan, 1, costs.of(plan)))
    return found


def _is_served(problem: Problem, dtype: str, target: Target) -> bool:
    """Whether the kernel serves a problem: few channels, phases and steps, no depth."""
    z, y, x = problem.phases().axes
    return (
        target.isa.has_masks
        and TYPES[dtype].accumulator == dtype
        and problem.channels * problem.outputs <= _MOST_PAIRS
        and KBlock.of(problem) == KBlock(problem.channels, per_tap=False)
        and z.input == z.count * z.stride == z.kernel == 1
        and z.taps == (((0, 0),),)
        and y.stride * x.stride <= _MOST_PHASES
        and max(y.step, x.step) <= _MOST_STEP
        and all(of_phase for axis in (y, x) for of_phase in axis.taps)
    )


class DepthwiseCosts:
    """Costs of the depthwise plans for one problem."""

    def __init__(self, problem: Problem, dtype: str, target: Target) -> None:
        self.problem, self.target, self.axes = problem, target, problem.phases().axes
        self.model = cost_constants(target).depthwise
        self.bytes = np.dtype(dtype).itemsize
        self.vector_bytes = target.vector_bits // 8
        self.lanes = self.vector_bytes // self.bytes
        geometry = problem.geometry
        self.planes = geometry.batch * geometry.groups * problem.outputs
        self._block = cache(self._block_cycles)

    def fitted(self, plan: Plan) -> Plan:
        """Return the plan with tasks for these sizes: some planes, or some rows of one."""
        _, y, _ = self.axes
        plan = plan._replace(tile=min(plan.tile, y.count), columns=self.axes[2].count)
        plane = self._plane_cycles(plan, y.count)
        planes = even_size(self.planes, min(self.planes, max(1.0, _TASK_CYCLES / plane)))
        if planes == self.planes > 1:  # at least two tasks
            planes = -(-self.planes // 2)
        if planes > 1:
            return plan._replace(planes=planes, rows=y.count)
        parts = max(1, round(plane / _TASK_CYCLES))
        rows = even_size(y.count, max(plan.tile, y.count / parts), plan.tile)
        return plan._replace(planes=1, rows=rows)

    def of(self, plan: Plan) -> tuple[float, float, int]:
        """Return the cycles of a task and the number of tasks, as `Costs.of` does."""
        rows = self.axes[1].count
        count = ceil(self.planes / plan.planes) * ceil(rows / plan.rows)
        of_planes = plan.planes * self._plane_cycles(plan, min(rows, plan.rows))
        return 0.0, self.model.task_cycles + of_planes, count

    def _plane_cycles(self, plan: Plan, rows: int) -> float:
        """Cycles of some rows q of a plane of y."""
        _, y, x = self.axes
        columns = ceil(x.count / (plan.vectors * self.lanes))
        blocks = ceil(rows / plan.tile)
        edges = min(columns, 2)
        stores = plan.tile * y.stride * x.stride * plan.vectors
        cycles = self.model.plane_cycles + columns * (
            self.model.column_cycles + blocks * self._block(plan)
        )
        cycles += edges * blocks * stores * self.model.edge_store_cycles
        moved = self._moved_cycles(rows)
        return max(cycles, moved) + self.model.overlap * min(cycles, moved)

    def _moved_cycles(self, rows: int) -> float:
        """Cycles to read x and to write y, of some rows of a plane of y, wherever they are."""
        problem, (_, y, x) = self.problem, self.axes
        x_bytes = rows * y.step * x.input * self.bytes * problem.channels / problem.outputs
        y_bytes = rows * y.stride * x.count * x.stride * self.bytes
        in_all = (problem.read_count + problem.written_count) * self.bytes
        is_near = in_all <= self.target.l2_bytes
        return (x_bytes + 2 * y_bytes) / (
            self.model.near_bytes if is_near else self.model.far_bytes
        )

    def _block_cycles(self, plan: Plan) -> float:
        """Cycles of a block of rows of some columns."""
        _, y, x = self.axes
        window = Window.of(self.problem, plan.tile, plan.vectors)
        rows_of_x = len(window.reads())
        loads = rows_of_x * len(window.cells.loads(self.lanes))
        shuffles = rows_of_x * plan.vectors * len(x.shifts) * (x.step - 1)
        products = plan.tile * plan.vectors * prod(self.problem.kernel_size)
        sums = plan.tile * plan.vectors * y.stride * x.stride
        # Weights that no register is left for are read for each product.
        is_crowded = self.problem.taps + sums > self.target.isa.registers
        reads = loads * self.model.load_cycles + (
            products * self.model.weight_cycles if is_crowded else 0.0
        )
        latency = self.model.latency_cycles * products / sums
        times = [products / 2, reads, shuffles * self.model.shuffle_cycles, latency]
        of_channel = (
            max(times)
            + self.model.overlap * (sum(times) - max(times))
            + rows_of_x * self.model.row_cycles
        )
        stores = sums * (self.model.store_cycles + (x.stride - 1))
        return (
            self.model.block_cycles
            + self.problem.channels * of_channel * self.target.steps
            + stores
        )
