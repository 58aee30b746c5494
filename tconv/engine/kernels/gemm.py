"""The GEMM micro-kernel of every algorithm for y and x, and the rank-1 update of its tile.

    for k in terms:                                    # a channel and a tap
        for r in rows:
            acc[r] += w[k, r] * x[offset[k]:][:lanes]
    c[:] = (bias if first else c) + acc

The offsets make the GEMM implicit: a row of its second matrix is any run of cells of x. Sizes are
arguments; only the tile, the unrolling, the type and the target are compiled in, so one kernel
serves many shapes.
"""

from collections.abc import Callable

from tconv.engine.codegen.abi import TERMS_AHEAD
from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.llvm import I32, I64, PTR, Argument, Module, Value
from tconv.system.topology import CACHE_LINE_BYTES

__all__ = ["WEIGHTS_AHEAD_BYTES", "micro_kernel", "rank1_update"]

WEIGHTS_AHEAD_BYTES = 4096  # packed weights are read once, in order: so far ahead they are in time


def micro_kernel(
    rows: int, vectors: int, unroll: int, reads_ahead: int = 0
) -> Callable[[Module, str, ElementType], None]:
    """Return the emitter of a micro-kernel: a GEMM of one register tile, rows x vectors.

    ``terms`` must be a multiple of `unroll`. The sum of a call starts at zero; at its end it is
    added to c, or to the bias if ``first``: short sums are more exact than one long one. With
    `reads_ahead` 1 each term prefetches the vectors of x after its own, with 2 those of the term
    TERMS_AHEAD later.
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
    """Emit `unroll` terms; return the sums, and the next addresses of weights and offsets."""
    (*acc, w, offsets), (rows, unroll, reads_ahead), element = carried, shape, code.element
    vectors = len(acc) // rows
    for line in range(0, unroll * rows * element.bytes, CACHE_LINE_BYTES):
        code.prefetch(code.at(w, (WEIGHTS_AHEAD_BYTES + line) // element.bytes))
    for u in range(unroll):
        cells = code.at(x, code.builder.sext(code.load(offsets, u, I32), I64))
        for v in range(vectors if reads_ahead == 1 else 0):
            code.prefetch(code.at(cells, (vectors + v) * element.lanes))
        if reads_ahead == 2:
            later = code.builder.sext(code.load(offsets, u + TERMS_AHEAD, I32), I64)
            for line in range(0, vectors * element.lanes * element.bytes, CACHE_LINE_BYTES):
                code.prefetch(code.at(x, code.add(later, line // element.bytes)))
        acc = rank1_update(code, acc, [code.at(w, u * rows + r) for r in range(rows)], cells)
    return [*acc, code.at(w, unroll * rows), code.at(offsets, unroll, I32)]


def rank1_update(
    code: Code, acc: list[Value], rows: list[Value], columns: Value | Callable[[int], Value]
) -> list[Value]:
    """Return ``acc[r, v] + *rows[r] * columns[v*lanes:][:lanes]``: one term of every sum.

    `columns` is a pointer, or returns the v-th vector.
    """
    vectors, lanes = len(acc) // len(rows), code.element.lanes

    def column(v: int) -> Value:
        return columns(v) if callable(columns) else code.load_vector(columns, v * lanes)

    if len(rows) < vectors:  # rows first, then one vector at a time, to need fewest registers
        values = [code.splat(code.load(row)) for row in rows]
        found = []
        for v in range(vectors):
            vector = column(v)
            found.append(
                [code.multiply_add(n, vector, acc[r * vectors + v]) for r, n in enumerate(values)]
            )
        return [found[v][r] for r in range(len(rows)) for v in range(vectors)]
    all_vectors = [column(v) for v in range(vectors)]
    following = []
    for r, row in enumerate(rows):
        value = code.splat(code.load(row))
        before = acc[r * vectors : (r + 1) * vectors]
        pairs = zip(all_vectors, before, strict=True)
        following += [code.multiply_add(value, vector, total) for vector, total in pairs]
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
