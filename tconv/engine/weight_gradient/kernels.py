"""Micro-kernels of the weight gradient: rank-1 updates, dot products and the packing of x.

    rank1_kernel  for t in cells:                          # lanes are channels of x
                      for r in rows: acc[r] += y[offset[r] + place[t]] * x[t, :lanes]
                  c[:] = (0 if first else c) + acc
    dot_kernel    for t in range(0, cells, lanes):         # lanes are cells
                      for r, n: acc[r, n] += x[r, t:][:lanes] * y[offset[n] + t:][:lanes]
                  c[:] = (0 if first else c) + sums of the lanes of acc
    transpose_in  to[t, n] = x[n, t]                       # cells of a vector of channels

A row of `rank1_kernel` and a column of `dot_kernel` is a channel of y and a tap.
"""

from collections.abc import Callable
from functools import partial

from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.llvm import I32, I64, PTR, Argument, Module, Value
from tconv.engine.kernels.limits import QUAD_BYTES
from tconv.engine.kernels.transpose import even_odd_orders, transpose_vectors

__all__ = ["dot_kernel", "rank1_kernel", "transpose_in"]

_Load = Callable[[], Value]


def rank1_kernel(rows: int, vectors: int) -> Callable[[Module, str, ElementType], None]:
    """Return the emitter of rank-1 updates of a tile: `rows` taps by `vectors` of channels of x.

    The sum of a call starts at zero and is added to c at its end; the ``first`` replaces c.
    """

    def emit(module: Module, name: str, element: ElementType) -> None:
        pointers = dict.fromkeys(("y", "x", "places", "offsets", "c"), PTR)
        code, a = begin(
            module, name, pointers | dict.fromkeys(("cells", "ldc", "first"), I64), element
        )
        lanes = element.lanes
        taps = [code.at(a["y"], _index(code, a["offsets"], r)) for r in range(rows)]
        start = [*[element.zeros] * (rows * vectors), a["x"], a["places"]]
        with code.loop_carrying(a["cells"], start) as (carried, following):
            acc, x, places = carried[:-2], carried[-2], carried[-1]
            place = _index(code, places, 0)
            following += _products(
                code,
                acc,
                [partial(_splat, code, tap, place) for tap in taps],
                [partial(code.load_vector, x, v * lanes) for v in range(vectors)],
            )
            following += [code.at(x, vectors * lanes), code.at(places, 1, I32)]
        targets = [
            code.at(a["c"], code.add(code.mul(a["ldc"], r), v * lanes))
            for r in range(rows)
            for v in range(vectors)
        ]
        _add_to(code, following[:-2], targets, a["first"])
        code.end()

    return emit


def _products(code: Code, acc: list[Value], rows: list[_Load], columns: list[_Load]) -> list[Value]:
    """Return ``acc[r, n] + rows[r] * columns[n]``; only the fewer of the two stay in registers."""
    is_tall = len(rows) > len(columns)
    few, many = (columns, rows) if is_tall else (rows, columns)
    kept, found = [load() for load in few], list(acc)
    for m, load in enumerate(many):
        vector = load()
        for f, other in enumerate(kept):
            n = m * len(columns) + f if is_tall else f * len(columns) + m
            found[n] = code.multiply_add(other, vector, acc[n])
    return found


