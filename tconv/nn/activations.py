"""Activations as layers: rectifiers, tanh, sigmoid and snake."""

from copy import deepcopy
from typing import Any, ClassVar, Never

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.activation_functions import apply_mask, select
from tconv.arrays.activations import Activation
from tconv.arrays.checks import as_gradient, as_real
from tconv.arrays.dtypes import FLOATING_TYPES, as_dtype, as_type_name
from tconv.errors import ParameterError, ShapeError
from tconv.geometry.arguments import as_integer, as_number
from tconv.nn.layer import Layer
from tconv.nn.parameter import Parameter
from tconv.signatures import readable, unknown_keyword
from tconv.streams.layer_runner import Trace
from tconv.system.allocator import empty_like
from tconv.system.memory import check_room

__all__ = ["LeakyReLU", "ReLU", "Sigmoid", "Snake", "Tanh"]


class ReLU(Layer):
    """``y = max(x, 0)``. NaN stays NaN; the gradient at 0 is 0.

    >>> relu = ReLU()
    >>> relu(np.array([-1.0, 2.0]))
    array([0., 2.])
    >>> relu.backward(np.array([5.0, 5.0]))
    array([0., 5.])
    """

    is_pointwise = True

    def compute(self, x: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return y twice: `pull_back` needs its sign only, and the next layer keeps y anyway."""
        x = as_real(x, "x", floating=False)
        check_room("y", x.nbytes)
        y = np.asarray(np.maximum(x, 0, out=empty_like(x)))
        return y, y

    def pull_back(self, y: NDArray[Any], dy: Any) -> NDArray[Any]:
        """Return dy where y is not 0."""
        dy = as_gradient(dy, y.shape, y.dtype)
        return apply_mask(dy, ~(y <= 0), empty_like(dy))


class LeakyReLU(Layer):
    """``y = x`` where x > 0, else ``negative_slope*x``.

    Parameters
    ----------
    negative_slope : float

    >>> leaky = LeakyReLU(0.25)
    >>> leaky(np.array([-4.0, 2.0]))
    array([-1.,  2.])
    >>> leaky.backward(np.array([1.0, 1.0]))
    array([0.25, 1.  ])
    """

    is_pointwise = True

    @readable
    def __init__(self, negative_slope: float = 0.01, **unknown: Never) -> None:
        if unknown:
            raise unknown_keyword(LeakyReLU.__init__, unknown)
        self.negative_slope = as_number(negative_slope, "negative_slope")

    def compute(self, x: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return y, and y or x, whichever has the sign of x."""
        x, slope = as_real(x, "x"), self.negative_slope
        check_room("y", 2 * x.nbytes)
        y = self._scaled(x)
        # One comparison of x and slope*x is right on both sides of 0, so no mask is needed.
        (np.maximum if slope <= 1 else np.minimum)(x, y, out=y)
        return y, y if slope >= 0 else x

    def pull_back(self, signed: NDArray[Any], dy: Any) -> NDArray[Any]:
        """Return dy where x > 0, else ``negative_slope*dy``."""
        dy = as_gradient(dy, signed.shape, signed.dtype)
        return select(signed > 0, dy, self._scaled(dy))

    def _scaled(self, array: NDArray[Any]) -> NDArray[Any]:
        """Multiply by the slope and round once; a half precision slope would be rounded first."""
        if self.negative_slope == 0:
            return np.zeros_like(array)  # also where x is infinite
        if array.dtype.itemsize == 2:
            return np.asarray(array.astype(np.float32) * self.negative_slope).astype(array.dtype)
        # NumPy returns a scalar for an array without axes.
        return np.asarray(np.multiply(array, self.negative_slope, out=empty_like(array)))

    def describe(self) -> str:
        """The slope."""
        return f"negative_slope={self.negative_slope}"


class _Saturating(Layer):
    """An activation whose derivative follows from y."""

    _activation: ClassVar[Activation]
    is_pointwise = True

    def compute(self, x: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return y twice: its derivative is a function of y."""
        x = as_real(x, "x")
        check_room("y", x.nbytes)
        y = empty_like(x)
        y = np.empty_like(x) if y is None else y
        np.copyto(y, x)
        self._activation.apply(y)
        return y, y

    def pull_back(self, y: NDArray[Any], dy: Any) -> NDArray[Any]:
        """Return dy times the derivative."""
        return self._activation.pull_back(y, as_gradient(dy, y.shape, y.dtype))


class Tanh(_Saturating):
    """``y = tanh(x)``.

    >>> tanh = Tanh()
    >>> tanh(np.array([0.0, 100.0]))
    array([0., 1.])
    >>> tanh.backward(np.array([2.0, 2.0]))
    array([2., 0.])
    """

    _activation = Activation("tanh")


class Sigmoid(_Saturating):
    """``y = 1/(1 + exp(-x))``.

    >>> sigmoid = Sigmoid()
    >>> sigmoid(np.array([0.0, 100.0]))
    array([0.5, 1. ])
    >>> sigmoid.backward(np.array([4.0, 4.0]))
    array([1., 0.])
    """

    _activation = Activation("sigmoid")


class Snake(Layer):
    """``y = x + sin(alpha*x)**2 / alpha``: periodic, for layers that make sound.

    Parameters
    ----------
    channels : int or None; with it each channel, axis 1 of x, has an alpha of its own, which is
        trained: the parameter `alpha` of shape (channels,). Else alpha is a fixed number.
    alpha : float other than 0, the number, or what each channel begins with
    dtype : type of x and of the parameter, if there is one

    Raises
    ------
    ParameterError : alpha is 0 or not finite
    ShapeError : x has another number of channels

    References
    ----------
    Ziyin, Hartwig & Ueda 2020, arXiv:2006.08195.

    >>> snake = Snake(alpha=np.pi / 2)
    >>> snake(np.array([0.0, 1.0, 2.0])).round(3)
    array([0.   , 1.637, 2.   ])
    >>> Snake(4).alpha.shape
    (4,)
    """

    is_pointwise = True

    @readable
    def __init__(
        self,
        channels: int | None = None,
        alpha: float = 1.0,
        *,
        dtype: Any = "float32",
        **unknown: Never,
    ) -> None:
        if unknown:
            raise unknown_keyword(Snake.__init__, unknown)
        number = as_number(alpha, "alpha")
        if number == 0:
            raise ParameterError("alpha=0 must be another number, as y is divided by it; pass 1.0.")
        self.alpha: Parameter | float = number
        if channels is not None:
            kind = as_dtype(np, as_type_name(dtype, FLOATING_TYPES))
            shape = (as_integer(channels, "channels", 1),)
            check_room("alpha", shape[0] * 8)
            self.alpha = Parameter(np.full(shape, number, kind), "alpha")

    def compute(self, x: Any) -> tuple[NDArray[Any], NDArray[Any]]:
        """Return y and x."""
        x = as_real(x, "x")
        check_room("y", 3 * x.nbytes)
        alpha = self._alpha_of(x)
        y = np.square(np.sin(x * alpha)) / alpha
        return (x + y).astype(x.dtype, copy=False), x

    def pull_back(self, x: NDArray[Any], dy: Any) -> NDArray[Any]:
        """Return dx, and add the gradient of alpha."""
        dy, alpha = as_gradient(dy, x.shape, x.dtype), self._alpha_of(x)
        if isinstance(self.alpha, Parameter):
            wave = x * np.sin(2 * alpha * x) / alpha - np.square(np.sin(alpha * x) / alpha)
            others = tuple(axis for axis in range(x.ndim) if axis != 1)
            self.alpha.gradient += (dy * wave).sum(axis=others).astype(self.alpha.dtype)
        return np.asarray(dy * (1 + np.sin(2 * alpha * x))).astype(x.dtype, copy=False)

    def trace(self, trace: Trace, x: str) -> str:
        """Add the layer, which says how many channels x has if each has an alpha of its own."""
        own = self.alpha.shape[0] if isinstance(self.alpha, Parameter) else None
        return trace.pointwise(deepcopy(self).predict, x, channels=own)

    def _alpha_of(self, x: NDArray[Any]) -> Any:
        """Alpha as it is broadcast to x."""
        kind = np.float32 if x.dtype.itemsize == 2 else x.dtype.type
        if not isinstance(self.alpha, Parameter):
            return kind(self.alpha)
        alpha = self.alpha.peek()[0]
        if x.ndim < 2 or x.shape[1] != len(alpha):
            raise ShapeError(
                f"x has shape {x.shape}, must have {len(alpha)} channels as axis 1; pass such an "
                f"array, or make the layer with the channels of x."
            )
        return alpha.astype(kind).reshape(-1, *[1] * (x.ndim - 2))

    def describe(self) -> str:
        """The arguments."""
        if isinstance(self.alpha, Parameter):
            return f"{self.alpha.shape[0]}"
        return f"alpha={self.alpha:g}"
