"""Laws of operators: the window of every operand along an axis, and the node that makes a piece."""

import math
from collections.abc import Callable, Sequence
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

from tconv.geometry.onnx_attributes import ConvAttributes, NodeAttributes
from tconv.geometry.window import SAME, Window
from tconv.graph.graph import Graph, Node
from tconv.graph.operators.registry import REGISTRY

__all__ = ["Along", "Cut", "Law", "NoLaw", "law_of", "piece_of"]


class NoLaw(Exception):
    """An operator that cannot be computed piece by piece; the message is the reason."""


class Law(NamedTuple):
    """The windows of one node along one direction.

    Attributes
    ----------
    windows : one for each operand; None for one that does not lie along the direction
    fill : what cells outside of an operand count as
    repeats_border : cells outside of an operand count as its own, so that both ends must be known
    """

    windows: tuple[Window | None, ...]
    fill: float = 0.0
    repeats_border: bool = False


class Along(NamedTuple):
    """A node along one direction: shapes of its operands and its result, and their axes."""

    node: Node
    graph: Graph
    shapes: Sequence[tuple[int, ...]]
    axes: Sequence[int | None]
    result: tuple[int, ...]
    axis: int  # of the result
    it: str  # how messages name the direction

    def each(self, window: Window) -> tuple[Window | None, ...]:
        """A window for each operand along the direction."""
        return tuple(None if axis is None else window for axis in self.axes)

    def constant(self, place: int) -> list[Any] | None:
        """The numbers of a constant operand."""
        array = self.graph.constants.get(self.node.reads(place))
        return None if array is None else array.ravel().tolist()

    def numbers(self, name: str, place: int) -> list[Any] | None:
        """Numbers that are an operand, or in older opsets an attribute."""
        found = self.constant(place)
        given: Any = self.node.argument(name) if found is None else found
        return given if given is None or isinstance(given, list) else list(given)


_LAWS: dict[str, Callable[[Along], Law]] = {}


def law_of(along: Along) -> Law:
    """Return the windows of a node's operands.

    Raises
    ------
    NoLaw : the operator sees the whole of the direction, or has no law
    """
    node = along.node
    function = _LAWS.get(node.operator)
    if function is not None:
        return function(along)
    if node.operator == "Cast" or REGISTRY[node.operator].__module__.endswith(".elementwise"):
        return _local(along)
    raise NoLaw(f"{node.operator} needs all of {along.it}")


def _law(*names: str) -> Callable[[Callable[[Along], Law]], Callable[[Along], Law]]:
    def wrapped(function: Callable[[Along], Law]) -> Callable[[Along], Law]:
        _LAWS.update(dict.fromkeys(names, function))
        return function

    return wrapped


# ---- cell by cell --------------------------------------------------------------------------------


def _local(along: Along) -> Law:
    """Every operand that lies along the direction does so at the axis of the result."""
    for shape, axis in zip(along.shapes, along.axes, strict=True):
        place = axis if axis is None else axis - len(shape)
        if place is None:
            aligned = along.axis - len(along.result) + len(shape)
            if aligned >= 0 and shape[aligned] != 1:
                raise NoLaw(f"{along.node.operator} with a value for each place")
        elif place != along.axis - len(along.result):
            raise NoLaw(f"{along.node.operator} of values along other axes")
    return Law(along.each(SAME))


@_law("Concat", "Split", "Gather")
def _beside(along: Along) -> Law:
    """Operators along one axis, which is not this one."""
    of_it = along.node.argument("axis", 0) % len(along.shapes[0])
    if of_it in along.axes:
        raise NoLaw(f"{along.node.operator} along {along.it}")
    if along.node.operator == "Concat" and None in along.axes:
        raise NoLaw("Concat with a value for each place")
    return Law(along.each(SAME))


@_law("Softmax", "LogSoftmax", "LayerNormalization")
def _normalised(along: Along) -> Law:
    """Normalised over an axis, or over all from it on."""
    node, rank = along.node, len(along.shapes[0])
    is_one = node.operator != "LayerNormalization" and node.argument("version", 13) >= 13
    axis = node.argument("axis", -1 if is_one or node.operator == "LayerNormalization" else 1)
    over = [axis % rank] if is_one else range(axis % rank, rank)
    if along.axes[0] in over:
        raise NoLaw(f"{node.operator} over {along.it}")
    return Law((SAME, *[None] * (len(along.axes) - 1)))


@_law("BatchNormalization")
def _by_channels(along: Along) -> Law:
    """Parameters are of channels, at whatever axis they are stored."""
    if along.axes[0] == 1:
        raise NoLaw(f"{along.node.operator} over {along.it}")
    return Law(_first(SAME, along))


