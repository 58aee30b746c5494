"""Split types: complex numbers as two real channels, small integers as floats.

    x'[n, g, (part, c)] = real and imaginary parts of x[n, g, c]      # all real parts come first
    w'[g, (part, c), (part', m)] =  wr  wi                   # of w[g, c, m]; rows are parts
                                   -wi  wr                   # for want "x" the other wi is negative
    y[n, g, m] = the complex numbers with parts y'[n, g, (part', m)]

The contraction of the parts takes as many real products as the complex one. A product with an
infinity or NaN may make both parts NaN, as complex products do on the portable path.

Integers are summed as floats where a float holds every sum exactly that their type allows. So every
order of sums gives the same result, whichever float type they take.
"""

from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.canonical import canonical, canonical_shape
from tconv.arrays.dtypes import TYPES, float_that_is_exact, largest, largest_sum
from tconv.geometry.geometry import Geometry, Letter
from tconv.system.allocator import empty

if TYPE_CHECKING:
    from tconv.engine.executor import Primitive
    from tconv.engine.high_rank import HighRankPrimitive

__all__ = [
    "SPLIT_TYPES",
    "Complex",
    "Integers",
    "PackedSplit",
    "SplitPrimitive",
    "split_primitive",
    "split_problem",
]

_Contract = Callable[..., NDArray[Any]]

_REAL = {"complex64": "float32", "complex128": "float64"}
_SMALL_INTEGERS = ("int8", "uint8", "int16", "uint16")
SPLIT_TYPES = frozenset({*_REAL, *_SMALL_INTEGERS})
"""Names of the types that are contracted as other ones."""


@lru_cache(maxsize=1024)
def split_problem(geometry: Geometry, want: Letter, dtype: str) -> tuple[Geometry, str] | None:
    """Return the geometry and type that a split type is contracted by; None if there is none.

    >>> geometry = Geometry.of((1, 4, 5), (4, 6, 3), groups=2)
    >>> geometry, dtype = split_problem(geometry, "y", "complex64")
    >>> geometry.x_shape, geometry.weight_shape, dtype
    ((1, 8, 5), (8, 12, 3), 'float32')
    >>> split_problem(Geometry.of((1, 4, 5), (4, 6, 3)), "y", "int16")[1]
    'float64'
    """
    if dtype in _REAL:
        of_x, of_y = 2 * geometry.in_channels, 2 * geometry.out_channels
        found = replace(geometry, in_channels=of_x, out_channels=of_y)
        return replace(found, weight_format="IO*", flip_kernel=False), _REAL[dtype]
    bound = largest_sum(dtype, geometry.terms(want))
    if bound > np.iinfo(TYPES[dtype].accumulator).max:
        return None
    carrier = float_that_is_exact(bound)
    return None if carrier is None else (geometry, carrier)


class PackedSplit(NamedTuple):
    """Packed weights of the parts, as the engine takes packed weights."""

    plan: Any
    values: Any


