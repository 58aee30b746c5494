"""Memory layout of a depthwise plan: tasks, and weights as they are."""

from math import ceil
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.engine.depthwise.kernel import Window
from tconv.engine.direct.layout import Layout
from tconv.engine.direct.offsets import strides
from tconv.engine.plan.plan import Tile
from tconv.system.topology import CACHE_LINE_BYTES

__all__ = ["DepthwiseLayout"]


class DepthwiseLayout(Layout):
    """The `Layout` of a depthwise plan.

    Packed weights are (groups, channels of y, channels of x, taps); a block is one channel of y.
    """

    def _kinds(self) -> tuple[tuple[int, int], ...]:
        return ((self.problem.taps, 1),)

    def _tiles(self, block: int) -> tuple[Tile, ...]:
        return (Tile(0, 0, self.problem.taps, 0, 0),)

    def taps(self) -> list[NDArray[np.int64]]:
        """The flat indices of all taps, (1, taps)."""
        return [np.arange(self.problem.taps)[np.newaxis]]

    @property
    def window(self) -> Window:
        """What is compiled into the micro-kernel."""
        return Window.of(self.problem, self.plan.tile, self.plan.vectors)

    def _set_sizes(self) -> None:
        geometry = self.problem.geometry
        self.all_planes = geometry.batch * geometry.groups * self.outputs

    @property
    def scratch_size(self) -> int:
        """Elements of a thread's buffer: none are used, but there must be one."""
        return CACHE_LINE_BYTES // self.computed.itemsize

    def _set_fields(self) -> None:
        geometry, plan, problem = self.problem.geometry, self.plan, self.problem
        _, y, x = self.phases.axes
        row_blocks = ceil(y.count / plan.rows)
        self.fields = {
            "tasks": ceil(self.all_planes / plan.planes) * row_blocks,
            "row_blocks": row_blocks,
            "groups": geometry.groups,
            "blocks": self.outputs,
            "block": 1,
            "last_block": 1,
            "batch": geometry.batch,
            "scratch_size": self.scratch_size,
            "channels": self.channels,
            "planes": plan.planes,
            "rows": plan.rows,
            "all_planes": self.all_planes,
            "all_rows": y.count,
            "all_columns": x.count,
            "input_height": y.input,
            "input_width": x.input,
            "output_height": problem.written_size[1],
            "output_width": problem.written_size[2],
            **strides("x", self.channels, geometry.groups, problem.read_size),
            **strides("y", self.outputs, geometry.groups, problem.written_size),
            "weight_block": self.weight_block,
            "bias_block": 1,
            "streams": 0,
        }

    @property
    def family(self) -> tuple[Any, ...]:
        """The key of `fixed` and of all kernels."""
        made_for = self.unsized, self.dtype.name, self.target
        return (*made_for, "depthwise", self.plan.threads, self.window)

    def fixed(self) -> dict[str, NDArray[Any]]:
        """Arrays for the driver that do not depend on sizes: a row of zeros."""
        loads = self.window.cells.loads(self.lanes)
        return {
            "parameters": self.parameters,
            "zeros": np.zeros(loads[-1] - loads[0] + self.lanes, self.computed),
        }

    def sized(self) -> dict[str, NDArray[Any]]:
        """Arrays for the driver that depend on sizes: none."""
        return {}

    def _biased(self) -> list[int]:
        return [1]  # one per channel

    def kernels(self, kernel: Any, slide: Any) -> dict[str, int]:
        """Number the kernel of such plans."""
        window = self.window
        return {"slide": kernel(window.name, slide(window))}
