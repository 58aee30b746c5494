"""Optimisers against PyTorch's: equal steps."""

import copy

import numpy as np
import pytest
import torch

from networks import torch_network
from tconv.nn import optim
from tconv.nn.from_torch import from_torch


@pytest.mark.parametrize(
    ("name", "settings"),
    [
        ("SGD", {"lr": 0.1}),
        ("SGD", {"lr": 0.1, "weight_decay": 0.05}),
        ("SGD", {"lr": 0.1, "momentum": 0.9}),
        ("SGD", {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.1, "nesterov": True}),
        ("Adam", {}),
        ("Adam", {"lr": 0.1, "betas": (0.5, 0.9), "eps": 1e-3, "weight_decay": 0.1}),
    ],
)
@pytest.mark.parametrize(("dtype", "tolerance"), [("float64", 1e-12), ("float32", 1e-5)])
def test_optimisers_take_equal_steps(name, settings, dtype, tolerance):
    rng = np.random.default_rng(3)
    module = torch_network().to(getattr(torch, dtype))
    net = from_torch(module)
    theirs = getattr(torch.optim, name)(module.parameters(), **settings)
    ours = getattr(optim, name)(net.parameters(), **settings)
    for _ in range(12):
        theirs.zero_grad()
        ours.zero_gradients()
        for parameter, tensor in zip(net.parameters(), module.parameters(), strict=True):
            gradient = rng.normal(size=parameter.shape).astype(dtype)
            parameter.gradient += gradient
            tensor.grad = torch.from_numpy(gradient)
        theirs.step()
        ours.step()
        for parameter, tensor in zip(net.parameters(), module.parameters(), strict=True):
            assert parameter.value.dtype == dtype
            expected = tensor.detach().numpy()
            np.testing.assert_allclose(parameter.value, expected, rtol=tolerance, atol=tolerance)


@pytest.mark.parametrize("optimiser", ["SGD", "Adam"])
def test_training_has_torchs_loss_curve(optimiser):
    rng = np.random.default_rng(4)
    module = torch_network().double()
    net = from_torch(copy.deepcopy(module))
    settings = {"lr": 0.01, "momentum": 0.9} if optimiser == "SGD" else {"lr": 0.01}
    theirs = getattr(torch.optim, optimiser)(module.parameters(), **settings)
    ours = getattr(optim, optimiser)(net.parameters(), **settings)
    for _ in range(20):
        x = rng.normal(size=(3, 1, 12, 12))
        expected = module(torch.from_numpy(x))
        loss = expected.square().mean()
        theirs.zero_grad()
        loss.backward()
        theirs.step()
        y = net(x)
        assert float(np.mean(y**2)) == pytest.approx(loss.item(), rel=1e-9)
        ours.zero_gradients()
        net.backward(2 * y / y.size)
        ours.step()
