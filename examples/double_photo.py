"""Double a photo with a pretrained network of tconv layers; before that, the worked example.

The network is UpConv-7 of waifu2x (MIT licence), six convolutions and one transposed convolution,
trained to double drawings. `make demo` fetches its weights and runs this file, which needs the
packages of `pip install '.[examples]'`.
"""

import argparse
import sys
from collections.abc import Callable, Iterator, Mapping
from itertools import pairwise, product
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw, ImageFont
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

import tconv
from tconv import definition
from tconv.images import read_picture, renormalise, write_picture
from tconv.nn.activations import LeakyReLU
from tconv.nn.conv import Conv2d, ConvTranspose2d
from tconv.nn.layer import Layer, Sequential
from tconv.nn.state_files import read_state

ROOT = Path(__file__).resolve().parents[1]
WEIGHTS = ROOT / ".data/waifu2x/waifu2x/models/upconv7/anime_style_scale_rgb.npz"
OUTPUT = ROOT / "out/double_photo.png"

Picture = NDArray[np.uint8]  # (3, H, W)

CHANNELS = (3, 16, 32, 64, 128, 256, 256)
# The convolutions have no padding, so each of the six takes one cell from every side. The last
# layer makes (I - 1)*2 + 4 - 2*3 = 2*(I - 2) cells of I, as if it took another one. So with 7
# cells put around the picture the output is exactly twice its size.
MARGIN = 7
BORDER = 8  # pixels at the edge that the PSNR leaves out: there the surroundings are made up
DETAIL = 100, 150  # height and width of the part that is also shown enlarged


# ---- the worked example --------------------------------------------------------------------------


def print_worked_example() -> None:
    w, y = np.array([[1, 2], [3, 4]]), np.array([[37, 47], [67, 77]])
    w4, y4 = w.reshape(1, 1, 2, 2), y.reshape(1, 1, 2, 2)
    unrolled = definition.unrolled_filter(tconv.Geometry.of(y4.shape, w4.shape), w4)
    x = tconv.conv_transpose(y4, w4)[0, 0]
    print("The filter W, and Y, a 2x2 array to be grown:", *beside(w, y), sep="\n")
    print("\nW*: one row per position of W on a 3x3 array, one column per cell of it:")
    print(unrolled)
    print("\nThe transposed convolution is the product with its transpose, (W*)^T vec(Y):")
    print(unrolled.T @ y.reshape(-1))
    print("\ntconv.conv_transpose(Y, W), and the same as a picture in [0, 255]:")
    print(*beside(x, renormalise(x, "minmax")), sep="\n")


def beside(*arrays: NDArray[np.generic]) -> Iterator[str]:
    """Print small matrices of the same height beside each other, line by line."""
    for lines in zip(*(str(array).splitlines() for array in arrays), strict=True):
        yield "    ".join(line.ljust(18) for line in lines).rstrip()


# ---- the network ---------------------------------------------------------------------------------


def upconv7(path: Path) -> Sequential:
    """Make the network and load its weights."""
    layers: dict[str, Layer] = {}
    for n, (inputs, outputs) in enumerate(pairwise(CHANNELS), 1):
        layers[f"conv{n}"] = Conv2d(inputs, outputs, 3)
        layers[f"leaky{n}"] = LeakyReLU(0.1)
    layers["conv7"] = ConvTranspose2d(256, 3, 4, stride=2, padding=3, bias=False)
    network = Sequential(layers)
    names = {"W": "weight", "b": "bias"}  # conv1/W becomes conv1.weight
    state = {}
    for name, value in read_state(path).items():
        layer, _, letter = name.partition("/")
        state[f"{layer}.{names.get(letter, letter)}"] = value
    network.load_state_dict(state)
    return network


