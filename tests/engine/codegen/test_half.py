"""Halves are widened exactly and rounded once, for every one of them, on every processor's code."""

import ctypes
from dataclasses import replace
from functools import partial
from itertools import product

import ml_dtypes
import numpy as np
import pytest
from engine.guarded import guarded
from hypothesis import assume, given
from hypothesis import strategies as st

from strategies import draws, geometries
from tconv import definition, engine
from tconv.arrays.activations import as_activation
from tconv.arrays.dtypes import as_dtype
from tconv.engine import executor
from tconv.engine.choose import best_plans
from tconv.engine.codegen.code import ElementType, begin
from tconv.engine.codegen.half import load_cell, load_cells, narrowed, store_cell, store_cells
from tconv.engine.codegen.llvm import I64, PTR
from tconv.engine.compile import tiers
from tconv.engine.compile.jit import assembly, load
from tconv.engine.kernels.limits import MOST_INTERLEAVED
from tconv.engine.kernels.pack_input import pack_rows
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import named_target, target
from tconv.geometry.geometry import Geometry

TARGETS = ["haswell", "skylake-avx512", "x86-64", "neoverse-v1", "apple-m1"]
HERE = [target(), *(here for here in map(named_target, TARGETS) if here.runs_here)]
HALVES = {"float16": np.float16, "bfloat16": ml_dtypes.bfloat16}
WANTS = st.sampled_from("yx")
ACTIVATIONS = [None, "relu", ("leaky_relu", 0.1), "tanh", "sigmoid", "gelu", ("snake", 0.3)]
MANY = 2**21
each_half = pytest.mark.parametrize("half", HALVES)
# Whether an instruction converts float16, where there is one, or bit operations.
each_code = pytest.mark.parametrize(
    ("half", "here", "may_convert"),
    [
        (half, here, may_convert)
        for here, half, may_convert in product(HERE, HALVES, (True, False))
        if not may_convert or (half == "float16" and here.converts_float16)
    ],
    ids=lambda value: getattr(value, "cpu", f"{value}"),
)


# ---- kernels of these tests ----------------------------------------------------------------------


def number_of(half, here, may_convert=True):
    number = ElementType(half, here)
    number.converts_float16 = number.converts_float16 and may_convert
    return number


def emit_widen(module, name, element):
    """to[:count] = x[:count], in vectors and then one by one"""
    code, a = begin(module, name, {"x": PTR, "to": PTR, "count": I64}, element)
    whole = code.mul(code.div(a["count"], element.lanes), element.lanes)
    with code.loop(whole, step=element.lanes) as n:
        code.store_vector(load_cells(code, a["x"], n), a["to"], n)
    with code.loop(a["count"], whole) as n:
        code.store(load_cell(code, a["x"], n), a["to"], n)
    code.end()


def emit_narrow(module, name, element):
    """to[:count] = x[:count], rounded"""
    code, a = begin(module, name, {"x": PTR, "to": PTR, "count": I64}, element)
    whole = code.mul(code.div(a["count"], element.lanes), element.lanes)
    with code.loop(whole, step=element.lanes) as n:
        store_cells(code, narrowed(code, code.load_vector(a["x"], n)), a["to"], n)
    with code.loop(a["count"], whole) as n:
        store_cell(code, code.load(a["x"], n), a["to"], n)
    code.end()


def converted(emit, x, dtype, half, here, may_convert):
    """What a kernel makes of an array, in vectors and, in runs shorter than these, one by one."""
    number, found = number_of(half, here, may_convert), []
    name = f"{emit.__name__}_{half}_{may_convert}"
    address = load(name, partial(emit, name=name, element=number), here)
    kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_void_p, ctypes.c_int64)(address)
    for run in (x.size, number.lanes - 1):
        to = np.zeros(x.shape, dtype)
        for n in range(0, x.size if run == x.size else min(x.size, 2**16), run):
            size = min(run, x.size - n)
            kernel(x.ctypes.data + n * x.itemsize, to.ctypes.data + n * to.itemsize, size)
        found.append(to)
    return found


def is_same(found, expected):
    """Whether all bits agree; of a NaN only that it is one."""
    bits = f"u{expected.itemsize}"
    nan = np.isnan(expected)
    assert np.array_equal(np.isnan(found), nan)
    return np.array_equal(found.view(bits)[~nan], expected.view(bits)[~nan])


def rounded(x, half):
    """By NumPy, or by ml_dtypes."""
    with np.errstate(over="ignore", under="ignore", invalid="ignore"):
        return x.astype(HALVES[half])


