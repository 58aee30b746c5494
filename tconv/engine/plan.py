"""WHAT IS CHOSEN for a call: tiles, blocks and threads, by a model of what each would cost.

Nothing here changes the order in which an output's terms are summed, but `part_channels`, which
depends on channels and kernel alone.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import lru_cache
from math import ceil, prod

from tconv.engine.phases import Phases
from tconv.engine.target import Target
from tconv.geometry import Geometry

__all__ = [
    "MOST_INTERLEAVED",
    "TILES",
    "Plan",
    "all_plans",
    "best_plans",
    "choose_plan",
    "tile_rows",
]

MOST_INTERLEAVED = 8  # phases that are interleaved in registers; more are stored one by one
_PART_TERMS = 512  # a sum longer than this is made of several, which is more exact
_LANES = (32, 64, 96, 128, 192, 256, 384, 512, 768, 1024)
_LINE_BYTES = 2**18
_LARGEST_PANEL_BYTES = 2**25  # where not even the smallest item stays in the cache
_TABLE_ENTRIES = 2**20
_LEAST_FLOPS_PER_CYCLE, _SMALL_CYCLES = 0.2, 2_000_000
_WAKE_CYCLES = 15_000
# Rows and vectors of tiles whose sums stay in the registers: tests read the assembly of each.
# Without FMA a product takes a register, too.
TILES = {
    "avx512": ((16, 1), (14, 2), (8, 3), (6, 4), (4, 6), (3, 8)),
    "avx2": ((12, 1), (6, 2), (4, 3), (3, 4), (2, 6), (1, 8)),
    "neon": ((16, 1), (13, 2), (8, 3), (6, 4), (4, 6), (3, 8)),
    "sse2": ((14, 1), (6, 2), (3, 3), (2, 4), (2, 6)),
    "generic": ((14, 1), (6, 2), (3, 3), (2, 4), (2, 6)),
}
# Cycles, as measured on AVX-512 and AVX2 with two threads; their ratios matter, not their scale.
_CALL_CYCLES, _STORE_CYCLES = 25, 1.5  # of a call of micro, and per vector that it stores
_ROW_CYCLES = 12  # of a call of pack_row or copy_row
_GATHER_CYCLES = 2.0  # per cell
_STREAM_BYTES = 10  # per cycle, of weights that the L2 cache does not hold


@dataclass(frozen=True)
class Plan:
    """The choices for one geometry, type, processor and number of threads.

    A micro-kernel makes `tile` rows by `vectors` vectors; phases are counted as `Phases` has it for
    `is_uncropped`. An item is `rows` x `columns` cells q of one group (gathered: rows of any
    image), and ``1/splits`` of its channels of y, done in blocks of `block` channels;
    `part_channels` channels of x are summed at a time.
    """

    tile: int
    vectors: int
    is_uncropped: bool
    is_gathered: bool
    rows: int
    columns: int
    block: int
    splits: int
    part_channels: int
    threads: int
    cycles: float


@lru_cache(maxsize=1024)
def choose_plan(geometry: Geometry, dtype: str, target: Target, threads: int) -> Plan | None:
    """Return the plan that the model finds cheapest; None if each is wasteful.

    So it is where a wide dilation makes the borders of every item larger than the item.
    """
    best = next(iter(best_plans(geometry, dtype, target, threads)), None)
    if best is None or best.cycles > _SMALL_CYCLES + geometry.flops / _LEAST_FLOPS_PER_CYCLE:
        return None
    return best


def all_plans(geometry: Geometry, dtype: str, target: Target, threads: int) -> Iterator[Plan]:
    """Yield every plan worth considering."""
    cropped = Phases.of(geometry.axes)
    yield from _Costs(geometry, dtype, target, threads, cropped).plans(is_uncropped=False)
    uncropped = Phases.of(geometry.axes, True)
    if len(uncropped.alike) < len(cropped.alike):
        yield from _Costs(geometry, dtype, target, threads, uncropped).plans(is_uncropped=True)


def best_plans(geometry: Geometry, dtype: str, target: Target, threads: int) -> list[Plan]:
    """Return the cheapest plan of every tile and kind of panel, the cheapest first."""
    found: dict[tuple[int, bool], Plan] = {}
    for plan in all_plans(geometry, dtype, target, threads):
        key = (plan.vectors, plan.is_gathered)
        if key not in found or plan.cycles < found[key].cycles:
            found[key] = plan
    return sorted(found.values(), key=lambda plan: plan.cycles)


def tile_rows(rows: int, tile: int) -> list[int]:
    """Part rows into as few tiles as there must be, of nearly equal heights.

    >>> tile_rows(32, 14)
    [11, 11, 10]
    """
    count = ceil(rows / tile)
    return [rows // count + (n < rows % count) for n in range(count)]


class _Costs:
    """What plans for one geometry cost."""

    def __init__(
        self, geometry: Geometry, dtype: str, target: Target, threads: int, phases: Phases
    ) -> None:
        self.geometry, self.target, self.threads = geometry, target, threads
        self.bytes = {"float32": 4, "float64": 8}[dtype]
        self.lanes = target.vector_bits // 8 // self.bytes
        self.phases = phases
        self.channels = geometry.in_channels // geometry.groups
        self.outputs = geometry.out_channels // geometry.groups
        most_taps = prod(axis.taps_per_phase[1] for axis in geometry.axes)
        most = max(1, min(self.channels, _PART_TERMS // most_taps))
        part = ceil(self.channels / ceil(self.channels / most))
        self.part = min(self.channels, part + part % 2)  # the kernels take two terms at a time
        self.weight_bytes = prod(geometry.weight_shape[1:]) * self.channels * self.bytes

    def plans(self, *, is_uncropped: bool) -> Iterator[Plan]:
        """Every plan worth considering with these phases."""
        for is_gathered, rows, columns in self._items():
            lanes = self._lanes(is_gathered, rows, columns)
            vectors_in_all = ceil(lanes / self.lanes)
            for tile, most in TILES[self.target.instruction_set]:
                if most > 1 and most > vectors_in_all:
                    continue
                vectors = ceil(vectors_in_all / ceil(vectors_in_all / most))
                block = self._block(tile, vectors_in_all * self.lanes)
                blocks = ceil(self.outputs / block)
                for splits in (1, 2, 4, 8):
                    if splits > blocks:
                        break
                    plan = Plan(
                        tile,
                        vectors,
                        is_uncropped,
                        is_gathered,
                        rows,
                        columns,
                        block,
                        splits,
                        self.part,
                        self.threads,
                        0.0,
                    )
                    yield self._priced(plan, lanes)

    def _items(self) -> Iterator[tuple[bool, int, int]]:
        """Sizes of items, flat and gathered, whose panel and table are not too large."""
        z, y, x = self.phases.axes
        panel = self.target.l2_bytes * 0.6
        seen: set[tuple[bool, int, int]] = set()
        for lanes in _LANES:
            parts = ceil(x.count / lanes)
            columns = min(x.count, ceil(x.count / parts / self.lanes) * self.lanes)
            rows = min(y.count, max(1, lanes // x.pitch(columns)))
            rows = ceil(y.count / ceil(y.count / rows))
            size = (rows + y.high - y.low) * (1 + z.high - z.low) * x.pitch(columns)
            line = self.phases.count * (rows * x.pitch(columns)) * self.bytes
            fits = size * self.channels * self.bytes <= panel and line <= 4 * _LINE_BYTES
            fits = fits or (not seen and size * self.channels * self.bytes <= _LARGEST_PANEL_BYTES)
            if (False, rows, columns) not in seen and fits:
                seen.add((False, rows, columns))
                yield False, rows, columns
        all_rows = self.geometry.batch * z.count * y.count
        shifts = prod(axis.high - axis.low + 1 for axis in self.phases.axes)
        if not all_rows or all_rows * x.count * shifts > _TABLE_ENTRIES:
            return
        for lanes in _LANES:
            rows = min(all_rows, max(1, lanes // x.count))
            rows = ceil(all_rows / ceil(all_rows / rows))
            fits = rows * x.count * shifts * self.channels * self.bytes <= panel
            fits = fits and self.phases.count * rows * x.count * self.bytes <= 4 * _LINE_BYTES
            if fits and (True, rows, x.count) not in seen:
                seen.add((True, rows, x.count))
                yield True, rows, x.count

    def _lanes(self, is_gathered: bool, rows: int, columns: int) -> int:
        pitch = columns if is_gathered else self.phases.axes[2].pitch(columns)
        return (rows - 1) * pitch + columns

    def _block(self, tile: int, line_pitch: int) -> int:
        """Channels of y whose rows fill the tiles best, and whose lines stay in the cache."""
        counts = [len(alike.phases) for alike in self.phases.alike]
        line_bytes = self.phases.count * line_pitch * self.bytes
        best, block = 0.0, 1
        for channels in range(1, min(self.outputs, 64) + 1):
            if channels > 1 and channels * line_bytes > _LINE_BYTES:
                break
            rows = [count * channels for count in counts]
            filled = sum(rows) / sum(ceil(n / tile) * tile for n in rows)
            blocks = ceil(self.outputs / channels)
            filled *= self.outputs / (blocks * channels)
            if filled > best + 0.02:
                best, block = filled, channels
        return block

    def _priced(self, plan: Plan, lanes: int) -> Plan:
        geometry, (z, y, x) = self.geometry, self.phases.axes
        blocks = ceil(self.outputs / plan.block)
        vectors = ceil(lanes / self.lanes)
        compute = 0.0
        for alike in self.phases.alike:
            terms = alike.taps * self.channels
            parts = ceil(self.channels / self.part)
            for rows in tile_rows(len(alike.phases) * plan.block, plan.tile):
                whole, rest = divmod(vectors, plan.vectors)
                for wide, count in ((plan.vectors, whole), (rest, min(rest, 1))):
                    each = terms * self._term_cycles(rows, wide, alike.taps > 1)
                    each += parts * (_CALL_CYCLES + rows * wide * _STORE_CYCLES)
                    compute += count * each
        compute *= blocks
        per_cell = 0.3 if x.stride <= MOST_INTERLEAVED else 1.5
        per_cell *= 16 / self.lanes if x.stride <= MOST_INTERLEAVED else 1
        cells = plan.rows * plan.columns * x.stride
        lines = plan.rows * z.stride * y.stride
        copy = self.outputs * (lines * _ROW_CYCLES + cells * z.stride * y.stride * per_cell)
        if self.weight_bytes > self.target.l2_bytes // 2:
            compute += self.weight_bytes / _STREAM_BYTES
        if plan.is_gathered:
            shifts = prod(axis.high - axis.low + 1 for axis in self.phases.axes)
            pack = self.channels * shifts * lanes * _GATHER_CYCLES
            items = ceil(geometry.batch * z.count * y.count / plan.rows)
        else:
            rows = (1 + z.high - z.low) * (plan.rows + y.high - y.low)
            pitch = x.pitch(plan.columns)
            pack = self.channels * rows * (_ROW_CYCLES + pitch * 2.0 / self.lanes)
            items = geometry.batch * z.count * ceil(y.count / plan.rows)
            items *= ceil(x.count / plan.columns)
        items *= geometry.groups * plan.splits
        item = pack + (compute + copy) / plan.splits
        alone, together = items * item, ceil(items / self.threads) * item + _WAKE_CYCLES
        if alone <= together:
            return replace(plan, threads=1, cycles=alone)
        return replace(plan, cycles=together)

    def _term_cycles(self, rows: int, vectors: int, is_unaligned: bool) -> float:
        """Cycles of one channel and tap: of the multiplications, the loads, or the latency."""
        split = 2 if is_unaligned and self.target.vector_bits == 512 else 1
        loads = (rows + vectors * split + 1) / 2
        return max(rows * vectors / 2, loads, 4.0)
