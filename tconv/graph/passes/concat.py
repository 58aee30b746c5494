"""Concatenation without copies: what is joined is written where it will lie.

a = conv(x); b = relu(z); y = concat(a, b)   ->   conv writes y[:, :8], relu writes y[:, 8:]
"""

from math import prod

from tconv.graph.steps import ContractionStep, LoopStep, Step
from tconv.graph.values import Buffer, Value

__all__ = ["write_in_place"]


def write_in_place(steps: list[Step], outputs: set[Buffer]) -> list[Step]:
    """Return the steps without copies of values into a part of another.

    The part is contiguous, or the value is written by a step that can write images apart and read
    by the copy alone.
    """
    found = list(steps)
    for copy in steps:
        if not isinstance(copy, LoopStep) or not copy.is_copy:
            continue
        x, part = copy.operands[0], copy.outputs[0]
        if x.buffer.kind != "block" or x.buffer in outputs or not x.is_whole:
            continue
        if x.shape != part.shape:
            continue
        makers = [step for step in found if any(v.buffer is x.buffer for v in step.writes)]
        readers = [step for step in found if any(v.buffer is x.buffer for v in step.reads)]
        if part.is_contiguous:
            _move(found, x.buffer, part)
        elif readers == [copy] and len(makers) == 1 and _writes_apart(makers[0], part):
            maker = makers[0]
            if isinstance(maker, ContractionStep):
                maker.y = part
            else:
                assert isinstance(maker, LoopStep)
                maker.outputs = [part]
        else:
            continue
        found.remove(copy)
    return found


def _writes_apart(maker: Step, part: Value) -> bool:
    """Whether a step can write images that are contiguous but apart."""
    if isinstance(maker, ContractionStep):
        image = part.sliced(0, 0, 1)
        is_alike = part.shape == maker.y.shape and maker.y.is_whole
        return is_alike and maker.residual is None and image.is_contiguous
    if not isinstance(maker, LoopStep):
        return False
    return len(maker.outputs) == 1 and maker.shape == part.shape and part.strides[-1] == 1


def _move(steps: list[Step], buffer: Buffer, part: Value) -> None:
    """Let all steps read and write a part of another buffer instead of a buffer."""
    assert buffer.size == prod(part.shape)

    def moved(value: Value) -> Value:
        if value.buffer is not buffer:
            return value
        return value._replace(buffer=part.buffer, offset=value.offset + part.offset)

    for step in steps:
        if isinstance(step, LoopStep):
            step.operands = [moved(each) for each in step.operands]
            step.outputs = [moved(each) for each in step.outputs]
        else:
            step.x, step.y = moved(step.x), moved(step.y)
            if isinstance(step, ContractionStep) and step.residual is not None:
                step.residual = moved(step.residual)
