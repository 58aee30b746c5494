"""Zarr to Zarr: the bits of the whole, whatever the chunks, settings and kinds of source."""

import inspect
import shutil

import numpy as np
import pytest
import zarr
from hypothesis import given
from hypothesis import strategies as st

import tconv
import tconv.dask
from strategies import draws, geometries, keywords_of
from tconv.errors import (
    DTypeError,
    MemoryLimitError,
    ParameterError,
    ShapeError,
    UnsupportedError,
)
from tconv.volumes import convert
from volume_files import contents, make_source, weights


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


def read(path="y.zarr"):
    return zarr.open_array(path, mode="r")[...]


@pytest.mark.parametrize("of", [convert, tconv.dask.from_zarr])
def test_every_keyword_is_in_the_signature(of):
    shown = inspect.signature(of).parameters
    for name, each in inspect.signature(tconv.conv_transpose).parameters.items():
        if name not in ("x", "padding_mode", "out", "max_bytes"):
            assert name in shown, name
            if name not in ("weight", "bias", "method", "threads"):
                assert str(shown[name]) == str(each)
    assert (shown["method"].default, shown["threads"].default) == ("direct", 1)


@draws(0.4)  # 100 under "ci"
@given(
    st.data(),
    geometries(ranks=(1, 2, 3), batches=(1, 2, 3)),
    st.booleans(),
    st.sampled_from(["float32", "float64", "float16", "complex64", "uint8"]),
)
def test_a_target_has_the_bits_of_the_whole(data, geometry, adjoint, dtype):
    rng = np.random.default_rng(data.draw(st.integers(0, 99)))

    def random(shape):
        if dtype == "uint8":
            return rng.integers(0, 255, shape).astype(dtype)
        found = rng.standard_normal(shape)
        return (found + 1j * found if dtype[0] == "c" else found).astype(dtype)

    keywords = keywords_of(geometry, "x" if adjoint else "y")
    shape = geometry.y_shape if adjoint else geometry.x_shape
    x, w = random(shape), random(geometry.weight_shape)
    channels = geometry.in_channels if adjoint else geometry.out_channels
    bias = rng.integers(-9, 9, channels).astype("int32" if dtype == "uint8" else dtype)
    bias = data.draw(st.sampled_from([None, bias]))
    chunks = tuple(data.draw(st.integers(1, max(size, 1))) for size in shape)
    source = zarr.create_array({}, shape=shape, chunks=chunks, dtype=dtype)
    source[...] = x
    target = zarr.storage.MemoryStore()
    if adjoint:
        whole = tconv.conv(x, w, bias, method="direct", conjugate=True, **keywords)
    else:
        whole = tconv.conv_transpose(x, w, bias, method="direct", **keywords)
    report = convert(source, w, bias, target, adjoint=adjoint, progress=False, **keywords)
    found = zarr.open_array(target)
    assert (report.shape, found.dtype) == (whole.shape, whole.dtype)
    np.testing.assert_array_equal(found[...], whole)


@pytest.mark.parametrize("format", [2, 3])
@pytest.mark.parametrize("shards", [None, (2, 16, 16)])
def test_formats_of_the_source_and_shards_of_the_target(format, shards):
    x, w = make_source("x.zarr", (3, 20, 17), (2, 8, 8), zarr_format=format), weights((3, 2, 4, 4))
    report = convert("x.zarr", w, target="y.zarr", stride=2, chunks=(2, 8, 8), shards=shards)
    np.testing.assert_array_equal(read(), tconv.conv_transpose(x, w, stride=2, method="direct"))
    assert zarr.open_array("y.zarr").shards == shards
    tasks = 3 * 3 if shards else 6 * 5
    assert (report.computed, report.found) == (tasks, 0)
    files = [name for name in contents("y.zarr") if name.startswith("c/")]
    assert len(files) == tasks


def test_a_source_of_shards_is_read():
    x = make_source("x.zarr", (1, 24, 24), (1, 4, 4), shards=(1, 12, 12))
    convert("x.zarr", weights((1, 1, 3, 3)), target="y.zarr", stride=2)
    whole = tconv.conv_transpose(x, weights((1, 1, 3, 3)), stride=2, method="direct")
    np.testing.assert_array_equal(read(), whole)


def test_a_file_of_numpy_is_a_source():
    x, w = weights((2, 30, 31)), weights((2, 3, 3, 3))
    np.save("x.npy", x)
    report = convert("x.npy", w, target="y.zarr", stride=3, memory="1GB")
    np.testing.assert_array_equal(read(), tconv.conv_transpose(x, w, stride=3, method="direct"))
    assert report.chunks == report.shape  # it is small


