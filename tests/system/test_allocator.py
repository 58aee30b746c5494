"""Reused memory: never by two arrays at once, never too much, never in the way."""

import copy
import ctypes
import gc
import os
import pickle
import platform
import random
import subprocess
import sys
import threading

import numpy as np
import pytest
from numpy.lib.stride_tricks import as_strided

import tconv
from tconv.ops import dispatch
from tconv.system import allocator
from tconv.system.allocator import Arena

LEAST = 2**12
F32 = np.dtype("float32")


class Mine(np.ndarray):
    """A subclass."""


@pytest.fixture
def arena():
    return Arena(least_bytes=LEAST, most_idle_bytes=2**20)


def spans(array):
    start = array.ctypes.data
    return start, start + array.nbytes


# ---- what comes out ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64", ">f4", "c16", "i1", "?", "M8[s]", "f4,i2"])
@pytest.mark.parametrize("shape", [(40, 500), (1, 2, 3, 7001), (20001,), (1, 1, 20000)])
def test_it_gives_ordinary_arrays(arena, dtype, shape):
    for _ in range(2):  # of new memory, and of used
        y = arena.empty(shape, dtype)
        like = np.empty(shape, dtype)
        assert type(y) is np.ndarray
        assert (y.shape, y.strides, y.dtype) == (like.shape, like.strides, like.dtype)
        assert y.ctypes.data % 64 == 0
        assert y.flags.carray
        y[...] = np.ones((), dtype)
        assert np.array_equal(pickle.loads(pickle.dumps(y)), y)
        assert y.copy().flags.owndata
        del y
        assert arena.idle_bytes > 0


def test_small_arrays_and_objects_are_numpys_own(arena):
    for shape, dtype in (((), "f4"), ((0, 9), "f4"), ((LEAST - 1,), "i1"), ((LEAST,), object)):
        y = arena.empty(shape, dtype)
        assert y.flags.owndata
        del y
    assert arena.idle_bytes == 0


def test_errors_are_those_of_numpy(arena):
    with pytest.raises(ValueError, match="negative dimensions"):
        arena.empty((-1, 5), "f4")
    with pytest.raises((ValueError, MemoryError)):
        arena.empty((2**40, 2**40), "f4")


# ---- when it comes back --------------------------------------------------------------------------

KEEPERS = {
    "slice": lambda y: y[1:],
    "slice of a slice": lambda y: y[1:][:, ::2][-1:],
    "transpose": lambda y: y.T,
    "reshape": lambda y: y.reshape(-1),
    "view": lambda y: y.view("i4")[3],
    "subclass": lambda y: y.view(Mine)[2:],
    "strided": lambda y: as_strided(y, (2, 2), (4, 4)),
    "broadcast": lambda y: np.broadcast_to(y[0], (3, *y.shape)),
    "base": lambda y: y.base,
    "base of the base": lambda y: y.base.base,
    "memoryview": memoryview,
    "part of a memoryview": lambda y: memoryview(y)[1:],
    "data": lambda y: y.data,
    "frombuffer": lambda y: np.frombuffer(y, "u1")[7:],
    "asarray of the base": lambda y: np.asarray(y.base.base),
    "ctypes": lambda y: y.ctypes,
    "pointer": lambda y: y.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
    "ctypes array": lambda y: (ctypes.c_float * 4).from_buffer(y),
    "flat": lambda y: y.flat,
    "iterator": iter,
    "nditer": lambda y: np.nditer(y),
    "pickle buffer": pickle.PickleBuffer,
    "dlpack": lambda y: np.from_dlpack(y),
    "capsule": lambda y: y.__dlpack__(),
    "cycle": lambda y: (lambda each: each.append(each) or each)([y[1:]]),
    "method": lambda y: y.sum,
}


@pytest.mark.parametrize("keep", KEEPERS.values(), ids=KEEPERS)
def test_memory_comes_back_with_whatever_holds_it_last(arena, keep):
    y = arena.empty((40, 500), "f4")
    y[...] = 3
    kept = keep(y)
    del y
    gc.collect()
    assert arena.idle_bytes == 0
    other = arena.empty((40, 500), "f4")
    other[...] = 4
    if isinstance(kept, np.ndarray) and kept.dtype == F32:
        assert np.all(kept == 3)
    del kept
    gc.collect()
    assert arena.idle_bytes > 0


