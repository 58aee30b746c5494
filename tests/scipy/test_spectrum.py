"""Spectra: exact for circular operators, a bound that always holds, and is near for large ones."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy_operators import circulants, dense, operators

from strategies import draws
from tconv.errors import ParameterError
from tconv.scipy import ConvOperator, ConvTransposeOperator, bound, norm, singular_values
from tconv.scipy.spectrum import is_circulant

RNG = np.random.default_rng(0)


@draws(0.8)
@given(circulants())
def test_circular_spectra_are_exact(op):
    assert is_circulant(op.geometry, op.padding_mode)
    expected = np.linalg.svd(dense(op), compute_uv=False)
    found = singular_values(op)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= 1e-10 * max(expected[0], 1)
    assert np.isclose(norm(op), expected[0], rtol=1e-10)
    assert np.isclose(bound(op), expected[0], rtol=1e-10)
    assert np.array_equal(singular_values(op, 2), found[:2])


@draws(0.4)
@given(operators(), st.integers(0, 9))
def test_the_bound_is_never_below_the_norm(op, seed):
    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(op.weight.shape).astype(op.dtype)
    op = op.with_weight(weight)
    real = np.linalg.norm(dense(op).astype("complex128"), 2)
    assert bound(op) >= real * (1 - (1e-12 if op.dtype.itemsize > 8 else 1e-5))
    assert np.isclose(norm(op), real, rtol=1e-6, atol=1e-12)


@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("rank", [1, 2])
@pytest.mark.parametrize("kernel", [2, 3, 4, 5])
def test_the_bound_is_near_from_32_cells_on(stride, rank, kernel):
    for seed in range(2):
        w = np.random.default_rng(seed).standard_normal((2, 1, *[kernel] * rank))
        op = ConvTransposeOperator(w, 32, stride=stride, padding=(kernel - 1) // 2)
        assert norm(op) <= bound(op) <= 1.05 * norm(op)


def test_large_operators_have_their_norm_by_lanczos():
    w = RNG.standard_normal((3, 2, 3, 3))
    op = ConvOperator(w, 64, stride=2, padding=1)
    k = singular_values(op, 3)
    assert np.isclose(norm(op), k[0], rtol=1e-8)
    assert (np.diff(k) <= 0).all()
    with pytest.raises(
        ParameterError, match=r"would need the dense matrix; pass k for the largest"
    ):
        singular_values(op)


def test_spectra_of_single_precision_are_computed_in_double():
    w = RNG.standard_normal((2, 2, 4)).astype("float32")
    settings = {"stride": 2, "padding": 1, "padding_mode": "circular"}
    single, double = (
        singular_values(ConvTransposeOperator(each, 16, **settings))
        for each in (w, w.astype("float64"))
    )
    assert np.array_equal(single, double)


@pytest.mark.parametrize("function", [norm, bound, singular_values])
def test_other_operators_are_refused(function):
    with pytest.raises(ParameterError, match=r"(?s)op=.* must be an operator of tconv\.scipy"):
        function(np.eye(3))
    with pytest.raises(ParameterError, match=r"k=0 must be at least 1"):
        singular_values(ConvTransposeOperator(np.ones((1, 1, 2)), 3), 0)
