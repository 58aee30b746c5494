"""Candidate plans for the direct, im2col and col2im algorithms."""

from collections.abc import Iterator
from math import ceil, prod
from typing import NamedTuple

from tconv.engine.plan.cost_model import Considered, Costs
from tconv.engine.plan.phases import Phases
from tconv.engine.plan.plan import TABLE_ENTRIES, KBlock, Plan, even_size
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import Target

__all__ = ["candidates"]

_MOST_CHANNELS = 64  # of a block
_MOST_SIZES = 5  # of tasks of one algorithm: the largest that fit
_LANES = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_MORE_LANES = (1536, 2048, 3072, 4096, 6144)  # of col2im
_ACC_BYTES = 2**18  # of accumulator rows
_FEW_LANES, _FEWEST_LANES, _MOST_IM2COL_BYTES = 64, 16, 3 * 2**19  # of im2col
_LARGEST_PANEL_BYTES = 2**25  # where not even the smallest task stays in the cache


class _Task(NamedTuple):
    """What a task covers, before tiles and blocks are chosen."""

    algorithm: str
    size: tuple[int, int, int]  # planes, rows, columns
    vectors: int
    acc_bytes: int  # of the accumulator rows of one output channel


_PANELS = {"direct": "padded", "im2col": "im2col", "col2im": "none"}


def candidates(problem: Problem, dtype: str, target: Target) -> list[Considered]:
    """Return plans for one thread with the algorithms that compute every product.

    Phases are counted in two ways: as y is cropped, and uncropped if fewer phase groups come of it.
    """
    cropped, uncropped = problem.phases(), problem.phases(is_uncropped=True)
    found = _candidates(problem, dtype, target, cropped, is_uncropped=False)
    if len(uncropped.groups) < len(cropped.groups):
        found += _candidates(problem, dtype, target, uncropped, is_uncropped=True)
    return found


