"""WHAT IS COMPILED TWICE: drivers, at once as drafts, and well a moment later.

LLVM takes a tenth of the time for code that is not optimised. A driver is long and has little of a
call's time, so that a first call need not wait for it: with a draft calls take up to a sixth longer
(Zen 3), and give the same bits, for drivers do not compute numbers. A thread, or the end of the
process, compiles it well and keeps it on disk, so that a later process has no draft at all.
"""

import atexit
import os
import threading
import time
from collections.abc import Callable, Mapping
from contextlib import suppress

from tconv.engine.forks import ForkLock
from tconv.engine.jit import Emit, draft, find, keep, text_of
from tconv.engine.target import Target
from tconv.errors import UnsupportedError

__all__ = ["load_drafted"]

_DELAY_S = 0.2  # the calls after the first, and other shapes' first calls, want LLVM and the cores
_Use = Callable[[Mapping[str, int]], None]
_Key = tuple[str, str, Target]


class _Draft:
    """What is yet to be compiled well, and who wants to know when it is."""

    def __init__(self, address: int, name: str, text: str, version: str, target: Target) -> None:
        self.address, self.name, self.text = address, name, text
        self.version, self.target = version, target
        self.uses: list[_Use] = []


_drafts: dict[_Key, _Draft] = {}
_lock = ForkLock()


def load_drafted(
    emits: Mapping[str, Emit], target: Target, *, version: str, use: _Use
) -> dict[str, int]:
    """Return addresses as `load_all` does; of drafts where functions are not there yet.

    `use` is told the better addresses when they are known, by another thread.
    """
    found = find(emits, target, version=version)
    is_new = False
    with _lock:
        for name in [name for name in emits if name not in found]:
            key = (name, version, target)
            if key not in _drafts:
                text = text_of([emits[name]], target)
                quick = f"draft_{name}"
                of_draft = text.replace(f'@"{name}"', f'@"{quick}"')
                address = draft([quick], of_draft, target)[quick]
                _drafts[key] = _Draft(address, name, text, version, target)
                is_new = True
            _drafts[key].uses.append(use)
            found[name] = _drafts[key].address
    if is_new:
        _start()
    return found


def _start() -> None:
    with suppress(RuntimeError):  # at the end of the process there are no new threads
        threading.Thread(target=_wait_and_finish, name="tconv drafts", daemon=True).start()


def _wait_and_finish() -> None:
    time.sleep(_DELAY_S)
    _finish()


@atexit.register
def _finish() -> None:
    """Compile what there are drafts of; who ends the process waits for a thread that does."""
    with _lock:
        while _drafts:
            each = _drafts.pop(next(iter(_drafts)))
            with suppress(UnsupportedError):
                found = find([each.name], each.target, version=each.version) or keep(
                    [each.name], each.text, each.target, version=each.version
                )
                for use in each.uses:
                    use(found)


if hasattr(os, "register_at_fork"):  # the child has none of the threads
    os.register_at_fork(after_in_child=lambda: _start() if _drafts else None)
