"""HOW IT IS FAST: NumPy arrays contracted by machine code that is generated for this processor."""

from dataclasses import replace
from functools import cache, lru_cache, partial
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from tconv.canonical import canonical, canonical_shape
from tconv.dtypes import as_dtype
from tconv.engine.arena import empty
from tconv.engine.choice import choose_plan
from tconv.engine.folds import Folds
from tconv.engine.forks import ForkLock
from tconv.engine.target import target
from tconv.geometry import Geometry, Letter

if TYPE_CHECKING:
    from tconv.engine.executor import Ready
    from tconv.engine.folding import Folded

__all__ = ["contract", "prepare", "serves", "workspace_bytes"]

_HALVES = ("float16", "bfloat16")
_TYPES = (*_HALVES, "float32", "float64")
_MOST_AXES = 3
_MOST_PHASES = 2**14  # and taps: beyond, tables would be larger than what they are for
_MOST_CELLS = 2**31 - 1  # of an operand: tables hold 32 bits
_SOME_CHANNELS, _THIN = 16, 8  # as many times more channels of x than products for each
_MANY_CHANNELS, _THIN_OF_MANY = 128, 6

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
        and geometry.batch > 0
        and 0 not in geometry.input_size
        and prod(min(a.stride, a.output) if a.input > 1 else a.output for a in axes) <= _MOST_PHASES
        and prod(geometry.kernel_size) <= _MOST_PHASES
        and max(prod(geometry.x_shape), prod(geometry.weight_shape)) <= _MOST_CELLS
        and max(max(a.full, a.output, a.reach, abs(a.begin)) for a in axes) <= _MOST_CELLS
        and target().uses_engine
        and (geometry.data_format == "channels_first" or not _is_thin(geometry, dtype))
        and _has_plan(_usual(geometry), dtype)
    )


def _is_thin(geometry: Geometry, dtype: str) -> bool:
    """Whether there is less to compute for a cell of x than its channels are to move.

    The portable path multiplies x as it lies, channels last, in less time than it takes to
    transpose x: 64 to 1 channel, 512 x 512, 1 x 1 takes 2.8 ms, and 9 the other way (Xeon,
    2 cores). The size of the image has no say, for the order of sums depends on who computes them.
    The halves it would have to widen first, which takes longer.
    """
    if dtype in _HALVES:
        return False
    channels = geometry.in_channels // geometry.groups
    products = geometry.out_channels // geometry.groups * prod(geometry.kernel_size)
    thin = _THIN if channels < _MANY_CHANNELS else _THIN_OF_MANY
    return channels >= max(_SOME_CHANNELS, thin * products)


def _has_plan(geometry: Geometry, dtype: str) -> bool:
    """Whether there is a plan for one thread, and so for any number of them."""
    if geometry.rank > _MOST_AXES:
        return _can_fold(geometry, dtype)
    here = target()
    plan = choose_plan(geometry, dtype, here, here.threads)  # mostly the one that is wanted next
    if plan is not None and plan.cycles * plan.threads <= geometry.flops:
        return True  # for one thread it takes no more than that, and more than that is allowed
    return choose_plan(geometry, dtype, here, 1) is not None


def _can_fold(geometry: Geometry, dtype: str) -> bool:
    """Whether the calls of three axes that make one of more are served, and not wasteful."""
    if Folds.are_too_many(geometry):
        return False
    folds = Folds.of(geometry, as_dtype(np, dtype).itemsize)
    inner = map(folds.inner, folds.all_taps)
    return not folds.is_wasteful and all(serves(each, "y", dtype) for each in inner)


def prepare(
    geometry: Geometry, dtype: str, threads: int | None = None, method: str = "auto"
) -> "Ready | Folded":
    """Return the plan for a geometry, with its code loaded; "measure" tries several."""
    here, (ready, measured, folded) = target(), _makers()
    make = measured if method == "measure" else ready
    threads = here.threads if threads is None else threads
    geometry = _usual(geometry)
    if geometry.rank > _MOST_AXES:
        make = partial(folded, make=make)
    found: Ready | Folded = make(geometry, dtype, here, threads)
    return found


