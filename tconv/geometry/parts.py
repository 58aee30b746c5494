"""Parts of a contraction: the cells that a box of the result needs, and the call that computes it.

Everything that works piece by piece is made of these: the sizes of the whole are never rechecked,
and an array is never cut by another rule. Per axis, with ``R = dilation*(K - 1) + 1``, stride s and
crop p at the beginning:

* Outputs [a, b) need the inputs [f, l) of `Axis.input_window`. Cropped at the beginning by
  ``p + a - f*s``, the call of these inputs gives exactly the outputs [a, b).
* Inputs [i, j) of the transpose, a convolution, need the outputs [u, v) of `Axis.output_window`,
  padded by what lies outside of y.
* A weight gradient is the sum of those of x[f:l] and y[a:b] over boxes [a, b) that cover y once:
  each output is in one box, so no product counts twice.

With ``method="direct"`` each box has the bits of the whole: sums have one order, and it follows
from channels, kernel, stride, dilation, groups and type alone.
"""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

from tconv.errors import ParameterError
from tconv.geometry.axis import Axis
from tconv.geometry.geometry import OPERANDS, Geometry, Letter
from tconv.geometry.weight_formats import WeightLayout

__all__ = [
    "AxisPart",
    "Box",
    "Interval",
    "Part",
    "axis_part",
    "channel_cuts",
    "part_of",
    "sizes",
    "slices",
]

Interval = tuple[int, int]
"""First cell, and the one after the last."""

Box = tuple[Interval, ...]
"""An interval of every axis of an array."""


def slices(box: Box) -> tuple[slice, ...]:
    """The index of a box into its array.

    >>> slices(((0, 1), (3, 8)))
    (slice(0, 1, None), slice(3, 8, None))
    """
    return tuple(slice(*interval) for interval in box)


def sizes(box: Box) -> tuple[int, ...]:
    """Number of cells along every axis of a box.

    >>> sizes(((0, 1), (3, 8)))
    (1, 5)
    """
    return tuple(stop - start for start, stop in box)


class AxisPart(NamedTuple):
    """One axis of a part: what it reads of the operand, and the axis of the call."""

    read: Interval
    axis: Axis


def axis_part(axis: Axis, want: Letter, start: int, stop: int) -> AxisPart:
    """Return what computes the cells [start, stop) of y, or of x for want "x".

    For want "w", [start, stop) are the cells of y that take part.

    >>> axis = Axis(input=8, kernel=3, output=17, stride=2)
    >>> axis_part(axis, "y", 4, 6)
    AxisPart(read=(1, 3), axis=Axis(input=2, kernel=3, output=2, stride=2, dilation=1, begin=2, \
end=1, extra=0))
    >>> axis_part(axis, "x", 1, 3)
    AxisPart(read=(2, 7), axis=Axis(input=2, kernel=3, output=5, stride=2, dilation=1, begin=0, \
end=0, extra=0))
    """
    if want == "x":
        low = start * axis.stride - axis.begin
        first, last = read = axis.output_window(start, stop)
        part = axis._replace(input=stop - start, output=last - first, begin=first - low, extra=0)
    else:
        first, last = read = axis.input_window(start, stop)
        begin = axis.begin + start - first * axis.stride
        part = axis._replace(input=last - first, output=stop - start, begin=begin, extra=0)
    return AxisPart(read, part._replace(end=part.full - part.begin - part.output))


@dataclass(frozen=True)
class Part:
    """One box of a result, in the layouts of its geometry.

    Attributes
    ----------
    geometry : of the call that computes the box; it may read no cells, and is bias only then
    box : intervals of the result; for want "w" those of y whose products it sums
    read : intervals of the first operand: x for want "y" and "w", y for want "x"
    weight : intervals of the weight, for the channels of the box
    channels : interval of the result's channels, and so of a bias

    `slices` makes indices of them.
    """

    geometry: Geometry
    box: Box
    read: Box
    weight: Box
    channels: Interval

    @property
    def reads_nothing(self) -> bool:
        """Whether no tap joins the box to the operand."""
        return any(stop <= start for start, stop in self.read)


