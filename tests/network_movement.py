"""Operators that move elements or compute sizes, in random networks."""

from math import prod

import numpy as np
from hypothesis import strategies as st
from onnx import numpy_helper

from network_operators import MOST_CELLS, OPERATORS, conv, operator

__all__ = ["OPERATORS"]


@operator("Concat")
def _concat(b, op):
    x = b.pick(1)
    axis = b.draw(st.integers(0, len(x.shape) - 1))
    alike = [v for v in b.values if _without(v.shape, axis) == _without(x.shape, axis)]
    values = [x, *[b.one_of(alike) for _ in range(b.one_of([0, 1, 1, 2]))]]
    if b.maybe(3):
        sizes = (b.one_of([1, 2]),)
        values.append(b.numbers(x.shape[:axis] + sizes + x.shape[axis + 1 :], b.one_of([0, 2])))
    values = b.draw(st.permutations(values))
    size = sum(v.shape[axis] for v in values)
    if sum(prod(v.shape) for v in values) <= 2 * MOST_CELLS:
        shape = (*x.shape[:axis], size, *x.shape[axis + 1 :])
        b.add(op, values, shape, axis=axis - len(shape) * (b.opset >= 11 and b.maybe(4)))


def _without(shape, axis):
    return len(shape), shape[:axis], shape[axis + 1 :]


