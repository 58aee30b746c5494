"""`see` on three pretrained networks: the numbers of PyTorch's autograd, under every rule.

The networks are run by a reading of their ONNX graphs in PyTorch, which is written here and shares
nothing with tconv. "deconvnet" and "guided" change the derivative of its ReLU and nothing else.
"""

from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
import torch.nn.functional as F
from onnx import ModelProto, helper, numpy_helper
from skimage import data

import tconv
from loading import example

RULES = ("gradient", "deconvnet", "guided")


class Rectify(torch.autograd.Function):
    """ReLU, or ReLU6 with a top; going back, each rule lets through what it says."""

    @staticmethod
    def forward(context, x, top, rule):
        context.save_for_backward(x)
        context.top, context.rule = top, rule
        return x.clamp(0, top)

    @staticmethod
    def backward(context, r):
        (x,) = context.saved_tensors
        passed = (x > 0) & (x < context.top)
        if context.rule == "gradient":
            return r * passed, None, None
        return r.clamp(min=0) * (passed if context.rule == "guided" else 1), None, None


class Recorded(torch.autograd.Function):
    """Numbers of ONNX Runtime in place of PyTorch's, which rounds otherwise.

    A number beside 0 would else be on the other side of a rectifier now and then.
    """

    @staticmethod
    def forward(context, y, recorded):
        gap, scale = (y - recorded).abs().max(), recorded.abs().max()
        assert gap <= 2e-5 * scale, gap / scale
        return recorded.clone()

    @staticmethod
    def backward(context, r):
        return r, None


