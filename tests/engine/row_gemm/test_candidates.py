"""Candidates of row GEMMs: for which layers, on which processors, in which tasks."""

from math import ceil, prod

import pytest
from engine.row_plans import MASKED, NOT_MASKED, row_gemm_geometries
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws
from tconv.engine.plan.plan import ONE_OUTPUT, KBlock
from tconv.engine.plan.problem import Problem
from tconv.engine.row_gemm.candidates import RowGemmCosts, candidates
from tconv.geometry.geometry import Geometry

PLAIN = Geometry.of((1, 16, 20, 20), (16, 8, 3, 3), padding=1)


LARGE = [
    Geometry.of((1, 64, 50, 203), (64, 48, 3, 3), padding=1),
    Geometry.of((2, 64, 50, 203), (64, 48, 1, 1)),
]
"""Whose rows are more than a task."""


@draws(3)
@given(
    row_gemm_geometries() | st.sampled_from(LARGE),
    st.sampled_from("yx"),
    st.sampled_from(["float32", "float64"]),
    st.sampled_from(MASKED),
)
def test_tasks_are_some_rows_or_whole_tiles_of_one(geometry, want, dtype, here):
    problem = Problem(geometry, want)
    costs = RowGemmCosts(problem, dtype, here)
    for plan, blocks, (read, work, tasks) in candidates(problem, dtype, here):
        assert 1 <= plan.rows <= costs.rows
        assert 1 <= plan.columns <= costs.columns
        lanes = plan.vectors * costs.lanes
        if plan.columns < costs.columns:
            assert (plan.rows, plan.columns % lanes) == (1, 0)
        assert costs.planes * costs.rows * costs.columns == prod(problem.written_size)
        of_plane = ceil(costs.rows / plan.rows) * ceil(costs.columns / plan.columns)
        count = costs.planes * of_plane * ceil(problem.outputs / plan.block)
        assert tasks == count * geometry.batch * geometry.groups
        assert (blocks, read, plan.outputs, plan.k_block) == (1, 0, ONE_OUTPUT, KBlock.of(problem))
        assert not plan.k_block.per_tap
        assert work > 0
        assert (plan.vectors - 1) * costs.lanes < costs.rows * costs.columns
        most = {vectors for tile, vectors in here.isa.gemm_tiles if tile >= plan.tile}
        assert plan.vectors <= max(most)
        assert costs.copies == (plan.panel == "none")


@pytest.mark.parametrize("here", MASKED, ids=lambda here: here.isa.name)
def test_layers_of_one_phase_have_candidates(here):
    def panels(*shapes, want="x", dtype="float32", **keywords):
        found = candidates(Problem(Geometry.of(*shapes, **keywords), want), dtype, here)
        return {plan.panel for plan, *_ in found}

    x, w = (1, 16, 20, 20), (16, 8, 3, 3)
    for want in "yx":
        assert panels(x, w, want=want) == {"rows"}
        assert panels(x, (16, 8, 1, 1), want=want) == {"none"}
        assert panels(x, (16, 8, 1, 1), want=want, padding=-1) == {"rows"}
    assert panels(x, w, stride=2) == {"rows"}
    assert panels(x, (16, 8, 1, 1), stride=2) == {"rows"}
    assert panels(x, w, dtype="float64", groups=2) == {"rows"}
    assert not panels(x, w, dtype="float16")  # sums in another type
    assert not panels(x, w, stride=2, want="y")  # phases
    assert not panels((1, 600, 20), (600, 8, 2), want="y")  # sums tap by tap
    assert not panels((1, 4, 20), (4, 4, 512), stride=128)  # too many taps, and cells between
    assert not panels((1, 16, 1, 20), w, want="y", padding=(1, 0))  # taps beside a single row


@pytest.mark.parametrize("here", NOT_MASKED, ids=lambda here: here.isa.name)
@pytest.mark.parametrize("want", ["y", "x"])
def test_without_masks_there_are_none(want, here):
    assert not candidates(Problem(PLAIN, want), "float32", here)
