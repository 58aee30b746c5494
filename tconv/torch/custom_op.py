"""Custom operator ``tconv::contract`` for torch.compile, with fake tensors and autograd."""

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from tconv.errors import ShapeError, TConvError
from tconv.geometry.geometry import OPERANDS, Geometry, Letter
from tconv.torch.contract import compute
from tconv.torch.interop import as_torch_error, is_channels_last, to_channels_last

__all__ = ["contract_op", "op_arguments"]


@torch.library.custom_op("tconv::contract", mutates_args=())
def contract_op(
    want: str,
    a: Tensor,
    b: Tensor,
    bias: Tensor | None,
    sizes: Sequence[int],
    stride: Sequence[int],
    padding: Sequence[int],
    output_padding: Sequence[int],
    dilation: Sequence[int],
    groups: int,
) -> Tensor:
    """Solve F(x, w, y) for a letter.

    `sizes` are the spatial sizes of the result if that is x or w; `padding` has the begin of every
    axis, then the end of every axis.
    """
    known = _shapes(want, a, b, sizes, groups)  # type: ignore[arg-type]
    pairs = _pairs(padding)
    if not a.shape[0]:
        known["y"] = _result_shape(known, stride, pairs, output_padding, dilation, groups)
        return _empty_batch(a, known, want)
    try:
        geometry = Geometry.of(
            known["x"],
            known["w"],
            stride=tuple(stride),
            padding=pairs,
            output_padding=tuple(output_padding),
            dilation=tuple(dilation),
            groups=groups,
        )
    except TConvError as error:
        raise as_torch_error(error) from None
    return compute(geometry, want, a, b, bias)  # type: ignore[arg-type]


def op_arguments(
    geometry: Geometry, want: Letter, a: Tensor, b: Tensor, bias: Tensor | None
) -> tuple[Any, ...]:
    """Return the arguments of `contract_op` for a geometry."""
    axes = geometry.axes
    sizes = {"y": (), "x": geometry.input_size, "w": geometry.kernel_size}[want]
    return (
        want, a, b, bias, sizes,
        [axis.stride for axis in axes],
        [*(axis.begin for axis in axes), *(axis.end for axis in axes)],
        [axis.extra for axis in axes],
        [axis.dilation for axis in axes],
        geometry.groups,
    )  # fmt: skip


def _pairs(padding: Sequence[int]) -> tuple[tuple[int, int], ...]:
    """Padding at both ends of each axis."""
    rank = len(padding) // 2
    return tuple(zip(padding[:rank], padding[rank:], strict=True))


def _shapes(
    want: Letter, a: Any, b: Any, sizes: Sequence[Any], groups: int
) -> dict[str, tuple[Any, ...]]:
    """Shapes of x and w, one of which may be the result."""
    if want == "x":
        return {"x": (a.shape[0], b.shape[0], *sizes), "w": tuple(b.shape)}
    if want == "w":
        return {"x": tuple(a.shape), "w": (a.shape[1], b.shape[1] // groups, *sizes)}
    return {"x": tuple(a.shape), "w": tuple(b.shape)}


def _result_shape(
    known: dict[str, tuple[Any, ...]],
    stride: Sequence[Any],
    padding: Sequence[tuple[Any, Any]],
    output_padding: Sequence[Any],
    dilation: Sequence[Any],
    groups: Any,
) -> tuple[Any, ...]:
    """Shape of y; sizes may be a compiler's symbols."""
    x, w = known["x"], known["w"]
    rules = zip(x[2:], w[2:], stride, padding, output_padding, dilation, strict=True)
    size = [(i - 1) * s + d * (k - 1) + 1 - sum(p) + e for i, k, s, p, e, d in rules]
    return (x[0], w[1] * groups, *size)


def _empty_batch(a: Tensor, known: dict[str, tuple[int, ...]], want: str) -> Tensor:
    """Result of an empty batch, for all sizes that PyTorch's own compiled operation accepts."""
    if 0 in known["w"] or min(known["y"][1:]) < 1:
        raise as_torch_error(
            ShapeError(
                f"y would have shape {known['y']} by a weight of shape {known['w']}, every size "
                "but the batch must be at least 1; lower padding or pass a larger weight."
            )
        )
    return a.new_zeros(known[want])


@contract_op.register_fake
def _(
    want: Any,
    a: Any,
    b: Any,
    bias: Any,
    sizes: Any,
    stride: Any,
    padding: Any,
    output_padding: Any,
    dilation: Any,
    groups: Any,
) -> Any:
    """Make the result without computing it: shape, type and memory format."""
    known = _shapes(want, a, b, sizes, groups)
    known["y"] = _result_shape(known, stride, _pairs(padding), output_padding, dilation, groups)
    found = a.new_empty(known[want])
    is_last = want != "w" and (is_channels_last(a) or is_channels_last(b))
    return to_channels_last(found) if is_last else found


def _setup_context(ctx: Any, inputs: tuple[Any, ...], output: Any) -> None:
    ctx.want, a, b, _, _, *ctx.rest = inputs
    ctx.save_for_backward(a, b)


def _backward(ctx: Any, gradient: Tensor) -> tuple[Any, ...]:
    want, p, q = ctx.want, *OPERANDS[ctx.want]
    known = {p: ctx.saved_tensors[0], q: ctx.saved_tensors[1], want: gradient}
    found: list[Tensor | None] = []
    for letter, is_needed in zip((p, q), ctx.needs_input_grad[1:3], strict=True):
        given = [known[each] for each in OPERANDS[letter]]
        sizes = () if letter == "y" else known[letter].shape[2:]
        found.append(contract_op(letter, *given, None, sizes, *ctx.rest) if is_needed else None)
    others = (0, *range(2, gradient.ndim))
    bias = gradient.sum(others) if ctx.needs_input_grad[3] else None
    return None, *found, bias, *[None] * 6


contract_op.register_autograd(_backward, setup_context=_setup_context)
