"""The page on volumes: its code runs, and its results are those of memory."""

import re
from pathlib import Path

import numpy as np
import zarr

import tconv

PAGE = Path(__file__).parents[3] / "docs" / "volumes.md"


def test_the_code_of_the_page_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
    assert len(blocks) == 6
    names = {}
    for block in blocks:
        exec(block, names)
    assert "chunks computed" in capsys.readouterr().out
    weight, scan = names["weight"], names["scan"][...]
    whole = tconv.conv_transpose(scan, weight, stride=2, padding=1, method="direct")
    for target in ("double.zarr", "lazy.zarr"):
        np.testing.assert_array_equal(zarr.open_array(target)[...], whole)
    labels = names["model"]  # a network, tile by tile
    labels = tconv.onnx.Session(labels).run(None, {"x": scan[np.newaxis]})[0]
    np.testing.assert_allclose(zarr.open_array("labels.zarr")[...], labels[0], rtol=1e-5, atol=1e-5)
    np.testing.assert_array_equal(names["slab"], whole[:, 60])
    np.testing.assert_array_equal(names["doubled"].values, whole)
    assert names["doubled"].dims == ("c", "z", "y", "x")
    dx = tconv.conv(np.ones_like(whole), weight, stride=2, padding=1, method="direct")
    np.testing.assert_array_equal(names["dx"].compute(), dx)
    gradient = tconv.conv_weight_gradient(
        scan, np.ones_like(whole), weight.shape[2:], stride=2, padding=1
    )
    np.testing.assert_allclose(names["dweight"].compute(), gradient, rtol=1e-5)
