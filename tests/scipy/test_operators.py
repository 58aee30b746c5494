"""Linear operators of SciPy: numbers of the functions, adjoints, columns, solvers, bad input."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse.linalg import LinearOperator, lsmr, lsqr, svds
from scipy_operators import TYPES, dense, operators

import tconv
from strategies import draws, integers_like, keywords_of
from tconv.errors import DTypeError, MemoryLimitError, ParameterError, ShapeError, TConvError
from tconv.scipy import ConvOperator, ConvTransposeOperator

W = np.array([[[1.0, 2.0, 1.0]]])


@draws(0.4)
@given(operators())
def test_products_are_those_of_the_functions(op):
    geometry = op.geometry
    x = integers_like(op.dims, op.dtype, seed=1)
    of_y = op.letter == "y"
    batched = x.reshape(geometry.shape_of("x" if of_y else "y"))
    if op.padding_mode == "zeros":
        function, want = (tconv.conv_transpose, "y") if of_y else (tconv.conv, "x")
        expected = function(batched, op.weight, method="direct", **keywords_of(geometry, want))
    else:
        keywords = keywords_of(geometry) | {"padding_mode": op.padding_mode}
        function = tconv.conv_transpose if of_y else tconv.conv
        if not of_y:
            keywords.pop("output_padding")
            keywords["input_size"] = geometry.input_size
        expected = function(batched, op.weight, method="direct", **keywords)
    found = op @ x.ravel()
    assert found.dtype == op.dtype
    assert np.array_equal(found, expected.ravel())
    assert op.dimsd == expected.shape[geometry.batch == 1 :]
    assert np.prod(op.dims, dtype=int) == op.shape[1]
    assert np.prod(op.dimsd, dtype=int) == op.shape[0]


@draws(0.8)
@given(operators(), st.booleans())
def test_adjoint_and_transpose_are_exact(op, is_complex):
    kind = "complex128" if is_complex else "float64"
    x, y = integers_like(op.shape[1], kind, 1), integers_like(op.shape[0], kind, 2)
    assert np.vdot(y, op @ x) == np.vdot(op.H @ y, x) == np.vdot(op.rmatvec(y), x)
    assert y @ (op @ x) == (op.T @ y) @ x
    assert np.array_equal(op.H.H @ x, op @ x)
    assert (op.H.dims, op.T.dimsd) == (op.dimsd, op.dims)
    assert isinstance(op.H, ConvOperator if op.letter == "y" else ConvTransposeOperator)


@pytest.mark.parametrize("dtype", TYPES)
def test_dot_tests_of_real_numbers(dtype):
    rng = np.random.default_rng(0)
    for _ in range(5):
        w = rng.standard_normal((4, 3, 3, 5)).astype(dtype)
        op = ConvTransposeOperator(w, (9, 8), stride=(2, 3), padding=1)
        x, y = (
            rng.standard_normal(size) + 1j * rng.standard_normal(size) for size in op.shape[::-1]
        )
        ours, theirs = np.vdot(y, op @ x), np.vdot(op.H @ y, x)
        assert abs(ours - theirs) < 1e-12 * np.linalg.norm(y) * np.linalg.norm(op @ x)


@draws(0.2)
@given(operators(), st.integers(0, 4))
def test_columns_are_computed_as_a_batch(op, count):
    x, y = integers_like((op.shape[1], count)), integers_like((op.shape[0], count))
    found, back = op @ x, op.rmatmat(y)
    assert (found.shape, back.shape) == ((op.shape[0], count), (op.shape[1], count))
    for n in range(count):
        assert np.array_equal(found[:, n], op @ x[:, n])
        assert np.array_equal(back[:, n], op.H @ y[:, n])


def test_many_columns_take_turns(monkeypatch):
    op = ConvTransposeOperator(W, 50, stride=2)
    whole = op @ np.eye(50)
    monkeypatch.setattr("tconv.scipy.operators._BLOCK_BYTES", 10_000)
    made = []
    real = ConvTransposeOperator._block
    monkeypatch.setattr(
        ConvTransposeOperator, "_block", lambda *of: made.append(len(of[2])) or real(*of)
    )
    assert np.array_equal(op @ np.eye(50), whole)
    assert len(made) > 5
    assert sum(made) == 50


def test_a_vector_decides_how_exactly_is_computed():
    op = ConvTransposeOperator(W.astype("float32"), 3, stride=2)
    assert (op @ np.ones(3)).dtype == np.float64
    assert (op @ np.ones(3, "float32")).dtype == np.float32
    assert (op @ np.ones(3, "int64")).dtype == np.float64
    assert (op @ np.ones(3, "complex64")).dtype == np.complex64
    assert ConvTransposeOperator(W.astype(int), 3).dtype == np.float64
    assert np.allclose(
        op @ np.full(3, 0.1), ConvTransposeOperator(W, 3, stride=2) @ np.full(3, 0.1), rtol=1e-15
    )


def test_solvers_of_scipy():
    rng = np.random.default_rng(0)
    op = ConvOperator(rng.standard_normal((2, 1, 4, 4)), 16, stride=2, padding=1)
    b = op @ rng.standard_normal(op.shape[1])
    for solver in (lsqr, lsmr):
        found = solver(op, b, atol=1e-12, btol=1e-12)[0]
        assert np.abs(op @ found - b).max() < 1e-8
    largest = svds(op, 1, return_singular_vectors=False)
    assert np.isclose(largest, np.linalg.norm(dense(op), 2))
    total = (op + 2 * op) @ np.ones(op.shape[1])
    assert np.allclose(total, 3 * (op @ np.ones(op.shape[1])))
    assert isinstance(op, LinearOperator)


def test_a_complex_least_squares_problem_converges():
    """With the transpose in place of the adjoint it would stall."""
    rng = np.random.default_rng(0)
    w = rng.standard_normal((1, 1, 5)) + 1j * rng.standard_normal((1, 1, 5))
    op = ConvTransposeOperator(w, 40, stride=2, padding=2)
    x = rng.standard_normal(40) + 1j * rng.standard_normal(40)
    found = lsmr(op, op @ x, atol=1e-13, btol=1e-13, maxiter=500)[0]
    assert np.abs(found - x).max() < 1e-6


def test_it_tells_what_it_is():
    op = ConvTransposeOperator(np.ones((2, 3, 4, 4), "float32"), 8, stride=2, padding=1, batch=5)
    assert repr(op) == "<3840x640 ConvTransposeOperator of float32, (5, 2, 8, 8) to (5, 3, 16, 16)>"
    assert str(op.T) == "<640x3840 ConvOperator of float32, (5, 3, 16, 16) to (5, 2, 8, 8)>"


@pytest.mark.parametrize(
    ("given_", "error", "message"),
    [
        ((W[0], 3, {}), ShapeError,
         "weight has shape (1, 3), must have two axes of channels and at least one of the kernel; "
         "for a kernel without channels pass weight[None, None]."),
        ((W, 0, {}), ParameterError, "input_size[0]=0 must be at least 1"),
        ((W, (3, 3), {}), ParameterError, "input_size=(3, 3) "),
        ((W, 3, {"batch": 0}), ParameterError, "batch=0 must be at least 1"),
        ((W, 3, {"groups": 2}), ShapeError, "groups=2 "),
        ((W, 3, {"strides": 2}), TypeError, "unexpected keyword argument 'strides'"),
        ((W, 3, {"padding_mode": "mirror"}), ParameterError, "padding_mode='mirror' must be"),
        ((W, 3, {"padding_mode": "reflect", "padding": 9}), TConvError, "padding"),
        ((W, 3, {"method": "fastest"}), ParameterError, "method='fastest' must be one of"),
        ((np.array([[["a"]]]), 3, {}), DTypeError, "weight has dtype <U1"),
        ((W.astype("longdouble"), 3, {}), TConvError, "dtype"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", [ConvTransposeOperator, ConvOperator])
def test_bad_arguments(kind, given_, error, message):
    weight, size, keywords = given_
    with pytest.raises(error, match=re.escape(message)):
        kind(weight, size, **keywords)


def test_bad_vectors():
    op = ConvTransposeOperator(W, 3)
    with pytest.raises(ValueError, match="dimension mismatch"):
        op @ np.ones(4)
    with pytest.raises(DTypeError, match="x has dtype <U1, must be of numbers"):
        op.matvec(np.array(["a", "b", "c"]))
    with pytest.raises(MemoryLimitError):
        ConvTransposeOperator(W, 3, max_bytes=1) @ np.ones(3)


def test_pylops_is_asked_for_by_name(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "pylops", None)
    monkeypatch.delitem(__import__("sys").modules, "tconv.scipy.pylops", raising=False)
    with pytest.raises(ImportError, match="to_pylops needs PyLops: pip install pylops"):
        ConvTransposeOperator(W, 3).to_pylops()
