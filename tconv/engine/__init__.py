"""HOW IT IS FAST: NumPy arrays contracted by machine code that is generated for this processor."""

from dataclasses import replace
from functools import cache, lru_cache, partial
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.activations import Activation
from tconv.arrays.canonical import canonical, canonical_shape
from tconv.arrays.dtypes import as_dtype
from tconv.engine.plan.axis_folding import Folds
from tconv.engine.plan.plan import CYCLES_PER_US
from tconv.engine.plan.problem import Problem
from tconv.engine.plan_cache import known_plan
from tconv.engine.split_types import COMPOUND, Compound, PackedParts, compound, parts
from tconv.engine.target.target import target
from tconv.errors import DTypeError
from tconv.geometry.geometry import Geometry, Letter
from tconv.system.allocator import empty
from tconv.system.fork_lock import importing

if TYPE_CHECKING:
    from tconv.engine.executor import Ready
    from tconv.engine.high_rank import Folded, FoldedSums
    from tconv.engine.weight_gradient.executor import WeightGradientPrimitive

    _Plan: TypeAlias = Ready | Folded | WeightGradientPrimitive | FoldedSums

__all__ = ["TYPES", "contract", "expected_us", "prepare", "serves", "workspace_bytes"]

_HALVES = ("float16", "bfloat16")
_TYPES = (*_HALVES, "float32", "float64")
TYPES = COMPOUND.union(_TYPES)
"""Names of the types of which some contractions are served."""

_MOST_AXES = 3
_MOST_PHASES = 2**14  # and taps: beyond, tables would be larger than what they are for
_MOST_CELLS = 2**31 - 1  # of an operand: tables hold 32 bits
_SOME_CHANNELS, _THIN = 16, 8  # as many times more channels of x than products for each
_MANY_CHANNELS, _THIN_OF_MANY = 128, 6


@lru_cache(maxsize=1024)
def serves(geometry: Geometry, want: Letter, dtype: str, threads: int | None = None) -> bool:
    """Whether the engine computes such a contraction; else the portable path does.

    `threads` are those that will: they have no say, but their plan is looked at.

    >>> serves(Geometry.of((1, 1, 4), (1, 1, 3)), "y", "int64")
    False
    """
    if dtype in COMPOUND:
        return _serves_parts(geometry, want, dtype, threads)
    axes = geometry.axes
    numbers = (prod(geometry.x_shape), prod(geometry.weight_shape), prod(geometry.y_shape))
    return (
        dtype in _TYPES
        and geometry.batch > 0
        and 0 not in geometry.input_size
        and prod(min(a.stride, a.output) if a.input > 1 else a.output for a in axes) <= _MOST_PHASES
        and prod(geometry.kernel_size) <= _MOST_PHASES
        and max(numbers[: 2 if want == "y" else 3]) <= _MOST_CELLS
        and max(max(a.full, a.output, a.reach, abs(a.begin)) for a in axes) <= _MOST_CELLS
        and target().uses_engine
        and not (want == "w" and dtype in _HALVES)
        and not _is_thin(geometry, want, dtype)
        and _has_plan(Problem(_usual(geometry), want), dtype, threads)
    )


def _serves_parts(geometry: Geometry, want: Letter, dtype: str, threads: int | None) -> bool:
    """Whether the parts of such numbers are contracted natively.

    Splitting moves x as transposing does, so it is done where x that is channels last is taken.
    """
    found = parts(geometry, want, dtype)
    if found is None:
        return False
    inner, real = found
    return serves(replace(inner, data_format="channels_last"), want, real, threads)


def _is_thin(geometry: Geometry, want: Letter, dtype: str) -> bool:
    """Whether x is channels last and less is computed for its cells than channels are to move.

    The portable path multiplies x as it lies, channels last, in less time than it takes to
    transpose x: 64 to 1 channel, 512 x 512, 1 x 1 takes 2.8 ms, and 9 the other way (Xeon,
    2 cores). The size of the image has no say, for the order of sums depends on who computes them.
    The halves it would have to widen first, which takes longer.
    """
    if geometry.data_format == "channels_first" or want == "w" or dtype in _HALVES:
        return False
    problem = Problem(geometry, want)
    channels, products = problem.channels, problem.outputs * problem.taps
    thin = _THIN if channels < _MANY_CHANNELS else _THIN_OF_MANY
    return channels >= max(_SOME_CHANNELS, thin * products)


