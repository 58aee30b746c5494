"""Fourier transforms of real and complex arrays, by SciPy's pocketfft or NumPy's."""

from collections.abc import Sequence
from functools import cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.system.fork_lock import importing

__all__ = ["back", "fast_length", "transformed"]


@cache
def _library() -> tuple[Any, bool]:
    """The module, and whether it is SciPy's, which knows fast lengths."""
    with importing:
        try:
            import scipy.fft as library
        except ImportError:
            return np.fft, False
    return library, True


def transformed(array: NDArray[Any], sizes: Sequence[int]) -> NDArray[Any]:
    """Transform the last axes, filled up with zeros to these sizes.

    Of real numbers, the last axis has the half of the frequencies that the others follow from.
    """
    library, _ = _library()
    function = library.fftn if array.dtype.kind == "c" else library.rfftn
    found: NDArray[Any] = function(array, tuple(sizes), tuple(range(-len(sizes), 0)))
    return found


def back(array: NDArray[Any], sizes: Sequence[int], is_complex: bool) -> NDArray[Any]:
    """The array of these sizes along its last axes that has a transform."""
    library, _ = _library()
    function = library.ifftn if is_complex else library.irfftn
    found: NDArray[Any] = function(array, tuple(sizes), tuple(range(-len(sizes), 0)))
    return found


@cache
def fast_length(least: int, is_real: bool) -> int:
    """The next length from `least` on whose transform takes little time.

    >>> fast_length(1019, True)
    1024
    """
    library, is_scipy = _library()
    if is_scipy:
        return int(library.next_fast_len(least, is_real))
    length = least
    while not _has_small_factors(length):
        length += 1
    return length


def _has_small_factors(number: int) -> bool:
    for factor in (2, 3, 5):
        while number % factor == 0:
            number //= factor
    return number == 1
