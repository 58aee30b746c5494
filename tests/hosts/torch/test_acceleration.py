"""Accelerated models: the same results and learning, and the original modules after restore."""

import copy
import io
import warnings

import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.ao.quantization import quantize_fx
from torch.nn.utils import parametrizations, parametrize, prune
from torch.utils.checkpoint import checkpoint

import tconv.torch
from bench.decoders import DECODERS, made
from tconv.torch import Acceleration, accelerate, restore

WIDTHS = {"hifigan": 64, "unet": 4, "dcgan": 8, "unet3d": 4, "masks": 32}
UPS = {"hifigan": 4, "unet": 4, "dcgan": 5, "unet3d": 3, "masks": 2}
each_model = pytest.mark.parametrize("name", DECODERS)


def small(name, dtype=torch.float32):
    """A narrow model of each kind, and less of its input than the benchmark has."""
    model, x = made(name, dtype, WIDTHS[name])
    shorter = {"hifigan": x[..., :6], "dcgan": x[:4], "masks": x[..., :8, :8]}
    return model, shorter.get(name, x[..., :32, :32])


# ---- published models ----------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("convolutions", [False, True], ids=["transposed", "all"])
@each_model
def test_models_compute_the_same(name, convolutions, dtype):
    model, x = small(name, dtype)
    twin, keys = copy.deepcopy(model).eval(), [*model.state_dict()]
    kinds = (nn.Conv1d, nn.Conv2d, nn.Conv3d) if convolutions else ()
    count = UPS[name] + sum(isinstance(each, kinds) for each in model.modules())
    report = accelerate(model, convolutions=convolutions)
    assert (len(report.swapped), report.left) == (count, {})
    assert [*model.state_dict()] == keys
    model.eval()
    with torch.no_grad():
        expected = twin(x)
        scale = expected.abs().max().item()
        for _ in range(2):
            torch.testing.assert_close(model(x), expected, rtol=0, atol=1e-5 * scale)
    copied = copy.deepcopy(model)
    restored = restore(model)
    assert restored == report.swapped
    with torch.no_grad():
        assert torch.equal(model(x), expected)
        torch.testing.assert_close(copied(x), expected, rtol=0, atol=1e-5 * scale)


def learn(model, x):
    """Errors of twenty steps towards a fixed result."""
    generator = torch.Generator().manual_seed(1)
    with torch.no_grad():
        wanted = torch.rand(model(x).shape, generator=generator, dtype=x.dtype)
    optimiser = torch.optim.Adam(model.parameters(), 1e-3)
    errors = []
    for _ in range(20):
        optimiser.zero_grad()
        error = ((model(x) - wanted) ** 2).mean()
        error.backward()
        optimiser.step()
        errors.append(error.item())
    return torch.tensor(errors)


@each_model
def test_models_learn_the_same(name):
    model, x = small(name)
    twin = copy.deepcopy(model)
    accelerate(model)
    found, expected = learn(model, x), learn(twin, x)
    assert expected[-1] < expected[0]
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=0)


# ---- what survives -------------------------------------------------------------------------------

X = torch.arange(2 * 4 * 5).reshape(2, 4, 5).float() % 7 - 3


def up(**options):
    torch.manual_seed(0)
    return nn.ConvTranspose1d(4, 6, 3, stride=2, **options)


def old_weight_norm(module):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)
        return torch.nn.utils.weight_norm(module)


class Doubled(nn.Module):
    def forward(self, weight):
        return 2 * weight


def registered(module):
    parametrize.register_parametrization(module, "weight", Doubled())
    return module


WEIGHTS = {
    "plain": lambda m: m,
    "weight norm": parametrizations.weight_norm,
    "weight norm of old": old_weight_norm,
    "spectral norm": parametrizations.spectral_norm,
    "parametrised": registered,
    "frozen": lambda m: m.requires_grad_(False),
    "in training": lambda m: m.train(),
    "double": lambda m: m.double().float(),
}


