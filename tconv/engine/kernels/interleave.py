"""Rows of y: phases interleaved, col2im's scatter-add, and non-temporal copies.

    interleave_row  y[i*stride + phase] = acc[acc_starts[phase]:][i]
    fill_row        y[:] = value
    add_rows        to[row, :] += x[row, :]
    stream          y[:] = row, by non-temporal stores

Only the stride, the type and the target are compiled in.
"""

from collections.abc import Callable

from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.half import narrowed, store_cell, store_cells
from tconv.engine.codegen.llvm import I64, PTR, Argument, Index, Module, Value
from tconv.engine.kernels.limits import MOST_INTERLEAVED
from tconv.engine.kernels.transpose import pick_lanes
from tconv.system.topology import CACHE_LINE_BYTES

__all__ = ["add_rows", "fill_row", "interleave_row", "interleaved", "stream"]


def interleave_row(stride: int) -> Callable[[Module, str, ElementType], None]:
    """Return the emitter of a kernel that interleaves the phases of ``count`` cells of a row of y.

    The accumulator row of a phase begins at ``acc_starts[phase]``; the first cell of y is of the
    phase ``skipped``. Cells of y that are ``ahead`` are prefetched: the row of the next channel. A
    `stride` beyond MOST_INTERLEAVED stands for all such: the kernel then transposes as many phases
    at a time as a vector has lanes.
    """

    def emit(module: Module, name: str, element: ElementType) -> None:
        sizes = dict.fromkeys(("lane", "skipped", "count", "stride", "ahead"), I64)
        code, a = begin(module, name, {"y": PTR, "acc": PTR, "acc_starts": PTR} | sizes, element)
        a["y"].add_attribute("noalias")
        acc = code.at(a["acc"], a["lane"])
        if stride > MOST_INTERLEAVED:
            _copy_columns(code, a, acc, element.lanes, a["stride"])
        else:
            row = code.room(element.cell, stride * element.lanes)
            end = code.add(a["skipped"], a["count"])
            with code.if_else(code.is_less(stride * element.lanes, end)) as (long, short):
                with long:
                    _copy_columns(code, a, acc, stride, stride)
                with short:
                    _copy_short(code, a, acc, stride, row)
        code.end()

    return emit


def _phases(code: Code, acc: Value, acc_starts: Value, first: Index, count: int) -> list[Value]:
    """Load one vector of columns of `count` phases, as cells of y."""
    starts = [code.load(acc_starts, code.add(first, n), I64) for n in range(count)]
    return [narrowed(code, code.load_vector(acc, start)) for start in starts]


def _copy_short(code: Code, a: dict[str, Argument], acc: Value, stride: int, row: Value) -> None:
    """Emit the case of at most one vector of columns: whole vectors, and single cells around them.

    The single cells go by way of `row`, one by one: a load across two stored vectors would wait
    until both stores are done.
    """
    lanes, skipped, count = code.element.lanes, a["skipped"], a["count"]
    before, end = code.div(code.add(skipped, lanes - 1), lanes), code.add(skipped, count)
    first = code.least(code.sub(code.mul(before, lanes), skipped), count)
    last = code.most(code.sub(code.mul(code.div(end, lanes), lanes), skipped), first)
    later = code.cell(a["y"], a["ahead"])
    code.prefetch(later, writes=True)
    code.prefetch(code.cell(later, code.sub(count, 1)), writes=True)
    vectors = interleaved(code, _phases(code, acc, a["acc_starts"], 0, stride))
    for n, cells in enumerate(vectors):
        store_cells(code, cells, row, n * lanes)
        place = code.sub(n * lanes, skipped)
        with code.when(code.both(code.is_less(-1, place), code.is_less(place, last))):
            store_cells(code, cells, a["y"], place)
    for start, stop in ((0, first), (last, count)):
        with code.loop(stop, start) as index:
            cell = code.load(row, code.add(skipped, index), code.element.cell)
            code.store(cell, a["y"], index)


