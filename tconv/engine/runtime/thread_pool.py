"""Thread pool: workers that take part in native jobs, and sleep in between.

    run(job, args, threads, load)      # job(args, 0) here, job(args, 1) ... on the workers

The threads of a job share its tasks by a counter in its arguments, so a job is right for any number
of threads, and a thread that comes late finds no task left. Hence nothing queues here: a caller
does not wait for workers that have not begun when it is done, and a caller that finds the workers
busy computes alone.

Caller and worker synchronise on one word of the worker's box, by atomic exchanges only:

    AWAKE ---- caller offers ----> OFFERED -- worker claims --> WORKING ---- worker ends --> AWAKE
    OFFERED -- caller retracts --> AWAKE                        WORKING -- caller waits --> AWAITED
    AWAKE ---- worker lies down -> ASLEEP --- caller offers, and wakes ------------------> OFFERED

No wake-up is lost, because these exchanges have one order. A worker sleeps only after it turned
AWAKE into ASLEEP. An offer before that makes its exchange fail, and the worker looks again; an
offer after that reads ASLEEP, and whoever reads ASLEEP releases the worker's lock, once. The lock
is held from the start, so a release stays in force until the worker acquires it. The same holds for
WORKING and AWAITED the other way round. The state is one word, so acquire and release semantics
suffice: nothing depends on the order of two words.

All of this is generated code (`thread_pool_code.py`) that a caller runs by one call: it neither
holds nor needs the interpreter's lock, and no signal can make it return while workers still write.
"""

import atexit
import ctypes
import os
import threading
import time
from collections.abc import Callable
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Protocol

from tconv.engine.runtime.control_block import (
    ACQUIRE,
    BOX_BYTES,
    BOX_WORDS,
    CALLER_LOCK,
    LOCK,
    NAME,
    RELEASE,
    SPINS,
)
from tconv.geometry.arguments import MOST_THREADS
from tconv.system.fork_lock import importing
from tconv.system.memory import has_room

if TYPE_CHECKING:
    from tconv.engine.codegen.llvm import Module

__all__ = ["Load", "run"]

# A spinning worker begins 0.3 us after the call, a sleeping one 40 us after it, or even 1.8 ms if
# the system schedules it behind the caller (Linux 6.18, Xeon, 2 cores).
_SPIN_S = 100e-6
_THREAD_BYTES = 2**26  # of addresses: a stack, mostly of 8 MiB, and memory of the C library
_LEAVE_S = 0.5  # to wait at exit for a job that still runs

_ADDRESS, _WORD = ctypes.c_void_p, ctypes.c_ssize_t


class Load(Protocol):
    """A compiler: `tconv.engine.compile.jit.load` as a ``partial`` with a target."""

    def __call__(self, name: str, emit: "Callable[[Module], None]", /) -> int:
        """Return the address of the function `name`, valid until the process ends."""


# ---- the caller's side ---------------------------------------------------------------------------


def run(job: int, args: int, threads: int, load: Load) -> None:
    """Call a job on this thread and on up to ``threads - 1`` others; return when all have ended.

    Parameters
    ----------
    job, args : int
        Addresses of a native ``void job(void *args, int64_t thread)`` and of its arguments. Each
        thread calls it at most once, and thread 0 always does.
    threads : int
        At most MOST_THREADS; more are as good as that.
    load : Load
        Compiles the thread pool's own code on first use.

    Raises
    ------
    UnsupportedError : by `load`; nothing has been computed.
    """
    pool = _pool
    if threads > 1 and (pool is None or threads > pool.threads):
        pool = _pool_for(threads := min(threads, MOST_THREADS), load)
    if threads <= 1 or pool is None:
        _alone(job)(args, 0)
    else:
        pool.run(pool.control, job, args, threads - 1)


@lru_cache(maxsize=256)
def _alone(job: int) -> Callable[[int, int], None]:
    """Return a job as a Python callable, kept because making it takes longer than the call."""
    return _native(job, None, _ADDRESS, _WORD)


def _native(address: int, *types: Any) -> Callable[..., Any]:
    """Return a native function, with the type of its result before those of its arguments."""
    return ctypes.CFUNCTYPE(*types)(address)


