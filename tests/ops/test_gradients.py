"""Derivatives are the other two letters of the form, and their checks can fail."""

import array_api_strict
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.sparse import linalg

from strategies import (
    draws,
    geometries,
    integer_operands,
    integers_like,
    keywords_of,
    padded_calls,
    same_numbers,
)
from tconv.errors import DTypeError, MemoryLimitError, ParameterError
from tconv.ops import gradients
from tconv.ops.functional import conv, conv_transpose, conv_weight_gradient
from tconv.ops.gradients import check_adjoint, conv_transpose_jvp, conv_transpose_vjp, gradcheck
from tconv.ops.planned_call import plan


def with_bias(geometry, dtype="float64"):
    """x, weight, bias, dy, and a direction for each of the first three."""
    x, w, dy = integer_operands(geometry, dtype)
    bias = integers_like((geometry.out_channels,), dtype, seed=5)
    directions = [
        integers_like(v.shape, dtype, seed) for seed, v in enumerate((x, w, bias), start=11)
    ]
    return (x, w, bias), dy, tuple(directions)


@draws()
@given(geometries())
def test_vjp_and_jvp_are_each_others_transpose(geometry):
    primals, dy, directions = with_bias(geometry)
    y, pullback = conv_transpose_vjp(*primals, **keywords_of(geometry))
    again, change = conv_transpose_jvp(primals, directions, **keywords_of(geometry))
    assert same_numbers(y, again)
    assert same_numbers(y, conv_transpose(*primals, **keywords_of(geometry)))
    pulled = pullback(dy)
    assert [v.shape for v in pulled] == [v.shape for v in primals]
    energy = sum(np.sum(a * b) for a, b in zip(pulled, directions, strict=True))
    assert np.sum(change * dy) == energy


@draws(0.4)
@given(padded_calls())
def test_vjp_and_jvp_are_each_others_transpose_under_a_padding_mode(case):
    geometry, keywords = case
    primals, dy, directions = with_bias(geometry)
    _, pullback = conv_transpose_vjp(*primals, **keywords)
    _, change = conv_transpose_jvp(primals, directions, **keywords)
    energy = sum(np.sum(a * b) for a, b in zip(pullback(dy), directions, strict=True))
    assert np.sum(change * dy) == energy


@draws(0.4)
@given(geometries())
def test_jvp_is_the_difference(geometry):
    """The function is bilinear: a step changes it by dy and one term of second order."""
    primals, _, directions = with_bias(geometry)
    keywords = keywords_of(geometry)
    y, change = conv_transpose_jvp(primals, directions, **keywords)
    moved = [a + b for a, b in zip(primals, directions, strict=True)]
    second = conv_transpose(*directions[:2], **keywords)
    assert same_numbers(conv_transpose(*moved, **keywords), y + change + second)


@draws(0.4)
@given(geometries())
def test_jvp_leaves_out_what_does_not_change(geometry):
    primals, _, directions = with_bias(geometry)
    keywords = keywords_of(geometry)
    _, whole = conv_transpose_jvp(primals, directions, **keywords)
    parts = []
    for n in range(3):
        tangents = [v if n == k else None for k, v in enumerate(directions)]
        parts.append(conv_transpose_jvp(primals, tuple(tangents), **keywords)[1])
    assert same_numbers(sum(parts), whole)
    assert not conv_transpose_jvp(primals, (None, None, None), **keywords)[1].any()
    last = geometry.data_format == "channels_last"
    everywhere = directions[2] if last else directions[2].reshape(-1, *[1] * geometry.rank)
    assert same_numbers(parts[2], np.broadcast_to(everywhere, whole.shape))


@draws(0.4)
@given(geometries())
def test_second_derivatives_are_the_form_again(geometry):
    """Pulling dy back is bilinear in (dy, w) and (x, dy); its transposes are the three letters."""
    (x, w, _), dy, (ddx, ddw, _) = with_bias(geometry)
    keywords = keywords_of(geometry)
    backwards = keywords | {"output_padding": 0, "input_size": geometry.input_size}
    kernel = geometry.kernel_size

    def energy_of_dx(dy, w):
        return np.sum(conv(dy, w, **backwards) * ddx)

    def energy_of_dw(x, dy):
        return np.sum(conv_weight_gradient(x, dy, kernel, **keywords) * ddw)

    assert energy_of_dx(dy, w) == np.sum(conv_transpose(ddx, w, **keywords) * dy)
    assert energy_of_dx(dy, w) == np.sum(conv_weight_gradient(ddx, dy, kernel, **keywords) * w)
    assert energy_of_dw(x, dy) == np.sum(conv_transpose(x, ddw, **keywords) * dy)
    assert energy_of_dw(x, dy) == np.sum(conv(dy, ddw, **backwards) * x)


