"""Fusion of elementwise loops: one reads what another wrote, element by element.

A chain of operators becomes one loop, whose values between stay in registers.
"""

from collections.abc import Mapping, Sequence

from tconv.engine import Expression
from tconv.graph.steps import LoopStep, Step, readers
from tconv.graph.values import Buffer, Value

__all__ = ["fuse_loops"]

_MOST_OPERANDS = 12


def fuse_loops(steps: list[Step], outputs: set[Buffer]) -> list[Step]:
    """Return the steps with each loop fused into the only step that reads its result, a loop.

    `outputs` are buffers that the caller reads.
    """
    read_by = readers(steps)
    makers = {value.buffer: step for step in steps for value in step.writes}
    gone = set[int]()
    for step in steps:  # in order, so that what a step reads has been fused before
        while isinstance(step, LoopStep):
            maker = _fusible(step, read_by, makers, outputs)
            if maker is None:
                break
            for value in maker.operands:
                others = [each for each in read_by[value.buffer] if each not in (maker, step)]
                read_by[value.buffer] = [*others, step]
            gone.add(id(maker))
            _inline(maker, step)
    return [step for step in steps if id(step) not in gone]


def _fusible(
    step: LoopStep,
    read_by: Mapping[Buffer, Sequence[Step]],
    makers: Mapping[Buffer, Step],
    outputs: set[Buffer],
) -> LoopStep | None:
    """A loop whose result the step alone reads, and can compute itself."""
    for value in step.operands:
        maker = makers.get(value.buffer)
        if (
            isinstance(maker, LoopStep)
            and value.buffer not in outputs
            and len(read_by[value.buffer]) == 1
            and _fits(maker, step, value)
        ):
            return maker
    return None


def _fits(maker: LoopStep, step: LoopStep, value: Value) -> bool:
    """Whether the step reads each element that the maker writes at the same place."""
    made = maker.outputs[0]
    if made.shape != step.shape or len(maker.outputs) != 1 or not made.is_whole:
        return False
    same = [each for each in step.operands if each.buffer is made.buffer]
    operands = len(step.operands) + len(maker.operands) - len(same)
    return (
        operands <= _MOST_OPERANDS
        and max(maker.repeats) == max(step.repeats) == 1
        and all(each.is_same(made) and each.shape == step.shape for each in same)
    )


def _inline(maker: LoopStep, step: LoopStep) -> None:
    """Compute in the step what the maker would have written."""
    made = maker.outputs[0].buffer
    operands, places = list[Value](), dict[int, int]()

    def place_of(value: Value) -> int:
        for n, known in enumerate(operands):
            if known is value or (
                known.buffer is value.buffer and known.shape == value.shape and known.is_same(value)
            ):
                return n
        operands.append(value)
        return len(operands) - 1

    of_maker = [place_of(value) for value in maker.operands]
    of_step = [None if value.buffer is made else place_of(value) for value in step.operands]
    count = len(operands)
    # Values of the maker: its operands, then its instructions, which come first.
    of_maker += [count + n for n in range(len(maker.expression.instructions))]
    result = of_maker[maker.expression.stored[0]]
    for n, place in enumerate(of_step):
        places[n] = result if place is None else place
    first = count + len(maker.expression.instructions)
    for n in range(len(step.expression.instructions)):
        places[len(step.operands) + n] = first + n
    instructions = [
        (name, tuple([of_maker[at] for at in read])) for name, read in maker.expression.instructions
    ]
    instructions += [
        (name, tuple([places[at] for at in read])) for name, read in step.expression.instructions
    ]
    stored = tuple([places[at] for at in step.expression.stored])
    step.expression = Expression(count, tuple(instructions), stored)
    step.operands, step.repeats = operands, [1] * count
    step.nodes = maker.nodes + step.nodes
