"""Upsampling and its adjoint: equal to the formula of the docstring, on random arrays and axes."""

from fractions import Fraction

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tconv
from strategies import draws, integers_like
from tconv import downsample, upsample

KERNELS = ("nearest", "linear", "cubic", "lanczos3")
kernels = st.sampled_from(KERNELS)
TOLERANCES = {"float32": 2e-6, "float64": 1e-13, "complex64": 2e-6, "complex128": 1e-13}


def value_of(kernel, d):
    """The kernel at a distance, as the literature writes it."""
    d = abs(d)
    if kernel == "nearest":
        return 1.0 if d < Fraction(1, 2) else 0.0
    if kernel == "linear":
        return max(0.0, float(1 - d))
    if kernel == "cubic":
        a = Fraction(-1, 2)
        near, far = (a + 2) * d**3 - (a + 3) * d**2 + 1, a * (d**3 - 5 * d**2 + 8 * d - 4)
        return float(near if d < 1 else far if d < 2 else 0)
    if d == 0:
        return 1.0
    angle = np.pi * float(d)
    return 3 * np.sin(angle) * np.sin(angle / 3) / angle**2 if d < 3 else 0.0


def matrix(kernel, n, s):
    """Values of the kernel: a row for each cell of the large array."""
    places = [(o + Fraction(1, 2)) / s - Fraction(1, 2) for o in range(n * s)]
    return np.array([[value_of(kernel, u - i) for i in range(n)] for u in places])


def along(matrices, array):
    """A matrix along each axis; None leaves the axis as it is."""
    for axis, m in enumerate(matrices):
        if m is not None:
            array = np.moveaxis(np.tensordot(m, array, (1, axis)), 0, axis)
    return array


@st.composite
def calls(draw):
    """A shape, axes and their scales."""
    shape = draw(st.lists(st.integers(1, 9), min_size=1, max_size=4))
    axes = draw(st.lists(st.sampled_from(range(len(shape))), unique=True))
    scales = draw(st.lists(st.integers(1, 5), min_size=len(axes), max_size=len(axes)))
    return tuple(shape), tuple(axes), tuple(scales)


def large(shape, axes, scales):
    sizes = list(shape)
    for axis, s in zip(axes, scales, strict=True):
        sizes[axis] *= s
    return tuple(sizes)


def matrices(kernel, shape, axes, scales, how):
    found = [None] * len(shape)
    for axis, s in zip(axes, scales, strict=True):
        found[axis] = how(matrix(kernel, shape[axis], s))
    return found


def drawn(shape, dtype, seed):
    rng = np.random.default_rng(seed)
    values = rng.standard_normal(shape)
    if np.dtype(dtype).kind == "c":
        values = values + 1j * rng.standard_normal(shape)
    return values.astype(dtype)


# ---- the definition ------------------------------------------------------------------------------


@given(calls(), kernels, st.sampled_from(sorted(TOLERANCES)))
@draws(3)
def test_upsample_equals_the_definition(call, kernel, dtype):
    shape, axes, scales = call
    x = drawn(shape, dtype, 1)
    y = upsample(x, scales, kernel, axes=axes)
    wide = x.astype("complex128" if x.dtype.kind == "c" else "float64")
    rows = matrices(kernel, *call, lambda m: m / m.sum(1, keepdims=True))
    assert y.shape == large(*call)
    assert y.dtype == x.dtype
    np.testing.assert_allclose(y, along(rows, wide), rtol=0, atol=9 * TOLERANCES[dtype])
    assert not np.shares_memory(x, y)


@given(calls(), kernels, st.sampled_from(sorted(TOLERANCES)))
@draws(3)
def test_downsample_equals_the_definition(call, kernel, dtype):
    y = drawn(large(*call), dtype, 1)
    before = y.copy()
    x = downsample(y, call[2], kernel, axes=call[1])
    wide = y.astype("complex128" if y.dtype.kind == "c" else "float64")
    rows = matrices(kernel, *call, lambda m: (m / m.sum(0)).T)
    assert x.shape == call[0]
    assert x.dtype == y.dtype
    np.testing.assert_allclose(x, along(rows, wide), rtol=0, atol=9 * TOLERANCES[dtype])
    assert not np.shares_memory(x, y)
    assert (y == before).all()


