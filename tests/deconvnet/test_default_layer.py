"""Default layers: the activation of the last convolution, products of gates, and scores."""

import numpy as np
import pytest

import tconv
from networks import network_of, proto_of
from strategies import integers_like
from tconv.deconvnet.default_layer import logits_of


def w(*shape):
    return integers_like(shape, "float32", 1, largest=3)


HEAD = [("GlobalAveragePool", "y", "mean", {}), ("Flatten", "mean", "flat", {}),
        ("Gemm", "flat g", "scores", {}), ("Softmax", "scores", "shares", {})]  # fmt: skip
STORED = {"a": w(4, 3, 3, 3), "b": w(4, 4, 1, 1), "c": w(4, 4, 1, 1), "g": w(4, 5)}
FIRST = [("Conv", "image a", "first", {}), ("Relu", "first", "r", {})]
LAST = [*FIRST, ("Conv", "r b", "v", {})]
NETWORKS = {
    "Relu": [*LAST, ("Relu", "v", "y", {}), *HEAD],
    "SiLU": [*LAST, ("Sigmoid", "v", "gate", {}), ("Mul", "v gate", "y", {}), *HEAD],
    "SiLU, the gate on the left": [
        *LAST, ("Sigmoid", "v", "gate", {}), ("Mul", "gate v", "y", {}), *HEAD],
    "HardSwish in parts": [
        *LAST, ("Add", "v three", "v3", {}), ("Clip", "v3 zero six", "c6", {}),
        ("Mul", "v c6", "v6", {}), ("Div", "v6 six", "y", {}), *HEAD],
    "GLU, halves": [
        *LAST, ("Split", "v", "one two", {"axis": 1}), ("Sigmoid", "two", "gate", {}),
        ("Mul", "one gate", "y", {}), *HEAD[:2]],
    "GLU, two convolutions": [
        *LAST, ("Conv", "r c", "u", {}), ("Sigmoid", "u", "gate", {}), ("Mul", "v gate", "y", {}),
        *HEAD],
    "squeeze and excitation": [
        *LAST, ("Relu", "v", "act", {}), ("GlobalAveragePool", "act", "squeezed", {}),
        ("Conv", "squeezed c", "excited", {}), ("Sigmoid", "excited", "gate", {}),
        ("Mul", "act gate", "y", {}), *HEAD],
    "a sum before the activation": [
        *LAST, ("Add", "v r", "sum", {}), ("Relu", "sum", "y", {}), *HEAD],
    "normalised": [
        *LAST, ("BatchNormalization", "v n n n n", "normal", {}), ("LeakyRelu", "normal", "y", {}),
        *HEAD],
    "a last convolution without an activation": [
        *FIRST, ("Identity", "r", "y", {}), ("Conv", "r b", "v", {}), *HEAD],
    "an answer by a Sigmoid": [
        *FIRST, ("Identity", "r", "y", {}), ("Conv", "r b", "v", {}), ("Sigmoid", "v", "map", {})],
}  # fmt: skip
CONSTANTS = {"three": [3.0], "zero": 0.0, "six": 6.0, "n": [1.0, 2.0, 3.0, 4.0]}
OTHERS = {"HardSwish in parts": "v6", **dict.fromkeys(list(NETWORKS)[-2:], "r")}


@pytest.mark.parametrize("name", NETWORKS)
@pytest.mark.parametrize("size", [(8, 7), ("H", "W")], ids=["fixed", "any size"])
def test_the_default_is_the_activation_of_the_last_convolution(name, size):
    constants = {key: np.float32(value) for key, value in CONSTANTS.items()}
    proto = proto_of(NETWORKS[name], STORED | constants, (1, 3, *size))
    expected = OTHERS.get(name, "y")
    assert tconv.see_layers(proto).default == expected
    seen = tconv.see(proto, integers_like((3, 8, 7), "float32", 3), top=1)
    assert (seen.layer, bool(seen.why)) == (expected, seen.rule == "gradient")


def test_a_rule_that_was_chosen_has_the_last_layer_that_it_can_project():
    nodes = [*LAST, ("Sigmoid", "v", "gate", {}), ("Mul", "v gate", "y", {}), *HEAD]
    proto, image = proto_of(nodes, STORED), integers_like((3, 8, 7), "float32", 3)
    assert tconv.see(proto, image, rule="deconvnet", top=1).layer == "r"
    assert tconv.see_layers(proto, rule="guided").default == "r"


@pytest.mark.parametrize("name", ["Relu", "SiLU", "squeeze and excitation"])
def test_scores_are_those_before_the_softmax(name):
    assert logits_of(network_of(proto_of(NETWORKS[name], STORED))) == ("scores", 5)


def test_a_map_has_no_scores():
    assert logits_of(network_of(proto_of(LAST, STORED))) is None
