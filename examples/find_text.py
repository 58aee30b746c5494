"""Find the lines of text on a photographed page with a pretrained network, by the command line.

The network is the text detector of PP-OCRv4 (Apache licence), a DBNet: Liao et al. 2020, "Real-time
scene text detection with differentiable binarization", arXiv:1911.08947. Two transposed
convolutions bring its features back to the size of the page. `make demo` fetches it and runs this
file, which needs the packages of `pip install '.[examples]'`.
"""

import argparse
import re
import shlex
import subprocess
import sys
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from scipy.spatial import ConvexHull
from skimage import measure

from tconv.errors import TConvError
from tconv.images import read_picture, write_picture

ROOT = Path(__file__).resolve().parents[1]
MODEL = ROOT / ".data/rapidocr/rapidocr_onnxruntime/models/ch_PP-OCRv4_det_infer.onnx"
OUTPUT = ROOT / "out/find_text.png"

Picture = NDArray[np.uint8]  # (3, H, W)
Map = NDArray[np.float32]  # (H, W), the probability that a pixel lies in the core of a text
Box = NDArray[np.float64]  # (4, 2), the corners x, y clockwise; pixel [0, 0] spans x, y in [0, 1]

ROW = "whole model"  # of the table, which ends with tconv's time, ONNX Runtime's and a ratio
TAKEN = "ConvTranspose computed by tconv"  # below the table, after how many of how many
MULTIPLE = 32  # the network halves height and width five times
# As config.yaml of rapidocr-onnxruntime 1.4.4, from which the model is, sets them for it:
CORE = 0.3  # probability from which a pixel counts
TEXT = 0.5  # mean probability from which a region counts
GROWTH = 1.6  # r' of Liao et al., who take 1.5
SHORTEST = 3  # pixels that a region must have across

SHOWN = 768  # smaller pages are enlarged to about so many pixels
COLOUR = (225, 30, 30)


# ---- from the page to the map --------------------------------------------------------------------


def read_page(path: Path | None) -> Picture:
    """Read a picture, by default the page of scikit-image."""
    if path is not None:
        return read_picture(path)
    from skimage.data import page

    return np.stack([page()] * 3)


def padded(page: Picture) -> Picture:
    """Repeat the last row and column until the network can halve the sizes.

    Resizing would do too, but it blurs the letters.
    """
    _, height, width = page.shape
    return np.pad(page, ((0, 0), (0, -height % MULTIPLE), (0, -width % MULTIPLE)), mode="edge")


def detect(model: Path, page: Picture) -> Map:
    """Run the network on the page as one would in a terminal, and read its map."""
    words = ["run", str(model.resolve()), "page.png", "-o", "map.npz"]
    words += ["--mean", "0.5", "--std", "0.5", "--compare"]
    with TemporaryDirectory() as folder:
        write_picture(Path(folder) / "page.png", padded(page))
        print(f"$ tconv {shlex.join(words)}\n", flush=True)
        done = subprocess.run(
            [sys.executable, "-m", "tconv", *words],
            cwd=folder,
            stdout=subprocess.PIPE,
            text=True,
            errors="replace",
        )
        print(done.stdout, flush=True)
        if done.returncode:
            sys.exit(f"`tconv run` ended with exit code {done.returncode}; it says above why.")
        print(verdict(done.stdout), end="\n\n", flush=True)
        with np.load(Path(folder) / "map.npz") as arrays:
            found = next(iter(arrays.values()))
    _, height, width = page.shape
    if found.shape != (1, 1, *padded(page).shape[1:]):
        sys.exit(f"The model gave {found.shape}, no map of the page; is {model} the text detector?")
    return found[0, 0, :height, :width]


def verdict(table: str) -> str:
    """Say how fast the whole model was beside ONNX Runtime alone, and who computed it."""
    rows = [line.split() for line in table.splitlines()]
    first = ROW.split()[0]  # a narrow table has folded lines
    row = next((row for row in reversed(rows) if row[:1] == [first]), [])
    try:
        ours, theirs = map(float, row[-3:-1])
        speed = f"tconv ran the network {theirs / ours:.2f} times as fast as ONNX Runtime alone"
    except (ValueError, ZeroDivisionError):
        sys.exit(f"The table must have a row {ROW!r} that ends with two times and a ratio.")
    if not row[-1][:1].isdigit():  # no ratio
        speed += " (too near to 1 for this machine to tell)"
    found = re.search(rf"([1-9]\d*) of (\d+) {TAKEN}", " ".join(table.split()))
    if found:
        return f"{speed}, and computed {found[1]} of its {found[2]} ConvTranspose."
    return f"{speed}, to which it left all of it: there was little to gain."


# ---- from the map to boxes -----------------------------------------------------------------------


