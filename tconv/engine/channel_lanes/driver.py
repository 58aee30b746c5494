"""Channel-lanes driver and micro-kernel: lanes are output channels, rows are outputs of a phase.

    for phase of y:
        for k_block in channels of x:                             # whose weights the L1 may hold
            for tile in outputs of the phase:                     # the same taps reach all its rows
                for c in k_block, tap in taps of the tile:        # the micro-kernel, `broadcast`
                    acc[r] += x[c, place[r] + shift[tap]] * w[c, tap][:lanes]
                sums[r] = (bias if first else sums[r]) + acc[r]
    y = sums, transposed

There are no products with the zeros around x, which are a quarter or more of all where images are
small. The sums have the order of direct plans: only terms that are zero are left out.
"""

from collections.abc import Callable

from tconv.engine.codegen.abi import CHANNEL_LANES_TILE, PHASE, Call
from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.llvm import I8, I64, PTR, Argument, Module, Value
from tconv.engine.kernels.gemm import rank1_update

__all__ = ["broadcast", "run_channel_lanes"]


def broadcast(rows: int, vectors: int) -> Callable[[Module, str, ElementType], None]:
    """Return the emitter of a micro-kernel: `rows` broadcast cells of x by `vectors` of weights.

    A tap is a pair of offsets: from a row's cell of x to the one that the tap reads, and of its
    weights. A row is a pair, too: the offsets of its cell of x and of its sums. Each term
    prefetches the line at ``ahead``, which then moves on by ``step`` bytes.
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
                acc = rank1_update(code, acc, [code.at(row, cell) for row in cells], weights)
                ahead = code.at(ahead, a["step"], I8)
                following += [*acc, code.at(taps, 2, I64), ahead]
            *acc, _, ahead = following
            next_channel += [*acc, code.at(w, a["w_channel"]), code.add(channel, a["x_channel"])]
            next_channel.append(ahead)
        _add_to(code, next_channel[:-3], rows, a)
        code.end()

    return emit


def _add_to(code: Code, acc: list[Value], rows: int, a: dict[str, Argument]) -> None:
    """Emit ``sums = (bias if first else sums) + acc``."""
    vectors, lanes = len(acc) // rows, code.element.lanes
    is_first = code.is_equal(a["first"], 1)
    for r in range(rows):
        to = code.at(a["sums"], code.load(a["places"], 2 * r + 1, I64))
        before = code.builder.select(is_first, a["bias"], to)
        for v in range(vectors):
            total = code.plus(code.load_vector(before, v * lanes), acc[r * vectors + v])
            code.store_vector(total, to, v * lanes)


def run_channel_lanes(module: Module, name: str, element: ElementType) -> None:
    """Emit the driver; a task is some images and a block of output channels."""
    code, a = begin(module, name, {"arguments": PTR, "thread": I64}, element)
    c = Call(code, a["arguments"])
    c.acc = code.at(c.scratch, code.mul(a["thread"], c.scratch_size))
    c.to = code.builder.alloca(PTR)
    with c.all_tasks(a["thread"]) as task:
        rest, image_block = code.divmod(task, c.image_blocks)
        group, block = code.divmod(rest, c.blocks)
        is_last = code.is_equal(block, code.sub(c.blocks, 1))
        image = code.mul(image_block, c.images)
        images = code.least(c.images, code.sub(c.batch, image))
        x = code.at(c.x, code.add(code.mul(image, c.x_batch), code.mul(group, c.x_group)))
        of_group = code.add(code.mul(group, c.blocks), block)
        weight = code.at(c.weight, code.mul(of_group, c.weight_block))
        bias = code.at(c.bias, code.mul(of_group, c.bias_block))
        _sum(c, x, weight, bias, is_last, code.is_less(images, c.images))
        channels = code.pick(is_last, c.last_block, c.block)
        with code.when(code.is_given(c.activate)):
            cells = code.mul(images, c.cells)
            code.call(c.activate, c.acc, code.mul(cells, c.acc_pitch), c.parameters)
        channel = code.add(
            code.mul(group, c.y_group), code.mul(code.mul(block, c.block), c.y_channel)
        )
        with code.loop(images) as n:
            of_image = code.add(code.mul(code.add(image, n), c.y_batch), channel)
            to = code.at(c.y, of_image)
            sums = code.at(c.acc, code.mul(code.mul(n, c.cells), c.acc_pitch))
            code.call(c.transpose_out, to, sums, c.y_channel, c.acc_pitch, c.cells, channels)
            with code.when(code.is_given(c.finish_row)), code.loop(channels) as of_y:
                cell = code.add(of_image, code.mul(of_y, c.y_channel))
                where = code.at(c.y, cell), code.at(c.residual, cell)
                code.call(c.finish_row, *where, c.cells, c.parameters)
    code.end()


def _sum(c: Call, x: Value, weight: Value, bias: Value, is_last: Value, is_short: Value) -> None:
    """Emit the sums of a block of channels, phase by phase; a short task has lists of its own."""
    code = c.code
    phases = code.builder.select(is_short, c.last_phase_list, c.phase_list)
    tiles = code.builder.select(is_short, c.last_tiles, c.tiles)
    table = code.at(c.taps_of_tiles, code.pick(is_last, c.taps_of_last, 0), I64)
    rows = code.pick(is_last, c.last_block, c.block)
    kernel = code.pick(is_last, 1, 0)
    with code.loop(c.phases) as number:
        phase = PHASE.load(code, phases, number)
        of_phase = code.at(weight, code.mul(code.mul(phase["before"], c.channels), rows))
        per_tap = code.is_equal(c.per_tap, 1)
        together = code.pick(per_tap, 1, phase["taps"])
        turns = code.pick(per_tap, code.most(phase["taps"], 1), 1)
        w_channel = code.mul(together, rows)
        with code.loop(c.channels, step=c.k_block) as channel:
            channels = code.least(c.k_block, code.sub(c.channels, channel))
            of_x = code.at(x, code.mul(channel, c.x_channel))
            w = code.at(of_phase, code.mul(channel, w_channel))
            code.builder.store(code.at(w, code.mul(channels, w_channel)), c.to)
            with code.loop(turns) as turn, code.loop(phase["end"], phase["tiles"]) as n:
                tile = CHANNEL_LANES_TILE.load(code, tiles, n)
                micro = code.load(c.micros, code.add(tile["micro"], kernel), PTR)
                taps = code.at(table, code.mul(code.add(tile["taps"], turn), 2), I64)
                reached = code.pick(per_tap, code.least(1, tile["reached"]), tile["reached"])
                first = code.pick(code.is_equal(code.add(channel, turn), 0), 1, 0)
                with code.when(code.is_less(turn, code.most(tile["reached"], 1))):
                    ahead = code.load(c.to, kind=PTR)
                    places = code.at(c.places, tile["places"], I64)
                    where = (w, of_x, taps, places, c.acc, bias, ahead)
                    step = phase["prefetch_bytes"]
                    sizes = (channels, c.x_channel, w_channel, reached, step, first)
                    code.call(micro, *where, *sizes)
                    of_tile = code.mul(code.mul(channels, reached), step)
                    code.builder.store(code.at(ahead, of_tile, I8), c.to)
