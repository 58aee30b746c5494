"""Fork safety: locks that no thread holds while the process forks, and properties without one."""

import os
import sys
import threading
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any, Generic, TypeVar, overload

__all__ = ["ForkLock", "cached_property", "importing"]

_Value = TypeVar("_Value")


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
        _locks.append(self)

    def __enter__(self) -> None:
        """Wait for the lock and hold it."""
        self._lock.acquire()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        """Let go of it."""
        self._depth -= 1
        self._lock.release()

    def renew(self) -> None:
        """Leave behind the threads of the parent; in the child nobody holds or awaits it."""
        self._lock, self._depth = threading.RLock(), 0


_locks: list[ForkLock] = []
_taken: list[ForkLock] = []  # by the fork that is under way
_MOST_TRIES = 20
_AWAITED = frozenset(("tconv", "numpy", "llvmlite", "array_api_compat", "ml_dtypes"))


def _take_all() -> None:
    """Take all locks, the newest first, as who holds one may ask for an older one."""
    for tries in range(1, _MOST_TRIES + 1):  # files that this thread imports are there for ever
        for name in _half_imported():
            with suppress(Exception):  # it fails there, and nobody here has asked for it
                import_module(name)
        locks = [*_locks]
        for lock in reversed(locks):
            lock.__enter__()
        is_quiet = len(_locks) == len(locks) and not _half_imported()
        if is_quiet or tries == _MOST_TRIES:
            _taken[:] = locks
            return
        for lock in locks:  # to wait for a file that began meanwhile, or has brought its own
            lock.__exit__()


def _let_go() -> None:
    for lock in [*_taken]:  # which is another thread's once they are free
        lock.__exit__()


def _renew_all() -> None:
    """Begin anew in the child, where the thread that forked holds what it held before."""
    depths = [lock._depth - 1 for lock in _taken]
    for lock in _locks:
        lock.renew()
    for lock, depth in zip(_taken, depths, strict=True):
        for _ in range(depth):
            lock.__enter__()


def _half_imported() -> list[str]:
    """Files that are being executed, for import statements of any thread.

    A name of NumPy can be such a statement, too: ``numpy.random``, ``numpy.ma``. A file that is
    only being looked for is not seen here: that takes some 0.1 ms.
    """
    return [
        name
        for name, module in [*sys.modules.items()]
        if name.partition(".")[0] in _AWAITED
        and getattr(getattr(module, "__spec__", None), "_initializing", False)
    ]


if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=_take_all, after_in_parent=_let_go, after_in_child=_renew_all)

importing = ForkLock()
"""Held while files are imported late: a child must not find them half imported.

It is the oldest lock, so that it may be asked for by a thread that holds any others. While it is
held nothing is done but importing.
"""


class cached_property(Generic[_Value]):
    """An attribute that is computed when it is first asked for, and without a lock.

    That of `functools` holds one lock for all objects of a class up to Python 3.11. Threads that
    ask at once may all compute the value here, but all are given the same.

    >>> class Circle:
    ...     radius = 2
    ...
    ...     @cached_property
    ...     def area(self):
    ...         return 3 * self.radius**2
    >>> circle = Circle()
    >>> circle.area, vars(circle)
    (12, {'area': 12})
    """

    def __init__(self, func: Callable[[Any], _Value]) -> None:
        self.func, self.__doc__ = func, func.__doc__

    def __set_name__(self, owner: type, name: str) -> None:
        """Learn under which name the value is kept."""
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> "cached_property[_Value]": ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> _Value: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Compute the value; Python looks for it in the object first, so not again."""
        if instance is None:
            return self
        return vars(instance).setdefault(self._name, self.func(instance))
