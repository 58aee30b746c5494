"""A network with the laws of all of its nodes along the directions in which it is cut."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from tconv.errors import UnsupportedError
from tconv.graph.graph import Graph, Node
from tconv.graph.pieces.extents import PROBE, Extents, extents_of
from tconv.graph.pieces.laws import Along, Law, NoLaw, law_of

__all__ = ["Network", "NodeLaws", "network_of"]


class NodeLaws(NamedTuple):
    """A node, what `laws` need to know of it, and its law along each direction."""

    node: Node
    along: tuple[Along, ...]
    laws: tuple[Law, ...]


class Network(NamedTuple):
    """A graph, the axes of its values, and the laws of the nodes that pieces are made of.

    Nodes that no direction reaches are constants of all pieces, in `fixed`.
    """

    graph: Graph
    extents: Extents
    nodes: tuple[NodeLaws, ...]
    fixed: tuple[Node, ...]


def network_of(
    graph: Graph,
    shapes: Mapping[str, tuple[int | None, ...]],
    cut: Sequence[Mapping[str, int]],
    words: str,
    allow_repeated_borders: bool,
    probe: int | None = None,
) -> Network:
    """Find the laws of a graph's nodes.

    Parameters
    ----------
    shapes, cut, probe : as `extents_of` takes them
    words : how messages name a direction: "time" for example
    allow_repeated_borders : whether both ends of a value are known when its pieces are computed

    Raises
    ------
    UnsupportedError : a node cannot be computed piece by piece; its name, and why
    """
    extents = extents_of(graph, shapes, cut, probe or PROBE)
    nodes, fixed = list[NodeLaws](), list[Node]()
    for node in graph.nodes:
        alongs, laws = list[Along](), list[Law]()
        reads = [name for name in node.inputs if name]
        is_cut = any(axis is not None for name in reads for axis in extents.axes[name])
        if not is_cut:
            fixed.append(node)
            continue
        for direction in range(len(cut)):
            try:
                along, law = _law_along(graph, extents, node, direction, words)
                if law.repeats_border and not allow_repeated_borders:
                    raise NoLaw(f"{node.operator}, whose border follows from cells at both ends")
            except NoLaw as why:
                title = node.name or node.outputs[0]
                raise UnsupportedError(
                    f"node {title!r} cannot be computed piece by piece: {why}; compute "
                    "the network in one call, or end the model before this node."
                ) from None
            alongs.append(along)
            laws.append(law)
        nodes.append(NodeLaws(node, tuple(alongs), tuple(laws)))
    return Network(graph, extents, tuple(nodes), tuple(fixed))


def _law_along(
    graph: Graph, extents: Extents, node: Node, direction: int, it: str
) -> tuple[Along, Law]:
    axes = [extents.axes[name][direction] if name else None for name in node.inputs]
    results = {extents.axes[name][direction] for name in node.outputs if name}
    shapes = [extents.shapes[name] if name else () for name in node.inputs]
    (axis,) = results if len(results) == 1 else (None,)
    whole = extents.shapes[node.outputs[0]]
    if axis is None:
        raise NoLaw(f"{node.operator} needs all of {it}, as its result has one size for any length")
    if all(each is None for each in axes):
        raise NoLaw(f"{node.operator}, which makes {it} of none")
    along = Along(node, graph, shapes, axes, whole, axis, it)
    return along, law_of(along)
