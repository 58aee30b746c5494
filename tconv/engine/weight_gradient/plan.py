"""Plans for the weight gradient: kernel, tile, blocks and split-k, chosen by a cost model.

    dw[g, c, m, k] = sum over n, i of x[n, g, c, i] * y[n, g, m, o(i, k)]

The reduction is over images and cells of x, in k-blocks whose panels fit the caches. With split-k a
task computes the partial sum of some k-blocks, for a block of channels of x and one of channels of
y. The splits, and so the order of each sum, follow from sizes and target, never from the number of
threads.
"""

from collections.abc import Iterator
from functools import lru_cache
from math import ceil
from typing import NamedTuple

from tconv.engine.kernels.limits import MOST_INTERLEAVED
from tconv.engine.plan.plan import even_size, tile_heights, tile_rows
from tconv.engine.plan.problem import Problem
from tconv.engine.plan.size_bands import band_of
from tconv.engine.target.target import Target
from tconv.engine.weight_gradient.panel import Panel, ReductionBlock
from tconv.system.topology import CACHE_LINE_BYTES

__all__ = ["Scratch", "WeightGradientPlan", "all_gradient_plans", "choose_gradient_plan", "x_tiles"]

# Cells of a k-block; longer sums are less exact. In a dot kernel each lane sums its share of them.
# Fewer than _FEW_CELLS are considered only where cells lie so far apart that more do not fit.
_CELLS, _DOT_CELLS, _FEW_CELLS = (512, 256, 128, 32, 4), (2048, 1024, 512, 256, 32), 128
_WANTED_TASKS, _PARTIAL_BYTES = 16, 2**21  # of all partial sums together, at most
_MOST_SCRATCH_BYTES, _MOST_BLOCK_BYTES = 2**21, 2**20  # of a thread
_BYTES = {"float32": 4, "float64": 8}  # of an element
_LINE_ELEMENTS = CACHE_LINE_BYTES // min(_BYTES.values())
_LEAST_FLOPS_PER_CYCLE, _SMALL_CYCLES = 0.2, 2_000_000
_CALL_CYCLES, _ROW_CYCLES, _TASK_CYCLES = 40, 20, 500
_COPY_CYCLES, _TRANSPOSE_CYCLES, _FAR_BYTES = 1.2, 2.5, 8  # of a vector; and bytes per cycle


class WeightGradientPlan(NamedTuple):
    """The choices for one geometry, type and target.

    A dot kernel has cells in its lanes and a tile of `tile` channels of x by `width` taps. A rank-1
    kernel has channels of x in its lanes and a tile of `tile` taps by `width` vectors. A block of
    dw is `channels` of x by `outputs` channels of y; it has `k_splits` partial sums.
    """

    is_dot: bool
    tile: int
    width: int
    k_block: ReductionBlock
    channels: int
    outputs: int
    k_splits: int
    cycles: float


@lru_cache(maxsize=1024)
def choose_gradient_plan(problem: Problem, dtype: str, target: Target) -> WeightGradientPlan | None:
    """Return the cheapest plan by the cost model; None if even that is wasteful.

    It is chosen for the largest size of a band, and fitted to the actual size.
    """
    lanes = target.vector_bits // 8 // _BYTES[dtype]
    best = _cheapest(band_of(problem, lanes), dtype, target)
    best = best and _fitted(best, problem, dtype, target)
    flops = problem.geometry.flops
    if best is None or best.cycles > _SMALL_CYCLES + flops / _LEAST_FLOPS_PER_CYCLE:
        return None
    return best


@lru_cache(maxsize=1024)
def _cheapest(problem: Problem, dtype: str, target: Target) -> WeightGradientPlan | None:
    return min(all_gradient_plans(problem, dtype, target), key=_cycles, default=None)


def _fitted(
    plan: WeightGradientPlan, problem: Problem, dtype: str, target: Target
) -> WeightGradientPlan | None:
    """Return the plan with k-blocks of about as many cells, for sizes that may be smaller."""
    costs = _Costs(problem, dtype, target)
    k_block = ReductionBlock.of(problem.geometry.batch, costs.counts, plan.k_block.cells)
    plan, is_dot = plan._replace(k_block=k_block), plan.is_dot
    panel = Panel.of(problem.geometry.axes, k_block, costs.lanes, is_dot)
    if Scratch.of(plan, panel, problem.taps).size * costs.bytes > _MOST_SCRATCH_BYTES:
        return _cheapest(problem, dtype, target)
    return costs.priced(plan, panel)


