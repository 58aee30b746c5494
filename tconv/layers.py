"""CONVOLUTIONS THAT LEARN: transposed and ordinary ones, of one, two, three or any number of axes.

Both have weights (C, M // groups, *K) and the same `Geometry`. A `ConvTranspose` solves F(x, w, y)
for y and pulls gradients back by solving for x; a `Conv` does the opposite. So there is one class,
and a letter that says which way is forward.
"""

from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tconv.arguments import as_flag, as_integer, as_per_axis, show
from tconv.dispatch import Call, check_padding_mode, solve_for
from tconv.dtypes import as_dtype, dtype_name
from tconv.errors import DTypeError, MemoryLimitError, ParameterError, ShapeError
from tconv.geometry import Geometry, Letter
from tconv.gradients import bias_gradient
from tconv.initialisers import Initialiser, as_generator, as_initialiser, initial_bias
from tconv.memory import available_bytes
from tconv.module import Layer
from tconv.parameter import Parameter, as_gradient, as_real

__all__ = [
    "Conv",
    "Conv1d",
    "Conv2d",
    "Conv3d",
    "ConvTranspose",
    "ConvTranspose1d",
    "ConvTranspose2d",
    "ConvTranspose3d",
]

_TYPES = ("float16", "bfloat16", "float32", "float64")
_ENDLESS = 2**100  # cells: a size at which only the settings themselves can be wrong


