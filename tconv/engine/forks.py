"""WHAT A FORK WAITS FOR: locks that are never held by a thread which the child does not have."""

import os
import threading

__all__ = ["ForkLock", "importing"]


class ForkLock:
    """A lock for ``with``, which its thread may take again, and which a fork takes first.

    The child of a fork has one thread. What the others were doing stays half done there, and what
    they had locked stays locked: a module that was being imported, LLVM. So a fork waits until
    whoever holds this lock is done.

    >>> lock = ForkLock()
    >>> with lock, lock:
    ...     pass
    """

    def __init__(self) -> None:
        self._lock, self._depth = threading.RLock(), 0
        if hasattr(os, "register_at_fork"):
            os.register_at_fork(
                before=self.__enter__, after_in_parent=self.__exit__, after_in_child=self._renew
            )

    def __enter__(self) -> None:
        """Wait for the lock and hold it."""
        self._lock.acquire()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        """Let go of it."""
        self._depth -= 1
        self._lock.release()

    def _renew(self) -> None:
        """Leave behind the waiting threads of the parent, and hold what this thread holds."""
        self._lock = threading.RLock()
        for _ in range(self._depth):
            self._lock.acquire()
        self.__exit__()


importing = ForkLock()
"""Held while files are imported late: a child must not find them half imported.

It is the oldest lock, so that it may be asked for by a thread that holds any others.
"""
