"""WHERE MACHINE CODE IS KEPT: a file for each kernel, used only if nobody else can have written it.

A file is a magic word, a checksum of its own name and the object, and the object, which may have
other kernels besides: those compiled at the same time. Whatever is wrong with a file or its folder,
the kernel is compiled again: a broken cache costs time and nothing else.
"""

import os
import re
import stat
import time
import warnings
from collections.abc import Callable, Iterable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TypedDict

from tconv.engine.target import cache_folder
from tconv.errors import ParameterError
from tconv.files import content, whole_file

__all__ = [
    "CacheInfo",
    "cache_info",
    "clear_cache",
    "read_entry",
    "version_of",
    "warn_once",
    "write_entry",
]

_MAGIC = b"tconv kernel 1\r\n"
_HEADER_BYTES = len(_MAGIC) + 32
_MOST_ENTRY_BYTES = 16 * 2**20  # a kernel has some 10 KB
_MOST_BYTES = 256 * 2**20
_MOST_FILES = 8192  # most are plans of 200 bytes, and to look at one takes 10 us
_UNFINISHED_S = 3600  # by then nobody is still writing it
_OURS = re.compile(r"[0-9a-f]{64}\.kernel|\.[0-9a-f]{64}\.kernel\.[0-9a-f]{8}")
# A link can point anywhere, so it is not followed; a pipe must not make us wait.
_READ_ONLY = (
    os.O_RDONLY
    | getattr(os, "O_NOFOLLOW", 0)
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_BINARY", 0)
)
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_BINARY", 0)

_has_warned = False


class CacheInfo(TypedDict):
    """What `cache_info` tells."""

    folder: str | None
    files: int
    bytes: int
    usable: bool
    reason: str  # why it is not usable


def read_entry(key: str) -> tuple[bytes | None, str]:
    """Return the object kept under a key, or None and what is wrong with it ("" if not there)."""
    place = _folder()
    if isinstance(place, str):
        return None, ""
    folder = str(place)
    entry = f"{folder}/{key}.kernel"
    try:
        os.lstat(entry)
    except FileNotFoundError:  # as most that are looked for first: drafts give way later
        return None, ""
    except OSError:
        pass
    try:
        fault = _fault(os.lstat(folder), stat.S_ISDIR)
        if fault:
            return None, f"{folder}, which {fault}"
    except OSError:  # nothing kept yet, or a folder that cannot be read
        return None, ""
    try:
        data, fault = _content(entry)
    except FileNotFoundError:  # removed by another process
        return None, ""
    except OSError as error:
        data, fault = b"", f"cannot be read ({error.strerror})"
    if not fault and data[:_HEADER_BYTES] != _header(key, data[_HEADER_BYTES:]):
        fault = "is damaged"
    return (None, f"{entry}, which {fault}") if fault else (data[_HEADER_BYTES:], "")


def write_entry(key: str, data: bytes) -> None:
    """Keep an object under a key, in the place of what is there; if that fails, do nothing."""
    folder = _folder()
    if isinstance(folder, str) or len(data) > _MOST_ENTRY_BYTES:
        return
    with suppress(OSError, ParameterError):
        for each in (folder.parent, folder):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        if _fault(os.lstat(folder), stat.S_ISDIR):
            return
        entry = folder / f"{key}.kernel"
        if entry.is_symlink():
            entry.unlink()  # whole_file would write to where it points
        with (
            whole_file(entry, inherits=False) as unfinished,
            os.fdopen(os.open(unfinished, _NEW, 0o600), "wb") as f,
        ):
            f.write(_header(key, data) + data)
        if key.startswith("00"):  # one key in 256, in whichever process it falls
            _prune(folder)


def version_of(sources: Iterable[str]) -> str:
    """Return a checksum of files of the engine, from which what is kept follows."""
    folder = os.path.dirname(__file__)
    return sha256("".join(content(f"{folder}/{name}") for name in sources).encode()).hexdigest()


def warn_once(fault: str) -> None:
    """Say that an entry is not used; further ones are not spoken of."""
    global _has_warned
    if fault and not _has_warned:
        _has_warned = True
        warnings.warn(
            f"the cache of kernels does not use {fault}; the kernel was compiled again. "
            "`tconv info --clear-cache` empties the cache, TCONV_CACHE names another folder.",
            RuntimeWarning,
            stacklevel=3,
        )


