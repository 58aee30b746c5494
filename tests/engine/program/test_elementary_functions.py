"""Sine, cosine, logarithm and softplus of vectors: right to a few places of any number."""

import numpy as np
import pytest
from engine.program.loop_calls import CPU, HERE, LANES, applied, expression_of, instructed

from tconv.engine.program.elementary_functions import _MOST as NEAR

each_target = pytest.mark.parametrize("here", HERE, ids=lambda here: here.cpu)
each_angle = pytest.mark.parametrize("name", ["sin", "cos"])
each_name = pytest.mark.parametrize("name", ["sin", "cos", "log", "softplus"])
FORMAT = np.finfo(np.float32)


def found_by(name, x, here):
    return applied(expression_of(name, 1), np.asarray(x, np.float32), here=here)


def exactly(name, x):
    """By NumPy in long double, which has 64 bits or more on every processor with an engine."""
    wide = np.asarray(x, np.float32).astype(np.longdouble)
    with np.errstate(all="ignore"):
        return np.logaddexp(wide, 0) if name == "softplus" else getattr(np, name)(wide)


def places_apart(found, expected):
    """In units of the last place."""
    place = np.spacing(np.maximum(np.abs(expected).astype(np.float32), FORMAT.smallest_normal))
    return np.abs(found - expected) / place


def spread(low, high, count=60_000):
    """Numbers of both signs, evenly from power of two to power of two."""
    rng = np.random.default_rng(0)
    return (rng.choice([-1, 1], count) * np.exp2(rng.uniform(low, high, count))).astype(np.float32)


def near_quarters(most):
    """Numbers on both sides of multiples of pi/2, where a sine or a cosine is 0."""
    n = np.unique(np.concatenate([np.arange(-999, 1000), np.arange(-999, 1000) * most // 1600]))
    x = (n * (np.pi / 2)).astype(np.float32)
    return np.concatenate([x, np.nextafter(x, np.float32(np.inf)), np.nextafter(x, -x)])


# ---- sine and cosine -----------------------------------------------------------------------------


@each_target
@each_angle
def test_angles_of_every_size_are_right_to_1e_7(name, here):
    """Near 0, up to where float32 holds n*pi/2, across that, and up to the largest number."""
    most = NEAR[here.has_fma]
    for x in (spread(-140, 2), spread(0, 18), spread(10, 127.9), near_quarters(most)):
        assert np.abs(found_by(name, x, here) - exactly(name, x)).max() < 1e-7


@each_target
@each_angle
def test_angles_up_to_a_turn_are_right_to_two_places(name, here):
    """Those next to a zero of the function, too: sin(float32(pi)) is -8.7422777e-8."""
    x = np.concatenate([spread(-140, 2.65), np.float32([np.pi, -np.pi / 2])])
    assert places_apart(found_by(name, x, here), exactly(name, x)).max() < (
        2 if here.has_fma else 9
    )


@each_angle
def test_angles_beyond_float32s_turns_are_right_to_two_places(name):
    """Where the sum in float64 cancels, too: of all numbers 16367173 * 2**72 is the one nearest to
    a multiple of pi/2."""
    for here in HERE:
        x = np.concatenate([spread(18, 127.9, 400_000), np.float32([16367173 * 2.0**72])])
        assert places_apart(found_by(name, x, here), exactly(name, x)).max() < 2


@each_target
def test_angles_of_zeros_infinities_and_nan(here):
    """The sine is odd, to the sign of zero, and the cosine even."""
    x = np.float32([0.0, -0.0, np.inf, -np.inf, np.nan, 1e-45, -1e-45, 1e-40])
    sine, cosine = found_by("sin", x, here), found_by("cos", x, here)
    expected = np.where(np.isfinite(x), x, np.nan)
    assert np.array_equal(sine, expected, equal_nan=True)
    assert np.array_equal(np.signbit(sine[:2]), [False, True])
    assert np.array_equal(cosine, np.where(np.isfinite(x), np.float32(1), np.nan), equal_nan=True)
    x = spread(-30, 127)
    assert np.array_equal(found_by("sin", -x, here), -found_by("sin", x, here))
    assert np.array_equal(found_by("cos", -x, here), found_by("cos", x, here))


@each_target
@each_angle
def test_no_sine_and_no_cosine_exceeds_one(name, here):
    x = np.concatenate([near_quarters(NEAR[here.has_fma]), spread(-2, 20)])
    assert np.abs(found_by(name, x, here)).max() == 1


@each_target
def test_a_large_angle_leaves_its_neighbours_alone(here):
    """One lane is reduced in float64, the others as if it were not there."""
    near = spread(-3, 10, 5 * LANES[here] + 3)
    for name in ("sin", "cos"):
        alone = found_by(name, near, here)
        for place in range(len(near)):
            mixed = near.copy()
            mixed[place] = 1e30
            both = found_by(name, mixed, here)
            assert np.array_equal(np.delete(both, place), np.delete(alone, place))
            assert abs(both[place] - exactly(name, mixed[place])) < 1e-7


@each_target
def test_several_angles_in_one_loop(here):
    x, y = spread(-3, 30, 1000), spread(-3, 3, 1000)
    expression = instructed(("sin", (0,)), ("cos", (1,)), ("mul", (2, 3)), operands=2)
    product = found_by("sin", x, here) * found_by("cos", y, here)
    assert np.array_equal(applied(expression, x, y, here=here), product)


# ---- logarithm, softplus -------------------------------------------------------------------------


@each_target
def test_logarithms_are_right_to_one_place(here):
    """Of normal and of subnormal numbers, and near 1, where the result is small."""
    near_one = 1 + spread(-24, -1)
    x = np.concatenate([np.abs(spread(-149, 127.9)), near_one[near_one > 0], np.float32([1])])
    assert places_apart(found_by("log", x, here), exactly("log", x)).max() < 1
    assert found_by("log", [1.0], here) == 0


@each_target
def test_logarithms_at_the_ends(here):
    x = [0.0, -0.0, np.inf, -np.inf, np.nan, -1e-45, -1.0, -FORMAT.max]
    expected = [-np.inf, -np.inf, np.inf, *[np.nan] * 5]
    assert np.array_equal(found_by("log", x, here), expected, equal_nan=True)
    ends = [FORMAT.max, FORMAT.smallest_normal, FORMAT.smallest_subnormal]
    assert places_apart(found_by("log", ends, here), exactly("log", ends)).max() < 1


@each_target
def test_softplus_is_right_to_three_places(here):
    """Where it is small, too, down to what exp(x) is the same as."""
    rng = np.random.default_rng(0)
    x = np.concatenate([spread(-140, 6.4), rng.uniform(-87, 20, 60_000), [-1e4, 1e4, 1e38]])
    assert places_apart(found_by("softplus", x, here), exactly("softplus", x)).max() < 3
    ends = found_by("softplus", [np.inf, -np.inf, np.nan, -200.0], here)
    assert np.array_equal(ends, [np.inf, 0, np.nan, 0], equal_nan=True)


@each_name
def test_a_result_does_not_depend_on_its_lane(name):
    """Whole vectors, tails and rows of one element give the same bits."""
    x = np.abs(spread(-20, 40, 4 * LANES[CPU] + 3))
    expected = found_by(name, x, CPU)
    for size in range(1, len(x)):
        assert np.array_equal(found_by(name, x[:size], CPU), expected[:size])
        assert np.array_equal(found_by(name, x[-size:], CPU), expected[-size:])
