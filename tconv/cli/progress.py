"""Progress bar on standard error, if that is a terminal."""

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from time import monotonic
from typing import Any

from tconv.deconvnet.render import Progress

__all__ = ["progress_bar"]

_PATIENCE_S = 1.0  # before the bar appears


@contextmanager
def progress_bar(what: str) -> Iterator[Progress | None]:
    """Yield a function that takes the number done and the total; None without a terminal.

    >>> with progress_bar("images") as progress:
    ...     progress is None
    True
    """
    try:
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )
    except ImportError:
        yield None
        return
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    rate = TextColumn("{task.speed:.1f}/s", style="dim")
    columns: tuple[Any, ...] = (TextColumn(what), BarColumn(), MofNCompleteColumn(), rate)
    bar = Progress(*columns, TimeRemainingColumn(), console=Console(stderr=True), transient=True)
    task, began = bar.add_task(what, total=None), monotonic()
    started = False

    def tell(done: int, total: int) -> None:
        nonlocal started
        if not started and monotonic() - began > _PATIENCE_S:
            started = True
            bar.start()
        bar.update(task, completed=done, total=total)

    try:
        yield tell
    finally:
        if started:
            bar.stop()
