"""Pictures of a tile: the photo with the unit's place, grey levels, and overlays on the photo."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.deconvnet.crops import Range, UnitProjection
from tconv.deconvnet.rules.windows import Box

__all__ = ["cam_of", "colour_picture", "enlarged", "overlay_of", "overview_of", "photo_of"]

TILE = 96  # pixels of an enlarged tile, at most; the factor is a whole number
_OVERVIEW = 240  # pixels of an enlarged image with the places of all units, at most
_LARGEST = 320  # pixels of a tile that is shown as it is; larger ones are made smaller
_STRIPE = 24  # rows of a tile with one spatial axis
_ARM = 5  # pixels of each arm of the cross at a unit's place
_HEAT = (255, 96, 0)  # orange, which is far from grey for every kind of colour vision

Pixels = NDArray[np.uint8]


def magnification(pixels: Pixels) -> float:
    """Return how many times as large as a tile (C, *size) its picture is along each axis.

    That is a whole number, or a part of 1 such as 1/2 where the tile is larger than a picture.

    >>> [magnification(np.zeros((3, 30, side), np.uint8)) for side in (40, 200, 500)]
    [2, 1, 0.5]
    """
    longest = int(max(pixels.shape[1:]))
    return max(1, TILE // longest) if longest <= _LARGEST else 1 / -(-longest // _LARGEST)


def enlarged(pixels: Pixels) -> Pixels:
    """Return a tile (C, *size) as a picture (H, W, 3): pixels are repeated, or means of blocks.

    >>> enlarged(np.zeros((1, 30, 40), np.uint8)).shape
    (60, 80, 3)
    """
    factor = magnification(pixels)
    if factor < 1:
        block = round(1 / factor)
        rows = _as_rows(pixels)
        return colour_picture(_means(rows, block if pixels.ndim == 3 else 1, block))
    return colour_picture(_repeated(pixels, int(factor)))


def _as_rows(pixels: Pixels) -> Pixels:
    return pixels if pixels.ndim == 3 else np.repeat(pixels[:, np.newaxis], _STRIPE, axis=1)


def _repeated(pixels: Pixels, times: int) -> Pixels:
    return _as_rows(pixels).repeat(times, axis=1).repeat(times, axis=2)


def _means(pixels: Pixels, high: int, wide: int) -> Pixels:
    """Return the means of blocks of pixels (C, H, W), of which the last may reach over the edge."""
    channels, rows, columns = pixels.shape
    margins = ((0, 0), (0, -rows % high), (0, -columns % wide))
    blocks = np.pad(pixels, margins, mode="edge").reshape(
        channels, -(-rows // high), high, -(-columns // wide), wide
    )
    found: Pixels = np.floor(blocks.mean(axis=(2, 4)) + 0.5).astype(np.uint8)
    return found


def colour_picture(pixels: Pixels) -> Pixels:
    """Return pixels (C, H, W) or (C, L) of one channel or three as a picture (H, W, 3)."""
    rows = pixels if pixels.ndim == 3 else pixels[:, np.newaxis]
    last = np.moveaxis(rows, 0, -1)
    return np.ascontiguousarray(np.broadcast_to(last, (*last.shape[:2], 3)))


def photo_of(tile: UnitProjection) -> Pixels:
    """Return a tile's image patch as a picture (H, W, 3), hatched outside of the image.

    A cross marks the unit's place.
    """
    found = enlarged(tile.photo)
    _hatch(found, tile)
    _mark(found, tile)
    return found


def overlay_of(tile: UnitProjection, within: Range) -> Pixels:
    """Return a tile's image patch in pale grey with its projection over it, from white to orange.

    The colour is as strong as the greatest absolute value of a pixel's channels, by the range of
    grey levels, so both show the same contrast.
    """
    strongest = max(-within[0], within[1])
    strength = abs(tile.projection).max(axis=0) / (strongest or 1.0)
    found = with_heat(tile.photo, strength, enlarge=True)
    _hatch(found, tile)
    return found


def with_heat(pixels: Pixels, strength: NDArray[Any], *, enlarge: bool = False) -> Pixels:
    """Return pixels (C, *size) in pale grey, coloured by strengths from 0 to 1 of each.

    >>> with_heat(np.full((1, 1, 2), 255, np.uint8), np.array([[0.0, 1.0]]))[0].tolist()
    [[224, 224, 224], [255, 96, 0]]
    """
    pale = 96 + pixels.mean(axis=0) * (128 / 255)
    share = np.clip(strength, 0, 1)
    blended = [pale * (1 - share) + colour * share for colour in _HEAT]
    levels = np.floor(np.stack(blended) + 0.5).astype(np.uint8)
    return enlarged(levels) if enlarge else colour_picture(levels)


def cam_of(pixels: Pixels, cam: NDArray[Any]) -> Pixels:
    """Return an image (C, *size) in pale grey with its Grad-CAM over it, the greatest in orange."""
    return with_heat(pixels, cam / (cam.max() or 1.0), enlarge=True)


def overview_of(pixels: Pixels, boxes: Sequence[Box]) -> tuple[Pixels, list[tuple[int, int]]]:
    """Return an image (C, *size) as a picture with boxes, and the top left corner of each box."""
    times = max(1, _OVERVIEW // int(max(pixels.shape[1:])))
    factor = times * magnification(pixels) if times == 1 else times
    found = enlarged(pixels) if times == 1 else colour_picture(_repeated(pixels, times))
    high, wide = found.shape[:2]
    corners = []
    for box in boxes:
        rows, columns = box if len(box) == 2 else ((0, _STRIPE - 1), box[0])
        top, bottom = (min(max(int(each * factor), 0), high - 1) for each in (rows[0], rows[1] + 1))
        left, right = (
            min(max(int(each * factor), 0), wide - 1) for each in (columns[0], columns[1] + 1)
        )
        for edge, ink in ((1, 0), (0, 255)):
            above, before = max(0, top - edge), max(0, left - edge)
            below, after = bottom + edge + 1, right + edge + 1
            found[above : top + edge + 1, before:after] = ink
            found[bottom - edge : below, before:after] = ink
            found[above:below, before : left + edge + 1] = ink
            found[above:below, right - edge : after] = ink
        corners.append((top, left))
    return found, corners


def _hatch(picture: Pixels, tile: UnitProjection) -> None:
    """Hatch what lies outside of the image."""
    outside = enlarged(np.where(tile.inside, 0, 255).astype(np.uint8)[np.newaxis])[..., 0] > 0
    rows, columns = np.indices(outside.shape)
    hatch = np.where((rows + columns) % 8 < 2, 168, 216).astype(np.uint8)
    picture[outside] = hatch[outside][:, np.newaxis]


def _mark(picture: Pixels, tile: UnitProjection) -> None:
    """Draw a white cross with a black edge where the unit lies."""
    if not tile.place:
        return
    factor = magnification(tile.photo)
    at = [int(factor * (a - first)) for a, (first, _) in zip(tile.place, tile.box, strict=True)]
    high, wide = picture.shape[:2]
    row, column = at if len(at) == 2 else (high // 2, *at)
    row, column = min(max(row, 0), high - 1), min(max(column, 0), wide - 1)
    for edge, ink in ((1, 0), (0, 255)):
        for arm in (_ARM + edge, edge), (edge, _ARM + edge):
            top, left = max(0, row - arm[0]), max(0, column - arm[1])
            picture[top : row + arm[0] + 1, left : column + arm[1] + 1] = ink
