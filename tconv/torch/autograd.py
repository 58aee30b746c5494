"""Autograd function of the contraction: derivatives of every order, and vmap.

F(x, w, y) is linear in each letter. So the gradient of a contraction with respect to an operand is
the contraction that solves for it, and its own derivatives are contractions again.
"""

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor
from torch._C._functorch import TransformType, get_interpreter_stack, is_legacy_batchedtensor
from torch.autograd import forward_ad

from tconv.geometry.geometry import OPERANDS, Geometry, Letter
from tconv.portable import contract as portable
from tconv.torch.contract import compute
from tconv.torch.custom_op import contract_op, op_arguments
from tconv.torch.interop import is_supported
from tconv.torch.module_weights.packed_weights import WeightCache

__all__ = ["contract", "contract_tensors", "is_nested_jvp"]


def contract(
    geometry: Geometry,
    want: Letter,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None = None,
    threads: int | None = None,
    cache: WeightCache | None = None,
) -> Tensor:
    """Solve F(x, w, y) for a letter, with autograd, forward mode and vmap.

    The arguments are those of `compute`.

    >>> geometry = tconv.Geometry.of((1, 1, 2), (1, 1, 3), stride=2)
    >>> contract(geometry, "y", torch.ones(1, 1, 2), torch.ones(1, 1, 3))
    tensor([[[1., 1., 2., 1., 1.]]])
    """
    if torch._C._are_functorch_transforms_active():
        result: Tensor
        if is_nested_jvp():
            result = portable.contract(geometry, want, a, b, bias=bias)
        else:
            result = _Contraction.apply(geometry, want, threads, None, a, b, bias)
        return result
    learns = a.requires_grad or b.requires_grad or (bias is not None and bias.requires_grad)
    if (learns and torch.is_grad_enabled()) or forward_ad._current_level >= 0:
        result = _apply(geometry, want, threads, cache, a, b, bias)
        return result
    return _Contraction.forward(geometry, want, threads, cache, a, b, bias)


def is_nested_jvp() -> bool:
    """Whether one ``jvp`` is nested in another, where a Function gives wrong numbers.

    PyTorch (2.13) then drops how the tangents of a Function's `jvp` depend on the outer direction:
    its second derivative of x*y along both is not 1. So PyTorch's own operations, or those of the
    portable path, compute there.
    """
    stack = get_interpreter_stack() or ()
    return sum(each.key() == TransformType.Jvp for each in stack) > 1