@draws(0.1)
@given(geometries(ranks=(1, 2), batches=(1, 2)))
def test_gradcheck_in_float64(geometry):
    rng = np.random.default_rng(0)
    primals, _, _ = with_bias(geometry)
    primals = [rng.standard_normal(v.shape) for v in primals]
    assert gradcheck(*primals, limit=8, **keywords_of(geometry)) < 1e-9
    assert gradcheck(*primals[:2], limit=8, **keywords_of(geometry)) < 1e-9


@draws(0.1)
@given(padded_calls())
def test_gradcheck_under_a_padding_mode(case):
    geometry, keywords = case
    rng = np.random.default_rng(0)
    x, w, _ = (rng.standard_normal(v.shape) for v in integer_operands(geometry))
    assert gradcheck(x, w, limit=8, **keywords) < 1e-9


def test_gradcheck_converts_to_float64():
    x, w = np.ones((1, 2, 4)), np.ones((2, 1, 3))
    for dtype in ("float16", "float32", "int8"):
        assert gradcheck(x.astype(dtype), w.astype(dtype), stride=2) < 1e-9
    assert gradcheck(x > 0, w > 0, dtype="float32") < 1e-9
    assert gradcheck(x, w, rng=np.random.default_rng(3)) < 1e-9


@pytest.mark.parametrize("n", [0, 1, 2])
def test_gradcheck_finds_a_wrong_gradient(monkeypatch, n):
    def wrong(*primals, **keywords):
        y, pullback = conv_transpose_vjp(*primals, **keywords)

        def crooked(dy):
            gradients = list(pullback(dy))
            gradients[n] = gradients[n] * 1.001
            return gradients

        return y, crooked

    monkeypatch.setattr(gradients, "conv_transpose_vjp", wrong)
    rng = np.random.default_rng(0)
    x, w, bias = (rng.standard_normal(shape) for shape in ((1, 2, 4), (2, 3, 2), (3,)))
    assert gradcheck(x, w, bias) > 1e-4


# ---- check_adjoint -------------------------------------------------------------------------------


@draws(0.2)
@given(geometries())
def test_check_adjoint_finds_no_gap(geometry):
    keywords = keywords_of(geometry)
    for dtype, most in (
        ("int32", 0),
        ("uint8", 0),
        ("float32", 1e-5),
        ("float64", 1e-13),
        ("complex128", 1e-13),
    ):
        w = integers_like(geometry.weight_shape, dtype)
        assert check_adjoint(w, geometry.x_shape, **keywords) <= most


@draws(0.2)
@given(padded_calls())
def test_check_adjoint_finds_no_gap_under_a_padding_mode(case):
    geometry, keywords = case
    w = integers_like(geometry.weight_shape, "int16")
    assert check_adjoint(w, geometry.x_shape, **keywords, rng=7) == 0


def sizes_of_conv(geometry):
    """The keywords that say a geometry to `conv`."""
    return keywords_of(geometry) | {"output_padding": 0, "input_size": geometry.input_size}


@draws(0.5)
@given(geometries(), st.sampled_from(["complex64", "complex128"]))
def test_conv_is_the_transpose_and_conjugated_the_adjoint(geometry, dtype):
    """By small integers, so exactly: the bilinear form has one value, the inner product another."""
    keywords = keywords_of(geometry)
    x, w, y = integer_operands(geometry, dtype)
    there, size = conv_transpose(x, w, **keywords), sizes_of_conv(geometry)
    back, adjoint = (conv(y, w, conjugate=each, **size) for each in (False, np.True_))
    assert np.sum(there * y) == np.sum(x * back)
    assert np.vdot(y, there) == np.vdot(adjoint, x)
    assert same_numbers(adjoint, conv(y, w.conj(), **size))
    planned = plan(geometry.x_shape, geometry.weight_shape, want="x", dtype=dtype, **keywords)
    assert same_numbers(planned(y, planned.pack(w.conj())), adjoint)


