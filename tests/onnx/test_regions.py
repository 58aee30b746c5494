"""Regions of a model between subgraphs of ONNX Runtime: outputs as ONNX Runtime's, for any cut."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper

from network_graphs import assert_agree, networks
from onnx_graphs import by_onnx_runtime, conv, model_of, transposed
from strategies import integers_like
from tconv.engine.target.target import target
from tconv.errors import ModelError
from tconv.graph import UnknownOperator, known_operators
from tconv.onnx import Session, execution
from tconv.onnx.programs import model_programs, regions, search
from tconv.onnx.programs.region_step import RegionStep

pytestmark = pytest.mark.skipif(not target().uses_engine, reason="programs are machine code")

W1 = integers_like((2, 2, 3, 3), "float32", 1)
FEEDS = {"x": integers_like((1, 2, 6, 5), "float32", 3)}


@pytest.fixture(autouse=True)
def always(monkeypatch):
    """Whatever a program can have is one, also where it is slower."""
    monkeypatch.setattr(execution, "LEAST_GAIN", -1e9)
    monkeypatch.setattr(search, "BORDER_US", -1e9)


def layers(name, x, y):
    """Four nodes that a program has, one of them a convolution."""
    between = [f"{name}{n}" for n in range(3)]
    return [
        conv(x, "w", between[0], pads=[1] * 4),
        helper.make_node("Relu", [between[0]], [between[1]], name=f"relu {name}"),
        helper.make_node("Neg", [between[1]], [between[2]]),
        helper.make_node("Add", [between[0], between[2]], [y]),
    ]


def foreign(x, y):
    """A node that no program has, and that changes nothing."""
    number = helper.make_tensor_value_info("z", TensorProto.FLOAT, None)
    branch = helper.make_graph([helper.make_node("Identity", [x], ["z"])], "g", [], [number])
    return helper.make_node("If", ["true"], [y], then_branch=branch, else_branch=branch)


def made(nodes, outputs, feeds=FEEDS, **options):
    stored = {"w": W1, "true": np.array(True)}
    return model_of(nodes, feeds, outputs, stored, **options)


def assert_alike(session, model, feeds=FEEDS):
    found, expected = session.run(None, feeds), by_onnx_runtime(model, feeds)
    for one, other in zip(found, expected, strict=True):
        assert one.dtype == other.dtype
        assert np.array_equal(one, other)


# ---- the law -------------------------------------------------------------------------------------


def test_any_nodes_may_stay_with_onnx_runtime():
    """Of random networks, where each connected part of the other nodes is a region."""
    counts, examples = [], settings().max_examples

    # Up to "ci" the same networks in every run, so that it is certain how many have regions.
    @settings(max_examples=max(200, examples), derandomize=examples <= 500)
    @given(networks("Conv", most=14), st.integers(1, 2**29), st.integers(2, 5))
    def law(drawn, bits, one_in):
        def stays(index):
            return (bits >> index % 29) % one_in == 0

        def is_possible(self, index):
            return possible(self, index) and not stays(index)

        def refused(*_):
            raise UnknownOperator("left for this test")

        expected = by_onnx_runtime(drawn.model, drawn.feeds)
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(execution, "LEAST_GAIN", -1e9)
            patch.setattr(search, "BORDER_US", -1e9)
            patch.setattr(regions.Regions, "_is_possible", is_possible)
            patch.setattr(regions, "_LAYERS", tuple(known_operators()))
            patch.setattr(regions, "_LEAST_NODES", 1)
            patch.setattr(regions, "_SMALLEST", 0)
            patch.setattr(regions, "_MOST_REGIONS", 9)
            patch.setattr(model_programs.ModelPrograms, "whole", refused)
            session = Session(drawn.model, threads=2)
            found = session.run(None, drawn.feeds)
        assert_agree(drawn, found, expected)
        again = session.run(None, drawn.feeds)
        assert all(a.tobytes() == b.tobytes() for a, b in zip(found, again, strict=True))
        report = session.report()
        counts.append((len(report.programs), report.pieces))

    possible = regions.Regions._is_possible
    law()
    assert sum(programs > 1 for programs, _ in counts) > len(counts) / 8
    assert sum(programs > 0 and others > 0 for programs, others in counts) > len(counts) / 3


# ---- where regions lie ---------------------------------------------------------------------------


def test_an_encoder_and_a_decoder_are_two_regions():
    nodes = [
        *layers("e", "x", "encoded"),
        foreign("encoded", "state"),
        *layers("d", "state", "decoded"),
        helper.make_node("Add", ["decoded", "encoded"], ["y"]),
    ]
    model = made(nodes, ["y"])
    session = Session(model)
    assert_alike(session, model)
    report = session.report()
    assert [len(each.steps) for each in report.programs] == [2, 2]
    assert report.pieces == 1
    assert "program: 2 steps of 4 nodes" in str(report)
    assert len(session.profile(FEEDS).steps) == 4


def test_a_region_may_come_first_and_in_the_middle():
    first = made([*layers("a", "x", "b"), foreign("b", "y")], ["y"])
    middle = made([foreign("x", "a"), *layers("b", "a", "c"), foreign("c", "y")], ["y"])
    for model, count in ((first, 1), (middle, 2)):
        session = Session(model)
        assert_alike(session, model)
        assert len(session.report().programs) == 1
        assert session.report().pieces == count


def test_what_a_region_and_a_subgraph_share_is_computed_once():
    """Values between, also those that are outputs, and the shape of a value as a size."""
    nodes = [
        *layers("e", "x", "encoded"),
        helper.make_node("Shape", ["encoded"], ["sizes"]),
        foreign("encoded", "state"),
        helper.make_node("Reshape", ["state", "sizes"], ["same"]),
        *layers("d", "same", "decoded"),
        helper.make_node("Concat", ["decoded", "e1", "x"], ["y"], axis=1),
    ]
    model = made(nodes, ["y", "encoded", "state"])
    session = Session(model)
    assert_alike(session, model)
    assert len(session.report().programs) == 2


def test_small_regions_are_left():
    nodes = [
        *layers("e", "x", "encoded"),
        foreign("encoded", "state"),
        conv("state", "w", "a", pads=[1] * 4),
        helper.make_node("Relu", ["a"], ["y"]),
    ]
    model = made(nodes, ["y"])
    session = Session(model)
    assert_alike(session, model)
    assert [len(each.steps) for each in session.report().programs] == [2]


@pytest.mark.parametrize(("channels", "count"), [(12, 2), (24, 1)])
def test_a_region_of_few_weights_beside_a_large_one_is_left(channels, count):
    """One of less than an eighth of the weights in the largest."""
    wide = integers_like((channels, 2, 3, 3), "float32", 5)
    nodes = [
        *layers("e", "x", "encoded"),
        foreign("encoded", "state"),
        conv("state", "wide", "d0", pads=[1] * 4),
        *[helper.make_node("Neg", [f"d{n}"], [f"d{n + 1}"]) for n in range(3)],
    ]
    stored = {"w": W1, "true": np.array(True), "wide": wide}
    model = model_of(nodes, FEEDS, ["d3"], stored)
    session = Session(model)
    assert_alike(session, model)
    assert len(session.report().programs) == count


def test_borders_count_against_regions(monkeypatch):
    nodes = [*layers("e", "x", "encoded"), foreign("encoded", "s"), *layers("d", "s", "y")]
    model = made(nodes, ["y"], sizes=False)
    monkeypatch.setattr(execution, "LEAST_GAIN", 0.03)
    monkeypatch.setattr(RegionStep, "theirs_us", lambda *_: 1e6)
    for border, count in ((1e5, 2), (2e6, 0)):
        monkeypatch.setattr(search, "BORDER_US", border)
        session = Session(model)
        assert_alike(session, model)
        assert len(session.report().programs) == count
        assert session.get_inputs()[0].name == "x"


def test_known_sizes_tell_that_a_region_is_too_small(monkeypatch):
    loaded = []
    load = model_programs.load_subgraph
    monkeypatch.setattr(model_programs, "load_subgraph", lambda *a: loaded.append(a) or load(*a))
    nodes = [*layers("e", "x", "encoded"), foreign("encoded", "y")]
    model = made(nodes, ["y"])
    for border, count in ((-1e9, 1), (1e9, 0)):
        monkeypatch.setattr(search, "BORDER_US", border)
        loaded.clear()
        assert_alike(Session(model), model)
        assert len(loaded) == count


# ---- nodes that turn out to be none of a program -------------------------------------------------


@pytest.mark.parametrize("sizes", [True, False])
def test_a_node_of_a_known_operator_that_no_program_has_is_left_alone(sizes):
    """Cubic interpolation; the sizes of the file's inputs are declared, or follow from the run."""
    stored = {"w": W1, "scales": np.array([1, 1, 2, 2], np.float32)}
    nodes = [
        *layers("e", "x", "encoded"),
        helper.make_node("Resize", ["encoded", "", "scales"], ["large"], mode="cubic"),
        *layers("d", "large", "y"),
    ]
    model = model_of(nodes, FEEDS, ["y"], stored, sizes=sizes)
    session = Session(model)
    found, (expected,) = session.run(None, FEEDS), by_onnx_runtime(model, FEEDS)
    np.testing.assert_allclose(found[0], expected, rtol=1e-5, atol=1e-5 * np.abs(expected).max())
    assert len(session.report().programs) == 2
    assert session.report().pieces == 1


