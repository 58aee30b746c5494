"""Every row of the table: transposes of what is linear, derivatives of what is not, refusals."""

import numpy as np
import pytest

import tconv
from networks import network_of, proto_of
from strategies import integers_like
from tconv.deconvnet.rules.backward import BackwardPass
from tconv.deconvnet.rules.derivatives import DERIVATIVES
from tconv.deconvnet.rules.registry import REVERSALS
from tconv.deconvnet.rules.sparse_map import SparseMap
from tconv.errors import RuleError


def small(*shape, seed=1):
    return integers_like(shape, "float32", seed, largest=3)


def ints(*values):
    return np.array(values, np.int64)


# Every linear node in one form at least: nodes, what they read, and the shape of the image.
LINEAR = {
    "Conv": ([("Conv", "image w", "y", {"pads": [1, 0, 2, 1], "strides": [2, 1]})],
             {"w": small(4, 3, 3, 2)}),
    "Conv, dilated": ([("Conv", "image w", "y", {"dilations": [2, 3], "pads": [3, 1, 0, 2]})],
                      {"w": small(2, 3, 3, 2)}),
    "Conv, grouped": ([("Conv", "image w", "y", {"group": 3, "strides": [3, 2]})],
                      {"w": small(6, 1, 2, 3)}),
    "Conv, SAME_UPPER": ([("Conv", "image w", "y", {"auto_pad": "SAME_UPPER", "strides": [2, 2]})],
                         {"w": small(2, 3, 3, 3)}),
    "Conv, SAME_LOWER": ([("Conv", "image w", "y", {"auto_pad": "SAME_LOWER", "strides": [2, 3]})],
                         {"w": small(2, 3, 4, 2)}),
    "Conv of a signal": ([("Conv", "image w", "y", {"strides": [2]})], {"w": small(2, 3, 3)},
                         (1, 3, 9)),
    "ConvTranspose": ([("ConvTranspose", "image w", "y",
                        {"strides": [2, 3], "pads": [1, 0, 0, 2], "output_padding": [1, 0]})],
                      {"w": small(3, 2, 3, 2)}),
    "ConvTranspose, grouped": ([("ConvTranspose", "image w", "y",
                                 {"group": 3, "dilations": [2, 1]})], {"w": small(3, 2, 2, 2)}),
    "Gemm": ([("Flatten", "image", "f", {}), ("Gemm", "f w", "y", {"transB": 1, "alpha": 2.0})],
             {"w": small(5, 168)}),
    "Gemm, turned": ([("Flatten", "image", "f", {}), ("Transpose", "f", "t", {"perm": [1, 0]}),
                      ("Gemm", "t w", "y", {"transA": 1})], {"w": small(168, 4)}),
    "Gemm, from the left": ([("Flatten", "image", "f", {}), ("Gemm", "w f", "y", {"transB": 1})],
                            {"w": small(2, 168)}),
    "MatMul": ([("MatMul", "image w", "y", {})], {"w": small(7, 4)}),
    "MatMul, from the left": ([("MatMul", "w image", "y", {})], {"w": small(3, 8)}),
    "AveragePool": ([("AveragePool", "image", "y",
                      {"kernel_shape": [2, 4], "strides": [1, 2], "pads": [0, 2, 1, 1]})], {}),
    "AveragePool, padding counts": ([("AveragePool", "image", "y",
                                      {"kernel_shape": [4, 2], "strides": [3, 1],
                                       "pads": [1, 1, 1, 0], "count_include_pad": 1})], {}),
    "AveragePool, ceil": ([("AveragePool", "image", "y",
                            {"kernel_shape": [2, 2], "strides": [2, 2], "ceil_mode": 1})], {}),
    "GlobalAveragePool": ([("GlobalAveragePool", "image", "y", {})], {}, (1, 3, 8, 4)),
    "ReduceMean": ([("ReduceMean", "image", "y", {"axes": [2, 3], "keepdims": 0})], {},
                   (1, 3, 8, 4)),
    "ReduceSum": ([("ReduceSum", "image a", "y", {"keepdims": 1})], {"a": ints(-1)}),
    "BatchNormalization": ([("BatchNormalization", "image g b m v", "y", {"epsilon": 0.0})],
                           {"g": small(3), "b": np.zeros(3, np.float32),
                            "m": np.zeros(3, np.float32), "v": np.float32([1, 4, 16])}),
    "Add": ([("Add", "image image", "y", {})], {}),
    "Sub": ([("Neg", "image", "n", {}), ("Sub", "image n", "y", {})], {}),
    "Sum": ([("Sum", "image image image", "y", {})], {}),
    "Mean": ([("Neg", "image", "n", {}), ("Mean", "image image image n", "y", {})], {}),
    "Neg": ([("Neg", "image", "y", {})], {}),
    "Add, broadcast": ([("ReduceSum", "image a", "s", {}), ("Add", "s image", "y", {})],
                       {"a": ints(2)}),
    "Mul": ([("Mul", "k image", "y", {})], {"k": small(3, 1, 7)}),
    "Div": ([("Div", "image k", "y", {})], {"k": np.float32([2, 4, 8]).reshape(3, 1, 1)}),
    "Identity": ([("Identity", "image", "y", {})], {}),
    "Dropout": ([("Dropout", "image", "y", {})], {}),
    "Cast": ([("Cast", "image", "y", {"to": 1})], {}),
    "Concat": ([("Neg", "image", "n", {}), ("Concat", "n k image", "y", {"axis": 1})],
               {"k": np.zeros((1, 2, 8, 7), np.float32)}),
    "Concat, rows": ([("Concat", "image image", "y", {"axis": 2})], {}),
    "DepthToSpace": ([("Concat", "image image image image", "c", {"axis": 1}),
                      ("DepthToSpace", "c", "y", {"blocksize": 2})], {}),
    "SpaceToDepth": ([("SpaceToDepth", "image", "y", {"blocksize": 2})], {}, (1, 3, 8, 6)),
    "Expand": ([("GlobalAveragePool", "image", "g", {}), ("Expand", "g s", "y", {})],
               {"s": ints(1, 3, 2, 5)}, (1, 3, 8, 4)),
    "Flatten": ([("Flatten", "image", "y", {})], {}),
    "Gather": ([("Gather", "image i", "y", {"axis": 3})], {"i": ints(0, 2, 2, -1)}),
    "Pad": ([("Pad", "image p", "y", {})], {"p": ints(0, 0, 1, 2, 0, 0, 0, 1)}),
    "Pad, reflected": ([("Pad", "image p", "y", {"mode": "reflect"})],
                       {"p": ints(0, 0, 1, 2, 0, 0, 0, 1)}),
    "Pad, with the edge": ([("Pad", "image p", "y", {"mode": "edge"})],
                           {"p": ints(0, 0, 1, 2, 0, 0, 0, 1)}),
    "Reshape": ([("Reshape", "image s", "y", {})], {"s": ints(1, -1, 4)}),
    "Slice": ([("Slice", "image a b c d", "y", {})],
              {"a": ints(1, 6), "b": ints(8, 0), "c": ints(2, 3), "d": ints(2, -2)}),
    "Split": ([("Split", "image s", "y z", {"axis": 1})], {"s": ints(1, 2)}),
    "Squeeze": ([("GlobalAveragePool", "image", "g", {}), ("Squeeze", "g a", "y", {})],
                {"a": ints(2, 3)}, (1, 3, 8, 4)),
    "Tile": ([("Tile", "image r", "y", {})], {"r": ints(1, 1, 2, 1)}),
    "Transpose": ([("Transpose", "image", "y", {"perm": [0, 3, 1, 2]})], {}),
    "Unsqueeze": ([("Unsqueeze", "image a", "y", {})], {"a": ints(0)}),
    "Resize, nearest": ([("Resize", "image  s", "y", {"mode": "nearest"})],
                        {"s": np.float32([1, 1, 2, 2])}),
    "Resize, linear": ([("Resize", "image  s", "y", {"mode": "linear"})],
                       {"s": np.float32([1, 1, 2, 2])}),
    "Resize to a size": ([("Resize", "image   t", "y",
                           {"mode": "linear", "coordinate_transformation_mode": "align_corners"})],
                         {"t": ints(1, 3, 15, 13)}),
    "Resize before opset 13": ([("Resize", "image none s", "y", {"mode": "nearest"})],
                              {"none": np.zeros(0, np.float32), "s": np.float32([1, 1, 2, 3])}),
    "Resize before opset 13, to a size": (
        [("Resize", "image none none t", "y", {"mode": "linear"})],
        {"none": np.zeros(0, np.float32), "t": ints(1, 3, 16, 13)}),
    "Upsample": ([("Upsample", "image s", "y", {"mode": "nearest"})],
                 {"s": np.float32([1, 1, 2, 3])}),
}  # fmt: skip


