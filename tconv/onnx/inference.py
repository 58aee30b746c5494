"""WHAT IS KNOWN BEFORE A RUN: types and shapes of values, as far as inference can tell."""

import onnx
from google.protobuf.message import Error as ProtobufError
from onnx import ModelProto, ValueInfoProto

__all__ = ["fixed_shape", "inferred"]

_INFERENCE_ERRORS = (  # what onnx raises for a bad graph
    *(ValueError, RuntimeError, TypeError, ProtobufError),
    onnx.shape_inference.InferenceError,
)


def inferred(model: ModelProto) -> dict[str, ValueInfoProto]:
    """Types and shapes of all values that inference can tell.

    What the file says about values in between is not trusted: nobody has checked it.
    """
    bare = ModelProto()
    bare.CopyFrom(model)
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


def fixed_shape(value: ValueInfoProto | None) -> tuple[int, ...] | None:
    """All sizes, or None if any may vary."""
    if value is None or not value.type.tensor_type.HasField("shape"):
        return None
    sizes = tuple(size.dim_value for size in value.type.tensor_type.shape.dim)
    return sizes if all(size > 0 for size in sizes) else None
