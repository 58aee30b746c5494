"""Regions of a model: connected nodes that programs can have, and the subgraphs around them.

Pieces run one after the other, subgraphs of ONNX Runtime and regions in turns:

    level 0  subgraph     what depends on no region
    level 1  region       what depends on level 0 at most
    level 2  subgraph     ...

A node of a region stands as late as the nodes that read it allow, one of a subgraph as early as
what it reads allows: that makes few pieces. Nodes of constants and of shapes have no level; each
piece that needs one has its own.
"""

from collections.abc import Callable, Iterable, Sequence
from math import prod
from typing import NamedTuple

from onnx import ModelProto, NodeProto, TensorProto

from tconv.graph import UnknownOperator, known_operators, static_operators
from tconv.onnx.model.nodes import is_operator, subgraphs_of
from tconv.onnx.partition.partition import Graph

__all__ = ["Piece", "Regions"]

_LEAST_NODES, _MOST_REGIONS = 4, 4
_SMALLEST = 1 / 8  # of the largest region, in weights
_LAYERS = ("Conv", "ConvTranspose")
_CONSTANT_FROM = {  # operands from this place on are sizes, axes or weights: constants of a program
    **dict.fromkeys(("Slice", "Reshape", "Pad", "Expand", "Gather", "Resize", "Upsample"), 1),
    **dict.fromkeys(("Unsqueeze", "Squeeze", "Split", "MatMul", "Gemm", *_LAYERS), 1),
    **dict.fromkeys(("BatchNormalization", "Pow", "Clip", "ReduceMean", "ReduceSum"), 1),
    **dict.fromkeys(("ReduceMax", "ReduceMin"), 1),
}