@draws(0.3)
@given(geometries(), st.sampled_from(["float32", "float64", "int32", "float16"]))
def test_of_real_numbers_the_two_are_the_same(geometry, dtype):
    _, w, y = integer_operands(geometry, dtype)
    for _ in range(2):  # also where such a call is remembered
        plain, adjoint = (
            conv(y, w, conjugate=each, **sizes_of_conv(geometry)) for each in (False, True)
        )
        assert same_numbers(plain, adjoint)


def test_any_array_library_has_both():
    y, w = integers_like((1, 3, 7), "complex64", 1), integers_like((2, 3, 3), "complex64", 2)
    strict = (array_api_strict.asarray(each) for each in (y, w))
    found = conv(*strict, conjugate=True, stride=2)
    assert same_numbers(found, conv(y, w.conj(), stride=2))
    assert check_adjoint(array_api_strict.asarray(w), (1, 2, 5), conjugate=True) < 1e-6


@draws(0.2)
@given(geometries(), st.booleans())
def test_check_adjoint_knows_both_of_complex_numbers(geometry, conjugate):
    keywords = keywords_of(geometry)
    w = integers_like(geometry.weight_shape, "complex128")
    assert check_adjoint(w, geometry.x_shape, conjugate=conjugate, **keywords) <= 1e-13


@pytest.mark.parametrize("conjugate", [False, True])
def test_check_adjoint_takes_neither_for_the_other(conjugate, monkeypatch):
    original = gradients.solve_for

    def other(want, geometry, a, b, *rest):
        return original(want, geometry, a, b.conj() if want == "x" else b, *rest)

    monkeypatch.setattr(gradients, "solve_for", other)
    w = integers_like((2, 3, 4), "complex128")
    assert check_adjoint(w, (1, 2, 5), conjugate=conjugate) > 1e-2


@pytest.mark.parametrize("conjugate", ["yes", 1, None])
def test_conjugate_is_a_flag(conjugate):
    x = np.ones((1, 1, 3))
    for _ in range(2):
        with pytest.raises(ParameterError, match=r"^conjugate=.* must be True or False"):
            conv(x, x, conjugate=conjugate)
        with pytest.raises(ParameterError, match=r"^conjugate=.* must be True or False"):
            check_adjoint(x, (1, 1, 3), conjugate=conjugate)


def test_out_of_the_adjoint_must_not_overlap_the_weight():
    memory = np.ones(6, complex)
    y, w, out = np.ones((1, 1, 3), complex), memory[:3].reshape(1, 1, 3), memory[2:3]
    with pytest.raises(ParameterError, match="out must not overlap an operand"):
        conv(y, w, conjugate=True, out=out.reshape(1, 1, 1))
    out = memory[3:4].reshape(1, 1, 1)
    assert conv(y, w * 1j, conjugate=True, out=out) is out
    assert out.item() == -3j


def test_a_solver_of_least_squares_recovers_what_went_in():
    """SciPy's, which asks for the adjoint."""
    rng = np.random.default_rng(0)
    how = {"stride": 2, "padding": 1}
    x_shape, w_shape = (1, 2, 6, 5), (2, 3, 4, 4)
    x, w = (
        rng.standard_normal(shape) + 1j * rng.standard_normal(shape) for shape in (x_shape, w_shape)
    )
    y = conv_transpose(x, w, **how)

    def operator(conjugate):
        return linalg.LinearOperator(
            (y.size, x.size),
            matvec=lambda v: conv_transpose(v.reshape(x_shape), w, **how).ravel(),
            rmatvec=lambda v: conv(v.reshape(y.shape), w, conjugate=conjugate, **how).ravel(),
            dtype=complex,
        )

    errors = []
    for conjugate in (True, False):
        found = linalg.lsqr(operator(conjugate), y.ravel(), atol=1e-13, btol=1e-13, iter_lim=400)[0]
        errors.append(np.abs(found - x.ravel()).max())
    assert errors[0] < 1e-8
    assert not errors[1] < 1e-2  # by the transpose it does not


def test_check_adjoint_finds_a_gap(monkeypatch):
    original = gradients.solve_for

    def wrong(want, *rest):
        return original(want, *rest) * (1.01 if want == "x" else 1)

    monkeypatch.setattr(gradients, "solve_for", wrong)
    assert check_adjoint(np.ones((2, 3, 4)), (1, 2, 5)) > 1e-4