def test_a_source_without_channels_has_one_and_so_has_its_target():
    x, w = make_source("x.zarr", (9, 10, 11), (4, 4, 4)), weights((1, 1, 2, 2, 2))
    convert("x.zarr", w, target="y.zarr", stride=2)
    whole = tconv.conv_transpose(x[None], w, stride=2, method="direct")
    np.testing.assert_array_equal(read(), whole[0])
    w = weights((1, 3, 2, 2, 2))
    convert("x.zarr", w, target="z.zarr", stride=2)
    whole = tconv.conv_transpose(x[None], w, stride=2, method="direct")
    np.testing.assert_array_equal(read("z.zarr"), whole)


def test_types_are_converted_in_each_window():
    x = make_source("x.zarr", (1, 40), (1, 16), "int16")
    w = weights((1, 1, 4))
    with pytest.raises(DTypeError, match="x has dtype int16 but weight has float32"):
        convert("x.zarr", w, target="y.zarr")
    convert("x.zarr", w, target="y.zarr", dtype="float32")
    whole = tconv.conv_transpose(x, w, dtype="float32", method="direct")
    np.testing.assert_array_equal(read(), whole)


def test_integers_stay_exact():
    x = make_source("x.zarr", (1, 40), (1, 16), "uint8")
    w = np.arange(4, dtype=np.uint8).reshape(1, 1, 4)
    convert("x.zarr", w, target="y.zarr", stride=2)
    np.testing.assert_array_equal(read(), tconv.conv_transpose(x, w, stride=2))
    assert read().dtype == np.int32


def test_memory_that_cannot_do_is_refused_with_the_least_that_can():
    make_source("x.zarr", (2, 64, 64), (2, 32, 32))
    w = weights((2, 4, 2, 2))
    with pytest.raises(
        MemoryLimitError, match=r"memory=1,000,000 must be at least [\d,]+ bytes"
    ) as e:
        convert("x.zarr", w, target="y.zarr", stride=2, memory="1MB")
    fix = str(e.value).split('memory="')[1].split('"')[0]
    assert not contents(".").keys() & {"y.zarr/zarr.json"}
    # What else this process allocated since may be in the way.
    convert("x.zarr", w, target="y.zarr", stride=2, memory=int(fix[:-2]) * 10**6 + 2 * 10**7)
    with pytest.raises(MemoryLimitError, match="pass smaller chunks, memory="):
        convert("x.zarr", w, target="z.zarr", stride=2, memory="1MB", chunks=(4, 128, 128))


def test_progress_is_told():
    make_source("x.zarr", (1, 64), (1, 8))
    seen = []
    w = weights((1, 1, 2))
    convert("x.zarr", w, target="y.zarr", progress=lambda done, total: seen.append((done, total)))
    assert seen == [(n, 9) for n in range(1, 10)]  # 65 cells in chunks of 8


def test_an_ome_zarr_keeps_its_axes_and_scales():
    axes = [{"name": "c", "type": "channel"}]
    axes += [{"name": n, "type": "space", "unit": "micrometer"} for n in "yx"]
    steps = [{"type": "scale", "scale": [1.0, 0.5, 0.25]}]
    image = {"axes": axes, "name": "cells", "datasets": [{"path": "s0"}]}
    image["datasets"][0]["coordinateTransformations"] = steps
    zarr.create_group("x.zarr", attributes={"ome": {"version": "0.5", "multiscales": [image]}})
    x = make_source("x.zarr/s0", (1, 12, 12), (1, 5, 5), dimension_names=("c", "y", "x"))
    w = weights((1, 1, 2, 2))
    with pytest.raises(ParameterError, match="is a group, with the arrays 's0'; name one"):
        convert("x.zarr", w, target="y.zarr", stride=2)
    report = convert("x.zarr/s0", w, target="y.zarr", stride=2)
    made = zarr.open_group("y.zarr")
    (told,) = made.attrs["ome"]["multiscales"]
    assert told["axes"] == axes
    assert told["name"] == "cells"
    (dataset,) = told["datasets"]
    scale, translation = dataset["coordinateTransformations"]
    assert scale == {"type": "scale", "scale": [1.0, 0.25, 0.125]}
    assert translation == {"type": "translation", "translation": [0.0, -0.125, -0.0625]}
    assert made["0"].metadata.dimension_names == ("c", "y", "x")
    whole = tconv.conv_transpose(x, w, stride=2, method="direct")
    np.testing.assert_array_equal(made["0"][...], whole)
    assert convert("x.zarr/s0", w, target="y.zarr", stride=2).computed == 0
    # A kill between the group and its array leaves the group.
    shutil.rmtree("y.zarr/0")
    assert convert("x.zarr/s0", w, target="y.zarr", stride=2).found == 0
    # What else is in the group is not removed.
    made.create_array("1", shape=(2,), dtype="f4")
    with pytest.raises(ParameterError, match="that is not removed"):
        convert("x.zarr/s0", w, target="y.zarr", stride=2, overwrite=True)
    # The transpose takes it back: the same scale and place.
    back = convert("y.zarr/0", w, target="z.zarr", stride=2, adjoint=True)
    assert back.shape == report.source_shape
    (dataset,) = zarr.open_group("z.zarr").attrs["ome"]["multiscales"][0]["datasets"]
    scale, translation = dataset["coordinateTransformations"]
    assert scale["scale"] == [1.0, 0.5, 0.25]
    assert translation["translation"] == [0.0, 0.0, 0.0]


