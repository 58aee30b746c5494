"""HOW MUCH MEMORY there is: what this process may still take, container limits included."""

import os
from contextlib import suppress
from pathlib import Path

from tconv.errors import MemoryLimitError, UnsupportedError
from tconv.system.procfs import content, group_folders

try:
    import resource
except ImportError:  # Windows, which has no such limits
    resource = None  # type: ignore[assignment]

__all__ = ["available_bytes", "check_addresses", "check_room", "has_room"]

_PROC = Path("/proc")
_CGROUP = Path("/sys/fs/cgroup")
_SMALL_BYTES = 2**24  # there is room for so much, or nothing works


def available_bytes(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int | None:
    """Bytes this process may still allocate, or None where the system does not tell.

    The least of the kernel's MemAvailable, of what every control group above this process
    (version 2, or version 1's memory controller) leaves free, and of what its limits of addresses
    and data leave (``ulimit -v`` and ``-d``); elsewhere the physical memory.

    References
    ----------
    Linux kernel documentation, filesystems/proc and admin-guide/cgroup-v2; getrlimit(2).

    >>> (available_bytes() or 1) > 0
    True
    """
    found = []
    with suppress(OSError, ValueError, IndexError):
        for line in content(f"{proc}/meminfo").splitlines():
            if line.startswith("MemAvailable:"):
                found.append(int(line.split()[1]) * 1024)
    with suppress(OSError, ValueError):
        found += _cgroup_bytes(content(f"{proc}/self/cgroup"), str(cgroup))
    if not found:
        with suppress(ValueError, OSError, AttributeError):
            found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    found += _limited_bytes(proc)
    return max(min(found), 0) if found else None


def has_room(needed: int) -> bool:
    """Whether this process may take so many bytes of addresses more, as far as it is limited.

    >>> has_room(1)
    True
    """
    return all(left >= needed for left in _limited_bytes(_PROC))


def check_addresses(needed: int) -> None:
    """Refuse to go on where too few addresses are left for what ends the process then.

    Raises
    ------
    UnsupportedError : a limit leaves less than is needed.
    """
    if not has_room(needed):
        left = max(min(_limited_bytes(_PROC)), 0)
        raise UnsupportedError(
            f"the limits of this process leave {left:,} bytes, and LLVM may need {needed:,}; raise "
            "them (`ulimit -v`, `ulimit -d`), or set TCONV_CPU=portable."
        )


def _limited_bytes(proc: Path) -> list[int]:
    """What each limit of this process leaves; Linux tells how much is taken."""
    if resource is None:
        return []
    limits = {0: resource.getrlimit(resource.RLIMIT_AS)[0]}
    limits[5] = resource.getrlimit(resource.RLIMIT_DATA)[0]
    limits = {field: most for field, most in limits.items() if most != resource.RLIM_INFINITY}
    with suppress(OSError, ValueError, IndexError):
        if limits:
            pages = content(f"{proc}/self/statm").split()
            page = resource.getpagesize()
            return [most - int(pages[field]) * page for field, most in limits.items()]
    return []


def _cgroup_bytes(membership: str, root: str) -> list[int]:
    """What each control group in the lines of /proc/self/cgroup leaves free."""
    found = []
    for line in membership.splitlines():
        folders, is_unified = group_folders(line, root, "memory")
        names = ("memory.max", "memory.current", "inactive_file")
        if not is_unified:
            names = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
        limit, used, cache = names
        for folder in folders:
            with suppress(OSError, ValueError):  # "max" is no number: no limit here
                free = int(content(f"{folder}/{limit}")) - int(content(f"{folder}/{used}"))
                found.append(free + _reclaimable(f"{folder}/memory.stat", cache))
    return found


def _reclaimable(stat: str, name: str) -> int:
    """Page cache that the kernel drops before it refuses memory."""
    with suppress(OSError, ValueError, IndexError):
        for line in content(stat).splitlines():
            if line.split()[0] == name:
                return int(line.split()[1])
    return 0


def check_room(what: str, needed: int) -> None:
    """Refuse what would take more than four fifths of the memory that is free.

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
