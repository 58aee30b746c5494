"""Activations in machine code: how exact, on which processors, and on every kind of plan."""

import ctypes
import os
import subprocess
import sys
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from activation_formulas import FORMULAS
from strategies import ENGINE_TYPES, draws, geometries, integer_operands, integers_like
from tconv import definition, engine
from tconv.arrays.activations import ACTIVATIONS, Activation, as_activation
from tconv.engine import executor
from tconv.engine.choose import all_plans
from tconv.engine.codegen.code import ElementType
from tconv.engine.compile.jit import assembly, load
from tconv.engine.kernels.activation import activate
from tconv.engine.plan import plan as plans
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import named_target, read_target, target
from tconv.geometry.geometry import Geometry
from tconv.ops.planned_call import plan

ROOT = Path(__file__).parents[3]
# Where TCONV_CPU=portable turns the engine off, its kernels are tested all the same.
CPU = target() if target().uses_engine else read_target({})
TYPES = ("float32", "float64")
EXACT = [  # of small integers
    *("relu", ("leaky_relu", 0.25), ("leaky_relu", 2.0), ("prelu", -2.0)),
    *(("clip", -3, None), ("clip", None, 2.5), ("clip", -1, 6), ("hard_sigmoid", 0.25, 0.5)),
]
ROUNDED = [
    *("tanh", "sigmoid", "silu", "hard_swish", "gelu", ("gelu", "tanh"), ("elu", 1.0)),
    *(("elu", 2.5), ("snake", 1.0), ("snake", -0.3), ("snake", 7.0)),
]
PLACES = {"gelu": 7, "gelu_tanh": 6, "snake": 5}  # of others 3


