"""Shape inference: types and shapes of all values of a model, as far as they are known."""

from collections.abc import Mapping
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Error as ProtobufError
from onnx import ModelProto, TensorProto, ValueInfoProto, numpy_helper

from tconv.arrays.onnx_constants import computed, stored_array
from tconv.errors import ModelError, TConvError
from tconv.geometry.onnx_attributes import NodeAttributes

__all__ = ["Shapes", "fixed_shape", "infer_shapes", "infer_value_infos", "strip_weights"]

Shapes = Mapping[str, tuple[int, ...]]
"""Known shapes of values by name."""

_SIZE_OPERATORS = frozenset(  # with which exporters compute sizes
    {"Add", "Cast", "Ceil", "Concat", "Div", "Floor", "Gather", "Identity", "Mul", "Reshape"}
    | {"Slice", "Squeeze", "Sub", "Transpose", "Unsqueeze"}
)
_FEW_SIZES, _MOST_ROUNDS = 16, 8
_LARGEST_SIZE = 2**40  # one beyond it is a damaged model's
_FEW_BYTES = 4096  # a larger tensor holds weights, not sizes
_DATA = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")

_INFERENCE_ERRORS = (  # raised by onnx for an unsound graph
    *(ValueError, RuntimeError, TypeError, ProtobufError),
    onnx.shape_inference.InferenceError,
)


def infer_value_infos(model: ModelProto, *, trusted: bool = False) -> dict[str, ValueInfoProto]:
    """Infer types and shapes of values, by name.

    The file's own entries for intermediate values are ignored unless they are `trusted`: nobody has
    checked them.
    """
    bare = ModelProto()
    bare.CopyFrom(model)
    if not trusted:
        del bare.graph.value_info[:]
    for value in bare.graph.output:
        value.ClearField("type")
    try:
        graph = onnx.shape_inference.infer_shapes(bare, data_prop=True).graph
    except _INFERENCE_ERRORS:
        graph = bare.graph
    for value in (*graph.value_info, *graph.output):
        for size in value.type.tensor_type.shape.dim if value.HasField("type") else ():
            if size.dim_param.startswith("unk__"):  # onnx's name for an unknown size
                size.Clear()
    stored = (
        onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, tensor.dims)
        for tensor in graph.initializer
    )
    return {
        value.name: value
        for value in (*stored, *graph.input, *graph.value_info, *graph.output)
        if value.type.WhichOneof("value") is not None
    }


def strip_weights(model: ModelProto) -> ModelProto:
    """Return a model without the elements of its large tensors, which shape inference never reads.

    All that is left are structure, types and shapes, and small tensors that may hold sizes.
    """
    bare = ModelProto(ir_version=model.ir_version)
    bare.opset_import.extend(model.opset_import)
    bare.functions.extend(model.functions)
    bare.graph.name = model.graph.name
    for field in ("node", "input", "output", "sparse_initializer"):
        getattr(bare.graph, field).extend(getattr(model.graph, field))
    for tensor in model.graph.initializer:
        if tensor.ByteSize() <= _FEW_BYTES:
            bare.graph.initializer.append(tensor)
        else:
            bare.graph.initializer.add(
                name=tensor.name, data_type=tensor.data_type, dims=tensor.dims
            )
    for node in bare.graph.node:
        for attribute in node.attribute:
            if attribute.HasField("t") and attribute.t.ByteSize() > _FEW_BYTES:
                for name in _DATA:
                    attribute.t.ClearField(name)
    return bare


def infer_shapes(model: ModelProto, shapes: Shapes, types: Mapping[str, int]) -> Shapes:
    """Infer the shapes of all values from those of the inputs and of some intermediate values.

    `types` has the element types of these intermediate values.
    """
    given = ModelProto()
    given.CopyFrom(model)
    for value in given.graph.input:
        if value.name in shapes and value.type.HasField("tensor_type"):
            value.type.tensor_type.ClearField("shape")
            for size in shapes[value.name]:
                value.type.tensor_type.shape.dim.add(dim_value=size)
    given.graph.value_info.extend(
        onnx.helper.make_tensor_value_info(name, kind, shapes[name]) for name, kind in types.items()
    )
    opsets = {opset.domain: opset.version for opset in model.opset_import}
    known: dict[str, tuple[int, ...]] = {}
    for _ in range(_MOST_ROUNDS):
        before = len(known)
        known = _inferred(given)
        is_all = all(name in known for node in given.graph.node for name in node.output if name)
        if is_all or len(known) == before or not _fold_sizes(given, known, opsets):
            break
    return known | dict(shapes)


