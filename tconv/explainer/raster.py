"""PNG and GIF files of pictures, by Pillow."""

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from tconv.explainer.drawing import PAPER, Box, Figure, Label, Pixels

if TYPE_CHECKING:
    from PIL import Image, ImageDraw, ImageFont

__all__ = ["pixels_of", "write_gif", "write_png"]

_SCALE = 2  # pixels of the file for each of the figure
_COLOURS = 256  # of a GIF
_PLAINER = str.maketrans({"×": "x", "−": "-"})  # characters that Pillow's own font lacks
_FRAME_MS, _LAST_MS = 900, 4000


def pixels_of(figure: Figure, size: tuple[int, int] | None = None) -> "Image.Image":
    """Paint a figure, on paper of another size if one is given, in at most 256 colours.

    Raises
    ------
    ImportError : Pillow is not installed.

    >>> pixels_of(Figure(9, 9, "a cell", (Box(1, 1, 7, 7),))).size
    (18, 18)
    """
    try:
        from PIL import Image, ImageDraw
    except ImportError:
        raise ImportError("PNG and GIF need Pillow: pip install pillow.") from None

    width, height = size or (figure.width, figure.height)
    image = Image.new("RGB", (width * _SCALE, height * _SCALE), PAPER)
    pen = ImageDraw.Draw(image)
    for shape in figure.shapes:
        if isinstance(shape, Box):
            _paint_box(pen, shape)
        elif isinstance(shape, Pixels):
            size_of = len(shape.rows[0]), len(shape.rows)
            grey = Image.frombytes("L", size_of, b"".join(shape.rows))
            side = shape.side * _SCALE
            large = grey.resize((size_of[0] * side, size_of[1] * side), Image.Resampling.NEAREST)
            image.paste(large, (shape.x * _SCALE, shape.y * _SCALE))
        elif shape.text:
            _paint_label(pen, shape)
    return image.quantize(_COLOURS, dither=Image.Dither.NONE)


def write_png(path: Path, figure: Figure, size: tuple[int, int] | None = None) -> None:
    """Write a figure as a PNG file."""
    pixels_of(figure, size).save(path, "PNG", optimize=True)


def write_gif(path: Path, figures: Sequence[Figure]) -> None:
    """Write an endless animation of one frame per figure; the last one stays longer."""
    size = max(f.width for f in figures), max(f.height for f in figures)
    first, *others = (pixels_of(figure, size) for figure in figures)
    times = [_FRAME_MS] * (len(figures) - 1) + [_LAST_MS]
    first.save(
        path, "GIF", save_all=True, append_images=others, duration=times, loop=0, optimize=False
    )


def _paint_box(pen: "ImageDraw.ImageDraw", box: Box) -> None:
    left, top = box.x * _SCALE, box.y * _SCALE
    right, bottom = left + box.width * _SCALE, top + box.height * _SCALE
    if box.fill:
        pen.rectangle((left, top, right, bottom), fill=box.fill)
    half = box.thickness * _SCALE // 2
    rest = max(box.thickness * _SCALE - half - 1, 0)
    on, off = (n * _SCALE for n in box.dash or (1 << 20, 0))
    for y in (top, bottom):
        for start in range(left, right, on + off):
            pen.rectangle((start, y - half, min(start + on, right), y + rest), fill=box.stroke)
    for x in (left, right):
        for start in range(top, bottom, on + off):
            pen.rectangle((x - half, start, x + rest, min(start + on, bottom)), fill=box.stroke)


def _paint_label(pen: "ImageDraw.ImageDraw", label: Label) -> None:
    anchor = "mm" if label.middle else "lm"
    width = 1 if label.bold and label.size > 9 else 0
    pen.text(
        (label.x * _SCALE, label.y * _SCALE),
        label.text.translate(_PLAINER),
        label.color,
        _font(label.size * _SCALE),
        anchor,
        stroke_width=width / 2,
    )


def _font(size: int) -> "ImageFont.FreeTypeFont | ImageFont.ImageFont":
    from PIL import ImageFont

    return ImageFont.load_default(size)
