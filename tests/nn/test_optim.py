"""Update rules step by step, and states from which an optimiser continues."""

import re

import numpy as np
import pytest

from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.nn.activations import LeakyReLU
from tconv.nn.conv import Conv1d, ConvTranspose1d
from tconv.nn.layer import Sequential
from tconv.nn.optim import SGD, Adam
from tconv.nn.parameter import Parameter

KINDS = [
    (SGD, {"lr": 0.5}),
    (SGD, {"lr": 0.5, "momentum": 0.5, "weight_decay": 0.25, "nesterov": True}),
    (Adam, {"lr": 0.5, "weight_decay": 0.25}),
]


def parameters(dtype="float64"):
    return [Parameter(np.array([1.0, -2.0], dtype), "a"), Parameter(np.ones((2, 1), dtype), "b")]


def take_steps(optimiser, count, start=0):
    for step in range(start, start + count):
        optimiser.zero_gradients()
        for n, parameter in enumerate(optimiser.parameters):
            parameter.gradient += (
                np.cos(step + n + np.arange(parameter.value.size))
                .reshape(parameter.value.shape)
                .astype(parameter.dtype)
            )
        optimiser.step()
    return [parameter.value.copy() for parameter in optimiser.parameters]


def test_gradient_descent():
    (a, _), optimiser = parameters(), None
    optimiser = SGD([a], lr=0.5)
    a.gradient = [2, 4]
    optimiser.step()
    optimiser.step()
    assert a.value.tolist() == [-1, -6]
    assert optimiser.steps == 2


def test_momentum():
    a, _ = parameters()
    optimiser = SGD([a], lr=0.5, momentum=0.5)
    a.gradient = [2, 4]
    for expected in ([0, -4], [-1.5, -7]):  # velocities (2, 4), (3, 6)
        optimiser.step()
        assert a.value.tolist() == expected


def test_nesterov_and_weight_decay():
    a, _ = parameters()
    optimiser = SGD([a], lr=0.5, momentum=0.5, weight_decay=1.0, nesterov=True)
    a.gradient = [2, 4]
    optimiser.step()  # gradient (3, 2), velocity the same, moved by 1.5 of it
    assert a.value.tolist() == [-1.25, -3.5]


def test_adam():
    a, _ = parameters()
    optimiser = Adam([a], lr=0.1, betas=(0.5, 0.75), eps=0.0)
    a.gradient = [2, -4]
    optimiser.step()
    np.testing.assert_allclose(a.value, [0.9, -1.9])  # by the learning rate, whatever the size
    a.gradient = [-2, -4]
    optimiser.step()
    mean = np.array([0.5 * 1 - 1, 0.5 * -2 - 2]) / (1 - 0.25)
    square = np.array([0.75 * 1 + 1, 0.75 * 4 + 4]) / (1 - 0.5625)
    np.testing.assert_allclose(a.value, [0.9, -1.9] - 0.1 * mean / np.sqrt(square))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_values_change_in_place_and_keep_their_type(kind, settings, dtype):
    found = parameters(dtype)
    values = [parameter.value for parameter in found]
    optimiser = kind(found, **settings)
    take_steps(optimiser, 3)
    for parameter, value in zip(found, values, strict=True):
        assert parameter.value is value
        assert value.dtype == dtype
    exact = take_steps(kind(parameters(), **settings), 3)
    tolerance = {"float16": 1e-2, "bfloat16": 1e-1}.get(dtype, 1e-5)
    for value, expected in zip(values, exact, strict=True):
        np.testing.assert_allclose(value.astype(float), expected, atol=tolerance)
    for name, array in optimiser.state_dict().items():
        assert "." not in name or array.dtype == dtype


@pytest.mark.parametrize(("kind", "settings"), KINDS)
def test_gradients_are_only_read(kind, settings):
    found = parameters()
    optimiser = kind(found, **settings)
    for parameter in found:
        parameter.gradient += 2.0
    optimiser.step()
    optimiser.step()
    assert all((parameter.gradient == 2).all() for parameter in found)
    optimiser.zero_gradients()
    assert all((parameter.gradient == 0).all() for parameter in found)


@pytest.mark.parametrize(("kind", "settings"), KINDS)
@pytest.mark.parametrize("before", [0, 1, 3])
def test_another_optimiser_goes_on(kind, settings, before):
    expected = take_steps(kind(parameters(), **settings), before + 2)
    first = kind(parameters(), **settings)
    values = take_steps(first, before)
    state = first.state_dict()
    again = parameters()
    for parameter, value in zip(again, values, strict=True):
        parameter.value = value
    second = kind(again, lr=0.125)
    second.load_state_dict(state)
    take_steps(first, 1, before)  # the state was a copy
    found = take_steps(second, 2, before)
    for value, wanted in zip(found, expected, strict=True):
        assert np.array_equal(value, wanted)
    assert repr(second) == repr(kind(parameters(), **settings))


@pytest.mark.parametrize("optimiser", [(SGD, {"lr": 0.02, "momentum": 0.9}), (Adam, {"lr": 0.02})])
def test_an_autoencoder_learns(optimiser):
    kind, settings = optimiser
    rng = np.random.default_rng(0)
    net = Sequential(
        Conv1d(1, 4, 4, stride=2, padding=1, dtype="float64", rng=rng),
        LeakyReLU(0.1),
        ConvTranspose1d(4, 1, 4, stride=2, padding=1, dtype="float64", rng=rng),
    )
    x = np.sin(np.arange(16) * rng.uniform(0.2, 0.8, (8, 1, 1)))
    training = kind(net.parameters(), **settings)
    losses = []
    for _ in range(150):
        gap = net(x) - x
        losses.append(np.mean(gap**2))
        training.zero_gradients()
        net.backward(2 * gap / gap.size)
        training.step()
    assert losses[-1] < 0.05 * losses[0]