def double(
    network: Sequential,
    picture: NDArray[np.floating],
    tile: int,
    advance: Callable[[], object] = lambda: None,
) -> NDArray[np.floating]:
    """Return the picture (C, H, W), values in [0, 1], in twice the size, (C, 2*H, 2*W).

    It is done tile by tile, so that memory does not grow with the picture. A tile comes with the
    cells around it that its pixels depend on, so it turns out as it would in the whole picture.
    `advance` is called after every tile.
    """
    channels, height, width = picture.shape
    padded = np.pad(picture, ((0, 0), (MARGIN, MARGIN), (MARGIN, MARGIN)), mode="edge")
    doubled = np.empty((channels, 2 * height, 2 * width), picture.dtype)
    for top, left in corners(height, width, tile):
        bottom, right = min(top + tile, height), min(left + tile, width)
        window = padded[:, top : bottom + 2 * MARGIN, left : right + 2 * MARGIN]
        doubled[:, 2 * top : 2 * bottom, 2 * left : 2 * right] = network.predict(window)
        advance()
    return doubled


def corners(height: int, width: int, tile: int) -> list[tuple[int, int]]:
    """Where the tiles begin."""
    return list(product(range(0, height, tile), range(0, width, tile)))


# ---- the photo -----------------------------------------------------------------------------------


