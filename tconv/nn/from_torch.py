"""Conversion of PyTorch modules to layers, with copies of their values."""

from typing import Any

from tconv.arrays.dtypes import dtype_name
from tconv.errors import UnsupportedError
from tconv.nn.activations import LeakyReLU, ReLU
from tconv.nn.conv import (
    Conv1d,
    Conv2d,
    Conv3d,
    ConvTranspose,
    ConvTranspose1d,
    ConvTranspose2d,
    ConvTranspose3d,
)
from tconv.nn.conv_base import Convolution
from tconv.nn.layer import Layer, Sequential
from tconv.nn.pooling import MaxPool1d, MaxPool2d, MaxPool3d, MaxUnpool1d, MaxUnpool2d, MaxUnpool3d

__all__ = ["from_torch"]


def from_torch(module: Any) -> Layer:
    """Make a layer from a PyTorch module, with copies of its values.

    Parameters
    ----------
    module : torch.nn.ConvTranspose1d, 2d or 3d, Conv, MaxPool and MaxUnpool likewise, ReLU,
        LeakyReLU, or a Sequential of these, nested to any depth. Subclasses are refused: they may
        compute something else.

    Returns
    -------
    Layer, with the names of the module in its `state_dict`. A module that occurs twice becomes one
    layer that occurs twice. The indices of a MaxPool with return_indices are the `switches` of its
    layer.

    Raises
    ------
    UnsupportedError : another module, or one with hooks (weight or spectral normalisation)

    torch is not imported: a caller with a module has loaded it already.

    >>> from_torch("a module")
    Traceback (most recent call last):
    ...
    tconv.errors.UnsupportedError: module is builtins.str, which has no layer; pass a \
torch.nn.ConvTranspose, Conv, MaxPool, MaxUnpool, ReLU, LeakyReLU or Sequential.
    """
    return _adopt(module, "module", {})


def _adopt(module: Any, path: str, known: dict[int, Layer]) -> Layer:
    """Convert a module and all within; `known` holds the layers made so far by module id."""
    if id(module) in known:
        return known[id(module)]
    kind = type(module)
    name = kind.__name__ if kind.__module__.startswith("torch.nn.modules.") else ""
    layer: Layer
    if name == "Sequential":
        parts = module._modules.items()
        layer = Sequential({n: _adopt(part, f"{path}[{n}]", known) for n, part in parts})
    elif name in _CONVOLUTIONS:
        layer = _adopt_convolution(module, _CONVOLUTIONS[name])
    elif name in _OTHERS:
        make, arguments = _OTHERS[name]
        layer = make(**{each: getattr(module, each) for each in arguments})
    else:
        raise UnsupportedError(
            f"{path} is {kind.__module__}.{kind.__qualname__}, which has no layer; pass a "
            "torch.nn.ConvTranspose, Conv, MaxPool, MaxUnpool, ReLU, LeakyReLU or Sequential."
        )
    if module._forward_hooks or module._forward_pre_hooks:
        raise UnsupportedError(
            f"{path} is a {name} with hooks, which could change what it computes; remove them, for "
            "example by torch.nn.utils.remove_weight_norm."
        )
    known[id(module)] = layer
    return layer


def _adopt_convolution(module: Any, make: Any) -> Convolution:
    arguments = ("in_channels", "out_channels", "kernel_size", "stride", "padding", "dilation")
    keywords = {name: getattr(module, name) for name in (*arguments, "groups", "padding_mode")}
    if issubclass(make, ConvTranspose):
        keywords["output_padding"] = module.output_padding
    elif module.padding == "same" and module.padding_mode != "zeros":
        totals = [d * (k - 1) for d, k in zip(module.dilation, module.kernel_size, strict=True)]
        keywords["padding"] = tuple((total // 2, total - total // 2) for total in totals)
    dtype = dtype_name(module.weight.dtype)
    bias = module.bias is not None
    layer: Convolution = make(**keywords, bias=bias, dtype=dtype, initialiser="zeros")
    for parameter in layer.parameters():
        tensor = getattr(module, parameter.name).detach().cpu()
        # NumPy has no bfloat16; float32 holds all its values.
        parameter.value = (tensor.float() if dtype == "bfloat16" else tensor).numpy()
    return layer


_CONVOLUTIONS: dict[str, type[Convolution]] = {
    make.__name__: make
    for make in (Conv1d, Conv2d, Conv3d, ConvTranspose1d, ConvTranspose2d, ConvTranspose3d)
}
_POOL = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
_OTHERS: dict[str, tuple[type[Layer], tuple[str, ...]]] = {
    "ReLU": (ReLU, ()),
    "LeakyReLU": (LeakyReLU, ("negative_slope",)),
    "MaxPool1d": (MaxPool1d, _POOL),
    "MaxPool2d": (MaxPool2d, _POOL),
    "MaxPool3d": (MaxPool3d, _POOL),
    "MaxUnpool1d": (MaxUnpool1d, _POOL[:3]),
    "MaxUnpool2d": (MaxUnpool2d, _POOL[:3]),
    "MaxUnpool3d": (MaxUnpool3d, _POOL[:3]),
}
