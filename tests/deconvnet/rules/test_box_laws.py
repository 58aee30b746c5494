"""Box laws: no cell outside of the box that a law gives changes a unit, for every row.

The inputs that change a unit are found by ONNX Runtime: each cell of the image is changed by
itself, and the units that follow it are those that depend on it.
"""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from networks import network_of, proto_of
from strategies import draws, integers_like
from tconv.deconvnet.rules.backward import BackwardPass
from tconv.deconvnet.rules.box_laws import same_cells
from tconv.deconvnet.rules.derivatives import DERIVATIVES
from tconv.deconvnet.rules.receptive_field import receptive_field, unit_box
from tconv.deconvnet.rules.registry import REVERSALS, RULES, Reversal, register
from tconv.deconvnet.rules.sparse_map import SparseMap, clip_box

OPSETS = {"Gelu": 20, "Mish": 18, "Swish": 24, "Upsample": 9, "AveragePool": 19}
COORDINATES = (
    *("half_pixel", "asymmetric", "align_corners", "pytorch_half_pixel", "half_pixel_symmetric"),
)
POSITIVE = {"Log", "Sqrt", "Pow", "Div"}  # which are not finite, or have no slope, elsewhere


def ints(*values):
    return np.array(values, np.int64)


def weight(*shape):
    return np.ones(shape, np.float32)


def windows(draw, transposed=False):
    """Attributes of windows along two axes, of which each meets the image."""
    found = {
        "strides": [draw(st.sampled_from([1, 1, 2, 3])) for _ in range(2)],
        "dilations": [draw(st.sampled_from([1, 1, 2])) for _ in range(2)],
    }
    if not transposed and draw(st.booleans()):
        return found | {"auto_pad": draw(st.sampled_from(["SAME_UPPER", "SAME_LOWER", "VALID"]))}
    same = draw(st.booleans())  # or sizes that differ would hide a law that is for equal ones
    return found | {"pads": [1] * 4 if same else [draw(st.integers(0, 1)) for _ in range(4)]}


def convolution(draw):
    kernel, attributes = (draw(st.integers(1, 3)), draw(st.integers(1, 3))), windows(draw)
    if attributes.get("auto_pad", "").startswith("SAME"):
        del attributes["dilations"]  # ONNX Runtime takes one of the two
    return "image w", attributes, {"w": weight(3, 3, *kernel)}


def transposed_convolution(draw):
    kernel = draw(st.integers(2, 3)), draw(st.integers(2, 3))
    return "image w", windows(draw, transposed=True), {"w": weight(3, 3, *kernel)}


def pooling(draw):
    attributes = windows(draw) | {"kernel_shape": [2, draw(st.integers(2, 3))]}
    if "pads" in attributes:
        attributes["ceil_mode"] = draw(st.integers(0, 1))
    elif attributes["auto_pad"] != "VALID":  # ONNX Runtime wants no padding less than 0
        attributes["strides"] = [min(2, stride) for stride in attributes["strides"]]
    return "image", attributes, {}


def average_pooling(draw):
    inputs, attributes, stored = pooling(draw)
    return inputs, attributes | {"count_include_pad": draw(st.integers(0, 1))}, stored


def along_an_axis(draw):
    return {"axis": draw(st.sampled_from([1, 2, 3, -1, -2, -3]))}


def padding(draw):
    pads = [0, 0, *(draw(st.integers(-1, 2)) for _ in range(2)), 0, 0, 1, draw(st.integers(0, 2))]
    mode = draw(st.sampled_from(["constant", "reflect", "edge"]))
    pads = pads if mode == "constant" else [max(0, pad) for pad in pads]
    return "image p", {"mode": mode}, {"p": ints(*pads)}


def resizing(draw):
    """Scales that round the size of the output, and sizes; every way to interpolate."""
    modes = {
        "mode": draw(st.sampled_from(["nearest", "linear", "cubic"])),
        "coordinate_transformation_mode": draw(st.sampled_from(COORDINATES)),
    }
    if modes["mode"] != "nearest":
        modes["antialias"] = draw(st.integers(0, 1))
    if draw(st.booleans()):
        sizes = draw(st.integers(1, 9)), draw(st.integers(1, 9))
        return "image   t", modes, {"t": ints(1, 3, *sizes)}
    scales = [draw(st.sampled_from([0.3, 0.5, 0.7, 1.05, 1.5, 2.0])) for _ in range(2)]
    return "image  s", modes, {"s": np.float32([1, 1, *scales])}


