"""Convolutions of an ONNX model: shapes, floating-point operations, and their share."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from math import prod
from typing import TYPE_CHECKING, Any

from tconv.cli.console import at
from tconv.cli.options import UsageError
from tconv.errors import TConvError, UnsupportedError
from tconv.geometry.onnx_attributes import ConvAttributes, NodeAttributes
from tconv.tables import Column, Table

if TYPE_CHECKING:
    from onnx import ModelProto, NodeProto

    from tconv.onnx.model.model import NodeArg

__all__ = ["ModelLayers", "layer_shapes", "layers_of"]

_ASSUMED = 256  # cells along an axis of free size
_SHORT = {"ConvTranspose": "ConvT"}  # in a table
_RECURRENT = ("LSTM", "GRU", "RNN")
_PRODUCTS = ("MatMul", "Gemm", *_RECURRENT)  # what is counted beside convolutions
Shape = tuple[int, ...]
Shapes = Mapping[str, Shape]


@dataclass(frozen=True)
class ModelLayer:
    """One Conv or ConvTranspose; None for what does not follow from the sizes of the inputs."""

    name: str
    operator: str
    attributes: str
    x_shape: Shape | None
    weight_shape: Shape | None
    y_shape: Shape | None
    flops: int | None
    share: float | None = None


@dataclass(frozen=True)
class ModelInput:
    """An input as declared (a free size is a name or None), and the sizes that were taken."""

    name: str
    declared: tuple[int | str | None, ...]
    taken: Shape


@dataclass(frozen=True)
class ModelLayers:
    """The convolutions of a model, in FLOP of one run; a multiply-add is 2.

    `flops` is the sum of `layers` and `others`: MatMul, Gemm and recurrent layers by operator, of
    which there are `counts`. `uncounted` layers have unknown sizes.
    """

    inputs: tuple[ModelInput, ...]
    layers: tuple[ModelLayer, ...]
    others: dict[str, int]
    counts: dict[str, int]
    flops: int
    uncounted: int

    def parts(self) -> tuple[str | Table, ...]:
        """A table of layers; without any a sentence."""
        if not self.layers:
            return ("the model has no Conv and no ConvTranspose",)
        columns = (
            Column("layer", folds=True),
            Column("op"),
            Column("x"),
            Column("weight"),
            Column("y"),
            Column("MFLOP", right=True),
            Column("share", right=True),
        )
        rows: list[tuple[str, ...]] = [
            (
                each.name,
                _SHORT.get(each.operator, each.operator),
                *map(_sizes, (each.x_shape, each.weight_shape, each.y_shape)),
                *_cost(each.flops, self.flops),
            )
            for each in self.layers
        ]
        for operator, flops in self.others.items():
            name = f"{self.counts[operator]} {operator}"
            rows.append((name, "", "", "", "", *_cost(flops or None, self.flops)))
        return (Table(columns, tuple(rows), "\n".join(self._notes())),)

    def _notes(self) -> Iterator[str]:
        kinds = []
        for operator in dict.fromkeys(each.operator for each in self.layers):
            costs = [each.flops for each in self.layers if each.operator == operator]
            known = [flops for flops in costs if flops is not None]
            share = _cost(sum(known), self.flops)[1] if len(known) == len(costs) else "–"
            short = f" ({_SHORT[operator]})" if operator in _SHORT else ""
            kinds.append(f"{len(costs)} {operator}{short}: {share}")
        total = f"{_millions(self.flops)} MFLOP in all, a multiply-add is 2"
        yield " · ".join([*kinds, total])
        free = [each for each in self.inputs if each.declared != each.taken]
        if free:
            taken = ", ".join(f"{each.name} {_sizes(each.taken)}" for each in free)
            declared = ", ".join(f"{each.name} {_sizes(each.declared)}" for each in free)
            yield f"sizes are free: {declared}; taken: {taken}; --size HxW sets them"
        if self.uncounted:
            them = "1 node has" if self.uncounted == 1 else f"{self.uncounted} nodes have"
            yield f"{them} sizes that do not follow from the inputs': shares are of the others"

    def as_dict(self) -> dict[str, Any]:
        """The layers as plain values."""
        return asdict(self)


def layers_of(path: str, size: Sequence[int] | None) -> ModelLayers:
    """Find the convolutions of a model, with a batch of 1 and `size` where sizes are free.

    Raises
    ------
    ModelError, OSError : the model cannot be read
    UnsupportedError : only ONNX Runtime can read it
    UsageError : `size` does not go with the model's inputs
    """
    from tconv.onnx.model.model import as_source, node_arg, read_model
    from tconv.onnx.model.nodes import NotPartitionable, all_nodes, is_operator, name_of
    from tconv.onnx.model.shape_inference import infer_shapes, strip_weights

    with at(f"model {path!r}"):
        try:
            model = strip_weights(read_model(as_source(path), weights=False))
        except NotPartitionable as why:
            raise UnsupportedError(
                f"only ONNX Runtime can read the model ({why}); export it as .onnx, with its "
                "weights in other files if it is large."
            ) from None
    stored = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    declared = [node_arg(value) for value in model.graph.input if value.name not in stored]
    inputs = [
        ModelInput(each.name, tuple(each.shape), _taken(each.shape, size, _channels(model, each)))
        for each in declared
        if each.has_rank
    ]
    _check_size(inputs, size)
    shapes = infer_shapes(model, {each.name: each.taken for each in inputs}, {})
    layers, others, counts = [], Counter[str](), Counter[str]()
    uncounted = 0
    for node, place in all_nodes(model):
        if is_operator(node, "Conv", "ConvTranspose"):
            name = f"{name_of(node)} ({place})" if place else name_of(node)
            layers.append(_layer(name, node, shapes))
            uncounted += layers[-1].flops is None
        elif is_operator(node, *_PRODUCTS):
            flops = _product_flops(node, shapes)
            uncounted += flops is None
            others[node.op_type] += flops or 0
            counts[node.op_type] += 1
    total = sum(each.flops or 0 for each in layers) + sum(others.values())
    return ModelLayers(
        tuple(inputs),
        tuple(
            ModelLayer(**{**asdict(each), "share": _share(each.flops, total)}) for each in layers
        ),
        dict(others),
        dict(counts),
        total,
        uncounted,
    )


def layer_shapes(path: str, given: Shapes) -> dict[str, tuple[Shape | None, ...]]:
    """Shapes of x, weight and y of every convolution, by the name of its output.

    `given` has the shapes of the inputs. Empty if only ONNX Runtime can read the model.
    """
    from tconv.onnx.model.model import as_source, read_model
    from tconv.onnx.model.nodes import NotPartitionable, is_operator
    from tconv.onnx.model.shape_inference import infer_shapes, strip_weights

    try:
        model = strip_weights(read_model(as_source(path), weights=False))
    except NotPartitionable:
        return {}
    shapes = infer_shapes(model, given, {})
    nodes = [node for node in model.graph.node if is_operator(node, "Conv", "ConvTranspose")]
    return {name: _operands(node, shapes) for node in nodes for name in node.output[:1]}


def _operands(node: "NodeProto", shapes: Shapes) -> tuple[Shape | None, Shape | None, Shape | None]:
    """Shapes of the first two operands and of the result, which a damaged node may lack."""
    first, second = [*map(str, node.input), "", ""][:2]
    return shapes.get(first), shapes.get(second), shapes.get(next(iter(node.output), ""))


def _layer(name: str, node: "NodeProto", shapes: Shapes) -> ModelLayer:
    x, weight, y = _operands(node, shapes)
    text, is_conv = "", node.op_type == "Conv"
    with suppress(TConvError):
        text = str((ConvAttributes if is_conv else NodeAttributes).of_node(node))
    cells = y if is_conv else x  # each meets every tap of the weight
    flops = 2 * prod(cells) * prod(weight[1:]) if cells and weight else None
    return ModelLayer(name, node.op_type, text, x, weight, y, flops)


def _product_flops(node: "NodeProto", shapes: Shapes) -> int | None:
    """FLOP of a product of matrices, or of a recurrent layer."""
    a, b, y = _operands(node, shapes)
    if not a or not b:
        return None
    if node.op_type in _RECURRENT:  # x (time, batch, features), weights, recurrent weights
        recurrent = next(map(shapes.get, node.input[2:3]), None)
        return 2 * a[0] * a[1] * (prod(b) + prod(recurrent)) if recurrent and a[1:] else None
    transposed = any(each.name == "transA" and each.i for each in node.attribute)
    return None if y is None else 2 * prod(y) * a[0 if transposed else -1]


# ---- sizes of inputs -----------------------------------------------------------------------------


def _taken(
    declared: Sequence[int | str | None], size: Sequence[int] | None, channels: int | None
) -> Shape:
    """Sizes with one sample in the batch, and `size` or a default along free axes.

    `channels` are those of axis 1, None if that is an axis like the others.

    >>> _taken(("N", 3, "H", "W"), (64, 48), 3), _taken(("N", "T", 80), None, None)
    ((1, 3, 64, 48), (1, 256, 80))
    """
    sizes = [_ASSUMED] if size is None else list(size)
    sizes = sizes * len(declared) if len(sizes) == 1 else sizes + [_ASSUMED] * len(declared)
    free = [1, *sizes] if channels is None else [1, channels, *sizes]
    return tuple(
        n if isinstance(n, int) else other for n, other in zip(declared, free, strict=False)
    )


def _channels(model: "ModelProto", declared: "NodeArg") -> int | None:
    """Channels of an input: as declared, by the first convolution that reads it, or of a photo."""
    if len(declared.shape) < 3:
        return None
    if isinstance(declared.shape[1], int):
        return declared.shape[1]
    weights = {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
    for node in model.graph.node:
        name, weight = [*map(str, node.input), "", ""][:2]
        if node.op_type in ("Conv", "ConvTranspose") and name == declared.name:
            shape = weights.get(weight, ())
            group = next((each.i for each in node.attribute if each.name == "group"), 1)
            if len(shape) > 2:
                return int(shape[0] if node.op_type == "ConvTranspose" else shape[1] * group)
    return 3 if len(declared.shape) > 3 else None


def _check_size(inputs: Sequence[ModelInput], size: Sequence[int] | None) -> None:
    """Refuse a `--size` that no input takes, or that an input contradicts."""
    if size is None:
        return
    spatial = [
        (each, each.declared[2:] if len(each.declared) > 2 else each.declared[1:])
        for each in inputs
    ]
    free = [
        (each, sizes)
        for each, sizes in spatial
        if any(not isinstance(n, int) for n in sizes) and len(size) in (1, len(sizes))
    ]
    given = "x".join(map(str, size))
    if min(size) < 1:
        raise UsageError(f"--size {given} is no size", "option --size", "write --size 256x256, say")
    if not free:
        listed = ", ".join(f"{each.name} {_sizes(each.declared)}" for each in inputs) or "nothing"
        raise UsageError(
            f"--size {given} fits no input with free sizes, the model takes {listed}",
            "option --size",
            "leave it out, or give one number for each free axis after the channels",
        )
    for each, sizes in free:
        wanted = size if len(size) > 1 else [*size] * len(sizes)
        for n, (own, other) in enumerate(zip(sizes, wanted, strict=True)):
            if isinstance(own, int) and own != other and len(size) > 1:
                fit = [m if isinstance(m, int) else k for m, k in zip(sizes, wanted, strict=True)]
                raise UsageError(
                    f"--size {given} differs from input {each.name} {_sizes(each.declared)} on "
                    f"axis {n}",
                    "option --size",
                    f"write --size {'x'.join(map(str, fit))}",
                )


# ---- texts ---------------------------------------------------------------------------------------


def _sizes(shape: Sequence[int | str | None] | None) -> str:
    return "–" if shape is None else "×".join(str(n or "?") for n in shape) or "scalar"


def _share(flops: int | None, total: int) -> float | None:
    return None if flops is None or not total else flops / total


def _cost(flops: int | None, total: int) -> tuple[str, str]:
    """Millions of operations, and their share."""
    share = _share(flops, total)
    if flops is None or share is None:
        return "–", "–"
    return _millions(flops), f"{100 * share:.1f} %"


def _millions(flops: int) -> str:
    """Millions with two digits that count.

    >>> _millions(1_207_960_000), _millions(2700)
    ('1,207.96', '0.0027')
    """
    return f"{flops / 1e6:,.2f}" if flops >= 1e6 else f"{flops / 1e6:.2g}"
