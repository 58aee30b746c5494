"""Random calls of the public functions in all their forms, and what each must give.

The definition here is one of its own: loops over taps and groups on whole canvases of integers, and
`numpy.pad` for borders. It shares nothing with the package, layouts included. Operands are small
integers in every type, so that all sums are exact and results are compared by ``==``.
"""

from itertools import product
from math import prod
from typing import NamedTuple

import ml_dtypes
import numpy as np

import tconv

__all__ = ["FORMS", "Call", "calls", "check"]

FORMS = ("y", "x", "w", "plan y", "plan x", "layer y", "layer x", "vjp")
KINDS = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
INTEGERS = ("int8", "uint8", "int16", "uint16", "int32", "uint32", "int64")
MODES = {"circular": "wrap", "reflect": "reflect", "replicate": "edge"}
FORMATS = ("IO*", "*OI", "*IO", "OI*", "O*I")
MEMORIES = ("whole", "whole", "permuted", "reversed", "strided", "unaligned", "swapped")
MOST_PRODUCTS = 1_000_000
CANARY = 0x5A


class Call(NamedTuple):
    """Sizes and layouts of one transposed convolution; (batch, C, M) count all groups."""

    batch: int | None
    channels: tuple[int, int]
    groups: int
    size: tuple[int, ...]
    kernel: tuple[int, ...]
    output: tuple[int, ...]
    stride: tuple[int, ...]
    dilation: tuple[int, ...]
    begin: tuple[int, ...]
    end: tuple[int, ...]
    extra: tuple[int, ...]
    padding: str | None
    mode: str
    last: bool
    weight_format: str
    flip: bool
    dtype: str

    @property
    def rank(self):
        return len(self.size)

    @property
    def full(self):
        """Cells from the first that a tap reaches to the last."""
        axes = zip(self.size, self.stride, self.kernel, self.dilation, strict=True)
        return tuple((i - 1) * s + (k - 1) * d + 1 for i, s, k, d in axes)


# ---- what is drawn -------------------------------------------------------------------------------


