"""HOW A MODEL BECOMES FASTER: its transposed convolutions change their class, nothing else."""

from dataclasses import dataclass
from typing import Any

from torch import nn

from tconv.arguments import show
from tconv.errors import ParameterError
from tconv.torch import modules
from tconv.torch.tensors import is_served

__all__ = ["Acceleration", "accelerate", "restore"]

_OURS: dict[type, type] = {
    nn.ConvTranspose1d: modules.ConvTranspose1d,
    nn.ConvTranspose2d: modules.ConvTranspose2d,
    nn.ConvTranspose3d: modules.ConvTranspose3d,
}
_THEIRS = {ours: theirs for theirs, ours in _OURS.items()}


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
    parametrised weights; only their class becomes that of `tconv.torch` with the same name.

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
    for name, module in _as_module(model).named_modules():
        kind = getattr(module, "original_name", type(module).__name__)  # of a scripted module
        if not isinstance(module, tuple(_OURS)) and "ConvTranspose" not in str(kind):
            continue
        shown = name or str(kind)
        why = _why_not(module)
        if why:
            left[shown] = why
        else:
            module.__class__ = _swapped(type(module), _OURS)
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
    for name, module in _as_module(model).named_modules():
        theirs = _swapped(type(module), _THEIRS)
        if theirs is not None:
            modules.forget(module)
            module.__class__ = theirs
            restored.append(name or theirs.__name__)
    return tuple(restored)


def _as_module(model: Any) -> nn.Module:
    if not isinstance(model, nn.Module):
        raise ParameterError(f"model={show(model)} must be a torch.nn.Module; pass one.")
    return model


def _swapped(kind: type, table: dict[type, type]) -> Any:
    """The class to take instead; None if that would change what is computed.

    A parametrised module has a class of its own, which adds properties to the one it is made of.
    """
    if kind in table:
        return table[kind]
    (base, *others) = kind.__bases__
    if others or base not in table or kind.__name__ != f"Parametrized{base.__name__}":
        return None
    own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    return type(kind.__name__, (table[base],), own)


def _why_not(module: Any) -> str | None:
    """Why a module is left as it is; None if it is not."""
    kind = type(module)
    if kind in _THEIRS or _swapped(kind, _THEIRS) is not None:
        return "tconv computes it already"
    if any(map(nn.parameter.is_lazy, module.parameters())):
        return "its sizes are not known before its first call; accelerate after that"
    if _swapped(kind, _OURS) is None:
        return f"its class, {kind.__module__}.{kind.__qualname__}, may compute something else"
    if "forward" in vars(module):
        return "its forward was replaced"
    weights = list(module.parameters())
    if not is_served(*weights):
        found = weights[0]
        return f"its weight is {found.dtype} on {found.device}; tconv computes real numbers on cpu"
    return None
