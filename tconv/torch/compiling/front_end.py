"""Graphs of regions: PyTorch's functional operators as nodes of ONNX's operators."""

from collections.abc import Mapping, Sequence
from importlib import import_module
from operator import getitem as _getitem
from typing import Any

import torch
from numpy.typing import NDArray
from torch.fx import GraphModule
from torch.fx import Node as FxNode

from tconv.arrays.dtypes import dtype_name
from tconv.graph import Graph, Input, Node, UnknownOperator
from tconv.torch.compiling.translation import TRANSLATORS, Translator

__all__ = ["RegionGraph", "region_graph", "translates"]

for _part in ("elementwise", "layers", "movement"):
    import_module(f"tconv.torch.compiling.{_part}")


class RegionGraph:
    """A region as a graph, and how the integers of a call give the sizes that its nodes read.

    Attributes
    ----------
    graph : Graph, whose constants are the weights
    """

    def __init__(self, graph: Graph, sizes: Sequence[Sequence[int | str]]) -> None:
        self.graph, self._sizes = graph, sizes

    def sizes_of(self, numbers: Mapping[str, int]) -> tuple[tuple[int, ...], ...]:
        """The values of `graph.sizes`, where integers have these values by name."""
        return tuple(
            [
                tuple([numbers[each] if isinstance(each, str) else each for each in operand])
                for operand in self._sizes
            ]
        )


def translates(node: FxNode) -> bool:
    """Whether there is a translation for a node's operator."""
    if node.op != "call_function":
        return False
    if node.target is not _getitem:
        return _name(node) in TRANSLATORS
    source, place = node.args
    return isinstance(source, FxNode) and translates(source) and isinstance(place, int)


def region_graph(
    module: GraphModule, constants: Mapping[str, NDArray[Any]], numbers: Sequence[str]
) -> RegionGraph:
    """Translate a region.

    Parameters
    ----------
    module : the region as PyTorch computes it
    constants : arrays of its inputs that are weights, by name
    numbers : names of its inputs that are integers

    Raises
    ------
    UnknownOperator : no program has such a node; its name is in the error
    """
    translator, inputs = Translator(constants), list[Input]()
    outputs: list[str] = []
    for node in module.graph.nodes:
        if node.op == "placeholder":
            if node.name in numbers:
                translator.integers.add(node)
            elif node.name not in constants:
                inputs.append(Input(node.name, dtype_name(node.meta["val"].dtype)))
        elif node.op == "output":
            found = node.args[0]
            results = found if isinstance(found, (tuple, list)) else (found,)
            outputs += [translator.read(each) for each in results]
        else:
            _translate(translator, node)
    nodes, outputs = _named(translator.nodes, outputs)
    graph = Graph(
        tuple(inputs), tuple(outputs), nodes, translator.constants, tuple(translator.sizes)
    )
    return RegionGraph(graph, tuple(translator.sizes.values()))


def _translate(translator: Translator, node: FxNode) -> None:
    if node.target is _getitem:
        source, place = node.args
        translator.take_result(node, source, place)
        return
    given = _arguments(node)
    translator.begin(node)
    try:
        TRANSLATORS[_name(node)](translator, **given)
    except UnknownOperator as why:
        raise UnknownOperator(f"{_name(node)}: {why}", node.name) from None


def _arguments(node: FxNode) -> dict[str, Any]:
    """All arguments of a node by their names in the operator's schema."""
    schema = node.target._schema  # type: ignore[union-attr]
    found: dict[str, Any] = {}
    for n, each in enumerate(schema.arguments):
        name = "x" if each.name in ("self", "input") else each.name
        if n < len(node.args):
            found[name] = node.args[n]
        elif each.name in node.kwargs:
            found[name] = node.kwargs[each.name]
        else:
            found[name] = each.default_value
    return found


def _name(node: FxNode) -> str:
    """The name of an operator without its namespace, as "relu.default"."""
    target = node.target
    if not isinstance(target, torch._ops.OpOverload) or target.namespace not in ("aten", "tconv"):
        return ""
    return str(target).partition(".")[2]


def _named(nodes: Sequence[Node], outputs: Sequence[str]) -> tuple[tuple[Node, ...], list[str]]:
    """Let each output have a node of its own that makes it, which no other output names."""
    made = {name for node in nodes for name in node.outputs}
    found, names = list(nodes), list[str]()
    for number, name in enumerate(outputs):
        if name not in made or name in names:
            found.append(Node("Identity", (name,), (f"{name}.out{number}",), {}, name))
            name = f"{name}.out{number}"
        names.append(name)
    return tuple(found), names
