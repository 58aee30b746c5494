"""Random networks as ONNX models: every operator that programs have, in graphs with branches.

Operands are small integers, and every value carries a bound and the binary places of what may be in
it, so that it is known which results are exact. What nothing reads becomes an output.
"""

from dataclasses import dataclass
from math import prod
from typing import NamedTuple

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st
from onnx import ModelProto, helper, numpy_helper, printer

from network_movement import OPERATORS
from network_operators import are_together
from onnx_graphs import by_onnx_runtime, model_of
from strategies import integers_like
from tconv.graph import Programs, UnknownOperator
from tconv.onnx.front_end import graph_of

__all__ = [
    "OPERATORS",
    "OPSETS",
    "DrawnNetwork",
    "assert_agree",
    "assert_alike_without",
    "assert_as_onnx_runtime",
    "networks",
    "run",
]

OPSETS = (9, 11, 13, 17, 21)
_LARGE = 1e4  # bound of a value; beyond it nothing grows any more
_SINCE = {
    "Round": 11,
    "Celu": 12,
    "HardSwish": 14,
    "LayerNormalization": 17,
    "Mish": 18,
    "Gelu": 20,
}
_GROWING = {"Conv", "ConvTranspose", "Mul", "Pow", "MatMul", "Gemm", "padded Conv"}


@dataclass(frozen=True)
class DrawnNetwork:
    """A model and its feeds; `exact` has for each output whether every way to compute it agrees."""

    model: ModelProto
    feeds: dict[str, np.ndarray]
    exact: list[bool]
    between: list[str]  # the names of all values

    def largest(self):
        """The size of the largest value: what is left of a difference has its rounding."""
        model = ModelProto()
        model.CopyFrom(self.model)
        del model.graph.output[:]
        names = [name for name in self.between if name not in self.feeds]
        model.graph.output.extend(helper.make_tensor_value_info(n, 1, None) for n in names)
        stored = [numpy_helper.to_array(each) for each in model.graph.initializer]
        floats = [each for each in stored if each.dtype == np.float32]
        found = [*by_onnx_runtime(model, self.feeds), *self.feeds.values(), *floats]
        return max(np.abs(each).max() for each in found)

    def __repr__(self):
        shapes = {name: value.shape for name, value in self.feeds.items()}
        stored = {each.name: numpy_helper.to_array(each) for each in self.model.graph.initializer}
        return f"DrawnNetwork({shapes}, {printer.to_text(self.model.graph)}, {stored})"

    def _repr_pretty_(self, to, _):
        to.text(repr(self))  # Hypothesis would show fields


@st.composite
def networks(draw, operator="", among=(), most=6):
    """Networks of a few operators after each other and side by side.

    One of them may be named, and `among` those that the others are drawn from.
    """
    builder = _Builder(draw, _SINCE.get(operator, 0), among or list(OPERATORS))
    for _ in range(draw(st.integers(0, 2)) if operator else 1):
        builder.add_any()
    if operator:
        OPERATORS[operator](builder, operator)
    for _ in range(draw(st.integers(0, most - 2))):
        builder.add_any()
    return builder.finish()


def run(drawn, threads=2):
    """The outputs of a drawn network by a program."""
    return Programs(graph_of(drawn.model), threads)(list(drawn.feeds.values()))


def assert_alike_without(name, replaced, drawn):
    """Equal to what the network gives while `tconv.graph.program` has another pass of that name."""
    try:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(f"tconv.graph.program.{name}", replaced)
            expected = run(drawn)
        found = run(drawn)
    except UnknownOperator:
        assume(False)
    assert_agree(drawn, found, expected)
    assert_as_onnx_runtime(drawn, found)


def assert_as_onnx_runtime(drawn, found):
    """Equal to ONNX Runtime: bit by bit where sums are exact, else up to rounding."""
    assert_agree(drawn, found, by_onnx_runtime(drawn.model, drawn.feeds))


def assert_agree(drawn, found, expected):
    """The same outputs, up to 1e-5 of the largest value in the network where they are rounded."""
    assert len(found) == len(expected) == len(drawn.exact)
    for got, wanted, exact in zip(found, expected, drawn.exact, strict=True):
        assert (got.shape, got.dtype) == (wanted.shape, wanted.dtype)
        if exact:
            assert np.array_equal(got, wanted)
        elif (error := np.abs(got - wanted).max()) > 1e-5 * np.abs(wanted).max():
            assert error <= 1e-5 * drawn.largest()


class _Value(NamedTuple):
    name: str
    shape: tuple[int, ...]
    most: float  # bound of its size
    places: int  # binary places after the point

    @property
    def exact(self):
        return self.most * 2.0**self.places <= 2**24


