"""Memory layout of a row GEMM: tasks, tiles of a block, and the panel."""

from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.engine.codegen.abi import TILE
from tconv.engine.direct.layout import Layout
from tconv.engine.direct.offsets import strides
from tconv.engine.plan.plan import Tile
from tconv.engine.row_gemm.kernel import RowKernel
from tconv.engine.row_gemm.panel import RowPanel
from tconv.system.topology import CACHE_LINE_BYTES

__all__ = ["RowGemmLayout"]


class RowGemmLayout(Layout):
    """The `Layout` of a row GEMM.

    Packed weights are those of direct plans: (groups, blocks, tiles, terms, rows of the tile).
    """

    @property
    def copies(self) -> bool:
        """Whether x is read in place: an image is one row, of which each cell reads its own."""
        return self.plan.panel == "none"

    def _set_sizes(self) -> None:
        plan, (z, y, x) = self.plan, self.phases.axes
        self.rows, self.columns = z.count * y.count, x.count
        if self.copies:
            self.rows, self.columns = 1, prod(self.problem.written_size)
        self.tile_lanes = plan.vectors * self.lanes
        rest = ceil(self.columns % self.tile_lanes / self.lanes)
        self.widths = (plan.vectors if self.columns >= self.tile_lanes else 0, rest)
        self.rest_lanes = rest * self.lanes

    @property
    def scratch_size(self) -> int:
        """Elements of a thread's buffer: the panel."""
        terms = self.plan.k_block.channels * self.problem.taps
        align = CACHE_LINE_BYTES // self.computed.itemsize
        return ceil(terms * self.tile_lanes / align) * align

    def _set_fields(self) -> None:
        geometry, plan, problem = self.problem.geometry, self.plan, self.problem
        column_blocks = ceil(self.columns / plan.columns)
        row_blocks = ceil(self.rows / plan.rows)
        depth, height, width = problem.read_size
        images = geometry.batch * geometry.groups
        self.fields = {
            "tasks": images * row_blocks * column_blocks * self.blocks,
            "row_blocks": row_blocks,
            "column_blocks": column_blocks,
            "groups": geometry.groups,
            "batch": geometry.batch,
            "scratch_size": self.scratch_size,
            "channels": self.channels,
            "k_block": plan.k_block.channels,
            "taps": problem.taps,
            "rows": plan.rows,
            "columns": plan.columns,
            "all_rows": self.rows,
            "all_columns": self.columns,
            "height_rows": self.phases.axes[1].count,
            "wide_lanes": self.tile_lanes,
            "rest_lanes": self.rest_lanes,
            "copies": int(self.copies),
            "input_depth": depth,
            "input_height": height,
            "input_width": width,
            **strides("x", self.channels, geometry.groups, problem.read_size),
            **strides("y", self.outputs, geometry.groups, problem.written_size),
            "blocks": self.blocks,
            "block": plan.block,
            "last_block": self.last_block,
            "tile_count": len(self.block_tiles),
            "last_tile_count": len(self.last_tiles),
            "weight_block": self.weight_block,
            "bias_block": plan.block,
            "streams": 0,
        }

    @property
    def family(self) -> tuple[Any, ...]:
        """The key of `fixed` and of all kernels."""
        plan, made_for = self.plan, (self.unsized, self.dtype.name, self.target)
        kinds = (plan.tile, plan.vectors, plan.block, plan.k_block, plan.threads, self.widths)
        return (*made_for, "row_gemm", plan.panel, *kinds)

    def fixed(self) -> dict[str, NDArray[Any]]:
        """Arrays for the driver that do not depend on sizes: lists of tiles, a row of zeros."""
        found = {
            "parameters": self.parameters,
            "tiles": self.tiles(self.block_tiles),
            "last_tiles": self.tiles(self.last_tiles),
        }
        if not self.copies:
            loads = self._panel(max(self.widths)).cells.loads(self.lanes)
            found["zeros"] = np.zeros(loads[-1] - loads[0] + self.lanes, self.computed)
        return found

    def sized(self) -> dict[str, NDArray[Any]]:
        """Arrays for the driver that depend on sizes: none."""
        return {}

    def _biased(self) -> list[int]:
        return [1]  # one per channel

    def _panel(self, vectors: int) -> RowPanel:
        found = RowPanel.of(self.phases, vectors)
        assert found is not None, "no candidate is such a plan"
        return found

    def tiles(self, tiles: tuple[Tile, ...]) -> NDArray[np.int64]:
        """The driver's list of tiles."""
        unused = dict.fromkeys(("offsets", "taps", "count"), 1)
        sizes = [
            {"rows": tile.rows, "weight": tile.weight, "acc": tile.acc, "micro": 2 * tile.rows}
            for tile in tiles
        ]
        return np.array([TILE.row(unused | each) for each in sizes], np.int64)

    def kernels(
        self, kernel: Any, row_kernel: Any, fill_row_panel: Any
    ) -> tuple[dict[str, int], dict[str, NDArray[np.int64]]]:
        """Number the kernels of such plans; return the numbers, and tables of micro-kernels."""
        activation = self.problem.activation
        is_whole = self.plan.k_block.channels >= self.channels
        name = activation.name if activation else ""
        micros, copying = (np.zeros((2 * max(self.heights) + 2, 1), np.int64) for _ in range(2))
        firsts = {self.block_tiles[0].rows, self.last_tiles[0].rows} if self.copies else ()
        for n, vectors in enumerate(self.widths):
            for table, copies, heights in (
                (micros, False, self.heights),
                (copying, True, firsts),
            ):
                for rows in heights if vectors else ():
                    shape = (rows, vectors, self.unroll, copies, n == 1, is_whole)
                    made = RowKernel(*shape, name, self.problem.residual)
                    table[2 * rows + n] = kernel(made.name, row_kernel(made))
        called = dict[str, int]()
        for name, vectors in zip(("fill", "fill_rest"), self.widths, strict=True):
            if vectors and not self.copies:
                panel = self._panel(vectors)
                called[name] = kernel(panel.name, fill_row_panel(panel))
        return called, {"micros": micros, "copying_micros": copying}
