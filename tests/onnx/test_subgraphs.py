"""Networks of float64: tconv computes their Conv, for which ONNX Runtime has no kernel."""

from itertools import product

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from onnx_graphs import by_onnx_runtime, conv, in_float32, model_of, transposed
from strategies import draws, integers_like, same_numbers
from tconv.errors import ModelError
from tconv.onnx import Session, compare, warm

WIDE = np.float64


def by_definition(x, weight, bias, strides, dilations, group, pads):
    """Conv in the words of its specification: one sum for each output."""
    rank, per_group = weight.ndim - 2, weight.shape[1]
    begins, ends = pads[:rank], pads[rank:]
    x = np.pad(x, [(0, 0), (0, 0), *zip(begins, ends, strict=True)])
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, weight.shape[2:], strict=True)]
    sizes = [(n - a) // s + 1 for n, a, s in zip(x.shape[2:], spans, strides, strict=True)]
    y = np.zeros((len(x), len(weight), *sizes), x.dtype)
    for m, at in product(range(len(weight)), np.ndindex(*sizes)):
        first = m // (len(weight) // group) * per_group
        window = tuple(
            slice(o * s, o * s + a, d)
            for o, s, a, d in zip(at, strides, spans, dilations, strict=True)
        )
        seen = x[(slice(None), slice(first, first + per_group), *window)]
        y[(slice(None), m, *at)] = (seen * weight[m]).sum(axis=tuple(range(1, x.ndim))) + bias[m]
    return y


@st.composite
def convolutions(draw):
    """Operands of a Conv, its attributes, and the same as pads."""
    rank, group = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    per_axis = st.lists(st.integers(1, 3), min_size=rank, max_size=rank)
    kernel, strides, dilations = draw(per_axis), draw(per_axis), draw(per_axis)
    spans = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    sizes = draw(st.lists(st.integers(1, 7), min_size=rank, max_size=rank))
    form = draw(st.sampled_from(["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]))
    begins, ends = [0] * rank, [0] * rank
    given = {"strides": strides, "dilations": dilations, "group": group, "auto_pad": form}
    for n, (size, span, stride) in enumerate(zip(sizes, spans, strides, strict=True)):
        if form.startswith("SAME"):
            total = max(0, (-(-size // stride) - 1) * stride + span - size)
            begins[n] = total // 2 if form == "SAME_UPPER" else total - total // 2
            ends[n] = total - begins[n]
        elif form == "NOTSET":
            begins[n], ends[n] = draw(st.integers(0, 3)), draw(st.integers(0, 3))
        if sizes[n] + begins[n] + ends[n] < span:
            sizes[n] = span
    if form == "NOTSET":
        given["pads"] = [*begins, *ends]
    inputs, outputs = draw(st.integers(1, 2)), draw(st.integers(1, 3))
    x = integers_like((draw(st.integers(0, 2)), inputs * group, *sizes), "float64", 1)
    weight = integers_like((outputs * group, inputs, *kernel), "float64", 2)
    bias = integers_like((outputs * group,), "float64", 3)
    return x, weight, bias, given, [*begins, *ends]


@draws(4)
@given(convolutions(), st.booleans(), st.sampled_from([1, 11, 17, 22]))
def test_a_convolution_equals_its_definition(drawn, is_stored, opset):
    x, weight, bias, given, pads = drawn
    stored = {"w": weight, "b": bias}
    feeds = {"x": x} if is_stored else {"x": x, **stored}
    given = {n: v for n, v in given.items() if (n, v) != ("auto_pad", "NOTSET")}
    model = model_of(
        [conv("x", "w", "y", "b", **given)],
        feeds,
        ["y"],
        stored if is_stored else {},
        opset=opset,
        sizes=False,
    )
    session = Session(model)
    expected = by_definition(
        x, weight, bias, given["strides"], given["dilations"], given["group"], pads
    )
    for _ in range(2):  # the second takes the short way
        (y,) = session.run(None, feeds)
        assert same_numbers(y, expected)
    (node,) = session.report().nodes
    assert (node.operator, node.computed_by) == ("Conv", "tconv")
    assert (node.x_shape, node.weight_shape, node.y_shape) == (x.shape, weight.shape, y.shape)


@st.composite
def u_nets(draw):
    """A network that goes down, up, and across, in float64; its twin in float32 says it by pads."""
    rank, levels = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    size = [4 * draw(st.integers(1, 3 if rank < 3 else 1)) for _ in range(rank)]
    channels = draw(st.sampled_from([2, 4]))
    x = integers_like((draw(st.integers(1, 2)), channels, *size), "float64", 1, largest=1)
    nodes, stored, folded = [], {}, []

    def store(shape, largest=1):
        name = f"stored {len(stored)}"
        stored[name] = integers_like(shape, "float64", len(stored), largest=largest)
        return name

    def block(value, inputs, outputs):
        """Conv, perhaps a normalisation, perhaps an activation."""
        group = draw(st.sampled_from([1, 2]))
        kernel = [draw(st.integers(1, 3)) for _ in range(rank)]
        names = [value, store((outputs, inputs // group, *kernel))]
        if draw(st.booleans()):
            names.append(store((outputs,)))
        y, own = f"c{len(nodes)}", []
        auto = draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER"]))
        dilations = [draw(st.integers(1, 2)) for _ in range(rank)]
        attributes = {"auto_pad": auto, "dilations": dilations, "group": group}
        nodes.append(helper.make_node("Conv", names, [y], name=y, **attributes))
        if draw(st.booleans()):
            scale, shift, mean = (store((outputs,)) for _ in range(3))
            stored[f"variance {y}"] = np.full(outputs, 0.25)  # whose root divides without a rest
            bn = helper.make_node(
                "BatchNormalization",
                [y, scale, shift, mean, f"variance {y}"],
                [f"b{y}"],
                epsilon=0.0,
            )
            nodes.append(bn)
            own.append("BatchNormalization")
            y = f"b{y}"
        if draw(st.booleans()):
            nodes.append(helper.make_node("Relu", [y], [f"r{y}"]))
            own.append("Relu")
            y = f"r{y}"
        folded.append(("Conv", tuple(own)))
        return y

    value, skips = "x", []
    for level in range(levels):
        value = block(value, channels, channels)
        skips.append(value)
        down = {"kernel_shape": [2] * rank, "strides": [2] * rank}
        nodes.append(helper.make_node("MaxPool", [value], [f"down{level}"], **down))
        value = f"down{level}"
    for level in reversed(range(levels)):
        weight = store((channels, channels, *[2] * rank))
        nodes.append(transposed(value, weight, f"up{level}", strides=[2] * rank))
        folded.append(("ConvTranspose", ()))
        joined = [f"up{level}", skips[level]]
        nodes.append(helper.make_node("Concat", joined, [f"join{level}"], axis=1))
        value = block(f"join{level}", 2 * channels, channels)
    return model_of(nodes, {"x": x}, [value], stored), {"x": x}, folded


def by_pads(model):
    """Every Conv with pads in place of SAME, which ONNX Runtime refuses with dilations."""
    found = onnx.ModelProto()
    found.CopyFrom(model)
    shapes = {tensor.name: tensor.dims for tensor in found.graph.initializer}
    for node in found.graph.node:
        if node.op_type == "Conv":
            given = {each.name: helper.get_attribute_value(each) for each in node.attribute}
            totals = [
                d * (k - 1)
                for d, k in zip(given["dilations"], shapes[node.input[1]][2:], strict=True)
            ]
            less, more = [t // 2 for t in totals], [t - t // 2 for t in totals]
            begins, ends = (less, more) if given["auto_pad"] == b"SAME_UPPER" else (more, less)
            kept = [each for each in node.attribute if each.name != "auto_pad"]
            del node.attribute[:]
            node.attribute.extend(kept)
            node.attribute.append(helper.make_attribute("pads", [*begins, *ends]))
    return found


@draws(2)
@given(u_nets(), st.sampled_from([None, 1, 2]))
def test_a_u_net_gives_what_its_twin_of_float32_gives(drawn, threads):
    model, feeds, folded = drawn
    (expected,) = by_onnx_runtime(*in_float32(by_pads(model), feeds))
    session = Session(model, threads=threads)
    for _ in range(2):
        (y,) = session.run(None, feeds)
        assert y.dtype == WIDE
        assert np.abs(y).max(initial=0) < 2**24
        assert np.array_equal(y, expected)
    found = [(node.operator, node.folded) for node in session.report().nodes]
    assert found == folded
    assert all(node.computed_by == "tconv" for node in session.report().nodes)


X, W = integers_like((1, 2, 6, 5), "float64", 1), integers_like((3, 2, 3, 3), "float64", 2)


def test_convolutions_of_float32_stay_onnx_runtimes():
    nodes = [conv("x", "w", "y"), transposed("y", "v", "z")]
    stored = {"w": W, "v": integers_like((3, 2, 2, 2), "float64", 3)}
    model = model_of(nodes, {"x": X}, ["z"], stored)
    wide = Session(model)
    assert [node.operator for node in wide.report().nodes] == ["Conv", "ConvTranspose"]
    assert "2 of 2 Conv and ConvTranspose" in repr(wide)
    narrow, feeds = in_float32(model, {"x": X})
    session = Session(narrow, force=True)
    assert [node.operator for node in session.report().nodes] == ["ConvTranspose"]
    assert "1 of 1 ConvTranspose" in repr(session)
    assert np.array_equal(wide.run(None, {"x": X})[0], session.run(None, feeds)[0])
    assert "conv y (Conv)" in str(wide.report())


def test_a_convolution_of_constants_is_computed_once_as_any_other_layer():
    nodes = [conv("c", "w", "k"), helper.make_node("Add", ["x", "k"], ["y"])]
    x = integers_like((1, 3, 4, 3), "float64", 5)
    (y,) = Session(model_of(nodes, {"x": x}, ["y"], {"c": X, "w": W})).run(None, {"x": x})
    assert same_numbers(y, x + by_definition(X, W, [0] * 3, [1, 1], [1, 1], 1, [0] * 4))


def test_a_convolution_inside_a_function_is_taken():
    inner = helper.make_function(
        "own",
        "Down",
        ["a", "b"],
        ["c"],
        [helper.make_node("Conv", ["a", "b"], ["c"])],
        [helper.make_opsetid("", 17)],
    )
    model = model_of([helper.make_node("Down", ["x", "w"], ["y"], domain="own")], {"x": X}, ["y"])
    model.graph.initializer.append(numpy_helper.from_array(W, "w"))
    model.functions.append(inner)
    model.opset_import.append(helper.make_opsetid("own", 1))
    session = Session(model)
    assert [node.computed_by for node in session.report().nodes] == ["tconv"]
    (y,) = session.run(None, {"x": X})
    assert same_numbers(y, by_definition(X, W, [0] * 3, [1, 1], [1, 1], 1, [0] * 4))


def test_its_kernels_can_be_compiled_ahead():
    ((name, plan),) = warm(model_of([conv("x", "w", "y")], {"x": X}, ["y"], {"w": W}))
    assert name == "conv y"
    assert "fixed" not in plan


def test_it_cannot_be_compared_with_what_there_is_not():
    model = model_of([conv("x", "w", "y")], {"x": X}, ["y"], {"w": W})
    with pytest.raises(ModelError, match=r"^ONNX Runtime alone cannot run the model: .*Conv.*; "):
        compare(model, {"x": X}, seconds=0.01)
