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

__all__ = ["GREY", "Norm", "Range", "UnitProjection", "crop_to_box", "grey_levels_of", "range_of"]

GREY = 128

Norm = Literal["zero", "minmax", "positive"]
Range = tuple[float, float]
"""Values of black and white: (-m, m), (min, max) or (0, max)."""


@dataclass(frozen=True, eq=False)
class UnitProjection:
    """The projection of one unit, with the pixels beside it.

    ``projection`` (C, *size) is the attribution of the network's input, ``photo`` are its pixels.
    Both are cropped to ``box``; where that reaches beyond the image, ``inside`` is False and the
    numbers are 0. ``field`` is the unit's receptive field.
    """

    feature: int
    image: int
    unit: tuple[int, ...]
    activation: float
    box: Box
    field: Box
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

    Raises
    ------
    ParameterError : a projection holds NaN or infinity
    """
    low, high = np.inf, -np.inf
    for tile in tiles:
        values = tile.projection[:, tile.inside].astype(np.float64)
        if not np.isfinite(values).all():
            raise ParameterError(
                f"the projection of unit {tile.unit} in image {tile.image} holds NaN or infinity, "
                "must be finite; look for them in the weights and in the image."
            )
        if values.size:
            low, high = min(low, float(values.min())), max(high, float(values.max()))
    low, high = (low, high) if low <= high else (0.0, 0.0)
    if norm == "zero":
        high = max(-low, high)
        low = -high
    elif norm == "positive":
        low, high = 0.0, max(high, 0.0)
    return low, high


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
