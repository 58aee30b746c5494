"""Montage of projections: a figure of image patches beside projections, with captions.

The layout is that of figure 2 of Zeiler & Fergus 2014: a block for each feature, its patches on the
left and their projections, in the same order, on the right.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.deconvnet.crops import GREY, UnitProjection
from tconv.deconvnet.results import FeatureGroup, Projections, columns_of, field_text, rank_text

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["enlarged", "figure_of", "photo_of", "write_figure"]

TILE = 96  # pixels of an enlarged tile, at most; the factor is a whole number
_GAP, _BETWEEN, _EDGE = 2, 16, 16
_STRIPE = 24  # rows of a tile with one spatial axis
_HEAD, _CAPTION, _FOOT = 13, 11, 12  # sizes of letters
_INK = (0, 0, 0)


def _plain(text: str) -> str:
    """Replace signs that Pillow's own font lacks: "3×3" and "Conv×2" become "3x3" and "Conv x2"."""
    return re.sub(r"(?<=[A-Za-z])×", " x", text).replace("×", "x").replace("−", "–")


class Cell(NamedTuple):
    """A picture (H, W, 3) and its caption."""

    pixels: NDArray[np.uint8]
    text: str = ""


def magnification(pixels: NDArray[np.uint8]) -> int:
    """Return how often each pixel of a tile (C, *size) is repeated along each axis.

    >>> magnification(np.zeros((3, 30, 40), np.uint8))
    2
    """
    return max(1, TILE // int(max(pixels.shape[1:])))


def enlarged(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a tile (C, *size) as a picture (H, W, 3), each pixel repeated a whole number of times.

    >>> enlarged(np.zeros((1, 30, 40), np.uint8)).shape
    (60, 80, 3)
    """
    factor = magnification(pixels)
    rows = pixels if pixels.ndim == 3 else np.repeat(pixels[:, np.newaxis], _STRIPE, axis=1)
    large = rows.repeat(factor, axis=1).repeat(factor, axis=2)
    large = np.moveaxis(large, 0, -1)
    return np.ascontiguousarray(np.broadcast_to(large, (*large.shape[:2], 3)))


def photo_of(tile: UnitProjection) -> NDArray[np.uint8]:
    """Return a tile's image patch as a picture (H, W, 3), hatched outside of the image."""
    found = enlarged(tile.photo)
    outside = enlarged(np.where(tile.inside, 0, 255).astype(np.uint8)[np.newaxis])[..., 0] > 0
    rows, columns = np.indices(outside.shape)
    hatch = np.where((rows + columns) % 8 < 2, 168, 216).astype(np.uint8)
    found[outside] = hatch[outside][:, np.newaxis]
    return found


def figure_of(seen: Projections) -> "Image.Image":
    """Paint the figure.

    Raises
    ------
    ImportError : Pillow is not installed
    """
    pen = _Pen()
    levels = [enlarged(each) for each in seen.levels()]
    photos = [photo_of(tile) for tile in seen.tiles]
    others = [enlarged(each) for each in seen.levels(shuffled=True)]
    their_photos = [photo_of(tile) for tile in seen.shuffled]
    blocks = []
    for block in seen.blocks:
        tiles = [seen.tiles[n] for n in block.places]
        rows = [_rows(block, photos, levels, [_where(tile) for tile in tiles])]
        if others:
            texts = [f"shuffled · {rank_text(seen.correlations[n])}" for n in block.places]
            rows.append(_rows(block, their_photos, others, texts))
        strongest = max(tile.activation for tile in tiles)
        title = f"feature {block.feature} · max {strongest:.3g}"
        blocks.append(pen.block(title, rows))
    across = 3 if seen.images == 1 else (1 if len(blocks) == 1 else 2)
    tile = seen.tiles[0]
    size = "×".join(str(last - first + 1) for first, last in tile.field)
    title = f"{seen.model} · {seen.layer} · each unit sees {size} pixels"
    return pen.page(title, blocks, across, seen.captions)


def write_figure(path: Path, seen: Projections) -> None:
    """Write the figure as a PNG file with its settings in text chunks."""
    from PIL.PngImagePlugin import PngInfo

    texts = {
        "rule": seen.rule,
        "layer": seen.layer,
        "feature": ",".join(str(block.feature) for block in seen.blocks),
        "unit": " ".join(",".join(map(str, tile.unit)) for tile in seen.tiles),
        "norm": seen.norm,
        "scale": seen.scale,
        "model-sha256": seen.sha256,
    }
    ranges = seen.ranges()
    if seen.norm == "minmax":
        texts["min,max"] = " ".join(f"{low!r},{high!r}" for low, high in ranges)
    else:
        texts["m"] = " ".join(repr(high) for _, high in ranges)
    info = PngInfo()
    for name, text in texts.items():
        info.add_itxt(f"tconv:{name}", text)
    figure_of(seen).save(path, "PNG", pnginfo=info, optimize=True)


def _where(tile: UnitProjection) -> str:
    return f"RF {field_text(tile)}"


def _rows(
    block: FeatureGroup,
    photos: Sequence[NDArray[np.uint8]],
    levels: Sequence[NDArray[np.uint8]],
    texts: Sequence[str],
) -> list[list[list[Cell]]]:
    """The tiles of a block as groups of cells: [photos, projections] for each row."""
    across = columns_of(len(block.places))
    rows = []
    for start in range(0, len(block.places), across):
        places = range(start, min(start + across, len(block.places)))
        left = [Cell(photos[block.places[n]]) for n in places]
        right = [Cell(levels[block.places[n]], texts[n]) for n in places]
        rows.append([left, right])
    return rows


class _Pen:
    """Pillow, with its own font."""

    def __init__(self) -> None:
        try:
            from PIL import Image, ImageDraw, ImageFont
        except ImportError:
            raise ImportError("The figure needs Pillow: pip install pillow.") from None
        self._image, self._draw = Image, ImageDraw
        self._fonts = {n: ImageFont.load_default(n) for n in (_HEAD, _CAPTION, _FOOT)}

    def width(self, text: str, size: int) -> int:
        return int(np.ceil(self._fonts[size].getlength(_plain(text))))

    def write(self, pen: Any, at: tuple[int, int], text: str, size: int, ink: Any = _INK) -> None:
        pen.text(at, _plain(text), ink, self._fonts[size], "ls")

    def lines(self, text: str, size: int, width: int) -> list[str]:
        """Break text at blanks."""
        found = [""]
        for word in text.split(" "):
            longer = f"{found[-1]} {word}".strip()
            if found[-1] and self.width(longer, size) > width:
                found.append(word)
            else:
                found[-1] = longer
        return found

    def block(self, title: str, rows: Sequence[list[list[list[Cell]]]]) -> "Image.Image":
        """Paint a feature: the real tiles, and below them those of shuffled weights."""
        cells = [cell for part in rows for row in part for group in row for cell in group]
        wide = max(cell.pixels.shape[1] for cell in cells)
        high = max(cell.pixels.shape[0] for cell in cells)
        across = max(len(row[0]) for part in rows for row in part)
        texts = [cell.text for cell in cells if cell.text]
        # The text under a projection may begin under its photo if that is its only neighbour.
        room = 2 * wide + _GAP if across == 1 else wide
        broken = {text: self.lines(text, _CAPTION, room) for text in texts}
        depth = max(map(len, broken.values()), default=0) * (_CAPTION + 3) + 5
        group = across * (wide + _GAP) - _GAP
        width = max(2 * group + (_GAP if across == 1 else 3 * _GAP), self.width(title, _HEAD))
        height = _HEAD + 6 + sum(len(part) for part in rows) * (high + depth)
        sheet = self._image.new("RGB", (width, height), (GREY,) * 3)
        pen = self._draw.Draw(sheet)
        self.write(pen, (0, _HEAD), title, _HEAD)
        top = _HEAD + 6
        for row in (row for part in rows for row in part):
            left = 0
            for cells_of_group in row:
                for n, cell in enumerate(cells_of_group):
                    x = left + n * (wide + _GAP)
                    y, pixels = top, cell.pixels
                    inset = (wide - pixels.shape[1]) // 2, (high - pixels.shape[0]) // 2
                    sheet.paste(self._image.fromarray(pixels), (x + inset[0], y + inset[1]))
                    start = 0 if across == 1 else x
                    for k, line in enumerate(broken.get(cell.text, ())):
                        at = start, top + high + (k + 1) * (_CAPTION + 3)
                        self.write(pen, at, line, _CAPTION)
                left += group + (_GAP if across == 1 else 3 * _GAP)
            top += high + depth
        return sheet

    def page(
        self,
        title: str,
        blocks: Sequence["Image.Image"],
        across: int,
        captions: Sequence[str],
    ) -> "Image.Image":
        """Set blocks side by side, between a title and captions."""
        across = min(across, len(blocks))
        wide = max(block.width for block in blocks)
        grid = across * (wide + _BETWEEN) - _BETWEEN
        width = max(grid, 460, min(self.width(title, _HEAD), 900))
        titles = self.lines(title, _HEAD, width)
        notes = [line for caption in captions for line in self.lines(caption, _FOOT, width)]
        rows = [blocks[n : n + across] for n in range(0, len(blocks), across)]
        heights = [max(block.height for block in row) for row in rows]
        body = sum(heights) + _BETWEEN * (len(rows) - 1)
        head = len(titles) * (_HEAD + 4) + 8
        foot = len(notes) * (_FOOT + 4) + 8
        size = width + 2 * _EDGE, body + head + foot + 2 * _EDGE
        sheet = self._image.new("RGB", size, (GREY,) * 3)
        pen = self._draw.Draw(sheet)
        for n, line in enumerate(titles):
            self.write(pen, (_EDGE, _EDGE + _HEAD + n * (_HEAD + 4)), line, _HEAD)
        top = _EDGE + head
        for row, height in zip(rows, heights, strict=True):
            for n, block in enumerate(row):
                sheet.paste(block, (_EDGE + n * (wide + _BETWEEN), top))
            top += height + _BETWEEN
        top += 8 - _BETWEEN
        for n, line in enumerate(notes):
            self.write(pen, (_EDGE, top + (n + 1) * (_FOOT + 4)), line, _FOOT)
        return sheet
