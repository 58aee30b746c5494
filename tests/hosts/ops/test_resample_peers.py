"""Upsampling beside SciPy, Pillow, PyTorch and JAX: the table of grids, and means."""

import re

import dask.array as da
import jax
import numpy as np
import pytest
import scipy.ndimage
import torch
import xarray
from PIL import Image
from quotations import ROOT
from torch.nn.functional import interpolate

import tconv

PAGE = (ROOT / "docs" / "conventions.md").read_text("utf-8")
ROWS = re.findall(r"^\| `(.*)` \| (–|`\"\w+\"`) \| `(.*)` \|$", PAGE, re.MULTILINE)
FILTERS = {
    "nearest": Image.Resampling.BOX,
    "linear": Image.Resampling.BILINEAR,
    "cubic": Image.Resampling.BICUBIC,
    "lanczos3": Image.Resampling.LANCZOS,
}
METHODS = ("linear", "cubic", "lanczos3")
LIBRARIES = {
    "np": np, "scipy": scipy, "Image": Image, "interpolate": interpolate, "torch": torch,
    "jax": jax,
}  # fmt: skip


def by_call(call, x, s):
    h, w = x.shape
    found = np.asarray(eval(call, {**LIBRARIES, "x": x, "s": s, "h": h, "w": w}))
    return found.reshape(s * h, s * w)


def random_image(shape=(9, 13)):
    return np.random.default_rng(0).standard_normal(shape).astype("float32")


def test_the_table_is_there():
    assert len(ROWS) == 17


@pytest.mark.parametrize(("call", "kernel", "centre"), ROWS)
@pytest.mark.parametrize("s", [2, 3, 4])
def test_a_row_of_the_table_gives_the_numbers_it_says(call, kernel, centre, s):
    x = random_image()
    theirs = by_call(call, x, s)
    if kernel != "–":
        ours = tconv.upsample(x, s, kernel.strip('`"'))
        np.testing.assert_allclose(ours, theirs, atol=5e-6)
    else:
        for each in ("nearest", *METHODS):
            assert abs(tconv.upsample(x, s, each) - theirs).max() > 0.1


@pytest.mark.parametrize(("call", "kernel", "centre"), ROWS)
@pytest.mark.parametrize("s", [2, 3, 4])
def test_a_row_of_the_table_has_the_centres_it_says(call, kernel, centre, s):
    n = 24
    ramp = np.tile(np.arange(n, dtype="float32"), (9, 1))
    centres = eval(centre, {"o": np.arange(s * n), "s": s, "n": n})
    inner = slice(5 * s, -5 * s)
    if "nearest" in kernel:
        centres = np.floor(centres + 0.5)
    places = by_call(call, ramp, s)[4 * s, inner]
    # Neither Lanczos' kernel nor a cubic with a = -0.75 keeps a ramp exactly; grids differ by more.
    np.testing.assert_allclose(places, centres[inner], atol=0.05)


@pytest.mark.parametrize("kernel", FILTERS)
@pytest.mark.parametrize("s", [2, 3, 4])
def test_means_are_those_of_pillow(kernel, s):
    y = random_image((9 * s, 7 * s))
    theirs = np.asarray(Image.fromarray(y).resize((7, 9), FILTERS[kernel]))
    np.testing.assert_allclose(tconv.downsample(y, s, kernel), theirs, atol=5e-6)


@pytest.mark.parametrize("kernel", METHODS)
@pytest.mark.parametrize("s", [2, 3])
def test_means_are_those_of_jax(kernel, s):
    y = random_image((5 * s, 6 * s, 4 * s))
    theirs = jax.image.resize(y, (5, 6, 4), kernel)
    np.testing.assert_allclose(tconv.downsample(y, s, kernel), theirs, atol=5e-6)


@pytest.mark.parametrize("kernel", FILTERS)
def test_pictures_differ_from_those_of_pillow_by_one_at_most(kernel):
    # Pillow rounds after each axis, and clips, which this range never needs.
    image = np.random.default_rng(0).integers(90, 166, (9, 13, 3), np.uint8)
    theirs = np.asarray(Image.fromarray(image).resize((39, 27), FILTERS[kernel]))
    ours = tconv.upsample(image, 3, kernel, axes=(0, 1))
    assert abs(ours.astype(int) - theirs).max() <= 1


@pytest.mark.parametrize("shape", [(7,), (4, 5, 6), (3, 2, 4, 5)])
@pytest.mark.parametrize(("order", "kernel"), [(0, "nearest"), (1, "linear")])
def test_volumes_are_those_of_scipy(shape, order, kernel):
    x = np.random.default_rng(0).standard_normal(shape)
    theirs = scipy.ndimage.zoom(x, 3, order=order, mode="nearest", grid_mode=True)
    np.testing.assert_allclose(tconv.upsample(x, 3, kernel), theirs, atol=1e-12)


@pytest.mark.parametrize("make", [torch.tensor, jax.numpy.asarray, da.asarray])
def test_arrays_of_other_libraries_are_refused(make):
    with pytest.raises(tconv.UnsupportedError, match=r"must be one of NumPy; pass numpy.asarray"):
        tconv.upsample(make(random_image()), 2)


def test_the_recipe_for_xarray_runs():
    page = (ROOT / "docs" / "recipes.md").read_text("utf-8")
    (code,) = re.findall(r"^```python\n(import xarray\n.*?)^```$", page, re.MULTILINE | re.DOTALL)
    names = {"np": np, "tconv": tconv}
    exec(code, names)
    fine = names["fine"]
    assert isinstance(fine, xarray.DataArray)
    assert fine.sizes == {"lat": 8, "lon": 12}
    assert fine["lat"].values[:3].tolist() == [-0.25, 0.25, 0.75]
