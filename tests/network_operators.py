"""Arithmetic, contractions and pooling in random networks, and the registry of all operators.

A builder is one of `network_graphs`. What a function adds has a shape, a bound, and the binary
places of what may be in it.
"""

from math import prod

import numpy as np
from hypothesis import strategies as st

__all__ = ["INEXACT", "MOST_CELLS", "OPERATORS", "are_together", "conv", "operator"]

MOST_CELLS = 600  # of a value that grows
INEXACT = 99  # binary places of what is rounded

OPERATORS = {}
"""By name: the function that adds an operator, or some that belong together, to a builder."""


def operator(*names):
    def wrapped(function):
        OPERATORS.update(dict.fromkeys(names, function))
        return function

    return wrapped


def are_together(one, other):
    try:
        return prod(np.broadcast_shapes(one, other)) <= MOST_CELLS
    except ValueError:
        return False


# ---- arithmetic and activations ------------------------------------------------------------------


@operator("Add", "Sub", "Mul", "Div", "Max", "Min", "Sum", "Mean")
def _arithmetic(b, op):
    x = b.pick()
    many = op in ("Max", "Min", "Sum", "Mean")
    halves = op == "Div" and b.maybe(3)
    others, shape = [], x.shape
    for _ in range(b.one_of([0, 1, 1, 2, 3]) if many else not halves):
        others.append(b.partner(x, shape))
        shape = np.broadcast_shapes(shape, others[-1].shape)
    values = [x, *others]
    if halves:
        values, most, places = [x, b.constant(np.float32(2))], x.most, x.places + 1
    elif op == "Div":
        values, most, places = [x, _above_one(b, others[0])], x.most, INEXACT
    elif op == "Mul":
        most, places = x.most * others[0].most, x.places + others[0].places
    else:
        most = (max if op in ("Max", "Min", "Mean") else sum)(v.most for v in values)
        places = INEXACT if op == "Mean" else max(v.places for v in values)
    values = b.draw(st.permutations(values)) if op != "Div" else values
    b.add(op, values, shape, most, places)


def _above_one(b, x):
    """|x| + 1."""
    size = b.add("Abs", [x])
    return b.add("Add", [size, b.constant(np.float32(1))], most=x.most + 1)


@operator("Relu", "Neg", "Abs", "Identity", "Dropout")
def _exact(b, op):
    b.add(op, [b.pick()])


@operator("LeakyRelu", "Elu", "PRelu", "Sigmoid", "Tanh", "HardSigmoid", "HardSwish", "Gelu")
@operator("Softplus", "Softsign", "Selu", "Celu", "Mish")
def _activation(b, op):
    x, attributes, more = b.pick(), {}, []
    if op in ("Celu", "Selu") and b.maybe():
        attributes["alpha"] = b.one_of([0.5, 1.5])
    if op in ("LeakyRelu", "Elu") and b.maybe():
        attributes["alpha"] = b.one_of([0.0, 0.3, 1.5, -0.5] if op == "LeakyRelu" else [0.5, 2.0])
    if op == "HardSigmoid" and b.maybe():
        attributes |= {"alpha": 1 / 6, "beta": b.one_of([0.5, 0.25])}
    if op == "Gelu" and b.maybe():
        attributes["approximate"] = b.one_of(["tanh", "none"])
    if op == "PRelu":
        channels = x.shape[1:2] + (1,) * (len(x.shape) - 2)
        shape = b.one_of([(1,) * min(1, len(x.shape)), channels if len(x.shape) > 1 else ()])
        more = [b.numbers(shape)]
    most = {"Sigmoid": 1, "Tanh": 1, "HardSigmoid": 1}.get(op, x.most * 2 + 2)
    b.add(op, [x, *more], most=most, places=INEXACT, **attributes)


@operator("Clip")
def _clip(b, op):
    x = b.pick()
    bounds = b.one_of([{}, {"min": -1.0}, {"max": 3.0}, {"min": 0.0, "max": 6.0}])
    if b.opset < 11:
        return b.add(op, [x], **bounds)
    names = [b.constant(np.float32(bounds[n])) if n in bounds else "" for n in ("min", "max")]
    while names and not names[-1]:
        names.pop()
    return b.add(op, [x, *names], most=max(x.most, 1))


