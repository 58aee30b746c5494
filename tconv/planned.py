"""HOW A CALL IS REPEATED: sizes checked, a plan chosen and code made once, then only computed."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.arguments import METHODS, as_choice, as_integer
from tconv.canonical import canonical
from tconv.dispatch import Call, native, solve_for
from tconv.dtypes import TYPES, as_dtype, dtype_name
from tconv.errors import DTypeError, ShapeError
from tconv.geometry import Geometry
from tconv.operands import check_out

__all__ = ["Packed", "PackedWeights", "PlannedCall", "plan"]

_MOST_PACKED = 8  # of one weight, for images of different sizes


@dataclass(frozen=True)
class Packed:
    """A weight in the order in which one plan reads it, made by `PlannedCall.pack`.

    >>> plan((1, 2, 5), (2, 3, 4)).pack(np.ones((2, 3, 4), np.float32))
    Packed(weight_shape=(2, 3, 4))
    """

    weight_shape: tuple[int, ...]
    values: Any = field(repr=False, compare=False)
    plan: Any = field(repr=False, compare=False)


class PackedWeights:
    """A weight packed for the plans that it was used with, for as long as it does not change."""

    def __init__(self) -> None:
        self._version: int | None = None
        self._found: dict[Any, Packed] = {}  # by plan

    def of(
        self,
        geometry: Geometry,
        weight: NDArray[Any],
        version: int | None,
        threads: int | None = None,
    ) -> Any:
        """Return what `solve_for` takes for the weight: packed, or itself where nobody packs.

        A `version` that is None, or another than before, says that the numbers may have changed.
        """
        chosen = native(geometry, "y", dtype_name(weight.dtype), threads)
        if chosen is None:
            return weight
        if version is None or version != self._version:
            self._found.clear()
            self._version = version
        found = self._found.get(chosen)
        if found is None:
            ordered = np.require(canonical(np, geometry, "w", weight), requirements=("C", "A"))
            found = Packed(weight.shape, chosen.pack(ordered), chosen)
            if len(self._found) >= _MOST_PACKED:
                self._found.clear()
            self._found[chosen] = found
        return found


class PlannedCall:
    """One `conv_transpose` of fixed sizes and type, made by `plan`.

    Attributes
    ----------
    geometry : Geometry
    dtype : numpy.dtype

    ``print(call)`` tells what was chosen and why it should take how long. A call may be used by
    several threads at once; it pickles.

    >>> call = plan((1, 2, 3, 3), (2, 4, 2, 2), stride=2)
    >>> packed = call.pack(np.ones((2, 4, 2, 2), np.float32))
    >>> call(np.ones((1, 2, 3, 3), np.float32), packed).shape
    (1, 4, 6, 6)
    """

    def __init__(
        self, geometry: Geometry, dtype: str, threads: int | None, method: str = "auto"
    ) -> None:
        self.geometry, self.threads, self.method = geometry, threads, method
        self.dtype = as_dtype(np, dtype)
        self._plan = native(geometry, "y", dtype, threads, method)

    def pack(self, weight: NDArray[Any]) -> Packed:
        """Return the weight as `__call__` wants it; changing `weight` afterwards has no effect.

        Raises
        ------
        ShapeError, DTypeError : weight is not what the plan was made for
        """
        weight = np.asarray(weight)
        self._check(weight, self.geometry.weight_shape, "weight")
        if self._plan is None:
            return Packed(weight.shape, weight.copy(), None)
        ordered = np.require(canonical(np, self.geometry, "w", weight), requirements=("C", "A"))
        return Packed(weight.shape, self._plan.pack(ordered), self._plan)

    def __call__(
        self,
        x: NDArray[Any],
        packed: Packed,
        bias: NDArray[Any] | None = None,
        out: NDArray[Any] | None = None,
    ) -> NDArray[Any]:
        """Return y, written to `out` if that is given.

        Raises
        ------
        ShapeError, DTypeError : an array is not what the plan was made for
        """
        geometry, chosen = self.geometry, self._plan
        if not isinstance(packed, Packed) or packed.plan is not chosen:
            raise DTypeError(
                "packed must be what pack of this plan returned; call pack(weight) of this plan."
            )
        self._check(x, geometry.x_shape, "x")
        if bias is not None:
            self._check(bias, (geometry.out_channels,), "bias")
        if out is not None:
            check_out(out, np, geometry.y_shape, self.dtype.name, [x, bias])
        usual = geometry.data_format == "channels_first"
        if chosen is None or not usual or not x.flags.c_contiguous or not x.flags.aligned:
            return self._at_length(x, packed, bias, out)
        y = np.empty(geometry.y_shape, self.dtype) if out is None else out
        if not (y.flags.carray and y.dtype.isnative):
            return self._at_length(x, packed, bias, out)
        chosen(x, packed.values, chosen.pack_bias(bias), y)
        return y

    def _at_length(
        self, x: NDArray[Any], packed: Packed, bias: Any, out: NDArray[Any] | None
    ) -> NDArray[Any]:
        """A call with anything out of the ordinary."""
        geometry, call = self.geometry, Call("plan", threads=self.threads)
        weight = packed if packed.plan is not None else packed.values
        result: NDArray[Any] = solve_for("y", geometry, x, weight, bias, call, out)
        return result

    def _check(self, array: Any, shape: tuple[int, ...], name: str) -> None:
        if not isinstance(array, np.ndarray) or array.dtype != self.dtype:
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

    def __reduce__(self) -> Any:
        return PlannedCall, (self.geometry, dtype_name(self.dtype), self.threads, self.method)

    def __str__(self) -> str:
        geometry = self.geometry
        sizes = f"x {geometry.x_shape}, weight {geometry.weight_shape}, y {geometry.y_shape}"
        lines = [f"{self.dtype} {sizes}, {geometry.flops:,} FLOPs"]
        if self._plan is None:
            lines.append("portable path: matrix products of the array library")
        else:
            lines += self._plan.describe()
        return "\n".join(lines)

    __repr__ = __str__


def plan(
    x_shape: Sequence[int],
    weight_shape: Sequence[int],
    *,
    want: str = "y",
    dtype: Any = "float32",
    threads: int | None = None,
    method: str = "auto",
    **keywords: Any,
) -> PlannedCall:
    """Check sizes and choose how to compute a `conv_transpose` of NumPy arrays, once for many.

    Parameters
    ----------
    x_shape, weight_shape : shapes of x and weight
    want : "y"
    dtype : type of x, weight and bias
    threads : int; None takes as many as the machine has cores, or TCONV_THREADS
    method : "auto" and "direct" choose by a model, "measure" times the few best ones
    keywords : those of `conv_transpose` about sizes and layouts: stride, padding, output_padding,
        dilation, groups, output_size, data_format, weight_format, flip_kernel

    Returns
    -------
    PlannedCall

    Raises
    ------
    ParameterError, ShapeError, OutputSizeError, DTypeError : as `conv_transpose`

    >>> call = plan((1, 64, 16, 16), (64, 32, 4, 4), stride=2, padding=1, threads=1)
    >>> call.geometry.y_shape
    (1, 32, 32, 32)
    """
    as_choice(want, "want", ("y",))
    as_choice(method, "method", METHODS)
    if threads is not None:
        as_integer(threads, "threads", 1)
    name = dtype_name(dtype)
    if name not in TYPES:
        raise DTypeError(f"dtype={dtype!r} must name one of {', '.join(TYPES)}; pass one of these.")
    return PlannedCall(Geometry.of(x_shape, weight_shape, **keywords), name, threads, method)
