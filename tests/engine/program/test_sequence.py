"""Sequences: every step after those before its stage, each task once, on any threads at once."""

import gc
import os
import threading
import weakref
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from engine.program.loop_calls import CPU, expression_of, instructed
from engine.program.sequence_steps import chain, loop_step, run, runner_of
from hypothesis import given
from hypothesis import strategies as st

from slow import mostly_slow
from strategies import draws, integers_like
from tconv.engine.program.loops import Expression
from tconv.engine.program.sequence import BLOCK, Arenas, NativeStep, SequenceRunner
from tconv.engine.runtime import thread_pool

COPY = Expression(1, (), (0,))
ADD = expression_of("add", 2)
ONE = np.ones(1, np.float32)
THREADS = [1, 2, 3, 4]


def increments(steps, size, ends_stage=True):
    """Steps that add 1 in place to all of the block, which the first copies and the last reads."""
    first = loop_step(COPY, [(0, 0)], [(BLOCK, 0)], size)
    last = loop_step(COPY, [(BLOCK, 0)], [(1, 0)], size)
    return [first, *[loop_step(ADD, [(BLOCK, 0), ONE], [(BLOCK, 0)], size)] * steps, last]


# ---- order ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", THREADS)
def test_a_chain_of_tiny_steps_is_computed_in_order(threads):
    """Of one task each, whichever thread takes it."""
    runner = runner_of(chain(200, 5), 10, threads)
    for n in range(2000):
        x = np.arange(5, dtype=np.float32) + n
        (y,) = run(runner, [x], [5])
        assert np.array_equal(y, x - 25)


@pytest.mark.parametrize("threads", THREADS)
def test_a_chain_of_steps_of_many_tasks_is_computed_in_order(threads):
    size = 40_000
    runner = runner_of(chain(40, size), 2 * size, threads)
    for n in range(100):
        x = integers_like((size,), "float32", n, 1000)
        (y,) = run(runner, [x], [size])
        assert np.array_equal(y, x - 5)


@pytest.mark.parametrize("threads", THREADS)
def test_every_task_runs_once(threads):
    """What is added twice, or by a thread that is late, would show."""
    size = 70_000
    runner = runner_of(increments(10, size), size, threads)
    for n in range(100):
        x = np.full(size, n, np.float32)
        (y,) = run(runner, [x], [size])
        assert (y == n + 10).all()


@pytest.mark.parametrize("threads", THREADS)
def test_a_stage_waits_for_the_longest_of_its_steps(threads):
    """One long step beside 30 short ones, first or last; the next stage reads all of them."""
    size, count = 60_000, 30
    long = loop_step(expression_of("square", 1), [(0, 0)], [(BLOCK, 0)], size, ends_stage=False)
    short = [
        loop_step(ADD, [(0, n), ONE], [(BLOCK, size + n)], 1, ends_stage=False)
        for n in range(count)
    ]
    stages = [
        [*short, long._replace(ends_stage=True)],
        [long, *short[:-1], short[-1]._replace(ends_stage=True)],
    ]
    sum_long = loop_step(ADD, [(BLOCK, size - 30), (BLOCK, size)], [(1, 0)], count)
    for stage in stages:
        runner = runner_of([*stage, sum_long], size + count, threads)
        for n in range(150):
            x = integers_like((size,), "float32", n, 100)
            (y,) = run(runner, [x], [count])
            assert np.array_equal(y, x[-30:] ** 2 + x[:30] + 1)


@draws(1)
@given(
    st.lists(st.lists(st.sampled_from([1, 5, 300, 20_000]), min_size=1, max_size=6), max_size=8),
    st.integers(1, 4),
)
def test_random_stages(stages, threads):
    """Each stage adds 1 to some parts of the block, in place, and to all of it before the next."""
    size, steps = 20_000, [loop_step(COPY, [(0, 0)], [(BLOCK, 0)], 20_000)]
    expected = x = integers_like((size,), "float32")
    for stage in stages:
        place, expected = 0, expected.copy()
        parts = []
        for part in stage:
            part = min(part, size - place)
            if part:
                parts.append((place, part))
                place += part
        for n, (place, part) in enumerate(parts):
            at, is_last = (BLOCK, place), n + 1 == len(parts)
            steps.append(loop_step(ADD, [at, ONE], [at], part, ends_stage=is_last))
            expected[place : place + part] += 1
        steps.append(loop_step(ADD, [(BLOCK, 0)] * 2, [(BLOCK, 0)], size))
        expected = expected * 2
    steps.append(loop_step(COPY, [(BLOCK, 0)], [(1, 0)], size))
    runner = runner_of(steps, size, threads)
    for _ in range(5):
        assert np.array_equal(run(runner, [x], [size])[0], expected)


