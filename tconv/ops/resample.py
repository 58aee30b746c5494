"""Upsampling by whole factors, and its adjoint: interpolation as a transposed convolution."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod
from typing import Any, Literal, Never

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.dtypes import TYPES, largest, type_name
from tconv.arrays.operands import as_operand, library_of
from tconv.errors import DTypeError, ParameterError, ShapeError, UnsupportedError
from tconv.geometry.arguments import (
    PerAxis,
    as_choice,
    as_flag,
    as_integer,
    as_per_axis,
    as_threads,
    entries_of,
)
from tconv.messages import show
from tconv.ops.functional import conv, conv_transpose
from tconv.ops.interpolation import KERNELS, Weights, bytes_of_weights, interpolation, means
from tconv.signatures import readable, unknown_keyword
from tconv.system.memory import check_room

__all__ = ["downsample", "upsample"]

Floats = NDArray[Any]

_FEW = 8  # cells behind an axis up to which they are taken for channels, which are vectorised
_EXACT = 2**53  # float64 holds all integers up to here


@readable
def upsample(
    x: Any,
    scale: PerAxis,
    kernel: Literal["nearest", "linear", "cubic", "lanczos3"] = "linear",
    *,
    axes: int | Sequence[int] | None = None,
    threads: int | None = None,
    **unknown: Never,
) -> NDArray[Any]:
    """Enlarge an array by whole factors, by interpolation between the centres of its cells.

    Each cell of x becomes `scale` cells of y: the centre of cell o of y lies at
    ``u = (o + 0.5)/scale - 0.5`` in cells of x, and per axis

    ``y[o] = sum over i of k(u - i)*x[i] / sum over i of k(u - i)``,

    where i are the cells that x has, so that a constant array stays constant up to its borders.
    This is the grid of Pillow, JAX and PyTorch (align_corners=False), and that of
    `scipy.ndimage.zoom` with grid_mode=True. For a layer with such a weight see `init_bilinear`.

    Parameters
    ----------
    x : array of NumPy of any rank
    scale : int or one int per axis of `axes`, 1 or more
    kernel : the function k of a distance d: "nearest", 1 below 1/2, which repeats cells; "linear",
        1 - d below 1; "cubic", Keys' cubic with a = -0.5, below 2; "lanczos3",
        sinc(d)*sinc(d/3) below 3
    axes : int or ints, axes to enlarge; None means all. ``axes=(0, 1)`` is an image whose channels
        are last.
    threads : int up to 1024, threads to use; None means all cores. "nearest" copies with one.

    Returns
    -------
    y : a new array of x's type, `scale` times as long along `axes`. float16 and bfloat16 are
        computed in float32 and rounded once. So are int8 and uint8; wider integers are computed in
        float64. Integers are rounded to the nearest, halves to even, and clipped to the range of
        the type, beyond which "cubic" and "lanczos3" may reach.

    Raises
    ------
    ParameterError : an argument breaks its own rule
    DTypeError : x holds no numbers, or integers beyond 2**53, which float64 would round; "nearest"
        takes these, and bools
    UnsupportedError : x is an array of another library
    MemoryLimitError : less memory is available than needed

    References
    ----------
    Keys 1981, doi:10.1109/TASSP.1981.1163711; Duchon 1979, Journal of Applied
    Meteorology 18, 1016-1022.

    >>> upsample([[0.0, 4.0]], 2)
    array([[0., 1., 3., 4.],
           [0., 1., 3., 4.]])
    >>> upsample(np.zeros((20, 30, 3), np.uint8), 4, "cubic", axes=(0, 1)).shape
    (80, 120, 3)
    """
    if unknown:
        raise unknown_keyword(upsample, unknown)
    array, scales, name, threads = _checked(x, "x", scale, kernel, axes, threads, "downsample")
    cells = array.size * prod(scales.values())
    if name == "nearest":
        check_room("upsample", 2 * cells * array.itemsize)  # a step holds its operand, too
        y = array if scales else array.copy()
        for axis in _steps(scales):
            y = np.repeat(y, scales[axis], axis)
        return y
    dtype = _type_of_sums(array, "x", name)
    check_room(
        "upsample",
        2 * cells * dtype.itemsize + bytes_of_weights(name, max(scales.values(), default=0)),
    )
    y = values = _in_sums(array, dtype)
    for axis in _steps(scales):
        y = _enlarged(y, axis, scales[axis], name, threads)
    return _as_type(y, array, values)


@readable
def downsample(
    y: Any,
    scale: PerAxis,
    kernel: Literal["nearest", "linear", "cubic", "lanczos3"] = "linear",
    *,
    axes: int | Sequence[int] | None = None,
    adjoint: bool = False,
    threads: int | None = None,
    **unknown: Never,
) -> NDArray[Any]:
    """Reduce an array by whole factors: weighted means, or the adjoint of `upsample`.

    Per axis, with k and u as in `upsample`,

    ``x[i] = sum over o of k(u - i)*y[o] / sum over o of k(u - i)``,

    where o are the cells that y has: "nearest" takes means of blocks, and a constant array stays
    constant. The numbers are those of Pillow's resize, which widens its kernels by the scale, too.

    With ``adjoint=True`` it is the adjoint of `upsample` instead:
    ``np.vdot(v, upsample(x)) == np.vdot(downsample(v, adjoint=True), x)`` but for rounding. It sums
    where the default takes means: per axis, `scale` times as much. (Near the borders, and for
    "lanczos3", whose sums `upsample` normalises for each cell of y, the weights differ, too.)

    Parameters
    ----------
    y : array of NumPy of any rank, whose sizes along `axes` are multiples of `scale`
    scale, kernel, axes, threads : as for `upsample`
    adjoint : bool, compute the adjoint; y then holds floating or complex numbers

    Returns
    -------
    x : a new array of y's type, rounded as by `upsample`; along `axes` its size is 1/scale of y's

    Raises
    ------
    ParameterError, DTypeError, UnsupportedError, MemoryLimitError : as for `upsample`
    ShapeError : a size is no multiple of `scale`

    >>> downsample([1.0, 3.0, 5.0, 7.0], 2, "nearest")
    array([2., 6.])
    >>> downsample([1.0, 3.0, 5.0, 7.0], 2, "nearest", adjoint=True)
    array([ 4., 12.])
    """
    if unknown:
        raise unknown_keyword(downsample, unknown)
    array, scales, name, threads = _checked(y, "y", scale, kernel, axes, threads, "upsample")
    is_adjoint = as_flag(adjoint, "adjoint")
    for axis, s in scales.items():
        if rest := array.shape[axis] % s:
            less = array.shape[axis] - rest
            crop = f"crop y to {less} cells along that axis, or " if less else ""
            raise ShapeError(
                f"y.shape[{axis}]={less + rest} must be a multiple of scale={s}; {crop}extend it "
                f'to {less + s} cells by np.pad with mode="edge".'
            )
    if is_adjoint and array.dtype.kind in "iu":
        raise DTypeError(
            f"y has dtype {array.dtype}, whose sums would be rounded and clipped, so adjoint=True "
            'must get floating or complex numbers; pass y.astype("float64").'
        )
    dtype = _type_of_sums(array, "y", name)
    check_room(
        "downsample",
        2 * array.size * dtype.itemsize + bytes_of_weights(name, max(scales.values(), default=0)),
    )
    x = values = _in_sums(array, dtype)
    for axis in _steps(scales)[::-1]:
        x = _reduced(x, axis, scales[axis], name, is_adjoint, threads)
    return _as_type(x, array, values)


# ---- arguments -----------------------------------------------------------------------------------


def _checked(
    value: Any, name: str, scale: Any, kernel: Any, axes: Any, threads: Any, inverse: str
) -> tuple[NDArray[Any], dict[int, int], str, int | None]:
    """Array, factor above 1 by axis, kernel and threads."""
    array = as_operand(value, name)
    if not isinstance(array, np.ndarray):
        raise UnsupportedError(
            f"{name} is an array of {library_of(array)}, but must be one of NumPy; pass "
            f"numpy.asarray({name})."
        )
    if array.dtype.kind not in "biufc" and type_name(array.dtype) not in TYPES:
        raise DTypeError(
            f"{name} has dtype {type_name(array.dtype)}, which is no type of numbers; pass an "
            "array of integers, real or complex numbers."
        )
    if array.ndim == 0:
        raise ShapeError(f"{name}.ndim=0 must be at least 1; pass an array with axes.")
    found = _as_axes(axes, name, array.ndim)
    entries = entries_of(scale)
    for n, each in enumerate([scale] if entries is None else entries):
        _check_whole(each, "scale" if entries is None else f"scale[{n}]", inverse)
    if entries is not None and len(entries) not in (1, len(found)):
        raise ParameterError(
            f"scale={show(scale)} must be one integer or {len(found)}, one for each of the axes "
            f"{found}, not {len(entries)}; pass 2 for example, or axes= with the axes you mean."
        )
    factors = as_per_axis(scale, "scale", len(found), 1)
    scales = {axis: s for axis, s in zip(found, factors, strict=True) if s > 1}
    return array, scales, as_choice(kernel, "kernel", KERNELS), as_threads(threads)


def _check_whole(value: Any, name: str, inverse: str) -> None:
    """Say what to do for a factor that is no whole number."""
    if not isinstance(value, (float, np.floating)) or float(value).is_integer():
        return
    number, remedy = float(value), "pass an integer"
    if 0 < number < 1 and (1 / number).is_integer():
        remedy = f"call {inverse} with {round(1 / number)}"
    elif 0 < number < 1024:
        up, down = max(round(number * 60), 1), 60
        common = int(np.gcd(up, down))
        if up / 60 == number:
            remedy = f"upsample by {up // common} and then downsample by {down // common}"
        else:
            remedy = "upsample by a larger integer and then downsample"
    raise ParameterError(f"{name}={show(value)} must be an integer; {remedy}.")


def _as_axes(axes: Any, name: str, rank: int) -> tuple[int, ...]:
    if axes is None:
        return tuple(range(rank))
    entries = entries_of(axes)
    numbers = [as_integer(axis, "axes") for axis in ([axes] if entries is None else entries)]
    for number in numbers:
        if not -rank <= number < rank:
            raise ParameterError(
                f"axes={show(axes)} must lie in {-rank} to {rank - 1} for {name} with "
                f"{rank} axes; pass these, or None for all axes."
            )
    found = tuple(number % rank for number in numbers)
    if len(set(found)) < len(found):
        raise ParameterError(f"axes={show(axes)} must differ; name each axis once.")
    return found


def _steps(scales: dict[int, int]) -> list[int]:
    """Axes in the order of least work: the smallest growth first, of equal ones the last axis.

    >>> _steps({0: 2, 1: 2, 2: 3})
    [1, 0, 2]
    """
    return sorted(scales, key=lambda axis: (scales[axis], -axis))


# ---- types ---------------------------------------------------------------------------------------


def _type_of_sums(array: NDArray[Any], name: str, kernel: str) -> np.dtype[Any]:
    """The type that an array is resampled in."""
    kind, found = array.dtype.kind, type_name(array.dtype)
    if found in ("float16", "bfloat16", "int8", "uint8"):
        return np.dtype(np.float32)
    if kind in "iu":
        if array.dtype.itemsize == 8 and (most := largest(np, array)) > _EXACT:
            raise DTypeError(
                f"{name} holds {most:,}, but integers must be at most 2**53 in absolute value, "
                f'as float64 rounds larger ones; pass {name}.astype("float64") to let it.'
            )
        return np.dtype(np.float64)
    if found not in TYPES:
        also = ', or kernel="nearest"' if kind == "b" and name == "x" else ""
        raise DTypeError(
            f"{name} has dtype {found}, but kernel={kernel!r} must get integers, real or complex "
            f'numbers of at most 64 bits a part; pass {name}.astype("float64"){also}.'
        )
    return array.dtype


def _in_sums(array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
    """The array in this type; complex numbers as pairs along one more axis."""
    if dtype.kind != "c":
        return array.astype(dtype, copy=False)
    return np.stack([array.real, array.imag], -1)


def _as_type(result: NDArray[Any], array: NDArray[Any], values: NDArray[Any]) -> NDArray[Any]:
    """The result in the type of the array, never its memory."""
    if result is values:
        return array.copy()
    kind = array.dtype
    if kind.kind == "c":
        return result.reshape(-1).view(kind).reshape(result.shape[:-1])
    if kind.kind in "iu":
        info = np.iinfo(kind)
        np.rint(result, out=result)
        # The largest integers of 64 bits are no floats; the float below them is.
        top = float(info.max) if kind.itemsize < 8 else np.nextafter(float(info.max), 0)
        np.clip(result, float(info.min), top, out=result)
    with np.errstate(over="ignore"):  # a float16 beside the largest one becomes infinite
        return result.astype(kind, copy=False)


# ---- one axis ------------------------------------------------------------------------------------


def _enlarged(x: Floats, axis: int, s: int, kernel: str, threads: int | None) -> Floats:
    """`upsample` along one axis."""
    if not x.size:
        return np.empty(_resized(x, axis, x.shape[axis] * s), x.dtype)
    weights = interpolation(kernel, s, x.shape[axis])
    y = _contracted(conv_transpose, x, axis, s, weights, threads)
    _scale_border(y, axis, weights)
    return y


def _reduced(
    y: Floats, axis: int, s: int, kernel: str, is_adjoint: bool, threads: int | None
) -> Floats:
    """`downsample` along one axis."""
    n = y.shape[axis] // s
    if not y.size:
        return np.empty(_resized(y, axis, n), y.dtype)
    weights = (interpolation if is_adjoint else means)(kernel, s, n)
    if not is_adjoint:
        x = _contracted(conv, y, axis, s, weights, threads)
        _scale_border(x, axis, weights)
        return x
    if weights.border:
        y = y.copy()
        _scale_border(y, axis, weights)
    return _contracted(conv, y, axis, s, weights, threads)


def _resized(array: Floats, axis: int, size: int) -> tuple[int, ...]:
    return (*array.shape[:axis], size, *array.shape[axis + 1 :])


def _scale_border(array: Floats, axis: int, weights: Weights) -> None:
    """Multiply the cells near the ends of an axis, in place."""
    for part, factors in weights.border:
        cells = array[(slice(None),) * axis + (part,)]
        cells *= factors.astype(array.dtype).reshape(-1, *[1] * (array.ndim - axis - 1))


def _contracted(
    contract: Callable[..., Any],
    array: Floats,
    axis: int,
    s: int,
    weights: Weights,
    threads: int | None,
) -> Floats:
    """`conv_transpose` or `conv` along one axis; the result has the cells in the same order."""
    outer, n, inner = prod(array.shape[:axis]), array.shape[axis], prod(array.shape[axis + 1 :])
    weight = weights.taps.astype(array.dtype)
    # "direct" sums in one order for all sizes: a shifted array gives shifted cells.
    options: dict[str, Any] = {"method": "direct", "threads": threads}
    if 1 < inner <= _FEW:
        found = contract(
            array.reshape(outer, n, inner),
            np.repeat(weight[np.newaxis, np.newaxis], inner, 0),  # (inner, 1, K)
            stride=s,
            padding=weights.padding,
            groups=inner,
            data_format="channels_last",
            **options,
        )
    else:
        behind = (inner,) if inner > 1 else ()  # a spatial axis without taps
        found = contract(
            array.reshape(outer, 1, n, *behind),
            weight.reshape(1, 1, -1, *[1] * len(behind)),
            stride=(s, *[1] * len(behind)),
            padding=(weights.padding, *[0] * len(behind)),
            **options,
        )
    cells = found.size // (outer * inner)
    return found.reshape(_resized(array, axis, cells))  # type: ignore[no-any-return]
