"""WHICH PLANS ARE KNOWN: what was chosen before, by this process or by another.

Choosing takes some milliseconds, which a new process would spend again for every shape.
"""

from functools import cache, lru_cache
from hashlib import sha256

from tconv.engine.choice import choose_plan
from tconv.engine.encoding import as_bytes, of_bytes, record_of
from tconv.engine.plan import Plan
from tconv.engine.problem import Problem
from tconv.engine.shelves import read_plan, write_plan
from tconv.engine.store import version_of, warn_once
from tconv.engine.target import Target

__all__ = ["known_plan", "version"]

# What plans, their layouts and the code follow from: what other sources wrote to disk is not what
# is wanted.
_SOURCES = (
    *("../axis.py", "../geometry.py", "phases.py", "problem.py", "winograd.py", "plan.py"),
    *("costs.py", "tilings.py", "turnings.py", "choice.py"),
    *("values.py", "builder.py", "ir.py", "halves.py", "kernels.py", "gathering.py", "call.py"),
    *("panels.py", "spread.py", "transforms.py", "tiles.py", "epilogue.py", "output.py"),
    *("driver.py", "packing.py", "transposing.py", "making.py", "products.py", "correlating.py"),
    *("turned.py", "cells.py", "layout.py", "tiled_layout.py", "turned_layout.py"),
    *("known.py", "encoding.py", "laid.py", "laying.py"),
)


@cache
def version() -> str:
    """Return the version of all that is kept but the code of threads."""
    return version_of(_SOURCES)


@lru_cache(maxsize=1024)
def known_plan(problem: Problem, dtype: str, target: Target, threads: int) -> Plan | None:
    """Return what `choose_plan` does, and keep it on disk beside the kernels."""
    key = sha256(repr((version(), problem, dtype, target, threads)).encode()).hexdigest()
    data, fault = read_plan(key)
    if data is not None:
        try:
            return _plan_of(data)
        except ValueError:  # its checksum is right: another program has made it
            fault = f"plan {key}, which holds something else"
    warn_once(fault)
    plan = choose_plan(problem, dtype, target, threads)
    write_plan(key, as_bytes(plan))
    return plan


def _plan_of(data: bytes) -> Plan | None:
    """The plan that stands in an entry; ValueError if there stands something else."""
    words = of_bytes(data)
    return None if words is None else record_of(Plan, words)