def test_thousands_of_tiny_steps_side_by_side():
    """In one stage, of one element each."""
    count = 3000
    steps = [loop_step(ADD, [(0, n), ONE], [(1, n)], 1, ends_stage=False) for n in range(count)]
    runner = runner_of(steps, 1, 3)
    x = integers_like((count,), "float32")
    for _ in range(100):
        assert np.array_equal(run(runner, [x], [count])[0], x + 1)


def test_a_sequence_without_steps_does_nothing():
    x = np.arange(5, dtype=np.float32)
    for threads in (1, 3):
        SequenceRunner([], 0, threads, CPU).run([x])
    assert np.array_equal(x, np.arange(5))


@pytest.mark.parametrize("threads", [1, 3])
def test_a_step_without_tasks_is_passed(threads):
    nothing = loop_step(COPY, [(0, 0)], [(BLOCK, 0)], 5)
    words = nothing.words()
    words[3] = 0  # after the counter and two addresses: the number of tasks
    steps = chain(8, 5)
    runner = runner_of([*steps[:3], nothing, nothing, *steps[3:], nothing], 10, threads)
    for _ in range(50):
        assert np.array_equal(run(runner, [np.float32([4, 5, 6, 7, 8])], [5])[0], np.arange(3, 8))


def test_a_pool_that_has_no_worker_leaves_all_to_the_caller(monkeypatch):
    """Nobody waits for a thread that never enters."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(thread_pool, "_pool", None)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    runner = runner_of(chain(40, 5), 10, 4)
    for _ in range(20):
        assert np.array_equal(run(runner, [np.zeros(5, np.float32)], [5])[0], np.full(5, -5))


# ---- callers -------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", mostly_slow([1, 2, 4], 2))
def test_several_threads_run_one_sequence_at_once(threads):
    """Each on memory of its own, whatever the pool's threads do meanwhile."""
    runner = runner_of(chain(80, 500), 1000, threads)

    def is_right(seed):
        x = integers_like((500,), "float32", seed, 1000)
        return all(np.array_equal(run(runner, [x], [500])[0], x - 10) for _ in range(300))

    with ThreadPoolExecutor(6) as pool:
        assert all(pool.map(is_right, range(12)))


def test_sequences_run_beside_each_other():
    runners = [runner_of(chain(40, size), 2 * size, 2) for size in (3, 100, 9000)]

    def is_right(n):
        size = (3, 100, 9000)[n % 3]
        x = integers_like((size,), "float32", n)
        return all(np.array_equal(run(runners[n % 3], [x], [size])[0], x - 5) for _ in range(200))

    with ThreadPoolExecutor(4) as pool:
        assert all(pool.map(is_right, range(9)))


def test_buffers_may_be_others_in_each_run():
    runner = runner_of(chain(4, 50), 100, 2)
    for n in range(50):
        whole = np.full(50 + n, n, np.float32)
        (y,) = run(runner, [whole[n:]], [50])
        assert np.array_equal(y, np.full(50, n - 0.5))


def test_arguments_may_lie_anywhere_in_a_buffer():
    """As parts of inputs and outputs do; nothing beside them is written."""
    step = loop_step(ADD, [(0, 7), (1, 3)], [(2, 11)], 40)
    runner = runner_of([step], 1, 2)
    x, z, y = (integers_like((60,), "float32", n) for n in range(3))
    before = y.copy()
    runner.run([x, z, y])
    assert np.array_equal(y[11:51], x[7:47] + z[3:43])
    assert np.array_equal(y[:11], before[:11])
    assert np.array_equal(y[51:], before[51:])


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # of threads, which the pool has
@pytest.mark.parametrize("threads", [1, 3])
def test_a_sequence_runs_in_the_child_of_a_fork(threads):
    """With the memory that the parent left, and with threads of its own."""
    runner, x = runner_of(chain(80, 2000), 4000, threads), integers_like((2000,), "float32")
    right = [np.array_equal(run(runner, [x], [2000])[0], x - 10) for _ in range(5)]
    child = os.fork()
    if child == 0:
        status = 2
        try:
            right = [np.array_equal(run(runner, [x], [2000])[0], x - 10) for _ in range(50)]
            status = 0 if all(right) else 1
        finally:
            os._exit(status)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert all(right)
    assert np.array_equal(run(runner, [x], [2000])[0], x - 10)


# ---- memory --------------------------------------------------------------------------------------


def test_a_runner_keeps_the_constants_of_its_steps():
    """When nobody else has them, and their memory would be taken by others."""

    def made():
        constant = np.arange(3000, dtype=np.float32)
        return runner_of([loop_step(ADD, [(0, 0), constant], [(1, 0)], 3000)], 1, 2)

    runner, x = made(), integers_like((3000,), "float32")
    for _ in range(20):
        gc.collect()
        others = [np.full(3000, np.nan, np.float32) for _ in range(20)]
        assert np.array_equal(run(runner, [x], [3000])[0], x + np.arange(3000))
        del others


