"""WHICH PLANS ARE KNOWN: what was chosen before, by this process or by another.

Choosing takes some milliseconds, which a new process would spend again for every shape.
"""

import marshal
from functools import cache, lru_cache
from hashlib import sha256
from typing import Any

import numpy as np

from tconv.engine.bands import band_of
from tconv.engine.choice import candidates, fitted, lanes_of
from tconv.engine.plan import Part, Plan
from tconv.engine.problem import Problem
from tconv.engine.store import read_entry, version_of, warn_once, write_entry
from tconv.engine.target import Target

__all__ = ["as_bytes", "known_candidates", "known_plan", "version"]

_FORMAT = 4  # of `marshal`, which every Python reads; `json` takes longer to import

# What plans, their layouts and the code follow from: what other sources wrote to disk is not what
# is wanted.
_SOURCES = (
    *("../axis.py", "../geometry.py", "phases.py", "problem.py", "winograd.py", "plan.py"),
    *("costs.py", "tilings.py", "turnings.py", "bands.py", "choice.py"),
    *("values.py", "builder.py", "ir.py", "halves.py", "kernels.py", "gathering.py", "call.py"),
    *("panels.py", "spread.py", "transforms.py", "tiles.py", "epilogue.py", "output.py"),
    *("driver.py", "packing.py", "transposing.py", "making.py", "products.py", "correlating.py"),
    *("turned.py", "cells.py", "layout.py", "tiled_layout.py", "turned_layout.py"),
    *("known.py", "laid.py", "laying.py"),
)


@cache
def version() -> str:
    """Return the version of all that is kept but the code of threads."""
    return version_of(_SOURCES)


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
    key = sha256(repr((version(), band, dtype, target, threads)).encode()).hexdigest()
    data, fault = read_entry(key)
    warn_once(fault)
    if data is not None:
        return tuple(map(_plan_of, marshal.loads(data)))
    found = candidates(band, dtype, target, threads)
    write_entry(key, as_bytes(found))
    return found


def as_bytes(value: Any) -> bytes:
    """Tuples of any kind, dicts, arrays, numbers and texts, as `marshal` reads them again.

    An array is its type, its shape and its bytes.
    """
    return marshal.dumps(_plain(value), _FORMAT)


def _plain(value: Any) -> Any:
    if isinstance(value, np.ndarray):
        return value.dtype.str, value.shape, value.tobytes()
    if isinstance(value, dict):
        return {key: _plain(each) for key, each in value.items()}
    return tuple(map(_plain, value)) if isinstance(value, tuple) else value


def _plan_of(words: Any) -> Plan:
    """A plan that stands in an entry, whose checksum is right."""
    plan = Plan._make(words)
    return plan._replace(part=Part._make(plan.part))
