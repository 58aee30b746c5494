"""Error messages for the float64 operators that ONNX Runtime lacks."""

import re

from onnx import ModelProto, TensorProto

from tconv.errors import ModelError
from tconv.onnx.model.nodes import all_nodes
from tconv.onnx.model.shape_inference import infer_value_infos
from tconv.onnx.partition.partition import find_layers

__all__ = ["explain_refusal"]

_LACKING = re.compile(r"Could not find an implementation for (\w+)\(\d+\) node with name '(.*?)'")
_COMPUTED = ("Conv", "ConvTranspose")


def explain_refusal(error: ModelError, model: ModelProto) -> ModelError:
    """Return the error to raise for ONNX Runtime's: the same, unless a float64 kernel is missing.

    >>> import onnx
    >>> node = onnx.helper.make_node("Elu", ["x"], ["y"], "soft")
    >>> x = onnx.helper.make_tensor_value_info("x", TensorProto.DOUBLE, [1])
    >>> y = onnx.ValueInfoProto(name="y")
    >>> model = onnx.helper.make_model(onnx.helper.make_graph([node], "g", [x], [y]))
    >>> why = "Could not find an implementation for Elu(6) node with name 'soft'"
    >>> print(explain_refusal(ModelError(why), model))
    ONNX Runtime has no float64 Elu, which node 'soft' needs; export the model in float32 \
(PyTorch: model.float()).
    """
    found = _LACKING.search(str(error))
    values = infer_value_infos(model) if found else {}
    types = {name: value.type.tensor_type.elem_type for name, value in values.items()}
    if found is None or TensorProto.DOUBLE not in types.values():
        return error
    operator, name = found.groups()
    # ONNX Runtime expands some operators into others before it looks up kernels, so that the node
    # that it names may not be in the model.
    shown, only = f"node {name!r}" if name else "the model", ""
    broken = {layer.output: layer.reason for layer in find_layers(model, values)}
    for node, place in all_nodes(model):
        is_it = node.op_type == operator and node.name == name
        # Types of values inside another node are unknown.
        if is_it and all(types.get(each, 0) in (0, TensorProto.DOUBLE) for each in node.input[:1]):
            output = next(filter(None, node.output), "")
            shown = f"node {name or output!r} {place}".rstrip()
            if not place and broken.get(output):
                return ModelError(f"{shown}: {broken[output]}")
            if place and operator in _COMPUTED:
                only = ", and tconv computes it on the top level only"
            break
    return ModelError(
        f"ONNX Runtime has no float64 {operator}, which {shown} needs{only}; export the model in "
        "float32 (PyTorch: model.float())."
    )
