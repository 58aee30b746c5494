"""Choice of a plan: the cheapest by the cost model, over the candidates of all algorithms.

It is chosen for the largest size of a band, and fitted to the size that is asked for.
"""

from collections.abc import Sequence
from functools import lru_cache
from math import ceil, inf
from typing import Any

import numpy as np

from tconv.arrays.dtypes import TYPES
from tconv.engine.channel_lanes.candidates import ChannelLanesCosts
from tconv.engine.channel_lanes.candidates import candidates as channel_lanes_candidates
from tconv.engine.depthwise.candidates import DepthwiseCosts
from tconv.engine.depthwise.candidates import candidates as depthwise_candidates
from tconv.engine.direct.candidates import candidates as direct_candidates
from tconv.engine.plan.cost_model import Considered, Costs, packing_cycles, priced
from tconv.engine.plan.phases import Phases
from tconv.engine.plan.plan import Order, Plan, even_size
from tconv.engine.plan.problem import Problem
from tconv.engine.plan.size_bands import band_of, narrow_band_of, octave_of, samples_of
from tconv.engine.row_gemm.candidates import RowGemmCosts
from tconv.engine.row_gemm.candidates import candidates as row_gemm_candidates
from tconv.engine.target.target import Target
from tconv.engine.winograd.candidates import WinogradCosts
from tconv.engine.winograd.candidates import candidates as winograd_candidates

__all__ = [
    "all_plans",
    "band_candidates",
    "best_plans",
    "choose_plan",
    "costs_of",
    "fitted",
    "lanes_of",
]

_CANDIDATES = (
    direct_candidates,
    winograd_candidates,
    channel_lanes_candidates,
    depthwise_candidates,
    row_gemm_candidates,
)
_OWN_TASKS = ("channel_lanes", "depthwise", "row_gemm")  # algorithms whose tasks are not split
_SPLITS = (1, 2, 4, 8)  # of the output channels of a task
_LEAST_FLOPS_PER_CYCLE, _SMALL_CYCLES = 0.2, 2_000_000
_MOST_CANDIDATES, _AS_GOOD = 12, 1.01  # of a band; and what is as good as the best


def choose_plan(problem: Problem, dtype: str, target: Target, threads: int) -> Plan | None:
    """Return the plan that the cost model finds cheapest; None if each is wasteful.

    Plans are wasteful where a wide dilation makes the borders of every task larger than the task.
    """
    found = band_candidates(band_of(problem, lanes_of(dtype, target)), dtype, target, threads)
    return fitted(found, problem, dtype, target, threads)


@lru_cache(maxsize=1024)
def band_candidates(problem: Problem, dtype: str, target: Target, threads: int) -> tuple[Plan, ...]:
    """Return a band's candidates: for each of its sizes one is the best plan or as good.

    `problem` has the largest sizes of the band. The candidates are as few as possible, mostly one.
    If possible they read weights in the order of the best plan for the band's octave, so that many
    sizes share packed weights. All sum in one order, that of the best plan for one thread, whatever
    the number of threads.
    """
    plans = _cheapest(problem, dtype, target, threads)
    octave = octave_of(problem)
    preferred = _cheapest(octave, dtype, target, threads) if octave != problem else plans
    if preferred:  # where blocks are as large as fits, smaller ones may do
        block, packing = preferred[0].block, preferred[0].packing
        others = [plan._replace(block=block) for plan in plans if block < plan.block]
        plans = [*plans, *(plan for plan in others if plan.packing == packing)]
    good: list[set[int]] = []  # for each sample the plans that are as good as the best
    for sample in samples_of(problem, lanes_of(dtype, target)):
        prices = [plan.cycles for plan in _fits(plans, sample, dtype, target, threads)]
        most = min(prices, default=0.0) * _AS_GOOD
        good.append({n for n, price in enumerate(prices) if price <= most})
    found: list[Plan] = []
    while plans and good:
        counts = [sum(n in of_sample for of_sample in good) for n in range(len(plans))]
        is_preferred = [bool(preferred) and plan.packing == preferred[0].packing for plan in plans]
        best = max(range(len(plans)), key=lambda n: (counts[n], is_preferred[n], -n))
        found.append(plans[best])
        good = [of_sample for of_sample in good if best not in of_sample]
    return tuple(found)


