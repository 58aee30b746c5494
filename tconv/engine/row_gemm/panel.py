"""Im2col panels of some cells of a row of y: what they read of x, term by term.

    for c in channels:
        for z, y in taps:
            for x in taps:                                 # unrolled
                panel[c, z, y, x] = x[c, row + (z, y)][cells + x]

Rows beyond the image are rows of zeros.
"""

from collections.abc import Callable
from hashlib import sha256
from typing import NamedTuple

from tconv.engine.codegen.abi import Call
from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.llvm import I64, PTR, Argument, Module, Value
from tconv.engine.kernels.row_cells import RowCells
from tconv.engine.plan.phases import AxisPhases, Phases

__all__ = ["AxisTaps", "RowPanel", "fill_row_panel"]


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
    def of(cls, phases: Phases, vectors: int) -> "RowPanel | None":
        """Return it for a problem of one phase; None if its taps are not evenly apart."""
        z, y, x = map(AxisTaps.of, phases.axes)
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

    It reads `channels` of x, for the cells of y from ``column`` on in the row ``(plane, row)``.
    """

    def emit(module: Module, name: str, element: ElementType) -> None:
        pointers = dict.fromkeys(("arguments", "panel", "x"), PTR)
        sizes = dict.fromkeys(("channels", "plane", "row", "column"), I64)
        code, a = begin(module, name, pointers | sizes, element)
        a["panel"].add_attribute("noalias")
        c, cells = Call(code, a["arguments"]), panel.cells
        start = code.mul(a["column"], panel.x.step)
        room = code.sub(c.input_width, start)
        with code.if_else(cells.is_inner(code, start, room)) as (inner, outer):
            with inner:
                _fill(code, c, a, panel, start, {})
            with outer:
                _fill(code, c, a, panel, start, cells.masks(code, start, room))
        code.end()

    return emit


def _fill(
    code: Code,
    c: Call,
    a: dict[str, Argument],
    panel: RowPanel,
    start: Value,
    masks: dict[int, Value],
) -> None:
    """Emit the loops over channels and rows."""
    cells, lanes = panel.cells, code.element.lanes
    size = panel.x.kernel * panel.vectors * lanes
    zeros = code.at(c.zeros, -cells.loads(lanes)[0])
    first_z = code.add(code.mul(a["plane"], panel.z.step), panel.z.first)
    first_y = code.add(code.mul(a["row"], panel.y.step), panel.y.first)
    in_row = code.add(code.mul(first_z, c.x_plane), code.mul(first_y, c.x_row), start)
    plane_step, row_step = code.mul(c.x_plane, panel.z.delta), code.mul(c.x_row, panel.y.delta)
    with code.loop_carrying(a["channels"], [a["panel"], code.at(a["x"], in_row)]) as (
        (to, of_channel),
        next_channel,
    ):
        with code.loop_carrying(panel.z.kernel, [to, of_channel, first_z]) as (
            (to, of_plane, z),
            next_plane,
        ):
            has_plane = code.is_within(z, c.input_depth)
            with code.loop_carrying(panel.y.kernel, [to, of_plane, first_y]) as (
                (to, of_row, y),
                next_row,
            ):
                exists = code.both(has_plane, code.is_within(y, c.input_height))
                source = code.builder.select(exists, of_row, zeros)
                found = cells.vectors_at(code, source, masks)
                for n, offset in enumerate(panel.x.offsets):
                    for v, vector in enumerate(found[offset]):
                        code.store_vector(vector, to, (n * panel.vectors + v) * lanes)
                next_row += [
                    code.at(to, size),
                    code.at(of_row, row_step),
                    code.add(y, panel.y.delta),
                ]
            to = next_row[0]
            next_plane += [to, code.at(of_plane, plane_step), code.add(z, panel.z.delta)]
        next_channel += [next_plane[0], code.at(of_channel, c.x_channel)]