def read_photo(path: Path | None) -> Picture:
    """Read a photo, by default the cat of scikit-image, and crop it to even sizes."""
    if path is None:
        from skimage.data import chelsea

        photo: Picture = np.moveaxis(chelsea(), -1, 0)
    else:
        photo = read_picture(path)
    _, height, width = photo.shape
    return photo[:, : height // 2 * 2, : width // 2 * 2]


def resize(picture: Picture, height: int, width: int) -> Picture:
    """Bicubic interpolation by Pillow, which smooths as much as it shrinks."""
    image = Image.fromarray(np.moveaxis(picture, 0, -1))
    return np.moveaxis(np.asarray(image.resize((width, height), Image.Resampling.BICUBIC)), -1, 0)


def as_floats(picture: Picture) -> NDArray[np.float32]:
    """Map [0, 255] to [0, 1], as the network expects."""
    return picture.astype(np.float32) / np.float32(255)


def as_picture(values: NDArray[np.floating]) -> Picture:
    """Map [0, 1] to [0, 255]; what the network made beyond is clipped."""
    return np.floor(np.clip(values, 0, 1) * 255 + 0.5).astype(np.uint8)


def psnr(photo: Picture, picture: Picture) -> float:
    """Peak signal-to-noise ratio in decibels, without the border; infinite if they are equal."""
    inner = np.s_[:, BORDER:-BORDER, BORDER:-BORDER]
    error = np.mean((photo[inner].astype(np.float64) - picture[inner]) ** 2)
    return float("inf") if error == 0 else float(10 * np.log10(255**2 / error))


# ---- the sheet -----------------------------------------------------------------------------------


def busiest(photo: Picture, height: int, width: int) -> tuple[int, int]:
    """Top left corner of the part with the strongest contrasts, in steps of 10 pixels."""
    grey = photo.astype(np.float64).mean(axis=0)
    down, right = np.gradient(grey)
    contrast = down**2 + right**2
    places = product(
        range(0, grey.shape[0] - height + 1, 10), range(0, grey.shape[1] - width + 1, 10)
    )
    return max(places, key=lambda at: contrast[at[0] : at[0] + height, at[1] : at[1] + width].sum())


def sheet(pictures: Mapping[str, Picture]) -> Picture:
    """Lay labelled pictures side by side, and under each a part of it enlarged."""
    first = next(iter(pictures.values()))
    _, height, width = first.shape
    part_height, part_width = min(DETAIL[0], height), min(DETAIL[1], width)
    top, left = busiest(first, part_height, part_width)
    scale = max(1, width // part_width)
    gap, line = 12, 34  # pixels between pictures, and for a line of text above them
    below = line + height + line
    page = Image.new(
        "RGB", (gap + len(pictures) * (width + gap), below + part_height * scale + gap), "white"
    )
    draw, font = ImageDraw.Draw(page), ImageFont.load_default(18)
    draw.text((gap, below - line // 2), f"the framed part, {scale} x", "black", font, anchor="lm")
    for n, (label, picture) in enumerate(pictures.items()):
        at = gap + n * (width + gap)
        whole = Image.fromarray(np.moveaxis(picture, 0, -1))
        part = whole.crop((left, top, left + part_width, top + part_height))
        size = (part_width * scale, part_height * scale)
        draw.text((at, line // 2), label, "black", font, anchor="lm")
        page.paste(whole, (at, line))
        page.paste(part.resize(size, Image.Resampling.NEAREST), (at, below))
        corner = (at + left, line + top)
        draw.rectangle(
            (corner, (corner[0] + part_width - 1, corner[1] + part_height - 1)), outline="white"
        )
    return np.moveaxis(np.asarray(page), -1, 0)


# ---- the program ---------------------------------------------------------------------------------


def main(arguments: list[str] | None = None) -> None:
    options = read_arguments(arguments)
    print_worked_example()
    if not options.weights.is_file():
        sys.exit(f"\n{options.weights} is missing: run `make demo`, which fetches it.")
    network = upconv7(options.weights)
    photo = read_photo(options.photo)
    _, height, width = photo.shape
    if min(height, width) <= 2 * BORDER:
        sys.exit(f"\nThe photo must have more than {2 * BORDER} pixels in height and width.")
    small = resize(photo, height // 2, width // 2)

    print(f"\nUpConv-7 doubles a photo of {width // 2}x{height // 2} pixels, tile by tile:")
    tiles = len(corners(height // 2, width // 2, options.tile))
    began = perf_counter()
    with Progress(
        BarColumn(), MofNCompleteColumn(), TextColumn("tiles"), TimeElapsedColumn()
    ) as bar:
        task = bar.add_task("", total=tiles)
        doubled = double(network, as_floats(small), options.tile, lambda: bar.advance(task))
    elapsed_s = perf_counter() - began

    bicubic, by_network = resize(small, height, width), as_picture(doubled)
    bicubic_db, network_db = psnr(photo, bicubic), psnr(photo, by_network)
    print(f"PSNR against the photo: bicubic {bicubic_db:.2f} dB, network {network_db:.2f} dB.")
    print(verdict(bicubic_db, network_db))
    print(f"It took {elapsed_s:.1f} s.")
    pictures = {
        f"photo, {width}x{height}": photo,
        f"halved, then bicubic: {bicubic_db:.2f} dB": bicubic,
        f"halved, then UpConv-7: {network_db:.2f} dB": by_network,
    }
    options.output.parent.mkdir(parents=True, exist_ok=True)
    write_picture(options.output, sheet(pictures))
    print(f"The pictures are in {options.output}")
    if options.peers:
        print(*against_peers(), sep="\n")


def against_peers() -> Iterator[str]:
    """Time the same network by other libraries beside tconv, each in a process of its own."""
    sys.path.insert(0, str(ROOT))
    from bench.report import seconds
    from bench.run import measure_examples

    with TemporaryDirectory() as folder:
        (row,) = measure_examples(["photo"], Path(folder))
    ours = seconds(row, "layers", min)
    yield f"The same network by others, in the same tiles; tconv in turns with them: {ours:.2f} s."
    for own, name in {"torch": "PyTorch", "onnx": "ONNX Runtime"}.items():
        taken = seconds(row, own, min)
        if taken is None:
            found = row["contenders"].get(own, {"failed": "is not installed"})["failed"]
            yield f"  {name:12}  {found}"
        else:
            yield f"  {name:12}  {taken:.2f} s, {taken / ours:.2f} times that of tconv"


def verdict(bicubic_db: float, network_db: float) -> str:
    """Say plainly which is closer to the photo, and by how much of what is printed."""
    gain = round(network_db, 2) - round(bicubic_db, 2)
    if gain > 0:
        return f"The network comes closer by {gain:.2f} dB, though it learnt from drawings."
    return f"Bicubic comes closer by {-gain:.2f} dB: the network learnt from drawings."


def read_arguments(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--photo", type=Path, help="picture file (default: scikit-image's cat)")
    parser.add_argument("--weights", type=Path, default=WEIGHTS, help="waifu2x's UpConv-7, .npz")
    parser.add_argument("--output", type=Path, default=OUTPUT, help="PNG to write")
    parser.add_argument("--tile", type=int, default=64, help="side of a tile of the small photo")
    parser.add_argument("--peers", action="store_true", help="time other libraries, too")
    options = parser.parse_args(arguments)
    if options.tile < 1:
        parser.error(f"--tile={options.tile} must be at least 1")
    return options


if __name__ == "__main__":
    main()