class SplitPrimitive:
    """A primitive for a split type; `inner` is the primitive for the parts."""

    activation = None

    def __init__(
        self, geometry: Geometry, want: Letter, dtype: str, inner: "Primitive | HighRankPrimitive"
    ) -> None:
        self.geometry, self.want, self.dtype, self.inner = geometry, want, np.dtype(dtype), inner

    def inner_geometry(self, geometry: Geometry) -> Geometry:
        """The geometry that `inner` contracts, x and y in the layout of `geometry`."""
        found = split_problem(geometry, self.want, self.dtype.name)
        assert found is not None, "the engine does not serve this geometry"
        return found[0]

    def contract(
        self,
        by: _Contract,
        geometry: Geometry,
        a: NDArray[Any],
        b: Any,
        bias: NDArray[Any] | None,
        out: NDArray[Any] | None,
    ) -> NDArray[Any]:
        """Contract `by` a function with the signature of `portable.contract`.

        a and b are C-contiguous, and so is the result. For want "y" and "x" b is what `by` takes
        for the parts of w.
        """
        of_a: Letter = "y" if self.want == "x" else "x"
        of_b = self.split(geometry, "y", b) if self.want == "w" else b
        start, rest = self.split_bias(bias)
        of_a_parts = self.split(geometry, of_a, a)
        found = by(self.inner_geometry(geometry), self.want, of_a_parts, of_b, bias=start)
        del of_a_parts, of_b
        return self.merged(geometry, found, rest, out)

    keeps_weight = False  # packed weights hold its parts only

    def pack(self, weight: NDArray[Any]) -> Any:
        """Bring weights (groups, C, M, *kernel), C-contiguous, into the order of the kernels."""
        return self.inner.pack(self.split_weight(weight))

    def split(self, geometry: Geometry, letter: Letter, array: NDArray[Any]) -> NDArray[Any]:
        """Return the parts of x or y, which is C-contiguous, in its layout."""
        raise NotImplementedError

    def split_weight(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Return the parts of weights (groups, C, M, *kernel), which are C-contiguous."""
        raise NotImplementedError

    def split_bias(self, bias: NDArray[Any] | None) -> tuple[Any, Any]:
        """Return the parts of the bias that sums start with, and a rest to add to the result."""
        raise NotImplementedError

    def merged(
        self, geometry: Geometry, found: NDArray[Any], rest: Any, out: NDArray[Any] | None
    ) -> NDArray[Any]:
        """Return the result from its parts `found`; write `out` if it is given."""
        raise NotImplementedError

    @property
    def copied_bytes(self) -> int:
        """Bytes of parts that are held at a time: of w, which is packed first, or of x and y."""
        inner = self.inner_geometry(self.geometry)
        w, x, y = (prod(inner.shape_of(letter)) for letter in ("w", "x", "y"))
        if self.dtype.kind == "c" and self.geometry.groups > 1:
            w += w // 2  # see split_weight
        return max(w, x + y) * self.inner.dtype.itemsize

    def describe(self) -> list[str]:
        """What was chosen, and what it should cost."""
        converted = f"computed as {self.inner.dtype}, {self.copied_bytes:,} bytes of copies"
        return [converted, *self.inner.describe()]


class Complex(SplitPrimitive):
    """Complex numbers: the real parts of a group's channels, then the imaginary parts.

    To split and to merge are transposes of a matrix with pairs as its rows.
    """

    def split(self, geometry: Geometry, letter: Letter, array: NDArray[Any]) -> NDArray[Any]:
        """Return the parts of x or y, which is C-contiguous, in its layout."""
        shape = self.inner_geometry(geometry).shape_of(letter)
        images, run = _runs(geometry, letter)
        if run == 1:
            return array.reshape(-1).view(self.inner.dtype).reshape(shape)
        to = empty(shape, self.inner.dtype)
        self.inner.transpose((images, run, 2), array, to)
        return to

    def split_weight(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Return weights (groups, 2*C, 2*M, *kernel), of weights (groups, C, M, *kernel)."""
        groups, channels, outputs, *kernel = canonical_shape(self.geometry, "w")
        size = outputs * prod(kernel)
        to = empty((groups, 2, channels, 2, size), self.inner.dtype)
        rows = to[:, 0]  # of one group these are one piece
        if groups > 1:
            rows = empty(rows.shape, to.dtype)
        self.inner.transpose((groups * channels, size, 2), weight, rows)
        if groups > 1:
            to[:, 0] = rows
        real, imaginary = rows[:, :, 0], rows[:, :, 1]
        to[:, 1, :, 1] = real
        if self.want == "x":
            to[:, 1, :, 0] = imaginary
            np.negative(imaginary, out=to[:, 0, :, 1])
        else:
            np.negative(imaginary, out=to[:, 1, :, 0])
        return to.reshape(groups, 2 * channels, 2 * outputs, *kernel)

    def split_bias(self, bias: NDArray[Any] | None) -> tuple[Any, Any]:
        """Return the bias of all parts; there is no rest."""
        if bias is None:
            return None, None
        of_groups = bias.reshape(self.geometry.groups, -1)
        return np.concatenate([of_groups.real, of_groups.imag], axis=1).reshape(-1), None

    def merged(
        self, geometry: Geometry, found: NDArray[Any], rest: Any, out: NDArray[Any] | None
    ) -> NDArray[Any]:
        """Return complex numbers from their parts; w has two pairs of parts, which are added."""
        if self.want == "w":
            return self._merged_weight(geometry, found, out)
        shape = geometry.shape_of(self.want)
        images, run = _runs(geometry, self.want)
        if run == 1 and out is None:
            return found.reshape(-1).view(self.dtype).reshape(shape)
        is_written = out is not None and out.flags.carray and out.dtype.isnative
        to = out if out is not None and is_written else empty(shape, self.dtype)
        self.inner.transpose((images, 2, run), found, to)
        if out is None or is_written:
            return to
        out[...] = to
        return out

    def _merged_weight(
        self, geometry: Geometry, found: NDArray[Any], out: NDArray[Any] | None
    ) -> NDArray[Any]:
        """The gradient of complex weights, from the gradients of independent parts."""
        groups, channels, outputs, *kernel = canonical_shape(geometry, "w")
        found = found.reshape(groups, 2, channels, 2, outputs, *kernel)
        if out is None:
            out = np.empty(geometry.weight_shape, self.dtype)
        to = canonical(np, geometry, "w", out)
        to.real = found[:, 0, :, 0] - found[:, 1, :, 1]
        to.imag = found[:, 0, :, 1] + found[:, 1, :, 0]
        return out


class Integers(SplitPrimitive):
    """Small integers, as floats that hold every sum of such a type exactly."""

    def split(self, geometry: Geometry, letter: Letter, array: NDArray[Any]) -> NDArray[Any]:
        """Return x or y as floats."""
        return self._converted(array, self.inner.dtype)

    def split_weight(self, weight: NDArray[Any]) -> NDArray[Any]:
        """Return weights as floats."""
        return self._converted(weight, self.inner.dtype)

    def split_bias(self, bias: NDArray[Any] | None) -> tuple[Any, Any]:
        """Return the bias as floats if these hold all sums with it; else as a rest to add."""
        if bias is None:
            return None, None
        name = self.dtype.name
        bound = largest_sum(name, self.geometry.terms(self.want)) + largest(np, bias)
        if float_that_is_exact(bound) == self.inner.dtype.name:
            return bias.astype(self.inner.dtype), None
        return None, bias

    def merged(
        self, geometry: Geometry, found: NDArray[Any], rest: Any, out: NDArray[Any] | None
    ) -> NDArray[Any]:
        """Return sums as integers."""
        if out is None:
            out = self._converted(found, np.dtype(TYPES[self.dtype.name].result))
        else:
            np.copyto(out, found, casting="unsafe")
        if rest is not None:
            last = geometry.data_format == "channels_last"
            out += rest if last else rest.reshape(-1, *[1] * geometry.rank)
        return out

    def _converted(self, array: NDArray[Any], dtype: np.dtype[Any]) -> NDArray[Any]:
        to = empty(array.shape, dtype)
        np.copyto(to, array, casting="unsafe")
        return to


def _runs(geometry: Geometry, letter: Letter) -> tuple[int, int]:
    """How many contiguous runs of one group x or y has, and the length of a run."""
    groups, shape = geometry.groups, geometry.shape_of(letter)
    channels = geometry.in_channels if letter == "x" else geometry.out_channels
    cells = prod(shape) // (geometry.batch * channels)
    if geometry.data_format == "channels_last":
        return geometry.batch * cells * groups, channels // groups
    return geometry.batch * groups, channels // groups * cells


@lru_cache(maxsize=256)
def split_primitive(
    geometry: Geometry, want: Letter, dtype: str, inner: "Primitive | HighRankPrimitive"
) -> SplitPrimitive:
    """Return the primitive for a split type, from the primitive for its parts."""
    kind = Complex if dtype in _REAL else Integers
    return kind(geometry, want, dtype, inner)
