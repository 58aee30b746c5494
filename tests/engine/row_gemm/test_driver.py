"""Row GEMMs give the bits of the other plans, whatever their tasks, blocks and activations."""

from functools import partial
from itertools import product

import pytest
from engine.row_laws import (
    NEEDS_MASKS,
    TYPES,
    families_share_all_but_sizes,
    fused_equals_unfused,
    random_plans_are_exact,
    random_plans_have_the_bits_of_others,
    tasks_and_threads_do_not_show,
)
from engine.row_plans import row_gemm_geometries, row_gemm_plan

from tconv.engine.plan.problem import Problem
from tconv.engine.row_gemm.candidates import candidates
from tconv.engine.target.target import target
from tconv.geometry.geometry import Geometry

pytestmark = NEEDS_MASKS
# Strides, one tap read in place, one tap in a panel, k-blocks, depth and groups, wide borders.
LAYERS = [
    (((2, 7, 5, 37), (7, 9, 3, 3), {"stride": 2, "padding": 1}), "x"),
    (((2, 20, 6, 9), (20, 15, 1, 1), {}), "y"),
    (((1, 5, 6, 9), (5, 4, 1, 1), {"stride": 3}), "x"),
    (((1, 70, 5, 21), (70, 4, 3, 3), {"padding": 1}), "y"),
    (((1, 3, 19), (3, 600, 1), {}), "x"),
    (((1, 4, 3, 4, 18), (4, 6, 3, 1, 2), {"dilation": (1, 1, 3), "groups": 2}), "x"),
    (((1, 3, 2, 40), (3, 5, 1, 5), {"padding": ((0, 0), (7, 1))}), "y"),
]
KINDS = [(*each, dtype) for each, dtype in product(LAYERS, TYPES)]


def problem_of(layer, want):
    x_shape, weight_shape, keywords = layer
    return Problem(Geometry.of(x_shape, weight_shape, **keywords), want)


def plans_of(problem, dtype):
    found = [plan for plan, *_ in candidates(problem, dtype, target())]
    assert found, "no candidate"
    return found


def test_they_have_the_bits_of_other_plans():
    plan_of = partial(row_gemm_plan, has_its_k_block=True)
    random_plans_have_the_bits_of_others(row_gemm_geometries(), plan_of)


def test_sums_of_integers_are_exact_in_any_k_blocks():
    random_plans_are_exact(row_gemm_geometries(), row_gemm_plan)


def test_the_layers_have_all_kinds_of_plans():
    """Read in place or by a panel, of whole sums or of several, with one block or more."""
    kinds = set()
    for layer, want in LAYERS:
        problem = problem_of(layer, want)
        for plan in plans_of(problem, "float32"):
            kinds.add((plan.panel, plan.k_block.channels < problem.channels))
    assert kinds == {*product(("none", "rows"), (True, False))}


@pytest.mark.parametrize(("layer", "want", "dtype"), KINDS, ids=str)
def test_tasks_blocks_and_threads_do_not_show(layer, want, dtype):
    problem, plans = problem_of(layer, want), list[object]()
    for plan in plans_of(problem, dtype)[::3]:
        lanes = plan.vectors * target().vector_bits // (32 if dtype == "float32" else 64)
        z, y, x = problem.phases().axes
        rows, columns = y.count, x.count
        if plan.panel == "none":
            rows, columns = 1, z.count * y.count * x.count
        tasks = [(rows, columns), (1, columns), (1, min(columns, lanes))]
        tasks += [(min(rows, 2), columns), (1, min(columns, 2 * lanes))]
        blocks = {1, max(1, problem.outputs // 2), problem.outputs}
        plans += [
            plan._replace(rows=rows, columns=columns, block=block)
            for (rows, columns), block in zip(
                dict.fromkeys(tasks), [*sorted(blocks), *[plan.block] * 5], strict=False
            )
        ]
    tasks_and_threads_do_not_show(problem, dtype, plans)


@pytest.mark.parametrize(("layer", "want", "dtype"), [*KINDS[::4], *KINDS[3::4]], ids=str)
def test_an_activation_gives_the_bits_that_it_gives_alone(layer, want, dtype):
    problem = problem_of(layer, want)
    fused_equals_unfused(problem, dtype, plans_of(problem, dtype)[-1])


def test_plans_of_one_family_share_kernels_and_tables():
    some = []
    for size, want, dtype in product((20, 21, 33, 61), "yx", TYPES):
        for kernel, padding in ((1, 0), (3, 0), (3, 1)):
            shapes = (1, 4, size, size), (4, 24, kernel, kernel)
            problem = Problem(Geometry.of(*shapes, padding=padding), want)
            some += [(problem, dtype, plan) for plan in plans_of(problem, dtype)]
    families_share_all_but_sizes(some)
