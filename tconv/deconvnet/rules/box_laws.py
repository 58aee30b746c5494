"""Box laws: the box of a node's input that a box of its output depends on.

Rows of the registry name these laws. A law may give more cells than matter, never fewer.
"""

from math import ceil, floor

from tconv.deconvnet.rules.registry import NodeContext
from tconv.deconvnet.rules.windows import Box, WindowAxis, transposed_windows_of, windows_of

__all__ = [
    "entire_input",
    "padded",
    "pool_windows",
    "resize_scales",
    "resized",
    "same_cells",
    "same_cells_along_channels",
    "transposed_windows",
    "weight_windows",
]


def entire_input(context: NodeContext, n: int, box: Box) -> Box | None:
    """Every cell of the output depends on all cells of the input."""
    return None


def same_cells(context: NodeContext, n: int, box: Box) -> Box | None:
    """A cell depends on the cell at the same place; on all of an input that is broadcast."""
    return box if context.shape(n)[2:] == context.shapes[context.output][2:] else None


def same_cells_along_channels(context: NodeContext, n: int, box: Box) -> Box | None:
    """`same_cells` of a node that works along the axis of channels."""
    axis = context.get("axis", 0)
    return box if axis in (1, 1 - len(context.shape(n))) else None


def weight_windows(context: NodeContext, n: int, box: Box) -> Box | None:
    """A cell depends on a window, which the weight's size gives."""
    weight = context.known(1)
    if n != 0 or weight is None:
        return None
    axes = windows_of(context.node.attributes, weight.shape[2:], context.shape(0)[2:])
    return _under(axes, box)


def pool_windows(context: NodeContext, n: int, box: Box) -> Box | None:
    """A cell depends on a window of a pooling."""
    kernel = tuple(context.get("kernel_shape"))
    return _under(windows_of(context.node.attributes, kernel, context.shape(n)[2:]), box)


def transposed_windows(context: NodeContext, n: int, box: Box) -> Box | None:
    """A cell depends on the cells whose windows, which slide over the output, hold it."""
    weight = context.known(1)
    if n != 0 or weight is None:
        return None
    axes = transposed_windows_of(context.node.attributes, context.shape(0), weight.shape)
    return tuple(axis.windows_over(each) for axis, each in zip(axes, box, strict=True))


def padded(context: NodeContext, n: int, box: Box) -> Box | None:
    """A cell depends on one that lies as far away as the pad is wide; of constant padding only."""
    operand = context.known(1)
    pads = context.get("pads") if operand is None else operand.tolist()
    constant = context.get("mode", b"constant") == b"constant"
    if pads is None or len(pads) != 2 * len(context.shape(n)) or not constant:
        return None
    return tuple((first - pads[m], last - pads[m]) for m, (first, last) in enumerate(box, 2))


def resized(context: NodeContext, n: int, box: Box) -> Box | None:
    """A cell depends on those around its place: enough of them for every way to interpolate.

    A cubic filter reaches 2 cells to either side. Antialiasing stretches it by the number of cells
    of the input to one of the output.
    """
    if context.get("coordinate_transformation_mode") == b"tf_crop_and_resize":
        return None
    shape, target = context.shape(n), context.shapes[context.output]
    scales = resize_scales(context, len(shape))
    found = []
    for axis, (first, last) in enumerate(box, 2):
        # Cells of the input to one of the output, by the sizes. The scale gives another ratio where
        # the output's size was rounded, and a coordinate transformation may follow either.
        ratios = [shape[axis] / target[axis]]
        if scales is not None and abs(shape[axis] * scales[axis] - target[axis]) > 1e-3:
            ratios.append(1 / scales[axis])
        if ratios == [1]:
            found.append((first, last))
            continue
        reach = ceil(2 * max(1.0, *ratios)) if context.get("antialias", 0) else 2
        low = min(floor(first * ratio) for ratio in ratios) - reach
        high = max(floor((last + 1) * ratio) for ratio in ratios) + reach
        found.append((low, high))
    return tuple(found)


def resize_scales(context: NodeContext, rank: int) -> list[float] | None:
    """Return the scales of Resize or Upsample, one per axis; None if it is given sizes."""
    n = 1 if context.node.op == "Upsample" or context.opset < 11 else 2
    operand = context.known(n)
    scales = context.get("scales") if operand is None else operand.tolist()
    if scales and (axes := context.get("axes")):
        given = dict(zip((axis % rank for axis in axes), scales, strict=False))
        scales = [given.get(axis, 1.0) for axis in range(rank)]
    return scales or None


def _under(axes: tuple[WindowAxis, ...], box: Box) -> Box:
    return tuple(axis.cells_under(each) for axis, each in zip(axes, box, strict=True))