@lru_cache(maxsize=64)
def _cheapest(problem: Problem, dtype: str, target: Target, threads: int) -> list[Plan]:
    """The cheapest plans with one order of sums, the cheapest first, without splits."""
    order, found = _order_of(problem, dtype, target), dict[Plan, None]()
    for plan in sorted(all_plans(problem, dtype, target, threads, order), key=_cycles):
        found[plan._replace(splits=1, threads=1, cycles=0.0)] = None
        if len(found) == _MOST_CANDIDATES:
            break
    return [*found]


@lru_cache(maxsize=64)
def _order_of(problem: Problem, dtype: str, target: Target) -> Order | None:
    """Return the best order of sums for one thread; the octave's if that is as good."""
    best: dict[Order, float] = {}
    for plan, _, (read, work, count) in _considered(problem, dtype, target):
        cycles = (read + work) * count + packing_cycles(problem, plan, target)
        best[plan.order] = min(cycles, best.get(plan.order, inf))
    octave = octave_of(problem)
    if len(best) > 1 and octave != problem:
        preferred = _order_of(octave, dtype, target)
        if preferred is not None and best.get(preferred, inf) <= min(best.values()) * _AS_GOOD:
            return preferred
    return min(best, key=best.__getitem__, default=None)


def fitted(
    found: tuple[Plan, ...], problem: Problem, dtype: str, target: Target, threads: int
) -> Plan | None:
    """Return the best of a band's candidates for one of its sizes; None if each is wasteful.

    The first candidate that is nearly as good as the best is taken, so that most sizes of a band
    share code and packed weights. Prices take the most time, so where many sizes are expected those
    of the largest size of a narrow band decide for all of it.
    """
    if not problem.many_sizes:
        return _best_fit(found, problem, dtype, target, threads)
    largest = narrow_band_of(problem, lanes_of(dtype, target))
    best = _best_fit(found, largest, dtype, target, threads)
    if best is None or largest == problem:
        return best
    return _refitted(best, largest, problem, dtype, target)


@lru_cache(maxsize=256)
def _best_fit(
    found: tuple[Plan, ...], problem: Problem, dtype: str, target: Target, threads: int
) -> Plan | None:
    plans = _fits(found, problem, dtype, target, threads)
    if not plans:
        return None
    most = min(map(_cycles, plans)) * _AS_GOOD
    best = next(plan for plan in plans if plan.cycles <= most)
    flops = problem.geometry.flops
    return None if best.cycles > _SMALL_CYCLES + flops / _LEAST_FLOPS_PER_CYCLE else best


def _refitted(plan: Plan, band: Problem, problem: Problem, dtype: str, target: Target) -> Plan:
    """The plan of a band's largest size with its tasks fitted to another size, at its rate."""
    rate = problem.geometry.flops / band.geometry.flops
    plan = plan._replace(cycles=plan.cycles * rate)
    if plan.algorithm == "channel_lanes":
        return plan
    if plan.algorithm in _OWN_TASKS:
        found: Plan = costs_of(plan, problem, dtype, target).fitted(plan)
        return found
    if plan.algorithm == "winograd":
        phases = problem.winograd_phases(plan.is_uncropped, plan.outputs)
    else:
        phases = problem.phases(plan.is_uncropped)
    return _fit(plan, phases, problem.geometry.batch, lanes_of(dtype, target), target)


def _fits(
    plans: Sequence[Plan], problem: Problem, dtype: str, target: Target, threads: int
) -> list[Plan]:
    """The plans with their tasks fitted to these sizes, each with its price."""
    all_splits = _SPLITS if threads > 1 else (1,)
    costs, found = dict[tuple[str, bool, tuple[int, int, int]], Any](), []
    for plan in plans:
        own = plan.algorithm if plan.algorithm in _OWN_TASKS else ""
        kind = (own, plan.is_uncropped, plan.outputs)
        if kind not in costs:
            costs[kind] = costs_of(plan, problem, dtype, target)
        blocks = 1
        if own in ("depthwise", "row_gemm"):
            plan = costs[kind].fitted(plan)
        elif not own:
            of_kind = costs[kind]
            plan = _fit(plan, of_kind.phases, of_kind.batch, of_kind.lanes, target)
            blocks = ceil(problem.outputs / plan.block)
        cycles = costs[kind].of(plan)
        splits = [n for n in all_splits if n == 1 or n <= blocks]
        found.append(priced(plan, cycles, problem, target, threads, splits))
    return found


