"""WHO WORKS: threads that take part in a native job, and how they sleep when there is none.

    run(job, args, threads, load)      # job(args, 0) here, job(args, 1) ... on the workers

A job shares its work among those who call it by a counter in its arguments, so it is right for
any number of threads, and one that comes too late finds nothing to do. That is why nobody ever
queues here: a worker that has not begun when the caller is through is not waited for, and a
caller that finds the workers busy computes alone.

Caller and worker meet in the worker's box, at one word that only atomic exchanges change:

    AWAKE ---- caller offers ----> OFFERED -- worker claims --> WORKING ---- worker ends --> AWAKE
    OFFERED -- caller retracts --> AWAKE                        WORKING -- caller waits --> AWAITED
    AWAKE ---- worker lies down -> ASLEEP --- caller offers, and wakes ------------------> OFFERED

No wake-up is lost, because these exchanges have one order. A worker sleeps only if it turned
AWAKE into ASLEEP. An offer before that makes its exchange fail, and it looks again; an offer
after that reads ASLEEP, and whoever reads ASLEEP releases the worker's lock, once. The lock is
held from the start, so its release is remembered until the worker acquires it. The same holds
for WORKING and AWAITED the other way round. As all is said in one word, acquire and release
suffice: nothing depends on the order of two words.

All of it is generated code that a caller enters by one call: the interpreter's lock is neither
held nor wanted, and no signal can make the call return while workers still write.
"""

import atexit
import ctypes
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any, Protocol

from tconv.engine.codegen.code import Code
from tconv.engine.codegen.llvm import (
    I32,
    I64,
    PTR,
    VOID,
    Builder,
    Function,
    FunctionType,
    Index,
    Module,
    Value,
)
from tconv.geometry.arguments import MOST_THREADS
from tconv.system.memory import has_room

__all__ = ["Load", "run"]

# A worker that looks for work begins 0.3 us after the call, one that sleeps 40 us, or even 1.8 ms
# if the system puts it behind the caller (Linux 6.18, Xeon, 2 cores).
_SPIN_S = 100e-6
_THREAD_BYTES = 2**26  # of addresses: a stack, mostly of 8 MiB, and what the C library keeps for it
_LEAVE_S = 0.5  # for a job that is still going on at exit

# The control block has a line that says whether somebody computes with the workers, one that
# nobody writes any more, and one for each worker: the box in which it meets the caller.
_LINE = 128  # bytes: x86 fetches pairs of 64, and those of Apple's processors are as long
_WORDS = _LINE // 8
_SPINS, _ACQUIRE, _RELEASE, _CALLER_LOCK = range(_WORDS, _WORDS + 4)
_JOB, _ARGS, _LOCK = 1, 2, 3  # words of a box, after its state
_AWAKE, _OFFERED, _WORKING, _AWAITED, _ASLEEP, _LEAVING = range(6)

_NAME = "tconv_pool"
_ADDRESS, _WORD = ctypes.c_void_p, ctypes.c_ssize_t


class Load(Protocol):
    """What compiles: `tconv.engine.compile.jit.load`, ``partial`` with a target."""

    def __call__(self, name: str, emit: Callable[[Module], None], /) -> int:
        """Return the address of the function `name`, valid until the process ends."""


# ---- the callers' side ---------------------------------------------------------------------------


