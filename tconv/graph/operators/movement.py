"""Operators that move elements or name sizes: views where they can be, copies elsewhere."""

import math
from collections.abc import Sequence
from itertools import pairwise
from math import prod

import numpy as np

from tconv.graph.graph import Node
from tconv.graph.operators.registry import Writer, axis_of, integers, register, value_of
from tconv.graph.values import Operand, UnknownOperator, Value

__all__: list[str] = []


@register("Shape")
def _shape(_: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x = operands[0]
    assert x is not None
    stop = node.argument("end")
    return [np.array(x.shape[node.argument("start", 0) : stop], np.int64)]


@register("Size")
def _size(_: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    assert operands[0] is not None
    return [np.array(prod(operands[0].shape), np.int64)]


@register("Concat")
def _concat(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    values = [value_of(each) for each in operands if each is not None]
    axis = axis_of(node.argument("axis", 0), values[0].rank, node)
    if any(value.rank != values[0].rank for value in values):
        raise UnknownOperator("Concat of values with other axes")
    shape = list(values[0].shape)
    shape[axis] = sum(value.shape[axis] for value in values)
    y, start = Value.whole(shape), 0
    _note_zeros(writer, operands, axis, y)
    for value in values:
        if value.shape[:axis] + value.shape[axis + 1 :] != (*shape[:axis], *shape[axis + 1 :]):
            raise UnknownOperator("Concat of shapes that do not agree")
        if value.shape[axis]:
            writer.copy(node, value, y.sliced(axis, start, value.shape[axis]))
        start += value.shape[axis]
    return [y]


def _note_zeros(writer: Writer, operands: Sequence[Operand | None], axis: int, y: Value) -> None:
    """Note where a value is joined with zeros on either side."""
    places = [n for n, each in enumerate(operands) if isinstance(each, Value)]
    arrays = [each for each in operands if isinstance(each, np.ndarray)]
    if len(places) == 1 and arrays and not any(array.any() for array in arrays):
        x = operands[places[0]]
        assert isinstance(x, Value)
        begin = sum(array.shape[axis] for array in arrays[: places[0]])
        zeros = [(0, 0)] * y.rank
        zeros[axis] = begin, y.shape[axis] - begin - x.shape[axis]
        writer.padded[y.buffer] = y.shape, x, tuple(zeros)


@register("Reshape")
def _reshape(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, sizes = operands[0], integers(operands[1] if len(operands) > 1 else None, node)
    sizes = node.argument("shape") if sizes is None else sizes
    if not isinstance(x, Value) or sizes is None:
        raise UnknownOperator("Reshape without sizes")
    keeps_zero = node.argument("allowzero", 0)
    shape = [
        x.shape[n] if size == 0 and not keeps_zero and n < x.rank else size
        for n, size in enumerate(sizes)
    ]
    if shape.count(-1) == 1:
        known = -prod(shape)
        shape[shape.index(-1)] = x.size // known if known else 0
    return [_as_shape(writer, node, x, shape)]


@register("Flatten")
def _flatten(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, axis = _value(node, operands), node.argument("axis", 1)
    axis = x.rank if axis == x.rank else axis_of(axis, x.rank, node)
    return [_as_shape(writer, node, x, [prod(x.shape[:axis]), prod(x.shape[axis:])])]


@register("Squeeze")
def _squeeze(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, axes = _value(node, operands), _axes(node, operands)
    if axes is None:
        axes = [n for n, size in enumerate(x.shape) if size == 1]
    dropped = {axis_of(axis, x.rank, node) for axis in axes}
    if any(x.shape[axis] != 1 for axis in dropped):
        raise UnknownOperator("Squeeze of an axis that is longer than 1")
    return [x.transposed([n for n in range(x.rank) if n not in dropped])]


@register("Unsqueeze")
def _unsqueeze(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, axes = _value(node, operands), _axes(node, operands)
    if axes is None:
        raise UnknownOperator("Unsqueeze without axes")
    rank = x.rank + len(axes)
    new = {axis_of(axis, rank, node) for axis in axes}
    if len(new) < len(axes):
        raise UnknownOperator("Unsqueeze of an axis twice")
    own = zip(x.shape, x.strides, strict=True)
    pairs = [(1, 0) if n in new else next(own) for n in range(rank)]
    shape, strides = zip(*pairs, strict=True) if pairs else ((), ())
    return [Value(x.buffer, tuple(shape), tuple(strides), x.offset)]


@register("Transpose")
def _transpose(_: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x = _value(node, operands)
    order = list(node.argument("perm") or range(x.rank)[::-1])
    if sorted(order) != list(range(x.rank)):
        raise UnknownOperator(f"Transpose of {x.rank} axes to {order}")
    return [x.transposed(order)]


@register("Slice")
def _slice(_: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x = _value(node, operands)
    starts, ends, axes, steps = (
        given if given is not None else node.argument(name)
        for given, name in zip(
            [integers(each, node) for each in (*operands[1:], *[None] * 4)[:4]],
            ("starts", "ends", "axes", "steps"),
            strict=True,
        )
    )
    if starts is None or ends is None:
        raise UnknownOperator("Slice without ends")
    axes = axes if axes is not None else list(range(len(starts)))
    for n, axis in enumerate(axes):
        axis = axis_of(axis, x.rank, node)
        step = 1 if steps is None else steps[n]
        first, last, step = slice(starts[n], ends[n], step).indices(x.shape[axis])
        x = x.sliced(axis, first, len(range(first, last, step)), step)
    if not x.size:
        raise UnknownOperator("Slice to an empty value")
    return [x]


@register("Split")
def _split(_: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, axis = _value(node, operands), node.argument("axis", 0)
    sizes = integers(operands[1] if len(operands) > 1 else None, node) or node.argument("split")
    axis, count = axis_of(axis, x.rank, node), len(node.outputs)
    if not sizes:
        each = -(-x.shape[axis] // count)
        sizes = [each] * (count - 1) + [x.shape[axis] - each * (count - 1)]
    if sum(sizes) != x.shape[axis] or min(sizes) < 1 or len(sizes) != count:
        raise UnknownOperator("Split into parts that do not fill the axis")
    starts = np.cumsum([0, *sizes]).tolist()
    return [x.sliced(axis, start, size) for start, size in zip(starts, sizes, strict=False)]


@register("Gather")
def _gather(_: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, indices = _value(node, operands), operands[1]
    axis = axis_of(node.argument("axis", 0), x.rank, node)
    if isinstance(indices, Value) or indices is None or indices.ndim > 1:
        raise UnknownOperator("Gather with indices that are computed")
    wanted = [axis_of(int(each), x.shape[axis], node) for each in indices.ravel()]
    step = wanted[1] - wanted[0] if len(wanted) > 1 else 1
    if not wanted or any(b - a != step for a, b in pairwise(wanted)):
        raise UnknownOperator("Gather of indices that are not evenly apart")
    x = x.sliced(axis, wanted[0], len(wanted), step)
    return [x] if indices.ndim else [x.transposed([n for n in range(x.rank) if n != axis])]


@register("Expand")
def _expand(_: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, sizes = _value(node, operands), integers(operands[1], node)
    assert sizes is not None
    if min(sizes, default=1) < 1:
        raise UnknownOperator(f"Expand to {sizes}")
    shape = np.broadcast_shapes(x.shape, tuple(sizes))
    return [Value(x.buffer, shape, x.broadcast(shape), x.offset)]


@register("DepthToSpace", "SpaceToDepth")
def _shuffle(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    """Move cells of blocks between channels and the spatial axes: a transposition of a view."""
    x, by = _value(node, operands), node.argument("blocksize", 0)
    mode, rank = node.argument("mode", "DCR"), x.rank - 2
    if by < 1 or rank < 1:
        raise UnknownOperator(f"{node.operator} of {x.shape} by {by}")
    channels, sizes, block = x.shape[1], x.shape[2:], by**rank
    if node.operator == "SpaceToDepth":
        if any(size % by for size in sizes):
            raise UnknownOperator(f"SpaceToDepth of {x.shape} by {by}")
        split = [each for size in sizes for each in (size // by, by)]
        offsets = list(range(3, 3 + 2 * rank, 2))
        front = [1, *offsets] if mode == "CRD" else [*offsets, 1]
        order = [0, *front, *range(2, 2 + 2 * rank, 2)]
        shape = [x.shape[0], channels * block, *[size // by for size in sizes]]
        view = writer.contiguous(node, x).reshaped([x.shape[0], channels, *split])
    else:
        if channels % block:
            raise UnknownOperator(f"DepthToSpace of {x.shape} by {by}")
        kept, blocks = channels // block, [by] * rank
        front = [kept, *blocks] if mode == "CRD" else [*blocks, kept]
        first = 2 if mode == "CRD" else 1  # the first offset within a block
        pairs = [each for n in range(rank) for each in (rank + 2 + n, first + n)]
        order = [0, 1 if mode == "CRD" else rank + 1, *pairs]
        shape = [x.shape[0], kept, *[size * by for size in sizes]]
        view = writer.contiguous(node, x).reshaped([x.shape[0], *front, *sizes])
    return [_as_shape(writer, node, view.transposed(order), shape)]


@register("Pad")
def _pad(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, pads, fill, axes = (*operands, *[None] * 3)[:4]
    x = _value(node, [x])
    sizes = integers(pads, node)
    sizes = node.argument("pads") or node.argument("paddings") if sizes is None else sizes
    mode = node.argument("mode", "constant")
    if sizes is None or axes is not None:
        raise UnknownOperator("Pad of some axes, or by sizes that are computed")
    if isinstance(fill, Value):
        raise UnknownOperator("Pad with a value that is computed")
    number = node.argument("value", 0.0) if fill is None or not fill.size else fill.ravel()[0]
    if len(sizes) != 2 * x.rank:
        raise UnknownOperator(f"Pad of {x.rank} axes by {sizes}")
    before, after = sizes[: x.rank], sizes[x.rank :]
    if mode != "constant":
        return [_bordered(writer, node, x, list(zip(before, after, strict=True)), mode)]
    shape = []
    for axis, (begin, end) in enumerate(zip(before, after, strict=True)):
        cut = [max(-begin, 0), max(-end, 0)]
        count = x.shape[axis] - sum(cut)
        shape.append(count + max(begin, 0) + max(end, 0))
        if count < 1:
            raise UnknownOperator("Pad that cuts everything off")
        x = x.sliced(axis, cut[0], count)
    if not any(size > 0 for size in sizes):
        return [x]
    y = Value.whole(shape)
    writer.pad(node, x, y, [max(each, 0) for each in before], np.float32(number))
    return [y]


def _bordered(
    writer: Writer, node: Node, x: Value, pads: Sequence[tuple[int, int]], mode: str
) -> Value:
    """Copy x with a border of its own cells: mirrored, repeated, or from the other end."""
    reach = {"reflect": -1, "wrap": 0, "edge": math.inf}.get(mode, -math.inf)
    for size, pair in zip(x.shape, pads, strict=True):
        if min(pair) < 0 or max(pair) > size + reach:
            raise UnknownOperator(f"Pad of {x.shape} by {list(pads)} in mode {mode}")
    if not any(map(any, pads)):
        return x
    y = Value.whole([size + sum(pair) for size, pair in zip(x.shape, pads, strict=True)])
    part = y
    for axis, (begin, _) in enumerate(pads):
        part = part.sliced(axis, begin, x.shape[axis])
    writer.copy(node, x, part)
    for axis, (begin, end) in enumerate(pads):
        size = x.shape[axis]
        part = y  # with the borders of the axes that are done, and of the others the middle
        for later in range(axis + 1, x.rank):
            part = part.sliced(later, pads[later][0], x.shape[later])
        sources = {
            "reflect": ((2 * begin, begin, -1), (begin + size - 2, end, -1)),
            "wrap": ((size, begin, 1), (begin, end, 1)),
            "edge": ((begin, 1, 1), (begin + size - 1, 1, 1)),
        }[mode]
        for start, count, source in ((0, begin, sources[0]), (begin + size, end, sources[1])):
            if count:
                writer.copy(node, part.sliced(axis, *source), part.sliced(axis, start, count))
    return y


@register("Cast")
def _cast(_: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    if node.argument("to") != 1:  # ONNX's number of float32
        raise UnknownOperator("Cast to another type than float32")
    return [_value(node, operands)]


def _value(node: Node, operands: Sequence[Operand | None]) -> Value:
    x = operands[0]
    if not isinstance(x, Value):
        raise UnknownOperator(f"{node.operator} of a constant")
    return x


def _axes(node: Node, operands: Sequence[Operand | None]) -> list[int] | None:
    given = integers(operands[1] if len(operands) > 1 else None, node)
    found: list[int] | None = node.argument("axes") if given is None else given
    return found


def _as_shape(writer: Writer, node: Node, x: Value, shape: Sequence[int]) -> Value:
    if prod(shape) != x.size or min(shape, default=1) < 1:
        raise UnknownOperator(f"{node.operator} of {x.shape} to {tuple(shape)}")
    return writer.contiguous(node, x).reshaped(shape)
