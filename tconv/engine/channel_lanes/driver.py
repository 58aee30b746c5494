"""HOW AN ITEM IS TURNED: lanes are channels of y, and rows are outputs that read alike.

    for phase of y:
        for part in channels of x:                                # of weights that the L1 may hold
            for tile in outputs of the phase:                     # the same taps reach all its rows
                for c in part, tap in taps of the tile:
                    acc[r] += x[c, place[r] + shift[tap]] * w[c, tap][:lanes]
                sums[r] = (bias or sums[r]) + acc[r]
    y = sums, transposed

No product is made with the zeros around x, which are a quarter or more of all where images are
small. The sums are those of other items, in the same order: what is left out is zero.
"""

from collections.abc import Callable

from tconv.engine.codegen.abi import PHASE, TURNED_TILE, Call
from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.llvm import I8, I64, PTR, Argument, Module, Value
from tconv.engine.kernels.gemm import term

__all__ = ["broadcast", "run_turned"]


def broadcast(rows: int, vectors: int) -> Callable[[Module, str, ElementType], None]:
    """Add the products of `rows` cells of x, each in all lanes, and `vectors` vectors of weights.

    A tap is a pair of numbers: from a row's cell of x to that which the tap reads, and where its
    weights are. A row has its cell of x and its place among the sums.
    """

    def emit(module: Module, name: str, element: ElementType) -> None:
        pointers = dict.fromkeys(("w", "x", "taps", "places", "sums", "bias", "ahead"), PTR)
        sizes = ("channels", "x_channel", "w_channel", "reached", "step", "first")
        code, a = begin(module, name, pointers | dict.fromkeys(sizes, I64), element)
        cells = [code.at(a["x"], code.load(a["places"], 2 * r, I64)) for r in range(rows)]
        start = [*[element.zeros] * (rows * vectors), a["w"], code.index(0), a["ahead"]]
        with code.loop_carrying(a["channels"], start) as (of_channel, next_channel):
            *acc, w, channel, ahead = of_channel
            with code.loop_carrying(a["reached"], [*acc, a["taps"], ahead]) as (carried, following):
                *acc, taps, ahead = carried
                code.prefetch(ahead)
                cell = code.add(channel, code.load(taps, 0, I64))
                weights = code.at(w, code.load(taps, 1, I64))
                acc = term(code, acc, [code.at(row, cell) for row in cells], weights)
                ahead = code.at(ahead, a["step"], I8)
                following += [*acc, code.at(taps, 2, I64), ahead]
            *acc, _, ahead = following
            next_channel += [*acc, code.at(w, a["w_channel"]), code.add(channel, a["x_channel"])]
            next_channel.append(ahead)
        _add_to(code, next_channel[:-3], rows, a)
        code.end()

    return emit


def _add_to(code: Code, acc: list[Value], rows: int, a: dict[str, Argument]) -> None:
    """Store ``(bias if first else sums) + acc`` to the sums."""
    vectors, lanes = len(acc) // rows, code.element.lanes
    is_first = code.is_equal(a["first"], 1)
    for r in range(rows):
        to = code.at(a["sums"], code.load(a["places"], 2 * r + 1, I64))
        before = code.builder.select(is_first, a["bias"], to)
        for v in range(vectors):
            total = code.plus(code.load_vector(before, v * lanes), acc[r * vectors + v])
            code.store_vector(total, to, v * lanes)


def run_turned(module: Module, name: str, element: ElementType) -> None:
    """Emit ``run_turned(arguments, thread)``: take items, some images and a block of channels."""
    code, a = begin(module, name, {"arguments": PTR, "thread": I64}, element)
    c = Call(code, a["arguments"])
    c.line = code.at(c.scratch, code.mul(a["thread"], c.scratch_size))
    c.to = code.builder.alloca(PTR)
    with code.items(c.counter, c.items) as item:
        rest, chunk = code.divmod(item, c.chunks)
        group, block = code.divmod(rest, c.blocks)
        is_last = code.is_equal(block, code.sub(c.blocks, 1))
        image = code.mul(chunk, c.images)
        images = code.least(c.images, code.sub(c.batch, image))
        x = code.at(c.x, code.add(code.mul(image, c.x_batch), code.mul(group, c.x_group)))
        of_group = code.add(code.mul(group, c.blocks), block)
        weight = code.at(c.weight, code.mul(of_group, c.weight_block))
        bias = code.at(c.bias, code.mul(of_group, c.bias_block))
        _sum(c, x, weight, bias, is_last, code.is_less(images, c.images))
        channels = code.pick(is_last, c.last_block, c.block)
        with code.when(code.is_given(c.activate)):
            cells = code.mul(images, c.cells)
            code.call(c.activate, c.line, code.mul(cells, c.line_pitch), c.slope)
        channel = code.add(
            code.mul(group, c.y_group), code.mul(code.mul(block, c.block), c.y_channel)
        )
        with code.loop(images) as n:
            to = code.at(c.y, code.add(code.mul(code.add(image, n), c.y_batch), channel))
            sums = code.at(c.line, code.mul(code.mul(n, c.cells), c.line_pitch))
            code.call(c.turn_out, to, sums, c.y_channel, c.line_pitch, c.cells, channels)
    code.end()


def _sum(c: Call, x: Value, weight: Value, bias: Value, is_last: Value, is_short: Value) -> None:
    """Make the sums of a block of channels, phase by phase; a short item has lists of its own."""
    code = c.code
    phases = code.builder.select(is_short, c.last_phase_list, c.phase_list)
    tiles = code.builder.select(is_short, c.last_tiles, c.tiles)
    table = code.at(c.taps_of_tiles, code.pick(is_last, c.taps_of_last, 0), I64)
    rows = code.pick(is_last, c.last_block, c.block)
    kernel = code.pick(is_last, 1, 0)
    with code.loop(c.phases) as number:
        phase = PHASE.load(code, phases, number)
        of_phase = code.at(weight, code.mul(code.mul(phase["before"], c.channels), rows))
        by_tap = code.is_equal(c.by_tap, 1)
        together = code.pick(by_tap, 1, phase["taps"])
        turns = code.pick(by_tap, code.most(phase["taps"], 1), 1)
        w_channel = code.mul(together, rows)
        with code.loop(c.channels, step=c.part) as channel:
            channels = code.least(c.part, code.sub(c.channels, channel))
            of_x = code.at(x, code.mul(channel, c.x_channel))
            w = code.at(of_phase, code.mul(channel, w_channel))
            code.builder.store(code.at(w, code.mul(channels, w_channel)), c.to)
            with code.loop(turns) as turn, code.loop(phase["end"], phase["tiles"]) as n:
                tile = TURNED_TILE.load(code, tiles, n)
                micro = code.load(c.micros, code.add(tile["micro"], kernel), PTR)
                taps = code.at(table, code.mul(code.add(tile["taps"], turn), 2), I64)
                reached = code.pick(by_tap, code.least(1, tile["reached"]), tile["reached"])
                first = code.pick(code.is_equal(code.add(channel, turn), 0), 1, 0)
                with code.when(code.is_less(turn, code.most(tile["reached"], 1))):
                    asked = code.load(c.to, kind=PTR)
                    places = code.at(c.places, tile["places"], I64)
                    where = (w, of_x, taps, places, c.line, bias, asked)
                    sizes = (channels, c.x_channel, w_channel, reached, phase["asked"], first)
                    code.call(micro, *where, *sizes)
                    step = code.mul(code.mul(channels, reached), phase["asked"])
                    code.builder.store(code.at(asked, step, I8), c.to)
