"""Disk cache of kernels: a file for each, read only if no other user can have written it.

A file is a magic word, a checksum of its own name and the object, and the object, which may define
other kernels of the same module. Whatever is wrong with a file or its folder, the kernel is
compiled again: a broken cache costs time and nothing else. When there are too many files, the least
recently read ones are removed. Plans, of which there can be many more, have files and bounds of
their own (`plan_log.py`).

Files are opened relative to the folder's handle, and the folder is checked by that handle: so the
files are in the folder that was checked, whatever its name points to by then.
"""

import os
import re
import stat
import time
import warnings
from collections.abc import Callable
from contextlib import suppress
from hashlib import sha256
from pathlib import Path
from typing import TypedDict

from tconv.engine.target.target import cache_folder

__all__ = [
    "CacheInfo",
    "Place",
    "Unsafe",
    "cache_info",
    "clear_cache",
    "damaged",
    "existing_place",
    "fault_of_place",
    "made_place",
    "read_entry",
    "read_file",
    "warn_once",
    "write_entry",
]

_MAGIC = b"tconv kernel 1\r\n"
_HEADER_BYTES = len(_MAGIC) + 32
_MOST_ENTRY_BYTES = 16 * 2**20  # a kernel has some 10 KB
_MOST_BYTES = 256 * 2**20
_MOST_FILES = 4096  # as many as a process may hold kernels
_PRUNING = 32  # one write in so many looks for files to remove
_MOST_REMOVED = 64  # at a time, which takes a millisecond
_FRESH_S = 24 * 3600  # reading updates a file's time at most once a day
_UNFINISHED_S = 3600  # an older temporary file is left over
_OURS = re.compile(r"([0-9a-f]{64}\.kernel|\.[0-9a-f]{64}\.kernel\.[0-9a-f]{8})")
_PLAN_LOGS = re.compile(r"([0-9a-f]{2}\.plans|\.[0-9a-f]{2}\.plans\.[0-9a-f]{8})")
_BINARY = getattr(os, "O_BINARY", 0) | getattr(os, "O_CLOEXEC", 0)
# Links are not followed, for they can point anywhere, and a pipe must not block.
_CAREFUL = getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0) | _BINARY
_NEW = os.O_WRONLY | os.O_CREAT | os.O_EXCL | _BINARY
_HAS_HANDLES = {os.open, os.rename, os.unlink} <= os.supports_dir_fd  # not on Windows

_has_warned = False


class CacheInfo(TypedDict):
    """The result of `cache_info`."""

    folder: str | None
    files: int
    bytes: int
    usable: bool
    reason: str  # why it is not usable


class Unsafe(OSError):
    """A file or folder that cannot be trusted; the text says why."""


