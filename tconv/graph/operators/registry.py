"""Registry of operators, and what their functions write steps with."""

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from tconv.engine import Expression
from tconv.graph.graph import Node
from tconv.graph.steps import LoopStep, ReductionStep, Step, copy_step
from tconv.graph.values import Buffer, Operand, UnknownOperator, Value

__all__ = ["REGISTRY", "Writer", "axis_of", "integers", "register", "value_of"]

Lower = Callable[["Writer", Node, Sequence[Operand | None]], Sequence[Operand]]

REGISTRY: dict[str, Lower] = {}
"""By ONNX's name: the function that writes an operator's steps and returns its results."""

Padded = tuple[tuple[int, ...], Value, tuple[tuple[int, int], ...]]

_Made = TypeVar("_Made")
_MOST_OPERANDS = 32  # of a loop


def register(*names: str) -> Callable[[Lower], Lower]:
    """Register a function for operators."""

    def wrapped(function: Lower) -> Lower:
        REGISTRY.update(dict.fromkeys(names, function))
        return function

    return wrapped


class Writer:
    """The steps of a program that is being written.

    `constants` are those of the graph. `kept` holds what is made of constants and attributes, which
    programs for other sizes use as well. `padded` says which buffers are a value with zeros around
    it: the shape of both, the value, and the zeros on either side of each axis. A convolution reads
    the value and pads by itself.
    """

    def __init__(self, constants: Mapping[str, NDArray[Any]], kept: dict[Any, Any]) -> None:
        self.steps: list[Step] = []
        self.kept, self._constants = kept, set(map(id, constants.values()))
        self.padded: dict[Buffer, Padded] = {}

    def once(self, node: Node, make: Callable[[], _Made], key: Any = None) -> _Made:
        """Return what a node makes of constants of the graph, made by the first program.

        `key` has the attributes in which nodes of one result may differ from program to program.
        """
        key = node.outputs[0], key
        if key not in self.kept:
            self.kept[key] = make()
        found: _Made = self.kept[key]
        return found

    def weight(self, node: Node, operand: Operand | None) -> NDArray[Any]:
        """Return a weight, which programs for all sizes share: it must be a constant of the graph.

        A node of constants may make another one for each of a program's sizes.
        """
        if not isinstance(operand, np.ndarray) or id(operand) not in self._constants:
            raise UnknownOperator(f"{node.operator} with a weight that is computed")
        if operand.dtype != np.float32:
            raise UnknownOperator(f"{node.operator} with a weight of {operand.dtype}")
        return operand

    def loop(
        self,
        node: Node,
        instructions: Sequence[tuple[str, tuple[int, ...]]],
        operands: Sequence[Operand],
        y: Value | None = None,
        repeats: Sequence[int] = (),
    ) -> Value:
        """Write a loop over broadcast operands; return its result, `y` if that is given."""
        values = [value_of(each) for each in operands]
        if len(values) > _MOST_OPERANDS:
            raise UnknownOperator(f"{node.operator} with {len(values)} operands")
        if y is None:
            y = Value.whole(_broadcast_shape(node, values))
        stored = len(values) + len(instructions) - 1 if instructions else 0
        expression = Expression(len(values), tuple(instructions), (stored,))
        times = list(repeats) or [1] * len(values)
        self.steps.append(LoopStep(expression, values, [y], times, [_title(node)]))
        return y

    def reduce(
        self, node: Node, how: str, x: Value, first: int, last: int, is_mean: bool = False
    ) -> Value:
        """Write a sum, largest or least element over axes `first` to `last`, which get one cell.

        The value is contiguous.
        """
        sizes = x.shape[:first], x.shape[first : last + 1], x.shape[last + 1 :]
        outer, count, inner = map(prod, sizes)
        y = Value.whole((outer, inner))
        read = x.reshaped((outer, count, inner))
        divisor = count if is_mean else 1
        is_last = last == x.rank - 1
        self.steps.append(ReductionStep(how, read, y, divisor, is_last, [_title(node)]))
        return y.reshaped((*sizes[0], *[1] * len(sizes[1]), *sizes[2]))

    def copy(self, node: Node, x: Operand, y: Value) -> None:
        """Write a copy, with broadcasting."""
        self.steps.append(copy_step(value_of(x), y, _title(node)))

    def pad(self, node: Node, x: Value, y: Value, before: Sequence[int], fill: np.float32) -> None:
        """Write x into y, so many cells from its beginning, and `fill` into the rest."""
        if fill == 0 and y.is_whole:
            sizes = zip(before, x.shape, y.shape, strict=True)
            zeros = tuple([(begin, all_ - begin - own) for begin, own, all_ in sizes])
            self.padded[y.buffer] = y.shape, x, zeros
        number, part = np.full((), fill, np.float32), y
        for axis, begin in enumerate(before):
            end = y.shape[axis] - begin - x.shape[axis]
            for start, count in ((0, begin), (y.shape[axis] - end, end)):
                if count > 0:
                    self.copy(node, number, part.sliced(axis, start, count))
            part = part.sliced(axis, begin, x.shape[axis])
        self.copy(node, x, part)

    def contiguous(self, node: Node, operand: Operand) -> Value:
        """Return a value whose elements follow each other; a copy unless they do."""
        value = value_of(operand)
        if value.is_contiguous:
            return value
        y = Value.whole(value.shape)
        self.copy(node, value, y)
        return y


def value_of(operand: Operand) -> Value:
    """Return an operand as a value of the program; a constant must be of float32."""
    if isinstance(operand, Value):
        return operand
    if operand.dtype != np.float32:
        raise UnknownOperator(f"a constant of {operand.dtype}")
    return Value.constant(operand)


def axis_of(axis: int, rank: int, node: Node) -> int:
    """Return an axis counted from the first one; refuse one that is not there."""
    if not -rank <= axis < rank:
        raise UnknownOperator(f"{node.operator} of axis {axis} of {rank}")
    return axis % rank


def integers(operand: Operand | None, node: Node) -> list[int] | None:
    """Return a constant of sizes or axes as a list; None if it is left out."""
    if operand is None:
        return None
    if isinstance(operand, Value) or operand.dtype.kind not in "iu":
        raise UnknownOperator(f"{node.operator} with sizes that are computed")
    return [int(each) for each in operand.ravel()]


def _broadcast_shape(node: Node, values: Sequence[Value]) -> tuple[int, ...]:
    shape = values[0].shape
    if any(value.shape != shape for value in values):
        try:
            shape = np.broadcast_shapes(*[value.shape for value in values])
        except ValueError:
            shapes = ", ".join(str(value.shape) for value in values)
            raise UnknownOperator(f"{node.operator} of shapes {shapes}") from None
    if not prod(shape):
        raise UnknownOperator(f"{node.operator} of an empty value")
    return shape


def _title(node: Node) -> str:
    return node.name or (node.outputs[0] if node.outputs else node.operator)