class _Pool:
    """The generated code, its control block, and the workers."""

    def __init__(self, load: Load) -> None:
        entry = _native(load(NAME, _emit), _WORD, _WORD)
        self.run = _native(entry(0), None, _ADDRESS, _ADDRESS, _ADDRESS, _WORD)
        self._work = _native(entry(1), None, _ADDRESS, _WORD)
        self._dismiss = _native(entry(2), _WORD, _ADDRESS, _WORD)
        watch = _native(entry(3), _WORD, _ADDRESS, _WORD, _WORD)
        memory = _allocated("PyMem_RawCalloc", MOST_THREADS + 2, BOX_BYTES)
        self.control = -(-memory // BOX_BYTES) * BOX_BYTES
        self.threads = 1  # that it can run, the caller among them
        self._workers: list[threading.Thread] = []
        self._words = (ctypes.c_int64 * ((MOST_THREADS + 1) * BOX_WORDS)).from_address(self.control)
        self._words[SPINS] = _count_turns(watch, self.control)
        for word, name in ((ACQUIRE, "acquire"), (RELEASE, "release")):
            function = ctypes.cast(_of_python(f"PyThread_{name}_lock"), _ADDRESS)
            self._words[word] = function.value or 0
        self._words[CALLER_LOCK] = _held_lock()

    def grow(self, threads: int) -> None:
        """Start workers for so many threads, the caller among them."""
        while self.threads < threads:
            index = self.threads
            self.threads += 1  # first, so that after an interrupt no two workers share a box
            self._words[(index + 1) * BOX_WORDS + LOCK] = _held_lock()
            worker = threading.Thread(
                target=self._work, args=(self.control, index), name=f"tconv-{index}", daemon=True
            )
            try:
                if not has_room(_THREAD_BYTES):  # Python would wait for it for ever
                    raise RuntimeError
                worker.start()
            except RuntimeError:  # the system has no more; callers retract what they offer there
                self.threads = threads
            else:
                self._workers.append(worker)

    def leave(self) -> None:
        """End the workers and wait for them, but not for long."""
        workers, self.threads = self.threads - 1, MOST_THREADS  # so that it does not grow again
        end = time.monotonic() + _LEAVE_S
        while not self._dismiss(self.control, workers):
            if time.monotonic() > end:
                return  # they stay in native code, whose memory is never freed
            time.sleep(1e-3)
        for worker in self._workers:
            worker.join(max(end - time.monotonic(), 0))


def _held_lock() -> int:
    """Return a new lock that is held, so that acquiring it waits for a release.

    `threading` builds on these locks. They need no interpreter lock, so a worker wakes at once even
    while Python code runs, and no signal ends a wait for them.
    """
    lock = _allocated("PyThread_allocate_lock")
    _of_python("PyThread_acquire_lock", _ADDRESS, ctypes.c_int)(lock, 1)
    return lock


def _allocated(name: str, *sizes: int) -> int:
    """Allocate by a C function, for ever: a worker may outlive the interpreter."""
    address = _of_python(name, *[ctypes.c_size_t] * len(sizes))(*sizes)
    if address is None:
        raise MemoryError
    return int(address)


def _of_python(name: str, *types: Any) -> Any:
    """Return a function of CPython's C interface."""
    function = ctypes.pythonapi[name]  # unlike an attribute of pythonapi, not shared with others
    function.restype, function.argtypes = _ADDRESS, types
    return function


def _count_turns(watch: Callable[[int, int, int], int], zero: int) -> int:
    """Return how many turns of `watch` take _SPIN_S: a pause takes 1 to 140 cycles."""
    turns, took_s = 200, []
    for _ in range(5):
        start = time.perf_counter()
        watch(zero, 0, turns)
        took_s.append(time.perf_counter() - start)
    return max(int(turns * _SPIN_S / max(min(took_s), 1e-9)), 1)


_pool: _Pool | None = None
_growing = threading.Lock()


def _pool_for(threads: int, load: Load) -> _Pool | None:
    """Return the thread pool, grown to so many threads unless another thread is growing it."""
    global _pool
    if _growing.acquire(blocking=False):
        try:
            if _pool is None:
                _pool = _Pool(load)
            _pool.grow(threads)
        finally:
            _growing.release()
    return _pool


def _emit(module: "Module") -> None:
    with importing:  # a process whose kernels are on disk emits none
        from tconv.engine.runtime.thread_pool_code import emit

    emit(module)


def _leave() -> None:
    if _pool is not None:
        _pool.leave()


def _forget() -> None:
    """Start without a thread pool in the child of a fork, which has none of its threads."""
    global _pool, _growing
    _pool, _growing = None, threading.Lock()


atexit.register(_leave)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)
