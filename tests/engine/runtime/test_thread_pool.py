"""Thread pool: each task runs once, on whatever thread, and no call waits for threads in vain."""

import os
import signal
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slow import mostly_slow
from tconv.engine.codegen.llvm import I64, PTR, VOID, Builder, Function, FunctionType
from tconv.engine.compile.jit import assembly, load
from tconv.engine.runtime import control_block, thread_pool
from tconv.engine.runtime.thread_pool import MOST_THREADS, run
from tconv.engine.runtime.thread_pool_code import emit
from tconv.engine.target.target import named_target, target

LOAD = partial(load, target=target())
NEXT, TASKS, CELLS = 0, 1, 2  # the words of a share's arguments
ARRIVED, EXPECTED, GATE, ENDED = 0, 8, 16, 24  # and of a meeting's


def begin(module, name):
    function = Function(module, FunctionType(VOID, [PTR, I64]), name)
    return Builder(function.append_basic_block()), *function.args


def word(b, line, number):
    return b.gep(line, [I64(number) if isinstance(number, int) else number], source_etype=I64)


@contextmanager
def repeating(b):
    """``while True``; gives the block after it."""
    body, done = b.append_basic_block(), b.append_basic_block()
    b.branch(body)
    b.position_at_end(body)
    yield done
    b.branch(body)
    b.position_at_end(done)


def leave_when(b, condition, done):
    following = b.append_basic_block()
    b.cbranch(condition, done, following)
    b.position_at_end(following)


def emit_share(module):
    """``while (n := next++) < tasks: cells[n] += 1``."""
    b, args, _ = begin(module, "test_share")
    with repeating(b) as done:
        n = b.atomic_rmw("add", word(b, args, NEXT), I64(1), "monotonic")
        leave_when(b, b.icmp_signed(">=", n, b.load(word(b, args, TASKS), typ=I64)), done)
        cell = word(b, word(b, args, CELLS), n)
        b.store(b.add(b.load(cell, typ=I64), I64(1)), cell)
    b.ret_void()


def emit_meet(module):
    """Thread 0 waits until the expected have arrived, the others until the gate is open.

    That is no proper job, for it counts on others, but it holds threads where a test wants them.
    """
    b, args, thread = begin(module, "test_meet")
    b.atomic_rmw("add", word(b, args, ARRIVED), I64(1), "seq_cst")
    watched = b.select(b.icmp_signed("==", thread, I64(0)), I64(ARRIVED), I64(GATE))
    wanted = b.select(b.icmp_signed("==", thread, I64(0)), I64(EXPECTED), I64(EXPECTED + 1))
    wanted = b.load(word(b, args, wanted), typ=I64)
    with repeating(b) as done:
        now = b.load_atomic(word(b, args, watched), "seq_cst", 8, typ=I64)
        leave_when(b, b.icmp_signed(">=", now, wanted), done)
    b.atomic_rmw("add", word(b, args, ENDED), I64(1), "seq_cst")
    b.ret_void()


SHARE = LOAD("test_share", emit_share)
MEET = LOAD("test_meet", emit_meet)


def share(tasks, threads):
    """How often each task ran."""
    words = np.zeros(CELLS + tasks, np.int64)
    words[TASKS] = tasks
    run(SHARE, words.ctypes.data, threads, LOAD)
    return words[CELLS:]


def meeting(threads, gate=0):
    words = np.zeros(32, np.int64)
    words[EXPECTED : EXPECTED + 2] = threads, 1
    words[GATE] = gate
    return words


def meet(words):
    run(MEET, words.ctypes.data, int(words[EXPECTED]), LOAD)


def workers():
    return [each for each in threading.enumerate() if each.name.startswith("tconv-")]


# ---- the work ------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
@pytest.mark.parametrize("tasks", [0, 1, 100])
def test_every_task_runs_once(tasks, threads):
    for _ in range(2000):
        assert (share(tasks, threads) == 1).all()