def test_wrong_inputs_take_no_program_away():
    nodes = [
        *layers("e", "x", "a"),
        helper.make_node("MaxPool", ["a"], ["b"], kernel_shape=[5, 5]),
        transposed("b", "w", "y"),
    ]
    model = model_of(nodes, FEEDS, ["y"], {"w": W1}, sizes=False)
    session = Session(model)
    with pytest.raises(ModelError):
        session.run(None, {"x": integers_like((1, 2, 3, 3), "float32", 1)})
    assert_alike(session, model)
    assert [len(each.steps) for each in session.report().programs] == [5]
    assert session.report().pieces == 0


def test_integers_between_regions_stay_with_onnx_runtime():
    nodes = [
        *layers("e", "x", "encoded"),
        helper.make_node("Cast", ["encoded"], ["whole"], to=TensorProto.INT64),
        helper.make_node("Neg", ["whole"], ["less"]),
        helper.make_node("Cast", ["less"], ["back"], to=TensorProto.FLOAT),
        *layers("d", "back", "y"),
    ]
    model = made(nodes, ["y", "less"])
    model.graph.output[1].type.tensor_type.elem_type = TensorProto.INT64
    session = Session(model)
    assert_alike(session, model)
    assert len(session.report().programs) == 2


def test_a_node_that_no_output_needs_leaves_the_model_to_onnx_runtime():
    model = made([*layers("e", "x", "y"), foreign("e0", "unused")], ["y"])
    session = Session(model)
    assert_alike(session, model)
    assert session.report().programs == ()