def padded(x, kernel, attributes, value):
    """x with the cells around it that a node asks for."""
    strides = attributes.get("strides", [1, 1])
    if attributes.get("auto_pad", b"NOTSET") == b"SAME_UPPER":
        total = [
            max(0, (-(-size // s) - 1) * s + k - size)
            for size, k, s in zip(x.shape[2:], kernel, strides, strict=True)
        ]
        around = [each for t in reversed(total) for each in (t // 2, t - t // 2)]
    else:
        top, left, bottom, right = attributes.get("pads", [0] * 4)
        around = [left, right, top, bottom]
    return F.pad(x, around, value=value), strides


def in_torch(model, image, rule, recorded):
    """All values of a graph by their names, made so that autograd can go back to the image."""
    values = {
        each.name: torch.from_numpy(numpy_helper.to_array(each).astype(np.float64))
        for each in model.graph.initializer
    }
    values[model.graph.input[0].name] = image
    for node in model.graph.node:
        a = {each.name: helper.get_attribute_value(each) for each in node.attribute}
        x, *others = (values[name] for name in node.input)
        if node.op_type == "Conv":
            weight, *bias = others
            x, strides = padded(x, weight.shape[2:], a, 0.0)
            y = F.conv2d(x, weight, *bias, stride=strides, groups=a.get("group", 1))
        elif node.op_type == "MaxPool":
            x, strides = padded(x, a["kernel_shape"], a, -torch.inf)
            y = F.max_pool2d(x, a["kernel_shape"], strides)
        elif node.op_type == "BatchNormalization":
            gamma, beta, mean, variance = others
            y = F.batch_norm(x, mean, variance, gamma, beta, eps=a["epsilon"])
        elif node.op_type == "Relu":
            y = Rectify.apply(x, torch.inf, rule)
        elif node.op_type == "Clip":
            assert others[0] == 0
            y = Rectify.apply(x, float(others[1]), rule)
        elif node.op_type == "PRelu":
            y = torch.where(x > 0, x, x * others[0])
        elif node.op_type == "Add":
            y = x + others[0]
        elif node.op_type == "GlobalAveragePool":
            y = x.mean((2, 3), keepdim=True)
        elif node.op_type == "Transpose":
            y = x.permute(a["perm"])
        elif node.op_type == "Flatten":
            y = x.flatten(1)
        else:
            assert node.op_type == "Gemm"
            y = F.linear(x, others[0] if a.get("transB") else others[0].T, others[1])
        name = node.output[0]
        values[name] = Recorded.apply(y, torch.from_numpy(recorded[name].astype(np.float64)))
    return values


def sized(model, size):
    """A network for a smaller image, which costs less."""
    for dim in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        dim.dim_value = size
    return model


def onet():
    face = data.astronaut()[65:175, 175:285]
    limits = (-127.5 / 128, 127.5 / 128)
    return example("onet").model(), face, {"size": 48, "value_range": limits}


def vgg16():
    module = example("vgg16")
    cat = data.chelsea()[80:144, 120:184]
    return module.model(), cat, {"value_range": (0, 255), "mean": module.MEAN}


def efficientnet():
    module = example("efficientnet")
    cat = data.chelsea()[20:260:2, 100:340:2][:96, :96]
    return sized(module.model(), 96), cat, {"mean": module.MEAN, "std": module.STD}


CASES = [
    (onet, "gradient", ["prelu1", "pool2", "prelu4", "points"]),
    (onet, "deconvnet", ["conv1"]),  # above, PRelu has no such rule
    (onet, "guided", ["conv1"]),
    *((vgg16, rule, ["relu1_2", "pool2", "relu4_1", "relu5_3"]) for rule in RULES),
    *(
        (efficientnet, rule, ["_bn0.relu6", "_blocks.2.sum", "_blocks.9._bn1.relu6", "logits"])
        for rule in RULES
    ),
]


@pytest.mark.parametrize(("network", "rule", "layers"), CASES)
def test_every_projection_is_that_of_autograd(network, rule, layers):
    model, photo, settings = network()
    for layer in layers:
        channels = [281, 282, 285, 7] if layer == "logits" else [0, 3, 5, 9]
        seen = tconv.see(model, photo, layer, rule=rule, feature=channels, crop=False, **settings)
        pixels = seen.photos[0].values.astype(np.float32)
        image = torch.from_numpy(pixels.astype(np.float64)).requires_grad_()
        values = in_torch(model, image, rule, recorded(model, pixels))
        for tile in seen.tiles:
            unit = values[layer][(0, *tile.unit)]
            (back,) = torch.autograd.grad(unit, image, unit.detach(), retain_graph=True)
            assert tile.activation == unit.item()
            assert_near(tile.projection, back[0].numpy(), 1e-5)


def recorded(model, pixels):
    """All values of a run by ONNX Runtime."""
    whole = ModelProto()
    whole.CopyFrom(model)
    names = [name for node in model.graph.node for name in node.output]
    del whole.graph.output[:]
    whole.graph.output.extend(map(helper.make_empty_tensor_value_info, names))
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    session = onnxruntime.InferenceSession(whole.SerializeToString(), options)
    found = session.run(names, {model.graph.input[0].name: pixels})
    return dict(zip(names, found, strict=True))


def assert_near(found, expected, tolerance):
    """The largest difference is small beside the largest number."""
    gap, scale = np.abs(found - expected).max(), np.abs(expected).max()
    assert gap <= tolerance * scale, gap / scale


def test_the_face_of_the_demo(monkeypatch, tmp_path, capsys):
    """The third layer's projections lie about eyes, nose and mouth; those of shuffled weights less.

    Of deeper layers that is not so: their units see most of the face whatever the weights.
    """
    monkeypatch.syspath_prepend(Path(__file__).parents[3] / "examples")
    example("see_face").main(["--output", str(tmp_path)])
    lines = [line.split() for line in capsys.readouterr().out.splitlines()]
    ratios = {words[0]: float(words[3]) for words in lines if words[1:2] and "%" in words[1]}
    assert list(ratios) == ["prelu2", "prelu3", "prelu4", "points"]
    assert ratios["prelu3"] >= 1.5
    assert sorted(file.name for file in tmp_path.iterdir()) == ["face.html", "face.png"]
