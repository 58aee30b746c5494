"""WHAT A WEIGHT IS MADE OF by PyTorch's weight norm, where nobody else has a say in it."""

from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter
from torch.nn.modules import module as of_modules
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _WeightNorm

from tconv.torch.interop import is_served

__all__ = ["made_anew", "parts_of"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


def parts_of(module: Any) -> tuple[Parameter, Parameter, int] | None:
    """The norms and directions that a module's weight is made of, and the axis of the norms.

    None if it is made otherwise, if gradients are to pass through it, or if somebody could notice
    that it is not made: hooks, modes and transforms.

    >>> from torch.nn.utils.parametrizations import weight_norm
    >>> layer = weight_norm(torch.nn.ConvTranspose1d(2, 3, 4))
    >>> parts_of(layer)
    >>> with torch.no_grad():
    ...     [part.shape for part in parts_of(layer)[:2]]
    [torch.Size([2, 1, 1]), torch.Size([2, 3, 4])]
    """
    made = _of_weight(module)
    if made is None or _is_watched():
        return None
    if made.is_tensor or made.ntensors != 2 or len(made) != 1 or _does_more(made):
        return None
    norm = made[0]
    if type(norm) is not _WeightNorm or _does_more(norm):
        return None
    parts = made.original0, made.original1
    if (
        not all(type(each) is Parameter for each in parts)
        or not is_served(*parts)
        or any(each.is_inference() or each.is_shared() for each in parts)
        or (torch.is_grad_enabled() and any(each.requires_grad for each in parts))
    ):
        return None
    return *parts, norm.dim


def made_anew(module: Any) -> Tensor:
    """The module's weight, which knows nothing of gradients but may take part in them."""
    with torch.inference_mode(False), torch.no_grad():
        weight: Tensor = module.weight
    return weight


def _of_weight(module: Any) -> Any:
    """How a parametrised weight is made, by a class that PyTorch made for it; None for others."""
    kind = type(module)
    base = kind.__bases__[0]
    if (
        kind.__name__ != f"Parametrized{base.__name__}"
        or type(vars(kind).get("weight")) is not property
    ):
        return None
    found = module.parametrizations["weight"]
    return found if type(found) is parametrize.ParametrizationList else None


def _is_watched() -> bool:
    """Whether somebody follows what is done to tensors, or decides how it is done."""
    return bool(
        torch._C._len_torch_function_stack()
        or torch._C._are_functorch_transforms_active()
        or torch.is_autocast_enabled("cpu")
        or forward_ad._current_level >= 0
        or parametrize._cache_enabled
    )


def _does_more(module: Any) -> bool:
    """Whether a call of a module does more than its class says."""
    own = vars(module)
    return (
        "forward" in own
        or any(own[name] for name in _HOOKS)
        or any(getattr(of_modules, f"_global{name}") for name in _HOOKS)
    )
