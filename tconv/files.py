"""HOW FILES ARE WRITTEN, complete or not at all; and how small ones are read."""

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from tconv.arguments import as_path, show
from tconv.errors import ParameterError

__all__ = ["content", "suffix_of", "whole_file"]

_PART_BYTES = 2**15  # larger buffers come from the system, which takes as long as reading


def content(path: str) -> str:
    """Return what stands in a small text file, such as the system makes as they are read.

    A first call reads dozens of them, so that what `open` and `pathlib` add counted: 0.5 ms.
    """
    file, found = os.open(path, os.O_RDONLY), b""
    try:
        while part := os.read(file, _PART_BYTES):
            found += part
    finally:
        os.close(file)
    return found.decode()


def suffix_of(path: str | os.PathLike[str], suffixes: Sequence[str], example: str) -> str:
    """Return the end of a name, in small letters, which must be one of those given.

    >>> suffix_of("Page.HTML", (".html", ".png"), "page.html")
    '.html'
    """
    name = as_path(path)
    suffix = Path(name).suffix.lower()
    if suffix not in suffixes:
        raise ParameterError(
            f"path={show(name)} must end in one of {', '.join(suffixes)}; name the file "
            f"{example}, say."
        )
    return suffix


@contextmanager
def whole_file(path: str | os.PathLike[str]) -> Iterator[Path]:
    """Give a name to write to; after the block the file there takes the place of `path`.

    If the block raises, nothing is left of it and what stood at `path` before stays.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole_file(f"{folder}/greeting.txt") as unfinished:
    ...         _ = unfinished.write_text("hello")
    ...     Path(folder, "greeting.txt").read_text()
    'hello'
    """
    target = Path(os.path.realpath(as_path(path)))
    if target.is_dir() or not target.parent.is_dir():
        fix = "choose another name" if target.is_dir() else f"create {str(target.parent)!r} first"
        raise ParameterError(
            f"path={os.fspath(path)!r} must name a file in a folder that exists; {fix}."
        )
    # In the same folder, so that the rename stays within one file system.
    unfinished = target.with_name(f".{target.name}.{os.urandom(4).hex()}")
    try:
        yield unfinished
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
