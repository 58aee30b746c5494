"""Translations of what moves elements: concatenation, slices, other shapes, padding."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from torch.fx import Node as FxNode

from tconv.graph import UnknownOperator
from tconv.torch.compiling.translation import Translator, translate

__all__: list[str] = []

_END = 2**63 - 1


@translate("cat")
def _cat(g: Translator, tensors: Sequence[Any], dim: int) -> None:
    g.write("Concat", list(tensors), axis=dim)


@translate("stack")
def _stack(g: Translator, tensors: Sequence[Any], dim: int) -> None:
    dim = dim % (g.rank(tensors[0]) + 1)
    at = g.numbers([dim])
    g.write("Concat", [g.add("Unsqueeze", [each, at])[0] for each in tensors], axis=dim)


@translate("view", "_unsafe_view", "reshape")
def _view(g: Translator, x: Any, size: Any = None, shape: Any = None) -> None:
    sizes = list(size if shape is None else shape)
    keeps_batch = bool(sizes) and 0 not in sizes and sizes[:1] == list(g.shape(x)[:1])
    if keeps_batch:
        sizes[0] = 0  # the size of x, whatever it is: streams find by it where the batch is
    g.write("Reshape", [x, g.numbers(sizes)], allowzero=int(not keeps_batch))


@translate("unsqueeze")
def _unsqueeze(g: Translator, x: Any, dim: int) -> None:
    g.write("Unsqueeze", [x, g.numbers([dim % (g.rank(x) + 1)])])


@translate("squeeze.dim", "squeeze.dims")
def _squeeze(g: Translator, x: Any, dim: Any) -> None:
    shape = g.shape(x)
    axes = [each % len(shape) for each in (dim if isinstance(dim, (list, tuple)) else [dim])]
    ones = [axis for axis in axes if isinstance(shape[axis], int) and shape[axis] == 1]
    if ones:
        g.write("Squeeze", [x, g.numbers(ones)])
    else:
        g.write("Identity", [x])


@translate("permute")
def _permute(g: Translator, x: Any, dims: Sequence[int]) -> None:
    rank = g.rank(x)
    g.write("Transpose", [x], perm=[each % rank for each in dims])


@translate("transpose.int")
def _transpose(g: Translator, x: Any, dim0: int, dim1: int) -> None:
    order = list(range(g.rank(x)))
    order[dim0], order[dim1] = order[dim1], order[dim0]
    g.write("Transpose", [x], perm=order)


@translate("t")
def _t(g: Translator, x: Any) -> None:
    g.write("Transpose", [x], perm=list(range(g.rank(x)))[::-1])


@translate("expand")
def _expand(g: Translator, x: Any, size: Sequence[Any], implicit: bool) -> None:
    sizes = [1 if isinstance(each, int) and each == -1 else each for each in size]
    g.write("Expand", [x, g.numbers(sizes)])


@translate("slice.Tensor")
def _slice(g: Translator, x: Any, dim: int, start: Any, end: Any, step: Any) -> None:
    bounds = [g.numbers([0 if start is None else start]), g.numbers([_END if end is None else end])]
    g.write("Slice", [x, *bounds, g.numbers([dim]), g.numbers([step])])


@translate("select.int")
def _select(g: Translator, x: Any, dim: int, index: Any) -> None:
    if isinstance(index, FxNode):
        raise UnknownOperator("an index that each call may change")
    at = g.constant(np.array(index, np.int64))
    g.write("Gather", [x, at], axis=dim)


@translate("split_with_sizes")
def _split(g: Translator, x: Any, split_sizes: Sequence[Any], dim: int) -> None:
    sizes = g.known(split_sizes)
    g.give(*g.add("Split", [x, g.numbers(sizes)], results=len(sizes), axis=dim))


@translate("split.Tensor")
def _split_evenly(g: Translator, x: Any, split_size: Any, dim: int) -> None:
    size = g.shape(x)[dim]
    if not isinstance(size, int) or not isinstance(split_size, int):
        raise UnknownOperator("parts whose number each call may change")
    sizes = [min(split_size, size - start) for start in range(0, size, split_size)]
    _split(g, x, sizes, dim)


@translate("pixel_shuffle")
def _pixel_shuffle(g: Translator, x: Any, upscale_factor: int) -> None:
    _image(g, x)
    g.write("DepthToSpace", [x], blocksize=upscale_factor, mode="CRD")


@translate("pixel_unshuffle")
def _pixel_unshuffle(g: Translator, x: Any, downscale_factor: int) -> None:
    _image(g, x)
    g.write("SpaceToDepth", [x], blocksize=downscale_factor, mode="CRD")


def _image(g: Translator, x: Any) -> None:
    if g.rank(x) != 4:
        raise UnknownOperator(f"an operand of {g.rank(x)} axes")


@translate("reflection_pad1d", "reflection_pad2d", "reflection_pad3d")
def _reflection(g: Translator, x: Any, padding: Sequence[Any]) -> None:
    g.write("Pad", [x, g.numbers(_ends(g, x, padding))], mode="reflect")


@translate("replication_pad1d", "replication_pad2d", "replication_pad3d")
def _replication(g: Translator, x: Any, padding: Sequence[Any]) -> None:
    g.write("Pad", [x, g.numbers(_ends(g, x, padding))], mode="edge")


@translate("constant_pad_nd")
def _pad(g: Translator, x: Any, pad: Sequence[Any], value: Any) -> None:
    g.write("Pad", [x, g.numbers(_ends(g, x, pad)), value])


def _ends(g: Translator, x: Any, pad: Sequence[Any]) -> list[Any]:
    """The padding of all axes, first at their beginnings; PyTorch's begins with the last axis."""
    pairs = [(0, 0)] * (g.rank(x) - len(pad) // 2)
    pairs += [(pad[n], pad[n + 1]) for n in range(len(pad) - 2, -1, -2)]
    return [pair[0] for pair in pairs] + [pair[1] for pair in pairs]
