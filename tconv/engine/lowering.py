"""HOW A PLAN IS LAID OUT: its kernels numbered, and all that its drivers read but sizes."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.engine.channel_lanes.driver import broadcast, run_turned
from tconv.engine.channel_lanes.layout import TurnedLayout
from tconv.engine.codegen.abi import ARGUMENTS, RESTORED
from tconv.engine.codegen.code import write
from tconv.engine.compile.jit import Emit
from tconv.engine.direct.im2col import find_runs, gather
from tconv.engine.direct.layout import Layout
from tconv.engine.driver import run, run_spread, run_tiled
from tconv.engine.kernels.activation import activate
from tconv.engine.kernels.gemm import add_rows, copy_row, micro, pack_rows, stream
from tconv.engine.kernels.limits import MOST_INTERLEAVED
from tconv.engine.kernels.pack_weights import PACK_ARGUMENTS, pack_made_run, pack_run
from tconv.engine.kernels.transpose import turn_out
from tconv.engine.layouts import layout_of
from tconv.engine.lowered_plan import Laid, Told
from tconv.engine.weight_tables import pack_arguments
from tconv.engine.winograd.kernels import restore, screen, sum_cells
from tconv.engine.winograd.layout import TiledLayout

__all__ = ["Kernels", "layout_of"]


class Kernels:
    """Kernels of a layout: numbers of those that its driver calls, and what emits them."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.emits: dict[str, Emit] = {}  # in the order of their numbers; drivers come last
        self.called: dict[str, int] = {}  # by pointer, 0 for none
        self.arrays: dict[str, NDArray[Any]] = {}  # that have numbers of kernels, and more
        self._number()
        self.names = tuple(self.emits)
        for emit in _drivers(layout):
            self(emit.__name__, emit)
        self.drivers = tuple(self.emits)[len(self.names) :]

    def __call__(self, name: str, emit: Any, *, dtype: str = "") -> int:
        """Return the number of one; it is for the type of x and y unless another is named."""
        dtype = dtype or self.layout.dtype.name
        full = f"{name}_{dtype}"
        self.emits[full] = partial(write, emit, full, dtype, self.layout.target)
        return [*self.emits].index(full) + 1

    def laid(self) -> Laid:
        """Return all that follows from the layout, but sizes."""
        layout, called = self.layout, self.called.items()
        arrays = self.arrays | layout.fixed()
        packing, of_packing, packing_bytes = pack_arguments(layout)
        columns = {"micros": 0, "restored": RESTORED.place("kernel")}
        return Laid(
            self.names,
            tuple((ARGUMENTS.place(name), number) for name, number in called if number),
            tuple(
                (ARGUMENTS.place(name), columns[name]) for name in columns.keys() & arrays.keys()
            ),
            self.drivers,
            (layout.problem.geometry.groups, layout.blocks, layout.weight_block),
            packing_bytes,
            layout.bias_sources(),
            {ARGUMENTS.place(name): array for name, array in arrays.items()},
            Told(
                packing, {PACK_ARGUMENTS.place(name): array for name, array in of_packing.items()}
            ),
        )

    def _number(self) -> None:
        layout, activation = self.layout, self.layout.problem.activation
        if isinstance(layout, TurnedLayout):
            self.called, self.arrays = layout.kernels(self, broadcast, turn_out)
        else:
            self._number_those_of_cells()
        if activation is not None:
            name, computed = f"activate_{activation.name}", layout.computed.name
            self.called["activate"] = self(name, activate(activation.name), dtype=computed)

    def _number_those_of_cells(self) -> None:
        """Number what is called where lanes are cells."""
        layout, plan, computed = self.layout, self.layout.plan, self.layout.computed.name
        moved = "int16" if layout.dtype != layout.computed else layout.dtype.name
        heights = layout.heights
        micros = self.arrays["micros"] = np.zeros((2 * max(heights) + 2, 1), np.int64)
        for rows in heights:
            for n, vectors in enumerate(layout.widths):
                if vectors:
                    shape = (rows, vectors, layout.unroll, layout.reads_ahead(rows))
                    name = "micro_" + "_".join(str(int(each)) for each in shape)
                    micros[2 * rows + n] = self(name, micro(*shape), dtype=computed)
        step, stride = (
            min(layout.fields[name], MOST_INTERLEAVED + 1) for name in ("step_x", "stride_x")
        )
        copies = not plan.is_gathered
        self.called = {
            "pack_rows": self(f"pack_rows_{step}", pack_rows(step)) if copies else 0,
            "find_runs": self("find_runs", find_runs) if plan.is_gathered else 0,
            "gather": self("gather", gather) if plan.is_gathered else 0,
            "add_rows": self("add_rows", add_rows, dtype=computed) if plan.is_spread else 0,
            "stream": self("stream", stream, dtype=moved) if layout.streams else 0,
            "copy_row": self(f"copy_row_{stride}", copy_row(stride)),
        }
        if isinstance(layout, TiledLayout):
            more, of_tiles = layout.kernels(self, restore, sum_cells, screen)
            self.called |= more
            self.arrays |= of_tiles


def _drivers(layout: Layout) -> tuple[Any, Any]:
    """What computes, and what packs weights."""
    plan = layout.plan
    kinds = (plan.is_spread, run_spread), (plan.is_tiled, run_tiled), (plan.is_turned, run_turned)
    driver = next((driver for is_kind, driver in kinds if is_kind), run)
    return driver, pack_run if layout.weight_matrix is None else pack_made_run