def drawn(rng):
    """One call of any kind."""
    rank = int(rng.choice([1, 2, 3, 4], p=[0.4, 0.35, 0.2, 0.05]))
    is_wide = rank < 3 and rng.random() < 0.2  # where outputs may share products

    def sizes(low, high):
        return [int(n) for n in rng.integers(low, high + 1, rank)]

    stride, dilation = sizes(1, 3 if is_wide else 4), sizes(1, 1 if is_wide else 3)
    size = sizes(1, (40, 12, 6, 3)[rank - 1])
    kernel = sizes(1, (7, 5, 4, 3)[rank - 1])
    groups = int(rng.choice([1, 1, 2, 3]))
    most = [1, 2, 3, 5, 8, 16, 17, 33]
    each = [int(n) for n in rng.choice(most, 2)]
    if is_wide:
        kernel = [s * int(rng.integers(2, 4)) for s in stride]
        each, groups = [int(n) for n in rng.integers(12, 40, 2)], 1
    batch = [None, 0, 1, 2, 3][rng.choice(5, p=[0.15, 0.05, 0.4, 0.3, 0.1])]
    while (batch or 1) * prod(size) * prod(kernel) * prod(each) * groups > MOST_PRODUCTS:
        n = int(np.argmax(size)) if max(size) > 1 else int(np.argmax(kernel))
        of = size if max(size) > 1 else kernel
        if of[n] == 1:
            each = [1, 1]
        of[n] = max(1, of[n] // 2)
    mode = str(rng.choice(["zeros", "zeros", "zeros", *MODES]))
    named = str(rng.choice(["valid", "same", "same_upper", "same_lower"]))
    named = named if mode == "zeros" and rng.random() < 0.15 else None
    axes = [
        _borders(rng, *each_axis, mode, named)
        for each_axis in zip(size, kernel, stride, dilation, strict=True)
    ]
    begin, end, extra, output = (tuple(found) for found in zip(*axes, strict=True))
    return Call(
        batch,
        (groups * each[0], groups * each[1]),
        groups,
        *map(tuple, (size, kernel)),
        output,
        *map(tuple, (stride, dilation)),
        begin,
        end,
        extra,
        named,
        mode,
        bool(rng.random() < 0.3),
        str(rng.choice(FORMATS)) if rng.random() < 0.4 else "IO*",
        bool(rng.random() < 0.2),
        str(rng.choice(KINDS if rng.random() < 0.75 else INTEGERS)),
    )


def _borders(rng, size, kernel, stride, dilation, mode, named):
    """(begin, end, output_padding, output) of one axis."""
    full = (size - 1) * stride + (kernel - 1) * dilation + 1
    if named == "valid":
        return 0, 0, 0, full
    if named is not None:
        crop = full - size * stride
        less = max(crop, 0) // 2
        begin, end = (crop - less, less) if named == "same_lower" else (less, crop - less)
        return begin, end, 0, size * stride
    if mode == "zeros":
        extra = int(rng.integers(0, max(stride, dilation)))
        begin = int(rng.integers(-2, min(full + extra, 6)))
        end = int(rng.integers(-2, min(full + extra - begin, 6)))
        return begin, end, extra, full + extra - begin - end
    begin = int(rng.integers(0, min(full, 5)))
    end = int(rng.integers(0, min(full - begin, 5)))
    while mode != "circular" and max(begin, end) >= full - begin - end:
        begin, end = max(begin - 1, 0), max(end - 1, 0)
    return begin, end, 0, full - begin - end


# ---- the definition ------------------------------------------------------------------------------


def define(call, want, x, w, y, bias=None):
    """What is wanted of (N, C, *I), (G, C/G, M/G, *K) and (N, M, *O), in integers."""
    if want == "y":
        canvas = np.zeros((*x.shape[:1], call.channels[1], *_canvas(call)), np.result_type(x, w))
    else:
        canvas = _padded(call, y)
    c, m = (n // call.groups for n in call.channels)
    shape = {"y": canvas.shape, "x": (len(canvas), call.channels[0], *call.size)}.get(want)
    found = canvas if want == "y" else np.zeros(shape or _weight_shape(call), canvas.dtype)
    for k in product(*map(range, call.kernel)):
        cells = tuple(
            slice(n * d, n * d + (i - 1) * s + 1, s)
            for n, d, i, s in zip(k, call.dilation, call.size, call.stride, strict=True)
        )
        for g in range(call.groups):
            of_x, of_y = slice(g * c, (g + 1) * c), slice(g * m, (g + 1) * m)
            met = (slice(None), of_y, *cells)
            if want == "y":
                found[met] += np.einsum("nc...,cm->nm...", x[:, of_x], w[(g, ..., *k)])
            elif want == "x":
                found[:, of_x] += np.einsum("nm...,cm->nc...", canvas[met], w[(g, ..., *k)])
            else:
                flat = (
                    each.reshape(*each.shape[:2], prod(call.size))
                    for each in (x[:, of_x], canvas[met])
                )
                found[(g, ..., *k)] = np.einsum("nci,nmi->cm", *flat)
    if want == "y":
        found = _cropped(call, found)
    return found if bias is None else found + bias.reshape(-1, *[1] * call.rank)


def _weight_shape(call):
    return (call.groups, *(n // call.groups for n in call.channels), *call.kernel)


def _canvas(call):
    """Cells that are reached or kept, from the first that a tap reaches."""
    if call.mode != "zeros":
        return call.full
    ends = zip(call.full, call.begin, call.output, strict=True)
    return tuple(max(full, begin + output) for full, begin, output in ends)


def _padded(call, y):
    """Spread y over the canvas; what lies beside it is not needed."""
    pairs = [(0, 0), (0, 0), *zip(call.begin, call.end, strict=True)]
    if call.mode != "zeros":
        return np.pad(y, pairs, mode=MODES[call.mode])
    canvas = np.zeros((*y.shape[:2], *_canvas(call)), y.dtype)
    kept = [
        slice(max(begin, 0), max(begin + o, 0))
        for begin, o in zip(call.begin, call.output, strict=True)
    ]
    met = [slice(max(-begin, 0), None) for begin in call.begin]
    canvas[(..., *kept)] = y[(..., *met)]
    return canvas


def _cropped(call, canvas):
    """The transpose of `_padded`."""
    y = canvas
    for n, (begin, end, size) in enumerate(
        zip(call.begin, call.end, call.output, strict=True), canvas.ndim - call.rank
    ):
        rows = np.moveaxis(y, n, 0)
        found = np.zeros((size, *rows.shape[1:]), rows.dtype)
        if call.mode == "zeros":
            found[max(-begin, 0) :] = rows[max(begin, 0) : max(begin + size, 0)]
        else:
            np.add.at(found, np.pad(np.arange(size), (begin, end), mode=MODES[call.mode]), rows)
        y = np.moveaxis(found, 0, n)
    return y


# ---- layouts -------------------------------------------------------------------------------------


def as_data(call, array):
    """(N, channels, *size) as the caller has it."""
    array = np.moveaxis(array, 1, -1) if call.last else array
    return array if call.batch is not None else array[0]


def as_weight(call, array):
    """(G, C/G, M/G, *K) in the weight format."""
    axes = tuple(range(3, array.ndim))
    array = np.flip(array, axes) if call.flip else array
    if call.weight_format in ("IO*", "*OI"):
        array = array.reshape(-1, *array.shape[2:])  # (C, M/G, *K)
    else:
        array = array.swapaxes(1, 2)
        array = array.reshape(-1, *array.shape[2:])  # (M, C/G, *K)
    kernel = range(2, array.ndim)
    order = {"IO*": (0, 1, *kernel), "OI*": (0, 1, *kernel), "O*I": (0, *kernel, 1)}
    return array.transpose(order.get(call.weight_format, (*kernel, 1, 0)))


def laid(rng, array, memory, allocate=None):
    """The same numbers in some memory, and all of that memory, as bytes."""
    array = np.asarray(array)
    order, steps = list(range(array.ndim)), [1] * array.ndim
    if memory == "permuted":
        order = [int(n) for n in rng.permutation(array.ndim)]
    elif memory == "reversed":
        steps = [int(n) for n in rng.choice([1, -1], array.ndim)]
    elif memory == "strided":
        steps = [int(n) for n in rng.choice([1, 2, -2, 3], array.ndim)]
    shape = [max(array.shape[n] * abs(steps[n]) - abs(steps[n]) + 1, 0) for n in order]
    odd = int(memory == "unaligned")
    allocate = allocate or (lambda size: np.empty(size, np.uint8))
    whole = allocate(prod(shape) * array.itemsize + odd)
    whole[...] = CANARY
    dtype = array.dtype.newbyteorder() if memory == "swapped" else array.dtype
    view = np.ndarray(shape, dtype, whole.data, odd).transpose(np.argsort(order))
    view = view[tuple(slice(None, None, step) for step in steps)]
    assert view.shape == array.shape
    view[...] = array
    return view, whole


def untouched(view, whole):
    """Whether nothing was written beside a view of some memory."""
    view[...] = np.frombuffer(bytes([CANARY]) * view.itemsize, view.dtype)[0]
    return bool((whole == CANARY).all())


# ---- calls ---------------------------------------------------------------------------------------


def said(rng, values):
    """Numbers of all axes in one of the ways in which they may be passed."""
    if len(set(values)) == 1 and rng.random() < 0.5:
        return values[0] if rng.random() < 0.8 else np.int16(values[0])
    kind = [tuple, list, np.array][rng.integers(3)]
    return kind(values)


def keywords_of(rng, call):
    """What says the sizes and layouts of a call."""
    padding = call.padding
    if padding is None:
        pairs = list(zip(call.begin, call.end, strict=True))
        padding = tuple(b if b == e and rng.random() < 0.5 else (b, e) for b, e in pairs)
        if len(set(pairs)) == 1 and pairs[0][0] == pairs[0][1] and rng.random() < 0.5:
            padding = pairs[0][0]
    found = {
        "stride": said(rng, call.stride),
        "dilation": said(rng, call.dilation),
        "padding": padding,
        "groups": call.groups,
        "data_format": "channels_last" if call.last else "channels_first",
    }
    if any(call.extra) or rng.random() < 0.3:
        found["output_padding"] = said(rng, call.extra)
    return found


def calls(seed, count=4):
    """Some forms of a random call, each with a generator of its own."""
    rng = np.random.default_rng(seed)
    call = drawn(rng)
    for _ in range(count):
        yield (
            call,
            possible(call, str(rng.choice(FORMS))),
            np.random.default_rng(rng.integers(2**32)),
        )


def possible(call, form):
    """The form, or that of a function where there is none for such a call."""
    if form == "vjp":
        return form if call.dtype not in INTEGERS else "y"
    if form.startswith("plan"):
        return form if call.mode == "zeros" else form[-1]
    if form.startswith("layer"):
        is_plain = call.weight_format == "IO*" and not call.flip
        is_real = call.dtype in KINDS[:4]
        steps = zip(call.extra, call.stride, strict=True)
        derives = form == "layer y" or all(extra < stride for extra, stride in steps)
        return form if is_plain and is_real and derives else form[-1]
    return form


def check(call, form, rng, allocate=None):
    """Make a call twice, with other numbers and memory each time; compare with the definition."""
    keywords = keywords_of(rng, call)
    made = {}
    for _ in range(2):
        for found, exact in _FORMS[form.split()[0]](call, form[-1], rng, keywords, allocate, made):
            same = found.shape == exact.shape and found.dtype == exact.dtype
            assert same, (form, call, found.shape, exact.shape, found.dtype)
            assert np.array_equal(found, exact), (form, call)


class Operands:
    """Integers for x, w, y and biases, and as the caller has them."""

    def __init__(self, call, rng, allocate, memories=MEMORIES):
        self.call, self.rng, self.allocate = call, rng, allocate
        self.kind = np.dtype(ml_dtypes.bfloat16 if call.dtype == "bfloat16" else call.dtype)
        self.memories = [m for m in memories if m != "swapped" or call.dtype != "bfloat16"]
        batch = 1 if call.batch is None else call.batch
        self.x = self._integers((batch, call.channels[0], *call.size))
        self.w = self._integers(_weight_shape(call))
        self.y = self._integers((batch, call.channels[1], *call.output))
        self.result = self.kind
        if call.dtype in INTEGERS:
            self.result = np.dtype("int32" if self.kind.itemsize == 1 else "int64")

    def _integers(self, shape):
        least = 0 if self.kind.kind == "u" else -2
        found = self.rng.integers(least, 3, shape)
        return found + 1j * self.rng.integers(-2, 3, shape) if self.kind.kind == "c" else found

    def bias(self, channels):
        """A bias, in integers, or None."""
        return self._integers((channels,)) if self.rng.random() < 0.5 else None

    def given(self, array, kind=None):
        """An array of the call's type, somewhere in memory."""
        memory = str(self.rng.choice(self.memories))
        return laid(self.rng, array.astype(kind or self.kind), memory, self.allocate)[0]

    def of(self, letter):
        """An operand as it is passed."""
        array = getattr(self, letter)
        return self.given(
            as_weight(self.call, array) if letter == "w" else as_data(self.call, array)
        )

    def exact(self, want, bias=None, *, w=None, y=None):
        """The result as it must come out."""
        found = define(
            self.call, want, self.x, self.w if w is None else w, self.y if y is None else y, bias
        )
        found = as_weight(self.call, found) if want == "w" else as_data(self.call, found)
        # Halves are rounded once, from float32.
        wide = np.float32 if self.kind.itemsize == 2 and self.kind.kind not in "iu" else None
        return (found if wide is None else found.astype(wide)).astype(self.result)

    def out(self, shape):
        """An array to write to and its memory, or None twice."""
        if self.rng.random() < 0.5:
            return None, None
        memory = str(self.rng.choice(["whole", "permuted", "reversed", "strided"]))
        return laid(self.rng, np.zeros(shape, self.result), memory, self.allocate)


def _function(call, want, rng, keywords, allocate, _):
    o = Operands(call, rng, allocate)
    more = {"weight_format": call.weight_format, "flip_kernel": call.flip}
    more |= {"padding_mode": call.mode, "threads": _threads(rng)}
    more["method"] = str(rng.choice(["auto", "direct"]))
    bias = None if want == "w" else o.bias(call.channels[want == "y"])
    given = None if bias is None else o.given(bias, o.result if rng.random() < 0.5 else None)
    conjugate = want == "x" and bool(rng.random() < 0.5)
    exact = o.exact(want, bias, w=o.w.conj() if conjugate else None)
    out, whole = o.out(exact.shape)
    if want == "y":
        y_size = {"output_size": call.output} if call.padding is None and rng.random() < 0.3 else {}
        if y_size:
            keywords = {name: v for name, v in keywords.items() if name != "output_padding"}
            y_size = y_size if call.mode == "zeros" else {}
        found = tconv.conv_transpose(
            o.of("x"), o.of("w"), given, out=out, **keywords, **y_size, **more
        )
    elif want == "x":
        keywords = {name: v for name, v in keywords.items() if name != "output_padding"}
        found = tconv.conv(
            o.of("y"),
            o.of("w"),
            given,
            out=out,
            input_size=call.size,
            conjugate=conjugate,
            **keywords,
            **more,
        )
    else:
        found = tconv.conv_weight_gradient(
            o.of("x"), o.of("y"), call.kernel, out=out, **keywords, **more
        )
    assert out is None or found is out
    yield np.array(found), exact
    assert out is None or untouched(out, whole), (want, call)


def _planned(call, want, rng, keywords, allocate, made):
    o = Operands(call, rng, allocate, [m for m in MEMORIES if m != "swapped"])
    if not made:
        more = {
            "weight_format": call.weight_format,
            "flip_kernel": call.flip,
            "threads": _threads(rng),
        }
        shapes = as_data(call, o.x).shape, as_weight(call, o.w).shape
        made["plan"] = tconv.plan(*shapes, want=want, dtype=o.kind, **keywords, **more)
        made["w"] = o.w
        made["packed"] = made["plan"].pack(o.of("w"))
    o.w = made["w"]
    bias = o.bias(call.channels[want == "y"])
    given = None if bias is None else o.given(bias)
    exact = o.exact(want, bias)
    out, whole = o.out(exact.shape)
    found = made["plan"](o.of("x" if want == "y" else "y"), made["packed"], given, out)
    assert out is None or found is out
    yield np.array(found), exact
    assert out is None or untouched(out, whole), (want, call)


def _layer(call, want, rng, keywords, allocate, made):
    o = Operands(call, rng, allocate)
    channels = call.channels if want == "y" else call.channels[::-1]
    if not made:
        keywords = keywords | {"padding_mode": call.mode, "dtype": o.kind, "initialiser": "zeros"}
        if want == "x":
            keywords.pop("output_padding", None)
        kind = tconv.ConvTranspose if want == "y" else tconv.Conv
        made["layer"] = kind(*channels, call.kernel, bias=bool(rng.random() < 0.5), **keywords)
    layer = made["layer"]
    layer.weight.value = o.of("w")
    bias = None
    if layer.bias is not None:
        bias = o._integers((channels[1],))
        layer.bias.value = bias
    x, y = ("x", "y") if want == "y" else ("y", "x")
    layer.zero_gradients()
    yield layer(o.of(x)), o.exact(want, bias)
    dy = o.of(y)
    yield layer.backward(dy), o.exact(x)
    yield layer.weight.gradient, o.exact("w")
    if bias is not None:
        axes = (0, *range(2, 2 + call.rank))
        total = getattr(o, y).sum(axis=axes).astype(np.float32 if o.kind.itemsize == 2 else o.kind)
        yield layer.bias.gradient, total.astype(o.kind)


def _vjp(call, _, rng, keywords, allocate, __):
    o = Operands(call, rng, allocate)
    more = {"weight_format": call.weight_format, "flip_kernel": call.flip}
    bias = o.bias(call.channels[1])
    given = None if bias is None else o.given(bias)
    y, pull_back = tconv.conv_transpose_vjp(
        o.of("x"), o.of("w"), given, padding_mode=call.mode, **keywords, **more
    )
    yield y, o.exact("y", bias)
    dx, dw, db = pull_back(o.of("y"))
    yield dx, o.exact("x")
    yield dw, o.exact("w")
    if bias is not None:
        total = o.y.sum(axis=(0, *range(2, 2 + call.rank)))
        yield db, (total.astype(np.float32) if o.kind.itemsize == 2 else total).astype(o.kind)


def _threads(rng):
    return [None, 1, 2, 3, np.uint8(2), np.int64(1)][rng.integers(6)]


_FORMS = dict.fromkeys("yxw", _function) | {"plan": _planned, "layer": _layer, "vjp": _vjp}
