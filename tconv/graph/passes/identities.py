"""Removal of nodes that hand their operand on, which hide one node from the other."""

from dataclasses import replace

from tconv.graph.graph import Graph, Node

__all__ = ["drop_identities"]

_IDENTITIES = ("Identity", "Dropout")


def drop_identities(graph: Graph) -> Graph:
    """Return the graph without such nodes, but for those that write an output of it."""
    names: dict[str, str] = {}
    nodes = list[Node]()
    for node in graph.nodes:
        inputs = tuple([names.get(name, name) for name in node.inputs])
        used = [name for name in node.outputs if name]
        if node.operator in _IDENTITIES and len(used) == 1 and used[0] not in graph.outputs:
            names[used[0]] = inputs[0]
        else:
            nodes.append(node if inputs == node.inputs else replace(node, inputs=inputs))
    return replace(graph, nodes=tuple(nodes))
