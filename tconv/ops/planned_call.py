"""Planned calls: sizes checked and code compiled once, then run with packed weights."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Unpack

import numpy as np
from numpy.typing import NDArray

import tconv.engine as engine
from tconv import spectral
from tconv.arrays.activations import Activation, as_activation
from tconv.arrays.canonical import canonical
from tconv.arrays.dtypes import NATIVE_DTYPES, TYPES, as_dtype, as_type_name, dtype_name, largest
from tconv.arrays.operands import as_operand, check_out
from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.geometry.arguments import PerAxis, as_choice, as_flag
from tconv.geometry.geometry import Geometry, Letter
from tconv.geometry.keywords import SizeKeywords
from tconv.ops.dispatch import Call, native, needs_no_limit, solve_for
from tconv.ops.fft_gain import gain, on_fft
from tconv.signatures import readable
from tconv.system.allocator import empty
from tconv.system.memory import check_room
from tconv.system.public_pickles import reduce_by_public_name

__all__ = ["Packed", "PackedWeights", "Packings", "PlannedCall", "plan"]

_MOST_PACKED = 8  # orders of one weight
_MOST_FUSED_AXES, _FUSED = 3, ("float32", "float64")  # whose residual the engine adds
_MOST_PLANS = 32  # that read one weight, for images of different sizes


@dataclass(frozen=True, eq=False)
class Packed:
    """A weight in the order in which one plan reads it, made by `PlannedCall.pack`.

    >>> plan((1, 2, 5), (2, 3, 4)).pack(np.ones((2, 3, 4), np.float32))
    Packed(weight_shape=(2, 3, 4))
    """

    weight_shape: tuple[int, ...]
    values: Any = field(repr=False)
    plan: Any = field(repr=False)  # None if the values are the weight itself
    made_for: Any = field(default=None, repr=False)  # geometry, letter, type, activation
    largest: int | None = field(default=None, repr=False)  # of integers


def _pack(geometry: Geometry, weight: NDArray[Any], chosen: Any, made_for: Any = None) -> Packed:
    ordered = weight
    if geometry.weight_format != "IO*" or geometry.flip_kernel:
        ordered = canonical(np, geometry, "w", weight)
    ordered = np.require(ordered, requirements=("C", "A"))
    most = largest(np, weight) if TYPES[dtype_name(weight.dtype)].is_integer else None
    return Packed(weight.shape, chosen.pack(ordered), chosen, made_for, most)


@dataclass
class Packings:
    """Counter of packed weights."""

    count: int = 0


class PackedWeights:
    """A weight packed for every plan that reads it, until its values change.

    Plans for images of different sizes share a packed weight if they read it in the same order.
    """

    def __init__(self, packings: Packings | None = None) -> None:
        self._packings = packings or Packings()
        self._version: int | None = None
        self._by_plan: dict[Any, Packed] = {}
        self._by_order: dict[Any, Packed] = {}  # of the elements, which several plans share

    @property
    def byte_count(self) -> int:
        """Bytes of all orders of the weight, but not of the weight itself."""
        values = (getattr(p.values, "transformed", p.values) for p in self._by_order.values())
        return sum(getattr(each, "nbytes", 0) for each in values)

    def packed_for(self, plan: Any) -> Packed | None:
        """Return the weight packed for a plan, as of the last call of `of`; None if it is not."""
        return self._by_plan.get(plan)

    def of(
        self,
        geometry: Geometry,
        weight: NDArray[Any],
        version: int | None,
        threads: int | None = None,
        activation: Activation | None = None,
        want: Letter = "y",
        plan: Any = None,
    ) -> Any:
        """Return the weight packed for the engine's plan, or the weight itself if there is no plan.

        `version` changes with the values; None if they may have changed. `plan` is the engine's
        plan, if the caller has it.
        """
        chosen = plan
        if chosen is None:
            dtype = dtype_name(weight.dtype)
            chosen = native(geometry, want, dtype, threads, activation=activation)
        if chosen is None:
            return weight
        if version is None or version != self._version:
            self._by_plan.clear()
            self._by_order.clear()
            self._version = version
        found = self._by_plan.get(chosen)
        return self._pack_for(chosen, geometry, weight) if found is None else found

    def of_call(self, call: PlannedCall, weight: NDArray[Any]) -> Packed:
        """Return a constant weight packed for a planned call."""
        if call._plan is None:
            return Packed(weight.shape, weight, None, call._made_for)
        packed: Packed = self.of(
            call.geometry, weight, 0, call.threads, call._activation, call.want, call._plan
        )
        return replace(packed, made_for=call._made_for)

    def _pack_for(self, chosen: Any, geometry: Geometry, weight: NDArray[Any]) -> Packed:
        order = getattr(chosen, "packing", chosen)
        found = self._by_order.get(order)
        if found is None:
            found = _pack(geometry, weight, chosen)
            self._packings.count += 1
            if len(self._by_order) >= _MOST_PACKED:
                self._by_order.pop(next(iter(self._by_order)))
                self._by_plan.clear()
            self._by_order[order] = found
        elif found.plan is not chosen:
            found = replace(found, plan=chosen)
        if len(self._by_plan) >= _MOST_PLANS:
            self._by_plan.clear()
        self._by_plan[chosen] = found
        return found


class PlannedCall:
    """One `conv_transpose` or `conv` of fixed sizes and type, made by `plan`.

    Attributes
    ----------
    geometry : Geometry
    dtype : numpy.dtype
    activation : the argument of `plan`, or None
    residual : whether calls take a residual

    ``print(call)`` shows the plan and its predicted time. Several threads may run a call at once.
    It can be pickled.

    >>> call = plan((1, 2, 3, 3), (2, 4, 2, 2), stride=2)
    >>> packed = call.pack(np.ones((2, 4, 2, 2), np.float32))
    >>> call(np.ones((1, 2, 3, 3), np.float32), packed).shape
    (1, 4, 6, 6)
    """

    @readable
    def __init__(
        self,
        geometry: Geometry,
        dtype: str,
        threads: int | None,
        method: str = "auto",
        activation: Activation | None = None,
        want: Letter = "y",
        residual: bool = False,
    ) -> None:
        is_first = geometry.data_format == "channels_first"
        call = Call("plan", "zeros", method, threads, activation=activation)
        threads, method = call.threads, call.method
        if method == "fft" and TYPES[dtype].is_integer:
            raise DTypeError(
                f'dtype="{dtype}" is exact, and method="fft" rounds; pass dtype="float64", or '
                'method="direct".'
            )
        self.geometry, self.threads, self.method = geometry, threads, method
        self.want, self.residual = want, residual
        self._read: Letter = "x" if want == "y" else "y"
        self._channels = geometry.out_channels if want == "y" else geometry.in_channels
        self._shape, self._read_shape = geometry.shape_of(want), geometry.shape_of(self._read)
        self.dtype, self._dtype_name = as_dtype(np, dtype), dtype
        self.activation, self._activation = activation and activation.argument, activation
        self._result = TYPES[dtype].result
        self._made_for = geometry, want, dtype, activation, residual
        chosen: Any = None
        if not residual or (is_first and geometry.rank <= _MOST_FUSED_AXES and dtype in _FUSED):
            chosen = native(geometry, want, dtype, threads, method, activation, residual)
        # Elsewhere the residual is added, and the activation applied, in passes of their own.
        self._finishes = residual and chosen is None
        if self._finishes:
            call = replace(call, activation=None)
            chosen = native(geometry, want, dtype, threads, method)
        self._plan, self._call = chosen, call
        self._calls_executor = is_first and chosen is not None and self.dtype in NATIVE_DTYPES
        # Other types and layouts call the engine, unless each call needs a check of memory, or of
        # integers against overflow.
        self._calls_engine = (
            chosen is not None
            and not self._calls_executor
            and not TYPES[dtype].is_integer
            and needs_no_limit(geometry, want, self._result, chosen)
        )

    @property
    def is_short(self) -> bool:
        """Whether a call checks its arrays and then runs the plan; it needs little memory."""
        return self._calls_executor and needs_no_limit(
            self.geometry, self.want, self._result, self._plan
        )

    def pack(self, weight: NDArray[Any]) -> Packed:
        """Return the weight as `__call__` takes it; later changes of `weight` have no effect.

        Raises
        ------
        ShapeError, DTypeError : weight is not what the plan was made for
        """
        weight = np.asarray(as_operand(weight, "weight"))
        self._check(weight, self.geometry.weight_shape, "weight")
        if self.method == "fft":
            check_room(
                "the transformed weight", spectral.kernel_bytes(self.geometry, self._dtype_name)
            )
            kernel: Any = spectral.Kernel(self.geometry, self.want, weight)
            return Packed(weight.shape, kernel, None, self._made_for)
        if self._plan is None:
            return Packed(weight.shape, weight.copy(), None, self._made_for)
        if self._plan.keeps_weight:
            weight = weight.copy()
        return _pack(self.geometry, weight, self._plan, self._made_for)

    def __call__(
        self,
        x: NDArray[Any],
        packed: Packed,
        bias: NDArray[Any] | None = None,
        out: NDArray[Any] | None = None,
        residual: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Return the wanted letter, y or x, written to `out` if that is given.

        A call that wants x takes y as its first argument. `residual`, of the shape and type of the
        result, is for plans with ``residual=True``. `out` may be some channels of a larger array,
        ``whole[:, 8:24]``, at no cost.

        Raises
        ------
        ShapeError, DTypeError : an array is not what the plan was made for
        """
        chosen, to = self._plan, None
        if (
            type(packed) is not Packed
            or packed.plan is not chosen
            # Calls of several layouts may share a plan, and all of the portable path have none.
            or (packed.made_for is not self._made_for and packed.made_for != self._made_for)
        ):
            raise DTypeError(
                "packed must be what pack of this plan returned; call pack(weight) of this plan."
            )
        if type(x) is not np.ndarray or x.dtype is not self.dtype or x.shape != self._read_shape:
            x = self._check(x, self._read_shape, self._read)
        if bias is not None and (
            type(bias) is not np.ndarray
            or bias.dtype is not self.dtype
            or bias.shape != (self._channels,)
        ):
            bias = self._check(bias, (self._channels,), "bias", (self._result,))
        more = () if residual is None and not self.residual else self._checked(residual)
        if out is not None:
            to = check_out(out, np, self._shape, self._result, [x, bias, *more])
        flags = x.flags
        if self._finishes:
            return self._finished(x, packed, bias, out, *more)
        if self._calls_engine:
            result = engine.contract(
                self.geometry, self.want, x, packed, bias=bias, out=to, plan=chosen
            )
        elif (
            self._calls_executor
            and flags.c_contiguous
            and flags.aligned
            and (to is None or (to.flags.carray and to.dtype.isnative))
        ):
            result = empty(self._shape, self.dtype) if to is None else to
            chosen(x, packed.values, chosen.pack_bias(bias), result, *more)
        elif self._calls_executor and (more or _has_whole_images(to)):
            result = self._strided(x, packed, bias, to, *more)
        else:
            result = self._with_every_check(x, packed, bias, to)
        return result if out is None else out

    def _checked(self, residual: Any) -> tuple[NDArray[Any]]:
        """Return the residual that a call takes, C-contiguous, in a tuple of its own."""
        if residual is None or not self.residual:
            fault = (
                "is missing, the plan was made" if self.residual else "needs a plan that is made"
            )
            fix = "pass an array like the result" if self.residual else "make such a plan"
            raise ParameterError(f"residual {fault} with residual=True; {fix}.")
        array = self._check(residual, self._shape, "residual", (self._result,))
        return (np.require(array, array.dtype.newbyteorder("="), ("C", "A")),)

    def _strided(
        self, x: NDArray[Any], packed: Packed, bias: Any, out: Any, *residual: NDArray[Any]
    ) -> NDArray[Any]:
        """Compute on x that is not contiguous, or into images of a larger array."""
        x = np.require(x, self.dtype, ("C", "A"))
        values, packed_bias = packed.values, self._plan.pack_bias(bias)
        if _has_whole_images(out) and not residual:
            self._plan.write_images(x, values, packed_bias, out)
            return out  # type: ignore[no-any-return]
        result = empty(self._shape, self.dtype)
        self._plan(x, values, packed_bias, result, *residual)
        if out is not None:
            out[...] = result
        return result if out is None else out

    def _finished(
        self, x: NDArray[Any], packed: Packed, bias: Any, out: Any, residual: NDArray[Any]
    ) -> NDArray[Any]:
        """Compute the sums, then add the residual and apply the activation."""
        result = self._with_every_check(x, packed, bias, None)
        result += residual
        if self._activation is not None:
            self._activation.apply(result)
        if out is not None:
            out[...] = result
        return result if out is None else out

    def _with_every_check(
        self, x: NDArray[Any], packed: Packed, bias: Any, out: NDArray[Any] | None
    ) -> NDArray[Any]:
        """Compute by `solve_for`: strided or foreign arrays, and what needs the portable path."""
        geometry = self.geometry
        weight = packed if packed.plan is not None else packed.values
        result: NDArray[Any] = solve_for(self.want, geometry, x, weight, bias, self._call, out)
        return result

    def _check(
        self, array: Any, shape: tuple[int, ...], name: str, others: tuple[str, ...] = ()
    ) -> Any:
        """Return a plain ndarray of the shape and type of the plan, or raise."""
        if type(array) is not np.ndarray and isinstance(array, np.ndarray):
            array = as_operand(array, name)
        is_right = isinstance(array, np.ndarray) and (
            array.dtype == self.dtype or array.dtype.name in others
        )
        if not is_right:
            found = getattr(array, "dtype", type(array).__name__)
            raise DTypeError(
                f"{name} must be a NumPy array of {self.dtype}, not {found}; convert it, or make a "
                "plan for it."
            )
        if array.shape != shape:
            raise ShapeError(
                f"{name} has shape {array.shape}, the plan is for {shape}; pass such an array, or "
                "make a plan for it."
            )
        return array

    __reduce_ex__ = reduce_by_public_name

    def __getstate__(self) -> tuple[Any, ...]:
        # The arguments; unpickling chooses the plan anew, for the machine it runs on.
        how = self._dtype_name, self.threads, self.method, self.activation, self.want
        return self.geometry, *how, self.residual

    def __setstate__(self, state: tuple[Any, ...]) -> None:
        geometry, dtype, threads, method, activation, want, *residual = state
        follows = as_activation(activation)
        self.__init__(geometry, dtype, threads, method, follows, want, *residual)  # type: ignore[misc]

    def __str__(self) -> str:
        geometry = self.geometry
        sizes = f"x {geometry.x_shape}, weight {geometry.weight_shape}, y {geometry.y_shape}"
        lines = [f"{self.dtype} {sizes}, {geometry.flops:,} FLOPs"]
        sizes_of = geometry, self.want, self._dtype_name, self.threads
        if self.method == "fft":
            lines += on_fft(*sizes_of)
        elif self._plan is None:
            then = f", then {self._activation}" if self._activation else ""
            lines.append(f"portable path: matrix products of the array library{then}")
        else:
            lines += [*self._plan.describe(), *gain(*sizes_of)]
        return "\n".join(lines)

    __repr__ = __str__


