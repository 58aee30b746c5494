"""Allocator of large arrays: a free list of blocks, each reused once the last array in it is gone.

New memory costs page faults and zeroing: a result of 113 MB that takes 18 ms to compute took 33 ms
in new memory, and takes 18 ms in reused memory (Xeon, 2 cores). The C library keeps freed memory of
smaller arrays; but glibc keeps none of an array beyond 32 MiB, and from 16 MiB on only if few such
arrays live at once.

Packed weights are allocated here from 64 KiB on. If the weights are computed anew for each call,
they and their packed form are freed together at the end of the heap, which glibc returns to the
system once it is twice as long as the largest freed array: a generator (HiFi-GAN, PyTorch, 2
threads) lost 12 of 270 ms to new memory, 2,700 faults in each run (Zen 3). For the same reason
memory that stays here is missed elsewhere: where no large array is freed any more, glibc returns
what other code frees, which was 1,500 faults there. So each new block first frees one of its size.

A block comes back with its `_Lease`, which all arrays in it hold: the result of `empty`, its views,
and whatever else keeps one of these. Finalisers run in any thread at any moment, also in the middle
of a call of this file by the same thread. So nobody waits for the lock here: a thread that does not
get it allocates new memory, or frees a block that could have been kept.

Code that computes the same again and again, as a network in training does, may lend an arena of its
own meanwhile: smaller arrays then come back to that arena, too, and no other code takes them.
"""

import os
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from math import inf, prod
from threading import Lock
from typing import Any

import numpy as np
from numpy.typing import DTypeLike, NDArray

from tconv.errors import MemoryLimitError
from tconv.system.fork_lock import cached_property
from tconv.system.memory import available_bytes
from tconv.system.topology import CACHE_LINE_BYTES

__all__ = ["Arena", "drop_idle", "empty", "empty_like", "lent"]

_LEAST_BYTES = 2**24
_MOST_IDLE_BYTES = 2**28  # two results of a large network
_IDLE_SHARE = 8  # at most an eighth of the memory that was available at first
_LITTLE_BYTES = 2**22  # kept without asking the system, which takes as long as a small call
_WASTE_SHARE = 8  # a block is reused for arrays that it is at most an eighth too large for
_MOST_IDLE = 256  # blocks, which every allocation searches
_MOST_KEPT_BYTES = 2**25  # by glibc, of an array that is freed

_arenas: dict[int, "weakref.ref[Arena]"] = {}
"""All arenas by id; a dict, because copying its values is atomic."""


class _Block:
    """Memory that one array after another uses."""

    def __init__(self, size: int) -> None:
        # NumPy asks the system for huge pages from 4 MiB on. Tried a mapping with MADV_HUGEPAGE of
        # our own: its first touch takes as long, 22 ms for 128 MiB (Linux 6.18, Xeon).
        # Tried rounding sizes up: a call then takes more memory than it reports.
        if size < _MOST_KEPT_BYTES:
            np.empty(size + CACHE_LINE_BYTES, np.uint8)  # freed at once: see the top of this file
        self.memory = np.empty(size + CACHE_LINE_BYTES, np.uint8)
        self.size = size
        start = -self.memory.ctypes.data % CACHE_LINE_BYTES
        self.interface = self.memory[start : start + size].__array_interface__


class _Lease:
    """The object that all arrays in a block hold; it goes with the last of them."""

    def __init__(self, arena: "Arena", block: _Block) -> None:
        self._arena, self._block = arena, block
        self.__array_interface__ = block.interface

    def __reduce__(self) -> Any:
        raise TypeError("a lease cannot be copied: its block would come back twice")

    def __del__(self) -> None:
        """Give the block back, once: another finaliser might bring the lease back to life."""
        held = self.__dict__
        held.pop("__array_interface__", None)
        block = held.pop("_block", None)
        if block is not None:
            held.pop("_arena").give_back(block)