def _candidates(
    problem: Problem, dtype: str, target: Target, phases: Phases, *, is_uncropped: bool
) -> list[Considered]:
    """Return the plans that count phases in one way."""
    costs, k_block = Costs(problem, dtype, target, phases), KBlock.of(problem)
    # col2im adds tap by tap, which must not change the order of sums.
    has_order = k_block.per_tap or all(a.taps_per_phase[1] <= 1 for a in problem.geometry.axes)
    tasks = [*_padded_tasks(costs), *_im2col_tasks(costs)]
    if has_order and problem.want == "y" and not is_uncropped:
        tasks += _col2im_tasks(costs)
    found, blocks = [], dict[tuple[int, bool], list[int]]()
    for task in tasks:
        is_col2im, (planes, rows, columns) = task.algorithm == "col2im", task.size
        most_bytes = max(_ACC_BYTES, target.l2_bytes // 4) if is_col2im else _ACC_BYTES
        counts = [costs.taps] if is_col2im else [rows for rows, *_ in costs.kinds]
        for tile, most in target.isa.gemm_tiles:
            if most > 1 and most > task.vectors:
                continue
            if (tile, is_col2im) not in blocks:
                blocks[tile, is_col2im] = _blocks(tile, counts, costs.outputs)
            of_tile = blocks[tile, is_col2im]
            block = of_tile[min(len(of_tile), max(1, most_bytes // task.acc_bytes)) - 1]
            plan = Plan(
                tile=tile,
                vectors=even_size(task.vectors, most),
                is_uncropped=is_uncropped,
                algorithm=task.algorithm,
                panel=_PANELS[task.algorithm],
                planes=planes,
                rows=rows,
                columns=columns,
                block=block,
                k_block=k_block,
            )
            found.append((plan, ceil(costs.outputs / block), costs.of(plan)))
    return found


def _padded_tasks(costs: Costs) -> Iterator[_Task]:
    """Tasks of the direct algorithm whose padded panel is not too large."""
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
        rows = even_size(y.count, rows)
        if (rows, columns) in seen:
            continue
        cells = (rows + y.high - y.low) * (1 + z.high - z.low) * pitch * phases.residue_classes
        vectors = ceil(((rows - 1) * pitch + columns) / lanes_of)
        acc_bytes = phases.count * vectors * lanes_of * costs.bytes
        fits = cells * per_cell <= panel_bytes and acc_bytes <= 4 * _ACC_BYTES
        is_last = lanes == _LANES[0] and not seen and cells * per_cell <= _LARGEST_PANEL_BYTES
        if fits or is_last:
            seen.add((rows, columns))
            yield _Task("direct", (1, rows, columns), vectors, acc_bytes)


def _im2col_tasks(costs: Costs) -> Iterator[_Task]:
    """Tasks of the im2col algorithm whose panel and table are not too large."""
    phases, (z, y, x), lanes_of = costs.phases, costs.phases.axes, costs.lanes
    all_rows = costs.batch * z.count * y.count
    if all_rows * x.count * costs.shifts > TABLE_ENTRIES:
        return
    panel_bytes, per_cell = costs.target.l2_bytes * 0.75, costs.channels * costs.bytes
    seen: set[tuple[int, int]] = set()
    for lanes in reversed((_FEWEST_LANES, *_LANES)):
        if len(seen) == _MOST_SIZES:
            break
        rows = min(all_rows, max(1, lanes // x.count))
        rows = even_size(all_rows, rows)
        columns = ceil(x.count / ceil(x.count / lanes) / (2 * lanes_of)) * 2 * lanes_of
        columns = min(x.count, columns)
        vectors = ceil(rows * columns / lanes_of)
        acc_bytes = phases.count * vectors * lanes_of * costs.bytes
        cells = rows * columns * costs.shifts
        is_last = lanes <= _FEW_LANES and not seen and cells * per_cell <= _MOST_IM2COL_BYTES
        fits = cells * per_cell <= panel_bytes or is_last
        if fits and acc_bytes <= 4 * _ACC_BYTES and (rows, columns) not in seen:
            seen.add((rows, columns))
            yield _Task("im2col", (1, rows, columns), vectors, acc_bytes)


def _col2im_tasks(costs: Costs) -> Iterator[_Task]:
    """Tasks of the col2im algorithm whose cells of x are few pieces, and not too many."""
    phases, target = costs.phases, costs.target
    per_cell = costs.channels * costs.bytes
    seen: set[tuple[int, int, int]] = set()
    for lanes in reversed((*_LANES, *_MORE_LANES)):
        if len(seen) == _MOST_SIZES:
            break
        size = _col2im_size(phases, lanes)
        pieces, cells = phases.pieces(*size)
        vectors = ceil(cells / costs.lanes)
        product_bytes = costs.taps * pieces * vectors * costs.lanes * costs.bytes
        fits = pieces * cells * per_cell <= target.l2_bytes * 0.6
        fits = fits and product_bytes <= target.l2_bytes // 4
        is_last = lanes == _LANES[0] and not seen
        fits = fits or (is_last and pieces * cells * per_cell <= _LARGEST_PANEL_BYTES)
        if fits and size not in seen:
            seen.add(size)
            acc_bytes = max(product_bytes, phases.count * prod(size) * costs.bytes)
            yield _Task("col2im", size, vectors, acc_bytes)


def _col2im_size(phases: Phases, lanes: int) -> tuple[int, int, int]:
    """Planes, rows and columns of a task of about so many lanes."""
    z, y, x = phases.axes
    if y.count == z.count == 1 and y.input == z.input == 1:
        return 1, 1, even_size(x.count, lanes)
    many, planes = max(1, lanes // x.count), 1
    if z.high > z.low:  # about as deep as high, so that few cells are read twice
        deep = max(round(many**0.5), ceil(many / y.count)) if y.high > y.low else many
        planes = even_size(z.count, deep)
    rows = min(y.count, max(1, many // planes))
    rows = even_size(y.count, rows)
    if rows == y.count:
        planes = even_size(z.count, many // rows)
    return planes, rows, x.count


def _blocks(tile: int, counts: list[int], outputs: int) -> list[int]:
    """For up to 1, 2, 3 ... output channels: the size of block whose rows fill the tiles best.

    A channel has as many rows of each phase group as `counts` says.
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
