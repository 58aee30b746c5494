"""Im2col panels of some cells of y: what they read of x, term by term.

    for columns in vectors of a row:                       # masks for those beyond its ends
        for c in channels:
            for z, y in taps:
                for row in rows:
                    for x in taps:                         # unrolled
                        panel[c, z, y, x, row][columns] = x[c, row + (z, y)][columns + x]

The rows of a term follow each other without a gap, as rows of y do. Rows beyond the image are rows
of zeros.
"""

from collections.abc import Callable
from hashlib import sha256
from math import ceil
from typing import NamedTuple

from tconv.engine.codegen.abi import Call
from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.llvm import I64, PTR, Argument, Module, Value
from tconv.engine.kernels.row_cells import RowCells
from tconv.engine.plan.phases import AxisPhases, Phases

__all__ = ["AxisTaps", "RowPanel", "fill_row_panel"]


_MOST_VECTORS = 4  # of a row that are filled at a time


class AxisTaps(NamedTuple):
    """The cells that taps read along an axis, for its place q: ``q*step + first + tap*delta``."""

    kernel: int
    step: int
    first: int
    delta: int

    @classmethod
    def of(cls, axis: AxisPhases) -> "AxisTaps | None":
        """Return them for an axis of one phase; None if it reads not all taps, evenly apart."""
        (taps,) = axis.taps
        cells = [-shift for _, shift in taps]
        if len(cells) < axis.kernel:
            return None
        delta = cells[1] - cells[0] if len(cells) > 1 else 0
        found = cls(len(cells), axis.step, cells[0], delta)
        return found if cells == found.offsets else None

    @property
    def offsets(self) -> list[int]:
        """The cells for q = 0, tap by tap."""
        return [self.first + tap * self.delta for tap in range(self.kernel)]


class RowPanel(NamedTuple):
    """All that is compiled into the kernel: taps by axis, and vectors of cells."""

    z: AxisTaps
    y: AxisTaps
    x: AxisTaps
    vectors: int

    @classmethod
    def of(cls, phases: Phases, lanes: int) -> "RowPanel | None":
        """Return it for a problem of one phase and vectors of so many lanes.

        None if its taps are not evenly apart.
        """
        z, y, x = map(AxisTaps.of, phases.axes)
        vectors = ceil(phases.axes[2].count / lanes)
        vectors = ceil(vectors / ceil(vectors / _MOST_VECTORS))
        return None if z is None or y is None or x is None else cls(z, y, x, vectors)

    @property
    def cells(self) -> RowCells:
        """What is read of each row of x."""
        return RowCells(tuple(sorted(self.x.offsets)), self.x.step, self.vectors)

    @property
    def name(self) -> str:
        """A name for the kernel, which no other panel shares."""
        return f"fill_{sha256(repr(self).encode()).hexdigest()[:24]}"


def fill_row_panel(panel: RowPanel) -> Callable[[Module, str, ElementType], None]:
    """Return the emitter of the kernel.

    It reads `channels` of x, for ``columns`` cells from ``column`` on of ``rows`` rows of y from
    ``(plane, row)`` on. Terms are ``pitch`` elements apart in the panel.
    """

    def emit(module: Module, name: str, element: ElementType) -> None:
        pointers = dict.fromkeys(("arguments", "panel", "x"), PTR)
        words = ("channels", "plane", "row", "rows", "column", "columns", "pitch")
        code, a = begin(module, name, pointers | dict.fromkeys(words, I64), element)
        a["panel"].add_attribute("noalias")
        c, cells = Call(code, a["arguments"]), panel.cells
        lanes, width = element.lanes, panel.vectors * element.lanes
        with code.loop(a["columns"], step=width) as column:
            start = code.mul(code.add(a["column"], column), panel.x.step)
            room, left = code.sub(c.input_width, start), code.sub(a["columns"], column)
            has_all = code.is_less(width - 1, left)
            is_inner = code.both(cells.is_inner(code, start, room), has_all)
            place = (start, column)
            with code.if_else(is_inner) as (inner, outer):
                with inner:
                    _fill(code, c, a, panel, place, {}, [])
                with outer:
                    masks = cells.masks(code, start, room)
                    of_vectors = (code.sub(left, v * lanes) for v in range(panel.vectors))
                    kept = [code.first_lanes(count) for count in of_vectors]
                    _fill(code, c, a, panel, place, masks, kept)
        code.end()

    return emit


def _fill(
    code: Code,
    c: Call,
    a: dict[str, Argument],
    panel: RowPanel,
    place: tuple[Value, Value],
    masks: dict[int, Value],
    kept: list[Value],
) -> None:
    """Emit the loops over channels and rows, for some columns: where they begin in x and panel."""
    start, column = place
    size = code.mul(a["pitch"], panel.x.kernel)
    first_z = code.add(code.mul(a["plane"], panel.z.step), panel.z.first)
    first_y = code.add(code.mul(a["row"], panel.y.step), panel.y.first)
    in_row = code.add(code.mul(first_z, c.x_plane), code.mul(first_y, c.x_row), start)
    plane_step, row_step = code.mul(c.x_plane, panel.z.delta), code.mul(c.x_row, panel.y.delta)
    begin_of = [code.at(a["panel"], column), code.at(a["x"], in_row)]
    with code.loop_carrying(a["channels"], begin_of) as ((to, of_channel), next_channel):
        with code.loop_carrying(panel.z.kernel, [to, of_channel, first_z]) as (
            (to, of_plane, z),
            next_plane,
        ):
            has_plane = code.is_within(z, c.input_depth)
            with code.loop_carrying(panel.y.kernel, [to, of_plane, first_y]) as (
                (to, of_row, y),
                next_row,
            ):
                _fill_term(code, c, a, panel, (to, of_row, y, has_plane), masks, kept)
                next_row += [
                    code.at(to, size),
                    code.at(of_row, row_step),
                    code.add(y, panel.y.delta),
                ]
            to = next_row[0]
            next_plane += [to, code.at(of_plane, plane_step), code.add(z, panel.z.delta)]
        next_channel += [next_plane[0], code.at(of_channel, c.x_channel)]


def _fill_term(
    code: Code,
    c: Call,
    a: dict[str, Argument],
    panel: RowPanel,
    begin_of: tuple[Value, Value, Value, Value],
    masks: dict[int, Value],
    kept: list[Value],
) -> None:
    """Emit the loop over rows of y, for a channel and a tap along depth and height."""
    cells, lanes, (to, source, y, has_plane) = panel.cells, code.element.lanes, begin_of
    zeros, next_row_of_x = (
        code.at(c.zeros, -cells.loads(lanes)[0]),
        code.mul(c.x_row, panel.y.step),
    )
    with code.loop_carrying(a["rows"], [to, source, y]) as ((to, source, y), following):
        exists = code.both(has_plane, code.is_within(y, c.input_height))
        found = cells.vectors_at(code, code.builder.select(exists, source, zeros), masks)
        for n, offset in enumerate(panel.x.offsets):
            of_tap = code.at(to, code.mul(a["pitch"], n))
            for v, vector in enumerate(found[offset]):
                if kept:
                    code.store_lanes(vector, code.at(of_tap, v * lanes), kept[v])
                else:
                    code.store_vector(vector, of_tap, v * lanes)
        following += [
            code.at(to, a["columns"]),
            code.at(source, next_row_of_x),
            code.add(y, panel.y.step),
        ]
