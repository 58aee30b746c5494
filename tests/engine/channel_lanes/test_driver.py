"""Plans whose lanes are output channels give the bits of the other plans of their order."""

from dataclasses import replace
from functools import partial

import numpy as np
import pytest
from assemblies import TARGETS, inner_loop
from hypothesis import given
from hypothesis import strategies as st

from slow import mostly_slow
from strategies import draws, geometries
from tconv.arrays.canonical import canonical
from tconv.engine import executor
from tconv.engine.channel_lanes.candidates import MOST_ROWS, candidates
from tconv.engine.channel_lanes.driver import broadcast
from tconv.engine.choose import all_plans, choose_plan
from tconv.engine.codegen.code import ElementType
from tconv.engine.compile.jit import assembly
from tconv.engine.plan.phases import AxisPhases
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import named_target, target
from tconv.geometry.geometry import Geometry

WANTS = st.sampled_from("yx")
TYPES = st.sampled_from(["float32", "float64"])


def computed(problem, plan, dtype, read, w, bias):
    """What a plan writes; NaN where it does not."""
    primitive = executor.Primitive(problem, dtype, target(), plan)
    written = np.full(problem.geometry.shape_of(problem.want), np.nan, dtype)
    packed = primitive.pack(np.ascontiguousarray(canonical(np, problem.geometry, "w", w)))
    primitive(read, packed, primitive.pack_bias(bias), written)
    return written


# images of one cell, of few, with borders of zeros; sums tap by tap; strides along one axis only
LAYERS = [
    ((5, 70, 1, 1), (70, 40, 4, 4), {}),
    ((2, 300, 4, 4), (300, 37, 4, 4), {"stride": 2, "padding": 1}),
    ((1, 520, 9), (520, 24, 4), {"stride": 2, "padding": 1}),
    ((1, 64, 5, 6, 3), (64, 40, 3, 3, 3), {"stride": (1, 2, 3), "padding": 1}),
    ((3, 96, 7, 7), (96, 20, 3, 3), {"padding": 1, "groups": 4}),
]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("want", ["y", "x"])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_they_have_the_bits_of_other_plans(layer, want, dtype):
    x_shape, weight_shape, keywords = layer
    problem = Problem(Geometry.of(x_shape, weight_shape, **keywords), want)
    geometry, rng = problem.geometry, np.random.default_rng(0)
    shapes = (geometry.shape_of(problem.read), weight_shape, geometry.shape_of(want)[1])
    operands = [rng.standard_normal(shape).astype(dtype) for shape in shapes]
    plans = [
        plan for plan in all_plans(problem, dtype, target(), 2) if plan.algorithm != "winograd"
    ]
    others = [plan for plan in plans if plan.algorithm != "channel_lanes"][::20]
    those = [plan for plan, *_ in candidates(problem, dtype, target())]
    assert those
    assert set(those) <= {plan._replace(threads=1, cycles=0.0) for plan in plans}
    results = [computed(problem, plan, dtype, *operands) for plan in (*others, *those)]
    for result in results[1:]:
        assert np.array_equal(result, results[0])


@draws(4)
@given(geometries(ranks=(1,), plain=True), WANTS)
def test_runs_are_all_outputs_with_the_taps_that_reach_them(geometry, want):
    (axis,) = geometry.axes
    phases, size = AxisPhases.of(axis, want), axis.output if want == "y" else axis.input
    found = {}
    for phase in range(phases.stride):
        for run in phases.runs(phase, size):
            for q in run.places:
                cells = {
                    (phases.taps[phase][n][0], q * phases.step - phases.taps[phase][n][1])
                    for n in run.taps
                }
                assert q * phases.stride + phase not in found
                found[q * phases.stride + phase] = cells
    for place in range(size):
        pairs = ((i, k) for i in range(axis.input) for k in range(axis.kernel))
        met = ((i, k, i * axis.stride - axis.begin + k * axis.dilation) for i, k in pairs)
        ends = {
            (k, i if want == "y" else o) for i, k, o in met if (o if want == "y" else i) == place
        }
        assert found[place] == {(k, cell) for k, cell in ends if 0 <= cell < phases.input}


def test_a_little_image_with_many_channels_gets_channel_lanes():
    """And what has no zeros to leave out, too few channels, or numbers to widen, is not.

    For Zen 3, wherever this runs: on others, other plans may be the cheapest.
    """
    caches = {"l1_bytes": 2**15, "l2_bytes": 2**19, "l3_bytes": 2**25}
    zen3 = replace(named_target("znver3", 2), **caches)

    def has_channel_lanes(geometry, want="y", dtype="float32"):
        return choose_plan(Problem(geometry, want), dtype, zen3, 2).algorithm == "channel_lanes"

    small = Geometry.of((1, 512, 4, 4), (512, 256, 4, 4), stride=2, padding=1)
    assert has_channel_lanes(small)
    assert has_channel_lanes(small, dtype="float64")
    assert not has_channel_lanes(small, dtype="float16")
    assert has_channel_lanes(Geometry.of((1, 128, 1, 1), (128, 512, 4, 4)))
    assert not has_channel_lanes(Geometry.of((1, 512, 4, 4), (512, 1, 4, 4), stride=2, padding=1))
    assert not has_channel_lanes(
        Geometry.of((1, 64, 100, 100), (64, 64, 4, 4), stride=2, padding=1)
    )


@pytest.mark.parametrize("cpu", mostly_slow(TARGETS, "skylake-avx512", "apple-m1"))
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_inner_loop_keeps_its_sums_in_registers(cpu, dtype):
    here = named_target(cpu)
    for most, vectors in here.isa.gemm_tiles:
        for rows in range(1, min(most, MOST_ROWS) + 1):
            emit = partial(
                broadcast(rows, vectors), name="kernel", element=ElementType(dtype, here)
            )
            loop = inner_loop(assembly("kernel", emit, here))
            if here.has_fma:
                multiplications = sum("fma" in line or "fmla" in line for line in loop)
                assert multiplications == rows * vectors, (rows, vectors)
            assert not [line for line in loop if "sp)" in line or "[sp" in line], (rows, vectors)