class Arena:
    """A free list of blocks that no array uses, the oldest first.

    >>> arena = Arena(least_bytes=2**10, most_idle_bytes=2**16)
    >>> y = arena.empty((2**12,), np.float32)
    >>> arena.idle_bytes
    0
    >>> del y
    >>> arena.idle_bytes
    16384
    """

    def __init__(
        self,
        least_bytes: int = _LEAST_BYTES,
        most_idle_bytes: int | None = None,
        cap_bytes: int = _MOST_IDLE_BYTES,
    ) -> None:
        self.least_bytes, self._cap_bytes = least_bytes, cap_bytes
        if most_idle_bytes is not None:
            self.most_idle_bytes = most_idle_bytes
        self._idle: list[_Block] = []
        self._lock = Lock()
        own, forget = id(self), _arenas.pop
        _arenas[own] = weakref.ref(self, lambda _: forget(own, None))

    @cached_property
    def most_idle_bytes(self) -> int:
        """Bound on the bytes of idle blocks."""
        available, most = available_bytes(), self._cap_bytes
        return most if available is None else min(most, available // _IDLE_SHARE)

    def _may_keep(self, size: int) -> bool:
        """Return whether so many bytes are within the bound; a few are, without computing it."""
        if size <= _LITTLE_BYTES and "most_idle_bytes" not in self.__dict__:
            return True
        return size <= self.most_idle_bytes

    def _may_be_kept(self, size: int) -> bool:
        """Return whether a block of this size may be within the bound when it comes back."""
        most: int = self.__dict__.get("most_idle_bytes", self._cap_bytes)
        return size <= most

    @property
    def idle_bytes(self) -> int:
        """Bytes of idle blocks."""
        return sum(block.size for block in [*self._idle])

    def empty(
        self, shape: tuple[int, ...], dtype: DTypeLike, least_bytes: float = inf
    ) -> NDArray[Any]:
        """Return an array as ``numpy.empty`` does, aligned to 64 bytes where it is large.

        Large is from `least_bytes` on, if that is less than the arena's.
        """
        dtype = np.dtype(dtype)
        size = prod(shape) * dtype.itemsize
        try:
            if size < min(self.least_bytes, least_bytes):
                return np.empty(shape, dtype)
            return self._large(shape, dtype, size)
        except MemoryError:
            drop_idle()
        try:
            return np.empty(shape, dtype)
        except MemoryError:
            raise MemoryLimitError(
                f"the system refuses {size:,} bytes for an array {shape}; lower the sizes or split "
                "the batch."
            ) from None

    def drop_idle(self) -> int:
        """Free all idle blocks; return how many bytes they had."""
        dropped, self._idle = self._idle, []  # a thread that uses the old list may go on with it
        return sum(block.size for block in [*dropped])

    def renew(self) -> None:
        """Make a new lock in the child of a fork, where nobody would release the old one."""
        self._lock = Lock()

    def give_back(self, block: _Block) -> None:
        """Keep a block that no array uses any more, and free the oldest ones beyond the bound."""
        dropped, lock = [], self._lock  # freed after the release, as that may take a while
        if self._may_keep(block.size) and lock.acquire(blocking=False):
            try:
                idle, size = self._idle, block.size
                while len(idle) >= _MOST_IDLE or not self._may_keep(
                    size + sum(each.size for each in idle)
                ):
                    dropped.append(idle.pop(0))
                idle.append(block)
            finally:
                lock.release()

    def _large(self, shape: tuple[int, ...], dtype: np.dtype[Any], size: int) -> NDArray[Any]:
        if dtype.hasobject or not self._may_be_kept(size):
            return np.empty(shape, dtype)
        lease = _Lease(self, self._taken(size) or _Block(size))
        return np.ndarray(shape, dtype, buffer=np.asarray(lease))

    def _taken(self, size: int) -> _Block | None:
        """Take the newest idle block in which so much fits without much waste."""
        lock = self._lock  # a fork may replace it meanwhile; this very one must be released
        if lock.acquire(blocking=False):
            try:
                idle = self._idle
                for n in reversed(range(len(idle))):
                    if size <= idle[n].size <= size + size // _WASTE_SHARE:
                        return idle.pop(n)
            finally:
                lock.release()
        return None


_shared = Arena()
_lent: ContextVar[Arena] = ContextVar("_lent", default=_shared)


def empty(shape: tuple[int, ...], dtype: DTypeLike, least_bytes: float = inf) -> NDArray[Any]:
    """Return an uninitialised array from the lent arena, or from the shared one."""
    return _lent.get().empty(shape, dtype, least_bytes)


def empty_like(array: NDArray[Any]) -> NDArray[Any] | None:
    """Return an array of the same shape and type; None if NumPy would give it another layout.

    >>> y = np.maximum(np.ones(3), 0, out=empty_like(np.ones(3)))
    """
    if type(array) is np.ndarray and array.ndim and array.flags.c_contiguous:
        return empty(array.shape, array.dtype)
    return None


@contextmanager
def lent(arena: Arena) -> Iterator[None]:
    """Make `empty` allocate from an arena in this thread, unless another one is lent already.

    >>> with lent(Arena(least_bytes=1, most_idle_bytes=2**16)):
    ...     y = empty((3,), np.float32)
    """
    if _lent.get() is not _shared:
        yield
        return
    token = _lent.set(arena)
    try:
        yield
    finally:
        _lent.reset(token)


def drop_idle() -> int:
    """Free the idle blocks of all arenas; return how many bytes they had."""
    return sum(arena.drop_idle() for arena in _living())


def _living() -> list[Arena]:
    return [arena for each in [*_arenas.values()] if (arena := each()) is not None]


def _renew() -> None:
    for arena in _living():
        arena.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
