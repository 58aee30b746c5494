"""Attributes of ConvTranspose and Conv; onnx/test_reference.py asks ONNX Runtime."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import helper, numpy_helper

from strategies import draws, geometries, integers_like
from tconv.errors import OutputSizeError, ParameterError, ShapeError, UnsupportedError
from tconv.geometry.geometry import Geometry
from tconv.geometry.onnx_attributes import ConvAttributes, NodeAttributes


def node_of(**attributes):
    return helper.make_node("ConvTranspose", ["x", "w"], ["y"], **attributes)


def attributes_of(geometry):
    axes = geometry.axes
    return {
        "strides": [axis.stride for axis in axes],
        "dilations": [axis.dilation for axis in axes],
        "kernel_shape": [axis.kernel for axis in axes],
        "output_padding": [axis.extra for axis in axes],
        "pads": [*(axis.begin for axis in axes), *(axis.end for axis in axes)],
        "group": geometry.groups,
    }


batched = geometries(plain=True).filter(lambda geometry: geometry.batched)


@draws()
@given(batched)
def test_a_geometry_can_be_said_by_attributes(geometry):
    settings = NodeAttributes.of_node(node_of(**attributes_of(geometry)))
    assert settings == NodeAttributes.of(attributes_of(geometry))
    assert settings.geometry(geometry.x_shape, geometry.weight_shape) == geometry


@draws()
@given(batched)
def test_arguments_hold_for_any_size(geometry):
    arguments = NodeAttributes.of(attributes_of(geometry)).arguments(geometry.kernel_size)
    assert Geometry.of(geometry.x_shape, geometry.weight_shape, **arguments) == geometry


@draws()
@given(batched, st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID", "NOTSET"]))
def test_arguments_of_auto_pad_hold_for_any_size(geometry, auto_pad):
    attributes = attributes_of(geometry) | {"auto_pad": auto_pad}
    del attributes["pads"]
    settings = NodeAttributes.of(attributes)
    found = settings.geometry(geometry.x_shape, geometry.weight_shape)
    arguments = settings.arguments(geometry.kernel_size)
    assert Geometry.of(geometry.x_shape, geometry.weight_shape, **arguments) == found
    if auto_pad.startswith("SAME"):
        sizes = [min(axis.full + axis.extra, axis.input * axis.stride) for axis in found.axes]
        assert list(found.output_size) == sizes


def test_attributes_left_out_have_onnx_defaults():
    assert NodeAttributes.of_node(node_of()) == NodeAttributes.of({}) == NodeAttributes()
    assert NodeAttributes().geometry((1, 2, 4, 5), (2, 3, 2, 2)) == Geometry.of(
        (1, 2, 4, 5), (2, 3, 2, 2)
    )
    empty = {"pads": [], "strides": [], "output_shape": [], "auto_pad": ""}
    assert NodeAttributes.of(empty) == NodeAttributes()


def test_no_samples_have_the_size_of_the_law():
    assert NodeAttributes.of({"strides": [2]}).geometry((1, 1, 0), (1, 1, 4)).y_shape == (1, 1, 2)


# ---- what is refused -----------------------------------------------------------------------------

WRONG = [
    ({"auto_pad": "SAME"}, "auto_pad='SAME' must be one of 'NOTSET', 'SAME_UPPER', "),
    ({"auto_pad": 3}, "auto_pad=3 must be one of "),
    ({"group": 0}, "group=0 must be at least 1; "),
    ({"group": -2}, "group=-2 must be at least 1; "),
    ({"group": 1.0}, "group=1.0 must be an integer"),
    ({"strides": [2, 0]}, "strides[1]=0 must be at least 1; "),
    ({"strides": 2}, "strides=2 must be a list of integers; pass [2]."),
    ({"strides": [1.5]}, "strides[0]=1.5 must be an integer"),
    ({"dilations": [-1]}, "dilations[0]=-1 must be at least 1; "),
    ({"kernel_shape": [0]}, "kernel_shape[0]=0 must be at least 1; "),
    ({"output_padding": [0, -1]}, "output_padding[1]=-1 must be at least 0; "),
    ({"pads": [1, 1], "auto_pad": "SAME_UPPER"}, "pads=[1, 1] must be absent with auto_pad=SAME_"),
    (
        {"pads": [0, 0], "auto_pad": "VALID"},
        "pads=[0, 0] must be absent with auto_pad=VALID, which ",
    ),
    ({"stride": [2]}, "stride=[2] must be an attribute of ConvTranspose, which are auto_pad, "),
]


@pytest.mark.parametrize(("attributes", "message"), WRONG, ids=str)
def test_an_attribute_is_held_against_its_own_rule(attributes, message):
    with pytest.raises(ParameterError, match="^" + re.escape(message)):
        NodeAttributes.of(attributes)
    with pytest.raises(ParameterError, match="^" + re.escape(message)):
        NodeAttributes.of_node(node_of(**attributes))


def test_a_tensor_is_no_attribute_of_the_operator():
    value = numpy_helper.from_array(integers_like((2,)))
    with pytest.raises(ParameterError, match=r"must be a list of integers"):
        NodeAttributes.of_node(node_of(strides=value))


CLASHING = [
    (
        {"strides": [1]},
        ParameterError,
        "strides=[1] must have 2 integers with 2 spatial axes, not 1; ",
    ),
    (
        {"pads": [1, 1]},
        ParameterError,
        "pads=[1, 1] must have 4 integers with 2 spatial axes, not 2",
    ),
    ({"dilations": [1] * 3}, ParameterError, "dilations=[1, 1, 1] must have 2 integers "),
    ({"output_padding": [0]}, ParameterError, "output_padding=[0] must have 2 integers "),
    ({"output_shape": [9]}, ParameterError, "output_shape=[9] must have 2 or 4 integers "),
    ({"kernel_shape": [3, 3]}, ShapeError, "kernel_shape=[3, 3] must be the weight's [3, 2]; "),
    ({"output_padding": [0, 1]}, ParameterError, "output_padding[1]=1 must be smaller than max("),
    ({"group": 3}, ShapeError, "group=3 must divide the 4 input channels of W "),
    ({"pads": [9, 0, 9, 0]}, ShapeError, "the output size on spatial axis 0, "),
    (
        {"output_shape": [6, 99]},
        OutputSizeError,
        "output_shape[1]=99 cannot be reached from input size 5 with kernel 2, stride 1, "
        "dilation 1: reachable are 1 to 6; set one of these.",
    ),
    ({"output_shape": [0, 6]}, OutputSizeError, "output_shape[0]=0 cannot be reached from input "),
]


@pytest.mark.parametrize(("attributes", "error", "message"), CLASHING, ids=str)
def test_attributes_are_held_against_the_shapes(attributes, error, message):
    settings = NodeAttributes.of(attributes)
    with pytest.raises(error, match="^" + re.escape(message)):
        settings.geometry((1, 4, 4, 5), (4, 1, 3, 2))


@pytest.mark.parametrize(
    "shapes", [((1, 4, 4), (4, 1, 3, 2)), ((4, 4, 5), (4, 1, 3, 2)), ((1, 4), (4, 1))]
)
def test_x_and_weight_have_the_same_axes(shapes):
    with pytest.raises(ShapeError, match=r"^X has shape .* and W .*, both must have a batch or "):
        NodeAttributes().geometry(*shapes)


def test_an_output_shape_fits_no_layer():
    with pytest.raises(UnsupportedError, match=r"^output_shape=\[9\] fits one size of X only"):
        NodeAttributes.of({"output_shape": [9]}).arguments((3,))


@pytest.mark.parametrize(
    ("attributes", "text"),
    [
        ({}, ""),
        ({"strides": [1, 1], "dilations": [1, 1], "pads": [0] * 4, "kernel_shape": [3, 3]}, ""),
        ({"strides": [2, 1], "group": 4}, "group 4, strides 2x1"),
        (
            {"auto_pad": "SAME_UPPER", "output_shape": [7, 8]},
            "auto_pad SAME_UPPER, output_shape 7x8",
        ),
        ({"pads": [0, 1, 0, -1], "output_padding": [0, 1]}, "output_padding 0x1, pads 0,1,0,-1"),
    ],
    ids=str,
)
def test_a_report_shows_what_is_not_the_default(attributes, text):
    assert str(NodeAttributes.of(attributes)) == text


def test_attributes_are_those_of_a_convolution():
    with pytest.raises(
        ParameterError, match=r"^output_padding=\[1\] must be an attribute of Conv, which are "
    ):
        ConvAttributes.of({"output_padding": [1]})


@pytest.mark.parametrize(
    ("attributes", "shapes", "message"),
    [
        ({}, ((1, 2, 5), (3, 2)), "X has shape (1, 2, 5) and W (3, 2), both must have "),
        ({"group": 2}, ((1, 4, 5), (3, 2, 1)), "group=2 must divide the 3 output channels of W "),
        ({"group": 2}, ((1, 2, 5), (4, 2, 1)), "X has 2 channels but W of shape (4, 2, 1) takes 4"),
        ({}, ((1, 2, 5), (4, 0, 1)), "W has shape (4, 0, 1), every size must be at least 1; "),
        ({}, ((1, 2, 0), (4, 2, 1)), "X has size 0 on spatial axis 0, must be at least 1; "),
        (
            {"pads": [1, 0]},
            ((1, 2, 2), (4, 2, 4)),
            "X has size 2 on spatial axis 0 and pads of 1 and 0, together they must be at least "
            "the 4 that W covers; raise pads[0] and pads[1] to a sum of at least 2.",
        ),
        (
            {"auto_pad": "VALID"},
            ((1, 2, 2), (4, 2, 4)),
            "X has size 2 on spatial axis 0 and pads of 0 and 0, together they must be at least "
            "the 4 that W covers; leave auto_pad out and set pads[0] and pads[1] to a sum of at "
            "least 2.",
        ),
    ],
    ids=str,
)
def test_sizes_that_do_not_fit_are_refused(attributes, shapes, message):
    with pytest.raises(ShapeError, match="^" + re.escape(message)):
        ConvAttributes.of(attributes).geometry(*shapes)
