"""Fusion of nodes into a ConvTranspose, if nothing else reads the values between."""

import numpy as np
import onnx
import pytest
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from onnx_graphs import by_onnx_runtime, model_of, transposed
from strategies import draws, integers_like
from tconv.onnx import Session, compare, subgraphs, warm
from tconv.onnx.partition.partition import Graph

ACTIVATIONS = {
    "Relu": {},
    "LeakyRelu": {"alpha": 0.2},
    "Tanh": {},
    "Sigmoid": {},
    "Elu": {"alpha": 1.5},
    "HardSigmoid": {"alpha": 0.25},
    "HardSwish": {},
    "Gelu": {"approximate": "tanh"},
}
LATER = {"HardSwish": 14, "Gelu": 20}  # opsets
OPERANDS = ["scale", "shift", "mean", "variance"]


def real(shape, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(np.float32)


def parts(rank=2, groups=2, has_bias=True, activation="Relu", norm=True):
    """Nodes of x -> up -> bn -> act -> Neg y, feeds and what is stored."""
    channels, outputs = 2 * groups, 3 * groups
    feeds = {"x": real((2, channels, *range(5, 5 + rank)), 0)}
    stored = {name: real((outputs,), n) for n, name in enumerate(["b", *OPERANDS])}
    stored |= {"variance": stored["variance"] ** 2 + 0.1, "w": real((channels, 3, *[3] * rank), 9)}
    bias = "b" if has_bias else None
    nodes = [transposed("x", "w", "up", bias, strides=[2] * rank, group=groups)]
    last = "up"
    if norm:
        names = [last, *OPERANDS]
        nodes.append(helper.make_node("BatchNormalization", names, ["bn"], epsilon=1e-3))
        last = "bn"
    if activation:
        nodes.append(helper.make_node(activation, [last], ["act"], **ACTIVATIONS[activation]))
        last = "act"
    nodes.append(helper.make_node("Neg", [last], ["y"]))
    return nodes, feeds, stored


def loaded(model):
    """A session, and the operators that ONNX Runtime was given for it."""
    seen, load = [], subgraphs.load

    def record(source, *args, **options):
        seen.extend(node.op_type for node in onnx.load_from_string(source).graph.node)
        return load(source, *args, **options)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(subgraphs, "load", record)
        return Session(model, force=True), seen


def assert_equal(found, expected):
    assert len(found) == len(expected)
    for a, b in zip(found, expected, strict=True):
        assert a.dtype == b.dtype
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5 * max(1, np.abs(b).max(initial=0)))


def assert_folded(model, feeds, folded, left):
    session, operators = loaded(model)
    assert_equal(session.run(None, feeds), by_onnx_runtime(model, feeds))
    (node,) = session.report().nodes
    assert (node.computed_by, node.output, node.folded) == ("tconv", "up", folded)
    assert sorted(operators) == sorted(left)


@draws(2)
@given(
    st.integers(1, 3),
    st.integers(1, 3),
    st.booleans(),
    st.sampled_from([None, *ACTIVATIONS]),
    st.booleans(),
    st.sampled_from([9, 13, 14, 17, 22]),
)
def test_equals_onnx_runtime_and_what_is_folded_is_gone(
    rank, groups, has_bias, activation, norm, opset
):
    nodes, feeds, stored = parts(rank, groups, has_bias, activation, norm)
    folded = ("BatchNormalization",) * norm + ((activation,) if activation else ())
    opset = max(opset, LATER.get(activation, 0))
    assert_folded(model_of(nodes, feeds, ["y"], stored, opset=opset), feeds, folded, ["Neg"])


@pytest.mark.parametrize("norm", [False, True])
@pytest.mark.parametrize("activation", [None, *ACTIVATIONS])
def test_the_end_of_a_model_is_folded_too(norm, activation):
    nodes, feeds, stored = parts(activation=activation, norm=norm)
    y = nodes[-1].input[0]
    model = model_of(nodes[:-1], feeds, [y], stored, opset=max(17, LATER.get(activation, 0)))
    session, operators = loaded(model)
    assert operators == []
    assert session.report().pieces == 0
    assert_equal(session.run(None, feeds), by_onnx_runtime(model, feeds))


