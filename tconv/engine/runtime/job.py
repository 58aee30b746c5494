"""HOW A JOB IS ENTERED: native code, called with its own arguments, counter and scratch.

    arguments = operands' addresses..., counter's address, scratch's address, sizes...

Many threads may call one job at a time, so each call takes arguments and scratch that no other
has. A small job on one thread is entered by a native call that reads the operands' addresses from
the arrays themselves: from Python these take as long as such a job. That is from its second call
on: what is called once need not wait for such code.
"""

import ctypes
from collections.abc import Callable
from functools import partial
from math import inf
from struct import Struct
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.engine.codegen.code import Code
from tconv.engine.codegen.llvm import I8, PTR, VOID, Builder, Function, FunctionType, Module
from tconv.engine.runtime.openmp import run_job
from tconv.engine.runtime.thread_pool import Load
from tconv.system.pointers import DATA_OFFSET, address, is_read

__all__ = ["Job"]

_ALIGN = 64  # bytes of a cache line
_SMALL_CYCLES = 300_000  # a tenth of a millisecond, of which entering takes some per cent
_MOST_KEPT = 8  # scratch buffers that wait for the next call
_NAME = f"tconv_enter_{DATA_OFFSET}"
_ADDRESS, _OBJECT = ctypes.c_void_p, ctypes.py_object

_write = {n: Struct(f"={n}q").pack_into for n in range(1, 8)}

_scratch: list["_Scratch"] = []
"""Buffers that no call uses; a list, because taking from its end is atomic."""


class _Scratch:
    """Memory that a call computes in."""

    def __init__(self, size: int) -> None:
        # Zeros, for what is never written is read into lanes that nobody uses: denormal numbers
        # there would slow their neighbours.
        self.memory = np.zeros(size + _ALIGN, np.uint8)
        self.size = size
        self.address = -(-address(self.memory) // _ALIGN) * _ALIGN


class _Frame:
    """The arguments of one call, with the counter that its threads share, and a flag beside it."""

    def __init__(self, values: NDArray[np.int64]) -> None:
        self.counter = len(values) + _ALIGN // 8  # in a cache line of its own
        self.values = (ctypes.c_int64 * (self.counter + _ALIGN // 8))(*values.tolist())
        self.address = ctypes.addressof(self.values)
        self.counter_address = self.address + 8 * self.counter


class Job:
    """A native function ``job(arguments, thread)`` whose threads share items by a counter.

    Parameters
    ----------
    function : its address, which may be replaced between calls.
    values : all arguments; those that differ from call to call are overwritten.
    load : compiles what enters it.
    cycles : about how many it takes.
    has_flag : whether it may write 1 to the word after the counter, to say something by it.
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
        self._enter: Callable[..., None] | None = None

    def revise(self, values: NDArray[np.int64]) -> None:
        """Replace the arguments, for calls that begin from now on."""
        # Frames of calls that are under way go back to the list that nobody has any more.
        self.values, self._frames = values, []

    def __call__(
        self, operands: tuple[NDArray[Any], ...], threads: int, scratch_bytes: int | None = None
    ) -> bool:
        """Run it on operands, always equally many, and on scratch unless it has none.

        Returns whether it has a flag and set it.
        """
        frames = self._frames
        try:
            frame, is_new = frames.pop(), False
        except IndexError:
            frame, is_new = _Frame(self.values), True
        scratch = None if scratch_bytes is None else _borrowed(scratch_bytes)
        enter = None
        if threads == 1 and self._is_small and scratch:
            enter = self._enter
            if enter is None and not is_new:  # at least the second call
                enter = self._found_entry(len(operands))
        if enter and scratch:
            enter(self.function, frame.address, frame.counter_address, scratch.address, *operands)
        else:
            places = [*map(address, operands), frame.counter_address]
            if scratch:
                places.append(scratch.address)
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

    def _found_entry(self, operands: int) -> Callable[..., None] | None:
        """What enters it; None if there is no such code, and then it goes as larger jobs do."""
        try:
            self._enter = _entry(operands, self._load)
        except Exception:  # of LLVM, or a warning that is an error
            self._is_small = False
        return self._enter


def _borrowed(size: int) -> _Scratch:
    """A buffer of at least so many bytes; what is in it is anybody's guess."""
    try:
        found = _scratch.pop()
    except IndexError:
        return _Scratch(size)
    if found.size >= size:
        return found
    del found  # before there is another, so that never both are held
    return _Scratch(size)


def _entry(count: int, load: Load) -> Callable[..., None]:
    """What enters jobs of so many operands."""
    found = load(f"{_NAME}_{count}", partial(_emit, count=count))
    types: list[Any] = [*[_ADDRESS] * 4, *[_OBJECT] * count]
    entry: Callable[..., None] = ctypes.CFUNCTYPE(None, *types)(found)
    return entry


def _emit(module: Module, count: int) -> None:
    """Emit ``tconv_enter_N(job, arguments, counter, scratch, array...)`` for N arrays.

    arguments[:N + 2] = addresses of arrays..., counter, scratch
    *counter = 0
    job(arguments, 0)
    """
    kind = FunctionType(VOID, [PTR] * (4 + count))
    function = Function(module, kind, f"{_NAME}_{count}")
    code = Code(Builder(function.append_basic_block("entry")))
    job, arguments, counter, scratch, *arrays = function.args
    byte = I8
    places = [code.load(code.at(array, DATA_OFFSET, byte), kind=PTR) for array in arrays]
    for n, place in enumerate((*places, counter, scratch)):
        code.store(place, arguments, n)
    code.store(code.index(0), counter)
    code.call(job, arguments, code.index(0))
    code.end()
