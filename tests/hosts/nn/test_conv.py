"""Layers against PyTorch's modules, and layers made from modules."""

import numpy as np
import pytest
import torch
from hypothesis import assume, given
from hypothesis import strategies as st

from networks import torch_network
from tconv.errors import UnsupportedError
from tconv.nn import conv
from tconv.nn.activations import LeakyReLU, ReLU
from tconv.nn.from_torch import from_torch
from tconv.nn.init import init_torch

MODES = ["zeros", "circular", "reflect", "replicate"]
seeds = st.integers(0, 2**32 - 1)


def integers(rng, shape):
    """Small integers stored as floats: sums of their products are exact in any order."""
    return rng.integers(-4, 5, shape).astype(np.float64)


def with_integers(module, rng):
    module = module.double()
    for parameter in module.parameters():
        parameter.data = torch.from_numpy(integers(rng, tuple(parameter.shape)))
    return module


def assert_equal_gradients(layer, module, rng, x, **options):
    """Forward and every gradient, exactly."""
    x_torch = torch.from_numpy(x).requires_grad_()
    expected = module(x_torch, **options)
    y = layer(x, **options)
    assert np.array_equal(y, expected.detach().numpy())
    assert np.array_equal(layer.predict(x, **options), y)
    dy = integers(rng, y.shape)
    expected.backward(torch.from_numpy(dy))
    assert np.array_equal(layer.backward(dy), x_torch.grad.numpy())
    gradients = {name: each.gradient for name, each in layer.named_parameters()}
    wanted = dict(module.named_parameters(remove_duplicate=False))
    assert gradients.keys() == wanted.keys()
    for name, gradient in gradients.items():
        assert np.array_equal(gradient, wanted[name].grad.numpy()), name


@st.composite
def settings(draw, most_rank=3):
    rank = draw(st.integers(1, most_rank))
    axes = st.tuples(*[st.integers(1, 3)] * rank)
    groups = draw(st.integers(1, 3))
    return {
        "rank": rank,
        "in_channels": groups * draw(st.integers(1, 3)),
        "out_channels": groups * draw(st.integers(1, 3)),
        "groups": groups,
        "kernel_size": draw(axes),
        "stride": draw(axes),
        "dilation": draw(axes),
        "bias": draw(st.booleans()),
    }


@given(settings(), st.data(), seeds)
def test_transposed_convolutions_and_their_gradients_are_equal(given, data, seed):
    rank, rng = given.pop("rank"), np.random.default_rng(seed)
    most = [max(s, d) - 1 for s, d in zip(given["stride"], given["dilation"], strict=True)]
    extra = tuple(data.draw(st.integers(0, m)) for m in most)
    padding = tuple(data.draw(st.integers(0, 2)) for _ in most)
    size = [data.draw(st.integers(1, 5)) for _ in most]
    axes = zip(size, given["kernel_size"], given["stride"], given["dilation"], strict=True)
    bare = [(i - 1) * s + d * (k - 1) + 1 for i, k, s, d in axes]
    assume(all(o - 2 * p + e >= 1 for o, p, e in zip(bare, padding, extra, strict=True)))
    module = getattr(torch.nn, f"ConvTranspose{rank}d")(
        **given, padding=padding, output_padding=extra
    )
    module = with_integers(module, rng)
    batch = data.draw(st.sampled_from([(), (1,), (2,)]))
    x = integers(rng, (*batch, given["in_channels"], *size))
    assert_equal_gradients(from_torch(module), module, rng, x)


@given(settings(), st.data(), seeds)
def test_output_size_is_equal(given, data, seed):
    rank, rng = given.pop("rank"), np.random.default_rng(seed)
    module = getattr(torch.nn, f"ConvTranspose{rank}d")(
        **given, padding=data.draw(st.integers(0, 1))
    )
    module = with_integers(module, rng)
    x = integers(rng, (2, given["in_channels"], *[data.draw(st.integers(1, 4))] * rank))
    layer = from_torch(module)
    try:
        usual = tuple(module(torch.from_numpy(x)).shape[2:])
    except RuntimeError:
        assume(False)
    wanted = [
        o + data.draw(st.integers(0, s - 1)) for o, s in zip(usual, given["stride"], strict=True)
    ]
    if data.draw(st.booleans()):
        wanted = [2, given["out_channels"], *wanted]
    assert_equal_gradients(layer, module, rng, x, output_size=wanted)


@pytest.mark.filterwarnings("ignore:Using padding='same' with even kernel lengths:UserWarning")
@given(settings(), st.data(), seeds)
def test_convolutions_and_their_gradients_are_equal(given, data, seed):
    rank, rng = given.pop("rank"), np.random.default_rng(seed)
    mode = data.draw(st.sampled_from(MODES))
    padding = data.draw(st.sampled_from(["same", "valid", "ints"]))
    if padding == "same":
        given["stride"] = (1,) * rank
    elif padding == "ints":
        padding = tuple(data.draw(st.integers(0, 2)) for _ in range(rank))
    size = [data.draw(st.integers(4, 8)) for _ in range(rank)]  # 3: replicate then differs by rule
    module = getattr(torch.nn, f"Conv{rank}d")(**given, padding=padding, padding_mode=mode)
    module = with_integers(module, rng)
    x = integers(rng, (2, given["in_channels"], *size))
    try:
        module(torch.from_numpy(x))
    except RuntimeError:
        assume(False)
    assert_equal_gradients(from_torch(module), module, rng, x)