def upsampling(draw):
    scales = [draw(st.sampled_from([1.0, 1.5, 2.0, 3.0])) for _ in range(2)]
    mode = draw(st.sampled_from(["nearest", "linear"]))
    return "image s", {"mode": mode}, {"s": np.float32([1, 1, *scales])}


def just(inputs, attributes=None, **stored):
    return lambda draw: (inputs, attributes or {}, stored)


C = np.float32([1, 2, 3]).reshape(3, 1, 1)
NODES = {  # of every row: inputs, attributes and constants of a random node
    **dict.fromkeys(DERIVATIVES, just("image")),
    "PRelu": just("image k", k=C),
    "Pow": just("image k", k=C),
    "Relu": just("image"),
    "Clip": just("image l h", l=np.float32(0), h=np.float32(6)),
    "BatchNormalization": just("image k k k k", k=C[:, 0, 0]),
    "LRN": just("image", {"size": 3}),
    **dict.fromkeys(("Add", "Sub", "Mul", "Div"), just("image image")),
    **dict.fromkeys(("Sum", "Mean"), just("image k image", k=C)),
    **dict.fromkeys(("Neg", "Softmax", "LogSoftmax", "Identity", "Dropout"), just("image")),
    "Cast": just("image", {"to": 1}),
    "Conv": convolution,
    "ConvTranspose": transposed_convolution,
    "Gemm": just("flat k", k=weight(90, 3)),
    "MatMul": just("image k", k=weight(6, 4)),
    "MaxPool": pooling,
    "AveragePool": average_pooling,
    **dict.fromkeys(("GlobalMaxPool", "GlobalAveragePool", "Flatten"), just("image")),
    "ReduceMax": just("image", {"axes": [1]}),
    "LayerNormalization": just("image k", k=weight(6)),
    "InstanceNormalization": just("image k k", k=weight(3)),
    "ReduceMean": lambda draw: (
        "image", {"axes": [draw(st.integers(1, 3))], "keepdims": draw(st.integers(0, 1))}, {}),
    "ReduceSum": just("image a", {"keepdims": 1}, a=ints(-1)),
    "Concat": lambda draw: ("image image", along_an_axis(draw), {}),
    "Split": lambda draw: ("image s", along_an_axis(draw), {}),
    "Pad": padding,
    "DepthToSpace": just("deep", {"blocksize": 2}),
    "SpaceToDepth": just("even", {"blocksize": 2}),
    "Expand": just("image s", s=ints(1, 3, 5, 6)),
    "Gather": just("image i", {"axis": 3}, i=ints(0, 2, 2, -1, 1)),
    "Reshape": just("image s", s=ints(1, 3, 6, 5)),
    "Slice": just("image a b c", a=ints(1), b=ints(4), c=ints(2)),
    "Squeeze": just("image"),
    "Unsqueeze": just("image a", a=ints(0)),
    "Tile": just("image r", r=ints(1, 1, 2, 1)),
    "Transpose": just("image", {"perm": [0, 1, 3, 2]}),
    "Resize": resizing,
    "Upsample": upsampling,
}  # fmt: skip
BEFORE = {  # what the input of a node is made of
    "flat": [("Flatten", "image", "flat", {})],
    "deep": [("Concat", "image image image image", "deep", {"axis": 1})],
    "even": [("Pad", "image even_pads", "even", {})],
}


@st.composite
def networks(draw, op):
    """A network of one node with some of its attributes drawn, for an image (1, 3, 5, 6)."""
    inputs, attributes, stored = NODES[op](draw)
    outputs, before = "y", BEFORE.get(inputs.split()[0], [])
    if op == "Split":
        size = (1, 3, 5, 6)[attributes["axis"]]
        outputs, stored = "y z", {"s": ints(1, size - 1)}
    if before and before[0][0] == "Pad":
        stored = {"even_pads": ints(0, 0, 0, 0, 0, 0, 1, 0)}
    nodes = [*before, (op, inputs, outputs, attributes)]
    return network_of(proto_of(nodes, stored, (1, 3, 5, 6), opset=opset_of(op, attributes)))


