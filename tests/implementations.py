"""Implementations of `contract`: what each of them computes, and one way to call them all."""

import pickle
from collections.abc import Callable
from dataclasses import replace
from math import prod
from typing import Any, NamedTuple

import array_api_strict
import numpy as np
import pytest
from engine.plans import (
    any_plan,
    channel_lanes_plan,
    cropped_geometries,
    deep_geometries,
    in_blocks_of,
    weight_gradient_plan,
    wide_geometries,
    winograd_geometries,
    winograd_plan,
)
from engine.row_plans import (
    depthwise_geometries,
    depthwise_plan,
    row_gemm_geometries,
    row_gemm_plan,
)
from hypothesis import strategies as st
from hypothesis.errors import UnsatisfiedAssumption

from strategies import ENGINE_TYPES, geometries, keywords_of, operands_of
from tconv import conv, conv_transpose, conv_transpose_vjp, conv_weight_gradient, engine
from tconv.arrays.dtypes import TYPES
from tconv.engine import executor
from tconv.engine.plan.axis_folding import AxisFolding
from tconv.engine.plan.problem import Problem
from tconv.engine.split_types import SPLIT_TYPES
from tconv.engine.target.target import named_target, target
from tconv.engine.weight_gradient.executor import WeightGradientPrimitive
from tconv.geometry.geometry import Geometry
from tconv.nn.conv import Conv, ConvTranspose
from tconv.ops.call_cache import BoundCall
from tconv.ops.dispatch import Call
from tconv.ops.planned_call import PlannedCall
from tconv.portable import blocking, contract

__all__ = ["IMPLEMENTATIONS", "Implementation"]

REAL = ("float32", "float64")
NAMES = tuple(TYPES)
OTHER_CPUS = [
    cpu
    for cpu in ("x86-64", "haswell", "skylake-avx512")
    if (there := named_target(cpu)).runs_here and there.isa != target().isa
]


class Implementation(NamedTuple):
    """One way to compute `contract`.

    ``prepare(draw, geometry, want, dtype)`` returns ``solve(a, b, bias, out)``, which may be one of
    many that `draw` chooses from, or None where it does not serve the geometry.
    """

    prepare: Callable[..., Any]
    wants: str = "yxw"
    dtypes: tuple[str, ...] = ENGINE_TYPES
    geometries: Any = geometries()
    biased: str = "yx"  # for which of them a bias is added
    takes_out: bool = True
    takes_large: bool = True  # geometries of three axes whose sizes are ten times as large
    share: float = 1.0  # of the examples that a profile draws

    @property
    def has_forms(self):
        """Whether it solves for letters of one large form, in float64."""
        return len(self.wants) > 1 and "float64" in self.dtypes and self.takes_large


# ---- portable ------------------------------------------------------------------------------------


def portable(draw, geometry, want, dtype):
    """In blocks of any size, products before windows or the other way round."""
    some_bytes = st.none() | st.sampled_from([1, 100, 1000, 10_000])
    sizes, first = (None, None), None
    if prod(geometry.y_shape) < 5000:  # others take minutes in blocks of a few bytes
        sizes = draw(some_bytes), draw(some_bytes)
        first = draw(st.sampled_from([None, False, True]))

    def solve(a, b, bias, out):
        with pytest.MonkeyPatch.context() as patch:
            for name, size in zip(("_BLOCK_BYTES", "_PACK_BYTES"), sizes, strict=True):
                if size is not None:
                    patch.setattr(blocking, name, size)
            if first is not None:
                for module in (blocking, contract):
                    patch.setattr(module, "windows_come_first", lambda *_: first)
            return contract.contract(geometry, want, a, b, bias=bias, out=out)

    return solve


def portable_elsewhere(draw, geometry, want, dtype):
    """On arrays that know the array API and nothing else."""

    def solve(a, b, bias, out):
        arrays = [None if v is None else array_api_strict.asarray(v) for v in (a, b, bias)]
        result = contract.contract(geometry, want, *arrays[:2], bias=arrays[2])
        assert isinstance(result, type(array_api_strict.asarray(0)))
        return np.asarray(result)

    return solve


