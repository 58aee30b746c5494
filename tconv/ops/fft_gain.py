"""Predicted gain of Fourier transforms over direct sums, and the kernels from which they gain."""

from dataclasses import replace

import numpy as np

import tconv.engine as engine
from tconv.arrays.dtypes import TYPES
from tconv.geometry.geometry import Geometry, Letter
from tconv.spectral import Division

__all__ = ["gain", "on_fft"]

_WORTHWHILE = 1.5  # times as fast, before a plan speaks of it
_MOST_TAPS = 2**20  # along an axis, that are tried for the crossover


def _both_us(
    geometry: Geometry, want: Letter, dtype: str, threads: int | None
) -> tuple[Division, float, float | None]:
    """The division, its microseconds, and those of direct sums where the engine serves them."""
    kind = np.dtype(TYPES[dtype].accumulator)
    division = Division.of(geometry, want, kind.kind == "c")
    direct = engine.expected_us(geometry, want, dtype, threads, method="direct")
    return division, division.expected_us(kind.itemsize), direct


def gain(geometry: Geometry, want: Letter, dtype: str, threads: int | None) -> list[str]:
    """A line for a plan of direct sums that Fourier transforms are predicted to be faster than.

    >>> gain(Geometry.of((1, 1, 64, 64), (1, 1, 3, 3)), "y", "float32", 1)
    []
    """
    if TYPES[dtype].is_integer or max(geometry.kernel_size, default=1) < 8:
        return []
    _, by_fft, direct = _both_us(geometry, want, dtype, threads)
    if direct is None or direct < _WORTHWHILE * by_fft:
        return []
    return [
        f'method="fft" would take {by_fft:,.0f} us, {direct / by_fft:.1f} times as fast; its '
        "errors are relative to blocks, not to cells"
    ]


def on_fft(geometry: Geometry, want: Letter, dtype: str, threads: int | None) -> list[str]:
    """What a plan by Fourier transforms says of itself.

    >>> on_fft(Geometry.of((1, 1, 90_000), (1, 1, 4000)), "y", "float32", 1)[0]
    'Fourier transforms: x in 3 blocks of 32,001, transforms of 36,000, 1 phase'
    """
    division, by_fft, direct = _both_us(geometry, want, dtype, threads)
    itemsize = np.dtype(TYPES[dtype].accumulator).itemsize
    lines = [
        f"Fourier transforms: {division}",
        f"workspace {division.workspace_bytes(itemsize):,} bytes, expected {by_fft:,.0f} us",
    ]
    if direct is not None:
        lines.append(
            f'method="direct" is expected to take {direct:,.0f} us; transforms are faster '
            f"{_crossover(geometry, want, dtype, threads)}"
        )
    return lines


def _crossover(geometry: Geometry, want: Letter, dtype: str, threads: int | None) -> str:
    """From how many taps on, along each axis that has more than one, with the same x."""
    low, high = 1, 2
    while high <= _MOST_TAPS and not _is_gain(geometry, high, want, dtype, threads):
        low, high = high, 2 * high
    if high > _MOST_TAPS:
        return "for no kernel"
    while high - low > max(1, low // 16):
        middle = (low + high) // 2
        if _is_gain(geometry, middle, want, dtype, threads):
            high = middle
        else:
            low = middle
    taps = "x".join(str(high if axis.kernel > 1 else 1) for axis in geometry.axes)
    return f"from about {taps} taps on"


def _is_gain(geometry: Geometry, taps: int, want: Letter, dtype: str, threads: int | None) -> bool:
    axes = []
    for axis in geometry.axes:
        kernel = taps if axis.kernel > 1 else 1
        changed = axis._replace(kernel=kernel, begin=0, end=0)
        axes.append(changed._replace(output=changed.law))
    _, by_fft, direct = _both_us(replace(geometry, axes=tuple(axes)), want, dtype, threads)
    return direct is None or by_fft < direct
