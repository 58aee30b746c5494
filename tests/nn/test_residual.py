"""Residual blocks: a branch and a sum, and the gradients of both ways."""

import copy
import pickle
import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import integers_like
from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.nn.activations import LeakyReLU, ReLU, Tanh
from tconv.nn.conv import Conv1d, ConvTranspose1d
from tconv.nn.layer import Residual, Sequential


def block(dtype="float64", seed=0):
    """A block of integers, so that sums are exact."""
    made = Residual(
        LeakyReLU(0.5),
        Conv1d(2, 3, 3, padding=1, dtype=dtype),
        ConvTranspose1d(3, 2, 3, padding=1, dtype=dtype),
    )
    for n, parameter in enumerate(made.parameters()):
        parameter.value = integers_like(parameter.shape, dtype, seed + n)
    return made


@given(st.integers(0, 2**32 - 1), st.sampled_from(["float16", "float32", "float64"]))
def test_it_is_x_and_the_branch(seed, dtype):
    net, x = block(dtype), integers_like((2, 2, 5), dtype, seed, 2)
    y = net(x)
    assert y.dtype == dtype
    assert np.array_equal(y, x + net.branch.predict(x))
    assert np.array_equal(net.predict(x), y)


@given(st.integers(0, 2**32 - 1))
def test_what_comes_back_is_the_gradient_and_that_of_the_branch(seed):
    net, alone = block(), block()
    x, dy = (integers_like((2, 2, 5), seed=seed + n) for n in (0, 1))
    net(x)
    alone.branch(x)
    assert np.array_equal(net.backward(dy), dy + alone.branch.backward(dy))
    for one, other in zip(net.parameters(), alone.parameters(), strict=True):
        assert np.array_equal(one.gradient, other.gradient)


def test_gradients_are_central_differences():
    rng = np.random.default_rng(5)
    net = Residual(Tanh(), Conv1d(2, 2, 3, padding=1, dtype="float64", rng=rng))
    net = Sequential(net, Residual(Residual(Tanh())))
    x = rng.normal(size=(2, 2, 4))
    dy = rng.normal(size=net(x).shape)
    dx = net.backward(dy)
    arrays = [(x, dx), *((each.value, each.gradient) for each in net.parameters())]
    for array, gradient in arrays:
        for place in range(array.size):
            before, values = array.flat[place], []
            for step in (1e-6, -1e-6):
                array.flat[place] = before + step
                values.append(np.sum(net.predict(x) * dy))
            array.flat[place] = before
            assert (values[0] - values[1]) / 2e-6 == pytest.approx(gradient.flat[place], abs=1e-7)


def test_names_and_how_it_is_shown():
    net = Residual({"first": ReLU(), "second": Residual(Conv1d(1, 1, 1))})
    assert list(net.state_dict()) == [
        "branch.second.branch.0.weight",
        "branch.second.branch.0.bias",
    ]
    assert repr(net) == (
        "Residual(\n  (first): ReLU()\n  (second): Residual(\n"
        "    (0): Conv1d(1, 1, kernel_size=(1,), stride=(1,))\n  )\n)"
    )
    assert repr(Residual()) == "Residual()"
    x = np.array([1.0, -2.0])
    assert Residual()(x).tolist() == [2, -4]
    assert repr(Sequential(Residual(Sequential(ReLU())))) == (
        "Sequential(\n  (0): Residual(\n    (0): Sequential(\n      (0): ReLU()\n    )\n  )\n)"
    )


def test_copies_and_pickles():
    net, x = block(), integers_like((1, 2, 5))
    y = net(x)
    for other in (copy.deepcopy(net), pickle.loads(pickle.dumps(net))):
        assert repr(other) == repr(net)
        assert np.array_equal(other(x), y)


def test_a_block_of_integers():
    assert Residual(ReLU())([-1, 2]).tolist() == [-1, 4]


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (
            lambda: Residual(Conv1d(1, 2, 3, padding=1, rng=0))(np.ones((1, 1, 4), np.float32)),
            ShapeError,
            "the branch makes shape (1, 2, 4) of x of shape (1, 1, 4), which must be alike; pad "
            'its layers, with padding="same" for example.',
        ),
        (
            lambda: Residual(Conv1d(1, 1, 3, rng=0)).predict(np.ones((1, 1, 4), np.float32)),
            ShapeError,
            "the branch makes shape (1, 1, 2) of x of shape (1, 1, 4), which must be alike; pad "
            'its layers, with padding="same" for example.',
        ),
        (lambda: Residual(3), ParameterError, "layers[0]=3 must be a Layer; pass layers only."),
        (
            lambda: Residual(ReLU())(np.ones(2, bool)),
            DTypeError,
            'x has dtype bool, layers need a real type; pass x.astype("float32") for example.',
        ),
    ],
)
def test_what_is_refused(use, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        use()


def test_a_gradient_is_like_the_output():
    net = Residual(ReLU())
    net(np.ones((2, 3)))
    with pytest.raises(ShapeError, match=r"^dy has shape \(3,\), must be that of y"):
        net.backward(np.ones(3))