class _Builder:
    """A graph while it grows."""

    def __init__(self, draw, since, among):
        self.draw, self.among, self.names = draw, among, 0
        self.opset = self.one_of([opset for opset in OPSETS if opset >= since])
        self.nodes, self.stored, self.feeds, self.values, self.read = [], {}, {}, [], set()
        sizes = self.integers(1, *{1: (9, 1), 2: (6, 2), 3: (4, 3)}[self.one_of([1, 2, 3])])
        self.feed((self.one_of([1, 2, 3]), self.one_of([1, 2, 3, 4]), *sizes))

    def one_of(self, choices):
        return self.draw(st.sampled_from(list(choices)))

    def maybe(self, one_in=2):
        return self.draw(st.integers(1, one_in)) == one_in

    def integers(self, least, most, count):
        return [self.draw(st.integers(least, most)) for _ in range(count)]

    def new(self, stem):
        self.names += 1
        return f"{stem}/{self.names}"

    def array(self, shape, largest):
        return integers_like(shape, "float32", self.names, largest)

    # ---- values ----

    def feed(self, shape):
        """Another input of the graph."""
        name = self.new("x")
        self.feeds[name] = self.array(shape, 4)
        self.values.append(_Value(name, tuple(shape), 4, 0))
        return self.values[-1]

    def constant(self, array):
        """The name of an array, as an initialiser or by a node."""
        name, array = self.new("constant"), np.asarray(array)
        if self.maybe(4):
            made = helper.make_node("Constant", [], [name], value=numpy_helper.from_array(array))
            self.nodes.append(made)
        else:
            self.stored[name] = array
        return name

    def sizes(self, numbers):
        return self.constant(np.array(numbers, np.int64))

    def numbers(self, shape, largest=2):
        """A constant of small integers."""
        return _Value(self.constant(self.array(shape, largest)), tuple(shape), largest, 0)

    def pick(self, least=0, most=9):
        """A value of some rank: most often the last one, or one that nothing reads yet."""
        found = [v for v in self.values if least <= len(v.shape) <= most]
        if not found:
            found = [self.flat(self.values[0])]
        fresh = [v for v in found if v.name not in self.read]
        return self.one_of([found[-1], found[-1], *fresh, *found[-3:]])

    def flat(self, x):
        shape = (x.shape[0], prod(x.shape[1:]))
        return self.add("Flatten", [x], shape, axis=1)

    def partner(self, x, shape):
        """Something that can be broadcast with a shape, as x can."""
        kind = self.one_of(["value", "value", "constant", "constant", "input"])
        if kind == "value":
            return self.one_of([x, *[v for v in self.values if are_together(v.shape, shape)]])
        sizes = [self.one_of([n, n, 1] if n > 1 else [1, 1, 2]) for n in shape]
        if not are_together(sizes, shape) or self.maybe(8):
            sizes = [1] * len(sizes)
        sizes = sizes[self.one_of([0, 0, 0, 1, 2]) :]
        return self.feed(sizes) if kind == "input" else self.numbers(sizes)

    # ---- nodes ----

    def add(self, op, operands, shape=None, most=None, places=None, hidden=False, **attributes):
        """A node; without `shape` it has that of its first operand, and so on."""
        values = [each for each in operands if isinstance(each, _Value)]
        self.read.update(each if isinstance(each, str) else each.name for each in operands)
        names = [each if isinstance(each, str) else each.name for each in operands]
        y = _Value(
            self.new(op),
            tuple(values[0].shape if shape is None else shape),
            max(v.most for v in values) if most is None else most,
            max(v.places for v in values) if places is None else places,
        )
        self.nodes.append(
            helper.make_node(op, names, [y.name], name=f"node {y.name}", **attributes)
        )
        if not hidden:
            self.values.append(y)
        return y

    def add_several(self, op, operands, shapes, **attributes):
        """A node of several results, which are parts of its first operand."""
        first, *more = operands
        names = [self.new(op) for _ in shapes]
        self.read.update([first.name, *more])
        self.nodes.append(helper.make_node(op, [first.name, *more], names, **attributes))
        parts = zip(names, shapes, strict=True)
        self.values += [_Value(name, tuple(s), first.most, first.places) for name, s in parts]

    def add_any(self):
        op = self.one_of([op for op in self.among if _SINCE.get(op, 0) <= self.opset])
        if op in _GROWING and self.values[-1].most > _LARGE:
            op = "Tanh"
        OPERATORS[op](self, op)

    def finish(self):
        outputs = [v for v in self.values if v.name not in self.read]
        outputs += [v for v in [self.one_of(self.values)] if v not in outputs and self.maybe(3)]
        if self.maybe(8):
            x = self.one_of(self.values)
            self.read.add(x.name)
            outputs.append(self.add("Identity", [x]))  # one value as two outputs, if x is one
        names = [v.name for v in outputs]
        floats = [n for n, a in self.stored.items() if a.dtype == np.float32 and n in self.read]
        exact = [v.exact for v in outputs]
        if floats and self.maybe(8):
            names.append(self.one_of(floats))
            exact.append(True)
        model = model_of(self.nodes, self.feeds, names, self.stored, opset=self.opset)
        return DrawnNetwork(model, self.feeds, exact, [v.name for v in self.values])