def _cycles(plan: WeightGradientPlan) -> float:
    return plan.cycles


def all_gradient_plans(problem: Problem, dtype: str, target: Target) -> list[WeightGradientPlan]:
    """Return every plan worth considering, with its cycles."""
    return list(_candidates(problem, dtype, target))


def _candidates(problem: Problem, dtype: str, target: Target) -> Iterator[WeightGradientPlan]:
    """Yield plans whose panels and sums fit the scratch memory."""
    costs, batch = _Costs(problem, dtype, target), problem.geometry.batch
    kinds = (
        (False, target.isa.rank1_tiles, _CELLS),
        (True, target.isa.dot_tiles, _DOT_CELLS),
    )
    for is_dot, tiles, sizes in kinds:
        found = False
        for k_block in dict.fromkeys(ReductionBlock.of(batch, costs.counts, n) for n in sizes):
            if found and k_block.cells < _FEW_CELLS:
                break
            panel = Panel.of(problem.geometry.axes, k_block, costs.lanes, is_dot)
            for tile, width in tiles:
                for channels, outputs in costs.blocks(is_dot, tile, width, panel):
                    plan = WeightGradientPlan(
                        is_dot, tile, width, k_block, channels, outputs, 1, 0.0
                    )
                    scratch = Scratch.of(plan, panel, problem.taps)
                    if scratch.size * costs.bytes <= _MOST_SCRATCH_BYTES:
                        found = True
                        yield costs.priced(plan, panel)


class Scratch(NamedTuple):
    """Layout of a thread's panels and sums, in elements.

    The panel of x has tiles of channels, `x_pitch` apart; for dot kernels single channels, as the
    panel of y has. The sums are rows of taps, `ldc` apart, and for dot kernels tiles.
    """

    x_pitch: int
    tile_size: int
    ldc: int
    y_size: int
    x_size: int
    block_size: int

    @classmethod
    def of(cls, plan: WeightGradientPlan, panel: Panel, taps: int) -> "Scratch":
        """Return the layout; every size is a multiple of vectors and of cache lines."""
        lanes, columns = panel.lanes, plan.outputs * taps
        y_size = plan.outputs * panel.cells + panel.room + lanes
        if plan.is_dot:
            x_pitch, tile_size = (
                panel.residue_class_cells + lanes,
                _rounded(plan.tile * plan.width, lanes),
            )
            x_size, ldc = plan.channels * x_pitch + panel.room, 0
            tiles = ceil(plan.channels / plan.tile) * ceil(columns / plan.width)
            block_size = tiles * tile_size
        else:
            width, tile_size = _rounded(plan.channels, lanes), plan.width * lanes
            x_pitch = plan.k_block.cells * tile_size
            x_size = plan.k_block.cells * width + lanes * tile_size
            ldc = width + lanes  # rows a power of two apart would share a set of the cache
            block_size = _rounded(columns, lanes) * ldc
        sizes = (_rounded(size, _LINE_ELEMENTS) for size in (y_size, x_size, block_size))
        return cls(x_pitch, tile_size, ldc, *sizes)

    @property
    def size(self) -> int:
        """Elements that a thread needs in all."""
        return self.y_size + self.x_size + self.block_size


def _rounded(count: int, step: int) -> int:
    """Round up to a multiple."""
    return ceil(count / step) * step