def test_the_same_memory_is_used_again(arena):
    y = arena.empty((10_000,), "f4")
    where = spans(y)
    del y
    again = arena.empty((100, 50), "f8")
    assert spans(again) == where
    assert arena.idle_bytes == 0


def test_a_lease_cannot_be_doubled(arena):
    y = arena.empty((10_000,), "f4")
    with pytest.raises(TypeError, match="cannot be copied"):
        pickle.dumps(y.base.base)
    with pytest.raises(TypeError, match="cannot be copied"):
        copy.copy(y.base.base)
    assert arena.idle_bytes == 0


@pytest.mark.parametrize("threads", [1, 8])
def test_no_two_arrays_share_memory(threads):
    arena = Arena(least_bytes=LEAST, most_idle_bytes=2**18)
    faults = []

    def work(seed):
        draw = random.Random(seed)
        live = []
        for turn in range(600):
            number = seed * 1000 + turn
            size = draw.randrange(LEAST // 4, 3 * LEAST)
            y = arena.empty((size,), "f4")
            y[...] = number
            live.append((number, draw.choice([y, y[1:], y[::3][5:], y[None].T, memoryview(y)])))
            draw.shuffle(live)
            while len(live) > draw.randrange(1, 9):
                number, kept = live.pop()
                if not np.all(np.asarray(kept) == number):
                    faults.append(number)
            if arena.idle_bytes > arena.most_idle_bytes:
                faults.append("idle")

    workers = [threading.Thread(target=work, args=(n + 1,)) for n in range(threads)]
    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        for worker in workers:
            worker.start()
        for worker in workers:
            worker.join()
    finally:
        sys.setswitchinterval(interval)
    assert not faults


# ---- how much is kept ----------------------------------------------------------------------------


def test_what_is_idle_is_bounded_and_the_oldest_goes_first():
    arena = Arena(least_bytes=LEAST, most_idle_bytes=2**16)
    arrays = [arena.empty((2**14,), "u1") for _ in range(6)]
    places = [spans(y) for y in arrays]
    while arrays:
        del arrays[0]
        assert arena.idle_bytes <= 2**16
    assert arena.idle_bytes == 2**16
    arrays = [arena.empty((2**14,), "u1") for _ in range(4)]
    assert {spans(y) for y in arrays} == set(places[2:])


def test_what_could_never_be_kept_is_numpys_own():
    arena = Arena(least_bytes=LEAST, most_idle_bytes=2**16)
    assert arena.empty((2**17,), "u1").flags.owndata
    assert arena.idle_bytes == 0


@pytest.mark.parametrize("size", [LEAST, LEAST + 1, 5000, 8191, 8192, 2**16 - 1, 2**16 + 1])
def test_a_block_is_little_larger_than_what_lies_in_it(arena, size):
    y = arena.empty((size,), "u1")
    del y
    kept = arena.idle_bytes
    assert kept == size
    for other in range(LEAST, size + 1, 97):
        y = arena.empty((other,), "u1")
        assert (arena.idle_bytes == 0) == (kept <= other + other // 8)
        arena.drop_idle()
        del y
        arena.drop_idle()
        arena.empty((size,), "u1")


def test_a_share_of_the_memory_is_kept_at_most(monkeypatch):
    for available, most in ((None, 2**28), (2**40, 2**28), (2**20, 2**17)):
        monkeypatch.setattr(allocator, "available_bytes", lambda found=available: found)
        assert Arena().most_idle_bytes == most


def test_when_memory_runs_out_what_is_idle_is_given_up(arena, monkeypatch):
    y = arena.empty((10_000,), "f4")
    del y

    class Numpy:
        ndarray, dtype, asarray, uint8 = np.ndarray, np.dtype, np.asarray, np.uint8

        @staticmethod
        def empty(shape, dtype):
            if arena.idle_bytes:
                raise MemoryError
            return np.empty(shape, dtype)

    monkeypatch.setattr(allocator, "np", Numpy)
    assert arena.empty((100_000,), "f4").shape == (100_000,)
    assert arena.idle_bytes == 0


def test_a_call_may_take_what_is_idle(monkeypatch):
    shared = Arena(least_bytes=LEAST, most_idle_bytes=2**30)
    monkeypatch.setattr(dispatch, "drop_idle", shared.drop_idle)
    monkeypatch.setattr(dispatch, "SMALL_BYTES", 1)
    monkeypatch.setattr(dispatch, "available_bytes", lambda: 2**20 - shared.idle_bytes)
    x, w = np.ones((1, 1, 10_000), "f4"), np.ones((1, 1, 3), "f4")
    shared.empty((2**20,), "u1")
    assert shared.idle_bytes == 2**20
    assert tconv.conv_transpose(x, w).shape == (1, 1, 10_002)
    assert shared.idle_bytes == 0


# ---- forks, finalisers, the end ------------------------------------------------------------------


def test_finalisers_may_allocate_in_the_middle_of_it(arena):
    made = []

    class Cycle:
        def __init__(self):
            self.me = self
            self.y = arena.empty((3000,), "f4")

        def __del__(self):
            made.append(arena.empty((3000,), "f4"))
            del made[:-3]

    thresholds = gc.get_threshold()
    gc.set_threshold(1, 1, 1)
    try:
        for n in range(300):
            Cycle()
            y = arena.empty((3000,), "f4")
            y[...] = n
            assert all(not np.shares_memory(y, other) for other in [*made])
            assert arena.idle_bytes <= arena.most_idle_bytes
    finally:
        gc.set_threshold(*thresholds)


def test_nobody_waits_for_the_lock(arena):
    y = arena.empty((3000,), "f4")
    with arena._lock:
        z = arena.empty((3000,), "f4")
        assert not np.shares_memory(y, z)
        del z
    assert arena.idle_bytes == 0
    del y
    assert arena.idle_bytes > 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_child_has_an_arena_of_its_own():
    shared = allocator._shared
    size = shared.least_bytes
    y, idle = allocator.empty((size,), "u1"), allocator.empty((size,), "u1")
    del idle
    y[:] = 1
    with shared._lock:  # as if another thread held it
        child = os.fork()
        if child == 0:
            before = shared.idle_bytes
            y[:] = 2
            del y
            fine = shared.idle_bytes == before + size
            z = allocator.empty((size,), "u1")
            z[:] = 3
            os._exit(0 if fine and shared.idle_bytes == before else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert np.all(y == 1)
    del y
    assert allocator.drop_idle() >= 2 * size


@pytest.mark.parametrize("holder", ["y", "sys.y = y", "y.base.base", "memoryview(y)", "Cycle(y)"])
def test_the_end_of_the_interpreter_is_quiet(holder):
    code = f"""
import sys, threading, time, numpy as np
from tconv.system.allocator import empty
class Cycle:
    def __init__(self, y): self.y, self.me = y, self
    def __del__(self): self.again = empty((2**24,), "u1")
def new():
    y = empty((2**24,), "u1")
    y[::4096] = 1
    return y
y = new(); new()
kept = {holder.replace("sys.y = y", "y")}
sys.modules["tconv.system.allocator"].kept = kept
sys.y = y
threading.Thread(target=lambda: [new() for _ in range(10**9)], daemon=True).start()
time.sleep(0.05)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


# ---- what it is for ------------------------------------------------------------------------------


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="other C libraries do otherwise")
def test_what_stays_in_it_does_not_make_the_memory_of_others_new():
    """The heap's end is kept as if the block had been freed, and not returned to the system."""
    code = """
import resource, numpy as np
from tconv.system.allocator import empty
kept = empty((2**23,), "u1", 2**16)
def turn():
    live = [np.ones(2**21, "u1") for _ in range(4)]
for _ in range(3):
    turn()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    turn()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""
    usual = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, env=usual
    )
    assert int(done.stdout) < 2**11  # of 10 x 4 x 2**9 pages


def test_large_results_lie_in_it_and_never_in_one_another():
    x, w = np.ones((1, 4, 512, 520), "f4"), np.ones((4, 4, 2, 2), "f4")
    call = tconv.plan(x.shape, w.shape, stride=2)
    packed = call.pack(w)
    live = []
    for n in range(1, 4):
        for y in (tconv.conv_transpose(n * x, w, stride=2), call(n * x, packed)):
            assert y.ctypes.data % 64 == 0
            assert not y.flags.owndata
            live.append((n, y))
    assert all(np.all(y == 4 * n) for n, y in live)
    del live, y
    assert allocator.drop_idle() >= 4 * 4 * 1024 * 1040
