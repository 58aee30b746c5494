"""Recovery: what it returns minimises what it says, for any operator, penalty and method."""

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy_operators import circulants, dense, operators

from strategies import draws
from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.scipy import ConvOperator, ConvTransposeOperator, recover

PENALTIES = st.sampled_from(["identity", "gradient"])


def differences(x, op):
    """Of neighbours along each spatial axis, as the penalty takes them."""
    last = x.ndim - (op.geometry.data_format == "channels_last")
    axes = range(last - op.geometry.rank, last)
    if op.padding_mode == "circular":
        return np.stack([np.roll(x, -1, axis) - x for axis in axes])
    parts = []
    for axis in axes:
        ends = np.take(x, [-1], axis)
        parts.append(np.diff(x, axis=axis, append=ends))
    return np.stack(parts)


def of_penalty(op, penalty):
    """The matrix L of a quadratic penalty."""
    columns = np.eye(op.shape[1])
    if penalty == "identity":
        return columns
    return np.stack([differences(each.reshape(op.dims), op).ravel() for each in columns], 1)


def data_of(op, seed):
    rng = np.random.default_rng(seed)
    b = rng.standard_normal(op.dimsd)
    return b + 1j * rng.standard_normal(op.dimsd) if op.dtype.kind == "c" else b


def residual(op, b, x, strength, penalty):
    """Of the normal equations, relative."""
    a, low = dense(op), of_penalty(op, penalty)
    right = a.conj().T @ b.ravel()
    left = a.conj().T @ (a @ x.ravel()) + strength * (low.T @ (low @ x.ravel()))
    return np.linalg.norm(left - right) / max(np.linalg.norm(right), 1e-300)


@draws(0.5)
@given(circulants(), PENALTIES, st.sampled_from([1e-3, 0.1, 10]), st.integers(0, 99))
def test_the_closed_form_solves_the_normal_equations(op, penalty, strength, seed):
    b = data_of(op, seed)
    x = recover(op, b, strength=strength, penalty=penalty, method="fft")
    assert x.shape == op.dims
    assert residual(op, b, x, strength, penalty) < 1e-9
    assert np.array_equal(x, recover(op, b.ravel(), strength=strength, penalty=penalty))


@draws(0.3)
@given(operators(("float64", "complex128")), PENALTIES, st.integers(0, 99))
def test_least_squares_solve_them_for_every_operator(op, penalty, seed):
    op = op.with_weight(
        np.random.default_rng(seed).standard_normal(op.weight.shape) + 0 * op.weight
    )
    b, low = data_of(op, seed), of_penalty(op, penalty)
    values = np.linalg.svd(np.concatenate([dense(op), low]), compute_uv=False)
    if values[-1] > 1e-3 * values[0]:  # else constants are hardly determined
        x = recover(op, b, strength=0.1, penalty=penalty, method="lsmr", steps=5000)
        assert residual(op, b, x, 0.1, penalty) < 1e-6


@draws(0.3)
@given(circulants(), st.integers(0, 99))
def test_no_penalty_gives_the_solution_of_least_norm(op, seed):
    b, a = data_of(op, seed), dense(op)
    values = np.linalg.svd(a, compute_uv=False)
    if values[values > 1e-9].min() < 1e-3 * values[0]:
        return  # the solution is ill determined
    expected = np.linalg.pinv(a, rcond=1e-9) @ b.ravel()
    found = recover(op, b, strength=0)
    assert np.allclose(found.ravel(), expected, atol=1e-8 * max(np.abs(expected).max(), 1))


def test_what_is_determined_is_recovered():
    """Three samples for each cell and no noise: x itself."""
    rng = np.random.default_rng(0)
    op = ConvTransposeOperator(
        rng.standard_normal((2, 3, 5)), 20, stride=2, padding=((1, 2),), padding_mode="circular"
    )
    x = rng.standard_normal(op.dims)
    for method in ("fft", "lsmr"):
        assert np.allclose(recover(op, op @ x.ravel(), strength=0, method=method), x, atol=1e-8)