def by_kernel(activation, x):
    """A row through the kernel, in whole vectors."""
    dtype, many = x.dtype.name, 64
    name = f"activate_{activation.name}_{dtype}"
    emit = partial(activate(activation.name), name=name, element=ElementType(dtype, CPU))
    address = load(name, emit, CPU)
    row = np.zeros(-(-x.size // many) * many, dtype)
    row[: x.size] = x
    parameters = np.array([*activation.parameters, 0], dtype)
    kind = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64, ctypes.c_void_p)
    kind(address)(row.ctypes.data, row.size, parameters.ctypes.data)
    return row[: x.size]


def rows(dtype, seed=0):
    """Numbers of every size: near 0, where results are about to saturate, and all exponents."""
    rng, most = np.random.default_rng(seed), {"float32": 110, "float64": 760}[dtype]
    least = np.finfo(dtype).smallest_subnormal
    parts = [rng.uniform(-limit, limit, 100_000) for limit in (0.4, 1, 12, 40, most)]
    low, high = np.log2(np.array([least, np.finfo(dtype).max], np.longdouble)).astype(float)
    signs = rng.choice([-1.0, 1.0], 100_000)
    with np.errstate(under="ignore"):
        parts.append(signs * np.exp2(rng.uniform(low, high, 100_000)))
        return np.concatenate(parts).astype(dtype)


def formula(activation, x):
    """The function in long double, of the parameters as x's type has them."""
    parameters = [np.longdouble(x.dtype.type(each)) for each in activation.parameters]
    with np.errstate(over="ignore"):
        return FORMULAS[activation.name](x.astype(np.longdouble), *parameters)


# ---- the kernels ---------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("argument", ROUNDED, ids=str)
def test_results_are_right_to_a_few_places(argument, dtype):
    x, activation = rows(dtype), as_activation(argument)
    if activation.name == "snake":
        x = x[np.abs(x) < np.finfo(dtype).max / 8]  # a*x is finite
    expected = formula(activation, x)
    scale = np.abs(expected.astype(dtype))
    if activation.name == "snake":  # a difference where x < 0; and a*x is rounded
        scale = np.maximum(scale, np.abs(x))
    place = np.spacing(scale).astype(np.longdouble)
    if activation.name == "gelu_tanh":  # exp of a rounded number, which a few places of it move
        place *= 1 + np.minimum(np.abs(x) + 0.045 * np.minimum(np.abs(x), 100) ** 3, 1000)
    apart = np.abs(by_kernel(activation, x) - expected) / place
    assert apart.max() <= PLACES.get(activation.name, 3)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("argument", EXACT, ids=str)
def test_rectifiers_give_numpys_bits(argument, dtype):
    x, activation = rows(dtype) / 4, as_activation(argument)
    expected = x.copy()
    activation.apply(expected)
    assert np.array_equal(by_kernel(activation, x), expected)


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("argument", EXACT + ROUNDED, ids=str)
def test_the_ends_of_the_range(argument, dtype):
    least, most = np.finfo(dtype).smallest_subnormal, np.finfo(dtype).max
    x = np.array([np.inf, -np.inf, np.nan, 0.0, -0.0, least, -least, most / 4, -most / 4], dtype)
    expected, activation = x.copy(), as_activation(argument)
    activation.apply(expected)
    found = by_kernel(activation, x)
    assert np.array_equal(np.isnan(found), np.isnan(expected))
    assert np.isnan(found[2])
    least = 4 * least  # half of a subnormal number is rounded here or there
    assert np.allclose(found, expected, rtol=3 * np.finfo(dtype).eps, atol=least, equal_nan=True)


@pytest.mark.parametrize("dtype", TYPES)
def test_tanh_is_odd_and_keeps_small_numbers(dtype):
    x, activation = rows(dtype), Activation("tanh")
    found = by_kernel(activation, x)
    assert np.array_equal(found, -by_kernel(activation, -x))
    assert np.array_equal(np.signbit(by_kernel(activation, x * 0)), np.signbit(x))
    small = np.abs(x) < np.finfo(dtype).eps / 8
    assert np.array_equal(found[small], x[small])


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize(
    ("argument", "least", "most"),
    [
        *(("tanh", -1, 1), ("sigmoid", 0, 1), (("hard_sigmoid", 0.2, 0.5), 0, 1)),
        *((("clip", -0.5, 4), -0.5, 4), (("elu", 2.0), -2, np.inf), ("silu", -0.2785, np.inf)),
        *(("gelu", -0.17, np.inf), (("gelu", "tanh"), -0.1701, np.inf)),
        ("hard_swish", -0.375, np.inf),
    ],
    ids=str,
)
def test_results_stay_between_the_limits(argument, least, most, dtype):
    found = by_kernel(as_activation(argument), rows(dtype))
    assert least - 1e-6 <= found.min() < least + 1e-3
    assert found.max() == min(most, rows(dtype).max())


@pytest.mark.parametrize("dtype", TYPES)
@pytest.mark.parametrize("argument", ["silu", "hard_swish", "gelu", ("gelu", "tanh")], ids=str)
def test_gates_are_0_or_open_far_from_0(argument, dtype):
    x = rows(dtype)
    x = x[np.abs(x) > {"float32": 120, "float64": 800}[dtype]]
    assert np.array_equal(by_kernel(as_activation(argument), x), np.maximum(x, 0))


@pytest.mark.parametrize("cpu", ["haswell", "skylake-avx512", "x86-64", "neoverse-v1", "apple-m1"])
def test_no_kernel_calls_anything(cpu):
    here = named_target(cpu)
    for dtype, name in product(TYPES, ACTIVATIONS):
        text = assembly(
            "kernel", partial(activate(name), name="kernel", element=ElementType(dtype, here)), here
        )
        words = [line.split()[0] for line in text.splitlines() if line.split()]
        assert not {"call", "callq", "bl", "b.l", "blr"} & set(words)
        assert "@PLT" not in text
        assert "maskmov" not in text  # slow where a store has a mask in vain


def test_a_processor_without_fma_computes_the_same_functions():
    code = (
        "import pytest, sys\n"
        "words = ['places', 'bits', 'range', 'odd', 'limits', 'gates']\n"
        f"sys.exit(pytest.main([{str(Path(__file__))!r}, '-q', '-k', ' or '.join(words)]))\n"
    )
    environment = {**os.environ, "TCONV_CPU": "x86-64", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if CPU.triple.startswith("x86_64"):
        assert done.returncode == 0, done.stdout


# ---- in plans ------------------------------------------------------------------------------------


def operands(geometry, dtype, want="y"):
    """What is read, the weight and a bias."""
    x, w, y = (array.astype(dtype) for array in integer_operands(geometry))
    channels = geometry.out_channels if want == "y" else geometry.in_channels
    return x if want == "y" else y, w, integers_like((channels,), dtype, 5)


def defined(geometry, activation, read, w, bias, want="y"):
    """What the definition says, then the activation, rounded to the type of what is read."""
    wide = [array.astype(np.float64) for array in (read, w, bias)]
    found = definition.contract(geometry, want, *wide[:2], bias=wide[2])
    activation.apply(found)
    return found.astype(read.dtype)


@draws(1)
@given(
    geometries(ranks=(1, 2, 3), batches=(1, 2)),
    st.sampled_from("yx"),
    st.sampled_from(ENGINE_TYPES),
    st.sampled_from(EXACT),
    st.booleans(),
)
def test_every_plan_activates_every_output_once(geometry, want, dtype, argument, streams):
    """Slopes of 2 and -2 show what is done twice or not at all."""
    if not engine.serves(geometry, want, dtype):
        return
    geometry, activation = engine._canonical(geometry), as_activation(argument)
    read, w, bias = operands(geometry, dtype, want)
    expected = defined(geometry, activation, read, w, bias, want)
    problem = Problem(geometry, want, activation=activation)
    candidates = all_plans(problem, dtype, target(), 2)
    kinds = {(p.algorithm, p.panel, p.is_uncropped): p for p in candidates}
    for chosen in kinds.values():
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(plans, "STREAMED_BYTES", 0 if streams else 2**25)
            patch.setattr(plans, "STREAMED_PIECE_BYTES", 0)
            primitive = executor.Primitive(problem, dtype, target(), chosen)
        found = engine.contract(geometry, want, read, w, bias=bias, plan=primitive)
        assert np.array_equal(found, expected)


def test_kinds_of_plans_that_were_drawn():
    """The law holds of direct and im2col plans, and of col2im with and without its scatter-add."""
    if not target().uses_engine:
        return
    seen = set()
    for x, w, stride in [((2, 20, 4, 4), (20, 4, 2, 2), 2), ((2, 512, 12), (512, 4, 3), 2)]:
        geometry = Geometry.of(x, w, stride=stride)
        problem = Problem(geometry, activation=Activation("leaky_relu", (2.0,)))
        for chosen in all_plans(problem, "float32", target(), 1):
            primitive = executor.Primitive(problem, "float32", target(), chosen)
            kind = (chosen.algorithm, bool(primitive.layout.fields["skips_scatter"]))
            if kind in seen:
                continue
            seen.add(kind)
            array, weight, bias = operands(geometry, "float32")
            found = engine.contract(geometry, "y", array, weight, bias=bias, plan=primitive)
            expected = defined(geometry, problem.activation, array, weight, bias)
            assert np.array_equal(found, expected)
    wanted = {("direct", False), ("im2col", False), ("col2im", True), ("col2im", False)}
    assert wanted <= seen


@draws(0.3)
@given(
    geometries(ranks=(1, 2, 4), batches=(1, 2)), st.sampled_from(TYPES), st.sampled_from(ROUNDED)
)
def test_the_engine_and_numpy_agree(geometry, dtype, argument):
    if not engine.serves(geometry, "y", dtype):
        return
    x, w, bias = operands(geometry, dtype)
    x /= 16
    activation = as_activation(argument)
    primitive = engine.prepare(geometry, dtype, activation=activation)
    found = engine.contract(geometry, "y", x, w, bias=bias, plan=primitive)
    expected = defined(geometry, activation, x, w, bias)
    # Exp of sums up to 100: tails with tanh are as many places off.
    near = 8 * np.finfo(dtype).eps
    assert np.allclose(found, expected, rtol=near, atol=near)


def test_threads_and_plans_give_the_same_bits():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, 24, 17, 19)).astype("float32")
    w = rng.standard_normal((24, 5, 4, 4)).astype("float32")
    found = set()
    for threads, method in product((1, 2, 3), ("auto", "measure")):
        call = plan(
            x.shape, w.shape, stride=2, threads=threads, method=method, activation="sigmoid"
        )
        found.add(call(x, call.pack(w)).tobytes())
    assert len(found) == 1


def test_a_plan_says_what_follows():
    texts = [
        str(plan((1, 4, 9), (4, 3, 4), stride=2, activation=each))
        for each in (None, "relu", ("leaky_relu", 0.1))
    ]
    assert "then" not in texts[0]
    assert ", then relu" in texts[1]
    assert ", then leaky_relu 0.1" in texts[2]
