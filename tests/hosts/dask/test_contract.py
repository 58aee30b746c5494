"""Dask arrays: the bits of the whole from any chunks, computed late, checked at once."""

import dask
import dask.array as da
import numpy as np
import pytest
import xarray
from hypothesis import given
from hypothesis import strategies as st

import tconv
from strategies import draws, geometries, integer_operands, keywords_of
from tconv.errors import (
    DTypeError,
    MemoryLimitError,
    ParameterError,
    ShapeError,
    UnsupportedError,
)
from tconv.geometry.geometry import OPERANDS

FUNCTIONS = {"y": tconv.conv_transpose, "x": tconv.conv, "w": tconv.conv_weight_gradient}


@pytest.fixture(autouse=True)
def one_thread():
    """Small tasks: a pool of threads would only take time."""
    with dask.config.set(scheduler="synchronous"):
        yield


@st.composite
def chunked(draw, array):
    """A Dask array of any chunks: uneven ones, single cells, the whole."""
    chunks = []
    for size in array.shape:
        ends = draw(st.sets(st.integers(1, max(size - 1, 1)), max_size=3))
        ends = sorted({end for end in ends if end < size} | {size})
        chunks.append(tuple(np.diff([0, *ends]).tolist()))
    return da.from_array(array, chunks=tuple(chunks), name=False)


def random(shape, dtype, rng):
    found = rng.standard_normal(shape)
    return (found + 1j * rng.standard_normal(shape) if dtype[0] == "c" else found).astype(dtype)


@draws(2)  # 500 under "ci"
@given(
    st.data(),
    geometries(ranks=(1, 2, 3), batches=(1, 2, 3)),
    st.sampled_from("yx"),
    st.sampled_from(["float32", "float32", "float64", "float16", "complex64", "int16"]),
)
def test_chunks_have_the_bits_of_the_whole(data, geometry, want, dtype):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))
    first, second = OPERANDS[want]
    if dtype == "int16":
        a, b = (rng.integers(-9, 9, geometry.shape_of(each)).astype(dtype) for each in (first, "w"))
    else:
        a, b = (random(geometry.shape_of(each), dtype, rng) for each in (first, second))
    channels = geometry.in_channels if want == "x" else geometry.out_channels
    bias = rng.integers(-9, 9, channels).astype("int64" if dtype == "int16" else dtype)
    bias = data.draw(st.sampled_from([None, bias]))
    keywords = keywords_of(geometry, want)
    whole = FUNCTIONS[want](a, b, bias, method="direct", **keywords)
    weight = data.draw(st.sampled_from([b, data.draw(chunked(b))]))
    lazy = FUNCTIONS[want](data.draw(chunked(a)), weight, bias, **keywords)
    assert isinstance(lazy, da.Array)
    assert (lazy.shape, lazy.dtype) == (whole.shape, whole.dtype)
    found = lazy.compute()
    assert (found.shape, found.dtype) == (whole.shape, whole.dtype)
    np.testing.assert_array_equal(found, whole)


@draws()
@given(
    st.data(), geometries(ranks=(1, 2, 3), batches=(1, 2, 3)), st.sampled_from(["float64", "int8"])
)
def test_a_weight_gradient_is_that_of_the_whole(data, geometry, dtype):
    x, _, y = (each.astype(dtype) for each in integer_operands(geometry))
    keywords = {**keywords_of(geometry), "kernel_size": geometry.kernel_size}
    whole = tconv.conv_weight_gradient(x, y, **keywords)
    lazy = tconv.conv_weight_gradient(data.draw(chunked(x)), data.draw(chunked(y)), **keywords)
    found = lazy.compute()
    assert found.dtype == lazy.dtype == whole.dtype
    np.testing.assert_array_equal(found, whole)


def test_a_weight_gradient_has_the_same_bits_from_every_scheduler():
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 3, 40, 9)), rng.standard_normal((2, 4, 81, 19))
    lazy = tconv.conv_weight_gradient(
        da.from_array(x, chunks=(1, 2, 7, 4)),
        da.from_array(y, chunks=(1, 3, 13, 5)),
        (3, 3),
        stride=2,
    )
    found = [lazy.compute(scheduler=name) for name in ("synchronous", "threads", "processes")]
    found += [lazy.compute(scheduler="threads", num_workers=n) for n in (1, 3, 7)]
    for each in found:
        np.testing.assert_array_equal(each, found[0])
    whole = tconv.conv_weight_gradient(x, y, (3, 3), stride=2)
    np.testing.assert_allclose(found[0], whole, rtol=1e-12)


