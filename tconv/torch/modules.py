"""WHAT A MODEL HOLDS: PyTorch's modules, computed by tconv."""

from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.modules.conv import _ConvTransposeNd

from tconv.torch.functional import transpose
from tconv.torch.packed_weights import Kept
from tconv.torch.scripting import read_as, refuse

__all__ = [
    "OURS", "THEIRS", "ConvTranspose1d", "ConvTranspose2d", "ConvTranspose3d", "changed", "forget",
    "kept_of", "release",
]  # fmt: skip


def _forward(module: Any, rank: int, input: Tensor, output_size: Any) -> Tensor:
    """What the module's own `forward` does, through `transpose`."""
    if module.padding_mode != "zeros":
        raise ValueError(f"Only `zeros` padding mode is supported for ConvTranspose{rank}d")
    extra = module.output_padding
    if output_size is not None:
        sizes = module.stride, module.padding, module.kernel_size, rank, module.dilation
        extra = output_padding(input, output_size, *sizes)
    kept = None if torch.compiler.is_compiling() else kept_of(module)
    weight = module.weight if kept is None else kept.weight(module)
    settings = module.stride, module.padding, extra, module.groups, module.dilation
    y = transpose(rank, input, weight, module.bias, *settings, kept)
    if kept is not None:
        own = module.__dict__
        if "forward" in own or "_is_fsdp_managed_module" in own:
            forget(module)  # of a weight that comes for a call and goes after it, to save memory
    return y


def _no_script() -> Any:
    return refuse(
        "sizes that a traced model looks at in its call",
        "call tconv.torch.restore(model), trace and script it, and accelerate it again",
    )


@read_as(_no_script)
@torch.fx.wrap  # looks at sizes, which a symbolic trace does not know
def output_padding(input: Tensor, output_size: Any, *sizes: Any) -> tuple[int, ...]:
    """What has to be added at the end for a size; `sizes` are those that PyTorch's own takes.

    >>> output_padding(torch.ones(1, 2, 3), [8], (2,), (0,), (3,), 1, (1,))
    (1,)
    """
    return tuple(_ConvTransposeNd._output_padding(None, input, output_size, *sizes))  # type: ignore[arg-type]


def kept_of(module: Any) -> Kept:
    """Where the module's weight is kept packed; one that was accelerated has none at first."""
    found: Kept | None = module.__dict__.get("_tconv_kept")
    if found is None:
        found = module.__dict__["_tconv_kept"] = Kept()
    return found


def forget(module: Any) -> None:
    """Let go of the packed weight."""
    kept_of(module).forget()


def release(module: Any) -> Any:
    """Make a module PyTorch's own again; return its class, or None where it was that already."""
    theirs = changed(type(module), THEIRS)
    if theirs is not None:
        module.__dict__.pop("_tconv_kept", None)
        module.__class__ = theirs
    return theirs


def changed(kind: type, table: dict[type, type]) -> Any:
    """The class to take instead; None if that would change what is computed.

    PyTorch derives classes while it runs: for a parametrised module, with properties, and for one
    that FSDP shards.
    """
    if kind in table:
        return table[kind]
    if kind is object:
        return None
    *others, base = kind.__bases__
    prefix = {(): "Parametrized", ("FSDPModule",): "FSDP"}.get(tuple(o.__name__ for o in others))
    if prefix is None or kind.__name__ != prefix + base.__name__:
        return None
    found = changed(base, table)
    own = {k: v for k, v in vars(kind).items() if k not in ("__dict__", "__weakref__")}
    return found and type(kind.__name__, (*others, found), own)


class _Computed(nn.Module):
    """What the modules of each rank have beyond PyTorch's: an eye on what is done to them."""

    def _apply(self, fn: Any, recurse: bool = True) -> Any:
        forget(self)  # of weights that move
        return super()._apply(fn, recurse)

    def __setattr__(self, name: str, value: Any) -> None:
        super().__setattr__(name, value)
        if name == "qconfig" and value is not None:
            release(self)  # it is to be quantised, which happens to PyTorch's own classes only

    def __prepare_scriptable__(self) -> Any:
        is_ours = type(self).forward in _FORWARDS
        if release(self) is None and is_ours:  # of a derived class, which has no class of PyTorch's
            base = next(kind for kind in type(self).__mro__ if kind in THEIRS).__name__
            refuse(
                f"{type(self).__qualname__}, whose class is derived from tconv.torch.{base}",
                f"derive it from torch.nn.{base}",
            )
        return self  # whose `forward` TorchScript can read


class ConvTranspose1d(_Computed, nn.ConvTranspose1d):
    """``torch.nn.ConvTranspose1d`` with its arguments, parameters and hooks, computed by tconv.

    >>> layer = ConvTranspose1d(1, 1, 3, stride=2)
    >>> layer(torch.ones(1, 1, 2)).shape, isinstance(layer, torch.nn.ConvTranspose1d)
    (torch.Size([1, 1, 5]), True)
    """

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """Return what PyTorch's module returns."""
        return _forward(self, 1, input, output_size)


class ConvTranspose2d(_Computed, nn.ConvTranspose2d):
    """``torch.nn.ConvTranspose2d``; as `ConvTranspose1d`, of two spatial axes.

    >>> ConvTranspose2d(4, 2, 3, stride=2)
    ConvTranspose2d(4, 2, kernel_size=(3, 3), stride=(2, 2))
    """

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """Return what PyTorch's module returns."""
        return _forward(self, 2, input, output_size)


class ConvTranspose3d(_Computed, nn.ConvTranspose3d):
    """``torch.nn.ConvTranspose3d``; as `ConvTranspose1d`, of three spatial axes.

    >>> ConvTranspose3d(2, 1, 2)(torch.ones(2, 3, 3, 3)).shape
    torch.Size([1, 4, 4, 4])
    """

    def forward(self, input: Tensor, output_size: Any = None) -> Tensor:
        """Return what PyTorch's module returns."""
        return _forward(self, 3, input, output_size)


OURS: dict[type, type] = {
    nn.ConvTranspose1d: ConvTranspose1d,
    nn.ConvTranspose2d: ConvTranspose2d,
    nn.ConvTranspose3d: ConvTranspose3d,
}
THEIRS: dict[type, type] = {ours: theirs for theirs, ours in OURS.items()}
_FORWARDS = [ours.forward for ours in THEIRS]  # type: ignore[attr-defined]
