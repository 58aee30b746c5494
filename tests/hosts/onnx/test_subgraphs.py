"""A float64 network that PyTorch exports: PyTorch's outputs."""

import io

import numpy as np
import pytest
import torch
from torch import nn

from tconv.onnx import Session

pytestmark = pytest.mark.filterwarnings("ignore:.*:DeprecationWarning")


class UNet(nn.Module):
    """Two levels, with dilated and grouped convolutions and normalisations.

    ONNX keeps slopes and the like in float32: these are numbers that both types have.
    """

    def __init__(self, rank):
        super().__init__()
        convolution = (nn.Conv1d, nn.Conv2d, nn.Conv3d)[rank - 1]
        normalisation = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)[rank - 1]
        up = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)[rank - 1]

        def block(inputs, outputs):
            return nn.Sequential(
                convolution(inputs, outputs, 3, padding=1),
                normalisation(outputs, eps=2**-17),
                nn.ReLU(),
                convolution(outputs, outputs, 3, padding=2, dilation=2, groups=2),
                nn.LeakyReLU(0.25),
            )

        self.down, self.middle, self.out = block(2, 4), block(4, 4), block(8, 2)
        self.pool = (nn.MaxPool1d, nn.MaxPool2d, nn.MaxPool3d)[rank - 1](2)
        self.up = up(4, 4, 2, 2)

    def forward(self, x):
        seen = self.down(x)
        return self.out(torch.cat([seen, self.up(self.middle(self.pool(seen)))], 1))


@pytest.mark.parametrize("rank", [1, 2, 3])
def test_a_u_net_of_float64(rank):
    torch.manual_seed(rank)
    model = UNet(rank)
    x = torch.randn(2, 2, *[8] * rank, dtype=torch.float64)
    model.double()(x)  # running statistics that are not 0 and 1
    model.eval()
    file = io.BytesIO()
    torch.onnx.export(model, (x,), file, dynamo=False)
    session = Session(file.getvalue())
    (y,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    with torch.no_grad():
        np.testing.assert_allclose(y, model(x).numpy(), rtol=1e-12, atol=1e-13)
    nodes = session.report().nodes
    assert [node.operator for node in nodes].count("Conv") == 6
    assert all(node.computed_by == "tconv" for node in nodes)
    assert [node.folded for node in nodes].count(("LeakyRelu",)) == 3
