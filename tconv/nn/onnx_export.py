"""Layers as nodes of an ONNX model, and nodes as layers."""

from collections.abc import Sequence
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.activations import Activation
from tconv.arrays.dtypes import dtype_name
from tconv.arrays.onnx_constants import constant_of
from tconv.errors import ParameterError, ShapeError, UnsupportedError
from tconv.geometry.axis import Axis
from tconv.geometry.onnx_attributes import NodeAttributes
from tconv.messages import show
from tconv.system.fork_lock import importing

__all__ = ["model_of", "read_node"]

_OPSET, _IR_VERSION = 11, 6  # the version of ConvTranspose before bfloat16
_BFLOAT16_OPSET, _BFLOAT16_IR_VERSION = 22, 10
_LATER = {"hard_swish": (14, 7), "gelu": (20, 9), "gelu_tanh": (20, 9)}  # opset and IR version
_NODES: dict[str, tuple[tuple[str, ...], ...]] = {
    "relu": (("Relu", "sums", "y"),),
    "leaky_relu": (("LeakyRelu", "sums", "y"),),
    "prelu": (("PRelu", "sums", "slope", "y"),),
    "elu": (("Elu", "sums", "y"),),
    "clip": (("Clip", "sums", "low", "high", "y"),),
    "hard_sigmoid": (("HardSigmoid", "sums", "y"),),
    "tanh": (("Tanh", "sums", "y"),),
    "sigmoid": (("Sigmoid", "sums", "y"),),
    "silu": (("Sigmoid", "sums", "gate"), ("Mul", "sums", "gate", "y")),
    "hard_swish": (("HardSwish", "sums", "y"),),
    "gelu": (("Gelu", "sums", "y"),),
    "gelu_tanh": (("Gelu", "sums", "y"),),
    "snake": (
        ("Mul", "sums", "a", "angle"),
        ("Sin", "angle", "sine"),
        ("Mul", "sine", "sine", "square"),
        ("Div", "square", "a", "wave"),
        ("Add", "sums", "wave", "y"),
    ),
}
"""By activation: nodes as operator, inputs and output. Inputs that no node makes are parameters."""
_ATTRIBUTES = {"leaky_relu": ("alpha",), "elu": ("alpha",), "hard_sigmoid": ("alpha", "beta")}
_CONSTANTS = {"prelu": ("slope",), "clip": ("low", "high"), "snake": ("a",)}


def read_node(node: Any, weights: Any) -> tuple[dict[str, Any], NDArray[Any], NDArray[Any] | None]:
    """Return arguments, weight and bias of a layer from a NodeProto and its model."""
    kind = getattr(node, "op_type", type(node).__name__)
    is_node = isinstance(kind, str) and all(hasattr(node, each) for each in ("input", "attribute"))
    if not is_node or kind != "ConvTranspose":
        found = kind if isinstance(kind, str) else show(kind)
        raise ParameterError(f"node must be a ConvTranspose, not {found}; pass such a node.")
    settings = NodeAttributes.of_node(node)
    inputs = [*node.input, "", ""]
    weight = constant_of(weights, inputs[1])
    bias = constant_of(weights, inputs[2]) if inputs[2] else None
    if weight.ndim < 3 or 0 in weight.shape:
        raise ShapeError(
            f"weight {inputs[1]!r} has shape {weight.shape}, must be (C, M // group, *K); pass "
            "such an array."
        )
    arguments = settings.arguments(weight.shape[2:])
    arguments |= {
        "in_channels": weight.shape[0],
        "out_channels": weight.shape[1] * settings.group,
        "kernel_size": weight.shape[2:],
        "bias": bias is not None,
        "dtype": dtype_name(weight.dtype),
    }
    return arguments, weight, bias