def run(job: int, args: int, threads: int, load: Load) -> None:
    """Call a job on this thread and on up to ``threads - 1`` others; return when all have ended.

    Parameters
    ----------
    job, args : int
        Addresses of a native ``void job(void *args, int64_t thread)`` and of its arguments. It is
        called at most once for each thread, and always for thread 0.
    threads : int
        At most MOST_THREADS; more bring no more.
    load : Load
        Compiles the pool's own code, if it is not there yet.

    Raises
    ------
    UnsupportedError : that of `load`; nothing has been computed.
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
    """A job without the pool. Made anew, this would take longer than the call."""
    return _native(job, None, _ADDRESS, _WORD)


def _native(address: int, *types: Any) -> Callable[..., Any]:
    """A native function; the type of its result comes first."""
    return ctypes.CFUNCTYPE(*types)(address)


class _Pool:
    """The generated code, the control block that it works on, and the workers that are in it."""

    def __init__(self, load: Load) -> None:
        entry = _native(load(_NAME, emit), _WORD, _WORD)
        self.run = _native(entry(0), None, _ADDRESS, _ADDRESS, _ADDRESS, _WORD)
        self._work = _native(entry(1), None, _ADDRESS, _WORD)
        self._dismiss = _native(entry(2), _WORD, _ADDRESS, _WORD)
        watch = _native(entry(3), _WORD, _ADDRESS, _WORD, _WORD)
        self.control = -(-_allocated("PyMem_RawCalloc", MOST_THREADS + 2, _LINE) // _LINE) * _LINE
        self.threads = 1  # that this pool can run, the caller among them
        self._workers: list[threading.Thread] = []
        self._words = (ctypes.c_int64 * ((MOST_THREADS + 1) * _WORDS)).from_address(self.control)
        self._words[_SPINS] = _count_turns(watch, self.control)
        for word, name in ((_ACQUIRE, "acquire"), (_RELEASE, "release")):
            function = ctypes.cast(_of_python(f"PyThread_{name}_lock"), _ADDRESS)
            self._words[word] = function.value or 0
        self._words[_CALLER_LOCK] = _held_lock()

    def grow(self, threads: int) -> None:
        """Start workers for so many threads, the caller among them."""
        while self.threads < threads:
            index = self.threads
            self.threads += 1  # first, so that after an interrupt no two workers share a box
            self._words[(index + 1) * _WORDS + _LOCK] = _held_lock()
            worker = threading.Thread(
                target=self._work, args=(self.control, index), name=f"tconv-{index}", daemon=True
            )
            try:
                if not has_room(_THREAD_BYTES):  # Python would wait for it for ever
                    raise RuntimeError
                worker.start()
            except RuntimeError:  # the system has no more; what is offered there is retracted
                self.threads = threads
            else:
                self._workers.append(worker)

    def leave(self) -> None:
        """Send the workers home and wait for them, but not for long."""
        workers, self.threads = self.threads - 1, MOST_THREADS  # so that it does not grow again
        end = time.monotonic() + _LEAVE_S
        while not self._dismiss(self.control, workers):
            if time.monotonic() > end:
                return  # they stay in native code, whose memory is never freed
            time.sleep(1e-3)
        for worker in self._workers:
            worker.join(max(end - time.monotonic(), 0))


def _held_lock() -> int:
    """A new lock that is held, so that who acquires it waits for a release.

    These are the locks below those of `threading`. They want no interpreter lock, hence a worker
    is up at once even while Python code runs, and no signal ends a wait for them.
    """
    lock = _allocated("PyThread_allocate_lock")
    _of_python("PyThread_acquire_lock", _ADDRESS, ctypes.c_int)(lock, 1)
    return lock


def _allocated(name: str, *sizes: int) -> int:
    """What a function allocates. It is never freed: a worker may outlive the interpreter."""
    address = _of_python(name, *[ctypes.c_size_t] * len(sizes))(*sizes)
    if address is None:
        raise MemoryError
    return int(address)


def _of_python(name: str, *types: Any) -> Any:
    """A function of CPython's C interface."""
    function = ctypes.pythonapi[name]  # unlike an attribute of pythonapi, not shared with others
    function.restype, function.argtypes = _ADDRESS, types
    return function


def _count_turns(watch: Callable[[int, int, int], int], zero: int) -> int:
    """How many turns of `watch` take _SPIN_S: a pause takes 1 to 140 cycles."""
    turns, took_s = 200, []
    for _ in range(5):
        start = time.perf_counter()
        watch(zero, 0, turns)
        took_s.append(time.perf_counter() - start)
    return max(int(turns * _SPIN_S / max(min(took_s), 1e-9)), 1)


_pool: _Pool | None = None
_growing = threading.Lock()


