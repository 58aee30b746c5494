"""Solver of the size law for the settings that are not given."""

from collections.abc import Iterator
from heapq import merge
from itertools import groupby, islice
from typing import Any, NamedTuple, Never

from tconv.errors import ParameterError
from tconv.geometry.arguments import as_integer, as_pair
from tconv.geometry.axis import Axis
from tconv.signatures import readable, unknown_keyword
from tconv.system.public_pickles import reduce_by_public_name

__all__ = ["Solution", "solve", "solve_beyond"]

_LARGEST_KERNEL = 16
_LARGEST_STRIDE = 16
_MOST_PADDINGS = 1000  # tried per kernel and stride, from the smallest that fits
_MOST_ROWS = 100_000

Pair = tuple[int, int]


class Solution(NamedTuple):
    """One row of `solve`: settings along one axis that fit together.

    ``taps_per_phase`` counts the (fewest, most) taps that reach an output cell far from the border;
    ``even`` says that they are equal, so the architecture alone makes no checkerboard.

    >>> solve(input_size=8, kernel_size=3, stride=2, padding=1)[0].taps_per_phase
    (1, 2)
    """

    input_size: int
    output_size: int
    kernel_size: int
    stride: int
    padding: int | tuple[int, int]
    output_padding: int
    dilation: int
    taps_per_phase: tuple[int, int]
    even: bool

    def __reduce_ex__(self, protocol: Any) -> tuple[Any, ...]:
        return reduce_by_public_name(self, protocol)


@readable
def solve(
    *,
    input_size: int | None = None,
    output_size: int | None = None,
    kernel_size: int | None = None,
    stride: int | None = None,
    padding: int | tuple[int, int] | None = None,
    dilation: int = 1,
    limit: int = 20,
    **unknown: Never,
) -> list[Solution]:
    """List the settings of one axis that fit the given sizes; it searches for all that are None.

    Kernel and stride are searched up to 16, padding (the same on both sides) from 0 to the kernel;
    output_padding always follows. If nothing within these bounds fits, larger settings may.
    Pass at least one of the sizes: with all other settings given, ``solve`` lists the outputs of an
    input, or the inputs of an output.

    Parameters
    ----------
    input_size, output_size : int, samples of x and of y along this axis
    kernel_size, stride, dilation : int
    padding : int or (begin, end), samples of y
    limit : int up to 100000, the most rows to return

    Returns
    -------
    list of Solution, even overlap first, then fewest taps; empty if nothing fits

    Raises
    ------
    ParameterError : a value breaks its own rule, or both sizes are missing

    References
    ----------
    Dumoulin & Visin 2016, arXiv:1603.07285, relationship 14; Odena, Dumoulin & Olah 2016 for why
    even overlap comes first.

    >>> for row in solve(input_size=64, output_size=128, stride=2, limit=3):
    ...     print(row.kernel_size, row.stride, row.padding, row.output_padding, row.even)
    2 2 0 0 True
    4 2 1 0 True
    6 2 2 0 True
    >>> [row.input_size for row in solve(output_size=9, kernel_size=3, stride=2, padding=0)]
    [4]
    """
    if unknown:
        raise unknown_keyword(solve, unknown)
    if input_size is None and output_size is None:
        raise ParameterError(
            "input_size=None, output_size=None: one of them must be given; pass the size you have."
        )
    wanted_input = None if input_size is None else as_integer(input_size, "input_size", 1)
    wanted_output = None if output_size is None else as_integer(output_size, "output_size", 1)
    d = as_integer(dilation, "dilation", 1)
    most = as_integer(limit, "limit", 1)
    if most > _MOST_ROWS:
        raise ParameterError(f"limit={most} must be at most {_MOST_ROWS}; pass a smaller one.")
    kernels = _given_or_range(kernel_size, "kernel_size", 1, _LARGEST_KERNEL)
    strides = _given_or_range(stride, "stride", 1, _LARGEST_STRIDE)
    given = None if padding is None else as_pair(padding, "padding")

    rows: list[Solution] = []
    axes = [Axis(wanted_input or 1, k, wanted_output or 1, s, d) for k in kernels for s in strides]
    axes.sort(key=lambda axis: (not axis.even, axis.kernel))
    for _, alike in groupby(axes, key=lambda axis: (axis.even, axis.kernel)):
        fits = []
        for axis in alike:
            crops = _crops(axis, wanted_input, wanted_output) if given is None else [given]
            for begin, end in crops:
                cropped = axis._replace(begin=begin, end=end)
                fits.append(map(_row, _fits(cropped, wanted_input, wanted_output)))
        rows += islice(merge(*fits, key=_rank), most - len(rows))
        if len(rows) == most:
            break
    return rows


