"""PyTorch's transposed convolutions, computed by tconv in any model with one line.

>>> import torch
>>> model = torch.nn.Sequential(torch.nn.ConvTranspose2d(4, 2, 3))
>>> report = tconv.torch.accelerate(model)
"""

try:
    import torch as _torch  # noqa: F401
except ImportError:
    raise ImportError("tconv.torch needs PyTorch: pip install torch.") from None

from tconv.ops.dispatch import register
from tconv.torch.acceleration import Acceleration, accelerate, freeze, refresh, restore
from tconv.torch.autograd import contract_tensors
from tconv.torch.functional import conv_transpose1d, conv_transpose2d, conv_transpose3d
from tconv.torch.modules import ConvTranspose1d, ConvTranspose2d, ConvTranspose3d
from tconv.torch.tracing import Tracer

__all__ = [
    "Acceleration",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "Tracer",
    "accelerate",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "freeze",
    "refresh",
    "restore",
]

register("torch", contract_tensors)
