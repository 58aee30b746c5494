"""The depthwise micro-kernel: rows of outputs whose vectors slide over rows of x.

    for columns in vectors of a row of outputs:
        for block of rows:
            for c in channels of the group:
                for row of x that the block reads, cells of it that its taps read:
                    acc[r, phase] += w[c, tap] * x[c, row][cells]        # for all that read them
            y[block, columns] = activation(bias + acc + residual), the phases interleaved

A row of x is loaded once for all rows of outputs that read it, straight from x: where the image
ends masks let the lanes beyond read zeros, and rows beyond it are rows of zeros.
"""

from collections.abc import Callable
from hashlib import sha256
from itertools import pairwise
from typing import NamedTuple

from tconv.engine.codegen.abi import Call
from tconv.engine.codegen.code import Code, ElementType, begin
from tconv.engine.codegen.llvm import I64, PTR, Argument, Module, Value
from tconv.engine.kernels.activation import applied
from tconv.engine.kernels.interleave import interleaved
from tconv.engine.kernels.row_cells import RowCells
from tconv.engine.plan.phases import AxisPhases, Taps
from tconv.engine.plan.problem import Problem

__all__ = ["AxisWindow", "Window", "slide"]


class AxisWindow(NamedTuple):
    """What outputs read along one axis: for every phase its (tap, shift) pairs, and the step."""

    taps: Taps
    step: int

    @classmethod
    def of(cls, axis: AxisPhases) -> "AxisWindow":
        """Return the window of an axis."""
        return cls(axis.taps, axis.step)

    @property
    def offsets(self) -> tuple[int, ...]:
        """Cells that a place q reads, from ``q*step`` on, in ascending order."""
        return tuple(sorted({-shift for of_phase in self.taps for _, shift in of_phase}))


class Window(NamedTuple):
    """All that is compiled in: the window, and how many rows and vectors of outputs share it."""

    y: AxisWindow
    x: AxisWindow
    rows: int
    vectors: int
    kernel: tuple[int, int]
    channels: int
    activation: str
    residual: bool

    @classmethod
    def of(cls, problem: Problem, rows: int, vectors: int) -> "Window":
        """Return the window of a problem."""
        _, y, x = problem.phases().axes
        _, height, width = problem.kernel_size
        name = problem.activation.name if problem.activation else ""
        axes = AxisWindow.of(y), AxisWindow.of(x)
        kernel, channels = (height, width), problem.channels
        return cls(*axes, rows, vectors, kernel, channels, name, problem.residual)

    @property
    def name(self) -> str:
        """A name for the kernel, which no other window shares."""
        return f"slide_{sha256(repr(self).encode()).hexdigest()[:24]}"

    def reads(self) -> list[tuple[int, list[tuple[int, int, int]]]]:
        """Rows of x that a block reads, counted from its first q, and what reads each of them.

        A reader is a (row, phase, tap) of the block. Each row sums its taps in ascending order.
        """
        found: dict[int, list[tuple[int, int, int]]] = {}
        for row in range(self.rows):
            for phase, of_phase in enumerate(self.y.taps):
                for tap, shift in of_phase:
                    found.setdefault(row * self.y.step - shift, []).append((row, phase, tap))
        is_ascending = all(
            shift > later
            for of_phase in self.y.taps
            for (_, shift), (_, later) in pairwise(of_phase)
        )
        return sorted(found.items(), reverse=not is_ascending)

    @property
    def cells(self) -> RowCells:
        """What is read of each row of x."""
        return RowCells(self.x.offsets, self.x.step, self.vectors)


def slide(window: Window) -> Callable[[Module, str, ElementType], None]:
    """Return the emitter of the micro-kernel.

    It writes the rows q from ``first`` up to ``end`` of a plane of y, and reads the planes of a
    group's channels from ``x`` on.
    """

    def emit(module: Module, name: str, element: ElementType) -> None:
        pointers = dict.fromkeys(("arguments", "x", "w", "bias", "y", "residual"), PTR)
        code, a = begin(module, name, pointers | {"first": I64, "end": I64}, element)
        a["y"].add_attribute("noalias")
        c, lanes = Call(code, a["arguments"]), element.lanes
        width, cells = window.vectors * lanes, window.cells
        nowhere = code.room(element.vector, window.vectors * len(window.x.taps))
        with code.loop(c.all_columns, step=width) as column:
            start = code.mul(column, window.x.step)
            room = code.sub(c.input_width, start)
            rest = code.sub(c.output_width, code.mul(column, len(window.x.taps)))
            has_all = code.is_less(width * len(window.x.taps) - 1, rest)
            is_inner = code.both(cells.is_inner(code, start, room), has_all)
            with code.if_else(is_inner) as (inner, outer):
                with inner:
                    _Columns(code, c, a, window, column, nowhere).write()
                with outer:
                    edge = _Columns(code, c, a, window, column, nowhere)
                    edge.masks = cells.masks(code, start, room)
                    edge.kept = [
                        code.first_lanes(code.sub(rest, n * lanes))
                        for n in range(window.vectors * len(window.x.taps))
                    ]
                    edge.write()
        code.end()

    return emit


