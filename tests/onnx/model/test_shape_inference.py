"""Shape inference from the shapes of the inputs: the same shapes as in ONNX Runtime."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from onnx import helper, numpy_helper

from onnx_graphs import by_onnx_runtime, model_of, models, transposed
from strategies import draws
from tconv.onnx.model.shape_inference import infer_shapes, strip_weights


def shapes_of(feeds):
    return {name: value.shape for name, value in feeds.items()}


def found_by_onnx_runtime(model, feeds):
    watched = onnx.ModelProto()
    watched.CopyFrom(model)
    own = {value.name for value in watched.graph.output}
    names = [n for node in watched.graph.node for n in node.output if n and n not in own]
    watched.graph.output.extend(onnx.ValueInfoProto(name=name) for name in names)
    outputs = [value.name for value in watched.graph.output]
    return dict(zip(outputs, by_onnx_runtime(watched, feeds), strict=True))


@draws()
@given(models())
def test_shapes_are_those_of_a_run(drawn):
    if "empty batch" in drawn.features:
        return
    try:
        values = found_by_onnx_runtime(drawn.model, drawn.feeds)
    except Exception:
        return
    known = infer_shapes(strip_weights(drawn.model), shapes_of(drawn.feeds), {})
    for name, value in values.items():
        if name in known:
            assert known[name] == np.shape(value)


def computed_size(opset):
    """x -> (N, C, L/2, 2) by sizes that nodes compute -> up."""

    def stored(name, *values):
        return numpy_helper.from_array(np.array(values, np.int64), name)

    def unsqueezed(source, name):
        if opset < 13:
            return helper.make_node("Unsqueeze", [source], [name], axes=[0])
        return helper.make_node("Unsqueeze", [source, "zero"], [name])

    nodes = [
        helper.make_node("Shape", ["x"], ["shape"]),
        helper.make_node("Gather", ["shape", "last"], ["length"]),
        helper.make_node("Div", ["length", "two"], ["half"]),
        helper.make_node("Squeeze", ["half"], ["flat"]),
        unsqueezed("flat", "rows"),
        helper.make_node("Concat", ["head", "rows", "two"], ["to"], axis=0),
        helper.make_node("Reshape", ["x", "to"], ["image"]),
        transposed("image", "w", "y", strides=[2, 2]),
    ]
    feeds = {"x": np.ones((1, 2, 10), np.float32)}
    w = np.ones((2, 3, 2, 2), np.float32)
    model = model_of(nodes, feeds, ["y"], {"w": w}, opset=opset, sizes=False)
    model.graph.initializer.extend(
        [stored("last", 2), stored("two", 2), stored("head", 1, 2), stored("zero", 0)]
    )
    return model, feeds


@pytest.mark.parametrize("opset", [11, 12, 13, 17, 22])
def test_sizes_that_nodes_compute_are_followed(opset):
    model, feeds = computed_size(opset)
    known = infer_shapes(strip_weights(model), shapes_of(feeds), {})
    assert known["image"] == (1, 2, 5, 2)
    assert known["y"] == by_onnx_runtime(model, feeds)[0].shape


def test_paddings_that_nodes_compute_are_followed():
    """PyTorch exports a padding so: zeros are appended, and the order of axes is reversed."""

    def stored(name, *values):
        return numpy_helper.from_array(np.array(values, np.int64), name)

    nodes = [
        helper.make_node("ConstantOfShape", ["four"], ["zeros"], value=stored("", 0)),
        helper.make_node("Concat", ["ends", "zeros"], ["all"], axis=0),
        helper.make_node("Reshape", ["all", "pairs"], ["rows"]),
        helper.make_node("Transpose", ["rows"], ["columns"], perm=[1, 0]),
        helper.make_node("Reshape", ["columns", "flat"], ["pads"]),
        helper.make_node("Pad", ["x", "pads"], ["padded"]),
        transposed("padded", "w", "y", strides=[2]),
    ]
    feeds = {"x": np.ones((1, 2, 5), np.float32)}
    model = model_of(nodes, feeds, ["y"], {"w": np.ones((2, 3, 2), np.float32)}, sizes=False)
    model.graph.initializer.extend(
        [stored("four", 4), stored("ends", 2, 1), stored("pairs", 3, 2), stored("flat", -1)]
    )
    known = infer_shapes(strip_weights(model), shapes_of(feeds), {})
    assert known["y"] == by_onnx_runtime(model, feeds)[0].shape


def test_a_large_constant_is_not_made(monkeypatch):
    shape = numpy_helper.from_array(np.array([2**40, 2**20]), "shape")
    nodes = [
        helper.make_node("ConstantOfShape", ["shape"], ["zeros"]),
        transposed("x", "w", "y"),
    ]
    x, w = np.ones((1, 2, 5), np.float32), np.ones((2, 3, 2), np.float32)
    model = model_of(nodes, {"x": x}, ["y"], {"w": w}, sizes=False)
    model.graph.initializer.append(shape)
    assert infer_shapes(strip_weights(model), {"x": x.shape}, {})["y"] == (1, 3, 6)


def test_values_in_between_may_be_told():
    nodes = [
        helper.make_node("Compress", ["x", "keep"], ["k"], axis=2),
        transposed("k", "w", "y", strides=[2]),
    ]
    feeds = {"x": np.ones((1, 2, 9), np.float32), "keep": np.ones(9, bool)}
    model = strip_weights(model_of(nodes, feeds, ["y"], {"w": np.ones((2, 1, 3), np.float32)}))
    assert "y" not in infer_shapes(model, shapes_of(feeds), {})
    shapes = shapes_of(feeds) | {"k": (1, 2, 4)}
    assert infer_shapes(model, shapes, {"k": onnx.TensorProto.FLOAT})["y"] == (1, 1, 9)


def test_an_outline_has_no_weights_and_all_else():
    w = np.ones((64, 64, 5, 5), np.float32)
    constant = helper.make_node("Constant", [], ["v"], value=numpy_helper.from_array(w))
    nodes = [constant, transposed("x", "w", "a"), transposed("a", "v", "y")]
    model = model_of(nodes, {"x": np.ones((1, 64, 3, 3), np.float32)}, ["y"], {"w": w})
    bare = strip_weights(model)
    assert bare.ByteSize() < 2000 < w.nbytes
    assert [node.op_type for node in bare.graph.node] == [node.op_type for node in nodes]
    assert infer_shapes(bare, {}, {}) == {
        "w": w.shape, "v": w.shape, "x": (1, 64, 3, 3), "a": (1, 64, 7, 7), "y": (1, 64, 11, 11),
    }  # fmt: skip
    assert model.graph.initializer[0].raw_data  # the model itself is as it was
