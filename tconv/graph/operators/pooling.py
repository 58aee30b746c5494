"""Pooling and reductions."""

import math
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from tconv.graph.graph import Node
from tconv.graph.operators.registry import Writer, axis_of, integers, register
from tconv.graph.values import Operand, UnknownOperator, Value

__all__: list[str] = []


class _Window(NamedTuple):
    """The windows along one axis."""

    size: int  # of the input
    kernel: int
    stride: int
    dilation: int
    begin: int  # padding
    end: int
    places: int  # number of windows

    @property
    def reach(self) -> int:
        """Cells of the padded input that all windows read."""
        return (self.places - 1) * self.stride + (self.kernel - 1) * self.dilation + 1

    def counts(self, with_padding: bool) -> np.ndarray:
        """How many cells of each window count."""
        starts = np.arange(self.places)[:, np.newaxis] * self.stride - self.begin
        cells = starts + np.arange(self.kernel) * self.dilation
        low, high = (-self.begin, self.size + self.end) if with_padding else (0, self.size)
        found: np.ndarray = ((cells >= low) & (cells < high)).sum(axis=1)
        return found


def _windows(node: Node, sizes: Sequence[int]) -> list[_Window]:
    rank = len(sizes)
    kernel = node.argument("kernel_shape")
    strides = node.argument("strides") or [1] * rank
    dilations = node.argument("dilations") or [1] * rank
    pads, auto = node.argument("pads") or [0] * 2 * rank, node.argument("auto_pad", "NOTSET")
    if not kernel or len(kernel) != rank or auto not in ("NOTSET", "", "VALID"):
        raise UnknownOperator(f"{node.operator} with auto_pad={auto}")
    given = (*kernel, *strides, *dilations)
    if min(given) < 1 or min(pads) < 0 or (len(strides), len(dilations)) != (rank, rank):
        raise UnknownOperator(f"{node.operator} with {dict(node.attributes)}")
    if len(pads) != 2 * rank or any(pads[n] >= kernel[n % rank] for n in range(2 * rank)):
        raise UnknownOperator(f"{node.operator} with pads {pads}")
    if node.argument("storage_order", 0):
        raise UnknownOperator(f"{node.operator} with storage_order")
    found = []
    for n, size in enumerate(sizes):
        begin, end = pads[n], pads[n + rank]
        room = size + begin + end - dilations[n] * (kernel[n] - 1) - 1
        if node.argument("ceil_mode", 0):
            count = -(-room // strides[n]) + 1
            if (count - 1) * strides[n] >= size + begin:
                count -= 1
        else:
            count = room // strides[n] + 1
        if room < 0 or count < 1:
            raise UnknownOperator(f"{node.operator} of windows larger than its input")
        found.append(_Window(size, kernel[n], strides[n], dilations[n], begin, end, count))
    return found


@register("MaxPool", "AveragePool")
def _pool(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x = operands[0]
    if not isinstance(x, Value) or any(node.outputs[1:]) or x.rank < 3:
        raise UnknownOperator(f"{node.operator} with indices")
    windows, is_max = _windows(node, x.shape[2:]), node.operator == "MaxPool"
    x = _padded(writer, node, x, windows, -math.inf if is_max else 0.0)
    for n in range(len(windows) - 1, -1, -1):  # axis by axis: kh + kw operands for kh*kw
        x = _along(writer, node, x, n + 2, windows[n], "max" if is_max else "add")
    if is_max:
        return [x]
    with_padding = bool(node.argument("count_include_pad", 0))
    count = np.ones((), np.float32)
    for window in windows:
        count = np.multiply.outer(count, window.counts(with_padding).astype(np.float32))
    if np.all(count == count.ravel()[0]):
        count = np.asarray(count.ravel()[0])
    # A mean of equal elements is that element: times the inverse of their number it might not be.
    return [writer.loop(node, [("div", (0, 1))], [x, count])]


def _padded(writer: Writer, node: Node, x: Value, windows: Sequence[_Window], fill: float) -> Value:
    """The cells that all windows read: a part of x, or a copy with a border of `fill`."""
    before = [window.begin for window in windows]
    if not any(before) and all(window.reach <= window.size for window in windows):
        return x
    sizes = [max(window.reach, window.begin + window.size) for window in windows]
    y = Value.whole((*x.shape[:2], *sizes))
    writer.pad(node, x, y, [0, 0, *before], np.float32(fill))
    return y


def _along(writer: Writer, node: Node, x: Value, axis: int, window: _Window, name: str) -> Value:
    """Reduce the windows along one axis."""
    if window.kernel == 1:
        return x.sliced(axis, 0, window.places, window.stride)
    views: list[Operand] = [
        x.sliced(axis, tap * window.dilation, window.places, window.stride)
        for tap in range(window.kernel)
    ]
    count, instructions = len(views), [(name, (0, 1))]
    instructions += [(name, (count + n - 2, n)) for n in range(2, count)]
    return writer.loop(node, instructions, views)


# ---- reductions ----------------------------------------------------------------------------------

_REDUCTIONS = {
    "ReduceMean": "sum",
    "ReduceSum": "sum",
    "ReduceMax": "max",
    "ReduceMin": "min",
    "GlobalAveragePool": "sum",
    "GlobalMaxPool": "max",
}


@register(*_REDUCTIONS)
def _reduce(writer: Writer, node: Node, operands: Sequence[Operand | None]) -> list[Operand]:
    x, how = operands[0], _REDUCTIONS[node.operator]
    if not isinstance(x, Value):
        raise UnknownOperator(f"{node.operator} of a constant")
    if node.operator.startswith("Global"):
        axes, keeps = list(range(2, x.rank)), True
    else:
        given = integers(operands[1] if len(operands) > 1 else None, node)
        given = node.argument("axes") if given is None else given
        if not given and node.argument("noop_with_empty_axes", 0):
            return [x]
        axes = sorted({axis_of(axis, x.rank, node) for axis in given or range(x.rank)})
        keeps = bool(node.argument("keepdims", 1))
    if not axes or axes != list(range(axes[0], axes[-1] + 1)):
        raise UnknownOperator(f"{node.operator} over axes that are apart")
    is_mean = node.operator in ("ReduceMean", "GlobalAveragePool")
    y = writer.reduce(node, how, writer.contiguous(node, x), axes[0], axes[-1], is_mean)
    shape = [1 if n in axes else size for n, size in enumerate(x.shape) if keeps or n not in axes]
    return [y.reshaped(shape)]
