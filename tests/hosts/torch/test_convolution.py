"""Modules Conv1d, 2d and 3d of tconv.torch: PyTorch's results and gradients for any setting."""

import copy

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

import tconv.torch
from strategies import draws
from tconv.torch import accelerate, restore

settings = st.fixed_dictionaries(
    {
        "kernel_size": st.integers(1, 4),
        "stride": st.integers(1, 3),
        "padding": st.integers(0, 3),
        "dilation": st.integers(1, 3),
        "groups": st.sampled_from([1, 1, 2]),
        "bias": st.booleans(),
        "padding_mode": st.sampled_from(["zeros", "zeros", "reflect", "replicate", "circular"]),
    }
)


def pair(rank, **options):
    """A module of tconv's and PyTorch's, with small integers as weights."""
    theirs = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1](4, 6, **options)
    with torch.no_grad():
        for parameter in theirs.parameters():
            parameter.copy_(torch.randint(-2, 3, parameter.shape))
    ours = copy.deepcopy(theirs)
    assert accelerate(ours).swapped == (type(theirs).__name__,)
    return ours, theirs


@draws()
@given(st.integers(1, 3), settings, st.sampled_from([torch.float32, torch.float64]), st.booleans())
def test_results_and_gradients_are_pytorchs(rank, options, dtype, is_last):
    ours, theirs = (each.to(dtype) for each in pair(rank, **options))
    x = torch.randint(-2, 3, (2, 4, *[10, 7, 8][:rank])).to(dtype)
    if is_last and rank > 1:
        x = x.to(memory_format=(torch.channels_last, torch.channels_last_3d)[rank - 2])
    with torch.no_grad():
        try:
            expected = theirs(x)
        except RuntimeError:  # an image smaller than the kernel
            with pytest.raises(RuntimeError):
                ours(x)
            return
        found = ours(x)
        assert torch.equal(found.round(), expected)
        torch.testing.assert_close(found, expected, rtol=1e-5, atol=1e-4)
        assert found.stride() == expected.stride()
    results = []
    for each in (ours, theirs):
        given = x.clone().requires_grad_()
        y = each(given)
        weights = torch.arange(y.numel(), dtype=dtype).reshape(y.shape) % 3 - 1
        results.append(torch.autograd.grad((y * weights).sum(), [given, *each.parameters()]))
    for found, expected in zip(*results, strict=True):
        torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("padding", ["same", "valid", (2, 1)])
@pytest.mark.parametrize("kernel", [(3, 5), (1, 2)])
@pytest.mark.filterwarnings("ignore:Using padding='same' with even:UserWarning")
def test_paddings_by_name(padding, kernel):
    ours, theirs = pair(2, kernel_size=kernel, padding=padding, dilation=(2, 1))
    x = torch.randint(-2, 3, (1, 4, 9, 8)).float()
    with torch.no_grad():
        torch.testing.assert_close(ours(x), theirs(x))


def test_what_pytorch_takes_or_refuses_is_the_same():
    ours, theirs = pair(2, kernel_size=3)
    for x in (torch.ones(4, 5, 5), torch.ones(0, 4, 5, 5), torch.ones(2, 4, 5, 5)[:, :, ::2]):
        assert torch.equal(ours(x), theirs(x))
    for x in (torch.ones(2, 3, 5, 5), torch.ones(4, 5), torch.ones(1, 4, 2, 2), torch.ones(
        1, 4, 5, 5, dtype=torch.float64
    )):  # fmt: skip
        messages = []
        for each in (ours, theirs):
            with pytest.raises(RuntimeError) as error:
                each(x)
            messages.append(str(error.value))
        assert messages[0] == messages[1]


def test_higher_derivatives_and_transforms():
    ours, theirs = (each.double() for each in pair(1, kernel_size=3, padding=1))
    x = torch.randn(2, 4, 6, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(ours, x)
    assert torch.autograd.gradgradcheck(ours, x)
    batch = torch.randn(3, 2, 4, 6, dtype=torch.float64)
    torch.testing.assert_close(torch.vmap(ours)(batch), torch.vmap(theirs)(batch))
    jacobians = [torch.func.jacrev(each)(batch[0]) for each in (ours, theirs)]
    torch.testing.assert_close(*jacobians)


def test_autocast_half_types_and_tracing_are_pytorchs():
    ours, theirs = pair(2, kernel_size=3)
    x = torch.randint(-2, 3, (1, 4, 8, 8)).float()
    with torch.no_grad():
        with torch.autocast("cpu", torch.bfloat16):
            assert torch.equal(ours(x), theirs(x))
            assert ours(x).dtype == torch.bfloat16
        assert torch.equal(ours.bfloat16()(x.bfloat16()), theirs.bfloat16()(x.bfloat16()))
        ours, theirs = ours.float(), theirs.float()
        traced = torch.fx.symbolic_trace(nn.Sequential(ours))
        assert [node.op for node in traced.graph.nodes][1] == "get_attr"
        torch.testing.assert_close(traced(x), theirs(x))
        exported = torch.export.export(ours, (x,)).module()
        torch.testing.assert_close(exported(x), theirs(x))


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_scripted_modules_are_pytorchs():
    ours, theirs = pair(2, kernel_size=3)
    x = torch.randint(-2, 3, (1, 4, 8, 8)).float()
    scripted = torch.jit.script(nn.Sequential(ours))
    with torch.no_grad():
        torch.testing.assert_close(scripted(x), theirs(x))


def test_restored_modules_are_pytorchs_and_parametrised_ones_stay():
    made = nn.Sequential(nn.utils.parametrizations.weight_norm(nn.Conv1d(4, 4, 3)))
    x = torch.randn(1, 4, 9)
    with torch.no_grad():
        expected = made(x)
        assert accelerate(made).swapped == ("0",)
        assert isinstance(made[0], tconv.torch.Conv1d)
        torch.testing.assert_close(made(x), expected)
        assert restore(made) == ("0",)
        assert torch.equal(made(x), expected)


def test_older_weight_norm_is_packed_once():
    made = []
    for _ in range(2):
        torch.manual_seed(0)
        with pytest.warns(FutureWarning, match="weight_norm"):
            made.append(torch.nn.utils.weight_norm(nn.Conv1d(64, 64, 3)).eval())
    module, twin = made
    report = accelerate(module)
    x = torch.randn(1, 64, 40)
    with torch.no_grad():
        for count in (1, 2):
            for _ in range(3):
                torch.testing.assert_close(module(x), twin(x), rtol=1e-4, atol=1e-5)
            assert report.packed() == {"Conv1d": count}
            for each in (module, twin):
                each.weight_v.data[:, 1] *= 2
        handle = module.register_forward_pre_hook(lambda m, _: [m.weight.mul_(2)].clear())
        found, expected = (each(x) - each.bias[:, None] for each in (module, twin))
        torch.testing.assert_close(found, 2 * expected, rtol=1e-4, atol=1e-4)
        handle.remove()
        torch.testing.assert_close(module(x), twin(x), rtol=1e-4, atol=1e-5)
    module.weight_g.requires_grad_()
    module(x).sum().backward()
    twin(x).sum().backward()
    torch.testing.assert_close(module.weight_v.grad, twin.weight_v.grad, rtol=1e-3, atol=1e-3)
