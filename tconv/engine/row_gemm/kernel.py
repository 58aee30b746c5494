"""Micro-kernel of a row GEMM: a tile of sums, which goes straight to y.

for k in terms:
    cells = x[k*x_step:][:lanes]
    panel[k] = cells                                   # if it copies
    for r in rows:
        acc[r] += w[k, r] * cells
y[r] = (bias[r] if first else y[r]) + acc[r]
y[r] = activation(y[r] + residual[r])                  # if last
"""

from collections.abc import Callable
from typing import NamedTuple

from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.llvm import I64, PTR, Argument, Module, Value
from tconv.engine.kernels.activation import applied, is_short
from tconv.engine.kernels.gemm import WEIGHTS_AHEAD_BYTES, rank1_update
from tconv.system.topology import CACHE_LINE_BYTES

__all__ = ["RowKernel", "row_kernel"]


class RowKernel(NamedTuple):
    """What is compiled in.

    A kernel that `copies` what it reads of x writes it to ``panel``. One that `is_cut` writes
    ``rest`` cells of each row, and has as many of x if it copies. One that `is_whole` computes
    whole sums: first and last are 1.
    """

    rows: int
    vectors: int
    unroll: int
    copies: bool
    is_cut: bool
    is_whole: bool
    activation: str
    residual: bool

    @property
    def name(self) -> str:
        """A name for the kernel, which no other shares."""
        of = (self.copies, self.is_cut, self.is_whole, self.residual)
        flags = "".join("01"[each] for each in of)
        sizes = f"{self.rows}_{self.vectors}_{self.unroll}_{flags}"
        return f"row_{sizes}_{self.activation}" if self.activation else f"row_{sizes}"


def row_kernel(kernel: RowKernel) -> Callable[[Module, str, ElementType], None]:
    """Return the emitter of a micro-kernel; ``terms`` must be a multiple of its `unroll`."""

    def emit(module: Module, name: str, element: ElementType) -> None:
        pointers = dict.fromkeys(("w", "x", "y", "bias", "panel", "residual", "parameters"), PTR)
        sizes = dict.fromkeys(("terms", "x_step", "y_step", "rest", "first", "last"), I64)
        code, a = begin(module, name, pointers | sizes, element)
        for label in ("w", "x", "bias", "panel"):
            a[label].add_attribute("noalias")
        count, unroll = kernel.rows * kernel.vectors, kernel.unroll
        last = code.sub(a["rest"], (kernel.vectors - 1) * element.lanes)
        lanes = code.first_lanes(last) if kernel.is_cut else None
        start = [*[element.zeros] * count, a["w"], a["x"], a["panel"]]
        with code.loop_carrying(code.div(a["terms"], unroll), start) as (carried, following):
            following += _terms(code, kernel, carried, a["x_step"], lanes)
        _store(code, kernel, following[:count], a, lanes)
        code.end()

    return emit


def _terms(
    code: Code, kernel: RowKernel, carried: list[Value], x_step: Value, lanes: Value | None
) -> list[Value]:
    """Emit `unroll` terms; return the sums, and the next addresses of weights, x and panel."""
    (*acc, w, x, panel), rows, element = carried, kernel.rows, code.element
    for line in range(0, kernel.unroll * rows * element.bytes, CACHE_LINE_BYTES):
        code.prefetch(code.at(w, (WEIGHTS_AHEAD_BYTES + line) // element.bytes))
    for u in range(kernel.unroll):

        def cells(v: int, x: Value = x, u: int = u) -> Value:
            at, is_last = v * element.lanes, v == kernel.vectors - 1
            if kernel.copies and is_last and lanes is not None:
                vector = code.load_lanes(code.at(x, at), lanes)
            else:
                vector = code.load_vector(x, at)
            if kernel.copies:
                code.prefetch(code.at(x, at + kernel.vectors * element.lanes))
                place = u * kernel.vectors * element.lanes + at
                code.store_vector(vector, panel, place)
            return vector

        acc = rank1_update(code, acc, [code.at(w, u * rows + r) for r in range(rows)], cells)
        x = code.at(x, x_step)
    size = kernel.unroll * kernel.vectors * element.lanes
    return [*acc, code.at(w, kernel.unroll * rows), x, code.at(panel, size)]


def _store(
    code: Code,
    kernel: RowKernel,
    acc: list[Value],
    a: dict[str, Argument],
    lanes: Value | None,
) -> None:
    """Write the sums to y, after what was there, or after the bias."""
    if kernel.is_whole:
        _write(code, kernel, acc, a, lanes, is_first=True)
    else:
        with code.if_else(code.is_equal(a["first"], 0)) as (following, first):
            with following:
                _write(code, kernel, acc, a, lanes, is_first=False)
            with first:
                _write(code, kernel, acc, a, lanes, is_first=True)
    if (kernel.activation or kernel.residual) and not _is_early(kernel):
        with code.when(code.is_equal(a["last"], 1)), code.loop(kernel.rows) as r:
            cell = code.mul(a["y_step"], r)
            row = code.at(a["y"], cell)
            found = [_load(code, row, v, kernel.vectors, lanes) for v in range(kernel.vectors)]
            for v, vector in enumerate(_finished(code, kernel, found, a, cell, lanes)):
                _put(code, vector, row, v, kernel.vectors, lanes)


def _is_early(kernel: RowKernel) -> bool:
    """Whether residual and activation are applied before sums are written."""
    return kernel.is_whole and (not kernel.activation or is_short(kernel.activation))


def _finished(
    code: Code,
    kernel: RowKernel,
    sums: list[Value],
    a: dict[str, Argument],
    cell: Value,
    lanes: Value | None,
) -> list[Value]:
    """A row of sums with its residual, which begins at a cell, activated."""
    if kernel.residual:
        row = code.at(a["residual"], cell)
        more = [_load(code, row, v, kernel.vectors, lanes) for v in range(kernel.vectors)]
        sums = [code.plus(one, other) for one, other in zip(sums, more, strict=True)]
    if kernel.activation:
        sums = applied(code, kernel.activation, a["parameters"], sums)
    return sums


def _write(
    code: Code,
    kernel: RowKernel,
    acc: list[Value],
    a: dict[str, Argument],
    lanes: Value | None,
    *,
    is_first: bool,
) -> None:
    vectors = kernel.vectors
    for r in range(kernel.rows):
        cell = code.mul(a["y_step"], r)
        row = code.at(a["y"], cell)
        if is_first:
            before = [code.splat(code.load(a["bias"], r))] * vectors
        else:
            before = [_load(code, row, v, vectors, lanes) for v in range(vectors)]
        pairs = zip(before, acc[r * vectors : (r + 1) * vectors], strict=True)
        totals = [code.plus(one, other) for one, other in pairs]
        if _is_early(kernel):
            totals = _finished(code, kernel, totals, a, cell, lanes)
        for v, total in enumerate(totals):
            _put(code, total, row, v, vectors, lanes)


def _load(code: Code, row: Value, v: int, vectors: int, lanes: Value | None) -> Value:
    at = v * code.element.lanes
    if lanes is None or v < vectors - 1:
        return code.load_vector(row, at)
    return code.load_lanes(code.at(row, at), lanes)


def _put(code: Code, value: Value, row: Value, v: int, vectors: int, lanes: Value | None) -> None:
    at = v * code.element.lanes
    if lanes is None or v < vectors - 1:
        code.store_vector(value, row, at)
    else:
        code.store_lanes(value, code.at(row, at), lanes)
