"""Progress bar on standard error, if that is a terminal."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta
from shutil import get_terminal_size
from time import monotonic

__all__ = ["Progress", "progress_bar"]

Progress = Callable[[int, int], None]
"""Is told the number done and the total."""

_PATIENCE_S = 1.0  # before the bar appears
_PAUSE_S = 0.1  # between two states of it
_BAR_WIDTH = 24


@contextmanager
def progress_bar(what: str, note: Callable[[], str] | None = None) -> Iterator[Progress | None]:
    """Yield a function that takes the number done and the total; None without a terminal.

    One line shows what is done, in a second too, the time left, and what `note` says of it. It is
    rewritten after a carriage return, without escape sequences, and removed at the end.

    >>> with progress_bar("images") as progress:
    ...     progress is None
    True
    """
    if sys.stderr is None or not sys.stderr.isatty():
        yield None
        return
    stream, began, shown = sys.stderr, monotonic(), 0
    first: tuple[int, float] | None = None
    last = began + _PATIENCE_S - _PAUSE_S

    def tell(done: int, total: int) -> None:
        nonlocal first, last, shown
        now = monotonic()
        first = first or (done, now)
        if now - last < _PAUSE_S:
            return
        rate = (done - first[0]) / (now - first[1]) if now > first[1] else 0.0
        words = note() if note else ""
        line = progress_line(what, done, total, rate, words, get_terminal_size().columns - 1)
        stream.write("\r" + line.ljust(shown))
        stream.flush()
        last, shown = now, len(line)

    try:
        yield tell
    finally:
        if shown:
            stream.write("\r" + " " * shown + "\r")
            stream.flush()


def progress_line(what: str, done: int, total: int, rate: float, note: str, width: int) -> str:
    """Return one line of at most `width` characters; what does not fit is left out, never cut.

    >>> progress_line("images", 6, 24, 0.5, "", 80)
    'images [======                  ] 6/24  0.5/s  0:00:36 left'
    >>> progress_line("images", 6, 24, 0.5, "", 30)
    'images 6/24  0:00:36 left'
    """
    ticks = _BAR_WIDTH * min(done, total) // max(total, 1)
    count = f"{what} {done}/{total}"
    bar = f"{what} [{'=' * ticks:{_BAR_WIDTH}}] {done}/{total}"
    speed = f"  {rate:.1f}/s" if rate else ""
    left = f"  {timedelta(seconds=round((total - done) / rate))} left" if rate else ""
    note = f"  {note}" if note else ""
    lines = [bar + speed + note + left, count + speed + note + left, count + note + left]
    return next((line for line in [*lines, count + left] if len(line) <= width), count)
