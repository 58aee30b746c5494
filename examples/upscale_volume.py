"""Double a volume in three dimensions by trilinear interpolation, from disk to disk.

No scan of a body lies in scikit-image's wheel, so the volume is made from what was measured of a
motorcycle: a photo, and the distance of nearly every pixel (Scharstein et al. 2014, GCPR). A cell
is black in front of the surface that the camera sees. A cell behind it, of which the camera knows
nothing, is as bright as the surface. `make demo` runs this file, which needs the packages of
`pip install '.[examples,volumes]'`.
"""

import argparse
import sys
from math import ceil
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import zarr
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from skimage.color import rgb2gray
from skimage.data import stereo_motorcycle
from skimage.transform import downscale_local_mean

import tconv
from tconv.errors import TConvError
from tconv.images import write_picture
from tconv.volumes import Conversion, convert

OUTPUT = Path(__file__).resolve().parents[1] / "out/upscale_volume.png"

Volume = NDArray[np.float32]  # (z, y, x), brightness in [0, 1]; z leads away from the camera

# The camera, as scikit-image describes it: in pixels, but the baseline in mm.
FOCAL, CENTRE, OFFSET, BASELINE = 994.978, (254.877, 311.193), 31.086, 193.001

SHAPE = 64, 104, 152  # cells
CELL = 12.5  # mm
FIRST = 2050.0, -700.0, -800.0  # mm from the camera to the middle of the first cell
SAMPLES = 3  # along each axis of a cell, which is their mean
CHUNK = 32

# Along each axis a cell adds 1/4, 3/4, 3/4, 1/4 of itself to four cells of half the size: two in
# its place and one on either side. A border cell has no neighbour that adds the rest, so the
# source repeats its outermost cells. I + 2 cells make 2*(I + 2) + 2; without 3 at either end, 2*I.
WEIGHT = tconv.init_bilinear((1, 1, 4, 4, 4), stride=2).astype(np.float32)
SETTINGS: dict[str, Any] = {"stride": 2, "padding": 3}

WINDOWS, SIDE = 20, 16  # that are compared; SIDE in cells of the source
WHOLE_BYTES = 10**9  # of the largest result that is also computed as a whole
SHOWN = 40, 70  # z of the slice across the view, y of the one along it
ZOOM = 4  # pixels for a cell of the source


# ---- the volume ----------------------------------------------------------------------------------


def read_volume() -> Volume:
    """Fill the cells at and behind the surfaces that the camera sees."""
    photo, _, disparity = stereo_motorcycle()  # infinite where no distance is known
    depth = FOCAL * BASELINE / (disparity + OFFSET)  # mm
    depth[np.isinf(disparity)] = np.inf
    depth = np.pad(depth, 1, constant_values=np.inf)  # nothing outside the photo
    grey = np.pad(rgb2gray(photo), 1)
    samples = (np.arange(SAMPLES * max(SHAPE)) + 0.5) / SAMPLES - 0.5  # in cells
    z, y, x = (at + CELL * samples[: SAMPLES * n] for at, n in zip(FIRST, SHAPE, strict=True))

    def plane(distance: float) -> NDArray[np.floating]:
        row, column = (
            np.rint(middle + FOCAL * at / distance).astype(int).clip(-1, size) + 1
            for middle, at, size in zip(CENTRE, (y, x), disparity.shape, strict=True)
        )
        pixel = np.ix_(row, column)
        return np.where(depth[pixel] <= distance, grey[pixel], 0)

    slabs = (np.stack([plane(each) for each in some]) for some in z.reshape(-1, SAMPLES))
    means = [downscale_local_mean(slab, (SAMPLES,) * 3) for slab in slabs]
    return np.concatenate(means).astype(np.float32)


def write_source(path: Path, volume: Volume, copies: int = 1) -> zarr.Array:
    """Write copies behind each other to an OME-Zarr, with the outermost cells repeated."""
    moves = [
        {"type": "scale", "scale": [CELL] * 3},
        {"type": "translation", "translation": [at - CELL for at in FIRST]},
    ]
    image = {
        "axes": [{"name": name, "type": "space", "unit": "millimeter"} for name in "zyx"],
        "datasets": [{"path": "0", "coordinateTransformations": moves}],
    }
    ome = {"version": "0.5", "multiscales": [image]}
    planes = len(volume)
    padded = np.pad(volume, ((0, 0), (1, 1), (1, 1)), mode="edge")
    array = zarr.create_group(path, attributes={"ome": ome}).create_array(
        "0",
        shape=(planes * copies + 2, *padded.shape[1:]),
        chunks=(CHUNK,) * 3,
        dtype=volume.dtype,
        dimension_names=tuple("zyx"),
    )
    array[0], array[-1] = padded[0], padded[-1]
    for start in range(1, planes * copies, planes):
        array[start : start + planes] = padded
    return array