def _has_plan(problem: Problem, dtype: str, threads: int | None = None) -> bool:
    """Whether there is a plan for one thread, and so for any number of them."""
    if problem.geometry.rank > _MOST_AXES:
        return _can_fold(problem.geometry, problem.want, dtype, threads)
    here = target()
    if problem.want == "w":
        with importing:  # few need it
            from tconv.engine.weight_gradient.plan import choose_gradient_plan

        return choose_gradient_plan(Problem(problem.geometry, "x"), dtype, here) is not None
    plan = known_plan(problem, dtype, here, threads or here.threads)  # which is wanted next
    if plan is not None and plan.cycles * plan.threads <= problem.geometry.flops:
        return True  # for one thread it takes no more than that, and more than that is allowed
    return known_plan(problem, dtype, here, 1) is not None


def _can_fold(geometry: Geometry, want: Letter, dtype: str, threads: int | None) -> bool:
    """Whether the calls of three axes that make one of more are served, and not wasteful."""
    if want == "y" and Folds.are_too_many(geometry):
        return False
    folds = Folds.of(geometry, as_dtype(np, dtype).itemsize, "y" if want == "y" else "x")
    inner = map(folds.inner, folds.all_taps)
    return not folds.is_wasteful and all(serves(each, want, dtype, threads) for each in inner)


def prepare(
    geometry: Geometry,
    dtype: str,
    threads: int | None = None,
    method: str = "auto",
    want: Letter = "y",
    activation: Activation | None = None,
) -> "_Plan | Compound":
    """Return the plan for a geometry, with its code loaded; "measure" tries several."""
    geometry, is_measured = _usual(geometry), method == "measure"
    if dtype in COMPOUND:
        found = parts(geometry, want, dtype)
        assert found is not None, "the engine does not serve this geometry"
        # Of integers only the products themselves are sure to be exact.
        is_direct = method == "direct" or np.dtype(dtype).kind in "iu"
        inner = _made(Problem(found[0], want, is_direct), found[1], threads, is_measured)
        return compound(geometry, want, dtype, inner)
    problem = Problem(geometry, want, method == "direct", activation)
    return _made(problem, dtype, threads, is_measured)


def _made(problem: Problem, dtype: str, threads: int | None, is_measured: bool) -> "_Plan":
    here = target()
    make = _maker(problem.want == "w", problem.geometry.rank > _MOST_AXES, is_measured)
    if problem.want == "w":  # for which y is read as for x
        problem = Problem(problem.geometry, "x")
    found: _Plan = make(problem, dtype, here, here.threads if threads is None else threads)
    return found


@cache
def _maker(is_for_w: bool, is_folded: bool, is_measured: bool) -> Any:
    """Import what makes such plans ready; that loads LLVM, which few need."""
    with importing:
        if is_for_w:
            from tconv.engine.weight_gradient.executor import create_weight_gradient

            make: Any = create_weight_gradient
        else:
            from tconv.engine.executor import measured, ready

            make = measured if is_measured else ready
        if is_folded:
            from tconv.engine.high_rank import folded, folded_sums

            return partial(folded_sums if is_for_w else folded, make=make)
    return make


def _usual(geometry: Geometry) -> Geometry:
    """The same sizes in the layout that plans are made for."""
    if geometry.data_format != "channels_first" or not geometry.batched:
        geometry = replace(geometry, data_format="channels_first", batched=True)
    if geometry.weight_format != "IO*" or geometry.flip_kernel:
        geometry = replace(geometry, weight_format="IO*", flip_kernel=False)
    return geometry


def expected_us(
    geometry: Geometry, want: Letter, dtype: str, threads: int | None = None
) -> float | None:
    """Return the microseconds that a call should take, by the model of costs.

    None where the engine does not serve it. No code is compiled for that.
    """
    if not serves(geometry, want, dtype, threads) or geometry.rank > _MOST_AXES:
        return None
    here, problem = target(), Problem(_usual(geometry), want)
    plan = known_plan(problem, dtype, here, threads or here.threads)
    return None if plan is None else plan.cycles / CYCLES_PER_US


