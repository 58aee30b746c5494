"""Recover a photo from a ninth of its pixels: deconvolution in the true sense of the word.

A photo is blurred by a Gaussian and every third row and column of it is kept, with a little noise:
a convolution with a stride, as a camera of few pixels does. Four ways back to its size:

- cubic interpolation, which knows nothing of the blur,
- the transposed convolution alone: it restores the shape, not the values,
- least squares with a penalty on differences of neighbours (Tikhonov): a small linear system for
  each frequency, solved exactly,
- least squares with total variation, which keeps edges.

    make deconvolve
"""

import argparse
import sys
from pathlib import Path
from time import perf_counter

SETUP = "make deconvolve"
try:
    import numpy as np
    from PIL import Image, ImageDraw, ImageFont
    from scipy.ndimage import zoom
    from skimage import data

    from tconv.images import write_picture
    from tconv.scipy import ConvOperator, norm, recover
    from tconv.tables import Column, Table
except ImportError as error:
    sys.exit(f"{error.name} is missing; type\n{SETUP}")

OUTPUT = Path(__file__).resolve().parents[1] / "out"
SIDE, STRIDE = 288, 3  # of the photo, in pixels; one of so many is kept along each axis
BLUR, REACH = 1.6, 5  # standard deviation of the Gaussian, and where it is cut off, in pixels
NOISE, SEED = 1e-3, 0  # standard deviation, of white
STRENGTH = {"gradient": 1e-4, "tv": 1e-4}

DETAIL = 96  # side of the part that is shown enlarged
GAP, LINE = 12, 30  # in pixels


def photo():
    """The middle of scikit-image's camera, from 0 (black) to 1, with an axis of channels."""
    return data.camera()[np.newaxis, 60 : 60 + SIDE, 150 : 150 + SIDE] / 255


def camera():
    """Blur and keep every third pixel; the photo goes on around its ends."""
    wave = np.exp(-(np.arange(-REACH, REACH + 1) ** 2) / (2 * BLUR**2))
    wave /= wave.sum()
    spare = 2 * REACH + 1 - STRIDE  # so that each row and column has a third of the cells
    return ConvOperator(
        (wave[:, np.newaxis] * wave)[np.newaxis, np.newaxis],
        SIDE,
        stride=STRIDE,
        padding=(spare // 2, spare // 2),
        padding_mode="circular",
    )


def ways_back(operator, samples):
    """Each way's name, picture and seconds."""
    ways = {
        "cubic interpolation": lambda: zoom(
            samples, (1, STRIDE, STRIDE), order=3, mode="grid-wrap", grid_mode=True
        ),
        "transpose alone": lambda: (
            STRIDE**2 * (operator.H @ samples.ravel()).reshape(operator.dims)
        ),
        "Tikhonov, gradient": lambda: recover(
            operator, samples, strength=STRENGTH["gradient"], penalty="gradient"
        ),
        "total variation": lambda: recover(
            operator, samples, strength=STRENGTH["tv"], penalty="tv"
        ),
    }
    for name, way in ways.items():
        began = perf_counter()
        found = way()
        yield name, found, perf_counter() - began


def peak_ratio(found, photo):
    """Signal to noise ratio in decibels: the square of white over the mean square of errors."""
    return -10 * np.log10(np.mean((found - photo) ** 2))


def sheet(shown):
    """Pictures side by side, below each a part of it, enlarged."""
    font, step = ImageFont.load_default(17), SIDE + GAP
    height = LINE + 2 * (SIDE + GAP)
    page = Image.new("L", (step * len(shown) + GAP, height), 255)
    top, left = 30, 105  # the photographer's head and camera
    for n, (words, picture) in enumerate(shown):
        grey = np.rint(255 * np.clip(picture[0], 0, 1)).astype(np.uint8)
        ImageDraw.Draw(page).text((GAP + n * step, LINE // 2), words, 0, font, anchor="lm")
        page.paste(Image.fromarray(grey), (GAP + n * step, LINE))
        part = grey[top : top + DETAIL, left : left + DETAIL]
        scale = SIDE // DETAIL
        enlarged = Image.fromarray(np.kron(part, np.ones((scale, scale), np.uint8)))
        page.paste(enlarged, (GAP + n * step, LINE + SIDE + GAP))
    return np.asarray(page.convert("RGB")).transpose(2, 0, 1)


def main(arguments=None):
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--output", type=Path, default=OUTPUT, help="folder for the picture")
    options = parser.parse_args(arguments)
    whole, operator = photo(), camera()
    noise = NOISE * np.random.default_rng(SEED).standard_normal(operator.dimsd)
    samples = (operator @ whole.ravel()).reshape(operator.dimsd) + noise
    print(f"{SIDE}x{SIDE} pixels, of which {samples.shape[1]}x{samples.shape[2]} samples are kept")
    print(f"{operator!r}, norm {norm(operator):.3f}\n")
    enlarged = np.kron(samples[0], np.ones((STRIDE, STRIDE)))[np.newaxis]
    shown, rows = [("the photo", whole), ("its samples", enlarged)], []
    for name, found, seconds in ways_back(operator, samples):
        ratio = peak_ratio(found, whole)
        left = np.linalg.norm(operator @ found.ravel() - samples.ravel())
        shown.append((f"{name}, {ratio:.1f} dB", found))
        misfit = f"{left / np.linalg.norm(samples):.1e}"
        rows.append((name, f"{ratio:.2f}", misfit, f"{1e3 * seconds:.0f}"))
    titles = "PSNR, dB", "misfit of samples", "ms"
    columns = Column("way back"), *(Column(title, right=True) for title in titles)
    print(Table(columns, tuple(rows)))
    options.output.mkdir(parents=True, exist_ok=True)
    picture = options.output / "deconvolve.png"
    write_picture(picture, sheet(shown))
    print(f"\nLook at {picture}")


if __name__ == "__main__":
    main()
