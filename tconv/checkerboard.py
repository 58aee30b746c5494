"""Checkerboard artefacts: overlap counts, phase sums, and the ripple of a constant input.

Along one axis a full coordinate ``u = i*stride + k*dilation`` has the phase ``u mod stride``, and
tap k has the phase of ``k*dilation``. Far from the border an output of phase r sums the taps of
phase r, and for a constant input it *is* their sum. If the sums of the phases differ, a pattern
repeats with the stride: the checkerboard.
"""

import sys
from collections.abc import Sequence
from itertools import product
from math import frexp, gcd, log10, prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tconv.arrays.dtypes import largest
from tconv.errors import DTypeError, MemoryLimitError, ParameterError, ShapeError
from tconv.geometry.arguments import PerAxis, as_array, as_per_axis, entries_of, number_of
from tconv.geometry.axis import Axis
from tconv.geometry.shape_rules import MOST_AXES
from tconv.messages import show
from tconv.system.memory import available_bytes, check_room

__all__ = ["decibels", "overlap_counts", "phase_sums", "ripple"]

_MOST_COUNTED = 2**63 - 1
_SMALL_BYTES = 2**26  # below this the operating system is not asked for free memory


def overlap_counts(
    kernel_size: Sequence[int], *, stride: PerAxis = 1, dilation: PerAxis = 1
) -> NDArray[np.int64]:
    """Count the taps that reach an output of each phase, away from the border.

    ``c[r] = #{k : k*dilation mod stride == r}``, and over several axes their product.

    Parameters
    ----------
    kernel_size : one int per axis
    stride, dilation : int or one int per axis

    Returns
    -------
    array of int64, shape ``stride``: entry [ry, rx] is of the outputs with these phases, counted
        before the crop. All entries are the same exactly if on every axis stride divides the kernel
        and shares no divisor with the dilation.

    Raises
    ------
    ParameterError : a size, stride or dilation is no positive integer, or a count is beyond 64 bits
    MemoryLimitError : more phases than there is memory for

    References
    ----------
    Odena, Dumoulin & Olah 2016, doi:10.23915/distill.00003.

    >>> overlap_counts((3, 3), stride=2)
    array([[4, 2],
           [2, 1]])
    >>> overlap_counts((4,), stride=2)
    array([2, 2])
    """
    entries = entries_of(kernel_size)
    if not entries:
        raise ParameterError(
            f"kernel_size={show(kernel_size)} must be a tuple, whose length is the number of axes; "
            "pass (3, 3) for two of them."
        )
    rank = min(len(entries), MOST_AXES)
    kernel = as_per_axis(kernel_size, "kernel_size", rank, 1)
    strides = as_per_axis(stride, "stride", rank, 1)
    dilations = as_per_axis(dilation, "dilation", rank, 1)
    axes = [Axis(1, k, 1, s, d) for k, s, d in zip(kernel, strides, dilations, strict=True)]
    if prod(axis.taps_per_phase[1] for axis in axes) > _MOST_COUNTED:
        raise ParameterError(
            f"kernel_size={show(kernel)} has more taps for a phase than 64 bits count; lower it."
        )
    _check_phases(strides, 8)
    counts = np.ones((), np.int64)
    for axis in axes:
        counts = np.multiply.outer(counts, _counts(axis))
    return counts


def _counts(axis: Axis) -> NDArray[np.int64]:
    """Taps of every phase along one axis; successive taps cycle through the phases."""
    step = axis.dilation % axis.stride  # keeps products within 64 bits
    period = axis.stride // gcd(axis.stride, step)
    rounds, rest = divmod(axis.kernel, period)
    counts = np.zeros(axis.stride, np.int64)
    counts[np.arange(period if rounds else rest) * step % axis.stride] = rounds
    counts[np.arange(rest) * step % axis.stride] += 1
    return counts


def _check_phases(strides: tuple[int, ...], cell_bytes: int) -> None:
    """Refuse more phases of `cell_bytes` each than fit into memory."""
    needed = prod(strides) * cell_bytes
    if needed <= _SMALL_BYTES:
        return
    available = available_bytes()
    available = sys.maxsize if available is None else available
    if needed > available:
        raise MemoryLimitError(
            f"stride={show(strides)} has {prod(strides):,} phases, which need {needed:,} bytes but "
            f"{available:,} are available; lower the stride."
        )


