"""The example that doubles a volume: its volume, its result on disk, and its picture."""

import numpy as np
import pytest
import zarr

from loading import example
from tconv.images import read_picture

upscale_volume = example("upscale_volume")


def doubled(folder, volume):
    """Double a volume by way of the disk."""
    upscale_volume.write_source(folder / "source.zarr", volume)
    upscale_volume.double(folder / "source.zarr" / "0", folder / "doubled.zarr")
    return zarr.open_group(folder / "doubled.zarr", mode="r")


def test_the_volume_on_disk_is_the_one_in_memory(tmp_path, capsys):
    output = tmp_path / "new" / "slices.png"
    upscale_volume.main(["--output", str(output)])
    printed = capsys.readouterr().out
    assert "40 chunks computed" in printed
    assert "windows equal tconv.conv_transpose of the whole in memory, bit for bit" in printed
    volume = upscale_volume.read_volume()
    found = zarr.open_array(output.parent / "volume_doubled.zarr" / "0", mode="r")[:]
    assert found.shape == tuple(2 * n for n in volume.shape)
    assert np.array_equal(found, upscale_volume.double_in_memory(np.pad(volume, 1, mode="edge")))
    picture = read_picture(output)
    assert picture.shape == (3, 34 + 416 + 34 + 256 + 12, 12 + 2 * (608 + 12))
    assert picture[:, 34:450, 12:620].std() > 20  # not black


def test_a_constant_stays_constant_and_a_ramp_a_ramp(tmp_path):
    constant = doubled(tmp_path / "constant", np.full((5, 6, 7), 0.75, np.float32))
    assert np.array_equal(constant["0"][:], np.full((10, 12, 14), 0.75))  # up to the borders
    ramp = np.broadcast_to(np.arange(40, dtype=np.float32)[:, np.newaxis, np.newaxis], (40, 2, 3))
    group = doubled(tmp_path / "ramp", ramp)
    places = (np.arange(80) - 0.5) / 2  # of the smaller cells, in larger ones
    assert np.array_equal(group["0"][:], np.broadcast_to(places.clip(0, 39), (6, 4, 80)).T)
    dataset = group.attrs["ome"]["multiscales"][0]["datasets"][0]
    scale, translation = dataset["coordinateTransformations"]
    z = translation["translation"][0] + scale["scale"][0] * np.arange(80)
    assert np.array_equal(z, upscale_volume.FIRST[0] + upscale_volume.CELL * places)


@pytest.mark.parametrize("whole_bytes", [0, 10**9])
def test_copies_and_a_window_that_differs(tmp_path, monkeypatch, whole_bytes):
    monkeypatch.setattr(upscale_volume, "WHOLE_BYTES", whole_bytes)
    rng = np.random.default_rng(0)
    volume = rng.random((9, 16, 18)).astype(np.float32)
    source = upscale_volume.write_source(tmp_path / "source.zarr", volume, copies=2)
    assert np.array_equal(source[:], np.pad(np.concatenate([volume, volume]), 1, mode="edge"))
    expected = upscale_volume.double_in_memory(source[:])
    found = zarr.create_array(tmp_path / "found.zarr", data=expected)
    assert "bit for bit" in upscale_volume.check(source, found)
    found[17, 16, 18] += np.float32(1e-6)
    with pytest.raises(SystemExit, match="differs"):
        upscale_volume.check(source, found)
