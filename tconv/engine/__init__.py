"""The engine's door: NumPy arrays contracted by machine code generated for this processor.

Outside this folder only `tconv.engine` is imported. Names that a call does not need are loaded when
they are first asked for.
"""

from dataclasses import replace
from functools import cache, lru_cache, partial
from importlib import import_module
from math import prod
from typing import TYPE_CHECKING, Any, TypeAlias

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.activations import Activation
from tconv.arrays.canonical import canonical, canonical_shape
from tconv.arrays.dtypes import as_dtype
from tconv.engine.plan.axis_folding import AxisFolding
from tconv.engine.plan.plan import CYCLES_PER_US
from tconv.engine.plan.problem import Problem
from tconv.engine.plan_cache import cached_plan
from tconv.engine.split_types import (
    SPLIT_TYPES,
    PackedSplit,
    SplitPrimitive,
    split_primitive,
    split_problem,
)
from tconv.engine.target.target import Target
from tconv.engine.target.target import target as host_target
from tconv.errors import DTypeError
from tconv.geometry.geometry import OPERANDS, Geometry, Letter
from tconv.system.allocator import empty
from tconv.system.fork_lock import importing

__all__ = [
    "BLOCK",
    "Arenas",
    "CYCLES_PER_US",
    "TYPES",
    "Expression",
    "LoopShape",
    "NativeStep",
    "OpenMPBackend",
    "Place",
    "ProgramKernels",
    "SequenceRunner",
    "Target",
    "cache_info",
    "clear_cache",
    "contract",
    "contraction_step",
    "engine_state",
    "expected_us",
    "hash_memory",
    "hashes_natively",
    "host_target",
    "merge_axes",
    "prepare",
    "serves",
    "use_backend",
    "wait_for_optimised",
    "workspace_bytes",
]

if TYPE_CHECKING:
    from tconv.engine.compile.disk_cache import cache_info, clear_cache
    from tconv.engine.compile.engine_state import engine_state
    from tconv.engine.compile.tiers import wait_for_optimised
    from tconv.engine.content_hash import content_hash as hash_memory
    from tconv.engine.content_hash import is_native as hashes_natively
    from tconv.engine.contraction_binding import contraction_step
    from tconv.engine.executor import Primitive
    from tconv.engine.high_rank import HighRankPrimitive, HighRankWeightGradient
    from tconv.engine.program.kernels import ProgramKernels
    from tconv.engine.program.loops import Expression, LoopShape, merge_axes
    from tconv.engine.program.sequence import BLOCK, Arenas, NativeStep, Place, SequenceRunner
    from tconv.engine.runtime.job import use_backend
    from tconv.engine.runtime.openmp import OpenMPBackend
    from tconv.engine.weight_gradient.executor import WeightGradientPrimitive

    _Plan: TypeAlias = (
        Primitive | HighRankPrimitive | WeightGradientPrimitive | HighRankWeightGradient
    )
else:
    # The name at the door: the module, and its name there.
    _LATE = {
        "Arenas": ("program.sequence", "Arenas"),
        "BLOCK": ("program.sequence", "BLOCK"),
        "Expression": ("program.loops", "Expression"),
        "LoopShape": ("program.loops", "LoopShape"),
        "NativeStep": ("program.sequence", "NativeStep"),
        "Place": ("program.sequence", "Place"),
        "ProgramKernels": ("program.kernels", "ProgramKernels"),
        "SequenceRunner": ("program.sequence", "SequenceRunner"),
        "contraction_step": ("contraction_binding", "contraction_step"),
        "merge_axes": ("program.loops", "merge_axes"),
        "OpenMPBackend": ("runtime.openmp", "OpenMPBackend"),
        "cache_info": ("compile.disk_cache", "cache_info"),
        "clear_cache": ("compile.disk_cache", "clear_cache"),
        "engine_state": ("compile.engine_state", "engine_state"),
        "hash_memory": ("content_hash", "content_hash"),
        "hashes_natively": ("content_hash", "is_native"),
        "use_backend": ("runtime.job", "use_backend"),
        "wait_for_optimised": ("compile.tiers", "wait_for_optimised"),
    }

    def __getattr__(name: str) -> Any:
        if name not in _LATE:
            raise AttributeError(f"module 'tconv.engine' has no attribute {name!r}")
        module, its_name = _LATE[name]
        with importing:
            value = getattr(import_module(f"tconv.engine.{module}"), its_name)
        globals()[name] = value
        return value