def opset_of(op, attributes):
    newer = 19 if "half_pixel_symmetric" in attributes.values() else 18
    is_newer = newer == 19 or "antialias" in attributes
    return newer if is_newer else OPSETS.get(op, 17)


def dependents(network, image):
    """For each position of the image, where the outputs are that change with it."""
    recorder = network.recorder(["y"])
    before, found = recorder(image)["y"], {}
    for position in np.ndindex(image.shape[2:]):
        changed = np.zeros(before.shape, bool)
        for size in (1.0, 100.0):
            other = image.copy()
            other[(..., *position)] += size
            changed |= recorder(other)["y"] != before
        found[position] = changed
    return before.shape, found


def fields(network, shape):
    """Of every unit's position, its receptive field as a mask over the image; None is all."""
    for position in np.ndindex(shape[2:]):
        box = receptive_field(network, "y", unit_box(position), network.shapes)
        mask = np.zeros(network.input_shape[2:], bool)
        inside = ((0, 4), (0, 5)) if box is None else clip_box(box, network.input_shape[2:])
        mask[tuple(slice(first, max(first, last + 1)) for first, last in inside)] = True
        yield position, box, mask


def image_for(op):
    image = integers_like((1, 3, 5, 6), "float32", 3, largest=4)
    return np.abs(image) + 1 if op in POSITIVE else image


@pytest.mark.parametrize("op", REVERSALS)
@given(data=st.data())
@draws(0.5)
def test_no_cell_outside_of_the_box_changes_a_unit(op, data):
    network = data.draw(networks(op))
    shape, changed = dependents(network, image_for(op))
    for position, _, mask in fields(network, shape):
        for cell, units in changed.items():
            assert mask[cell] or not units[(..., *position)].any(), (position, cell)


@pytest.mark.parametrize("op", ["Conv", "ConvTranspose", "MaxPool", "AveragePool"])
@given(data=st.data())
@draws(0.5)
def test_boxes_of_windows_hold_no_more_than_they_must(op, data):
    network = data.draw(networks(op))
    attributes = network.nodes[-1].attributes
    if max(attributes.get("dilations", [1])) > 1:
        return  # a window has gaps then, and a box has none
    image = np.zeros((1, 3, 5, 6), np.float32)
    shape, changed = dependents(network, image)
    for position, _, mask in fields(network, shape):
        for cell, units in changed.items():
            assert units[(..., *position)].any() == mask[cell], (position, cell)


@pytest.mark.parametrize("op", REVERSALS)
@pytest.mark.parametrize("rule", RULES)
@given(data=st.data())
@draws(0.1)
def test_nothing_goes_back_outside_of_the_box(op, rule, data):
    if rule in REVERSALS[op].refused or (op in ("Mul", "Div") and rule != "gradient"):
        return
    network = data.draw(networks(op))
    backward, image = BackwardPass(network, "y", rule), image_for(op)
    values = network.recorder(backward.recorded)(image)
    shape = values["y"].shape
    for position, box, mask in fields(network, shape):
        if box is not None:
            seed = SparseMap(np.ones((*shape[:2], 1, 1), np.float32), position, shape)
            assert not backward.project(seed, values).dense()[:, :, ~mask].any()


def test_a_row_cannot_be_made_without_its_box_law():
    with pytest.raises(TypeError, match="box"):
        register("NewOperator", "sum")
    with pytest.raises(TypeError, match="box"):
        Reversal(lambda context, r: {0: r}, word="sum")
    assert "NewOperator" not in REVERSALS


def test_a_row_of_another_domain_has_that_in_its_name():
    try:
        register("Twice", "sum", box=same_cells, domain="com.example")(lambda context, r: {0: r})
        assert REVERSALS["com.example.Twice"].box is same_cells
    finally:
        del REVERSALS["com.example.Twice"]
