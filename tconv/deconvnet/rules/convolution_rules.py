"""HOW WINDOWS ARE REVERSED: the rows of filters and of poolings, the same under every rule.

References
----------
Zeiler & Fergus 2014, arXiv:1311.2901, section 2.1: filters by their transposes, max pooling by the
switches that it set.
"""

import numpy as np

from tconv.deconvnet.rules.registry import (
    RULES,
    InputMaps,
    NodeContext,
    cast_like,
    map_at,
    overhang,
    row,
    unbroadcast,
)
from tconv.deconvnet.rules.sparse_map import SparseMap, box_index, clip_box
from tconv.deconvnet.rules.windows import transposed_windows_of, windows_of
from tconv.ops.functional import conv, conv_transpose
from tconv.ops.max_pool import max_pool, max_unpool

__all__: list[str] = []

# ---- filters, whose biases are dropped -----------------------------------------------------------


@row("Conv", "filter")
def _conv(step: NodeContext, r: SparseMap) -> InputMaps:
    """``conv_transpose(R, W)``, cut to what lies on x."""
    weight, shape = cast_like(step.value(1), r), step.shape(0)
    axes = windows_of(step.node.attributes, weight.shape[2:], shape[2:])
    reach = [axis.cells_under(box) for axis, box in zip(axes, r.box, strict=True)]
    inside = clip_box(reach, shape[2:])
    x = conv_transpose(
        r.array,
        weight,
        stride=tuple(axis.stride for axis in axes),
        dilation=tuple(axis.dilation for axis in axes),
        padding=overhang(reach, inside),
        groups=step.get("group", 1),
    )
    return {0: map_at(x, inside, shape)}


@row("ConvTranspose", "filter")
def _conv_transpose(step: NodeContext, r: SparseMap) -> InputMaps:
    """``conv(R, W)``, where its windows touch the signal."""
    weight, shape = cast_like(step.value(1), r), step.shape(0)
    axes = transposed_windows_of(step.node.attributes, shape, weight.shape)
    inside = clip_box(
        [axis.windows_over(box) for axis, box in zip(axes, r.box, strict=True)], shape[2:]
    )
    if any(last < first for first, last in inside):  # the crop takes all
        return {0: SparseMap.whole(np.zeros(shape, r.array.dtype))}
    needed = [axis.cells_under(windows) for axis, windows in zip(axes, inside, strict=True)]
    around = tuple(
        (have[0] - want[0], want[1] - have[1]) for have, want in zip(r.box, needed, strict=True)
    )
    x = conv(
        r.array,
        weight,
        stride=tuple(axis.stride for axis in axes),
        dilation=tuple(axis.dilation for axis in axes),
        padding=around,
        groups=step.get("group", 1),
        input_size=tuple(last - first + 1 for first, last in inside),
    )
    return {0: map_at(x, inside, shape)}


@row("Gemm", "filter")
def _gemm(step: NodeContext, r: SparseMap) -> InputMaps:
    """``R Wᵀ``, for ``Y = alpha A' B' + beta C`` with primes where an operand is transposed."""
    n = 0 if step.is_activation(0) else 1
    back: dict[int, SparseMap] = {}
    if step.is_activation(n):
        other = cast_like(step.value(1 - n), r)
        other = other if step.get("transB" if n == 0 else "transA", 0) else other.T
        found = r.array @ other if n == 0 else other @ r.array
        found = found * r.array.dtype.type(step.get("alpha", 1.0))
        back[n] = SparseMap.whole(
            found.T if step.get("transA" if n == 0 else "transB", 0) else found
        )
    if step.is_activation(2):
        scaled = r.array * r.array.dtype.type(step.get("beta", 1.0))
        back[2] = SparseMap.whole(unbroadcast(scaled, step.shape(2)))
    return back


@row("MatMul", "filter")
def _mat_mul(step: NodeContext, r: SparseMap) -> InputMaps:
    """``R Wᵀ`` where the second operand is known, ``Wᵀ R`` where the first is."""
    n = 0 if step.is_activation(0) else 1
    full, other = r.dense(), cast_like(step.value(1 - n), r)
    other = np.swapaxes(other, -1, -2) if other.ndim > 1 else other
    found = full @ other if n == 0 else other @ full
    return {n: SparseMap.whole(unbroadcast(found, step.shape(n)))}


