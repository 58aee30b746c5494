"""Base of the convolution layers: one contraction, whose two gradients are the other two.

A transposed convolution solves F(x, w, y) for y and pulls gradients back by solving for x; an
ordinary one does the opposite. So one class serves both, with a letter for the forward direction.
Both have weights (C, M // groups, *K), PyTorch's layout for each.
"""

from collections.abc import Callable
from math import prod
from typing import Any, ClassVar

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.activations import Activation, as_activation
from tconv.arrays.checks import as_gradient, as_kernel_size, as_real
from tconv.arrays.dtypes import FLOATING_TYPES, as_dtype, as_type_name
from tconv.arrays.padding_modes import PADDING_MODES
from tconv.errors import (
    DTypeError,
    MemoryLimitError,
    ParameterError,
    ShapeError,
    UnsupportedError,
)
from tconv.geometry.arguments import (
    DATA_FORMATS,
    as_choice,
    as_flag,
    as_generator,
    as_integer,
    as_per_axis,
    is_cache_key,
)
from tconv.geometry.geometry import Geometry, Letter
from tconv.geometry.window import Window
from tconv.messages import show
from tconv.nn.init import ENDLESS, Initialiser, as_initialiser, initial_bias, initialiser_name
from tconv.nn.layer import Layer
from tconv.nn.parameter import Parameter
from tconv.ops.call_cache import BoundCall
from tconv.ops.dispatch import Call, check_padding_mode
from tconv.ops.gradients import bias_gradient
from tconv.ops.planned_call import PackedWeights
from tconv.streams.layer_runner import Convolution as StreamConvolution
from tconv.streams.layer_runner import Trace
from tconv.system.allocator import empty_like
from tconv.system.memory import available_bytes

__all__ = ["Convolution", "Residuals"]

Residuals = tuple[BoundCall, NDArray[Any], tuple[Activation, NDArray[Any]] | None]
"""The bound call of backward, x, and the activation with what its derivative reads, if any."""

_MOST_SIZES = 16  # shapes of x for which a layer keeps bound calls


# Checks of attributes that are read before `Geometry` checks them.
_RULES: dict[str, Callable[[Any, Any], Any]] = {
    "groups": lambda _, value: as_integer(value, "groups", 1),
    "data_format": lambda _, value: as_choice(value, "data_format", DATA_FORMATS),
    "padding_mode": lambda _, value: as_choice(value, "padding_mode", PADDING_MODES),
    "weight": lambda layer, value: _as_parameter(layer, "weight", value),
    "bias": lambda layer, value: None if value is None else _as_parameter(layer, "bias", value),
}


def _as_parameter(layer: Any, name: str, value: Any) -> Parameter:
    """A parameter as it is; or, for an array, the one that the layer has, with these values."""
    if isinstance(value, Parameter):
        return value
    if value is None:
        raise ParameterError(f"{name}=None must be a Parameter or an array; pass one.")
    own: Parameter | None = getattr(layer, name)
    if own is None:
        raise ParameterError(
            f"{name}={show(value)} must be a Parameter, the layer has none yet; pass "
            f'tconv.Parameter(array, "{name}") or make the layer with {name}=True.'
        )
    own.value = value
    return own


def _copied(array: NDArray[Any]) -> NDArray[Any]:
    to = empty_like(array)
    if to is None:
        return array.copy()
    np.copyto(to, array)
    return to


