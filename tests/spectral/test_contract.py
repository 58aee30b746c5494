"""Contractions by Fourier transforms: the definition within a bound, for any blocks and threads."""

import sys
from dataclasses import replace

import array_api_strict
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import tconv
from strategies import draws, geometries, integer_operands, operands_of, padded_calls
from tconv import definition
from tconv.errors import DTypeError, MemoryLimitError, ParameterError, UnsupportedError
from tconv.geometry.geometry import Geometry
from tconv.spectral import Division, contract, transforms, workspace_bytes

LETTERS = st.sampled_from("yxw")
FLOATS = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")
EXACT = ("float64", "complex128")


def same_integers(found, expected):
    return found.dtype == expected.dtype and np.array_equal(found.round(), expected)


@draws(2)
@given(geometries(), LETTERS, st.sampled_from(EXACT))
def test_integers_are_those_of_the_definition(geometry, want, dtype):
    a, b = operands_of(want, *integer_operands(geometry, dtype))
    expected = definition.contract(geometry, want, a, b)
    found = contract(geometry, want, a, b)
    assert same_integers(found, expected)
    assert np.abs(found - expected).max(initial=0) < 1e-9
    if want != "w":
        channels = geometry.out_channels if want == "y" else geometry.in_channels
        bias, out = np.arange(channels).astype(dtype), np.full_like(found, np.nan)
        assert contract(geometry, want, a, b, bias=bias, out=out) is out
        assert same_integers(out, definition.contract(geometry, want, a, b, bias=bias))


@draws(2)
@given(geometries(batches=(1, 3)), LETTERS, st.data())
def test_blocks_of_every_size_give_the_same(geometry, want, data):
    made = Division.of(geometry, want)
    lengths = tuple(data.draw(st.integers(1, max(axis.input, 1))) for axis in geometry.axes)
    sizes = tuple(n + span - 1 for n, span in zip(lengths, made.spans, strict=True))
    division = replace(made, lengths=lengths, sizes=sizes)
    division.__dict__["at_once"] = data.draw(st.sampled_from([(1, 1), (2, 1), (9, 9)]))
    a, b = operands_of(want, *integer_operands(geometry))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Division, "of", lambda *_: division)
        found = contract(geometry, want, a, b)
    assert same_integers(found, definition.contract(geometry, want, a, b))


@pytest.mark.parametrize("dtype", FLOATS)
@pytest.mark.parametrize("want", "yxw")
def test_every_type_of_floats_stays(dtype, want):
    geometry = Geometry.of((2, 4, 9, 8), (4, 3, 5, 4), stride=2, padding=1, groups=2)
    a, b = operands_of(want, *integer_operands(geometry, dtype))
    found = contract(geometry, want, a, b)
    assert found.dtype == dtype
    wide = [each.astype("complex128" if "c" in each.dtype.kind else "float64") for each in (a, b)]
    exact = definition.contract(geometry, want, *wide)
    apart = np.abs(found.astype(exact.dtype) - exact)
    assert apart.max() <= np.abs(exact).max() * (0.01 if dtype in FLOATS[:2] else 1e-5)


@pytest.mark.parametrize("stride", [1, 2, 5])
@pytest.mark.parametrize("channels", [1, 3, 8])
def test_errors_are_within_the_bound(stride, channels):
    """The bound of the file's first lines, for normal numbers and for a few large ones."""
    rng, eps = np.random.default_rng(stride * channels), np.finfo(np.float32).eps
    for spread in (0, 3):
        x, w = (
            (rng.standard_normal(shape) * np.exp(spread * rng.standard_normal(shape))).astype(
                "float32"
            )
            for shape in ((1, channels, 700), (channels, 2, 90))
        )
        geometry = Geometry.of(x.shape, w.shape, stride=stride)
        (size,) = Division.of(geometry).sizes
        exact = contract(geometry, "y", x.astype("float64"), w.astype("float64"))
        found = contract(geometry, "y", x, w)
        norms = [
            2 * np.linalg.norm(x[0, c]) * np.linalg.norm(w[c]) + np.linalg.norm(exact[0])
            for c in range(channels)
        ]
        assert np.abs(found - exact).max() <= 3 * eps * np.log2(size) * sum(norms)


def test_thousands_of_blocks_lose_no_digits():
    """Each weight sums a million products of ones."""
    geometry = Geometry.of((1, 1, 10**6), (1, 1, 30))
    assert Division.of(geometry, "w").blocks > 1000
    x, y = (np.ones(geometry.shape_of(letter), np.float32) for letter in "xy")
    found = contract(geometry, "w", x, y)
    assert np.abs(found - 10**6).max() < 3


@draws(1)
@given(geometries(batches=(1, 2)))
def test_the_three_contractions_are_one_form(geometry):
    x, w, y = integer_operands(geometry)
    energy = np.vdot(contract(geometry, "y", x, w), y)
    for value in (
        np.vdot(x, contract(geometry, "x", y, w)),
        np.vdot(w, contract(geometry, "w", x, y)),
    ):
        assert abs(value - energy) < 1e-6


def test_threads_do_not_count():
    rng = np.random.default_rng(0)
    geometry = Geometry.of((2, 3, 40, 300), (3, 2, 9, 33), stride=(1, 2))
    x, w, y = (rng.standard_normal(geometry.shape_of(n)).astype("float32") for n in "xwy")
    for want in "yxw":
        a, b = operands_of(want, x, w, y)
        one, two = (contract(geometry, want, a, b, threads=n) for n in (1, 2))
        assert one.tobytes() == two.tobytes()