def solve_beyond(
    *,
    input_size: int,
    output_size: int,
    kernel_size: int | None = None,
    stride: int | None = None,
    padding: int | tuple[int, int] | None = None,
    dilation: int = 1,
) -> list[Solution]:
    """List settings beyond the bounds of `solve`, at most one for every kernel and stride.

    Padding takes all that is left over, as (begin, end) where that is odd. Kernel and stride are
    searched up to 16 and, for outputs too large for these, the least that suffice.

    >>> [(row.padding, row.output_padding) for row in solve_beyond(
    ...     input_size=64, output_size=100, kernel_size=3, stride=2)]
    [(15, 1)]
    """
    rows: list[Solution] = []
    given = None if padding is None else as_pair(padding, "padding")
    kernels = _given_or_range(kernel_size, "kernel_size", 1, _LARGEST_KERNEL)
    strides = _given_or_range(stride, "stride", 1, _LARGEST_STRIDE)
    sizes = [(k, s) for k in kernels for s in strides]
    needed, wide = output_size + sum(given or (0, 0)), max(strides[-1], dilation)
    if stride is None:
        k = kernels[0]
        large = max(-(-(needed - dilation * (k - 1)) // input_size), 1)
        sizes += [(k if kernel_size else large, large)]
        if kernel_size is None:  # and kernels that fill the gaps of such strides
            for s in (max(large - 1, 1), large):
                sizes.append((max(needed - 1 - (input_size - 1) * s, 0) // dilation + 1, s))
    elif kernel_size is None:
        missing = needed - (input_size - 1) * stride - wide
        sizes.append((max(-(-missing // dilation) + 1, 1), stride))
    for k, s in dict.fromkeys(sizes):
        axis = Axis(input_size, k, output_size, s, dilation)
        crop = max(axis.full - output_size, 0)
        if crop % 2 and max(s, dilation) > 1:
            crop += 1  # output_padding makes up for it
        begin, end = given or (crop // 2, crop - crop // 2)
        fits = _fits(axis._replace(begin=begin, end=end), input_size, output_size)
        rows += map(_row, fits)
    return sorted(rows, key=_rank)


def _crops(axis: Axis, wanted_input: int | None, wanted_output: int | None) -> Iterator[Pair]:
    """Equal crops of both sides, up to the kernel, that something can fit; the smallest first."""
    extras, low, high = max(axis.stride, axis.dilation), 0, axis.kernel
    if wanted_output is not None:
        low = max(low, -((axis.output - axis.law) // 2))
    if wanted_input is not None:
        least = 1 if wanted_output is None else wanted_output
        high = min(high, (axis.law + extras - 1 - least) // 2)
    return ((crop, crop) for crop in range(low, min(high, low + _MOST_PADDINGS - 1) + 1))


def _fits(axis: Axis, wanted_input: int | None, wanted_output: int | None) -> Iterator[Axis]:
    """All completions of `axis`, by rising output_padding."""
    extras = max(axis.stride, axis.dilation)
    slack = axis.output - axis.law  # output_padding, if both sizes are given
    if wanted_input is None:  # the axis has input 1; `slack` is for further inputs
        for extra in range(slack % axis.stride, min(extras, slack + 1), axis.stride):
            yield axis._replace(input=(slack - extra) // axis.stride + 1, extra=extra)
    elif wanted_output is None:
        for extra in range(max(0, 1 - axis.law), extras):
            yield axis._replace(output=axis.law + extra, extra=extra)
    elif 0 <= slack < extras:
        yield axis._replace(extra=slack)


def _row(axis: Axis) -> Solution:
    return Solution(
        axis.input,
        axis.output,
        axis.kernel,
        axis.stride,
        axis.begin if axis.begin == axis.end else (axis.begin, axis.end),
        axis.extra,
        axis.dilation,
        axis.taps_per_phase,
        axis.even,
    )


def _given_or_range(value: int | None, name: str, low: int, high: int) -> range:
    if value is None:
        return range(low, high + 1)
    given = as_integer(value, name, low)
    return range(given, given + 1)


def _rank(row: Solution) -> tuple[bool, int, int, int, int, int]:
    pad = row.padding if isinstance(row.padding, int) else sum(row.padding)
    return (not row.even, row.kernel_size, row.output_padding, row.stride, pad, row.input_size)
