"""Lowering of a plan: which kernels its driver calls, and the tables it reads."""

from functools import partial
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.engine.channel_lanes.driver import broadcast, run_channel_lanes
from tconv.engine.channel_lanes.layout import ChannelLanesLayout
from tconv.engine.codegen.abi import ARGUMENTS, OUTPUT_TRANSFORM
from tconv.engine.codegen.code import write
from tconv.engine.compile.jit import Emit
from tconv.engine.depthwise.driver import run_depthwise
from tconv.engine.depthwise.kernel import slide
from tconv.engine.depthwise.layout import DepthwiseLayout
from tconv.engine.direct.im2col import find_runs, gather
from tconv.engine.direct.layout import Layout
from tconv.engine.driver import run, run_col2im, run_winograd
from tconv.engine.kernels.activation import activate, finish_row
from tconv.engine.kernels.gemm import micro_kernel
from tconv.engine.kernels.interleave import add_rows, fill_row, interleave_row, stream
from tconv.engine.kernels.limits import MOST_INTERLEAVED
from tconv.engine.kernels.pack_input import pack_rows
from tconv.engine.kernels.pack_weights import PACK_ARGUMENTS, run_packing, run_transformed_packing
from tconv.engine.kernels.transpose import transpose_out
from tconv.engine.layouts import layout_of
from tconv.engine.lowered_plan import Arguments, LoweredPlan
from tconv.engine.row_gemm.driver import run_row_gemm
from tconv.engine.row_gemm.kernel import row_kernel
from tconv.engine.row_gemm.layout import RowGemmLayout
from tconv.engine.row_gemm.panel import fill_row_panel
from tconv.engine.weight_tables import pack_arguments
from tconv.engine.winograd.kernels import flag_large, transform_input, transform_output
from tconv.engine.winograd.layout import WinogradLayout

__all__ = ["Lowering", "layout_of"]


class Lowering:
    """The kernels of a layout by number, and the functions that emit them."""

    def __init__(self, layout: Layout) -> None:
        self.layout = layout
        self.emits: dict[str, Emit] = {}  # in the order of kernel numbers; drivers come last
        self.called: dict[str, int] = {}  # kernel numbers by pointer, 0 for none
        self.arrays: dict[str, NDArray[Any]] = {}  # that hold kernel numbers, and more
        self._number()
        self.names = tuple(self.emits)
        for emit in _drivers(layout):
            self(emit.__name__, emit)
        self.drivers = tuple(self.emits)[len(self.names) :]

    def __call__(self, name: str, emit: Any, *, dtype: str = "") -> int:
        """Add a kernel for `dtype`, or else the type of x and y, and return its number."""
        dtype = dtype or self.layout.dtype.name
        full = f"{name}_{dtype}"
        self.emits[full] = partial(write, emit, full, dtype, self.layout.target)
        return [*self.emits].index(full) + 1

    def lower(self) -> LoweredPlan:
        """Return all that follows from the layout but its sizes."""
        layout, called = self.layout, self.called.items()
        arrays = self.arrays | layout.fixed()
        packing, of_packing, packing_bytes = pack_arguments(layout)
        columns = {
            "micros": 0,
            "copying_micros": 0,
            "output_transforms": OUTPUT_TRANSFORM.place("kernel"),
        }
        return LoweredPlan(
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
            Arguments(
                packing, {PACK_ARGUMENTS.place(name): array for name, array in of_packing.items()}
            ),
        )

    def _number(self) -> None:
        layout, activation = self.layout, self.layout.problem.activation
        if isinstance(layout, ChannelLanesLayout):
            self.called, self.arrays = layout.kernels(self, broadcast, transpose_out)
        elif isinstance(layout, DepthwiseLayout):
            self.called = layout.kernels(self, slide)
        elif isinstance(layout, RowGemmLayout):
            self.called, self.arrays = layout.kernels(self, row_kernel, fill_row_panel)
        else:
            self._number_cell_kernels()
        if not isinstance(layout, _FINISH_THEMSELVES):
            self._number_epilogue(activation.name if activation else "")

    def _number_epilogue(self, function: str) -> None:
        """Number the kernel of an activation, which a residual needs to be added before."""
        computed = self.layout.computed.name
        if self.layout.problem.residual:
            name = f"finish_row_{function}" if function else "finish_row"
            self.called["finish_row"] = self(name, finish_row(function), dtype=computed)
        elif function:
            self.called["activate"] = self(
                f"activate_{function}", activate(function), dtype=computed
            )

    def _number_cell_kernels(self) -> None:
        """Number the kernels of the algorithms whose lanes are cells."""
        layout, computed = self.layout, self.layout.computed.name
        moved = "int16" if layout.dtype != layout.computed else layout.dtype.name
        heights = layout.heights
        micros = self.arrays["micros"] = np.zeros((2 * max(heights) + 2, 1), np.int64)
        for rows in heights:
            for n, vectors in enumerate(layout.widths):
                if vectors:
                    shape = (rows, vectors, layout.unroll, layout.reads_ahead(rows))
                    name = "micro_" + "_".join(str(int(each)) for each in shape)
                    micros[2 * rows + n] = self(name, micro_kernel(*shape), dtype=computed)
        step, stride = (
            min(layout.fields[name], MOST_INTERLEAVED + 1) for name in ("step_x", "stride_x")
        )
        is_im2col = layout.is_im2col
        self.called = {
            "pack_rows": self(f"pack_rows_{step}", pack_rows(step)) if not is_im2col else 0,
            "find_runs": self("find_runs", find_runs) if is_im2col else 0,
            "gather": self("gather", gather) if is_im2col else 0,
            "add_rows": self("add_rows", add_rows, dtype=computed) if layout.is_col2im else 0,
            "stream": self("stream", stream, dtype=moved) if layout.streams else 0,
            "fill_row": self("fill_row", fill_row) if layout.untapped_rows.any() else 0,
            "interleave_row": self(f"interleave_row_{stride}", interleave_row(stride)),
        }
        if isinstance(layout, WinogradLayout):
            more, of_winograd = layout.kernels(self, transform_output, transform_input, flag_large)
            self.called |= more
            self.arrays |= of_winograd


_FINISH_THEMSELVES = (DepthwiseLayout, RowGemmLayout)  # in their micro-kernels
_DRIVERS = {
    "direct": run,
    "im2col": run,
    "col2im": run_col2im,
    "winograd": run_winograd,
    "channel_lanes": run_channel_lanes,
    "depthwise": run_depthwise,
    "row_gemm": run_row_gemm,
}


def _drivers(layout: Layout) -> tuple[Any, Any]:
    """The drivers that compute and that pack weights."""
    pack = run_packing if layout.weight_matrix is None else run_transformed_packing
    return _DRIVERS[layout.plan.algorithm], pack