@_law("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
def _reduced(along: Along) -> Law:
    # Over the direction itself it would have no axis along it, and not come here.
    return Law(along.each(SAME))


@_law("MatMul", "Gemm")
def _product(along: Along) -> Law:
    if along.axes[0] == len(along.shapes[0]) - 1:
        raise NoLaw(f"{along.node.operator} over {along.it}")
    return Law(along.each(SAME))


@_law("Transpose", "Squeeze", "Unsqueeze", "Reshape", "Flatten", "Expand")
def _moved(along: Along) -> Law:
    """What stands before the axis and behind it keeps its order."""
    axis, shape = along.axes[0], along.shapes[0]
    if axis is None or shape[axis] != along.result[along.axis]:
        raise NoLaw(f"{along.node.operator} that joins {along.it} with another axis")
    joins = along.node.operator in ("Reshape", "Flatten")
    if joins and prod(shape[:axis]) != prod(along.result[: along.axis]):
        raise NoLaw(f"{along.node.operator} that changes the order of cells")
    return Law(along.each(SAME))


# ---- windows -------------------------------------------------------------------------------------


_CONVOLUTIONS = {"Conv": ConvAttributes, "ConvTranspose": NodeAttributes}


@_law(*_CONVOLUTIONS)
def _convolution(along: Along) -> Law:
    node, axis, kernel = along.node, _spatial(along), along.shapes[1][2:]
    own = _CONVOLUTIONS[node.operator].of(dict(node.attributes))
    if own.auto_pad.startswith("SAME") and own.want == "x" and (own.strides or (1,))[axis] > 1:
        raise NoLaw(f"Conv with auto_pad={own.auto_pad} and a stride, which pads by the size")
    if own.output_shape is not None:
        raise NoLaw("ConvTranspose with output_shape, which is of one size")
    given = own.arguments(kernel)
    (begin, end), dilation = given["padding"][axis], given["dilation"][axis]
    extra = given["output_padding"][axis]
    reach = dilation * (kernel[axis] - 1) + 1
    window = Window(own.want, reach, given["stride"][axis], begin, end, extra)
    return Law((window, *[None] * (len(along.axes) - 1)))


@_law("MaxPool", "AveragePool")
def _pool(along: Along) -> Law:
    node, axis, rank = along.node, _spatial(along), len(along.shapes[0]) - 2
    one, zero = [1] * rank, [0] * 2 * rank
    dilation = (node.argument("dilations") or one)[axis]
    pads = node.argument("pads") or zero
    reach = dilation * (node.argument("kernel_shape")[axis] - 1) + 1
    stride = (node.argument("strides") or one)[axis]
    window = Window("x", reach, stride, pads[axis], pads[axis + rank])
    if node.argument("ceil_mode", 0):
        raise NoLaw(f"{node.operator} with ceil_mode, whose last window follows from the size")
    is_max = node.operator == "MaxPool"
    counts = not is_max and not node.argument("count_include_pad", 0) and any(window[3:5])
    return Law((window,), -math.inf if is_max else 0.0, counts)


@_law("Pad")
def _pad(along: Along) -> Law:
    node, axis, rank = along.node, along.axes[0], len(along.shapes[0])
    pads = along.numbers("pads", 1) or node.argument("paddings")
    if pads is None or axis is None:
        raise NoLaw("Pad by sizes that are computed")
    begin, end = pads[axis], pads[axis + rank]
    mode = node.argument("mode", "constant")
    if mode != "constant" and (begin or end):
        raise NoLaw(f"Pad in mode {mode}, whose border follows from cells at the ends")
    windows = (Window(begin=-begin, end=-end), *[None] * (len(along.axes) - 1))
    return Law(windows, _fill(along))


def _fill(along: Along) -> float:
    """The value of a Pad."""
    given = along.constant(2)
    return float(given[0] if given else along.node.argument("value", 0.0))


_SLICE = ("starts", "ends", "axes", "steps")


@_law("Slice")
def _slice(along: Along) -> Law:
    axis, rank = along.axes[0], len(along.shapes[0])
    starts, ends, axes, steps = (along.numbers(name, place) for place, name in enumerate(_SLICE, 1))
    if starts is None or ends is None or axis is None:
        raise NoLaw("Slice by numbers that are computed")
    for n, each in enumerate(axes or range(len(starts))):
        if each % rank != axis:
            continue
        if steps is not None and steps[n] != 1:
            raise NoLaw("Slice with a step")
        if starts[n] < 0 or 0 <= ends[n] < 2**31 - 1:
            raise NoLaw("Slice of cells that are counted from the other end")
        window = Window(begin=starts[n], end=max(-ends[n], 0))
        return Law((window, *[None] * (len(along.axes) - 1)))
    return Law(along.each(SAME))


@_law("Resize", "Upsample")
def _resize(along: Along) -> Law:
    axis = along.axes[0]
    assert axis is not None
    times, rest = divmod(along.result[along.axis], along.shapes[0][axis])
    if rest:
        raise NoLaw(f"{along.node.operator} by no whole number")
    if along.node.argument("mode", "nearest") == "nearest":
        return Law(_first(Window(reach=times, stride=times), along))
    how = along.node.argument("coordinate_transformation_mode", "half_pixel")
    if how not in ("half_pixel", "pytorch_half_pixel", "asymmetric"):
        raise NoLaw(f"{along.node.operator} by {how}, which follows from the size")
    # Interpolated between a cell and those beside it.
    window = Window(reach=3 * times, stride=times, begin=times, end=times) if times > 1 else SAME
    return Law(_first(window, along), repeats_border=times > 1)


def _first(window: Window, along: Along) -> tuple[Window | None, ...]:
    return (window, *[None] * (len(along.axes) - 1))


def _spatial(along: Along) -> int:
    axis = along.axes[0]
    if axis is None or axis < 2 or any(each is not None for each in along.axes[1:]):
        raise NoLaw(f"{along.node.operator} along an axis of channels or of images")
    return axis - 2


# ---- the nodes of a piece ------------------------------------------------------------------------


class Cut(NamedTuple):
    """A piece along one direction: the axis, the window, cells that are made, cells that are read.

    The axis is that of the first operand.
    """

    axis: int
    window: Window
    made: tuple[int, int]
    read: tuple[int, int]

    @property
    def border(self) -> tuple[int, int, int]:
        """Begin, end and extra of the call."""
        return self.window.piece(*self.made, self.read)


def piece_of(along: Along, cuts: Sequence[Cut]) -> list[Node]:
    """Return the nodes that make some cells of a node's result, of some of its first operand.

    `along` is the node along any direction; the cells lie within the operand.
    """
    function = _PIECES.get(along.node.operator)
    return [along.node] if function is None else function(along, cuts)


def _padded(along: Along, cuts: Sequence[Cut]) -> list[Node]:
    node, rank = along.node, len(along.shapes[0]) - 2
    changed = dict(node.attributes)
    if node.operator in _CONVOLUTIONS:
        given = _CONVOLUTIONS[node.operator].of(changed).arguments(along.shapes[1][2:])
        pads = [begin for begin, _ in given["padding"]] + [end for _, end in given["padding"]]
        extra = list(given["output_padding"])
    else:
        pads, extra = list(changed.get("pads") or [0] * 2 * rank), [0] * rank
    for cut in cuts:
        axis = cut.axis - 2
        pads[axis], pads[axis + rank], extra[axis] = cut.border
    changed.pop("auto_pad", None)
    changed["pads"] = pads
    if node.operator == "ConvTranspose":
        changed["output_padding"] = extra
    return [replace(node, attributes=changed)]


def _with_pads(along: Along, cuts: Sequence[Cut]) -> list[Node]:
    node, rank = along.node, len(along.shapes[0])
    pads = list(along.numbers("pads", 1) or node.argument("paddings"))
    for cut in cuts:
        begin, end, extra = cut.border
        pads[cut.axis], pads[cut.axis + rank] = -begin, extra - end
    changed = {"pads": pads, "value": _fill(along), "mode": node.argument("mode", "constant")}
    return [replace(node, inputs=node.inputs[:1], attributes=changed)]


def _without_axes(along: Along, cuts: Sequence[Cut]) -> list[Node]:
    """What is read is what is wanted along the directions; the other axes are sliced as before."""
    node, rank = along.node, len(along.shapes[0])
    found = [along.numbers(name, n) for n, name in enumerate(_SLICE, 1)]
    count = len(found[0] or ())
    axes = found[2] or list(range(count))
    kept = [n for n in range(count) if axes[n] % rank not in {cut.axis for cut in cuts}]
    steps = found[3] or [1] * count
    given = zip(_SLICE, (found[0], found[1], axes, steps), strict=True)
    changed = {name: [each[n] for n in kept] for name, each in given if each is not None}
    operator = "Slice" if kept else "Identity"
    return [replace(node, operator=operator, inputs=node.inputs[:1], attributes=changed)]


def _cropped(along: Along, cuts: Sequence[Cut]) -> list[Node]:
    """Resample all cells that are read, then take those that are wanted."""
    whole = f"{along.node.outputs[0]}#resampled"
    firsts = [cut.read[0] * cut.window.stride for cut in cuts]
    crop = {
        "starts": [cut.made[0] - first for cut, first in zip(cuts, firsts, strict=True)],
        "ends": [cut.made[1] - first for cut, first in zip(cuts, firsts, strict=True)],
        "axes": [cut.axis for cut in cuts],
    }
    after = Node("Slice", (whole,), along.node.outputs, crop, along.node.name)
    return [replace(along.node, outputs=(whole,)), after]


_PIECES: dict[str, Callable[[Along, Sequence[Cut]], list[Node]]] = {
    **dict.fromkeys(("Conv", "ConvTranspose", "MaxPool", "AveragePool"), _padded),
    **dict.fromkeys(("Resize", "Upsample"), _cropped),
    "Pad": _with_pads,
    "Slice": _without_axes,
}
