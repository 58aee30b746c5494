"""WHICH PLAN IS CHOSEN: the cheapest of those whose items the caches hold and tiles fill.

It is chosen for the largest size of a band, and fitted to the size that is asked for.
"""

from collections.abc import Iterator, Sequence
from functools import lru_cache
from math import ceil, inf, prod
from typing import Any

import numpy as np

from tconv.arrays.dtypes import TYPES as NUMBERS
from tconv.engine.channel_lanes.candidates import TurnedCosts, channel_lanes_candidates
from tconv.engine.plan.cost_model import Considered, Costs, priced
from tconv.engine.plan.phases import Phases
from tconv.engine.plan.plan import DIRECT, TABLE_ENTRIES, Order, Part, Plan
from tconv.engine.plan.problem import Problem
from tconv.engine.plan.size_bands import band_of, octave_of, samples_of
from tconv.engine.target.target import Target
from tconv.engine.winograd.candidates import TiledCosts, winograd_candidates

__all__ = ["all_plans", "best_plans", "candidates", "choose_plan", "fitted", "lanes_of"]

_SPLITS, _MOST_CHANNELS = (1, 2, 4, 8), 64  # of a block
_MOST_SIZES = 5  # of items of one kind: the largest that fit
_LANES = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_MORE_LANES = (1536, 2048, 3072, 4096, 6144)  # of items that are spread
_LINE_BYTES = 2**18
_FEW_LANES, _FEWEST_LANES, _MOST_GATHERED_BYTES = 64, 16, 3 * 2**19  # the same of gathered items
_LARGEST_PANEL_BYTES = 2**25  # where not even the smallest item stays in the cache
_WIDE = 8  # vectors of a row, of which few lanes are in vain
_TILED_TYPES = ("float32",)  # more precise ones are asked for where the last digits count
_LEAST_FLOPS_PER_CYCLE, _SMALL_CYCLES = 0.2, 2_000_000
_MOST_CANDIDATES, _AS_GOOD = 12, 1.01  # of a band; and what is as good as the best


def choose_plan(problem: Problem, dtype: str, target: Target, threads: int) -> Plan | None:
    """Return the plan that the model finds cheapest; None if each is wasteful.

    So it is where a wide dilation makes the borders of every item larger than the item.
    """
    found = candidates(band_of(problem, lanes_of(dtype, target)), dtype, target, threads)
    return fitted(found, problem, dtype, target, threads)


@lru_cache(maxsize=1024)
def candidates(problem: Problem, dtype: str, target: Target, threads: int) -> tuple[Plan, ...]:
    """Return plans of which one is the best or as good for each size of a band.

    The largest sizes of the band are these. They are as few as there can be, mostly one, and if
    possible they read weights in the order of the best plan for the octave that the band is in, so
    that many sizes share packed weights. All sum in one order, that of the best for one thread: so
    it is for any.
    """
    plans = _cheapest(problem, dtype, target, threads)
    octave = octave_of(problem)
    usual = _cheapest(octave, dtype, target, threads) if octave != problem else plans
    if usual:  # where blocks are as large as fits, smaller ones may do
        block, packing = usual[0].block, usual[0].packing
        others = [plan._replace(block=block) for plan in plans if block < plan.block]
        plans = [*plans, *(plan for plan in others if plan.packing == packing)]
    good: list[set[int]] = []  # of each sample the plans that are as good as the best
    for sample in samples_of(problem, lanes_of(dtype, target)):
        prices = [plan.cycles for plan in _fits(plans, sample, dtype, target, threads)]
        most = min(prices, default=0.0) * _AS_GOOD
        good.append({n for n, price in enumerate(prices) if price <= most})
    found: list[Plan] = []
    while plans and good:
        counts = [sum(n in of_sample for of_sample in good) for n in range(len(plans))]
        usually = [bool(usual) and plan.packing == usual[0].packing for plan in plans]
        best = max(range(len(plans)), key=lambda n: (counts[n], usually[n], -n))
        found.append(plans[best])
        good = [of_sample for of_sample in good if best not in of_sample]
    return tuple(found)


@lru_cache(maxsize=64)
def _cheapest(problem: Problem, dtype: str, target: Target, threads: int) -> list[Plan]:
    """The cheapest plans of one order of sums, the cheapest first, without splits."""
    order, found = _order_of(problem, dtype, target), dict[Plan, None]()
    for plan in sorted(all_plans(problem, dtype, target, threads, order), key=_cycles):
        found[plan._replace(splits=1, threads=1, cycles=0.0)] = None
        if len(found) == _MOST_CANDIDATES:
            break
    return [*found]