@pytest.mark.parametrize("name", ["float16", "bfloat16", "float32"])
@pytest.mark.parametrize("kind", ["ConvTranspose2d", "Conv2d"])
def test_other_types_are_copied_exactly(kind, name):
    module = getattr(torch.nn, kind)(3, 4, 3, stride=2, dtype=getattr(torch, name))
    layer = from_torch(module)
    assert layer.dtype.name == name
    rng = np.random.default_rng(0)
    x = integers(rng, (2, 3, 5, 6))
    y = layer(x.astype(layer.dtype))
    with torch.no_grad():
        expected = module(torch.from_numpy(x).to(module.weight.dtype)).float().numpy()
    assert y.dtype == layer.dtype
    np.testing.assert_allclose(y.astype(np.float32), expected, rtol=0.02, atol=0.02)


# ---- rectifiers and networks ---------------------------------------------------------------------


@pytest.mark.parametrize("slope", [0.0, 0.01, 0.5, 1.0, 2.0, -0.5])
@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_rectifiers_are_equal(slope, dtype):
    x = np.linspace(-3, 3, 25).astype(dtype)
    x = np.concatenate([x, np.array([np.nan, 0.0, 6e-8], dtype)])
    if slope > 0:
        x = np.concatenate([x, np.array([np.inf, -np.inf], dtype)])
    dy = np.arange(1, x.size + 1).astype(dtype)
    for layer, module in (
        (ReLU(), torch.nn.ReLU()),
        (LeakyReLU(slope), torch.nn.LeakyReLU(slope)),
    ):
        x_torch = torch.from_numpy(x.copy()).requires_grad_()
        expected = module(x_torch)
        assert np.array_equal(layer(x), expected.detach().numpy(), equal_nan=True)
        expected.backward(torch.from_numpy(dy))
        assert np.array_equal(layer.backward(dy), x_torch.grad.numpy())


def test_a_nested_network_is_equal_in_names_values_and_gradients():
    rng = np.random.default_rng(1)
    module = with_integers(torch_network(), rng)
    net = from_torch(module)
    names = {name: tuple(value.shape) for name, value in module.state_dict().items()}
    assert {name: value.shape for name, value in net.state_dict().items()} == names
    assert_equal_gradients(net, module, rng, integers(rng, (2, 1, 12, 10)))


def test_named_and_shared_modules_stay_named_and_shared():
    shared = torch.nn.Conv1d(2, 2, 3, padding=1)
    module = torch.nn.Sequential()
    for name, part in (("first", shared), ("rectify", torch.nn.ReLU()), ("last", shared)):
        module.add_module(name, part)
    rng = np.random.default_rng(2)
    with_integers(module, rng)
    net = from_torch(module)
    assert net[0] is net[2]
    assert net.state_dict().keys() == module.state_dict().keys()
    assert len(net.parameters()) == 2
    assert_equal_gradients(net, module, rng, integers(rng, (1, 2, 6)))


def test_values_are_copies():
    module = torch.nn.Conv1d(1, 1, 1)
    layer = from_torch(module)
    before = layer.weight.value.copy()
    module.weight.data += 1
    assert np.array_equal(layer.weight.value, before)


def test_the_representations_are_torchs():
    module = torch.nn.Sequential(
        torch.nn.Conv2d(1, 2, 3, padding=1, groups=1),
        torch.nn.ConvTranspose2d(2, 4, (3, 4), stride=2, output_padding=1, groups=2, bias=False),
        torch.nn.Sequential(torch.nn.LeakyReLU(0.1), torch.nn.Conv1d(2, 2, 3, dilation=2)),
    )
    assert repr(from_torch(module)) == repr(module)


class _Derived(torch.nn.Conv2d):
    pass


@pytest.mark.parametrize(
    ("module", "words"),
    [
        (torch.nn.BatchNorm2d(2), r"module is torch\.nn\.modules\.batchnorm\.BatchNorm2d"),
        (torch.nn.Sequential(torch.nn.ReLU(), torch.nn.Linear(2, 2)), r"module\[1\] is .*Linear"),
        (torch.nn.LazyConv2d(2, 3), "LazyConv2d"),
        (_Derived(1, 1, 1), "_Derived"),
    ],
)
def test_other_modules_are_refused(module, words):
    with pytest.raises(UnsupportedError, match=words):
        from_torch(module)


def test_normalised_weights_are_refused():
    module = torch.nn.utils.parametrizations.weight_norm(torch.nn.Conv1d(1, 1, 3))
    with pytest.raises(UnsupportedError, match="ParametrizedConv1d"):
        from_torch(module)
    hooked = torch.nn.Conv1d(1, 1, 3)
    hooked.register_forward_hook(lambda *_: None)
    with pytest.raises(UnsupportedError, match="with hooks"):
        from_torch(hooked)


@pytest.mark.parametrize("kind", ["ConvTranspose2d", "Conv2d"])
def test_the_initialiser_torch_has_torchs_scale(kind):
    module = getattr(torch.nn, kind)(8, 12, 5, stride=2, groups=4)
    layer = getattr(conv, kind)(8, 12, 5, stride=2, groups=4, initialiser="torch", rng=0)
    bound = 1 / np.sqrt(module.weight.shape[1] * 25)
    for name in ("weight", "bias"):
        ours = getattr(layer, name).value
        theirs = getattr(module, name).detach().numpy()
        assert ours.shape == theirs.shape
        for values in (ours, theirs):
            assert abs(values).max() <= bound
        if name == "weight":
            assert 0.9 < ours.std() / theirs.std() < 1.1
    assert abs(init_torch((64, 8, 5, 5), rng=1)).max() > 0.99 / np.sqrt(8 * 25)
