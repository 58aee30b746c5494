"""Complex numbers and small integers equal the definition, through floats, and in every layout."""

import pickle
from functools import partial

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from strategies import draws, framed, geometries, integer_operands, integers_like, operands_of
from tconv import definition, engine
from tconv.arrays.canonical import canonical
from tconv.engine.split_types import SPLIT_TYPES, split_primitive, split_problem
from tconv.errors import DTypeError
from tconv.geometry.geometry import Geometry
from tconv.ops.functional import conv_transpose
from tconv.ops.planned_call import PackedWeights, plan
from tconv.portable import contract

COMPLEX = ["complex64", "complex128"]
INTEGERS = ["int8", "uint8", "int16", "uint16"]
SERVED = st.sampled_from([*COMPLEX, *INTEGERS])


def wide(array):
    """The same numbers in a type that the definition sums them in."""
    return array if array is None or array.dtype.kind == "c" else array.astype("int64")


def expected(geometry, x, w, bias=None, want="y"):
    return definition.contract(geometry, want, wide(x), wide(w), bias=wide(bias))


def extremes(shape, dtype, seed):
    """The largest and smallest integers of a type, and some between."""
    info = np.iinfo(dtype)
    some = [info.min, info.min, info.max, info.max, 0, 1, info.max // 2]
    return np.random.default_rng(seed).choice(np.array(some, dtype), shape)


def operands(geometry, dtype, want="y"):
    """What is read, w and bias: integers in both parts of complex numbers, extremes of integers."""
    channels = geometry.out_channels if want == "y" else geometry.in_channels
    shapes = geometry.shape_of("x" if want == "y" else "y"), geometry.weight_shape, (channels,)
    draw = extremes if dtype in INTEGERS else integers_like
    return [draw(shape, dtype, seed) for seed, shape in enumerate(shapes)]


def normal(shape, dtype, seed=0):
    rng = np.random.default_rng(seed)
    return (rng.standard_normal(shape) + 1j * rng.standard_normal(shape)).astype(dtype)


# ---- what it computes ----------------------------------------------------------------------------


@draws(1)
@given(geometries(batches=(1, 2)), SERVED, st.sampled_from("yxw"))
def test_parts_are_contracted_for_every_letter(geometry, dtype, want):
    """By the portable path here, whatever the kernels know."""
    assume(split_problem(geometry, want, dtype) is not None)
    inner = engine.prepare(
        Geometry.of((1, 1, 1), (1, 1, 1)), split_problem(geometry, want, dtype)[1], 1
    )
    made = split_primitive(engine._canonical(geometry), want, dtype, inner)
    a, b = operands_of(want, *integer_operands(geometry, dtype))
    if want != "w":
        weight = np.ascontiguousarray(canonical(np, geometry, "w", b))
        of_parts = made.split_weight(weight).reshape(
            made.inner_geometry(engine._canonical(geometry)).weight_shape
        )
    else:
        of_parts = b

    def by(_, *arguments, **options):
        parts = made.inner_geometry(geometry)
        if dtype in INTEGERS and want != "w":
            parts = engine.replace(parts, weight_format="IO*", flip_kernel=False)
        return np.ascontiguousarray(contract.contract(parts, *arguments, **options))

    found = made.contract(by, geometry, a, of_parts, None, None)
    assert np.array_equal(found, expected(geometry, a, b, want=want))
    to, _ = framed(np.zeros_like(found), 7)
    assert made.contract(by, geometry, a, of_parts, None, to) is to
    assert np.array_equal(to, found)


@draws(0.5)
@given(geometries(batches=(1, 2), plain=True), st.sampled_from(COMPLEX))
def test_threads_and_layouts_give_the_same_bits(geometry, dtype):
    assume(geometry.batched and engine.serves(geometry, "y", dtype))
    x, w = normal(geometry.x_shape, dtype), normal(geometry.weight_shape, dtype, 1)
    bias = normal(geometry.out_channels, dtype, 2)
    first = engine.contract(geometry, "y", x, w, bias=bias, threads=1) + 0
    last = engine.replace(geometry, data_format="channels_last")
    moved = np.ascontiguousarray(np.moveaxis(x, 1, -1))
    for n in (2, 3):
        other = engine.contract(geometry, "y", x, w, bias=bias, threads=n) + 0
        assert other.tobytes() == first.tobytes()
        other = engine.contract(last, "y", moved, w, bias=bias, threads=n) + 0
        assert np.moveaxis(other, -1, 1).tobytes() == first.tobytes()


@pytest.mark.parametrize("channels", [(37, 5), (200, 5)])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_crop_of_the_input_gives_a_crop_of_the_output(stride, channels):
    x, w = normal((1, channels[0], 20, 30), "complex64"), normal((*channels, 3, 3), "complex64", 1)
    solve, crop = partial(conv_transpose, stride=stride, method="direct"), np.s_[..., 2:19, 2:29]
    whole, part = solve(x, w), solve(np.ascontiguousarray(x[crop]), w)
    # Without the border, to which cells beside the crop contribute too.
    inner = tuple(slice(2, n - 2) for n in part.shape[2:])
    shifted = tuple(slice(2 + 2 * stride, 2 * stride + n - 2) for n in part.shape[2:])
    assert np.array_equal(part[(..., *inner)], whole[(..., *shifted)])


@pytest.mark.parametrize("dtype", COMPLEX)
def test_random_numbers_are_near_those_of_the_portable_path(dtype):
    geometry = Geometry.of((2, 24, 9, 10), (24, 6, 4, 3), stride=2, groups=2)
    x, w = normal(geometry.x_shape, dtype), normal(geometry.weight_shape, dtype, 1)
    found, other = (by.contract(geometry, "y", x, w) for by in (engine, contract))
    assert np.abs(found - other).max() <= 20 * np.finfo(dtype).eps * np.abs(other).max()


def test_what_is_not_finite_stays_so():
    """Though which of its parts are NaN is nobody's, as with complex products everywhere."""
    x, w = normal((1, 2, 5, 5), "complex64"), normal((2, 3, 2, 2), "complex64")
    clean = conv_transpose(x, w, stride=2)
    for bad in (np.inf, complex(0, -np.inf), np.nan):
        x[0, 1, 2, 3] = bad
        y = conv_transpose(x, w, stride=2)
        reached = np.zeros(y.shape, bool)
        reached[:, :, 4:6, 6:8] = True
        assert not np.isfinite(y[reached]).any()
        assert np.array_equal(y[~reached], clean[~reached])


# ---- integers ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "channels", "carrier"),
    [
        *(("int8", 1024, "float32"), ("int8", 1025, "float64"), ("int8", 131_071, "float64")),
        *(("uint8", 258, "float32"), ("uint8", 259, "float64"), ("int8", 131_072, None)),
        *(("int16", 2**23, "float64"), ("int16", 2**23 + 1, None), ("uint16", 2_097_217, None)),
    ],
)
def test_floats_hold_the_largest_sum_there_can_be(dtype, channels, carrier):
    geometry = Geometry.of((1, channels, 1), (channels, 1, 1))
    found = split_problem(geometry, "y", dtype)
    assert (found and found[1]) == carrier
    if channels < 2**20:
        most = np.iinfo(dtype).min or np.iinfo(dtype).max
        x, w = np.full(geometry.x_shape, most, dtype), np.full(geometry.weight_shape, most, dtype)
        if carrier is None:
            with pytest.raises(DTypeError, match="could reach 2,147,483,648, beyond int32's"):
                conv_transpose(x, w)
        else:
            assert conv_transpose(x, w).item() == channels * int(most) ** 2


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("dtype", ["int8", "uint8"])
def test_a_bias_that_floats_cannot_hold_is_added_afterwards(data_format, dtype):
    geometry = Geometry.of((3, 4, 4, 4), (4, 5, 2, 2), data_format=data_format)
    x, w, _ = operands(geometry, dtype)
    for first in (0, 2**24, 2**31 - 2**20):
        bias = np.arange(first, first + 5).astype("int32")
        out = np.empty(geometry.y_shape, "int32")
        found = conv_transpose(x, w, bias, data_format=data_format, out=out)
        assert np.array_equal(found, expected(geometry, x, w, bias))
        assert found is out