def reading(name):
    """If(condition): minus a value from outside, else the value."""
    branches = []
    for op in ("Neg", "Identity"):
        node = helper.make_node(op, [name], [f"{op} inside"])
        result = helper.make_tensor_value_info(f"{op} inside", TensorProto.FLOAT, None)
        branches.append(helper.make_graph([node], op, [], [result]))
    then, other = branches
    return helper.make_node("If", ["so"], ["other"], then_branch=then, else_branch=other)


BN, ALL = ("BatchNormalization",), ("BatchNormalization", "Relu")


@pytest.mark.parametrize(("needed", "folded"), [("up", ()), ("bn", BN), ("act", ALL), ("y", ALL)])
@pytest.mark.parametrize("by", ["the model", "a node", "a subgraph"])
def test_what_others_need_is_made(needed, folded, by):
    nodes, feeds, stored = parts()
    outputs, left = ["y"], [*[op for op in ALL if op not in folded], "Neg"]
    if by == "the model":
        outputs = list(dict.fromkeys([needed, "y"]))
    elif by == "a node":
        nodes.append(helper.make_node("Abs", [needed], ["other"]))
        left.append("Abs")
    else:
        nodes.append(reading(needed))
        stored["so"] = np.array(True)
        left.append("If")
    if by != "the model":
        outputs.append("other")
    assert_folded(model_of(nodes, feeds, outputs, stored), feeds, folded, left)


@pytest.mark.parametrize("name", ["w", "b", *OPERANDS])
@pytest.mark.parametrize("how", ["fed", "made of what is fed", "overridable"])
def test_a_normalisation_of_what_may_change_is_left(name, how):
    nodes, feeds, stored = parts()
    if how == "fed":
        feeds[name] = stored.pop(name)
    elif how == "made of what is fed":
        feeds["fed"] = -stored.pop(name)
        nodes.insert(0, helper.make_node("Neg", ["fed"], [name]))
    model = model_of(nodes, feeds, ["y"], stored)
    if how == "overridable":
        value = helper.make_tensor_value_info(name, TensorProto.FLOAT, stored[name].shape)
        model.graph.input.append(value)
    left = [*ALL, "Neg", *(["Neg"] if how.startswith("made") else [])]
    assert_folded(model, feeds, (), left)


@pytest.mark.parametrize("name", ["w", "b", *OPERANDS])
@pytest.mark.parametrize("how", ["Constant", "made of constants"])
def test_constants_may_come_from_nodes(name, how):
    nodes, feeds, stored = parts()
    value = stored.pop(name)
    if how == "Constant":
        nodes.append(helper.make_node("Constant", [], [name], value=numpy_helper.from_array(value)))
    else:
        stored["negative"] = -value
        nodes.append(helper.make_node("Neg", ["negative"], [name]))
    session, operators = loaded(model_of(nodes, feeds, ["y"], stored))
    model = model_of(nodes[-1:] + nodes[:-1], feeds, ["y"], stored)
    assert_equal(session.run(None, feeds), by_onnx_runtime(model, feeds))
    assert session.report().nodes[0].folded == ALL
    assert not {*ALL} & set(operators)


def operators_folded(model):
    return Graph(model).layers[0].fused.operators


@pytest.mark.parametrize(
    "change",
    [
        lambda nodes: nodes[1].attribute.append(helper.make_attribute("training_mode", 1)),
        lambda nodes: nodes[1].attribute.append(helper.make_attribute("spatial", 0)),
        lambda nodes: nodes[1].output.extend(["mean'", "variance'"]),
        lambda nodes: setattr(nodes[1], "domain", "com.example"),
        lambda nodes: nodes[1].input.pop(),
        lambda nodes: nodes[1].input.__setitem__(1, "up"),
    ],
    ids=["training", "spatial", "more outputs", "domain", "fewer operands", "scaled by itself"],
)
def test_another_normalisation_is_left(change):
    nodes, feeds, stored = parts()
    change(nodes)
    assert operators_folded(model_of(nodes, feeds, ["y"], stored)) == ()


def test_a_normalisation_of_other_channels_is_left():
    nodes, feeds, stored = parts()
    for name in OPERANDS:
        stored[name] = stored[name][:1]
    assert operators_folded(model_of(nodes, feeds, ["y"], stored)) == ()


@pytest.mark.parametrize("opset", [7, 8])
def test_old_forms_are_left(opset):
    nodes, feeds, stored = parts()
    assert operators_folded(model_of(nodes, feeds, ["y"], stored, opset=opset)) == ()