class Place:
    """The open folder of kernels, and operations on its files."""

    def __init__(self, folder: str) -> None:
        self.folder, self.handle = folder, None
        self._before = "" if _HAS_HANDLES else f"{folder}/"
        if _HAS_HANDLES:
            self.handle = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | _CAREFUL)

    def __enter__(self) -> "Place":
        return self

    def __exit__(self, *_: object) -> None:
        if self.handle is not None:
            os.close(self.handle)

    def check(self) -> None:
        """Raise if another user could write to the folder."""
        status = os.lstat(self.folder) if self.handle is None else os.fstat(self.handle)
        _check(status, stat.S_ISDIR)

    def open(self, name: str, flags: int) -> tuple[int, os.stat_result]:
        """Open a regular file that no other user can have written; return its handle and status.

        Raises
        ------
        Unsafe : another user could have written it.
        OSError : it does not exist, or cannot be opened.
        """
        if not hasattr(os, "O_NOFOLLOW"):
            _check(os.lstat(self._before + name), stat.S_ISREG)
        try:
            file = os.open(self._before + name, flags | _CAREFUL, 0o600, dir_fd=self.handle)
        except FileNotFoundError:
            raise
        except OSError as error:  # a link and a pipe cannot be opened so
            with suppress(FileNotFoundError):
                status = os.stat(self._before + name, dir_fd=self.handle, follow_symlinks=False)
                _check(status, stat.S_ISREG)
            raise Unsafe(f"cannot be read ({error.strerror})") from None
        try:
            status = os.fstat(file)
            _check(status, stat.S_ISREG)
        except OSError:
            os.close(file)
            raise
        return file, status

    def read(self, name: str, most_bytes: int) -> bytes:
        """Return a file's content, and note that it was read.

        Raises
        ------
        Unsafe, OSError : as `open` says, or the file is too large.
        """
        file, status = self.open(name, os.O_RDONLY)
        with os.fdopen(file, "rb", buffering=0) as opened:
            if status.st_size > most_bytes:
                raise Unsafe("is too large")
            # The system's own time of access may be turned off.
            if time.time() - status.st_mtime > _FRESH_S and os.utime in os.supports_fd:
                with suppress(OSError):  # of a file of the administrator's
                    os.utime(file)
            return opened.read()

    def replace(self, name: str, data: bytes) -> None:
        """Replace a file, completely or not at all."""
        unfinished = f".{name}.{os.urandom(4).hex()}"
        file = os.open(self._before + unfinished, _NEW, 0o600, dir_fd=self.handle)
        try:
            with os.fdopen(file, "wb") as opened:
                opened.write(data)
            names = (self._before + each for each in (unfinished, name))
            os.replace(*names, src_dir_fd=self.handle, dst_dir_fd=self.handle)
        except BaseException:
            self.remove(unfinished)
            raise

    def remove(self, name: str) -> bool:
        """Remove a file; return whether it existed."""
        try:
            os.unlink(self._before + name, dir_fd=self.handle)
        except OSError:
            return False
        return True

    def own_files(self, *kinds: re.Pattern[str]) -> list[tuple[float, int, str]]:
        """Return time, bytes and name of each file of this user, the oldest first.

        The time is that of the last write or noted read. Temporary files are among them.
        """
        found = []
        with (
            suppress(OSError),
            os.scandir(self.folder if self.handle is None else self.handle) as s,
        ):
            for entry in s:
                if any(kind.fullmatch(entry.name) for kind in kinds):
                    with suppress(OSError):
                        status = entry.stat(follow_symlinks=False)
                        is_mine = os.name != "posix" or status.st_uid == os.geteuid()
                        if stat.S_ISREG(status.st_mode) and is_mine:
                            found.append((status.st_mtime, status.st_size, entry.name))
        return sorted(found)


def existing_place() -> Place | None:
    """Open the folder to read from it; None if it does not exist or the cache is off.

    Raises
    ------
    Unsafe : another user could write to it.
    """
    folder = _folder()
    return None if isinstance(folder, str) else _checked(str(folder))


def made_place() -> Place | None:
    """Open the folder to write to it, and create it first if necessary; None if the cache is off.

    Raises
    ------
    OSError : it cannot be created, or is `Unsafe`.
    """
    folder = _folder()
    if isinstance(folder, str):
        return None
    place = _checked(str(folder))
    if place is None:
        for each in (folder.parent, folder):
            each.mkdir(mode=0o700, parents=True, exist_ok=True)
        place = _checked(str(folder))
    return place


def _checked(folder: str) -> Place | None:
    try:
        place = Place(folder)
    except FileNotFoundError:
        return None
    except OSError:  # a link, or something else
        with suppress(FileNotFoundError, NotADirectoryError, PermissionError):
            _check(os.lstat(folder), stat.S_ISDIR)
        return None
    try:
        place.check()
    except OSError:
        place.__exit__()
        raise
    return place


def fault_of_place(name: str, error: OSError) -> str:
    """Return what is wrong with the folder of a file to read; "" if there is no such file."""
    folder = str(_folder())
    try:
        os.lstat(f"{folder}/{name}")
    except FileNotFoundError:  # as mostly on first calls
        return ""
    except OSError:
        pass
    return f"{folder}, which {error}"


def read_file(name: str, most_bytes: int) -> tuple[bytes | None, str]:
    """Return a file's content, or None and what is wrong ("" if it does not exist)."""
    try:
        place = existing_place()
    except OSError as error:
        return None, fault_of_place(name, error)
    if place is None:
        return None, ""
    with place:
        try:
            return place.read(name, most_bytes), ""
        except FileNotFoundError:
            return None, ""
        except OSError as error:
            return None, f"{place.folder}/{name}, which {error}"


