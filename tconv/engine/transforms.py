"""WHAT IS DONE BEFORE AND AFTER PRODUCTS THAT ARE FEWER: sums of cells, and of products.

    sum_cells to[v] = sum over p of sums[v, p] * cells[offset[p]:][:lanes]          # Tiling.sums
    restore   line[j] = bias + sum over i of inverse[j, i] * products[i][:lanes]    # Group.inverse

Both go axis by axis. The matrices are built in: nearly all of their numbers are 0, 1 and -1.
"""

from collections.abc import Callable, Sequence
from functools import reduce
from itertools import product
from typing import Any

from tconv.engine import values as ir
from tconv.engine.ir import I32, I64, PTR, Code, Number, begin
from tconv.engine.winograd import Matrix

__all__ = ["restore", "sum_cells"]

Value = Any
Matrices = tuple[Matrix, Matrix, Matrix]
_Cells = dict[tuple[int, ...], Value]


def sum_cells(sums: Matrices) -> Callable[[ir.Module, str, Number], None]:
    """Write the sums of the cells of a channel, ``pitch`` numbers apart.

    So many lanes as are ``wide`` make a tile; there are ``tile`` numbers from tile to tile.
    """

    def emit(module: ir.Module, name: str, number: Number) -> None:
        pointers, sizes_of = (
            {"to": PTR, "cells": PTR, "offsets": PTR},
            ("pitch", "lanes", "wide", "tile"),
        )
        arguments = pointers | dict.fromkeys(sizes_of, I64)
        code, a = begin(module, name, arguments, number)
        a["to"].add_attribute("noalias")
        sizes = [len(matrix[0]) for matrix in sums]
        starts = {}
        for n, place in enumerate(product(*map(range, sizes))):
            offset = code.builder.sext(code.load(a["offsets"], n, I32), I64)
            starts[place] = code.at(a["cells"], offset)
        with code.loop(a["lanes"], step=a["wide"]) as first:
            of_tile = code.at(a["to"], code.mul(code.div(first, a["wide"]), a["tile"]))
            with code.loop(
                code.least(a["wide"], code.sub(a["lanes"], first)), step=number.lanes
            ) as n:
                lane = code.add(first, n)
                cells = {place: code.load_vector(start, lane) for place, start in starts.items()}
                found = _by_axis(code, sums, cells)
                for place_of, place in enumerate(sorted(found)):
                    to = code.add(n, code.mul(a["pitch"], place_of))
                    code.store_vector(found[place], of_tile, to)
        code.end()

    return emit


def restore(inverses: Matrices) -> Callable[[ir.Module, str, Number], None]:
    """Write the outputs of a phase that are made together, each to a line of its own."""

    def emit(module: ir.Module, name: str, number: Number) -> None:
        pointers = {"line": PTR, "products": PTR, "bias": PTR}
        steps = ("step_z", "step_y", "step_x")
        sizes = dict.fromkeys(("pitch", *steps, "lanes"), I64)
        code, a = begin(module, name, pointers | sizes, number)
        a["line"].add_attribute("noalias")
        bias = code.splat(code.load(a["bias"]))
        points = [range(len(matrix[0])) for matrix in inverses]
        with code.loop(a["lanes"], step=number.lanes) as lane:
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
    start = value if first > 0 else builder.fsub(code.number.zeros, value)

    def add(total: Value, term: tuple[float, Value]) -> Value:
        c, each = term
        return builder.fadd(total, each) if c > 0 else builder.fsub(total, each)

    return reduce(add, others, start)