def _pool_for(threads: int, load: Load) -> _Pool | None:
    """The pool, with so many threads unless somebody else makes it grow just now."""
    global _pool
    if _growing.acquire(blocking=False):
        try:
            if _pool is None:
                _pool = _Pool(load)
            _pool.grow(threads)
        finally:
            _growing.release()
    return _pool


def _leave() -> None:
    if _pool is not None:
        _pool.leave()


def _forget() -> None:
    """Begin anew, without a pool: threads and what they hold do not come along into a fork."""
    global _pool, _growing
    _pool, _growing = None, threading.Lock()


atexit.register(_leave)
if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget)


# ---- generated code ------------------------------------------------------------------------------


def emit(module: Module) -> None:
    """Emit ``tconv_pool(n)``, the address of the n-th of run, work, dismiss and watch."""
    watch = _watch(module)
    functions = _run(module, watch), _work(module, watch), _dismiss(module), watch
    code = _Code(module, _NAME, I64)
    for number, function in enumerate(functions):
        with code.when(code.is_equal(code.function.args[0], number)):
            code.leave(code.builder.ptrtoint(function, I64))
    code.leave(0)


def _run(module: Module, watch: Function) -> Function:
    """What a caller does.

    if exchange(busy, 1): job(args, 0); return        # others compute with the workers
    for box in boxes:
        box.job, box.args = job, args
        if exchange(box, OFFERED) == ASLEEP: release(box.lock)
    job(args, 0)
    for box in boxes: exchange_if(box, OFFERED, AWAKE)      # all of them before the first wait
    for box in boxes:
        watch(box, WORKING)
        if exchange_if(box, WORKING, AWAITED): acquire(caller's lock)
    busy = 0
    """
    code = _Code(module, "run", PTR, PTR, PTR, I64)
    control, job, args, workers = code.function.args
    with code.when(code.is_equal(code.exchange(control, 1), 1)):
        code.call(job, args, 0)
        code.leave()
    with code.boxes(control, workers) as box:
        code.store(job, code.at(box, _JOB, I64))
        code.store(args, code.at(box, _ARGS, I64))
        with code.when(code.is_equal(code.exchange(box, _OFFERED), _ASLEEP)):
            code.release(control, code.word(box, _LOCK))
    code.call(job, args, 0)
    with code.boxes(control, workers) as box:
        code.exchange_if(box, _OFFERED, _AWAKE)
    start = [code.box(control, 1), code.word(control, _SPINS, I64)]
    with code.loop_carrying(workers, start) as ((box, turns), following):
        turns = code.builder.call(watch, [box, code.index(_WORKING), turns])
        with code.when(code.exchange_if(box, _WORKING, _AWAITED)):
            code.acquire(control, code.word(control, _CALLER_LOCK))
        following += [code.at(box, _WORDS, I64), turns]
    code.exchange(control, 0)
    return code.leave()


def _work(module: Module, watch: Function) -> Function:
    """What a worker does.

    while True:
        watch(box, AWAKE)
        if exchange_if(box, OFFERED, WORKING):
            box.job(box.args, index)
            if exchange(box, AWAKE) == AWAITED: release(caller's lock)
        elif box == LEAVING: return
        elif exchange_if(box, AWAKE, ASLEEP): acquire(box.lock)
    """
    code = _Code(module, "work", PTR, I64)
    control, index = code.function.args
    box, turns = code.box(control, index), code.word(control, _SPINS, I64)
    with code.forever() as done:
        code.builder.call(watch, [box, code.index(_AWAKE), turns])
        claimed = code.exchange_if(box, _OFFERED, _WORKING)
        with code.if_else(claimed) as (then, otherwise):
            with then:
                code.call(code.word(box, _JOB), code.word(box, _ARGS), index)
                with code.when(code.is_equal(code.exchange(box, _AWAKE), _AWAITED)):
                    code.release(control, code.word(control, _CALLER_LOCK))
            with otherwise:
                code.leave_when(code.is_equal(code.state(box), _LEAVING), done)
                with code.when(code.exchange_if(box, _AWAKE, _ASLEEP)):
                    code.acquire(control, code.word(box, _LOCK))
    return code.leave()


