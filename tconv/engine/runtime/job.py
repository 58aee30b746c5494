"""Calls of native jobs: each with arguments, a task counter and scratch of its own.

    arguments = addresses of up to four operands, the counter, scratch, more operands, sizes...

Many threads may call one job at a time, so each call takes arguments and scratch that no other call
has. A native call stub starts a small job on one thread: it reads the operands' addresses from the
arrays themselves, which from Python takes as long as such a job. A job uses the stub from its
second call on, so that no first call waits for its compilation.
"""

import ctypes
import threading
from collections.abc import Callable, Mapping
from functools import partial
from math import inf
from struct import Struct
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tconv.engine.runtime import thread_pool
from tconv.engine.runtime.thread_pool import Load
from tconv.system.fork_lock import importing
from tconv.system.pointers import DATA_OFFSET, address, is_read
from tconv.system.topology import CACHE_LINE_BYTES

if TYPE_CHECKING:
    from tconv.engine.codegen.llvm import Module
    from tconv.engine.runtime.openmp import OpenMPBackend

__all__ = ["Job", "run_job", "use_backend"]

_SMALL_CYCLES = 300_000  # a tenth of a millisecond, of which a call from Python takes some per cent
_MOST_KEPT = 8  # free scratch buffers
_BEFORE = 4  # operands whose addresses precede that of the counter
_NAME = f"tconv_call_stub_{DATA_OFFSET}"
_ADDRESS, _OBJECT = ctypes.c_void_p, ctypes.py_object

_write = {n: Struct(f"={n}q").pack_into for n in range(1, 8)}

_scratch: list["_Scratch"] = []
"""Free buffers, in a list, because popping from its end is atomic."""


class _Chosen(threading.local):
    backend: "OpenMPBackend | None" = None


_chosen = _Chosen()


def use_backend(backend: "OpenMPBackend | None") -> None:
    """Choose the threads for this thread's later calls; None is the thread pool."""
    _chosen.backend = backend


def run_job(job: int, args: int, threads: int, load: Load) -> None:
    """Run a job on up to so many threads of the chosen backend, as `thread_pool.run` does."""
    backend = _chosen.backend
    if backend is None or threads <= 1:
        thread_pool.run(job, args, threads, load)
    else:
        backend.run(job, args, threads, load)


