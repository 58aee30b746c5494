"""Weight-gradient primitive: a plan with its tables and kernels, and its call on threads."""

from functools import lru_cache
from itertools import product
from math import ceil, prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.engine.kernels.limits import MOST_INTERLEAVED
from tconv.engine.kernels.pack_input import pack_rows
from tconv.engine.kernels.transpose import transpose_out
from tconv.engine.plan.plan import CYCLES_PER_US, tile_rows
from tconv.engine.plan.problem import Problem
from tconv.engine.runtime.job import Job
from tconv.engine.runtime.reorder import Reorders
from tconv.engine.target.target import Target
from tconv.engine.weight_gradient.driver import GRADIENT_ARGUMENTS, run_dot, run_rank1
from tconv.engine.weight_gradient.kernels import dot_kernel, rank1_kernel, transpose_in
from tconv.engine.weight_gradient.panel import Panel
from tconv.engine.weight_gradient.plan import (
    Scratch,
    WeightGradientPlan,
    choose_gradient_plan,
    x_tiles,
)
from tconv.system.allocator import empty
from tconv.system.fork_lock import cached_property

__all__ = ["WeightGradientPrimitive", "create_weight_gradient"]


class WeightGradientPrimitive(Reorders):
    """A plan for w with everything prepared that does not depend on the values of x and y.

    ``primitive(x, y, dw)`` computes. `problem` is the one whose unknown is x: it reads y as this
    plan does.
    """

    _turns_back = False

    def __init__(
        self, problem: Problem, dtype: str, target: Target, plan: WeightGradientPlan, threads: int
    ) -> None:
        super().__init__(problem, dtype, target, threads)
        self.plan = plan
        self.lanes = target.vector_bits // 8 // self.dtype.itemsize
        self.panel = Panel.of(problem.geometry.axes, plan.k_block, self.lanes, plan.is_dot)
        self.channels, self.outputs = problem.outputs, problem.channels  # of a group
        fields = self._fields()
        self.tasks, self.scratch_size = fields["tasks"], fields["scratch_size"]
        self._kept = self._tables(fields)
        step = min(fields["step_x"], MOST_INTERLEAVED + 1)
        kernel = self._kernel
        addresses = {name: array.ctypes.data for name, array in self._kept.items()} | {
            "pack_rows": kernel(f"pack_rows_{step}", pack_rows(step)),
            "copy_rows": kernel("pack_rows_1", pack_rows(1)),
            "transpose_in": kernel("transpose_in", transpose_in),
            "transpose_out": kernel("transpose_out", transpose_out),
        }
        arguments = GRADIENT_ARGUMENTS.pack(GRADIENT_ARGUMENTS.addresses() | addresses | fields)
        name, emit = ("run_dot", run_dot) if plan.is_dot else ("run_rank1", run_rank1)
        self._job = Job(kernel(name, emit), arguments, self._load, plan.cycles)

    def _fields(self) -> dict[str, int]:
        """Return the driver's sizes, but for the lengths of lists."""
        problem, plan, panel = self.problem, self.plan, self.panel
        geometry, reaches, taps = problem.geometry, panel.reaches, problem.taps
        counts = (geometry.batch, *(reach.count for reach in reaches))
        k_blocks = [ceil(count / size) for count, size in zip(counts, plan.k_block, strict=True)]
        x_blocks, y_blocks = ceil(self.channels / plan.channels), ceil(self.outputs / plan.outputs)
        scratch = Scratch.of(plan, panel, taps)
        _, depth, height, pitch = panel.size
        fields = {
            "tasks": geometry.groups * x_blocks * y_blocks * plan.k_splits,
            "x_blocks": x_blocks,
            "y_blocks": y_blocks,
            "groups": geometry.groups,
            "k_splits": plan.k_splits,
            "k_blocks": prod(k_blocks),
            "channels": self.channels,
            "x_block": plan.channels,
            "outputs": self.outputs,
            "y_block": plan.outputs,
            "taps": taps,
            "residue_classes": panel.residue_classes,
            "panel_depth": depth,
            "panel_height": height,
            "pitch": pitch,
            "residue_class_cells": panel.residue_class_cells,
            "y_pitch": panel.cells,
            "room": panel.room,
            "x_pitch": scratch.x_pitch,
            "tile_size": scratch.tile_size,
            "most_width": plan.tile + 1 if plan.is_dot else plan.width + 1,
            "ldc": scratch.ldc,
            "scratch_size": scratch.size,
            "y_size": scratch.y_size,
            "x_size": scratch.x_size,
            "to_k_split": geometry.groups * self.channels * self.outputs * taps,
        }
        for name, count_of, size, count in zip(
            ("image", "plane", "row", "column"),
            k_blocks,
            plan.k_block,
            counts,
            strict=True,
        ):
            fields |= {f"{name}_blocks": count_of, f"{name}s": size, f"all_{name}s": count}
        for name, reach in zip("zyx", reaches, strict=True):
            fields |= {f"step_{name}": reach.step, f"spacing_{name}": reach.spacing}
            fields[f"low_{name}"] = reach.low
        fields |= _steps("x", problem.written_size, geometry.in_channels)
        return fields | _steps("y", problem.read_size, geometry.out_channels)

    def _tables(self, fields: dict[str, int]) -> dict[str, NDArray[Any]]:
        """Return the driver's tables; the lengths of lists become fields."""
        plan, panel = self.plan, self.panel
        tap_height = plan.width if plan.is_dot else plan.tile
        lists = {}
        for name, x_block, y_block in (
            ("", plan.channels, plan.outputs),
            ("last_", _last(self.channels, plan.channels), _last(self.outputs, plan.outputs)),
        ):
            sizes = tile_rows(y_block * fields["taps"], tap_height)
            lists[f"{name}x_tiles"] = x_tiles(plan, x_block, self.lanes)
            lists[f"{name}tap_tiles"] = sizes
        kernels = np.zeros((tap_height + 1) * fields["most_width"], np.int64)
        for prefix, last in product(("", "last_"), repeat=2):
            pairs = product({*lists[f"{prefix}tap_tiles"]}, {*lists[f"{last}x_tiles"]})
            for taps, width in pairs:
                place = taps * fields["most_width"] + width
                if plan.is_dot:
                    kernels[place] = self._kernel(f"dot_{width}_{taps}", dot_kernel(width, taps))
                else:
                    kernels[place] = self._kernel(
                        f"rank1_{taps}_{width}", rank1_kernel(taps, width)
                    )
        fields |= {f"{name[:-1]}_count": len(sizes) for name, sizes in lists.items()}
        outputs = np.arange(plan.outputs)[:, np.newaxis] * panel.cells
        return {name: _listed(sizes) for name, sizes in lists.items()} | {
            "kernels": kernels,
            "offsets": (outputs + panel.taps()).astype(np.int32),
            "places": panel.places(),
            "residue_classes_of_y": panel.first_cells(),
        }

    @cached_property
    def _scratch_bytes(self) -> int:
        return self.scratch_size * self.threads * self.dtype.itemsize

    @cached_property
    def _partial_shape(self) -> tuple[int, ...]:
        geometry = self.problem.geometry
        return self.plan.k_splits, geometry.groups, self.channels, self.outputs, self.problem.taps

    @cached_property
    def workspace_bytes(self) -> int:
        """Bytes of scratch for all threads, and of the partial sums of dw with split-k."""
        partial = prod(self._partial_shape) if self.plan.k_splits > 1 else 0
        return self._scratch_bytes + partial * self.dtype.itemsize

    def describe(self) -> list[str]:
        """Describe the plan and its expected time."""
        plan = self.plan
        tile = (
            f"{plan.tile} channels of x x {plan.width} taps, lanes of cells"
            if plan.is_dot
            else f"{plan.tile} taps x {plan.width} vectors of channels of x"
        )
        return [
            f"direct, {self.threads} threads, {self.tasks:,} tasks, {plan.k_splits} split-k sums, "
            f"reduction blocks of {' x '.join(map(str, plan.k_block))} cells",
            f"tiles of {tile}, blocks of {plan.channels} channels of x and {plan.outputs} of y",
            f"{self.workspace_bytes:,} bytes of workspace",
            f"expected {plan.cycles / self.threads / CYCLES_PER_US:,.0f} us",
        ]

    def __call__(self, x: NDArray[Any], y: NDArray[Any], dw: NDArray[Any]) -> None:
        """Write dw (groups*C, M, *kernel); x and y are (N, groups*channels, *spatial).

        All are C-contiguous.
        """
        sums = dw if self.plan.k_splits == 1 else empty(self._partial_shape, self.dtype)
        self._job((x, y, sums), min(self.threads, self.tasks), self._scratch_bytes)
        if sums is not dw:
            np.add.reduce(sums, axis=0, out=dw.reshape(self._partial_shape[1:]))


def _steps(letter: str, sizes: tuple[int, ...], channels: int) -> dict[str, int]:
    """Return the steps between images, channels, planes and rows of an operand, in elements."""
    _, rows, columns = sizes
    steps = (channels * prod(sizes), prod(sizes), rows * columns, columns)
    names = ("batch", "channel", "plane", "row")
    return {f"{letter}_{name}": step for name, step in zip(names, steps, strict=True)}


def _last(count: int, block: int) -> int:
    """Return the size of the last block."""
    return count - (ceil(count / block) - 1) * block


def _listed(sizes: list[int]) -> NDArray[np.int64]:
    """Return tiles as the driver reads them: the first row, and the number of rows."""
    ends = np.cumsum(sizes)
    return np.stack([ends - sizes, sizes], axis=1).astype(np.int64)


@lru_cache(maxsize=256)
def create_weight_gradient(
    problem: Problem, dtype: str, target: Target, threads: int
) -> WeightGradientPrimitive:
    """Return the primitive of the cheapest plan."""
    plan = choose_gradient_plan(problem, dtype, target)
    assert plan is not None, "the engine does not serve this problem"
    return WeightGradientPrimitive(problem, dtype, target, plan, threads)