# ---- poolings ------------------------------------------------------------------------------------


@row("MaxPool", "switches", records=RULES)
def _max_pool(step: NodeContext, r: SparseMap) -> InputMaps:
    """R goes where the largest was; windows that overlap add."""
    kernel, shape = tuple(step.get("kernel_shape")), step.shape(0)
    axes = windows_of(step.node.attributes, kernel, shape[2:])
    reach = [axis.cells_under(box) for axis, box in zip(axes, r.box, strict=True)]
    inside = clip_box(reach, shape[2:])
    around = overhang(reach, inside)
    x = step.value(0)[box_index(inside)]
    x = np.pad(x, ((0, 0), (0, 0), *around), constant_values=-np.inf)
    stride = tuple(axis.stride for axis in axes)
    dilation = tuple(axis.dilation for axis in axes)
    _, switches = max_pool(x, kernel, stride, 0, dilation)
    back = max_unpool(r.array, switches, x.shape[2:])
    sizes = zip(around, back.shape[2:], strict=True)
    kept = box_index([(before, size - after - 1) for (before, after), size in sizes])
    return {0: map_at(np.ascontiguousarray(back[kept]), inside, shape)}


@row("GlobalMaxPool", "switches", records=RULES)
def _global_max_pool(step: NodeContext, r: SparseMap) -> InputMaps:
    """R goes where the largest was."""
    x = step.value(0)
    _, switches = max_pool(x, x.shape[2:])
    return {0: SparseMap.whole(max_unpool(r.dense(), switches, x.shape[2:]))}


@row("AveragePool", "spread")
def _average_pool(step: NodeContext, r: SparseMap) -> InputMaps:
    """R is spread evenly over its window."""
    kernel, shape = tuple(step.get("kernel_shape")), step.shape(0)
    axes = windows_of(step.node.attributes, kernel, shape[2:])
    reach = [axis.cells_under(box) for axis, box in zip(axes, r.box, strict=True)]
    inside = clip_box(reach, shape[2:])
    each = r.array
    for n, (axis, (first, last)) in enumerate(zip(axes, r.box, strict=True)):
        # Which taps count: those on x, or on the padding as well; never those beyond the padding.
        low, high = 0, shape[n + 2]
        if step.get("count_include_pad", 0):
            ends = step.get("pads")
            end = (
                ends[len(axes) + n]
                if ends
                else axis.cells_under((0, r.shape[n + 2] - 1))[1] + 1 - high
            )
            low, high = -axis.begin, high + max(0, end)
        counts = [axis.taps_on(window, low, high) for window in range(first, last + 1)]
        each = each / np.array(counts, each.dtype).reshape(-1, *[1] * (len(axes) - 1 - n))
    x = conv_transpose(
        np.ascontiguousarray(each),
        np.ones((shape[1], 1, *kernel), each.dtype),
        stride=tuple(axis.stride for axis in axes),
        dilation=tuple(axis.dilation for axis in axes),
        padding=overhang(reach, inside),
        groups=shape[1],
    )
    return {0: map_at(x, inside, shape)}


@row("GlobalAveragePool", "spread")
def _global_average_pool(step: NodeContext, r: SparseMap) -> InputMaps:
    """R is spread evenly over x."""
    shape = step.shape(0)
    share = r.dense() / r.array.dtype.type(np.prod(shape[2:]))
    return {0: SparseMap.whole(np.broadcast_to(share, shape))}


@row("ReduceMean ReduceSum", "spread")
def _reduce(step: NodeContext, r: SparseMap) -> InputMaps:
    """R is spread over what was summed."""
    shape = step.shape(0)
    axes = step.value(1).tolist() if step.has(1) else step.get("axes")
    axes = [n % len(shape) for n in axes or range(len(shape))]
    if step.has(1) and not len(step.value(1)) and step.get("noop_with_empty_axes", 0):
        return {0: r}
    kept = tuple(1 if n in axes else size for n, size in enumerate(shape))
    share = r.dense().reshape(kept)
    if step.node.op == "ReduceMean":
        share = share / share.dtype.type(np.prod([shape[n] for n in axes]))
    return {0: SparseMap.whole(np.broadcast_to(share, shape))}
