"""Random networks along time as graphs, of every operator that streams take.

A block takes a value and returns one. Values that meet have one length for every length of the
input, but for the hourglass, which needs an even one.
"""

from dataclasses import dataclass

import numpy as np
from hypothesis import reject
from hypothesis import strategies as st

from tconv.graph import Graph, Input, Node, UnknownOperator
from tconv.graph.lowering import lower

__all__ = ["BLOCKS", "DrawnNetwork", "networks"]

EVEN = 2**10 * 3 * 5 * 7  # cells
MOST_RATE = 24  # cells of a value for each cell of the input

BLOCKS = {}
"""By name: what adds nodes to a builder, and whether it keeps the length of its operand."""


@dataclass(frozen=True, repr=False)
class DrawnNetwork:
    """A graph, and of each input its axis along time and its shape with None there."""

    graph: Graph
    axes: dict[str, int]
    shapes: dict[str, tuple[int | None, ...]]

    def inputs(self, size, seed=0):
        """An input of so many cells: a list of arrays."""
        rng = np.random.default_rng(seed)
        shapes = [[n or size for n in shape] for shape in self.shapes.values()]
        return [rng.standard_normal(shape, np.float32) for shape in shapes]

    def __repr__(self):
        stored = self.graph.constants
        shown = {
            name: each.tolist() if each.dtype.kind == "i" else each.shape
            for name, each in stored.items()
        }
        nodes = [
            f"{', '.join(each.outputs)} = {each.operator}"
            f"({', '.join(f'{n}={shown[n]}' if n in shown else n for n in each.inputs)})"
            f" {each.attributes}"
            for each in self.graph.nodes
        ]
        return "\n".join([f"DrawnNetwork({self.shapes} -> {self.graph.outputs}:", *nodes, ")"])

    def _repr_pretty_(self, to, _):
        to.text(repr(self))  # Hypothesis would show fields


@st.composite
def networks(draw, among=None, most=5, batch=None):
    """A network of a few blocks after each other; of those named in `among`, or of all."""
    builder = _Builder(draw, among or list(BLOCKS))
    batch = batch or draw(st.integers(1, 2))
    last = not among and draw(st.booleans())  # channels last, as most of NumPy has them
    axes, shapes = {}, {}

    def feed(channels):
        name = f"x{len(shapes)}"
        axes[name], shapes[name] = (
            (1, (batch, None, channels)) if last else (2, (batch, channels, None))
        )
        if not last:
            return name
        return builder.add("Transpose", [name], perm=[0, 2, 1])

    x = _Value(feed(draw(st.integers(1, 4))), 0, 1.0)
    x = x._replace(channels=shapes["x0"][axes["x0"] ^ 3])
    if not among and draw(st.integers(0, 3)) == 3:
        other = feed(2)
        weight = builder.array(x.channels, 2, 1)
        x = x._replace(name=builder.add("Add", [x.name, builder.add("Conv", [other, weight])]))
    outputs = []
    for _ in range(draw(st.integers(1, most))):
        x = draw_block(builder, x)
        if draw(st.integers(0, 7)) == 7:
            outputs.append(x.name)
    outputs = [name for name in outputs if name != x.name]
    outputs = [*dict.fromkeys(outputs), x.name]
    inputs = tuple(Input(name, "float32") for name in shapes)
    if x.name in shapes:
        outputs = [*outputs[:-1], builder.add("Neg", [x.name])]
    graph = Graph(inputs, tuple(outputs), tuple(builder.nodes), builder.constants)
    drawn = DrawnNetwork(graph, axes, shapes)
    try:
        lower(graph, {name: tuple(n or EVEN for n in shape) for name, shape in shapes.items()}, {})
    except UnknownOperator:  # an hourglass of an odd length
        reject()
    return drawn


def draw_block(b, x, keeps=False):
    """Add a block of any kind, or of one that keeps the length."""
    names = [name for name in b.among if BLOCKS[name][1] or not keeps]
    if x.rate > MOST_RATE:
        names = [name for name in names if name not in ("ConvTranspose", "Resize", "causal up")]
    return BLOCKS[b.one_of(names or ["same Conv"])][0](b, x)


