"""Im2col: gather cells into a panel that has the cells of every shift apart.

find_runs runs[vector] = where its cells begin in x, if they are contiguous
gather    to[lane] = x[table[lane]], or zero, for every channel
"""

from typing import Any

from tconv.engine.codegen.abi import RUN
from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.half import load_cells, widened
from tconv.engine.codegen.llvm import (
    I32,
    I64,
    PTR,
    Constant,
    IntType,
    Module,
    Undefined,
    Value,
    VectorType,
)
from tconv.engine.kernels.limits import CHANNELS_AHEAD

__all__ = ["find_runs", "gather"]

_NOWHERE, _APART = -(2**31), -(2**63)


def find_runs(module: Module, name: str, element: ElementType) -> None:
    """Write the run of each vector of a panel's row, which `gather` reads: a RUN each.

    A tile of the panel has ``lanes`` cells, and tiles are ``tile`` elements apart. The table, read
    from `place` on, has cells of x or -1. If the cells of a vector are contiguous but for -1, the
    run's start is the place of the first, else the least integer; few processors mask 16-bit
    floats, so there one -1 is enough for that. The table is read to the end of the last vector. A
    vector of nothing but -1 starts at the first cell: processors take hundreds of cycles for an
    address that is not mapped, even where no lane is read.
    """
    pointers, words = {"runs": PTR, "table": PTR}, ("place", "count", "to", "lanes", "tile")
    code, a = begin(module, name, pointers | dict.fromkeys(words, I64), element)
    lanes, builder = element.lanes, code.builder
    kind = VectorType(I32, lanes)
    with code.loop(a["count"], step=lanes) as lane:
        place = code.add(a["place"], lane)
        cells = builder.load(code.at(a["table"], place, I32), align=4, typ=kind)
        starts = builder.sub(cells, Constant(kind, list(range(lanes))))
        exist = builder.icmp_signed(">=", cells, Constant(kind, None))
        if element.is_half:
            exist = Constant(VectorType(IntType(1), lanes), [1] * lanes)
        last = code.reduced("smax", builder.select(exist, starts, _all(kind, _NOWHERE)))
        first = code.reduced("smin", builder.select(exist, starts, _all(kind, -1 - _NOWHERE)))
        follow = builder.icmp_signed("<=", last, first)
        if element.is_half:
            follow = code.both(follow, builder.icmp_signed(">=", first, I32(0)))
        start = code.pick(
            builder.icmp_signed("==", last, I32(_NOWHERE)), 0, builder.sext(last, I64)
        )
        tile, within = code.divmod(lane, a["lanes"])
        start = code.pick(follow, start, _APART)
        to = code.add(a["to"], code.mul(tile, a["tile"]), within)
        entry = RUN.entry(code, a["runs"], code.div(lane, lanes))
        RUN.store(code, entry, start=start, to=to, place=place)
    code.end()


def gather(module: Module, name: str, element: ElementType) -> None:
    """Write cells of some channels to a panel, run by run; zeros where the table has -1."""
    pointers, words = {"to": PTR, "x": PTR, "table": PTR, "runs": PTR}, ("count", "channels")
    sizes = dict.fromkeys((*words, "x_step", "to_step"), I64)
    code, a = begin(module, name, pointers | sizes, element)
    a["to"].add_attribute("noalias")
    ahead = code.mul(a["x_step"], CHANNELS_AHEAD)
    with code.loop(a["channels"]) as channel:
        of_channel = code.at(a["to"], code.mul(channel, a["to_step"]))
        x = code.cell(a["x"], code.mul(channel, a["x_step"]))
        with code.loop(a["count"]) as n:
            run = RUN.load(code, a["runs"], n)
            table, to = code.at(a["table"], run["place"], I32), code.at(of_channel, run["to"])
            is_apart = code.is_equal(run["start"], _APART)
            with code.if_else(is_apart) as (apart, together):
                with together:
                    cells = code.cell(x, run["start"])
                    code.prefetch(code.cell(cells, ahead))
                    code.store_vector(_cells_of(code, cells, table), to)
                with apart:
                    code.store_vector(_cells_apart(code, x, table, ahead), to)
    code.end()


def _cells_of(code: Code, x: Value, table: Value) -> Value:
    """A vector of contiguous cells, zeros where the table has -1; 16-bit floats have no -1."""
    if code.element.is_half:
        return load_cells(code, x)
    kind = VectorType(I32, code.element.lanes)
    cells = code.builder.load(table, align=4, typ=kind)
    return code.load_lanes(x, code.builder.icmp_signed(">=", cells, Constant(kind, None)))


def _cells_apart(code: Code, x: Value, table: Value, ahead: Value) -> Value:
    """A vector of cells that are not contiguous: read one by one, the first cell for -1.

    They are on several rows, of which two are prefetched `ahead`, in another channel.
    """
    element, builder = code.element, code.builder
    kind = VectorType(I32, element.lanes)
    cells = builder.load(table, align=4, typ=kind)
    exist = builder.icmp_signed(">=", cells, Constant(kind, None))
    places = builder.select(exist, cells, Constant(kind, None))
    found: Value = Constant(VectorType(element.cell, element.lanes), Undefined)
    for lane in range(element.lanes):
        place = builder.sext(builder.extract_element(places, I32(lane)), I64)
        if lane % (element.lanes // 2) == 0:
            code.prefetch(code.cell(x, code.add(place, ahead)))
        found = builder.insert_element(found, code.load(x, place, element.cell), I32(lane))
    return builder.select(exist, widened(code, found), element.zeros)


def _all(kind: Any, value: int) -> Value:
    return Constant(kind, [value] * kind.count)
