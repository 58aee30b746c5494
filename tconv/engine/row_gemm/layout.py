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
from tconv.engine.row_gemm.tasks import RowTasks
from tconv.system.topology import CACHE_LINE_BYTES

__all__ = ["RowGemmLayout"]


class RowGemmLayout(Layout):
    """The `Layout` of a row GEMM.

    Packed weights are those of direct plans: (groups, blocks, tiles, terms, rows of the tile).
    """

    @property
    def copies(self) -> bool:
        """Whether micro-kernels read x in place, as one row an image, and copy it to the panel."""
        return self.plan.panel == "none"

    def _set_sizes(self) -> None:
        plan, (z, y, x) = self.plan, self.phases.axes
        self.planes, self.rows, self.columns = z.count, y.count, x.count
        if self.copies:
            self.planes, self.rows, self.columns = 1, 1, prod(self.problem.written_size)
        self.tile_lanes = plan.vectors * self.lanes
        self.of_task = task = RowTasks.of((plan.rows, plan.columns), (self.rows, self.columns))
        rests = [ceil(cells % self.tile_lanes / self.lanes) for cells in (task.cells, task.last)]
        self.widths = (plan.vectors if task.cells >= self.tile_lanes else 0, *rests)
        self.rest_lanes, self.last_rest_lanes = (rest * self.lanes for rest in rests)
        self.pitch = self.tile_lanes if self.copies else self._rounded(task.cells)

    @property
    def scratch_size(self) -> int:
        """Elements of a thread's buffer: the panel."""
        terms = self.plan.k_block.channels * self.problem.taps
        align = CACHE_LINE_BYTES // self.computed.itemsize
        return ceil(terms * self.pitch / align) * align

    def _set_fields(self) -> None:
        geometry, plan, problem = self.problem.geometry, self.plan, self.problem
        rows, columns = self.of_task.rows, self.of_task.columns
        column_blocks, row_blocks = ceil(self.columns / columns), ceil(self.rows / rows)
        depth, height, width = problem.read_size
        images = geometry.batch * geometry.groups
        self.fields = {
            "tasks": images * self.planes * row_blocks * column_blocks * self.blocks,
            "plane_blocks": self.planes,
            "row_blocks": row_blocks,
            "column_blocks": column_blocks,
            "groups": geometry.groups,
            "batch": geometry.batch,
            "scratch_size": self.scratch_size,
            "channels": self.channels,
            "k_block": plan.k_block.channels,
            "taps": problem.taps,
            "rows": rows,
            "columns": columns,
            "all_rows": self.rows,
            "all_columns": self.columns,
            "wide_lanes": self.tile_lanes,
            "rest_lanes": self.rest_lanes,
            "last_rest_lanes": self.last_rest_lanes,
            "pitch": self.pitch,
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
        panel = "" if self.copies else self._panel.name
        return (*made_for, "row_gemm", panel, *kinds)

    def fixed(self) -> dict[str, NDArray[Any]]:
        """Arrays for the driver that do not depend on sizes: lists of tiles, a row of zeros."""
        found = {
            "parameters": self.parameters,
            "tiles": self.tiles(self.block_tiles),
            "last_tiles": self.tiles(self.last_tiles),
        }
        if not self.copies:
            loads = self._panel.cells.loads(self.lanes)
            found["zeros"] = np.zeros(loads[-1] - loads[0] + self.lanes, self.computed)
        return found

    def sized(self) -> dict[str, NDArray[Any]]:
        """Arrays for the driver that depend on sizes: none."""
        return {}

    def _biased(self) -> list[int]:
        return [1]  # one per channel

    @property
    def _panel(self) -> RowPanel:
        found = RowPanel.of(self.phases, self.lanes)
        assert found is not None, "no candidate is such a plan"
        return found

    def tiles(self, tiles: tuple[Tile, ...]) -> NDArray[np.int64]:
        """The driver's list of tiles."""
        unused = dict.fromkeys(("offsets", "taps", "count"), 1)
        sizes = [
            {
                "rows": tile.rows,
                "weight": tile.weight,
                "acc": tile.acc,
                "micro": len(self.widths) * tile.rows,
            }
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
        widths = len(self.widths)
        size = widths * (max(self.heights) + 1)
        micros, copying = (np.zeros((size, 1), np.int64) for _ in range(2))
        firsts = {self.block_tiles[0].rows, self.last_tiles[0].rows} if self.copies else ()
        for n, vectors in enumerate(self.widths):
            for table, copies, heights in (
                (micros, False, self.heights),
                (copying, True, firsts),
            ):
                for rows in heights if vectors else ():
                    shape = (rows, vectors, self.unroll, copies, n > 0, is_whole)
                    made = RowKernel(*shape, name, self.problem.residual)
                    table[widths * rows + n] = kernel(made.name, row_kernel(made))
        called = dict[str, int]()
        if not self.copies:
            called["fill"] = kernel(self._panel.name, fill_row_panel(self._panel))
        return called, {"micros": micros, "copying_micros": copying}