def test_without_scipy_numpys_transforms_serve(monkeypatch):
    monkeypatch.setitem(sys.modules, "scipy", None)
    monkeypatch.setitem(sys.modules, "scipy.fft", None)
    for cached in (transforms._library, transforms.fast_length):
        cached.cache_clear()
    try:
        assert transforms._library() == (np.fft, False)
        assert transforms.fast_length(1019, True) == 1024
        for dtype in EXACT:
            geometry = Geometry.of((2, 2, 30, 9), (2, 3, 7, 4), stride=(2, 1), padding=1)
            for want in "yxw":
                a, b = operands_of(want, *integer_operands(geometry, dtype))
                expected = definition.contract(geometry, want, a, b)
                assert same_integers(contract(geometry, want, a, b), expected)
    finally:
        for cached in (transforms._library, transforms.fast_length):
            cached.cache_clear()


# ---- method="fft" --------------------------------------------------------------------------------


@draws(1)
@given(padded_calls())
def test_padding_modes(call):
    geometry, keywords = call
    x, w, y = integer_operands(geometry)
    expected = tconv.conv_transpose(x, w, **keywords)
    assert same_integers(tconv.conv_transpose(x, w, method="fft", **keywords), expected)
    keywords.pop("output_padding")
    expected = tconv.conv(y, w, input_size=geometry.input_size, **keywords)
    found = tconv.conv(y, w, input_size=geometry.input_size, method="fft", **keywords)
    assert same_integers(found, expected)


def test_functions_gradients_and_layers():
    x, w = np.ones((1, 2, 30)), np.arange(2 * 3 * 9.0).reshape(2, 3, 9)
    y = tconv.conv_transpose(x, w, np.ones(3), stride=2, method="fft")
    assert same_integers(y, tconv.conv_transpose(x, w, np.ones(3), stride=2))
    _, pull_back = tconv.conv_transpose_vjp(x, w, stride=2, method="fft")
    _, expected = tconv.conv_transpose_vjp(x, w, stride=2)
    for mine, theirs in zip(pull_back(y), expected(y), strict=True):
        assert mine is theirs is None or np.allclose(mine, theirs, rtol=1e-12)
    out = np.empty_like(y)
    for _ in range(3):  # a call that repeats goes the same way
        assert tconv.conv_transpose(x, w, stride=2, method="fft", out=out) is out
        assert same_integers(out, tconv.conv_transpose(x, w, stride=2))


def test_plans_say_what_they_expect():
    long = tconv.plan((1, 1, 50_000), (1, 1, 4096), method="fft", dtype="float64")
    assert "Fourier transforms: x in " in str(long)
    assert 'method="direct" is expected to take' in str(long)
    assert "transforms are faster from about" in str(long)
    assert 'method="fft" would take' in str(tconv.plan((1, 1, 50_000), (1, 1, 4096)))
    assert "fft" not in str(tconv.plan((1, 8, 64, 64), (8, 8, 3, 3)))
    assert "fft" not in str(tconv.plan((1, 1, 500), (1, 1, 100), dtype="int16"))
    rng = np.random.default_rng(0)
    x, w = rng.standard_normal((1, 1, 50_000)), rng.standard_normal((1, 1, 4096))
    expected = tconv.conv_transpose(x, w, method="direct")
    found = long(x, long.pack(w))
    assert np.abs(found - expected).max() < 1e-12 * np.linalg.norm(x) * np.linalg.norm(w)
    relu = tconv.plan((1, 1, 50), (1, 1, 9), method="fft", activation="relu", dtype="float64")
    small = rng.standard_normal((1, 1, 50))
    kernel = rng.standard_normal((1, 1, 9))
    expected = np.maximum(tconv.conv_transpose(small, kernel), 0)
    assert np.allclose(relu(small, relu.pack(kernel)), expected, atol=1e-12)


def test_what_has_no_transforms():
    ones = np.ones((1, 1, 9), int)
    with pytest.raises(DTypeError, match='with method="fft" rounds, and integers are exact; pass'):
        tconv.conv_transpose(ones, ones, method="fft")
    with pytest.raises(DTypeError, match='dtype="int16" is exact, and method="fft" rounds; pass'):
        tconv.plan((1, 1, 9), (1, 1, 3), dtype="int16", method="fft")
    with pytest.raises(ParameterError, match="method='ftt' must be one of"):
        tconv.conv_transpose(ones, ones, method="ftt")
    x = array_api_strict.ones((1, 1, 9))
    with pytest.raises(UnsupportedError, match='has method="fft" for NumPy arrays only, not for'):
        tconv.conv_transpose(x, x, method="fft")


def test_memory_is_bounded():
    """Samples and groups take turns, and a limit is kept before anything is allocated."""
    geometry = Geometry.of((64, 32, 64, 64), (32, 1, 31, 31), groups=32)
    assert workspace_bytes(geometry, "y", "float32") < 2**28
    with pytest.raises(MemoryLimitError, match=r"conv_transpose needs [\d,]+ bytes"):
        tconv.conv_transpose(
            np.ones((1, 1, 4000), "float32"), np.ones((1, 1, 99), "float32"), method="fft",
            max_bytes=20_000,
        )  # fmt: skip


def test_an_infinity_stays_in_its_block():
    x, w = np.zeros((1, 1, 50_000), "float32"), np.ones((1, 1, 1000), "float32")
    x[0, 0, 7] = np.inf
    y = tconv.conv_transpose(x, w, method="fft", threads=2)[0, 0]
    assert np.isnan(y[:1000]).any()
    assert np.isfinite(y[-20_000:]).all()
