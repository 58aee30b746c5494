"""Max pooling with switches, and unpooling: its transpose, which adds."""

from __future__ import annotations

from itertools import product
from math import prod
from typing import Any, NamedTuple, Never

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.checks import as_kernel_size, as_real
from tconv.arrays.dtypes import TYPES, dtype_name
from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.geometry.arguments import DATA_FORMATS, as_array, as_choice, as_flag, as_per_axis
from tconv.geometry.axis_order import bare_sample
from tconv.signatures import readable, unknown_keyword
from tconv.system.memory import check_room

__all__ = [
    "Switches",
    "Window",
    "as_switches",
    "max_pool",
    "max_unpool",
    "spatial_size",
    "take_switched",
]

Switches = NDArray[np.int64]
"""Flat spatial index of the largest cell of every window: what PyTorch calls indices."""


@readable
def max_pool(
    x: Any,
    kernel_size: Any,
    stride: Any = None,
    padding: Any = 0,
    dilation: Any = 1,
    ceil_mode: bool = False,
    *,
    data_format: str = "channels_first",
    **unknown: Never,
) -> tuple[NDArray[Any], Switches]:
    """Take the largest cell of every window, and return its index.

    ``y[o] = max over k of x[o*stride - padding + k*dilation]``. Cells of the padding never count. A
    window that holds NaN gives NaN. Of equal cells the one with the smallest flat index counts.

    Parameters
    ----------
    x : array (N, C, *I) or (C, *I) of real numbers
    kernel_size : tuple of int, one per spatial axis
    stride : int or one int per axis; None means kernel_size
    padding : int or one int per axis, at most half of the kernel
    dilation : int or one int per axis
    ceil_mode : bool, also take a last window that hangs over the end, if it begins on x or on the
        padding before it
    data_format : "channels_first" or "channels_last"

    Returns
    -------
    y : array (N, C, *O) of x's type, where per axis
        ``O = (I + 2*padding - dilation*(K - 1) - 1) // stride + 1``, rounded up with `ceil_mode`
    switches : array of int64 of y's shape, what PyTorch calls indices

    Raises
    ------
    ParameterError, ShapeError, DTypeError, UnsupportedError

    >>> y, switches = max_pool([[[1.0, 5.0, 2.0, 4.0, 4.0, 0.0]]], (3,), stride=2, ceil_mode=True)
    >>> y, switches
    (array([[[5., 4., 4.]]]), array([[[1, 3, 4]]]))
    """
    if unknown:
        raise unknown_keyword(max_pool, unknown)
    windows = Window.of_axes(
        as_kernel_size(kernel_size, None), stride, padding, dilation, ceil_mode
    )
    x, data_format = as_real(x, "x", floating=False), _as_format(data_format)
    size = spatial_size(x, "x", len(windows), data_format)
    counts = [max(window.count(i), 0) for window, i in zip(windows, size, strict=True)]
    # Lists per axis and the indices of a plane exist even without channels.
    check_room("max_pool", 64 * sum(counts) + 24 * prod(counts))
    axes = [window.meetings(n, i) for n, (window, i) in enumerate(zip(windows, size, strict=True))]
    last = data_format == "channels_last"
    first = x.ndim - len(size) - last
    shape = (*x.shape[:first], *counts, *x.shape[first + len(size) :])
    check_room("max_pool", prod(shape) * (3 * x.itemsize + 24))  # y, switches, and copies of both
    integer = TYPES[dtype_name(x.dtype)].is_integer
    y = np.full(shape, np.iinfo(x.dtype).min if integer else -np.inf, x.dtype)
    switches = np.full(shape, -1, np.int64)
    for taps in product(*axes):
        here = (slice(None),) * first + tuple(_as_slice(cells) for _, cells in taps)
        there = (slice(None),) * first + tuple(_as_slice(met) for met, _ in taps)
        cells, best, where = x[here], y[there], switches[there]
        taken = (cells > best) | (cells != cells) | (where < 0)
        index = _flat_index([cells for _, cells in taps], size)
        np.copyto(best, cells, where=taken)
        np.copyto(where, index[..., np.newaxis] if last else index, where=taken)
    return y, switches


