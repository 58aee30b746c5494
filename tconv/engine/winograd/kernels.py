"""WHAT IS DONE BEFORE AND AFTER PRODUCTS THAT ARE FEWER: sums of cells, and of products.

    sum_cells to[v] = sum over p of sums[v, p] * cells[offset[p]:][:lanes]          # Tiling.sums
    restore   line[j] = bias + sum over i of inverse[j, i] * products[i][:lanes]    # Group.inverse
    screen    flag = 1 if any cell is not finite, or so large that a sum could overflow

The first two go axis by axis. The matrices are built in: nearly all of their numbers are 0, 1 and
-1.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product

import numpy as np

from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.llvm import (
    I32,
    I64,
    PTR,
    Constant,
    Index,
    IntType,
    Module,
    Value,
    VectorType,
)
from tconv.engine.winograd.transform import LARGE, Matrix

__all__ = ["restore", "screen", "sum_cells"]

_LARGE_BITS = {
    size: int(np.array(large, f"f{size}").view(f"i{size}")) for size, large in LARGE.items()
}
_SCREENED = 4  # vectors at a time
Matrices = tuple[Matrix, Matrix, Matrix]
_Cells = dict[tuple[int, ...], Value]


def sum_cells(sums: Matrices) -> Callable[[Module, str, ElementType], None]:
    """Write the sums of the cells of a channel, ``pitch`` numbers apart.

    So many lanes as are ``wide`` make a tile; there are ``tile`` numbers from tile to tile.
    """

    def emit(module: Module, name: str, element: ElementType) -> None:
        pointers, sizes_of = (
            {"to": PTR, "cells": PTR, "offsets": PTR},
            ("pitch", "lanes", "wide", "tile"),
        )
        arguments = pointers | dict.fromkeys(sizes_of, I64)
        code, a = begin(module, name, arguments, element)
        a["to"].add_attribute("noalias")
        sizes = [len(matrix[0]) for matrix in sums]
        starts = {}
        for at, place in enumerate(product(*map(range, sizes))):
            offset = code.builder.sext(code.load(a["offsets"], at, I32), I64)
            starts[place] = code.at(a["cells"], offset)
        with code.loop(a["lanes"], step=a["wide"]) as first:
            of_tile = code.at(a["to"], code.mul(code.div(first, a["wide"]), a["tile"]))
            with code.loop(
                code.least(a["wide"], code.sub(a["lanes"], first)), step=element.lanes
            ) as n:
                lane = code.add(first, n)
                cells = {place: code.load_vector(start, lane) for place, start in starts.items()}
                found = _by_axis(code, sums, cells)
                for place_of, place in enumerate(sorted(found)):
                    to = code.add(n, code.mul(a["pitch"], place_of))
                    code.store_vector(found[place], of_tile, to)
        code.end()

    return emit


def restore(inverses: Matrices) -> Callable[[Module, str, ElementType], None]:
    """Write the outputs of a phase that are made together, each to a line of its own."""

    def emit(module: Module, name: str, element: ElementType) -> None:
        pointers = {"line": PTR, "products": PTR, "bias": PTR}
        steps = ("step_z", "step_y", "step_x")
        sizes = dict.fromkeys(("pitch", *steps, "lanes"), I64)
        code, a = begin(module, name, pointers | sizes, element)
        a["line"].add_attribute("noalias")
        bias = code.splat(code.load(a["bias"]))
        points = [range(len(matrix[0])) for matrix in inverses]
        with code.loop(a["lanes"], step=element.lanes) as lane:
            products = {}
            for n, point in enumerate(product(*points)):
                source = code.at(a["products"], code.add(code.mul(a["pitch"], n), lane))
                products[point] = code.load_vector(source)
            for place, value in _by_axis(code, inverses, products).items():
                offsets = [code.mul(a[step], n) for step, n in zip(steps, place, strict=True)]
                to = code.at(a["line"], code.add(lane, *offsets))
                code.store_vector(code.plus(value, bias), to)
        code.end()

    return emit


def screen(module: Module, name: str, element: ElementType) -> None:
    """Set a flag if some of so many cells are `LARGE` or not finite.

    Bits without their sign are in the order of the numbers, with infinity and NaN at the end: the
    largest says it all.
    """
    code, a = begin(module, name, {"flag": PTR, "cells": PTR, "count": I64}, element)
    builder, lanes = code.builder, element.lanes
    kind = VectorType(IntType(8 * element.bytes), lanes)
    unsigned = Constant(kind, [2 ** (8 * element.bytes - 1) - 1] * lanes)
    limit = Constant(kind, [_LARGE_BITS[element.bytes]] * lanes)

    def bits(cells: Value) -> Value:
        return builder.and_(builder.bitcast(cells, kind), unsigned)

    def larger(one: Value, other: Value) -> Value:
        return builder.select(builder.icmp_signed(">", one, other), one, other)

    def passed(most: list[Value], first: Index, steps: Value) -> list[Value]:
        """`most` after so many steps, each of as many vectors as there are in it."""
        with code.loop_carrying(steps, [code.index(first), *most]) as ((n, *found), following):
            following.append(code.add(n, len(most) * lanes))
            for v, each in enumerate(found):
                cells = code.load_vector(a["cells"], code.add(n, v * lanes))
                following.append(larger(bits(cells), each))
        return following[1:]

    turns, left = code.divmod(a["count"], _SCREENED * lanes)
    whole, rest = code.divmod(left, lanes)
    most = passed([Constant(kind, None)] * _SCREENED, 0, turns)
    most = passed([reduce(larger, most)], code.sub(a["count"], left), whole)
    last = code.load_lanes(code.at(a["cells"], code.sub(a["count"], rest)), code.first_lanes(rest))
    is_large = builder.icmp_signed(">=", larger(bits(last), most[0]), limit)
    any_lane = builder.bitcast(is_large, IntType(lanes))
    with code.when(builder.icmp_unsigned("!=", any_lane, Constant(IntType(lanes), 0))):
        code.store(code.index(1), a["flag"])
    code.end()


def _by_axis(code: Code, matrices: Matrices, cells: _Cells) -> _Cells:
    """``sum over z, y, x of a[i, z] * b[j, y] * c[k, x] * cells[z, y, x]`` by (i, j, k)."""
    for axis in (2, 1, 0):
        lines: dict[tuple[int, ...], list[Value]] = {}
        for place in sorted(cells):
            rest = place[:axis] + place[axis + 1 :]
            lines.setdefault(rest, []).append(cells[place])
        cells = {}
        for rest, line in lines.items():
            for n, row in enumerate(matrices[axis]):
                cells[(*rest[:axis], n, *rest[axis:])] = _combined(code, row, line)
    return cells


def _combined(code: Code, row: Sequence[float], values: list[Value]) -> Value:
    """``sum of row * values``, those that are added first, so that none need be negated."""
    terms = [(c, value) for c, value in zip(row, values, strict=True) if c]
    terms.sort(key=lambda term: term[0] < 0)
    (first, value), *others = terms
    assert {abs(c) for c, _ in terms} == {1.0}, "weights have all other factors"
    builder = code.builder
    start = value if first > 0 else builder.fsub(code.element.zeros, value)

    def add(total: Value, term: tuple[float, Value]) -> Value:
        c, each = term
        return builder.fadd(total, each) if c > 0 else builder.fsub(total, each)

    return reduce(add, others, start)