# ---- the engine ----------------------------------------------------------------------------------


def by(primitive, geometry, want):
    """What contracts with a primitive."""

    def solve(a, b, bias, out):
        return engine.contract(geometry, want, a, b, bias=bias, out=out, plan=primitive)

    return solve


def served(geometry, want, dtype):
    return engine.serves(geometry, want, dtype)


def native(draw, geometry, want, dtype):
    """The plan that the engine chooses."""
    if not served(geometry, want, dtype):
        return None
    return by(engine.prepare(geometry, dtype, draw(st.integers(1, 3)), want=want), geometry, want)


def direct(draw, geometry, want, dtype):
    """Without Winograd."""
    if not served(geometry, want, dtype):
        return None
    return by(engine.prepare(geometry, dtype, None, "direct", want), geometry, want)


def measured(draw, geometry, want, dtype):
    """The quickest of a few plans."""
    if not served(geometry, want, dtype):
        return None
    return by(engine.prepare(geometry, dtype, None, "measure", want), geometry, want)


def any_native(draw, geometry, want, dtype, here=None):
    """Any plan, on any number of threads."""
    if not served(geometry, want, dtype):
        return None
    here, threads = here or target(), draw(st.integers(1, 3))
    problem = Problem(engine._canonical(geometry), want)
    plan = any_plan(draw, problem, dtype, here, threads)
    return by(executor.Primitive(problem, dtype, here, plan), geometry, want)


def any_native_of(cpu):
    """What prepares any plan for another processor whose code runs here."""

    def prepare(draw, geometry, want, dtype):
        return any_native(draw, geometry, want, dtype, replace(named_target(cpu), threads=3))

    return prepare


def channel_lanes(draw, geometry, want, dtype):
    """Any plan whose lanes are output channels."""
    problem = Problem(engine._canonical(geometry), want)
    plan = channel_lanes_plan(draw, problem, dtype)
    return by(executor.Primitive(problem, dtype, target(), plan), geometry, want)


def by_rows(plan_of):
    """What prepares any plan of an algorithm whose lanes are cells of a row."""

    def prepare(draw, geometry, want, dtype):
        problem = Problem(engine._canonical(geometry), want)
        plan = plan_of(draw, problem, dtype)
        if plan is None:
            return None
        return by(executor.Primitive(problem, dtype, target(), plan), geometry, want)

    return prepare


def winograd(draw, geometry, want, dtype):
    """Any Winograd plan. Halves of small integers are exact."""
    problem = Problem(engine._canonical(geometry), want)
    try:
        plan = winograd_plan(draw, problem)
    except UnsatisfiedAssumption:
        return None
    return by(executor.Primitive(problem, dtype, target(), plan), geometry, want)


def any_weight_gradient(draw, geometry, want, dtype):
    """Any plan for w, on any number of threads."""
    canonical, threads = engine._canonical(geometry), draw(st.integers(1, 3))
    plan = weight_gradient_plan(draw, canonical, dtype)
    problem = Problem(canonical, "x")
    primitive = WeightGradientPrimitive(problem, dtype, target(), plan, threads)
    return by(primitive, geometry, want)