@pytest.mark.parametrize("change", WEIGHTS)
@pytest.mark.parametrize("first", [False, True])
def test_weights_of_every_making_survive(change, first):
    """Whether they are made before the module is accelerated, or after."""
    model, twin = (nn.Sequential(up()) for _ in range(2))
    if first:
        assert accelerate(model).swapped == ("0",)
    for each in (model, twin):
        torch.manual_seed(1)
        each[0] = WEIGHTS[change](each[0])
    if not first:
        assert accelerate(model).swapped == ("0",)
    assert model.state_dict().keys() == twin.state_dict().keys()
    for mode in (True, False):
        results = []
        for each in (model.train(mode), twin.train(mode)):
            x = X.clone().requires_grad_()
            y = each(x)
            y.square().sum().backward()
            results.append([y, x.grad, *(p.grad for p in each.parameters() if p.requires_grad)])
        for pair in zip(*results, strict=True):
            torch.testing.assert_close(*pair)
    assert restore(model) == ("0",)
    assert type(model[0]).__name__ == type(twin[0]).__name__
    assert type(model[0]).__mro__[-4:] == type(twin[0]).__mro__[-4:]
    with torch.no_grad():
        assert torch.equal(model(X), twin(X))


def test_parametrisations_can_be_removed_afterwards():
    model = nn.Sequential(parametrizations.weight_norm(up()))
    expected = model(X)
    accelerate(model)
    parametrize.remove_parametrizations(model[0], "weight")
    assert type(model[0]) is tconv.torch.ConvTranspose1d
    torch.testing.assert_close(model(X), expected)
    old = nn.Sequential(old_weight_norm(up()))
    accelerate(old)
    torch.nn.utils.remove_weight_norm(old[0])
    torch.testing.assert_close(old(X), expected)


def test_shared_modules_stay_shared_and_hooks_stay():
    shared, calls = nn.ConvTranspose1d(4, 4, 3), []
    model = nn.Sequential(shared, nn.ReLU(), nn.Sequential(shared))
    shared.register_forward_hook(lambda *_: calls.append("after"))
    shared.register_forward_pre_hook(lambda *_: calls.append("before"))
    shared.register_full_backward_hook(lambda *_: calls.append("back"))
    expected = model(X)
    del calls[:]
    assert accelerate(model).swapped == ("0",)
    assert model[0] is model[2][0] is shared
    y = model(X.clone().requires_grad_())
    torch.testing.assert_close(y, expected)
    y.sum().backward()
    assert calls == ["before", "after"] * 2 + ["back"] * 2


def test_a_model_may_be_one_layer():
    layer = up()
    assert accelerate(layer).swapped == ("ConvTranspose1d",)
    assert accelerate(layer).left == {"ConvTranspose1d": "tconv computes it already"}
    assert restore(layer) == ("ConvTranspose1d",)
    assert type(layer) is nn.ConvTranspose1d
    assert restore(layer) == ()


# ---- tools that put other classes there ----------------------------------------------------------


def quantisable(rank):
    """A model between the stubs of quantisation, its observers and its input."""
    torch.manual_seed(0)
    up = [nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d][rank - 1]
    model = nn.Sequential(
        quantization.QuantStub(), nn.Identity(), up(4, 3, 3, stride=2), quantization.DeQuantStub()
    ).eval()
    model.qconfig = quantization.QConfig(
        activation=quantization.HistogramObserver,
        weight=quantization.default_weight_observer,
    )
    return model, torch.randn(2, 4, *[5] * rank)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # PyTorch's, of all of this