class _Scratch:
    """Memory for the intermediate results of a call."""

    def __init__(self, size: int) -> None:
        # Zeros: kernels read lanes that nobody wrote, whose results are dropped, and subnormal
        # numbers there would slow the other lanes.
        self.memory = np.zeros(size + CACHE_LINE_BYTES, np.uint8)
        self.size = size
        self.address = -(-address(self.memory) // CACHE_LINE_BYTES) * CACHE_LINE_BYTES


class _Frame:
    """The arguments of one call, the counter that its threads share, and a flag beside it."""

    def __init__(self, values: NDArray[np.int64]) -> None:
        self.counter = len(values) + CACHE_LINE_BYTES // 8  # in a cache line of its own
        self.values = (ctypes.c_int64 * (self.counter + CACHE_LINE_BYTES // 8))(*values.tolist())
        self.address = ctypes.addressof(self.values)
        self.counter_address = self.address + 8 * self.counter


class Job:
    """A native function ``job(arguments, thread)`` whose threads share its tasks by a counter.

    Parameters
    ----------
    function : its address, which may be replaced between calls.
    values : all arguments; each call overwrites those of its own.
    load : compiles the call stub.
    cycles : about how many the job takes.
    has_flag : whether the job may set a flag, by writing 1 to the word after the counter.
    """

    def __init__(
        self,
        function: int,
        values: NDArray[np.int64],
        load: Load,
        cycles: float = inf,
        has_flag: bool = False,
    ) -> None:
        self.function, self.values, self._load = function, values, load
        self._has_flag = has_flag
        self._frames: list[_Frame] = []
        self._is_small = cycles < _SMALL_CYCLES and is_read
        self._stub: Callable[..., None] | None = None

    def revise(self, values: NDArray[np.int64]) -> None:
        """Replace the arguments of later calls."""
        # Calls that are under way return their frames to the old list, which nobody reads.
        self.values, self._frames = values, []

    def __call__(
        self,
        operands: tuple[NDArray[Any], ...],
        threads: int,
        scratch_bytes: int | None = None,
        words: Mapping[int, int] | None = None,
    ) -> bool:
        """Run the job on operands, always equally many, and on scratch if it uses any.

        `words` are arguments of this call alone, by place. Returns whether the job set its flag.
        """
        frames = self._frames if words is None else []
        try:
            frame, is_new = frames.pop(), False
        except IndexError:
            frame, is_new = _Frame(self.values), True
        scratch = None if scratch_bytes is None else _borrowed(scratch_bytes)
        for place, word in (words or {}).items():
            frame.values[place] = word
        stub = None
        if threads == 1 and self._is_small and scratch:
            stub = self._stub
            if stub is None and not is_new:  # at least the second call
                stub = self._load_stub(len(operands))
        if stub and scratch:
            stub(self.function, frame.address, frame.counter_address, scratch.address, *operands)
        else:
            places = [*map(address, operands[:_BEFORE]), frame.counter_address]
            if scratch:
                places.append(scratch.address)
            places += map(address, operands[_BEFORE:])
            _write[len(places)](frame.values, 0, *places)
            frame.values[frame.counter] = 0
            run_job(self.function, frame.address, threads, self._load)
        is_set = False
        if self._has_flag and frame.values[frame.counter + 1]:
            is_set, frame.values[frame.counter + 1] = True, 0
        frames.append(frame)
        if scratch and len(_scratch) < _MOST_KEPT:
            _scratch.append(scratch)
        return is_set

    def _load_stub(self, operands: int) -> Callable[..., None] | None:
        """Return the call stub; None if it does not compile, and then calls go without one."""
        try:
            self._stub = _stub(operands, self._load)
        except Exception:  # of LLVM, or a warning that is an error
            self._is_small = False
        return self._stub


def _borrowed(size: int) -> _Scratch:
    """Return a buffer of at least so many bytes, with any content."""
    try:
        found = _scratch.pop()
    except IndexError:
        return _Scratch(size)
    if found.size >= size:
        return found
    del found  # before the larger one is allocated, so that memory never holds both
    return _Scratch(size)


def _stub(count: int, load: Load) -> Callable[..., None]:
    """Return the native call stub of jobs with so many operands."""
    found = load(f"{_NAME}_{count}", partial(_emit, count=count))
    types: list[Any] = [*[_ADDRESS] * 4, *[_OBJECT] * count]
    stub: Callable[..., None] = ctypes.CFUNCTYPE(None, *types)(found)
    return stub


def _emit(module: "Module", count: int) -> None:
    """Emit ``call_stub(job, arguments, counter, scratch, array...)`` for `count` arrays.

    arguments[:count + 2] = addresses of arrays[:4], counter, scratch, addresses of arrays[4:]
    *counter = 0
    job(arguments, 0)
    """
    with importing:  # a process whose kernels are on disk emits none
        from tconv.engine.codegen.code import Code
        from tconv.engine.codegen.llvm import I8, PTR, VOID, Builder, Function, FunctionType

    kind = FunctionType(VOID, [PTR] * (4 + count))
    function = Function(module, kind, f"{_NAME}_{count}")
    code = Code(Builder(function.append_basic_block("entry")))
    job, arguments, counter, scratch, *arrays = function.args
    places = [code.load(code.at(array, DATA_OFFSET, I8), kind=PTR) for array in arrays]
    for n, place in enumerate((*places[:_BEFORE], counter, scratch, *places[_BEFORE:])):
        code.store(place, arguments, n)
    code.store(code.index(0), counter)
    code.call(job, arguments, code.index(0))
    code.end()
