"""Activations that models spell out as products, as one node.

x * sigmoid(x)  ->  Swish       x * (1 + erf(x / sqrt(2))) / 2  ->  Gelu
x * hard_sigmoid(x), x * clip(x + 3, 0, 6) / 6  ->  HardSwish
"""

from dataclasses import replace
from math import isclose, sqrt
from typing import NamedTuple

from tconv.graph.graph import Graph, Node

__all__ = ["find_gates"]

_CLOSE = 1e-6  # of constants that were rounded to float32


class _Product(NamedTuple):
    """A number times some values."""

    number: float
    factors: list[str]


def find_gates(graph: Graph) -> Graph:
    """Return the graph, in which each such product is one node."""
    finder = _Finder(graph)
    nodes = [finder.found(node) for node in graph.nodes]
    return _needed(replace(graph, nodes=tuple(nodes)))


def _needed(graph: Graph) -> Graph:
    """The graph without nodes whose results nothing reads."""
    wanted, nodes = set(graph.outputs), list[Node]()
    for node in reversed(graph.nodes):
        if wanted.intersection(node.outputs):
            wanted.update(node.inputs)
            nodes.append(node)
    return replace(graph, nodes=tuple(nodes[::-1]))


class _Finder:
    """The nodes of a graph by the names of their results."""

    def __init__(self, graph: Graph) -> None:
        self.constants, self.readers = graph.constants, graph.readers()
        self.makers = {node.outputs[0]: node for node in graph.nodes}

    def found(self, node: Node) -> Node:
        """The activation that a product is; else the node."""
        if node.operator not in ("Mul", "Div"):
            return node
        product = self._product(node.outputs[0], is_root=True)
        if len(product.factors) == 2:
            for x, gate in (product.factors, product.factors[::-1]):
                operator = self._gate(x, gate, product.number)
                if operator:
                    return Node(operator, (x,), node.outputs, {}, node.name)
        return node

    def _gate(self, x: str, gate: str, factor: float) -> str:
        """The operator that ``factor*x*gate`` is, "" for none."""
        maker = self.makers.get(gate)
        if maker is None:
            return ""
        if maker.operator == "Sigmoid" and maker.inputs[0] == x and _is(factor, 1):
            return "Swish"
        if maker.operator == "HardSigmoid" and maker.inputs[0] == x and _is(factor, 1):
            line = maker.argument("alpha", 0.2), maker.argument("beta", 0.5)
            return "HardSwish" if _is(line[0], 1 / 6) and _is(line[1], 0.5) else ""
        if maker.operator == "Clip" and _is(factor, 1 / 6):
            bounds = (self._number(maker.reads(n)) for n in (1, 2))
            low, high = (
                maker.argument(name) if bound is None else bound
                for name, bound in zip(("min", "max"), bounds, strict=True)
            )
            is_line = self._other_term(maker.inputs[0], 3) == x
            return "HardSwish" if is_line and _is(low, 0) and _is(high, 6) else ""
        if _is(factor, 0.5):
            inner = self.makers.get(self._other_term(gate, 1))
            if inner is not None and inner.operator == "Erf":
                argument = self._product(inner.inputs[0], is_root=True)
                is_scaled = argument.factors == [x] and _is(argument.number, 1 / sqrt(2))
                return "Gelu" if is_scaled else ""
        return ""

    def _product(self, name: str, is_root: bool = False) -> _Product:
        """A value as a product; values that something else reads too stay factors."""
        number, maker = self._number(name), self.makers.get(name)
        if number is not None:
            return _Product(number, [])
        is_inner = maker is not None and (is_root or self.readers[name] == 1)
        if maker is None or not is_inner or maker.operator not in ("Mul", "Div"):
            return _Product(1.0, [name])
        left = self._product(maker.inputs[0])
        if maker.operator == "Mul":
            right = self._product(maker.inputs[1])
            return _Product(left.number * right.number, left.factors + right.factors)
        divisor = self._number(maker.inputs[1])
        if not divisor:
            return _Product(1.0, [name])
        return _Product(left.number / divisor, left.factors)

    def _other_term(self, name: str, number: float) -> str:
        """The other term of a sum with a number; "" if it is no such sum."""
        maker = self.makers.get(name)
        if maker is not None and maker.operator == "Add":
            for n in (0, 1):
                if _is(self._number(maker.inputs[n]), number):
                    return maker.inputs[1 - n]
        return ""

    def _number(self, name: str) -> float | None:
        """The value of a constant that is one number."""
        array = self.constants.get(name)
        # With more axes it could give the result more axes than the other operand has.
        if array is None or array.size != 1 or array.ndim > 1 or array.dtype.kind != "f":
            return None
        return float(array.ravel()[0])


def _is(number: float | None, wanted: float) -> bool:
    return number is not None and isclose(number, wanted, rel_tol=_CLOSE, abs_tol=_CLOSE * 1e-3)
