"""WHAT RUNNING A PLAN TAKES: names of kernels, and numbers that drivers read; kept on disk.

To find them takes 2 to 25 ms, and 8 more to import what does it; to read what came of it 0.2
(Zen 3). All sizes of a layer with such a plan have them in common.
"""

from collections.abc import Callable, Mapping
from hashlib import sha256
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.engine.compile.disk_cache import warn_once
from tconv.engine.compile.fingerprint import fingerprint
from tconv.engine.compile.plan_log import read_plan, write_plan
from tconv.engine.plan.encoding import as_bytes, of_bytes, record_of
from tconv.system.pointers import address

__all__ = ["Laid", "Told", "laid_out"]

_MOST_BYTES = 2**20  # that are kept: to read more would take as long as to make it


class Told(NamedTuple):
    """Arguments of a driver, and by place in them the arrays whose addresses they need."""

    words: NDArray[np.int64]
    arrays: dict[int, NDArray[Any]]

    def addressed(self) -> NDArray[np.int64]:
        """The arguments with these addresses, right for as long as the arrays live."""
        words = self.words.copy()
        for place, array in self.arrays.items():
            words[place] = address(array)
        return words


class Laid(NamedTuple):
    """All that follows from a plan but addresses and sizes. Arrays may be read-only."""

    kernels: tuple[str, ...]
    called: tuple[tuple[int, int], ...]  # where the driver's arguments have kernels, and which
    listed: tuple[tuple[int, int], ...]  # which of its arrays have them, and in which column
    drivers: tuple[str, ...]  # what computes, and what packs weights
    packed_shape: tuple[int, int, int]
    packing_bytes: int  # of scratch
    bias_sources: NDArray[np.int64]
    arrays: dict[int, NDArray[Any]]  # by place in the driver's arguments
    packing: Told

    def located(self, found: Mapping[str, int], sizes: Told) -> Told:
        """What the driver is told, with addresses of kernels; 0 for those that are not found."""
        places = [0, *[found.get(name, 0) for name in self.kernels]]
        words, arrays = sizes.words.copy(), self.arrays | sizes.arrays
        for place, number in self.called:
            words[place] = places[number]
        for place, column in self.listed:
            array = arrays[place] = arrays[place].copy()
            array[:, column] = np.array(places, np.int64)[array[:, column]]
        return Told(words, arrays)


def laid_out(key: tuple[Any, ...], make: Callable[[], Laid]) -> Laid:
    """Return what `make` gives, from disk if it is there.

    `key` tells all that it follows from besides the sources.
    """
    name = sha256(repr((fingerprint(), key)).encode()).hexdigest()
    data, fault = read_plan(name)
    if data is not None:
        try:
            return record_of(Laid, of_bytes(data))
        except ValueError:  # its checksum is right: another program has made it
            fault = f"plan {name}, which holds something else"
    warn_once(fault)
    found = make()
    data = as_bytes(found)
    if len(data) <= _MOST_BYTES:
        write_plan(name, data)
    return found
