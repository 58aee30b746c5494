"""HOW IT IS FAST: NumPy arrays contracted by machine code that is generated for this processor."""

from dataclasses import replace
from functools import lru_cache
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tconv.canonical import canonical
from tconv.engine.forks import ForkLock
from tconv.engine.plan import choose_plan
from tconv.engine.target import target
from tconv.geometry import Geometry, Letter

if TYPE_CHECKING:
    from tconv.engine.executor import Ready

__all__ = ["contract", "prepare", "serves", "workspace_bytes"]

_TYPES = ("float32", "float64")
_MOST_AXES = 3
_MOST_PHASES = 2**14  # and taps: beyond, tables would be larger than what they are for
_MOST_CELLS = 2**31 - 1  # of an operand: tables hold 32 bits


_importing = ForkLock()  # a child must not find LLVM half imported


@lru_cache(maxsize=1024)
def serves(geometry: Geometry, want: Letter, dtype: str) -> bool:
    """Whether the engine computes such a contraction; else the portable path does.

    >>> serves(Geometry.of((1, 1, 4), (1, 1, 3)), "y", "int64")
    False
    """
    axes = geometry.axes
    return (
        want == "y"
        and dtype in _TYPES
        and len(axes) <= _MOST_AXES
        and geometry.batch > 0
        and 0 not in geometry.input_size
        and prod(min(a.stride, a.output) if a.input > 1 else a.output for a in axes) <= _MOST_PHASES
        and prod(geometry.kernel_size) <= _MOST_PHASES
        and max(prod(geometry.x_shape), prod(geometry.weight_shape)) <= _MOST_CELLS
        and max(max(a.full, a.output, a.reach, abs(a.begin)) for a in axes) <= _MOST_CELLS
        and target().uses_engine
        and (geometry.data_format == "channels_first" or _copies_bytes(geometry, dtype) <= 2**26)
        and choose_plan(_usual(geometry), dtype, target(), 1) is not None
    )


def prepare(geometry: Geometry, dtype: str, threads: int | None = None) -> "Ready":
    """Return the plan for a geometry, with its code loaded."""
    with _importing:
        from tconv.engine.executor import ready  # and LLVM, which only those who compute need

    here = target()
    return ready(_usual(geometry), dtype, here, here.threads if threads is None else threads)


def _copies_bytes(geometry: Geometry, dtype: str) -> int:
    """Bytes of x and y in another layout."""
    return (prod(geometry.x_shape) + prod(geometry.y_shape)) * np.dtype(dtype).itemsize


def _usual(geometry: Geometry) -> Geometry:
    """The same sizes in the layout that plans are made for."""
    if geometry.data_format != "channels_first" or not geometry.batched:
        geometry = replace(geometry, data_format="channels_first", batched=True)
    if geometry.weight_format != "IO*" or geometry.flip_kernel:
        geometry = replace(geometry, weight_format="IO*", flip_kernel=False)
    return geometry


def workspace_bytes(geometry: Geometry, dtype: str, threads: int | None = None) -> int:
    """Bytes that `contract` holds besides operands and result: scratch, and packed weights."""
    return prepare(geometry, dtype, threads).workspace_bytes


def contract(
    geometry: Geometry,
    want: Letter,
    a: NDArray[Any],
    b: Any,
    *,
    bias: NDArray[Any] | None = None,
    out: NDArray[Any] | None = None,
    method: str = "auto",
    threads: int | None = None,
) -> NDArray[Any]:
    """Solve F(x, w, y) for y; the signature is that of `portable.contract`.

    b may also hold ``values`` that its ``plan``, a `Ready` for this geometry and type, packed.

    >>> geometry = Geometry.of((1, 1, 2), (1, 1, 3), stride=2)
    >>> contract(geometry, "y", np.ones((1, 1, 2)), np.ones((1, 1, 3)))
    array([[[1., 1., 2., 1., 1.]]])
    """
    plan = getattr(b, "plan", None) or prepare(geometry, a.dtype.name, threads)
    x = _readable(canonical(np, geometry, "x", a))
    packed = getattr(b, "values", None)
    if packed is None:
        packed = plan.pack(_readable(canonical(np, geometry, "w", b)))
    if out is None:
        out = np.empty(geometry.y_shape, a.dtype)
    y = canonical(np, geometry, "y", out)
    lies_right = y.flags.carray and y.dtype.isnative
    result = y if lies_right else np.empty(y.shape, a.dtype)
    plan(x, packed, plan.pack_bias(bias), result)
    if not lies_right:
        y[...] = result
    return out


def _readable(array: NDArray[Any]) -> NDArray[Any]:
    """The array, or a copy, with its cells one after the other where numbers may lie."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.array(array, order="C")
