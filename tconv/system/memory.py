"""Available memory of this process, container limits and ulimits included."""

import os
import sys
from contextlib import suppress
from pathlib import Path

from tconv.errors import MemoryLimitError, UnsupportedError
from tconv.system.procfs import cgroup_folders, read_text

try:
    import resource
except ImportError:  # Windows, which has no such limits
    resource = None  # type: ignore[assignment]

__all__ = ["available_bytes", "check_addresses", "check_room", "has_room", "resident_bytes"]

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_USUAL_BYTES = 2**27  # of a process of NumPy
_SMALL_BYTES = 2**24  # so much is always there, or nothing works


def available_bytes(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int | None:
    """Return the bytes that this process may still allocate; None where the system does not tell.

    The least of the kernel's MemAvailable, of the memory that each control group above this process
    (version 2, or version 1's memory controller) leaves free, and of the rest of its limits of
    addresses and data (``ulimit -v`` and ``-d``); elsewhere the physical memory.

    References
    ----------
    Linux kernel documentation, filesystems/proc and admin-guide/cgroup-v2; getrlimit(2).

    >>> (available_bytes() or 1) > 0
    True
    """
    found = []
    with suppress(OSError, ValueError, IndexError):
        for line in read_text(f"{proc}/meminfo").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    with suppress(OSError, ValueError):
        found += _cgroup_bytes(read_text(f"{proc}/self/cgroup"), str(cgroup))
    if not found:
        with suppress(ValueError, OSError, AttributeError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    found += _limited_bytes(proc)
    return max(min(found), 0) if found else None


def resident_bytes(proc: Path = _PROC) -> int:
    """Return the bytes of memory that this process has now; where only the most is told, that.

    >>> resident_bytes() > 2**20
    True
    """
    with suppress(OSError, ValueError, IndexError, AttributeError):
        return int(read_text(f"{proc}/self/statm").split()[1]) * os.sysconf("SC_PAGE_SIZE")
    if resource is None:
        return _USUAL_BYTES
    most = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return most if sys.platform == "darwin" else most * 1024


def has_room(needed: int) -> bool:
    """Return whether the limits of this process leave so many bytes of addresses.

    >>> has_room(1)
    True
    """
    return all(left >= needed for left in _limited_bytes(_PROC))


def check_addresses(needed: int) -> None:
    """Raise where too few addresses are left: LLVM ends the process when it gets none.

    Raises
    ------
    UnsupportedError : a limit leaves fewer than are needed.
    """
    if not has_room(needed):
        left = max(min(_limited_bytes(_PROC)), 0)
        raise UnsupportedError(
            f"the limits of this process leave {left:,} bytes, and LLVM may need {needed:,}; raise "
            "them (`ulimit -v`, `ulimit -d`), or set TCONV_CPU=portable."
        )


def _limited_bytes(proc: Path) -> list[int]:
    """Return what each limit of this process leaves; only Linux tells how much is used."""
    if resource is None:
        return []
    limits = {0: resource.getrlimit(resource.RLIMIT_AS)[0]}
    limits[5] = resource.getrlimit(resource.RLIMIT_DATA)[0]
    limits = {field: most for field, most in limits.items() if most != resource.RLIM_INFINITY}
    with suppress(OSError, ValueError, IndexError):
        if limits:
            pages = read_text(f"{proc}/self/statm").split()
            page = resource.getpagesize()
            return [most - int(pages[field]) * page for field, most in limits.items()]
    return []


def _cgroup_bytes(membership: str, root: str) -> list[int]:
    """Return what each control group in the lines of /proc/self/cgroup leaves free."""
    found = []
    for line in membership.splitlines():
        folders, is_unified = cgroup_folders(line, root, "memory")
        names = ("memory.max", "memory.current", "inactive_file")
        if not is_unified:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        limit, used, cache = names
        for folder in folders:
            with suppress(OSError, ValueError):  # "max" is no number: no limit here
                free = int(read_text(f"{folder}/{limit}")) - int(read_text(f"{folder}/{used}"))
                found.append(free + _reclaimable(f"{folder}/memory.stat", cache))
    return found


def _reclaimable(stat: str, name: str) -> int:
    """Return the page cache that the kernel drops before it refuses memory."""
    with suppress(OSError, ValueError, IndexError):
        for line in read_text(stat).splitlines():
            if line.split()[0] == name:
                return int(line.split()[1])
    return 0


def check_room(what: str, needed: int) -> None:
    """Raise MemoryLimitError for more than four fifths of the available memory.

    >>> check_room("the picture", 2**60)
    Traceback (most recent call last):
    ...
    tconv.errors.MemoryLimitError: the picture needs 1,152,921,504,606,846,976 bytes but ... may \
be used (80 % of the memory available); pass a smaller one.
    """
    if needed <= _SMALL_BYTES:
        return
    available = available_bytes()
    limit = None if available is None else available * 4 // 5
    if limit is not None and needed > limit:
        raise MemoryLimitError(
            f"{what} needs {needed:,} bytes but {limit:,} may be used (80 % of the memory "
            "available); pass a smaller one."
        )
