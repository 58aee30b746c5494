"""Winograd kernels: input transform, output transform, and the check for cells that overflow.

    transform_input   to[v] = sum over p of input_matrix[v, p] * cells[offset[p]:][:lanes]
    transform_output  acc[j] = bias + sum over i of output_matrix[j, i] * products[i][:lanes]
    flag_large        flag = 1 if a cell is not finite, or so large that a transform may overflow

The transforms go axis by axis. Their matrices are compiled in: the elements are 0, 1 and -1.
`engine/kernels/transform_weights.py` has the filter transform.
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

__all__ = ["flag_large", "transform_input", "transform_output"]

_LARGE_BITS = {
    size: int(np.array(large, f"f{size}").view(f"i{size}")) for size, large in LARGE.items()
}
_CHECKED = 4  # vectors at a time
Matrices = tuple[Matrix, Matrix, Matrix]
_Cells = dict[tuple[int, ...], Value]


def transform_input(matrices: Matrices) -> Callable[[Module, str, ElementType], None]:
    """Return the emitter of the input transform of one channel.

    Points are ``pitch`` elements apart. Every ``wide`` lanes the next register tile begins,
    ``tile`` elements further on.
    """

    def emit(module: Module, name: str, element: ElementType) -> None:
        pointers, sizes_of = (
            {"to": PTR, "cells": PTR, "offsets": PTR},
            ("pitch", "lanes", "wide", "tile"),
        )
        arguments = pointers | dict.fromkeys(sizes_of, I64)
        code, a = begin(module, name, arguments, element)
        a["to"].add_attribute("noalias")
        sizes = [len(matrix[0]) for matrix in matrices]
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
                found = _by_axis(code, matrices, cells)
                for place_of, place in enumerate(sorted(found)):
                    to = code.add(n, code.mul(a["pitch"], place_of))
                    code.store_vector(found[place], of_tile, to)
        code.end()

    return emit


def transform_output(matrices: Matrices) -> Callable[[Module, str, ElementType], None]:
    """Return the emitter of the output transform of a phase; each output has a row of acc."""

    def emit(module: Module, name: str, element: ElementType) -> None:
        pointers = {"acc": PTR, "products": PTR, "bias": PTR}
        steps = ("step_z", "step_y", "step_x")
        sizes = dict.fromkeys(("pitch", *steps, "lanes"), I64)
        code, a = begin(module, name, pointers | sizes, element)
        a["acc"].add_attribute("noalias")
        bias = code.splat(code.load(a["bias"]))
        points = [range(len(matrix[0])) for matrix in matrices]
        with code.loop(a["lanes"], step=element.lanes) as lane:
            products = {}
            for n, point in enumerate(product(*points)):
                source = code.at(a["products"], code.add(code.mul(a["pitch"], n), lane))
                products[point] = code.load_vector(source)
            for place, value in _by_axis(code, matrices, products).items():
                offsets = [code.mul(a[step], n) for step, n in zip(steps, place, strict=True)]
                to = code.at(a["acc"], code.add(lane, *offsets))
                code.store_vector(code.plus(value, bias), to)
        code.end()

    return emit


def flag_large(module: Module, name: str, element: ElementType) -> None:
    """Emit ``if any of cells[:count] is LARGE or not finite: flag = 1``.

    Without the sign, bits as integers have the order of the absolute values, infinity and NaN last:
    the kernel computes their maximum.
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
        """Return `most` after so many steps of as many vectors as it has."""
        with code.loop_carrying(steps, [code.index(first), *most]) as ((n, *found), following):
            following.append(code.add(n, len(most) * lanes))
            for v, each in enumerate(found):
                cells = code.load_vector(a["cells"], code.add(n, v * lanes))
                following.append(larger(bits(cells), each))
        return following[1:]

    turns, left = code.divmod(a["count"], _CHECKED * lanes)
    whole, rest = code.divmod(left, lanes)
    most = passed([Constant(kind, None)] * _CHECKED, 0, turns)
    most = passed([reduce(larger, most)], code.sub(a["count"], left), whole)
    last = code.load_lanes(code.at(a["cells"], code.sub(a["count"], rest)), code.first_lanes(rest))
    is_large = builder.icmp_signed(">=", larger(bits(last), most[0]), limit)
    any_lane = builder.bitcast(is_large, IntType(lanes))
    with code.when(builder.icmp_unsigned("!=", any_lane, Constant(IntType(lanes), 0))):
        code.store(code.index(1), a["flag"])
    code.end()


def _by_axis(code: Code, matrices: Matrices, cells: _Cells) -> _Cells:
    """Return ``sum over z, y, x of a[i, z] * b[j, y] * c[k, x] * cells[z, y, x]`` by (i, j, k)."""
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
    """Return ``sum of row * values``, positive terms first, so that none need be negated."""
    terms = [(c, value) for c, value in zip(row, values, strict=True) if c]
    terms.sort(key=lambda term: term[0] < 0)
    (first, value), *others = terms
    assert {abs(c) for c, _ in terms} == {1.0}, "other factors belong to the filter transform"
    builder = code.builder
    start = value if first > 0 else builder.fsub(code.element.zeros, value)

    def add(total: Value, term: tuple[float, Value]) -> Value:
        c, each = term
        return builder.fadd(total, each) if c > 0 else builder.fsub(total, each)

    return reduce(add, others, start)