@given(st.lists(st.tuples(st.integers(0, 50), st.integers(-1, 9)), max_size=20))
def test_the_number_of_threads_may_change_from_call_to_call(calls):
    for tasks, threads in calls:
        assert (share(tasks, threads) == 1).all()


def test_it_is_right_when_workers_sleep_between_calls():
    for n in range(200):
        time.sleep(n % 3 * 1e-4)  # about as long as they look for work
        assert (share(100, 1 + n % 4) == 1).all()


def test_more_threads_than_there_can_be(monkeypatch):
    monkeypatch.setattr(thread_pool, "_pool", None)
    monkeypatch.setattr(thread_pool, "MOST_THREADS", 3)
    assert (share(100, MOST_THREADS + 1) == 1).all()
    assert thread_pool._pool.threads == 3


@pytest.mark.parametrize("threads", [1, 2, 3, 7])
def test_all_threads_take_part_where_the_work_is_long_enough(threads):
    for _ in range(20):
        words = meeting(threads, gate=1)
        meet(words)
        assert words[ARRIVED] == words[ENDED] == threads


def test_32_python_threads_call_at_once():
    def call(seed):
        draw = np.random.default_rng(seed)
        for _ in range(200):
            tasks, threads = draw.integers(0, 300), draw.integers(1, 5)
            if not (share(tasks, threads) == 1).all():
                wrong.append((tasks, threads))

    wrong = []
    callers = [threading.Thread(target=call, args=(seed,)) for seed in range(32)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert not wrong


# ---- who is waited for, and who is not -----------------------------------------------------------


@contextmanager
def held(threads):
    """A meeting in progress on another Python thread."""
    words = meeting(threads)
    caller = threading.Thread(target=meet, args=(words,))
    caller.start()
    while words[ARRIVED] < threads:
        time.sleep(1e-3)
    try:
        yield words
    finally:
        words[GATE] = 1
        caller.join()
    assert words[ENDED] == threads


def test_who_finds_the_workers_busy_computes_alone_and_at_once():
    with held(3) as words:
        assert (share(1000, 3) == 1).all()
        alone = meeting(1)
        run(MEET, alone.ctypes.data, 3, LOAD)
        assert alone[ARRIVED] == alone[ENDED] == 1
        assert words[ENDED] <= 1  # of the meeting, which goes on


def test_nobody_waits_for_a_worker_that_does_not_come(monkeypatch):
    """As when the system is out of threads, or does not let them run."""

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(thread_pool, "_pool", None)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    for threads in (2, 2, 7):
        assert (share(100, threads) == 1).all()
    assert thread_pool._pool.threads == 7
    assert not thread_pool._pool._workers


@pytest.mark.parametrize("turns", mostly_slow([0, 1, 20], 1))
def test_no_wake_up_is_lost(monkeypatch, turns):
    """Workers that look for work so shortly lie down just while the next is offered."""
    monkeypatch.setattr(thread_pool, "_pool", None)
    share(10, 4)
    thread_pool._pool._words[control_block.SPINS] = turns
    for n in range(3000):  # would hang
        words = meeting(2 + n % 3, gate=1)
        meet(words)
        assert words[ENDED] == words[EXPECTED]


def test_who_waits_for_a_worker_sleeps():
    words = meeting(2)
    opener = threading.Timer(0.3, words.__setitem__, (GATE, 1))
    opener.start()
    before = time.thread_time()
    meet(words)
    assert words[ENDED] == 2
    assert time.thread_time() - before < 0.1
    opener.join()


def test_nothing_spins_when_there_is_no_work():
    meet(meeting(4, gate=1))
    time.sleep(0.01)
    before = time.process_time()
    time.sleep(0.3)
    assert time.process_time() - before < 0.1


@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="no timer signals here")
def test_an_interrupt_waits_until_the_workers_have_ended():
    def interrupt(number, frame):
        raise KeyboardInterrupt

    words = meeting(3)
    before = signal.signal(signal.SIGALRM, interrupt)
    opener = threading.Timer(0.3, words.__setitem__, (GATE, 1))
    opener.start()
    signal.setitimer(signal.ITIMER_REAL, 0.1)
    try:
        with pytest.raises(KeyboardInterrupt):
            meet(words)
    finally:
        signal.signal(signal.SIGALRM, before)
    assert words[ENDED] == 3
    opener.join()
    assert (share(100, 3) == 1).all()


