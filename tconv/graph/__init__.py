"""Networks as graphs of ONNX's operators, and the programs that they become for given sizes."""

from tconv.graph.description import described
from tconv.graph.graph import Graph, Input, Node
from tconv.graph.lowering import known_operators, static_operators
from tconv.graph.program import Program, Programs, simplified
from tconv.graph.values import UnknownOperator

__all__ = [
    "Graph",
    "Input",
    "Node",
    "Program",
    "Programs",
    "UnknownOperator",
    "described",
    "known_operators",
    "simplified",
    "static_operators",
]