class _Contraction(torch.autograd.Function):
    """A contraction with `backward`, `jvp` and `vmap`."""

    @staticmethod
    def forward(
        geometry: Geometry,
        want: Letter,
        threads: int | None,
        cache: WeightCache | None,
        a: Tensor,
        b: Tensor,
        bias: Tensor | None,
    ) -> Tensor:
        if is_legacy_batchedtensor(a) or is_legacy_batchedtensor(b):
            # ``autograd.grad`` with is_grads_batched and vectorised jacobians pass tensors of the
            # older vmap: PyTorch loops over a custom operator for these.
            result: Tensor = contract_op(*op_arguments(geometry, want, a, b, bias))
            return result
        return compute(geometry, want, a, b, bias, threads, cache)

    @staticmethod
    def setup_context(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
        ctx.geometry, ctx.want, ctx.threads, _, a, b, _ = inputs
        ctx.save_for_backward(a, b)
        ctx.save_for_forward(a, b)

    @staticmethod
    def backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
        geometry, want = ctx.geometry, ctx.want
        known = dict(zip(OPERANDS[want], ctx.saved_tensors, strict=True)) | {want: gradient}
        found: list[Tensor | None] = []
        for letter, is_needed in zip(OPERANDS[want], ctx.needs_input_grad[4:6], strict=True):
            p, q = OPERANDS[letter]
            found.append(
                contract(geometry, letter, known[p], known[q], threads=ctx.threads)
                if is_needed
                else None
            )
        others = (0, *range(2, gradient.ndim))
        return None, None, None, None, *found, _sum(gradient, others, ctx.needs_input_grad[6])

    @staticmethod
    def jvp(ctx: Any, *tangents: Any) -> Tensor:
        geometry, want, (a, b) = ctx.geometry, ctx.want, ctx.saved_tensors
        da, db, dbias = tangents[4:]
        terms = []
        if da is not None:
            terms.append(contract(geometry, want, da, b, threads=ctx.threads))
        if db is not None:
            terms.append(contract(geometry, want, a, db, threads=ctx.threads))
        if dbias is not None:
            spread = dbias.reshape(-1, *[1] * geometry.rank)
            terms.append(spread.expand(geometry.shape_of(want)))
        return torch.stack(terms).sum(0) if len(terms) > 2 else sum(terms[1:], terms[0])

    @staticmethod
    def vmap(
        info: Any,
        in_dims: tuple[Any, ...],
        geometry: Geometry,
        want: Letter,
        threads: int | None,
        _: WeightCache | None,
        a: Tensor,
        b: Tensor,
        bias: Tensor | None,
    ) -> tuple[Tensor, int]:
        size, (of_a, of_b, of_bias) = info.batch_size, in_dims[4:]
        if bias is None or of_bias is None:
            return _batched(geometry, want, threads, a, b, bias, (of_a, of_b), size)
        at = 0
        if of_a is of_b is None:
            y = contract(geometry, want, a, b, None, threads).unsqueeze(0)
        else:
            y, at = _batched(geometry, want, threads, a, b, None, (of_a, of_b), size)
        biases = bias.movedim(of_bias, 0).unsqueeze(1 - at)
        return y + biases.reshape(*biases.shape, *[1] * geometry.rank), at


_apply = super(torch.autograd.Function, _Contraction).apply
"""``_Contraction.apply`` without its check for transforms, which inspects the signature."""


def _sum(gradient: Tensor, axes: tuple[int, ...], is_needed: bool) -> Tensor | None:
    return gradient.sum(axes) if is_needed else None


def _batched(
    geometry: Geometry,
    want: Letter,
    threads: int | None,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    dims: tuple[int | None, int | None],
    size: int,
) -> tuple[Tensor, int]:
    """Contract once for a whole vmap batch: as more samples, or as more groups of channels.

    Samples with weights of their own become groups, since groups do not share channels.
    """
    of_a, of_b = dims
    if want != "w" and of_b is None:
        assert of_a is not None
        many = replace(geometry, batch=geometry.batch * size)
        y = contract(many, want, a.movedim(of_a, 0).flatten(0, 1), b, bias, threads)
        return y.unflatten(0, (size, geometry.batch)), 0
    p, q = OPERANDS[want]
    operands = [
        _in_groups(letter, tensor, at, size) for letter, tensor, at in ((p, a, of_a), (q, b, of_b))
    ]
    many = replace(
        geometry,
        in_channels=geometry.in_channels * size,
        out_channels=geometry.out_channels * size,
        groups=geometry.groups * size,
    )
    bias = None if bias is None else bias.repeat(size)
    result = contract(many, want, operands[0], operands[1], bias, threads)
    at = 0 if want == "w" else 1
    return result.unflatten(at, (size, result.shape[at] // size)), at


def _in_groups(letter: Letter, tensor: Tensor, at: int | None, size: int) -> Tensor:
    """Concatenate the samples' channels: axis 0 of weights (C, ...), axis 1 of (N, C, ...)."""
    axis = 0 if letter == "w" else 1
    if at is None:
        tensor = tensor.unsqueeze(axis)
        tensor = tensor.expand(*tensor.shape[:axis], size, *tensor.shape[axis + 1 :])
    else:
        tensor = tensor.movedim(at, axis)
    return tensor.flatten(axis, axis + 1)


def contract_tensors(
    geometry: Geometry,
    want: Letter,
    a: Tensor,
    b: Tensor,
    *,
    bias: Tensor | None = None,
    out: Tensor | None = None,
    method: str = "auto",
    threads: int | None = None,
) -> Tensor:
    """Contract tensors for tconv's own functions, such as `tconv.conv_transpose`.

    >>> tconv.conv_transpose(torch.ones(1, 1, 2), torch.ones(1, 1, 3), stride=2)
    tensor([[[1., 1., 2., 1., 1.]]])
    """
    is_usual = (
        method == "auto"
        and geometry.batched
        and geometry.data_format == "channels_first"
        and geometry.weight_format == "IO*"
        and not geometry.flip_kernel
        and (bias is None or want == "y")
        and not torch.compiler.is_compiling()
        and is_supported(a, b, bias)
    )
    if is_usual:
        return contract(geometry, want, a, b, bias, threads)
    result: Tensor = portable.contract(
        geometry, want, a, b, bias=bias, out=out, method=method, threads=threads
    )
    return result