@pytest.mark.parametrize("mode", ["circular", "zeros"])
@pytest.mark.parametrize("kind", [ConvTransposeOperator, ConvOperator])
def test_total_variation_is_least(kind, mode):
    """No other x, near or far, has a lesser value; a flat x keeps its edges."""
    rng = np.random.default_rng(0)
    w = np.ones((1, 1, 3)) / 3
    op = kind(w, 40, padding=1, padding_mode=mode)
    x = np.repeat([1.0, 4.0, 2.0, 1.0], 10)[None]
    b = (op @ x.ravel()) + 0.05 * rng.standard_normal(40)
    strength = 0.1
    found = recover(op, b, strength=strength, penalty="tv", steps=2000)

    def value(x):
        lengths = np.sqrt((np.abs(differences(x, op)) ** 2).sum(0))
        return np.linalg.norm(op @ x.ravel() - b) ** 2 + strength * lengths.sum()

    least = value(found)
    smooth = recover(op, b, strength=0.01, penalty="gradient")
    for other in (x, smooth, *(found + 0.02 * rng.standard_normal(x.shape) for _ in range(50))):
        assert value(other) > least * 0.999
    assert np.abs(found - x).max() < 0.3
    flat = np.abs(np.diff(found[0])) < 1e-3
    assert flat.sum() > 25


def test_channels_have_their_own_gradients():
    w = np.eye(2)[:, :, None]
    op = ConvOperator(w, 12, padding_mode="circular")
    b = np.stack([np.repeat([0.0, 1.0], 6), np.zeros(12)])
    found = recover(op, b, strength=0.01, penalty="tv")
    assert np.abs(found - b).max() < 0.02


@pytest.mark.parametrize("dtype", ["float32", "complex64"])
def test_single_precision_stays(dtype):
    op = ConvOperator(np.ones((1, 1, 2), dtype), 8, stride=2, padding_mode="circular")
    b = np.arange(4).astype(dtype)[None]
    for penalty in ("identity", "gradient", "tv"):
        assert recover(op, b, strength=0.1, penalty=penalty).dtype == dtype
    assert recover(op, b.real.astype("float64"), strength=0.1).dtype != dtype


def test_few_steps_are_taken_without_a_word():
    op = ConvOperator(np.ones((1, 1, 5)), 50, padding=2)
    b = np.random.default_rng(0).standard_normal(op.dimsd)
    first = recover(op, b, strength=1e-6, method="lsmr", steps=1)
    assert first.shape == op.dims


OP = ConvOperator(np.ones((1, 1, 3)), 8)


@pytest.mark.parametrize(
    ("given_", "error", "message"),
    [
        ({"op": np.eye(3)}, ParameterError, "op=array"),
        ({"b": np.ones(7)}, ShapeError,
         "b has shape (7,), must have shape (1, 6) or (6,), as the operator returns; pass such an "
         "array."),
        ({"b": np.array(["a"] * 6)}, DTypeError, "b has dtype <U1, must be of numbers"),
        ({"b": np.full(6, np.nan)}, ParameterError, "b holds infinities or NaN, must be finite"),
        ({"strength": -1}, ParameterError, "strength=-1 must be"),
        ({"strength": np.nan}, ParameterError, "strength=nan must be"),
        ({"penalty": "l1"}, ParameterError, "penalty='l1' must be one of 'identity'"),
        ({"method": "exact"}, ParameterError, "method='exact' must be one of 'auto'"),
        ({"method": "fft"}, ParameterError,
         'method="fft" needs an operator that is circular, with sizes whose ratio is the stride'),
        ({"steps": 0}, ParameterError, "steps=0 must be at least 1"),
    ],
)  # fmt: skip
def test_bad_arguments(given_, error, message):
    arguments = {"op": OP, "b": np.ones(6), "strength": 0.1} | given_
    op, b = arguments.pop("op"), arguments.pop("b")
    with pytest.raises(error, match=re.escape(message)):
        recover(op, b, **arguments)
