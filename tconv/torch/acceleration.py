"""HOW A MODEL BECOMES FASTER: its transposed convolutions change their class, nothing else."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from tconv.torch.modules import OURS, THEIRS, changed, release
from tconv.torch.tensors import is_served

__all__ = ["Acceleration", "accelerate", "restore"]


@dataclass(frozen=True)
class Acceleration:
    """What `accelerate` did: names of modules that were swapped, and why others were left.

    >>> print(Acceleration(("up",), {"odd": "why"}))
    1 of 2 transposed convolutions are computed by tconv
      up
    left as it was:
      odd: why
    """

    swapped: tuple[str, ...]
    left: dict[str, str]

    def __str__(self) -> str:
        total = len(self.swapped) + len(self.left)
        lines = [f"{len(self.swapped)} of {total} transposed convolutions are computed by tconv"]
        lines += [f"  {name}" for name in self.swapped]
        if self.left:
            lines += ["left as it was:", *(f"  {name}: {why}" for name, why in self.left.items())]
        return "\n".join(lines)


def accelerate(model: nn.Module) -> Acceleration:
    """Let tconv compute every ConvTranspose of a model, in place.

    The modules stay the objects that they are, with parameters, buffers, hooks, normalised and
    parametrised weights; only their class becomes that of `tconv.torch` with the same name. They
    compute what they did, but for a weight that is infinite or NaN: that makes NaN of more cells of
    its output channel, at the border, or anywhere where Winograd's algorithm is chosen.

    Parameters
    ----------
    model : torch.nn.Module, which may itself be a ConvTranspose

    Returns
    -------
    Acceleration : which were swapped, which were left, and why

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.ConvTranspose2d(4, 2, 3), torch.nn.ReLU())
    >>> print(accelerate(model))
    1 of 1 transposed convolutions are computed by tconv
      0
    """
    swapped, left = list[str](), dict[str, str]()
    for name, module in model.named_modules():
        kind = getattr(module, "original_name", type(module).__name__)  # of a scripted module
        if not isinstance(module, tuple(OURS)) and "ConvTranspose" not in str(kind):
            continue
        shown = name or str(kind)
        why = _why_not(module)
        if why:
            left[shown] = why
        else:
            module.__class__ = changed(type(module), OURS)
            swapped.append(shown)
    return Acceleration(tuple(swapped), left)


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
    restored = []
    for name, module in model.named_modules():
        theirs = release(module)
        if theirs is not None:
            restored.append(name or theirs.__name__)
    return tuple(restored)


def _why_not(module: Any) -> str | None:
    """Why a module is left as it is; None if it is not."""
    kind = type(module)
    if kind in THEIRS or changed(kind, THEIRS) is not None:
        return "tconv computes it already"
    if any(map(nn.parameter.is_lazy, module.parameters())):
        return "its sizes are not known before its first call; accelerate after that"
    if changed(kind, OURS) is None:
        return f"its class, {kind.__module__}.{kind.__qualname__}, may compute something else"
    if "forward" in vars(module):
        return "its forward was replaced"
    if vars(module).get("qconfig") is not None:
        return "its qconfig says that PyTorch is to quantise it"
    weights = [] if "_is_fsdp_managed_module" in vars(module) else [*module.parameters()]
    if weights and not is_served(*weights):  # those of FSDP are usual ones as long as they compute
        found = weights[0]
        return (
            f"its weight is a {type(found).__name__}, {found.dtype} on {found.device}; tconv "
            "computes plain tensors of real numbers on cpu"
        )
    return None
