"""Facts of a scene: every number that the page, the pictures and the text show.

Sizes and indices come from the geometry. Sums are of float64 in one order: the scatter-add of
stamps, the multiples of the kernel, input by input. The page's script computes the same while a
reader edits numbers; a test compares the bits of both.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache, reduce
from math import isfinite
from operator import add
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.checkerboard import decibels, overlap_counts, phase_sums, ripple
from tconv.explainer.scene import Scene, number_text, plain_number
from tconv.explainer.snippets import snippets
from tconv.geometry.axis import Axis
from tconv.geometry.geometry import Geometry

__all__ = ["equation_of", "facts_of", "signed", "stamped", "tap_letter"]

Grid = NDArray[np.float64]


def facts_of(scene: Scene) -> dict[str, Any]:
    """Return all facts of a scene, as plain lists and numbers that JSON holds.

    Flat indices count cells row by row. ``contributions[o]`` lists the pairs [i, k] of input and
    tap that output o sums; ``matrix`` lists the non-zeros of (W*)^T as [o, i, k].

    >>> facts = facts_of(Scene.of())
    >>> facts["y"], facts["contributions"][4]
    ([[37, 121, 94], [178, 500, 342], [201, 499, 308]], [[0, 3], [1, 2], [2, 1], [3, 0]])
    >>> facts["equations"][4]
    'y[1,1] = 4·37 + 3·47 + 2·67 + 1·77 = 500'
    """
    return _facts_of(scene, scene.url_state)  # 0 and -0 differ in it, and are equal as numbers


@lru_cache(maxsize=64)
def _facts_of(scene: Scene, _: str) -> dict[str, Any]:
    geometry, axes = scene.geometry, scene.axes
    x, w = np.array(scene.x), np.array(scene.w)
    canvas = stamped(scene)
    y = canvas[tuple(slice(axis.begin, axis.begin + axis.output) for axis in axes)]
    i, k, o = geometry.unrolled_indices()
    pairs: list[list[list[int]]] = [[] for _ in range(y.size)]
    for of_i, of_k, of_o in zip(i.tolist(), k.tolist(), o.tolist(), strict=True):
        pairs[of_o].append([of_i, of_k])
    counts = np.array([len(of_o) for of_o in pairs]).reshape(y.shape)
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
        "full_size": [axis.full for axis in axes],
        "canvas": _plain(canvas),
        "size_formulas": [_size_formula(axis) for axis in own],
        "contributions": pairs,
        "equations": [
            _equation(divmod(n, axes[1].output), of_n, x.ravel(), w.ravel(), y.flat[n], number_text)
            for n, of_n in enumerate(pairs)
        ],
        "counts": _plain(counts),
        "matrix": {
            "shape": [y.size, x.size],
            "nonzeros": [[n, *pair] for n, of_n in enumerate(pairs) for pair in of_n],
        },
        **_phases(scene, w),
        "as_convolution": _as_convolution(axes),
        "not_the_inverse": _not_the_inverse(x, w, y, pairs),
        "code": snippets(own),
    }


def tap_letter(tap: int) -> str:
    """Return the letter of a tap: a to z, then A to W; a kernel has at most 49 taps.

    >>> tap_letter(0), tap_letter(26)
    ('a', 'A')
    """
    return "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ"[tap]


def stamped(scene: Scene, stamps: int | None = None) -> Grid:
    """Scatter-add the first few stamps, or all of them, before the padding crops the sums.

    The array includes the cells of output padding; y begins in it where the padding ends.

    >>> stamped(Scene.of(), 1)
    array([[ 37.,  74.,   0.],
           [111., 148.,   0.],
           [  0.,   0.,   0.]])
    """
    sizes = [max(axis.full, axis.begin + axis.output) for axis in scene.axes]
    axes = tuple(
        axis._replace(output=size, begin=0, end=axis.full - size, extra=0)
        for axis, size in zip(scene.axes, sizes, strict=True)
    )
    i, k, o = Geometry(1, 1, 1, 1, axes).unrolled_indices()
    chosen = slice(None) if stamps is None else i < stamps
    canvas = np.zeros(sizes)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        products = np.ravel(scene.x)[i[chosen]] * np.ravel(scene.w)[k[chosen]]
        np.add.at(canvas.reshape(-1), o[chosen], products)
    return canvas


def _size_formula(axis: Axis) -> str:
    return (
        f"({axis.input} − 1)·{axis.stride} − ({axis.begin} + {axis.end}) + "
        f"{axis.dilation}·({axis.kernel} − 1) + {axis.extra} + 1 = {axis.output}"
    )


def equation_of(facts: Mapping[str, Any], o: int, write: Callable[[float], str]) -> str:
    """Write the sum of an output cell; a function writes its numbers.

    >>> equation_of(facts_of(Scene.of([0.125], [3])), 0, "{:.1f}".format)
    'y[0,0] ≈ 3.0·0.1 ≈ 0.4'
    """
    x, w = (np.ravel(np.array(facts[name], np.float64)) for name in "xw")
    r, c = divmod(o, facts["output_size"][1])
    return _equation((r, c), facts["contributions"][o], x, w, float(facts["y"][r][c]), write)


def _equation(
    at: tuple[int, int],
    pairs: list[list[int]],
    x: Grid,
    w: Grid,
    value: float,
    write: Callable[[float], str],
) -> str:
    terms = [f"{signed(write(float(w[k])))}·{signed(write(float(x[i])))}" for i, k in pairs]
    name, equals = f"y[{at[0]},{at[1]}]", "=" if write is number_text else "≈"
    if not terms:
        return f"{name} = 0, as no tap reaches this cell"
    return f"{name} {equals} {' + '.join(terms)} {equals} {write(float(value))}"


def signed(text: str) -> str:
    """Put a negative number of a sum into brackets."""
    return f"({text})" if text.startswith("-") else text


def _phases(scene: Scene, w: Grid) -> dict[str, Any]:
    settings: dict[str, Any] = {
        "stride": [axis.stride for axis in scene.axes],
        "dilation": [axis.dilation for axis in scene.axes],
    }
    weight = w[np.newaxis, np.newaxis]
    ratio = ripple(weight, **settings)
    level = decibels(ratio)
    with np.errstate(over="ignore", invalid="ignore"):
        sums = phase_sums(weight, **settings)[0, 0]
    return {
        "phase_counts": overlap_counts(w.shape, **settings).tolist(),
        "phase_sums": _plain(sums),
        "even": [axis.even for axis in scene.axes],
        "ripple": ratio if isfinite(ratio) else None,
        "ripple_db": level if isfinite(level) else None,
    }


def _as_convolution(axes: tuple[Axis, Axis]) -> dict[str, Any]:
    """Return the size of the dilated input, and its border; a negative border is a crop."""
    return {
        "stretched_size": [(axis.input - 1) * axis.stride + 1 for axis in axes],
        "border": [
            [axis.reach - 1 - axis.begin, axis.reach - 1 - axis.end + axis.extra] for axis in axes
        ],
    }


def _not_the_inverse(x: Grid, w: Grid, y: Grid, pairs: list[list[list[int]]]) -> dict[str, Any]:
    """Return a ramp r of y's shape, W* r, (W*)^T W* r, and both sides of <W* r, x> = <r, y>."""
    o = np.repeat(np.arange(y.size), list(map(len, pairs)))
    i, k = np.array([pair for of_o in pairs for pair in of_o], np.int64).reshape(-1, 2).T
    ramp, taps = np.arange(1.0, y.size + 1), w.ravel()[k]
    down, back = np.zeros(x.size), np.zeros(y.size)
    with np.errstate(over="ignore", invalid="ignore", under="ignore"):
        np.add.at(down, i, taps * ramp[o])
        np.add.at(back, o, taps * down[i])
        small, large = down * x.ravel(), y.ravel() * ramp
    return {
        "start": _plain(ramp.reshape(y.shape)),
        "convolved": _plain(down.reshape(x.shape)),
        "back": _plain(back.reshape(y.shape)),
        "inner_small": _number(reduce(add, small.tolist())),
        "inner_large": _number(reduce(add, large.tolist())),
    }


def _plain(array: NDArray[Any]) -> list[Any]:
    return [_plain(each) if array.ndim > 1 else _number(each) for each in array]


def _number(value: Any) -> int | float:
    return plain_number(float(value))
