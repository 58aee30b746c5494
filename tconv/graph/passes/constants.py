"""Folding of nodes whose operands are all constants, once for the programs of all sizes."""

from dataclasses import replace

from tconv.graph.graph import Graph, Node
from tconv.graph.operators.constants import CONSTANT, computed

__all__ = ["fold_constants"]

_MOST_ELEMENTS = 2**24  # of a result that is larger than its operands, else it stays a node


def fold_constants(graph: Graph) -> Graph:
    """Return the graph with such nodes as constants."""
    constants, nodes = dict(graph.constants), list[Node]()
    for node in graph.nodes:
        names = [name for name in node.inputs if name]
        result, most = None, _MOST_ELEMENTS
        if names and node.operator in CONSTANT and all(name in constants for name in names):
            most = max(most, *[constants[name].size for name in names])
            result = computed(node, [constants.get(name) for name in node.inputs])
        if result is None or result.size > most or len(node.outputs) != 1:
            nodes.append(node)
        else:
            constants[node.outputs[0]] = result
    return replace(graph, nodes=tuple(nodes), constants=constants)