@readable
def max_unpool(
    x: Any,
    switches: Any,
    output_size: Any,
    *,
    data_format: str = "channels_first",
    **unknown: Never,
) -> NDArray[Any]:
    """Add every cell of x to the cell that its switch names: the transpose of max pooling.

    Windows that overlap may have taken the same cell; it then gets their sum, as the gradient of
    `max_pool` and the deconvnet of Zeiler & Fergus need it. PyTorch's max_unpool keeps one of them.

    Parameters
    ----------
    x : array (N, C, *O) or (C, *O) of a floating type
    switches : array of integers of x's shape, from `max_pool` or PyTorch
    output_size : tuple of int, one per spatial axis: the size before pooling
    data_format : "channels_first" or "channels_last"

    Returns
    -------
    y : array (N, C, *output_size) of x's type, 0 where no switch points; float16 and bfloat16
        are summed in float32

    Raises
    ------
    ParameterError, ShapeError, DTypeError, UnsupportedError

    References
    ----------
    Zeiler & Fergus 2014, arXiv:1311.2901, section 2.1.

    >>> max_unpool([[[5.0, 4.0, 4.0]]], [[[1, 3, 3]]], (6,))
    array([[[0., 5., 0., 8., 0., 0.]]])
    """
    if unknown:
        raise unknown_keyword(max_unpool, unknown)
    x, data_format = as_real(x, "x"), _as_format(data_format)
    size = as_kernel_size(output_size, None, "output_size")
    rank = len(size)
    spatial_size(x, "x", rank, data_format)
    switches = as_switches(switches, x.shape, size)
    if data_format == "channels_last":
        x, switches = (np.moveaxis(each, -1, -1 - rank) for each in (x, switches))
    leading = x.shape[:-rank]
    check_room("max_unpool", 8 * (prod(leading) * prod(size) + 3 * x.size))
    y = np.zeros((*leading, *size), np.float32 if x.dtype.itemsize == 2 else x.dtype)
    plane = np.arange(prod(leading)).reshape(*leading, *[1] * rank) * prod(size)
    np.add.at(y.reshape(-1), (plane + switches).reshape(-1), x.astype(y.dtype).reshape(-1))
    y = y.astype(x.dtype, copy=False)
    if data_format == "channels_last":
        y = np.ascontiguousarray(np.moveaxis(y, -1 - rank, -1))
    return y


def take_switched(y: NDArray[Any], switches: Switches, rank: int, data_format: str) -> NDArray[Any]:
    """Return the cells of y that the switches name: the transpose of `max_unpool`.

    >>> take_switched(np.array([[4.0, 5.0, 6.0]]), np.array([[1, 1]]), 1, "channels_first")
    array([[5., 5.]])
    """
    last = data_format == "channels_last"
    if last:
        y, switches = (np.moveaxis(each, -1, -1 - rank) for each in (y, switches))
    leading = switches.shape[:-rank]
    x = np.take_along_axis(
        y.reshape(*leading, prod(y.shape[-rank:])),
        switches.reshape(*leading, prod(switches.shape[-rank:])),
        axis=-1,
    ).reshape(switches.shape)
    return np.ascontiguousarray(np.moveaxis(x, -1 - rank, -1)) if last else x


