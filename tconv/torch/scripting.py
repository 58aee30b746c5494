"""TorchScript forms of the functions, which ``torch.jit.script`` compiles in their place.

TorchScript compiles the source of every Python function that a model calls, and supports PyTorch's
own operators only. It calls a function's ``__prepare_scriptable__`` first.
"""

# ruff: noqa: UP045  (BroadcastingList2[int] is None to Python, which has no None | None)

from collections.abc import Callable
from typing import Any, Optional

import torch
from torch import Tensor
from torch._jit_internal import BroadcastingList1, BroadcastingList2, BroadcastingList3

from tconv.errors import UnsupportedError
from tconv.torch.interop import as_torch_error

__all__ = ["SCRIPTED", "refuse_scripting", "script_as"]


def script_as(form: Callable[[], Any]) -> Callable[[Any], Any]:
    """Decorate a function: TorchScript compiles what `form` returns in its place."""

    def decorate(function: Any) -> Any:
        function.__prepare_scriptable__ = form
        return function

    return decorate


def refuse_scripting(what: str, remedy: str) -> Any:
    """Raise an error that tells the caller of ``torch.jit.script`` what to do.

    Raises
    ------
    UnsupportedError, which is a RuntimeError as well
    """
    raise as_torch_error(UnsupportedError(f"torch.jit.script cannot read {what}; {remedy}."))


def _conv_transpose1d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Optional[BroadcastingList1[int]] = None,
    padding: Optional[BroadcastingList1[int]] = None,
    output_padding: Optional[BroadcastingList1[int]] = None,
    groups: int = 1,
    dilation: Optional[BroadcastingList1[int]] = None,
) -> Tensor:
    ones, none = [1], [0]
    return torch.conv_transpose1d(
        input,
        weight,
        bias,
        ones if stride is None else stride,
        none if padding is None else padding,
        none if output_padding is None else output_padding,
        groups,
        ones if dilation is None else dilation,
    )


def _conv_transpose2d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Optional[BroadcastingList2[int]] = None,
    padding: Optional[BroadcastingList2[int]] = None,
    output_padding: Optional[BroadcastingList2[int]] = None,
    groups: int = 1,
    dilation: Optional[BroadcastingList2[int]] = None,
) -> Tensor:
    ones, none = [1, 1], [0, 0]
    return torch.conv_transpose2d(
        input,
        weight,
        bias,
        ones if stride is None else stride,
        none if padding is None else padding,
        none if output_padding is None else output_padding,
        groups,
        ones if dilation is None else dilation,
    )


def _conv_transpose3d(
    input: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Optional[BroadcastingList3[int]] = None,
    padding: Optional[BroadcastingList3[int]] = None,
    output_padding: Optional[BroadcastingList3[int]] = None,
    groups: int = 1,
    dilation: Optional[BroadcastingList3[int]] = None,
) -> Tensor:
    ones, none = [1, 1, 1], [0, 0, 0]
    return torch.conv_transpose3d(
        input,
        weight,
        bias,
        ones if stride is None else stride,
        none if padding is None else padding,
        none if output_padding is None else output_padding,
        groups,
        ones if dilation is None else dilation,
    )


SCRIPTED = {1: _conv_transpose1d, 2: _conv_transpose2d, 3: _conv_transpose3d}
"""The form of the function of each rank."""
