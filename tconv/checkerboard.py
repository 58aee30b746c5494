"""Checkerboard artefacts: overlap counts, phase sums, and the ripple of a constant input.

Along one axis a full coordinate ``u = i*stride + k*dilation`` has the phase ``u mod stride``, and
tap k has the phase of ``k*dilation``. Far from the border an output of phase r sums the taps of
phase r, and for a constant input it *is* their sum. If the sums of the phases differ, a pattern
repeats with the stride: the checkerboard.
"""

from __future__ import annotations

import sys
from itertools import product
from math import frexp, gcd, log10, prod, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.dtypes import largest
from tconv.errors import DTypeError, MemoryLimitError, ParameterError, ShapeError
from tconv.geometry.arguments import (
    PerAxis,
    as_array,
    as_choice,
    as_per_axis,
    entries_of,
    number_of,
)
from tconv.geometry.axis import Axis
from tconv.geometry.axis_order import bare_kernel
from tconv.geometry.shape_rules import MOST_AXES
from tconv.geometry.weight_formats import WEIGHT_FORMATS, WeightLayout
from tconv.messages import show
from tconv.signatures import readable
from tconv.system.memory import available_bytes, check_room

__all__ = ["decibels", "overlap_counts", "phase_sums", "ripple"]

_MOST_COUNTED = 2**63 - 1
_SMALL_BYTES = 2**26  # below this the operating system is not asked for free memory


@readable
def overlap_counts(
    kernel_size: Any, *, stride: PerAxis | None = None, dilation: PerAxis | None = None
) -> NDArray[np.int64]:
    """Count the taps that reach an output of each phase, away from the border.

    ``c[r] = #{k : k*dilation mod stride == r}``, and over several axes their product. A cell with a
    count of 4 sums four products where its neighbour with a count of 1 has one: with weights of
    about the same size it is about four times as large, and that is the checkerboard.

    Parameters
    ----------
    kernel_size : one int per axis; or a layer, such as a `ConvTranspose2d` of tconv or PyTorch
    stride, dilation : int or one int per axis; by default those of the layer, or 1

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
    >>> overlap_counts(tconv.ConvTranspose1d(1, 1, 4, stride=2))
    array([2, 2])
    """
    if _is_layer(kernel_size):
        kernel_size, stride, dilation = _settings_of(kernel_size, stride, dilation)
    stride, dilation = _or_one(stride), _or_one(dilation)
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


def _is_layer(value: Any) -> bool:
    """Whether it is a layer of convolution, of tconv, PyTorch or the like."""
    if isinstance(value, np.ndarray | list | tuple | int | str):
        return False
    names = ("weight", "kernel_size", "stride", "dilation")
    try:
        return all(hasattr(value, name) for name in names)
    except Exception:  # from a method of the value
        return False


def _settings_of(layer: Any, stride: Any, dilation: Any) -> tuple[Any, Any, Any]:
    """Kernel size, stride and dilation: those of the layer where none are given."""
    stride = layer.stride if stride is None else stride
    return layer.kernel_size, stride, layer.dilation if dilation is None else dilation


def _or_one(value: PerAxis | None) -> PerAxis:
    return 1 if value is None else value


def _weight_of(weight: Any, weight_format: str) -> NDArray[Any]:
    """The weight of a layer, or an array, as (C, M, *K)."""
    form = as_choice(weight_format, "weight_format", WEIGHT_FORMATS)
    if _is_layer(weight):
        if form != "IO*":
            raise ParameterError(
                f'weight_format="{form}" must be left out with a layer, which has its own; pass '
                "only the layer."
            )
        weight = getattr(weight.weight, "value", weight.weight)
        if hasattr(weight, "detach"):  # of PyTorch
            weight = weight.detach().cpu()
    w = as_array(weight, "weight")
    if w.ndim < 3:
        raise ShapeError(
            f"weight.shape={w.shape} must be those of channels and of a spatial axis, such as (C, "
            f"M, *K); pass {bare_kernel(form)} for a single kernel."
        )
    layout = WeightLayout.of(form, w.ndim - 2)
    return w.transpose(layout.inputs, layout.outputs, *layout.kernel)


@readable
def phase_sums(
    weight: Any,
    *,
    stride: PerAxis | None = None,
    dilation: PerAxis | None = None,
    weight_format: str = "IO*",
) -> NDArray[Any]:
    """Sum the taps of each phase: the output for a constant input of 1, away from the border.

    ``D[c, m, r] = sum of weight[c, m, k] over k with k*dilation mod stride == r``, per axis. Entry
    ``[c, m, ry, rx]`` is what output channel m shows, at the cells of phase (ry, rx), of a constant
    1 in input channel c. Equal entries over all phases mean no checkerboard.

    Parameters
    ----------
    weight : array of numbers, (C, M, *K) unless weight_format says otherwise; or a layer, such as a
        `ConvTranspose2d` of tconv or PyTorch. Of a layer such as `Conv2d` the sums are those of its
        gradient with respect to x.
    stride, dilation : int or one int per axis; by default those of the layer, or 1
    weight_format : "IO*", "*OI", "*IO", "OI*" or "O*I", as for `conv_transpose`

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
    >>> phase_sums(tconv.ConvTranspose1d(1, 1, 4, stride=2, initialiser="bilinear"))
    array([[[1., 1.]]], dtype=float32)
    """
    w: Any = _weight_of(weight, weight_format)
    if _is_layer(weight):
        _, stride, dilation = _settings_of(weight, stride, dilation)
    stride, dilation = _or_one(stride), _or_one(dilation)
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


@readable
def ripple(
    weight: Any,
    *,
    stride: PerAxis | None = None,
    dilation: PerAxis | None = None,
    weight_format: str = "IO*",
) -> float:
    """Return the strength of the checkerboard for constant inputs, relative to their mean.

    ``R = sqrt(mean over phases of |D_r - D|^2) / |D|``, where D_r are the `phase_sums`, D their
    mean over the phases, and ``|.|`` is taken over all channels.

    Parameters
    ----------
    weight, stride, dilation, weight_format : as `phase_sums`, so a layer is enough

    Returns
    -------
    float: 0 for an even pattern, 0.1 if the cells of a constant area deviate from their mean by a
        tenth of it (root mean square), 1 if by as much as the mean, infinity if only the mean is 0

    Raises
    ------
    ParameterError, ShapeError, DTypeError, MemoryLimitError : as `phase_sums`

    >>> ripple(np.ones((1, 1, 4, 4)), stride=2)
    0.0
    >>> round(ripple(np.ones((1, 1, 3, 3)), stride=2), 4)
    0.4843
    >>> ripple(tconv.ConvTranspose2d(8, 4, 4, stride=2, initialiser="icnr")) < 1e-6
    True
    """
    w: Any = _weight_of(weight, weight_format)
    if _is_layer(weight):
        _, stride, dilation = _settings_of(weight, stride, dilation)
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

    0 dB is a ratio of 1, -20 dB one of a tenth, -40 dB one of a hundredth.

    >>> decibels(10.0), decibels(0.0)
    (20.0, -inf)
    """
    number = number_of(ratio)
    if not number >= 0:
        raise ParameterError(f"ratio={show(ratio)} must be a number of at least 0; pass one.")
    if number == 0:
        return float("-inf")
    return 20 * log10(number) if number != float("inf") else number
