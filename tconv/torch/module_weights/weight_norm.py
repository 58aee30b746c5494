"""Recognition of PyTorch's weight norm, both kinds of it, whose weight can be cached."""

from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.nn import Parameter
from torch.nn.modules import module as of_modules
from torch.nn.utils import parametrize
from torch.nn.utils.parametrizations import _WeightNorm
from torch.nn.utils.weight_norm import WeightNorm

from tconv.torch.interop import is_supported

__all__ = ["compute_weight", "weight_norm_originals"]

_HOOKS = ("_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks")


class NormalisedParts(NamedTuple):
    """Norms and directions of a weight, the axis of the norms, and whether the weight is there.

    The older kind of weight norm computes it in a hook before each call.
    """

    norms: Parameter
    directions: Parameter
    axis: int
    is_computed: bool


def weight_norm_originals(module: Any) -> NormalisedParts | None:
    """Return the norms and directions of a weight-normalised weight.

    None for other weights, if gradients flow through the weight, or if skipping its computation
    could be noticed: by hooks, modes or transforms.

    >>> from torch.nn.utils.parametrizations import weight_norm
    >>> layer = weight_norm(torch.nn.ConvTranspose1d(2, 3, 4))
    >>> weight_norm_originals(layer)
    >>> with torch.no_grad():
    ...     [part.shape for part in weight_norm_originals(layer)[:2]]
    [torch.Size([2, 1, 1]), torch.Size([2, 3, 4])]
    """
    found = _of_hook(module) or _of_parametrization(module)
    if found is None or _is_intercepted():
        return None
    parts = found[:2]
    if (
        not all(type(each) is Parameter for each in parts)
        or not is_supported(*parts)
        or any(each.is_inference() or each.is_shared() for each in parts)
        or (torch.is_grad_enabled() and any(each.requires_grad for each in parts))
    ):
        return None
    return found


def compute_weight(module: Any, is_computed: bool = False) -> Tensor:
    """Compute the module's weight, without autograd history but usable in autograd.

    One that a hook has computed is copied: others may have it, and write to it.
    """
    with torch.inference_mode(False), torch.no_grad():
        weight: Tensor = module.weight
        return weight.clone() if is_computed else weight


def _of_hook(module: Any) -> NormalisedParts | None:
    """The parts of ``torch.nn.utils.weight_norm``, if its hook is the last one before a call."""
    hooks = list(vars(module).get("_forward_pre_hooks", {}).values())
    if not hooks or type(hooks[-1]) is not WeightNorm or hooks[-1].name != "weight":
        return None
    return NormalisedParts(module.weight_g, module.weight_v, hooks[-1].dim, True)


def _of_parametrization(module: Any) -> NormalisedParts | None:
    """The parts of ``torch.nn.utils.parametrizations.weight_norm``."""
    made = _weight_parametrization(module)
    if made is None or made.is_tensor or made.ntensors != 2 or len(made) != 1 or _has_hooks(made):
        return None
    norm = made[0]
    if type(norm) is not _WeightNorm or _has_hooks(norm):
        return None
    return NormalisedParts(made.original0, made.original1, norm.dim, False)


def _weight_parametrization(module: Any) -> Any:
    """Parametrizations of a module's weight, if its class is PyTorch's; None for others."""
    kind = type(module)
    base = kind.__bases__[0]
    if (
        kind.__name__ != f"Parametrized{base.__name__}"
        or type(vars(kind).get("weight")) is not property
    ):
        return None
    found = module.parametrizations["weight"]
    return found if type(found) is parametrize.ParametrizationList else None


def _is_intercepted() -> bool:
    """Whether a mode, a transform, autocast or forward-mode autograd is active."""
    return bool(
        torch._C._len_torch_function_stack()
        or torch._C._are_functorch_transforms_active()
        or torch.is_autocast_enabled("cpu")
        or forward_ad._current_level >= 0
        or parametrize._cache_enabled
    )


def _has_hooks(module: Any) -> bool:
    """Whether a call of a module runs hooks or a replaced `forward`."""
    own = vars(module)
    return (
        "forward" in own
        or any(own[name] for name in _HOOKS)
        or any(getattr(of_modules, f"_global{name}") for name in _HOOKS)
    )
