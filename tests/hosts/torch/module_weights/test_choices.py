"""Choices of modules: tconv or PyTorch, for each shape, and what reports say of it."""

import copy
import pickle

import pytest
import torch
from torch import nn

import tconv.torch
from tconv.torch import accelerate
from tconv.torch.module_weights import choices

pytestmark = pytest.mark.usefixtures("predicted")
SMALL, LARGE = torch.randn(1, 8, 4, 4), torch.randn(1, 8, 96, 96)


def model():
    torch.manual_seed(0)
    made = nn.Sequential(nn.Conv2d(8, 64, 3, padding=1), nn.ConvTranspose2d(64, 8, 4, 2, 1))
    return made.eval()


def test_each_shape_is_chosen_for():
    fast, plain = model(), model()
    report = accelerate(fast)
    assert str(report).count("not called yet") == 2
    with torch.no_grad():
        for x in (SMALL, LARGE, SMALL, LARGE):
            torch.testing.assert_close(fast(x), plain(x), rtol=1e-4, atol=1e-5)
    chosen = report.computed_by()["0"]
    assert chosen == {(1, 8, 4, 4): "PyTorch", (1, 8, 96, 96): "tconv"}
    assert "0: 1×8×4×4 by PyTorch, 1×8×96×96 by tconv, its weight packed once" in str(report)


def test_what_is_left_is_exactly_pytorchs():
    fast, plain = model(), model()
    accelerate(fast)
    with torch.no_grad():
        for _ in range(2):
            assert torch.equal(fast[0](SMALL), plain[0](SMALL))
    x = SMALL.clone().requires_grad_()
    found = torch.autograd.grad(fast[0](x).sum(), [x, *fast[0].parameters()])
    expected = torch.autograd.grad(plain[0](x).sum(), [x, *plain[0].parameters()])
    assert all(map(torch.equal, found, expected))


def test_gradients_and_threads_are_chosen_for_as_well():
    fast, before = model(), torch.get_num_threads()
    report = accelerate(fast)
    x = LARGE.clone().requires_grad_()
    try:
        for threads in (1, 2):
            torch.set_num_threads(threads)
            fast(x).square().mean().backward()
    finally:
        torch.set_num_threads(before)
    assert set(report.computed_by()["0"]) == {(1, 8, 96, 96)}
    assert x.grad.isfinite().all()


def test_what_is_left_in_training_is_chosen_anew_without_gradients(monkeypatch):
    monkeypatch.setattr(choices, "is_worth", lambda *given: not given[4])  # unless it learns
    fast, plain = model().train(), model().train()
    report = accelerate(fast)
    assert torch.equal(fast(LARGE), plain(LARGE))
    with torch.no_grad():
        torch.testing.assert_close(fast(LARGE), plain(LARGE), rtol=1e-4, atol=1e-5)
    assert set(report.computed_by()["0"].values()) == {"tconv"}


def test_calls_that_pytorch_alone_computes_are_noted():
    made = model().to(memory_format=torch.channels_last)
    report = accelerate(made, convolutions=True)
    with torch.no_grad():
        made[0](LARGE)
        made[1].bfloat16()(torch.ones(0, 64, 4, 4, dtype=torch.bfloat16))
    assert report.computed_by() == {
        "0": {(1, 8, 96, 96): "PyTorch"},
        "1": {(0, 64, 4, 4): "PyTorch"},
    }
    assert "not called yet" not in str(report)


def test_a_frozen_module_chooses_anew(monkeypatch):
    monkeypatch.setattr(choices, "is_worth", lambda *given: given[5])  # if it is frozen
    fast, plain = model(), model()
    report = accelerate(fast)
    with torch.no_grad():
        assert torch.equal(fast(LARGE), plain(LARGE))
        tconv.torch.freeze(fast)
        torch.testing.assert_close(fast(LARGE), plain(LARGE), rtol=1e-4, atol=1e-5)
    assert set(report.computed_by()["0"].values()) == {"tconv"}


def test_an_example_decides_at_once():
    fast, plain = model().train(), model()
    tiny = nn.Sequential(nn.Conv2d(8, 8, 3)).train()
    report = accelerate(tiny, example=SMALL)
    assert report.swapped == ()
    assert type(tiny[0]) is nn.Conv2d
    assert "PyTorch is predicted to be as fast for the example" in str(report)
    assert tiny.training
    report = accelerate(fast, example=(LARGE,))
    assert report.swapped == ("0", "1")
    assert report.computed_by()["0"] == {(1, 8, 96, 96): "tconv"}
    with torch.no_grad():
        torch.testing.assert_close(fast(LARGE), plain(LARGE), rtol=1e-4, atol=1e-5)


def test_an_example_changes_no_statistics():
    module = nn.Sequential(nn.Conv2d(8, 64, 3), nn.BatchNorm2d(64), nn.Dropout()).train()
    before, state = copy.deepcopy(module.state_dict()), torch.get_rng_state()
    accelerate(module, example=LARGE)
    assert all(torch.equal(a, b) for a, b in zip(before.values(), module.state_dict().values(),
                                                 strict=True))  # fmt: skip
    assert torch.equal(state, torch.get_rng_state())
    assert all(each.training for each in module.modules())


@pytest.mark.parametrize("example", [3, "x", (), (1, 2), [SMALL]])
def test_an_example_is_an_input(example):
    module = model()
    with pytest.raises(tconv.ParameterError, match=r"(?s)example=.* must be a tensor, or a tuple"):
        accelerate(module, example=example)
    assert type(module[0]) is nn.Conv2d


def test_an_example_that_the_model_refuses_leaves_it_as_it_was():
    module = model().train()
    with pytest.raises(RuntimeError, match="channels"):
        accelerate(module, example=torch.ones(1, 3, 8, 8))
    assert [type(each) for each in module] == [nn.Conv2d, nn.ConvTranspose2d]
    assert module.training


def test_copies_choose_anew():
    fast = model()
    report = accelerate(fast)
    with torch.no_grad():
        fast(SMALL)
        for twin in (copy.deepcopy(fast), pickle.loads(pickle.dumps(fast))):
            torch.testing.assert_close(twin(LARGE), fast(LARGE), rtol=1e-4, atol=1e-5)
    assert set(report.computed_by()["0"].values()) == {"PyTorch", "tconv"}
    assert report == pickle.loads(pickle.dumps(report))


class Wrapped(nn.Module):
    """A transposed convolution as codecs have it, in wrappers that are named for it."""

    def __init__(self):
        super().__init__()
        self.conv = nn.ConvTranspose1d(4, 4, 4, 2)

    def forward(self, x):
        return self.conv(x)[..., 1:-1]


class SConvTranspose1d(nn.Module):
    def __init__(self):
        super().__init__()
        self.convtr = Wrapped()

    def forward(self, x):
        return self.convtr(x)


def test_wrappers_are_no_layers():
    report = accelerate(nn.Sequential(SConvTranspose1d(), type("NormConvTranspose1d",
                                                              (Wrapped,), {})()))  # fmt: skip
    assert report.swapped == ("0.convtr.conv", "1.conv")
    assert report.left == {}
