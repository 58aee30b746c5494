"""Functions ``conv_transpose1d``, 2d and 3d of PyTorch, computed by tconv where it can."""

from collections.abc import Sequence
from functools import lru_cache
from operator import index
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad
from torch.fx import Proxy
from torch.nn import functional
from torch.overrides import handle_torch_function

from tconv.errors import ParameterError, ShapeError, TConvError
from tconv.geometry.arguments import is_cache_key
from tconv.geometry.geometry import Geometry
from tconv.messages import show
from tconv.torch.autograd import contract, is_nested_jvp
from tconv.torch.custom_op import contract_op
from tconv.torch.interop import as_torch_error, is_supported
from tconv.torch.module_weights.packed_weights import WeightCache
from tconv.torch.scripting import SCRIPTED, script_as

__all__ = ["conv_transpose1d", "conv_transpose2d", "conv_transpose3d", "transpose"]

_PerAxis = int | Sequence[int]
_TORCH_FUNCTIONS = {
    1: functional.conv_transpose1d,
    2: functional.conv_transpose2d,
    3: functional.conv_transpose3d,
}


@script_as(lambda: SCRIPTED[1])
def conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _PerAxis = 1,
    padding: _PerAxis = 0,
    output_padding: _PerAxis = 0,
    groups: int = 1,
    dilation: _PerAxis = 1,
) -> Tensor:
    """``torch.nn.functional.conv_transpose1d``, computed by tconv.

    Parameters
    ----------
    input : tensor (N, C, I) or (C, I)
    weight : tensor (C, M // groups, K)
    bias : tensor (M,)
    stride, padding, output_padding, groups, dilation : as PyTorch's

    Returns
    -------
    tensor (N, M, O) or (M, O), by tconv if all are of one real floating type on the CPU, else by
    PyTorch

    Raises
    ------
    ParameterError, ShapeError, MemoryLimitError : as `tconv.conv_transpose`, each of them also
        PyTorch's RuntimeError

    >>> conv_transpose1d(torch.ones(1, 1, 2), torch.ones(1, 1, 3), stride=2)
    tensor([[[1., 1., 2., 1., 1.]]])
    """
    return transpose(1, input, weight, bias, stride, padding, output_padding, groups, dilation)


@script_as(lambda: SCRIPTED[2])
def conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _PerAxis = 1,
    padding: _PerAxis = 0,
    output_padding: _PerAxis = 0,
    groups: int = 1,
    dilation: _PerAxis = 1,
) -> Tensor:
    """``torch.nn.functional.conv_transpose2d``; as `conv_transpose1d`, of two spatial axes.

    >>> y = torch.tensor([[[[37.0, 47.0], [67.0, 77.0]]]])
    >>> conv_transpose2d(y, torch.tensor([[[[1.0, 2.0], [3.0, 4.0]]]]))
    tensor([[[[ 37., 121.,  94.],
              [178., 500., 342.],
              [201., 499., 308.]]]])
    """
    return transpose(2, input, weight, bias, stride, padding, output_padding, groups, dilation)


@script_as(lambda: SCRIPTED[3])
def conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: _PerAxis = 1,
    padding: _PerAxis = 0,
    output_padding: _PerAxis = 0,
    groups: int = 1,
    dilation: _PerAxis = 1,
) -> Tensor:
    """``torch.nn.functional.conv_transpose3d``; as `conv_transpose1d`, of three spatial axes.

    >>> conv_transpose3d(torch.ones(1, 1, 1, 2, 2), torch.ones(1, 1, 1, 1, 2)).shape
    torch.Size([1, 1, 1, 2, 3])
    """
    return transpose(3, input, weight, bias, stride, padding, output_padding, groups, dilation)


def transpose(
    rank: int,
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: _PerAxis,
    padding: _PerAxis,
    output_padding: _PerAxis,
    groups: int,
    dilation: _PerAxis,
    cache: WeightCache | None = None,
    learns: bool = False,
) -> Tensor:
    """Compute PyTorch's function of this rank; `cache` holds the packed weight.

    The weight of a module that `learns` changes with every step, and is not kept.
    """
    settings = stride, padding, output_padding, groups, dilation
    if torch.compiler.is_compiling():
        return _compiled(rank, input, weight, bias, settings)
    if torch.is_autocast_enabled("cpu"):
        input, weight, bias = map(_autocast, (input, weight, bias))
    if not is_supported(input, weight, bias):
        if proxies := _proxies(input, weight, bias, *settings):
            return _fx_node(rank, proxies, input, weight, bias, *settings)
        _check_for_torch(rank, input, weight, settings)
        return _TORCH_FUNCTIONS[rank](input, weight, bias, *settings)
    if input.ndim == rank + 2 and not input.shape[0]:  # an empty batch, whatever the other sizes
        return _TORCH_FUNCTIONS[rank](input, weight, bias, *settings)
    if not all(map(is_cache_key, settings)):
        if proxies := _proxies(*settings):
            return _fx_node(rank, proxies, input, weight, bias, *settings)
        settings = _as_tuples(rank, settings)
    is_one = input.ndim == rank + 1
    x = input.unsqueeze(0) if is_one else input
    geometry = _geometry(rank, x.shape, weight.shape, *settings)
    if bias is not None and bias.shape != (geometry.out_channels,):
        raise as_torch_error(
            ShapeError(
                f"bias has shape {tuple(bias.shape)}, must be ({geometry.out_channels},), one "
                "number per channel of the result; pass such a bias."
            )
        )
    if torch._C._are_functorch_transforms_active() and is_nested_jvp():
        return _TORCH_FUNCTIONS[rank](input, weight, bias, *settings)
    if cache is not None and not cache.takes(geometry, "y", x, weight, learns):
        return _TORCH_FUNCTIONS[rank](input, weight, bias, *settings)
    y = contract(geometry, "y", x, weight, bias, None, None if learns else cache)
    return y.squeeze(0) if is_one else y


