"""Cost model of programs: predicted microseconds of a run."""

from collections.abc import Iterable
from math import prod

from tconv.engine import CYCLES_PER_US
from tconv.graph.steps import LoopStep, ReductionStep
from tconv.graph.values import Value

__all__ = ["STAGE_US", "moving_us"]

STAGE_US, _STEP_US = 0.2, 0.1
"""Of a barrier between stages; and of a step."""

_ITEM_BYTES = 4
_BYTES_PER_CYCLE = 14.0  # read and written by a thread
_CYCLES = {  # of an instruction, for each element
    **dict.fromkeys(("tanh", "sigmoid", "silu", "gelu", "gelu_tanh", "exp", "erf", "elu"), 1.0),
    **dict.fromkeys(("snake", "sin", "cos", "log"), 1.5),
    "softplus": 2.5,
    "sqrt": 0.5,
    "div": 0.5,
}
_STEPPED_CYCLES = 2.0  # of an element that is read alone
_SHARED_US = 4.0  # of work that is worth a thread


def moving_us(step: LoopStep | ReductionStep, threads: int) -> float:
    """Predicted microseconds of a loop or a reduction."""
    cycles = _moved_cycles((*step.reads, *step.writes))
    if isinstance(step, LoopStep):
        size = prod(step.shape)
        of_each = sum(_CYCLES.get(name, 0.05) for name, _ in step.expression.instructions)
        stepped = sum(
            value.shape[-1:] != (1,) and value.rank > 0 and value.strides[-1] not in (0, 1, 2)
            for value in step.operands
        )
        cycles += size * (of_each + stepped * _STEPPED_CYCLES)
    us = cycles / CYCLES_PER_US
    return _STEP_US + us / min(threads, max(1.0, us / _SHARED_US))


def _moved_cycles(values: Iterable[Value]) -> float:
    return sum(prod(value.shape) for value in values) * _ITEM_BYTES / _BYTES_PER_CYCLE