@cache
def _makers() -> tuple[Any, Any, Any]:
    """What makes plans ready; it loads LLVM, which few need."""
    with _importing:
        from tconv.engine.executor import measured, ready
        from tconv.engine.folding import folded
    return ready, measured, folded


def _usual(geometry: Geometry) -> Geometry:
    """The same sizes in the layout that plans are made for."""
    if geometry.data_format != "channels_first" or not geometry.batched:
        geometry = replace(geometry, data_format="channels_first", batched=True)
    if geometry.weight_format != "IO*" or geometry.flip_kernel:
        geometry = replace(geometry, weight_format="IO*", flip_kernel=False)
    return geometry


def workspace_bytes(geometry: Geometry, plan: "Ready | Folded") -> int:
    """Bytes that `contract` holds besides operands and result.

    These are scratch, packed weights, and x and y channels first if the caller has them last.
    """
    copies = sum(
        prod(geometry.shape_of(letter))
        for letter in ("x", "y")
        if not _is_channels_first(geometry, letter)
    )
    return plan.workspace_bytes + copies * plan.dtype.itemsize


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
    plan: "Ready | Folded | None" = None,
) -> NDArray[Any]:
    """Solve F(x, w, y) for y; the signature is that of `portable.contract`.

    `plan` is what `prepare` gives, if that is known. b may also hold ``values`` that its ``plan``,
    a `Ready` for this geometry and type, packed.

    >>> geometry = Geometry.of((1, 1, 2), (1, 1, 3), stride=2)
    >>> contract(geometry, "y", np.ones((1, 1, 2)), np.ones((1, 1, 3)))
    array([[[1., 1., 2., 1., 1.]]])
    """
    if isinstance(b, np.ndarray):
        plan = plan or prepare(geometry, a.dtype.name, threads, method)
        packed = plan.pack(_ordered(geometry, b))
    else:
        plan, packed = b.plan, b.values
    x = _whole(a)
    if not _is_channels_first(geometry, "x"):
        x = plan.transposed("x", x)
    if not _is_channels_first(geometry, "y"):
        return _contract_last(geometry, x, packed, bias, out, plan)
    if out is None:
        out = empty(geometry.y_shape, a.dtype)
    y = out if _is_writable(out) else empty(canonical_shape(geometry, "y"), a.dtype)
    plan(x, packed, plan.pack_bias(bias), y)
    if y is not out:
        canonical(np, geometry, "y", out)[...] = y
    return out


def _contract_last(
    geometry: Geometry,
    x: NDArray[Any],
    packed: Any,
    bias: NDArray[Any] | None,
    out: NDArray[Any] | None,
    plan: "Ready | Folded",
) -> NDArray[Any]:
    """Contract where y is channels last; x is channels first by now."""
    y = empty(canonical_shape(geometry, "y"), x.dtype)
    plan(x, packed, plan.pack_bias(bias), y)
    if out is None:
        return plan.transposed("y", y).reshape(geometry.y_shape)
    if _is_writable(out):
        return plan.transposed("y", y, out)
    canonical(np, geometry, "y", out)[...] = y
    return out


def _is_writable(out: NDArray[Any]) -> bool:
    """Whether kernels can write it."""
    return out.flags.carray and out.dtype.isnative


def _is_channels_first(geometry: Geometry, letter: Letter) -> bool:
    """Whether x or y lies so in memory: so it does, too, if it has one channel, or one cell."""
    if geometry.data_format == "channels_first":
        return True
    channels = geometry.in_channels if letter == "x" else geometry.out_channels
    return channels == 1 or prod(geometry.shape_of(letter)) == geometry.batch * channels


def _whole(array: NDArray[Any]) -> NDArray[Any]:
    """The array, or a copy, whose numbers lie one after the other."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.array(array, order="C")


def _ordered(geometry: Geometry, weight: NDArray[Any]) -> NDArray[Any]:
    """The weight as plans pack it."""
    if geometry.weight_format != "IO*" or geometry.flip_kernel:
        weight = canonical(np, geometry, "w", weight)
    return _whole(weight)
