"""Taps of a panel: the cells that they read, if those are evenly apart."""

import pytest
from engine.row_plans import row_gemm_geometries
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws, geometries
from tconv.engine.plan.phases import AxisPhases
from tconv.engine.row_gemm.panel import AxisTaps, RowPanel
from tconv.geometry.axis import Axis


def meeting(axis, want, place):
    """By tap the cell that an output reads, also beside the axis; None if there is none."""
    if want == "x":
        return [place * axis.stride - axis.begin + k * axis.dilation for k in range(axis.kernel)]
    cells = [place + axis.begin - k * axis.dilation for k in range(axis.kernel)]
    return [cell // axis.stride if cell % axis.stride == 0 else None for cell in cells]


@draws(5)
@given(geometries(ranks=(1,), plain=True) | row_gemm_geometries(), st.sampled_from("yx"))
def test_every_place_reads_the_cells_that_meet_it(geometry, want):
    for axis in geometry.axes:
        phases = AxisPhases.of(axis, want)
        if phases.stride > 1:
            continue
        taps = AxisTaps.of(phases)
        if taps is None:  # one cell or one output, which some taps do not reach
            assert want == "y"
            assert phases.count == 1 or axis.input == 1
            assert len(phases.taps[0]) < axis.kernel
            continue
        assert (taps.kernel, taps.step) == (axis.kernel, phases.step)
        for q in range(phases.count):
            cells = [q * taps.step + taps.first + tap * taps.delta for tap in range(taps.kernel)]
            assert cells == meeting(axis, want, q)


def test_taps_that_are_not_evenly_apart_have_no_panel():
    apart = AxisPhases(9, 3, 1, 1, 9, (((0, 0), (1, -1), (2, -3)),), (0, -1, -3), (0,), -3, 0)
    assert AxisTaps.of(apart) is None
    even = AxisPhases(9, 3, 1, 1, 9, (((0, 0), (1, -2), (2, -4)),), (0, -2, -4), (0,), -4, 0)
    assert AxisTaps.of(even) == AxisTaps(3, 1, 0, 2)
    missing = AxisPhases(9, 3, 1, 1, 9, (((0, 0), (1, -1)),), (0, -1), (0,), -1, 0)
    assert AxisTaps.of(missing) is None


@pytest.mark.parametrize("want", ["y", "x"])
def test_the_vectors_of_a_panel_read_from_the_first_tap_to_the_last(want):
    axis = Axis(input=30, kernel=3, output=30, dilation=2, begin=2, end=2)
    one = AxisTaps.of(AxisPhases.of(Axis(1, 1, 1)))
    panel = RowPanel(one, one, AxisTaps.of(AxisPhases.of(axis, want)), 2)
    assert panel.cells == ((-2, 0, 2), 1, 2)
    names = {panel.name, panel._replace(vectors=3).name, panel._replace(y=panel.x).name}
    assert len(names) == 3
