"""PyTorch's convolutions, transposed ones above all, computed by tconv with one line.

>>> import torch
>>> model = torch.nn.Sequential(torch.nn.ConvTranspose2d(4, 2, 3))
>>> report = tconv.torch.accelerate(model)
"""

try:
    import torch as _torch  # noqa: F401
except ImportError:
    raise ImportError("tconv.torch needs PyTorch: pip install torch.") from None

from importlib import import_module
from typing import TYPE_CHECKING, Any

from tconv.ops.dispatch import register
from tconv.torch.acceleration import Acceleration, accelerate, freeze, refresh, restore
from tconv.torch.autograd import contract_tensors
from tconv.torch.functional import conv_transpose1d, conv_transpose2d, conv_transpose3d
from tconv.torch.modules import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from tconv.torch.tracing import Tracer

if TYPE_CHECKING:
    from tconv.torch.compiling import CompilationReport, CompiledGraphReport, CompiledRegion, report
    from tconv.torch.streams import TorchStream, stream

__all__ = [
    "Acceleration",
    "CompilationReport",
    "CompiledGraphReport",
    "CompiledRegion",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
    "TorchStream",
    "Tracer",
    "accelerate",
    "conv_transpose1d",
    "conv_transpose2d",
    "conv_transpose3d",
    "freeze",
    "refresh",
    "report",
    "restore",
    "stream",
]

register("torch", contract_tensors)

_COMPILING = ("CompilationReport", "CompiledGraphReport", "CompiledRegion", "report")
_ROOMS = dict.fromkeys(_COMPILING, "compiling") | dict.fromkeys(
    ("TorchStream", "stream"), "streams"
)


def __getattr__(name: str) -> Any:
    """Import what needs Dynamo, which takes a second, when it is first asked for."""
    if name not in _ROOMS:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(f"tconv.torch.{_ROOMS[name]}"), name)
