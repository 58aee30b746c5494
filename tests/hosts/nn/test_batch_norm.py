"""Folded layers, and layers with an activation, against PyTorch's modules in sequence."""

import numpy as np
import pytest
import torch

from tconv.arrays.activations import as_activation
from tconv.errors import ParameterError
from tconv.nn.batch_norm import fold_batch_norm
from tconv.nn.from_torch import from_torch

CASES = [
    (kind, rank, groups, bias)
    for kind in ("Conv", "ConvTranspose")
    for rank in (1, 2, 3)
    for groups, bias in ((1, True), (2, False), (3, True))
]


class Snake(torch.nn.Module):
    def forward(self, x):
        return x + torch.sin(1.5 * x) ** 2 / 1.5


ACTIVATIONS = {
    "relu": torch.nn.ReLU(),
    ("leaky_relu", 0.2): torch.nn.LeakyReLU(0.2),
    ("prelu", -0.3): torch.nn.LeakyReLU(-0.3),
    ("elu", 1.5): torch.nn.ELU(1.5),
    ("clip", -0.5, 0.25): torch.nn.Hardtanh(-0.5, 0.25),
    ("hard_sigmoid", 1 / 6, 0.5): torch.nn.Hardsigmoid(),
    "tanh": torch.nn.Tanh(),
    "sigmoid": torch.nn.Sigmoid(),
    "silu": torch.nn.SiLU(),
    "hard_swish": torch.nn.Hardswish(),
    "gelu": torch.nn.GELU(),
    ("gelu", "tanh"): torch.nn.GELU("tanh"),
    ("snake", 1.5): Snake(),
}


def tolerance_of(activation):
    """PyTorch 2.13 multiplies gradients of a Hardsigmoid by a sixth of float32."""
    near = 1e-6 if activation[0] == "hard_sigmoid" else 1e-12
    return {"rtol": near, "atol": near}


def modules(kind, rank, groups, bias, **options):
    """A convolution, and a normalisation that has seen something."""
    torch.manual_seed(rank)
    channels, kernel = 6, (3,) * rank
    make = getattr(torch.nn, f"{kind}{rank}d")
    module = make(channels, 2 * channels, kernel, 2, groups=groups, bias=bias, dtype=torch.float64)
    make = getattr(torch.nn, f"BatchNorm{rank}d")
    bn = make(2 * channels, dtype=torch.float64, **options)
    x = torch.randn(4, channels, *[7] * rank, dtype=torch.float64)
    bn(module(x))
    if bn.affine:
        torch.nn.init.normal_(bn.weight)
        torch.nn.init.normal_(bn.bias)
    return module, bn.eval(), x


@pytest.mark.parametrize(("kind", "rank", "groups", "bias"), CASES)
@pytest.mark.parametrize("affine", [True, False])
def test_a_folded_layer_is_both_modules(kind, rank, groups, bias, affine):
    module, bn, x = modules(kind, rank, groups, bias, affine=affine)
    folded = fold_batch_norm(from_torch(module), bn)
    expected = bn(module(x)).detach().numpy()
    np.testing.assert_allclose(folded(x.numpy()), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
@pytest.mark.parametrize("kind", ["Conv", "ConvTranspose"])
def test_an_activation_has_torchs_values_and_gradients(kind, activation):
    module, _, x = modules(kind, 2, 2, True)
    layer = from_torch(module)
    layer.activation = activation
    x.requires_grad_()
    y = ACTIVATIONS[activation](module(x))
    dy = torch.randn_like(y)
    y.backward(dy)
    found = layer(x.detach().numpy())
    near = tolerance_of(activation)
    np.testing.assert_allclose(found, y.detach().numpy(), **near)
    np.testing.assert_allclose(layer.backward(dy.numpy()), x.grad.numpy(), **near)
    np.testing.assert_allclose(layer.weight.gradient, module.weight.grad.numpy(), **near)
    np.testing.assert_allclose(layer.bias.gradient, module.bias.grad.numpy(), **near)


@pytest.mark.parametrize("activation", ACTIVATIONS, ids=str)
def test_at_kinks_and_far_away_it_is_torchs_too(activation):
    x = torch.tensor([-np.inf, -1e30, -9, -3, -0.5, 0, 0.25, 3, 9, 1e30], dtype=torch.float64)
    if activation[0] == "snake":
        x = x[2:-1]  # of large numbers the sine is as right with either rounding
    x.requires_grad_()
    y = ACTIVATIONS[activation](x)
    y.sum().backward()
    follows, found = as_activation(activation), x.detach().numpy().copy()
    follows.apply(found)
    np.testing.assert_allclose(found, y.detach().numpy(), rtol=1e-12, atol=1e-12)
    values = x.detach().numpy() if follows.needs_sums else found
    gradient = follows.pull_back(values, np.ones_like(found))[1:]
    np.testing.assert_allclose(gradient, x.grad.numpy()[1:], **tolerance_of(activation))


def test_what_is_in_training_or_keeps_no_statistics_is_refused():
    module, bn, _ = modules("ConvTranspose", 2, 1, True)
    layer = from_torch(module)
    with pytest.raises(ParameterError, match=r"^bn is in training, .* call bn\.eval\(\) first"):
        fold_batch_norm(layer, bn.train())
    plain = torch.nn.BatchNorm2d(12, track_running_stats=False).eval()
    with pytest.raises(ParameterError, match=r"^bn\.running_mean=None must be an array"):
        fold_batch_norm(layer, plain)
