"""Memory layout of a Winograd plan: transformed x, products and transformed weights."""

from hashlib import sha256
from itertools import product
from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.engine.codegen.abi import OUTPUT_TRANSFORM
from tconv.engine.direct.layout import NO_TABLE, Layout
from tconv.engine.winograd.transform import Matrix, WinogradTransform
from tconv.system.fork_lock import cached_property
from tconv.system.topology import CACHE_LINE_BYTES

__all__ = ["WinogradLayout"]


class WinogradLayout(Layout):
    """The `Layout` of a Winograd plan.

    Rows of a GEMM are channels of y and, within each, the phases of its phase group. Packed weights
    are those of a kernel with a tap for each row of `WinogradTransform.filter_matrix`.
    """

    @cached_property
    def transform(self) -> WinogradTransform:
        """The transforms of the plan."""
        phases = self.problem.phases(self.plan.is_uncropped, is_spaced=True)
        found = WinogradTransform.of(phases, self.plan.outputs)
        assert found is not None, "no candidate is such a plan"
        return found

    def _kinds(self) -> tuple[tuple[int, int], ...]:
        return self.transform.gemm_shapes

    @property
    def im2col_lanes(self) -> int:
        """Lanes that are contiguous for each shift: all, as one channel is gathered at a time."""
        return self.lanes_in_all

    @property
    def panel_tile(self) -> int:
        """Elements of transformed x from one call of a micro-kernel to the next."""
        return self.transform.input_points * self.transformed_pitch

    @cached_property
    def weight_matrix(self) -> NDArray[Any]:
        """The filter transform: (taps, `WinogradTransform.transformed_weights`)."""
        return np.ascontiguousarray(self.transform.filter_matrix.T, self.dtype)

    def _set_sizes(self) -> None:
        super()._set_sizes()
        residue_classes = 1 if self.is_im2col else self.phases.residue_classes
        room = self.lanes + max(self.phases.axes[2].high, 0)
        lanes = self.lanes_in_all
        # One line more, so that the points of a channel never map to one set of the cache.
        self.transformed_pitch = (
            self.channels * self.tile_lanes + CACHE_LINE_BYTES // self.computed.itemsize
        )
        tiles = ceil(self.vectors / self.plan.vectors)
        self.transformed_size = tiles * self.transform.input_points * self.transformed_pitch
        self.panel_size = self.transformed_size + self._rounded(residue_classes * self.cells + room)
        self.panel_size += self.runs_size
        self.product_size = self.transform.products * self.plan.block * lanes

    def _set_fields(self) -> None:
        super()._set_fields()
        z, y, x = (
            axis.stride // n for axis, n in zip(self.phases.axes, self.plan.outputs, strict=True)
        )
        _, all_y, all_x = (axis.stride for axis in self.phases.axes)
        self.fields |= {
            "bias_block": self.plan.block,
            "transformed_size": self.transformed_size,
            "transformed_pitch": self.transformed_pitch,
            "output_transform_count": z * y * x,
            "output_step_z": z * all_y * all_x * self.acc_pitch,
            "output_step_y": y * all_x * self.acc_pitch,
            "output_step_x": x * self.acc_pitch,
        }

    def fixed(self) -> dict[str, NDArray[Any]]:
        """Arrays for the driver that do not depend on sizes, offsets of terms included."""
        return {**super().fixed(), "offsets": self.offsets()}

    def sized(self) -> dict[str, NDArray[Any]]:
        """Arrays for the driver that depend on sizes."""
        return {
            "places": self.places(),
            "table": self.table() if self.is_im2col else NO_TABLE,
            "residue_classes_of_x": self.residue_classes(),
        }

    def offsets(self) -> NDArray[np.int32]:
        """Offsets of each term in transformed x, GEMM after GEMM."""
        channels = np.arange(self.channels)[:, np.newaxis] * self.tile_lanes
        found = [
            channels + self.transform.reads(gemm) * self.transformed_pitch
            for gemm in self.transform.gemms
        ]
        return np.concatenate([each.ravel() for each in found]).astype(np.int32)

    def places(self) -> NDArray[np.int32]:
        """Offsets of the cells that the input transform reads, for the first lane."""
        shifts = [[-place for place in axis.places] for axis in self.transform.axes]
        return self.cells_at(shifts, channels=1).astype(np.int32)

    def acc_starts(self) -> NDArray[np.int64]:
        """First accumulator row of every phase, and the step; for whole blocks and the last one."""
        count = self.phases.count
        found = np.stack([np.arange(count), np.full(count, count)], axis=-1)
        return np.concatenate([found, found]).ravel()

    def output_transforms(
        self, kernels: dict[tuple[Matrix, Matrix, Matrix], int]
    ) -> NDArray[np.int64]:
        """Records of the output transforms; `kernels` has numbers of kernels by their matrices."""
        _, all_y, all_x = (axis.stride for axis in self.phases.axes)
        entries, before = [], 0
        for groups in self.transform.groups:
            phases = list(product(*(group.phases for group in groups)))
            z, y, x = (group.output_matrix for group in groups)
            for place, (of_z, of_y, of_x) in enumerate(phases):
                entry = {
                    "kernel": kernels[z, y, x],
                    "before": before,
                    "phases": len(phases),
                    "place": place,
                    "acc": (of_z * all_y + of_y) * all_x + of_x,
                }
                entries.append(OUTPUT_TRANSFORM.row(entry))
            points = (group.points for group in groups)
            before += len(phases) * int(np.prod(list(points)))
        return np.array(entries, np.int64)

    def taps(self) -> list[NDArray[np.int64]]:
        """For every GEMM the rows of the filter transform: (terms, phases)."""
        found, start = [], 0
        for gemm in self.transform.gemms:
            count = gemm.terms * gemm.rows
            found.append(np.arange(start, start + count).reshape(gemm.terms, gemm.rows))
            start += count
        return found

    def _biased(self) -> list[int]:
        return [1]  # one per channel

    def kernels(
        self, kernel: Any, transform_output: Any, transform_input: Any, flag_large: Any
    ) -> tuple[dict[str, int], dict[str, NDArray[Any]]]:
        """Number the kernels that only Winograd plans call; return the numbers and their tables."""
        of_z, of_y, of_x = (axis.input_matrix for axis in self.transform.axes)
        of_outputs = {}
        for groups in self.transform.groups:
            z, y, x = (group.output_matrix for group in groups)
            name = f"transform_output_{_name_of((z, y, x))}"
            of_outputs[z, y, x] = kernel(name, transform_output((z, y, x)))
        matrices = (of_z, of_y, of_x)
        number = kernel(f"transform_input_{_name_of(matrices)}", transform_input(matrices))
        flagging = kernel("flag_large", flag_large, dtype=self.computed.name)
        called = {"transform_input": number, "flag_large": flagging}
        return called, {"output_transforms": self.output_transforms(of_outputs)}


def _name_of(matrices: tuple[Matrix, ...]) -> str:
    return sha256(repr(matrices).encode()).hexdigest()[:12]
