"""Sequences: native steps bound to memory, run by one call on the threads of a team."""

import ctypes
from collections.abc import Callable, Sequence
from functools import cache, partial
from time import perf_counter
from typing import Any, NamedTuple
from weakref import ref

import numpy as np
from numpy.typing import NDArray

from tconv.engine.compile.jit import load
from tconv.engine.runtime.job import run_job
from tconv.engine.target.target import Target
from tconv.system.fork_lock import importing
from tconv.system.pointers import address
from tconv.system.topology import CACHE_LINE_BYTES

__all__ = ["BLOCK", "Arenas", "NativeStep", "Place", "SequenceRunner"]

BLOCK = -1
"""The buffer of a place in the block of a sequence."""

_LINE, _ITEM_BYTES = CACHE_LINE_BYTES, 4
_MOST_ARENAS = 2  # that wait for the next calls


class Place(NamedTuple):
    """The address of an argument: a number of bytes into a buffer of the caller's, or `BLOCK`."""

    word: int
    buffer: int
    offset: int


class NativeStep(NamedTuple):
    """A native function ``run(arguments, thread)`` whose threads share its tasks by a counter.

    `words` gives its arguments and `function` its address; both may change between calls where
    `may_change` says so, as optimised code arrives.
    `places` are the arguments that are addresses in buffers, `constants` those of arrays. A stage
    is a run of steps of which none reads what another writes; `ends_stage` is true for the last.
    A step that sets its flag, the word after the counter, has written wrong results, which
    ``repair(memory)`` writes anew.
    """

    function: Callable[[], int]
    words: Callable[[], NDArray[np.int64]]
    counter: int
    places: tuple[Place, ...]
    constants: tuple[tuple[int, Any], ...] = ()
    scratch: tuple[int, int] | None = None  # arguments: its address; elements from thread to thread
    scratch_bytes: int = 0  # that a thread needs
    ends_stage: bool = True
    numbers: tuple[tuple[int, int], ...] = ()  # arguments that differ from `words`
    repair: Callable[[Callable[[int], NDArray[np.uint8]]], None] | None = None
    may_change: bool = False


class Arenas:
    """Memory of the values between steps and of scratch, which the programs of a network share.

    A call takes an arena that no other call has. One that is too small for a program grows.
    """

    def __init__(self) -> None:
        self._free: list[_Arena] = []  # a list, because popping from its end is atomic

    def take(self, block_bytes: int, scratch_bytes: int) -> "_Arena":
        """Return an arena with room for so much."""
        try:
            arena = self._free.pop()
        except IndexError:
            arena = _Arena()
        if len(arena.block) < block_bytes or len(arena.scratch) < scratch_bytes:
            sizes = max(len(arena.block), block_bytes), max(len(arena.scratch), scratch_bytes)
            arena = _Arena(*sizes)
        return arena

    def give(self, arena: "_Arena") -> None:
        """Keep an arena for the next call."""
        if len(self._free) < _MOST_ARENAS:
            self._free.append(arena)


class _Arena:
    """A block for values, and scratch."""

    def __init__(self, block_bytes: int = 0, scratch_bytes: int = 0) -> None:
        self.block, self.scratch = _aligned(block_bytes), _aligned(scratch_bytes)


