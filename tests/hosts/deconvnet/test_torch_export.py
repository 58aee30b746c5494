"""`see` on PyTorch's modules: exported in memory, with the gradients of autograd."""

import numpy as np
import pytest
import torch
from torch import nn

import tconv
from tconv.errors import ParameterError, UnsupportedError


class Residual(nn.Module):
    """One ReLU used twice, a sum, and a concatenation."""

    def __init__(self):
        super().__init__()
        self.a, self.b = nn.Conv2d(3, 6, 3, padding=1), nn.Conv2d(6, 6, 3, padding=1)
        self.end, self.relu = nn.Conv2d(12, 4, 1), nn.ReLU()

    def forward(self, x):
        x = self.relu(self.a(x))
        y = self.relu(self.b(x) + x)
        return self.end(torch.cat([x, y], 1))


class Gated(nn.Module):
    """Squeeze and excitation, then a gated linear unit: two kinds of product."""

    def __init__(self):
        super().__init__()
        self.first, self.last = nn.Conv2d(3, 8, 3, padding=1), nn.Conv2d(8, 8, 3, padding=1)
        self.squeeze, self.excite = nn.Conv2d(8, 2, 1), nn.Conv2d(2, 8, 1)
        self.classes = nn.Linear(4, 4)

    def forward(self, x):
        x = nn.functional.silu(self.first(x))
        gate = self.excite(nn.functional.relu(self.squeeze(x.mean((2, 3), keepdim=True))))
        x = x * torch.sigmoid(gate)
        self.features = nn.functional.glu(self.last(x), 1)
        return self.classes(self.features.mean((2, 3)))


class Block(nn.Module):
    """ConvNeXt's block: depthwise, normalised over channels that are last, GELU, scaled."""

    def __init__(self):
        super().__init__()
        self.stem, self.depthwise = nn.Conv2d(3, 6, 2, 2), nn.Conv2d(6, 6, 3, padding=1, groups=6)
        self.norm, self.wide, self.narrow = nn.LayerNorm(6), nn.Linear(6, 12), nn.Linear(12, 6)
        self.end = nn.Conv2d(6, 4, 1)

    def forward(self, x):
        x = self.stem(x)
        y = self.norm(self.depthwise(x).permute(0, 2, 3, 1))
        y = self.narrow(nn.functional.gelu(self.wide(y))).permute(0, 3, 1, 2)
        return self.end(x + 0.5 * y)


def nets():
    torch.manual_seed(3)
    return {
        "overlapping pools": nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.ReLU(), nn.MaxPool2d(3, 2, ceil_mode=True),
            nn.Conv2d(6, 5, 3), nn.ReLU(), nn.MaxPool2d(3, 1, 1), nn.Conv2d(5, 4, 2),
        ),
        "groups and strides": nn.Sequential(
            nn.Conv2d(3, 6, 3, 2, groups=3), nn.ReLU(), nn.Conv2d(6, 6, 3, groups=6, padding=1),
            nn.ReLU6(), nn.Conv2d(6, 4, 1), nn.AvgPool2d(2, 1, 1),
        ),
        "dilation, upwards": nn.Sequential(
            nn.Conv2d(3, 6, 3, dilation=2, padding=2), nn.LeakyReLU(0.1),
            nn.ConvTranspose2d(6, 4, 4, 2, 1), nn.GELU(), nn.Conv2d(4, 4, 3),
            nn.Upsample(scale_factor=2, mode="bilinear"), nn.SiLU(),
        ),
        "residual": Residual(),
        "gates": Gated(),
        "channels last": Block(),
        "normalised in groups": nn.Sequential(
            nn.Conv2d(3, 6, 3), nn.GroupNorm(2, 6), nn.Hardswish(), nn.Conv2d(6, 4, 3),
            nn.InstanceNorm2d(4, affine=True), nn.SiLU(),
        ),
        "normalised, to classes": nn.Sequential(
            nn.Conv2d(3, 6, 3, bias=False), nn.BatchNorm2d(6), nn.ReLU(),
            nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Dropout(), nn.Linear(6, 4), nn.Tanh(),
        ),
    }  # fmt: skip


