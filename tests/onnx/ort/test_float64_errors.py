"""Missing float64 kernels of ONNX Runtime: the error names operator, node and a remedy."""

import re

import numpy as np
import pytest
from onnx import TensorProto, helper

from onnx_graphs import conv, in_float32, model_of
from strategies import integers_like
from tconv.errors import ModelError
from tconv.onnx import Session

X, W = integers_like((1, 2, 6, 5), "float64", 1), integers_like((3, 2, 3, 3), "float64", 2)

LACKING = {  # what ONNX Runtime 1.32 has no float64 of, in any version of the operator
    "AveragePool": {"kernel_shape": [2, 2]},
    "Erf": {},
    "GlobalAveragePool": {},
    "GlobalMaxPool": {},
    "InstanceNormalization": {},
    "LRN": {"size": 3},
    "LpPool": {"kernel_shape": [2, 2]},
    "Resize": {},
    "Elu": {},
    "LeakyRelu": {},
    "PRelu": {},
    "Softplus": {},
}
MORE = {
    "InstanceNormalization": ["ones", "ones"],
    "PRelu": ["slope"],
    "Resize": ["", "sizes"],
}
STORED = {
    "w": W,
    "ones": np.ones(3),
    "slope": np.full((3, 1, 1), 0.25),
    "sizes": np.array([1, 1, 2, 2], np.float32),
}
REMEDY = "export the model in float32 (PyTorch: model.float())"


@pytest.mark.parametrize("name", ["", "the last"])
@pytest.mark.parametrize("operator", sorted(LACKING))
def test_an_operator_that_is_missing_is_named_with_its_node(operator, name):
    last = helper.make_node(
        operator, ["n", *MORE.get(operator, [])], ["y"], name=name, **LACKING[operator]
    )
    nodes = [conv("x", "w", "c"), helper.make_node("Neg", ["c"], ["n"]), last]
    model = model_of(nodes, {"x": X}, ["y"], STORED, opset=13)
    message = f"ONNX Runtime has no float64 {operator}, which node {name or 'y'!r} needs; {REMEDY}."
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        Session(model)
    narrow, feeds = in_float32(model, {"x": X})
    Session(narrow).run(None, feeds)  # the remedy works


@pytest.mark.parametrize(("operator", "gates"), [("LSTM", 4), ("GRU", 3)])
def test_what_is_missed_as_late_as_in_a_run_is_named(operator, gates):
    feeds = {
        "x": np.ones((3, 1, 2)),
        "w": np.ones((1, 2 * gates, 2)),
        "r": np.ones((1, 2 * gates, 2)),
    }
    node = helper.make_node(operator, ["x", "w", "r"], ["y"], name="memory", hidden_size=2)
    session = Session(model_of([node], feeds, ["y"]))
    message = f"node 'memory' ({operator}): ONNX Runtime has no float64 {operator}: {REMEDY}; "
    with pytest.raises(ModelError, match=f"^{re.escape(message)}"):
        session.run(None, feeds)


def test_what_onnx_runtime_expands_is_named_as_what_it_becomes():
    model = model_of([helper.make_node("Gelu", ["x"], ["y"])], {"x": X}, ["y"], opset=20)
    message = f"ONNX Runtime has no float64 Erf, which the model needs; {REMEDY}."
    with pytest.raises(ModelError, match=f"^{re.escape(message)}$"):
        Session(model)


@pytest.mark.parametrize("operator", ["Conv", "ConvTranspose"])
def test_layers_of_subgraphs_are_not_taken(operator):
    weight = W if operator == "Conv" else W.swapaxes(0, 1).copy()
    branches = []
    for name in ("then", "else"):
        node = helper.make_node(operator, ["x", "w"], [name], name=f"{name} layer")
        result = helper.make_tensor_value_info(name, TensorProto.DOUBLE, None)
        branches.append(helper.make_graph([node], name, [], [result]))
    either = helper.make_node(
        "If", ["so"], ["y"], name="either", then_branch=branches[0], else_branch=branches[1]
    )
    model = model_of([either], {"x": X, "so": np.array(True)}, ["y"], {"w": weight})
    del model.graph.output[0].type.tensor_type.shape.dim[:]
    message = rf"^ONNX Runtime has no float64 {operator}, which node '(then|else) layer' inside If "
    message += r"either needs, and tconv computes it on the top level only; export the model in "
    with pytest.raises(ModelError, match=message):
        Session(model)


@pytest.mark.parametrize(
    ("attributes", "message"),
    [
        ({"group": 0}, "node 'conv y': attributes refused: group=0 must be at least 1; "),
        (
            {"auto_pad": "SAME"},
            "node 'conv y': attributes refused: auto_pad='SAME' must be one of ",
        ),
        ({"strides": [0, 1]}, "ONNX Runtime refuses the model: Node (conv y) Op (Conv) "),
        ({"output_padding": [1, 1]}, "ONNX Runtime refuses the model: "),
    ],
    ids=str,
)
def test_a_node_that_breaks_its_rules_is_refused(attributes, message):
    model = model_of([conv("x", "w", "y", **attributes)], {"x": X}, ["y"], {"w": W})
    with pytest.raises(ModelError, match="^" + re.escape(message)):
        Session(model)