@lru_cache(maxsize=64)
def _order_of(problem: Problem, dtype: str, target: Target) -> Order | None:
    """Return the order of sums that is best for one thread; the octave's if that is as good."""
    best: dict[Order, float] = {}
    for plan, _, (read, work, count) in _considered(problem, dtype, target):
        best[plan.order] = min((read + work) * count, best.get(plan.order, inf))
    octave = octave_of(problem)
    if len(best) > 1 and octave != problem:
        usual = _order_of(octave, dtype, target)
        if usual is not None and best.get(usual, inf) <= min(best.values()) * _AS_GOOD:
            return usual
    return min(best, key=best.__getitem__, default=None)


def fitted(
    found: tuple[Plan, ...], problem: Problem, dtype: str, target: Target, threads: int
) -> Plan | None:
    """Return the best of a band's candidates for one of its sizes; None if each is wasteful.

    One that comes first and is nearly as good as the best is taken, so that most sizes of a band
    share code and packed weights.
    """
    plans = _fits(found, problem, dtype, target, threads)
    if not plans:
        return None
    most = min(map(_cycles, plans)) * _AS_GOOD
    best = next(plan for plan in plans if plan.cycles <= most)
    flops = problem.geometry.flops
    return None if best.cycles > _SMALL_CYCLES + flops / _LEAST_FLOPS_PER_CYCLE else best


def _fits(
    plans: Sequence[Plan], problem: Problem, dtype: str, target: Target, threads: int
) -> list[Plan]:
    """The plans with their items fitted to these sizes, each with its price."""
    all_splits = _SPLITS if threads > 1 else (1,)
    costs, found = dict[tuple[bool, bool, tuple[int, int, int]], Any](), []
    for plan in plans:
        kind = (plan.is_turned, plan.is_uncropped, plan.outputs)
        if kind not in costs:
            costs[kind] = _costs_of(plan, problem, dtype, target)
        plan = plan if plan.is_turned else _fit(plan, costs[kind], target)
        blocks = 1 if plan.is_turned else ceil(problem.outputs / plan.block)
        cycles = costs[kind].of(plan)
        splits = [n for n in all_splits if n == 1 or n <= blocks]
        found.append(min([priced(plan, cycles, threads, n) for n in splits], key=_cycles))
    return found


def _costs_of(plan: Plan, problem: Problem, dtype: str, target: Target) -> Any:
    if plan.is_turned:
        return TurnedCosts(problem, dtype, target)
    if plan.is_tiled:
        return TiledCosts.of_plan(plan, problem, dtype, target)
    return Costs(problem, dtype, target, problem.phases(plan.is_uncropped))


def _fit(plan: Plan, costs: Costs, target: Target) -> Plan:
    """The plan with items of about the same size, but parts of an axis that are nearly equal."""
    (z, y, x), phases = costs.phases.axes, costs.phases
    step = 1 if plan.is_spread else costs.lanes
    step *= 2 if plan.is_gathered and not plan.is_tiled else 1
    columns = x.count
    if plan.columns < columns:
        columns = ceil(ceil(columns / ceil(columns / plan.columns)) / step) * step
        columns = min(columns, x.count)
    all_rows = costs.batch * z.count * y.count if plan.is_gathered else y.count
    rows, planes = _even(all_rows, plan.rows), _even(z.count, plan.planes)
    if plan.is_spread:
        _, cells = phases.pieces(planes, rows, columns)
    elif plan.is_gathered:
        planes, cells = plan.planes, rows * columns
    else:
        planes, cells = plan.planes, (rows - 1) * x.pitch(columns) + columns
    vectors = max(1, ceil(cells / costs.lanes))  # a wide crop or border leaves items without cells
    most = dict(target.isa.gemm_tiles)[plan.tile]
    vectors = ceil(vectors / ceil(vectors / most))
    return plan._replace(planes=planes, rows=rows, columns=columns, vectors=vectors)


def _even(count: int, most: int) -> int:
    """The size of nearly equal parts, of at most so many."""
    return ceil(count / ceil(count / most))


def lanes_of(dtype: str, target: Target) -> int:
    """Numbers of a vector, as sums are made."""
    return target.vector_bits // 8 // np.dtype(NUMBERS[dtype].accumulator).itemsize


