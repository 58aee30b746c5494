"""WHAT IS COMPILED TWICE: what a first call needs little of, at once as drafts, and well later.

LLVM takes a fifth of the time for code that is not optimised. A driver is long and has little of a
call's time, so that a first call need not wait for it: with a draft calls take up to a sixth longer
(Zen 3). Brief calls have drafts of all but their inner loops, and tiny ones of these, too, which
take three times as long then, but less than LLVM does. They give the same bits, for code says where
products and sums are one. When no new ones have come for a while, a thread compiles them well. Both
are kept on disk, and a process that ends before that leaves the drafts there for the next one:
nobody waits at the end for what is no longer needed.
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
_DELAY_S = 0.2  # the calls after the first, and other shapes' first calls, want LLVM and the cores
_Use = Callable[[Mapping[str, int]], None]
_Key = tuple[str, Target]


class _Draft:
    """A function that is callable and yet to be compiled well, and who wants to know when it is."""

    def __init__(self, name: str, emit: Emit, target: Target, address: int) -> None:
        self.name, self.emit, self.target = name, emit, target
        self.address = address
        self.uses: list[_Use] | None = []  # None if it stays as it is

    def compiled(self) -> dict[str, int]:
        """Compile it well, unless another process has; return its address by name."""
        return find([self.name], self.target) or keep(
            [self.name], text_of([self.emit], self.target), self.target
        )


_drafts: dict[_Key, _Draft] = {}
_waiting: list[_Key] = []  # those that nobody has tried to compile well
_newest_s = 0.0  # when the last of them came
_has_thread = _is_leaving = False
_lock = ForkLock()  # of all that is above
_at_work = ForkLock()  # held while LLVM compiles well
# The latter is taken first, then the former, then that of `jit`; a fork begins with the newest.


def load_tiered(emits: Mapping[str, Emit], target: Target, *, use: _Use) -> None:
    """Tell `use` addresses by name as `load_all` gives them, of drafts for what is not there yet.

    It is told the better ones when they are known, by another thread.
    """
    global _newest_s
    found = find(emits, target)  # may run the user's code, so not under the lock
    with _lock:
        found |= held(emits, target)
        keys = {name: (name, target) for name in emits if name not in found}
        new = {name: emits[name] for name, key in keys.items() if key not in _drafts}
        for name, address in _drafted(new, target).items():
            _drafts[keys[name]] = _Draft(name, emits[name], target, address)
            _waiting.append(keys[name])
            _newest_s = time.monotonic()
        for name, key in keys.items():
            draft = _drafts[key]
            if draft.uses is not None:
                draft.uses.append(use)
            found[name] = draft.address
        use(found)  # under the lock: the better addresses come after these
        if _waiting:
            _start()


def _drafted(emits: Mapping[str, Emit], target: Target) -> dict[str, int]:
    """Return the addresses of drafts by name; those that are not on disk are compiled together."""
    quick = {name: f"draft_{name}" for name in emits}
    found = find(quick.values(), target) if quick else {}
    missing = [name for name in emits if quick[name] not in found]
    if missing:
        text = text_of([emits[name] for name in missing], target)
        for name in missing:
            text = text.replace(f'@"{name}"', f'@"{quick[name]}"')
        names = [quick[name] for name in missing]
        found |= keep(names, text, target, opt=BASELINE)
    return {name: found[quick[name]] for name in emits}


def _start() -> None:
    """Let a thread compile what waits."""
    global _has_thread
    if not _has_thread and not _is_leaving:
        with suppress(RuntimeError, UnsupportedError):  # no more threads: drafts do as well
            check_addresses(_THREAD_BYTES)
            _thread.start_new_thread(_finish, ())  # that of `threading` waits until it runs
            _has_thread = True


def _finish() -> None:
    """Compile what waits, once no more has come for a while."""
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
            _improve()


def wait_for_optimised() -> None:
    """Compile what waits now: who measures calls wants none with drafts."""
    while _waiting and not _is_leaving:
        _improve()
    with _at_work:  # what a thread compiles does not wait any more
        pass


def _improve() -> None:
    """Compile one draft well, and tell its users; if that fails, it goes on as it is."""
    with _at_work:
        with _lock:
            if not _waiting or _is_leaving:
                return
            key = _waiting.pop()
            draft = _drafts[key]
        with suppress(Exception):  # of LLVM, or a warning that is an error
            found = draft.compiled()
            with _lock:
                del _drafts[key]
                for use in draft.uses or ():
                    use(found)
            return
        with _lock:  # who uses it is told nothing any more, and need not be kept for that
            draft.uses = None


@atexit.register
def _leave() -> None:
    """Drop what waits; LLVM must not be at work when the process takes it down."""
    global _is_leaving
    _is_leaving = True
    with _at_work:
        pass


def _start_again() -> None:
    """Compile in the child of a fork, which has none of the threads."""
    global _has_thread
    with _lock:
        _has_thread = False
        if _waiting:
            _start()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_start_again)