def workspace_bytes(geometry: Geometry, plan: "_Plan | Compound") -> int:
    """Bytes that `contract` holds besides operands and result.

    These are scratch, packed weights, x and y channels first if the caller has them last, and the
    parts of numbers that are made of others.
    """
    if isinstance(plan, Compound):
        return plan.copied_bytes + workspace_bytes(plan.parts(geometry), plan.inner)
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
    plan: "_Plan | Compound | None" = None,
) -> NDArray[Any]:
    """Solve F(x, w, y) for y, x or w, and apply what the plan has for after it.

    The signature is that of `portable.contract`. `plan` is what `prepare` gives, if that is known.
    b may also hold ``values`` that its ``plan``, a `Ready` for this problem and type, packed.

    >>> geometry = Geometry.of((1, 1, 2), (1, 1, 3), stride=2)
    >>> contract(geometry, "y", np.ones((1, 1, 2)), np.ones((1, 1, 3)))
    array([[[1., 1., 2., 1., 1.]]])
    >>> contract(geometry, "x", np.ones((1, 1, 5)), np.ones((1, 1, 3)))
    array([[[3., 3.]]])
    """
    if want == "w":
        return _correlate(geometry, a, b, out, threads, plan)
    if isinstance(b, np.ndarray):
        made: Any = plan or prepare(geometry, a.dtype.name, threads, method, want)
        packed = made.pack(_ordered(geometry, b))
    else:
        made, packed = b.plan, b.values
        if plan is not None and plan is not made:
            _check_packed_for(plan, made)
    if isinstance(made, Compound):
        b = PackedParts(made.inner, packed)
        return made.contract(contract, geometry, _whole(a), b, bias, out)
    read = _whole(a)
    if not _is_channels_first(geometry, made.problem.read):
        read = made.transposed(made.problem.read, read)
    if not _is_channels_first(geometry, want):
        return _contract_last(geometry, want, read, packed, bias, out, made)
    if out is None:
        out = empty(geometry.shape_of(want), a.dtype)
    written = out if _is_writable(out) else empty(canonical_shape(geometry, want), a.dtype)
    made(read, packed, made.pack_bias(bias), written)
    if written is not out:
        canonical(np, geometry, want, out)[...] = written
    return out


def _check_packed_for(plan: Any, made: Any) -> None:
    """Refuse weights that were packed by a plan for something else."""
    one, other = (
        (each.geometry, each.want, each.dtype)
        if isinstance(each, Compound)
        else (each.problem, each.dtype)
        for each in (plan, made)
    )
    if one != other:
        raise DTypeError(
            "weight must be packed for these sizes, this type and this activation; pack it by the "
            "plan that it is used with."
        )


def _contract_last(
    geometry: Geometry,
    want: Letter,
    read: NDArray[Any],
    packed: Any,
    bias: NDArray[Any] | None,
    out: NDArray[Any] | None,
    plan: "Ready | Folded",
) -> NDArray[Any]:
    """Contract where the result is channels last; what is read is channels first by now."""
    written = empty(canonical_shape(geometry, want), read.dtype)
    plan(read, packed, plan.pack_bias(bias), written)
    if out is None:
        return plan.transposed(want, written).reshape(geometry.shape_of(want))
    if _is_writable(out):
        return plan.transposed(want, written, out)
    canonical(np, geometry, want, out)[...] = written
    return out


def _correlate(
    geometry: Geometry,
    x: NDArray[Any],
    y: NDArray[Any],
    out: NDArray[Any] | None,
    threads: int | None,
    plan: Any,
) -> NDArray[Any]:
    """Solve for w; `contract` says the rest."""
    plan = plan or prepare(geometry, x.dtype.name, threads, want="w")
    x, y = _whole(x), _whole(y)
    if isinstance(plan, Compound):
        return plan.contract(partial(contract, plan=plan.inner), geometry, x, y, None, out)
    if not _is_channels_first(geometry, "x"):
        x = plan.transposed("x", x)
    if not _is_channels_first(geometry, "y"):
        y = plan.transposed("y", y)
    if out is None:
        out = empty(geometry.shape_of("w"), x.dtype)
    is_usual = geometry.weight_format == "IO*" and not geometry.flip_kernel
    if is_usual and _is_writable(out):
        plan(x, y, out)
    else:
        written = empty(canonical_shape(geometry, "w"), x.dtype)
        plan(x, y, written)
        canonical(np, geometry, "w", out)[...] = written
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
