"""Resampling: cells repeated, or interpolated by a transposed convolution or by weighted sums."""

from collections.abc import Sequence
from functools import lru_cache
from math import prod
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.geometry.geometry import Geometry
from tconv.graph.graph import Node
from tconv.graph.operators.registry import Writer, axis_of, register
from tconv.graph.steps import ContractionStep
from tconv.graph.values import Operand, UnknownOperator, Value

__all__: list[str] = []


class _Grid(NamedTuple):
    """How many cells of the result each cell makes along each axis; the sizes; and a convention."""

    scales: list[float]
    sizes: list[int]
    how: str  # ONNX's coordinate_transformation_mode

    @property
    def is_whole(self) -> bool:
        """Whether all scales are whole numbers."""
        return all(by == int(by) and by >= 1 for by in self.scales)


@register("Resize", "Upsample")
def _resize(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, *more = operands
    mode = node.argument("mode", "nearest")
    if not isinstance(x, Value) or mode not in ("nearest", "linear"):
        raise UnknownOperator(f"{node.operator} in mode {mode}")
    grid = _grid(node, x, more)
    if grid.scales[:2] != [1, 1] or x.rank < 3:
        raise UnknownOperator(f"{node.operator} of channels")
    if mode == "nearest":
        return [_nearest(writer, node, x, _repeats(node, x, grid))]
    if node.argument("antialias", 0):
        raise UnknownOperator(f"{node.operator} with antialiasing")
    if grid.is_whole and x.rank <= 5 and grid.how in ("half_pixel", "pytorch_half_pixel"):
        return [_linear(writer, node, x, [int(by) for by in grid.scales])]
    if grid.how not in _CONVENTIONS:
        raise UnknownOperator(f"{node.operator}, linear by {grid.how}")
    for axis in range(x.rank - 1, 1, -1):
        if grid.scales[axis] != 1:
            x = _weighted(writer, node, x, axis, grid)
    return [x]


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


# ---- by any factor -------------------------------------------------------------------------------

_CONVENTIONS = ("align_corners", "asymmetric", "half_pixel", "pytorch_half_pixel")
_BAND = 64  # cells of the result that one convolution makes


class _Band(NamedTuple):
    """The weights of some cells of the result, from the first cell on that they read."""

    first: int
    weight: NDArray[np.float32]  # (cells of the result, cells, 1)


def _weighted(writer: Writer, node: Node, x: Value, axis: int, grid: _Grid) -> Value:
    """Interpolate along an axis: its cells are channels, which convolutions of one tap add up."""
    size, count, nodes = x.shape[axis], grid.sizes[axis], [node.name or node.operator]
    outer, inner = prod(x.shape[:axis]), prod(x.shape[axis + 1 :])
    y = Value.whole((*x.shape[:axis], count, *x.shape[axis + 1 :]))
    read = writer.contiguous(node, x).reshaped((outer, size, inner))
    written, place = y.reshaped((outer, count, inner)), 0
    for band in _bands(size, count, float(grid.scales[axis]), grid.how):
        cells, window, _ = band.weight.shape
        geometry = Geometry.of_conv((outer, window, inner), band.weight.shape)
        part = writer.contiguous(node, read.sliced(1, band.first, window))
        to = written.sliced(1, place, cells)
        step = ContractionStep(geometry, "x", part, band.weight, None, to, nodes=nodes)
        writer.steps.append(step)
        place += cells
    return y


@lru_cache(maxsize=64)
def _bands(size: int, count: int, by: float, how: str) -> tuple[_Band, ...]:
    """The weights along an axis; the same arrays for all programs, which keep packed ones.

    Cells are placed in float32, as ONNX Runtime does.
    """
    places = np.arange(count, dtype=np.float32)
    if how == "align_corners":
        at = places * np.float32(size - 1) / np.float32(max(count - 1, 1))
    elif how == "asymmetric":
        at = places / np.float32(by)
    else:
        at = (places + np.float32(0.5)) / np.float32(by) - np.float32(0.5)
        at = at if count > 1 or how == "half_pixel" else np.zeros_like(at)
    at = np.clip(at, 0, size - 1)
    low = np.clip(at.astype(np.int64), 0, max(size - 2, 0))
    found, step = list[_Band](), _BAND if count >= 2 * _BAND else count
    for start in range(0, count, step):
        lows = low[start : start + step, np.newaxis]
        part = at[start : start + step, np.newaxis] - lows
        cells = np.arange(lows[0, 0], min(lows[-1, 0] + 2, size))
        weight = (cells == lows) * (1 - part) + (cells == lows + 1) * part
        found.append(_Band(int(cells[0]), weight[:, :, np.newaxis].astype(np.float32)))
    return tuple(found)


# ---- attributes ----------------------------------------------------------------------------------


def _grid(node: Node, x: Value, more: Sequence[Operand | None]) -> _Grid:
    """The scales and the sizes of a node."""
    scales: list[float] | None = node.argument("scales")
    sizes: list[int] | None = None
    if any(isinstance(each, Value) for each in more):
        raise UnknownOperator(f"{node.operator} with sizes that are computed")
    axes = [axis_of(axis, x.rank, node) for axis in node.argument("axes") or range(x.rank)]
    if axes != sorted(axes) or node.argument("keep_aspect_ratio_policy", "stretch") != "stretch":
        raise UnknownOperator(f"{node.operator} of axes {axes}, or that keeps an aspect ratio")
    numbers = [each for each in more if isinstance(each, np.ndarray) and each.size == len(axes)]
    if numbers:
        last = numbers[-1].tolist()
        if numbers[-1].dtype.kind == "f":
            scales = [1.0] * x.rank
            for axis, by in zip(axes, last, strict=True):
                scales[axis] = by
        else:
            scales, sizes = None, list(x.shape)
            for axis, size in zip(axes, last, strict=True):
                sizes[axis] = size
    if sizes is not None:
        scales = [size / own for size, own in zip(sizes, x.shape, strict=True)]
    if scales is None or len(scales) != x.rank or min(scales) <= 0:
        raise UnknownOperator(f"{node.operator} by {scales}")
    if sizes is None:
        sizes = [int(np.float32(by) * own) for by, own in zip(scales, x.shape, strict=True)]
    if not prod(sizes):
        raise UnknownOperator(f"{node.operator} to {sizes}")
    how = node.argument("coordinate_transformation_mode", "half_pixel")
    return _Grid(scales, sizes, "asymmetric" if _is_old(node) else how)


def _is_old(node: Node) -> bool:
    """Whether a node is older than the attributes that name a convention."""
    return node.operator == "Upsample" or node.argument("version", 11) < 11


def _repeats(node: Node, x: Value, grid: _Grid) -> list[int]:
    """How often the nearest cell is that of the same number; the convention must allow it."""
    if not grid.is_whole:
        raise UnknownOperator(f"{node.operator} to the nearest cell by {grid.scales}")
    times, how = [int(by) for by in grid.scales], grid.how
    rounded = "floor" if _is_old(node) else node.argument("nearest_mode", "round_prefer_floor")
    allowed = {
        "asymmetric": rounded == "floor" or (max(times) <= 2 and rounded == "round_prefer_floor"),
        "half_pixel": rounded.startswith("round"),
        "pytorch_half_pixel": rounded.startswith("round") and 1 not in x.shape[2:],
    }
    if not allowed.get(how, False):
        raise UnknownOperator(f"{node.operator} by {how} and {rounded}")
    return times