def cache_info() -> CacheInfo:
    """Return where kernels are kept, how many, and whether that works.

    >>> sorted(cache_info())
    ['bytes', 'files', 'folder', 'reason', 'usable']
    """
    folder = _folder()
    if isinstance(folder, str):
        return CacheInfo(folder=None, files=0, bytes=0, usable=False, reason=folder)
    sizes = [size for _, size, _ in _own_files(folder)]
    reason = _why_unusable(folder)
    return CacheInfo(
        folder=str(folder), files=len(sizes), bytes=sum(sizes), usable=not reason, reason=reason
    )


def clear_cache() -> int:
    """Remove the kernels of this user from the disk, and nothing else; return how many files."""
    folder, removed = _folder(), 0
    if not isinstance(folder, str):
        for *_, name in _own_files(folder):
            with suppress(OSError):
                os.unlink(folder / name)
                removed += 1
    return removed


def _folder() -> Path | str:
    """Return the folder of kernels: our own, below one that may be shared with other programs."""
    folder = cache_folder()
    return folder if isinstance(folder, str) else folder / "kernels"


def _header(key: str, data: bytes) -> bytes:
    """Return what stands before an object; the key ties it to the name of its file."""
    return _MAGIC + sha256(key.encode() + data).digest()


def _fault(status: os.stat_result, is_kind: Callable[[int], bool]) -> str:
    """Return why an entry or its folder is not to be trusted, or "".

    What belongs to the administrator is trusted, who could change this program as well: so a
    container's image can bring its kernels along.
    """
    if not is_kind(status.st_mode):
        return f"is not a {'folder' if is_kind is stat.S_ISDIR else 'regular file'}"
    if os.name == "posix":
        if status.st_uid not in (0, os.geteuid()):
            return f"belongs to another user ({status.st_uid})"
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            return "can be written by others"
    return ""


def _content(entry: str) -> tuple[bytes, str]:
    """Return what is in an entry, or what is wrong with it."""
    fault = _fault(os.lstat(entry), stat.S_ISREG)
    if fault:
        return b"", fault
    with os.fdopen(os.open(entry, _READ_ONLY), "rb", buffering=0) as file:
        status = os.fstat(file.fileno())  # it may be another file by now
        fault = _fault(status, stat.S_ISREG)
        if not fault and status.st_size > _HEADER_BYTES + _MOST_ENTRY_BYTES:
            fault = "is too large"
        return (b"", fault) if fault else (file.read(), "")


def _own_files(folder: Path) -> list[tuple[float, int, str]]:
    """When each entry of this user was written, its bytes and name, the oldest first.

    Unfinished ones are among them.
    """
    found = []
    with suppress(OSError):
        if stat.S_ISDIR(os.lstat(folder).st_mode):
            for entry in os.scandir(folder):
                with suppress(OSError):
                    status = entry.stat(follow_symlinks=False)
                    is_mine = os.name != "posix" or status.st_uid == os.geteuid()
                    if stat.S_ISREG(status.st_mode) and is_mine and _OURS.fullmatch(entry.name):
                        found.append((status.st_mtime, status.st_size, entry.name))
    return sorted(found)


def _prune(folder: Path) -> None:
    """Remove the oldest entries beyond the bounds, and what unfinished writing left."""
    files = _own_files(folder)
    total, count = sum(size for _, size, _ in files), len(files)
    for written, size, name in files:
        is_left_over = name[0] == "." and time.time() - written > _UNFINISHED_S
        if total > _MOST_BYTES or count > _MOST_FILES or is_left_over:
            with suppress(FileNotFoundError):  # another process has removed it
                os.unlink(folder / name)
            total, count = total - size, count - 1


def _why_unusable(folder: Path) -> str:
    """Return why kernels cannot be kept in a folder, or ""."""
    with suppress(FileNotFoundError, NotADirectoryError):
        try:
            fault = _fault(os.lstat(folder), stat.S_ISDIR)
        except PermissionError:
            fault = "cannot be read"
        if fault:
            return f"{folder} {fault}"
    existing = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    if not existing.is_dir():
        return f"{existing} is not a folder"
    return "" if os.access(existing, os.W_OK | os.X_OK) else f"{existing} cannot be written"
