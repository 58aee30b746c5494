"""A plan: algorithm, tile, task, block, threads and k-block.

Only the k-block and Winograd change the order of a sum; the k-block depends on channels, kernel and
strides alone.
"""

from functools import lru_cache
from math import ceil, prod
from typing import NamedTuple

from tconv.engine.plan.problem import Problem

__all__ = [
    "CYCLES_PER_US",
    "ONE_OUTPUT",
    "STREAMED_BYTES",
    "STREAMED_PIECE_BYTES",
    "TABLE_ENTRIES",
    "KBlock",
    "Order",
    "Plan",
    "Tile",
    "even_size",
    "tile_heights",
    "tile_rows",
]

# A y of this size is hardly in the caches when it is read next (Xeon, 2 MiB of L2 per core). With
# shorter pieces of rows too many cache lines are written in part: 0.7x (Zen 3).
STREAMED_BYTES, STREAMED_PIECE_BYTES = 2**25, 4096
TABLE_ENTRIES = 2**20  # of an im2col panel, at most
CYCLES_PER_US = 2900  # of a busy server core, in the cost model
ONE_OUTPUT = (1, 1, 1)  # computed at a time along depth, height and width: all but Winograd
_BLOCK_TERMS = 512  # a longer sum is the sum of several, which is more exact
# Where sums go tap by tap, so that col2im may multiply all taps before it adds them: with enough
# channels the additions cost little, and with few taps neighbours share little of what they read.
_MANY_CHANNELS, _FEW_TAPS_OF_PHASE = 512, 2


Order = tuple[tuple[int, int, int], bool]
"""What the order of sums depends on, among plans for one problem and type."""


class Plan(NamedTuple):
    """The choices for one geometry, type, processor and number of threads.

    `algorithm` is one of:

    - "direct": implicit GEMM; a tap is a step to another cell of a padded panel of x;
    - "im2col": GEMM with a panel that holds the cells of every shift;
    - "col2im": GEMM of x, as it lies, by all taps; the products are scattered and added;
    - "winograd": sets of `outputs` outputs share products; the panel is of either kind;
    - "channel_lanes": vectors of output channels, rows of outputs; a task is `planes` images;
    - "depthwise": rows of outputs whose vectors slide over x; a task is `rows` rows of each of
      `planes` images of a channel of y;
    - "row_gemm": GEMM whose columns are cells of y, to which the sums are written; a task
      is `columns` cells of `rows` rows of an image, and a block.

    `panel` is "padded", "im2col", "rows" for the cells of a tile of a row GEMM or, where x is read
    as it lies, "none". A micro-kernel computes `tile` rows by `vectors` vectors. Phases are counted
    as `Phases` does for `is_uncropped`. A task is `planes` x `rows` x `columns` places q of one
    group (im2col: rows of any image; Winograd: q counts sets) and ``1/splits`` of its output
    channels, in blocks of `block` channels. `k_block` says which terms are summed before they are
    added to an output.
    """

    algorithm: str
    panel: str
    tile: int
    vectors: int
    planes: int
    rows: int
    columns: int
    block: int
    k_block: "KBlock"
    is_uncropped: bool = False
    outputs: tuple[int, int, int] = ONE_OUTPUT
    splits: int = 1
    threads: int = 1
    cycles: float = 0.0

    def streams(self, written_bytes: int, row_bytes: int, columns: int) -> bool:
        """Whether y is written by non-temporal stores: y and the pieces of its rows are large.

        A row is `columns` wide: if tasks have whole rows, these follow each other.
        """
        is_long = self.columns == columns or row_bytes >= STREAMED_PIECE_BYTES
        return is_long and written_bytes >= STREAMED_BYTES

    @property
    def order(self) -> Order:
        """What the order of sums depends on, among plans for one problem and type."""
        return self.outputs, self.algorithm == "winograd" and self.is_uncropped

    @property
    def packing(self) -> tuple[object, ...]:
        """What the order of packed weights depends on, among plans for one layer and type."""
        tile = 0 if self.algorithm in ("channel_lanes", "depthwise") else self.tile
        alike = self.algorithm in ("im2col", "row_gemm")  # the same rows
        matrix = "direct" if alike else self.algorithm
        return (tile, self.block, self.is_uncropped, matrix, self.outputs, self.k_block)


class KBlock(NamedTuple):
    """The terms that are summed from zero before the sum is added to an output.

    They are the terms of `channels` channels of x, for all taps or, `per_tap`, for each tap.

    >>> from tconv.geometry.geometry import Geometry
    >>> KBlock.of(Problem(Geometry.of((1, 64, 9, 9), (64, 64, 4, 4), stride=2)))
    KBlock(channels=64, per_tap=False)
    """

    channels: int
    per_tap: bool

    @classmethod
    @lru_cache(maxsize=256)
    def of(cls, problem: Problem) -> "KBlock":
        """Return it for a problem; it depends on channels, kernel and strides, not on the crop."""
        channels, taps = problem.channels, problem.taps
        if problem.want == "y":
            taps = prod(axis.taps_per_phase[1] for axis in problem.geometry.axes)
        many = channels >= _MANY_CHANNELS and 1 < taps <= _FEW_TAPS_OF_PHASE
        per_tap = problem.want == "y" and many
        return cls.of_terms(channels, 1 if per_tap else taps, per_tap)

    @classmethod
    def of_terms(cls, channels: int, terms: int, per_tap: bool = False) -> "KBlock":
        """Return as many channels as a sum may have, with so many terms each."""
        most = max(1, min(channels, _BLOCK_TERMS // terms))
        size = even_size(channels, most)
        return cls(min(channels, size + size % 2), per_tap)  # kernels take two terms at a time


class Tile(NamedTuple):
    """Rows of a block that one call of a micro-kernel computes, all of one `kind`."""

    kind: int
    first: int
    rows: int
    weight: int
    acc: int


def tile_rows(rows: int, tile: int) -> list[int]:
    """Split rows into as few tiles as possible, of nearly equal heights.

    >>> tile_rows(32, 14)
    [11, 11, 10]
    """
    count = ceil(rows / tile)
    return [rows // count + (n < rows % count) for n in range(count)]


def tile_heights(rows: int, tile: int) -> list[tuple[int, int]]:
    """Heights of the tiles that `tile_rows` gives, and how many there are of each.

    >>> tile_heights(32, 14)
    [(11, 2), (10, 1)]
    """
    count = ceil(rows / tile)
    low, more = divmod(rows, count)
    return [(low + 1, more), (low, count - more)] if more else [(low, count)]


def even_size(count: int, most: float, step: int = 1) -> int:
    """The size of nearly equal parts of at most `most`, in whole steps, one at least.

    >>> even_size(100, 30), even_size(100, 30, 8)
    (25, 24)
    """
    steps = ceil(count / step)
    size = step * ceil(steps / ceil(steps / max(1, int(most / step))))
    return min(count, size)
