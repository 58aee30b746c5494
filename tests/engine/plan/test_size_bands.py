"""A band follows from the sizes alone, and its plans are those of all of its sizes."""

from dataclasses import replace

from hypothesis import example, given
from hypothesis import strategies as st

from strategies import draws, geometries
from tconv import engine
from tconv.engine.choose import choose_plan
from tconv.engine.plan.problem import Problem
from tconv.engine.plan.size_bands import (
    band_of,
    narrow_band_of,
    octave_of,
    samples_of,
    unsized,
)
from tconv.engine.target.target import target
from tconv.geometry.geometry import Geometry

WANTS = st.sampled_from("yx")
LANES = st.sampled_from([2, 4, 8, 16])


@st.composite
def problems(draw):
    """Of any settings, and of sizes up to some hundreds."""
    geometry = engine._canonical(draw(geometries(ranks=(1, 2, 3), batches=(1, 2))))
    axes = []
    for axis in geometry.axes:
        more = draw(st.sampled_from([0, 0, 1])) * draw(st.integers(1, 400))
        axes.append(axis._replace(input=axis.input + more, output=axis.output + more * axis.stride))
    size = geometry.in_channels, geometry.out_channels, geometry.groups
    return Problem(Geometry(geometry.batch, *size, tuple(axes)), draw(WANTS), draw(st.booleans()))


def counts(problem):
    return [axis.count for axis in problem.phases().axes]


@draws(4)
@example(Problem(Geometry.of((1, 1, 2), (1, 1, 3), dilation=3, padding=((0, -2),))), 2)
@given(problems(), LANES)
def test_a_band_is_that_of_all_of_its_sizes(problem, lanes):
    band = band_of(problem, lanes)
    assert band_of(band, lanes) == band
    for less, most in zip(counts(problem), counts(band), strict=True):
        assert less <= most <= max(less, less * 5 // 4 + 1)
    for sample in samples_of(band, lanes):
        assert band_of(sample, lanes) == band


@draws(2)
@given(problems(), LANES)
def test_sizes_follow_from_one_law_within_a_band(problem, lanes):
    for other in (band_of(problem, lanes), octave_of(problem)):
        for axis, grown in zip(problem.geometry.axes, other.geometry.axes, strict=True):
            assert grown.law - grown.output == axis.law - axis.output
            assert grown[1:2] + grown[3:] == axis[1:2] + axis[3:]


@draws(2)
@given(problems(), LANES)
def test_phase_groups_are_the_same_within_a_band(problem, lanes):
    band = band_of(problem, lanes)
    assert unsized(band) == unsized(problem)
    for is_uncropped in (False, True):
        one, other = problem.phases(is_uncropped), band.phases(is_uncropped)
        assert one.groups == other.groups
        assert one.crop_offset == other.crop_offset
        for axis, grown in zip(one.axes, other.axes, strict=True):
            assert axis.unsized == grown.unsized
            assert (axis.count == axis.input) == (grown.count == grown.input)


@draws(2)
@given(problems(), LANES)
def test_bands_are_wide_where_many_sizes_are_expected(problem, lanes):
    """An octave, or half of one along each of several axes."""
    many = replace(problem, many_sizes=True)
    band = band_of(many, lanes)
    assert band.many_sizes
    assert band_of(band, lanes) == band
    assert unsized(band) == unsized(problem)
    ends = [each.geometry.axes for each in (band, octave_of(many))]
    if sum(count > 1 for count in counts(problem)) == 1:
        assert band == octave_of(many)
    else:
        for axis, grown, last in zip(problem.geometry.axes, *ends, strict=True):
            assert axis.input <= grown.input <= last.input
    narrow = narrow_band_of(many, lanes)
    assert band_of(narrow, lanes) == band
    assert replace(narrow, many_sizes=False) == band_of(problem, lanes)
    for sample in samples_of(band, lanes):
        assert band_of(sample, lanes) == band


@draws(0.5)
@given(st.integers(1, 64), st.integers(1, 64), st.integers(1, 9), st.integers(20, 3000), WANTS)
def test_plans_of_wide_bands_cost_little_more_than_those_of_narrow_ones(a, b, kernel, length, want):
    shapes = ((1, a, length), (a, b, kernel))
    geometry = engine._canonical(Geometry.of(*shapes, padding=min(kernel // 2, (length - 1) // 2)))
    here, problem = target(), Problem(geometry, want)
    plans = [
        choose_plan(replace(problem, many_sizes=is_so), "float32", here, 1) for is_so in (0, 1)
    ]
    if all(plans):
        assert plans[1].cycles <= 1.6 * plans[0].cycles + 2000