def built(name):
    nodes, stored, *shape = LINEAR[name]
    opset = 9 if name == "Upsample" else 11 if "before opset 13" in name else 17
    return proto_of(nodes, stored, *shape, opset=opset)


@pytest.mark.parametrize("name", LINEAR)
def test_what_is_linear_goes_back_by_its_transpose(name):
    network = network_of(built(name))
    layer = network.nodes[-1].outputs[0]
    v = integers_like(network.input_shape, "float32", 5, largest=4)
    y = network.recorder([layer])(v)[layer]
    path = BackwardPass(network, layer, "gradient")
    u = integers_like(y.shape, "float32", 6, largest=4)
    back = path.project(SparseMap.whole(u), network.recorder(path.recorded)(v)).dense()
    assert back.shape == v.shape
    forth, again = (float(np.sum(a * b, dtype=np.float64)) for a, b in ((y, u), (v, back)))
    exact = not name.startswith(("AveragePool", "Resize to", "Mean", "Resize before opset 13, to"))
    assert forth == again if exact else forth == pytest.approx(again, rel=1e-5, abs=1e-3)


@pytest.mark.parametrize("name", LINEAR)
@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
def test_what_is_linear_is_the_same_under_every_rule(name, rule):
    network = network_of(built(name))
    layer = network.nodes[-1].outputs[0]
    v = integers_like(network.input_shape, "float32", 5, largest=4)
    backs = []
    for each in ("gradient", rule):
        path = BackwardPass(network, layer, each)
        values = network.recorder(path.recorded)(v)
        u = integers_like(values[layer].shape, "float32", 6, largest=4)
        backs.append(path.project(SparseMap.whole(u), values).dense())
    np.testing.assert_array_equal(*backs)


