"""JAX arrays on the portable path: jit, grad and vmap, with and without 64 bits."""

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from jax.test_util import check_grads

import tconv
from strategies import (
    draws,
    framed,
    geometries,
    integer_operands,
    integers_like,
    keywords_of,
    padded_calls,
    same_numbers,
)
from tconv.arrays.dtypes import TYPES
from tconv.errors import DTypeError, ParameterError

MODES = ["zeros", "circular", "reflect", "replicate"]


@pytest.fixture(autouse=True)
def _64_bits():
    with jax.enable_x64(True):
        yield


@pytest.fixture
def only_32_bits():
    with jax.enable_x64(False):
        yield


def random(*shapes, dtype="float64"):
    rng = np.random.default_rng(0)
    return [jnp.asarray(rng.standard_normal(shape).astype(dtype)) for shape in shapes]


# Every new shape is compiled anew for every function, which takes JAX most of the time.
@draws(0.05)
@given(geometries(ranks=(1, 2)))
def test_jit_and_grad_are_numpys_call_and_pullback(geometry):
    x, w, dy = integer_operands(geometry)
    bias = integers_like((geometry.out_channels,), seed=1)
    keywords = keywords_of(geometry)

    @jax.jit
    def function(x, w, bias):
        y = tconv.conv_transpose(x, w, bias, **keywords)
        return jnp.sum(y * dy), y

    (_, y), gradients = jax.value_and_grad(function, (0, 1, 2), has_aux=True)(x, w, bias)
    expected, pullback = tconv.conv_transpose_vjp(x, w, bias, **keywords)
    assert same_numbers(y, expected)
    for found, pulled in zip(gradients, pullback(dy), strict=True):
        assert same_numbers(found, pulled)


@draws(0.03)
@given(padded_calls())
def test_padding_modes_are_numpys_under_jit_and_grad(case):
    geometry, keywords = case
    x, w, dy = integer_operands(geometry)

    @jax.jit
    def energy(x, w):
        return jnp.sum(tconv.conv_transpose(x, w, **keywords) * dy)

    gradients = jax.grad(energy, (0, 1))(x, w)
    y, pullback = tconv.conv_transpose_vjp(x, w, **keywords)
    assert float(energy(x, w)) == np.sum(y * dy)
    for found, pulled in zip(gradients, pullback(dy)[:2], strict=True):
        assert same_numbers(found, pulled)


@pytest.mark.parametrize("mode", MODES)
def test_vmap_is_a_loop(mode):
    x, w = random((4, 2, 3, 5), (4, 3, 2, 3))

    def function(x, w):
        return tconv.conv_transpose(x, w, stride=2, padding=1, padding_mode=mode)

    for axes in ((0, 0), (0, None), (None, 0)):
        operands = [v if axis == 0 else v[0] for v, axis in zip((x, w), axes, strict=True)]
        samples = [[v] * 4 if axis is None else v for v, axis in zip(operands, axes, strict=True)]
        expected = jnp.stack([function(*sample) for sample in zip(*samples, strict=True)])
        np.testing.assert_allclose(jax.vmap(function, axes)(*operands), expected)


@pytest.mark.parametrize("mode", MODES)
def test_derivatives_of_derivatives(mode):
    x, w = random((2, 2, 4), (2, 3, 3))

    def function(x, w):
        return tconv.conv_transpose(x, w, stride=2, padding=1, padding_mode=mode)

    check_grads(function, (x, w), order=2, modes=("fwd", "rev"))


def test_the_other_operations_under_jit():
    x, w, y = random((2, 4, 5), (4, 3, 3), (2, 3, 9))
    keywords = {"stride": 2, "padding": 1}
    conv = jax.jit(lambda y, w: tconv.conv(y, w, **keywords))
    np.testing.assert_allclose(conv(y, w), tconv.conv(*map(np.asarray, (y, w)), **keywords))
    gradient = jax.jit(lambda x, y: tconv.conv_weight_gradient(x, y, 3, **keywords))
    expected = tconv.conv_weight_gradient(*map(np.asarray, (x, y)), 3, **keywords)
    np.testing.assert_allclose(gradient(x, y), expected)
    found, pullback = tconv.conv_transpose_vjp(x, w, **keywords)
    assert all(isinstance(v, jax.Array) for v in (found, *pullback(found)[:2]))
    assert tconv.check_adjoint(w, (2, 4, 5), **keywords) < 1e-13
    assert tconv.gradcheck(x, w, **keywords) < 1e-9


@pytest.mark.parametrize("dtype", TYPES)
def test_every_type_has_its_result(dtype):
    kind = ml_dtypes.bfloat16 if dtype == "bfloat16" else dtype
    x, w = jnp.ones((1, 2, 3), kind), jnp.ones((2, 2, 2), kind)
    y = tconv.conv_transpose(x, w)
    for found in (y, tconv.conv(x, w), tconv.conv_weight_gradient(x, x, 1)):
        assert isinstance(found, jax.Array)
        assert found.dtype.name == TYPES[dtype].result
    assert y.tolist() == [[[2, 4, 4, 2]] * 2]