def boxes_of(probability: Map) -> list[Box]:
    """Put a box around every text, from the top down.

    The network learnt the cores of texts, so that neighbours stay apart. A core of area A and
    perimeter L is grown by ``A*r'/L`` on every side. Here L is the perimeter of the core's smallest
    rectangle but A is the core's own area: a line on a bent page is thinner than its rectangle.
    """
    height, width = probability.shape
    cores = measure.label(probability > CORE, connectivity=2)
    boxes = []
    for core in measure.regionprops(cores, intensity_image=probability):
        turn, low, high = smallest_rectangle(core.coords)
        sides = high - low
        if sides.min() < SHORTEST or core.intensity_mean < TEXT:
            continue
        offset = core.area * GROWTH / (2 * sides.sum())
        left, top = low - offset
        right, bottom = high + offset
        corners = np.array([(left, top), (right, top), (right, bottom), (left, bottom)])
        boxes.append(np.clip(corners @ turn.T, 0, (width, height)))
    return sorted(boxes, key=lambda box: box[:, 1].mean())


def smallest_rectangle(
    pixels: NDArray[np.integer],
) -> tuple[NDArray[np.float64], NDArray[np.float64], NDArray[np.float64]]:
    """Return the rectangle of least area around pixels, (n, 2) as row, column.

    One of its sides lies on a side of the convex hull (Freeman and Shapira 1975). The result is a
    rotation by at most 45 degrees and, before it, the least and the largest x, y.
    """
    corners = np.concatenate([pixels[:, ::-1] + corner for corner in np.ndindex(2, 2)])
    hull = corners[ConvexHull(corners).vertices]
    x, y = (np.roll(hull, -1, axis=0) - hull).T
    quarter = np.pi / 2
    angles = np.unique((np.arctan2(y, x) + quarter / 2) % quarter - quarter / 2)
    rectangles = []
    for cos, sin in zip(np.cos(angles), np.sin(angles), strict=True):
        turn = np.array([(cos, -sin), (sin, cos)])
        level = hull @ turn
        rectangles.append((turn, level.min(axis=0), level.max(axis=0)))
    return min(rectangles, key=lambda rectangle: np.prod(rectangle[2] - rectangle[1]))


# ---- the sheet -----------------------------------------------------------------------------------


def sheet(page: Picture, probability: Map, boxes: list[Box]) -> Picture:
    """Lay the page with its boxes beside the map, labelled and enlarged."""
    height, width = probability.shape
    scale = max(1, round(SHOWN / max(height, width)))
    size = width * scale, height * scale
    grey = np.floor(np.clip(probability, 0, 1) * 255 + 0.5).astype(np.uint8)
    whole = Image.fromarray(np.moveaxis(page, 0, -1)).resize(size, Image.Resampling.BICUBIC)
    core = Image.fromarray(grey).resize(size, Image.Resampling.NEAREST)
    draw = ImageDraw.Draw(whole)
    for box in boxes:
        draw.polygon([tuple(corner) for corner in box * scale - 0.5], outline=COLOUR, width=2)

    font = ImageFont.load_default(18)
    labelled = {f"page, {width}x{height}: {count(boxes)}": whole, "probability map": core}
    gap, line = 12, 34  # pixels between pictures, and for a line of text above them
    column = gap + max(size[0], *(int(font.getlength(label)) for label in labelled))
    paper = Image.new("RGB", (gap + len(labelled) * column, line + size[1] + gap), "white")
    draw = ImageDraw.Draw(paper)
    for n, (label, picture) in enumerate(labelled.items()):
        at = gap + n * column
        draw.text((at, line // 2), label, "black", font, anchor="lm")
        paper.paste(picture, (at, line))
    return np.moveaxis(np.asarray(paper), -1, 0)


def count(boxes: list[Box]) -> str:
    return f"{len(boxes) or 'no'} {'line' if len(boxes) == 1 else 'lines'} of text"


# ---- the program ---------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    options = read_arguments(arguments)
    if not options.model.is_file():
        sys.exit(f"{options.model} is missing: run `make demo`, which fetches it.")
    try:
        page = read_page(options.picture)
        probability = detect(options.model, page)
        boxes = boxes_of(probability)
        options.output.parent.mkdir(parents=True, exist_ok=True)
        write_picture(options.output, sheet(page, probability, boxes))
    except (OSError, TConvError) as error:
        sys.exit(str(error))
    print(f"Found {count(boxes)}.")
    print(f"The picture is {options.output}")


def read_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--picture", type=Path, help="picture file (default: scikit-image's page)")
    parser.add_argument("--model", type=Path, default=MODEL, help="PP-OCR's text detector, .onnx")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="PNG to write")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    main()
