"""Candidate Winograd plans and their cost."""

from collections.abc import Iterator
from math import ceil, prod

from tconv.engine.plan.cost_constants import cost_constants
from tconv.engine.plan.cost_model import Considered, Costs
from tconv.engine.plan.phases import Phases
from tconv.engine.plan.plan import ONE_OUTPUT, TABLE_ENTRIES, KBlock, Plan, tile_heights
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import Target
from tconv.engine.winograd.transform import WinogradTransform

__all__ = ["WinogradCosts", "candidates"]

_TYPES = ("float32",)  # more precise ones are asked for where the last digits count
_FEW_CHANNELS, _FEW_ROWS = 8, 8  # with fewer, transforms of x and y take as long as the GEMMs
_MOST_PRODUCTS = 0.9  # of the products of a direct plan
_MOST_INPUT_POINTS = 256  # of a channel; the kernel has some instructions for each
_LANES = (16, 32, 48, 64, 96, 128)  # of a task, about
_MOST_TRANSFORMED_BYTES = 3 * 2**19  # of the transformed x of a task
_MOST_CHANNELS = 64  # of a block

_TaskSize = tuple[bool, int, int]
"""Whether its panel is im2col; rows and columns."""


class WinogradCosts(Costs):
    """Costs of the plans with one set of transforms."""

    def __init__(
        self,
        problem: Problem,
        dtype: str,
        target: Target,
        phases: Phases,
        transform: WinogradTransform,
    ) -> None:
        super().__init__(problem, dtype, target, phases)
        self.transform, self.constants = transform, cost_constants(target).winograd
        self.weight_bytes = (
            self.outputs * transform.transformed_weights * self.channels * self.bytes
        )
        self.gemm_counts, self.products = transform.gemm_counts, transform.products
        z, y, x = (len(axis.places) for axis in transform.axes)
        self.places = z * y * x

    @classmethod
    def of_plan(cls, plan: Plan, problem: Problem, dtype: str, target: Target) -> "WinogradCosts":
        """Return the costs of plans with the transforms of this one."""
        phases = problem.phases(plan.is_uncropped, is_spaced=True)
        transform = WinogradTransform.of(phases, plan.outputs)
        assert transform is not None, "no candidate is such a plan"
        winograd_phases = problem.winograd_phases(plan.is_uncropped, plan.outputs)
        return cls(problem, dtype, target, winograd_phases, transform)

    def vectors(self, plan: Plan) -> int:
        """Return the vectors of lanes of a task."""
        return ceil(((plan.rows - 1) * self._pitch(plan) + plan.columns) / self.lanes)

    def transformed_bytes(self, vectors: int) -> int:
        """Return the bytes of the transformed x of a task."""
        return self.transform.input_points * self.channels * vectors * self.vector_bytes

    def of(self, plan: Plan) -> tuple[float, float, int]:
        """Return the cycles of a task and the number of tasks, as `Costs.of` does."""
        vectors = self.vectors(plan)
        read, count = self._read(plan)
        of_input = (
            self.places * self.constants.read_cycles
            + self.transform.input_points * self.constants.write_cycles
        )
        read += self.channels * (self.model.call_cycles + vectors * of_input * self.steps)
        compute = self._gemm_cycles(plan, vectors) + self._output_cycles(plan, vectors)
        work = self._of_blocks(compute, plan.block) + self._written(plan)
        if self.weight_bytes > self.target.l3_bytes:
            work = max(work, self.weight_bytes / self.constants.memory_bytes)
        # The transform of weights that are not kept must not make another order of sums the best.
        of_filter = self.weight_bytes // self.bytes * self.constants.filter_cycles
        return read, work + of_filter / count, count * self.groups

    def _gemm_cycles(self, plan: Plan, vectors: int) -> float:
        """Return the cycles of a block's batched GEMMs."""
        whole, rest = divmod(vectors, plan.vectors)
        widths = ((plan.vectors, whole), (rest, 1)) if rest else ((plan.vectors, whole),)
        of_term = self.channels * vectors * self.vector_bytes
        is_far = self.transformed_bytes(vectors) > self.target.l2_bytes
        cycles = 0.0
        for (rows, terms), count in self.gemm_counts.items():
            parts = ceil(self.channels / plan.k_block.channels)
            for height, tiles in tile_heights(rows * plan.block, plan.tile):
                for wide, calls in widths:
                    each = terms * self.channels * self._term(height, wide, False, 0.0, 0.0)
                    each += parts * (
                        self.model.call_cycles + height * wide * self.model.store_cycles
                    )
                    cycles += count * tiles * calls * each
            if is_far:
                cycles += count * terms * of_term / self.constants.l3_bytes
        return cycles

    def _output_cycles(self, plan: Plan, vectors: int) -> float:
        """Return the cycles of a block's output transforms."""
        calls = self.phases.count // prod(plan.outputs)
        bytes_ = (self.products + self.phases.count) * plan.block * vectors * self.vector_bytes
        beyond = max(0, bytes_ - self.target.l2_bytes // 2) / self.constants.l3_bytes
        of_products = (
            self.products * self.constants.read_cycles
            + self.phases.count * self.constants.write_cycles
        )
        of_products *= self.steps
        return plan.block * (calls * self.model.call_cycles + vectors * of_products) + 2 * beyond


def candidates(problem: Problem, dtype: str, target: Target) -> list[Considered]:
    """Return Winograd plans without splits, their numbers of blocks, and their `Costs.of`."""
    found: list[Considered] = []
    if dtype not in _TYPES or problem.without_winograd:
        return found
    for is_uncropped in (False, True):
        if is_uncropped and len(problem.phases(True).groups) == len(problem.phases().groups):
            continue
        phases = problem.phases(is_uncropped, is_spaced=True)
        for outputs in _outputs(phases):
            transform = WinogradTransform.of(phases, outputs)
            if (
                transform is not None
                and transform.input_points <= _MOST_INPUT_POINTS
                and _saves(phases, transform, outputs)
            ):
                winograd_phases = problem.winograd_phases(is_uncropped, outputs)
                costs = WinogradCosts(problem, dtype, target, winograd_phases, transform)
                found += _candidates(costs, outputs, is_uncropped)
    return found


def _saves(phases: Phases, transform: WinogradTransform, outputs: tuple[int, int, int]) -> bool:
    """Whether there are clearly fewer products than in a direct plan."""
    products = transform.transformed_weights
    taps = prod(sum(map(len, axis.taps)) for axis in phases.axes)
    return products < _MOST_PRODUCTS * taps * prod(outputs)


def _outputs(phases: Phases) -> set[tuple[int, int, int]]:
    """Return outputs at a time: 2 or 3 along the axes with several outputs of several taps."""
    found = set()
    for most in (2, 3):
        counts = [
            most if axis.count > 1 and max(map(len, axis.taps)) > 1 else 1 for axis in phases.axes
        ]
        found.add((counts[0], counts[1], counts[2]))
    return found - {ONE_OUTPUT}


def _candidates(
    costs: WinogradCosts, outputs: tuple[int, int, int], is_uncropped: bool
) -> Iterator[Considered]:
    """Yield plans with tasks of several sizes and each of the target's tiles."""
    rows_of_channel = max(rows for rows, _ in costs.gemm_counts)
    if costs.channels < _FEW_CHANNELS or costs.outputs * rows_of_channel < _FEW_ROWS:
        return
    terms = max(terms for _, terms in costs.gemm_counts)
    k_block = KBlock.of_terms(costs.channels, terms)
    for is_im2col, rows, columns in sorted(_task_sizes(costs)):
        for tile, most in costs.target.isa.gemm_tiles:
            plan = Plan(
                tile=tile,
                vectors=most,
                is_uncropped=is_uncropped,
                algorithm="winograd",
                panel="im2col" if is_im2col else "padded",
                outputs=outputs,
                planes=1,
                rows=rows,
                columns=columns,
                block=1,
                k_block=k_block,
            )
            vectors = costs.vectors(plan)
            if most > vectors > 1 or costs.transformed_bytes(vectors) > _MOST_TRANSFORMED_BYTES:
                continue
            of_channel = (costs.products + costs.phases.count) * vectors * costs.vector_bytes
            block = max(
                1, min(costs.outputs, _MOST_CHANNELS, costs.target.l2_bytes // 2 // of_channel)
            )
            block = ceil(costs.outputs / ceil(costs.outputs / block))
            plan = plan._replace(vectors=ceil(vectors / ceil(vectors / most)), block=block)
            yield plan, ceil(costs.outputs / block), costs.of(plan)


def _task_sizes(costs: WinogradCosts) -> set[_TaskSize]:
    """Return tasks of about `_LANES` lanes, with padded and with im2col panels."""
    z, y, x = costs.phases.axes
    all_rows = costs.batch * z.count * y.count
    found = set()
    for lanes in _LANES:
        parts = ceil(x.count / lanes)
        columns = min(x.count, ceil(x.count / parts / costs.lanes) * costs.lanes)
        rows = min(y.count, max(1, lanes // x.pitch(columns))) if columns == x.count else 1
        found.add((False, ceil(y.count / ceil(y.count / rows)), columns))
        if x.count <= lanes and all_rows * x.count * costs.shifts <= TABLE_ENTRIES:
            rows = min(all_rows, lanes // x.count)
            found.add((True, ceil(all_rows / ceil(all_rows / rows)), x.count))
    return found
