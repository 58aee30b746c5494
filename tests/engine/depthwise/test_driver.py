"""Depthwise plans give the bits of the other plans, whatever their tasks and activations."""

from dataclasses import replace
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
from engine.row_plans import depthwise_geometries, depthwise_plan

from tconv.engine.depthwise.candidates import candidates
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import target
from tconv.geometry.geometry import Geometry

pytestmark = NEEDS_MASKS
# Strides of x and of y, one axis, depth of one cell, several channels a group, wide borders.
LAYERS = [
    ((2, 5, 9, 37), (5, 1, 3, 3), {"padding": 1, "groups": 5}),
    ((1, 4, 5, 21), (4, 1, 4, 4), {"stride": 2, "padding": 1, "groups": 4}),
    ((2, 6, 40), (6, 2, 5), {"padding": ((6, 1),), "groups": 3}),
    ((1, 3, 1, 6, 9), (3, 3, 1, 5, 3), {"stride": (1, 1, 2), "padding": (0, 2, 1)}),
    ((1, 2, 7, 19), (2, 1, 3, 3), {"stride": (2, 1), "dilation": (1, 3), "groups": 2}),
]
KINDS = list(product(LAYERS, "yx", TYPES))


def problem_of(layer, want):
    x_shape, weight_shape, keywords = layer
    return Problem(Geometry.of(x_shape, weight_shape, **keywords), want)


def plans_of(problem, dtype):
    """The candidates: the largest block, the smallest, and the one between."""
    found = sorted(
        (plan for plan, *_ in candidates(problem, dtype, target())),
        key=lambda plan: (plan.tile * plan.vectors, plan.tile),
    )
    assert found, "no candidate"
    return found[0], found[len(found) // 2], found[-1]


def test_they_have_the_bits_of_other_plans():
    random_plans_have_the_bits_of_others(depthwise_geometries(), depthwise_plan)


def test_sums_of_integers_are_exact():
    random_plans_are_exact(depthwise_geometries(), depthwise_plan)


@pytest.mark.parametrize(("layer", "want", "dtype"), KINDS, ids=str)
def test_tasks_and_threads_do_not_show(layer, want, dtype):
    problem = problem_of(layer, want)
    geometry, rows = problem.geometry, problem.phases().axes[1].count
    planes = geometry.batch * geometry.groups * problem.outputs
    for plan in plans_of(problem, dtype)[1:]:
        tasks = [(1, rows), (1, min(rows, plan.tile)), (1, min(rows, 2 * plan.tile))]
        tasks += [(2, rows), (planes, rows)]
        plans = [plan._replace(planes=planes, rows=rows) for planes, rows in dict.fromkeys(tasks)]
        tasks_and_threads_do_not_show(problem, dtype, plans)


@pytest.mark.parametrize(
    ("layer", "want", "dtype"),
    [*zip(LAYERS, "xyyxy", [*TYPES, *TYPES, "float32"], strict=True)],
    ids=str,
)
def test_an_activation_gives_the_bits_that_it_gives_alone(layer, want, dtype):
    problem = problem_of(layer, want)
    problem = replace(problem, geometry=replace(problem.geometry, batch=1))
    fused_equals_unfused(problem, dtype, plans_of(problem, dtype)[1])


def test_plans_of_one_family_share_kernels_and_tables():
    some = []
    for size, want, dtype in product((20, 21, 33, 61), "yx", TYPES):
        for padding in (0, 1):
            shapes = (1, 4, size, size), (4, 1, 3, 3)
            problem = Problem(Geometry.of(*shapes, padding=padding, groups=4), want)
            some += [(problem, dtype, plan) for plan, *_ in candidates(problem, dtype, target())]
    families_share_all_but_sizes(some)