@pytest.mark.filterwarnings("ignore::UserWarning")
@pytest.mark.parametrize("when", ["at first", "prepared", "converted"])
@pytest.mark.parametrize("is_in_training", [False, True])
@pytest.mark.parametrize("rank", [1, 2, 3])
def test_models_are_quantised_as_without_tconv(rank, is_in_training, when):
    found = []
    for moment in ("never", when):
        model, x = quantisable(rank)
        if is_in_training:
            model.train()
            model.qconfig = quantization.QConfig(
                activation=quantization.default_fake_quant,
                weight=quantization.default_weight_fake_quant,
            )
        if moment == "at first":
            assert accelerate(model).swapped == ("2",)
        prepare = quantization.prepare_qat if is_in_training else quantization.prepare
        prepared = prepare(model)
        if moment == "at first":
            assert type(model[2]) in tconv.torch.modules.TORCH_CLASS_OF  # the copy is another
        if moment == "prepared":
            assert "qconfig" in accelerate(prepared).left["2"]
        prepared(x)
        converted = quantization.convert(prepared.eval())
        if moment == "converted":
            assert [*accelerate(converted).left] == ["2"]
        assert "quantized" in type(converted[2]).__module__
        found.append(converted(x))
    assert torch.equal(*found)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_what_is_not_to_be_quantised_stays_fast():
    model, x = quantisable(2)
    model[0] = model[3] = nn.Identity()
    model[2].qconfig = None
    expected = model(x)
    accelerate(model)
    converted = quantization.convert(quantization.prepare(model))
    assert type(converted[2]) is tconv.torch.ConvTranspose2d
    torch.testing.assert_close(converted(x), expected)
    assert accelerate(nn.Sequential(nn.ConvTranspose1d(1, 1, 1))).swapped == ("0",)


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
def test_scripting_takes_pytorchs_classes():
    model = nn.Sequential(up(), nn.ReLU(), nn.Sequential(nn.ConvTranspose1d(6, 2, 3)))
    expected, layers = model(X), [model[0], model[2][0]]
    accelerate(model)
    model(X)
    scripted = torch.jit.script(model)
    assert torch.equal(scripted(X), expected)
    assert [model[0], model[2][0]] == layers
    assert {type(each) for each in layers} == {nn.ConvTranspose1d}
    assert not any("_tconv_weight_cache" in vars(each) for each in layers)
    assert accelerate(model).swapped == ("0", "2.0")
    torch.testing.assert_close(model(X), expected)


@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.filterwarnings("ignore::UserWarning")
def test_tools_that_know_exact_classes_only_are_served_by_restoring():
    model = nn.Sequential(nn.Identity(), nn.ConvTranspose1d(4, 3, 3), nn.BatchNorm1d(3)).eval()
    twin, x = copy.deepcopy(model), X
    accelerate(model)
    with pytest.raises(AssertionError, match="did not find fuser method"):
        quantization.fuse_modules(model, [["1", "2"]])
    mapping = quantization.get_default_qconfig_mapping("qnnpack")
    kinds = []
    for is_ours in (True, False):
        prepared = quantize_fx.prepare_fx(model, mapping, (x,))
        prepared(x)
        converted = quantize_fx.convert_fx(prepared)
        if is_ours:  # in float, of an x that is rounded to one of 256 numbers
            torch.testing.assert_close(converted(x), twin(x), rtol=0, atol=0.05)
        kinds.append([type(m).__module__ for m in converted.modules() if hasattr(m, "kernel_size")])
        restore(model)
    assert not any("quantized" in kind for kind in kinds[0])
    assert any("quantized" in kind for kind in kinds[1])
    fused = quantization.fuse_modules(model, [["1", "2"]])
    assert accelerate(fused).swapped == ("1",)
    torch.testing.assert_close(fused(x), twin(x))


def _emptied(model):
    state = {name: each.clone() for name, each in model.state_dict().items()}
    model(X)
    assert model.to("meta")(X.to("meta")).is_meta
    model.to_empty(device="cpu").load_state_dict(state)
    return model(X)


def _skipped(model):
    layer = torch.nn.utils.skip_init(type(model[0]), 4, 6, 3, stride=2)
    layer.load_state_dict(model[0].state_dict())
    return layer(X)


