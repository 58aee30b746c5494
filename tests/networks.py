"""Small networks: ONNX models with an input "image", and one of PyTorch's modules."""

import numpy as np
from onnx import helper, numpy_helper

from tconv.deconvnet.network.model import ImageModel
from tconv.deconvnet.network.network import Network

__all__ = ["network_of", "proto_of", "torch_network"]


def proto_of(nodes, stored=None, shape=(1, 3, 8, 7), *, outputs=None, opset=17, kind=1):
    """A model of nodes, each (op, inputs, output or outputs, attributes)."""
    made = [
        helper.make_node(
            op, inputs.split(" "), results.split(" "), name=f"node {results}", **(attributes or {})
        )
        for op, inputs, results, attributes in nodes
    ]
    names = outputs or [made[-1].output[0]]
    graph = helper.make_graph(
        made,
        "net",
        [helper.make_tensor_value_info("image", kind, shape)],
        [helper.make_tensor_value_info(name, kind, None) for name in names],
        [numpy_helper.from_array(np.asarray(v), name) for name, v in (stored or {}).items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def network_of(proto):
    """The network of a model, ready to be visualised."""
    return Network.of(ImageModel.of(proto))


def torch_network():
    """PyTorch modules of every kind that tconv has a layer for, one level nested."""
    from torch import nn

    return nn.Sequential(
        nn.Conv2d(1, 4, 3, padding=1),
        nn.MaxPool2d(2),
        nn.Sequential(nn.ReLU(), nn.Conv2d(4, 6, 3, stride=2, groups=2)),
        nn.LeakyReLU(0.25),
        nn.ConvTranspose2d(6, 1, 4, stride=2, padding=1, bias=False),
    )
