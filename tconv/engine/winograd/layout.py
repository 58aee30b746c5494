"""HOW A TILED PLAN LIES IN MEMORY: its sums of cells, its products, and the weights for them."""

from hashlib import sha256
from itertools import product
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.engine.codegen.abi import RESTORED
from tconv.engine.direct.layout import LINE_BYTES, NO_TABLE, Layout
from tconv.engine.winograd.transform import Matrix, Tiling
from tconv.system.fork_lock import cached_property

__all__ = ["TiledLayout"]


class TiledLayout(Layout):
    """What `Layout` says, of a plan whose outputs share products.

    Rows are channels of y and within them the phases of a kind. Packed weights are those of a
    kernel with a tap for every number of `Tiling.weights`.
    """

    @cached_property
    def tiling(self) -> Tiling:
        """Which products are made."""
        untiled = self.problem.phases(self.plan.is_uncropped, is_spaced=True)
        found = Tiling.of(untiled, self.plan.outputs)
        assert found is not None, "such a plan is not considered"
        return found

    def _kinds(self) -> tuple[tuple[int, int], ...]:
        return self.tiling.rows_and_terms

    @property
    def gathered_lanes(self) -> int:
        """Lanes that lie together for every shift: all, of the one channel that is gathered."""
        return self.lanes_in_all

    @property
    def panel_tile(self) -> int:
        """Numbers of sums from one call of a micro-kernel to the next."""
        return self.tiling.sums * self.sum_pitch

    @cached_property
    def weight_matrix(self) -> NDArray[Any]:
        """The numbers that products are made with, of taps: (taps, `Tiling.weight_taps`)."""
        return np.ascontiguousarray(self.tiling.weights.T, self.dtype)

    def _set_sizes(self) -> None:
        super()._set_sizes()
        lattices = 1 if self.plan.is_gathered else self.phases.lattices
        room = self.lanes + max(self.phases.axes[2].high, 0)
        lanes = self.lanes_in_all
        # So that sums of a channel are not at the same place in the cache, whatever the channels.
        self.sum_pitch = self.channels * self.tile_lanes + LINE_BYTES // self.computed.itemsize
        tiles = ceil(self.vectors / self.plan.vectors)
        self.sums_size = tiles * self.tiling.sums * self.sum_pitch
        self.panel_size = self.sums_size + self._rounded(lattices * self.cells + room)
        self.panel_size += self.runs_size
        self.product_size = self.tiling.products * self.plan.block * lanes

    def _set_fields(self) -> None:
        super()._set_fields()
        z, y, x = (
            axis.stride // n for axis, n in zip(self.phases.axes, self.plan.outputs, strict=True)
        )
        _, all_y, all_x = (axis.stride for axis in self.phases.axes)
        self.fields |= {
            "bias_block": self.plan.block,
            "sums_size": self.sums_size,
            "sum_pitch": self.sum_pitch,
            "restored_count": z * y * x,
            "restored_z": z * all_y * all_x * self.line_pitch,
            "restored_y": y * all_x * self.line_pitch,
            "restored_x": x * self.line_pitch,
        }

    def fixed(self) -> dict[str, NDArray[Any]]:
        """What the driver reads that sizes have no part in, the places of sums included."""
        return {**super().fixed(), "offsets": self.offsets()}

    def sized(self) -> dict[str, NDArray[Any]]:
        """What the driver reads that follows from sizes."""
        return {
            "places": self.places(),
            "table": self.table() if self.plan.is_gathered else NO_TABLE,
            "lattices_of_x": self.lattices(),
        }

    def offsets(self) -> NDArray[np.int32]:
        """Where each term reads among the sums, kind after kind."""
        channels = np.arange(self.channels)[:, np.newaxis] * self.tile_lanes
        found = [channels + self.tiling.reads(kind) * self.sum_pitch for kind in self.tiling.kinds]
        return np.concatenate([each.ravel() for each in found]).astype(np.int32)

    def places(self) -> NDArray[np.int32]:
        """Where each cell that sums are made of is, for the first lane."""
        shifts = [[-place for place in axis.places] for axis in self.tiling.axes]
        return self.cells_at(shifts, channels=1).astype(np.int32)

    def lines(self) -> NDArray[np.int64]:
        """For whole blocks and for the last one: of every phase the first line, and the step."""
        count = self.phases.count
        found = np.stack([np.arange(count), np.full(count, count)], axis=-1)
        return np.concatenate([found, found]).ravel()

    def restored(self, kernels: dict[tuple[Matrix, Matrix, Matrix], int]) -> NDArray[np.int64]:
        """The driver's list of phases to restore; `kernels` has numbers by the matrices."""
        _, all_y, all_x = (axis.stride for axis in self.phases.axes)
        entries, before = [], 0
        for groups in self.tiling.groups:
            phases = list(product(*(group.phases for group in groups)))
            z, y, x = (group.inverse for group in groups)
            for place, (of_z, of_y, of_x) in enumerate(phases):
                entry = {
                    "kernel": kernels[z, y, x],
                    "before": before,
                    "phases": len(phases),
                    "place": place,
                    "line": (of_z * all_y + of_y) * all_x + of_x,
                }
                entries.append(RESTORED.row(entry))
            points = (group.points for group in groups)
            before += len(phases) * int(np.prod(list(points)))
        return np.array(entries, np.int64)

    def taps(self) -> list[NDArray[np.int64]]:
        """For every kind of rows where its weights are in `Tiling.weights`: (terms, phases)."""
        found, start = [], 0
        for kind in self.tiling.kinds:
            count = kind.terms * kind.rows
            found.append(np.arange(start, start + count).reshape(kind.terms, kind.rows))
            start += count
        return found

    def _biased(self) -> list[int]:
        return [1]  # channels have one each

    def kernels(
        self, kernel: Any, restore: Any, sum_cells: Any, screen: Any
    ) -> tuple[dict[str, int], dict[str, NDArray[Any]]]:
        """Numbers of what only tiled plans call, and what that reads; and what emits it."""
        of_z, of_y, of_x = (axis.sums for axis in self.tiling.axes)
        restoring = {}
        for groups in self.tiling.groups:
            z, y, x = (group.inverse for group in groups)
            name = f"restore_{_name_of((z, y, x))}"
            restoring[z, y, x] = kernel(name, restore((z, y, x)))
        sums = (of_z, of_y, of_x)
        number = kernel(f"sum_cells_{_name_of(sums)}", sum_cells(sums))
        screening = kernel("screen", screen, dtype=self.computed.name)
        called = {"sum_cells": number, "screen": screening}
        return called, {"restored": self.restored(restoring)}


def _name_of(matrices: tuple[Matrix, ...]) -> str:
    return sha256(repr(matrices).encode()).hexdigest()[:12]