@given(calls(), kernels, st.sampled_from(["float64", "complex128"]))
@draws(3)
def test_the_adjoint_gives_the_same_inner_product(call, kernel, dtype):
    x, v = drawn(call[0], dtype, 1), drawn(large(*call), dtype, 2)
    before = v.copy()
    y = upsample(x, call[2], kernel, axes=call[1])
    back = downsample(v, call[2], kernel, axes=call[1], adjoint=True)
    size = np.linalg.norm(y) * np.linalg.norm(v)
    assert abs(np.vdot(v, y) - np.vdot(back, x)) <= 1e-12 * size
    assert (v == before).all()


@pytest.mark.parametrize("kernel", KERNELS[:3])
@pytest.mark.parametrize("s", [2, 3])
def test_far_from_borders_the_adjoint_is_scale_times_the_mean(kernel, s):
    y = drawn((20 * s,), "float64", 1)
    both = downsample(y, s, kernel, adjoint=True), s * downsample(y, s, kernel)
    np.testing.assert_allclose(both[0][3:-3], both[1][3:-3], atol=1e-13)


# ---- laws ----------------------------------------------------------------------------------------


@given(calls(), kernels, st.sampled_from(["float32", "float64", "uint8", "int32"]))
def test_a_constant_stays_constant(call, kernel, dtype):
    shape, axes, scales = call
    x, y = np.full(shape, 100, dtype), np.full(large(*call), 100, dtype)
    tolerance = 2e-4 if dtype == "float32" else 1e-11
    for found, size in (
        (upsample(x, scales, kernel, axes=axes), y.shape),
        (downsample(y, scales, kernel, axes=axes), shape),
    ):
        assert found.shape == size
        assert abs(found.astype(float) - 100).max() <= (
            0 if dtype in ("uint8", "int32") else tolerance
        )


@given(st.integers(2, 6), st.sampled_from(["linear", "cubic"]))
def test_a_ramp_stays_a_ramp_in_the_interior(s, kernel):
    y = upsample(np.arange(12.0), s, kernel)
    places = (np.arange(12 * s) + 0.5) / s - 0.5
    inner = slice(2 * s, -2 * s)
    np.testing.assert_allclose(y[inner], places[inner], atol=1e-13)


@given(calls(), st.sampled_from(["float32", "complex64", "int64", "uint64", "bool", "bfloat16"]))
def test_nearest_repeats_bit_by_bit(call, dtype):
    shape, axes, scales = call
    bits = np.random.default_rng(1).integers(0, 256, (*shape, 16), np.uint8)
    x = bits[..., 0] > 99 if dtype == "bool" else bits.view(dtype)[..., 0]
    repeated = x
    for axis, s in zip(axes, scales, strict=True):
        repeated = np.repeat(repeated, s, axis)
    y = upsample(x, scales, "nearest", axes=axes)
    assert y.dtype == x.dtype
    assert y.tobytes() == repeated.tobytes()
    assert not np.shares_memory(x, y)


@given(kernels, st.integers(1, 5), st.sampled_from([(), (3,), (20,)]))
def test_a_shift_by_one_cell_shifts_the_result_by_scale(kernel, s, behind):
    x = drawn((30, *behind), "float32", 1)
    y = upsample(x, s, kernel, axes=0)
    shifted = upsample(x[1:], s, kernel, axes=0)
    inner = slice(3 * s, -3 * s)
    assert (y[s:][inner] == shifted[inner]).all()


@given(kernels, st.integers(1, 4), st.sampled_from([(7, 6), (6, 5, 3)]))
def test_layout_and_threads_change_no_bit(kernel, s, shape):
    x = drawn(shape, "float32", 1)
    y = upsample(x, s, kernel, axes=(0, 1))
    strided = np.repeat(np.repeat(x, 2, 0), 3, 1)[::2, ::3]
    for same in (np.asfortranarray(x), strided, x.astype(">f4"), x.view(np.recarray)):
        assert (upsample(same, s, kernel, axes=(0, 1)) == y).all()
    assert (upsample(x, s, kernel, axes=(1, -x.ndim)) == y).all()
    assert (upsample(x, (s,), kernel, axes=[0, 1], threads=1) == y).all()
    x.flags.writeable = False
    assert (downsample(x, 1, kernel) == x).all()


