"""Tiered compilation: first calls run code compiled at -O0, which optimised code soon replaces.

LLVM compiles code in a fifth of the time when it does not optimise it. A driver is long and takes
little of a call's time, so with a baseline driver calls take up to a sixth longer (Zen 3). Brief
calls have baseline code for all but their inner loops. Tiny calls have it for these, too, which
then take three times as long, but less than LLVM would. Baseline and optimised code give the same
bits, because emitters say where a product and a sum are one operation. When no new code has come
for a while, a thread compiles the optimised code. Both are kept in the disk cache, and a process
that ends before leaves its baseline code there for the next one: nobody waits at exit for code that
is no longer needed.
"""

import _thread
import atexit
import os
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from tconv.engine.compile.jit import BASELINE, Emit, find, held, keep, text_of
from tconv.engine.target.target import Target
from tconv.errors import UnsupportedError
from tconv.system.fork_lock import ForkLock
from tconv.system.memory import check_addresses

__all__ = ["load_tiered", "wait_for_optimised"]

_THREAD_BYTES = 2**28  # of addresses: twice what LLVM needs, for calls go on meanwhile
_DELAY_S = 0.2  # later calls, and first calls of other shapes, need LLVM and the cores before
_Use = Callable[[Mapping[str, int]], None]
_Key = tuple[str, Target]


class _Baseline:
    """A function with baseline code only, and the callbacks that take its optimised code."""

    def __init__(self, name: str, emit: Emit, target: Target, address: int) -> None:
        self.name, self.emit, self.target, self.address = name, emit, target, address
        self.uses: list[_Use] | None = []  # None if there will be no optimised code

    def optimised(self) -> dict[str, int]:
        """Compile it with optimisation, unless another process has; return its address by name."""
        return find([self.name], self.target) or keep(
            [self.name], text_of([self.emit], self.target), self.target
        )


_baselines: dict[_Key, _Baseline] = {}
_waiting: list[_Key] = []  # baselines that nobody has tried to optimise
_newest_s = 0.0  # when the last of them came
_has_thread = _is_leaving = False
_lock = ForkLock()  # of all of the above
_at_work = ForkLock()  # held while LLVM optimises
# Threads take `_at_work` first, then `_lock`, then that of `jit`; a fork begins with the newest.


def load_tiered(emits: Mapping[str, Emit], target: Target, *, use: _Use) -> None:
    """Pass addresses by name to `use`, as `load_all` gives them; new functions get baseline code.

    Another thread passes the addresses of optimised code to `use` when there are any.
    """
    global _newest_s
    found = find(emits, target)  # outside the lock, because a warning may run the user's code
    with _lock:
        found |= held(emits, target)
        keys = {name: (name, target) for name in emits if name not in found}
        new = {name: emits[name] for name, key in keys.items() if key not in _baselines}
        for name, address in _compile_baseline(new, target).items():
            _baselines[keys[name]] = _Baseline(name, emits[name], target, address)
            _waiting.append(keys[name])
            _newest_s = time.monotonic()
        for name, key in keys.items():
            baseline = _baselines[key]
            if baseline.uses is not None:
                baseline.uses.append(use)
            found[name] = baseline.address
        use(found)  # under the lock, so that optimised code comes after it
        if _waiting:
            _start()


def _compile_baseline(emits: Mapping[str, Emit], target: Target) -> dict[str, int]:
    """Return addresses of baseline code by name; what the disk cache lacks is one module."""
    names = {name: f"baseline_{name}" for name in emits}
    found = find(names.values(), target) if names else {}
    missing = [name for name in emits if names[name] not in found]
    if missing:
        text = text_of([emits[name] for name in missing], target)
        for name in missing:
            text = text.replace(f'@"{name}"', f'@"{names[name]}"')
        found |= keep([names[name] for name in missing], text, target, opt=BASELINE)
    return {name: found[names[name]] for name in emits}


def _start() -> None:
    """Start the thread that optimises, unless it runs."""
    global _has_thread
    if not _has_thread and not _is_leaving:
        with suppress(RuntimeError, UnsupportedError):  # no more threads: baseline code goes on
            check_addresses(_THREAD_BYTES)
            _thread.start_new_thread(_optimise_all, ())  # `threading` waits until it runs
            _has_thread = True


def _optimise_all() -> None:
    """Optimise all that waits, once nothing new has come for a while."""
    global _has_thread
    while True:
        with _lock:
            wait_s = _newest_s + _DELAY_S - time.monotonic()
            if not _waiting or _is_leaving:
                _has_thread = False
                return
        if wait_s > 0:
            time.sleep(wait_s)
        else:
            _optimise_one()


def wait_for_optimised() -> None:
    """Optimise now all that waits, and return when it is done: before calls are timed."""
    while _waiting and not _is_leaving:
        _optimise_one()
    with _at_work:  # another thread may be compiling the last one
        pass


def _optimise_one() -> None:
    """Optimise one function and pass it to its users; if that fails, baseline code goes on."""
    with _at_work:
        with _lock:
            if not _waiting or _is_leaving:
                return
            key = _waiting.pop()
            baseline = _baselines[key]
        with suppress(Exception):  # of LLVM, or a warning that is an error
            found = baseline.optimised()
            with _lock:
                del _baselines[key]
                for use in baseline.uses or ():
                    use(found)
            return
        with _lock:  # its users need not be kept alive, for nothing will be passed to them
            baseline.uses = None


@atexit.register
def _leave() -> None:
    """Drop what waits; LLVM must not be at work when the process takes it down."""
    global _is_leaving
    _is_leaving = True
    with _at_work:
        pass


def _start_again() -> None:
    """Optimise in the child of a fork, which has none of the threads."""
    global _has_thread
    with _lock:
        _has_thread = False
        if _waiting:
            _start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_again)
