"""Pointwise driver: x is the second matrix of a GEMM, and y its result, both as they lie.

    while (task := counter++) < tasks:                     # lanes of an image, a block of channels
        for lanes in tiles of the task's lanes:
            for k_block in channels of x:
                for tile in the block's tiles:
                    micro_kernel(weights, x or panel, y)                          # gemm.py

The first tile reads x in place, and copies what it reads to a panel, which later tiles read from
the L1 cache. The last lanes of an image, which fill no tile, are copied first; their sums go to y
by way of accumulators.
"""

from collections.abc import Iterator
from contextlib import contextmanager

from tconv.engine.codegen.abi import TILE, Call
from tconv.engine.codegen.code import ElementType, begin
from tconv.engine.codegen.llvm import I32, I64, PTR, Module, Value

__all__ = ["run_pointwise"]


def run_pointwise(module: Module, name: str, element: ElementType) -> None:
    """Emit ``run(arguments, thread)``: take tasks until there are none."""
    code, a = begin(module, name, {"arguments": PTR, "thread": I64}, element)
    c = Call(code, a["arguments"])
    c.panel = code.at(c.scratch, code.mul(a["thread"], c.scratch_size))
    c.acc = code.at(c.panel, c.panel_size)
    with code.tasks(c.counter, c.tasks) as task:
        rest, block = code.divmod(task, c.blocks)
        image, column_block = code.divmod(rest, c.column_blocks)
        _, group = code.divmod(image, c.groups)
        x = code.at(c.x, code.mul(image, c.x_group))
        number = code.add(code.mul(group, c.blocks), block)
        weight = code.at(c.weight, code.mul(number, c.weight_block))
        bias = code.at(c.bias, code.mul(number, c.bias_block))
        first = code.mul(block, c.block, c.y_channel)
        y = code.at(c.y, code.add(code.mul(image, c.y_group), first))
        of_block = _Block(c, weight, bias, code.is_equal(block, code.sub(c.blocks, 1)))
        start = code.mul(column_block, c.columns)
        end = code.least(code.add(start, c.columns), c.all_columns)
        whole = code.div(code.sub(end, start), c.wide_lanes)
        with code.loop(whole) as n:
            lane = code.add(start, code.mul(n, c.wide_lanes))
            of_block.multiply(code.at(x, lane), code.at(y, lane))
        done = code.add(start, code.mul(whole, c.wide_lanes))
        with code.when(code.is_less(done, end)):
            of_block.multiply_rest(code.at(x, done), code.at(y, done), code.sub(end, done))
    code.end()


class _Block:
    """A block of channels of y, whose sums are computed for some lanes at a time."""

    def __init__(self, c: Call, weight: Value, bias: Value, is_last: Value) -> None:
        code, self.c = c.code, c
        self.weight, self.bias = weight, bias
        self.tiles = code.builder.select(is_last, c.last_tiles, c.tiles)
        self.count = code.pick(is_last, c.last_tile_count, c.tile_count)
        self.channels = code.pick(is_last, c.last_block, c.block)

    def multiply(self, x: Value, y: Value) -> None:
        """Emit the GEMM of a tile's lanes of x, the sums of which go to y."""
        c, code = self.c, self.c.code
        with self._k_blocks() as (channel, terms, first):
            source = code.at(x, code.mul(channel, c.x_channel))
            with code.loop(self.count) as n:
                w, bias, tile = self._tile(n, channel)
                to = code.at(y, code.mul(tile["acc"], c.y_channel))
                sizes = (terms, c.y_channel, first)
                with code.if_else(code.is_equal(n, 0)) as (copies, reads):
                    with copies:
                        micro = code.load(c.copying_micros, tile["micro"], PTR)
                        code.call(micro, w, source, c.offsets, to, bias, *sizes, c.panel)
                    with reads:
                        micro = code.load(c.micros, tile["micro"], PTR)
                        offsets = code.at(c.offsets, c.k_block, I32)
                        code.call(micro, w, c.panel, offsets, to, bias, *sizes)
        with code.when(code.is_given(c.activate)), code.loop(self.channels) as n:
            code.call(c.activate, code.at(y, code.mul(n, c.y_channel)), c.wide_lanes, c.slope)

    def multiply_rest(self, x: Value, y: Value, count: Value) -> None:
        """Emit the GEMM of the last lanes of x, `count` of them."""
        c, code = self.c, self.c.code
        with self._k_blocks() as (channel, terms, first):
            _copy(
                c,
                (c.panel, c.rest_lanes),
                (code.at(x, code.mul(channel, c.x_channel)), c.x_channel),
                terms,
                count,
                loads=True,
            )
            with code.loop(self.count) as n:
                w, bias, tile = self._tile(n, channel)
                to = code.at(c.acc, code.mul(tile["acc"], c.rest_lanes))
                micro = code.load(c.micros, code.add(tile["micro"], 1), PTR)
                offsets = code.at(c.offsets, code.mul(c.k_block, 2), I32)
                code.call(micro, w, c.panel, offsets, to, bias, terms, c.rest_lanes, first)
        with code.when(code.is_given(c.activate)):
            code.call(c.activate, c.acc, code.mul(self.channels, c.rest_lanes), c.slope)
        _copy(c, (y, c.y_channel), (c.acc, c.rest_lanes), self.channels, count, loads=False)

    @contextmanager
    def _k_blocks(self) -> Iterator[tuple[Value, Value, Value]]:
        """A loop over k-blocks: the first channel, the number of terms, and whether sums begin."""
        c, code = self.c, self.c.code
        with code.loop(c.channels, step=c.k_block) as channel:
            terms = code.least(c.k_block, code.sub(c.channels, channel))
            yield channel, terms, code.pick(code.is_equal(channel, 0), 1, 0)

    def _tile(self, n: Value, channel: Value) -> tuple[Value, Value, dict[str, Value]]:
        """Weights from a channel on, and biases, of a tile, and its entry."""
        code = self.c.code
        tile = TILE.load(code, self.tiles, n)
        of_tile = code.add(tile["weight"], code.mul(channel, tile["rows"]))
        return code.at(self.weight, of_tile), code.at(self.bias, tile["acc"]), tile


def _copy(
    c: Call,
    to: tuple[Value, Value],
    source: tuple[Value, Value],
    rows: Value,
    count: Value,
    *,
    loads: bool,
) -> None:
    """Copy `count` lanes of rows: from x, and zeros after them, or to y and nothing beyond."""
    code, lanes = c.code, c.code.element.lanes
    with code.loop(c.rest_lanes, step=lanes) as lane:
        some = code.first_lanes(code.sub(count, lane))
        with code.loop(rows) as n:
            (a, a_step), (b, b_step) = to, source
            row = code.at(a, code.add(code.mul(n, a_step), lane))
            from_ = code.at(b, code.add(code.mul(n, b_step), lane))
            if loads:
                code.store_vector(code.load_lanes(from_, some), row)
            else:
                code.store_lanes(code.load_vector(from_), row, some)