@given(kernels, st.integers(1, 5), st.sampled_from([(), (3,), (20,)]), st.integers(0, 19))
def test_nan_reaches_the_cells_within_the_kernel(kernel, s, behind, cell):
    x = np.ones((20, *behind))
    x[cell] = np.nan
    reach = {"nearest": 0.5, "linear": 1, "cubic": 2, "lanczos3": 3}[kernel] if s > 1 else 0.5
    places = (np.arange(20 * s) + 0.5) / s - 0.5
    within = abs(places - cell) < reach - 1e-9
    found = np.isnan(upsample(x, s, kernel, axes=0)).reshape(20 * s, -1)
    assert (found == within[:, np.newaxis]).all()


# ---- types ---------------------------------------------------------------------------------------


@given(calls(), kernels, st.sampled_from(["int8", "uint8", "int16", "uint16", "int32", "uint32"]))
@draws(2)
def test_integers_are_rounded_and_clipped(call, kernel, dtype):
    shape, axes, scales = call
    info = np.iinfo(dtype)
    x = np.random.default_rng(1).choice([info.min, info.max, info.max // 3], shape).astype(dtype)
    rows = matrices(kernel, *call, lambda m: m / m.sum(1, keepdims=True))
    exact = along(rows, x.astype("float64"))
    y = upsample(x, scales, kernel, axes=axes)
    assert y.dtype == x.dtype
    error = np.abs(y.astype("float64") - np.clip(exact, info.min, info.max)).max()
    assert error <= 0.5 + 1e-3


def test_halves_go_to_even_and_overshoot_is_clipped():
    assert upsample(np.array([0, 2], np.uint8), 2).tolist() == [0, 0, 2, 2]  # 0.5 and 1.5
    edge = np.array([0, 0, 255, 255], np.uint8)
    assert upsample(edge, 2, "cubic").tolist() == [0, 0, 0, 52, 203, 255, 255, 255]
    assert downsample(np.array([1, 2, 3, 4], np.int16), 2, "nearest").tolist() == [2, 4]


@pytest.mark.parametrize("dtype", ["int64", "uint64"])
def test_integers_that_float64_rounds_are_refused(dtype):
    most = np.array([2**53, 2**53], dtype)
    assert (upsample(most, 2) == 2**53).all()
    with pytest.raises(tconv.DTypeError, match=r'2\*\*53 .*; pass x.astype\("float64"\)'):
        upsample(most + np.array(1, dtype), 2)
    assert (upsample(most + np.array(1, dtype), 2, "nearest") == 2**53 + 1).all()


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16])
@pytest.mark.parametrize("kernel", KERNELS)
def test_halves_are_rounded_once(kernel, dtype):
    x = drawn((5, 6, 7), "float32", 1).astype(dtype)
    y = upsample(x, 3, kernel)
    assert y.dtype == x.dtype
    assert (y == upsample(x.astype("float32"), 3, kernel).astype(dtype)).all()


def test_a_float16_that_overflows_is_infinite_without_a_warning():
    x = np.array([-65504, -65504, 65504, 65504], np.float16)
    assert upsample(x, 2, "cubic")[-3] == np.inf