class Convolution(Layer):
    """A layer whose forward solves F(x, w, y) for the letter `_wanted`, given the letter `_given`.

    `ConvTranspose` and `Conv` in conv.py describe the arguments.
    """

    _rank: ClassVar[int | None] = None
    _wanted: ClassVar[Letter]
    _given: ClassVar[Letter]
    _bound: dict[Any, tuple[BoundCall, BoundCall]]

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
        activation: Any,
    ) -> None:
        self.kernel_size = as_kernel_size(kernel_size, self._rank)
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
        dtype = as_dtype(np, as_type_name(dtype, FLOATING_TYPES))
        self.activation = activation
        self._packed = PackedWeights()
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
    def activation(self) -> Any:
        """None, or an activation as `plan` takes it, applied to the sums."""
        return self._activation and self._activation.argument

    @activation.setter
    def activation(self, value: Any) -> None:
        self._activation: Activation | None = as_activation(value)

    @property
    def dtype(self) -> np.dtype[Any]:
        """Type of x, y and all parameters."""
        return self.weight.dtype

    def solve(
        self, x: Any, output_size: Any = None, *, keeps: bool = True
    ) -> tuple[NDArray[Any], Residuals]:
        """Return y and the residuals for `pull_back`; draw the parameters first if needed.

        If it `keeps` none, y may have overwritten the sums that an activation's derivative needs.
        """
        x = as_real(x, "x")
        if x.dtype != self.dtype:
            raise DTypeError(
                f"x has dtype {x.dtype} but the layer has {self.dtype}; pass "
                f'x.astype("{self.dtype}") or make the layer with dtype="{x.dtype}".'
            )
        forward, backward = self._bound_calls(x, output_size)
        activation = forward.call.activation
        has_sums = keeps and activation is not None and activation.needs_sums
        if has_sums:
            forward = backward  # the same sizes, without the activation
        bias = None if self.bias is None else self.bias.peek()[0]
        weight, version = self.weight.peek()
        want, fused = self._wanted, forward.call.activation
        if forward.call.padding_mode == "zeros":
            plan = forward.plan(want)
            weight = self._packed.of(
                forward.geometry, weight, version, activation=fused, want=want, plan=plan
            )
        y = values = forward.solve(want, x, weight, bias)
        if activation is None:
            return y, (backward, x, None)
        if has_sums:
            y = _copied(values)
            activation.apply(y)
        return y, (backward, x, (activation, values))

    def pull_back(self, kept: Residuals, dy: Any) -> NDArray[Any]:
        """Return dx by the transpose of forward, and add the gradients of weight and bias."""
        backward, x, activated = kept
        geometry = backward.geometry
        dy = as_gradient(dy, geometry.shape_of(self._wanted), x.dtype)
        if activated is not None:
            activation, values = activated
            dy = activation.pull_back(values, dy)
        weight, _ = self.weight.peek()
        dx: NDArray[Any] = backward.solve(self._given, dy, weight)
        a, b = (x, dy) if self._wanted == "y" else (dy, x)
        self.weight.gradient += backward.solve("w", a, b)
        if self.bias is not None:
            self.bias.gradient += bias_gradient(np, geometry, dy)
        return dx

    def trace(self, trace: Trace, x: str) -> str:
        """Add the layer to the nodes of a stream, with the values that its weights have now."""
        title = ".".join([*trace.titles, type(self).__name__])
        for fault, fix in (
            (len(self.kernel_size) != 1 and "has more axes than time", "pass one of rank 1"),
            (self.padding_mode != "zeros" and f'has padding_mode="{self.padding_mode}", whose '
             "border follows from cells at the ends", "pad x before, and make it without padding"),
            (self.data_format != "channels_first" and "is channels last",
             'make it with data_format="channels_first"'),
            (isinstance(self.padding, str) and self._wanted == "x" and max(self.stride) > 1
             and 'has padding="same" and a stride, which pads by the size', "pass numbers"),
            (self.in_channels is None and "has no weights yet", "make it with in_channels"),
        ):  # fmt: skip
            if fault:
                raise UnsupportedError(f"layer {title} has no stream, as it {fault}; {fix}.")
        channels = self.in_channels
        assert channels is not None
        (axis,) = self._endless(channels).axes
        window = Window(self._wanted, axis.reach, axis.stride, axis.begin, axis.end, axis.extra)
        bias = None if self.bias is None else self.bias.value.copy()
        layer = StreamConvolution(
            window,
            axis.kernel,
            axis.dilation,
            self.groups,
            self.weight.value.copy(),
            bias,
            self._activation,
        )
        return trace.convolution(x, layer)

    def __setattr__(self, name: str, value: Any) -> None:
        """Check the value and drop the bound calls, which depend on the public attributes.

        An array for weight or bias sets the values of the `Parameter`, which stays the same object.
        """
        if name in _RULES:
            value = _RULES[name](self, value)
        super().__setattr__(name, value)
        if not name.startswith("_"):
            super().__setattr__("_bound", {})

    def __getstate__(self) -> dict[str, Any]:
        # Everything but caches, in plain values.
        state = super().__getstate__()
        del state["_packed"], state["_bound"]
        state["_activation"] = self.activation
        state["_initialiser"] = initialiser_name(self._initialiser)
        return state

    def __setstate__(self, state: dict[str, Any]) -> None:
        vars(self).update(state, _packed=PackedWeights(), _bound={})
        self._activation = as_activation(state["_activation"])
        self._initialiser = as_initialiser(state["_initialiser"])

    def _bound_calls(self, x: NDArray[Any], output_size: Any) -> tuple[BoundCall, BoundCall]:
        """The bound calls of forward and backward for a shape of x, cached from step to step."""
        cache, key = self._bound, (x.shape, type(output_size), output_size)
        is_cached = output_size is None or is_cache_key(output_size)
        found = cache.get(key) if is_cached else None
        if found is not None:
            return found
        channels = self.in_channels
        if channels is None:
            batched = x.ndim == len(self.kernel_size) + 2
            last = self.data_format == "channels_last"
            channels = x.shape[-1 if last else int(batched)] if x.ndim else 1
        geometry = self._geometry(x.shape, channels, output_size)
        self._check_padding_mode(geometry)
        if not self.weight.is_filled:
            self._initialise(channels)
        calls = self._call(self._activation), self._call()
        forward, backward = (BoundCall(geometry, self.dtype, call) for call in calls)
        if is_cached and all(map(is_cache_key, self._settings().values())):
            if len(cache) >= _MOST_SIZES:
                cache.clear()
            cache[key] = forward, backward
        return forward, backward

    def _call(self, activation: Activation | None = None) -> Call:
        name = "conv_transpose" if self._wanted == "y" else "conv"
        return Call(name, self.padding_mode, activation=activation)

    def _weight_shape(self, in_channels: int | None) -> tuple[int | None, ...]:
        if self._wanted == "y":
            return in_channels, self.out_channels // self.groups, *self.kernel_size
        shared = None if in_channels is None else in_channels // self.groups
        return self.out_channels, shared, *self.kernel_size

    def _geometry(
        self, x_shape: tuple[int, ...], in_channels: int, output_size: Any = None
    ) -> Geometry:
        """Sizes of one forward; raises every error about them."""
        shape: Any = self._weight_shape(in_channels)
        settings = self._settings() | {"of_layer": True}
        if self._wanted == "y":
            return Geometry.of(x_shape, shape, output_size=output_size, **settings)
        return Geometry.of_conv(x_shape, shape, **settings)

    def _check_padding_mode(self, geometry: Geometry) -> None:
        size = "the output size" if self._wanted == "y" else "x's size"
        settings = self.padding, self.output_padding
        check_padding_mode(self.padding_mode, geometry, *settings, size)

    def _settings(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "output_padding": self.output_padding,
            "dilation": self.dilation,
            "groups": self.groups,
            "data_format": self.data_format,
        }

    def _normalise(self, in_channels: int) -> None:
        """Check the arguments by the geometry of an endless x, and expand them to one per axis."""
        rank, probe = len(self.kernel_size), self._endless(in_channels)
        self._check_padding_mode(probe)
        self.stride = tuple(axis.stride for axis in probe.axes)
        self.dilation = tuple(axis.dilation for axis in probe.axes)
        self.output_padding = as_per_axis(self.output_padding, "output_padding", rank, 0)
        self.data_format = probe.data_format
        self.padding_mode = as_choice(self.padding_mode, "padding_mode", PADDING_MODES)
        if isinstance(self.padding, str):
            self.padding = str.__str__(self.padding)
        else:
            pairs = [(axis.begin, axis.end) for axis in probe.axes]
            self.padding = tuple(b if b == e else (b, e) for b, e in pairs)

    def _endless(self, in_channels: int) -> Geometry:
        """Sizes of a forward of an x so large that no argument exceeds it."""
        spatial = (ENDLESS,) * len(self.kernel_size)
        last = self.data_format == "channels_last"
        shape = (1, *spatial, in_channels) if last else (1, in_channels, *spatial)
        return self._geometry(shape, in_channels)

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
        """The arguments; the less important ones only if they differ from the default."""
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
        parts += [f"activation={self.activation!r}"] if self.activation else []
        return ", ".join(parts)
