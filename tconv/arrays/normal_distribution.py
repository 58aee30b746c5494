"""Tail of the normal distribution, scaled: a polynomial that NumPy and machine code evaluate.

    P(X < -x) = exp(-x**2/2) * scaled_tail(x)                            # x >= 0, X normal
    scaled_tail(x) = polynomial((x - 4) / (x + 4)) / (x + 4)

The quotient maps all x >= 0 to [-1, 1), where few terms are enough (Schonfelder 1978, for erfc).
The coefficients interpolate at Chebyshev's points, computed with 60 digits; they hold to half a
unit in the last place where exp(-x**2/2) is not 0, up to `LARGEST`.
"""

from math import pi, sqrt
from typing import Any

import numpy as np
from numpy.typing import NDArray

__all__ = ["CENTRE", "COEFFICIENTS", "LARGEST", "density", "distribution", "tail_times"]

CENTRE = 4.0
LARGEST = {"float32": 15, "float64": 39}
COEFFICIENTS = {
    "float32": (
        *(0.7552851308, -0.6078966577, 0.3871373514, -0.1865213272, 0.06039774295),
        *(-0.007544809488, -0.003490089865, 0.001643380756, 0.0001715175442),
        *(-0.0002292788296, -5.034439572e-05),
    ),
    "float64": (
        *(0.7552851304157515, -0.6078966419718921, 0.3871374007422147, -0.186521857959659),
        *(0.060396574890927764, -0.007540188966673124, -0.0034796923671979656),
        *(0.0016308184568438854, 0.0001333443101408164, -0.00023109492958876522),
        *(-1.9082429161357464e-06, 3.514466162725137e-05, 7.165990534208174e-07),
        *(-5.920109799721969e-06, -6.29508343694983e-07, 1.0214618696615973e-06),
        *(2.714643213193074e-07, -1.549133718099133e-07, -8.502508176663362e-08),
        *(1.3320772310367773e-08, 1.9374886380522798e-08, 1.8447535232485742e-09),
        *(-2.4545235044259033e-09, -6.956493025352831e-10),
    ),
}
"""Coefficients of the polynomial, from the constant on."""


def tail_times(x: NDArray[Any], factor: NDArray[Any] | float) -> NDArray[Any]:
    """Return ``factor * P(X < -|x|)``, in float64.

    >>> tail_times(np.array([0.0, 1.0, -np.inf]), 1.0)
    array([0.5       , 0.15865525, 0.        ])
    """
    size = np.minimum(np.abs(x, dtype=np.float64), LARGEST["float64"])
    quotient = 1 / (size + CENTRE)
    t = (size - CENTRE) * quotient
    total: NDArray[Any] = np.full_like(t, COEFFICIENTS["float64"][-1])
    for coefficient in COEFFICIENTS["float64"][-2::-1]:
        total *= t
        total += coefficient
    # The square in two parts: it is large, and exp turns its error into a relative one.
    high = (size.view(np.int64) & -(2**27)).view(np.float64)
    total *= quotient * np.exp((size - high) * (size + high) / -2) * factor
    root = np.exp(high * high / -4)  # its square may be subnormal
    total *= root
    total *= root
    return total


def distribution(x: NDArray[Any]) -> NDArray[Any]:
    """Return ``P(X < x)`` in float64.

    >>> distribution(np.array([-1.0, 0.0, 2.0]))
    array([0.15865525, 0.5       , 0.97724987])
    """
    tail = tail_times(x, 1.0)
    return np.where(x > 0, 1 - tail, tail)


def density(x: NDArray[Any]) -> NDArray[Any]:
    """Return the density of the distribution in float64.

    >>> density(np.array([0.0, 1.0]))
    array([0.39894228, 0.24197072])
    """
    return np.asarray(np.exp(np.square(x, dtype=np.float64) / -2) / sqrt(2 * pi))