@pytest.mark.parametrize("name", [n for n in LINEAR if n.startswith(("Conv", "Average", "Add"))])
def test_a_box_gives_what_the_whole_gives(name):
    network = network_of(built(name))
    layer = network.nodes[-1].outputs[0]
    path = BackwardPass(network, layer, "gradient")
    values = network.recorder(path.recorded)(small(*network.input_shape))
    shape = values[layer].shape
    for position in np.ndindex(shape[2:]):
        u = np.zeros(shape, np.float32)
        u[(slice(None), slice(None), *position)] = 2
        seed = np.full((*shape[:2], *[1] * len(position)), 2, np.float32)
        whole = path.project(SparseMap.whole(u), values).dense()
        assert np.array_equal(path.project(SparseMap(seed, position, shape), values).dense(), whole)


def test_every_row_is_tried():
    tried = {op for nodes, *_ in LINEAR.values() for op, *_ in nodes}
    elsewhere = {"Relu", "Clip", "MaxPool", "GlobalMaxPool", "LRN", "Softmax", "LogSoftmax"}
    elsewhere |= {"ReduceMax", "LayerNormalization", "InstanceNormalization"}
    assert tried | elsewhere | DERIVATIVES.keys() == REVERSALS.keys()


# ---- what is not linear --------------------------------------------------------------------------

STORED = {"slope": np.float32([0.25, 0.5, -1]).reshape(3, 1, 1), "power": np.float32(3)}
OPERANDS = {"PRelu": " slope", "Pow": " power"}


def back_of(network, image, rule="gradient", seed=None):
    """What comes back of the last layer, seeded by its own values or by others."""
    layer = network.nodes[-1].outputs[0]
    path = BackwardPass(network, layer, rule)
    values = network.recorder(path.recorded)(image)
    seed = np.asarray(values[layer] if seed is None else seed, image.dtype)
    return path.project(SparseMap.whole(seed), values).dense()


def central_differences(network, image, seed, step=1e-2):
    """The gradient of <layer, seed>, one number after the other."""
    layer = network.nodes[-1].outputs[0]
    recorder, found = network.recorder([layer]), np.zeros(image.shape)
    for at in np.ndindex(image.shape):
        ends = []
        for sign in (1, -1):
            moved = image.copy()
            moved[at] += sign * step
            ends.append(float(np.sum(recorder(moved)[layer] * seed, dtype=np.float64)))
        found[at] = (ends[0] - ends[1]) / (2 * step)
    return found