def test_workers_are_daemons_with_names():
    share(10, 4)
    assert {"tconv-1", "tconv-2", "tconv-3"} <= {each.name for each in workers()}
    assert all(each.daemon for each in workers())


def test_a_call_of_one_thread_needs_no_pool(monkeypatch):
    monkeypatch.setattr(thread_pool, "_pool", None)
    assert (share(100, 1) == 1).all()
    assert thread_pool._pool is None


# ---- fork and exit -------------------------------------------------------------------------------


def outcome(code, before=""):
    """What a program of its own prints, that begins with what this file defines."""
    here = Path(__file__)
    path = f"import sys; sys.path[:0] = {[str(here.parent), str(here.parents[2])]}\n"
    code = f"{path}{before}{PREAMBLE}{code}"
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False
    )
    return done.returncode, done.stdout, done.stderr


PREAMBLE = """
import os, threading, time, warnings
from test_thread_pool import *
warnings.simplefilter("ignore")  # Python 3.12 and later warn of a fork with threads
"""


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no fork here")
@pytest.mark.parametrize("threads", mostly_slow([1, 2, 5], 5))
def test_a_fork_in_the_middle_of_work_begins_anew(threads):
    code = f"""
with held({threads}):
    child = os.fork()
    if child == 0:
        assert not workers()
        right = all((share(100, 3) == 1).all() for _ in range(300))
        meet(meeting(3, gate=1))
        assert len(workers()) == 2
        print("right" if right else "wrong", flush=True)
        raise SystemExit
    assert os.waitpid(child, 0)[1] == 0
    assert (share(100, 3) == 1).all()
print("parent")
"""
    # What follows the fork runs in the child too; it leaves through `held`, whose thread is gone.
    code = code.replace("raise SystemExit", "thread_pool._leave(); os._exit(0)")
    assert outcome(code) == (0, "right\nparent\n", "")


@pytest.mark.parametrize(
    "last",
    [
        "share(100, 3)",
        "share(100, 3); time.sleep(0.05)",
        "threading.Thread(target=meet, args=(meeting(3),), daemon=True).start(); time.sleep(0.1)",
        "threading.Thread(target=lambda: [share(9, 3) for _ in iter(int, 1)], daemon=True).start()",
    ],
    ids=["spinning", "asleep", "working", "busy"],
)
def test_the_interpreter_exits(last):
    assert outcome(last) == (0, "", "")


def test_at_exit_workers_leave():
    """What is registered before the pool's import is called after the workers have left."""
    late = "import atexit; atexit.register(lambda: print(len(workers()), share(9, 6).sum()))\n"
    assert outcome("share(100, 4)", late) == (0, "0 9\n", "")


# ---- the code ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("cpu", "pause"),
    [("x86-64", "pause"), ("neoverse-v1", "yield"), ("cortex-a72", "yield"), ("apple-m1", "yield")],
)
def test_the_code_pauses_and_calls_nothing_by_name(cpu, pause):
    text = assembly("tconv_thread_pool", emit, named_target(cpu))
    assert f"\t{pause}\n" in text
    calls = [line.split() for line in text.splitlines() if "\tcall" in line or "\tbl" in line]
    names = {words[1] for words in calls}
    assert {name.lstrip("_.L$").removesuffix("@PLT") for name in names if name[0] not in "*x"} <= {
        "watch"
    }
