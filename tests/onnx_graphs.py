"""Random ONNX models for property tests: one to four ConvTranspose amid other nodes, odd graphs.

A model comes with feeds and with what was drawn. Operands are small integers, and every value
carries a bound of what may be in it, so that it is known which results are exact. The sizes of a
ConvTranspose are worked out here once more, in the plainest words, for two ends: later nodes fit,
and `explicit` can say the same with nothing but pads.
"""

import zlib
from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
import onnxruntime
from hypothesis import strategies as st
from onnx import ModelProto, TensorProto, helper, numpy_helper

from strategies import integers_like

__all__ = [
    "DEFECTS",
    "FEATURES",
    "DrawnModel",
    "by_onnx_runtime",
    "explicit",
    "in_float32",
    "model_of",
    "models",
    "transposed",
]

_LARGEST_EXACT = 2**24
_MANY_CELLS = 300  # of a value; beyond it nothing grows any more
_OPSETS = (11, 13, 17, 22)
_AUTO_PADS = ("NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER")
_OTHERS = (
    *("Add", "BatchNormalization", "Concat", "Conv", "Identity", "LeakyRelu", "Relu", "Reshape"),
    *("Sigmoid", "Tanh"),
)
_OPERANDS = (
    "initialiser",
    "Constant",
    "Mul of constants",
    "Transpose of a constant",
    "graph input",
    "made of a graph input",
    "overridable initialiser",
)
_DEFECTS = {  # attributes that break a rule; a list of one is repeated for every axis
    "strides of a wrong length": {"strides": [1] * 5},
    "stride 0": {"strides": [0]},
    "dilation 0": {"dilations": [0]},
    "group that does not divide": {"group": 7},
    "negative group": {"group": -1},
    "kernel_shape of another kernel": {"kernel_shape": [5]},
    "kernel_shape of a wrong length": {"kernel_shape": [1] * 5},
    "pads of a wrong length": {"pads": [0] * 7},
    "output_padding too large": {"output_padding": [9]},
    "output_shape of a wrong length": {"output_shape": [3] * 7},
    "unknown auto_pad": {"auto_pad": "SAME"},
    "channels that clash": {},
}
DEFECTS = sorted(_DEFECTS)

FEATURES = {
    *_OTHERS,
    *_OPERANDS,
    *(f"rank {rank}" for rank in (1, 2, 3)),
    *(f"opset {opset}" for opset in _OPSETS),
    *(f"auto_pad {name}" for name in _AUTO_PADS),
    *("IR version 3", "overridden initialiser", "shared weight", "If", "unnamed nodes"),
    *("fixed sizes", "named sizes", "missing sizes", "missing shape", "empty batch"),
    *("constant x", "groups", "depthwise", "bias", "no bias", "bias of no name", "defect"),
    *("strides", "dilations", "kernel_shape", "pads", "negative pads", "lopsided pads"),
    *("output_padding", "output_padding from stride on", "output_shape", "output_shape -1"),
    *("output_shape smaller", "output_shape larger", "output_shape of all axes"),
    *("output_shape out of reach", "unsorted nodes", "dead ConvTranspose", "declared output"),
    *("output in between", "output that is an input", "output that is an initialiser"),
    *("float64", "Conv of float64", "Conv with groups", "Conv with pads", "Conv with bias"),
    *("Conv SAME_UPPER", "Conv SAME_LOWER", "Conv VALID", "Conv SAME with dilations"),
}
"""What `models` draws now and then."""


def conv(x, weight, y, bias=None, **attributes):
    """A Conv named after its output."""
    names = [x, weight] if bias is None else [x, weight, bias]
    return helper.make_node("Conv", names, [y], name=f"conv {y}", **attributes)


def transposed(x, weight, y, bias=None, **attributes):
    """A ConvTranspose named after its output."""
    names = [x, weight] if bias is None else [x, weight, bias]
    return helper.make_node("ConvTranspose", names, [y], name=f"up {y}", **attributes)