@pytest.mark.parametrize("op", [*DERIVATIVES, "LRN", "Mul", "Div"])
def test_derivatives(op):
    opset = {"Gelu": 20, "Mish": 18, "Swish": 24}.get(op, 17)
    inputs = "image image" if op in ("Mul", "Div") else f"image{OPERANDS.get(op, '')}"
    attributes = {"size": 3, "alpha": 0.5, "beta": 0.75} if op == "LRN" else {}
    nodes = [(op, inputs, "y", attributes)]
    if op == "Div":
        nodes = [("Exp", "image", "e", {}), ("Div", "image e", "y", {})]
    network = network_of(proto_of(nodes, STORED, (1, 3, 1, 4), opset=opset))
    image = np.linspace(-2.3, 2.6, 12, dtype=np.float32).reshape(1, 3, 1, 4)
    image = np.abs(image) + 0.5 if op in ("Log", "Sqrt", "Pow") else image
    seed = small(1, 3, 1, 4, seed=3)
    expected = central_differences(network, image, seed)
    np.testing.assert_allclose(back_of(network, image, seed=seed), expected, rtol=5e-3, atol=5e-3)


NORMALIZED = {
    "layer": [("LayerNormalization", "image g b", "y", {"axis": -1})],
    "rows": [("LayerNormalization", "image h", "y", {"axis": 2, "epsilon": 0.5})],
    "instance": [("InstanceNormalization", "image c c", "y", {"epsilon": 0.25})],
    "max": [("ReduceMax", "image", "y", {"axes": [1], "keepdims": 0})],
    "max, kept": [("ReduceMax", "image", "y", {"axes": [-1, 1]})],
    "max of all": [("ReduceMax", "image", "y", {"keepdims": 1})],
}


@pytest.mark.parametrize("name", NORMALIZED)
def test_normalizations_and_maxima_go_back_by_their_derivatives(name):
    """The sum of u y changes with each number of the image as what comes back says."""
    stored = {"g": small(7), "b": small(7), "h": small(8, 7), "c": small(3)}
    network = network_of(proto_of(NORMALIZED[name], stored))
    path = BackwardPass(network, "y", "gradient")
    x = np.random.default_rng(0).permutation(168).reshape(1, 3, 8, 7).astype(np.float32) / 16
    values = network.recorder(path.recorded)(x)
    u = integers_like(values["y"].shape, "float32", 6, largest=4)
    back = path.project(SparseMap.whole(u), values).dense()
    recorder, expected, step = network.recorder(["y"]), np.zeros(x.shape), 1 / 64
    for at in np.ndindex(x.shape):
        ends = []
        for move in (step, -step):
            moved = x.copy()
            moved[at] += move
            ends.append(np.sum(recorder(moved)["y"] * u, dtype=np.float64))
        expected[at] = (ends[0] - ends[1]) / (2 * step)
    np.testing.assert_allclose(back, expected, rtol=1e-2, atol=2e-3)


def test_the_three_rules_of_a_rectifier():
    image = np.float32([-1, 0, 2, 3, 7, 8]).reshape(1, 1, 1, 6)
    r = np.float32([1, 1, -1, 1, 1, -1]).reshape(1, 1, 1, 6)
    relu = network_of(proto_of([("Relu", "image", "y", {})], shape=image.shape))
    limits = {"low": np.float32(0), "high": np.float32(6)}
    clip = network_of(proto_of([("Clip", "image low high", "y", {})], limits, image.shape))
    expected = {
        (relu, "gradient"): [0, 0, -1, 1, 1, -1],
        (relu, "deconvnet"): [1, 1, 0, 1, 1, 0],
        (relu, "guided"): [0, 0, 0, 1, 1, 0],
        (clip, "gradient"): [0, 0, -1, 1, 0, 0],
        (clip, "deconvnet"): [1, 1, 0, 1, 1, 0],
        (clip, "guided"): [0, 0, 0, 1, 0, 0],
    }
    for (network, rule), numbers in expected.items():
        assert back_of(network, image, rule, r).reshape(-1).tolist() == numbers


