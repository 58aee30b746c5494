"""Windows of ONNX's convolutions and poolings along each axis, as interval arithmetic."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from tconv.geometry.onnx_attributes import NodeAttributes

__all__ = ["Box", "Interval", "WindowAxis", "overhang", "transposed_windows_of", "windows_of"]

Interval = tuple[int, int]
"""First and last cell along an axis; they may lie outside of the array."""

Box = tuple[Interval, ...]
"""First and last cell along each spatial axis."""


class WindowAxis(NamedTuple):
    """One axis of windows over x: window o covers ``x[o*stride - begin + k*dilation]``."""

    kernel: int
    stride: int
    dilation: int
    begin: int

    @property
    def span(self) -> int:
        """Number of cells from the first tap to the last, both included."""
        return self.dilation * (self.kernel - 1) + 1

    def cells_under(self, windows: Interval) -> Interval:
        """Return the cells of x from the first window's first tap to the last window's last tap.

        >>> WindowAxis(3, 2, 1, 1).cells_under((0, 1))
        (-1, 3)
        """
        first, last = windows
        return first * self.stride - self.begin, last * self.stride - self.begin + self.span - 1

    def windows_over(self, cells: Interval) -> Interval:
        """Return the windows that cover one of these cells of x, as a transposed convolution reads.

        >>> WindowAxis(3, 2, 1, 1).windows_over((0, 3))
        (0, 2)
        """
        first, last = cells
        return (
            -((self.span - 1 - first - self.begin) // self.stride),
            (last + self.begin) // self.stride,
        )

    def taps_on(self, window: int, low: int, high: int) -> int:
        """Count the taps of a window that lie on cells from `low` to below `high`.

        >>> WindowAxis(3, 2, 1, 1).taps_on(0, 0, 4)
        2
        """
        start = window * self.stride - self.begin
        below, inside = (-((start - end) // self.dilation) for end in (low, high))
        return max(0, min(self.kernel, inside) - max(0, below))


def overhang(box: Sequence[Interval], inner: Sequence[Interval]) -> tuple[tuple[int, int], ...]:
    """Return how many cells of a box lie before and after an inner box, along each axis.

    >>> overhang([(-2, 9)], [(0, 8)])
    ((2, 1),)
    """
    return tuple((b[0] - a[0], a[1] - b[1]) for a, b in zip(box, inner, strict=True))


def windows_of(
    attributes: Mapping[str, Any], kernel: Sequence[int], x_size: Sequence[int]
) -> tuple[WindowAxis, ...]:
    """Read the windows of Conv, MaxPool or AveragePool over an x of this spatial size.

    >>> windows_of({"strides": [2], "auto_pad": b"SAME_UPPER"}, (3,), (4,))
    (WindowAxis(kernel=3, stride=2, dilation=1, begin=0),)
    """
    rank = len(kernel)
    strides = attributes.get("strides") or [1] * rank
    dilations = attributes.get("dilations") or [1] * rank
    begins = list(attributes.get("pads") or [0] * 2 * rank)[:rank]
    auto = attributes.get("auto_pad", b"NOTSET")
    auto = auto.decode() if isinstance(auto, bytes) else auto
    found = []
    for n, (k, s, d) in enumerate(zip(kernel, strides, dilations, strict=True)):
        begin = begins[n]
        if auto in ("SAME_UPPER", "SAME_LOWER"):
            # By the kernel without its dilation, as ONNX Runtime pads poolings; it refuses a Conv
            # that has both.
            total = max(0, (-(-x_size[n] // s) - 1) * s + k - x_size[n])
            begin = total // 2 if auto == "SAME_UPPER" else total - total // 2
        elif auto == "VALID":
            begin = 0
        found.append(WindowAxis(int(k), int(s), int(d), int(begin)))
    return tuple(found)


def transposed_windows_of(
    attributes: Mapping[str, Any], x_shape: Sequence[int], weight_shape: Sequence[int]
) -> tuple[WindowAxis, ...]:
    """Read the windows of a ConvTranspose, which slide over its *output*."""
    given = {
        name: value.decode() if isinstance(value, bytes) else value
        for name, value in attributes.items()
    }
    geometry = NodeAttributes.of(given).geometry(tuple(x_shape), tuple(weight_shape))
    return tuple(WindowAxis(a.kernel, a.stride, a.dilation, a.begin) for a in geometry.axes)
