"""The machine: its processor, cores, memory, load by other programs, and the code's commit."""

import os
import platform
import subprocess
from pathlib import Path
from time import perf_counter

_PROC = Path("/proc")


def processor() -> str:
    """Name of the processor, as far as the system tells."""
    names = _values_of("model name")
    return names[0] if names else platform.processor() or platform.machine()


def nominal_ghz() -> float | None:
    """The clock that the system tells, which is not the one it runs at."""
    clocks = _values_of("cpu MHz")
    return float(clocks[0]) / 1e3 if clocks else None


def cores() -> int:
    """How many cores this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def commit() -> str | None:
    """The commit of this tree, with "-dirty" where files differ from it; None outside of git."""
    words = ["git", "describe", "--always", "--dirty", "--exclude=*"]
    try:
        done = subprocess.run(
            words, capture_output=True, text=True, check=True, cwd=Path(__file__).parent
        )  # fmt: skip
    except (OSError, subprocess.CalledProcessError):
        return None
    return done.stdout.strip()


def _values_of(key: str) -> list[str]:
    try:
        lines = (_PROC / "cpuinfo").read_text().splitlines()
    except OSError:
        return []
    return [line.partition(":")[2].strip() for line in lines if line.startswith(key)]


def peak_mib() -> float | None:
    """The most memory that this process had at once; None where the system does not tell.

    What `getrusage` tells is that of the process that started this one, if it had more.
    """
    try:
        text = (_PROC / "self" / "status").read_text()
    except OSError:
        return None
    kib = [line.split()[1] for line in text.splitlines() if line.startswith("VmHWM:")]
    return round(int(kib[0]) / 1024, 1) if kib else None


class Watch:
    """How many cores others kept busy since this was made: neither we nor the given processes."""

    def __init__(self, processes: list[int]) -> None:
        self.processes = [os.getpid(), *processes]
        self.start = perf_counter(), self._busy_s(), self._own_s()

    def others(self) -> float | None:
        """Return it; None where the system does not tell. Processes must not have ended."""
        begin, busy, own = self.start
        try:
            passed = perf_counter() - begin
            return round(max(self._busy_s() - busy - self._own_s() + own, 0.0) / passed, 2)
        except (OSError, ValueError):
            return None

    def _busy_s(self) -> float:
        """Seconds that all cores together worked, time stolen by other guests included."""
        try:
            fields = (_PROC / "stat").read_text().splitlines()[0].split()[1:9]
        except OSError:
            return 0.0
        user, nice, system, _idle, _wait, irq, softirq, steal = map(int, fields)
        return (user + nice + system + irq + softirq + steal) / _ticks()

    def _own_s(self) -> float:
        total = 0
        for process in self.processes:
            try:
                text = (_PROC / str(process) / "stat").read_text()
            except OSError:  # it has ended, and with it what it took is counted as of others
                continue
            total += sum(map(int, text.rpartition(")")[2].split()[11:13]))
        return total / _ticks()


def _ticks() -> int:
    return os.sysconf("SC_CLK_TCK")
