"""WHICH PLANS ARE KNOWN: what was chosen before, by this process or by another.

Choosing takes some milliseconds, which a new process would spend again for every shape.
"""

import marshal
from functools import cache, lru_cache
from hashlib import sha256

from tconv.engine.choice import choose_plan
from tconv.engine.plan import Part, Plan
from tconv.engine.problem import Problem
from tconv.engine.store import read_entry, version_of, warn_once, write_entry
from tconv.engine.target import Target

__all__ = ["FORMAT", "known_plan", "version"]

FORMAT = 4
"""Of `marshal`, which every Python reads, and which takes less time than `json` to import."""

# What plans, their layouts and the code follow from: what other sources wrote to disk is not what
# is wanted.
_SOURCES = (
    *("../axis.py", "../geometry.py", "phases.py", "problem.py", "winograd.py", "plan.py"),
    *("costs.py", "tilings.py", "turnings.py", "choice.py"),
    *("values.py", "builder.py", "ir.py", "halves.py", "kernels.py", "gathering.py", "call.py"),
    *("panels.py", "spread.py", "transforms.py", "tiles.py", "epilogue.py", "output.py"),
    *("driver.py", "packing.py", "transposing.py", "making.py", "products.py", "correlating.py"),
    *("turned.py", "cells.py", "layout.py", "tiled_layout.py", "turned_layout.py"),
    *("laid.py", "laying.py"),
)


@cache
def version() -> str:
    """Return the version of all that is kept but the code of threads."""
    return version_of(_SOURCES)


@lru_cache(maxsize=1024)
def known_plan(problem: Problem, dtype: str, target: Target, threads: int) -> Plan | None:
    """Return what `choose_plan` does, and keep it on disk beside the kernels."""
    key = sha256(repr((version(), problem, dtype, target, threads)).encode()).hexdigest()
    data, fault = read_entry(key)
    warn_once(fault)
    if data is not None:
        return _plan_of(data)
    plan = choose_plan(problem, dtype, target, threads)
    words = plan and tuple(tuple(word) if isinstance(word, tuple) else word for word in plan)
    write_entry(key, marshal.dumps(words, FORMAT))
    return plan


def _plan_of(data: bytes) -> Plan | None:
    """The plan that stands in an entry, whose checksum is right."""
    words = marshal.loads(data)
    if words is None:
        return None
    plan = Plan._make(words)
    return plan._replace(part=Part._make(plan.part))