def model_of(nodes, feeds, outputs, stored=None, *, opset=17, sizes=True):
    """A model with inputs for these feeds, of their sizes or of any; all values are of one type."""
    types = {name: helper.np_dtype_to_tensor_dtype(value.dtype) for name, value in feeds.items()}
    inputs = [
        helper.make_tensor_value_info(name, types[name], value.shape if sizes else None)
        for name, value in feeds.items()
    ]
    results = [
        helper.make_tensor_value_info(name, types[next(iter(feeds))], None) for name in outputs
    ]
    tensors = [numpy_helper.from_array(value, name) for name, value in (stored or {}).items()]
    graph = helper.make_graph(nodes, "made", inputs, results, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def by_onnx_runtime(model, feeds, names=None):
    """What ONNX Runtime alone gives."""
    options = onnxruntime.SessionOptions()
    options.log_severity_level, options.intra_op_num_threads = 4, 1
    session = onnxruntime.InferenceSession(
        model.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    return session.run(names, feeds)


@dataclass(frozen=True)
class DrawnModel:
    """A model and what to run it with.

    `pads` has for the output of every ConvTranspose and Conv the pads that alone would give its
    size.
    """

    model: ModelProto
    feeds: dict[str, np.ndarray]
    pads: dict[str, list[int]]
    features: frozenset[str]
    exact: bool

    def __repr__(self):
        shapes = {name: value.shape for name, value in self.feeds.items()}
        graph = helper.printable_graph(self.model.graph)
        return f"DrawnModel({shapes}, {sorted(self.features)}, {graph})"


def in_float32(model, feeds):
    """A model of float64 and its feeds, in float32: what ONNX Runtime has operators for."""
    found = ModelProto()
    found.CopyFrom(model)

    def narrowed(tensor):
        if tensor.data_type == TensorProto.DOUBLE:
            values = numpy_helper.to_array(tensor).astype(np.float32)
            tensor.CopyFrom(numpy_helper.from_array(values, tensor.name))

    for tensor in found.graph.initializer:
        narrowed(tensor)
    for node in found.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t"):
                narrowed(attribute.t)
    for value in (*found.graph.input, *found.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.DOUBLE:
            value.type.tensor_type.elem_type = TensorProto.FLOAT
    return found, {n: v.astype("float32") if v.dtype == "float64" else v for n, v in feeds.items()}


def explicit(drawn):
    """The model with every ConvTranspose and Conv said by strides, dilations, group and pads alone.

    And what to feed to it.

    Its inputs have no shape and its initialisers are fed: where ONNX Runtime knows sizes, it
    refuses negative pads.
    """
    model = ModelProto()
    model.CopyFrom(drawn.model)
    feeds = {tensor.name: numpy_helper.to_array(tensor) for tensor in model.graph.initializer}
    given = {value.name for value in model.graph.input}
    del model.graph.initializer[:]
    model.graph.input.extend(
        helper.make_tensor_value_info(name, TensorProto.FLOAT, None)
        for name in feeds.keys() - given
    )
    for value in model.graph.input:
        value.type.tensor_type.ClearField("shape")

    def rewrite(graph):
        for node in graph.node:
            for attribute in node.attribute:
                if attribute.HasField("g"):
                    rewrite(attribute.g)
            if node.op_type in ("ConvTranspose", "Conv"):
                kept = [a for a in node.attribute if a.name in ("strides", "dilations", "group")]
                del node.attribute[:]
                node.attribute.extend(kept)
                node.attribute.append(helper.make_attribute("pads", drawn.pads[node.output[0]]))

    rewrite(model.graph)
    return model, feeds | drawn.feeds


@st.composite
def models(draw, defect=""):
    """Models of ConvTranspose with feeds; most are valid unless the first node gets a defect."""
    builder = _Builder(draw, defect)
    builder.add_x()
    for _ in range(draw(st.integers(1, 4))):
        builder.add_transposed()
        for _ in range(draw(st.integers(0, 2))):
            builder.add_other()
    return builder.finish()


class _Value(NamedTuple):
    name: str
    shape: tuple[int, ...]
    bound: int


class _Axis(NamedTuple):
    """What the attributes say of one axis."""

    size: int
    kernel: int
    stride: int
    dilation: int
    extra: int = 0
    begin: int = 0
    end: int = 0
    wanted: int = -1

    @property
    def full(self):
        return (self.size - 1) * self.stride + self.dilation * (self.kernel - 1) + 1

    def crop(self, auto_pad):
        """Begin and end such that output = full - begin - end."""
        if self.wanted != -1:
            total = self.full + self.extra - self.wanted
        elif auto_pad.startswith("SAME"):
            total = max(0, self.full + self.extra - self.size * self.stride)
        else:
            return self.begin, self.end - self.extra
        if total < 0:
            return 0, total - self.extra
        less, more = total // 2, total - total // 2
        begin, end = (less, more) if auto_pad == "SAME_UPPER" else (more, less)
        return begin, end - self.extra


class _Builder:
    """A graph while it grows; every draw that matters leaves its name in `features`."""

    def __init__(self, draw, defect):
        self.draw, self.features, self.exact = draw, set(), True
        self.nodes, self.inputs, self.stored, self.feeds = [], [], [], {}
        self.values, self.weights, self.pads, self.names = [], [], {}, 0
        self.opset = self.one_of(_OPSETS)
        self.note(f"opset {self.opset}")
        self.old = self.maybe("IR version 3", 8)
        self.unnamed = self.maybe("unnamed nodes", 4)
        self.defect = defect or (self.one_of(DEFECTS) if self.maybe("defect", 15) else "")
        self.dtype = "float64" if self.maybe("float64", 4) else "float32"
        self.kind = helper.np_dtype_to_tensor_dtype(np.dtype(self.dtype))

    def note(self, feature, holds=True):
        self.features |= {feature} if holds else set()

    def maybe(self, feature, one_in):
        self.note(feature, drawn := self.draw(st.integers(1, one_in)) == one_in)
        return drawn

    def one_of(self, choices):
        return self.draw(st.sampled_from(choices))

    def integers(self, least, most, count):
        return [self.draw(st.integers(least, most)) for _ in range(count)]

    def new(self, stem):
        self.names += 1
        return f"{stem}/{self.names}"

    # ---- where values come from ----

    def add_x(self):
        self.rank = self.one_of([1, 2, 3])
        self.note(f"rank {self.rank}")
        batch = 0 if self.maybe("empty batch", 12) else self.draw(st.integers(1, 2))
        sizes = self.integers(1, 5 if self.rank < 3 else 3, self.rank)
        shape = (batch, self.one_of([1, 2, 3, 4]), *sizes)
        known = self.one_of(["fixed sizes", "named sizes", "missing sizes", "missing shape"])
        self.note(known)
        dims = {
            "fixed sizes": shape,
            "named sizes": ["N", shape[1], *(f"I{n}" for n in range(self.rank))],
            "missing sizes": [None] * len(shape),
            "missing shape": None,
        }
        self.add_input("x", integers_like(shape, self.dtype, largest=2), dims[known])
        self.values.append(_Value("x", shape, 2))

    def add_input(self, name, array, dims):
        kind = helper.np_dtype_to_tensor_dtype(array.dtype)
        self.inputs.append(helper.make_tensor_value_info(name, kind, dims))
        self.feeds[name] = array

    def store(self, array):
        name = self.new("stored")
        self.stored.append(numpy_helper.from_array(array, name))
        if self.old:  # every initialiser has to be an input as well
            self.inputs.append(helper.make_tensor_value_info(name, self.kind, array.shape))
        return name

    def operand(self, shape):
        """The name of small integers that come from anywhere."""
        seed = zlib.crc32(repr((shape, self.names)).encode())
        array = integers_like(shape, self.dtype, seed, largest=1)
        kinds = _OPERANDS[:-1] if self.old else _OPERANDS
        kind = self.one_of(kinds)
        self.note(kind)
        if kind == "Constant":
            return self.add("Constant", [], shape, 1, value=numpy_helper.from_array(array)).name
        if kind == "Mul of constants":
            factors = [self.store(-array), self.store(-np.ones(1, self.dtype))]
            return self.add("Mul", factors, shape, 1).name
        if kind == "Transpose of a constant":
            order = self.draw(st.permutations(range(len(shape))))
            stored = self.store(np.ascontiguousarray(array.transpose(np.argsort(order))))
            return self.add("Transpose", [stored], shape, 1, perm=order).name
        if kind.endswith("graph input"):
            name = self.new("fed")
            self.add_input(name, array, self.one_of([shape, [None] * len(shape), None]))
            return self.add("Neg", [name], shape, 1).name if kind.startswith("made") else name
        name = self.store(array)
        if kind == "overridable initialiser":
            self.add_input(name, -array, shape)
            if not self.maybe("overridden initialiser", 2):
                del self.feeds[name]
        return name

    # ---- nodes ----

    def add(self, op, names, shape, bound, **attributes):
        output = self.new(op)
        name = "" if self.unnamed else f"node {output}"
        self.nodes.append(helper.make_node(op, names, [output], name=name, **attributes))
        self.exact = self.exact and bound <= _LARGEST_EXACT
        return _Value(output, tuple(shape), bound)

    def add_transposed(self):
        x = self.draw(st.sampled_from(self.values[-2:]))
        if min(x.shape) >= 0 and self.maybe("constant x", 12):
            x = _Value(self.store(integers_like(x.shape, self.dtype)), x.shape, 4)
        channels = x.shape[1]
        most = 3 if prod(x.shape) < _MANY_CELLS else 1
        shared = [(name, shape) for name, shape in self.weights if shape[0] == channels]
        if shared and self.maybe("shared weight", 2):
            weight, shape = self.one_of(shared)
        else:
            clash = self.defect == "channels that clash"
            shape = (channels + clash, self.one_of([1, 2]), *self.integers(1, most, self.rank))
            weight = self.operand(shape)
            self.weights.append((weight, shape))
        group = self.one_of([g for g in range(1, channels + 1) if channels % g == 0])
        self.note("groups", group > 1)
        self.note("depthwise", group == channels > 1 and shape[1] == 1)
        axes = [
            _Axis(size, kernel, *self.integers(1, most, 2))
            for size, kernel in zip(x.shape[2:], shape[2:], strict=True)
        ]
        attributes, pads, output = self.attributes(axes, shape, group)
        for name, value in _DEFECTS.get(self.defect, {}).items():
            several = isinstance(value, list) and len(value) == 1
            attributes[name] = value * self.rank if several else value
        self.defect = ""
        bias = self.one_of(["bias", "no bias", "bias of no name"])
        self.note(bias)
        names = [x.name, weight]
        if bias != "no bias":
            names.append(self.operand((shape[1] * group,)) if bias == "bias" else "")
        bound = x.bound * prod(shape[2:]) * (channels // group) + 1
        y_shape = (x.shape[0], shape[1] * group, *output)
        if self.dtype == "float32" and self.maybe("If", 8):
            y = self.add_if(names, attributes, pads, y_shape, bound)
        else:
            y = self.add("ConvTranspose", names, y_shape, bound, **attributes)
            self.pads[y.name] = pads
        if not self.maybe("dead ConvTranspose", 10):
            self.values.append(y)

    def attributes(self, axes, weight_shape, group):
        """Attributes of a ConvTranspose, the pads that alone would do, and the output's sizes."""
        given = {
            "strides": [axis.stride for axis in axes],
            "dilations": [axis.dilation for axis in axes],
            "kernel_shape": [axis.kernel for axis in axes],
        }
        given = {n: v for n, v in given.items() if set(v) != {1} or self.draw(st.booleans())}
        self.features |= given.keys()
        given |= {"group": group} if group > 1 else {}
        form = self.one_of(["", "pads", "auto_pad", "output_shape"])
        if self.maybe("output_padding", 3):
            extras = [self.draw(st.integers(0, max(axis[2:4]) - 1)) for axis in axes]
            axes = [axis._replace(extra=e) for axis, e in zip(axes, extras, strict=True)]
            given["output_padding"] = extras
        if form == "pads":
            self.note("pads")
            least, most = self.one_of([(0, 1), (0, 2), (-2, 2)])
            begins, ends = (self.integers(least, most, self.rank) for _ in range(2))
            axes = [a._replace(begin=b, end=e) for a, b, e in zip(axes, begins, ends, strict=True)]
            given["pads"] = [*begins, *ends]
            self.note("negative pads", min(begins + ends) < 0)
            self.note("lopsided pads", begins != ends)
        if form == "output_shape":
            self.note("output_shape")
            wanted = [self.wanted(axis) for axis in axes]
            wanted[0] = -1 if self.maybe("output_shape -1", 8) else wanted[0]
            axes = [axis._replace(wanted=size) for axis, size in zip(axes, wanted, strict=True)]
            every = self.maybe("output_shape of all axes", 8)
            given["output_shape"] = [1, weight_shape[1] * group, *wanted] if every else wanted
        auto_pad = "NOTSET"
        if form == "auto_pad" or (form == "output_shape" and self.draw(st.booleans())):
            auto_pad = given["auto_pad"] = self.one_of(_AUTO_PADS)
            self.note(f"auto_pad {auto_pad}")
        crops = [axis.crop(auto_pad) for axis in axes]
        for axis, (begin, end) in zip(axes, crops, strict=True):
            self.note("output_shape smaller", axis.wanted >= 0 and begin + end > -axis.extra)
            beyond = -end if axis.wanted >= 0 and begin + end < 0 else axis.extra
            self.note("output_padding from stride on", axis.stride <= beyond < axis.dilation)
        begins, ends = zip(*crops, strict=True)
        output = [a.full - b - e for a, (b, e) in zip(axes, crops, strict=True)]
        return given, [*begins, *ends], output

    def wanted(self, axis):
        """A size for output_shape: most are at most the full output."""
        full = axis.full + axis.extra
        if self.maybe("output_shape out of reach", 12):
            return axis.full + max(axis.stride, axis.dilation)
        if self.maybe("output_shape larger", 4):
            return axis.full + max(axis.stride, axis.dilation) - 1
        return max(1, full - self.draw(st.integers(0, 3)))

    def add_if(self, names, attributes, pads, shape, bound):
        """If(fed condition): a ConvTranspose, else minus the same, of values from outside."""
        condition = self.new("condition")
        self.add_input(condition, np.array(self.draw(st.booleans())), [])
        branches = []
        for sign in ("Identity", "Neg"):
            inner, output = self.new("ConvTranspose"), self.new(sign)
            self.pads[inner] = pads
            nodes = [
                helper.make_node("ConvTranspose", names, [inner], **attributes),
                helper.make_node(sign, [inner], [output]),
            ]
            result = helper.make_tensor_value_info(output, TensorProto.FLOAT, None)
            branches.append(helper.make_graph(nodes, sign, [], [result]))
        then, other = branches
        return self.add("If", [condition], shape, bound, then_branch=then, else_branch=other)

    def add_other(self):
        x = self.draw(st.sampled_from(self.values[-2:]))
        lacking = {"LeakyRelu"} if self.dtype == "float64" and self.opset != 17 else set()
        op = self.one_of([op for op in _OTHERS if op not in lacking])  # in ONNX Runtime
        self.note(op)
        alike = [value for value in self.values if value.shape == x.shape]
        if op in ("Add", "Concat"):
            other = self.one_of(alike)
            channels = 2 * x.shape[1] if op == "Concat" and x.shape[1] < 4 else x.shape[1]
            if op == "Add" or channels == x.shape[1]:
                y = self.add("Add", [x.name, other.name], x.shape, x.bound + other.bound)
            else:
                shape = (x.shape[0], channels, *x.shape[2:])
                bound = max(x.bound, other.bound)
                y = self.add("Concat", [x.name, other.name], shape, bound, axis=1)
        elif op == "Conv":
            y = self.add_conv(x)
        elif op == "BatchNormalization":
            operands = [self.operand((x.shape[1],)) for _ in range(3)]
            operands.append(self.store(np.arange(1, x.shape[1] + 1, dtype=self.dtype)))
            y = self.add(op, [x.name, *operands], x.shape, x.bound + 3)
            self.exact = False
        elif op == "Reshape":  # to a row, and back to what Shape found
            size = self.add("Shape", [x.name], (), 0)
            every = numpy_helper.from_array(np.array([-1]))
            row = self.add("Constant", [], (), 0, value=every)
            flat = self.add("Reshape", [x.name, row.name], (), x.bound)
            y = self.add("Reshape", [flat.name, size.name], x.shape, x.bound)
        else:
            y = self.add(op, [x.name], x.shape, x.bound)
            self.exact = self.exact and op in ("Identity", "Relu")
        self.values.append(y)

    def add_conv(self, x):
        """A Conv whose windows fit."""
        kernel = [self.draw(st.integers(1, min(3, max(1, size)))) for size in x.shape[2:]]
        given = {"strides": self.integers(1, 2, self.rank), "dilations": [1] * self.rank}
        form = self.one_of(["", "pads", "VALID", "SAME_UPPER", "SAME_LOWER"])
        if form != "VALID" and self.draw(st.booleans()):
            fits = all(k == 1 or 2 * (k - 1) < n for k, n in zip(kernel, x.shape[2:], strict=True))
            if fits or form.startswith("SAME"):
                given["dilations"] = [2] * self.rank
        spans = [d * (k - 1) + 1 for d, k in zip(given["dilations"], kernel, strict=True)]
        totals = [
            max(0, (-(-size // s) - 1) * s + span - size)
            for size, s, span in zip(x.shape[2:], given["strides"], spans, strict=True)
        ]
        begins = ends = [0] * self.rank
        if form.startswith("SAME"):
            less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
            begins, ends = (less, more) if form == "SAME_UPPER" else (more, less)
            given["auto_pad"] = form
            self.note("Conv SAME with dilations", 2 in given["dilations"])
        elif form == "VALID":
            given["auto_pad"] = form
        elif form:
            begins, ends = self.integers(0, 1, self.rank), self.integers(0, 1, self.rank)
            given["pads"] = [*begins, *ends]
        self.note(f"Conv with {form}" if form == "pads" else f"Conv {form}", form != "")
        group = self.one_of([g for g in range(1, x.shape[1] + 1) if x.shape[1] % g == 0])
        self.note("Conv with groups", group > 1)
        given |= {"group": group} if group > 1 else {}
        channels = 2 * group if group < 3 else group
        names = [x.name, self.operand((channels, x.shape[1] // group, *kernel))]
        if self.maybe("Conv with bias", 2):
            names.append(self.operand((channels,)))
        self.note("Conv of float64", self.dtype == "float64")
        size = [
            (n + b + e - span) // s + 1
            for n, b, e, span, s in zip(
                x.shape[2:], begins, ends, spans, given["strides"], strict=True
            )
        ]
        bound = x.bound * prod(kernel) * (x.shape[1] // group) + 1
        y = self.add("Conv", names, (x.shape[0], channels, *size), bound, **given)
        self.pads[y.name] = [*begins, *ends]
        return y

    # ---- the whole ----

    def finish(self):
        last, others = self.values[-1], self.values[1:-1]
        outputs = [last.name]
        if others and self.maybe("output in between", 3):
            outputs.insert(0, self.one_of(others).name)
        if last.name != "x" and self.maybe("output that is an input", 8):
            outputs.append("x")
        if self.stored and self.maybe("output that is an initialiser", 8):
            outputs.append(self.one_of(self.stored).name)
        if self.maybe("unsorted nodes", 8):
            self.nodes.reverse()
        shape = last.shape if min(last.shape) > 0 and self.maybe("declared output", 4) else None
        declared = [
            helper.make_tensor_value_info(name, self.kind, shape if name == last.name else None)
            for name in outputs
        ]
        graph = helper.make_graph(self.nodes, "drawn", self.inputs, declared, self.stored)
        model = helper.make_model(
            graph,
            opset_imports=[helper.make_opsetid("", self.opset)],
            ir_version=3 if self.old else 8,
        )
        return DrawnModel(model, self.feeds, self.pads, frozenset(self.features), self.exact)
