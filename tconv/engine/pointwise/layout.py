"""Memory layout of a pointwise plan: tiles of a block, and offsets of channels."""

from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.engine.codegen.abi import TILE
from tconv.engine.direct.layout import Layout
from tconv.engine.direct.offsets import strides
from tconv.engine.plan.plan import Tile
from tconv.system.topology import CACHE_LINE_BYTES

__all__ = ["PointwiseLayout"]


class PointwiseLayout(Layout):
    """The `Layout` of a pointwise plan.

    Packed weights are (groups, blocks, tiles, channels of x, rows of the tile).
    """

    def _kinds(self) -> tuple[tuple[int, int], ...]:
        return ((1, 1),)

    def taps(self) -> list[NDArray[np.int64]]:
        """The one tap there is, (1, 1)."""
        return [np.zeros((1, 1), np.int64)]

    def _runs(self, tiles: tuple[Tile, ...]) -> list[tuple[Tile, int]]:
        return [(tile, 1) for tile in tiles]

    def _set_sizes(self) -> None:
        self.cells = prod(self.problem.written_size)
        self.tile_lanes = self.plan.vectors * self.lanes
        rest = ceil(self.cells % self.tile_lanes / self.lanes)
        self.widths = (self.plan.vectors if self.cells >= self.tile_lanes else 0, rest)
        self.rest_lanes = rest * self.lanes
        self.panel_size = self.plan.k_block.channels * self.tile_lanes

    @property
    def scratch_size(self) -> int:
        """Elements of a thread's buffers: the panel, and sums of the last lanes."""
        size = self.panel_size + self.plan.block * self.rest_lanes
        align = CACHE_LINE_BYTES // self.computed.itemsize
        return ceil(size / align) * align

    def _set_fields(self) -> None:
        geometry, plan, problem = self.problem.geometry, self.plan, self.problem
        column_blocks = ceil(self.cells / plan.columns)
        self.fields = {
            "tasks": geometry.batch * geometry.groups * column_blocks * self.blocks,
            "column_blocks": column_blocks,
            "groups": geometry.groups,
            "batch": geometry.batch,
            "scratch_size": self.scratch_size,
            "panel_size": self.panel_size,
            "channels": self.channels,
            "k_block": plan.k_block.channels,
            "columns": plan.columns,
            "all_columns": self.cells,
            "wide_lanes": self.tile_lanes,
            "rest_lanes": self.rest_lanes,
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
        return (*made_for, "pointwise", plan.tile, plan.block, plan.threads, self.widths)

    def fixed(self) -> dict[str, NDArray[Any]]:
        """Arrays for the driver that do not depend on sizes: lists of tiles."""
        activation = self.problem.activation
        return {
            "slope": np.array([activation.slope if activation else 0], self.computed),
            "tiles": self.tiles(self.block_tiles),
            "last_tiles": self.tiles(self.last_tiles),
        }

    def sized(self) -> dict[str, NDArray[Any]]:
        """Arrays for the driver that depend on sizes: offsets of channels, in x and in panels."""
        channels = np.arange(self.plan.k_block.channels)
        steps = (self.fields["x_channel"], self.tile_lanes, self.rest_lanes)
        return {"offsets": np.concatenate([channels * step for step in steps]).astype(np.int32)}

    def tiles(self, tiles: tuple[Tile, ...]) -> NDArray[np.int64]:
        """The driver's list of tiles."""
        unused = dict.fromkeys(("offsets", "taps", "count"), 1)
        rows = [
            TILE.row(
                unused,
                rows=tile.rows,
                weight=tile.weight,
                acc=tile.acc,
                micro=2 * tile.rows,
            )
            for tile in tiles
        ]
        return np.array(rows, np.int64)

    def _biased(self) -> list[int]:
        return [1]  # one per channel

    def kernels(self, kernel: Any, micro_kernel: Any) -> dict[str, NDArray[np.int64]]:
        """Number the kernels of such plans; return the tables of micro-kernels."""
        tables = [np.zeros((2 * max(self.heights) + 2, 1), np.int64) for _ in range(2)]
        micros, copying = tables
        wide, _ = self.widths
        for rows in self.heights:
            for n, vectors in enumerate(self.widths):
                if vectors:
                    name = f"micro_{rows}_{vectors}_{self.unroll}_0"
                    micros[2 * rows + n] = kernel(name, micro_kernel(rows, vectors, self.unroll))
        for rows in {self.block_tiles[0].rows, self.last_tiles[0].rows}:
            if wide:
                shape = (rows, wide, self.unroll, 1, True)
                name = "micro_" + "_".join(str(int(each)) for each in shape)
                copying[2 * rows] = kernel(name, micro_kernel(*shape))
        return {"micros": micros, "copying_micros": copying}
