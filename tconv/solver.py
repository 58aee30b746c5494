"""WHICH SETTINGS FIT: the size law solved for whatever is not given."""

from collections.abc import Iterator
from itertools import islice
from typing import NamedTuple

from tconv.arguments import as_integer, as_pair
from tconv.axis import Axis
from tconv.errors import ParameterError

__all__ = ["Solution", "solve"]

_LARGEST_KERNEL = 16
_LARGEST_STRIDE = 16


class Solution(NamedTuple):
    """One row of `solve`: settings along one axis that fit together.

    ``taps_per_phase`` counts the (fewest, most) taps that reach an output cell far from the border;
    ``even`` says that they are equal, so that the architecture alone makes no checkerboard.

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


def solve(
    *,
    input_size: int | None = None,
    output_size: int | None = None,
    kernel_size: int | None = None,
    stride: int | None = None,
    padding: int | tuple[int, int] | None = None,
    dilation: int = 1,
    limit: int = 20,
) -> list[Solution]:
    """List the settings of one axis that join the given sizes: what is None is searched for.

    Kernel and stride are searched up to 16, padding (the same on both sides) from 0 to the kernel;
    output_padding always follows. Either size may be left out, not both: with all settings given,
    ``solve`` tells which outputs an input can have and which inputs an output can come from.

    Parameters
    ----------
    input_size, output_size : int, samples of x and of y along this axis
    kernel_size, stride, dilation : int
    padding : int or (begin, end), samples of y
    limit : int, the most rows to return

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
    if input_size is None and output_size is None:
        raise ParameterError(
            "input_size=None, output_size=None: one of them must be given; pass the size you have."
        )
    wanted_input = None if input_size is None else as_integer(input_size, "input_size", 1)
    wanted_output = None if output_size is None else as_integer(output_size, "output_size", 1)
    d = as_integer(dilation, "dilation", 1)
    most = as_integer(limit, "limit", 1)
    kernels = _given_or_range(kernel_size, "kernel_size", 1, _LARGEST_KERNEL)
    strides = _given_or_range(stride, "stride", 1, _LARGEST_STRIDE)
    given = None if padding is None else as_pair(padding, "padding")

    rows = []
    for k in kernels:
        for s in strides:
            for crop in range(k + 1) if given is None else (given,):
                pair = crop if isinstance(crop, tuple) else (crop, crop)
                axis = Axis(wanted_input or 1, k, wanted_output or 1, s, d, *pair)
                for fit in islice(_fits(axis, wanted_input, wanted_output), most):
                    shown = pair[0] if pair[0] == pair[1] else pair
                    taps = fit.taps_per_phase
                    row = (fit.input, fit.output, k, s, shown, fit.extra, d, taps, fit.even)
                    rows.append(Solution(*row))
    rows.sort(key=_rank)
    return rows[:most]


def _fits(axis: Axis, wanted_input: int | None, wanted_output: int | None) -> Iterator[Axis]:
    """Every (input, output, output_padding) that completes the settings of `axis`."""
    extras = max(axis.stride, axis.dilation)
    if wanted_input is not None:
        for extra in range(extras):
            fit = axis._replace(extra=extra)
            if wanted_output is not None:
                extra = wanted_output - axis.law
                fit = axis._replace(extra=extra)
                if 0 <= extra < extras:
                    yield fit
                return
            if fit.law >= 1:
                yield fit._replace(output=fit.law)
    else:
        # law = base + (I - 1)*stride + extra with 0 <= extra < extras, so I - 1 runs upwards from
        # where extra is largest.
        slack = axis.output - axis._replace(input=1).law
        for steps in range(
            max(0, -((extras - 1 - slack) // axis.stride)), slack // axis.stride + 1
        ):
            yield axis._replace(input=steps + 1, extra=slack - steps * axis.stride)


def _given_or_range(value: int | None, name: str, low: int, high: int) -> range:
    if value is None:
        return range(low, high + 1)
    given = as_integer(value, name, low)
    return range(given, given + 1)


def _rank(row: Solution) -> tuple[bool, int, int, int, int, int]:
    pad = row.padding if isinstance(row.padding, int) else sum(row.padding)
    return (not row.even, row.kernel_size, row.output_padding, row.stride, pad, row.input_size)
