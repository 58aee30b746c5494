"""The canonical layout of x, w and y, and views of all other layouts in it.

The canonical layout is x (N, G, C/G, *I), w (G, C/G, M/G, *K) and y (N, G, M/G, *O), with channels
and taps as the transposed convolution uses them. On NumPy the results are views, which can be
written.
"""

import re
from functools import lru_cache
from typing import Any

from tconv.geometry.geometry import Geometry, Letter
from tconv.geometry.weight_formats import WeightLayout

__all__ = ["canonical", "canonical_shape", "from_canonical", "permutation"]


def canonical_shape(geometry: Geometry, letter: Letter) -> tuple[int, ...]:
    """Shape of x, w or y in canonical order.

    >>> canonical_shape(Geometry.of((1, 8, 5), (8, 2, 3), groups=4), "w")
    (4, 2, 2, 3)
    """
    g = geometry.groups
    c, m = geometry.in_channels // g, geometry.out_channels // g
    if letter == "w":
        return (g, c, m, *geometry.kernel_size)
    if letter == "x":
        return (geometry.batch, g, c, *geometry.input_size)
    return (geometry.batch, g, m, *geometry.output_size)


def canonical(xp: Any, geometry: Geometry, letter: Letter, array: Any) -> Any:
    """Return x, w or y, in the caller's layout, as a view in canonical order."""
    shape = canonical_shape(geometry, letter)
    if letter == "w":
        return _weight_to_canonical(xp, geometry, array)
    if geometry.data_format == "channels_last":
        last = array.ndim - 1
        first = (0, last) if geometry.batched else (last,)
        array = xp.permute_dims(array, (*first, *range(len(first) - 1, last)))
    return xp.reshape(array, shape)


def from_canonical(xp: Any, geometry: Geometry, letter: Letter, array: Any) -> Any:
    """Return an array in canonical order as x, w or y in the caller's layout."""
    if letter == "w":
        return _weight_from_canonical(xp, geometry, array)
    _, g, c, *spatial = array.shape
    batch = (geometry.batch,) if geometry.batched else ()
    array = xp.reshape(array, (*batch, g * c, *spatial))
    if geometry.data_format == "channels_last":
        n = len(batch)
        array = xp.permute_dims(array, (*range(n), *range(n + 1, array.ndim), n))
    return array


def _weight_to_canonical(xp: Any, geometry: Geometry, weight: Any) -> Any:
    layout, g = WeightLayout.of(geometry.weight_format, geometry.rank), geometry.groups
    if layout.outputs_divided:
        first = (layout.inputs, layout.outputs)
    else:
        first = (layout.outputs, layout.inputs)
    weight = xp.permute_dims(weight, (*first, *layout.kernel))  # the undivided channels first
    whole, share, *kernel = weight.shape
    weight = xp.reshape(weight, (g, whole // g, share, *kernel))
    if not layout.outputs_divided:
        weight = xp.permute_dims(weight, (0, 2, 1, *range(3, weight.ndim)))
    return _flip(xp, weight, geometry)


def _weight_from_canonical(xp: Any, geometry: Geometry, weight: Any) -> Any:
    layout = WeightLayout.of(geometry.weight_format, geometry.rank)
    weight = _flip(xp, weight, geometry)
    if not layout.outputs_divided:
        weight = xp.permute_dims(weight, (0, 2, 1, *range(3, weight.ndim)))
    g, whole, share, *kernel = weight.shape
    weight = xp.reshape(weight, (g * whole, share, *kernel))
    if layout.outputs_divided:
        order = (layout.inputs, layout.outputs, *layout.kernel)
    else:
        order = (layout.outputs, layout.inputs, *layout.kernel)
    return xp.permute_dims(weight, tuple(order.index(n) for n in range(len(order))))


def _flip(xp: Any, weight: Any, geometry: Geometry) -> Any:
    if not geometry.flip_kernel:
        return weight
    return xp.flip(weight, axis=tuple(range(3, weight.ndim)))


@lru_cache(maxsize=256)
def permutation(before: str, after: str, rank: int) -> tuple[int, ...]:
    """Permutation from one string of axes to another: a capital is `rank` axes, (QR) interleaves.

    >>> permutation("ngm(QR)", "gmRnQ", 2)
    (1, 2, 4, 6, 0, 3, 5)
    """
    names = [_axis_names(text, rank) for text in (before, after)]
    return tuple(names[0].index(name) for name in names[1])


def _axis_names(text: str, rank: int) -> list[str]:
    names = []
    for part in re.findall(r"\(..\)|.", text):
        if part[0] == "(":
            names += [letter + str(n) for n in range(rank) for letter in part[1:3]]
        else:
            names += [part + str(n) for n in range(rank)] if part.isupper() else [part]
    return names
