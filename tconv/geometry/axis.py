"""One spatial axis: the size law, the phase and shift of a tap, bands of phases, windows.

Along one axis, input cell i, tap k and output cell o meet when

    o == i*stride - padding_begin + k*dilation          (1)

The *full* coordinate ``f = o + padding_begin = i*stride + k*dilation`` counts output cells before
cropping. Writing ``f = q*stride + r`` splits it into a row q and a phase r = f mod stride; with
``k*dilation = t*stride + r`` the tap k belongs to one phase r and shift t, and (1) becomes
``q == i + t``: per phase a transposed convolution is an ordinary stride-1 correlation. Everything
fast in tconv rests on this (Shi et al. 2016, arXiv:1609.07009).
"""

from functools import lru_cache
from math import gcd
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.errors import ShapeError

__all__ = ["Axis", "Band", "bands"]

_MOST_COUNTED = 2**63 - 1


class Band(NamedTuple):
    """Neighbouring phases whose taps have the same shifts, so that they share their input windows.

    ``taps[j][r - start]`` is the tap that joins input row ``q - shifts[j]`` to output row q at
    phase r, for ``start <= r < stop``. A band without shifts is a gap: no tap reaches these phases.
    """

    start: int
    stop: int
    shifts: tuple[int, ...]
    taps: tuple[tuple[int, ...], ...]

    @property
    def width(self) -> int:
        """Number of phases."""
        return self.stop - self.start


@lru_cache(maxsize=1024)
def bands(kernel: int, stride: int, dilation: int) -> tuple[Band, ...]:
    """Group the phases 0..stride-1 into bands, from the first to the last.

    A kernel of 3 taps under stride 2 has two bands: phase 0 holds taps 0 and 2, phase 1 tap 1.
    At dilation 1 there are at most two bands, at any dilation at most 2*kernel + 1.

    >>> bands(3, 2, 1)
    (Band(start=0, stop=1, shifts=(0, 1), taps=((0,), (2,))), Band(start=1, stop=2, shifts=(0,), \
taps=((1,),)))
    >>> bands(4, 2, 1)
    (Band(start=0, stop=2, shifts=(0, 1), taps=((0, 1), (2, 3))),)
    """
    taps_of_phase: dict[int, list[tuple[int, int]]] = {}
    for k in range(kernel):
        phase, shift = Axis(1, kernel, 1, stride, dilation).phase_and_shift(k)
        taps_of_phase.setdefault(phase, []).append((shift, k))

    found: list[tuple[int, tuple[int, ...], list[list[int]]]] = []  # start, shifts and taps

    def extend(phase: int, shifts: tuple[int, ...], taps: list[int]) -> None:
        if not found or found[-1][1] != shifts:
            found.append((phase, shifts, [[] for _ in shifts]))
        for column, k in zip(found[-1][2], taps, strict=True):
            column.append(k)

    end = 0
    for phase, members in sorted(taps_of_phase.items()):
        if phase > end:
            extend(end, (), [])
        extend(phase, tuple(t for t, _ in members), [k for _, k in members])
        end = phase + 1
    if end < stride:
        extend(end, (), [])
    stops = [start for start, _, _ in found[1:]] + [stride]
    return tuple(
        Band(start, stop, shifts, tuple(map(tuple, taps)))
        for (start, shifts, taps), stop in zip(found, stops, strict=True)
    )