class Window(NamedTuple):
    """One spatial axis of pooling; sizes in cells of x."""

    kernel: int
    stride: int
    padding: int = 0
    dilation: int = 1
    ceil_mode: bool = False

    @classmethod
    def of_axes(
        cls,
        kernel: tuple[int, ...],
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: Any = False,
    ) -> tuple[Window, ...]:
        """Read the arguments of `max_pool`, each by its own rule."""
        rank = len(kernel)
        strides = kernel if stride is None else as_per_axis(stride, "stride", rank, 1)
        paddings = as_per_axis(padding, "padding", rank, 0)
        dilations = as_per_axis(dilation, "dilation", rank, 1)
        for n, (k, p) in enumerate(zip(kernel, paddings, strict=True)):
            if 2 * p > k:
                raise ParameterError(
                    f"padding[{n}]={p} must be at most half of kernel_size[{n}]={k}; pass {k // 2} "
                    "or less."
                )
        ceil_mode = as_flag(ceil_mode, "ceil_mode")
        axes = zip(kernel, strides, paddings, dilations, strict=True)
        return tuple(cls(*axis, ceil_mode) for axis in axes)

    def count(self, size: int) -> int:
        """Windows along `size` cells; 0 or less if none fits.

        >>> Window(3, 2).count(6), Window(3, 2, ceil_mode=True).count(6)
        (2, 3)
        """
        slack = size + 2 * self.padding - self.dilation * (self.kernel - 1) - 1
        if not self.ceil_mode:
            return slack // self.stride + 1
        count = -(-slack // self.stride) + 1
        return count - ((count - 1) * self.stride >= size + self.padding)

    def meets(self, tap: int, size: int, count: int) -> tuple[range, range]:
        """Windows whose `tap` lies on x, and the cells under it.

        >>> Window(3, 2, padding=1).meets(0, 4, 2)  # the first window's tap 0 lies on the padding
        (range(1, 2), range(1, 3, 2))
        """
        start = tap * self.dilation - self.padding
        first = max(0, -(start // self.stride))
        stop = max(first, min(count, (size - 1 - start) // self.stride + 1))
        return range(first, stop), range(
            start + first * self.stride, start + stop * self.stride, self.stride
        )

    def meetings(self, n: int, size: int) -> list[tuple[range, range]]:
        """`meets` of every tap that lies on x, along spatial axis n."""
        count = self.count(size)
        if size < 1 or count < 1:
            raise ShapeError(
                f"x has size {size} on spatial axis {n}, too small for a window of kernel "
                f"{self.kernel}, dilation {self.dilation}, padding {self.padding}; pass a larger x."
            )
        # Below this range the tap of even the last window lies left of x, above it the tap of even
        # the first window lies right of x.
        first = max(0, -((count - 1) * self.stride - self.padding) // self.dilation)
        stop = min(self.kernel, (size - 1 + self.padding) // self.dilation + 1)
        found = [self.meets(tap, size, count) for tap in range(first, stop)]
        empty = set(range(count)).difference(*(windows for windows, _ in found))
        if empty:  # the taps of a dilated window can straddle a small x
            raise ShapeError(
                f"window {min(empty)} on spatial axis {n} must hold a cell of x, whose size is "
                f"{size}, but holds padding only; lower dilation[{n}]={self.dilation} or "
                f"padding[{n}]={self.padding}."
            )
        return found


def as_switches(switches: Any, shape: tuple[int, ...], size: tuple[int, ...]) -> Switches:
    """Return switches as int64, if they have this shape and lie within this spatial size."""
    array = as_array(switches, "switches")
    if array.dtype.kind not in "iu":
        raise DTypeError(
            f"switches have dtype {array.dtype}, must be integers; pass those of max_pool."
        )
    if array.shape != shape:
        raise ShapeError(
            f"switches have shape {array.shape}, must be x's {shape}; pass those of max_pool."
        )
    low, high = (int(array.min()), int(array.max())) if array.size else (0, 0)
    if low < 0 or high >= prod(size):
        raise ParameterError(
            f"switches hold {low} to {high}, must lie in 0 to {prod(size) - 1} for "
            f"output_size={size}; pass the size of what was pooled."
        )
    return array.astype(np.int64, copy=False)


def spatial_size(array: NDArray[Any], name: str, rank: int, data_format: str) -> tuple[int, ...]:
    """Spatial size of a batch or of one sample."""
    last = _as_format(data_format) == "channels_last"
    if array.ndim not in (rank + 1, rank + 2):
        remedy = f"reshape {name}"
        if array.ndim == rank:
            remedy = f"for one sample without channels pass {bare_sample(name, data_format)}"
        raise ShapeError(
            f"{name}.ndim={array.ndim} must be {rank + 2} (batched) or {rank + 1} (unbatched) for "
            f"{rank} spatial axes; {remedy}."
        )
    return array.shape[-rank - 1 : -1] if last else array.shape[-rank:]


def _as_format(value: Any) -> str:
    found: str = as_choice(value, "data_format", DATA_FORMATS)
    return found


def _as_slice(cells: range) -> slice:
    return slice(cells.start, cells.stop, cells.step)


def _cells(cells: range) -> NDArray[np.int64]:
    """A range as an array; the step of a range of one entry may exceed int64."""
    return cells.start + np.arange(len(cells)) * (cells.step if len(cells) > 1 else 1)


def _flat_index(cells: list[range], size: tuple[int, ...]) -> NDArray[np.int64]:
    """Flat index of every combination of cells, one axis each."""
    index = np.zeros((), np.int64)
    for each, length in zip(cells, size, strict=True):
        index = index[..., np.newaxis] * length + _cells(each)
    return index
