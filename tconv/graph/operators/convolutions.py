"""Convolutions, transposed convolutions, and products with constant matrices."""

from collections.abc import Sequence
from dataclasses import replace
from math import prod

import numpy as np
from numpy.typing import NDArray

from tconv.errors import TConvError
from tconv.geometry.geometry import Geometry, resized
from tconv.geometry.onnx_attributes import ConvAttributes, NodeAttributes
from tconv.graph.graph import Node
from tconv.graph.operators.registry import Writer, register
from tconv.graph.steps import ContractionStep
from tconv.graph.values import Operand, UnknownOperator, Value

__all__: list[str] = []

_KINDS = {"Conv": ConvAttributes, "ConvTranspose": NodeAttributes}


@register(*_KINDS)
def _convolution(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, weight, bias, *_ = (*operands, None)
    if not isinstance(x, Value):
        raise UnknownOperator(f"{node.operator} of a constant")
    weight = writer.weight(node, weight)
    if isinstance(bias, Value):
        raise UnknownOperator(f"{node.operator} with a bias that is computed")
    if bias is not None and bias.dtype != np.float32:
        raise UnknownOperator(f"{node.operator} with a bias of {bias.dtype}")
    try:
        kind, key = _KINDS[node.operator], _pads(node)
        own = writer.once(node, lambda: kind.of(dict(node.attributes)), key)
        x, settings = _without_zeros(writer, x, own)
        geometry = _geometry(writer, node, settings, x, weight, settings is own)
    except TConvError as error:
        raise UnknownOperator(f"{node.operator}: {error}") from None
    shape = geometry.shape_of(settings.want)
    if bias is not None and bias.shape != (shape[1],):
        raise UnknownOperator(f"{node.operator} with a bias of shape {bias.shape}")
    y = Value.whole(shape)
    x = writer.contiguous(node, x)
    writer.steps.append(
        ContractionStep(
            geometry, settings.want, x, weight, bias, y, nodes=[node.name or node.outputs[0]]
        )
    )
    return [y]


def _geometry(
    writer: Writer,
    node: Node,
    settings: NodeAttributes,
    x: Value,
    weight: NDArray[np.float32],
    is_kept: bool,
) -> Geometry:
    """The sizes of a layer; if its padding is the same for all, they follow from known ones."""
    is_kept = is_kept and settings.auto_pad in ("NOTSET", "VALID") and not settings.output_shape
    key = node.outputs[0], "geometry", _pads(node)
    known = writer.kept.get(key) if is_kept else None
    found: Geometry | None = None if known is None else resized(known, settings.reads, x.shape)
    if found is None:
        found = settings.geometry(x.shape, weight.shape)
    if known is None and is_kept and x.size:
        writer.kept[key] = found
    return found


def _pads(node: Node) -> tuple[tuple[int, ...], ...]:
    """What differs between pieces of a layer, at the border of an image and within it."""
    return tuple([tuple(node.argument(name) or ()) for name in ("pads", "output_padding")])


def _without_zeros(
    writer: Writer, x: Value, settings: NodeAttributes
) -> tuple[Value, NodeAttributes]:
    """The value within the zeros that a Pad or Concat put around x, and a padding that has them."""
    shape, inner, zeros = writer.padded.get(x.buffer, ((), x, ()))
    is_it = x.shape == shape and x.is_whole  # another shape of it has the zeros elsewhere
    is_plain = settings.operator == "Conv" and settings.auto_pad == "NOTSET"
    if not zeros or not is_it or not is_plain or any(map(any, zeros[:2])):
        return x, settings
    rank = x.rank - 2
    own = settings.pads or (0,) * (2 * rank)
    if len(own) != 2 * rank or min(own) < 0:
        return x, settings
    begins = [own[n] + zeros[n + 2][0] for n in range(rank)]
    ends = [own[n + rank] + zeros[n + 2][1] for n in range(rank)]
    return inner, replace(settings, pads=tuple(begins + ends))


@register("MatMul")
def _matmul(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, right = operands
    if not isinstance(x, Value):
        raise UnknownOperator("MatMul of a constant on its left")
    weight = writer.weight(node, right)
    if weight.ndim != 2 or x.rank < 2 or x.shape[-1] != weight.shape[0]:
        raise UnknownOperator(f"MatMul of {x.shape} and {weight.shape}")
    return [_product(writer, node, x, weight, None)]


@register("Gemm")
def _gemm(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, right, bias, *_ = (*operands, None)
    scales = node.argument("alpha", 1.0), node.argument("beta", 1.0)
    is_plain = not node.argument("transA", 0) and scales == (1.0, 1.0)
    if not isinstance(x, Value) or isinstance(bias, Value) or not is_plain:
        raise UnknownOperator("Gemm with such operands")
    weight = writer.weight(node, right)
    if node.argument("transB", 0):
        weight = weight.T
    is_float = bias is None or bias.dtype == np.float32
    if not is_float or (x.rank, weight.ndim) != (2, 2) or x.shape[1] != weight.shape[0]:
        raise UnknownOperator(f"Gemm of {x.shape} and {weight.shape}")
    if bias is not None:
        if bias.size not in (1, weight.shape[1]) or bias.shape[-1:] != (bias.size,):
            raise UnknownOperator(f"Gemm with a summand of shape {bias.shape}")
        bias = np.broadcast_to(bias.ravel(), (weight.shape[1],))
    return [_product(writer, node, x, weight, bias)]


def _product(
    writer: Writer, node: Node, x: Value, weight: np.ndarray, bias: np.ndarray | None
) -> Value:
    """X times a matrix: a convolution of images of one cell, whose channels are the columns."""
    *outer, columns = x.shape
    rows, outputs = prod(outer), weight.shape[1]
    x = writer.contiguous(node, x).reshaped((rows, columns, 1))
    geometry = Geometry.of_conv(x.shape, (outputs, columns, 1))
    y = Value.whole((rows, outputs, 1))
    kernel = writer.once(node, lambda: np.ascontiguousarray(weight.T)[:, :, np.newaxis])
    writer.steps.append(
        ContractionStep(geometry, "x", x, kernel, bias, y, nodes=[node.name or node.outputs[0]])
    )
    return y.reshaped((*outer, outputs))
