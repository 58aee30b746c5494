"""WHAT THE KERNELS DO: the loops in which the time goes, each written once for every size.

    micro     for k in terms:                          # a channel and a tap
                  for r in rows: acc[r] += w[k, r] * x[offset[k]:][:lanes]
              c[:] = (bias or c) + acc
    pack_rows to[row] = zeros, every step-th cell of x, zeros
    add_rows  to[row, :] += x[row, :]
    copy_row  y[i*stride + phase] = line[phase][i]
    stream    y[:] = row, past the caches

Everything about sizes comes in at run time; only rows and vectors of a tile, the step of
`pack_rows` and the stride of `copy_row`, the type and the processor are built in. So one kernel
serves many shapes.
"""

from collections.abc import Callable

from tconv.engine.codegen.abi import TERMS_AHEAD
from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.half import (
    load_cell,
    load_cells,
    narrowed,
    store_cell,
    store_cells,
    stored_cells,
    widened,
)
from tconv.engine.codegen.llvm import I32, I64, PTR, Argument, Index, Module, Value
from tconv.engine.kernels.limits import MOST_INTERLEAVED

__all__ = [
    "add_rows",
    "copy_row",
    "micro",
    "pack_rows",
    "stream",
    "term",
]

_LINE_BYTES = 64  # of the processor's caches
_AHEAD_BYTES = 4096  # weights are read once, in order: this far ahead they come in time


def micro(
    rows: int, vectors: int, unroll: int, reads_ahead: int = 0
) -> Callable[[Module, str, ElementType], None]:
    """Add products to a tile of `rows` rows by `vectors` vectors.

    ``terms`` must be a multiple of `unroll`. The sum of a call starts at zero and is added to c at
    its end, or to the bias if ``first``: short sums are more exact than one long one. If it
    `reads_ahead`, the cells of x that follow are asked for meanwhile.
    """

    def emit(module: Module, name: str, element: ElementType) -> None:
        pointers = {"w": PTR, "x": PTR, "offsets": PTR, "c": PTR, "bias": PTR}
        sizes = {"terms": I64, "ldc": I64, "first": I64}
        code, a = begin(module, name, pointers | sizes, element)
        for label in ("w", "x", "offsets", "bias"):
            a[label].add_attribute("noalias")
        start = [*[element.zeros] * (rows * vectors), a["w"], a["offsets"]]
        with code.loop_carrying(code.div(a["terms"], unroll), start) as (carried, following):
            following += _terms(code, carried, (rows, unroll, reads_ahead), a["x"])
        _add_to(code, following[:-2], rows, a)
        code.end()

    return emit


