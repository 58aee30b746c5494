"""Types and shapes of values, as far as inference can tell."""

from collections.abc import Mapping
from contextlib import suppress
from math import prod
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import Error as ProtobufError
from onnx import ModelProto, TensorProto, ValueInfoProto, numpy_helper

from tconv.arrays.onnx_constants import computed, stored_array
from tconv.errors import ModelError

__all__ = ["Shapes", "fixed_shape", "inferred", "outline", "sized"]

Shapes = Mapping[str, tuple[int, ...]]
"""Shapes of values by name, as far as they are known."""

_OF_SIZES = frozenset(  # operators that exporters compute sizes by
    {"Add", "Cast", "Ceil", "Concat", "Div", "Floor", "Gather", "Identity", "Mul", "Reshape"}
    | {"Slice", "Squeeze", "Sub", "Unsqueeze"}
)
_FEW_SIZES, _MOST_ROUNDS = 16, 8
_FEW_BYTES = 4096  # of a tensor that may say sizes, not weights
_DATA = ("raw_data", "float_data", "int32_data", "int64_data", "double_data", "uint64_data")

_INFERENCE_ERRORS = (  # what onnx raises for a bad graph
    *(ValueError, RuntimeError, TypeError, ProtobufError),
    onnx.shape_inference.InferenceError,
)


def inferred(model: ModelProto, *, trusted: bool = False) -> dict[str, ValueInfoProto]:
    """Types and shapes of all values that inference can tell.

    What the file says about values in between is not trusted unless `trusted` says so: nobody has
    checked it.
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
            if size.dim_param.startswith("unk__"):  # what inference calls a size it cannot tell
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


def outline(model: ModelProto) -> ModelProto:
    """Return a model without the numbers of its large tensors, of which inference reads nothing."""
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


def sized(model: ModelProto, shapes: Shapes, types: Mapping[str, int]) -> Shapes:
    """Return the shapes of all values that follow from those of inputs and of values in between.

    `types` has the element types of the values in between.
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
        found = inferred(given, trusted=True)
        known = {n: s for n, v in found.items() if (s := fixed_shape(v)) is not None}
        is_all = all(name in known for node in given.graph.node for name in node.output if name)
        if is_all or len(known) == before or not _fill_in(given, known, opsets):
            break
    return known | dict(shapes)


def _fill_in(model: ModelProto, known: Shapes, opsets: Mapping[str, int]) -> bool:
    """Make constants of nodes that compute sizes, which inference does not of every version.

    Return whether there was any.
    """
    values: dict[str, Any] = {}
    for tensor in model.graph.initializer:
        _remember(values, tensor.name, tensor)
    is_new = False
    for node in model.graph.node:
        name, kind = next(iter(node.output), ""), node.op_type
        if kind == "Constant":
            tensor = next((each.t for each in node.attribute if each.name == "value"), None)
            if tensor is not None:
                _remember(values, name, tensor)
            continue
        if kind == "Shape" and not node.attribute and node.input and node.input[0] in known:
            value = np.array(known[node.input[0]], np.int64)
        elif kind in _OF_SIZES and all(each in values for each in node.input):
            try:
                value = computed(node, opsets, {each: values[each] for each in node.input})
            except ModelError:  # of a node that ONNX Runtime will refuse, or that is not known
                continue
        else:
            continue
        if value.size <= _FEW_SIZES:
            values[name], is_new = value, True
            node.CopyFrom(
                onnx.helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value))
            )
    return is_new


def _remember(values: dict[str, Any], name: str, tensor: TensorProto) -> None:
    """Add the numbers of a small tensor that is sound."""
    if prod(tensor.dims) <= _FEW_SIZES:
        with suppress(ModelError):
            values[name] = stored_array(tensor)


def fixed_shape(value: ValueInfoProto | None) -> tuple[int, ...] | None:
    """All sizes, or None if any may vary."""
    if value is None or not value.type.tensor_type.HasField("shape"):
        return None
    sizes = tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
    return sizes if all(size > 0 for size in sizes) else None