def all_plans(
    problem: Problem, dtype: str, target: Target, threads: int, order: Order | None = None
) -> list[Plan]:
    """Return every plan worth considering, with its price; of one order, if that is given."""
    splits = _SPLITS if threads > 1 else (1,)
    return [
        priced(plan, cycles, threads, n)
        for plan, blocks, cycles in _considered(problem, dtype, target)
        if order is None or plan.order == order
        for n in splits
        if n == 1 or n <= blocks
    ]


def best_plans(problem: Problem, dtype: str, target: Target, threads: int) -> list[Plan]:
    """Return the cheapest plan of every tile and kind of panel, the cheapest first.

    All sum in one order, that of the plan that is chosen.
    """
    found: dict[tuple[int, bool, bool, bool], Plan] = {}
    plans, chosen = all_plans(problem, dtype, target, threads), None
    if len({plan.order for plan in plans}) > 1:
        chosen = choose_plan(problem, dtype, target, threads)
    if chosen is not None:
        plans = [plan for plan in plans if plan.order == chosen.order] or [chosen]
    for plan in plans:
        key = (plan.vectors, plan.is_gathered, plan.is_spread, plan.is_turned)
        if key not in found or plan.cycles < found[key].cycles:
            found[key] = plan
    return sorted(found.values(), key=_cycles)


def _cycles(plan: Plan) -> float:
    return plan.cycles


@lru_cache(maxsize=32)
def _considered(problem: Problem, dtype: str, target: Target) -> list[Considered]:
    """Return the plans for any number of threads."""
    cropped, uncropped = problem.phases(), problem.phases(is_uncropped=True)
    found = _candidates(problem, dtype, target, cropped, is_uncropped=False)
    if len(uncropped.alike) < len(cropped.alike):
        found += _candidates(problem, dtype, target, uncropped, is_uncropped=True)
    if dtype in _TILED_TYPES and not problem.is_direct:
        found += winograd_candidates(problem, dtype, target)
    found += channel_lanes_candidates(problem, dtype, target)
    return found