def test_halves_are_rounded_once_in_a_weight_gradient():
    x, y = np.ones((1, 1, 4096), np.float16), np.full((1, 1, 4096), 1 / 1024, np.float16)
    y[..., 0] = 1000
    whole = tconv.conv_weight_gradient(x, y, (1,))
    lazy = tconv.conv_weight_gradient(da.from_array(x, chunks=8), da.from_array(y, chunks=8), (1,))
    assert lazy.dtype == np.float16
    np.testing.assert_array_equal(lazy.compute(), whole)


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
def test_padding_modes(mode):
    rng = np.random.default_rng(1)
    x, w = rng.integers(-5, 5, (2, 3, 9, 8)) * 1.0, rng.integers(-5, 5, (3, 2, 3, 4)) * 1.0
    keywords = {"stride": 2, "padding": 2, "padding_mode": mode}
    lazy = tconv.conv_transpose(da.from_array(x, chunks=(1, 3, 4, 3)), w, **keywords)
    y = tconv.conv_transpose(x, w, **keywords)
    np.testing.assert_array_equal(lazy.compute(), y)
    back = tconv.conv(lazy, w, **keywords)
    np.testing.assert_array_equal(back.compute(), tconv.conv(y, w, **keywords))


def test_chunks_are_those_of_x_times_the_stride_and_the_rest_is_cut_as_finely():
    x = da.ones((1, 1, 10), chunks=(1, 1, (4, 4, 2)))
    assert tconv.conv_transpose(x, np.ones((1, 1, 3)), stride=2).chunks[2] == (8, 8, 5)
    assert tconv.conv_transpose(x, np.ones((1, 1, 40)), stride=1).chunks[2] == (4,) * 12 + (1,)
    assert tconv.conv(x, np.ones((1, 1, 2)), stride=2).chunks[2] == (2, 2, 1)


def test_an_operand_without_cells_gives_the_bias():
    x = da.zeros((1, 2, 0), chunks=(1, 2, 1))
    y = tconv.conv_transpose(x, np.ones((2, 3, 4)), np.arange(3.0), stride=2, output_size=7)
    np.testing.assert_array_equal(y.compute(), np.broadcast_to([[[0.0], [1], [2]]], (1, 3, 7)))
    empty = tconv.conv_transpose(da.zeros((0, 2, 5), chunks=2), np.ones((2, 3, 4)))
    assert empty.compute().shape == (0, 3, 8)
    gradient = tconv.conv_weight_gradient(
        da.zeros((0, 2, 5), chunks=2), da.zeros((0, 3, 8), chunks=3), (4,)
    )
    np.testing.assert_array_equal(gradient.compute(), np.zeros((2, 3, 4)))


def test_chunks_without_cells_are_passed_over():
    x = da.concatenate([da.ones((1, 1, n)) for n in (0, 3, 0, 4, 0)], axis=2)
    w = np.arange(1.0, 4).reshape(1, 1, 3)
    whole = tconv.conv_transpose(np.ones((1, 1, 7)), w, stride=2)
    y = tconv.conv_transpose(x, w, stride=2)
    np.testing.assert_array_equal(y.compute(), whole)
    gradient = tconv.conv_weight_gradient(x, y, (3,), stride=2).compute()
    np.testing.assert_array_equal(
        gradient, tconv.conv_weight_gradient(np.ones((1, 1, 7)), whole, (3,), stride=2)
    )


def test_output_channels_are_chunked_as_the_weight_and_images_as_x():
    x, w = da.ones((4, 2, 6), chunks=(3, 1, 6)), da.ones((2, 5, 3), chunks=(2, (1, 4), 3))
    assert tconv.conv_transpose(x, w).chunks[:2] == ((3, 1), (1, 4))
    y = da.ones((4, 5, 6), chunks=(2, 2, 6))
    assert tconv.conv(y, w.rechunk((1, 5, 3))).chunks[:2] == ((2, 2), (1, 1))


def test_a_chunk_gets_cells_of_its_neighbours_and_not_their_chunks():
    x = da.ones((1, 1, 400), chunks=100)
    lazy = tconv.conv_transpose(x, np.ones((1, 1, 3)), stride=2, padding=1)
    layer = next(each for name, each in lazy.dask.layers.items() if "conv_transpose" in name)
    pieces = [value[2][2] for key, value in layer.items() if str(key[0]).startswith("window")]
    assert pieces == [slice(0, 1)] * 3  # and the chunks themselves


def test_nothing_is_computed_before_it_is_asked_for():
    def fail(block):
        raise AssertionError("computed")

    x = da.ones((1, 2, 30), chunks=10).map_blocks(fail, dtype=float, meta=np.empty((0, 0, 0)))
    y = tconv.conv_transpose(x, np.ones((2, 3, 4)), np.ones(3), stride=3)
    g = tconv.conv_weight_gradient(x, y, (4,), stride=3)
    assert (y.shape, g.shape) == ((1, 3, 91), (2, 3, 4))
    with pytest.raises(AssertionError, match="computed"):
        y.compute()


def test_names_are_the_same_for_the_same_call_and_others_for_others():
    x, w = da.ones((1, 2, 30), chunks=10), np.ones((2, 3, 4))
    assert tconv.conv_transpose(x, w).name == tconv.conv_transpose(x, w).name
    others = [tconv.conv_transpose(x, w, stride=2), tconv.conv_transpose(x, w + 1)]
    others += [tconv.conv_transpose(x, w, np.ones(3)), tconv.conv_transpose(x + 1, w)]
    assert len({each.name for each in [*others, tconv.conv_transpose(x, w)]}) == 5