class Axis(NamedTuple):
    """One spatial axis of one call; sizes in samples, the law (1) between them.

    ``end`` and ``extra`` (output_padding) only count towards the output size; where taps land
    depends on the other fields alone.
    """

    input: int
    kernel: int
    output: int
    stride: int = 1
    dilation: int = 1
    begin: int = 0
    end: int = 0
    extra: int = 0

    @property
    def reach(self) -> int:
        """Cells from the first tap to the last, both counted: dilation*(kernel - 1) + 1."""
        return self.dilation * (self.kernel - 1) + 1

    @property
    def full(self) -> int:
        """Output size before cropping: (input - 1)*stride + reach."""
        return (self.input - 1) * self.stride + self.reach

    @property
    def law(self) -> int:
        """Output size by the law, (I - 1)*s + d*(K - 1) + 1 - p_begin - p_end + output_padding.

        >>> Axis(input=4, kernel=3, output=9, stride=2).law
        9
        """
        return self.full - self.begin - self.end + self.extra

    @property
    def even(self) -> bool:
        """Whether every output cell far from the border is reached by equally many taps.

        So exactly if dilation and stride share no divisor and the stride divides the kernel
        (Odena, Dumoulin & Olah 2016, for dilation 1).

        >>> Axis(64, 4, 128, stride=2, begin=1, end=1).even, Axis(64, 3, 129, stride=2).even
        (True, False)
        """
        return gcd(self.dilation, self.stride) == 1 and self.kernel % self.stride == 0

    def phase_and_shift(self, tap: int) -> tuple[int, int]:
        """The phase r of a tap and its shift t: output q*stride + r reads input q - t.

        Outputs count from the first one that is kept, so ``tap*dilation - begin = t*stride + r``.

        >>> axis = Axis(input=4, kernel=4, output=8, stride=2, begin=1, end=1)
        >>> [axis.phase_and_shift(tap) for tap in range(4)]
        [(1, -1), (0, 0), (1, 0), (0, 1)]
        """
        shift, phase = divmod(tap * self.dilation - self.begin, self.stride)
        return phase, shift

    @property
    def taps_per_phase(self) -> tuple[int, int]:
        """Fewest and most taps that any phase has: taps come round to a phase every `period`.

        >>> Axis(64, 3, 129, stride=2).taps_per_phase, Axis(64, 3, 131, 2, 2).taps_per_phase
        ((1, 2), (0, 3))
        """
        period = self.stride // gcd(self.dilation, self.stride)
        fewest = self.kernel // period if period == self.stride else 0
        return fewest, -(-self.kernel // period)

    def input_window(self, start: int, stop: int) -> tuple[int, int]:
        """Inputs [first, last) that lie within reach of outputs [start, stop).

        >>> Axis(input=8, kernel=3, output=17, stride=2).input_window(4, 6)
        (1, 3)
        """
        first = -((self.reach - 1 - start - self.begin) // self.stride)
        last = (stop - 1 + self.begin) // self.stride + 1
        first = min(max(first, 0), self.input)
        return first, max(first, min(last, self.input))

    def output_window(self, start: int, stop: int) -> tuple[int, int]:
        """Outputs [first, last) between the outermost ones that inputs [start, stop) reach.

        >>> Axis(input=8, kernel=3, output=17, stride=2).output_window(1, 3)
        (2, 7)
        """
        if stop <= start:
            return 0, 0
        first = start * self.stride - self.begin
        last = (stop - 1) * self.stride - self.begin + self.reach
        first = min(max(first, 0), self.output)
        return first, max(first, min(last, self.output))

    def joins(self) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
        """Output cell o of every (input, tap), shape (input, kernel), and whether it exists.

        What does not exist and is beyond 64 bits is -1.

        >>> o, exists = Axis(input=2, kernel=3, output=3, stride=2, begin=1, end=1).joins()
        >>> o
        array([[-1,  0,  1],
               [ 1,  2,  3]])
        >>> exists
        array([[False,  True,  True],
               [ True,  True, False]])
        """
        if self.output > _MOST_COUNTED:
            raise ShapeError(
                f"output size {self.output} is more than 64 bits count; lower it, or raise padding."
            )
        sizes = self.full, self.stride, self.dilation, abs(self.begin) + self.full
        kind: Any = np.int64 if max(sizes) <= _MOST_COUNTED else object  # Python's integers
        i = np.arange(self.input, dtype=np.int64).astype(kind)[:, np.newaxis]
        k = np.arange(self.kernel, dtype=np.int64).astype(kind)
        o = i * self.stride - self.begin + k * self.dilation
        exists = np.asarray((o >= 0) & (o < self.output), np.bool_)
        return (o if kind is np.int64 else np.where(exists, o, -1).astype(np.int64)), exists