class _Costs:
    """Cost model of the plans for one problem, in cycles."""

    def __init__(self, problem: Problem, dtype: str, target: Target) -> None:
        self.problem, self.target = problem, target
        self.counts = problem.written_size
        self.bytes = _BYTES[dtype]
        self.lanes = target.vector_bits // 8 // self.bytes
        geometry = problem.geometry
        self.groups, self.batch = geometry.groups, geometry.batch
        self.channels, self.outputs = problem.outputs, problem.channels  # want "x" writes x

    def blocks(
        self, is_dot: bool, tile: int, width: int, panel: Panel
    ) -> Iterator[tuple[int, int]]:
        """Yield channels of x and of y of blocks whose panels and sums stay in the caches."""
        step = tile if is_dot else width * self.lanes
        cells = panel.cells if is_dot else panel.k_block.cells
        some = self.target.l2_bytes * 0.4 / self.bytes
        known = set()
        for wanted in (512, 256, 128, 64, 1):
            most = min(wanted, some / cells)
            channels = even_size(self.channels, most, step)
            for many in (256, 64, 32, 16, 8, 4, 2, 1):
                block = _MOST_BLOCK_BYTES / self.bytes / (channels * self.problem.taps)
                outputs = even_size(self.outputs, min(many, some / panel.cells, block), 1)
                if (channels, outputs) not in known:
                    known.add((channels, outputs))
                    yield channels, outputs

    def priced(self, plan: WeightGradientPlan, panel: Panel) -> WeightGradientPlan:
        """Return the plan with its split-k and its cycles."""
        batch, size = self.batch, self.counts
        k_blocks = 1
        for count, some in zip((batch, *size), plan.k_block, strict=True):
            k_blocks *= ceil(count / some)
        blocks = ceil(self.channels / plan.channels) * ceil(self.outputs / plan.outputs)
        blocks *= self.groups
        dw_bytes = self.groups * self.channels * self.outputs * self.problem.taps * self.bytes
        k_splits = max(1, min(k_blocks, _PARTIAL_BYTES // dw_bytes, ceil(_WANTED_TASKS / blocks)))
        columns = plan.outputs * self.problem.taps
        each = self._packed(plan, panel) + self._summed(plan, panel, columns)
        written = columns * plan.channels * (3.0 if plan.is_dot else 8 / self.lanes)
        total = blocks * (k_blocks * each + k_splits * (written + _TASK_CYCLES))
        total += (k_splits > 1) * k_splits * dw_bytes / 8
        tasks = blocks * k_splits
        return plan._replace(k_splits=k_splits, cycles=total * (1 + 2 / tasks))

    def _packed(self, plan: WeightGradientPlan, panel: Panel) -> float:
        """Return the cycles of packing one k-block."""
        problem = self.problem
        (images, depth, height, pitch), x_reach = panel.size, panel.reaches[2]
        step, vectors = x_reach.step, ceil(pitch / self.lanes)
        a_vector = _COPY_CYCLES * (step if step <= MOST_INTERLEAVED else self.lanes)
        if step == 1 and pitch == x_reach.size:  # contiguous rows are copied as one
            height, vectors = 1, ceil(height * pitch / self.lanes)
        row = _ROW_CYCLES + vectors * (a_vector + self._far(problem.read_count))
        y = plan.outputs * panel.residue_classes * (images * depth * (_CALL_CYCLES + height * row))
        far = self._far(problem.written_count)
        if plan.is_dot:
            row = _ROW_CYCLES + vectors * (_COPY_CYCLES + far)
            x = plan.channels * images * plan.k_block.planes * (_CALL_CYCLES + height * row)
        else:
            vectors = ceil(plan.k_block.cells / images / self.lanes) * self.lanes
            x = ceil(plan.channels / self.lanes) * images
            x *= _CALL_CYCLES + vectors * (_TRANSPOSE_CYCLES + far)
        return y + x

    def _far(self, numbers: int) -> float:
        """Return the extra cycles of a vector of an operand that does not fit the L2 cache."""
        is_far = numbers * self.bytes > self.target.l2_bytes
        return self.lanes * self.bytes / _FAR_BYTES if is_far else 0.0

    def _summed(self, plan: WeightGradientPlan, panel: Panel, columns: int) -> float:
        """Return the cycles of the kernels of one k-block and block."""
        if plan.is_dot:
            count = ceil(panel.lane_count / self.lanes)
            x_sizes, tap_sizes = (
                tile_heights(plan.channels, plan.tile),
                tile_heights(columns, plan.width),
            )
        else:
            count = panel.k_block.cells
            whole, rest = divmod(ceil(plan.channels / self.lanes), plan.width)
            x_sizes, tap_sizes = [(plan.width, whole), (rest, 1)], tile_heights(columns, plan.tile)
        total = 0.0
        for x_size, many in x_sizes:
            for tap_size, times in tap_sizes:
                sums = x_size * tap_size
                loads = (x_size + tap_size) * (0.65 if plan.is_dot else 0.5)
                ends = _CALL_CYCLES + sums * (4 if plan.is_dot else 1.5)
                total += many * times * (count * max(sums / 2, loads + 0.5, 4) + ends) * (sums > 0)
        return total


def x_tiles(plan: WeightGradientPlan, channels: int, lanes: int) -> list[int]:
    """Return the sizes of the tiles of so many channels of x, in channels or vectors."""
    if plan.is_dot:
        return tile_rows(channels, plan.tile)
    whole, rest = divmod(ceil(channels / lanes), plan.width)
    return [plan.width] * whole + [rest] * (rest > 0)