def check_narrowing(x, half, here, may_convert):
    expected = rounded(x, half)
    whole, part = converted(emit_narrow, x, HALVES[half], half, here, may_convert)
    assert is_same(whole, expected)
    some = min(x.size, 2**16) // 64 * 64 - 64
    assert is_same(part[:some], expected[:some])


# ---- one number ----------------------------------------------------------------------------------


@each_code
def test_each_of_them_is_widened_exactly(half, here, may_convert):
    x = np.arange(2**16, dtype=np.uint16).view(HALVES[half])
    with np.errstate(invalid="ignore"):
        expected = x.astype(np.float32)
    for found in converted(emit_widen, x, np.float32, half, here, may_convert):
        assert is_same(found, expected)


@each_code
def test_they_and_what_lies_between_them_are_rounded_to_the_nearest(half, here, may_convert):
    """All of them, what is half way to the next, and the float32 numbers about both."""
    below = np.arange(2**15, dtype=np.uint16)  # of one sign, up to infinity and NaN
    low, high = ((below + n).astype(np.uint16).view(HALVES[half]) for n in (0, 1))
    with np.errstate(invalid="ignore", over="ignore"):
        low, high = low.astype(np.float32), high.astype(np.float32)
    finite = np.isfinite(low)
    low, high = low[finite], high[finite]
    step = np.where(np.isfinite(high), high - low, 0)
    step[-1] = step[-2]  # to infinity it is as far as the step before
    middle = (low.astype(np.float64) + step.astype(np.float64) / 2).astype(np.float32)
    for exact in (low, middle):
        for n in range(-2, 3):
            bits = np.maximum(exact.view(np.int32) + n, 0)
            for sign in (0, -(2**31)):
                x = (bits | np.int32(sign)).view(np.float32)
                check_narrowing(x, half, here, may_convert)


@each_code
def test_any_float32_is_rounded_to_the_nearest(half, here, may_convert):
    bits = np.random.default_rng(0).integers(0, 2**32, MANY, np.uint32)
    check_narrowing(bits.view(np.float32), half, here, may_convert)


@each_code
def test_no_nan_becomes_an_infinity(half, here, may_convert):
    payloads = np.array([1, 2**12, 2**13 - 1, 2**15, 2**16 - 1, 2**22, 2**23 - 1], np.uint32)
    x = np.concatenate([0x7F80_0000 | payloads, 0xFF80_0000 | payloads]).view(np.float32)
    x = np.resize(x, 192)
    check_narrowing(x, half, here, may_convert)
    assert np.isnan(rounded(x, half)).all()


@pytest.mark.parametrize("cpu", TARGETS)
@each_half
def test_the_code_is_complete_and_uses_the_instruction_for_it(cpu, half):
    here = named_target(cpu)
    for emit, instructions in (
        (emit_widen, {"vcvtph2ps", "fcvtl"}),
        (emit_narrow, {"vcvtps2ph", "fcvtn"}),
    ):
        for may_convert in (True, False):
            number = number_of(half, here, may_convert)
            text = assembly("kernel", partial(emit, name="kernel", element=number), here)
            words = {line.split()[0] for line in text.splitlines() if line.startswith("\t")}
            assert not {word for word in words if word in ("bl", "blr") or word.startswith("call")}
            converts = half == "float16" and may_convert and cpu != "x86-64"
            assert bool(words & instructions) == converts


def test_the_instruction_is_used_only_where_it_is_known_to_be_there():
    haswell = replace(named_target("haswell"), features="")
    assert haswell.converts_float16
    assert not replace(haswell, features="-avx,-f16c").converts_float16
    assert replace(haswell, cpu="generic", features="+avx2,+f16c").converts_float16
    assert not replace(haswell, cpu="generic", features="+avx2,+fma").converts_float16


# ---- rows of cells -------------------------------------------------------------------------------


@pytest.mark.parametrize("step", range(1, 11))
@each_code
def test_rows_are_widened_as_they_are_packed(half, here, may_convert, step):
    """Cells a step apart, of memory in which no cell follows the last one that is read."""
    number, built_in = number_of(half, here, may_convert), min(step, MOST_INTERLEAVED + 1)
    name = f"pack_rows_{built_in}_{half}_{may_convert}"
    emit = partial(pack_rows(built_in), name=name, element=number)
    kernel = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, *[ctypes.c_int64] * 8)(
        load(name, emit, here)
    )
    for count in (1, number.lanes - 1, number.lanes, number.lanes + 1, 5 * number.lanes - 1):
        x = guarded(reals((step * (count - 1) + 1,), HALVES[half], count), at_end=True)
        to = np.full(count + 8 + 2 * number.lanes, np.nan, np.float32)
        kernel(to.ctypes.data, x.ctypes.data, 1, 1, 0, 3, count, 4, 0, step)
        expected = np.concatenate([np.zeros(4), x[::step].astype(np.float32), np.zeros(4)])
        assert np.array_equal(to[: expected.size], expected)