def test_plans_refuse_what_calls_refuse():
    call = plan((1, 1, 2), (1, 1, 2), dtype="int8")
    x, bias = np.full((1, 1, 2), -128, "int8"), np.array([2**31 - 1 - 2**14], "int32")
    for most, fits in ((64, True), (65, False)):
        w = np.full((1, 1, 2), most, "int8")
        for compute in (partial(conv_transpose, x, w), partial(call, x, call.pack(w))):
            if fits:
                assert np.array_equal(compute(bias).ravel(), bias - 128 * 64 * np.array([1, 2, 1]))
            else:
                with pytest.raises(DTypeError, match="beyond int32's 2,147,483,647"):
                    compute(bias)


# ---- who is served -------------------------------------------------------------------------------


def test_wide_integers_and_thin_calls_are_portable():
    geometry = Geometry.of((1, 4, 9), (4, 4, 3))
    assert [name for name in sorted(SPLIT_TYPES) if engine.serves(geometry, "y", name)] == sorted(
        [*COMPLEX, *INTEGERS]
    )
    assert not any(engine.serves(geometry, "y", name) for name in ("int32", "uint32", "int64"))
    thin = Geometry.of((1, 512, 9), (512, 1, 3))
    assert not any(engine.serves(thin, "y", name) for name in SPLIT_TYPES)


# ---- plans ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", [*COMPLEX, *INTEGERS])
@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("size", [(5,), (4, 5), (3, 2, 4, 3)])
def test_plans_and_calls_agree(dtype, data_format, size):
    is_last = data_format == "channels_last"
    shape = (2, *size, 4) if is_last else (2, 4, *size)
    keywords = {"stride": 2, "groups": 2, "data_format": data_format}
    geometry = Geometry.of(shape, (4, 3, *(3,) * len(size)), **keywords)
    x, w, bias = operands(geometry, dtype)
    right = expected(geometry, x, w, bias)
    for method in ("auto", "measure"):
        call = plan(shape, w.shape, dtype=dtype, method=method, **keywords)
        packed = call.pack(w)
        assert np.array_equal(call(x, packed, bias), right)
        out = np.zeros(right.shape, call(x, packed).dtype)
        assert call(x, packed, bias, out) is out
        assert np.array_equal(out, right)
        out = framed(out, 7)[0]
        assert call(framed(x, 7)[0], packed, bias.astype(out.dtype), out) is out
        assert np.array_equal(out, right)
        again = pickle.loads(pickle.dumps(call))
        assert np.array_equal(again(x, again.pack(w), bias), right)
        assert np.array_equal(conv_transpose(x, w, bias, method=method, **keywords), right)
    if engine.serves(geometry, "y", dtype):
        assert "computed as float" in str(call)


@pytest.mark.parametrize("dtype", ["complex64", "int8"])
def test_packed_weights_follow_their_version(dtype):
    geometry = Geometry.of((1, 2, 9), (2, 3, 4), stride=2)
    x, w, _ = integer_operands(geometry, dtype)
    kept = PackedWeights()
    first = kept.of(geometry, w, 1)
    assert kept.of(geometry, w, 1) is first
    w += 1
    again = kept.of(geometry, w, 2)
    assert np.array_equal(engine.contract(geometry, "y", x, again), expected(geometry, x, w))
