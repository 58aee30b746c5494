"""Removal of nodes that hand their operand on, which hide one node from the other."""

from dataclasses import replace

import numpy as np

from tconv.graph.graph import Graph, Node

__all__ = ["drop_identities"]


def drop_identities(graph: Graph) -> Graph:
    """Return the graph without such nodes, but for those that write an output of it."""
    names: dict[str, str] = {}
    nodes = list[Node]()
    for node in graph.nodes:
        inputs = tuple([names.get(name, name) for name in node.inputs])
        used = [name for name in node.outputs if name]
        is_one = node.operator == "Identity" or (
            node.operator == "Dropout" and not _drops(graph, node)
        )
        if is_one and len(used) == 1 and used[0] not in graph.outputs:
            names[used[0]] = inputs[0]
        else:
            nodes.append(node if inputs == node.inputs else replace(node, inputs=inputs))
    return replace(graph, nodes=tuple(nodes))


def _drops(graph: Graph, node: Node) -> bool:
    """Whether a Dropout drops anything, which it does in training alone."""
    training = node.reads(2)
    return bool(training) and bool(np.any(graph.constants.get(training, True)))