def read_entry(key: str) -> tuple[bytes | None, str]:
    """Return a key's object, or None and what is wrong with it ("" if it does not exist)."""
    name = f"{key}.kernel"
    data, fault = read_file(name, _HEADER_BYTES + _MOST_ENTRY_BYTES)
    if data is None:
        return None, fault
    if data[:_HEADER_BYTES] != _header(key, data[_HEADER_BYTES:]):
        return None, damaged(name)
    return data[_HEADER_BYTES:], ""


def damaged(name: str) -> str:
    """Return what is wrong with a file whose checksum is wrong."""
    return f"{_folder()}/{name}, which is damaged"


def write_entry(key: str, data: bytes) -> None:
    """Store an object under a key, in place of an older one; if that fails, do nothing."""
    if len(data) > _MOST_ENTRY_BYTES:
        return
    with suppress(OSError):
        place = made_place()
        if place is not None:
            with place:
                place.replace(f"{key}.kernel", _header(key, data) + data)
                if int(key[:2], 16) % _PRUNING == 0:
                    _prune(place)


def warn_once(fault: str) -> None:
    """Warn that an entry is not used, once for all entries."""
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
    """Return the folder of kernels, its size, and whether it is usable.

    >>> sorted(cache_info())
    ['bytes', 'files', 'folder', 'reason', 'usable']
    """
    folder = _folder()
    if isinstance(folder, str):
        return CacheInfo(folder=None, files=0, bytes=0, usable=False, reason=folder)
    sizes = [size for _, size, _ in _own_files(str(folder))]
    reason = _why_unusable(folder)
    return CacheInfo(
        folder=str(folder), files=len(sizes), bytes=sum(sizes), usable=not reason, reason=reason
    )


def clear_cache() -> int:
    """Remove this user's kernels and plans from the disk; return the number of files."""
    folder = _folder()
    if isinstance(folder, str):
        return 0
    with suppress(OSError), Place(str(folder)) as place:
        return sum(place.remove(name) for *_, name in place.own_files(_OURS, _PLAN_LOGS))
    return 0


def _folder() -> Path | str:
    """Return the folder of kernels, below one that programs may share, or why there is none."""
    folder = cache_folder()
    return folder if isinstance(folder, str) else folder / "kernels"


def _header(key: str, data: bytes) -> bytes:
    """Return a file's header; its checksum covers the key, and so the file's name."""
    return _MAGIC + sha256(key.encode() + data).digest()


def _check(status: os.stat_result, is_kind: Callable[[int], bool]) -> None:
    """Raise if another user could have written a file or folder.

    Files of the administrator are trusted, who could change this program as well: so a container's
    image can bring its kernels along.
    """
    if not is_kind(status.st_mode):
        raise Unsafe(f"is not a {'folder' if is_kind is stat.S_ISDIR else 'regular file'}")
    if os.name == "posix":
        if status.st_uid not in (0, os.geteuid()):
            raise Unsafe(f"belongs to another user ({status.st_uid})")
        if status.st_mode & (stat.S_IWGRP | stat.S_IWOTH):
            raise Unsafe("can be written by others")


def _own_files(folder: str) -> list[tuple[float, int, str]]:
    with suppress(OSError), Place(folder) as place:
        return place.own_files(_OURS, _PLAN_LOGS)
    return []


def _prune(place: Place) -> None:
    """Remove the least recently read kernels beyond the bounds, but not many at once.

    Temporary files that are left over go as well.
    """
    files, removed = place.own_files(_OURS), 0
    total, count = sum(size for _, size, _ in files), len(files)
    for written, size, name in files:
        is_left_over = name[0] == "." and time.time() - written > _UNFINISHED_S
        if total > _MOST_BYTES or count > _MOST_FILES or is_left_over:
            place.remove(name)  # another process may have
            total, count, removed = total - size, count - 1, removed + 1
            if removed == _MOST_REMOVED:
                return


def _why_unusable(folder: Path) -> str:
    """Return why a folder cannot hold kernels, or ""."""
    with suppress(FileNotFoundError, NotADirectoryError):
        try:
            _check(os.lstat(folder), stat.S_ISDIR)
        except PermissionError:
            return f"{folder} cannot be read"
        except Unsafe as error:
            return f"{folder} {error}"
    existing = next(each for each in (folder, *folder.parents) if os.path.lexists(each))
    if not existing.is_dir():
        return f"{existing} is not a folder"
    return "" if os.access(existing, os.W_OK | os.X_OK) else f"{existing} cannot be written"