def model_of(
    axes: Sequence[Axis],
    groups: int,
    padding_mode: str,
    data_format: str,
    weight: NDArray[Any],
    bias: NDArray[Any] | None,
    activation: Activation | None = None,
) -> Any:
    """Return an onnx.ModelProto of a ConvTranspose and its activation; "x" of any size to "y".

    Raises
    ------
    UnsupportedError : ONNX cannot express it
    """
    for name, value, only in (
        ("data_format", data_format, "channels_first"),
        ("padding_mode", padding_mode, "zeros"),
    ):
        if value != only:
            raise UnsupportedError(
                f'{name}="{value}" has no place in ONNX, which has {only} only; make the layer '
                f'with {name}="{only}".'
            )
    try:
        with importing:
            from onnx import helper, numpy_helper
    except ImportError:
        raise ImportError("Writing ONNX needs onnx: pip install onnx.") from None
    opset, ir_version = _LATER.get(activation.name if activation else "", (_OPSET, _IR_VERSION))
    if weight.dtype.name == "bfloat16":
        opset, ir_version = _BFLOAT16_OPSET, _BFLOAT16_IR_VERSION
    kind = helper.np_dtype_to_tensor_dtype(weight.dtype)
    begins, ends, extras = zip(*(_crop(n, axis) for n, axis in enumerate(axes)), strict=True)
    values = {"weight": weight} if bias is None else {"weight": weight, "bias": bias}
    node = helper.make_node(
        "ConvTranspose",
        ["x", *values],
        ["sums" if activation else "y"],
        name="ConvTranspose",
        kernel_shape=[axis.kernel for axis in axes],
        strides=[axis.stride for axis in axes],
        dilations=[axis.dilation for axis in axes],
        pads=[*begins, *ends],
        output_padding=extras,
        group=groups,
    )
    nodes, parameters = _nodes_of(activation)
    values |= {name: np.array(each, weight.dtype) for name, each in parameters.items()}
    x_shape = ["N", weight.shape[0], *(f"I{n}" for n in range(len(axes)))]
    y_shape = ["N", weight.shape[1] * groups, *(f"O{n}" for n in range(len(axes)))]
    graph = helper.make_graph(
        [node, *nodes],
        "tconv",
        [helper.make_tensor_value_info("x", kind, x_shape)],
        [helper.make_tensor_value_info("y", kind, y_shape)],
        [numpy_helper.from_array(np.ascontiguousarray(v), name) for name, v in values.items()],
    )
    return helper.make_model(
        graph,
        producer_name="tconv",
        opset_imports=[helper.make_opsetid("", opset)],
        ir_version=ir_version,
    )


def _nodes_of(activation: Activation | None) -> tuple[list[Any], dict[str, float]]:
    """The nodes of an activation from "sums" to "y", and the constants that they read by name."""
    with importing:
        from onnx import helper

    if activation is None:
        return [], {}
    kind, parameters = activation.name, activation.parameters
    attributes: dict[str, Any] = dict(zip(_ATTRIBUTES.get(kind, ()), parameters, strict=False))
    if kind == "gelu_tanh":
        attributes["approximate"] = "tanh"
    named = dict(zip(_CONSTANTS.get(kind, ()), parameters, strict=False))
    constants = {name: value for name, value in named.items() if isfinite(value)}
    left_out = named.keys() - constants.keys()  # bounds that are None
    nodes = []
    for n, (operator, *inputs, output) in enumerate(_NODES[kind]):
        read = ["" if name in left_out else name for name in inputs]
        name = operator if len(_NODES[kind]) == 1 else f"{operator} {n}"
        nodes.append(helper.make_node(operator, read, [output], name=name, **attributes))
    return nodes, constants


def _crop(n: int, axis: Axis) -> tuple[int, int, int]:
    """Begin, end and output_padding for ONNX: none negative."""
    begin, end, extra = axis.begin, max(axis.end, 0), axis.extra - min(axis.end, 0)
    if begin < 0 or extra >= max(axis.stride, axis.dilation):
        raise UnsupportedError(
            f"padding[{n}]={(axis.begin, axis.end)} has no place in ONNX, which extends an output "
            f"at its end only and by less than max(stride[{n}]={axis.stride}, dilation[{n}]="
            f"{axis.dilation}); make the layer with padding of 0 or more."
        )
    return begin, end, extra
