"""Modules ``nn.Conv1d`` to ``nn.ConvTranspose3d``, computed by tconv where that is faster."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.nn.modules.conv import _ConvTransposeNd

from tconv.torch.convolution import convolve
from tconv.torch.functional import transpose
from tconv.torch.module_weights.choices import kind_of_call
from tconv.torch.module_weights.packed_weights import WeightCache
from tconv.torch.scripting import refuse_scripting, script_as

__all__ = [
    "TCONV_CLASS_OF", "TORCH_CLASS_OF", "TRANSPOSED", "Conv1d", "Conv2d", "Conv3d",
    "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d",
    "clear_weight_cache", "restore_class", "swapped_class", "weight_cache_of",
]  # fmt: skip


def _is_left(module: Any, input: Any) -> bool:
    """Whether PyTorch computes such a call, as the module chose before."""
    if torch.compiler.is_compiling() or not isinstance(input, Tensor):
        return False
    cache = module.__dict__.get("_tconv_weight_cache")
    return cache is not None and cache.choices.left == kind_of_call(input)


def _convolve(module: Any, rank: int, input: Tensor) -> Tensor:
    """Compute the `forward` of a convolution."""
    cache, padding = weight_cache_of(module), module.padding
    weight = cache.weight(module)
    if module.padding_mode != "zeros":
        pads = module._reversed_padding_repeated_twice
        input, padding = functional.pad(input, pads, module.padding_mode), 0
    settings = module.stride, padding, module.dilation, module.groups
    y = convolve(rank, input, weight, module.bias, *settings, cache, _learns(module, weight))
    cache.choices.note_call(input)
    _release(module)
    return y


def _learns(module: Any, weight: Any) -> bool:
    """Whether the weight is about to change, by a step of training."""
    return module.training and torch.is_grad_enabled() and weight.requires_grad


def _release(module: Any) -> None:
    """Release the packed weight where FSDP gathers the weight for a call only, to save memory."""
    own = module.__dict__
    if "forward" in own or "_is_fsdp_managed_module" in own:
        clear_weight_cache(module)


def _forward(module: Any, rank: int, input: Tensor, output_size: Any) -> Tensor:
    """Compute the module's `forward` with `transpose`."""
    if module.padding_mode != "zeros":
        raise ValueError(f"Only `zeros` padding mode is supported for ConvTranspose{rank}d")
    extra = module.output_padding
    if output_size is not None:
        sizes = module.stride, module.padding, module.kernel_size, rank, module.dilation
        extra = output_padding(input, output_size, *sizes)
    cache = None if torch.compiler.is_compiling() else weight_cache_of(module)
    weight = module.weight if cache is None else cache.weight(module)
    settings = module.stride, module.padding, extra, module.groups, module.dilation
    learns = cache is not None and _learns(module, weight)
    y = transpose(rank, input, weight, module.bias, *settings, cache, learns)
    if cache is not None:
        cache.choices.note_call(input)
        _release(module)
    return y


def _refuse_output_size() -> Any:
    return refuse_scripting(
        "sizes that a traced model looks at in its call",
        "call tconv.torch.restore(model), trace and script it, and accelerate it again",
    )


@script_as(_refuse_output_size)
@torch.fx.wrap  # it reads sizes, which a symbolic trace does not know
def output_padding(input: Tensor, output_size: Any, *sizes: Any) -> tuple[int, ...]:
    """Return the output padding for an output size; `sizes` as PyTorch's own method takes them.

    >>> output_padding(torch.ones(1, 2, 3), [8], (2,), (0,), (3,), 1, (1,))
    (1,)
    """
    return tuple(_ConvTransposeNd._output_padding(None, input, output_size, *sizes))  # type: ignore[arg-type]


def weight_cache_of(module: Any) -> WeightCache:
    """Return the cache of the module's packed weight, made at its first call."""
    found: WeightCache | None = module.__dict__.get("_tconv_weight_cache")
    if found is None:
        found = module.__dict__["_tconv_weight_cache"] = WeightCache()
    return found


def clear_weight_cache(module: Any) -> None:
    """Release the packed weight."""
    weight_cache_of(module).clear()


def restore_class(module: Any) -> Any:
    """Give a module PyTorch's class again; return it, or None if the module already had it."""
    theirs = swapped_class(type(module), TORCH_CLASS_OF)
    if theirs is not None:
        module.__dict__.pop("_tconv_weight_cache", None)
        module.__class__ = theirs
    return theirs


def swapped_class(kind: type, table: dict[type, type]) -> Any:
    """Return the class to swap in; None if a swap would change what the module computes.

    PyTorch derives classes at run time: for a parametrised module, and for one that FSDP shards.
    """
    if kind in table:
        return table[kind]
    if kind is object:
        return None
    *others, base = kind.__bases__
    prefix = {(): "Parametrized", ("FSDPModule",): "FSDP"}.get(tuple(o.__name__ for o in others))
    if prefix is None or kind.__name__ != prefix + base.__name__:
        return None
    found = swapped_class(base, table)
    own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    return found and type(kind.__name__, (*others, found), own)


