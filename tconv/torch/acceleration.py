"""Acceleration of a model: its transposed convolutions change their class, nothing else."""

from dataclasses import dataclass, field
from typing import Any

from torch import nn

from tconv.errors import ParameterError
from tconv.geometry.arguments import as_flag
from tconv.messages import show
from tconv.ops.planned_call import Packings
from tconv.torch.interop import is_supported
from tconv.torch.modules import (
    TCONV_CLASS_OF,
    TORCH_CLASS_OF,
    clear_weight_cache,
    restore_class,
    swapped_class,
    weight_cache_of,
)

__all__ = ["Acceleration", "accelerate", "freeze", "refresh", "restore"]


@dataclass(frozen=True)
class Acceleration:
    """Result of `accelerate`: names of the modules that were swapped, and why others were left.

    >>> print(Acceleration(("up",), {"odd": "why"}))
    1 of 2 transposed convolutions are computed by tconv
      up
    left as it was:
      odd: why
    """

    swapped: tuple[str, ...]
    left: dict[str, str]
    packings: dict[str, Packings] = field(default_factory=dict, repr=False, compare=False)

    def packed(self) -> dict[str, int]:
        """How often each weight has been packed so far: once, unless it or the sizes changed.

        If an image of another size needs another plan, the weight is packed for that, too.

        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.ConvTranspose2d(64, 64, 4, 2, 1)).eval()
        >>> report = accelerate(model)
        >>> for _ in range(3):
        ...     _ = model(torch.ones(1, 64, 8, 8))
        >>> model[0].weight.data[:, 1:] = 0
        >>> _ = model(torch.ones(1, 64, 8, 8))
        >>> report.packed()
        {'0': 2}
        """
        return {name: each.count for name, each in self.packings.items()}

    def __str__(self) -> str:
        total, packed = len(self.swapped) + len(self.left), self.packed()
        lines = [f"{len(self.swapped)} of {total} transposed convolutions are computed by tconv"]
        for name in self.swapped:
            count = packed.get(name)
            times = "once" if count == 1 else f"{count} times"
            lines.append(f"  {name}, its weight packed {times}" if count else f"  {name}")
        if self.left:
            lines += ["left as it was:", *(f"  {name}: {why}" for name, why in self.left.items())]
        return "\n".join(lines)


def accelerate(model: nn.Module, *, frozen: bool = False) -> Acceleration:
    """Let tconv compute every ConvTranspose of a model, in place.

    The modules stay the same objects, with parameters, buffers, hooks, normalised and parametrised
    weights; only their class becomes that of `tconv.torch` with the same name. They compute what
    they did, except for a weight that is infinite or NaN: that makes NaN of more cells of its
    output channel, at the border, or anywhere if Winograd's algorithm is chosen.

    Parameters
    ----------
    model : torch.nn.Module, which may itself be a ConvTranspose
    frozen : whether to `freeze` the model, too

    Returns
    -------
    Acceleration : which modules were swapped, which were left, and why; from then on it counts how
        often weights are packed, without holding the model

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.ConvTranspose2d(4, 2, 3), torch.nn.ReLU())
    >>> print(accelerate(model))
    1 of 1 transposed convolutions are computed by tconv
      0
    """
    frozen = as_flag(frozen, "frozen")
    swapped, left, packings = list[str](), dict[str, str](), dict[str, Packings]()
    for name, module in _as_module(model).named_modules():
        kind = getattr(module, "original_name", type(module).__name__)  # of a scripted module
        if not isinstance(module, tuple(TCONV_CLASS_OF)) and "ConvTranspose" not in str(kind):
            continue
        shown = name or str(kind)
        why = _reason_to_leave(module)
        if why:
            left[shown] = why
        else:
            module.__class__ = swapped_class(type(module), TCONV_CLASS_OF)
            swapped.append(shown)
            packings[shown] = weight_cache_of(module).packings
    if frozen:
        freeze(model)
    return Acceleration(tuple(swapped), left, packings)


def restore(model: nn.Module) -> tuple[str, ...]:
    """Let PyTorch compute every ConvTranspose of a model again; return the names of the modules.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.ConvTranspose2d(4, 2, 3))
    >>> _ = accelerate(model)
    >>> restore(model)
    ('0',)
    >>> type(model[0]) is torch.nn.ConvTranspose2d
    True
    """
    output_transforms = []
    for name, module in _as_module(model).named_modules():
        theirs = restore_class(module)
        if theirs is not None:
            output_transforms.append(name or theirs.__name__)
    return tuple(output_transforms)


def _as_module(model: Any) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise ParameterError(f"model={show(model)} must be a torch.nn.Module; pass one.")
    return model


def freeze(model: nn.Module, frozen: bool = True) -> tuple[str, ...]:
    """Stop reading whole weights to detect changes; return the names of the modules.

    By default every call reads the weight once. A frozen module still detects another parameter,
    other memory, and PyTorch's writes in place: optimisers, `load_state_dict`, initialisers. It
    does not detect writes through ``weight.data``, a NumPy array, or other libraries that share the
    memory: call `refresh` after those. Copies and pickled modules stay frozen.

    Parameters
    ----------
    model : torch.nn.Module, accelerated, or with modules of tconv's
    frozen : False undoes it, as does `restore`

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.ConvTranspose2d(4, 2, 3))
    >>> _ = accelerate(model)
    >>> freeze(model)
    ('0',)
    """
    frozen, found = as_flag(frozen, "frozen"), _served(model)
    for module in found.values():
        weight_cache_of(module).freeze(frozen)
    return tuple(found)


def refresh(model: nn.Module) -> tuple[str, ...]:
    """Let the next call of a model pack every weight again; return the names of the modules.

    A frozen model needs this after writes that it does not detect. Until the next call no packed
    weights are held.

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.ConvTranspose2d(16, 16, 4, bias=False)).eval()
    >>> _ = accelerate(model, frozen=True)
    >>> x = torch.ones(1, 16, 4, 4)
    >>> y = model(x)
    >>> _ = model[0].weight.data.mul_(2)
    >>> refresh(model)
    ('0',)
    >>> torch.equal(model(x), y * 2)
    True
    """
    found = _served(model)
    for module in found.values():
        clear_weight_cache(module)
    return tuple(found)


def _served(model: nn.Module) -> dict[str, nn.Module]:
    """Modules of tconv's classes and of classes derived from them, by name."""
    found = _as_module(model).named_modules()
    return {n or type(m).__name__: m for n, m in found if isinstance(m, tuple(TORCH_CLASS_OF))}


def _reason_to_leave(module: Any) -> str | None:
    """Why a module is left as it is; None if it can be swapped."""
    kind = type(module)
    if kind in TORCH_CLASS_OF or swapped_class(kind, TORCH_CLASS_OF) is not None:
        return "tconv computes it already"
    if any(map(nn.parameter.is_lazy, module.parameters())):
        return "its sizes are not known before its first call; accelerate after that"
    if swapped_class(kind, TCONV_CLASS_OF) is None:
        return f"its class, {kind.__module__}.{kind.__qualname__}, may compute something else"
    if "forward" in vars(module):
        return "its forward was replaced"
    if vars(module).get("qconfig") is not None:
        return "its qconfig says that PyTorch is to quantise it"
    weights = [] if "_is_fsdp_managed_module" in vars(module) else [*module.parameters()]
    if weights and not is_supported(*weights):  # FSDP's are plain tensors during a call
        found = weights[0]
        return (
            f"its weight is a {type(found).__name__}, {found.dtype} on {found.device}; tconv "
            "computes plain tensors of real numbers on cpu"
        )
    return None
