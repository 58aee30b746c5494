"""Resampling: cells repeated, or interpolated by a transposed convolution."""

from collections.abc import Sequence
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from tconv.geometry.geometry import Geometry
from tconv.graph.graph import Node
from tconv.graph.operators.registry import Writer, register
from tconv.graph.steps import ContractionStep
from tconv.graph.values import Operand, UnknownOperator, Value

__all__: list[str] = []


@register("Resize", "Upsample")
def _resize(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, *more = operands
    mode = node.argument("mode", "nearest")
    if not isinstance(x, Value) or mode not in ("nearest", "linear"):
        raise UnknownOperator(f"{node.operator} in mode {mode}")
    times = _times(node, x, more)
    if times[:2] != [1, 1] or x.rank < 3:
        raise UnknownOperator(f"{node.operator} of channels")
    if mode == "linear":
        return [_linear(writer, node, x, times)]
    return [_nearest(writer, node, x, times)]


def _nearest(writer: Writer, node: Node, x: Value, times: Sequence[int]) -> Value:
    """Repeat each cell: a view of the result has an axis for the repeats of every axis but one."""
    x = writer.contiguous(node, x)
    shape = [size * by for size, by in zip(x.shape, times, strict=True)]
    y = Value.whole(shape)
    split, single = list(x.shape[:2]), list(x.shape[:2])
    for size, by in zip(x.shape[2:-1], times[2:-1], strict=True):
        split += [size, by]
        single += [size, 1]
    to = y.reshaped([*split, shape[-1]])
    writer.loop(node, [], [x.reshaped([*single, x.shape[-1]])], to, [times[-1]])
    return y


def _linear(writer: Writer, node: Node, x: Value, times: Sequence[int]) -> Value:
    """Interpolate: a transposed convolution of each channel by triangles that overlap.

    The cells at the rim are repeated once, as a grid of cells' middles clamps them.
    """
    rank = x.rank - 2
    if x.rank > 5:
        raise UnknownOperator(f"{node.operator} of {rank} axes")
    sizes = [size + 2 * (by > 1) for size, by in zip(x.shape[2:], times[2:], strict=True)]
    rim = Value.whole((*x.shape[:2], *sizes))
    _repeat_rim(writer, node, x, rim)
    channels = x.shape[1]
    weight = _triangles(channels, tuple(times[2:]))
    crops = [(3 * by - by % 2) // 2 if by > 1 else 0 for by in times[2:]]
    geometry = Geometry.of(
        rim.shape,
        weight.shape,
        stride=tuple(times[2:]),
        padding=tuple([(crop, crop) for crop in crops]),
        output_size=tuple([n * by for n, by in zip(x.shape[2:], times[2:], strict=True)]),
        groups=channels,
    )
    y = Value.whole(geometry.y_shape)
    step = ContractionStep(geometry, "y", rim, weight, None, y, nodes=[node.name or node.operator])
    writer.steps.append(step)
    return y


@lru_cache(maxsize=64)
def _triangles(channels: int, times: tuple[int, ...]) -> NDArray[np.float32]:
    """The weight that interpolates each channel; one array, of which packed weights are kept."""
    kernel = np.ones(())
    for by in times:
        kernel = np.multiply.outer(kernel, _triangle(by))
    return np.repeat(kernel[np.newaxis, np.newaxis], channels, 0).astype(np.float32)


def _triangle(by: int) -> np.ndarray:
    """How much of a cell each of the cells around it gets."""
    if by == 1:
        return np.ones(1)
    count = 2 * by - by % 2
    return np.asarray(1 - np.abs(np.arange(count) - (count - 1) / 2) / by)


def _repeat_rim(writer: Writer, node: Node, x: Value, y: Value) -> None:
    """Copy x into the middle of y, and its outermost cells around it, axis by axis."""
    part = y
    grown = [n for n in range(x.rank) if y.shape[n] > x.shape[n]]
    for axis in grown:
        part = part.sliced(axis, 1, x.shape[axis])
    writer.copy(node, x, part)
    for place, axis in enumerate(grown):
        part = y  # with what is there by now: the rims of the axes before
        for later in grown[place + 1 :]:
            part = part.sliced(later, 1, x.shape[later])
        last = x.shape[axis]
        for start, source in ((0, 1), (last + 1, last)):
            writer.copy(node, part.sliced(axis, source, 1), part.sliced(axis, start, 1))


def _times(node: Node, x: Value, more: Sequence[Operand | None]) -> list[int]:
    """How often each cell is repeated along each axis; the grid convention must allow it."""
    scales, sizes = node.argument("scales"), None
    numbers = [each for each in more if isinstance(each, np.ndarray) and each.size == x.rank]
    if any(isinstance(each, Value) for each in more):
        raise UnknownOperator(f"{node.operator} with sizes that are computed")
    if numbers:
        last = numbers[-1]
        scales, sizes = (last.tolist(), None) if last.dtype.kind == "f" else (None, last.tolist())
    if sizes is not None:
        scales = [size / own for size, own in zip(sizes, x.shape, strict=True)]
    if scales is None or len(scales) != x.rank or any(by != int(by) or by < 1 for by in scales):
        raise UnknownOperator(f"{node.operator} by {scales}")
    times = [int(by) for by in scales]
    is_old = node.operator == "Upsample" or node.argument("version", 11) < 11
    how = node.argument("coordinate_transformation_mode", "half_pixel")
    how = "asymmetric" if is_old else how
    rounded = "floor" if is_old else node.argument("nearest_mode", "round_prefer_floor")
    if node.argument("mode", "nearest") == "linear":
        if how not in ("half_pixel", "pytorch_half_pixel") or node.argument("antialias", 0):
            raise UnknownOperator(f"{node.operator}, linear by {how}")
        return times
    allowed = {
        "asymmetric": rounded == "floor" or (max(times) <= 2 and rounded == "round_prefer_floor"),
        "half_pixel": rounded.startswith("round"),
        "pytorch_half_pixel": rounded.startswith("round") and 1 not in x.shape[2:],
    }
    if not allowed.get(how, False):
        raise UnknownOperator(f"{node.operator} by {how} and {rounded}")
    return times