@operator("Exp", "Sqrt", "Reciprocal", "Floor", "Ceil", "Pow", "Sin", "Cos", "Log", "Round", "Sign")
def _function(b, op):
    x = b.pick()
    if op in ("Sin", "Cos"):
        b.add(op, [x], most=1, places=INEXACT)
    elif op in ("Floor", "Ceil", "Round", "Sign"):
        if not x.exact:
            x = b.values[0]
        quarter = b.add("Mul", [x, b.constant(np.float32(0.25))], places=x.places + 2)
        b.add(op, [quarter], places=0)
    elif op == "Exp":
        small = b.add("Tanh", [x], most=1, places=INEXACT)
        b.add(op, [small], most=3)
    elif op == "Pow":
        power = b.one_of([0.5, 1.0, 2.0, 3.0])
        x = _above_one(b, x) if power == 0.5 else x
        places = INEXACT if power == 0.5 else int(power) * x.places
        b.add(op, [x, b.constant(np.float32(power))], most=x.most**power + 1, places=places)
    else:
        b.add(op, [_above_one(b, x)], places=INEXACT)


@operator("spelt Gelu", "spelt Swish", "HardSwish by Clip", "HardSwish by HardSigmoid")
def _spelt(b, op):
    x = b.pick()
    most = {"most": x.most, "places": INEXACT}

    def number(value):
        return b.constant(np.full((1,) * b.one_of(range(len(x.shape) + 1)), value, np.float32))

    def either(op, *operands):
        return b.add(op, b.draw(st.permutations(operands)), x.shape, **most)

    if op == "spelt Swish":
        either("Mul", x, b.add("Sigmoid", [x], **most))
    elif op == "HardSwish by HardSigmoid":
        either("Mul", x, b.add("HardSigmoid", [x], alpha=1 / 6, beta=0.5, **most))
    elif op == "HardSwish by Clip":
        line = either("Add", x, number(3))
        bounds = {"min": 0.0, "max": 6.0} if b.opset < 11 else {}
        names = [] if bounds else [b.constant(np.float32(n)) for n in (0, 6)]
        gate = b.add("Clip", [line, *names], **most, **bounds)
        if b.maybe():
            b.add("Div", [either("Mul", x, gate), number(6)], x.shape, **most)
        else:
            either("Mul", x, either("Mul", gate, number(1 / 6)))
    else:
        erf = b.add("Erf", [b.add("Div", [x, number(2**0.5)], x.shape, **most)], **most)
        gate = either("Add", erf, number(1))
        if b.maybe():
            either("Mul", either("Mul", x, gate), number(0.5))
        else:
            either("Mul", either("Mul", x, number(0.5)), gate)


@operator("BatchNormalization")
def _batch_norm(b, op):
    x = b.pick(2)
    parameters = [b.numbers(x.shape[1:2]) for _ in range(3)]
    variance = b.constant(np.arange(1, x.shape[1] + 1, dtype=np.float32))
    b.add(op, [x, *parameters, variance], most=2 * x.most + 6, places=INEXACT, epsilon=1e-3)


# ---- contractions --------------------------------------------------------------------------------


@operator("Conv")
def _conv(b, op):
    conv(b, b.pick(3, 5))


