"""A network: constants, and nodes by ONNX's operators in an order in which they can be computed.

Nothing here knows where a network comes from: `tconv.onnx.front_end` makes a graph of a model.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from numpy.typing import NDArray

__all__ = ["Graph", "Input", "Node"]


@dataclass(frozen=True)
class Input:
    """An input of a graph: its name, and NumPy's name of its type."""

    name: str
    dtype: str


@dataclass(frozen=True)
class Node:
    """One operator; "" stands for an operand that is left out.

    >>> Node("Relu", ("x",), ("y",)).argument("alpha", 1.0)
    1.0
    """

    operator: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any] = field(default_factory=dict)
    name: str = ""

    def argument(self, name: str, default: Any = None) -> Any:
        """An attribute, or the default where the node does not set it."""
        return self.attributes.get(name, default)

    def reads(self, place: int) -> str:
        """The name of an operand, "" where it is left out."""
        return self.inputs[place] if place < len(self.inputs) else ""


@dataclass(frozen=True)
class Graph:
    """Nodes, each after those that it reads from.

    Attributes
    ----------
    inputs : tuple of Input
    outputs : tuple of str
    nodes : tuple of Node
    constants : dict of name to array
    sizes : tuple of str, operands such as the sizes of a Reshape, which are known when a program is
        made and differ from program to program
    """

    inputs: tuple[Input, ...]
    outputs: tuple[str, ...]
    nodes: tuple[Node, ...]
    constants: Mapping[str, NDArray[Any]]
    sizes: tuple[str, ...] = ()

    def readers(self) -> dict[str, int]:
        """How often each value is read, as an output of the graph as well."""
        found: dict[str, int] = {}
        for node in self.nodes:
            for name in node.inputs:
                found[name] = found.get(name, 0) + 1
        for name in self.outputs:
            found[name] = found.get(name, 0) + 1
        return found
