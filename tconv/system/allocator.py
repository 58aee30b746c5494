"""WHERE LARGE ARRAYS LIE: in memory that is used again as soon as the last array in it is gone.

Memory that the system hands out costs faults and zeros: a result of 113 MB that takes 18 ms to
compute took 33 ms in new memory, and takes 18 ms in memory that was there before (Xeon, 2 cores).
The C library keeps what is freed of smaller arrays, but glibc of none beyond 32 MiB, and of those
from 16 MiB on only if few of them live at once.

Packed weights lie here from 64 KiB on. Those of a call whose weights are made for it, too, are
freed with these at the heap's end, which glibc returns to the system once it is twice as long as
the largest array that was freed: a generator (HiFi-GAN, PyTorch, 2 threads) lost 12 of 270 ms to
new memory, 2,700 faults in each run (Zen 3). For the same reason what stays here is missed
elsewhere: where no large array is freed any more, glibc returns what others free, which was 1,500
faults there. So with each new block one of its size is freed.

A block goes back when its `_Lease` does, which all arrays in it hold: what `empty` returned, its
views, and whatever else keeps one of these. Finalisers run in any thread at any moment, also in
the middle of a call of this file by the same thread. So nobody waits for the lock here: who does
not get it takes new memory, or lets go of what could have been kept.

Who computes the same again and again, as a network in training does, may lend an arena of its own
for as long as it computes: then what is smaller comes back to it, too, and nobody else takes it.
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
_IDLE_SHARE = 8  # and no more than an eighth of the memory that is available at first
_LITTLE_BYTES = 2**22  # for which the system is not asked, which takes as long as a small call
_WASTE_SHARE = 8  # a block is used again for what it is at most an eighth too large for
_MOST_IDLE = 256  # blocks, which are looked through for every array
_MOST_KEPT_BYTES = 2**25  # by glibc, of an array that is freed

_arenas: dict[int, "weakref.ref[Arena]"] = {}
"""All that there are, by id; a dict, because copying its values is atomic."""


class _Block:
    """Memory that is handed from array to array."""

    def __init__(self, size: int) -> None:
        # NumPy asks the system for huge pages from 4 MiB on. Tried a mapping with MADV_HUGEPAGE of
        # our own: its first touch takes as long, 22 ms for 128 MiB (Linux 6.18, Xeon).
        # Tried sizes that are rounded up: a call then takes more memory than it says.
        if size < _MOST_KEPT_BYTES:
            np.empty(
                size + CACHE_LINE_BYTES, np.uint8
            )  # freed at once, as this one would be if it went
        self.memory = np.empty(size + CACHE_LINE_BYTES, np.uint8)
        self.size = size
        start = -self.memory.ctypes.data % CACHE_LINE_BYTES
        self.interface = self.memory[start : start + size].__array_interface__


class _Lease:
    """What the arrays in one block hold together; it goes with the last of them."""

    def __init__(self, arena: "Arena", block: _Block) -> None:
        self._arena, self._block = arena, block
        self.__array_interface__ = block.interface

    def __reduce__(self) -> Any:
        raise TypeError("a lease cannot be copied: its block would come back twice")

    def __del__(self) -> None:
        """Give the block back, once: a finaliser of others might bring the lease back to life."""
        held = self.__dict__
        held.pop("__array_interface__", None)
        block = held.pop("_block", None)
        if block is not None:
            held.pop("_arena").give_back(block)


class Arena:
    """Blocks that no array lies in, the oldest first.

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
        """Bound on what is kept for arrays to come."""
        available, most = available_bytes(), self._cap_bytes
        return most if available is None else min(most, available // _IDLE_SHARE)

    def _may_keep(self, size: int) -> bool:
        """Whether so many bytes are within the bound, which is not asked for where they are few."""
        if size <= _LITTLE_BYTES and "most_idle_bytes" not in self.__dict__:
            return True
        return size <= self.most_idle_bytes

    def _may_be_kept(self, size: int) -> bool:
        """Whether they might be, as far as is known before something is given back."""
        most: int = self.__dict__.get("most_idle_bytes", self._cap_bytes)
        return size <= most

    @property
    def idle_bytes(self) -> int:
        """Bytes that are kept for arrays to come."""
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
        """Let go of all that is kept; return how many bytes that were."""
        dropped, self._idle = self._idle, []  # who works with the old list may go on with it
        return sum(block.size for block in [*dropped])

    def renew(self) -> None:
        """Begin anew in the child of a fork, where nobody would release the lock."""
        self._lock = Lock()

    def give_back(self, block: _Block) -> None:
        """Keep a block that no array lies in any more, and drop the oldest beyond the bound."""
        dropped, lock = [], self._lock  # dropped after the release, for that may take a while
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
        """The newest idle block in which so much fits, without much waste."""
        lock = self._lock  # this very one is released, whatever a fork meanwhile puts in its place
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
    """Return an array of the arena that is lent, or of that which all share."""
    return _lent.get().empty(shape, dtype, least_bytes)


def empty_like(array: NDArray[Any]) -> NDArray[Any] | None:
    """Return one of the same shape and type; None for what NumPy would lay out otherwise.

    >>> y = np.maximum(np.ones(3), 0, out=empty_like(np.ones(3)))
    """
    if type(array) is np.ndarray and array.ndim and array.flags.c_contiguous:
        return empty(array.shape, array.dtype)
    return None


@contextmanager
def lent(arena: Arena) -> Iterator[None]:
    """Let `empty` take from an arena in this thread, unless another one is lent already.

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
    """Let go of all that any arena keeps; return how many bytes that were."""
    return sum(arena.drop_idle() for arena in _living())


def _living() -> list[Arena]:
    return [arena for each in [*_arenas.values()] if (arena := each()) is not None]


def _renew() -> None:
    for arena in _living():
        arena.renew()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_renew)
