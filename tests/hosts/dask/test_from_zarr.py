"""Lazy results of arrays on disk: one task a chunk, with the bits of the whole."""

from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import tconv
from strategies import draws, geometries, keywords_of
from tconv.dask import from_zarr
from tconv.errors import DTypeError, MemoryLimitError, ParameterError, ShapeError
from volume_files import make_source, weights


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@draws(0.4)
@given(st.data(), geometries(ranks=(1, 2, 3), batches=(1, 2)), st.booleans())
def test_chunks_have_the_bits_of_the_whole(data, geometry, adjoint):
    keywords = keywords_of(geometry, "x" if adjoint else "y")
    shape = geometry.y_shape if adjoint else geometry.x_shape
    x, w = weights(shape, seed=2), weights(geometry.weight_shape)
    source = zarr.create_array(
        {}, data=x, chunks=tuple(data.draw(st.integers(1, max(size, 1))) for size in shape)
    )
    whole = (tconv.conv if adjoint else tconv.conv_transpose)(x, w, method="direct", **keywords)
    lazy = from_zarr(source, w, adjoint=adjoint, **keywords)
    assert (lazy.shape, lazy.dtype) == (whole.shape, whole.dtype)
    np.testing.assert_array_equal(lazy.compute(scheduler="synchronous"), whole)


def test_there_is_one_task_a_chunk():
    make_source("x.zarr", (2, 30, 30, 30), (2, 10, 10, 10))
    lazy = from_zarr("x.zarr", weights((2, 2, 3, 3, 3)), stride=2)
    assert lazy.chunks == ((2,), (20, 20, 20, 1), (20, 20, 20, 1), (20, 20, 20, 1))
    assert len(lazy.dask) == 4**3 + 3  # and what they share: volume, weight, bias


def test_a_file_of_numpy_is_cut_as_dask_does():
    x, w = weights((2, 30, 31)), weights((2, 3, 3, 3))
    np.save("x.npy", x)
    lazy = from_zarr("x.npy", w, weights((3,)), stride=2)
    whole = tconv.conv_transpose(x, w, weights((3,)), stride=2, method="direct")
    np.testing.assert_array_equal(lazy.compute(), whole)


def test_a_source_without_channels():
    x, w = make_source("x.zarr", (20, 20), (8, 8)), weights((1, 1, 2, 2))
    whole = tconv.conv_transpose(x[None], w, stride=2, method="direct")
    np.testing.assert_array_equal(from_zarr("x.zarr", w, stride=2).compute(), whole[0])


def test_names_follow_the_state_of_the_source():
    w = weights((2, 1, 3))
    make_source("x.zarr", (2, 30), (2, 10))
    first = from_zarr("x.zarr", w)
    assert from_zarr("x.zarr", w).name == first.name
    assert from_zarr("x.zarr", w, stride=2).name != first.name
    zarr.open_array("x.zarr", mode="r+")[0, 0] = 77
    assert from_zarr("x.zarr", w).name != first.name


def test_what_is_wrong_is_said_at_once():
    make_source("x.zarr", (2, 30, 30), (2, 10, 10))
    zarr.create_group("g.zarr").create_array("deep/x", shape=(2, 3), dtype="f4")
    w = weights((2, 2, 3, 3))
    with pytest.raises(ShapeError, match="x has 2 channels but weight"):
        from_zarr("x.zarr", weights((3, 2, 3, 3)))
    with pytest.raises(FileNotFoundError, match="there is no Zarr array"):
        from_zarr("y.zarr", w)
    with pytest.raises(ParameterError, match="with the arrays 'deep/x'; name one of them"):
        from_zarr("g.zarr", w)
    with pytest.raises(OSError, match="is no Zarr array"):
        from_zarr(".", w)
    Path("bad.npy").write_bytes(b"no array")
    with pytest.raises(OSError, match="is no array of numbers"):
        from_zarr("bad.npy", w)
    zarr.create_array("s.zarr", shape=(), dtype="f4")
    with pytest.raises(ParameterError, match="has no axes"):
        from_zarr("s.zarr", w)
    zarr.create_array("words.zarr", shape=(2, 3), dtype="M8[s]", zarr_format=2)
    with pytest.raises(DTypeError, match="which is no type of numbers"):
        from_zarr("words.zarr", w)
    zarr.create_array("huge.zarr", shape=(2, 10**7, 10**7), dtype="f4", chunks=(2, 10**7, 10**7))
    with pytest.raises(MemoryLimitError, match="for one chunk"):
        from_zarr("huge.zarr", w)
    lazy = from_zarr("x.zarr", w)
    Path("x.zarr/c/0/1/1").write_bytes(b"damaged")
    with pytest.raises(OSError, match="cannot be read at"):
        lazy.compute()