def _pruned(model):
    model(X)
    prune.l1_unstructured(model[0], "weight", amount=0.5)
    masked = model(X)
    prune.remove(model[0], "weight")
    return torch.stack([masked, model(X)])


def _checkpointed(model):
    x = X.clone().requires_grad_()
    checkpoint(model, x, use_reentrant=False).square().sum().backward()
    return torch.cat([x.grad.ravel(), *(each.grad.ravel() for each in model.parameters())])


def _averaged(model):
    mean = torch.optim.swa_utils.AveragedModel(model)
    for _ in range(2):
        mean.update_parameters(model)
        with torch.no_grad():
            model[0].weight.add_(1)
            mean(X)
    return mean(X)


def _saved(model):
    file = io.BytesIO()
    torch.save(model, file)
    file.seek(0)
    return torch.load(file, weights_only=False)(X)


def _called(model):
    doubled = {name: 2 * each for name, each in model.named_parameters()}
    return torch.func.functional_call(model, doubled, (X,)) + model(X)


TOOLS = [_emptied, _skipped, _pruned, _checkpointed, _averaged, _saved, _called]


@pytest.mark.parametrize("tool", TOOLS)
def test_tools_find_what_they_find_in_pytorchs_modules(tool):
    model = nn.Sequential(up(), nn.ReLU())
    twin = copy.deepcopy(model)
    accelerate(model)
    torch.testing.assert_close(tool(model), tool(twin))


# ---- what is left, and why -----------------------------------------------------------------------


class Derived(nn.ConvTranspose2d):
    def forward(self, x, output_size=None):
        return super().forward(x, output_size) + 1


def replaced():
    module = up()
    module.forward = lambda x: x
    return module


def to_be_quantised():
    module = up()
    module.qconfig = quantization.default_qconfig
    return module


class SomeTensor(torch.Tensor):
    pass


def of_another_class():
    module = up()
    module.weight = nn.Parameter(module.weight.detach().as_subclass(SomeTensor))
    return module


LEFT = {
    "may compute something else": lambda: Derived(1, 1, 1),
    "not known before its first call": lambda: nn.LazyConvTranspose2d(3, 2),
    "forward was replaced": replaced,
    "its qconfig says": to_be_quantised,
    "a SomeTensor, torch.float32 on cpu": of_another_class,
    "torch.complex64 on cpu": lambda: up(dtype=torch.complex64),
    "torch.float32 on meta": lambda: up(device="meta"),
    "ScriptModule": lambda: torch.jit.script(up()),
}


@pytest.mark.filterwarnings("ignore:.torch.jit:DeprecationWarning")
@pytest.mark.parametrize("why", LEFT)
def test_what_is_left_is_told_why(why):
    model = nn.Sequential(LEFT[why](), up(), nn.Conv1d(1, 1, 1))
    kind = type(model[0])
    report = accelerate(model)
    assert report.swapped == ("1", "2")
    assert [*report.left] == ["0"]
    assert why in report.left["0"]
    assert type(model[0]) is kind
    assert str(report) == (
        "2 of 3 convolutions may be computed by tconv\n  1: not called yet\n  2: not called yet\n"
        f"left as it was:\n  0: {report.left['0']}"
    )
    assert restore(model) == ("1", "2")


def test_what_was_lazy_is_accelerated_after_its_first_call():
    model = nn.Sequential(nn.LazyConvTranspose1d(3, 2))
    accelerate(model)
    expected = model(X)
    assert accelerate(model) == Acceleration(("0",), {})
    torch.testing.assert_close(model(X), expected)


def test_compiled_models_can_be_accelerated():
    model = nn.Sequential(up())
    compiled = torch.compile(model, backend="aot_eager")
    expected = compiled(X)
    assert accelerate(compiled).swapped == ("_orig_mod.0",)
    torch.testing.assert_close(compiled(X), expected)
