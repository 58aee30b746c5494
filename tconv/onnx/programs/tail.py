"""Tail of a model as programs: ONNX Runtime computes what comes before, tconv the rest.

The tail is the largest set of nodes that programs can have and on which no other node depends, so
a run is one subgraph of ONNX Runtime and one program. Voices are such models: their text part has
sizes that depend on values, the part that computes sound has not.
"""

from collections.abc import Iterable, Mapping, Sequence
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from onnx import ModelProto, NodeProto, TensorProto

from tconv.graph import Program, UnknownOperator, known_operators, static_operators
from tconv.onnx.front_end import graph_of
from tconv.onnx.loading import LoadedModel, ModelAnalysis
from tconv.onnx.model.nodes import NotPartitionable, is_operator, names_needed
from tconv.onnx.partition.partition import Subgraph
from tconv.onnx.programs.whole import SizedPrograms, program_settings
from tconv.onnx.subgraphs import SubgraphSession, load_subgraph

__all__ = ["TailPrograms"]

_MOST_TRIES = 12  # to find a tail, each without one node more
_LEAST_NODES = 4
_SIZES_FROM = {  # operands from this place on are sizes, axes or weights: constants of a program
    **dict.fromkeys(("Slice", "Reshape", "Pad", "Expand", "Gather", "Resize", "Upsample"), 1),
    **dict.fromkeys(
        ("Unsqueeze", "Squeeze", "Split", "Conv", "ConvTranspose", "MatMul", "Gemm"), 1
    ),
    **dict.fromkeys(("BatchNormalization", "Pow", "Clip", "ReduceMean", "ReduceSum"), 1),
    **dict.fromkeys(("ReduceMax", "ReduceMin"), 1),
}


class _Cut(NamedTuple):
    """The nodes of the tail by index, in order; the values that it reads; the outputs it makes."""

    nodes: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


