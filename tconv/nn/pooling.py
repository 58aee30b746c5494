"""Max pooling and unpooling layers of any rank."""

from __future__ import annotations

from typing import Any, ClassVar, Never

from numpy.typing import NDArray

from tconv.arrays.checks import as_gradient, as_kernel_size, as_real
from tconv.errors import OutputSizeError, TConvError
from tconv.geometry.arguments import DATA_FORMATS, as_choice, as_flag, as_size
from tconv.nn.layer import Layer
from tconv.ops.max_pool import (
    Switches,
    Window,
    as_switches,
    max_pool,
    max_unpool,
    spatial_size,
    take_switched,
)
from tconv.signatures import readable, unknown_keyword

__all__ = [
    "MaxPool",
    "MaxPool1d",
    "MaxPool2d",
    "MaxPool3d",
    "MaxUnpool",
    "MaxUnpool1d",
    "MaxUnpool2d",
    "MaxUnpool3d",
]

Residuals = tuple[Switches, tuple[int, ...], Any]
"""Switches, size of dx or dy, and the type of x."""


class MaxPool(Layer):
    """`max_pool` as a layer, of any rank.

    Parameters
    ----------
    kernel_size : tuple of int, one per spatial axis; `MaxPool1d`, `MaxPool2d` and `MaxPool3d` also
        take one int
    stride, padding, dilation, ceil_mode, data_format : as for `max_pool`

    >>> pool = MaxPool2d(2)
    >>> y = pool(np.arange(16.0).reshape(1, 1, 4, 4))
    >>> y
    array([[[[ 5.,  7.],
             [13., 15.]]]])
    >>> pool.switches
    array([[[[ 5,  7],
             [13, 15]]]])
    >>> pool.backward(y).reshape(4, 4)
    array([[ 0.,  0.,  0.,  0.],
           [ 0.,  5.,  0.,  7.],
           [ 0.,  0.,  0.,  0.],
           [ 0., 13.,  0., 15.]])
    """

    _rank: ClassVar[int | None] = None

    @readable
    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        dilation: Any = 1,
        ceil_mode: bool = False,
        *,
        data_format: str = "channels_first",
        **unknown: Never,
    ) -> None:
        if unknown:
            raise unknown_keyword(MaxPool.__init__, unknown)
        self.kernel_size = as_kernel_size(kernel_size, self._rank)
        windows = Window.of_axes(self.kernel_size, stride, padding, dilation, ceil_mode)
        self.stride = tuple(window.stride for window in windows)
        self.padding = tuple(window.padding for window in windows)
        self.dilation = tuple(window.dilation for window in windows)
        self.ceil_mode = as_flag(ceil_mode, "ceil_mode")
        self.data_format = as_choice(data_format, "data_format", DATA_FORMATS)

    @property
    def switches(self) -> Switches:
        """Indices of the largest cells in the last forward, as `max_pool` returns them."""
        if self._kept is None:
            raise TConvError(f"{type(self).__name__}.switches are kept by forward; call it first.")
        switches: Switches = self._kept[0][0]
        return switches

    def compute(self, x: Any) -> tuple[NDArray[Any], Residuals]:
        """Return y and the residuals for `pull_back`."""
        x = as_real(x, "x", floating=False)
        y, switches = max_pool(
            x,
            self.kernel_size,
            self.stride,
            self.padding,
            self.dilation,
            self.ceil_mode,
            data_format=self.data_format,
        )
        size = spatial_size(x, "x", len(self.kernel_size), self.data_format)
        return y, (switches, size, x.dtype)

    def pull_back(self, kept: Residuals, dy: Any) -> NDArray[Any]:
        """Return dx: each dy added to the largest cell of its window."""
        switches, size, dtype = kept
        dy = as_gradient(dy, switches.shape, dtype)
        return max_unpool(dy, switches, size, data_format=self.data_format)

    def describe(self) -> str:
        """The arguments."""
        names = ("kernel_size", "stride", "padding", "dilation", "ceil_mode")
        return ", ".join(f"{name}={getattr(self, name)}" for name in names)


class MaxPool1d(MaxPool):
    """`MaxPool` of one spatial axis.

    >>> MaxPool1d(3, 2)
    MaxPool1d(kernel_size=(3,), stride=(2,), padding=(0,), dilation=(1,), ceil_mode=False)
    """

    _rank = 1


class MaxPool2d(MaxPool):
    """`MaxPool` of two spatial axes.

    >>> MaxPool2d(2).stride
    (2, 2)
    """

    _rank = 2