class _Columns:
    """Some columns of a plane of y, all rows of which are written block by block."""

    masks: dict[int, Value]
    kept: list[Value]

    def __init__(
        self,
        code: Code,
        c: Call,
        a: dict[str, Argument],
        window: Window,
        column: Value,
        nowhere: Value,
    ) -> None:
        self.code, self.c, self.a, self.window, self.column = code, c, a, window, column
        self.masks, self.kept, self.nowhere = {}, [], nowhere

    def write(self) -> None:
        """Emit the loop over blocks of rows."""
        code, a, window = self.code, self.a, self.window
        height, phases = len(window.y.taps), len(window.x.taps)
        bias = code.splat(code.load(a["bias"]))
        with code.loop(a["end"], a["first"], window.rows) as row:
            count = window.rows * height * phases * window.vectors
            start: list[Value] = [code.element.zeros] * count
            if window.channels == 1:
                sums = self._channel(start, row, a["x"], a["w"])
            else:
                with code.loop_carrying(window.channels, [*start, a["x"], a["w"]]) as (
                    (*acc, x, w),
                    sums,
                ):
                    sums += self._channel(acc, row, x, w)
                    sums.append(code.at(x, self.c.x_channel))
                    sums.append(code.at(w, window.kernel[0] * window.kernel[1]))
                del sums[-2:]
            self._store([code.plus(bias, each) for each in sums], row)

    def _channel(self, acc: list[Value], row: Value, x: Value, w: Value) -> list[Value]:
        """Emit the terms of one channel; return the sums."""
        code, window, acc = self.code, self.window, list(acc)
        phases, vectors = len(window.x.taps), window.vectors
        first = code.mul(row, window.y.step)
        left = code.mul(self.column, window.x.step)
        for offset, readers in window.reads():
            place = code.add(first, offset)
            source = code.at(x, code.add(code.mul(place, self.c.x_row), left))
            exists = code.is_within(place, self.c.input_height)
            source = code.builder.select(exists, source, self._zeros())
            cells = window.cells.vectors_at(code, source, self.masks)
            for of_row, phase_y, tap_y in readers:
                for phase_x, taps in enumerate(window.x.taps):
                    at = ((of_row * len(window.y.taps) + phase_y) * phases + phase_x) * vectors
                    for tap_x, shift in taps:
                        weight = code.splat(code.load(w, tap_y * window.kernel[1] + tap_x))
                        for v, vector in enumerate(cells[-shift]):
                            acc[at + v] = code.multiply_add(weight, vector, acc[at + v])
        return acc

    def _zeros(self) -> Value:
        """A row of zeros, as it would be read from ``q*step`` on."""
        return self.code.at(self.c.zeros, -self.window.cells.loads(self.code.element.lanes)[0])

    def _store(self, sums: list[Value], row: Value) -> None:
        """Write a block of rows to y: interleaved, with the residual, activated."""
        code, c, window = self.code, self.c, self.window
        height, each = len(window.y.taps), len(window.x.taps) * window.vectors
        left = code.mul(self.column, len(window.x.taps))
        places, found = [], list[Value]()
        for n in range(window.rows * height):
            of_row, phase_y = divmod(n, height)
            q = code.add(row, of_row)
            place = code.add(code.mul(q, height), phase_y)
            exists = code.both(code.is_less(q, self.a["end"]), code.is_less(place, c.output_height))
            cell = code.add(code.mul(place, c.y_row), left)
            # Without a branch: LLVM would move the products of each row beneath its own.
            places.append(self._place(exists, self.a["y"], cell))
            cells = self._interleaved(sums[n * each : (n + 1) * each])
            if window.residual:
                residual = self._place(exists, self.a["residual"], cell)
                cells = [code.plus(one, self._load(residual, v)) for v, one in enumerate(cells)]
            found += cells
        if window.activation:
            found = applied(code, window.activation, c.parameters, found)
        for n, to in enumerate(places):
            for v, vector in enumerate(found[n * each : (n + 1) * each]):
                at = code.at(to, v * code.element.lanes)
                if self.kept:
                    code.store_lanes(vector, at, self.kept[v])
                else:
                    code.store_vector(vector, at)

    def _place(self, exists: Value, pointer: Value, cell: Value) -> Value:
        """``&pointer[cell]``, or memory that nobody reads where there is no such row."""
        return self.code.builder.select(exists, self.code.at(pointer, cell), self.nowhere)

    def _interleaved(self, sums: list[Value]) -> list[Value]:
        """The vectors of a row of y from the sums of its phases."""
        vectors = self.window.vectors
        return [each for v in range(vectors) for each in interleaved(self.code, sums[v::vectors])]

    def _load(self, source: Value, v: int) -> Value:
        at = self.code.at(source, v * self.code.element.lanes)
        return self.code.load_lanes(at, self.kept[v]) if self.kept else self.code.load_vector(at)
