"""Checks of paths, and files that are written whole or not at all."""

import errno
import os
import stat
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from tconv.errors import ParameterError
from tconv.messages import show

__all__ = ["as_path", "check_regular", "check_writable", "regular_file", "suffix_of", "whole_file"]

_KINDS = (
    (stat.S_ISFIFO, "a pipe"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISCHR, "a device"),
    (stat.S_ISBLK, "a device"),
)
_LONG_NAME = 120  # bytes
_ACCESS_LIST = "system.posix_acl_access"


def as_path(value: Any, name: str = "path") -> str:
    """Return the path of a file as a string that the system accepts.

    >>> as_path(3)
    Traceback (most recent call last):
    ...
    tconv.errors.ParameterError: path=3 must be a string or a pathlib.Path; pass one.
    """
    try:
        path = os.fspath(value)
    except TypeError:
        path = None
    if not isinstance(path, str):
        raise ParameterError(f"{name}={show(value)} must be a string or a pathlib.Path; pass one.")
    try:
        is_name = b"\0" not in os.fsencode(path)
    except UnicodeEncodeError:  # half of a surrogate pair
        is_name = False
    if not is_name:
        raise ParameterError(
            f"{name}={show(path)} must be a path without null bytes and halves of surrogate pairs; "
            "pass another."
        )
    return str(path)


def regular_file(path: str | os.PathLike[str]) -> BinaryIO:
    """Open a regular file to read bytes from; no folder, pipe, socket or device.

    A pipe would block, and a device such as /dev/zero would fill the memory.

    Raises
    ------
    ParameterError : path cannot name a file
    OSError : the file cannot be opened, or is of another kind

    >>> regular_file(os.devnull)
    Traceback (most recent call last):
    ...
    OSError: path='/dev/null' is a device, must be a regular file; copy what it gives to one.
    """
    check_regular(path)
    # Another file may have taken its place since: open without blocking, and check it again.
    flags = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_BINARY", 0)
    file = os.fdopen(os.open(path, flags), "rb")
    try:
        _refuse_others(os.fstat(file.fileno()).st_mode, path)
    except OSError:
        file.close()
        raise
    return file


def check_regular(path: str | os.PathLike[str]) -> None:
    """Raise as `regular_file` does, without opening the file: that has effects on some devices."""
    _refuse_others(os.stat(as_path(path)).st_mode, path)


def _refuse_others(mode: int, path: str | os.PathLike[str]) -> None:
    if stat.S_ISDIR(mode):
        raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR), os.fspath(path))
    for is_such, kind in _KINDS:
        if is_such(mode):
            raise OSError(
                f"path={os.fspath(path)!r} is {kind}, must be a regular file; copy what it gives "
                "to one."
            )


def suffix_of(path: str | os.PathLike[str], suffixes: Sequence[str], example: str) -> str:
    """Return the suffix of a name in lower case, which must be one of those given.

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


def check_writable(path: str | os.PathLike[str]) -> None:
    """Raise if `whole_file` could not write to a path; to be called before the work is done.

    Raises
    ------
    ParameterError : it is not a regular file or a new one in a folder that exists
    OSError : the folder accepts no such file

    >>> check_writable("not/there/page.html")
    Traceback (most recent call last):
    ...
    tconv.errors.ParameterError: path='not/there/page.html' must name a file in a folder that \
exists; create '...not/there' first.
    """
    target, _ = _place_of(path)
    trial = _beside(target)
    try:  # a folder's permissions do not tell all: the disk may be read-only, or full
        os.close(os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
        target.lstat()
    except FileNotFoundError:
        pass
    except OSError as error:  # with the path that the caller gave
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    finally:
        trial.unlink(missing_ok=True)


@contextmanager
def whole_file(path: str | os.PathLike[str], *, inherits: bool = True) -> Iterator[Path]:
    """Give a temporary path to write to; after the block its file replaces the one at `path`.

    If the block raises, the temporary file is removed and `path` stays as it was. The new file
    inherits the permissions of the one that it replaces and, where the system allows it, its owner
    and group, unless `inherits` is False; without an older file the umask decides. If `path` is a
    symbolic link, the link stays and its target is replaced; another hard link keeps the older
    file.

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     with whole_file(f"{folder}/greeting.txt") as unfinished:
    ...         _ = unfinished.write_text("hello")
    ...     Path(folder, "greeting.txt").read_text()
    'hello'
    """
    target, older = _place_of(path, inherits)
    beside = _beside(target)
    if older is None or not inherits:
        try:
            yield beside
            beside.replace(target)
        finally:
            beside.unlink(missing_ok=True)
        return
    # In a folder of its own no other user reads it before it has the permissions of the older one.
    try:
        beside.mkdir(0o700)
    except OSError as error:
        raise OSError(error.errno, error.strerror, os.fspath(path)) from None
    unfinished = beside / "unfinished"
    try:
        yield unfinished
        _hand_down(older, target, unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
        with suppress(OSError):
            beside.rmdir()


def _beside(target: Path) -> Path:
    """Return a new name in the same folder, so that the renaming stays within one file system.

    It contains the target's name, unless that is long: file systems allow some 255 bytes.
    """
    name, some = f".{target.name}", os.urandom(4).hex()
    name = name if len(os.fsencode(name)) <= _LONG_NAME else ".tconv"
    return target.with_name(f"{name}.{some}")


def _place_of(
    path: str | os.PathLike[str], inherits: bool = True
) -> tuple[Path, os.stat_result | None]:
    """Return the path that a file is written to, links followed, and the status of an older one."""
    target, older = Path(os.path.realpath(as_path(path))), None
    with suppress(FileNotFoundError, NotADirectoryError):
        older = target.stat()
    name, folder = os.fspath(path), target.parent
    if (older is not None and stat.S_ISDIR(older.st_mode)) or not folder.is_dir():
        fix = "choose another name" if folder.is_dir() else f"create {str(folder)!r} first"
        raise ParameterError(f"path={name!r} must name a file in a folder that exists; {fix}.")
    if older is not None and inherits and not stat.S_ISREG(older.st_mode):
        raise ParameterError(
            f"path={name!r} must name a regular file, not a pipe or device; choose another name."
        )
    if older is not None and _is_kept_by_others(older, folder.stat()):
        raise PermissionError(errno.EPERM, os.strerror(errno.EPERM), name)
    return target, older


def _is_kept_by_others(older: os.stat_result, folder: os.stat_result) -> bool:
    """Return whether a sticky folder such as /tmp lets only another user replace the file."""
    if not folder.st_mode & stat.S_ISVTX or not hasattr(os, "geteuid"):
        return False
    return os.geteuid() not in (0, older.st_uid, folder.st_uid)


def _hand_down(older: os.stat_result, target: Path, unfinished: Path) -> None:
    """Give a file the owner and the permissions of the one that it will replace."""
    mode, new = stat.S_IMODE(older.st_mode) & 0o777, unfinished.stat()
    if hasattr(os, "chown") and (new.st_uid, new.st_gid) != (older.st_uid, older.st_gid):
        with suppress(OSError):
            os.chown(unfinished, -1, older.st_gid)
        with suppress(OSError):
            os.chown(unfinished, older.st_uid, -1)
        if unfinished.stat().st_gid != older.st_gid:  # another group gets the rights of everybody
            mode = mode & ~0o070 | (mode & 0o007) << 3
    unfinished.chmod(mode)
    with suppress(OSError, AttributeError):
        os.setxattr(unfinished, _ACCESS_LIST, os.getxattr(target, _ACCESS_LIST))
