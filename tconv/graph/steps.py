"""Steps of a program with sizes, before memory is planned: contractions, loops and reductions."""

from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

from tconv.arrays.activations import Activation
from tconv.engine import Expression
from tconv.geometry.geometry import Geometry, Letter
from tconv.graph.values import Buffer, Value

__all__ = [
    "ContractionStep",
    "LoopStep",
    "ReductionStep",
    "Step",
    "copy_step",
    "needed",
    "readers",
]


@dataclass(eq=False)
class ContractionStep:
    """A transposed convolution (`want` is "y") or a convolution ("x"), with its epilogue."""

    geometry: Geometry
    want: Letter
    x: Value
    weight: NDArray[Any]
    bias: NDArray[Any] | None
    y: Value
    residual: Value | None = None
    activation: Activation | None = None
    nodes: list[str] = field(default_factory=list)

    @property
    def reads(self) -> list[Value]:
        """The values that it reads."""
        return [self.x] if self.residual is None else [self.x, self.residual]

    @property
    def writes(self) -> list[Value]:
        """The values that it writes."""
        return [self.y]


@dataclass(eq=False)
class LoopStep:
    """An expression for each element; operands are broadcast to the outputs, which are alike.

    `repeats` says of each operand how often each element is read along the innermost axis.
    """

    expression: Expression
    operands: list[Value]
    outputs: list[Value]
    repeats: list[int]
    nodes: list[str] = field(default_factory=list)

    @property
    def reads(self) -> list[Value]:
        """The values that it reads."""
        return self.operands

    @property
    def writes(self) -> list[Value]:
        """The values that it writes."""
        return self.outputs

    @property
    def shape(self) -> tuple[int, ...]:
        """The sizes that it runs over."""
        return self.outputs[0].shape

    def number(self, place: int) -> float | None:
        """The value of an operand that is one constant number."""
        if place >= self.expression.operands:
            return None
        array = self.operands[place].buffer.array
        return float(array.ravel()[0]) if array is not None and array.size == 1 else None

    def drop_unused(self) -> None:
        """Drop instructions and operands that no result depends on."""
        count, instructions = self.expression.operands, self.expression.instructions
        used = set(self.expression.stored)
        for n in range(len(instructions) - 1, -1, -1):
            if count + n in used:
                used.update(instructions[n][1])
        places = {old: new for new, old in enumerate(sorted(used))}
        kept = [n for n in range(count) if n in used]
        self.expression = Expression(
            len(kept),
            tuple(
                (name, tuple([places[each] for each in read]))
                for n, (name, read) in enumerate(instructions)
                if count + n in used
            ),
            tuple([places[each] for each in self.expression.stored]),
        )
        self.operands = [self.operands[n] for n in kept]
        self.repeats = [self.repeats[n] for n in kept]

    @property
    def is_copy(self) -> bool:
        """Whether it copies one operand, element by element."""
        return not self.expression.instructions and self.repeats == [1]


@dataclass(eq=False)
class ReductionStep:
    """A sum, largest or least element along an axis of (outer, axis, inner), over a number.

    `is_last` says whether no axis of the value follows; else `inner` may be 1 for one size only.
    """

    how: str
    x: Value
    y: Value
    divisor: int
    is_last: bool
    nodes: list[str] = field(default_factory=list)

    @property
    def reads(self) -> list[Value]:
        """The values that it reads."""
        return [self.x]

    @property
    def writes(self) -> list[Value]:
        """The values that it writes."""
        return [self.y]


Step = ContractionStep | LoopStep | ReductionStep


def copy_step(x: Value, y: Value, node: str = "") -> LoopStep:
    """Copy, with broadcasting."""
    return LoopStep(Expression(1, (), (0,)), [x], [y], [1], [node] if node else [])


def readers(steps: list[Step]) -> dict[Buffer, list[Step]]:
    """The steps that read each buffer."""
    found: dict[Buffer, list[Step]] = {}
    for step in steps:
        for value in step.reads:
            of_buffer = found.setdefault(value.buffer, [])
            if not of_buffer or of_buffer[-1] is not step:
                of_buffer.append(step)
    return found


def needed(steps: list[Step]) -> list[Step]:
    """The steps that an output depends on."""
    found, wanted = list[Step](), set[Buffer]()
    for step in reversed(steps):
        if any(each.buffer.kind == "output" or each.buffer in wanted for each in step.writes):
            wanted.update(value.buffer for value in step.reads)
            found.append(step)
    return found[::-1]