def test_check_adjoint_draws_nothing_that_does_not_fit():
    w = np.ones((1, 1, 3))
    for x_shape, keywords in (
        ((1, 1, 2**45), {}),
        ((1, 1, 2), {"stride": 2**45}),
        ((1, 1, 2**45), {"padding": ((2**45 - 9, 0),)}),
    ):
        with pytest.raises(MemoryLimitError):
            check_adjoint(w, x_shape, **keywords)


# ---- types ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_the_halves_are_added_up_in_float32_and_rounded_once(dtype):
    shapes = (1, 5, 9), (5, 3, 4), (3,)
    primals, directions = (
        tuple((integers_like(s, seed=seed + n) * 7 / 4).astype(dtype) for n, s in enumerate(shapes))
        for seed in (0, 10)
    )
    wide = [tuple(v.astype(np.float64) for v in each) for each in (primals, directions)]
    for found, exact in zip(
        conv_transpose_jvp(primals, directions, stride=2),
        conv_transpose_jvp(*wide, stride=2),
        strict=True,
    ):
        assert found.dtype == dtype
        assert same_numbers(found, exact.astype(np.float32).astype(dtype))
    dy = (integers_like((1, 3, 20), seed=20) * 7 / 4).astype(dtype)
    _, pullback = conv_transpose_vjp(*primals, stride=2)
    _, exactly = conv_transpose_vjp(*wide[0], stride=2)
    for found, exact in zip(pullback(dy), exactly(dy.astype(np.float64)), strict=True):
        assert found.dtype == dtype
        assert same_numbers(found, exact.astype(np.float32).astype(dtype))


def test_complex_gradients_are_not_conjugated():
    shapes = (1, 1, 2), (1, 1, 1), (1, 1, 2)
    x, w, dy = (integers_like(shape, "complex128", n) for n, shape in enumerate(shapes))
    _, pullback = conv_transpose_vjp(x, w)
    dx, dw, _ = pullback(dy)
    assert same_numbers(dx, dy * w.item())
    assert dw.item() == np.sum(x * dy)


def test_an_infinite_x_does_not_spoil_the_derivative_of_the_bias():
    x, w, bias = np.full((1, 1, 2), np.inf), np.ones((1, 1, 1)), np.ones(1)
    _, change = conv_transpose_jvp((x, w, bias), (None, None, bias))
    assert change.tolist() == [[[1, 1]]]


def test_integers_have_no_derivative():
    x = np.ones((1, 1, 2), int)
    for call in (
        lambda: conv_transpose_vjp(x, x),
        lambda: conv_transpose_jvp((x, x), (x, x)),
    ):
        with pytest.raises(
            DTypeError, match="gradients need a floating or complex type; pass dtype"
        ):
            call()
    _, pullback = conv_transpose_vjp(x, x, dtype="float64")
    assert pullback(np.ones((1, 1, 3)))[0].tolist() == [[[2, 2]]]


def test_any_array_library_has_derivatives():
    x, w, bias = (array_api_strict.ones(shape) for shape in ((1, 2, 3), (2, 1, 2), (1,)))
    y, pullback = conv_transpose_vjp(x, w, bias, stride=2)
    for found, like in zip(pullback(y), (x, w, bias), strict=True):
        assert isinstance(found, type(x))
        assert found.shape == like.shape
    _, change = conv_transpose_jvp((x, w, bias), (x, None, bias), stride=2)
    assert isinstance(change, type(x))
    assert np.asarray(change).tolist() == np.asarray(y).tolist()
    assert gradcheck(x, w, bias, stride=2) < 1e-9
    assert check_adjoint(w, (1, 2, 3)) < 1e-13


def test_the_first_call_may_write_to_out_and_pulling_back_may_not():
    x, w, out = np.ones((1, 1, 2)), np.ones((1, 1, 1)), np.zeros((1, 1, 2))
    y, pullback = conv_transpose_vjp(x, w, out=out)
    assert y is out
    dx, _, dbias = pullback(np.full((1, 1, 2), 3.0))
    assert dx.tolist() == [[[3, 3]]]
    assert dbias is None
    assert out.tolist() == [[[1, 1]]]
