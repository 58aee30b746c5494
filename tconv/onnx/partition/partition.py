"""WHERE A MODEL IS CUT: which of its nodes tconv computes, and the pieces that lie between them.

A value has *depth* d if d of tconv's nodes lie on the longest way to it. Piece d is made of the
nodes whose inputs have at most depth d; after it come tconv's nodes of depth d. Nodes that need
nothing but constants belong to every piece that uses them, so that ONNX Runtime folds them there.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from graphlib import CycleError, TopologicalSorter

import onnx
from onnx import (
    ModelProto,
    NodeProto,
    TensorProto,
    ValueInfoProto,
)

from tconv.errors import TConvError
from tconv.geometry.onnx_attributes import ConvAttributes, NodeAttributes
from tconv.onnx.model.nodes import (
    NotCut,
    is_transposed,
    name_of,
    names_needed,
    subgraphs_of,
    type_name,
)
from tconv.onnx.model.shape_inference import fixed_shape, inferred
from tconv.onnx.partition.fusion import NO_FOLLOWERS, Followers, find_followers

__all__ = [
    "TAKEN_TYPES",
    "Cut",
    "Graph",
    "Layer",
    "Piece",
    "fixed_sizes",
    "is_computed",
    "layers_of",
]

TAKEN_TYPES = (TensorProto.FLOAT, TensorProto.DOUBLE, TensorProto.FLOAT16)
_CHANGING = frozenset(  # nodes that may give something else every time
    {"Bernoulli", "Dropout", "Multinomial", "RandomNormal", "RandomNormalLike"}
    | {"RandomUniform", "RandomUniformLike"}
)
_OPSET_OF_NORMALISATION = 9  # before, BatchNormalization had forms that are no more


@dataclass(frozen=True)
class Layer:
    """One ConvTranspose, or Conv that tconv computes, on the top level of a model.

    `inputs` are the names of x, weight and bias, "" for none; `reason` says why ONNX Runtime
    computes it and is "" where tconv does; `followers` are nodes that it computes as well.
    """

    name: str
    index: int
    settings: NodeAttributes
    inputs: tuple[str, str, str]
    output: str
    reason: str = ""
    followers: Followers = NO_FOLLOWERS

    @property
    def result(self) -> str:
        """What it makes of x, with all that follows."""
        return self.followers.result or self.output

    @property
    def needs(self) -> tuple[str, ...]:
        """The names of all that it is made of."""
        more = (name for node in self.followers.affine for name in node.operands)
        return (*filter(None, self.inputs), *more)


@dataclass(frozen=True)
class Piece:
    """Nodes for ONNX Runtime by their indices, what goes in, and what others need of it."""

    nodes: tuple[int, ...]
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]


@dataclass(frozen=True)
class Cut:
    """What is computed one after the other: piece 0, layers of depth 0, piece 1, and so on.

    `folded` makes what the layers need of constants alone, once for all runs. `values` holds type
    and shape of what goes between, as far as inference can tell.
    """

    folded: Piece
    pieces: tuple[Piece, ...]
    layers: tuple[tuple[Layer, ...], ...]
    values: dict[str, ValueInfoProto]


def is_computed(node: NodeProto, values: Mapping[str, ValueInfoProto]) -> bool:
    """Whether tconv may compute a node: a ConvTranspose, or a Conv where ONNX Runtime has none.

    That is a Conv of float64; `values` tells what types are known.
    """
    if node.op_type != "Conv" or node.domain not in ("", "ai.onnx"):
        return is_transposed(node)
    known = (values.get(name, ValueInfoProto()) for name in node.input[:2])
    return any(each.type.tensor_type.elem_type == TensorProto.DOUBLE for each in known)


def layers_of(model: ModelProto, values: Mapping[str, ValueInfoProto] | None = None) -> list[Layer]:
    """Every node on the top level that `is_computed`, with a reason where it breaks its rules."""
    layers, known = [], values or {}
    for index, node in enumerate(model.graph.node):
        if is_computed(node, known):
            kind = NodeAttributes if is_transposed(node) else ConvAttributes
            settings, reason = kind(), ""
            try:
                settings = kind.of_node(node)
            except TConvError as error:
                reason = f"attributes refused: {error}"
            inputs, outputs = [*node.input, "", "", ""], [*node.output, ""]
            x, weight, bias = inputs[:3]
            if not (x and weight and outputs[0]) or any(inputs[3:]) or any(outputs[1:]):
                reason = "not two or three inputs and one output"
            operands = (x, weight, bias)
            layers.append(Layer(name_of(node), index, settings, operands, outputs[0], reason))
    return layers


def fixed_sizes(
    model: ModelProto,
) -> list[tuple[Layer, str, tuple[int, ...] | None, tuple[int, ...] | None]]:
    """Every layer on the top level with its type, and the shapes that are known before."""
    graph = Graph(model)
    found = []
    for layer in map(graph.followed, graph.layers):
        x, weight, _ = layer.inputs
        value = graph.values.get(x, ValueInfoProto())
        kind = value.type.tensor_type.elem_type
        dtype = {10: "float16", 11: "float64"}.get(int(kind), "float32")  # numbers of TensorProto
        found.append((layer, dtype, fixed_shape(value), graph.shape(weight)))
    return found


class Graph:
    """Who makes and who needs each value on the top level of a model.

    `layers` has every node that tconv may compute, with the reason if it is ONNX Runtime's.

    Raises
    ------
    NotCut : the model cannot be divided
    """

    def __init__(self, model: ModelProto) -> None:
        self.nodes = list(model.graph.node)
        self._check_head(model)
        self.inputs = {value.name for value in model.graph.input}
        self.outputs = list(dict.fromkeys(value.name for value in model.graph.output))
        self.sparse = {tensor.values.name for tensor in model.graph.sparse_initializer}
        stored = {tensor.name for tensor in model.graph.initializer} | self.sparse
        if model.ir_version < 4:  # where every initialiser had to be listed as an input as well
            self.inputs -= stored
        self.constants = stored - self.inputs
        self.functions = {(function.domain, function.name) for function in model.functions}
        self.needs = [tuple(dict.fromkeys(names_needed(node))) for node in self.nodes]
        self.maker = self._makers()
        self.readers: dict[str, list[int]] = {}
        for index, needs in enumerate(self.needs):
            for name in needs:
                self.readers.setdefault(name, []).append(index)
        self.order = self._order()
        self.values = inferred(model)
        layers = layers_of(model, self.values)
        self.static = self._static({layer.index for layer in layers})
        self.shapes = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
        self.layers = [self._layer(layer) for layer in layers]

    def _check_head(self, model: ModelProto) -> None:
        """Leave it to ONNX Runtime to judge what this onnx cannot know, and what is unsound."""
        opsets = {opset.domain or "ai.onnx": opset.version for opset in model.opset_import}
        self.opset = opset = opsets.get("ai.onnx", 0)
        if not 1 <= opset <= onnx.defs.onnx_opset_version() or model.ir_version > onnx.IR_VERSION:
            raise NotCut(f"opset {opset}, IR version {model.ir_version}")
        names = set()
        for value in model.graph.input:
            if value.name in names or value.type.WhichOneof("value") is None:
                raise NotCut(f"input {value.name!r} has no type or is there twice")
            names.add(value.name)

    def _makers(self) -> dict[str, int]:
        makers: dict[str, int] = {}
        for index, node in enumerate(self.nodes):
            for name in filter(None, node.output):
                if name in makers or name in self.inputs or name in self.constants:
                    raise NotCut(f"{name!r} is made twice")
                makers[name] = index
        needed = {name for needs in (*self.needs, self.outputs) for name in needs}
        for name in sorted(needed - makers.keys() - self.inputs - self.constants):
            raise NotCut(f"nothing makes {name!r}")
        return makers

    def _order(self) -> tuple[int, ...]:
        try:
            return tuple(
                TopologicalSorter(
                    {index: self._makers_of(needs) for index, needs in enumerate(self.needs)}
                ).static_order()
            )
        except CycleError:
            raise NotCut("its nodes form a circle") from None

    def _makers_of(self, names: Iterable[str]) -> set[int]:
        return {self.maker[name] for name in names if name in self.maker}

    def _static(self, layers: set[int]) -> set[int]:
        """Nodes beside layers that need nothing but constants and make the same every time."""
        found: set[int] = set()
        for index in self.order:
            node, needs = self.nodes[index], self.needs[index]
            if (
                index not in layers
                and node.op_type not in _CHANGING
                and (node.domain, node.op_type) not in self.functions
                and not any(True for _ in subgraphs_of(node))
                and self.inputs.isdisjoint(needs)
                and self._makers_of(needs) <= found
            ):
                found.add(index)
        return found

    def _layer(self, layer: Layer) -> Layer:
        """Add what follows, or the reason if ONNX Runtime is to compute it."""
        x, weight, bias = layer.inputs
        kind = self.values.get(x, ValueInfoProto()).type.tensor_type.elem_type
        reason = layer.reason
        if kind and kind not in TAKEN_TYPES:
            reason = f"type {type_name(kind)}"
        elif self.sparse & {weight, bias}:
            reason = "sparse weight"
        return replace(layer, reason=reason) if reason else self.followed(layer)

    def followed(self, layer: Layer) -> Layer:
        """Add the nodes that may become part of it."""
        shape, groups, want = self.shape(layer.inputs[1]), layer.settings.group, layer.settings.want
        kind = self.values.get(layer.inputs[1], ValueInfoProto()).type.tensor_type.elem_type
        # Rounded to half precision once more, weights would not be those of the model.
        folds = shape is not None and len(shape) > 2 and shape[0] % groups == 0
        folds = folds and kind in (TensorProto.FLOAT, TensorProto.DOUBLE)
        folds = folds and self.opset >= _OPSET_OF_NORMALISATION
        folds = folds and all(map(self._is_constant, filter(None, layer.inputs[1:])))

        channels = 0 if not shape else shape[1] * groups if want == "y" else shape[0]

        def is_vector(name: str) -> bool:
            return self.shape(name) == (channels,) and self._is_constant(name)

        def is_per_channel(name: str) -> bool:
            other = self.shape(name)
            if shape is None or other is None or not self._is_constant(name):
                return False
            most = (1, channels, *[1] * (len(shape) - 2))[::-1]
            return len(other) <= len(most) and all(
                size in (1, along) for size, along in zip(other[::-1], most, strict=False)
            )

        found = find_followers(
            layer.output, self._only_reader, is_vector if folds else None, is_per_channel
        )
        return replace(layer, followers=found)

    def _only_reader(self, name: str) -> tuple[int, NodeProto] | None:
        readers = self.readers.get(name, [])
        if len(readers) != 1 or name in self.outputs:
            return None
        node = self.nodes[readers[0]]
        is_read_once = list(node.input).count(name) == 1
        is_its_own = (node.domain, node.op_type) in self.functions
        return (readers[0], node) if is_read_once and not is_its_own else None

    def _is_constant(self, name: str) -> bool:
        is_stored = name in self.constants and name not in self.sparse
        return is_stored or self.maker.get(name) in self.static

    def shape(self, name: str) -> tuple[int, ...] | None:
        """All sizes of a value, if they are known."""
        return self.shapes.get(name) or fixed_shape(self.values.get(name))

    def divide(self, layers: Iterable[Layer]) -> Cut:
        """Put every node into a stage by its depth, and make a piece of each stage.

        `layers` are those that tconv computes, one at least.
        """
        taken = {layer.index: layer for layer in layers}
        within = {index for layer in taken.values() for index in layer.followers.nodes}
        makers_here = self.maker | {layer.result: index for index, layer in taken.items()}
        depth: dict[int, int] = {}
        for index in filter(lambda index: index not in within, self.order):
            makers = {makers_here[name] for name in self.needs[index] if name in makers_here}
            depth[index] = max((depth[made] + (made in taken) for made in makers), default=0)
        stages: list[list[int]] = [[] for _ in range(max(depth.values()) + 1)]
        for index in sorted(depth.keys() - taken.keys() - self.static):
            stages[depth[index]].append(index)

        outside = {name for layer in taken.values() for name in layer.needs}
        folded = sorted(name for name in outside if self.maker.get(name) in self.static)
        outside |= set(self.outputs)
        pieces = []
        for d, stage in enumerate(stages):
            others = (self.needs[i] for n, other in enumerate(stages) if n != d for i in other)
            needed = outside.union(*others)
            made = [name for i in stage for name in self.nodes[i].output if name in needed]
            if stage and not made:  # nobody needs it, but ONNX Runtime would compute it too
                made = [next(filter(None, self.nodes[stage[-1]].output))]
            if d == 0:  # results that depend on no input
                made += [name for name in self.outputs if self.maker.get(name) in self.static]
            pieces.append(self._piece(stage, made))
        by_depth = [
            tuple(taken[i] for i in sorted(taken) if depth[i] == d) for d in range(len(pieces))
        ]
        return Cut(self._piece([], folded), tuple(pieces), tuple(by_depth), self.values)

    def _piece(self, stage: list[int], outputs: list[str]) -> Piece:
        """The nodes of a stage and the static ones that they or the outputs lean on."""
        within = set(stage)
        leaning = [*outputs, *(name for index in stage for name in self.needs[index])]
        while leaning:
            index = self.maker.get(leaning.pop())
            if index in self.static and index not in within:
                within.add(index)
                leaning += self.needs[index]
        needed = {name for index in within for name in self.needs[index]}
        own = {name for index in within for name in self.nodes[index].output}
        return Piece(
            tuple(sorted(within)), tuple(sorted(needed - own - self.constants)), tuple(outputs)
        )
