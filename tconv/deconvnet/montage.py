"""Montage of projections: a figure of image patches beside projections, with captions.

The layout is that of figure 2 of Zeiler & Fergus 2014, with overlays: a block for each feature, its
patches on the left, then their projections and both over each other, in the same order.
"""

import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.deconvnet.crops import GREY, UnitProjection
from tconv.deconvnet.results import (
    FeatureGroup,
    Projections,
    columns_of,
    field_text,
    rank_text,
    title_of,
)
from tconv.deconvnet.rules.windows import Box
from tconv.deconvnet.tile_pictures import cam_of, enlarged, overlay_of, overview_of, photo_of

if TYPE_CHECKING:
    from PIL import Image

__all__ = ["figure_of", "write_figure"]

_GAP, _BETWEEN, _EDGE = 2, 16, 16
_HEAD, _CAPTION, _FOOT = 13, 11, 12  # sizes of letters
_INK, _FRAME = (0, 0, 0), 48  # a frame is visible on white, on black and on mid-grey


def _plain(text: str) -> str:
    """Replace signs that Pillow's own font lacks: "3×3" and "Conv×2" become "3x3" and "Conv x2"."""
    return re.sub(r"(?<=[A-Za-z])×", " x", text).replace("×", "x").replace("−", "–")


class Cell(NamedTuple):
    """A picture (H, W, 3) and its caption."""

    pixels: NDArray[np.uint8]
    text: str = ""


def figure_of(seen: Projections) -> "Image.Image":
    """Paint the figure.

    Raises
    ------
    ImportError : Pillow is not installed
    """
    pen = _Pen()
    real = _pictures(seen, shuffled=False)
    mixed = _pictures(seen, shuffled=True) if seen.shuffled else []
    blocks = []
    for block in seen.blocks:
        tiles = [seen.tiles[n] for n in block.places]
        rows = [_rows(block, real, [_where(tile) for tile in tiles])]
        if mixed:
            texts = [f"shuffled · {rank_text(seen.correlations[n])}" for n in block.places]
            rows.append(_rows(block, mixed, texts))
        blocks.append(pen.block(title_of(seen, block), rows))
    across = 3 if seen.images == 1 else (1 if len(blocks) == 1 else 2)
    size = "×".join(str(last - first + 1) for first, last in seen.tiles[0].field)
    title = f"{seen.model} · {seen.layer} · each unit sees {size} pixels"
    rows_of_page = [blocks[n : n + across] for n in range(0, len(blocks), across)]
    if seen.images == 1 and seen.is_cropped:
        rows_of_page.insert(0, [pen.overview(seen)])
    return pen.page(title, rows_of_page, seen.captions)


def _pictures(seen: Projections, shuffled: bool) -> list[list[NDArray[np.uint8]]]:
    """Return the pictures of each tile: photo, projection, overlay, and Grad-CAM of a class."""
    tiles = seen.shuffled if shuffled else seen.tiles
    found = []
    parts = zip(tiles, seen.levels(shuffled), seen.ranges(shuffled), strict=True)
    for tile, levels, within in parts:
        pictures = [photo_of(tile), enlarged(levels), overlay_of(tile, within)]
        if seen.cams and not shuffled:
            pictures.append(cam_of(seen.photos[tile.image].pixels, seen.cams[tile.image]))
        found.append(pictures)
    return found


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
    block: FeatureGroup, pictures: Sequence[Sequence[NDArray[np.uint8]]], texts: Sequence[str]
) -> list[list[list[Cell]]]:
    """The tiles of a block as groups of cells, for each row: [photos, projections, overlays]."""
    across, kinds = columns_of(len(block.places)), len(pictures[0])
    rows = []
    for start in range(0, len(block.places), across):
        places = range(start, min(start + across, len(block.places)))
        row = []
        for kind in range(kinds):
            cells = [(pictures[block.places[n]][kind], texts[n]) for n in places]
            row.append([Cell(_framed(p), text if kind == 1 else "") for p, text in cells])
        rows.append(row)
    return rows


def _framed(pixels: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """Return a picture with a line around it: its ground may be that of the figure."""
    return np.pad(pixels, ((1, 1), (1, 1), (0, 0)), constant_values=_FRAME)


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
        # The text under a projection may begin under its photo if these are the only tiles.
        groups = max(len(row) for part in rows for row in part)
        room = groups * (wide + _GAP) - _GAP if across == 1 else wide
        broken = {text: self.lines(text, _CAPTION, room) for text in texts}
        depth = max(map(len, broken.values()), default=0) * (_CAPTION + 3) + 5
        group = across * (wide + _GAP) - _GAP
        apart = _GAP if across == 1 else 3 * _GAP
        width = max(groups * (group + apart) - apart, self.width(title, _HEAD))
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
                left += group + apart
            top += high + depth
        return sheet

    def overview(self, seen: Projections) -> "Image.Image":
        """Paint the image with the receptive field of each tile, which bears its feature."""
        (photo,) = seen.photos.values()
        labels: dict[Box, list[str]] = {}
        for tile in seen.tiles:
            labels.setdefault(tile.field, []).append(str(tile.feature))
        pixels, corners = overview_of(photo.pixels, list(labels))
        high, wide = pixels.shape[:2]
        title = "where the units are, by feature"
        size = max(wide + 2, self.width(title, _HEAD)), _HEAD + 6 + high + 2
        sheet = self._image.new("RGB", size, (GREY,) * 3)
        pen = self._draw.Draw(sheet)
        self.write(pen, (0, _HEAD), title, _HEAD)
        sheet.paste(self._image.fromarray(_framed(pixels)), (0, _HEAD + 6))
        taken: list[tuple[int, int, int, int]] = []
        for (top, left), features in zip(corners, labels.values(), strict=True):
            text = " ".join(features)
            across = self.width(text, _CAPTION) + 4
            x, y = max(0, min(left + 3, size[0] - across)), min(top + _HEAD + 9, size[1] - 14)
            while any(x < r and x + across > q and y < b and y + 12 > t for q, t, r, b in taken):
                y += 13
            taken.append((x, y, x + across, y + 12))
            pen.rectangle(taken[-1], (0, 0, 0))
            self.write(pen, (x + 2, y + 10), text, _CAPTION, (255, 255, 255))
        return sheet

    def page(
        self,
        title: str,
        rows: Sequence[Sequence["Image.Image"]],
        captions: Sequence[str],
    ) -> "Image.Image":
        """Set rows of blocks below each other, between a title and captions."""
        across = max(map(len, rows))
        wide = max(block.width for row in rows for block in row if len(row) == across)
        grid = across * (wide + _BETWEEN) - _BETWEEN
        alone = max(block.width for row in rows for block in row)
        width = max(grid, alone, 460, min(self.width(title, _HEAD), 900))
        titles = self.lines(title, _HEAD, width)
        notes = [line for caption in captions for line in self.lines(caption, _FOOT, width)]
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
