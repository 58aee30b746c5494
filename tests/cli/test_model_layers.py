"""Verb `info` with a model: sizes, operations and shares of its convolutions."""

import json

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper, numpy_helper

from tconv.cli import main
from tconv.cli.model_layers import layers_of

RUNS = [("x", [1, 3, 16, 12]), ("x", ["N", 3, "H", "W"]), ("x", [None, None, None, None])]


def weight(name, *shape):
    values = np.random.default_rng(0).integers(-3, 4, shape).astype(np.float32)
    return numpy_helper.from_array(values, name)


def write(path, nodes, inputs, stored, opset=17):
    values = [helper.make_tensor_value_info(*each) for each in inputs]
    result = helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)
    graph = helper.make_graph(nodes, "net", values, [result], stored)
    opsets = [helper.make_opsetid("", opset)]
    onnx.save(helper.make_model(graph, opset_imports=opsets, ir_version=8), path)
    return str(path)


@pytest.fixture
def network(tmp_path):
    """Write an encoder and a decoder whose input has a declared shape."""

    def make(shape):
        nodes = [
            helper.make_node("Conv", ["x", "a"], ["down"], "down", strides=[2, 2], pads=[1] * 4),
            helper.make_node("Conv", ["down", "b"], ["grouped"], "grouped", group=2),
            helper.make_node("ConvTranspose", ["grouped", "c"], ["up"], "up", strides=[2, 2]),
            helper.make_node("GlobalAveragePool", ["up"], ["pool"]),
            helper.make_node("Flatten", ["pool"], ["flat"]),
            helper.make_node("Gemm", ["flat", "d"], ["y"], transB=1),
        ]
        stored = [weight("a", 4, 3, 3, 3), weight("b", 6, 2, 3, 3)]
        stored += [weight("c", 6, 5, 4, 2), weight("d", 7, 5)]
        name = tmp_path / f"{len(list(tmp_path.iterdir()))}.onnx"
        return write(name, nodes, [("x", TensorProto.FLOAT, shape)], stored)

    return make


def multiply_adds(operator, x, y, taps, groups):
    """Count pairs of a sample and a tap, one by one."""
    cells = x if operator == "ConvTranspose" else y
    count = 0
    for _ in np.ndindex(*cells[2:]):
        for _ in np.ndindex(*taps):
            count += x[1] * y[1] // groups
    return cells[0] * count


@pytest.mark.parametrize("shape", [shape for _, shape in RUNS])
def test_every_layer_has_its_sizes_and_its_operations(network, shape):
    path = network(shape)
    found = layers_of(path, None if shape[2] == 16 else (16, 12))
    assert [each.name for each in found.layers] == ["down", "grouped", "up"]
    assert [each.operator for each in found.layers] == ["Conv", "Conv", "ConvTranspose"]
    sizes = [(1, 3, 16, 12), (1, 4, 8, 6), (1, 6, 6, 4), (1, 5, 14, 8)]
    for each, x, y, groups in zip(found.layers, sizes, sizes[1:], (1, 2, 1), strict=False):
        assert (each.x_shape, each.y_shape) == (x, y)
        taps = each.weight_shape[2:]
        assert each.flops == 2 * multiply_adds(each.operator, x, y, taps, groups)
        assert each.share == each.flops / found.flops
    assert found.others == {"Gemm": 2 * 5 * 7}
    assert found.flops == sum(each.flops for each in found.layers) + 70
    assert not found.uncounted


def test_the_sizes_are_those_of_a_run(network):
    model = onnx.load(network([1, 3, 16, 12]))
    outer = ["down", "grouped", "up"]
    model.graph.output.extend(helper.make_empty_tensor_value_info(name) for name in outer)
    session = ort.InferenceSession(model.SerializeToString())
    ran = session.run(outer, {"x": np.ones((1, 3, 16, 12), np.float32)})
    found = layers_of(network([1, 3, "H", "W"]), (16, 12))
    assert [each.y_shape for each in found.layers] == [array.shape for array in ran]


