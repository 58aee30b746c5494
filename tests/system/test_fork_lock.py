"""A child of fork goes on, whatever other threads were doing: importing, computing, waiting."""

import os
import subprocess
import sys
import threading
import time

import pytest
from hypothesis import settings

from tconv.system.fork_lock import ForkLock, cached_property

needs_fork = pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
FORKS = 200 if settings().max_examples > 1000 else 40  # the former under the thorough profile

# Where a thread is most of the time, a child of fork finds it: so files and attributes that are
# computed once take a while here. Children that wait for ever are ended by an alarm.
SLOWLY = """
import functools, importlib.abc, os, signal, sys, threading, time, warnings
warnings.simplefilter("ignore", DeprecationWarning)  # of a fork beside threads
FORKS = int(sys.argv[1])

class Slow(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path, target=None):
        if name.startswith(("tconv.", "numpy.")):
            time.sleep(0.003)

def slow(kind):
    class Slowly(kind):
        def __init__(self, func):
            super().__init__(lambda instance: (time.sleep(0.002), func(instance))[1])
    return Slowly

import numpy as np
import tconv
sys.meta_path.insert(0, Slow())
for module in filter(None, (functools, sys.modules.get("tconv.system.fork_lock"))):
    module.cached_property = slow(module.cached_property)

def computes(size):
    x, w = np.full((1, 2, size), 2, np.float32), np.full((2, 3, 4), 3, np.float32)
    y = tconv.conv_transpose(x, w, stride=4)  # each output is of one tap and two channels
    return y.shape == (1, 3, 4 * size) and bool((y == 12).all())

def forked(work):
    child = os.fork()
    if child == 0:
        try:
            signal.alarm(120)
            os._exit(0 if work() else 1)
        finally:
            os._exit(2)
    return child

def ended(children):
    return [os.waitpid(child, 0)[1] for child in children]

def threads_of(*works):
    threads = [threading.Thread(target=work, daemon=True) for work in works]
    for thread in threads:
        thread.start()
    return threads
"""

NAMES = """
def ask():
    for name in tconv.__all__:
        getattr(tconv, name)
    tconv.nn.conv.Conv1d(1, 1, 1, rng=0)

def child():
    for name in ("Sequential", "max_pool", "solve", "Adam"):
        getattr(tconv, name)
    return computes(3)

thread, = threads_of(ask)
children = []
while thread.is_alive() and len(children) < FORKS:
    children.append(forked(child))
    time.sleep(0.01)
print(len(children) > 0, *{*ended(children)})
"""

SHAPES = """
done, faults = threading.Event(), []

def compute(size):
    while not done.is_set():
        size += 2
        if not computes(size):
            faults.append(size)

threads = threads_of(lambda: compute(1000), lambda: compute(2001))
children = []
for n in range(FORKS):
    children.append(forked(lambda: computes(5 + n) and computes(10_000 + n)))
    time.sleep(0.05)
found = ended(children)
done.set()
for thread in threads:
    thread.join()
print(not faults, *{*found})
"""

STATEMENTS = """
import tconv.ops.functional
children = []
for name in ("tconv.tinynet", "tconv.checkerboard", "numpy.random", "numpy.ma"):
    thread, = threads_of(lambda: __import__(name))
    while name not in sys.modules:
        time.sleep(0)
    children.append(forked(lambda: bool(__import__(name)) and computes(3)))
    thread.join()
print(len(children) == 4, *{*ended(children)})
"""


def answer(code, cache, forks=FORKS):
    done = subprocess.run(
        [sys.executable, "-c", SLOWLY + code, str(forks)],
        env={**os.environ, "TCONV_CACHE": str(cache)},
        capture_output=True, text=True, timeout=600, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout.split()


@needs_fork
@pytest.mark.parametrize(
    "code", [NAMES, SHAPES, STATEMENTS], ids=["new names", "new shapes", "import statements"]
)
def test_no_child_waits_for_a_thread_that_it_does_not_have(code, tmp_path):
    assert answer(code, tmp_path) == ["True", "0"]


TWO_WAYS = """
import tconv.engine.target.target  # so that both begin with the same files
def ask():
    tconv.conv_transpose
def state():
    import tconv.ops.planned_call, tconv.ops.functional
threads = threads_of(state, ask)
for thread in threads:
    thread.join(30)
print(not any(thread.is_alive() for thread in threads))
sys.stdout.flush()
os._exit(0)  # a thread that waits for ever would keep the process
"""


def test_threads_that_import_in_two_ways_do_not_wait_for_each_other(tmp_path):
    assert answer(TWO_WAYS, tmp_path) == ["True"]


# ---- the lock ------------------------------------------------------------------------------------


@needs_fork
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_a_fork_waits_for_the_lock_and_both_sides_can_take_it():
    lock, held, done = ForkLock(), threading.Event(), []

    def hold():
        with lock:
            held.set()
            time.sleep(0.2)
            done.append(1)

    thread = threading.Thread(target=hold)
    thread.start()
    held.wait()
    child = os.fork()
    if child == 0:
        with lock, lock:
            os._exit(0 if done else 1)
    thread.join()
    assert os.waitpid(child, 0)[1] == 0
    with lock, lock:
        pass


@needs_fork
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_who_forks_while_it_holds_the_lock_holds_it_in_the_child_too():
    lock = ForkLock()
    with lock, lock:
        child = os.fork()
    if child == 0:
        with lock:
            os._exit(0 if lock._depth == 1 else 1)
    assert os.waitpid(child, 0)[1] == 0
    assert lock._depth == 0


# ---- attributes that are computed once -----------------------------------------------------------


class Counted:
    """The docstring of a class."""

    def __init__(self):
        self.calls = 0

    @cached_property
    def value(self):
        """The docstring of an attribute."""
        self.calls += 1
        time.sleep(0.01)
        return object()


def test_it_is_computed_once_and_can_be_set_and_forgotten():
    one, other = Counted(), Counted()
    assert one.value is one.value
    assert one.value is not other.value
    assert (one.calls, other.calls) == (1, 1)
    one.value = 5
    assert one.value == 5
    del one.value
    assert one.value is not other.value
    assert one.calls == 2
    assert Counted.value.__doc__ == "The docstring of an attribute."


def test_threads_that_ask_at_once_are_given_the_same_and_do_not_wait_for_each_other():
    counted, found, start = Counted(), [], threading.Barrier(4)

    def ask():
        start.wait()
        found.append(counted.value)

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {*map(id, found)} == {id(counted.value)}
    assert len(found) == 4


def test_what_raises_is_asked_again():
    class Fails:
        calls = 0

        @cached_property
        def value(self):
            self.calls += 1
            raise KeyError(self.calls)

    fails = Fails()
    for n in (1, 2):
        with pytest.raises(KeyError, match=str(n)):
            _ = fails.value