def test_out_cannot_be_written_to():
    x = jnp.ones((1, 1, 2))
    with pytest.raises(ParameterError, match="out must be writable, JAX arrays are not; leave"):
        tconv.conv_transpose(x, x, out=jnp.zeros((1, 1, 3)))
    out, _ = framed(np.zeros((1, 1, 3)), np.nan)
    with pytest.raises(DTypeError, match="out must be an array of the operands' library, not nd"):
        tconv.conv_transpose(x, x, out=out)


def test_libraries_are_not_mixed():
    x = jnp.ones((1, 1, 2))
    with pytest.raises(DTypeError, match="x is an array of jax but weight of numpy; convert one"):
        tconv.conv_transpose(x, np.ones((1, 1, 2)))


# ---- integers and 32 bits ------------------------------------------------------------------------


def test_integers_under_jit_say_why_not():
    x = jnp.ones((1, 1, 2), jnp.int8)
    with pytest.raises(
        DTypeError, match="are checked for overflow, which takes their values; call"
    ):
        jax.jit(tconv.conv_transpose)(x, x)
    y = jax.jit(lambda x: tconv.conv_transpose(x, x, dtype="float32"))(x)
    assert y.dtype == jnp.float32
    assert y.tolist() == [[[1, 2, 1]]]


def test_integers_are_exact_beyond_floats():
    x = jnp.full((1, 1, 2), 2**31 + 1)
    y = tconv.conv_transpose(x, jnp.full((1, 1, 1), 2**31 - 1))
    assert y.tolist() == [[[2**62 - 1] * 2]]
    with pytest.raises(DTypeError, match="beyond int64's"):
        tconv.conv_transpose(x, x + x)


@pytest.mark.usefixtures("only_32_bits")
class TestWithout64Bits:
    """JAX's default: a type of 64 bits quietly becomes one of 32. Not here."""

    @pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "complex64"])
    def test_types_of_32_bits_work(self, dtype):
        x, w = jnp.ones((1, 2, 3), dtype), jnp.ones((2, 2, 2), dtype)
        for mode in MODES:
            y = tconv.conv_transpose(x, w, padding=1, stride=2, padding_mode=mode)
            assert y.dtype.name == dtype
        assert tconv.conv_transpose(x, w).tolist() == [[[2, 4, 4, 2]] * 2]

    @pytest.mark.parametrize("dtype", ["int8", "uint8"])
    def test_small_integers_are_exact(self, dtype):
        largest = np.iinfo(dtype).max
        for channels in (1, 2000):  # sums beyond what float32 holds
            x = jnp.full((1, channels, 1), largest, dtype)
            y = tconv.conv_transpose(x, jnp.full((channels, 1, 1), largest, dtype))
            assert y.dtype == jnp.int32
            assert y.item() == channels * largest**2

    @pytest.mark.parametrize("dtype", ["int16", "uint16", "int32", "uint32"])
    def test_integers_that_need_64_bits_are_refused(self, dtype):
        x = jnp.ones((1, 1, 2), dtype)
        with pytest.raises(
            DTypeError, match='JAX has no type "int64" unless jax_enable_x64 is set'
        ):
            tconv.conv_transpose(x, x)
        y = tconv.conv_transpose(x, x, dtype="float32")
        assert y.tolist() == [[[1, 2, 1]]]

    @pytest.mark.parametrize("dtype", ["float64", "complex128", "int64"])
    def test_a_conversion_to_64_bits_is_refused(self, dtype):
        x = jnp.ones((1, 1, 2), "int8")
        with pytest.raises(
            DTypeError, match=f'^JAX has no type "{dtype}" unless jax_enable_x64 is'
        ):
            tconv.conv_transpose(x, x, dtype=dtype)

    def test_checks_work(self):
        x, w = random((1, 2, 3), (2, 2, 2), dtype="float32")
        assert tconv.check_adjoint(w, (1, 2, 3)) < 1e-5
        assert tconv.gradcheck(x, w) < 1e-9


@pytest.mark.parametrize("dtype", ["float32", "complex64", "complex128"])
def test_conv_is_the_transpose_that_jax_pulls_back_by_and_conjugated_the_adjoint(dtype):
    x, w, y = (
        jnp.asarray(integers_like(shape, dtype, n))
        for n, shape in enumerate([(1, 2, 5), (2, 3, 4), (1, 3, 12)])
    )
    _, pull_back = jax.vjp(lambda x: tconv.conv_transpose(x, w, stride=2), x)
    assert same_numbers(tconv.conv(y, w, stride=2), pull_back(y)[0])
    adjoint = tconv.conv(y, w, conjugate=True, stride=2)
    assert same_numbers(adjoint, pull_back(y.conj())[0].conj())
    assert tconv.check_adjoint(w, (1, 2, 5), conjugate=True, stride=2) < 1e-5