# ---- sums ----------------------------------------------------------------------------------------


def reals(shape, dtype, seed):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def operands(geometry, want, dtype):
    """What is read, the weight and a bias."""
    read, channels = ("x", geometry.out_channels) if want == "y" else ("y", geometry.in_channels)
    shapes = geometry.shape_of(read), geometry.weight_shape, (channels,)
    return [reals(shape, dtype, n) for n, shape in enumerate(shapes)]


@draws(2)
@given(
    geometries(),
    WANTS,
    st.sampled_from(sorted(HALVES)),
    st.booleans(),
    st.sampled_from(ACTIVATIONS),
)
def test_sums_are_those_of_float32_rounded_once(geometry, want, half, has_bias, argument):
    """And so is what follows them: it is computed of sums that are not rounded yet."""
    assume(engine.serves(geometry, want, half) and engine.serves(geometry, want, "float32"))
    dtype, activation = as_dtype(np, half), as_activation(argument)
    read, w, bias = operands(geometry, want, dtype)
    bias = bias if has_bias else None
    chosen = engine.prepare(geometry, half, want=want, activation=activation)
    found = engine.contract(geometry, want, read, w, bias=bias, plan=chosen)
    chosen = engine.prepare(geometry, "float32", None, "direct", want, activation)
    wide = [None if v is None else v.astype(np.float32) for v in (read, w, bias)]
    sums = engine.contract(geometry, want, *wide[:2], bias=wide[2], plan=chosen)
    assert found.dtype == dtype
    assert np.array_equal(found, sums.astype(dtype))


@draws(1)
@given(geometries(), WANTS, st.sampled_from(sorted(HALVES)))
def test_they_are_off_by_no_more_than_that_rounding(geometry, want, half):
    """But for what a sum of float32 loses, which is little."""
    assume(engine.serves(geometry, want, half))
    dtype = as_dtype(np, half)
    read, w, _ = map(abs, operands(geometry, want, dtype))
    found = engine.contract(geometry, want, read, w)
    exact = definition.contract(geometry, want, read.astype(np.float64), w.astype(np.float64))
    nearest = exact.astype(dtype)
    apart = found.view(np.int16).astype(int) - nearest.view(np.int16).astype(int)
    assert np.abs(apart).max(initial=0) <= 1


@each_half
def test_the_code_of_float32_is_used_for_all_but_reading_and_writing(half, monkeypatch):
    """And no kernel that reads or writes cells is mistaken for that of another type."""
    asked = []

    def load_all(names, *_, **__):
        asked.extend(names)
        return dict.fromkeys(names, 1)

    # No kernel is there yet, whatever ran before in this process, and these stay here.
    monkeypatch.setattr(executor, "_families", {})
    monkeypatch.setattr(executor, "held", lambda *_, **__: {})
    monkeypatch.setattr(executor, "load_all", load_all)
    monkeypatch.setattr(executor, "_families", {})  # none is there yet, whatever ran before
    for name in ("held", "find"):
        monkeypatch.setattr(executor, name, lambda *_, **__: {})
    monkeypatch.setattr(tiers, "load_tiered", lambda names, *_, **__: asked.extend(names))
    geometry = Geometry.of((2, 20, 9, 10), (20, 3, 3, 3), stride=2)
    for kind, want in product((half, "float32"), "yx"):
        problem = Problem(geometry, want, activation=as_activation("tanh"))
        for plan in best_plans(problem, kind, target(), 1):
            executor.Primitive(problem, kind, target(), plan)
    names = {name.partition("_float32")[0] for name in asked if name.endswith("_float32")}
    halves = {name.partition(f"_{half}")[0] for name in asked if name.endswith(f"_{half}")}
    # Steps of want "y" and of "x".
    rows = {"pack_rows_1", "pack_rows_2", "interleave_row_1", "interleave_row_2"}
    assert halves <= {"run", "run_col2im", "run_packing", "find_runs", "gather", *rows}
    assert {"run", "run_packing", *rows} <= halves & names
    assert "activate_tanh" in names
    assert any(name.startswith("micro") for name in names)