def costs_of(plan: Plan, problem: Problem, dtype: str, target: Target) -> Any:
    """Return the costs of plans for a problem that are of one kind with this one."""
    if plan.algorithm == "channel_lanes":
        return ChannelLanesCosts(problem, dtype, target)
    if plan.algorithm == "depthwise":
        return DepthwiseCosts(problem, dtype, target)
    if plan.algorithm == "row_gemm":
        return RowGemmCosts(problem, dtype, target)
    if plan.algorithm == "winograd":
        return WinogradCosts.of_plan(plan, problem, dtype, target)
    return Costs(problem, dtype, target, problem.phases(plan.is_uncropped))


def _fit(plan: Plan, phases: Phases, batch: int, lanes: int, target: Target) -> Plan:
    """The plan with tasks of about the same size that split an axis into nearly equal parts."""
    z, y, x = phases.axes
    step = {"col2im": 1, "im2col": 2 * lanes}.get(plan.algorithm, lanes)
    columns = x.count
    if plan.columns < columns:
        columns = ceil(ceil(columns / ceil(columns / plan.columns)) / step) * step
        columns = min(columns, x.count)
    all_rows = batch * z.count * y.count if plan.panel == "im2col" else y.count
    rows, planes = even_size(all_rows, plan.rows), even_size(z.count, plan.planes)
    if plan.algorithm == "col2im":
        _, cells = phases.pieces(planes, rows, columns)
    elif plan.panel == "im2col":
        planes, cells = plan.planes, rows * columns
    else:
        planes, cells = plan.planes, (rows - 1) * x.pitch(columns) + columns
    vectors = max(1, ceil(cells / lanes))  # a wide crop or border leaves tasks without cells
    most = dict(target.isa.gemm_tiles)[plan.tile]
    vectors = ceil(vectors / ceil(vectors / most))
    return plan._replace(planes=planes, rows=rows, columns=columns, vectors=vectors)


def lanes_of(dtype: str, target: Target) -> int:
    """Elements of a vector, in the type of the sums."""
    return target.vector_bits // 8 // np.dtype(TYPES[dtype].accumulator).itemsize


def all_plans(
    problem: Problem, dtype: str, target: Target, threads: int, order: Order | None = None
) -> list[Plan]:
    """Return every candidate with its price; those with one order of sums, if it is given."""
    splits = _SPLITS if threads > 1 else (1,)
    return [
        priced(plan, cycles, problem, target, threads, (n,))
        for plan, blocks, cycles in _considered(problem, dtype, target)
        if order is None or plan.order == order
        for n in splits
        if n == 1 or n <= blocks
    ]


def best_plans(problem: Problem, dtype: str, target: Target, threads: int) -> list[Plan]:
    """Return the cheapest plan of every tile, algorithm and panel, the cheapest first.

    All sum in one order, that of the chosen plan.
    """
    found: dict[tuple[int, str, str], Plan] = {}
    plans, chosen = all_plans(problem, dtype, target, threads), None
    if len({plan.order for plan in plans}) > 1:
        chosen = choose_plan(problem, dtype, target, threads)
    if chosen is not None:
        plans = [plan for plan in plans if plan.order == chosen.order] or [chosen]
    for plan in plans:
        key = (plan.vectors, plan.algorithm, plan.panel)
        if key not in found or plan.cycles < found[key].cycles:
            found[key] = plan
    return sorted(found.values(), key=_cycles)


def _cycles(plan: Plan) -> float:
    return plan.cycles


@lru_cache(maxsize=32)
def _considered(problem: Problem, dtype: str, target: Target) -> list[Considered]:
    """Return the candidates of all algorithms, for any number of threads."""
    found: list[Considered] = []
    for candidates in _CANDIDATES:
        found += candidates(problem, dtype, target)
    return found