def test_switches_of_overlapping_windows_add():
    image = np.float32([[1, 5, 2, 4, 4, 0]]).reshape(1, 1, 1, 6)
    attributes = {"kernel_shape": [1, 3], "strides": [1, 2], "ceil_mode": 1}
    network = network_of(proto_of([("MaxPool", "image", "y", attributes)], shape=image.shape))
    r = np.float32([3, 10, 100]).reshape(1, 1, 1, 3)  # of windows 1 5 2, 2 4 4 and 4 0
    assert back_of(network, image, seed=r).reshape(-1).tolist() == [0, 3, 0, 10, 100, 0]
    attributes = {"kernel_shape": [1, 3], "strides": [1, 1], "pads": [0, 1, 0, 1]}
    network = network_of(proto_of([("MaxPool", "image", "y", attributes)], shape=image.shape))
    r = np.float32([1, 2, 4, 8, 16, 32]).reshape(1, 1, 1, 6)
    assert back_of(network, image, seed=r).reshape(-1).tolist() == [0, 7, 0, 24, 32, 0]
    network = network_of(proto_of([("GlobalMaxPool", "image", "y", {})], shape=image.shape))
    assert back_of(network, image, seed=[[[[2]]]]).reshape(-1).tolist() == [0, 2, 0, 0, 0, 0]


def test_contrast_is_not_normalised_on_the_way_down():
    network = network_of(proto_of([("LRN", "image", "y", {"size": 3})]))
    image, r = small(1, 3, 8, 7), small(1, 3, 8, 7, seed=2)
    assert np.array_equal(back_of(network, image, "deconvnet", r), r)
    gradient, guided = (back_of(network, image, rule, r) for rule in ("gradient", "guided"))
    assert np.array_equal(gradient, guided)
    assert not np.array_equal(gradient, r)


# ---- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("rule", ["deconvnet", "guided"])
@pytest.mark.parametrize("op", [*DERIVATIVES, "Clip"])
def test_a_rule_for_relu_refuses_other_activations(op, rule):
    inputs = "image low" if op == "Clip" else f"image{OPERANDS.get(op, '')}"
    stored = {**STORED, "low": np.float32(-1)}
    network = network_of(proto_of([(op, inputs, "y", {})], stored, opset=24))
    found = "Clip from -1 to inf" if op == "Clip" else op
    match = (
        rf"^rule '{rule}' is defined for ReLU only, found {found}; use rule='gradient', "
        r"or a layer below it \(see_layers shows which\)\."
    )
    with pytest.raises(RuleError, match=match) as error:
        BackwardPass(network, "y", rule)
    assert error.value.__notes__ == ['at: net, node 0 "node y", between layer "y" and the image']
    assert (
        BackwardPass(network, "y", "gradient").ledger.entries == ((op, "rectify", 1),)
        or op != "Clip"
    )


@pytest.mark.parametrize(
    ("nodes", "rules", "match"),
    [
        ([("Softmax", "image", "y", {})], "gradient deconvnet guided", "pick the logits"),
        ([("LogSoftmax", "image", "y", {})], "gradient deconvnet guided", "pick the logits"),
        (
            [("Mul", "image image", "y", {})],
            "deconvnet guided",
            "not defined for products of activations",
        ),
        (
            [("Div", "one image", "y", {})],
            "deconvnet guided",
            "not defined for division by an activation",
        ),
        ([("Conv", "image image", "y", {})], "gradient guided", "filters that depend on the image"),
        ([("Conv", "one image", "y", {})], "gradient", "parameters of Conv depend on the image"),
        ([("MatMul", "image image", "y", {})], "gradient", "filters that depend on the image"),
        ([("Sin", "image", "y", {})], "gradient deconvnet", "^no rule says how Sin is reversed; "),
    ],
)
def test_what_has_no_reversal_is_refused(nodes, rules, match):
    network = network_of(proto_of(nodes, {"one": np.ones((3, 3, 2, 2), np.float32)}))
    for rule in rules.split():
        with pytest.raises(RuleError, match=match):
            BackwardPass(network, "y", rule)


def test_refusals_are_told_before_the_network_runs_and_name_a_layer_that_works():
    nodes = [("Relu", "image", "a", {}), ("Sigmoid", "a", "b", {}), ("Relu", "b", "c", {})]
    proto = proto_of(nodes)
    rows = tconv.see_layers(proto, rule="deconvnet").rows
    assert [row.reason for row in rows] == [
        "", *["rule 'deconvnet' is defined for ReLU only, found Sigmoid"] * 2
    ]  # fmt: skip
    with pytest.raises(RuleError, match="found Sigmoid"):
        tconv.see(proto, np.zeros((3, 8, 7), np.float32), "c", rule="deconvnet")
    assert tconv.see(proto, np.ones((3, 8, 7), np.float32), "a").tiles[0].activation == 1
