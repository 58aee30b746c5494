"""Cost model of plans: cycles of loads, products, caches and calls."""

from collections.abc import Sequence
from functools import cache
from math import ceil

import numpy as np

from tconv.arrays.dtypes import TYPES, as_dtype
from tconv.engine.kernels.limits import MOST_INTERLEAVED
from tconv.engine.plan.cost_constants import cost_constants
from tconv.engine.plan.phases import Phases
from tconv.engine.plan.plan import Plan, tile_heights
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import Target

__all__ = ["Considered", "Costs", "packing_cycles", "priced"]

Considered = tuple[Plan, int, tuple[float, float, int]]
"""A plan without splits, its number of blocks, and what `Costs.of` returns."""


class Costs:
    """Costs of the plans for one problem that count phases in one way."""

    def __init__(self, problem: Problem, dtype: str, target: Target, phases: Phases) -> None:
        self.problem, self.target, self.phases = problem, target, phases
        self.model = cost_constants(target).gemm
        self.batch, self.groups = problem.geometry.batch, problem.geometry.groups
        self.cell_bytes = as_dtype(np, dtype).itemsize  # as x and y are stored
        self.bytes = np.dtype(TYPES[dtype].accumulator).itemsize
        self.is_copied = self.cell_bytes != self.bytes  # x, for col2im, too
        self.vector_bytes = target.vector_bits // 8
        self.lanes = self.vector_bytes // self.bytes
        self.steps = target.steps  # in which a vector is multiplied, added or loaded
        self.channels, self.outputs = problem.channels, problem.outputs
        self.taps = problem.taps
        self.weight_bytes = self.outputs * self.taps * self.channels * self.bytes
        x_bytes = problem.read_count * self.cell_bytes
        x_is_near = x_bytes <= target.l2_bytes
        self.far_cycles = 0.0 if x_is_near else self.lanes * self.cell_bytes / self.model.far_bytes
        # The hardware does not prefetch an x that is in memory and read by pieces.
        self.col2im_far = (1.0 if x_bytes > target.l3_bytes // 2 else 0.5) * self.far_cycles
        self.near_cycles = self.vector_bytes / self.model.near_bytes  # per vector
        self.shifts = phases.shifts
        self.kinds = [(len(a.phases), a.taps, len(set(a.shifts[2]))) for a in phases.groups]
        self._term = cache(self._term_cycles)

    def of(self, plan: Plan) -> tuple[float, float, int]:
        """Cycles of a task: to read x, and to compute and write all channels of y; number of tasks.

        These are the tasks of all groups, without splits.
        """
        read, work, count = (self._col2im if plan.algorithm == "col2im" else self._summed)(plan)
        return read, work + self._written(plan), count * self.groups

    def _summed(self, plan: Plan) -> tuple[float, float, int]:
        """Cycles of a task with a panel: to read x, to compute; and the tasks of a group."""
        pitch, is_im2col = self._pitch(plan), plan.panel == "im2col"
        lanes = (plan.rows - 1) * pitch + plan.columns
        pack, count = self._read(plan)
        cells = self.shifts * ceil(lanes / self.lanes)
        if not is_im2col:
            cells = self._panel_rows(plan) * ceil(pitch / self.lanes)
        whole, rest = divmod(ceil(lanes / self.lanes), plan.vectors)
        widths = ((plan.vectors, whole), (rest, 1)) if rest else ((plan.vectors, whole),)
        is_near = plan.k_block.channels * cells * self.vector_bytes <= self.target.l1_bytes * 0.6
        is_unaligned, compute = not is_im2col, 0.0
        # Where terms are not in the order of the panel, kernels prefetch the ones ahead.
        prefetches = is_im2col and self.shifts > 1 and not plan.k_block.per_tap
        prefetch = self.model.prefetch_cycles if prefetches else 0.0
        panel = self.channels * cells * self.vector_bytes / self.target.l2_bytes
        crowded = 1.0 + max(0.0, panel - self.model.crowded)
        for rows_of_channel, taps, columns_read in self.kinds:
            if is_near or is_im2col:
                x_cycles = 0.0
            elif plan.k_block.per_tap:
                x_cycles = self.near_cycles * crowded
            else:  # neighbouring taps read the same cache lines
                x_cycles = self.near_cycles * crowded / max(1, columns_read)
            parts, terms = self._sums(plan, taps), taps * self.channels
            for height, tiles in tile_heights(rows_of_channel * plan.block, plan.tile):
                for wide, calls in widths:
                    each = terms * self._term(height, wide, is_unaligned, x_cycles, 0.0)
                    each += terms * prefetch * wide
                    each += parts * (
                        self.model.call_cycles + height * wide * self.model.store_cycles
                    )
                    compute += tiles * calls * each
        return pack, self._of_blocks(compute, plan.block), count

    def _pitch(self, plan: Plan) -> int:
        """Cells from one row of a task to the next."""
        return plan.columns if plan.panel == "im2col" else self.phases.axes[2].pitch(plan.columns)

    def _panel_rows(self, plan: Plan) -> int:
        """Rows of a channel in a padded panel."""
        z, y, _ = self.phases.axes
        return (1 + z.high - z.low) * (plan.rows + y.high - y.low) * self.phases.residue_classes

    def _read(self, plan: Plan) -> tuple[float, int]:
        """Cycles of a task to fill its panel; and the tasks of a group."""
        (z, y, x), pitch = self.phases.axes, self._pitch(plan)
        if plan.panel == "im2col":
            lanes = (plan.rows - 1) * pitch + plan.columns
            count = ceil(self.batch * z.count * y.count / plan.rows)
            count *= ceil(x.count / plan.columns)
            return self.channels * self.shifts * self._gathered(plan, lanes), count
        a_vector = self.model.packed_cycles if x.step == 1 else _strided_cycles(x.step, self.lanes)
        row = self.model.pack_row_cycles + ceil(pitch / self.lanes) * (a_vector + self.far_cycles)
        count = self.batch * z.count * ceil(y.count / plan.rows) * ceil(x.count / plan.columns)
        return self.channels * self._panel_rows(plan) * row, count

    def _gathered(self, plan: Plan, lanes: int) -> float:
        """Cycles to gather lanes: vectors of contiguous cells, or cell by cell."""
        x, vectors = self.phases.axes[2], ceil(lanes / self.lanes)
        apart = 0.0
        if x.step > 1 or self.cell_bytes != self.bytes:
            apart = 1.0
        elif plan.rows > 1 and x.count != x.input:
            apart = min(1.0, self.lanes / plan.columns)
        of_vector = self.model.gathered_cycles * self.steps + 0.5 * self.far_cycles
        of_apart = self.model.apart_cycles + self.lanes * self.model.gather_cycles
        return self.model.gather_call_cycles + vectors * (
            apart * of_apart + (1 - apart) * of_vector
        )

    def _col2im(self, plan: Plan) -> tuple[float, float, int]:
        """Cycles of a task of col2im: to read x, to compute; and the tasks of a group."""
        (z, y, x), planes, rows = self.phases.axes, plan.planes, plan.rows
        pieces, cells = self.phases.pieces(planes, rows, plan.columns)
        vectors = ceil(cells / self.lanes)
        whole, rest = (pieces * n for n in divmod(vectors, plan.vectors))
        parts = self._sums(plan, 1)
        plane = x.input * y.input * z.input * self.bytes
        clash = 2.0 if plane % self.model.clash_bytes == 0 and not self.is_copied else 1.0
        used = plan.k_block.channels * plan.vectors * self.vector_bytes
        is_near = used * clash <= self.target.l1_bytes * 0.6
        x_cycles = 0.0 if is_near else self.near_cycles * clash
        weights = plan.k_block.channels * self.taps * plan.block * self.bytes
        of_weight = (
            0.0 if weights <= self.target.l1_bytes * 0.5 else self.bytes / self.model.near_bytes
        )
        pages = min(1.0, plane / self.model.pages_bytes)  # per channel
        has_pages = plan.k_block.channels * pages > self.model.pages and not self.is_copied
        page_cycles = self.model.page_cycles * pages if has_pages else 0.0
        compute = 0.0
        for height, tiles in tile_heights(self.taps * plan.block, plan.tile):
            for wide, calls in ((plan.vectors, whole), (1, rest)):
                each = self._term(height, wide, True, x_cycles, of_weight) + page_cycles
                each = self.channels * each + parts * (
                    self.model.call_cycles + height * wide * self.model.store_cycles
                )
                compute += tiles * calls * each
        if not self.phases.taps_are_phases:
            a_row = (
                self.model.added_row_cycles
                + ceil(plan.columns / self.lanes) * self.model.added_cycles
            )
            of_tap = planes * (self.model.call_cycles + rows * a_row)
            compute += parts * plan.block * self.taps * of_tap
        read = self.channels * pieces * vectors * (self.near_cycles + self.col2im_far)
        if self.is_copied:
            read += (
                self.channels
                * pieces
                * (self.model.pack_row_cycles + vectors * self.model.packed_cycles)
            )
        count = self.batch * ceil(z.count / planes) * ceil(y.count / rows)
        count *= ceil(x.count / plan.columns)
        return read, self._of_blocks(compute, plan.block), count

    def _sums(self, plan: Plan, taps: int) -> int:
        """Number of k-blocks that are summed for an output."""
        return ceil(self.channels / plan.k_block.channels) * (taps if plan.k_block.per_tap else 1)

    def _of_blocks(self, compute: float, block: int) -> float:
        """Cycles of all blocks of a task; their weights are loaded while one computes."""
        compute *= ceil(self.outputs / block)
        is_far = self.weight_bytes > self.target.l2_bytes // 2
        return max(compute, self.weight_bytes / self.model.stream_bytes) if is_far else compute

    def _term_cycles(
        self, rows: int, vectors: int, is_unaligned: bool, x_cycles: float, of_weight: float
    ) -> float:
        """Cycles of one channel and tap: the most of multiplications, loads and latency."""
        split = 2 if is_unaligned and self.target.vector_bits == 512 else self.steps
        loads = (rows + vectors * split + 1) / 2
        near = (vectors + is_unaligned) * x_cycles + rows * of_weight
        most = max(rows * vectors * self.steps / 2, loads, self.model.latency_cycles, near)
        return most + vectors * self.model.vector_cycles + near * self.model.overlapped

    def _written(self, plan: Plan) -> float:
        """Cycles to interleave the accumulator rows of a task into y."""
        z, y, x = self.phases.axes
        per_cell = 0.3 * 16 / self.lanes if x.stride <= MOST_INTERLEAVED else 0.6
        planes = plan.planes * z.stride
        a_plane = (
            plan.rows * y.stride * (self.model.row_cycles + plan.columns * x.stride * per_cell)
        )
        row_bytes = plan.columns * x.stride * self.cell_bytes
        if plan.streams(self.problem.written_count * self.cell_bytes, row_bytes, x.count):
            a_plane += self.model.piece_cycles
        return self.outputs * planes * a_plane


def _strided_cycles(step: int, lanes: int) -> float:
    """Cycles of a vector of cells that are a step apart."""
    return 2.0 * step if step <= MOST_INTERLEAVED else 2.0 * lanes


def packing_cycles(problem: Problem, plan: Plan, target: Target) -> float:
    """Cycles to pack a weight for each call; 0 if it is kept."""
    if problem.kept:
        return 0.0
    constants = cost_constants(target)
    elements = problem.geometry.groups * problem.channels * problem.outputs * problem.taps
    if plan.algorithm != "winograd":
        return elements * constants.gemm.weight_cycles
    ratio = 1.0  # of transformed elements to taps
    for outputs, axis in zip(plan.outputs, problem.phases().axes, strict=True):
        taps = max(1, *map(len, axis.taps)) if axis.taps else 1
        ratio *= (taps + outputs - 1) / taps
    return elements * ratio * constants.winograd.weight_cycles


def priced(
    plan: Plan,
    cycles: tuple[float, float, int],
    problem: Problem,
    target: Target,
    threads: int,
    splits: Sequence[int],
) -> Plan:
    """The plan with its price for so many threads and the best of these numbers of splits.

    It has one thread if that is best.
    """
    read, work, count = cycles
    packing = packing_cycles(problem, plan, target)
    wake_cycles = cost_constants(target).gemm.wake_cycles
    found = []
    for n in splits:
        tasks, task = count * n, read + work / n
        alone = tasks * task + packing
        together = ceil(tasks / threads) * task + packing / threads + wake_cycles
        found.append((alone, n, 1) if alone <= together else (together, n, threads))
    best, n, used = min(found, key=_price)
    return plan._replace(splits=n, threads=used, cycles=best)


def _price(found: tuple[float, int, int]) -> float:
    return found[0]