class _TConvModule(nn.Module):
    """Reactions of tconv's modules to moves, quantisation and scripting."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        clear_weight_cache(self)  # the weight moves or changes its type
        return super()._apply(fn, recurse)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "qconfig" and value is not None:
            restore_class(self)  # it will be quantised, and PyTorch quantises its own classes only

    def __prepare_scriptable__(self) -> Any:
        is_ours = type(self).forward in _FORWARDS
        if restore_class(self) is None and is_ours:  # a class that a user derived from tconv's
            base = next(kind for kind in type(self).__mro__ if kind in TORCH_CLASS_OF).__name__
            refuse_scripting(
                f"{type(self).__qualname__}, whose class is derived from tconv.torch.{base}",
                f"derive it from torch.nn.{base}",
            )
        return self  # whose `forward` TorchScript can read


class ConvTranspose1d(_TConvModule, nn.ConvTranspose1d):
    """``torch.nn.ConvTranspose1d`` with its arguments, parameters and hooks, computed by tconv.

    >>> layer = ConvTranspose1d(1, 1, 3, stride=2)
    >>> layer(torch.ones(1, 1, 2)).shape, isinstance(layer, torch.nn.ConvTranspose1d)
    (torch.Size([1, 1, 5]), True)
    """

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """Return what PyTorch's module returns."""
        if output_size is None and _is_left(self, input):
            return nn.ConvTranspose1d.forward(self, input)
        return _forward(self, 1, input, output_size)


class ConvTranspose2d(_TConvModule, nn.ConvTranspose2d):
    """``torch.nn.ConvTranspose2d``; as `ConvTranspose1d`, of two spatial axes.

    >>> ConvTranspose2d(4, 2, 3, stride=2)
    ConvTranspose2d(4, 2, kernel_size=(3, 3), stride=(2, 2))
    """

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """Return what PyTorch's module returns."""
        if output_size is None and _is_left(self, input):
            return nn.ConvTranspose2d.forward(self, input)
        return _forward(self, 2, input, output_size)


class ConvTranspose3d(_TConvModule, nn.ConvTranspose3d):
    """``torch.nn.ConvTranspose3d``; as `ConvTranspose1d`, of three spatial axes.

    >>> ConvTranspose3d(2, 1, 2)(torch.ones(2, 3, 3, 3)).shape
    torch.Size([1, 4, 4, 4])
    """

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """Return what PyTorch's module returns."""
        if output_size is None and _is_left(self, input):
            return nn.ConvTranspose3d.forward(self, input)
        return _forward(self, 3, input, output_size)


class Conv1d(_TConvModule, nn.Conv1d):
    """``torch.nn.Conv1d`` with its arguments, parameters and hooks, computed by tconv or PyTorch.

    >>> layer = Conv1d(1, 1, 3, stride=2)
    >>> layer(torch.ones(1, 1, 5)).shape, isinstance(layer, torch.nn.Conv1d)
    (torch.Size([1, 1, 2]), True)
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return what PyTorch's module returns."""
        if torch.compiler.is_compiling() or _is_left(self, input):
            return nn.Conv1d.forward(self, input)
        return _convolve(self, 1, input)


class Conv2d(_TConvModule, nn.Conv2d):
    """``torch.nn.Conv2d``; as `Conv1d`, of two spatial axes.

    >>> Conv2d(4, 2, 3, stride=2)
    Conv2d(4, 2, kernel_size=(3, 3), stride=(2, 2))
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return what PyTorch's module returns."""
        if torch.compiler.is_compiling() or _is_left(self, input):
            return nn.Conv2d.forward(self, input)
        return _convolve(self, 2, input)


class Conv3d(_TConvModule, nn.Conv3d):
    """``torch.nn.Conv3d``; as `Conv1d`, of three spatial axes.

    >>> Conv3d(2, 1, 2)(torch.ones(2, 3, 3, 3)).shape
    torch.Size([1, 2, 2, 2])
    """

    def forward(self, input: Tensor) -> Tensor:
        """Return what PyTorch's module returns."""
        if torch.compiler.is_compiling() or _is_left(self, input):
            return nn.Conv3d.forward(self, input)
        return _convolve(self, 3, input)


TCONV_CLASS_OF: dict[type, type] = {
    nn.Conv1d: Conv1d,
    nn.Conv2d: Conv2d,
    nn.Conv3d: Conv3d,
    nn.ConvTranspose1d: ConvTranspose1d,
    nn.ConvTranspose2d: ConvTranspose2d,
    nn.ConvTranspose3d: ConvTranspose3d,
}
TORCH_CLASS_OF: dict[type, type] = {ours: theirs for theirs, ours in TCONV_CLASS_OF.items()}
TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
"""PyTorch's classes of transposed convolutions, of which tconv's are derived."""
_FORWARDS = [ours.forward for ours in TORCH_CLASS_OF]  # type: ignore[attr-defined]