def _terms(code: Code, carried: list[Value], shape: tuple[int, int, int], x: Value) -> list[Value]:
    """The terms of a turn: sums, and where weights and offsets of the next turn are."""
    (*acc, w, offsets), (rows, unroll, reads_ahead), element = carried, shape, code.element
    vectors = len(acc) // rows
    for line in range(0, unroll * rows * element.bytes, _LINE_BYTES):
        code.prefetch(code.at(w, (_AHEAD_BYTES + line) // element.bytes))
    for u in range(unroll):
        cells = code.at(x, code.builder.sext(code.load(offsets, u, I32), I64))
        for v in range(vectors if reads_ahead == 1 else 0):
            code.prefetch(code.at(cells, (vectors + v) * element.lanes))
        if reads_ahead == 2:
            later = code.builder.sext(code.load(offsets, u + TERMS_AHEAD, I32), I64)
            for line in range(0, vectors * element.lanes * element.bytes, _LINE_BYTES):
                code.prefetch(code.at(x, code.add(later, line // element.bytes)))
        acc = term(code, acc, [code.at(w, u * rows + r) for r in range(rows)], cells)
    return [*acc, code.at(w, unroll * rows), code.at(offsets, unroll, I32)]


def term(code: Code, acc: list[Value], rows: list[Value], columns: Value) -> list[Value]:
    """One term of sums: ``acc[r, v] + *rows[r] * columns[v*lanes:][:lanes]``."""
    vectors, lanes = len(acc) // len(rows), code.element.lanes
    if len(rows) < vectors:  # the few rows first, then a vector at a time: no register is short
        numbers = [code.splat(code.load(row)) for row in rows]
        found = []
        for v in range(vectors):
            vector = code.load_vector(columns, v * lanes)
            found.append(
                [code.multiply_add(n, vector, acc[r * vectors + v]) for r, n in enumerate(numbers)]
            )
        return [found[v][r] for r in range(len(rows)) for v in range(vectors)]
    all_vectors = [code.load_vector(columns, v * lanes) for v in range(vectors)]
    following = []
    for r, row in enumerate(rows):
        number = code.splat(code.load(row))
        before = acc[r * vectors : (r + 1) * vectors]
        pairs = zip(all_vectors, before, strict=True)
        following += [code.multiply_add(number, vector, total) for vector, total in pairs]
    return following


def _add_to(code: Code, acc: list[Value], rows: int, a: dict[str, Argument]) -> None:
    """Store ``(bias if first else c) + acc`` to c."""
    vectors, lanes = len(acc) // rows, code.element.lanes
    with code.if_else(code.is_equal(a["first"], 0)) as (following, first):
        for block, is_first in ((following, False), (first, True)):
            with block:
                for r in range(rows):
                    row = code.at(a["c"], code.mul(a["ldc"], r))
                    bias = code.splat(code.load(a["bias"], r)) if is_first else None
                    for v in range(vectors):
                        before = code.load_vector(row, v * lanes) if bias is None else bias
                        total = code.plus(before, acc[r * vectors + v])
                        code.store_vector(total, row, v * lanes)


def pack_rows(step: int) -> Callable[[Module, str, ElementType], None]:
    """Write rows of a panel: of each ``left`` zeros, ``count`` cells of x, ``right`` zeros.

    The cells of x are a step apart; one beyond MOST_INTERLEAVED stands for all such. Before the
    rows come ``above`` zeros, and after them ``below``. Vectors are stored whole, so what follows
    is overwritten, and must be written later. Cells ``ahead`` of these are asked for meanwhile.
    """

    def emit(module: Module, name: str, element: ElementType) -> None:
        sizes = ("above", "rows", "x_pitch", "left", "count", "right", "below", "step", "ahead")
        kinds = {"to": PTR, "x": PTR} | dict.fromkeys(sizes, I64)
        code, a = begin(module, name, kinds, element)
        _fill(code, a["to"], a["above"])
        first, pitch = code.at(a["to"], a["above"]), code.add(a["left"], a["count"], a["right"])
        with code.loop(a["rows"]) as n:
            row = code.at(first, code.mul(n, pitch))
            x, to = code.cell(a["x"], code.mul(n, a["x_pitch"])), code.at(row, a["left"])
            _fill(code, row, a["left"])
            if step == 1:
                _copy_cells(code, to, x, a["count"], a["ahead"])
            else:
                apart = step if step <= MOST_INTERLEAVED else a["step"]
                _copy_apart(code, to, x, a["count"], apart, a["ahead"])
            _fill(code, code.at(to, a["count"]), a["right"])
        _fill(code, code.at(first, code.mul(a["rows"], pitch)), a["below"])
        code.end()

    return emit


def _copy_cells(code: Code, to: Value, x: Value, count: Value, ahead: Value) -> None:
    """``to[:count] = x[:count]``, and some more of `to`."""
    lanes = code.element.lanes
    whole = code.mul(code.div(count, lanes), lanes)
    rest = code.sub(count, whole)
    with code.loop(whole, step=lanes) as cell:
        code.prefetch(code.cell(x, code.add(cell, ahead)))
        code.store_vector(load_cells(code, x, cell), to, cell)
    with code.when(code.is_less(0, rest)):
        if code.element.is_half:
            _copy_rest(code, to, x, whole, count)
        else:
            some = code.load_lanes(code.at(x, whole), code.first_lanes(rest))
            code.store_vector(some, to, whole)


def _copy_rest(code: Code, to: Value, x: Value, whole: Value, count: Value) -> None:
    """Write the cells of a row from `whole` on, and zeros; few processors mask 16 bits."""
    lanes = code.element.lanes
    code.store_vector(code.element.zeros, to, whole)
    is_long = code.is_less(lanes - 1, count)
    with code.if_else(is_long) as (long, short):
        with long:  # the last vector again
            last = code.sub(count, lanes)
            code.store_vector(load_cells(code, x, last), to, last)
        with short, code.loop(count) as cell:
            code.store(load_cell(code, x, cell), to, cell)


def _copy_apart(code: Code, to: Value, x: Value, count: Value, step: Index, ahead: Value) -> None:
    """``to[:count] = x[::step]``; nothing beyond the last of these cells is read."""
    lanes = code.element.lanes
    done: Value = code.index(0)
    if isinstance(step, int):
        done = code.mul(code.div(count, lanes), lanes)
        last = (lanes - 1) * step
        starts = [*range(0, last - lanes + 1, lanes), last - lanes + 1]
        with code.loop(done, step=lanes) as cell:
            source = code.cell(x, code.mul(cell, step))
            code.prefetch(code.cell(source, ahead))
            found, order = stored_cells(code, source, starts[0]), list(range(0, lanes * step, step))
            order = [min(place, lanes - 1) for place in order]
            for start in starts[1:]:
                more = stored_cells(code, source, start)
                for lane in range(lanes):
                    if start <= lane * step < start + lanes:
                        order[lane] = lanes + lane * step - start
                found = code.shuffle(found, more, order)
                order = list(range(lanes))
            code.store_vector(widened(code, found), to, cell)
    with code.loop(count, done) as cell:
        code.store(load_cell(code, x, code.mul(cell, step)), to, cell)


def _fill(code: Code, row: Value, count: Value) -> None:
    """Write zeros, in whole vectors."""
    with code.loop(count, step=code.element.lanes) as n:
        code.store_vector(code.element.zeros, row, n)


def copy_row(stride: int) -> Callable[[Module, str, ElementType], None]:
    """Interleave the phases of a row of y: ``count`` cells, from the lines at ``lines[phase]``.

    The first of them is phase `skipped` of a column. The cells of y that are `ahead` of it are
    asked for meanwhile: the row of the next channel. A stride beyond MOST_INTERLEAVED stands for
    all such: as many phases as a vector has lanes are transposed at a time.
    """

    def emit(module: Module, name: str, element: ElementType) -> None:
        sizes = dict.fromkeys(("lane", "skipped", "count", "stride", "ahead"), I64)
        code, a = begin(module, name, {"y": PTR, "line": PTR, "lines": PTR} | sizes, element)
        a["y"].add_attribute("noalias")
        line = code.at(a["line"], a["lane"])
        if stride > MOST_INTERLEAVED:
            _copy_columns(code, a, line, element.lanes, a["stride"])
        else:
            row = code.room(element.cell, stride * element.lanes)
            end = code.add(a["skipped"], a["count"])
            with code.if_else(code.is_less(stride * element.lanes, end)) as (long, short):
                with long:
                    _copy_columns(code, a, line, stride, stride)
                with short:
                    _copy_short(code, a, line, stride, row)
        code.end()

    return emit


def _phases(code: Code, line: Value, lines: Value, first: Index, count: int) -> list[Value]:
    """So many phases of the columns of a vector, as cells of y."""
    starts = [code.load(lines, code.add(first, n), I64) for n in range(count)]
    return [narrowed(code, code.load_vector(line, start)) for start in starts]


def _copy_short(code: Code, a: dict[str, Argument], line: Value, stride: int, row: Value) -> None:
    """Copy no more than a vector of columns: whole vectors, and by way of `row` the cells around.

    Cell by cell, for what lies across two vectors cannot be read before both are in the caches.
    """
    lanes, skipped, count = code.element.lanes, a["skipped"], a["count"]
    before, end = code.div(code.add(skipped, lanes - 1), lanes), code.add(skipped, count)
    first = code.least(code.sub(code.mul(before, lanes), skipped), count)
    last = code.most(code.sub(code.mul(code.div(end, lanes), lanes), skipped), first)
    later = code.cell(a["y"], a["ahead"])
    code.prefetch(later, writes=True)
    code.prefetch(code.cell(later, code.sub(count, 1)), writes=True)
    vectors = _interleaved(code, _phases(code, line, a["lines"], 0, stride))
    for v, cells in enumerate(vectors):
        store_cells(code, cells, row, v * lanes)
        place = code.sub(v * lanes, skipped)
        with code.when(code.both(code.is_less(-1, place), code.is_less(place, last))):
            store_cells(code, cells, a["y"], place)
    for start, stop in ((code.index(0), first), (last, count)):
        with code.loop(stop, start) as n:
            cell = code.load(row, code.add(skipped, n), code.element.cell)
            code.store(cell, a["y"], n)


def _copy_columns(
    code: Code, a: dict[str, Argument], line: Value, together: int, step: Index
) -> None:
    """Copy a vector of columns at a time, `together` of their phases; the last ones overlap."""
    lanes, lines, skipped = code.element.lanes, a["lines"], a["skipped"]
    is_cut = code.is_less(0, skipped)
    head = code.pick(is_cut, code.least(code.sub(step, skipped), a["count"]), 0)
    with code.loop(head) as n:
        start = code.load(lines, code.add(skipped, n), I64)
        store_cell(code, code.load(line, start), a["y"], n)
    y, count = code.cell(a["y"], head), code.sub(a["count"], head)
    line = code.at(line, code.pick(is_cut, 1, 0))
    columns, runs = code.div(count, step), code.div(step, together)
    fit = code.is_less(lanes - 1, columns)
    blocks = code.pick(fit, code.div(code.add(columns, lanes - 1), lanes), 0)
    with code.loop(blocks) as n, code.loop(runs) as run:
        phase = code.mul(run, together)
        column = code.least(code.mul(n, lanes), code.sub(columns, lanes))
        vectors = _phases(code, code.at(line, column), lines, phase, together)
        to = code.cell(y, code.add(code.mul(column, step), phase))
        if isinstance(step, int):  # as many as are together
            per_line = _LINE_BYTES // code.element.cell_bytes
            for cell in range(0, step * lanes, per_line):
                code.prefetch(code.cell(to, code.add(a["ahead"], cell)), writes=True)
        for v, cells in enumerate(_interleaved(code, vectors)):
            store_cells(code, cells, to, v * lanes if isinstance(step, int) else code.mul(step, v))
    done, whole = code.pick(fit, columns, 0), code.mul(runs, together)
    with code.loop(step) as r:
        phase = code.at(line, code.load(lines, r, I64))
        rest = code.add(code.sub(count, r), code.sub(step, 1))
        start = code.pick(code.is_less(r, whole), done, 0)
        with code.loop(code.div(rest, step), start) as n:
            store_cell(code, code.load(phase, n), y, code.add(code.mul(n, step), r))


def add_rows(module: Module, name: str, element: ElementType) -> None:
    """``to[row, :count] += x[row, :count]``, rows being ``to_pitch`` and ``x_pitch`` apart."""
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
    """Copy a row to y without bringing y into the caches: none of its lines is read before."""
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


def _interleaved(code: Code, vectors: list[Value]) -> list[Value]:
    """``a0 b0 c0 a1 b1 c1 ...`` from the vectors a, b, c."""
    lanes, many = code.element.lanes, len(vectors)
    if many == 1:
        return vectors
    if many % 2 == 0:  # of pairs: those at even places and those at odd ones, then lane by lane
        pairs = zip(
            _interleaved(code, vectors[::2]), _interleaved(code, vectors[1::2]), strict=True
        )
        halves = (range(lanes // 2), range(lanes // 2, lanes))
        orders = [[each for n in half for each in (n, lanes + n)] for half in halves]
        return [code.shuffle(a, b, order) for a, b in pairs for order in orders]
    found = []
    for v in range(many):
        wanted = [divmod(v * lanes + lane, many) for lane in range(lanes)]
        whole = vectors[0]
        order = [n if phase == 0 else 0 for n, phase in wanted]
        for phase, vector in enumerate(vectors[1:], 1):
            order = [
                lanes + n if p == phase else old for (n, p), old in zip(wanted, order, strict=True)
            ]
            whole = code.shuffle(whole, vector, order)
            order = list(range(lanes))
        found.append(whole)
    return found
