"""Elementwise loops: merged axes are the same elements, and tasks cover each of them once."""

from math import ceil, prod

import numpy as np
import pytest
from engine.program.loop_calls import (
    CANARY,
    CPU,
    HERE,
    LANES,
    applied,
    expression_of,
    framed,
    instructed,
    output,
    run_loop,
)
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws, integers_like
from tconv.engine.program.loops import Expression, LoopShape, merge_axes

COPY = Expression(1, (), (0,))
NEGATE = expression_of("neg", 1)
each_target = pytest.mark.parametrize("here", HERE, ids=lambda here: here.cpu)


# ---- axes ----------------------------------------------------------------------------------------


@st.composite
def strided(draw, most=5):
    """Sizes of axes, and strides of operands: contiguous, broadcast, sliced, turned or any."""
    sizes = draw(st.lists(st.sampled_from([1, 1, 2, 3, 4]), min_size=1, max_size=most))
    strides = []
    for _ in range(draw(st.integers(1, 4))):
        steps, step = [], draw(st.sampled_from([1, 1, 1, 2, -1]))
        for size in reversed(sizes):
            kind = draw(st.sampled_from(["on", "on", "on", "broadcast", "apart", "any"]))
            chosen = {"on": step, "broadcast": 0, "apart": step + 3}.get(kind)
            steps.append(draw(st.integers(-7, 7)) if chosen is None else chosen)
            step *= size
        strides.append(tuple(reversed(steps)))
    return tuple(sizes), strides


def places(sizes, strides):
    """Where each element of each operand lies, in the order of the loop."""
    indices = np.indices(sizes).reshape(len(sizes), -1)
    return np.array([np.array(steps) @ indices for steps in strides])


@draws(10)
@given(strided(), st.integers(1, 3))
def test_merged_axes_are_the_same_elements_in_the_same_order(loop, repeats):
    sizes, strides = loop
    axes = merge_axes(sizes, strides, repeats)
    assert np.array_equal(places(axes.sizes, axes.strides), places(sizes, strides))
    assert len(axes.sizes) <= len(sizes)
    if repeats > 1:
        assert axes.sizes[-1] == sizes[-1]
        if sizes[-1] > 1:
            assert [steps[-1] for steps in axes.strides] == [steps[-1] for steps in strides]


@draws(5)
@given(strided())
def test_no_two_axes_are_left_that_could_be_one(loop):
    sizes, strides = loop
    axes = merge_axes(sizes, strides)
    assert prod(axes.sizes) == prod(sizes)
    for outer in range(len(axes.sizes) - 1):
        inner = outer + 1
        runs_on = [steps[outer] == axes.sizes[inner] * steps[inner] for steps in axes.strides]
        assert not all(runs_on)


@given(st.lists(st.integers(1, 9), min_size=1, max_size=6))
def test_contiguous_operands_have_one_axis(sizes):
    steps = tuple(prod(sizes[n + 1 :]) for n in range(len(sizes)))
    size = prod(sizes)
    assert merge_axes(sizes, [steps, steps]) == ((size,), ((1,), (1,)))


# ---- tasks ---------------------------------------------------------------------------------------


def tasks_of(made):
    """First and last row, first and last column of every task, as the kernel finds them."""
    tasks, rows, row_block, columns, column_block, column_blocks = made.words[:6]
    assert tasks == made.tasks
    for task in range(tasks):
        row, column = task // column_blocks * row_block, task % column_blocks * column_block
        yield row, min(rows, row + row_block), column, min(columns, column + column_block)


SIZES = st.integers(1, 40) | st.sampled_from([255, 2047, 2048, 4095, 4096, 8192, 8193, 24001])


