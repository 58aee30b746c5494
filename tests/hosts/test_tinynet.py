"""The tutorial's layers on arrays of another library: PyTorch, in CuPy's stead."""

import copy

import numpy as np
import pytest
import torch
from torch.nn import functional

from tconv.errors import DTypeError
from tconv.tinynet import Conv2D, Deconv2D

ARGUMENTS = ((2, 5, 4), 3, 3, 2, 2, 1, 1)  # input_dim, n_filters, h, w, stride, dilation, padding
INPUT = np.random.default_rng(0).normal(size=(4, 2, 5, 4))

each_kind = pytest.mark.parametrize("kind", [Conv2D, Deconv2D])


@each_kind
@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_the_parameters_follow_to_torch(kind, dtype):
    layer = kind("layer", *ARGUMENTS, rng=0)
    input = torch.asarray(INPUT, dtype=dtype)
    output = layer(input)
    found = [output, layer.backward(output)]
    found += [each for p in layer.parameters for each in (p.tensor, p.gradient)]
    for tensor in found:
        assert isinstance(tensor, torch.Tensor)
        assert tensor.dtype == dtype


@each_kind
def test_torch_and_numpy_agree(kind):
    ours = kind("layer", *ARGUMENTS, rng=0)
    theirs = copy.deepcopy(ours)
    outputs = [layer(each) for layer, each in ((ours, INPUT), (theirs, torch.asarray(INPUT)))]
    gradients = [ours.backward(outputs[0]), theirs.backward(outputs[1])]
    pairs = [outputs, gradients]
    pairs += [
        (a.gradient, b.gradient) for a, b in zip(ours.parameters, theirs.parameters, strict=True)
    ]
    for a, b in pairs:
        np.testing.assert_allclose(a, b.numpy(), rtol=1e-12, atol=1e-12)


@each_kind
def test_outputs_and_gradients_are_those_of_torch(kind):
    layer = kind("layer", *ARGUMENTS, rng=0)
    input = torch.asarray(INPUT)
    layer.bias.tensor = torch.asarray([1.0, 2.0, 3.0], dtype=torch.float64)
    output = layer(input)
    operands = [input, *(parameter.tensor for parameter in layer.parameters)]
    operands = [each.detach().clone().requires_grad_() for each in operands]
    function = functional.conv2d if kind is Conv2D else functional.conv_transpose2d
    expected = function(*operands, stride=2, padding=1)
    torch.testing.assert_close(output, expected)
    in_gradient = torch.linspace(-1, 1, output.numel(), dtype=torch.float64).reshape(output.shape)
    expected.backward(in_gradient)
    found = [layer.backward(in_gradient), *(parameter.gradient for parameter in layer.parameters)]
    for ours, theirs in zip(found, operands, strict=True):
        torch.testing.assert_close(ours, theirs.grad)


def test_the_parameters_come_back_to_numpy():
    layer = Deconv2D("up", *ARGUMENTS, rng=0)
    expected = layer(INPUT)
    layer(torch.asarray(INPUT))
    assert isinstance(layer.weight.tensor, torch.Tensor)
    output = layer(INPUT)
    assert isinstance(layer.weight.tensor, np.ndarray)
    assert np.array_equal(output, expected)


def test_the_parameters_follow_to_another_device():
    layer = Deconv2D("up", *ARGUMENTS)
    layer(torch.asarray(INPUT))
    output = layer(torch.asarray(INPUT).to("meta"))  # a device that every computer has
    assert output.device.type == "meta"
    assert output.shape == (4, *layer.out_dim)
    assert all(parameter.tensor.device.type == "meta" for parameter in layer.parameters)


def test_a_gradient_of_another_library_is_refused():
    layer = Deconv2D("up", *ARGUMENTS)
    output = layer(torch.asarray(INPUT))
    with pytest.raises(DTypeError, match="in_gradient is an array of numpy but input of torch"):
        layer.backward(output.numpy())
