"""Progress bar on standard error, if that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from time import monotonic

__all__ = ["Progress", "progress_bar"]

Progress = Callable[[int, int], None]
"""Is told the number done and the total."""

_PATIENCE_S = 1.0  # before the bar appears


@contextmanager
def progress_bar(what: str, note: Callable[[], str] | None = None) -> Iterator[Progress | None]:
    """Yield a function that takes the number done and the total; None without a terminal.

    The bar shows what is done in a second, the time left, and what `note` says of it.

    >>> with progress_bar("images") as progress:
    ...     progress is None
    True
    """
    try:
        from rich import progress as rich
        from rich.console import Console
    except ImportError:
        yield None
        return
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    # Not rich's own `task.speed`, which is None until two steps are done.
    speed = rich.TextColumn("{task.fields[rate]:.1f}/s", style="dim")
    columns = [rich.TextColumn(what), rich.BarColumn(), rich.MofNCompleteColumn(), speed]
    if note is not None:
        columns.append(rich.TextColumn("{task.fields[note]}"))
    columns.append(rich.TimeRemainingColumn())
    bar = rich.Progress(*columns, console=Console(stderr=True), transient=True)
    task, began = bar.add_task(what, total=None, note="", rate=0.0), monotonic()
    started = False

    def tell(done: int, total: int) -> None:
        nonlocal started
        if not started and monotonic() - began > _PATIENCE_S:
            started = True
            bar.start()
        rate = done / max(monotonic() - began, 1e-9)
        bar.update(task, completed=done, total=total, rate=rate, note=note() if note else "")

    try:
        yield tell
    finally:
        if started:
            bar.stop()
