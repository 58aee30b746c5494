"""Epilogues: a sum with another value and an activation, computed as a contraction writes y."""

from math import isfinite

from tconv.arrays.activations import ACTIVATIONS, Activation, as_activation
from tconv.errors import TConvError
from tconv.graph.steps import ContractionStep, LoopStep, Step, readers
from tconv.graph.values import Buffer, Value

__all__ = ["fuse_epilogues"]


def fuse_epilogues(steps: list[Step], outputs: set[Buffer]) -> list[Step]:
    """Return the steps with loops that follow a contraction computed by it, wholly or in part."""
    found, read_by = list(steps), readers(steps)
    for step in steps:
        if not isinstance(step, ContractionStep) or step.y.buffer in outputs:
            continue
        if not step.y.is_whole:  # other steps write the rest of what a loop reads
            continue
        after = read_by.get(step.y.buffer, [])
        if len(after) == 1 and isinstance(after[0], LoopStep):
            loop = after[0]
            if _is_read_whole(step.y, loop):
                _take(step, loop)
                is_whole = loop.outputs[0].is_whole
                if not loop.expression.instructions and is_whole:
                    # The contraction now computes what the loop wrote, at the loop's place.
                    step.y = _as_written(step.y, loop.outputs[0])
                    step.nodes += loop.nodes
                    found.remove(step)
                    found[found.index(loop)] = step
                elif step.residual is not None:
                    found.remove(step)
                    found.insert(found.index(loop), step)
    return found


def _is_read_whole(y: Value, loop: LoopStep) -> bool:
    same = [value for value in loop.operands if value.buffer is y.buffer]
    return (
        len(same) == 1
        and same[0].is_whole
        and same[0].shape == loop.shape
        and loop.repeats == [1] * len(loop.operands)
        and len(loop.outputs) == 1
    )


def _as_written(y: Value, to: Value) -> Value:
    return Value(to.buffer, y.shape, y.strides, to.offset)


def _take(step: ContractionStep, loop: LoopStep) -> None:
    """Move a residual and an activation from the loop's expression to the step."""
    while step.activation is None:
        place = next(n for n, each in enumerate(loop.operands) if each.buffer is step.y.buffer)
        using = [each for each in loop.expression.instructions if place in each[1]]
        if len(using) != 1:
            return
        (name, places), at = using[0], loop.expression.instructions.index(using[0])
        if name == "add" and step.residual is None and places[0] != places[1]:
            other = places[1] if places[0] == place else places[0]
            # Images that lie apart are written, but no residual is read so.
            if not loop.outputs[0].is_contiguous or not _is_residual(step, loop, other):
                return
            residual = loop.operands[other]
            step.residual = Value(residual.buffer, step.y.shape, step.y.strides, residual.offset)
        else:
            activation = _activation(name, places, place, loop)
            if activation is None:
                return
            step.activation = activation
        _replace(loop, at, place)


def _is_residual(step: ContractionStep, loop: LoopStep, other: int) -> bool:
    if other >= loop.expression.operands:
        return False
    value = loop.operands[other]
    uses = sum(read.count(other) for _, read in loop.expression.instructions)
    return (
        value.shape == loop.shape
        and value.is_contiguous
        and uses == 1
        and value.buffer.kind != "constant"
        and other not in loop.expression.stored
    )


def _activation(
    name: str, places: tuple[int, ...], place: int, loop: LoopStep
) -> Activation | None:
    if name not in ACTIVATIONS or places[0] != place:
        return None
    numbers = [loop.number(each) for each in places[1:]]
    if any(each is None for each in numbers):
        return None
    if name == "gelu_tanh":
        return as_activation(("gelu", "tanh"))
    given = [None if each is None or not isfinite(each) else each for each in numbers]
    if name == "leaky_relu" and given[0] is not None and given[0] < 0:
        name = "prelu"
    if name == "clip" and given == [None, None]:
        return None
    try:
        return as_activation((name, *given) if given else name)
    except TConvError:  # parameters that the epilogue does not have, and a loop has
        return None


def _replace(loop: LoopStep, at: int, place: int) -> None:
    """Remove an instruction; what read its result reads the operand."""
    result = loop.expression.operands + at
    instructions = tuple(
        (name, tuple([place if each == result else each for each in read]))
        for name, read in loop.expression.instructions
    )
    stored = tuple([place if each == result else each for each in loop.expression.stored])
    loop.expression = loop.expression._replace(instructions=instructions, stored=stored)
    loop.drop_unused()
