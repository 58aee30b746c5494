"""A lowered plan: names of kernels, tables and buffer sizes, kept on disk; addresses bound later.

To lower a plan takes 2 to 25 ms, and 8 more to import what does it; to read what came of it 0.2
(Zen 3). What does not depend on sizes is a `LoweredPlan`, which all sizes of a layer with such a
plan share; what does is a `SizedPlan`, one for each size.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache
from hashlib import sha256
from typing import Any, NamedTuple, TypeVar

import numpy as np
from numpy.typing import NDArray

from tconv.engine.compile.disk_cache import warn_once
from tconv.engine.compile.plan_log import read_plan, write_plan
from tconv.engine.plan.encoding import as_bytes, of_bytes, record_of
from tconv.engine.plan.plan import Plan
from tconv.system.pointers import address

__all__ = [
    "Arguments",
    "LoweredPlan",
    "SizedPlan",
    "digest",
    "load_or_lower",
    "read_as",
    "read_record",
    "write_record",
]

_Record = TypeVar("_Record", bound=tuple[Any, ...])
_Kept = TypeVar("_Kept")
_MOST_BYTES = 2**20  # that are kept: to read more would take as long as to lower the plan again


class Arguments(NamedTuple):
    """Arguments of a driver; by place in them the arrays whose addresses they need."""

    words: NDArray[np.int64]
    arrays: dict[int, NDArray[Any]]

    def bind(self) -> NDArray[np.int64]:
        """Return the arguments with these addresses, right for as long as the arrays live."""
        words = self.words.copy()
        for place, array in self.arrays.items():
            words[place] = address(array)
        return words


class LoweredPlan(NamedTuple):
    """All that follows from a plan but addresses and sizes. Arrays may be read-only."""

    kernels: tuple[str, ...]
    called: tuple[tuple[int, int], ...]  # where the driver's arguments have kernels, and which
    listed: tuple[tuple[int, int], ...]  # which of its arrays have them, and in which column
    drivers: tuple[str, ...]  # what computes, and what packs weights
    packed_shape: tuple[int, int, int]
    packing_bytes: int  # of scratch
    bias_sources: NDArray[np.int64]
    arrays: dict[int, NDArray[Any]]  # by place in the driver's arguments
    packing: Arguments

    def link(self, found: Mapping[str, int], sizes: Arguments) -> Arguments:
        """Return the driver's arguments with addresses of kernels; 0 where one is not found."""
        places = [0, *[found.get(name, 0) for name in self.kernels]]
        words, arrays = sizes.words.copy(), self.arrays | sizes.arrays
        for place, number in self.called:
            words[place] = places[number]
        for place, column in self.listed:
            array = arrays[place] = arrays[place].copy()
            array[:, column] = np.array(places, np.int64)[array[:, column]]
        return Arguments(words, arrays)


class SizedPlan(NamedTuple):
    """A plan for one size, and all that follows from both but addresses.

    With it a new process makes a primitive without choosing a plan or computing a layout.
    """

    plan: Plan
    family: str  # the digest that its `LoweredPlan` is kept under
    packing: str  # a digest that plans which read the same packed weights share
    scratch_size: int  # elements of a thread
    sizes: Arguments


@lru_cache(maxsize=4096)
def digest(key: tuple[Any, ...]) -> str:
    """Return the name on disk for a key, whose `repr` tells all that the entry follows from."""
    return sha256(repr(key).encode()).hexdigest()


def load_or_lower(name: str, lower: Callable[[], LoweredPlan]) -> LoweredPlan:
    """Return the lowered plan that is kept under a name; if there is none, lower it and keep it."""
    found = read_record(LoweredPlan, name)
    if found is None:
        found = lower()
        write_record(name, found)
    return found


def read_record(kind: type[_Record], name: str) -> _Record | None:
    """Return the record that is kept under a name; None if there is none."""
    return read_as(lambda value: record_of(kind, value), name)


def read_as(decode: Callable[[Any], _Kept], name: str) -> _Kept | None:
    """Return what `decode`, which may raise ValueError, makes of the entry; None if there is none.

    An entry that cannot be read or decoded is warned of once, and counts as none.
    """
    data, fault = read_plan(name)
    if data is not None:
        try:
            return decode(of_bytes(data))
        except ValueError:  # its checksum is right: another program has made it
            fault = f"plan {name}, which holds something else"
    warn_once(fault)
    return None


def write_record(name: str, record: tuple[Any, ...]) -> None:
    """Keep a record under a name, if it is not too large."""
    data = as_bytes(record)
    if len(data) <= _MOST_BYTES:
        write_plan(name, data)