def _dismiss(module: Module) -> Function:
    """What an exit does: whether the workers are idle, and then let them leave; busy for ever.

    if exchange(busy, 1): return 0
    for box in boxes:
        if exchange(box, LEAVING) == ASLEEP: release(box.lock)
    return 1
    """
    code = _Code(module, "dismiss", PTR, I64)
    control, workers = code.function.args
    with code.when(code.is_equal(code.exchange(control, 1), 1)):
        code.leave(0)
    with code.boxes(control, workers) as box:
        was_asleep = code.is_equal(code.exchange(box, _LEAVING), _ASLEEP)
        with code.when(was_asleep):
            code.release(control, code.word(box, _LOCK))
    return code.leave(1)


def _watch(module: Module) -> Function:
    """Look at a line while its word 0 is `state`, but not for ever; return the turns left."""
    code = _Code(module, "watch", PTR, I64, I64)
    line, state, turns = code.function.args
    with code.loop(turns) as turn:
        with code.when(code.builder.icmp_signed("!=", code.state(line), state)):
            code.leave(code.sub(turns, turn))
        code.pause()
    return code.leave(0)


class _Code(Code):
    """A function, and how it uses words that several threads write: word 0 of each line."""

    def __init__(self, module: Module, name: str, *kinds: Any) -> None:
        self.function = Function(module, FunctionType(I64, kinds), name)
        self.function.linkage = "" if name == _NAME else "internal"
        self.builder = Builder(self.function.append_basic_block("entry"))

    def leave(self, value: Index = 0) -> Function:
        """``return value``."""
        self.builder.ret(self.index(value))
        return self.function

    def box(self, control: Value, worker: Index) -> Value:
        """The line of a worker."""
        return self.at(control, self.mul(self.add(worker, 1), _WORDS), I64)

    @contextmanager
    def boxes(self, control: Value, workers: Value) -> Iterator[Value]:
        """``for box in boxes``."""
        with self.loop(self.add(workers, 1), start=1) as worker:
            yield self.box(control, worker)

    def word(self, line: Value, number: int, kind: Any = PTR) -> Value:
        """A word that stays as it is while it is read here."""
        return self.load(self.at(line, number, I64), kind=kind)

    def state(self, line: Value) -> Value:
        """Word 0; what was written before it can be read after it."""
        return self.builder.load_atomic(line, "acquire", 8, typ=I64)

    def exchange(self, line: Value, new: int) -> Value:
        """Write word 0; return what it was."""
        return self.builder.atomic_rmw("xchg", line, self.index(new), "acq_rel")

    def exchange_if(self, line: Value, old: int, new: int) -> Value:
        """Write word 0 if it is `old`; return whether it was."""
        words = self.index(old), self.index(new)
        pair = self.builder.cmpxchg(line, *words, "acq_rel", "acquire")
        return self.builder.extract_value(pair, 1)

    def acquire(self, control: Value, lock: Value) -> None:
        """Sleep until a lock is released, or go on at once if it has been."""
        self.call(self.word(control, _ACQUIRE), lock, I32(1))

    def release(self, control: Value, lock: Value) -> None:
        """Wake who sleeps at a lock, or is about to."""
        self.call(self.word(control, _RELEASE), lock)

    def pause(self) -> None:
        """Let the other thread of a core go first, and the loop end without a stall."""
        module = self.builder.module
        name, *hints = _PAUSES.get(module.triple.partition("-")[0], [""])
        if name:
            pause = module.declared(name, VOID, [I32] * len(hints))
            self.builder.call(pause, [I32(hint) for hint in hints])


_PAUSES: dict[str, list[Any]] = {
    "x86_64": ["llvm.x86.sse2.pause"],
    "aarch64": ["llvm.aarch64.hint", 1],  # yield
    "arm64": ["llvm.aarch64.hint", 1],
}