_HALVES = ("float16", "bfloat16")
_TYPES = (*_HALVES, "float32", "float64")
TYPES = SPLIT_TYPES.union(_TYPES)
"""Names of the types that the engine serves some contractions of."""

_MOST_AXES = 3
_MOST_PHASES = 2**14  # and taps: with more, tables would be larger than the operands
_MOST_ELEMENTS = 2**31 - 1  # of an operand: tables hold 32 bits
_SOME_CHANNELS, _THIN = 16, 8  # so many times more input channels than products for each
_MANY_CHANNELS, _THIN_OF_MANY = 128, 6


@lru_cache(maxsize=1024)
def serves(
    geometry: Geometry,
    want: Letter,
    dtype: str,
    threads: int | None = None,
    kept: bool = True,
) -> bool:
    """Whether the engine computes such a contraction; else the portable path does.

    The plan is chosen for so many threads, and a weight that is `kept` or not; this is cached.

    >>> serves(Geometry.of((1, 1, 4), (1, 1, 3)), "y", "int64")
    False
    """
    if dtype in SPLIT_TYPES:
        return _serves_split(geometry, want, dtype, threads, kept)
    problem = Problem(_canonical(geometry), want, kept=kept)
    return _may_serve(geometry, want, dtype) and _has_plan(problem, dtype, threads)


def _may_serve(geometry: Geometry, want: Letter, dtype: str) -> bool:
    """Whether the engine computes such a contraction if it has a plan."""
    axes = geometry.axes
    elements = (prod(geometry.x_shape), prod(geometry.weight_shape), prod(geometry.y_shape))
    return (
        dtype in _TYPES
        and geometry.batch > 0
        and 0 not in geometry.input_size
        and prod(min(a.stride, a.output) if a.input > 1 else a.output for a in axes) <= _MOST_PHASES
        and prod(geometry.kernel_size) <= _MOST_PHASES
        and max(elements[: 2 if want == "y" else 3]) <= _MOST_ELEMENTS
        and max(max(a.full, a.output, a.reach, abs(a.begin)) for a in axes) <= _MOST_ELEMENTS
        and host_target().uses_engine
        and not (want == "w" and dtype in _HALVES)
        and not _is_thin(geometry, want, dtype)
    )


def _serves_split(
    geometry: Geometry, want: Letter, dtype: str, threads: int | None, kept: bool
) -> bool:
    """Whether the engine contracts the parts of a split type.

    To split x moves it as a transpose does, so the engine serves it where it serves channels last.
    """
    found = split_problem(geometry, want, dtype)
    if found is None:
        return False
    inner, real = found
    return serves(replace(inner, data_format="channels_last"), want, real, threads, kept)