@readable
def plan(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    *,
    want: Letter = "y",
    dtype: Any = "float32",
    threads: int | None = None,
    method: str = "auto",
    activation: Any = None,
    residual: bool = False,
    output_size: PerAxis | None = None,
    **keywords: Unpack[SizeKeywords],
) -> PlannedCall:
    """Check sizes and choose a plan for a `conv_transpose`, or a `conv`, once for many calls.

    Parameters
    ----------
    x_shape, weight_shape : shapes of x and weight
    want : "y" plans a `conv_transpose`, "x" the `conv` that is its transpose, which takes y and
        returns x. For the adjoint of complex numbers pack ``weight.conj()``.
    dtype : type of x, weight and bias
    threads : int up to 1024; None takes as many as the machine has cores, or TCONV_THREADS
    method : "auto" and "direct" choose by a cost model, "measure" times the few best plans, "fft"
        is for long kernels; `conv_transpose` says how exact each method is
    activation : None or one of these, applied to sums and bias before they are written, without a
        further pass over y. Only for floating types.

        - "relu", "tanh", "sigmoid", "silu", "hard_swish"
        - ("leaky_relu", slope), slope at least 0; ("prelu", slope), one slope for all channels
        - ("elu", alpha), alpha at least 0
        - ("clip", low, high), a bound may be None
        - ("hard_sigmoid", alpha, beta): ``clip(alpha*x + beta, 0, 1)``; PyTorch's is (1/6, 0.5)
        - "gelu", by the normal distribution; ("gelu", "tanh"), by a tanh
        - ("snake", a): ``x + sin(a*x)**2/a``
    residual : whether each call takes an array of its result's shape and returns
        ``activation(sums + bias + residual)``
    output_size, stride, padding, output_padding, dilation, groups, data_format, weight_format, \
flip_kernel : as for `conv_transpose`

    Returns
    -------
    PlannedCall

    Raises
    ------
    ParameterError, ShapeError, OutputSizeError, DTypeError : as `conv_transpose`

    >>> call = plan((1, 64, 16, 16), (64, 32, 4, 4), stride=2, padding=1, threads=1)
    >>> call.geometry.y_shape
    (1, 32, 32, 32)
    >>> call = plan((1, 1, 2), (1, 1, 3), stride=2, activation="relu")
    >>> packed = call.pack(np.array([[[1, -1, 1]]], np.float32))
    >>> call(np.ones((1, 1, 2), np.float32), packed)
    array([[[1., 0., 2., 0., 1.]]], dtype=float32)
    """
    want = as_choice(want, "want", ("y", "x"))
    name = as_type_name(dtype)
    follows = as_activation(activation)
    if follows is not None:
        follows.check_type(name)
    geometry = Geometry.of(x_shape, weight_shape, output_size=output_size, **keywords)
    adds = as_flag(residual, "residual")
    return PlannedCall(geometry, name, threads, method, follows, want, adds)


def _has_whole_images(out: Any) -> bool:
    """Whether out has C-contiguous images, a fixed number of elements apart."""
    return (
        out is not None
        and out.dtype.isnative
        and out.flags.aligned
        and out.strides[0] >= 0
        and out.strides[0] % out.itemsize == 0
        and bool(len(out))
        and out[0].flags.c_contiguous
    )
