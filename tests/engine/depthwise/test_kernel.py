"""The window of a block: who reads which row of x, and sums that stay in registers."""

from functools import partial
from itertools import pairwise

import pytest
from assemblies import TARGETS, inner_loops
from engine.row_plans import depthwise_geometries
from hypothesis import given
from hypothesis import strategies as st

from slow import mostly_slow
from strategies import draws
from tconv.engine.codegen.code import ElementType
from tconv.engine.compile.jit import assembly
from tconv.engine.depthwise.candidates import candidates
from tconv.engine.depthwise.kernel import Window, slide
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import named_target
from tconv.geometry.geometry import Geometry

MASKED = [cpu for cpu in TARGETS if named_target(cpu).isa.has_masks]
MOST_SUMS = {"haswell": 2, "skylake-avx512": 5}  # of a window of 3x3, beside its weights
MOST_SPILLED = 1 / 3  # of the products of a chosen plan


@draws(5)
@given(depthwise_geometries(), st.sampled_from("yx"), st.integers(1, 8))
def test_a_block_reads_each_row_for_all_who_need_it(geometry, want, rows):
    """Every tap of every row once, in ascending order, which is the order of all plans."""
    problem = Problem(geometry, want)
    _, y, _ = problem.phases().axes
    reads, met = Window.of(problem, rows, 1).reads(), list[tuple[int, int, int, int]]()
    places = [place for place, _ in reads]
    assert len(set(places)) == len(places)
    for place, readers in reads:
        met += [(row, phase, tap, place) for row, phase, tap in readers]
    assert sorted(met) == sorted(
        (row, phase, tap, row * y.step - shift)
        for row in range(rows)
        for phase, taps in enumerate(y.taps)
        for tap, shift in taps
    )
    for who in {(row, phase) for row, phase, *_ in met}:
        taps = [tap for row, phase, tap, _ in met if (row, phase) == who]
        assert all(one < other for one, other in pairwise(taps))


def spilled(window, dtype, here):
    """Products of the loop without masks, and vectors that it puts on the stack."""
    emit = partial(slide(window), name="kernel", element=ElementType(dtype, here))
    loops = inner_loops(assembly("kernel", emit, here))
    loop = min((loop for loop in loops if any("fma" in line for line in loop)), key=len)
    stores = [line for line in loop if line.split()[-1].endswith("sp)") and "mm" in line]
    return sum("fma" in line for line in loop), stores


def layer_of(want, stride, size=56):
    shapes = (1, 8, size, size), (8, 1, 3, 3)
    return Problem(Geometry.of(*shapes, stride=stride, padding=1, groups=8), want)


@pytest.mark.parametrize("cpu", MASKED)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("want", ["y", "x"])
def test_a_few_rows_of_3x3_keep_their_sums_in_registers(want, dtype, cpu):
    for rows in range(1, MOST_SUMS[cpu] + 1):
        window = Window.of(layer_of(want, 1), rows, 1)
        products, stores = spilled(window, dtype, named_target(cpu))
        assert products == 9 * rows
        assert not stores, (rows, stores)


@pytest.mark.parametrize("cpu", MASKED)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize(
    ("want", "stride"), mostly_slow([("y", 1), ("x", 1), ("x", 2)], ("x", 1), ("x", 2))
)
def test_few_sums_of_the_cheapest_plan_leave_the_registers(want, stride, dtype, cpu):
    here = named_target(cpu)
    for size in (7, 14, 28, 56, 112):
        problem = layer_of(want, stride, size)
        found = candidates(problem, dtype, here)
        plan, *_ = min(found, key=lambda each: each[2][1] * each[2][2])
        products, stores = spilled(Window.of(problem, plan.tile, plan.vectors), dtype, here)
        assert products == 9 * plan.tile * plan.vectors
        assert len(stores) <= MOST_SPILLED * products, (size, plan.tile, plan.vectors)