def _copy_columns(
    code: Code, a: dict[str, Argument], acc: Value, together: int, step: Index
) -> None:
    """Emit a loop over vectors of columns, `together` phases at a time; the last ones overlap."""
    lanes, acc_starts, skipped = code.element.lanes, a["acc_starts"], a["skipped"]
    is_cut = code.is_less(0, skipped)
    head = code.pick(is_cut, code.least(code.sub(step, skipped), a["count"]), 0)
    with code.loop(head) as n:
        start = code.load(acc_starts, code.add(skipped, n), I64)
        store_cell(code, code.load(acc, start), a["y"], n)
    y, count = code.cell(a["y"], head), code.sub(a["count"], head)
    acc = code.at(acc, code.pick(is_cut, 1, 0))
    columns, runs = code.div(count, step), code.div(step, together)
    fit = code.is_less(lanes - 1, columns)
    blocks = code.pick(fit, code.div(code.add(columns, lanes - 1), lanes), 0)
    with code.loop(blocks) as n, code.loop(runs) as run:
        phase = code.mul(run, together)
        column = code.least(code.mul(n, lanes), code.sub(columns, lanes))
        vectors = _phases(code, code.at(acc, column), acc_starts, phase, together)
        to = code.cell(y, code.add(code.mul(column, step), phase))
        if isinstance(step, int):  # all phases are together
            per_line = CACHE_LINE_BYTES // code.element.cell_bytes
            for cell in range(0, step * lanes, per_line):
                code.prefetch(code.cell(to, code.add(a["ahead"], cell)), writes=True)
        for v, cells in enumerate(interleaved(code, vectors)):
            store_cells(code, cells, to, v * lanes if isinstance(step, int) else code.mul(step, v))
    done, whole = code.pick(fit, columns, 0), code.mul(runs, together)
    with code.loop(step) as r:
        phase = code.at(acc, code.load(acc_starts, r, I64))
        rest = code.add(code.sub(count, r), code.sub(step, 1))
        start = code.pick(code.is_less(r, whole), done, 0)
        with code.loop(code.div(rest, step), start) as n:
            store_cell(code, code.load(phase, n), y, code.add(code.mul(n, step), r))


def fill_row(module: Module, name: str, element: ElementType) -> None:
    """Emit ``y[:count] = value``, an element that is narrowed to a cell of y."""
    code, a = begin(module, name, {"y": PTR, "value": element.kind, "count": I64}, element)
    cells = narrowed(code, code.splat(a["value"]))
    whole = code.mul(code.div(a["count"], element.lanes), element.lanes)
    with code.loop(whole, step=element.lanes) as n:
        store_cells(code, cells, a["y"], n)
    with code.loop(a["count"], whole) as n:
        store_cell(code, a["value"], a["y"], n)
    code.end()


def add_rows(module: Module, name: str, element: ElementType) -> None:
    """Emit ``to[row, :count] += x[row, :count]``, rows being ``to_pitch`` and ``x_pitch`` apart."""
    sizes = {"count": I64, "rows": I64, "to_pitch": I64, "x_pitch": I64}
    code, a = begin(module, name, {"to": PTR, "x": PTR} | sizes, element)
    a["x"].add_attribute("noalias")
    whole = code.mul(code.div(a["count"], element.lanes), element.lanes)
    rest = code.sub(a["count"], whole)
    lanes = code.first_lanes(rest)
    with code.loop(a["rows"]) as row:
        to = code.at(a["to"], code.mul(row, a["to_pitch"]))
        x = code.at(a["x"], code.mul(row, a["x_pitch"]))
        with code.loop(whole, step=element.lanes) as n:
            code.store_vector(code.plus(code.load_vector(to, n), code.load_vector(x, n)), to, n)
        with code.when(code.is_less(0, rest)):
            to, x = code.at(to, whole), code.at(x, whole)
            total = code.plus(code.load_lanes(to, lanes), code.load_lanes(x, lanes))
            code.store_lanes(total, to, lanes)
    code.end()


def stream(module: Module, name: str, element: ElementType) -> None:
    """Emit ``y[:count] = row`` with non-temporal stores, which read no line of y before."""
    code, a = begin(module, name, {"y": PTR, "row": PTR, "count": I64}, element)
    a["y"].add_attribute("noalias")
    place = code.builder.udiv(code.builder.ptrtoint(a["y"], I64), code.index(element.bytes))
    _, beyond = code.divmod(place, element.lanes)
    to_line = code.pick(code.is_equal(beyond, 0), 0, code.sub(element.lanes, beyond))
    head = code.least(to_line, a["count"])
    whole = code.div(code.sub(a["count"], head), element.lanes)
    with code.loop(head) as n:
        code.store(code.load(a["row"], n), a["y"], n)
    with code.loop(whole) as n:
        cell = code.add(head, code.mul(n, element.lanes))
        code.stream_vector(code.load_vector(a["row"], cell), a["y"], cell)
    with code.loop(a["count"], code.add(head, code.mul(whole, element.lanes))) as n:
        code.store(code.load(a["row"], n), a["y"], n)
    code.end()


def interleaved(code: Code, vectors: list[Value]) -> list[Value]:
    """Return ``a0 b0 c0 a1 b1 c1 ...`` from the vectors a, b, c."""
    lanes, many = code.element.lanes, len(vectors)
    if many == 1:
        return vectors
    if many % 2 == 0:  # vectors at even places and at odd ones, each interleaved, then both
        pairs = zip(interleaved(code, vectors[::2]), interleaved(code, vectors[1::2]), strict=True)
        halves = (range(lanes // 2), range(lanes // 2, lanes))
        orders = [[each for n in half for each in (n, lanes + n)] for half in halves]
        return [code.shuffle(a, b, order) for a, b in pairs for order in orders]
    found = []
    for v in range(many):
        places = (divmod(v * lanes + lane, many) for lane in range(lanes))
        found.append(pick_lanes(code, vectors, [phase * lanes + n for n, phase in places]))
    return found