class _Convolution(Layer):
    """What both kinds share; `_wanted` is the letter of F(x, w, y) that forward solves for."""

    _rank: ClassVar[int | None] = None
    _wanted: ClassVar[Letter]
    _given: ClassVar[Letter]

    def __init__(
        self,
        in_channels: int | None,
        out_channels: int,
        kernel_size: Any,
        *,
        stride: Any,
        padding: Any,
        output_padding: Any,
        dilation: Any,
        groups: int,
        bias: bool,
        padding_mode: str,
        data_format: str,
        dtype: Any,
        initialiser: str | Initialiser,
        rng: Any,
    ) -> None:
        self.kernel_size = _as_kernel_size(kernel_size, self._rank, type(self).__name__)
        self.out_channels = as_integer(out_channels, "out_channels", 1)
        self.groups = as_integer(groups, "groups", 1)
        if in_channels is not None:
            in_channels = as_integer(in_channels, "in_channels", 1)
        for name, channels in (("in_channels", in_channels), ("out_channels", self.out_channels)):
            if channels is not None and channels % self.groups:
                raise ShapeError(
                    f"groups={self.groups} must divide {name}={channels}; pass groups that divides "
                    "in_channels and out_channels."
                )
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.output_padding = output_padding
        self.padding_mode, self.data_format = padding_mode, data_format
        self._normalise(in_channels or self.groups)
        self._initialiser, self._rng = as_initialiser(initialiser), as_generator(rng)
        if dtype_name(dtype) not in _TYPES:
            raise DTypeError(
                f"dtype={show(dtype)} must be one of {', '.join(_TYPES)}; pass one of these."
            )
        dtype = as_dtype(np, dtype_name(dtype))
        shape = self._weight_shape(in_channels)
        self.weight = Parameter(None, "weight", shape=shape, dtype=dtype)
        self.bias: Parameter | None = None
        if as_flag(bias, "bias"):
            self.bias = Parameter(None, "bias", shape=(self.out_channels,), dtype=dtype)
        if in_channels is not None:
            self._initialise(in_channels)

    @property
    def in_channels(self) -> int | None:
        """Channels of x; None until the first forward if they were not given."""
        channels = self.weight.shape[0 if self._wanted == "y" else 1]
        if channels is None or self._wanted == "y":
            return channels
        return channels * self.groups

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of x, y and all parameters."""
        return self.weight.dtype

    def compute(
        self, x: Any, output_size: Any = None
    ) -> tuple[NDArray[Any], tuple[Geometry, NDArray[Any]]]:
        """Return y, and the geometry and x."""
        x = as_real(x, "x")
        if x.dtype != self.dtype:
            raise DTypeError(
                f"x has dtype {x.dtype} but the layer has {self.dtype}; pass "
                f'x.astype("{self.dtype}") or make the layer with dtype="{x.dtype}".'
            )
        channels = self.in_channels
        if channels is None:
            batched = x.ndim == len(self.kernel_size) + 2
            last = self.data_format == "channels_last"
            channels = x.shape[-1 if last else int(batched)] if x.ndim else 1
        geometry = self._geometry(x.shape, channels, output_size)
        check_padding_mode(self.padding_mode, geometry, self.padding, self.output_padding)
        if not self.weight.is_filled:
            self._initialise(channels)
        bias = None if self.bias is None else self.bias.value
        y = solve_for(self._wanted, geometry, x, self.weight.value, bias, self._call())
        return y, (geometry, x)

    def pull_back(self, kept: tuple[Geometry, NDArray[Any]], dy: Any) -> NDArray[Any]:
        """Return dx by the adjoint of forward, and add the gradients of weight and bias."""
        (geometry, x), call = kept, self._call()
        dy = as_gradient(dy, geometry.shape_of(self._wanted), x.dtype)
        dx: NDArray[Any] = solve_for(self._given, geometry, dy, self.weight.value, None, call)
        pair = (x, dy) if self._wanted == "y" else (dy, x)
        self.weight.gradient += solve_for("w", geometry, *pair, None, call)
        if self.bias is not None:
            self.bias.gradient += bias_gradient(np, geometry, dy)
        return dx

    def _call(self) -> Call:
        name = "conv_transpose" if self._wanted == "y" else "conv"
        return Call(name, self.padding_mode)

    def _weight_shape(self, in_channels: int | None) -> tuple[int | None, ...]:
        if self._wanted == "y":
            return in_channels, self.out_channels // self.groups, *self.kernel_size
        shared = None if in_channels is None else in_channels // self.groups
        return self.out_channels, shared, *self.kernel_size

    def _geometry(
        self, x_shape: tuple[int, ...], in_channels: int, output_size: Any = None
    ) -> Geometry:
        """Sizes of one forward; says whatever is wrong with them."""
        settings = {
            "stride": self.stride,
            "padding": self.padding,
            "output_padding": self.output_padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "data_format": self.data_format,
        }
        shape: Any = self._weight_shape(in_channels)
        if self._wanted == "y":
            return Geometry.of(x_shape, shape, output_size=output_size, **settings)
        return Geometry.of_conv(x_shape, shape, **settings)

    def _normalise(self, in_channels: int) -> None:
        """Check the settings by making the geometry of an endless x, and spell them out per axis."""
        rank = len(self.kernel_size)
        spatial = (_ENDLESS,) * rank
        last = self.data_format == "channels_last"
        probe = self._geometry(
            (1, *spatial, in_channels) if last else (1, in_channels, *spatial), in_channels
        )
        check_padding_mode(self.padding_mode, probe, self.padding, self.output_padding)
        self.stride = tuple(axis.stride for axis in probe.axes)
        self.dilation = tuple(axis.dilation for axis in probe.axes)
        self.output_padding = as_per_axis(self.output_padding, "output_padding", rank, 0)
        if not isinstance(self.padding, str):
            pairs = [(axis.begin, axis.end) for axis in probe.axes]
            self.padding = tuple(b if b == e else (b, e) for b, e in pairs)

    def _initialise(self, in_channels: int) -> None:
        """Draw the parameters; this is the only place that makes them."""
        shape: Any = self._weight_shape(in_channels)
        needed, available = prod(shape) * 8, available_bytes()
        if available is not None and needed > available:
            raise MemoryLimitError(
                f"weight of shape {shape} needs {needed:,} bytes to draw but {available:,} are "
                "available; lower the channels or the kernel."
            )
        self.weight.value = self._initialiser(
            shape,
            stride=self.stride,
            dilation=self.dilation,
            groups=self.groups,
            transposed=self._wanted == "y",
            rng=self._rng,
        )
        if self.bias is not None:
            self.bias.value = initial_bias(
                self._initialiser, shape, self.groups, self.out_channels, self._rng
            )

    def describe(self) -> str:
        """The arguments, those of little interest only where they are not the default."""
        rank = len(self.kernel_size)
        shown = {"kernel_size": self.kernel_size, "stride": self.stride}
        defaults = {
            "padding": (0,) * rank,
            "output_padding": (0,) * rank,
            "dilation": (1,) * rank,
            "groups": 1,
            "padding_mode": "zeros",
            "data_format": "channels_first",
        }
        shown |= {n: getattr(self, n) for n, v in defaults.items() if getattr(self, n) != v}
        parts = [str(self.in_channels), str(self.out_channels)]
        parts += [f"{name}={value!r}" for name, value in shown.items()]
        parts += ["bias=False"] if self.bias is None else []
        parts += [f"dtype={self.dtype.name}"] if self.dtype != np.float32 else []
        return ", ".join(parts)


class ConvTranspose(_Convolution):
    """`conv_transpose` with a weight and a bias that are learnt, of any rank.

    The arguments are PyTorch's, in its order.

    Parameters
    ----------
    in_channels : int, or None to take it from the first x
    out_channels : int
    kernel_size : tuple of int, one per spatial axis: its length is the rank. `ConvTranspose1d`,
        `ConvTranspose2d` and `ConvTranspose3d` also take one int.
    stride, padding, output_padding, groups, dilation, padding_mode, data_format : as for
        `conv_transpose`
    bias : bool
    dtype : "float32", "float64", "float16" or "bfloat16", of x, y and the parameters
    initialiser : name in `initialisers.INITIALISERS`, or a function as those. "kaiming_uniform"
        keeps the variance between rectifiers, "bilinear" interpolates, "icnr" starts without a
        checkerboard, "torch" starts at PyTorch's scale. The bias starts as 0, but for "torch".
    rng : numpy.random.Generator or a seed, for the initialiser

    Attributes
    ----------
    weight : Parameter (in_channels, out_channels // groups, *kernel_size)
    bias : Parameter (out_channels,), or None

    ``forward(x, output_size=None)`` takes x (N, C, *I) or (C, *I) and returns y (N, M, *O);
    `output_size` is that of `conv_transpose`, in place of output_padding.

    Raises
    ------
    ParameterError, ShapeError, DTypeError, MemoryLimitError : when the layer is made; with the
        message that `conv_transpose` gives for the same mistake

    >>> up = ConvTranspose2d(3, 3, 4, stride=2, padding=1, initialiser="bilinear")
    >>> up
    ConvTranspose2d(3, 3, kernel_size=(4, 4), stride=(2, 2), padding=(1, 1))
    >>> y = up(np.ones((1, 3, 8, 8), np.float32))
    >>> y.shape
    (1, 3, 16, 16)
    >>> up.backward(np.ones_like(y)).shape, up.weight.gradient.shape
    ((1, 3, 8, 8), (3, 3, 4, 4))
    >>> up(np.ones((1, 3, 8, 8), np.float32), output_size=17).shape
    (1, 3, 17, 17)
    """

    _wanted: ClassVar[Letter] = "y"
    _given: ClassVar[Letter] = "x"

    def __init__(
        self,
        in_channels: int | None,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        output_padding: Any = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Any = 1,
        padding_mode: str = "zeros",
        *,
        data_format: str = "channels_first",
        dtype: Any = "float32",
        initialiser: str | Initialiser = "kaiming_uniform",
        rng: Any = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            output_padding=output_padding,
            dilation=dilation,
            groups=groups,
            bias=bias,
            padding_mode=padding_mode,
            data_format=data_format,
            dtype=dtype,
            initialiser=initialiser,
            rng=rng,
        )


class ConvTranspose1d(ConvTranspose):
    """`ConvTranspose` of one spatial axis.

    >>> ConvTranspose1d(80, 40, 16, stride=10, padding=3)
    ConvTranspose1d(80, 40, kernel_size=(16,), stride=(10,), padding=(3,))
    """

    _rank = 1


class ConvTranspose2d(ConvTranspose):
    """`ConvTranspose` of two spatial axes.

    >>> ConvTranspose2d(None, 8, (3, 4), stride=2, bias=False)
    ConvTranspose2d(None, 8, kernel_size=(3, 4), stride=(2, 2), bias=False)
    """

    _rank = 2


class ConvTranspose3d(ConvTranspose):
    """`ConvTranspose` of three spatial axes.

    >>> ConvTranspose3d(4, 2, 2, stride=0)
    Traceback (most recent call last):
    ...
    tconv.errors.ParameterError: stride[0]=0 must be at least 1; pass a positive integer.
    """

    _rank = 3


class Conv(_Convolution):
    """`conv` with a weight and a bias that are learnt, of any rank: a neural network's convolution.

    The arguments are PyTorch's, in its order, and mean what they mean for `ConvTranspose`.

    Parameters
    ----------
    in_channels : int, or None to take it from the first x
    out_channels : int
    kernel_size : tuple of int, one per spatial axis: its length is the rank. `Conv1d`, `Conv2d` and
        `Conv3d` also take one int.
    stride, padding, dilation, groups, padding_mode, data_format : as for `conv`
    bias, dtype, initialiser, rng : as for `ConvTranspose`, without "bilinear" and "icnr"

    Attributes
    ----------
    weight : Parameter (out_channels, in_channels // groups, *kernel_size)
    bias : Parameter (out_channels,), or None

    Raises
    ------
    ParameterError, ShapeError, DTypeError, MemoryLimitError : as for `ConvTranspose`. Messages about
        sizes call the layer's x "y", as `conv` does: it is the y of the transposed convolution.

    >>> down = Conv2d(3, 8, 3, stride=2, padding="same", rng=0)
    >>> x = np.ones((1, 3, 9, 9), np.float32)
    >>> down(x).shape, down.backward(np.ones((1, 8, 5, 5), np.float32)).shape
    ((1, 8, 5, 5), (1, 3, 9, 9))
    """

    _wanted: ClassVar[Letter] = "x"
    _given: ClassVar[Letter] = "y"

    def __init__(
        self,
        in_channels: int | None,
        out_channels: int,
        kernel_size: Any,
        stride: Any = 1,
        padding: Any = 0,
        dilation: Any = 1,
        groups: int = 1,
        bias: bool = True,
        padding_mode: str = "zeros",
        *,
        data_format: str = "channels_first",
        dtype: Any = "float32",
        initialiser: str | Initialiser = "kaiming_uniform",
        rng: Any = None,
    ) -> None:
        super().__init__(
            in_channels,
            out_channels,
            kernel_size,
            stride=stride,
            padding=padding,
            output_padding=0,
            dilation=dilation,
            groups=groups,
            bias=bias,
            padding_mode=padding_mode,
            data_format=data_format,
            dtype=dtype,
            initialiser=initialiser,
            rng=rng,
        )

    def compute(self, x: Any) -> tuple[NDArray[Any], tuple[Geometry, NDArray[Any]]]:
        """Return y, and the geometry and x."""
        return super().compute(x)


class Conv1d(Conv):
    """`Conv` of one spatial axis.

    >>> Conv1d(1, 4, 3, padding=1, dtype="float64")
    Conv1d(1, 4, kernel_size=(3,), stride=(1,), padding=(1,), dtype=float64)
    """

    _rank = 1


class Conv2d(Conv):
    """`Conv` of two spatial axes.

    >>> Conv2d(3, 64, 3, padding=1, padding_mode="reflect")
    Conv2d(3, 64, kernel_size=(3, 3), stride=(1, 1), padding=(1, 1), padding_mode='reflect')
    """

    _rank = 2


class Conv3d(Conv):
    """`Conv` of three spatial axes.

    >>> Conv3d(3, 4, 3, groups=2)
    Traceback (most recent call last):
    ...
    tconv.errors.ShapeError: groups=2 must divide in_channels=3; pass groups that divides \
in_channels and out_channels.
    """

    _rank = 3


def _as_kernel_size(value: Any, rank: int | None, name: str) -> tuple[int, ...]:
    """Kernel size per axis; without a rank its length sets the rank."""
    if rank is None:
        if not hasattr(value, "__len__") or isinstance(value, str) or len(value) < 1:
            raise ParameterError(
                f"kernel_size={show(value)} must be a tuple with one integer per spatial axis; pass "
                f"(3, 3) for example, or use {name}2d."
            )
        rank = len(value)
    return as_per_axis(value, "kernel_size", rank, 1)