def part_of(
    geometry: Geometry,
    want: Letter,
    box: Sequence[Interval],
    *,
    batch: Interval | None = None,
    channels: Interval | None = None,
) -> Part:
    """Return the part that computes a box of a contraction's result.

    Parameters
    ----------
    geometry, want : of the whole
    box : one interval per spatial axis, of y for want "y" and "w", of x for want "x"
    batch : interval of images; all by default
    channels : interval of the channels of the result, within one group or of whole groups (as
        `channel_cuts` gives); all by default. Not for want "w".

    Raises
    ------
    ParameterError : channels cut a group, or are given for want "w"

    >>> part = part_of(Geometry.of((1, 4, 8), (4, 6, 3), stride=2), "y", [(4, 6)], channels=(0, 2))
    >>> part.read, part.box, part.weight
    (((0, 1), (0, 4), (1, 3)), ((0, 1), (0, 2), (4, 6)), ((0, 4), (0, 2), (0, 3)))
    """
    axes = [axis_part(axis, want, *cut) for axis, cut in zip(geometry.axes, box, strict=True)]
    images = (0, geometry.batch) if batch is None else batch
    of_x, of_y, groups, (rows, columns) = _channels(geometry, want, channels)
    part = replace(
        geometry,
        batch=images[1] - images[0],
        in_channels=of_x[1] - of_x[0],
        out_channels=of_y[1] - of_y[0],
        groups=groups,
        axes=tuple(each.axis for each in axes),
    )
    reads_y = OPERANDS[want][0] == "y"
    weight = WeightLayout.of(geometry.weight_format, geometry.rank)
    cuts = {weight.inputs: rows, weight.outputs: columns}
    taps = dict(zip(weight.kernel, ((0, k) for k in geometry.kernel_size), strict=True))
    kept = cuts | taps
    return Part(
        part,
        _box(geometry, images, of_x if want == "x" else of_y, box),
        _box(geometry, images, of_y if reads_y else of_x, [each.read for each in axes]),
        tuple(kept[n] for n in range(len(kept))),
        of_x if want == "x" else of_y,
    )


def channel_cuts(geometry: Geometry, want: Letter, chunks: Iterable[int]) -> list[Interval]:
    """Cut the channels of a result into chunks, and further where a chunk would cut a group.

    Parameters
    ----------
    chunks : sizes that sum to the channels of the result

    >>> geometry = Geometry.of((1, 4, 8), (4, 4, 3), groups=2)  # 8 channels of y
    >>> channel_cuts(geometry, "y", [8]), channel_cuts(geometry, "y", [2, 6])
    ([(0, 8)], [(0, 2), (2, 4), (4, 8)])
    """
    whole = geometry.in_channels if want == "x" else geometry.out_channels
    size, start, found = whole // geometry.groups, 0, []
    for chunk in chunks:
        stop = start + chunk
        while start < stop:  # to the end of a group that is cut already, else as far as groups go
            left = -start % size
            last = stop - stop % size
            end = min(start + left, stop) if left else last if last > start else stop
            found.append((start, end))
            start = end
    return found


def _channels(
    geometry: Geometry, want: Letter, channels: Interval | None
) -> tuple[Interval, Interval, int, tuple[Interval, Interval]]:
    """Channels of x and of y, groups, and the cut of the weight's two axes of channels."""
    of_x, of_y = geometry.in_channels, geometry.out_channels
    groups = geometry.groups
    per_x, per_y = of_x // groups, of_y // groups
    whole, per = (of_x, per_x) if want == "x" else (of_y, per_y)
    start, stop = (0, whole) if channels is None else channels
    first, last = start // per, -(-stop // per)
    cuts_group = start % per or stop % per
    if want == "w" and channels is not None:
        raise ParameterError("channels must be left out for a weight gradient; pass None.")
    if cuts_group and last - first > 1:
        raise ParameterError(
            f"channels={(start, stop)} must be of whole groups of {per} or lie within one; cut "
            "them by channel_cuts."
        )
    x, y = (first * per_x, last * per_x), (first * per_y, last * per_y)
    if cuts_group:  # of one group
        x, y = ((start, stop), y) if want == "x" else (x, (start, stop))
    divided = WeightLayout.of(geometry.weight_format, geometry.rank).outputs_divided
    rows = x if divided else _within(x, per_x, cuts_group)
    columns = _within(y, per_y, cuts_group) if divided else y
    return x, y, last - first, (rows, columns)


def _within(interval: Interval, per: int, is_cut: int) -> Interval:
    """The cut of an axis that holds one group's share of the channels."""
    if not is_cut:
        return 0, per
    first = interval[0] // per * per
    return interval[0] - first, interval[1] - first


def _box(
    geometry: Geometry, images: Interval, channels: Interval, spatial: Sequence[Interval]
) -> Box:
    """A box of x or y in the layout of the caller."""
    found = (
        [*spatial, channels] if geometry.data_format == "channels_last" else [channels, *spatial]
    )
    return (images, *found) if geometry.batched else tuple(found)
