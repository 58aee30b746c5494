"""The normal distribution against the C library's erfc."""

from math import exp, pi, sqrt

import numpy as np

from activation_formulas import tail
from tconv.arrays.normal_distribution import density, distribution, tail_times


def test_the_tail_is_right_to_a_few_places():
    x = np.concatenate([np.linspace(0, 37.4, 30_001), np.geomspace(1e-300, 1, 2001)])
    for signed in (x, -x):
        exact = tail(signed)
        apart = np.abs(tail_times(signed, 1.0) - exact) / np.spacing(exact.astype(np.float64))
        assert apart.max() <= 8


def test_the_distribution_rises_from_0_to_1():
    x = np.array([-np.inf, -50, -1, -0.0, 0, 1e-320, 1, 50, np.inf])
    found = distribution(x)
    assert np.all(np.diff(found) >= 0)
    assert tuple(found[[0, 1, 3, 4, 7, 8]]) == (0, 0, 0.5, 0.5, 1, 1)
    assert np.isnan(distribution(np.array([np.nan]))).all()


def test_the_density_is_its_derivative():
    assert np.allclose(density(np.float32([0, 2])), [1 / sqrt(2 * pi), exp(-2) / sqrt(2 * pi)])
    x = np.linspace(-5, 5, 101)
    difference = (distribution(x + 1e-5) - distribution(x - 1e-5)) / 2e-5
    assert np.allclose(density(x), difference, rtol=1e-6, atol=1e-10)