@lru_cache(maxsize=1024, typed=True)  # True equals 1
def _geometry(
    rank: int,
    x_shape: tuple[int, ...],
    weight_shape: tuple[int, ...],
    stride: Any,
    padding: Any,
    output_padding: Any,
    groups: int,
    dilation: Any,
) -> Geometry:
    """Geometry of a call of the function of this rank; errors are RuntimeErrors as well."""
    try:
        for name, shape in (("input", x_shape), ("weight", weight_shape)):
            if len(shape) != rank + 2:
                raise ShapeError(
                    f"{name} has shape {tuple(shape)}, must have {rank + 2} axes for "
                    f"conv_transpose{rank}d; reshape it or call the function of its rank."
                )
        for n, each in enumerate(padding if isinstance(padding, tuple) else (padding,)):
            if not isinstance(each, int) or each < 0:
                raise ParameterError(
                    f"padding[{n}]={show(each)} must be an integer of at least 0; pass one, or "
                    "call tconv.conv_transpose, which takes others."
                )
        return Geometry.of(
            x_shape,
            weight_shape,
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            dilation=dilation,
            groups=groups,
        )
    except TConvError as error:
        raise as_torch_error(error) from None


def _as_tuples(rank: int, settings: tuple[Any, ...]) -> Any:
    """Convert lists and other integer types in the settings to tuples of Python integers."""
    stride, padding, output_padding, groups, dilation = settings
    spatial = [_per_axis(each, rank) for each in (stride, padding, output_padding, dilation)]
    return *spatial[:3], int(index(groups)), spatial[3]


def _per_axis(value: Any, rank: int) -> tuple[int, ...]:
    """One integer for each axis, by PyTorch's rules."""
    if not isinstance(value, (tuple, list)):
        return (int(index(value)),) * rank
    return tuple(int(index(each)) for each in value) * (rank if len(value) == 1 else 1)


def _proxies(*arguments: Any) -> list[Proxy]:
    """Arguments that torch.fx has replaced by proxies, while it traces."""
    return [each for each in arguments if isinstance(each, Proxy)]


def _fx_node(rank: int, proxies: list[Proxy], *arguments: Any) -> Any:
    """Add one node to a symbolic trace, which calls the function of this rank."""
    ours = (conv_transpose1d, conv_transpose2d, conv_transpose3d)[rank - 1]
    return handle_torch_function(ours, proxies, *arguments)


def _autocast(tensor: Any) -> Any:
    """Convert a tensor to the type that autocast uses for convolutions."""
    if (
        not isinstance(tensor, Tensor)
        or not tensor.is_floating_point()
        or tensor.dtype is torch.float64
    ):
        return tensor
    return tensor.to(torch.get_autocast_dtype("cpu")) if tensor.is_cpu else tensor


def _check_for_torch(rank: int, input: Any, weight: Any, settings: tuple[Any, ...]) -> None:
    """Refuse sizes of dense tensors on the CPU that may crash PyTorch."""
    pair = (input, weight)
    if all(type(each) is Tensor and each.is_cpu for each in pair) and input.ndim == weight.ndim:
        _geometry(rank, input.shape, weight.shape, *_as_tuples(rank, settings))


def _compiled(
    rank: int, input: Tensor, weight: Tensor, bias: Tensor | None, settings: tuple[Any, ...]
) -> Tensor:
    """Compute under torch.compile, which must see operators only."""
    if torch.is_autocast_enabled("cpu"):
        input, weight, bias = _autocast(input), _autocast(weight), _autocast(bias)
    types = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
    is_usual = (
        input.is_cpu
        and input.dtype in types
        and weight.dtype == input.dtype
        and input.ndim in (rank + 1, rank + 2)
        and not torch.onnx.is_in_onnx_export()
        and not torch._C._are_functorch_transforms_active()
        and forward_ad._current_level < 0
    )
    if not is_usual:
        return _TORCH_FUNCTIONS[rank](input, weight, bias, *settings)
    stride, padding, extra, groups, dilation = settings
    each = [_listed(value, rank) for value in (stride, padding, extra, dilation)]
    is_one = input.ndim == rank + 1
    x = input.unsqueeze(0) if is_one else input
    each[1] *= 2  # the same at both ends
    y: Tensor = contract_op("y", x, weight, bias, [], *each, groups)
    return y.squeeze(0) if is_one else y


def _listed(value: Any, rank: int) -> list[Any]:
    """One size for each axis; a size may be a compiler's symbol."""
    if isinstance(value, (tuple, list)):
        return list(value) * (rank if len(value) == 1 else 1)
    return [value] * rank
