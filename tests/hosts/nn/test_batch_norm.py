"""Folded layers, and layers with an activation, against PyTorch's modules in sequence."""

import numpy as np
import pytest
import torch

from tconv.errors import ParameterError
from tconv.nn.batch_norm import fold_batch_norm
from tconv.nn.from_torch import from_torch

CASES = [
    (kind, rank, groups, bias)
    for kind in ("Conv", "ConvTranspose")
    for rank in (1, 2, 3)
    for groups, bias in ((1, True), (2, False), (3, True))
]
ACTIVATIONS = {
    "relu": torch.nn.ReLU(),
    ("leaky_relu", 0.2): torch.nn.LeakyReLU(0.2),
    "tanh": torch.nn.Tanh(),
    "sigmoid": torch.nn.Sigmoid(),
}


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
    near = {"rtol": 1e-12, "atol": 1e-12}
    np.testing.assert_allclose(found, y.detach().numpy(), **near)
    np.testing.assert_allclose(layer.backward(dy.numpy()), x.grad.numpy(), **near)
    np.testing.assert_allclose(layer.weight.gradient, module.weight.grad.numpy(), **near)
    np.testing.assert_allclose(layer.bias.gradient, module.bias.grad.numpy(), **near)


def test_what_is_in_training_or_keeps_no_statistics_is_refused():
    module, bn, _ = modules("ConvTranspose", 2, 1, True)
    layer = from_torch(module)
    with pytest.raises(ParameterError, match=r"^bn is in training, .* call bn\.eval\(\) first"):
        fold_batch_norm(layer, bn.train())
    plain = torch.nn.BatchNorm2d(12, track_running_stats=False).eval()
    with pytest.raises(ParameterError, match=r"^bn\.running_mean=None must be an array"):
        fold_batch_norm(layer, plain)
