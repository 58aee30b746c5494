"""Functions of one value: equal to ONNX Runtime at the ends of their ranges, too."""

import numpy as np
import pytest
from graph.operators.nodes import both, node, refused

from tconv.graph import UnknownOperator

FORMAT = np.finfo(np.float32)
ENDS = [
    0,
    -0.0,
    np.inf,
    -np.inf,
    np.nan,
    1e-45,
    -1e-45,
    1e-40,
    FORMAT.tiny,
    FORMAT.max,
    -FORMAT.max,
]
MIDDLE = [0.5, 1.5, 2.5, -0.5, -1.5, -2.5, 0.49999997, 8388607.5, 1e4, -1e4, 12345678.0, 1e20]
FUNCTIONS = [  # with attributes, and the opset that brought them
    *((op, {}, 9) for op in ("Sin", "Cos", "Log", "Sign", "Softplus", "Softsign", "Selu")),
    *(("Round", {}, 11), ("Celu", {}, 12), ("Mish", {}, 18), ("Reciprocal", {}, 13)),
    *(("Celu", {"alpha": 2.5}, 12), ("Selu", {"alpha": 0.7, "gamma": -2.0}, 9)),
    *(("Elu", {"alpha": 0.5}, 9), ("LeakyRelu", {"alpha": 0.3}, 9)),
    *(("HardSigmoid", {"alpha": 0.3}, 9), ("HardSigmoid", {"beta": 0.25}, 9)),
]


@pytest.mark.parametrize(("op", "attributes", "opset"), FUNCTIONS)
def test_functions_of_any_number(op, attributes, opset):
    rng = np.random.default_rng(0)
    sizes = rng.choice([-1, 1], 300) * np.exp2(rng.uniform(-30, 6, 300))
    x = np.concatenate([ENDS, MIDDLE, sizes]).astype(np.float32)
    found, expected = both(x, node(op, "x", "y", **attributes), opset=opset)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert np.allclose(found, expected, 1e-6, 1e-6 if op == "Softplus" else 2e-7, equal_nan=True)
    # Softplus of ONNX Runtime is 0 below -17, where log(1 + exp(x)) is exp(x).


def test_powers_of_three():
    x = np.float32([0, -0.0, 1.1, -2.5, 1e20, np.inf, -np.inf, np.nan])
    found, expected = both(x, node("Pow", "x p", "y"), p=np.float32(3))
    assert np.allclose(found, expected, 1e-6, 0, equal_nan=True)


@pytest.mark.parametrize("count", [1, 2, 3, 5])
def test_means_of_some_values(count):
    """Broadcast; of equal numbers it is that number."""
    x = np.float32([[1, 2, 7], [np.inf, np.nan, -3]])
    words = ["r", "c", "x", "r", "c"][:count]
    nodes = node("Relu", "x", "r"), node("Mean", " ".join(words), "y")
    found, expected = both(x, *nodes, **{"c": np.float32([[5], [2]])} if count > 1 else {})
    assert np.allclose(found, expected, 1e-6, 0, equal_nan=True)
    x = np.full((3, 4), 0.1, np.float32)
    found, _ = both(x, node("Mean", " ".join("x" * count), "y"))
    assert np.allclose(found, x, 1e-7, 0)


def test_functions_that_are_refused():
    for alpha in (0.0, -1.0):
        with pytest.raises(UnknownOperator, match="Celu with alpha"):
            refused((3,), node("Celu", "x", "y", alpha=alpha))
    with pytest.raises(UnknownOperator, match=r"exponent -0\.5"):
        refused((3,), node("Pow", "x p", "y"), p=np.float32(-0.5))
    for op in ("Sin", "Cos", "Log", "Softplus", "Round", "Sign", "Softsign", "Selu", "Celu"):
        with pytest.raises(UnknownOperator, match="empty"):
            refused((0, 3), node(op, "x", "y"))
