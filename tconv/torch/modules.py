"""WHAT A MODEL HOLDS: PyTorch's modules, computed by tconv."""

from typing import Any

import torch
from torch import Tensor, nn

from tconv.torch.functional import transpose
from tconv.torch.weights import Kept

__all__ = ["ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "forget", "kept_of", "leave"]


def _forward(module: Any, rank: int, input: Tensor, output_size: Any) -> Tensor:
    """What the module's own `forward` does, through `transpose`."""
    if module.padding_mode != "zeros":
        raise ValueError(f"Only `zeros` padding mode is supported for ConvTranspose{rank}d")
    extra = module.output_padding
    if output_size is not None:
        sizes = module.stride, module.padding, module.kernel_size, rank, module.dilation
        extra = tuple(module._output_padding(input, output_size, *sizes))
    kept = None if torch.compiler.is_compiling() else kept_of(module)
    weight = module.weight if kept is None else kept.weight(module)
    settings = module.stride, module.padding, extra, module.groups, module.dilation
    return transpose(rank, input, weight, module.bias, *settings, kept)


def kept_of(module: Any) -> Kept:
    """Where the module's weight is kept packed; one that was accelerated has none at first."""
    found: Kept | None = module.__dict__.get("_tconv_kept")
    if found is None:
        found = module.__dict__["_tconv_kept"] = Kept()
    return found


def forget(module: Any) -> None:
    """Let go of the packed weight."""
    kept_of(module).forget()


def leave(module: Any) -> None:
    """Leave nothing of tconv's in a module."""
    module.__dict__.pop("_tconv_kept", None)


class ConvTranspose1d(nn.ConvTranspose1d):
    """``torch.nn.ConvTranspose1d`` with its arguments, parameters and hooks, computed by tconv.

    >>> layer = ConvTranspose1d(1, 1, 3, stride=2)
    >>> layer(torch.ones(1, 1, 2)).shape, isinstance(layer, torch.nn.ConvTranspose1d)
    (torch.Size([1, 1, 5]), True)
    """

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """Return what PyTorch's module returns."""
        return _forward(self, 1, input, output_size)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        forget(self)  # of weights that move
        return super()._apply(fn, recurse)


class ConvTranspose2d(nn.ConvTranspose2d):
    """``torch.nn.ConvTranspose2d``; as `ConvTranspose1d`, of two spatial axes.

    >>> ConvTranspose2d(4, 2, 3, stride=2)
    ConvTranspose2d(4, 2, kernel_size=(3, 3), stride=(2, 2))
    """

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """Return what PyTorch's module returns."""
        return _forward(self, 2, input, output_size)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        forget(self)
        return super()._apply(fn, recurse)


class ConvTranspose3d(nn.ConvTranspose3d):
    """``torch.nn.ConvTranspose3d``; as `ConvTranspose1d`, of three spatial axes.

    >>> ConvTranspose3d(2, 1, 2)(torch.ones(2, 3, 3, 3)).shape
    torch.Size([1, 4, 4, 4])
    """

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """Return what PyTorch's module returns."""
        return _forward(self, 3, input, output_size)

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        forget(self)
        return super()._apply(fn, recurse)