def test_what_the_block_held_before_does_not_matter():
    runner, x = runner_of(chain(12, 700), 1400, 2), integers_like((700,), "float32")
    for _ in range(10):
        assert np.array_equal(run(runner, [x], [700])[0], x - 1.5)
        for arena in runner._arenas._free:
            arena.block[:] = 255  # NaN


def test_the_block_begins_with_a_cache_line():
    """So a plan of memory may align what lies in it."""
    runner = runner_of([loop_step(COPY, [(0, 0)], [(1, 0)], 3)], 1000, 2)
    run(runner, [np.zeros(3, np.float32)], [3])
    assert all(arena.block.ctypes.data % 64 == 0 for arena in runner._arenas._free)


def test_many_callers_at_once_leave_little_memory_behind():
    runner = runner_of(chain(8, 50), 100, 1)
    x = np.zeros(50, np.float32)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: run(runner, [x], [50]), range(200)))
    assert 1 <= len(runner._arenas._free) <= 8


# ---- revised steps -------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 3])
def test_words_that_are_revised_are_those_of_the_next_run(threads):
    """As when optimised code has come: other words, another function, or both."""
    add, subtract = (
        loop_step(expression_of(name, 2), [(BLOCK, 0), ONE], [(1, 0)], 500)
        for name in ("add", "sub")
    )
    current = [add]
    step = NativeStep(lambda: current[0].function(), lambda: current[0].words(), *add[2:])
    step = step._replace(may_change=True)
    first = loop_step(COPY, [(0, 0)], [(BLOCK, 0)], 500)
    runner = runner_of([first, step], 500, threads)
    x = integers_like((500,), "float32")
    for n in range(20):
        current[0] = (add, subtract)[n % 2]
        for _ in range(3):
            assert np.array_equal(run(runner, [x], [500])[0], x + (1, -1)[n % 2])


def test_steps_are_revised_while_others_run_them():
    """Every run computes with the one code or with the other, which say the same."""
    made = [loop_step(ADD, [(0, 0), ONE], [(1, 0)], 9000) for _ in range(2)]
    assert made[0].words() is not made[1].words()
    current, ended = [made[0]], threading.Event()
    step = NativeStep(lambda: current[0].function(), lambda: current[0].words(), *made[0][2:])
    step = step._replace(may_change=True)
    runner = runner_of([step], 1, 2)

    def revise():
        n = 0
        while not ended.wait(1e-4):
            n += 1
            current[0] = made[n % 2]

    def is_right(seed):
        x = integers_like((9000,), "float32", seed)
        return all(np.array_equal(run(runner, [x], [9000])[0], x + 1) for _ in range(100))

    reviser = threading.Thread(target=revise)
    reviser.start()
    try:
        with ThreadPoolExecutor(3) as pool:
            assert all(pool.map(is_right, range(3)))
    finally:
        ended.set()
        reviser.join()


def test_results_do_not_depend_on_threads():
    """Long functions of any numbers, in stages of several steps."""
    rng, size = np.random.default_rng(0), 30_000
    x = rng.standard_normal(size).astype("float32")
    steps = []
    for n, name in enumerate(("tanh", "sigmoid", "gelu", "silu")):
        is_last = n == 3
        step = loop_step(expression_of(name, 1), [(0, 0)], [(BLOCK, n * size)], size, is_last)
        steps.append(step)
    expression = instructed(("mul", (0, 1)), ("mul", (2, 3)), ("sub", (4, 5)), operands=4)
    places = [(BLOCK, n * size) for n in range(4)]
    steps.append(loop_step(expression, places, [(1, 0)], size))
    found = set()
    for threads in THREADS:
        runner = runner_of(steps, 4 * size, threads)
        found |= {run(runner, [x], [size])[0].tobytes() for _ in range(5)}
    assert len(found) == 1


# ---- arenas --------------------------------------------------------------------------------------


def sharing(arenas, *sizes):
    """Runners of chains of so many elements, which share arenas."""
    return [SequenceRunner(chain(12, n), 4 * 2 * n, 2, CPU, arenas) for n in sizes]


def test_runners_share_an_arena_that_grows():
    arenas, sizes = Arenas(), (700, 9000, 50)
    made = sharing(arenas, *sizes)
    for n in range(20):
        for runner, size in zip(made, sizes, strict=True):
            x = integers_like((size,), "float32", n)
            assert np.array_equal(run(runner, [x], [size])[0], x - 1.5)
    assert len(arenas._free) == 1


def test_an_arena_that_was_too_small_is_not_kept():
    arenas = Arenas()
    small, large = sharing(arenas, 700, 9000)
    run(small, [np.zeros(700, np.float32)], [700])
    arena = weakref.ref(arenas._free[0])
    run(large, [np.zeros(9000, np.float32)], [9000])
    gc.collect()
    assert arena() is None
    run(small, [np.zeros(700, np.float32)], [700])
