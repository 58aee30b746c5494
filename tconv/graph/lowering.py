"""Lowering of a graph for given sizes: its nodes become steps, node by node."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from typing import Any, NamedTuple

import numpy as np

from tconv.graph.graph import Graph, Node
from tconv.graph.operators.constants import CONSTANT, computed
from tconv.graph.operators.registry import REGISTRY, Writer
from tconv.graph.steps import Step
from tconv.graph.values import Operand, UnknownOperator, Value

__all__ = ["BROKEN", "Lowered", "known_operators", "lower", "static_operators"]

for _room in ("elementwise", "convolutions", "pooling", "normalisation", "resampling", "movement"):
    import_module(f"tconv.graph.operators.{_room}")


BROKEN = (ValueError, IndexError, KeyError, TypeError, AssertionError, ArithmeticError)
"""What is raised on the way by nodes that break the rules of their operators."""


class Lowered(NamedTuple):
    """Steps in order, the graph's outputs, values or constants, and the shapes of all values."""

    steps: list[Step]
    outputs: list[Operand]
    shapes: dict[str, tuple[int, ...]]


def known_operators() -> frozenset[str]:
    """The operators that a program may have."""
    return CONSTANT.union(REGISTRY)


def static_operators() -> frozenset[str]:
    """The operators that are computed when a program is written, if all operands are constants."""
    return CONSTANT


def lower(
    graph: Graph,
    shapes: Mapping[str, tuple[int, ...]],
    kept: dict[Any, Any],
    sizes: Sequence[tuple[int, ...]] = (),
) -> Lowered:
    """Write the steps of a graph for inputs of these shapes, and for these `graph.sizes`.

    `kept` holds what is made of constants and attributes, for the programs of all sizes.

    Raises
    ------
    UnknownOperator : a node is none that programs have, with the reason
    """
    writer, values = Writer(graph.constants, kept), dict[str, Operand](graph.constants)
    for name, numbers in zip(graph.sizes, sizes, strict=True):
        values[name] = np.array(numbers, np.int64)
    for place, each in enumerate(graph.inputs):
        if each.dtype != "float32":
            raise UnknownOperator(f"input {each.name!r} of {each.dtype}")
        values[each.name] = Value.whole(shapes[each.name], "input", place)
    for node in graph.nodes:
        try:
            # An operand that is left out has the name "".
            operands = [values[name] if name else None for name in node.inputs]
            results = _results(writer, node, operands)
        except UnknownOperator as why:
            title = node.name or node.outputs[0]
            raise UnknownOperator(f"node {title!r}: {why}", title) from None
        values.update(zip(node.outputs, results, strict=False))
    known = {name: tuple(value.shape) for name, value in values.items()}
    return Lowered(writer.steps, [values[name] for name in graph.outputs], known)


def _results(writer: Writer, node: Node, operands: list[Operand | None]) -> list[Operand]:
    arrays = [each for each in operands if not isinstance(each, Value)]
    if node.operator in CONSTANT and len(arrays) == len(operands):
        found = computed(node, arrays)
        if found is None:
            raise UnknownOperator(f"{node.operator} of such constants")
        return [found]
    function = REGISTRY.get(node.operator)
    if function is None:
        raise UnknownOperator(f"operator {node.operator}")
    for each in arrays:
        if each is not None and not isinstance(each, np.ndarray):
            raise UnknownOperator(f"{node.operator} of {type(each).__name__}")
    try:
        return list(function(writer, node, operands))
    except BROKEN as error:  # a node that breaks the operator's rules
        raise UnknownOperator(f"{node.operator}: {error or type(error).__name__}") from error
