"""CPU topology: cores that this process may use, and sizes of caches."""

import os
import sys
from contextlib import suppress
from math import ceil
from pathlib import Path

from tconv.system.procfs import cgroup_folders, read_text

__all__ = ["CACHE_LINE_BYTES", "DEFAULT_CACHE_BYTES", "cache_bytes", "core_count"]

_PROC, _CGROUP = Path("/proc"), Path("/sys/fs/cgroup")
_CPU0 = Path("/sys/devices/system/cpu/cpu0")
CACHE_LINE_BYTES = 64  # as wide as the widest vector
DEFAULT_CACHE_BYTES = (32 * 1024, 512 * 1024, 8 * 1024 * 1024)


def core_count(proc: Path = _PROC, cgroup: Path = _CGROUP) -> int:
    """Return the cores that affinity and the quotas of all control groups leave this process.

    A quota of one and a half cores counts as two: waiting threads cost less than an idle half.

    References
    ----------
    Linux kernel documentation, admin-guide/cgroup-v2 (cpu.max) and scheduler/sched-bwc.

    >>> core_count() >= 1
    True
    """
    if sys.platform == "linux":
        found = [float(len(os.sched_getaffinity(0)))]
    else:
        found = [float(os.cpu_count() or 1)]
    with suppress(OSError):
        for line in read_text(f"{proc}/self/cgroup").splitlines():
            found += _quotas(line, str(cgroup))
    return max(1, ceil(min(found)))


def _quotas(line: str, root: str) -> list[float]:
    """Return the cores that the groups in one line of /proc/self/cgroup allow."""
    folders, is_unified = cgroup_folders(line, root, "cpu")
    files = ("cpu.max",) if is_unified else ("cpu.cfs_quota_us", "cpu.cfs_period_us")
    found = []
    for folder in folders:
        with suppress(OSError, ValueError, ZeroDivisionError):  # "max" is not a number: no limit
            quota, period = " ".join(read_text(f"{folder}/{file}") for file in files).split()
            if int(quota) > 0:  # -1 is version 1's "no limit"
                found.append(int(quota) / int(period))
    return found


_MOST_CACHES = 8  # that Linux lists of a core
_SYSCONF = ("SC_LEVEL1_DCACHE_SIZE", "SC_LEVEL2_CACHE_SIZE", "SC_LEVEL3_CACHE_SIZE")


def cache_bytes(cpu0: Path = _CPU0) -> tuple[int, int, int]:
    """Return the bytes of the first and second level cache per core, and of the third in all.

    >>> all(size > 0 for size in cache_bytes())
    True
    """
    found: dict[int, int] = {}
    for folder in (f"{cpu0}/cache/index{n}" for n in range(_MOST_CACHES)):
        if not os.path.exists(folder):
            break
        with suppress(OSError, ValueError, IndexError):
            if read_text(f"{folder}/type").strip() != "Instruction":
                level, size = int(read_text(f"{folder}/level")), _size(read_text(f"{folder}/size"))
                found[level] = size // (_sharers(cpu0, folder) if level == 2 else 1)
    for level, name in enumerate(_SYSCONF, 1):
        if cpu0 == _CPU0 and found.get(level, 0) <= 0:
            with suppress(OSError, ValueError, AttributeError):
                found[level] = os.sysconf(name)
    l1, l2, l3 = (found.get(i, 0) or default for i, default in enumerate(DEFAULT_CACHE_BYTES, 1))
    return l1, l2, l3


def _size(text: str) -> int:
    """Read "48K" or "2M" as bytes."""
    text = text.strip()
    unit = {"K": 1024, "M": 1024**2, "G": 1024**3}.get(text[-1], 1)
    return int(text.rstrip("KMG")) * unit


def _sharers(cpu0: Path, folder: str) -> int:
    """Return the number of cores that share a cache; the threads of one core count as one."""
    with suppress(OSError, ValueError):
        threads = _count(read_text(f"{folder}/shared_cpu_list"))
        return max(1, threads // _count(read_text(f"{cpu0}/topology/thread_siblings_list")))
    return 1


def _count(cpus: str) -> int:
    """Count a list of CPUs as Linux writes it: "0-3,8" is five."""
    ends = [[int(end) for end in span.split("-")] for span in cpus.strip().split(",")]
    return sum(span[-1] - span[0] + 1 for span in ends)
