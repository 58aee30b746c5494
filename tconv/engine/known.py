"""WHICH PLANS ARE KNOWN: what was chosen before, by this process or by another.

Choosing takes some milliseconds, which a new process would spend again for every shape.
"""

import json
from functools import cache, lru_cache, partial
from hashlib import sha256

from tconv.engine.choice import choose_plan
from tconv.engine.plan import Part, Plan
from tconv.engine.problem import Problem
from tconv.engine.store import read_entry, version_of, warn_once, write_entry
from tconv.engine.target import Target

__all__ = ["known_plan"]

# What a choice follows from: plans on disk that other sources chose are not those that are wanted.
_SOURCES = (
    *("phases.py", "problem.py", "winograd.py", "plan.py", "costs.py", "tilings.py", "choice.py"),
    "turnings.py",
)


@lru_cache(maxsize=1024)
def known_plan(problem: Problem, dtype: str, target: Target, threads: int) -> Plan | None:
    """Return what `choose_plan` does, and keep it on disk beside the kernels."""
    key = sha256(repr((_version(), problem, dtype, target, threads)).encode()).hexdigest()
    data, fault = read_entry(key)
    warn_once(fault)
    if data is not None:
        return _plan_of(data)
    plan = choose_plan(problem, dtype, target, threads)
    write_entry(key, json.dumps(plan).encode())
    return plan


def _plan_of(data: bytes) -> Plan | None:
    """The plan that stands in an entry, whose checksum is right."""
    words = json.loads(data)
    if words is None:
        return None
    plan = Plan._make(tuple(word) if isinstance(word, list) else word for word in words)
    return plan._replace(part=Part._make(plan.part))


_version = cache(partial(version_of, _SOURCES))
