"""Projections of single units, cropped to their receptive fields, and their grey levels.

Grey levels follow `tconv.images.renormalise`. Several projections may share one range, and cells
outside of the image are mid-grey.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

from tconv.deconvnet.rules.sparse_map import SparseMap, box_index, clip_box
from tconv.deconvnet.rules.windows import Box
from tconv.errors import ParameterError
from tconv.images import renormalise

__all__ = [
    "GREY",
    "PERCENTILE",
    "Norm",
    "Range",
    "UnitProjection",
    "crop_to_box",
    "grey_levels_of",
    "range_of",
]

GREY = 128
PERCENTILE = 99.5  # of the values, at which black and white begin

Norm = Literal["zero", "minmax", "positive"]
Range = tuple[float, float]
"""Values of black and white: (-m, m), (min, max) or (0, m)."""


@dataclass(frozen=True, eq=False)
class UnitProjection:
    """The projection of one unit, with the pixels beside it.

    ``projection`` (C, *size) is the attribution of the network's input, ``photo`` are its pixels.
    Both are cropped to ``box``; where that reaches beyond the image, ``inside`` is False and the
    numbers are 0. ``field`` is the unit's receptive field, ``place`` the row and column of the
    image where the unit lies: the middle of its field, or, where that is all of the image, as far
    from the edges as the unit in its layer. A unit without a position has none.
    """

    feature: int
    image: int
    unit: tuple[int, ...]
    activation: float
    box: Box
    field: Box
    place: tuple[float, ...]
    projection: NDArray[Any]
    photo: NDArray[np.uint8]
    inside: NDArray[np.bool_]

    @property
    def is_zero(self) -> bool:
        """Whether the projection is zero everywhere."""
        return not self.projection.any()


def crop_to_box(
    attribution: SparseMap, pixels: NDArray[np.uint8], box: Box
) -> tuple[NDArray[Any], NDArray[np.uint8], NDArray[np.bool_]]:
    """Crop an attribution and the pixels of the image to a box, which may reach beyond it."""
    size = tuple(last - first + 1 for first, last in box)
    here = clip_box(box, attribution.shape[2:])
    projection = np.zeros((attribution.shape[1], *size), attribution.array.dtype)
    photo = np.zeros((len(pixels), *size), np.uint8)
    inside = np.zeros(size, np.bool_)
    there = tuple((a - first, b - first) for (a, b), (first, _) in zip(here, box, strict=True))
    if all(b >= a for a, b in here):
        projection[box_index(there)] = attribution.dense()[0][box_index(here)]
        photo[box_index(there)] = pixels[box_index(here)]
        inside[box_index(there)] = True
    return projection, photo, inside


def range_of(tiles: Sequence[UnitProjection], norm: Norm) -> Range:
    """Return the range of values of some projections, by a norm.

    "zero" and "positive" end at the 99.5th percentile of the absolute, or the positive, values that
    are not 0: a few values that stand out would else leave the others grey. Of up to 200 values
    that is the greatest. "minmax" goes from the least to the greatest value.

    Raises
    ------
    ParameterError : a projection holds NaN or infinity
    """
    parts = []
    for tile in tiles:
        values = tile.projection[:, tile.inside].astype(np.float64).ravel()
        if not np.isfinite(values).all():
            raise ParameterError(
                f"the projection of unit {tile.unit} in image {tile.image} holds NaN or infinity, "
                "must be finite; look for them in the weights and in the image."
            )
        parts.append(values)
    values = np.concatenate(parts)
    if norm == "minmax":
        return (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    values = abs(values[values != 0]) if norm == "zero" else values[values > 0]
    high = float(np.quantile(values, PERCENTILE / 100, method="higher")) if values.size else 0.0
    return (-high if norm == "zero" else 0.0), high


def grey_levels_of(tile: UnitProjection, norm: Norm, within: Range) -> NDArray[np.uint8]:
    """Return the grey levels (C, *size) of a projection, in [0, 255]."""
    unit = ",".join(map(str, tile.unit))
    if tile.is_zero:
        warnings.warn(f"the projection of unit {unit} is zero (dead unit?)", stacklevel=2)
    elif norm == "minmax" and within[0] == within[1]:
        warnings.warn(f"the projection of unit {unit} is constant", stacklevel=2)
    flat = tile.projection.reshape(len(tile.projection), 1, -1)  # one spatial axis or two
    found = renormalise(flat, norm, within=within).reshape(tile.projection.shape)
    found[:, ~tile.inside] = GREY
    return found