def test_gradients_of_lazy_arrays_are_lazy():
    x, w = np.arange(24.0).reshape(1, 2, 12), np.arange(24.0).reshape(2, 3, 4)
    bias, kwargs = np.arange(3.0), {"stride": 2, "padding": 1}
    y, pullback = tconv.conv_transpose_vjp(da.from_array(x, chunks=5), w, bias, **kwargs)
    expected, of_numpy = tconv.conv_transpose_vjp(x, w, bias, **kwargs)
    np.testing.assert_array_equal(y.compute(), expected)
    dy = np.arange(expected.size * 1.0).reshape(expected.shape)
    for found, right in zip(pullback(da.from_array(dy, chunks=4)), of_numpy(dy), strict=True):
        assert isinstance(found, da.Array)
        np.testing.assert_array_equal(found.compute(), right)


def test_the_adjoint_conjugates():
    y, w = np.ones((1, 1, 4), complex), np.full((1, 1, 2), 1 + 2j)
    lazy = tconv.conv(da.from_array(y, chunks=2), w, conjugate=True)
    np.testing.assert_array_equal(lazy.compute(), tconv.conv(y, w, conjugate=True))


def test_types_are_converted_late_and_what_they_cannot_hold_is_refused_then():
    x = da.from_array(np.array([[[1, 2, 300]]]), chunks=2)
    w = np.ones((1, 1, 1), np.int8)
    assert tconv.conv_transpose(x, w, dtype="float32").compute().dtype == np.float32
    lazy = tconv.conv_transpose(x, w, dtype="int8")
    with pytest.raises(DTypeError, match="x has values 300 to 300, which dtype=int8 cannot hold"):
        lazy.compute()
    big = da.from_array(np.ones((1, 1, 3), ">f8"), chunks=2)
    assert tconv.conv_transpose(big, np.ones((1, 1, 1))).dtype == np.dtype("float64")


def test_integers_that_could_overflow_are_refused_by_the_task():
    x = da.from_array(np.full((1, 1, 4), 2**40), chunks=2)
    lazy = tconv.conv_transpose(x, np.full((1, 1, 2), 2**40))
    with pytest.raises(DTypeError, match="could reach"):
        lazy.compute()
    y = np.full((1, 1, 40), 2**31)
    lazy = tconv.conv_weight_gradient(da.from_array(y, chunks=1), da.from_array(y, chunks=1), 1)
    with pytest.raises(DTypeError, match="overflows int64"):
        lazy.compute()
    small = da.from_array(np.full((1, 1, 200_000), -128, np.int8), chunks=100_000)
    with pytest.raises(DTypeError, match="the weight gradient reaches 3,276,800,000, beyond int32"):
        tconv.conv_weight_gradient(small, small, 1).compute()


def test_what_is_wrong_is_said_at_once():
    x, w = da.ones((1, 2, 30), chunks=10), np.ones((2, 3, 4))
    with pytest.raises(ShapeError, match="x has 2 channels but weight"):
        tconv.conv_transpose(x, np.ones((3, 3, 4)))
    with pytest.raises(DTypeError, match="x has dtype float64 but weight has float32"):
        tconv.conv_transpose(x, w.astype("f4"))
    with pytest.raises(ShapeError, match=r"bias has shape \(2,\)"):
        tconv.conv_transpose(x, w, np.ones(2))
    with pytest.raises(ParameterError, match="out must be left out"):
        tconv.conv_transpose(x, w, out=np.empty((1, 3, 33)))
    with pytest.raises(UnsupportedError, match='pass "direct"'):
        tconv.conv_transpose(x, w, method="measure")
    with pytest.raises(MemoryLimitError, match=r"for one chunk .*; pass smaller chunks"):
        tconv.conv_transpose(x, w, max_bytes=1000)
    with pytest.raises(ShapeError, match="sizes that are unknown; call its compute_chunk_sizes"):
        tconv.conv_transpose(x[:, :, x[0, 0] > 0], w)
    masked = da.ma.masked_equal(x, 1)
    with pytest.raises(DTypeError, match="masked"):
        tconv.conv_transpose(masked, w)


def test_a_volume_larger_than_memory_is_planned_at_once():
    x = da.zeros((64, 10**5, 10**5), chunks=(64, 500, 500), dtype="float32")
    y = tconv.conv_transpose(x, np.ones((64, 8, 2, 2), np.float32), stride=2)
    assert y.nbytes > 10**12
    corner = y[:, -3:, -3:].compute(optimize_graph=True)
    np.testing.assert_array_equal(corner, np.zeros((8, 3, 3), np.float32))


def test_xarray_keeps_its_names():
    x = xarray.DataArray(np.arange(24.0).reshape(2, 3, 4), dims=("c", "y", "x")).chunk({"y": 2})
    w = np.ones((2, 1, 2, 2))
    found = xarray.apply_ufunc(
        tconv.conv_transpose,
        x,
        kwargs={"weight": w, "stride": 2},
        input_core_dims=[["c", "y", "x"]],
        output_core_dims=[["m", "y2", "x2"]],
        dask="allowed",
    )
    assert found.dims == ("m", "y2", "x2")
    np.testing.assert_array_equal(found.values, tconv.conv_transpose(x.values, w, stride=2))
