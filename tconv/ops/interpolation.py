"""Weights of interpolation along one axis: kernels, their phases and their borders."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray

__all__ = ["KERNELS", "Weights", "bytes_of_weights", "interpolation", "means"]

Floats = NDArray[np.float64]


def _triangle(d: Floats) -> Floats:
    return 1 - d


def _keys(d: Floats) -> Floats:
    """The cubic of Keys 1981 with a = -0.5."""
    return np.where(d < 1, (1.5 * d - 2.5) * d * d + 1, ((-0.5 * d + 2.5) * d - 4) * d + 2)


def _lanczos(d: Floats) -> Floats:
    values = np.sinc(d) * np.sinc(d / 3)
    return np.where((d % 1 == 0) & (d > 0), 0.0, values)  # zeros that sinc misses by rounding


KERNELS: dict[str, tuple[int, Callable[[Floats], Floats]]] = {
    "nearest": (1, np.ones_like),
    "linear": (2, _triangle),
    "cubic": (4, _keys),
    "lanczos3": (6, _lanczos),
}
"""Width in cells of the small array, and the value at a distance below half of it."""

_WIDEST = 6


class Weights(NamedTuple):
    """A transposed convolution along one axis, and the factors of its border."""

    taps: Floats
    padding: int
    border: list[tuple[slice, Floats]]
    """Cells near the ends, and what each is multiplied by."""


def interpolation(kernel: str, s: int, n: int) -> Weights:
    """Weights that enlarge n cells by s; the border is that of the large array.

    The taps of each phase sum to 1. Near the ends some of them lie outside of the array: without
    them the others are divided by their sum.

    >>> interpolation("linear", 2, 1)  # three quarters of the weights lie on the one cell
    Weights(taps=array([0.25, 0.75, 0.75, 0.25]), padding=1, border=[(slice(0, 1, None), \
array([1.33333333])), (slice(1, 2, None), array([1.33333333]))])
    """
    taps, padding = _taps(kernel, s)
    phase = np.arange(taps.size) % s
    taps = taps / np.bincount(phase, taps, s)[phase]
    cells = min(n, _WIDEST)  # the border depends on no others
    sums = np.zeros((cells - 1) * s + taps.size)
    for i in range(cells):
        sums[i * s : i * s + taps.size] += taps
    factors = 1 / sums[padding : padding + cells * s]
    begin = min(padding, (n * s + 1) // 2)
    end = min(padding, n * s - begin)
    border = [(slice(0, begin), factors[:begin]), (slice(n * s - end, n * s), factors[-end:])]
    return Weights(taps, padding, border if padding else [])


def means(kernel: str, s: int, n: int) -> Weights:
    """Weights that reduce n*s cells to n; the border is that of the small array.

    All taps together sum to 1, and near the ends those that lie on the large array.

    >>> means("linear", 2, 1).border
    [(slice(0, 1, None), array([1.33333333]))]
    """
    taps, padding = _taps(kernel, s)
    taps = taps / taps.sum()
    sums = np.append(0.0, np.cumsum(taps))
    count = min(-(-padding // s), n)
    border = []
    for cells in (np.arange(count), np.arange(max(n - count, count), n)):
        if cells.size:
            first = np.maximum(padding - cells * s, 0)
            stop = np.minimum((n - cells) * s + padding, taps.size)
            factors = 1 / (sums[stop] - sums[first])
            border.append((slice(int(cells[0]), int(cells[-1]) + 1), factors))
    return Weights(taps, padding, border)


def bytes_of_weights(kernel: str, s: int) -> int:
    """Memory that computing them takes: about a dozen arrays of float64.

    >>> bytes_of_weights("linear", 2)
    400
    """
    return 100 * KERNELS[kernel][0] * s


def _taps(kernel: str, s: int) -> tuple[Floats, int]:
    """Values of a kernel at the distances between cells of both arrays, and the padding.

    >>> _taps("linear", 2)
    (array([0.25, 0.75, 0.75, 0.25]), 1)
    """
    width, function = KERNELS[kernel]
    # Distances are multiples of 1/(2*s): even ones for odd s, and odd ones for even s.
    last = width * s - 1
    last -= (last + s + 1) % 2
    return function(np.abs(np.arange(-last, last + 1, 2)) / (2 * s)), (last + 1 - s) // 2