def high_rank(draw, geometry, want, dtype):
    """More than three axes, in blocks of any size, also where that is wasteful."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(AxisFolding, "is_wasteful", False)
        engine.serves.cache_clear()
        is_served = served(geometry, want, dtype)
        if is_served and dtype in SPLIT_TYPES:
            found = by(engine.prepare(geometry, dtype, None, want=want), geometry, want)
    engine.serves.cache_clear()
    if not is_served or dtype in SPLIT_TYPES:
        return found if is_served else None
    size = draw(st.sampled_from([0, 2**10, 2**14, 2**23]))
    return by(in_blocks_of(size, geometry, dtype, want), geometry, want)


def native_stub(draw, geometry, want, dtype):
    """A plan for one thread, called by native code or not; code calls from the second time on."""
    if not served(geometry, want, dtype):
        return None
    made, is_small = engine.prepare(geometry, dtype, 1, want=want), draw(st.booleans())
    solve = by(made, geometry, want)

    def twice(*operands):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(made._job, "_is_small", is_small)
            solve(*operands)
            return solve(*operands)

    return twice


def from_disk(draw, geometry, want, dtype):
    """A lowered plan that is read again."""
    if not served(geometry, want, dtype):
        return None
    problem = Problem(engine._canonical(geometry), want)
    plan = any_plan(draw, problem, dtype)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(executor, "_families", {})
        executor.Primitive(problem, dtype, target(), plan)
        patch.setattr(executor, "_families", {})
        return by(executor.Primitive(problem, dtype, target(), plan), geometry, want)


# ---- the ways in ---------------------------------------------------------------------------------


def function_of(geometry, want):
    """The public function for a letter, as ``solve(a, b, bias, out)``."""
    keywords = keywords_of(geometry)
    if want == "y":
        return lambda x, w, bias, out: conv_transpose(x, w, bias, out=out, **keywords)
    if want == "x":
        options = keywords | {"output_padding": 0, "input_size": geometry.input_size}
        return lambda y, w, bias, out: conv(y, w, bias, out=out, **options)
    size = geometry.kernel_size
    return lambda x, y, _, out: conv_weight_gradient(x, y, size, out=out, **keywords)


def functions(draw, geometry, want, dtype):
    """The public functions, also when their call is cached."""
    return repeated(draw, function_of(geometry, want))


def bound_calls(draw, geometry, want, dtype):
    """The calls that the functions cache."""
    bound = BoundCall(geometry, np.dtype(dtype), Call("conv_transpose"))
    return repeated(draw, lambda a, b, bias, out: bound.solve(want, a, b, bias, out))


def repeated(draw, solve):
    """The same after a few calls with other numbers."""
    calls = draw(st.integers(0, 2))

    def again(a, b, bias, out):
        for n in range(calls):
            solve(np.full_like(a, n), np.full_like(b, 1), None, None)
        return solve(a, b, bias, out)

    return again


def planned_calls(draw, geometry, want, dtype):
    """A plan for one call, also after it was pickled."""
    call = PlannedCall(geometry, dtype, draw(st.sampled_from([None, 1, 3])), want=want)
    call = pickle.loads(pickle.dumps(call)) if draw(st.booleans()) else call
    return lambda a, b, bias, out: call(a, call.pack(b), bias, out)


def pullbacks(draw, geometry, want, dtype):
    """Forward and backward of the transposed convolution, from the first time on or later."""
    keywords = keywords_of(geometry)

    def solve(a, b, bias, out):
        # What is not given does not count.
        given = dict(zip(operands_of(want, "x", "w", "y"), (a, b), strict=True))
        x, w, y = (
            given.get(v, np.ones(geometry.shape_of(v), a.dtype).astype(a.dtype)) for v in "xwy"
        )
        result, pull_back = conv_transpose_vjp(x, w, bias, **keywords)
        return result if want == "y" else pull_back(y)["xw".index(want)]

    return repeated(draw, solve)


def layer(kind, biased):
    """What prepares a layer of this kind, forward and backward; `biased` is what forward gives."""

    def prepare(draw, geometry, want, dtype):
        options = keywords_of(geometry) | {"dtype": dtype, "rng": 0}
        del options["weight_format"], options["flip_kernel"]
        channels = geometry.in_channels, geometry.out_channels
        if kind is Conv:
            del options["output_padding"]
            channels = channels[::-1]
            if has_other_input_size(geometry):
                return None
        given, made = ("x", "y") if kind is ConvTranspose else ("y", "x")

        def solve(a, b, bias, out):
            made_of = dict(zip(operands_of(want, "x", "w", "y"), (a, b), strict=True))
            each = kind(*channels, geometry.kernel_size, bias=bias is not None, **options)
            if bias is not None:
                each.bias.value = bias
            if "w" in made_of:
                each.weight.value = made_of["w"]
            found = each(made_of.get(given, np.zeros(geometry.shape_of(given), a.dtype)))
            if want != made:
                found = each.backward(made_of[made])
            return each.weight.gradient if want == "w" else found

        return solve

    return prepare


def has_other_input_size(geometry):
    """Whether a convolution of y has another size than x: one with more dilation than stride."""
    y_shape = geometry.shape_of("y")
    keywords = keywords_of(geometry) | {"output_padding": 0}
    return Geometry.of_conv(y_shape, geometry.weight_shape, **keywords).x_shape != geometry.x_shape


# ---- all of them ---------------------------------------------------------------------------------

PLAIN = geometries(ranks=(1, 2, 3), batches=(1, 2, 3), plain=True)
LAYER_GEOMETRIES = geometries(batches=(1, 2, 3)).map(
    lambda geometry: replace(geometry, weight_format="IO*", flip_kernel=False)
)
ALL_NATIVE = (*ENGINE_TYPES, *sorted(SPLIT_TYPES))

IMPLEMENTATIONS = {
    "portable": Implementation(portable, dtypes=NAMES, share=3),
    "portable, array API alone": Implementation(
        portable_elsewhere, dtypes=("float64",), takes_out=False, share=0.6
    ),
    "functions": Implementation(functions, dtypes=NAMES, share=2),
    "bound calls": Implementation(bound_calls, share=0.8),
    "planned calls": Implementation(planned_calls, wants="yx", dtypes=NAMES, share=2),
    "pullbacks": Implementation(pullbacks, dtypes=REAL, biased="y", takes_out=False, share=0.8),
    "transposed layers": Implementation(
        layer(ConvTranspose, "y"),
        dtypes=ENGINE_TYPES,
        geometries=LAYER_GEOMETRIES,
        biased="y",
        takes_out=False,
        share=0.8,
    ),
    "layers": Implementation(
        layer(Conv, "x"),
        geometries=LAYER_GEOMETRIES,
        biased="x",
        takes_out=False,
        share=0.8,
    ),
}
NATIVE = {
    "engine": Implementation(
        native, dtypes=ALL_NATIVE, geometries=geometries() | wide_geometries(), share=4
    ),
    "engine, direct": Implementation(direct, wants="yx", geometries=wide_geometries(), share=0.8),
    "engine, measured": Implementation(measured, wants="yx", dtypes=REAL, share=0.2),
    "any plan": Implementation(
        any_native, wants="yx", geometries=geometries(ranks=(1, 2, 3)) | deep_geometries(), share=3
    ),
    "channel lanes": Implementation(
        channel_lanes, wants="yx", dtypes=REAL, geometries=PLAIN | wide_geometries(), share=3
    ),
    **{
        name: Implementation(
            by_rows(plan_of),
            wants="yx",
            dtypes=REAL,
            geometries=of_rows,
            takes_large=False,
            share=0.8,
        )
        for name, plan_of, of_rows in (
            ("depthwise", depthwise_plan, depthwise_geometries()),
            ("row GEMM", row_gemm_plan, row_gemm_geometries()),
        )
        if target().isa.has_masks
    },
    "Winograd": Implementation(
        winograd,
        wants="yx",
        dtypes=REAL,
        geometries=winograd_geometries(),
        takes_large=False,
        share=3,
    ),
    "any weight gradient": Implementation(
        any_weight_gradient,
        wants="w",
        dtypes=REAL,
        geometries=PLAIN | wide_geometries() | cropped_geometries(),
        share=4,
    ),
    "high rank": Implementation(
        high_rank,
        dtypes=ALL_NATIVE,
        geometries=geometries(ranks=(4, 5), batches=(1, 2, 3)),
        takes_large=False,
        share=3,
    ),
    "native stub": Implementation(
        native_stub, dtypes=REAL, geometries=geometries(ranks=(1, 2, 3), batches=(1, 2)), share=0.8
    ),
    "lowered plans from disk": Implementation(
        from_disk, wants="yx", geometries=geometries(ranks=(1, 2, 3), batches=(1, 2)), share=0.3
    ),
    **{
        f"any plan, {cpu}": Implementation(
            any_native_of(cpu), wants="yx", geometries=geometries(ranks=(1, 2, 3)), share=0.5
        )
        for cpu in OTHER_CPUS
    },
}
if target().uses_engine:
    IMPLEMENTATIONS |= NATIVE