def conv(b, x):
    """A Conv of x."""
    rank = len(x.shape) - 2
    kernel = [b.draw(st.integers(1, min(3, n))) for n in x.shape[2:]]
    strides, pads, form = b.integers(1, 2, rank), [0] * 2 * rank, b.one_of(["", "", "pads", "auto"])
    fits = all(2 * (k - 1) < n for k, n in zip(kernel, x.shape[2:], strict=True))
    dilations = [2 if fits and b.maybe(3) else 1] * rank
    given = {"strides": strides, "dilations": dilations}
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    if form == "pads":
        given["pads"] = pads = b.integers(0, 2, 2 * rank)
    room = [n + p + q for n, p, q in zip(x.shape[2:], pads[:rank], pads[rank:], strict=True)]
    size = [(n - k) // s + 1 for n, k, s in zip(room, spans, strides, strict=True)]
    if form == "auto":
        given["auto_pad"] = b.one_of(["VALID", "SAME_UPPER", "SAME_LOWER"])
        if given["auto_pad"] != "VALID":
            given["dilations"] = [1] * rank
            size = [-(-n // s) for n, s in zip(x.shape[2:], strides, strict=True)]
    group = given["group"] = b.one_of([g for g in range(1, x.shape[1] + 1) if not x.shape[1] % g])
    channels = b.one_of([group, 2 * group, x.shape[1], 4 * group])
    weight = b.numbers((channels, x.shape[1] // group, *kernel))
    bias = [b.numbers((channels,))] if b.maybe() else []
    most = x.most * 2 * prod(weight.shape[1:]) + 2
    b.add("Conv", [x, weight, *bias], (x.shape[0], channels, *size), most, **given)


@operator("ConvTranspose")
def _conv_transpose(b, op):
    x = b.pick(3, 5)
    rank = len(x.shape) - 2
    kernel, strides, dilations = b.integers(1, 3, rank), b.integers(1, 2, rank), [1] * rank
    if b.maybe(3):
        dilations = [2] * rank
    given = {"strides": strides, "dilations": dilations}
    full = [
        (n - 1) * s + d * (k - 1) + 1
        for n, k, s, d in zip(x.shape[2:], kernel, strides, dilations, strict=True)
    ]
    form = b.one_of(["", "pads", "SAME_UPPER", "SAME_LOWER"])
    if form == "pads":
        pads = [b.draw(st.integers(0, min(1, (n - 1) // 2))) for n in full]
        extra = [b.draw(st.integers(0, s - 1)) for s in strides]
        given |= {"pads": pads * 2, "output_padding": extra}
        size = [n - 2 * p + e for n, p, e in zip(full, pads, extra, strict=True)]
    elif form and min(n - m * s for n, m, s in zip(full, x.shape[2:], strides, strict=True)) >= 0:
        given["auto_pad"] = form
        size = [n * s for n, s in zip(x.shape[2:], strides, strict=True)]
    else:
        size = full
    group = given["group"] = b.one_of([g for g in range(1, x.shape[1] + 1) if not x.shape[1] % g])
    weight = b.numbers((x.shape[1], b.one_of([1, 2]), *kernel))
    channels = weight.shape[1] * group
    bias = [b.numbers((channels,))] if b.maybe() else []
    most = x.most * 2 * x.shape[1] * prod(kernel) + 2
    b.add(op, [x, weight, *bias], (x.shape[0], channels, *size), most, **given)


@operator("MatMul", "Gemm")
def _product(b, op):
    x = b.pick(2)
    if op == "Gemm" and len(x.shape) != 2:
        x = b.flat(x)
    columns, outputs = x.shape[-1], b.one_of([1, 3, 5])
    most = 2 * columns * x.most + 2
    if op == "MatMul":
        weight = b.numbers((columns, outputs))
        return b.add(op, [x, weight], (*x.shape[:-1], outputs), most)
    flipped = b.one_of([0, 1])
    weight = b.numbers((outputs, columns) if flipped else (columns, outputs))
    more = b.one_of([(), ((outputs,),), ((1, outputs),), ((1,),)])
    more = [b.numbers(shape) for shape in more] or ([b.numbers((1,), 0)] if b.opset < 11 else [])
    return b.add(op, [x, weight, *more], (x.shape[0], outputs), most, transB=flipped)


# ---- pooling, reductions, resampling -------------------------------------------------------------


@operator("MaxPool", "AveragePool")
def _pool(b, op):
    x = b.pick(3, 5)
    rank, given = len(x.shape) - 2, {}
    kernel = [b.draw(st.integers(1, min(3, n))) for n in x.shape[2:]]
    strides, dilations, pads = b.integers(1, 2, rank), [1] * rank, [0] * 2 * rank
    if b.opset >= (11 if op == "MaxPool" else 19):
        dilations = [
            2 if 2 * (k - 1) < n and b.maybe() else 1
            for k, n in zip(kernel, x.shape[2:], strict=True)
        ]
        given["dilations"] = dilations
    if b.maybe():
        given["pads"] = pads = [b.draw(st.integers(0, k - 1)) for k in kernel * 2]
    given |= {"count_include_pad": 1} if op == "AveragePool" and b.maybe(3) else {}
    rooms = [
        n + p + q - d * (k - 1) - 1
        for n, p, q, d, k in zip(x.shape[2:], pads, pads[rank:], dilations, kernel, strict=False)
    ]
    up = [-(-room // s) for room, s in zip(rooms, strides, strict=True)]
    starts = zip(up, strides, x.shape[2:], pads, strict=False)
    # ONNX Runtime gives a window that would start beyond x two sizes, one of them by inference.
    rounds_up = b.opset >= 11 and b.maybe(3) and all(n * s < size + p for n, s, size, p in starts)
    given |= {"ceil_mode": 1} if rounds_up else {}
    size = [1 + (n if rounds_up else m // s) for n, m, s in zip(up, rooms, strides, strict=True)]
    is_exact = op == "MaxPool" or (prod(kernel) in (1, 2, 4, 8) and not any(pads) and not rounds_up)
    places = x.places + 3 * (op != "MaxPool") if is_exact else INEXACT
    b.add(
        *(op, [x], (*x.shape[:2], *size)),
        **{"places": places, "kernel_shape": kernel, "strides": strides} | given,
    )


@operator("GlobalAveragePool", "GlobalMaxPool")
def _global_pool(b, op):
    x = b.pick(3, 5)
    places = x.places if op == "GlobalMaxPool" else INEXACT
    b.add(op, [x], (*x.shape[:2], *[1] * (len(x.shape) - 2)), places=places)


@operator("ReduceMean", "ReduceSum", "ReduceMax", "ReduceMin")
def _reduction(b, op):
    x = b.pick(1)
    rank = len(x.shape)
    first = b.draw(st.integers(0, rank - 1))
    axes = list(range(first, b.draw(st.integers(first, rank - 1)) + 1))
    keeps = b.one_of([0, 1])
    shape = [1 if n in axes else size for n, size in enumerate(x.shape) if keeps or n not in axes]
    count = prod(x.shape[n] for n in axes)
    most = x.most * count if op == "ReduceSum" else x.most
    places = INEXACT if op == "ReduceMean" else x.places
    written = [n - rank * b.maybe() for n in axes]
    if b.opset >= (13 if op == "ReduceSum" else 18):
        operands, given = [x, b.sizes(written)], {}
    else:
        operands, given = [x], {"axes": written}
    b.add(op, operands, shape, most, places, keepdims=keeps, **given)


@operator("InstanceNormalization")
def _instance_norm(b, op):
    x = b.pick(3)
    channels = x.shape[1]
    scale, bias = b.numbers((channels,)), b.numbers((channels,))
    most = 2 * prod(x.shape[2:]) + 2
    b.add(op, [x, scale, bias], None, most, INEXACT, epsilon=b.one_of([1e-5, 0.1]))


@operator("LayerNormalization")
def _layer_norm(b, op):
    x = b.add("Tanh", [b.pick(1)], most=1, places=INEXACT)
    first = b.draw(st.integers(0, len(x.shape) - 1))
    shape = x.shape[first:]
    shape = b.one_of([shape, shape, tuple(b.one_of([1, size]) for size in shape)])
    more = [b.numbers(shape) for _ in range(b.one_of([1, 2]))]
    axis = {} if first == len(x.shape) - 1 and b.maybe() else {"axis": first}
    b.add(op, [x, *more], None, 2 * prod(shape) + 2, INEXACT, epsilon=b.one_of([1e-2, 0.1]), **axis)


@operator("Softmax", "LogSoftmax")
def _softmax(b, op):
    x = b.pick(2)
    axis = b.draw(st.integers(0, len(x.shape) - 1))
    written = axis - len(x.shape) * (b.opset >= 11 and b.maybe(3))
    is_default = axis == (len(x.shape) - 1 if b.opset >= 13 else 1)
    given = {} if is_default and b.maybe() else {"axis": written}
    most = 1 if op == "Softmax" else 2 * x.most + 8
    b.add(op, [x], None, most, INEXACT, **given)


def _resized(b, scales=None, sizes=None):
    """More operands of a Resize; opsets before 13 want those empty that are left out."""
    none = "" if b.opset >= 13 else b.constant(np.zeros(0, np.float32))
    return [none, scales] if sizes is None else [none, none, sizes]


@operator("weighted Resize")
def _weighted(b, op):
    """By any factors, and on grids of cells' corners."""
    x = b.pick(3, 5)
    shape = [*x.shape[:2], *b.integers(1, 12, len(x.shape) - 2)]
    if b.opset < 11 or prod(shape) > 2 * MOST_CELLS:
        return None
    hows = ["align_corners", "asymmetric", "half_pixel", "pytorch_half_pixel"]
    how = {"coordinate_transformation_mode": b.one_of(hows)}
    more = _resized(b, sizes=b.sizes(shape))
    return b.add("Resize", [x, *more], shape, None, INEXACT, mode="linear", **how)


@operator("linear Resize")
def _linear(b, op):
    """By whole factors of a grid of cells' middles."""
    x = b.pick(3, 5)
    times = [1, 1, *b.integers(1, 4, len(x.shape) - 2)]
    shape = [n * by for n, by in zip(x.shape, times, strict=True)]
    if b.opset < 11 or prod(shape) > 2 * MOST_CELLS:
        return None
    scales = b.constant(np.array(times, np.float32))
    more = _resized(b, scales) if b.maybe() else _resized(b, sizes=b.sizes(shape))
    how = {"coordinate_transformation_mode": b.one_of(["half_pixel", "pytorch_half_pixel"])}
    return b.add("Resize", [x, *more], shape, None, INEXACT, mode="linear", **how)


@operator("Resize")
def _resize(b, op):
    x = b.pick(3, 5)
    times = [1, 1, *b.integers(1, 3, len(x.shape) - 2)]
    shape = [n * by for n, by in zip(x.shape, times, strict=True)]
    if prod(shape) > 2 * MOST_CELLS:
        return None
    scales = b.constant(np.array(times, np.float32))
    if b.opset < 11:
        return b.add("Upsample", [x, scales], shape, mode="nearest")
    forms = [("asymmetric", "floor"), ("half_pixel", "round_prefer_floor")]
    how, rounded = b.one_of([*forms, ("half_pixel", "round_prefer_ceil")])
    more = _resized(b, scales) if b.maybe() else _resized(b, sizes=b.sizes(shape))
    given = {"coordinate_transformation_mode": how, "nearest_mode": rounded}
    return b.add(op, [x, *more], shape, mode="nearest", **given)