class _Value:
    def __init__(self, name, channels, rate):
        self.name, self.channels, self.rate = name, channels, rate

    def _replace(self, **changes):
        return _Value(**{**vars(self), **changes})

    def of(self, name, channels=None, by=1.0):
        """A value made of this one."""
        return _Value(name, channels or self.channels, self.rate * by)


class _Builder:
    """Nodes while they are added."""

    def __init__(self, draw, among):
        self.draw, self.among, self.depth = draw, among, 0
        self.nodes, self.constants = [], {}

    def one_of(self, choices):
        return self.draw(st.sampled_from(list(choices)))

    def integer(self, least, most):
        return self.draw(st.integers(least, most))

    def array(self, *shape, scale=1.0):
        """The name of a constant of normal numbers."""
        rng = np.random.default_rng(len(self.constants))
        return self.constant(rng.standard_normal(shape, np.float32) * np.float32(scale))

    def constant(self, array):
        name = f"c{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def sizes(self, *numbers):
        return self.constant(np.array(numbers, np.int64))

    def number(self, value):
        return self.constant(np.float32(value))

    def add(self, operator, inputs, outputs=1, **attributes):
        """A node; the name of its result, or their names."""
        title = f"{operator}{len(self.nodes)}"
        names = tuple(f"{title}.{n}" for n in range(outputs))
        self.nodes.append(Node(operator, tuple(inputs), names, attributes, title))
        return names[0] if outputs == 1 else names


def block(name, keeps=False):
    def wrapped(function):
        BLOCKS[name] = function, keeps
        return function

    return wrapped


# ---- convolutions --------------------------------------------------------------------------------


@block("Conv")
def _conv(b, x):
    kernel, stride, dilation = b.integer(1, 7), b.integer(1, 4), b.integer(1, 3)
    reach = dilation * (kernel - 1) + 1
    pads = [b.integer(0, reach - 1), b.integer(0, reach - 1)]
    channels = b.integer(1, 4)
    inputs = [x.name, b.array(channels, x.channels, kernel)]
    inputs += [b.array(channels)] if b.integer(0, 1) else []
    given = {"strides": [stride], "dilations": [dilation], "pads": pads}
    return x.of(b.add("Conv", inputs, **given), channels, 1 / stride)


