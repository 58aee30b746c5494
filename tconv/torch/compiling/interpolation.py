"""Custom operator ``tconv::interpolate``: interpolations that stay one node.

Without gradients PyTorch takes an interpolation apart into reads by index, of which neither a
program nor PyTorch itself makes anything as fast.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor
from torch.fx import GraphModule, Node
from torch.nn import functional

__all__ = ["interpolations_kept"]

_MODES = {"nearest": (3, 4, 5), "linear": (3,), "bilinear": (4,), "trilinear": (5,)}
"""Ranks of the operands of each mode."""
_NAMES = ("input", "size", "scale_factor", "mode", "align_corners", "recompute_scale_factor",
          "antialias")  # fmt: skip


@torch.library.custom_op("tconv::interpolate", mutates_args=())
def _interpolate(
    x: Tensor,
    size: Sequence[int] | None,
    scale: Sequence[float] | None,
    mode: str,
    align_corners: bool,
) -> Tensor:
    """``torch.nn.functional.interpolate``, by sizes or by scales."""
    aligned = align_corners if mode != "nearest" else None
    sizes = None if size is None else list(size)
    scales = None if scale is None else list(scale)
    return functional.interpolate(x, sizes, scales, mode, aligned)


@_interpolate.register_fake
def _(
    x: Tensor,
    size: Sequence[int] | None,
    scale: Sequence[float] | None,
    mode: str,
    align_corners: bool,
) -> Tensor:
    """Make the result without computing it."""
    if size is None:
        assert scale is not None
        size = [torch.sym_int(n * by) for n, by in zip(x.shape[2:], scale, strict=True)]
    return x.new_empty([*x.shape[:2], *size])


_OPERATOR = torch.ops.tconv.interpolate.default


@contextmanager
def interpolations_kept(module: GraphModule) -> Iterator[None]:
    """Let the graph that Dynamo made have the custom operator where it computes the same.

    AOTAutograd knows parameters by what Dynamo noted of this very graph, so it is no copy.
    """
    before = list[tuple[Node, Any, Any, Any]]()
    for node in module.graph.find_nodes(op="call_function", target=functional.interpolate):
        arguments = _arguments(node)
        if arguments is not None:
            before.append((node, node.target, node.args, node.kwargs))
            node.target, node.args, node.kwargs = _OPERATOR, arguments, {}
    if before:
        module.recompile()
    try:
        yield
    finally:
        for node, target, args, kwargs in before:
            node.target, node.args, node.kwargs = target, args, kwargs
        if before:
            module.recompile()


def _arguments(node: Node) -> tuple[Any, ...] | None:
    """The arguments of the custom operator; None if it does not compute what the node does."""
    given = dict(zip(_NAMES, node.args, strict=False)) | dict(node.kwargs)
    x, mode = given["input"], given.get("mode", "nearest")
    value = getattr(x, "meta", {}).get("example_value")
    if (
        not isinstance(value, Tensor)
        or value.ndim not in _MODES.get(mode, ())
        or not value.is_contiguous()
        or given.get("antialias", False)
        or given.get("recompute_scale_factor")
    ):
        return None
    size, scale = (_for_axes(given.get(n), value.ndim - 2) for n in ("size", "scale_factor"))
    if scale is not None:
        if not all(isinstance(each, (int, float)) for each in scale):
            return None
        scale = [float(each) for each in scale]
    return x, size, scale, mode, bool(given.get("align_corners"))


def _for_axes(value: Any, rank: int) -> list[Any] | None:
    if value is None:
        return None
    return list(value) if isinstance(value, (tuple, list)) else [value] * rank
