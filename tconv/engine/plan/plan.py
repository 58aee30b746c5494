"""WHAT A PLAN SAYS: tiles, items, blocks and threads, and which terms are summed at a time.

Only the last changes the order of a sum, and it depends on channels, kernel and strides alone.
"""

from functools import lru_cache
from math import ceil, prod
from typing import NamedTuple

from tconv.engine.plan.problem import Problem

__all__ = [
    "CYCLES_PER_US",
    "DIRECT",
    "STREAMED_BYTES",
    "STREAMED_PIECE_BYTES",
    "TABLE_ENTRIES",
    "Order",
    "Part",
    "Plan",
    "Tile",
    "tile_rows",
]

# A y so large is hardly in the caches when somebody reads it (Xeon, 2 MiB of L2 per core). Parts of
# rows that are shorter have too many cache lines that are written in part: 0.7x (Zen 3).
STREAMED_BYTES, STREAMED_PIECE_BYTES = 2**25, 4096
TABLE_ENTRIES = 2**20  # of a gathered panel, at most
CYCLES_PER_US = 2900  # of a server's core at work, as the model of costs has it
DIRECT = (1, 1, 1)  # outputs along depth, height and width that are made at a time
_PART_TERMS = 512  # a sum longer than this is made of several, which is more exact
# Where sums are made tap by tap, so that taps may be multiplied before they are added: there are
# terms enough that the additions cost little, and not so many taps that neighbours share most of
# what they read.
_MANY_CHANNELS, _FEW_TAPS_OF_PHASE = 512, 2


Order = tuple[tuple[int, int, int], bool]
"""What the order of sums depends on, of plans for one problem and type."""


class Plan(NamedTuple):
    """The choices for one geometry, type, processor and number of threads.

    A micro-kernel makes `tile` rows by `vectors` vectors; phases are counted as `Phases` has it for
    `is_uncropped`. An item is `planes` x `rows` x `columns` cells q of one group (gathered: rows
    of any image), and ``1/splits`` of its channels of y, done in blocks of `block` channels.
    `part` says what is summed at a time. If `outputs` are more than 1 along any axis, so many are
    made of fewer products, as `WinogradTransform` has it; q counts tiles then. If it `is_turned`,
    vectors are of channels of y and rows are outputs; an item is `planes` whole images.
    """

    tile: int
    vectors: int
    is_uncropped: bool
    is_gathered: bool
    is_spread: bool
    outputs: tuple[int, int, int]
    planes: int
    rows: int
    columns: int
    block: int
    splits: int
    part: "Part"
    threads: int
    cycles: float
    is_turned: bool = False

    @property
    def is_tiled(self) -> bool:
        """Whether outputs share products."""
        return self.outputs != DIRECT

    def streams(self, written_bytes: int, row_bytes: int, columns: int) -> bool:
        """Whether y goes past the caches, of so many bytes, and an item's rows of so many.

        A row is `columns` wide: if items have whole rows, those follow each other.
        """
        is_long = self.columns == columns or row_bytes >= STREAMED_PIECE_BYTES
        return is_long and written_bytes >= STREAMED_BYTES

    @property
    def order(self) -> Order:
        """What the order of sums depends on, of plans for one problem and type."""
        return self.outputs, self.is_tiled and self.is_uncropped

    @property
    def packing(self) -> tuple[object, ...]:
        """What the order of packed weights depends on, of plans for one layer and type."""
        tile = 0 if self.is_turned else self.tile
        kind = (self.is_uncropped, self.is_spread, self.is_turned, self.outputs)
        return (tile, self.block, *kind, self.part)


class Part(NamedTuple):
    """The terms that are summed from zero before they are added to an output.

    They are those of so many channels of x, of all taps or, `by_tap`, of each tap.

    >>> from tconv.geometry.geometry import Geometry
    >>> Part.of(Problem(Geometry.of((1, 64, 9, 9), (64, 64, 4, 4), stride=2)))
    Part(channels=64, by_tap=False)
    """

    channels: int
    by_tap: bool

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, problem: Problem) -> "Part":
        """Depends on channels, kernel and strides, hence not on where an image is cropped."""
        channels, taps = problem.channels, problem.taps
        if problem.want == "y":
            taps = prod(axis.taps_per_phase[1] for axis in problem.geometry.axes)
        many = channels >= _MANY_CHANNELS and 1 < taps <= _FEW_TAPS_OF_PHASE
        by_tap = problem.want == "y" and many
        return cls.of_terms(channels, 1 if by_tap else taps, by_tap)

    @classmethod
    def of_terms(cls, channels: int, terms: int, by_tap: bool = False) -> "Part":
        """As many channels as a sum may have, of so many terms each."""
        most = max(1, min(channels, _PART_TERMS // terms))
        part = ceil(channels / ceil(channels / most))
        return cls(min(channels, part + part % 2), by_tap)  # kernels take two terms at a time


class Tile(NamedTuple):
    """Rows of a block that one call of a micro-kernel makes, of those of one `kind`."""

    kind: int
    first: int
    rows: int
    weight: int
    line: int


def tile_rows(rows: int, tile: int) -> list[int]:
    """Part rows into as few tiles as there must be, of nearly equal heights.

    >>> tile_rows(32, 14)
    [11, 11, 10]
    """
    count = ceil(rows / tile)
    return [rows // count + (n < rows % count) for n in range(count)]
