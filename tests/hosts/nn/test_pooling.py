"""Pooling, its indices and unpooling against PyTorch's, except where windows overlap."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st
from torch.nn import functional

from tconv.errors import ShapeError
from tconv.nn import pooling
from tconv.nn.from_torch import from_torch
from tconv.ops.max_pool import max_pool, max_unpool

seeds = st.integers(0, 2**32 - 1)


def integers(rng, shape):
    return rng.integers(-4, 5, shape).astype(np.float64)


@st.composite
def pools(draw):
    rank = draw(st.integers(1, 3))
    axes = st.tuples(*[st.integers(1, 4)] * rank)
    kernel = draw(axes)
    return {
        "kernel_size": kernel,
        "stride": draw(st.none() | axes),
        "padding": tuple(draw(st.integers(0, k // 2)) for k in kernel),
        "dilation": draw(st.tuples(*[st.integers(1, 3)] * rank)),
        "ceil_mode": draw(st.booleans()),
    }, draw(st.tuples(*[st.integers(1, 9)] * rank))


def torch_pool(x, arguments):
    function = getattr(functional, f"max_pool{len(arguments['kernel_size'])}d")
    return function(x, **arguments, return_indices=True)


@given(pools(), seeds, st.sampled_from(["ties", "normal", "nan", "inf"]))
def test_max_pooling_its_switches_and_its_gradient_are_equal(case, seed, values):
    arguments, size = case
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 3, (2, 2, *size)).astype(np.float64)
    if values == "normal":
        x = rng.normal(size=x.shape)
    elif values == "nan":
        x[rng.random(x.shape) < 0.2] = np.nan
    elif values == "inf":
        x[rng.random(x.shape) < 0.6] = -np.inf
    x_torch = torch.from_numpy(x).requires_grad_()
    pool = pooling.MaxPool(**arguments)
    try:
        expected, indices = torch_pool(x_torch, arguments)
    except RuntimeError:
        with pytest.raises(ValueError, match=r"too small|holds padding only"):
            pool(x)
        return
    try:
        y = pool(x)
    except ShapeError:  # a dilated window on padding alone, of which PyTorch makes -inf
        assert np.isneginf(expected.detach().numpy()).any()
        return
    assert np.array_equal(y, expected.detach().numpy(), equal_nan=True)
    assert np.array_equal(pool.switches, indices.numpy())
    dy = integers(rng, y.shape)
    expected.backward(torch.from_numpy(dy))
    assert np.array_equal(pool.backward(dy), x_torch.grad.numpy())


@given(pools(), seeds)
def test_integers_and_samples_without_a_batch_pool_alike(case, seed):
    arguments, size = case
    x = np.random.default_rng(seed).integers(-3, 4, (3, *size))
    try:
        y, switches = max_pool(x, **arguments)
    except ValueError:
        assume(False)
    expected, indices = torch_pool(torch.from_numpy(x).double(), arguments)
    assert y.dtype == x.dtype
    assert np.array_equal(y, expected.numpy())
    assert np.array_equal(switches, indices.numpy())


@pytest.mark.parametrize("padding", [2, 3])
def test_too_much_padding_raises_where_torch_raises(padding):
    with pytest.raises(RuntimeError):
        functional.max_pool1d(torch.zeros(1, 1, 9), 3, padding=padding, return_indices=True)
    with pytest.raises(ValueError, match="half of kernel_size"):
        pooling.MaxPool1d(3, padding=padding)


@given(st.integers(1, 3), st.data(), seeds)
def test_unpooling_windows_that_do_not_overlap_is_equal(rank, data, seed):
    axes = st.tuples(*[st.integers(1, 3)] * rank)
    kernel, size = data.draw(axes), data.draw(st.tuples(*[st.integers(3, 7)] * rank))
    rng = np.random.default_rng(seed)
    x = torch.from_numpy(rng.normal(size=(2, 2, *size)))
    y, indices = torch_pool(x, {"kernel_size": kernel})
    y = y.requires_grad_()
    module = getattr(torch.nn, f"MaxUnpool{rank}d")(kernel)
    layer = from_torch(module)
    expected = module(y, indices, output_size=list(size))
    up = layer(y.detach().numpy(), indices.numpy(), output_size=size)
    assert np.array_equal(up, expected.detach().numpy())
    dy = integers(rng, up.shape)
    expected.backward(torch.from_numpy(dy))
    assert np.array_equal(layer.backward(dy), y.grad.numpy())


def test_overlapping_windows_add_where_torch_keeps_one():
    values, indices = torch.tensor([[[2.0, 3.0]]]), torch.tensor([[[1, 1]]])
    kept = functional.max_unpool1d(values, indices, 3, 1, output_size=(4,)).numpy()
    assert kept[0, 0, 1] in (2.0, 3.0)
    assert max_unpool(values.numpy(), indices.numpy(), (4,))[0, 0, 1] == 5.0


@given(st.integers(1, 3), st.data())
def test_unpooling_allows_the_sizes_that_torch_allows(rank, data):
    axes = st.tuples(*[st.integers(1, 3)] * rank)
    kernel, stride, size = data.draw(axes), data.draw(axes), data.draw(axes)
    wanted = data.draw(st.tuples(*[st.integers(1, 12)] * rank))
    x = np.zeros((1, 1, *size))
    indices = np.zeros(x.shape, np.int64)
    module = getattr(torch.nn, f"MaxUnpool{rank}d")(kernel, stride)
    try:
        expected = module(torch.from_numpy(x), torch.from_numpy(indices), list(wanted)).shape
    except ValueError:
        with pytest.raises(ValueError, match=r"output_size\[\d\]=\d+ cannot be"):
            from_torch(module)(x, indices, wanted)
    else:
        assert from_torch(module)(x, indices, wanted).shape == tuple(expected)