@block("ConvTranspose")
def _up(b, x):
    kernel, stride, dilation = b.integer(1, 9), b.integer(1, 5), b.integer(1, 2)
    reach = dilation * (kernel - 1) + 1
    pads = [b.integer(0, reach // 2), b.integer(0, reach // 2)]
    channels, extra = b.integer(1, 4), b.integer(0, stride - 1)
    inputs = [x.name, b.array(x.channels, channels, kernel)]
    inputs += [b.array(channels)] if b.integer(0, 1) else []
    given = {"strides": [stride], "dilations": [dilation], "pads": pads}
    given |= {"output_padding": [extra]} if extra else {}
    return x.of(b.add("ConvTranspose", inputs, **given), channels, stride)


@block("causal up")
def _causal_up(b, x):
    """As codecs have it: what is too much is trimmed on the right, or on both sides."""
    stride = b.integer(1, 4)
    up = b.add("ConvTranspose", [x.name, b.array(x.channels, 2, 2 * stride)], strides=[stride])
    left = b.integer(0, stride)
    ends = stride - left
    last = -ends if ends else b.one_of([2**31 - 1, 2**63 - 1])
    axis = b.one_of([2, -1])
    trimmed = b.add("Slice", [up, b.sizes(left), b.sizes(last), b.sizes(axis)])
    return x.of(trimmed, 2, stride)


@block("same Conv", keeps=True)
def _same(b, x, channels=None, groups=1):
    """Centred, causal, or one that looks ahead; padded by itself or by a Pad."""
    kernel, dilation = b.integer(1, 7), b.integer(1, 3)
    reach = dilation * (kernel - 1)
    begin = b.one_of([reach // 2, reach, 0])
    channels = channels or x.channels
    weight, given = b.array(channels, x.channels // groups, kernel), {"dilations": [dilation]}
    if groups > 1:
        given["group"] = groups
    if b.integer(0, 2) and groups == 1:
        pads = b.sizes(0, 0, begin, 0, 0, reach - begin)
        more = [b.number(b.one_of([0, 0, 2.5]))] if b.integer(0, 1) else []
        return x.of(b.add("Conv", [_padded(b, x, pads, more), weight], **given), channels)
    return x.of(b.add("Conv", [x.name, weight], pads=[begin, reach - begin], **given), channels)


@block("2-D Conv", keeps=True)
def _flat(b, x):
    """Of images of one row."""
    rows = b.add("Unsqueeze", [x.name, b.sizes(2)])
    conv = b.add("Conv", [rows, b.array(x.channels, x.channels, 1, 3)], pads=[0, 1, 0, 1])
    return x.of(b.add("Squeeze", [conv, b.sizes(2)]))


@block("Pad")
def _pad(b, x):
    pads = b.sizes(0, 0, b.integer(-3, 4), 0, 0, b.integer(-3, 4))
    more = [b.number(b.one_of([0, 1.5]))] if b.integer(0, 1) else []
    return x.of(_padded(b, x, pads, more))


def _padded(b, x, pads, more):
    """A value of its own before it: what a value counts as outside must be one number."""
    return b.add("Pad", [b.add("LeakyRelu", [x.name], alpha=0.5) if more else x.name, pads, *more])


@block("Slice")
def _slice(b, x):
    first, last = b.integer(0, 4), b.one_of([-3, -1, 2**31 - 1])
    return x.of(b.add("Slice", [x.name, b.sizes(first), b.sizes(last), b.sizes(2)]))


@block("pool")
def _pool(b, x):
    kernel, stride = b.integer(1, 4), b.integer(1, 3)
    pads = [b.integer(0, kernel - 1), b.integer(0, kernel - 1)]
    operator, given = b.one_of(["MaxPool", "AveragePool"]), {}
    if operator == "AveragePool" and any(pads):
        given["count_include_pad"] = 1
    pooled = b.add(operator, [x.name], kernel_shape=[kernel], strides=[stride], pads=pads, **given)
    return x.of(pooled, by=1 / stride)


@block("Resize")
def _resize(b, x):
    by = b.integer(1, 3)
    scales = b.constant(np.array([1, 1, by], np.float32))
    given = {"mode": "nearest", "version": 13}
    given |= {"coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"}
    return x.of(b.add("Resize", [x.name, "", scales], **given), by=by)


# ---- cell by cell --------------------------------------------------------------------------------


@block("activation", keeps=True)
def _activation(b, x):
    operators = ["Relu", "LeakyRelu", "Elu", "Tanh", "Sigmoid", "Softplus", "HardSwish", "Gelu"]
    operator = b.one_of([*operators, "PRelu", "Clip", "scale"])
    if operator == "PRelu":
        return x.of(b.add("PRelu", [x.name, b.array(x.channels, 1)]))
    if operator == "Clip":
        return x.of(b.add("Clip", [x.name, b.number(-0.5), b.number(0.75)]))
    if operator == "scale":
        scaled = b.add(b.one_of(["Mul", "Div", "Sub"]), [x.name, b.array(x.channels, 1)])
        return x.of(b.add("Add", [b.number(0.25), scaled]))
    return x.of(b.add(operator, [x.name]))


@block("Snake", keeps=True)
def _snake(b, x):
    """``x + sin(a*x)**2 / a``, as DAC and BigVGAN export it."""
    wave = b.add("Sin", [b.add("Mul", [b.array(1, x.channels, 1), x.name])])
    square = b.add("Pow", [wave, b.number(2)])
    return x.of(b.add("Add", [x.name, b.add("Mul", [b.array(1, x.channels, 1), square])]))


@block("channels", keeps=True)
def _over_channels(b, x):
    operator = b.one_of(
        ["Softmax", "LogSoftmax", "ReduceMean", "ReduceMax", "BatchNormalization", "Gather"]
    )
    if operator.startswith("Reduce"):
        one = b.add(operator, [x.name], axes=[1], keepdims=1)
        return x.of(b.add("Sub", [x.name, one]))
    if operator == "BatchNormalization":
        variance = b.constant(np.arange(1, x.channels + 1, dtype=np.float32))
        return x.of(b.add(operator, [x.name, *[b.array(x.channels) for _ in range(3)], variance]))
    if operator == "Gather":
        return x.of(b.add(operator, [x.name, b.sizes(*range(x.channels))[::1]], axis=1))
    return x.of(b.add(operator, [x.name], axis=1, version=13))


@block("ConvNeXt", keeps=True)
def _convnext(b, x):
    """As Vocos has it: normalised over channels, which are the last axis there."""
    deep = b.add("Conv", [x.name, b.array(x.channels, 1, 3)], group=x.channels, pads=[1, 1])
    last = b.add("Transpose", [deep], perm=[0, 2, 1])
    shape = (x.channels,)
    normal = b.add("LayerNormalization", [last, b.array(*shape), b.array(*shape)], axis=-1)
    wide = b.add("MatMul", [normal, b.array(x.channels, 2 * x.channels)])
    wide = b.add("Gelu", [b.add("Add", [b.array(2 * x.channels), wide])])
    back = b.add("MatMul", [wide, b.array(2 * x.channels, x.channels)])
    back = b.add("Mul", [back, b.array(x.channels)])
    return x.of(b.add("Add", [x.name, b.add("Transpose", [back], perm=[0, 2, 1])]))


@block("shuffle", keeps=True)
def _shuffle(b, x):
    """Channels in another order, by two more axes."""
    by = b.one_of([n for n in range(1, x.channels + 1) if not x.channels % n])
    split = b.add("Reshape", [x.name, b.sizes(0, by, x.channels // by, -1)])
    turned = b.add("Transpose", [split], perm=[0, 2, 1, 3])
    return x.of(b.add("Reshape", [turned, b.sizes(0, x.channels, -1)]))


# ---- branches ------------------------------------------------------------------------------------


@block("residual", keeps=True)
def _residual(b, x):
    """A branch, or two, of other delays than x."""
    ends = [_branch(b, x) for _ in range(b.integer(1, 2))]
    names = [x.name, *[each.name for each in ends]]
    operator = b.one_of(["Add", "Sub", "Mul", "Max"])
    if operator == "Max":
        return x.of(b.add("Max", names))
    return x.of(b.add(operator, b.draw(st.permutations(names))[:2]))


@block("gate", keeps=True)
def _gate(b, x):
    """As WaveNet has it: two halves of the channels."""
    wide = _same(b, x, 2 * x.channels)
    sizes = [b.sizes(x.channels, x.channels)] if b.integer(0, 1) else []
    one, other = b.add("Split", [wide.name, *sizes], 2, axis=b.one_of([1, -2]))
    gate = b.add("Sigmoid", [_branch(b, x.of(other)).name])
    return x.of(b.add("Mul", [b.add("Tanh", [one]), gate]))


@block("Concat", keeps=True)
def _concat(b, x):
    ends = [x, *[_branch(b, x) for _ in range(b.integer(1, 2))]]
    ends = b.draw(st.permutations(ends))
    joined = b.add("Concat", [each.name for each in ends], axis=1)
    return _same(b, x.of(joined, sum(each.channels for each in ends)), x.channels)


@block("hourglass")
def _hourglass(b, x):
    """Half the cells, and twice as many again."""
    down = b.add("Conv", [x.name, b.array(2, x.channels, 4)], strides=[2], pads=[1, 1])
    inner = _branch(b, x.of(down, 2))
    weight = b.array(2, x.channels, 4)
    up = b.add("ConvTranspose", [inner.name, weight], strides=[2], pads=[1, 1])
    return x.of(b.add("Add", [x.name, up]))


def _branch(b, x):
    """One or two blocks that keep the length, and the number of channels."""
    b.depth += 1
    channels = x.channels
    for _ in range(b.integer(1, 2)):
        if b.depth > 2:
            x = _same(b, x)
        else:
            x = draw_block(b, x, keeps=True)
    b.depth -= 1
    assert x.channels == channels
    return x
