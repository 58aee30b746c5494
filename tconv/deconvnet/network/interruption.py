"""Work that Ctrl-C ends at once, even while ONNX Runtime or the engine computes."""

import atexit
import os
import sys
from collections.abc import Callable
from contextlib import suppress
from contextvars import copy_context
from threading import Event, Thread, current_thread, main_thread
from typing import Any, TypeVar

__all__ = ["check_interrupted", "interruptible", "stoppable"]

T = TypeVar("T")

_POLL_S = 0.1  # where a signal does not wake a thread that waits, as on Windows
_INTERRUPTED = 130  # exit code of a process that Ctrl-C ended
_GRACE_S = 0.5  # in which work that was told to stop may end in order


class _Work(Thread):
    """A thread with one task. It dies with the process: native code that runs delays no exit."""

    def __init__(self, function: Callable[[], Any]) -> None:
        super().__init__(daemon=True, name="tconv see")
        self._function, self._context = function, copy_context()
        self.result: Any = None
        self.error: BaseException | None = None
        self.is_interrupted = False
        self.run_options: Any = None
        # Python 3.11 takes a thread for stopped when Ctrl-C interrupts `join`.
        self.finished = Event()

    def run(self) -> None:
        try:
            self.result = self._context.run(self._function)
        except BaseException as error:  # the thread that waits raises it
            self.error = error
        finally:
            self.finished.set()

    def interrupt(self) -> None:
        self.is_interrupted = True
        if self.run_options is not None:
            self.run_options.terminate = True


def interruptible(function: Callable[[], T]) -> T:
    """Return what `function` returns; KeyboardInterrupt is raised at once while it computes.

    Python tells of a signal only between its own instructions, and a run of a network is one. So
    the function runs in a second thread, and the main thread waits.

    >>> interruptible(lambda: 2 + 3)
    5
    """
    if current_thread() is not main_thread():  # signals reach the main thread only
        return function()
    work = _Work(function)
    try:
        work.start()
        while not work.finished.wait(_POLL_S):
            pass
    except KeyboardInterrupt:
        work.interrupt()
        if work.ident is not None and not work.finished.wait(_GRACE_S):
            atexit.register(_end_with, work)
        raise
    if work.error is not None:
        raise work.error
    result: T = work.result
    return result


def _end_with(work: _Work) -> None:
    """End the process at once if work goes on: Python aborts where it ends amid native code."""
    if not work.finished.is_set():
        for stream in (sys.stdout, sys.stderr):
            with suppress(OSError, ValueError, AttributeError):
                stream.flush()
        os._exit(_INTERRUPTED)


def check_interrupted() -> None:
    """Raise KeyboardInterrupt in a function of `interruptible` that Ctrl-C has ended."""
    work = current_thread()
    if isinstance(work, _Work) and work.is_interrupted:
        raise KeyboardInterrupt


def stoppable(run_options: Any) -> Any:
    """Return ONNX Runtime's options of a run, which `interruptible` may stop between two nodes."""
    work = current_thread()
    if isinstance(work, _Work):
        work.run_options = run_options
    check_interrupted()
    return run_options
