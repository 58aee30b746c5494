"""Operator ConvTranspose in sessions and onnx's evaluator: onnx's test cases, and disputed ones."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper
from onnx.backend.test.case import node as node_cases
from onnx.reference import ReferenceEvaluator

from onnx_graphs import by_onnx_runtime, model_of, transposed
from strategies import draws, geometries, integer_operands, integers_like, same_numbers
from tconv.definition import contract
from tconv.errors import OutputSizeError, ParameterError, ShapeError, TConvError
from tconv.geometry.geometry import Geometry
from tconv.geometry.onnx_attributes import NodeAttributes
from tconv.onnx import ConvTranspose, Session


def by_session(model, feeds):
    session = Session(model, force=True)
    results = session.run(None, feeds)
    assert [node.computed_by for node in session.report().nodes] == ["tconv"]
    return results


def by_evaluator(model, feeds):
    return ReferenceEvaluator(model, new_ops=[ConvTranspose]).run(None, feeds)


each_way = pytest.mark.parametrize("run", [by_session, by_evaluator])

# ---- onnx's own test cases -----------------------------------------------------------------------


def cases_of_the_operator():
    """The cases of one operator; to collect those of all would run code that warns."""
    before = len(node_cases._NodeTestCases)
    from onnx.backend.test.case.node import convtranspose  # noqa: F401, makes them

    cases = node_cases._NodeTestCases[before:] or node_cases._NodeTestCases
    return [case for case in cases if case.name.startswith("test_convtranspose")]


NODE_CASES = cases_of_the_operator()
STORED_CASES = [
    "pytorch-converted/test_ConvTranspose2d",
    "pytorch-converted/test_ConvTranspose2d_no_bias",
    "pytorch-operator/test_operator_convtranspose",
]


def test_all_cases_are_there():
    assert len(NODE_CASES) == 11


@each_way
@pytest.mark.parametrize("case", NODE_CASES, ids=lambda case: case.name)
def test_a_case_of_the_operator(run, case):
    for inputs, outputs in case.data_sets:
        feeds = dict(zip([value.name for value in case.model.graph.input], inputs, strict=True))
        for found, expected in zip(run(case.model, feeds), outputs, strict=True):
            assert same_numbers(found, expected)  # they are made of small integers


@each_way
@pytest.mark.parametrize("name", STORED_CASES)
def test_a_stored_case(run, name):
    folder = Path(onnx.__file__).parent / "backend" / "test" / "data" / name
    model = onnx.load(folder / "model.onnx")
    (x,), (expected,) = (
        [
            numpy_helper.to_array(onnx.load_tensor(file))
            for file in sorted((folder / "test_data_set_0").glob(f"{kind}_*.pb"))
        ]
        for kind in ("input", "output")
    )
    stored = {tensor.name for tensor in model.graph.initializer}
    (name,) = {value.name for value in model.graph.input} - stored
    (found,) = run(model, {name: x})
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-6)


# ---- where libraries disagree --------------------------------------------------------------------

# input size, kernel size, attributes, and what they mean: output size and (begin, end) of the crop
TRAPS = [
    (3, 2, {"strides": [3], "auto_pad": "SAME_UPPER"}, 8, (0, 0)),
    (3, 2, {"strides": [3], "auto_pad": "SAME_LOWER"}, 8, (0, 0)),
    (5, 3, {"strides": [5]}, 23, (0, 0)),
    (5, 3, {"strides": [5], "auto_pad": "VALID"}, 23, (0, 0)),
    (3, 3, {"strides": [2], "auto_pad": "SAME_UPPER"}, 6, (0, 1)),
    (3, 3, {"strides": [2], "auto_pad": "SAME_LOWER"}, 6, (1, 0)),
    (3, 4, {"strides": [2], "output_shape": [5]}, 5, (2, 1)),
    (3, 4, {"strides": [2], "output_shape": [5], "auto_pad": "NOTSET"}, 5, (2, 1)),
    (3, 4, {"strides": [2], "output_shape": [5], "auto_pad": "SAME_LOWER"}, 5, (2, 1)),
    (3, 4, {"strides": [2], "output_shape": [5], "auto_pad": "SAME_UPPER"}, 5, (1, 2)),
    (3, 4, {"strides": [2], "output_shape": [5], "auto_pad": "VALID"}, 5, (2, 1)),
    (3, 2, {"strides": [3], "output_shape": [10]}, 10, (0, -2)),
    (3, 2, {"strides": [3], "output_shape": [9], "auto_pad": "SAME_UPPER"}, 9, (0, -1)),
    (3, 4, {"strides": [2], "output_shape": [5], "pads": [9, 9]}, 5, (2, 1)),
    (3, 4, {"strides": [2], "output_shape": [5], "output_padding": [1]}, 5, (2, 1)),
    (3, 4, {"strides": [2], "output_shape": [1, 1, 5]}, 5, (2, 1)),
    (3, 4, {"strides": [2], "output_shape": [-1], "pads": [1, 0]}, 7, (1, 0)),
    (4, 3, {"dilations": [2], "output_padding": [1]}, 9, (0, -1)),
    (4, 3, {"strides": [2], "pads": [-1, 0]}, 10, (-1, 0)),
    (4, 3, {"strides": [2], "pads": [0, 3], "output_padding": [1]}, 7, (0, 2)),
]
X, W = integers_like((1, 2, 5), "float32", 1), integers_like((2, 1, 4), "float32", 2)


def trapped(size, kernel, attributes):
    """Operands, and a model that knows no sizes: where it does, ONNX Runtime refuses more."""
    feeds = {"x": X[:, :, :size]}
    model = model_of(
        [transposed("x", "w", "y", **attributes)],
        feeds,
        ["y"],
        {"w": W[:, :, :kernel]},
        sizes=False,
    )
    return feeds, model


@each_way
@pytest.mark.parametrize("trap", TRAPS, ids=str)
def test_sizes_and_crops(run, trap):
    size, kernel, attributes, output, crop = trap
    feeds, model = trapped(size, kernel, attributes)
    stride, dilation = (attributes.get(name, [1])[0] for name in ("strides", "dilations"))
    geometry = Geometry.of(
        (1, 2, size), (2, 1, kernel), stride=stride, padding=(crop,), dilation=dilation,
        output_size=output,
    )  # fmt: skip
    expected = contract(geometry, "y", feeds["x"], W[:, :, :kernel])
    assert expected.shape == (1, 1, output)
    (found,) = run(model, feeds)
    assert same_numbers(found, expected)
    assert (
        NodeAttributes.of(attributes).geometry((1, 2, size), (2, 1, kernel)).y_shape == found.shape
    )
    if attributes.get("output_padding", [0])[0] < stride:
        assert same_numbers(found, by_onnx_runtime(model, feeds)[0])


@pytest.mark.parametrize(
    ("attributes", "error"),
    [
        ({"strides": [2], "output_shape": [12]}, OutputSizeError),
        ({"output_shape": [0]}, OutputSizeError),
        ({"output_shape": [-2]}, OutputSizeError),
        ({"pads": [3, 4]}, ShapeError),
        ({"output_padding": [1]}, ParameterError),
        ({"kernel_shape": [3]}, ShapeError),
        ({"group": 3}, ShapeError),
    ],
    ids=str,
)
def test_all_refuse(attributes, error):
    feeds, model = trapped(4, 4, attributes)
    with pytest.raises(Exception, match="ConvTranspose"):
        by_onnx_runtime(model, feeds)
    with pytest.raises(error, match=r"^node 'up y': "):
        by_session(model, feeds)
    with pytest.raises(error):
        by_evaluator(model, feeds)
    with pytest.raises(error):
        NodeAttributes.of(attributes).geometry(feeds["x"].shape, (2, 1, 4))


# ---- against the definition, and ONNX Runtime ----------------------------------------------------


@each_way
def test_random_nodes_equal_the_definition(run):
    @draws()
    @given(geometries(ranks=(1, 2, 3), plain=True), st.sampled_from([None, "b"]))
    def law(geometry, bias):
        geometry = replace(geometry, batched=True)
        x, w, _ = integer_operands(geometry)
        b = integers_like((geometry.out_channels,)) if bias else None
        axes = geometry.axes
        node = transposed(
            "x", "w", "y", bias,
            strides=[axis.stride for axis in axes],
            dilations=[axis.dilation for axis in axes],
            output_padding=[axis.extra for axis in axes],
            pads=[*(axis.begin for axis in axes), *(axis.end for axis in axes)],
            group=geometry.groups,
        )  # fmt: skip
        stored = {"w": w} | ({"b": b} if bias else {})
        (y,) = run(model_of([node], {"x": x}, ["y"], stored, sizes=False), {"x": x})
        assert same_numbers(y, contract(geometry, "y", x, w, bias=b))

    law()


@pytest.mark.parametrize("channels", [1, 4])
def test_groups_with_bias_are_right_in_the_evaluator(channels):
    x, w = integers_like((2, 4, 3, 3), seed=1), integers_like((4, channels, 2, 2), seed=2)
    b = integers_like((4 * channels,), seed=3)
    node = transposed("x", "w", "y", "b", group=4, strides=[2, 2])
    model = model_of([node], {"x": x}, ["y"], {"w": w, "b": b})
    geometry = Geometry.of(x.shape, w.shape, stride=2, groups=4)
    assert same_numbers(by_evaluator(model, {"x": x})[0], contract(geometry, "y", x, w, bias=b))


def test_the_evaluator_takes_bfloat16():
    geometry = Geometry.of((1, 2, 4), (2, 3, 3), stride=2)
    kind = helper.tensor_dtype_to_np_dtype(TensorProto.BFLOAT16)
    x, w, _ = integer_operands(geometry, kind)
    model = model_of([transposed("x", "w", "y", strides=[2])], {"x": x}, ["y"], {"w": w}, opset=22)
    (y,) = by_evaluator(model, {"x": x})
    assert y.dtype == kind
    assert same_numbers(y, contract(geometry, "y", x.astype(float), w.astype(float)).astype(kind))


@st.composite
def nodes(draw):
    """Shapes of x and weight, and attributes that fit them more or less."""
    rank = draw(st.integers(1, 3))

    def sizes(least, most):
        return [draw(st.integers(least, most)) for _ in range(rank)]

    x_shape, weight_shape = (1, 1, *sizes(1, 4)), (1, 1, *sizes(1, 4))
    drawn = {"strides": sizes(1, 4), "dilations": sizes(1, 3), "output_padding": sizes(0, 2)}
    form = draw(st.sampled_from(["pads", "auto_pad", "output_shape", "both"]))
    if form == "pads":
        drawn["pads"] = [*sizes(-1, 3), *sizes(-1, 3)]
    if form in ("auto_pad", "both"):
        names = ["NOTSET", "VALID", "SAME_UPPER", "SAME_LOWER"]
        drawn["auto_pad"] = draw(st.sampled_from(names))
    if form in ("output_shape", "both"):
        drawn["output_shape"] = sizes(-1, 16)
    given_names = draw(st.lists(st.sampled_from(sorted(drawn)), unique=True))
    return x_shape, weight_shape, {name: drawn[name] for name in given_names}


@draws()
@given(nodes())
def test_the_geometry_of_a_node_has_onnx_runtimes_size(drawn):
    x_shape, weight_shape, attributes = drawn
    feeds = {"x": np.zeros(x_shape, np.float32)}
    stored = {"w": np.zeros(weight_shape, np.float32)}
    model = model_of([transposed("x", "w", "y", **attributes)], feeds, ["y"], stored, sizes=False)
    try:
        expected = by_onnx_runtime(model, feeds)[0].shape
    except Exception:  # there is no class for all that ONNX Runtime raises
        expected = None
    try:
        geometry = NodeAttributes.of(attributes).geometry(x_shape, weight_shape)
    except TConvError:
        assert expected is None
        return
    beyond = any(a.stride <= a.extra < a.dilation for a in geometry.axes)  # legal, but not there
    assert geometry.y_shape == expected or (beyond and expected is None)
