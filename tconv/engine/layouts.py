"""Memory layout of a plan, by its algorithm."""

from functools import cache
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
    if plan.algorithm == "channel_lanes":
        return _channel_lanes()(problem, plan, dtype, target)
    kind = WinogradLayout if plan.algorithm == "winograd" else Layout
    return kind(problem, plan, dtype, target)


@cache
def _channel_lanes() -> type[Layout]:
    """Import the layout that few plans need."""
    with importing:
        from tconv.engine.channel_lanes.layout import ChannelLanesLayout

    return ChannelLanesLayout