def _is_thin(geometry: Geometry, want: Letter, dtype: str) -> bool:
    """Whether x is channels last and has many more channels than products for each of its cells.

    The portable path multiplies such an x in place in less time than the engine transposes it:
    64 to 1 channel, 512 x 512, 1 x 1 takes 2.8 ms, and 9 the other way (Xeon, 2 cores). The size
    of the image must not count, for the two paths sum in different orders. The portable path would
    have to widen 16-bit floats first, which takes longer.
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
        return _serves_high_rank(problem, dtype, threads)
    here = host_target()
    if problem.want == "w":
        with importing:  # few need it
            from tconv.engine.weight_gradient.plan import choose_gradient_plan

        return choose_gradient_plan(Problem(problem.geometry, "x"), dtype, here) is not None
    plan = cached_plan(problem, dtype, here, threads or here.threads)  # the next call needs it
    if plan is not None and plan.cycles * plan.threads <= problem.geometry.flops:
        return True  # one thread takes no more than that, and that is allowed
    return cached_plan(problem, dtype, here, 1) is not None


def _serves_high_rank(problem: Problem, dtype: str, threads: int | None) -> bool:
    """Whether the calls over three axes are served, and no more work than the portable path."""
    geometry, want, kept = problem.geometry, problem.want, problem.kept
    if want == "y" and AxisFolding.is_too_large(geometry):
        return False
    folding = AxisFolding.of(geometry, as_dtype(np, dtype).itemsize, "y" if want == "y" else "x")
    inner = map(folding.inner, folding.all_taps)
    return not folding.is_wasteful and all(
        serves(each, want, dtype, threads, kept) for each in inner
    )


def prepare(
    geometry: Geometry,
    dtype: str,
    threads: int | None = None,
    method: str = "auto",
    want: Letter = "y",
    activation: Activation | None = None,
    residual: bool = False,
    kept: bool = True,
    many_sizes: bool = False,
) -> "_Plan | SplitPrimitive":
    """Return the primitive for a geometry; method "measure" tries several plans.

    One with a `residual` has up to three axes and a type that is computed as it is stored. If the
    weight is not `kept`, it is packed for each call. `many_sizes` is for programs that meet many
    sizes, such as lengths of sound: plans are chosen for wide bands of them.
    """
    geometry, is_measured = _canonical(geometry), method == "measure"
    if dtype in SPLIT_TYPES:
        found = split_problem(geometry, want, dtype)
        assert found is not None, "the engine does not serve this geometry"
        # For integers only the products themselves are sure to be exact.
        without_winograd = method == "direct" or np.dtype(dtype).kind in "iu"
        problem = Problem(found[0], want, without_winograd, kept=kept)
        inner = _create(problem, found[1], threads, is_measured)
        return split_primitive(geometry, want, dtype, inner)
    is_direct = method == "direct"
    problem = Problem(geometry, want, is_direct, activation, residual, kept, many_sizes)
    return _create(problem, dtype, threads, is_measured)


def _create(problem: Problem, dtype: str, threads: int | None, is_measured: bool) -> "_Plan":
    here = host_target()
    make = _creator(problem.want == "w", problem.geometry.rank > _MOST_AXES, is_measured)
    if problem.want == "w":  # y is read as for x
        problem = Problem(problem.geometry, "x")
    found: _Plan = make(problem, dtype, here, here.threads if threads is None else threads)
    return found


@cache
def _creator(is_for_w: bool, is_high_rank: bool, is_measured: bool) -> Any:
    """Import what creates such primitives."""
    with importing:
        if is_for_w:
            from tconv.engine.weight_gradient.executor import create_weight_gradient

            make: Any = create_weight_gradient
        else:
            from tconv.engine.executor import create_fastest, create_primitive

            make = create_fastest if is_measured else create_primitive
        if is_high_rank:
            from tconv.engine.high_rank import create_high_rank, create_high_rank_weight_gradient

            return partial(
                create_high_rank_weight_gradient if is_for_w else create_high_rank, make=make
            )
    return make


def _canonical(geometry: Geometry) -> Geometry:
    """The same sizes in the layout that plans are made for."""
    if geometry.data_format != "channels_first" or not geometry.batched:
        geometry = replace(geometry, data_format="channels_first", batched=True)
    if geometry.weight_format != "IO*" or geometry.flip_kernel:
        geometry = replace(geometry, weight_format="IO*", flip_kernel=False)
    return geometry


def expected_us(
    geometry: Geometry,
    want: Letter,
    dtype: str,
    threads: int | None = None,
    activation: Activation | None = None,
    residual: bool = False,
    many_sizes: bool = False,
    kept: bool = True,
    method: str = "auto",
) -> float | None:
    """Return the microseconds that a call should take, by the cost model.

    None where the engine does not serve it. Nothing is compiled for that. What follows the sums
    costs nothing; with it the plan is found on disk that a primitive with it has left there.
    """
    if geometry.rank > _MOST_AXES or not _may_serve(geometry, want, dtype):
        return None
    is_direct = method == "direct"
    problem = Problem(_canonical(geometry), want, is_direct, activation, residual, kept, many_sizes)
    if not _has_plan(problem, dtype, threads):
        return None
    here = host_target()
    plan = cached_plan(problem, dtype, here, threads or here.threads)
    return None if plan is None else plan.cycles / CYCLES_PER_US


def workspace_bytes(geometry: Geometry, plan: "_Plan | SplitPrimitive") -> int:
    """Bytes that `contract` holds besides operands and result.

    These are scratch, packed weights, x and y channels first if the caller has them last, and the
    parts of split types.
    """
    if isinstance(plan, SplitPrimitive):
        return plan.copied_bytes + workspace_bytes(plan.inner_geometry(geometry), plan.inner)
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
    plan: "_Plan | SplitPrimitive | None" = None,
) -> NDArray[Any]:
    """Solve F(x, w, y) for y, x or w, and apply the activation of the plan.

    The signature is that of `portable.contract`. `plan` is what `prepare` returned, if the caller
    has it. b may also hold ``values`` that its ``plan``, a `Primitive` for this problem and type,
    packed.

    >>> geometry = Geometry.of((1, 1, 2), (1, 1, 3), stride=2)
    >>> contract(geometry, "y", np.ones((1, 1, 2)), np.ones((1, 1, 3)))
    array([[[1., 1., 2., 1., 1.]]])
    >>> contract(geometry, "x", np.ones((1, 1, 5)), np.ones((1, 1, 3)))
    array([[[3., 3.]]])
    """
    if want == "w":
        return _weight_gradient(geometry, a, b, out, threads, plan)
    if isinstance(b, np.ndarray):
        made: Any = plan or prepare(geometry, a.dtype.name, threads, method, want, kept=False)
        packed = made.pack(_canonical_weight(geometry, b))
    else:
        made, packed = b.plan, b.values
        if plan is not None and plan is not made:
            _check_packed_for(plan, made)
    if isinstance(made, SplitPrimitive):
        b = PackedSplit(made.inner, packed)
        return made.contract(contract, geometry, _contiguous(a), b, bias, out)
    read, (letter, _) = _contiguous(a), OPERANDS[want]
    if not _is_channels_first(geometry, letter):
        read = made.transposed(letter, read)
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
    """Refuse weights that a plan for another problem packed."""
    one, other = (
        (each.geometry, each.want, each.dtype)
        if isinstance(each, SplitPrimitive)
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
    plan: "Primitive | HighRankPrimitive",
) -> NDArray[Any]:
    """Contract where the result is channels last; the array that is read is channels first."""
    written = empty(canonical_shape(geometry, want), read.dtype)
    plan(read, packed, plan.pack_bias(bias), written)
    if out is None:
        return plan.transposed(want, written).reshape(geometry.shape_of(want))
    if _is_writable(out):
        return plan.transposed(want, written, out)
    canonical(np, geometry, want, out)[...] = written
    return out


def _weight_gradient(
    geometry: Geometry,
    x: NDArray[Any],
    y: NDArray[Any],
    out: NDArray[Any] | None,
    threads: int | None,
    plan: Any,
) -> NDArray[Any]:
    """Solve for w, as `contract` says."""
    plan = plan or prepare(geometry, x.dtype.name, threads, want="w")
    x, y = _contiguous(x), _contiguous(y)
    if isinstance(plan, SplitPrimitive):
        return plan.contract(partial(contract, plan=plan.inner), geometry, x, y, None, out)
    if not _is_channels_first(geometry, "x"):
        x = plan.transposed("x", x)
    if not _is_channels_first(geometry, "y"):
        y = plan.transposed("y", y)
    if out is None:
        out = empty(geometry.shape_of("w"), x.dtype)
    is_canonical = geometry.weight_format == "IO*" and not geometry.flip_kernel
    if is_canonical and _is_writable(out):
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
    """Whether x or y is channels first in memory, as it also is with one channel or one cell."""
    if geometry.data_format == "channels_first":
        return True
    channels = geometry.in_channels if letter == "x" else geometry.out_channels
    return channels == 1 or prod(geometry.shape_of(letter)) == geometry.batch * channels


def _contiguous(array: NDArray[Any]) -> NDArray[Any]:
    """The array, or a C-contiguous and aligned copy."""
    flags = array.flags
    return array if flags.c_contiguous and flags.aligned else np.array(array, order="C")


def _canonical_weight(geometry: Geometry, weight: NDArray[Any]) -> NDArray[Any]:
    """The weight in the order that plans pack: canonical and contiguous."""
    if geometry.weight_format != "IO*" or geometry.flip_kernel:
        weight = canonical(np, geometry, "w", weight)
    return _contiguous(weight)
