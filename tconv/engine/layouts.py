"""Memory layout of a plan, by its algorithm."""

from functools import cache
from importlib import import_module
from typing import Any

import numpy as np

from tconv.engine.direct.layout import Layout
from tconv.engine.plan.plan import Plan
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import Target
from tconv.engine.winograd.layout import WinogradLayout
from tconv.system.fork_lock import importing

__all__ = ["layout_of"]


def layout_of(problem: Problem, plan: Plan, dtype: np.dtype[Any], target: Target) -> Layout:
    """Return the layout of a plan."""
    if plan.algorithm in _LATE:
        return _late(*_LATE[plan.algorithm])(problem, plan, dtype, target)
    kind = WinogradLayout if plan.algorithm == "winograd" else Layout
    return kind(problem, plan, dtype, target)


_LATE = {
    "channel_lanes": ("channel_lanes", "ChannelLanesLayout"),
    "row_gemm": ("row_gemm", "RowGemmLayout"),
    "depthwise": ("depthwise", "DepthwiseLayout"),
}


@cache
def _late(room: str, name: str) -> type[Layout]:
    """Import a layout that few plans need."""
    with importing:
        kind: type[Layout] = getattr(import_module(f"tconv.engine.{room}.layout"), name)
    return kind
