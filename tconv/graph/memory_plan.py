"""Memory of a program: stages of steps, lifetimes of buffers, and their places in one block.

Steps of a stage run side by side. A buffer lives from the stage that first writes it to the last
that reads it, and buffers whose lives overlap lie apart.
"""

from collections.abc import Sequence
from typing import NamedTuple

from tconv.graph.steps import Step
from tconv.graph.values import Buffer

__all__ = ["MemoryPlan", "plan_memory", "stages_of"]

_ALIGNMENT = 64  # bytes
_ITEM_BYTES = 4


class MemoryPlan(NamedTuple):
    """Bytes of the block, of all its buffers together, and where each buffer begins."""

    block_bytes: int
    buffer_bytes: int
    offsets: dict[Buffer, int]


def stages_of(steps: Sequence[Step]) -> list[int]:
    """The number of each step's stage: no step reads what another of its stage writes.

    Steps keep their order, so a stage is a run of steps.
    """
    found, written, stage = list[int](), set[Buffer](), 0
    for step in steps:
        if any(value.buffer in written for value in step.reads):
            stage, written = stage + 1, set()
        written |= {value.buffer for value in step.writes}
        found.append(stage)
    return found


def plan_memory(steps: Sequence[Step], stages: Sequence[int]) -> MemoryPlan:
    """Place the buffers of the block, the largest first, each at the lowest place that is free."""
    lives: dict[Buffer, tuple[int, int]] = {}
    for step, stage in zip(steps, stages, strict=True):
        for value in (*step.reads, *step.writes):
            if value.buffer.kind == "block":
                first, _ = lives.get(value.buffer, (stage, stage))
                lives[value.buffer] = first, stage
    sizes = {buffer: _rounded(buffer.size * _ITEM_BYTES) for buffer in lives}
    placed = list[tuple[int, int, int, int]]()  # first and last stage, begin and end
    offsets: dict[Buffer, int] = {}
    for buffer in sorted(lives, key=lambda each: (-sizes[each], lives[each])):
        first, last = lives[buffer]
        start = 0
        others = sorted((b, e) for a, z, b, e in placed if a <= last and first <= z)
        for begin, end in others:
            if begin - start >= sizes[buffer]:
                break
            start = max(start, end)
        offsets[buffer] = start
        placed.append((first, last, start, start + sizes[buffer]))
    block = max((end for *_, end in placed), default=0)
    return MemoryPlan(block, sum(sizes.values()), offsets)


def _rounded(count: int) -> int:
    # A vector may be read beyond the last element, which then lies in the buffer all the same.
    return -(-count // _ALIGNMENT) * _ALIGNMENT + _ALIGNMENT
