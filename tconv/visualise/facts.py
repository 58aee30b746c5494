"""WHAT IS TRUE OF A SCENE: every number that the page, the pictures and the text show.

Sizes come from the geometry, values from the definition. The page's script computes the same again
while a reader changes numbers, and is tested against this.
"""

from functools import lru_cache
from math import isfinite
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.axis import Axis
from tconv.checkerboard import decibels, overlap_counts, phase_sums, ripple
from tconv.definition import contract
from tconv.geometry import Geometry
from tconv.visualise.scene import Scene, number_text
from tconv.visualise.snippets import snippets

__all__ = ["facts_of", "tap_letter"]

Grid = NDArray[np.float64]


@lru_cache(maxsize=64)
def facts_of(scene: Scene) -> dict[str, Any]:
    """Return all facts of a scene, as plain lists and numbers that JSON holds.

    Flat indices count cells row by row. ``contributions[o]`` lists the pairs [i, k] that meet in
    output o; ``matrix`` is (W*)^T, of whose non-zeros it lists [o, i, k].

    >>> facts = facts_of(Scene.of())
    >>> facts["y"], facts["contributions"][4]
    ([[37, 121, 94], [178, 500, 342], [201, 499, 308]], [[0, 3], [1, 2], [2, 1], [3, 0]])
    >>> facts["equations"][4]
    'y[1,1] = 4·37 + 3·47 + 2·67 + 1·77 = 500'
    """
    geometry, axes = scene.geometry, scene.axes
    x, w = np.array(scene.x), np.array(scene.w)
    y = _contract(geometry, "y", x, w)
    i, k, o = geometry.unrolled_indices()
    pairs: list[list[list[int]]] = [[] for _ in range(y.size)]
    for of_i, of_k, of_o in zip(i.tolist(), k.tolist(), o.tolist(), strict=True):
        pairs[of_o].append([of_i, of_k])
    counts = _contract(geometry, "y", np.ones_like(x), np.ones_like(w))
    own = axes[2 - scene.rank :]
    return {
        "rank": scene.rank,
        "x": _plain(x),
        "w": _plain(w),
        "y": _plain(y),
        "input_size": list(geometry.input_size),
        "kernel_size": list(geometry.kernel_size),
        "output_size": list(geometry.output_size),
        "stride": [axis.stride for axis in axes],
        "dilation": [axis.dilation for axis in axes],
        "padding": [[axis.begin, axis.end] for axis in axes],
        "output_padding": [axis.extra for axis in axes],
        **_canvas(scene, x, w),
        "size_formulas": [_size_formula(axis) for axis in own],
        "contributions": pairs,
        "equations": [
            _equation(divmod(n, axes[1].output), of_n, x.ravel(), w.ravel(), y.flat[n])
            for n, of_n in enumerate(pairs)
        ],
        "counts": _plain(counts),
        "matrix": {
            "shape": [y.size, x.size],
            "nonzeros": [[n, *pair] for n, of_n in enumerate(pairs) for pair in of_n],
        },
        **_phases(scene, w),
        "as_convolution": _as_convolution(axes),
        "not_the_inverse": _not_the_inverse(geometry, x, w, y),
        "code": snippets(own),
    }


def tap_letter(tap: int) -> str:
    """Return the letter of a tap: a to z, then A to W, as a kernel has at most 49.

    >>> tap_letter(0), tap_letter(26)
    ('a', 'A')
    """
    return "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[tap]


def _contract(geometry: Geometry, want: Any, a: Grid, b: Grid) -> Grid:
    found = contract(geometry, want, a[np.newaxis, np.newaxis], b[np.newaxis, np.newaxis])
    grid: Grid = found[0, 0]
    return grid


def _canvas(scene: Scene, x: Grid, w: Grid) -> dict[str, Any]:
    """Return the full output before the crop, as far as the extra cells, and where y lies in it."""
    sizes = [max(axis.full, axis.begin + axis.output) for axis in scene.axes]
    axes = tuple(
        axis._replace(output=size, begin=0, end=axis.full - size, extra=0)
        for axis, size in zip(scene.axes, sizes, strict=True)
    )
    whole = Geometry(1, 1, 1, 1, axes)
    return {
        "full_size": [axis.full for axis in scene.axes],
        "canvas": _plain(_contract(whole, "y", x, w)),
    }


def _size_formula(axis: Axis) -> str:
    return (
        f"({axis.input} − 1)·{axis.stride} − ({axis.begin} + {axis.end}) + "
        f"{axis.dilation}·({axis.kernel} − 1) + {axis.extra} + 1 = {axis.output}"
    )


def _equation(at: tuple[int, int], pairs: list[list[int]], x: Grid, w: Grid, value: float) -> str:
    terms = [f"{_signed(w[k])}·{_signed(x[i])}" for i, k in pairs]
    name = f"y[{at[0]},{at[1]}]"
    if not terms:
        return f"{name} = 0, as no tap reaches this cell"
    return f"{name} = {' + '.join(terms)} = {number_text(float(value))}"


def _signed(value: Any) -> str:
    text = number_text(float(value))
    return f"({text})" if text.startswith("-") else text


def _phases(scene: Scene, w: Grid) -> dict[str, Any]:
    settings = {
        "stride": [axis.stride for axis in scene.axes],
        "dilation": [axis.dilation for axis in scene.axes],
    }
    weight = w[np.newaxis, np.newaxis]
    ratio = ripple(weight, **settings)
    level = decibels(ratio)
    return {
        "phase_counts": overlap_counts(w.shape, **settings).tolist(),
        "phase_sums": _plain(phase_sums(weight, **settings)[0, 0]),
        "even": [axis.even for axis in scene.axes],
        "ripple": ratio if isfinite(ratio) else None,
        "ripple_db": level if isfinite(level) else None,
    }


def _as_convolution(axes: tuple[Axis, Axis]) -> dict[str, Any]:
    """Return the stretched input: its size, and the border around it; a negative one is a crop."""
    return {
        "stretched_size": [(axis.input - 1) * axis.stride + 1 for axis in axes],
        "border": [
            [axis.reach - 1 - axis.begin, axis.reach - 1 - axis.end + axis.extra] for axis in axes
        ],
    }


def _not_the_inverse(geometry: Geometry, x: Grid, w: Grid, y: Grid) -> dict[str, Any]:
    """Return a ramp r of y's shape, W* r and (W*)^T W* r, and both sides of <W*r, x> = <r, y>."""
    ramp = np.arange(1.0, y.size + 1).reshape(y.shape)
    down = _contract(geometry, "x", ramp, w)
    return {
        "start": _plain(ramp),
        "convolved": _plain(down),
        "back": _plain(_contract(geometry, "y", down, w)),
        "inner_small": _number(np.sum(down * x)),
        "inner_large": _number(np.sum(ramp * y)),
    }


def _plain(array: NDArray[Any]) -> list[Any]:
    return [_plain(each) if array.ndim > 1 else _number(each) for each in array]


def _number(value: Any) -> int | float:
    """Return a whole number as an int, which JSON writes without a point."""
    number = float(value)
    return int(number) if number == int(number) else number