@pytest.mark.parametrize("name", nets())
def test_gradient_is_autograd(name):
    module = nets()[name].eval()
    for each in module.modules():
        if isinstance(each, nn.BatchNorm2d):
            each.running_mean.normal_()
            each.running_var.uniform_(0.5, 2)
    image = torch.randn(1, 3, 14, 13, requires_grad=True)
    names = [row.name for row in tconv.see_layers(exported(module, image), rule="gradient").rows]
    seen = tconv.see(
        module, image.detach().numpy()[0], names[-1], rule="gradient", feature=[0, 1, 2, 3],
        crop=False,
    )  # fmt: skip
    y = module(image)
    for tile in seen.tiles:
        unit = y[(0, *tile.unit)]
        assert tile.activation == pytest.approx(unit.item(), rel=1e-5, abs=1e-6)
        seed = torch.tensor(tile.activation)  # as ONNX Runtime rounds it
        (back,) = torch.autograd.grad(unit, image, seed, retain_graph=True)
        expected = back[0].numpy()
        gap = np.abs(tile.projection - expected).max()
        assert gap <= 1e-5 * np.abs(expected).max()


@pytest.mark.parametrize("target", [0, 3])
def test_grad_cam_is_that_of_autograd(target):
    module = nets()["gates"].eval()
    image = torch.randn(1, 3, 14, 13)
    seen = tconv.see(module, image.numpy()[0], target_class=target)
    score = module(image)[0, target]
    (slope,) = torch.autograd.grad(score, module.features)
    cam = torch.relu((slope.mean((2, 3), keepdim=True) * module.features).sum(1))[0]
    assert seen.tiles[0].activation == pytest.approx(score.item(), rel=1e-5)
    assert cam.max() > 0
    np.testing.assert_allclose(seen.cams[0], cam.detach().numpy(), rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize(
    ("name", "ops"),
    [("gates", "Mul"), ("residual", "Relu"), ("normalised in groups", "Mul"),
     ("dilation, upwards", "Mul Gelu")],
)  # fmt: skip
def test_a_module_is_listed_as_its_export_is(name, ops):
    module = nets()[name]
    listed = tconv.see_layers(module.train(), size=(14, 13))
    assert module.training
    rows = tconv.see_layers(exported(module, torch.zeros(1, 3, 14, 13))).rows
    assert [row.shape for row in listed.rows] == [row.shape for row in rows]
    (default,) = (row for row in listed.rows if row.name == listed.default)
    assert default.op in ops.split()
    assert tconv.see_layers(module).supposed == (224, 224)


def exported(module, image):
    from tconv.deconvnet.network.torch_export import export_module

    return export_module(module, tuple(image.shape))


def test_a_module_stays_as_it_was():
    module = nets()["normalised, to classes"].train()
    state = {name: value.clone() for name, value in module.state_dict().items()}
    assert tconv.see(module, np.ones((3, 9, 9), np.float32), top=1).layer
    assert module.training
    assert all(torch.equal(value, state[name]) for name, value in module.state_dict().items())


def test_modules_that_cannot_be_looked_at():
    with pytest.raises(ParameterError, match="must have a convolution of one or two axes"):
        tconv.see(nn.Linear(3, 3), np.ones((3, 9, 9), np.float32))

    class Broken(nn.Module):
        def __init__(self):
            super().__init__()
            self.conv = nn.Conv2d(3, 3, 3)

        def forward(self, x):
            raise RuntimeError("no way")

    with pytest.raises(UnsupportedError, match="PyTorch cannot export Broken: no way; "):
        tconv.see(Broken(), np.ones((3, 9, 9), np.float32))