STATE = SGD(parameters(), lr=1.0, momentum=0.5).state_dict()


@pytest.mark.parametrize(
    ("use", "error", "message"),
    [
        (
            lambda: SGD([], lr=1),
            ParameterError,
            "parameters must hold one Parameter or more, each of them once; pass "
            "layer.parameters().",
        ),
        (
            lambda: SGD(parameters()[:1] * 2, lr=1),
            ParameterError,
            "parameters must hold one Parameter or more, each of them once; pass "
            "layer.parameters().",
        ),
        (
            lambda: SGD([3], lr=1),
            ParameterError,
            "parameters[0]=3 must be a Parameter; pass layer.parameters().",
        ),
        (
            lambda: SGD(parameters(), lr=-1),
            ParameterError,
            "lr=-1 must be a finite number of at least 0; pass one.",
        ),
        (
            lambda: SGD(parameters(), lr=np.nan),
            ParameterError,
            "lr=nan must be a finite number of at least 0; pass one.",
        ),
        (
            lambda: SGD(parameters(), lr=1, nesterov=True),
            ParameterError,
            "nesterov=True must come with a momentum above 0; pass momentum=0.9 for example.",
        ),
        (
            lambda: SGD(parameters(), lr=1, momentum="0.9"),
            ParameterError,
            "momentum='0.9' must be a finite number of at least 0; pass one.",
        ),
        (
            lambda: Adam(parameters(), betas=0.9),
            ParameterError,
            "betas=0.9 must be a pair; pass (0.9, 0.999).",
        ),
        (
            lambda: Adam(parameters(), betas=(0.9, 1.0)),
            ParameterError,
            "betas[1]=1.0 must be a finite number of at least 0 and below 1; pass one.",
        ),
        (
            lambda: Adam(parameters(), eps=-1e-8),
            ParameterError,
            "eps=-1e-08 must be a finite number of at least 0; pass one.",
        ),
        (
            lambda: Adam(parameters()).load_state_dict(STATE),
            ParameterError,
            "state must be that of Adam for 2 parameters, but has missing: betas, eps; unexpected: "
            "momentum, nesterov; pass the state_dict of one.",
        ),
        (
            lambda: SGD(parameters(), 1).load_state_dict(STATE | {"2.velocity": np.ones(2)}),
            ParameterError,
            "state must be that of SGD for 2 parameters, but has unexpected: 2.velocity; pass the "
            "state_dict of one.",
        ),
        (
            lambda: SGD(parameters(), 1).load_state_dict(STATE | {"0.velocity": np.ones(3)}),
            ShapeError,
            "0.velocity has shape (3,), must be (2,); pass such an array.",
        ),
        (
            lambda: SGD(parameters(), 1).load_state_dict(STATE | {"0.velocity": [1j, 0]}),
            DTypeError,
            "0.velocity has dtype complex128, must be of real numbers; convert it.",
        ),
        (
            lambda: SGD(parameters(), 1).load_state_dict(STATE | {"steps": -1}),
            ParameterError,
            "steps=-1 must be at least 0; pass an integer of 0 or more.",
        ),
        (
            lambda: SGD(parameters(), 1).load_state_dict(STATE | {"lr": None}),
            ParameterError,
            "lr=None must be a finite number of at least 0; pass one.",
        ),
    ],
)
def test_exact_messages(use, error, message):
    with pytest.raises(error, match=f"^{re.escape(message)}$"):
        use()


@pytest.mark.parametrize("value", [memoryview(b"1"), b"1", True, [0.1], np.ones(3), None])
@pytest.mark.parametrize("name", ["lr", "weight_decay", "momentum", "eps"])
def test_a_setting_is_checked_whenever_it_is_set(name, value):
    make = Adam if name == "eps" else SGD
    parameters = [Parameter(np.ones(3))]
    with pytest.raises(ParameterError, match=f"^{name}=.* must be a finite number of at least 0"):
        make(parameters, **{"lr": 0.1, name: value})
    optimiser = make(parameters, lr=0.1)
    with pytest.raises(ParameterError, match=f"^{name}=.* must be a finite number of at least 0"):
        setattr(optimiser, name, value)
    optimiser.step()


@pytest.mark.parametrize("betas", [3, None, (0.9,), (0.9, 1), "ab"])
def test_betas_are_checked_when_they_are_set(betas):
    optimiser = Adam([Parameter(np.ones(3))])
    with pytest.raises(ParameterError, match=r"^betas"):
        optimiser.betas = betas


@pytest.mark.parametrize("state", [None, 3, [], "state", {1: 2}, [("lr", 1)]])
def test_a_state_is_a_mapping_of_names(state):
    with pytest.raises(ParameterError, match=r"^state"):
        SGD([Parameter(np.ones(3))], 0.1).load_state_dict(state)


@pytest.mark.parametrize("parameters", [None, 3, np.array(3), "w", ["w"]])
def test_parameters_are_several(parameters):
    with pytest.raises(ParameterError, match=r"^parameters"):
        SGD(parameters, 0.1)