@operator("Split")
def _split(b, op):
    x = b.pick(1)
    axis = b.one_of([n for n, size in enumerate(x.shape) if size in (1, max(x.shape))])
    count = b.draw(st.integers(1, min(3, x.shape[axis])))
    sizes, more, given = [x.shape[axis] // count] * count, [], {}
    if x.shape[axis] % count or b.maybe():
        sizes[0] += x.shape[axis] - sum(sizes)
        more, given = ([b.sizes(sizes)], {}) if b.opset >= 13 else ([], {"split": sizes})
    elif b.opset >= 18:
        given = {"num_outputs": count}
    shapes = [(*x.shape[:axis], size, *x.shape[axis + 1 :]) for size in sizes]
    b.add_several(op, [x, *more], shapes, axis=axis, **given)


@operator("Slice")
def _slice(b, op):
    x = b.pick(1)
    shape, starts, ends, axes, steps = list(x.shape), [], [], [], []
    for axis in b.draw(st.permutations(range(len(shape))))[: b.one_of([1, 2])]:
        size = shape[axis]
        step = b.one_of([1, 2, 3, -1, -2]) if b.opset >= 10 else 1
        low, high = sorted(b.integers(0, size - 1, 2))
        shape[axis] = (high - low) // abs(step) + 1
        first, end = (low, high + 1) if step > 0 else (high, low - 1)
        if end == -1:
            end = b.one_of([-size - 1, -(2**31)])
        elif end == size:
            end = b.one_of([size, 2**31 - 1])
        else:
            end -= size * b.maybe(3)
        for of_all, each in ((starts, first - size * b.maybe(3)), (ends, end), (steps, step)):
            of_all.append(each)
        axes.append(axis - len(shape) * (b.opset >= 10 and b.maybe(3)))
    if b.opset < 10:
        b.add(op, [x], shape, starts=starts, ends=ends, axes=axes)
    else:
        more = [starts, ends, axes, steps] if {*steps} != {1} else [starts, ends, axes]
        b.add(op, [x, *map(b.sizes, more)], shape)


@operator("Gather")
def _gather(b, op):
    x = b.pick(1)
    axis = b.draw(st.integers(0, len(x.shape) - 1))
    size = x.shape[axis]
    first, step = b.draw(st.integers(0, size - 1)), b.one_of([1, 1, 2, 0, -1])
    indices = [first + n * step for n in range(3) if 0 <= first + n * step < size]
    indices = [n - size * (b.opset >= 11 and b.maybe(3)) for n in indices]
    more = () if b.maybe(4) else (len(indices),)
    where = b.sizes(indices if more else indices[0])
    b.add(op, [x, where], (*x.shape[:axis], *more, *x.shape[axis + 1 :]), axis=axis)


@operator("Pad")
def _pad(b, op):
    x = b.pick(1)
    least = [-1 if size > 2 else 0 for size in x.shape]
    _padded(b, x, [b.draw(st.integers(n if b.maybe() else 0, 2)) for n in least * 2])


@operator("bordered Pad")
def _bordered(b, op):
    x = b.pick(1)
    mode = b.one_of(["reflect", "edge", "wrap"] if b.opset >= 19 else ["reflect", "edge"])
    most = [min(size - (mode == "reflect"), 3) for size in x.shape]
    pads = [b.draw(st.integers(0, n)) for n in most * 2]
    shape = [size + pads[n] + pads[n + len(most)] for n, size in enumerate(x.shape)]
    if prod(shape) > 2 * MOST_CELLS:
        return
    if b.opset < 11:
        b.add("Pad", [x], shape, pads=pads, mode=mode)
    else:
        b.add("Pad", [x, b.sizes(pads)], shape, mode=mode)


@operator("DepthToSpace", "SpaceToDepth")
def _shuffled(b, op):
    x, by = b.pick(4, 4), b.one_of([1, 2])
    if len(x.shape) != 4:  # a value may have none of that rank
        return
    batch, channels, *sizes = x.shape
    if op == "SpaceToDepth":
        if not any(size % by for size in sizes):
            b.add(op, [x], (batch, channels * by * by, *[n // by for n in sizes]), blocksize=by)
    elif not channels % (by * by):
        shape = (batch, channels // (by * by), *[size * by for size in sizes])
        given = {"mode": b.one_of(["DCR", "CRD"])} if b.opset >= 11 else {}
        b.add(op, [x], shape, blocksize=by, **given)


@operator("padded Conv")
def _padded_conv(b, op):
    x = b.pick(3, 5)
    rank = len(x.shape) - 2
    x = _padded(b, x, [0, 0, *b.integers(0, 2, rank), 0, 0, *b.integers(0, 2, rank)])
    if b.maybe(4):  # of the same rank
        shape = (*x.shape[:2], *b.draw(st.permutations(x.shape[2:])))
        x = b.add("Reshape", [x, b.sizes(shape)], shape)
    conv(b, x)


def _padded(b, x, pads):
    rank, fill = len(x.shape), b.one_of([0, 0, 3, -2])
    shape = [size + pads[n] + pads[n + rank] for n, size in enumerate(x.shape)]
    most = max(x.most, abs(fill))
    if prod(shape) > 2 * MOST_CELLS:
        return x
    if b.opset < 11:
        return b.add("Pad", [x], shape, most, pads=pads, value=float(fill))
    more = [b.constant(np.float32(fill))] if fill or b.maybe() else []
    return b.add("Pad", [x, b.sizes(pads), *more], shape, most)


@operator("Reshape")
def _reshape(b, op):
    x = b.pick(1)
    how, shape = b.one_of(["row", "permuted", "kept", "split", "merged"]), list(x.shape)
    axis = b.draw(st.integers(0, len(shape) - 1))
    if how == "row":
        shape, written = [prod(shape)], [-1]
    elif how == "permuted":
        shape = b.draw(st.permutations(shape))
        written = [-1 if n == axis else size for n, size in enumerate(shape)]
    elif how == "split":
        by = b.one_of([n for n in range(1, shape[axis] + 1) if not shape[axis] % n])
        written = [*[0] * axis, by, -1, *shape[axis + 1 :]]
        shape[axis : axis + 1] = by, shape[axis] // by
    elif how == "merged" and axis:
        written = [*shape[: axis - 1], -1, *shape[axis + 1 :]]
        shape[axis - 1 : axis + 1] = [shape[axis - 1] * shape[axis]]
    else:
        written = [0] * len(shape)
    b.add(op, [x, b.sizes(written)], shape)


@operator("Flatten", "Transpose")
def _rearranged(b, op):
    x = b.pick(2)
    if op == "Flatten":
        axis = b.draw(st.integers(0, len(x.shape)))
        shape = prod(x.shape[:axis]), prod(x.shape[axis:])
        is_negative = axis < len(x.shape) and b.opset >= 11 and b.maybe(4)
        given = {"axis": axis - len(x.shape) * is_negative}
    else:
        perm = b.draw(st.permutations(range(len(x.shape))))
        perm, given = (perm, {"perm": perm}) if b.maybe(4) else (range(len(x.shape))[::-1], {})
        shape = [x.shape[n] for n in perm]
    b.add(op, [x], shape, **given)


@operator("Squeeze", "Unsqueeze")
def _squeeze(b, op):
    x = b.pick(1)
    if op == "Unsqueeze":
        axis = b.draw(st.integers(0, len(x.shape)))
        shape, rank = [*x.shape[:axis], 1, *x.shape[axis:]], len(x.shape) + 1
    else:
        ones = [n for n, size in enumerate(x.shape) if size == 1]
        if not ones:  # none to leave out
            return b.add("Identity", [x])
        axis, rank = b.one_of(ones), len(x.shape)
        shape = [*x.shape[:axis], *x.shape[axis + 1 :]]
    axes = [axis - rank * (b.opset >= 11 and b.maybe(3))]
    if b.opset >= 13:
        return b.add(op, [x, b.sizes(axes)], shape)
    return b.add(op, [x], shape, axes=axes)


@operator("Expand")
def _expand(b, op):
    x = b.pick(1)
    sizes = [b.one_of([1, 2, 3]) if n == 1 else b.one_of([1, n]) for n in x.shape]
    sizes = [b.one_of([1, 2])] * b.maybe(4) + sizes[b.one_of([0, 0, 1]) :]
    shape = np.broadcast_shapes(x.shape, tuple(sizes)) if _fits(x.shape, sizes) else x.shape
    b.add(op, [x, b.sizes(sizes if _fits(x.shape, sizes) else x.shape)], shape)


def _fits(shape, sizes):
    try:
        return prod(np.broadcast_shapes(tuple(shape), tuple(sizes))) <= MOST_CELLS
    except ValueError:
        return False


# ---- sizes that nodes compute --------------------------------------------------------------------


@operator("Shape chain")
def _shape_chain(b, op):
    """Reshape to (a size of x, everything else), as exporters write it."""
    x = b.pick(1)
    place = b.draw(st.integers(0, len(x.shape) - 1))
    shape = b.add("Shape", [x], hidden=True)
    one = b.add("Gather", [shape, b.sizes(place)], hidden=True, axis=0)
    more, given = ([b.sizes([0])], {}) if b.opset >= 13 else ([], {"axes": [0]})
    one = b.add("Unsqueeze", [one, *more], hidden=True, **given)
    sizes = b.add("Concat", [one, b.sizes([-1])], hidden=True, axis=0)
    b.add("Reshape", [x, sizes], (x.shape[place], prod(x.shape) // x.shape[place]))


@operator("ConstantOfShape")
def _constant_of_shape(b, op):
    """Numbers of x's shape, beside x."""
    x, shape_of = b.pick(1), b.pick(1)
    sizes = b.add("Shape", [shape_of], hidden=True)
    given = {"value": numpy_helper.from_array(np.array([2], np.float32))} if b.maybe() else {}
    made = b.add(op, [sizes], shape_of.shape, 2, 0, **given)
    if made.shape == x.shape:
        b.add("Max", [x, made], most=x.most + 2)
