"""Packing of x into padded panels: rows of cells with zeros around them.

    for row in rows:
        to[row] = zeros(left), x[row, ::step][:count], zeros(right)

Only the step, the type and the target are compiled in.
"""

from collections.abc import Callable

from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.half import load_cell, load_cells, stored_cells, widened
from tconv.engine.codegen.llvm import I64, PTR, Index, Module, Value
from tconv.engine.kernels.limits import MOST_INTERLEAVED

__all__ = ["pack_rows"]


def pack_rows(step: int) -> Callable[[Module, str, ElementType], None]:
    """Return the emitter of a kernel that writes the rows of a padded panel.

    Each row is ``left`` zeros, ``count`` cells of x and ``right`` zeros. The cells of x are a step
    apart; a `step` beyond MOST_INTERLEAVED stands for all such, and the argument ``step`` is the
    actual one. ``above`` zeros precede the rows and ``below`` follow them. Every vector is stored
    whole, beyond the end of its row: write panels in ascending order. Cells ``ahead`` of these are
    prefetched.
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
    """Emit ``to[:count] = x[:count]``; up to a vector beyond is overwritten."""
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
    """Copy the cells from `whole` on, and zeros: few instruction sets mask 16 bits."""
    lanes = code.element.lanes
    code.store_vector(code.element.zeros, to, whole)
    is_long = code.is_less(lanes - 1, count)
    with code.if_else(is_long) as (long, short):
        with long:  # the last whole vector, which overlaps the one before
            last = code.sub(count, lanes)
            code.store_vector(load_cells(code, x, last), to, last)
        with short, code.loop(count) as cell:
            code.store(load_cell(code, x, cell), to, cell)


def _copy_apart(code: Code, to: Value, x: Value, count: Value, step: Index, ahead: Value) -> None:
    """Emit ``to[:count] = x[::step]``; nothing beyond the last of these cells is read."""
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
    """Emit ``row[:count] = 0``, in whole vectors."""
    with code.loop(count, step=code.element.lanes) as n:
        code.store_vector(code.element.zeros, row, n)
