"""Backward functions of convolutions, matrix products and poolings; every rule has the same.

References
----------
Zeiler & Fergus 2014, arXiv:1311.2901, section 2.1: filters by their transposes, max pooling by the
switches that it sets.
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.deconvnet.rules.box_laws import (
    entire_input,
    pool_windows,
    transposed_windows,
    weight_windows,
)
from tconv.deconvnet.rules.registry import RULES, InputMaps, NodeContext, register
from tconv.deconvnet.rules.sparse_map import (
    SparseMap,
    box_index,
    cast_like,
    clip_box,
    unbroadcast,
)
from tconv.deconvnet.rules.windows import (
    Box,
    WindowAxis,
    overhang,
    transposed_windows_of,
    windows_of,
)
from tconv.ops.functional import conv, conv_transpose
from tconv.ops.max_pool import max_pool, max_unpool

__all__: list[str] = []

# ---- filters, without their biases ---------------------------------------------------------------


@register("Conv", "filter", box=weight_windows)
def _conv(context: NodeContext, r: SparseMap) -> InputMaps:
    """``conv_transpose(R, W)``, cropped to x."""
    weight, shape = cast_like(context.value(1), r), context.shape(0)
    axes = windows_of(context.node.attributes, weight.shape[2:], shape[2:])
    return {0: _transposed(r, weight, axes, shape, context.get("group", 1))}


def _transposed(
    r: SparseMap,
    weight: NDArray[Any],
    axes: tuple[WindowAxis, ...],
    shape: tuple[int, ...],
    groups: int,
) -> SparseMap:
    """Return ``conv_transpose(R, W)``, cropped to an x of this shape."""
    reach = [axis.cells_under(box) for axis, box in zip(axes, r.box, strict=True)]
    inside = clip_box(reach, shape[2:])
    if _is_empty(inside):  # windows over nothing but padding
        return SparseMap.whole(np.zeros(shape, r.array.dtype))
    x = conv_transpose(
        r.array,
        weight,
        stride=tuple(axis.stride for axis in axes),
        dilation=tuple(axis.dilation for axis in axes),
        padding=overhang(reach, inside),
        groups=groups,
    )
    return SparseMap.at(x, inside, shape)


def _is_empty(box: Box) -> bool:
    return any(last < first for first, last in box)


@register("ConvTranspose", "filter", box=transposed_windows)
def _conv_transpose(context: NodeContext, r: SparseMap) -> InputMaps:
    """``conv(R, W)`` at the cells of x whose windows meet the box of R."""
    weight, shape = cast_like(context.value(1), r), context.shape(0)
    axes = transposed_windows_of(context.node.attributes, shape, weight.shape)
    inside = clip_box(
        [axis.windows_over(box) for axis, box in zip(axes, r.box, strict=True)], shape[2:]
    )
    if _is_empty(inside):  # the crop removes all
        return {0: SparseMap.whole(np.zeros(shape, r.array.dtype))}
    needed = [axis.cells_under(windows) for axis, windows in zip(axes, inside, strict=True)]
    padding = tuple(
        (have[0] - want[0], want[1] - have[1]) for have, want in zip(r.box, needed, strict=True)
    )
    x = conv(
        r.array,
        weight,
        stride=tuple(axis.stride for axis in axes),
        dilation=tuple(axis.dilation for axis in axes),
        padding=padding,
        groups=context.get("group", 1),
        input_size=tuple(last - first + 1 for first, last in inside),
    )
    return {0: SparseMap.at(x, inside, shape)}


@register("Gemm", "filter", box=entire_input)
def _gemm(context: NodeContext, r: SparseMap) -> InputMaps:
    """``R Wᵀ``, for ``Y = alpha A' B' + beta C`` where a prime means transposed, if so asked."""
    n = 0 if context.is_activation(0) else 1
    back: dict[int, SparseMap] = {}
    if context.is_activation(n):
        other = cast_like(context.value(1 - n), r)
        other = other if context.get("transB" if n == 0 else "transA", 0) else other.T
        found = r.array @ other if n == 0 else other @ r.array
        found = found * r.array.dtype.type(context.get("alpha", 1.0))
        back[n] = SparseMap.whole(
            found.T if context.get("transA" if n == 0 else "transB", 0) else found
        )
    if context.is_activation(2):
        scaled = r.array * r.array.dtype.type(context.get("beta", 1.0))
        back[2] = SparseMap.whole(unbroadcast(scaled, context.shape(2)))
    return back


@register("MatMul", "filter", box=entire_input)
def _mat_mul(context: NodeContext, r: SparseMap) -> InputMaps:
    """``R Wᵀ`` where the second operand is known, ``Wᵀ R`` where the first is."""
    n = 0 if context.is_activation(0) else 1
    full, other = r.dense(), cast_like(context.value(1 - n), r)
    other = np.swapaxes(other, -1, -2) if other.ndim > 1 else other
    found = full @ other if n == 0 else other @ full
    return {n: SparseMap.whole(unbroadcast(found, context.shape(n)))}


# ---- poolings ------------------------------------------------------------------------------------


@register("MaxPool", "switches", box=pool_windows, records=RULES)
def _max_pool(context: NodeContext, r: SparseMap) -> InputMaps:
    """R goes to the largest cell of each window; overlapping windows add."""
    kernel, shape = tuple(context.get("kernel_shape")), context.shape(0)
    axes = windows_of(context.node.attributes, kernel, shape[2:])
    reach = [axis.cells_under(box) for axis, box in zip(axes, r.box, strict=True)]
    inside = clip_box(reach, shape[2:])
    around = overhang(reach, inside)
    x = context.value(0)[box_index(inside)]
    x = np.pad(x, ((0, 0), (0, 0), *around), constant_values=-np.inf)
    stride = tuple(axis.stride for axis in axes)
    dilation = tuple(axis.dilation for axis in axes)
    _, switches = max_pool(x, kernel, stride, 0, dilation)
    back = max_unpool(r.array, switches, x.shape[2:])
    sizes = zip(around, back.shape[2:], strict=True)
    kept = box_index([(before, size - after - 1) for (before, after), size in sizes])
    return {0: SparseMap.at(np.ascontiguousarray(back[kept]), inside, shape)}


@register("GlobalMaxPool", "switches", box=entire_input, records=RULES)
def _global_max_pool(context: NodeContext, r: SparseMap) -> InputMaps:
    """R goes to the largest cell."""
    x = context.value(0)
    _, switches = max_pool(x, x.shape[2:])
    return {0: SparseMap.whole(max_unpool(r.dense(), switches, x.shape[2:]))}


@register("AveragePool", "spread", box=pool_windows)
def _average_pool(context: NodeContext, r: SparseMap) -> InputMaps:
    """R is divided evenly among the cells of its window."""
    kernel, shape = tuple(context.get("kernel_shape")), context.shape(0)
    axes = windows_of(context.node.attributes, kernel, shape[2:])
    each = r.array
    for n, (axis, (first, last)) in enumerate(zip(axes, r.box, strict=True)):
        # The mean counts taps on x, or on the padding too; never taps beyond the padding.
        low, high = 0, shape[n + 2]
        if context.get("count_include_pad", 0):
            ends = context.get("pads")
            end = (
                ends[len(axes) + n]
                if ends
                else axis.cells_under((0, r.shape[n + 2] - 1))[1] + 1 - high
            )
            low, high = -axis.begin, high + max(0, end)
        counts = [axis.taps_on(window, low, high) for window in range(first, last + 1)]
        each = each / np.array(counts, each.dtype).reshape(-1, *[1] * (len(axes) - 1 - n))
    ones = np.ones((shape[1], 1, *kernel), each.dtype)
    divided = r.with_array(np.ascontiguousarray(each))
    return {0: _transposed(divided, ones, axes, shape, groups=shape[1])}


@register("GlobalAveragePool", "spread", box=entire_input)
def _global_average_pool(context: NodeContext, r: SparseMap) -> InputMaps:
    """R is divided evenly among the cells of x."""
    shape = context.shape(0)
    share = r.dense() / r.array.dtype.type(np.prod(shape[2:]))
    return {0: SparseMap.whole(np.broadcast_to(share, shape))}


@register("ReduceMax", "switches", box=entire_input, records=RULES)
def _reduce_max(context: NodeContext, r: SparseMap) -> InputMaps:
    """R goes to the largest cell along the axes, of equals to the first one."""
    x, full = context.value(0), r.dense()
    axes = _reduced_axes(context)
    if not axes:
        return {0: r}
    kept = tuple(n for n in range(x.ndim) if n not in axes)
    order = (*kept, *axes)
    rows = x.transpose(order).reshape(*(x.shape[n] for n in kept), -1)
    back = np.zeros(rows.shape, full.dtype)
    there = rows.argmax(axis=-1)[..., np.newaxis]
    np.put_along_axis(back, there, full.reshape(there.shape), axis=-1)
    back = back.reshape([x.shape[n] for n in order]).transpose(np.argsort(order))
    return {0: SparseMap.whole(np.ascontiguousarray(back))}


@register("ReduceMean ReduceSum", "spread", box=entire_input)
def _reduce(context: NodeContext, r: SparseMap) -> InputMaps:
    """R goes to every cell that was summed; ReduceMean divides it evenly."""
    shape, axes = context.shape(0), _reduced_axes(context)
    if not axes:
        return {0: r}
    kept = tuple(1 if n in axes else size for n, size in enumerate(shape))
    share = r.dense().reshape(kept)
    if context.node.op == "ReduceMean":
        share = share / share.dtype.type(np.prod([shape[n] for n in axes]))
    return {0: SparseMap.whole(np.broadcast_to(share, shape))}


def _reduced_axes(context: NodeContext) -> tuple[int, ...]:
    """Return the axes that a reduction goes along; none if it leaves its input as it is."""
    rank = len(context.shape(0))
    axes = context.value(1).tolist() if context.has(1) else context.get("axes")
    if context.has(1) and not axes and context.get("noop_with_empty_axes", 0):
        return ()
    return tuple(sorted(n % rank for n in axes or range(rank)))