def test_another_activation_is_left():
    nodes, feeds, stored = parts(norm=False)
    for op in ("Softplus", "Softmax", "Abs", "Selu"):
        nodes[1] = helper.make_node(op, ["up"], ["act"])
        assert operators_folded(model_of(nodes, feeds, ["y"], stored)) == ()
    nodes[1] = helper.make_node("Elu", ["up"], ["act"], alpha=-0.5)
    assert operators_folded(model_of(nodes, feeds, ["y"], stored)) == ()


def test_an_activation_alone_needs_no_constants():
    nodes, feeds, stored = parts(norm=False)
    for name in ("w", "b"):
        feeds[name] = stored.pop(name)
    assert_folded(model_of(nodes, feeds, ["y"], stored), feeds, ("Relu",), ["Neg"])


@pytest.mark.parametrize("kind", [np.float16, np.float64])
def test_other_types(kind):
    """Weights of half precision would be rounded once more: their normalisation is left."""
    nodes, feeds, stored = parts(activation=None)
    feeds, stored = ({n: v.astype(kind) for n, v in each.items()} for each in (feeds, stored))
    folded = operators_folded(model_of(nodes, feeds, ["y"], stored))
    assert folded == (BN if kind is np.float64 else ())
    nodes, feeds, stored = parts(norm=False, activation="Tanh")
    feeds, stored = ({n: v.astype(kind) for n, v in each.items()} for each in (feeds, stored))
    session = Session(model_of(nodes, feeds, ["y"], stored), force=True)
    (y,) = session.run(None, feeds)
    wide = parts(norm=False, activation="Tanh")
    (expected,) = by_onnx_runtime(model_of(wide[0], wide[1], ["y"], wide[2]), wide[1])
    assert y.dtype == kind
    np.testing.assert_allclose(y, expected, rtol=0, atol=5e-3)
    assert session.report().nodes[0].folded == ("Tanh",)


def test_values_that_are_no_normalisation_leave_the_model_whole():
    nodes, feeds, stored = parts()
    stored["variance"] = np.full_like(stored["variance"], -1)
    session = Session(model_of(nodes, feeds, ["y"], stored), force=True)
    (node,) = session.report().nodes
    assert (node.computed_by, node.folded) == ("onnxruntime", ())
    assert node.reason.startswith("BatchNormalization after 'up up': bn.running_var=-1 must be")


def test_layers_that_share_a_weight_are_folded_each_by_its_own():
    nodes, feeds, stored = parts(groups=1)
    nodes = [*nodes[:1], transposed("x", "w", "plain", "b", strides=[2, 2]), *nodes[1:]]
    model = model_of(nodes, feeds, ["y", "plain"], stored)
    session, operators = loaded(model)
    assert_equal(session.run(None, feeds), by_onnx_runtime(model, feeds))
    assert [node.folded for node in session.report().nodes] == [ALL, ()]
    assert operators == ["Neg"]


def test_chains_of_layers_are_folded_one_by_one():
    nodes, feeds, stored = parts()
    stored["w2"] = real((6, 2, 2, 2), 7)
    nodes[-1:] = [transposed("act", "w2", "up2"), helper.make_node("Sigmoid", ["up2"], ["y"])]
    model = model_of(nodes, feeds, ["y"], stored)
    session, operators = loaded(model)
    assert_equal(session.run(None, feeds), by_onnx_runtime(model, feeds))
    assert [node.folded for node in session.report().nodes] == [ALL, ("Sigmoid",)]
    assert operators == []


def test_what_onnx_runtime_computes_is_not_fused():
    nodes, feeds, stored = parts()
    small = Session(model_of(nodes, {"x": feeds["x"][:1, :, :2, :2]}, ["y"], stored))
    (node,) = small.report().nodes
    assert (node.computed_by, node.folded) == ("onnxruntime", ())


def test_report_comparison_and_warming_know_of_it():
    nodes, feeds, stored = parts()
    model = model_of(nodes, feeds, ["y"], stored)
    session = Session(model, force=True)
    session.run(None, feeds)
    report = session.report()
    assert "tconv + BatchNormalization + Relu" in " ".join(str(report).split())
    assert report.as_dict()["nodes"][0]["folded"] == ALL
    both = compare(model, feeds, force=True, seconds=0.01)
    (node,) = both.nodes
    assert node.folded == ALL
    assert node.difference <= 1e-5 * node.largest  # of the ConvTranspose alone
    assert both.largest_difference <= 1e-4
    ((_, plan),) = warm(model)
    assert "then relu" in plan or "portable" in plan


