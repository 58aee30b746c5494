"""Candidates of the direct, im2col and col2im algorithms."""

from math import ceil

from hypothesis import given
from hypothesis import strategies as st

from strategies import draws, geometries
from tconv.engine.direct.candidates import candidates
from tconv.engine.plan.plan import ONE_OUTPUT, TABLE_ENTRIES, KBlock
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import named_target, target

TARGETS = [target(), *map(named_target, ("haswell", "skylake-avx512", "neoverse-n1"))]
PANELS = {"direct": "padded", "im2col": "im2col", "col2im": "none"}


@draws(2)
@given(
    geometries(ranks=(1, 2, 3), batches=(1, 2, 9), plain=True),
    st.sampled_from("yx"),
    st.sampled_from(["float32", "float64", "float16"]),
    st.sampled_from(TARGETS),
)
def test_candidates_compute_every_product_on_one_thread(geometry, want, dtype, here):
    problem = Problem(geometry, want)
    for plan, blocks, (read, work, tasks) in candidates(problem, dtype, here):
        assert plan.panel == PANELS[plan.algorithm]
        assert plan.outputs == ONE_OUTPUT
        assert plan.k_block == KBlock.of(problem)
        assert (plan.splits, plan.threads, plan.cycles) == (1, 1, 0.0)
        assert plan.vectors <= dict(here.isa.gemm_tiles)[plan.tile]
        assert blocks == ceil(problem.outputs / plan.block)
        assert read >= 0
        assert work > 0
        assert tasks >= 1
        phases = problem.phases(plan.is_uncropped)
        z, y, x = phases.axes
        if plan.algorithm == "im2col":
            places = geometry.batch * z.count * y.count * x.count
            assert places * phases.shifts <= TABLE_ENTRIES
        if plan.algorithm == "col2im":  # adds tap by tap, which must be the order of all plans
            assert want == "y"
            assert not plan.is_uncropped
            one_tap = all(axis.taps_per_phase[1] <= 1 for axis in geometry.axes)
            assert plan.k_block.per_tap or one_tap
        if plan.is_uncropped:
            assert len(phases.groups) < len(problem.phases().groups)