@pytest.mark.parametrize(
    "attributes",
    [{"auto_pad": "SAME_UPPER"}, {"auto_pad": "SAME_LOWER"}, {"output_shape": [23, 15]},
     {"output_padding": [1, 1], "pads": [1, 0, 0, 1]}],
)  # fmt: skip
def test_sizes_after_a_transposed_convolution_are_those_of_a_run(tmp_path, attributes):
    stored = [weight("a", 3, 4, 3, 3), weight("b", 2, 4, 2, 2)]
    nodes = [
        helper.make_node("ConvTranspose", ["x", "a"], ["up"], "up", strides=[2, 2], **attributes),
        helper.make_node("Conv", ["up", "b"], ["y"], "after"),
    ]
    path = write(tmp_path / "m.onnx", nodes, [("x", 1, [1, 3, 11, 7])], stored)
    model = onnx.load(path)
    model.graph.output.append(helper.make_empty_tensor_value_info("up"))
    session = ort.InferenceSession(model.SerializeToString())
    up, y = session.run(["up", "y"], {"x": np.ones((1, 3, 11, 7), np.float32)})
    first, second = layers_of(path, None).layers
    assert (first.y_shape, second.x_shape, second.y_shape) == (up.shape, up.shape, y.shape)


def test_free_sizes_are_taken_and_told(network, capsys):
    path = network(["N", 3, "H", "W"])
    assert main(["info", path]) == 0
    out = capsys.readouterr().out
    assert "sizes are free: x N×3×H×W; taken: x 1×3×256×256; --size HxW sets them" in out
    assert "2 Conv: " in out
    assert main(["info", path, "--size", "8", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert result["inputs"] == [
        {"name": "x", "declared": ["N", 3, "H", "W"], "taken": [1, 3, 8, 8]}
    ]
    assert sum(each["share"] for each in result["layers"]) < 1
    assert main(["info", network([1, 3, 16, 12])]) == 0
    assert "free" not in capsys.readouterr().out


def test_a_length_and_channels_are_told_apart(tmp_path):
    nodes = [
        helper.make_node("Transpose", ["x"], ["t"], perm=[0, 2, 1]),
        helper.make_node("Conv", ["t", "a"], ["u"], "first"),
        helper.make_node("ConvTranspose", ["z", "b"], ["v"], "second", strides=[2]),
        helper.make_node("Concat", ["u", "v"], ["y"], axis=2),
    ]
    inputs = [("x", 1, ["N", "T", 80]), ("z", 1, ["N", "C", "L"])]
    stored = [weight("a", 4, 80, 3), weight("b", 6, 4, 2)]
    found = layers_of(write(tmp_path / "m.onnx", nodes, inputs, stored), (32,))
    assert [each.taken for each in found.inputs] == [(1, 32, 80), (1, 6, 32)]
    assert [each.y_shape for each in found.layers] == [(1, 4, 30), (1, 4, 64)]


def test_recurrent_layers_count(tmp_path):
    nodes = [
        helper.make_node("GRU", ["x", "w", "r"], ["y", ""], "gru", hidden_size=4),
        helper.make_node("Squeeze", ["y", "axes"], ["s"]),
        helper.make_node("MatMul", ["s", "m"], ["out"]),
    ]
    stored = [weight("w", 1, 12, 5), weight("r", 1, 12, 4), weight("m", 4, 9)]
    stored.append(numpy_helper.from_array(np.array([1]), "axes"))
    path = write(tmp_path / "m.onnx", nodes, [("x", 1, [7, 2, 5])], stored)
    found = layers_of(path, None)
    assert found.others == {"GRU": 2 * 7 * 2 * 12 * (5 + 4), "MatMul": 2 * 7 * 2 * 9 * 4}


def test_what_depends_on_values_is_not_counted(tmp_path, capsys):
    nodes = [
        helper.make_node("NonZero", ["x"], ["n"]),
        helper.make_node("Cast", ["n"], ["f"], to=1),
        helper.make_node("Unsqueeze", ["f", "axes"], ["u"]),
        helper.make_node("Conv", ["u", "a"], ["v"], "unknown"),
        helper.make_node("Conv", ["x", "b"], ["w"], "known"),
        helper.make_node("ReduceSum", ["v"], ["s"], keepdims=0),
        helper.make_node("Add", ["w", "s"], ["y"]),
    ]
    stored = [weight("a", 4, 3, 1), weight("b", 2, 2, 2)]
    stored.append(numpy_helper.from_array(np.array([0]), "axes"))
    path = write(tmp_path / "m.onnx", nodes, [("x", 1, [1, 2, 9])], stored)
    found = layers_of(path, None)
    assert [each.flops for each in found.layers] == [None, 2 * 2 * 2 * 2 * 8]
    assert [each.share for each in found.layers] == [None, 1.0]
    assert main(["info", path]) == 0
    out = capsys.readouterr().out
    assert "1 node has sizes that do not follow from the inputs'" in out
    assert "2 Conv: –" in out


def test_a_layer_within_another_node_is_listed(tmp_path):
    inner = helper.make_graph(
        [helper.make_node("Conv", ["x", "a"], ["z"], "inner")], "branch", [],
        [helper.make_tensor_value_info("z", 1, None)],
    )  # fmt: skip
    node = helper.make_node("If", ["c"], ["y"], "choice", then_branch=inner, else_branch=inner)
    inputs = [("x", 1, [1, 2, 5]), ("c", TensorProto.BOOL, [])]
    found = layers_of(write(tmp_path / "m.onnx", [node], inputs, [weight("a", 2, 2, 3)]), None)
    assert [each.name for each in found.layers] == ["inner (inside If choice)"] * 2
    assert found.layers[0].weight_shape == (2, 2, 3)


def test_a_model_without_convolutions_says_so(tmp_path, capsys):
    nodes = [helper.make_node("Relu", ["x"], ["y"])]
    path = write(tmp_path / "m.onnx", nodes, [("x", 1, [1, 2])], [])
    assert main(["info", path]) == 0
    assert capsys.readouterr().out == "the model has no Conv and no ConvTranspose\n"


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_it_fits_a_terminal(network, terminal, columns):
    shown = terminal("info", network([1, 3, 16, 12]), "--color", "never", columns=columns)
    assert max(map(len, shown.splitlines())) <= columns
    for number in ("1×6×6×4", "6×5×4×2", "42.4 %"):
        assert number in shown


@pytest.mark.parametrize(
    ("shape", "words", "what", "where", "fix"),
    [
        ([1, 3, 16, 12], "--size 8",
         "--size 8 fits no input with free sizes, the model takes x 1×3×16×12", "option --size",
         "leave it out, or give one number for each free axis after the channels"),
        (["N", 3, "H", "W"], "--size 8x8x8",
         "--size 8x8x8 fits no input with free sizes, the model takes x N×3×H×W", "option --size",
         "leave it out, or give one number for each free axis after the channels"),
        (["N", 3, 16, "W"], "--size 8x12", "--size 8x12 differs from input x N×3×16×W on axis 0",
         "option --size", "write --size 16x12"),
        (["N", 3, "H", "W"], "--size 0", "--size 0 is no size", "option --size",
         "write --size 256x256, say"),
        ([1, 3, 16, 12], "--cache", "--cache does not go with MODEL", "option --cache",
         "leave one of the two out"),
    ],
)  # fmt: skip
def test_options_that_do_not_fit_are_refused(network, capsys, shape, words, what, where, fix):
    assert main(["info", network(shape), *words.split()]) == 2
    assert capsys.readouterr().err == f"error[usage]: {what}\n  at: {where}\n  help: {fix}\n"


def test_a_size_needs_a_model_and_a_path_must_exist(capsys):
    assert main(["info", "--size", "8"]) == 2
    assert "--size needs MODEL" in capsys.readouterr().err
    assert main(["info", "none.onnx"]) == 2
    assert "error[file]: No such file" in capsys.readouterr().err


def test_a_damaged_size_is_no_bug(tmp_path, capsys):
    for name, value in (("strides", [2**62, 1]), ("pads", [-(2**62), 0, 0, 0])):
        node = helper.make_node("ConvTranspose", ["x", "a"], ["y"], **{name: value})
        path = write(
            tmp_path / "m.onnx", [node], [("x", 1, [1, 2, 5, 5])], [weight("a", 2, 2, 3, 3)]
        )
        assert main(["info", path]) in (0, 2), capsys.readouterr().err
