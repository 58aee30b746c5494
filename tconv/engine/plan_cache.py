"""Plan cache: plans that this process or another one chose before, kept on disk.

To choose takes some milliseconds, which a new process would spend again for every shape. For each
size that was computed the disk has a `SizedPlan`; for other sizes of the same band it has the
candidates that the band's plans are chosen from.
"""

from dataclasses import replace
from functools import lru_cache
from typing import Any

from tconv.engine.compile.fingerprint import fingerprint
from tconv.engine.compile.plan_log import write_plan
from tconv.engine.lowered_plan import SizedPlan, digest, read_as, read_record, write_record
from tconv.engine.plan.encoding import as_bytes, record_of
from tconv.engine.plan.plan import Plan
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import Target
from tconv.system.fork_lock import importing

__all__ = ["cached_candidates", "cached_plan", "cached_sized_plan", "keep_sized_plan"]


@lru_cache(maxsize=1024)
def cached_plan(problem: Problem, dtype: str, target: Target, threads: int) -> Plan | None:
    """Return what `choose_plan` does, from disk if it is there."""
    sized = cached_sized_plan(problem, dtype, target, threads)
    if sized is not None:
        return sized.plan
    if problem.activation is not None or problem.residual:  # which have no part in the choice
        bare = replace(problem, activation=None, residual=False)
        return cached_plan(bare, dtype, target, threads)
    with importing:  # what chooses is large, and not needed where plans are on disk
        from tconv.engine.choose import fitted, lanes_of
        from tconv.engine.plan.size_bands import band_of

    band = band_of(problem, lanes_of(dtype, target))
    return fitted(cached_candidates(band, dtype, target, threads), problem, dtype, target, threads)


@lru_cache(maxsize=1024)
def cached_candidates(band: Problem, dtype: str, target: Target, threads: int) -> tuple[Plan, ...]:
    """Return what `band_candidates` does, from disk if it is there: one entry for a band."""
    key = digest((fingerprint(), band, dtype, target, threads))
    found = read_as(_plans_of, key)
    if found is None:
        with importing:
            from tconv.engine.choose import band_candidates

        found = band_candidates(band, dtype, target, threads)
        write_plan(key, as_bytes(found))
    return found


def _plans_of(entry: Any) -> tuple[Plan, ...]:
    """The plans of an entry; ValueError if it holds something else."""
    if type(entry) is not tuple:
        raise ValueError("no plans")
    return tuple(record_of(Plan, each) for each in entry)


# ---- sized plans ---------------------------------------------------------------------------------

# To look for a sized plan in vain and to keep one takes 0.3 ms (Zen 5), and to fit a plan to a size
# of a known band 0.4. So a process that meets many new sizes soon looks for them no more.
_MOST_MISSES = 32
_misses = 0


@lru_cache(maxsize=16)  # from the choice of a plan to its primitive, which keeps it
def cached_sized_plan(
    problem: Problem, dtype: str, target: Target, threads: int
) -> SizedPlan | None:
    """Return the sized plan that is on disk, if one is."""
    global _misses
    if _misses >= _MOST_MISSES:
        return None
    found = read_record(SizedPlan, _sized_key(problem, dtype, target, threads))
    _misses += found is None
    return found


def keep_sized_plan(
    problem: Problem, dtype: str, target: Target, threads: int, sized: SizedPlan
) -> None:
    """Keep a sized plan on disk for other processes."""
    if _misses < _MOST_MISSES:
        write_record(_sized_key(problem, dtype, target, threads), sized)


def _sized_key(problem: Problem, dtype: str, target: Target, threads: int) -> str:
    return digest((fingerprint(), "sized", problem, dtype, target, threads))