class _Frame:
    """Bound arguments of one call at a time, in an arena."""

    def __init__(self, runner: "SequenceRunner", arena: _Arena) -> None:
        with importing:
            from tconv.engine.program.sequence_code import HEAD, STEP

        steps = runner.steps
        self.arena = ref(arena)  # runners keep frames of arenas that are no more
        stages = 1 + sum(step.ends_stage for step in steps)
        # A line for each step's counter and flag, two for each stage.
        self.sync = _aligned((len(steps) + 2 * stages) * _LINE)
        self.sync_bytes = (len(steps) + 2 * stages) * _LINE
        base, of_stages = address(self.sync), address(self.sync) + len(steps) * _LINE
        self.flags = self.sync.view(np.int64)[1 : len(steps) * _LINE // 8 : _LINE // 8]
        self.arguments, rows, stage = list[Any](), list[int](), 0
        self.changing: list[tuple[NativeStep, Any]] = []  # and the arguments that are bound
        self.moves: list[tuple[Any, int, int, int]] = []  # arguments that change with each call
        for n, step in enumerate(steps):
            kept = step.words()
            words = (ctypes.c_int64 * len(kept))(*kept.tolist())
            words[step.counter] = base + n * _LINE
            if step.scratch is not None:
                # A thread has its scratch at one place for all steps: others may still be in the
                # step before it.
                at, pitch = step.scratch
                words[at] = address(arena.scratch)
                words[pitch] = runner.scratch_pitch // _ITEM_BYTES
            for word, number in step.numbers:
                words[word] = number
            for word, array in step.constants:
                words[word] = address(array)
            for word, buffer, offset in step.places:
                if buffer == BLOCK:
                    words[word] = address(arena.block) + offset
                else:
                    self.moves.append((words, word, buffer, offset))
            self.arguments.append(words)
            if step.may_change:
                self.changing.append((step, kept))
            rows += STEP.row(
                function=step.function(),
                arguments=ctypes.addressof(words),
                entered=of_stages + 2 * stage * _LINE,
                left=of_stages + (2 * stage + 1) * _LINE,
                is_last_of_stage=int(step.ends_stage),
            )
            stage += step.ends_stage
        self.table = np.array(rows, np.int64)
        self.head = HEAD.pack(steps=address(self.table), count=len(steps), give_way=_sched_yield())

    def is_current(self) -> bool:
        """Whether no step has got optimised code since."""
        return all(step.words() is kept for step, kept in self.changing)


class SequenceRunner:
    """Steps in order, and the memory that their results lie in.

    Parameters
    ----------
    steps : sequence of NativeStep
    block_bytes : int, of the block that holds the values between steps
    threads : int
    target : Target, the processor that the steps are made for
    arenas : Arenas, memory that other runners use as well; None for its own
    """

    def __init__(
        self,
        steps: Sequence[NativeStep],
        block_bytes: int,
        threads: int,
        target: Target,
        arenas: Arenas | None = None,
    ) -> None:
        self.steps, self.block_bytes, self.threads = list(steps), block_bytes, threads
        self._arenas = arenas or Arenas()
        most = max((step.scratch_bytes for step in steps), default=0)
        self.scratch_pitch = -(-most // _LINE) * _LINE
        self.scratch_bytes = threads * self.scratch_pitch
        self._load = partial(load, target=target)
        self._run = self._load(_name(), _emit)
        self._frames: dict[int, _Frame] = {}  # by the arena that they are bound to

    def run(self, buffers: Sequence[NDArray[Any]]) -> None:
        """Run all steps on the caller's buffers, which are C-contiguous."""
        arena = self._arenas.take(self.block_bytes, self.scratch_bytes)
        frame = self._bound_frame(arena, buffers)
        run_job(self._run, address(frame.head), self.threads, self._load)
        if frame.flags.any():
            self._repair(frame, arena, buffers)
        self._arenas.give(arena)

    def times(self, buffers: Sequence[NDArray[Any]]) -> list[float]:
        """Run the steps one by one; return the seconds of each, its start included."""
        arena = self._arenas.take(self.block_bytes, self.scratch_bytes)
        frame, found = self._bound_frame(arena, buffers), list[float]()
        for step, words in zip(self.steps, frame.arguments, strict=True):
            began = perf_counter()
            run_job(step.function(), ctypes.addressof(words), self.threads, self._load)
            found.append(perf_counter() - began)
        self._arenas.give(arena)
        return found

    def _repair(self, frame: "_Frame", arena: _Arena, buffers: Sequence[NDArray[Any]]) -> None:
        """Run the steps one by one once more, and let those that set their flag mend it."""

        def memory(buffer: int) -> NDArray[np.uint8]:
            array = arena.block if buffer == BLOCK else buffers[buffer]
            return array.reshape(-1).view(np.uint8)

        ctypes.memset(address(frame.sync), 0, frame.sync_bytes)
        for n, (step, words) in enumerate(zip(self.steps, frame.arguments, strict=True)):
            run_job(step.function(), ctypes.addressof(words), self.threads, self._load)
            if frame.flags[n] and step.repair is not None:
                step.repair(memory)

    def _bound_frame(self, arena: _Arena, buffers: Sequence[NDArray[Any]]) -> "_Frame":
        frame = self._frame(arena)
        places = list(map(address, buffers))
        for words, word, buffer, offset in frame.moves:
            words[word] = places[buffer] + offset
        ctypes.memset(address(frame.sync), 0, frame.sync_bytes)
        return frame

    def _frame(self, arena: _Arena) -> _Frame:
        frame = self._frames.pop(id(arena), None)
        if frame is None or frame.arena() is not arena or not frame.is_current():
            frame = _Frame(self, arena)
        if len(self._frames) >= _MOST_ARENAS:  # of arenas that are no more
            self._frames.clear()
        self._frames[id(arena)] = frame
        return frame


def _aligned(count: int) -> NDArray[np.uint8]:
    """Zeros that begin with a cache line; pages that nothing is written to take no memory."""
    memory = np.zeros(count + _LINE, np.uint8)
    start = -address(memory) % _LINE
    return memory[start : start + count]


@cache
def _sched_yield() -> int:
    """The address of the C library's sched_yield, 0 where there is none."""
    try:
        function = ctypes.CDLL(None).sched_yield
    except (AttributeError, OSError, TypeError):
        return 0
    return ctypes.cast(function, ctypes.c_void_p).value or 0


@cache
def _name() -> str:
    with importing:
        from tconv.engine.program.sequence_code import NAME

    return NAME


def _emit(module: Any) -> None:
    with importing:  # a process whose code is on disk emits none
        from tconv.engine.program.sequence_code import emit

    emit(module)
