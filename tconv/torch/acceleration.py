"""Acceleration of a model: its convolutions change their class, nothing else."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn

from tconv.errors import ParameterError
from tconv.geometry.arguments import as_flag
from tconv.messages import show
from tconv.ops.planned_call import Packings
from tconv.torch.interop import is_supported
from tconv.torch.module_weights.choices import Choices
from tconv.torch.modules import (
    TCONV_CLASS_OF,
    TORCH_CLASS_OF,
    TRANSPOSED,
    clear_weight_cache,
    restore_class,
    swapped_class,
    weight_cache_of,
)

__all__ = ["Acceleration", "accelerate", "freeze", "refresh", "restore"]


@dataclass(frozen=True)
class Acceleration:
    """Result of `accelerate`: names of the modules that were swapped, and why others were left.

    At its first call with inputs of a shape, a swapped module predicts whether tconv or PyTorch
    takes less time, and uses that one. Printed after a run, the report says what it chose.

    >>> print(Acceleration(("up",), {"odd": "why"}))
    1 of 2 convolutions may be computed by tconv
      up: not called yet
    left as it was:
      odd: why
    """

    swapped: tuple[str, ...]
    left: dict[str, str]
    packings: dict[str, Packings] = field(default_factory=dict, repr=False, compare=False)
    choices: dict[str, Choices] = field(default_factory=dict, repr=False, compare=False)

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

    def computed_by(self) -> dict[str, dict[tuple[int, ...], str]]:
        """Who computes each swapped module, "tconv" or "PyTorch", by the shapes of its inputs.

        >>> import torch
        >>> model = torch.nn.Sequential(torch.nn.Conv3d(32, 32, 3)).eval()
        >>> report = accelerate(model)
        >>> with torch.no_grad():
        ...     _ = model(torch.ones(1, 32, 16, 16, 16))
        >>> report.computed_by()
        {'0': {(1, 32, 16, 16, 16): 'tconv'}}
        """
        return {
            name: {
                tuple(shape): "tconv" if is_taken else "PyTorch"
                for shape, is_taken in list(each.by_shape.items())
            }
            for name, each in self.choices.items()
        }

    def __str__(self) -> str:
        total, packed = len(self.swapped) + len(self.left), self.packed()
        lines = [f"{len(self.swapped)} of {total} convolutions may be computed by tconv"]
        chosen = self.computed_by()
        for name in self.swapped:
            lines.append(f"  {name}: {_by(chosen.get(name, {}), packed.get(name, 0))}")
        if self.left:
            lines += ["left as it was:", *(f"  {name}: {why}" for name, why in self.left.items())]
        return "\n".join(lines)


def _by(chosen: dict[tuple[int, ...], str], packings: int) -> str:
    """Who computes a module, in words."""
    if not chosen:
        return "not called yet"
    names = set(chosen.values())
    if len(names) == 1:
        said = f"by {names.pop()}"
    else:
        said = ", ".join(f"{'×'.join(map(str, shape))} by {who}" for shape, who in chosen.items())
    if packings:
        said += f", its weight packed {'once' if packings == 1 else f'{packings} times'}"
    return said


def accelerate(
    model: nn.Module,
    *,
    frozen: bool = False,
    convolutions: bool = True,
    example: Any = None,
) -> Acceleration:
    """Let tconv compute the convolutions of a model, transposed or not, where it is faster.

    The modules stay the same objects, with the same parameters, buffers and hooks, and normalised
    and parametrised weights; only their class becomes the one of the same name in `tconv.torch`.
    For each shape they predict whether tconv or PyTorch takes less time, training included, and use
    that one. Results stay the same within rounding, except for a weight that is infinite or NaN: it
    makes NaN of more cells of its output channel than in PyTorch, at the border, or anywhere if
    Winograd's algorithm is chosen.

    Parameters
    ----------
    model : torch.nn.Module, which may itself be a convolution
    frozen : whether to `freeze` the model, too
    convolutions : whether Conv1d, Conv2d and Conv3d are accelerated, or ConvTranspose alone
    example : input of the model, a tensor or a tuple of its arguments: the model is called with it
        once, without gradients and in evaluation, and modules that gain nothing are left as they
        were

    Returns
    -------
    Acceleration : which modules were swapped, which were left, and why; from then on it counts how
        often weights are packed, and notes who computes, without holding the model

    >>> import torch
    >>> model = torch.nn.Sequential(torch.nn.ConvTranspose2d(64, 64, 4, 2, 1), torch.nn.ReLU())
    >>> report = accelerate(model)
    >>> with torch.no_grad():
    ...     y = model(torch.ones(1, 64, 32, 32))
    >>> print(report)
    1 of 1 convolutions may be computed by tconv
      0: by tconv, its weight packed once
    """
    frozen, convolutions = as_flag(frozen, "frozen"), as_flag(convolutions, "convolutions")
    found, left = dict[str, nn.Module](), dict[str, str]()
    for name, module in _as_module(model).named_modules():
        kind = str(getattr(module, "original_name", type(module).__name__))  # of a scripted module
        if not _is_layer(module, kind, convolutions):
            continue
        why = _reason_to_leave(module)
        if why:
            left[name or kind] = why
        else:
            module.__class__ = swapped_class(type(module), TCONV_CLASS_OF)
            found[name or kind] = module
    if frozen:
        freeze(model)
    if example is not None:
        try:
            _try(model, example)
        except BaseException:  # of the model, most likely
            for module in found.values():
                restore_class(module)
            raise
        for name, module in list(found.items()):
            chosen = weight_cache_of(module).choices.by_shape
            if chosen and not any(chosen.values()):
                restore_class(found.pop(name))
                left[name] = "PyTorch is predicted to be as fast for the example"
    caches = {name: weight_cache_of(module) for name, module in found.items()}
    return Acceleration(
        tuple(found),
        left,
        {name: cache.packings for name, cache in caches.items()},
        {name: cache.choices for name, cache in caches.items()},
    )


def _is_layer(module: nn.Module, kind: str, convolutions: bool) -> bool:
    """Whether a module is a convolution, and no wrapper around one."""
    if isinstance(module, tuple(TCONV_CLASS_OF)):
        return convolutions or isinstance(module, TRANSPOSED)
    has_own = any(True for _ in module.parameters(recurse=False))
    return "ConvTranspose" in kind and (has_own or not any(True for _ in module.children()))


def _try(model: nn.Module, example: Any) -> None:
    """Call a model once, in evaluation and without gradients."""
    arguments = example if isinstance(example, tuple) else (example,)
    if not any(isinstance(each, Tensor) for each in arguments):
        raise ParameterError(
            f"example={show(example)} must be a tensor, or a tuple of the model's arguments with "
            "one; pass an input of the model."
        )
    with _evaluating(model), torch.no_grad():
        model(*arguments)


@contextmanager
def _evaluating(model: nn.Module) -> Iterator[None]:
    """Put a model in evaluation, each module back into the mode that it had afterwards."""
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        for module, mode in modes:
            module.training = mode


def restore(model: nn.Module) -> tuple[str, ...]:
    """Let PyTorch compute every convolution of a model again; return the names of the modules.

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
