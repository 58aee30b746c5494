"""WHICH PLANS ARE KNOWN: what was chosen before, by this process or by another.

Choosing takes some milliseconds, which a new process would spend again for every shape.
"""

from functools import lru_cache
from hashlib import sha256

from tconv.engine.choose import candidates, fitted, lanes_of
from tconv.engine.compile.disk_cache import warn_once
from tconv.engine.compile.fingerprint import fingerprint
from tconv.engine.compile.plan_log import read_plan, write_plan
from tconv.engine.plan.encoding import as_bytes, of_bytes, record_of
from tconv.engine.plan.plan import Plan
from tconv.engine.plan.problem import Problem
from tconv.engine.plan.size_bands import band_of
from tconv.engine.target.target import Target

__all__ = ["known_candidates", "known_plan"]


@lru_cache(maxsize=1024)
def known_plan(problem: Problem, dtype: str, target: Target, threads: int) -> Plan | None:
    """Return what `choose_plan` does, and keep what it chooses from on disk beside the kernels.

    That is one entry for all sizes of a band.
    """
    band = band_of(problem, lanes_of(dtype, target))
    return fitted(known_candidates(band, dtype, target, threads), problem, dtype, target, threads)


@lru_cache(maxsize=1024)
def known_candidates(band: Problem, dtype: str, target: Target, threads: int) -> tuple[Plan, ...]:
    """Return what `candidates` does, from disk if it is there."""
    key = sha256(repr((fingerprint(), band, dtype, target, threads)).encode()).hexdigest()
    data, fault = read_plan(key)
    if data is not None:
        try:
            return _plans_of(data)
        except ValueError:  # its checksum is right: another program has made it
            fault = f"plan {key}, which holds something else"
    warn_once(fault)
    found = candidates(band, dtype, target, threads)
    write_plan(key, as_bytes(found))
    return found


def _plans_of(data: bytes) -> tuple[Plan, ...]:
    """The plans that stand in an entry; ValueError if there stands something else."""
    words = of_bytes(data)
    if type(words) is not tuple:
        raise ValueError("no plans")
    return tuple(record_of(Plan, each) for each in words)