def test_integers_are_exact():
    nodes, feeds, stored = parts()
    feeds = {"x": integers_like(feeds["x"].shape, "float32")}
    stored = {n: integers_like(v.shape, "float32", k) for k, (n, v) in enumerate(stored.items())}
    stored["variance"] = np.full_like(stored["variance"], 4)
    nodes[1].attribute[0].f = 0
    model = model_of(nodes, feeds, ["y"], stored)
    (y,) = Session(model, force=True).run(None, feeds)
    (expected,) = by_onnx_runtime(model, feeds)
    assert np.array_equal(y, expected)


EACH = -1  # one for each channel
CONSTANTS = ((1, EACH, 1, 1), (EACH, 1, 1), (1,), (), (1, 1, 1, 1))


@draws(2)
@given(
    st.lists(
        st.tuples(st.sampled_from(["Add", "Sub", "Mul", "Div"]), st.sampled_from(CONSTANTS)),
        min_size=1,
        max_size=4,
    ),
    st.integers(0, 4),
    st.integers(1, 3),
    st.booleans(),
    st.booleans(),
    st.sets(st.integers(0, 3)),
    st.sampled_from([None, *ACTIVATIONS]),
)
def test_arithmetic_with_constants_per_channel_is_folded(
    chain, place, groups, has_bias, swapped, identities, activation
):
    nodes, feeds, stored = parts(2, groups, has_bias, None, norm=False)
    channels, last = 3 * groups, "up"
    chain = [("BatchNormalization", ()) if n == place else step for n, step in enumerate(chain)]
    nodes = nodes[:1]
    for n, (operator, shape) in enumerate(chain):
        if operator == "BatchNormalization":
            inputs = [last, *OPERANDS]
        else:
            sizes = [channels if size == EACH else size for size in shape]
            stored[f"c{n}"] = np.abs(real(sizes, n)) + np.float32(0.5)
            inputs = [last, f"c{n}"]
            if swapped and operator in ("Add", "Mul"):
                inputs.reverse()
        nodes.append(helper.make_node(operator, inputs, [f"t{n}"]))
        last = f"t{n}"
        if n in identities:
            nodes.append(helper.make_node("Identity", [last], [f"same {n}"]))
            last = f"same {n}"
    if activation:
        nodes.append(helper.make_node(activation, [last], ["act"], **ACTIVATIONS[activation]))
        last = "act"
    nodes.append(helper.make_node("Neg", [last], ["y"]))
    folded = tuple(operator for operator, _ in chain) + ((activation,) if activation else ())
    opset = max(17, LATER.get(activation, 0))
    assert_folded(model_of(nodes, feeds, ["y"], stored, opset=opset), feeds, folded, ["Neg"])


@pytest.mark.parametrize(
    ("inputs", "shape"),
    [
        (["up", "c"], (1, 3, 11, 1)),  # along another axis
        (["up", "c"], (1, 1, 1, 1, 1)),  # of one axis more
        (["up", "c"], (2, 3, 1, 1)),  # of the batch
        (["up", "up"], None),  # no constant
        (["c", "up"], (3, 1, 1)),  # on the left of a Sub
    ],
)
def test_other_arithmetic_is_left(inputs, shape):
    nodes, feeds, stored = parts(2, 1, activation=None, norm=False)
    if shape:
        stored["c"] = real(shape, 5)
    nodes[1:] = [helper.make_node("Sub", inputs, ["y"])]
    assert_folded(model_of(nodes, feeds, ["y"], stored), feeds, (), ["Sub"])


@pytest.mark.parametrize(("operator", "value"), [("Add", np.inf), ("Mul", np.nan), ("Div", 0)])
def test_constants_that_are_not_finite_leave_the_model_whole(operator, value):
    nodes, feeds, stored = parts(activation=None, norm=False)
    stored["c"] = np.full((6, 1, 1), value, np.float32)
    nodes[1:] = [helper.make_node(operator, ["up", "c"], ["y"])]
    model = model_of(nodes, feeds, ["y"], stored)
    session = Session(model, force=True)
    (node,) = session.report().nodes
    assert (node.computed_by, node.folded) == ("onnxruntime", ())
    assert node.reason == f"{operator} after 'up up': c must have finite values; check the model."
    np.testing.assert_array_equal(session.run(None, feeds)[0], by_onnx_runtime(model, feeds)[0])