@draws(5)
@given(st.lists(SIZES, min_size=1, max_size=3), st.integers(1, 9))
def test_tasks_cover_each_element_once(sizes, threads):
    while prod(sizes) > 2**19:
        sizes = [max(1, sizes[0] // 2), *sizes[1:]] if sizes[0] > 1 else sizes[1:]
    apart = [(2 * prod(sizes[n + 1 :]) if n + 1 < len(sizes) else 1) for n in range(len(sizes))]
    made = LoopShape.of(merge_axes(sizes, [apart]), threads, [1])
    rows, columns = made.words[1], made.words[3]
    assert rows * columns == prod(sizes)
    times = np.zeros((rows, columns), np.int8)
    for first, last, start, end in tasks_of(made):
        assert first < last
        assert start < end
        times[first:last, start:end] += 1
    assert (times == 1).all()


@given(st.integers(1, 10**6), st.integers(1, 10**6), st.integers(1, 64))
def test_there_are_some_tasks_for_each_thread_and_none_is_tiny(rows, columns, threads):
    axes = merge_axes((rows, columns), [(2 * columns, 1)])
    made = LoopShape.of(axes, threads, [1])
    elements = rows * columns
    assert 1 <= made.tasks <= max(1, min(ceil(elements / 2**13), 64 * threads))
    if elements >= 2**20 and columns >= 2**12:
        assert made.tasks >= threads  # else some would have nothing to do


def test_one_kernel_serves_all_sizes():
    found = {
        (made.reads, made.outer)
        for shape in [(3, 5), (30, 7), (300, 5000)]
        for made in [LoopShape.of(merge_axes(shape, [(1, 0), (shape[1], 1)]), 2, [1, 1])]
    }
    assert found == {(("one", "row"), 1)}


# ---- ways of reading -----------------------------------------------------------------------------

WAYS = ["one", "row", "pairs", "any 3", "any -1", "any -2", "any 17"]
WAYS += [f"each {times}" for times in (2, 3, 4, 5, 8, 16, 33)]


def operand_read(way, rows, columns):
    """An operand amid NaN that is read in this way, how often, and what is read."""
    kind, _, number = way.partition(" ")
    step = {"one": 0, "row": 1, "pairs": 2}.get(kind, int(number or 1))
    if kind == "each":
        x = integers_like((rows, ceil(columns / step)), "float32", columns, 99)
        _, part = framed(x.shape, 40, np.nan)
        part[...] = x
        return part, step, np.repeat(x, step, -1)[:, :columns]
    width = max(1, abs(step) * (columns - 1) + 1)
    _, part = framed((rows, width), 40, np.nan)
    x = part[:, :: step or 1]
    x[...] = integers_like(x.shape, "float32", columns, 99)
    return x, 1, np.broadcast_to(x, (rows, columns))


@each_target
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_reading_with_every_tail(way, here):
    for columns in range(1, 2 * LANES[here] + 2):
        x, times, expected = operand_read(way, 3, columns)
        whole, y = output((3, columns))
        made = run_loop(NEGATE, [x], [y], here=here, repeats=[times])
        if columns > 1:
            assert made.reads == (way if way.startswith("each") else way.split()[0], "row")
        assert np.array_equal(y, -expected), columns
        y[...] = CANARY
        assert (whole == CANARY).all(), columns


@each_target
@pytest.mark.parametrize("way", WAYS)
def test_every_way_of_reading_in_tasks_of_some_columns(way, here):
    """Tasks begin in the midst of rows, of any sizes."""
    for columns in (4096, 20001, 24001):
        x, times, expected = operand_read(way, 2, columns)
        y = np.full((2, columns), CANARY)
        made = run_loop(NEGATE, [x], [y], here=here, threads=2, repeats=[times])
        assert made.words[5] > 1 or columns == 4096  # blocks of columns
        assert np.array_equal(y, -expected), columns


def test_operands_are_read_in_ways_of_their_own():
    """All of them in one loop."""
    kinds = ["one", "row", "pairs", "any 3", "any -2", "each 4", "each 3"]
    instructions = tuple(("add", (len(kinds) + n - 1 if n else 0, n + 1)) for n in range(6))
    expression = Expression(len(kinds), instructions, (len(kinds) + len(instructions) - 1,))
    for columns in (1, 5, 31, 32, 33, 100):
        found = [operand_read(way, 3, columns) for way in kinds]
        y = np.full((3, columns), CANARY)
        times = [each for _, each, _ in found]
        run_loop(expression, [x for x, _, _ in found], [y], repeats=times)
        assert np.array_equal(y, sum(expected for _, _, expected in found))


# ---- outer axes ----------------------------------------------------------------------------------


@st.composite
def views(draw, shape):
    """An array of integers that broadcasts to a shape: sliced, turned, transposed, with axes of
    one index, or without the first axes."""
    rank = len(shape)
    kept = shape[draw(st.integers(0, rank)) :] if draw(st.booleans()) else shape
    sizes = [1 if draw(st.integers(0, 3)) == 0 else size for size in kept]
    steps = [draw(st.sampled_from([1, 1, 1, 2, 3, -1, -2])) for _ in sizes]
    order = draw(st.permutations(range(len(sizes)))) if draw(st.booleans()) else range(len(sizes))
    order = list(order)
    in_memory = [sizes[axis] * abs(steps[axis]) for axis in order]
    memory = integers_like(in_memory, "float32", draw(st.integers(0, 99)), 50)
    back = [order.index(axis) for axis in range(len(sizes))]
    return memory.transpose(back)[(..., *(slice(None, None, step) for step in steps))]


@draws(3)
@given(st.lists(st.integers(1, 6), min_size=1, max_size=6), st.data())
def test_operands_of_any_strides_on_many_axes(sizes, data):
    a, b = data.draw(views(tuple(sizes))), data.draw(views(tuple(sizes)))
    whole, y = output(sizes)
    run_loop(expression_of("sub", 2), [a, b], [y], threads=data.draw(st.integers(1, 3)))
    assert np.array_equal(y, np.broadcast_to(a, sizes) - np.broadcast_to(b, sizes))
    y[...] = CANARY
    assert (whole == CANARY).all()


@pytest.mark.parametrize("outer", range(7))
def test_each_number_of_outer_axes(outer):
    """No two of them run on from one to the next."""
    memory = integers_like((4,) * outer + (7,), "float32", outer, 99)
    x = memory[(slice(None, None, 2),) * outer]
    y = np.full(x.shape, CANARY)
    made = run_loop(COPY, [x], [y])
    assert made.outer == outer
    assert np.array_equal(y, x)


@each_target
@pytest.mark.parametrize("shape", [(40, 3, 1000), (1000, 2, 37), (20000, 3), (3, 30000), (70000,)])
def test_many_tasks_on_several_threads(shape, here):
    """Several hundred thousand elements, and a bias for each channel."""
    x = integers_like(shape, "float32", 1)
    bias = integers_like((shape[-2], 1) if len(shape) > 1 else (1,), "float32", 2)
    for threads in (1, 2, 3):
        y = np.full(shape, CANARY)
        made = run_loop(expression_of("add", 2), [x, bias], [y], threads=threads, here=here)
        assert made.tasks > 3
        assert np.array_equal(y, x + bias)


# ---- outputs -------------------------------------------------------------------------------------


@pytest.mark.parametrize("columns", [1, 2, 3, 15, 16, 17, 40])
@pytest.mark.parametrize("rows", [1, 4])
def test_an_output_is_part_of_a_larger_array(rows, columns):
    """As what a concatenation joins is written where it will lie; nothing beside it changes."""
    x = integers_like((2, rows, columns), "float32", columns)
    whole, y = framed(x.shape, 3, CANARY)
    run_loop(NEGATE, [x], [y])
    assert np.array_equal(y, -x)
    y[...] = CANARY
    assert (whole == CANARY).all()


@each_target
@pytest.mark.parametrize("columns", [1, 7, 33, 20001])
def test_several_outputs(columns, here):
    """Values, operands and what two of them have in common, in any order."""
    a, b = (integers_like((3, columns), "float32", n) for n in range(2))
    instructions = ("add", (0, 1)), ("mul", (2, 1)), ("neg", (3,))
    expression = instructed(*instructions, operands=2, stored=(4, 0, 2, 3))
    wholes, outputs = zip(*(output((3, columns)) for _ in range(4)), strict=True)
    run_loop(expression, [a, b], outputs, here=here, threads=2)
    for found, expected in zip(outputs, [-(a + b) * b, a, a + b, (a + b) * b], strict=True):
        assert np.array_equal(found, expected)
        found[...] = CANARY
    assert all((whole == CANARY).all() for whole in wholes)


def test_an_output_of_other_strides_than_its_operands():
    x = integers_like((5, 6, 40), "float32")
    whole, y = framed((6, 5, 40), 2, CANARY)
    run_loop(NEGATE, [x.transpose(1, 0, 2)], [y], threads=2)
    assert np.array_equal(y, -x.transpose(1, 0, 2))
    y[...] = CANARY
    assert (whole == CANARY).all()


@each_target
@pytest.mark.parametrize("columns", [1, 5, 16, 100, 20001])
def test_an_operand_may_be_written_over(columns, here):
    """Where it is read as it lies: no element is needed once its own result is there."""
    x = integers_like((2, columns), "float32")
    y = x.copy()
    run_loop(expression_of("mul", 2), [y, y], [y], threads=2, here=here)
    assert np.array_equal(y, x * x)


def test_outputs_are_the_same_bits_for_any_number_of_threads():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((30, 7, 1000)).astype("float32")
    expression = instructed(("exp", (0,)), ("tanh", (1,)), ("div", (2, 0)), operands=1)
    assert len({applied(expression, x, threads=n, here=CPU).tobytes() for n in (1, 2, 3, 7)}) == 1