def dot_kernel(rows: int, columns: int) -> Callable[[Module, str, ElementType], None]:
    """Return the emitter of dot products of a tile: `rows` channels of x by `columns` taps.

    c has ``rows * columns`` elements, row after row, padded to whole vectors.
    """

    def emit(module: Module, name: str, element: ElementType) -> None:
        pointers = dict.fromkeys(("x", "y", "offsets", "c"), PTR)
        sizes = dict.fromkeys(("x_pitch", "vectors", "first"), I64)
        code, a = begin(module, name, pointers | sizes, element)
        channels = [code.at(a["x"], code.mul(a["x_pitch"], r)) for r in range(rows)]
        taps = [code.at(a["y"], _index(code, a["offsets"], n)) for n in range(columns)]
        start = [*[element.zeros] * (rows * columns), code.index(0)]
        with code.loop_carrying(a["vectors"], start) as (carried, following):
            acc, cell = carried[:-1], carried[-1]
            following += _products(
                code,
                acc,
                [partial(code.load_vector, row, cell) for row in channels],
                [partial(code.load_vector, tap, cell) for tap in taps],
            )
            following.append(code.add(cell, element.lanes))
        acc = following[:-1]
        acc += [element.zeros] * (-len(acc) % element.lanes)
        sums = [
            _lane_sums(code, acc[n : n + element.lanes]) for n in range(0, len(acc), element.lanes)
        ]
        targets = [code.at(a["c"], n * element.lanes) for n in range(len(sums))]
        _add_to(code, sums, targets, a["first"])
        code.end()

    return emit


def _splat(code: Code, pointer: Value, index: Value) -> Value:
    """Return an element from memory in every lane."""
    return code.splat(code.load(pointer, index))


def _index(code: Code, table: Value, place: int) -> Value:
    return code.builder.sext(code.load(table, place, I32), I64)


def _add_to(code: Code, sums: list[Value], targets: list[Value], first: Value) -> None:
    """Emit ``target = (0 if first else target) + sum`` for every target."""
    with code.if_else(code.is_equal(first, 0)) as (following, beginning):
        with following:
            for total, target in zip(sums, targets, strict=True):
                code.store_vector(code.plus(code.load_vector(target), total), target)
        with beginning:
            for total, target in zip(sums, targets, strict=True):
                code.store_vector(total, target)


def _lane_sums(code: Code, vectors: list[Value]) -> Value:
    """Return a vector of the sums over lanes of as many vectors as it has lanes.

    Each step makes one vector of partial sums of two: first within 16 bytes, then across.
    """
    lanes, quad = code.element.lanes, QUAD_BYTES // code.element.bytes
    while len(vectors) > 1:
        width, span = (1, quad) if len(vectors) > lanes // quad else (quad, lanes)
        orders = even_odd_orders(lanes, width, span)
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [code.plus(*(code.shuffle(a, b, order) for order in orders)) for a, b in pairs]
    return vectors[0]


def transpose_in(module: Module, name: str, element: ElementType) -> None:
    """Emit the packing of one vector of channels of x: cell after cell, ``pitch`` apart.

    Lanes beyond ``channels`` repeat the last one. Cells are written in groups of as many as a
    vector has lanes, so up to one fewer are overwritten after the last.
    """
    sizes = dict.fromkeys(("pitch", "x_pitch", "channels", "cells"), I64)
    code, a = begin(module, name, {"to": PTR, "x": PTR} | sizes, element)
    lanes, last = element.lanes, code.sub(a["channels"], 1)
    rows = [code.at(a["x"], code.mul(code.least(n, last), a["x_pitch"])) for n in range(lanes)]
    whole = code.mul(code.div(a["cells"], lanes), lanes)
    ahead = code.mul(a["x_pitch"], lanes)
    with code.loop(whole, step=lanes) as cell:
        for row in rows:  # the next vector of channels, which may be far
            code.prefetch(code.at(row, code.add(cell, ahead)))
        _store_rows(
            code, transpose_vectors(code, [code.load_vector(row, cell) for row in rows]), a, cell
        )
    rest = code.sub(a["cells"], whole)
    with code.when(code.is_less(0, rest)):
        some = code.first_lanes(rest)
        found = [code.load_lanes(code.at(row, whole), some) for row in rows]
        _store_rows(code, transpose_vectors(code, found), a, whole)
    code.end()


def _store_rows(code: Code, vectors: list[Value], a: dict[str, Argument], cell: Value) -> None:
    to = code.at(a["to"], code.mul(cell, a["pitch"]))
    for n, vector in enumerate(vectors):
        code.store_vector(vector, to, code.mul(a["pitch"], n))