class TailPrograms(SizedPrograms):
    """A model whose tail is computed by programs.

    Raises
    ------
    UnknownOperator : there is no such tail, with the reason
    ModelError : ONNX Runtime refuses the subgraph before it
    """

    def __init__(self, model: ModelProto, analysis: ModelAnalysis) -> None:
        self._settings = program_settings(model, analysis)
        self._analysis, self._outputs = analysis, [each.name for each in model.graph.output]
        self._given = {value.name for value in model.graph.input}
        self._given -= {tensor.name for tensor in model.graph.initializer}
        excluded = _of_other_types(model, analysis)
        for _ in range(_MOST_TRIES):
            cut = _cut(model, excluded)
            try:
                self.head = self._load_head(model, cut)
            except _WrongType as wrong:
                excluded |= wrong.readers
            else:
                break
        else:
            raise UnknownOperator("no tail whose inputs are of float32")
        nodes = [model.graph.node[index] for index in cut.nodes]
        super().__init__(graph_of(model, nodes, cut.inputs, cut.outputs), self._settings)
        self.nodes, self._inputs, self._made = list(map(_copied, nodes)), cut.inputs, cut.outputs
        assigned = [layer.index for layer in analysis.layers if layer.index in cut.nodes]
        self.loaded = LoadedModel.of_model(model, analysis, self._settings, assigned)

    def _load_head(self, model: ModelProto, cut: _Cut) -> SubgraphSession | None:
        """Load the subgraph before the tail, if there is one."""
        types = {name: value.type for name, value in _known(self._analysis).items()}
        inside = set(cut.nodes)
        before = tuple(n for n in range(len(model.graph.node)) if n not in inside)
        others = [name for name in self._outputs if name not in cut.outputs]
        made = [name for name in cut.inputs if name not in self._given]
        needed, inputs = _needed(model, before, {*made, *others}, self._given)
        outputs = tuple(dict.fromkeys((*made, *[n for n in others if n not in self._given])))
        if not outputs:
            return None
        try:
            head = load_subgraph(model, Subgraph(needed, inputs, outputs), types, self._settings)
        except NotPartitionable as why:
            raise UnknownOperator(str(why)) from None
        wrong = {
            each.name
            for each in head.session.get_outputs()
            if each.name in made and each.type != "tensor(float)"
        }
        if wrong:
            nodes = model.graph.node
            raise _WrongType({n for n in cut.nodes if wrong.intersection(nodes[n].input)})
        return head

    def program(self, feed: Mapping[str, Any]) -> tuple[Program, float]:
        """Return the program for the sizes that a feed leads to, and the time before it.

        Raises
        ------
        UnknownOperator : there is none, with the reason
        ModelError : ONNX Runtime cannot compute the subgraph before the tail
        """
        arrays = self._before(feed, None)[1]  # whose sizes and times of first use differ
        program = self._programs.program(tuple([each.shape for each in arrays]))
        began = perf_counter()
        self._before(feed, None)
        return program, (perf_counter() - began) * 1e6

    def operands(self, feed: Mapping[str, Any]) -> list[Any]:
        """The inputs of the program for a feed."""
        return list(self._before(feed, None)[1])

    def run(self, names: Sequence[str], feed: Mapping[str, Any], options: Any) -> list[Any]:
        """Compute outputs, as ONNX Runtime's session does.

        Raises
        ------
        UnknownOperator : the inputs are other than a program takes
        ModelError : ONNX Runtime cannot compute the subgraph before the tail
        """
        if len(feed) != len(self._given):
            raise UnknownOperator("values for initialisers")
        values, arrays = self._before(feed, options)
        values |= dict(zip(self._made, self._programs(arrays), strict=True))
        return [
            values[name].copy() if name in feed or name in names[:place] else values[name]
            for place, name in enumerate(names)
        ]

    def _before(
        self, feed: Mapping[str, Any], options: Any
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        """The values before the tail, and those that it reads."""
        values = dict(feed)
        if self.head is not None:
            self.head(values, options)
        arrays = [values[name] for name in self._inputs]
        self._check_types(arrays)
        return values, arrays


def _copied(node: NodeProto) -> NodeProto:
    """A copy; a node of a model would keep all of the model in memory."""
    copy = NodeProto()
    copy.CopyFrom(node)
    return copy


class _WrongType(Exception):
    """Nodes of a tail that read values of another type than float32."""

    def __init__(self, readers: set[int]) -> None:
        super().__init__("another type than float32")
        self.readers = readers


def _known(analysis: ModelAnalysis) -> Mapping[str, Any]:
    assert analysis.graph is not None
    return analysis.graph.values


def _cut(model: ModelProto, excluded: set[int]) -> _Cut:
    """Find the tail without nodes that are excluded.

    Raises
    ------
    UnknownOperator : there is none
    """
    nodes, graph = model.graph.node, model.graph
    stored = {tensor.name for tensor in graph.initializer}
    static = _static_values(nodes, stored)
    known = known_operators()
    inside, late = set[int](), {value.name for value in graph.output}
    readers: dict[str, set[int]] = {}
    for index, node in enumerate(nodes):
        for name in node.input:
            readers.setdefault(name, set()).add(index)
    for index in range(len(nodes) - 1, -1, -1):
        node = nodes[index]
        if index in excluded or not _can_be_inside(node, known, static, stored):
            continue
        of_results = [reader for name in node.output for reader in readers.get(name, ())]
        serves = bool(of_results) or bool(late.intersection(node.output))
        if serves and all(reader in inside for reader in of_results):
            inside.add(index)
    made = {name for index in inside for name in nodes[index].output}
    inputs = dict.fromkeys(
        name
        for index in sorted(inside)
        for name in nodes[index].input
        if name and name not in made and name not in stored
    )
    outputs = tuple(dict.fromkeys(value.name for value in graph.output if value.name in made))
    _check_needed(model)
    layers = [n for n in inside if is_operator(nodes[n], "Conv", "ConvTranspose")]
    if not layers or len(inside) < _LEAST_NODES or not outputs:
        raise UnknownOperator("no convolution on which no other operator depends")
    return _Cut(tuple(sorted(inside)), tuple(inputs), outputs)


def _of_other_types(model: ModelProto, analysis: ModelAnalysis) -> set[int]:
    """Nodes whose results are known to be of another type than float32, and follow from values."""
    nodes, known = model.graph.node, _known(analysis)
    static = _static_values(nodes, {tensor.name for tensor in model.graph.initializer})

    def is_other(name: str) -> bool:
        kind = known[name].type.tensor_type.elem_type if name in known else 0
        return name not in static and kind not in (0, TensorProto.FLOAT)

    return {n for n, node in enumerate(nodes) if any(map(is_other, node.output))}


def _check_needed(model: ModelProto) -> None:
    """Refuse nodes that no output depends on: neither side would check them."""
    everything = range(len(model.graph.node))
    needed, _ = _needed(model, everything, {value.name for value in model.graph.output}, set())
    if len(needed) < len(everything):
        raise UnknownOperator("a node whose result nobody reads")


def _can_be_inside(
    node: NodeProto, known: frozenset[str], static: set[str], stored: set[str]
) -> bool:
    if not is_operator(node, node.op_type) or node.op_type not in known | {"Constant"}:
        return False
    first = _SIZES_FROM.get(node.op_type)
    names = [name for name in node.input[first:] if name] if first is not None else []
    return all(name in static or name in stored for name in names)


def _static_values(nodes: Iterable[NodeProto], stored: set[str]) -> set[str]:
    """Values that are constants, or follow from shapes alone."""
    found = set(stored)
    operators = static_operators()
    for node in nodes:
        is_source = node.op_type in ("Shape", "Size", "Constant")
        is_computed = node.op_type in operators and all(
            name in found for name in node.input if name
        )
        if is_source or (is_computed and len(node.input)):
            found.update(node.output)
    return found


def _needed(
    model: ModelProto, before: Sequence[int], wanted: set[str], given: set[str]
) -> tuple[tuple[int, ...], tuple[str, ...]]:
    """The nodes that wanted values depend on, and the inputs of the model among these."""
    nodes, found, names = model.graph.node, list[int](), set(wanted)
    for index in reversed(before):
        if names.intersection(nodes[index].output):
            names.update(names_needed(nodes[index]))
            found.append(index)
    inputs = tuple([value.name for value in model.graph.input if value.name in names & given])
    return tuple(found[::-1]), inputs
