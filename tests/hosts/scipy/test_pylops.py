"""Operators in PyLops: its own dot test, shapes, stacked operators and solvers."""

import numpy as np
import pylops
import pytest
from hypothesis import given
from pylops.optimization.basic import cgls
from pylops.utils import dottest
from scipy_operators import operators

from strategies import draws
from tconv.scipy import ConvOperator, ConvTransposeOperator


@draws(1)
@given(operators(("float64", "complex128")))
def test_the_dot_test_of_pylops(op):
    made = op.to_pylops()
    assert (made.dims, made.dimsd) == (op.dims, op.dimsd)
    assert dottest(made, complexflag=3 if op.dtype.kind == "c" else 0, rtol=1e-10)
    x = np.random.default_rng(0).standard_normal(op.dims)
    assert np.array_equal((made @ x).ravel(), op @ x.ravel())


def test_a_stack_with_a_regulariser_is_solved():
    rng = np.random.default_rng(0)
    op = ConvOperator(np.ones((1, 1, 3, 3)) / 9, 16, stride=2, padding=1)
    made = op.to_pylops()
    rough = pylops.FirstDerivative(op.dims, axis=-1)
    b = op @ rng.standard_normal(op.shape[1])
    stacked = pylops.VStack([made, 0.1 * rough])
    right = np.concatenate([b, np.zeros(rough.shape[0])])
    found = cgls(stacked, right, niter=500, tol=1e-14)[0]
    a = op @ np.eye(op.shape[1])
    d = 0.1 * (rough.todense() if hasattr(rough, "todense") else rough @ np.eye(op.shape[1]))
    normal = a.T @ a + d.T @ d
    assert np.linalg.norm(normal @ found.ravel() - a.T @ b) < 1e-6 * np.linalg.norm(a.T @ b)


@pytest.mark.parametrize("kind", [ConvTransposeOperator, ConvOperator])
def test_columns_and_adjoints(kind):
    op = kind(np.random.default_rng(0).standard_normal((2, 2, 3)), 9, stride=2, padding=1)
    made = op.to_pylops()
    eye = np.eye(op.shape[1])
    assert np.allclose(made.matmat(eye), op @ eye)
    assert np.allclose(made.H.matmat(np.eye(op.shape[0])), (op @ eye).T)