def _candidates(
    problem: Problem, dtype: str, target: Target, phases: Phases, *, is_uncropped: bool
) -> list[Considered]:
    """Return those that count phases in one way."""
    costs, part = Costs(problem, dtype, target, phases), Part.of(problem)
    can_spread = part.by_tap or all(a.taps_per_phase[1] <= 1 for a in problem.geometry.axes)
    can_spread = can_spread and problem.want == "y" and not is_uncropped
    items = list(_summed(costs))
    if can_spread:
        items += _spread(costs)
    found, blocks = [], dict[tuple[int, bool], list[int]]()
    for is_gathered, is_spread, (planes, rows, columns), vectors_in_all, line_bytes in items:
        most_bytes = max(_LINE_BYTES, target.l2_bytes // 4) if is_spread else _LINE_BYTES
        counts = [costs.taps] if is_spread else [rows for rows, *_ in costs.kinds]
        for tile, most in target.isa.gemm_tiles:
            if most > 1 and most > vectors_in_all:
                continue
            vectors = ceil(vectors_in_all / ceil(vectors_in_all / most))
            if (tile, is_spread) not in blocks:
                blocks[tile, is_spread] = _blocks(tile, counts, costs.outputs)
            of_tile = blocks[tile, is_spread]
            block = of_tile[min(len(of_tile), max(1, most_bytes // line_bytes)) - 1]
            plan = Plan(
                tile, vectors, is_uncropped, is_gathered, is_spread, DIRECT, planes, rows,
                columns, block, 1, part, 1, 0.0,
            )  # fmt: skip
            found.append((plan, ceil(costs.outputs / block), costs.of(plan)))
    return found


_Item = tuple[bool, bool, tuple[int, int, int], int, int]
"""Whether gathered and spread; planes, rows, columns; vectors; bytes of lines of a channel of y."""


def _summed(costs: Costs) -> Iterator[_Item]:
    """Items with a panel, flat and gathered, whose panel and table are not too large."""
    phases, (z, y, x), lanes_of = costs.phases, costs.phases.axes, costs.lanes
    panel_bytes, per_cell = costs.target.l2_bytes * 0.7, costs.channels * costs.bytes
    seen: set[tuple[int, int]] = set()
    for lanes in reversed(_LANES):
        if len(seen) == _MOST_SIZES:
            break
        parts = ceil(x.count / lanes)
        columns = min(x.count, ceil(x.count / parts / lanes_of) * lanes_of)
        pitch = x.pitch(columns)
        rows = min(y.count, max(1, lanes // pitch))
        rows = ceil(y.count / ceil(y.count / rows))
        if (rows, columns) in seen:
            continue
        cells = (rows + y.high - y.low) * (1 + z.high - z.low) * pitch * phases.lattices
        vectors = ceil(((rows - 1) * pitch + columns) / lanes_of)
        line_bytes = phases.count * vectors * lanes_of * costs.bytes
        fits = cells * per_cell <= panel_bytes and line_bytes <= 4 * _LINE_BYTES
        is_last = lanes == _LANES[0] and not seen and cells * per_cell <= _LARGEST_PANEL_BYTES
        if fits or is_last:
            seen.add((rows, columns))
            yield False, False, (1, rows, columns), vectors, line_bytes
    all_rows = costs.batch * z.count * y.count
    if all_rows * x.count * costs.shifts > TABLE_ENTRIES:
        return
    panel_bytes, seen = costs.target.l2_bytes * 0.75, set()
    for lanes in reversed((_FEWEST_LANES, *_LANES)):
        if len(seen) == _MOST_SIZES:
            break
        rows = min(all_rows, max(1, lanes // x.count))
        rows = ceil(all_rows / ceil(all_rows / rows))
        columns = ceil(x.count / ceil(x.count / lanes) / (2 * lanes_of)) * 2 * lanes_of
        columns = min(x.count, columns)
        vectors = ceil(rows * columns / lanes_of)
        line_bytes = phases.count * vectors * lanes_of * costs.bytes
        cells = rows * columns * costs.shifts
        is_last = lanes <= _FEW_LANES and not seen and cells * per_cell <= _MOST_GATHERED_BYTES
        fits = cells * per_cell <= panel_bytes or is_last
        if fits and line_bytes <= 4 * _LINE_BYTES and (rows, columns) not in seen:
            seen.add((rows, columns))
            yield True, False, (1, rows, columns), vectors, line_bytes


def _spread(costs: Costs) -> Iterator[_Item]:
    """Items whose cells of x are few pieces, and not too many."""
    phases, target = costs.phases, costs.target
    per_cell = costs.channels * costs.bytes
    seen: set[tuple[int, int, int]] = set()
    for lanes in reversed((*_LANES, *_MORE_LANES)):
        if len(seen) == _MOST_SIZES:
            break
        item = _spread_item(phases, lanes)
        pieces, cells = phases.pieces(*item)
        vectors = ceil(cells / costs.lanes)
        product_bytes = costs.taps * pieces * vectors * costs.lanes * costs.bytes
        fits = pieces * cells * per_cell <= target.l2_bytes * 0.6
        fits = fits and product_bytes <= target.l2_bytes // 4
        is_last = lanes == _LANES[0] and not seen
        fits = fits or (is_last and pieces * cells * per_cell <= _LARGEST_PANEL_BYTES)
        if fits and item not in seen:
            seen.add(item)
            line_bytes = max(product_bytes, phases.count * prod(item) * costs.bytes)
            yield False, True, item, vectors, line_bytes


def _spread_item(phases: Phases, lanes: int) -> tuple[int, int, int]:
    """Planes, rows and columns of an item of about so many lanes."""
    z, y, x = phases.axes
    if y.count == z.count == 1 and y.input == z.input == 1:
        return 1, 1, ceil(x.count / ceil(x.count / lanes))
    many, planes = max(1, lanes // x.count), 1
    if z.high > z.low:  # about as deep as high, so that few cells are read twice
        deep = max(round(many**0.5), ceil(many / y.count)) if y.high > y.low else many
        planes = ceil(z.count / ceil(z.count / min(z.count, deep)))
    rows = min(y.count, max(1, many // planes))
    rows = ceil(y.count / ceil(y.count / rows))
    if rows == y.count:
        planes = min(z.count, max(1, many // rows))
        planes = ceil(z.count / ceil(z.count / planes))
    return planes, rows, x.count


def _blocks(tile: int, counts: list[int], outputs: int) -> list[int]:
    """For up to 1, 2, 3 ... channels of y how many a block has whose rows fill the tiles best.

    A channel has so many rows of each kind as `counts` says.
    """
    best, block, found = 0.0, 1, []
    for channels in range(1, min(outputs, _MOST_CHANNELS) + 1):
        rows = [count * channels for count in counts]
        filled = sum(rows) / sum([-(-n // tile) * tile for n in rows])
        filled *= outputs / (-(-outputs // channels) * channels)
        if filled > best + 0.02:
            best, block = filled, channels
        found.append(block)
    return found