class MaxPool3d(MaxPool):
    """`MaxPool` of three spatial axes.

    >>> MaxPool3d((1, 2, 2)).stride
    (1, 2, 2)
    """

    _rank = 3


class MaxUnpool(Layer):
    """`max_unpool` as a layer, of any rank.

    Parameters
    ----------
    kernel_size, stride, padding : those of its `MaxPool`
    data_format : "channels_first" or "channels_last"

    ``forward(x, switches, output_size=None)``; without output_size
    ``O = (I - 1)*stride - 2*padding + K``, with it any size less than a stride away from that.
    Where windows overlap it adds; PyTorch's MaxUnpool keeps one of the values.

    >>> pool, unpool = MaxPool1d(3, 2), MaxUnpool1d(3, 2)
    >>> y = pool([[[1.0, 2.0, 9.0, 3.0, 1.0, 7.0]]])
    >>> unpool(y, pool.switches, output_size=6)
    array([[[ 0.,  0., 18.,  0.,  0.,  0.]]])
    """

    _rank: ClassVar[int | None] = None

    @readable
    def __init__(
        self,
        kernel_size: Any,
        stride: Any = None,
        padding: Any = 0,
        *,
        data_format: str = "channels_first",
        **unknown: Never,
    ) -> None:
        if unknown:
            raise unknown_keyword(MaxUnpool.__init__, unknown)
        self.kernel_size = as_kernel_size(kernel_size, self._rank)
        windows = Window.of_axes(self.kernel_size, stride, padding)
        self.stride = tuple(window.stride for window in windows)
        self.padding = tuple(window.padding for window in windows)
        self.data_format = as_choice(data_format, "data_format", DATA_FORMATS)

    def compute(
        self, x: Any, switches: Any, output_size: Any = None
    ) -> tuple[NDArray[Any], Residuals]:
        """Return y and the residuals for `pull_back`."""
        x = as_real(x, "x")
        size = self._output_size(x, output_size)
        switches = as_switches(switches, x.shape, size)
        y = max_unpool(x, switches, size, data_format=self.data_format)
        return y, (switches, y.shape, y.dtype)

    def pull_back(self, kept: Residuals, dy: Any) -> NDArray[Any]:
        """Return dx: the cells of dy that the switches name."""
        switches, shape, dtype = kept
        dy = as_gradient(dy, shape, dtype)
        return take_switched(dy, switches, len(self.kernel_size), self.data_format)

    def _output_size(self, x: NDArray[Any], wanted: Any) -> tuple[int, ...]:
        """Size of y: the smallest with that many windows, or the wanted one if it is possible."""
        rank = len(self.kernel_size)
        counts = spatial_size(x, "x", rank, self.data_format)
        axes = zip(counts, self.kernel_size, self.stride, self.padding, strict=True)
        regular = tuple((count - 1) * s - 2 * p + k for count, k, s, p in axes)
        last = self.data_format == "channels_last"
        if wanted is None:
            size = regular
        else:
            leading = x.shape[:-rank] if not last else (*x.shape[: -rank - 1], x.shape[-1])
            size = as_size(wanted, "output_size", rank, leading, last)
        for n, s in enumerate(self.stride):
            low, high = max(regular[n] - s + 1, 1), regular[n] + s - 1
            if not low <= size[n] <= high:
                raise OutputSizeError(
                    f"output_size[{n}]={size[n]} cannot be what {counts[n]} windows of kernel "
                    f"{self.kernel_size[n]}, stride {s} and padding {self.padding[n]} came from: "
                    f"possible are {low} to {high}; pass the size of what was pooled."
                )
        return size

    def describe(self) -> str:
        """The arguments."""
        return ", ".join(
            f"{name}={getattr(self, name)}" for name in ("kernel_size", "stride", "padding")
        )


class MaxUnpool1d(MaxUnpool):
    """`MaxUnpool` of one spatial axis.

    >>> MaxUnpool1d(2)
    MaxUnpool1d(kernel_size=(2,), stride=(2,), padding=(0,))
    """

    _rank = 1


class MaxUnpool2d(MaxUnpool):
    """`MaxUnpool` of two spatial axes.

    >>> MaxUnpool2d(2)([[[5.0]]], [[[3]]])
    array([[[0., 0.],
            [0., 5.]]])
    """

    _rank = 2


class MaxUnpool3d(MaxUnpool):
    """`MaxUnpool` of three spatial axes.

    >>> MaxUnpool3d((1, 2, 2), padding=(0, 1, 1)).padding
    (0, 1, 1)
    """

    _rank = 3