class Piece(NamedTuple):
    """Nodes by index, in order, and the names of what they read and of what others need of them.

    `own` are the nodes without those of constants and of shapes.
    """

    is_region: bool
    own: tuple[int, ...]
    nodes: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class Regions:
    """The regions that a model may have.

    Raises
    ------
    UnknownOperator : a node that no output depends on, which neither side would check
    """

    def __init__(self, model: ModelProto, graph: Graph) -> None:
        self._graph, self._nodes = graph, graph.nodes
        self._stored = {tensor.name for tensor in model.graph.initializer}
        self._outputs = set(graph.outputs)
        self._static = self._find_static()
        self._reads = [self._values_read(index) for index in range(len(self._nodes))]
        self._makers = [
            {graph.producer[name] for name in names if name in graph.producer}
            for names in self._reads
        ]
        self._readers: list[set[int]] = [set() for _ in self._nodes]
        for index, makers in enumerate(self._makers):
            if index not in self._static:
                for maker in makers:
                    self._readers[maker].add(index)
        self._check_needed()
        known = known_operators()
        self._possible = {
            index
            for index, node in enumerate(self._nodes)
            if index not in self._static and node.op_type in known and self._is_possible(index)
        }

    def readers_of(self, names: Iterable[str]) -> set[int]:
        """The nodes that read one of these values, or its shape."""
        wanted = set(names)
        return {index for index, reads in enumerate(self._reads) if wanted.intersection(reads)}

    def named(self, title: str) -> set[int]:
        """The nodes of a name, or whose first result has it if they have none."""
        return {
            index
            for index, node in enumerate(self._nodes)
            if (node.name or next(filter(None, node.output), "")) == title
        }

    def chosen(
        self, excluded: set[int], is_worth: Callable[[Sequence[NodeProto]], bool]
    ) -> set[int]:
        """The nodes of the largest regions that have a convolution, without excluded nodes."""
        inside = self._possible - excluded
        found = [
            part
            for part in self._connected(inside)
            if len(part) >= _LEAST_NODES
            and any(is_operator(self._nodes[index], *_LAYERS) for index in part)
            and is_worth([self._nodes[index] for index in sorted(part)])
        ]
        found.sort(key=lambda part: (-self._weights_in(part), min(part)))
        least = _SMALLEST * self._weights_in(found[0]) if found else 0
        large = [part for part in found if self._weights_in(part) >= least]
        return set[int]().union(*large[:_MOST_REGIONS])

    def _weights_in(self, part: set[int]) -> int:
        """Elements of the weights of a region's convolutions, which tell most of its work."""
        nodes = [self._nodes[index] for index in part]
        layers = [node for node in nodes if is_operator(node, *_LAYERS) and len(node.input) > 1]
        return sum(prod(self._graph.shape(node.input[1]) or ()) for node in layers)

    def pieces(self, inside: set[int]) -> list[Piece]:
        """The pieces in order, with these nodes in regions."""
        levels = self._levels(inside)
        found = []
        for level in range(max(levels.values(), default=0) + 1):
            own = sorted(index for index, at in levels.items() if at == level)
            if own:
                found.append(self._piece(level % 2 == 1, own))
        return found

    def _levels(self, inside: set[int]) -> dict[int, int]:
        levels: dict[int, int] = {}
        for index in self._graph.order:
            if index not in self._static:
                kind = index in inside
                before = (levels[n] + ((n in inside) != kind) for n in self._makers[index])
                levels[index] = max(before, default=int(kind))
        last = max((levels[index] for index in inside), default=0)
        for index in reversed(self._graph.order):
            if index in inside:
                after = (levels[n] - (n not in inside) for n in self._readers[index])
                levels[index] = min(after, default=last)
        return levels

    def _connected(self, inside: set[int]) -> list[set[int]]:
        """The parts of a level that are connected, for nodes in regions."""
        levels, left, found = self._levels(inside), set(inside), list[set[int]]()
        while left:
            part, pending = set[int](), [left.pop()]
            while pending:
                index = pending.pop()
                part.add(index)
                beside = (self._makers[index] | self._readers[index]) & left
                beside = {each for each in beside if levels[each] == levels[index]}
                left -= beside
                pending += beside
            found.append(part)
        return found

    def _piece(self, is_region: bool, own: list[int]) -> Piece:
        """A piece with the nodes of constants and of shapes that it needs."""
        within, pending = set(own), [name for index in own for name in self._graph.needs[index]]
        while pending:
            index = self._graph.producer.get(pending.pop(), -1)
            if index in self._static and index not in within:
                within.add(index)
                pending += self._graph.needs[index]
        nodes = tuple(sorted(within))
        made = {name for index in nodes for name in self._nodes[index].output}
        inputs = dict.fromkeys(
            name
            for index in nodes
            for name in self._graph.needs[index]
            if name not in made and name not in self._stored and name not in self._graph.sparse
        )
        outside = {reader for index in own for reader in self._readers[index]}.difference(own)
        needed = self._outputs.union(*(self._reads[index] for index in outside))
        outputs = [name for index in own for name in self._nodes[index].output if name in needed]
        return Piece(is_region, tuple(own), nodes, tuple(inputs), tuple(outputs))

    def _find_static(self) -> set[int]:
        """Nodes that constants or shapes alone determine, and that programs compute."""
        found, static, operators = set[int](), set(self._stored), static_operators()
        for index in self._graph.order:
            node = self._nodes[index]
            is_of_shape = node.op_type in ("Shape", "Size", "Constant")
            is_of_constants = node.op_type in operators and bool(node.input)
            is_of_constants &= all(name in static for name in node.input if name)
            is_static = (is_of_shape or is_of_constants) and is_operator(node, node.op_type)
            if is_static and self._outputs.isdisjoint(node.output):
                found.add(index)
                static.update(node.output)
        return found

    def _values_read(self, index: int) -> set[str]:
        """The values that a node needs, by way of nodes of constants and of shapes as well."""
        found, pending, seen = set[str](), list(self._graph.needs[index]), set[str]()
        while pending:
            name = pending.pop()
            maker = self._graph.producer.get(name, -1)
            if maker not in self._static:
                if name not in self._stored and name not in self._graph.sparse:
                    found.add(name)
            elif name not in seen:
                seen.add(name)
                pending += self._graph.needs[maker]
        return found

    def _check_needed(self) -> None:
        needed = set(self._outputs)
        for index in reversed(self._graph.order):
            if needed.isdisjoint(self._nodes[index].output):
                raise UnknownOperator("a node whose result nobody reads")
            needed.update(self._graph.needs[index])

    def _is_possible(self, index: int) -> bool:
        """Whether a program may have a node; its sizes say more."""
        node, values = self._nodes[index], self._graph.values
        if not is_operator(node, node.op_type) or any(True for _ in subgraphs_of(node)):
            return False
        for name in (*self._reads[index], *filter(None, node.output)):
            kind = values[name].type.tensor_type.elem_type if name in values else 0
            if kind not in (0, TensorProto.FLOAT):
                return False
        first = _CONSTANT_FROM.get(node.op_type, len(node.input))
        makers = [self._graph.producer.get(name, -1) for name in node.input[first:] if name]
        sources = zip(filter(None, node.input[first:]), makers, strict=True)
        return all(name in self._stored or maker in self._static for name, maker in sources)
