"""Candidates of the depthwise algorithm: for which layers, on which processors, in which tasks."""

from math import ceil, prod

import pytest
from engine.row_plans import MASKED, NOT_MASKED, depthwise_geometries
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws
from tconv.engine.depthwise.candidates import DepthwiseCosts, candidates
from tconv.engine.plan.plan import ONE_OUTPUT, KBlock
from tconv.engine.plan.problem import Problem
from tconv.geometry.geometry import Geometry

PLAIN = Geometry.of((1, 8, 20, 20), (8, 1, 3, 3), padding=1, groups=8)


LARGE = [
    Geometry.of((1, 1, size, width), (1, 1, 3, 3), stride=stride, padding=1)
    for size, width, stride in ((400, 401, 1), (77, 900, 1), (301, 300, 2), (5000, 40, 1))
]
"""Whose planes are more than a task."""


@draws(3)
@given(
    depthwise_geometries() | st.sampled_from(LARGE),
    st.sampled_from("yx"),
    st.sampled_from(["float32", "float64"]),
    st.sampled_from(MASKED),
    st.integers(1, 200),
)
def test_tasks_are_some_planes_or_some_rows_of_one(geometry, want, dtype, here, more):
    """Also when a candidate is fitted to another size."""
    problem = Problem(geometry, want)
    costs, rows = DepthwiseCosts(problem, dtype, here), problem.phases().axes[1].count
    for plan, blocks, (read, work, tasks) in candidates(problem, dtype, here):
        for each in (plan, costs.fitted(plan._replace(rows=more, tile=min(8, more)))):
            assert 1 <= each.planes <= costs.planes
            assert 1 <= each.tile <= rows
            if each.planes > 1:
                assert each.rows == rows
            assert each.rows == rows or each.rows % each.tile == 0
            assert each.columns == problem.phases().axes[2].count
        assert tasks == ceil(costs.planes / plan.planes) * ceil(rows / plan.rows)
        assert (blocks, read, plan.outputs, plan.k_block) == (1, 0, ONE_OUTPUT, KBlock.of(problem))
        assert work > 0
        _, y, x = problem.phases().axes
        sums = plan.tile * plan.vectors * y.stride * x.stride
        assert sums <= here.isa.registers
        assert sums * prod(problem.kernel_size) // (y.stride * x.stride) <= 400


@pytest.mark.parametrize("here", MASKED, ids=lambda here: here.isa.name)
def test_layers_of_few_channels_and_phases_have_candidates(here):
    def has_candidates(*shapes, want="x", dtype="float32", **keywords):
        return bool(candidates(Problem(Geometry.of(*shapes, **keywords), want), dtype, here))

    x, w = (1, 8, 20, 20), (8, 1, 3, 3)
    assert has_candidates(x, w, groups=8)
    assert has_candidates(x, w, groups=8, dtype="float64")
    assert has_candidates(x, w, groups=8, want="y")
    assert has_candidates(x, (8, 1, 4, 4), groups=8, stride=2, want="y")
    assert has_candidates((1, 8, 20), (8, 4, 3), groups=2)
    assert not has_candidates(x, w, groups=8, dtype="float16")  # sums in another type
    assert not has_candidates((1, 8, 20), (8, 5, 3), groups=2)  # more pairs of channels than 16
    assert not has_candidates(x, w, groups=8, stride=2, want="y", dilation=2)  # phases without taps
    assert not has_candidates(x, (8, 1, 6, 6), groups=8, stride=3, want="y")  # 9 phases
    assert not has_candidates(x, w, groups=8, stride=5)  # steps
    assert not has_candidates((1, 8, 2, 20, 20), (8, 1, 1, 3, 3), groups=8)  # depth


@pytest.mark.parametrize("here", NOT_MASKED, ids=lambda here: here.isa.name)
@pytest.mark.parametrize("want", ["y", "x"])
def test_without_masks_there_are_none(want, here):
    assert not candidates(Problem(PLAIN, want), "float32", here)