# ---- the doubling --------------------------------------------------------------------------------


def double(source: Path, target: Path, memory: str = "2GB") -> Conversion:
    return convert(source, WEIGHT, target=target, memory=memory, overwrite=True, **SETTINGS)


def double_in_memory(source: Volume) -> Volume:
    return tconv.conv_transpose(source[np.newaxis], WEIGHT, method="direct", **SETTINGS)[0]


def check(source: zarr.Array, doubled: zarr.Array) -> str:
    """Compare random windows of the result with what is computed in memory."""
    rng = np.random.default_rng(0)
    whole = double_in_memory(source[:]) if doubled.nbytes <= WHOLE_BYTES else None
    for _ in range(WINDOWS):
        start = [int(rng.integers(n // 2 - SIDE + 1)) for n in doubled.shape]
        window = tuple(slice(2 * n, 2 * (n + SIDE)) for n in start)
        part = tuple(slice(n, n + SIDE + 2) for n in start)  # with what the padding crops
        expected = double_in_memory(source[part]) if whole is None else whole[window]
        if not np.array_equal(doubled[window], expected):
            sys.exit(f"The window from {start} differs from tconv.conv_transpose in memory.")
    of = "their part of the source" if whole is None else "the whole"
    return f"{WINDOWS} random windows equal tconv.conv_transpose of {of} in memory, bit for bit."


def sheet(source: zarr.Array, doubled: zarr.Array) -> NDArray[np.uint8]:
    """Lay a slice across the view and one along it below each other, before beside after."""
    (z, y), depth = SHOWN, SHAPE[0]  # of the first copy
    z_m, y_m = ((at + CELL * n) / 1000 for at, n in zip(FIRST[:2], SHOWN, strict=True))
    across = source[z + 1, 1:-1, 1:-1], doubled[2 * z]
    along = source[1 : depth + 1, y + 1, 1:-1], doubled[: 2 * depth, 2 * y]
    rows = {
        f"{z_m:.2f} m from the camera": across,
        f"from above, {y_m:.2f} m below the camera": along,
    }
    font, gap, line = ImageFont.load_default(18), 12, 34  # pixels; a line of text above a slice
    column, bottom = gap + ZOOM * SHAPE[2], 2 * line + ZOOM * (SHAPE[1] + depth)
    page = Image.new("L", (gap + 2 * column, bottom + gap), "white")
    top = 0
    for label, slices in rows.items():
        for n, (when, cells) in enumerate(zip(("before", "after"), slices, strict=True)):
            left, zoom = gap + n * column, ZOOM // (n + 1)
            words = f"{label}: {when}, cells of {CELL / (n + 1):g} mm"
            ImageDraw.Draw(page).text((left, top + line // 2), words, "black", font, anchor="lm")
            large = np.rint(cells * 255).astype(np.uint8).repeat(zoom, 0).repeat(zoom, 1)
            page.paste(Image.fromarray(large), (left, top + line))
        top += line + len(large)
    return np.asarray(page)


# ---- the program ---------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--size", type=int, default=0, help="MB of the result, at least")
    parser.add_argument("--memory", default="2GB", help="that the conversion may take")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="PNG to write")
    options = parser.parse_args(arguments)
    volume, target = read_volume(), options.output.parent / "volume_doubled.zarr"
    copies = max(1, ceil(options.size * 10**6 / (8 * volume.nbytes)))
    try:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        with TemporaryDirectory() as folder:
            path = Path(folder) / "volume.zarr"
            source = write_source(path, volume, copies)
            print(double(path / "0", target, options.memory))
            doubled = zarr.open_array(target / "0", mode="r")
            print(check(source, doubled))
            write_picture(options.output, sheet(source, doubled))
    except (OSError, TConvError) as error:
        sys.exit(str(error))
    print(f"The picture is {options.output}, the volume {target}")


if __name__ == "__main__":
    main()