@pytest.mark.parametrize("shape", [(0,), (0, 4), (4, 0), (3, 0, 2)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_empty_arrays_stay_empty(shape, kernel):
    for dtype in ("float32", "uint8", "complex64"):
        x = np.zeros(shape, dtype)
        assert upsample(x, 2, kernel).shape == tuple(2 * n for n in shape)
        for adjoint in (False, dtype != "uint8"):
            y = downsample(np.zeros([4 * n for n in shape], dtype), 2, kernel, adjoint=adjoint)
            assert y.shape == tuple(2 * n for n in shape)
            assert y.dtype == dtype


# ---- bad input -----------------------------------------------------------------------------------

X = integers_like((4, 6), "float32", 1)


@pytest.mark.parametrize(
    ("call", "error", "says"),
    [
        (lambda: upsample(X, 0), "ParameterError", r"scale\[0\]=0 must be at least 1"),
        (lambda: upsample(X, (2, -1)), "ParameterError", r"scale\[1\]=-1 must be at least 1"),
        (lambda: upsample(X, 1.5), "ParameterError",
         "scale=1.5 must be an integer; upsample by 3 and then downsample by 2"),
        (lambda: upsample(X, (2, 0.5)), "ParameterError", "call downsample with 2"),
        (lambda: downsample(X, 0.25), "ParameterError", "call upsample with 4"),
        (lambda: upsample(X, np.pi), "ParameterError", "larger integer and then downsample"),
        (lambda: upsample(X, 2.0), "ParameterError", "must be an integer; pass 2"),
        (lambda: upsample(X, float("nan")), "ParameterError", "must be an integer; pass an inte"),
        (lambda: upsample(X, float("inf")), "ParameterError", "must be an integer; pass an inte"),
        (lambda: upsample(X, True), "ParameterError", "must be an integer"),
        (lambda: upsample(X, (2, 2, 2)), "ParameterError",
         r"scale=\(2, 2, 2\) must be one integer or 2, one for each of the axes \(0, 1\), not 3"),
        (lambda: upsample(X, (2, 2), axes=1), "ParameterError", r"or 1, one for each of the axes"),
        (lambda: upsample(X, 2, axes=2), "ParameterError", "axes=2 must lie in -2 to 1 for x"),
        (lambda: upsample(X, 2, axes=(0, -2)), "ParameterError", r"axes=\(0, -2\) must differ"),
        (lambda: upsample(X, 2, axes="01"), "ParameterError", "axes='01' must be an integer"),
        (lambda: upsample(X, 2, "bilinear"), "ParameterError", "pass 'linear'"),
        (lambda: upsample(X, 2, "lanczos"), "ParameterError", "pass 'lanczos3'"),
        (lambda: upsample(X, 2, "cubik"), "ParameterError", "pass 'cubic'"),
        (lambda: upsample(X, 2, order=1), "TypeError", "did you mean 'kernel'"),
        (lambda: upsample(X, 2, axis=1), "TypeError", "did you mean 'axes'"),
        (lambda: upsample(X, 2, threads=0), "ParameterError", "threads=0"),
        (lambda: upsample(X.astype(object), 2), "DTypeError", "x has dtype object"),
        (lambda: upsample(X.astype(object), 2, "nearest"), "DTypeError", "x has dtype object"),
        (lambda: upsample(X.astype("U"), 2, "nearest"), "DTypeError", "x has dtype str"),
        (lambda: upsample(X > 0, 2), "DTypeError", 'or kernel="nearest"'),
        (lambda: downsample(X > 0, 2, "nearest"), "DTypeError", r'y.astype\("float64"\)\.$'),
        (lambda: upsample(np.longdouble(X), 2), "DTypeError", "at most 64 bits a part"),
        (lambda: upsample(3.0, 2), "ShapeError", "x.ndim=0 must be at least 1"),
        (lambda: upsample("x", 2), "DTypeError", "x='x' must be an array"),
        (lambda: upsample(np.ma.masked_array(X), 2), "DTypeError", "masked"),
        (lambda: downsample(X, 4), "ShapeError",
         r"y.shape\[1\]=6 must be a multiple of scale=4; crop y to 4 cells .* extend it to 8"),
        (lambda: downsample(X, 8, axes=0), "ShapeError", "scale=8; extend it to 8 cells"),
        (lambda: downsample(X, 2, adjoint=1), "ParameterError", "adjoint=1 must be True or False"),
        (lambda: downsample(X.astype(int), 2, adjoint=True), "DTypeError", "rounded and clipped"),
        (lambda: upsample(X, 2**40), "MemoryLimitError", "upsample"),
        (lambda: upsample(X, 2**100, "nearest"), "MemoryLimitError", "upsample"),
        (lambda: upsample(X[:1, :1], (1, 2**36), "lanczos3"), "MemoryLimitError", "upsample"),
    ],
)  # fmt: skip
def test_bad_input_says_what_to_do(call, error, says):
    kind = TypeError if error == "TypeError" else getattr(tconv, error)
    with pytest.raises(kind, match=says):
        call()


def test_arrays_of_other_libraries_are_refused():
    strict = pytest.importorskip("array_api_strict")
    with pytest.raises(tconv.UnsupportedError, match=r"pass numpy.asarray\(x\)"):
        upsample(strict.ones((4,)), 2)
