"""Plans for w keep within their bounds."""

from hypothesis import given
from hypothesis import strategies as st

from strategies import draws, geometries
from tconv import engine
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import named_target, target
from tconv.engine.weight_gradient.panel import Panel, ReductionBlock
from tconv.engine.weight_gradient.plan import (
    Scratch,
    all_gradient_plans,
    choose_gradient_plan,
    x_tiles,
)
from tconv.geometry.geometry import Geometry

HERE = target()


@draws(1)
@given(
    geometries(ranks=(1, 2, 3), batches=(1, 2, 3)),
    st.sampled_from(["float32", "float64"]),
    st.sampled_from(["haswell", "skylake-avx512", "x86-64", "neoverse-v1"]),
)
def test_plans_are_within_bounds(geometry, dtype, cpu):
    problem = Problem(engine._canonical(geometry), "x")
    plans = all_gradient_plans(problem, dtype, named_target(cpu))
    best = choose_gradient_plan(problem, dtype, named_target(cpu))
    assert best in plans
    for plan in plans:
        assert best.cycles <= plan.cycles
        assert 1 <= plan.channels <= problem.outputs
        assert 1 <= plan.outputs <= problem.channels
        lanes = named_target(cpu).vector_bits // 8 // (4 if dtype == "float32" else 8)
        tiles = x_tiles(plan, plan.channels, lanes)
        assert sum(tiles) == (plan.channels if plan.is_dot else -(-plan.channels // lanes))


def test_partial_sums_of_dw_take_no_more_than_is_said():
    for channels, size in ((8, 300), (300, 100), (600, 40)):
        geometry = Geometry.of((4, channels, size, size), (channels, 64, 3, 3))
        plan = choose_gradient_plan(Problem(geometry, "x"), "float32", HERE)
        assert plan.k_splits == 1 or plan.k_splits * channels * 64 * 9 * 4 <= 2**21


@draws(0.5)
@given(
    st.integers(1, 3000),
    st.integers(1, 3000),
    st.integers(1, 64),
    st.integers(1, 60),
    st.integers(1, 60),
    st.integers(1, 300),
)
def test_a_thread_takes_no_more_than_is_said(channels, outputs, size, kernel, stride, dilation):
    geometry = Geometry.of(
        (1, channels, size, size), (channels, outputs, kernel, kernel), stride=stride,
        dilation=dilation,
    )  # fmt: skip
    plan = choose_gradient_plan(Problem(geometry, "x"), "float64", HERE)
    if plan is not None:
        panel = Panel.of(geometry.axes, plan.k_block, HERE.vector_bits // 64, plan.is_dot)
        assert Scratch.of(plan, panel, kernel**2).size * 8 <= 2**21


def test_small_results_of_many_cells_have_split_k_for_threads():
    geometry = Geometry.of((1, 8, 400, 400), (8, 8, 3, 3))
    assert choose_gradient_plan(Problem(geometry, "x"), "float32", HERE).k_splits >= 8


def test_what_would_be_mostly_borders_has_no_plan():
    geometry = Geometry.of((1, 1, 2, 2), (1, 1, 2, 2), dilation=3000, padding=1500)
    assert choose_gradient_plan(Problem(geometry, "x"), "float32", HERE) is None
    assert not engine.serves(geometry, "w", "float32")


@draws(0.5)
@given(st.integers(1, 100), st.integers(1, 100), st.integers(1, 300))
def test_k_blocks_are_nearly_equal(batch, width, cells):
    k_block = ReductionBlock.of(batch, (1, 1, width), cells)
    for count, size in ((batch, k_block.images), (width, k_block.columns)):
        parts = -(-count // size)
        assert parts * size - count < parts