def _inferred(model: ModelProto) -> dict[str, tuple[int, ...]]:
    """Infer the shapes of all values, those of every ConvTranspose by its law.

    onnx 1.23 infers others where auto_pad or output_shape is set, and then all that follow. The
    result of such a node becomes an input of the model, which the node then leaves.
    """
    while True:
        found = infer_value_infos(model, trusted=True)
        known = {n: s for n, v in found.items() if (s := fixed_shape(v)) is not None}
        for node in model.graph.node:
            shape = _size_law(node, known)
            if shape is not None and known.get(node.output[0]) != shape:
                break
        else:
            return known
        kind = found[node.input[0]].type.tensor_type.elem_type
        value = onnx.helper.make_tensor_value_info(node.output[0], kind, shape)
        model.graph.input.append(value)
        model.graph.node.remove(node)


def _size_law(node: onnx.NodeProto, known: Shapes) -> tuple[int, ...] | None:
    """Shape of the result of a ConvTranspose that onnx may get wrong; None for all other nodes."""
    names = {each.name for each in node.attribute}
    if node.op_type != "ConvTranspose" or names.isdisjoint(("auto_pad", "output_shape")):
        return None
    x, weight = (known.get(name) for name in [*node.input, "", ""][:2])
    shape = None
    if x and weight and any(node.output[:1]):
        with suppress(TConvError):
            shape = NodeAttributes.of_node(node).geometry(x, weight).y_shape
    return shape if shape and max(shape) <= _LARGEST_SIZE else None


def _fold_sizes(model: ModelProto, known: Shapes, opsets: Mapping[str, int]) -> bool:
    """Replace nodes that compute sizes by constants, which onnx does not do for every version.

    Return whether there was such a node.
    """
    values: dict[str, Any] = {}
    for tensor in model.graph.initializer:
        _add_small(values, tensor.name, tensor)
    is_new = False
    for node in model.graph.node:
        name, kind = next(iter(node.output), ""), node.op_type
        if kind == "Constant":
            tensor = next((each.t for each in node.attribute if each.name == "value"), None)
            if tensor is not None:
                _add_small(values, name, tensor)
            continue
        if kind == "Shape" and not node.attribute and node.input and node.input[0] in known:
            value = np.array(known[node.input[0]], np.int64)
        elif (kind in _SIZE_OPERATORS or _fills_few(node, values)) and all(
            each in values for each in node.input
        ):
            try:
                value = computed(node, opsets, {each: values[each] for each in node.input})
            except ModelError:  # an unknown node, or one that ONNX Runtime will refuse
                continue
        else:
            continue
        if value.size <= _FEW_SIZES:
            values[name], is_new = value, True
            node.CopyFrom(
                onnx.helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
            )
    return is_new


def _fills_few(node: onnx.NodeProto, values: Mapping[str, Any]) -> bool:
    """Whether a node makes a small constant, as PyTorch's exports of paddings do."""
    if node.op_type != "ConstantOfShape" or not node.input or node.input[0] not in values:
        return False
    shape = [int(size) for size in np.ravel(values[node.input[0]])]
    return min(shape, default=0) >= 0 and prod(shape) <= _FEW_SIZES


def _add_small(values: dict[str, Any], name: str, tensor: TensorProto) -> None:
    """Add the array of a small tensor, unless it is damaged."""
    if prod(tensor.dims) <= _FEW_SIZES:
        with suppress(ModelError):
            values[name] = stored_array(tensor)


def fixed_shape(value: ValueInfoProto | None) -> tuple[int, ...] | None:
    """Return a value's shape, None if a size is unknown or may vary."""
    if value is None or not value.type.tensor_type.HasField("shape"):
        return None
    sizes = tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
    return sizes if all(size > 0 for size in sizes) else None