def phase_sums(weight: ArrayLike, *, stride: PerAxis = 1, dilation: PerAxis = 1) -> NDArray[Any]:
    """Sum the taps of each phase: the output for a constant input of 1, away from the border.

    ``D[c, m, r] = sum of weight[c, m, k] over k with k*dilation mod stride == r``, per axis.

    Parameters
    ----------
    weight : array (C, M, *K) of numbers
    stride, dilation : int or one int per axis

    Returns
    -------
    array (C, M, *stride), of weight's type; phases that no tap reaches have 0

    Raises
    ------
    ShapeError : weight has no spatial axis.
    ParameterError : stride or dilation is no positive integer.
    DTypeError : weight is masked or not of numbers, or integers could overflow
    MemoryLimitError : more phases than there is memory for

    References
    ----------
    Harada, Muramatsu & Kiya 1998; Sugawara, Shiota & Kiya 2018, arXiv:1806.02658.

    >>> phase_sums(np.ones((1, 1, 3)), stride=2)
    array([[[2., 1.]]])
    >>> phase_sums([[[0.5, 1.0, 0.5]]], stride=2)
    array([[[1., 1.]]])
    """
    w: Any = as_array(weight, "weight")
    if w.ndim < 3:
        raise ShapeError(
            f"weight.shape={w.shape} must be (C, M, *K) with a spatial axis; "
            "pass weight[None, None] for a single kernel."
        )
    if w.dtype.kind not in "iufc" and w.dtype.name != "bfloat16":
        raise DTypeError(f"weight.dtype={w.dtype} must be a type of numbers; convert it first.")
    rank = w.ndim - 2
    strides = as_per_axis(stride, "stride", rank, 1)
    dilations = as_per_axis(dilation, "dilation", rank, 1)
    _check_phases(strides, prod(w.shape[:2]) * w.dtype.itemsize)
    if w.dtype.kind in "iu":
        sizes = zip(w.shape[2:], strides, dilations, strict=True)
        _check_sums(w, [Axis(1, k, 1, s, d) for k, s, d in sizes])
    check_room("phase_sums", w.nbytes)
    sums: Any = np.zeros((*w.shape[:2], *strides), w.dtype)
    for k in product(*map(range, w.shape[2:])):
        phase = tuple(n * d % s for n, d, s in zip(k, dilations, strides, strict=True))
        sums[(..., *phase)] += w[(..., *k)]
    found: NDArray[Any] = sums
    return found


def _check_sums(w: NDArray[Any], axes: list[Axis]) -> None:
    """Refuse integers whose sums could overflow."""
    bound = largest(np, w) * prod(axis.taps_per_phase[1] for axis in axes)
    if bound > np.iinfo(w.dtype).max:
        raise DTypeError(
            f"sums of weight's {w.dtype} could reach {bound:,}, beyond {np.iinfo(w.dtype).max:,}; "
            'pass weight.astype("float64") for example.'
        )


def ripple(weight: ArrayLike, *, stride: PerAxis = 1, dilation: PerAxis = 1) -> float:
    """Return the strength of the checkerboard for constant inputs, relative to their mean.

    ``R = sqrt(mean over phases of |D_r - D|^2) / |D|``, where D_r are the `phase_sums`, D their
    mean over the phases, and ``|.|`` is taken over all channels.

    Parameters
    ----------
    weight, stride, dilation : as `phase_sums`

    Returns
    -------
    float: 0 for an even pattern, 1 if the ripple is as large as the mean, infinity if only the
        mean is 0

    >>> ripple(np.ones((1, 1, 4, 4)), stride=2)
    0.0
    >>> round(ripple(np.ones((1, 1, 3, 3)), stride=2), 4)
    0.4843
    """
    w: Any = as_array(weight, "weight")
    check_room("ripple", 16 * 2 * w.size)
    if w.dtype.kind in "iufc" or w.dtype.name == "bfloat16":
        # In float64, scaled so that neither sums nor squares overflow or underflow.
        w = w.astype(np.result_type(w.dtype, np.float64))
        with np.errstate(over="ignore"):
            w = w / 2.0 ** min(frexp(float(np.abs(w).max(initial=0)))[1] - 1, 1000)
    sums = phase_sums(w, stride=stride, dilation=dilation)
    phases = sums.reshape(*sums.shape[:2], -1)  # (C, M, S)
    mean = phases.mean(axis=-1, keepdims=True)
    spread = float(np.sum(np.abs(phases - mean) ** 2)) / prod(sums.shape[2:])
    level = float(np.sum(np.abs(mean) ** 2))
    if spread == 0:
        return 0.0
    return sqrt(spread / level) if level else float("inf")


def decibels(ratio: float) -> float:
    """Return a ratio of amplitudes in decibels: ``20*log10(ratio)``, minus infinity for 0.

    >>> decibels(10.0), decibels(0.0)
    (20.0, -inf)
    """
    number = number_of(ratio)
    if not number >= 0:
        raise ParameterError(f"ratio={show(ratio)} must be a number of at least 0; pass one.")
    if number == 0:
        return float("-inf")
    return 20 * log10(number) if number != float("inf") else number
