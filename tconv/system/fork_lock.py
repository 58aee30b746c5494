"""Locks that no other thread holds while the process forks, and cached properties without one."""

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
    """A reentrant lock for ``with``, which a fork acquires before the process is copied.

    The child of a fork has one thread. The work of the other threads stays half done there, and
    their locks stay locked: a module that was being imported, LLVM. So a fork waits until the
    holder of this lock is done.

    >>> lock = ForkLock()
    >>> with lock, lock:
    ...     pass
    """

    def __init__(self) -> None:
        self._lock, self._depth = threading.RLock(), 0
        _locks.append(self)

    def __enter__(self) -> None:
        """Acquire the lock."""
        self._lock.acquire()
        self._depth += 1

    def __exit__(self, *_: object) -> None:
        """Release it."""
        self._depth -= 1
        self._lock.release()

    def renew(self) -> None:
        """Make a new lock in the child of a fork, where no thread holds or awaits it."""
        self._lock, self._depth = threading.RLock(), 0


_locks: list[ForkLock] = []
_taken: list[ForkLock] = []  # by the fork in progress
_MOST_TRIES = 20
_AWAITED = frozenset(("tconv", "numpy", "llvmlite", "array_api_compat", "ml_dtypes"))


def _take_all() -> None:
    """Acquire all locks, the newest first: a thread that holds one may ask for an older one."""
    for tries in range(1, _MOST_TRIES + 1):  # files that this very thread imports never end
        for name in _half_imported():
            with suppress(Exception):  # its error is for the thread that asked for it
                import_module(name)
        locks = [*_locks]
        for lock in reversed(locks):
            lock.__enter__()
        is_quiet = len(_locks) == len(locks) and not _half_imported()
        if is_quiet or tries == _MOST_TRIES:
            _taken[:] = locks
            return
        for lock in locks:  # to wait for an import that began meanwhile, or for its new locks
            lock.__exit__()


def _let_go() -> None:
    for lock in [*_taken]:  # another thread may fork once they are free
        lock.__exit__()


def _renew_all() -> None:
    """Make new locks in the child; its thread holds those that it held before."""
    depths = [lock._depth - 1 for lock in _taken]
    for lock in _locks:
        lock.renew()
    for lock, depth in zip(_taken, depths, strict=True):
        for _ in range(depth):
            lock.__enter__()


def _half_imported() -> list[str]:
    """Return the modules that any thread is importing.

    An attribute of NumPy can import one, too: ``numpy.random``, ``numpy.ma``. A module whose file
    Python still searches for is not found here: that takes some 0.1 ms.
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
"""Held while functions import modules: the child of a fork must not find them half imported.

It is the oldest lock, so a thread that holds any others may ask for it. Code that holds it does
nothing but import.
"""


class cached_property(Generic[_Value]):
    """An attribute that is computed on first access, without a lock.

    Up to Python 3.11 that of `functools` holds one lock for all objects of a class. Here threads
    that access it at once may all compute the value, but all get the same one.

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
        """Store the name of the attribute."""
        self._name = name

    @overload
    def __get__(self, instance: None, owner: type) -> "cached_property[_Value]": ...
    @overload
    def __get__(self, instance: object, owner: type | None = None) -> _Value: ...
    def __get__(self, instance: Any, owner: type | None = None) -> Any:
        """Compute and store the value; from then on Python finds it in the object."""
        if instance is None:
            return self
        return vars(instance).setdefault(self._name, self.func(instance))