@pytest.mark.parametrize(
    "told",
    [
        {"ome": 5},
        {"ome": {"multiscales": [7, {"datasets": [3, {"path": "s0"}]}]}},
        {"multiscales": [{"axes": ["c", "y", "x"], "datasets": [{"path": "s0"}]}]},
        {"multiscales": [{"axes": "cyx", "datasets": "s0"}]},
    ],
)
def test_metadata_that_follow_no_specification_are_no_error(told):
    zarr.create_group("x.zarr", attributes=told)
    make_source("x.zarr/s0", (1, 12, 12), (1, 5, 5))
    assert convert("x.zarr/s0", weights((1, 1, 2, 2)), target="y.zarr", stride=2).computed == 9


def test_what_is_wrong_is_said_before_anything_is_written():
    make_source("x.zarr", (2, 20, 20), (2, 8, 8))
    w = weights((2, 4, 3, 3))
    cases = [
        (ShapeError, "x has 2 channels but weight", {"weight": weights((3, 4, 3, 3))}),
        (ParameterError, r"stride\[0\]=0 must be at least 1", {"stride": 0}),
        (UnsupportedError, "padding_mode='zeros' only", {"padding_mode": "circular"}),
        (TypeError, "unexpected keyword argument 'strides'", {"strides": 2}),
        (ParameterError, "memory='much' must be a number of bytes", {"memory": "much"}),
        (ParameterError, r"chunks=\(2, 3\) must be 3 sizes", {"chunks": (2, 3)}),
        (ParameterError, r"chunks=\(4, 0, 3\) must have sizes of 1", {"chunks": (4, 0, 3)}),
        (ParameterError, "shards need chunks", {"shards": (4, 16, 16)}),
        (ShapeError, "must be multiples of", {"chunks": (4, 8, 8), "shards": (4, 12, 8)}),
        (ShapeError, r"bias has shape \(2,\)", {"bias": weights((2,))}),
        (ParameterError, "scheduler='there' must be an address", {"scheduler": "there"}),
        (ParameterError, "workers are those of the", {"scheduler": "tcp://a:1", "workers": 2}),
        (ParameterError, "verify=1 must be True or False", {"verify": 1}),
        (ParameterError, "target must be a path", {"target": None}),
        (ParameterError, "target=5 must be a path", {"target": 5}),
        (ParameterError, "must not be the source", {"target": "x.zarr", "overwrite": True}),
        (ParameterError, "must not be the source", {"target": "x.zarr/y", "overwrite": True}),
        (ParameterError, "must not be the source", {"target": ".", "overwrite": True}),
        (ParameterError, "source=5 must be a path or URL", {"source": 5}),
        (FileNotFoundError, "there is no Zarr array", {"source": "z.zarr"}),
        (FileNotFoundError, "No such file", {"source": "z.npy"}),
    ]
    before = contents(".")
    for kind, text, wrong in cases:
        arguments = {"source": "x.zarr", "weight": w, "target": "y.zarr", **wrong}
        with pytest.raises(kind, match=text):
            convert(**arguments)
        assert contents(".") == before, wrong


def test_a_group_whose_channels_would_be_summed_in_another_order_is_refused():
    make_source("x.zarr", (4, 20), (4, 8))
    with pytest.raises(ParameterError, match=r"chunks\[0\]=4 must be one of 1, 3, 6 channels"):
        convert("x.zarr", weights((4, 3, 3)), target="y.zarr", groups=2, chunks=(4, 8))
    convert("x.zarr", weights((4, 3, 3)), target="y.zarr", groups=2, chunks=(3, 8))


def test_bfloat16_is_no_type_of_zarr():
    make_source("x.zarr", (1, 20), (1, 8))
    with pytest.raises(UnsupportedError, match="Zarr has no bfloat16"):
        convert("x.zarr", weights((1, 1, 3)), target="y.zarr", dtype="bfloat16")
