"""Results of `see`: projections as a table, as plain values and as arrays."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.deconvnet.crops import (
    PERCENTILE,
    Norm,
    Range,
    UnitProjection,
    grey_levels_of,
    range_of,
)
from tconv.deconvnet.network.images import InputImage
from tconv.deconvnet.rules.backward import ReversalSummary
from tconv.system.fork_lock import cached_property
from tconv.tables import Column, Table, Tabular

__all__ = [
    "NORMS",
    "SCALES",
    "FeatureGroup",
    "Projections",
    "columns_of",
    "field_text",
    "rank_text",
    "title_of",
]

NORMS = ("zero", "minmax", "positive")
SCALES = ("tile", "row", "figure")

WARNING = (
    "these rules largely recover image edges whatever the weights (Nie 2018, Adebayo 2018); "
    "compare with shuffled weights (sanity)"
)
NEGATIVE = "no ReLU after the last (image) filter, so negative pixels are right"
_RULES = {
    "deconvnet": "deconvnet (a rectifier passes what is positive of what comes back)",
    "gradient": "gradient (the derivative of the unit, times its activation)",
    "guided": "guided (gradient and deconvnet at once)",
}
_NORMS = {
    "zero": "mid-grey is 0, black -m and white m, where m is the {percentile:g}th percentile of "
    "the absolute values that are not 0",
    "minmax": "black is the least value, white the greatest; grey has no meaning",
    "positive": "black is 0 or less; white begins at the {percentile:g}th percentile of the "
    "positive values",
}
_SHARED = {"tile": "of each tile", "row": "of each row", "figure": "of all tiles"}


class FeatureGroup(NamedTuple):
    """A feature, and the places of its projections in `Projections.tiles`."""

    feature: int
    places: tuple[int, ...]


@dataclass(frozen=True, eq=False)
class Projections(Tabular):
    """Features of one layer, projected back to the image.

    Parameters
    ----------
    model, sha256, layer, rule, norm, scale : str, the arguments of `see`
    whole_map : bool, whether the feature's whole map was projected
    tiles : projections, feature by feature, the strongest first
    photos : images of the tiles, by their numbers
    images : int, number of all images
    ledger : summary of the reversed nodes
    shuffled : projections by the network with shuffled weights, in the same order; or none
    correlations : rank correlation of each |projection| with that by shuffled weights
    why : str, why the rule is another one than deconvnet, if nobody chose it; or empty
    target_class : the class whose score was projected, or None
    cam_layer, cams : the layer of Grad-CAM, and its maps (*size of the image), by image
    """

    model: str
    sha256: str
    layer: str
    rule: str
    norm: Norm
    scale: str
    whole_map: bool
    tiles: tuple[UnitProjection, ...]
    photos: Mapping[int, InputImage]
    images: int
    ledger: ReversalSummary
    shuffled: tuple[UnitProjection, ...] = ()
    correlations: tuple[float, ...] = ()
    why: str = ""
    target_class: int | None = None
    cam_layer: str = ""
    cams: Mapping[int, NDArray[np.float64]] = field(default_factory=dict)

    @cached_property
    def blocks(self) -> tuple[FeatureGroup, ...]:
        """The places of the tiles, in a group for each feature."""
        found: dict[int, list[int]] = {}
        for place, tile in enumerate(self.tiles):
            found.setdefault(tile.feature, []).append(place)
        return tuple(FeatureGroup(feature, tuple(places)) for feature, places in found.items())

    @property
    def is_cropped(self) -> bool:
        """Whether a tile is smaller than its image."""
        return any(
            (tile.box[n][0], tile.box[n][1] + 1) != (0, size)
            for tile in self.tiles
            for n, size in enumerate(self.photos[tile.image].pixels.shape[1:])
        )

    def ranges(self, shuffled: bool = False) -> tuple[Range, ...]:
        """Return each tile's range that becomes [0, 255]: its own, its row's or the figure's."""
        tiles = self.shuffled if shuffled else self.tiles
        rows = self._rows()[: len(tiles)]
        sharing: dict[Any, list[UnitProjection]] = {}
        for tile, row in zip(tiles, rows, strict=True):
            sharing.setdefault(row, []).append(tile)
        found = {row: range_of(together, self.norm) for row, together in sharing.items()}
        return tuple(found[row] for row in rows)

    def _rows(self) -> list[Any]:
        """Return a key for each tile; tiles of one key, such as a row's, share a range."""
        if self.scale == "figure":
            return [0] * len(self.tiles)
        if self.scale == "tile":
            return list(range(len(self.tiles)))
        if self.images == 1:
            return [place // 3 for place in range(len(self.tiles))]
        return [
            (group.feature, n // columns_of(len(group.places)))
            for group in self.blocks
            for n in range(len(group.places))
        ]

    def levels(self, shuffled: bool = False) -> list[NDArray[np.uint8]]:
        """Return the grey levels of the projections, in [0, 255]."""
        tiles = self.shuffled if shuffled else self.tiles
        pairs = zip(tiles, self.ranges(shuffled), strict=True)
        return [grey_levels_of(tile, self.norm, within) for tile, within in pairs]

    @property
    def captions(self) -> tuple[str, ...]:
        """Lines below the figure: what is shown, its terms, the reversed nodes, and warnings."""
        if self.target_class is not None:
            what = f"score of class {self.target_class}, projected back to the pixels"
        elif self.whole_map:
            what = "all of a feature's map, projected back at once, which is not in the paper"
        else:
            what = "strongest unit of each feature, projected back to the pixels"
        lines = [f"{what}; rule {_RULES[self.rule]}"]
        if self.why:
            lines.append(self.why)
        shade = _NORMS[self.norm].format(percentile=PERCENTILE)
        lines.append(f"grey, norm {self.norm}, scale {self.scale}: {shade}, {_SHARED[self.scale]}")
        cross = "the photo, where a cross marks the unit's place"
        kinds = [cross if any(tile.place for tile in self.tiles) else "the photo", "the projection"]
        kinds.append("over each other: the more orange, the greater the projection's size")
        if self.cams:
            kinds.append("Grad-CAM")
        lines.append(f"from left to right: {'; '.join(kinds)}")
        if not self.is_cropped:
            lines.append("not cropped: the tiles show all of the image")
        lines.append(
            "feature: a channel of the layer; unit: a place of it; RF: receptive field, the pixels "
            "that can change a unit, their size at (row, column) of the unit"
        )
        if self.cams:
            lines.append(
                f"Grad-CAM (Selvaraju et al. 2017): where features of {self.cam_layer} speak for "
                f"class {self.target_class}; as coarse as that layer"
            )
        lines += [str(self.ledger), NEGATIVE]
        if self.rule != "gradient":
            lines.append(WARNING)
        return tuple(lines)

    def table(self) -> Table:
        """Return a table of the projections."""
        columns = [
            Column("feature", right=True),
            Column("image", folds=True),
            Column("unit", right=True),
            Column("activation", right=True),
            Column("sees"),
            Column("min", right=True),
            Column("max", right=True),
        ]
        if self.correlations:
            columns.append(Column("sanity", right=True))
        rows = []
        for n, tile in enumerate(self.tiles):
            row = [
                str(tile.feature),
                self.photos[tile.image].name,
                ",".join(map(str, tile.unit)),
                f"{tile.activation:.4g}",
                field_text(tile),
                f"{tile.projection.min():.3g}",
                f"{tile.projection.max():.3g}",
            ]
            rows.append(
                (*row, rank_text(self.correlations[n]).removeprefix("rank r "))
                if self.correlations
                else tuple(row)
            )
        head = f"{self.model}, layer {self.layer}, rule {self.rule}; forward by ONNX Runtime, back "
        head += "by tconv"
        footer = "\n".join(filter(None, [head, self.why, str(self.ledger)]))
        if self.correlations:
            footer += "\nsanity: rank correlation of |projection| with that of shuffled weights"
        if self.rule != "gradient":
            footer += f"\n{WARNING}"
        return Table(tuple(columns), tuple(rows), footer)

    def as_dict(self) -> dict[str, Any]:
        """Return the same as plain values, not rounded."""
        tiles = []
        ranges = self.ranges()
        for n, tile in enumerate(self.tiles):
            tiles.append(
                {
                    "feature": tile.feature,
                    "image": self.photos[tile.image].name,
                    "unit": tile.unit,
                    "activation": tile.activation,
                    "box": tile.box,
                    "field": tile.field,
                    "place": tile.place or None,
                    "min": tile.projection.min(),
                    "max": tile.projection.max(),
                    "range": ranges[n],
                    "sanity": self.correlations[n] if self.correlations else None,
                }
            )
        return {
            "model": self.model,
            "sha256": self.sha256,
            "layer": self.layer,
            "rule": self.rule,
            "why": self.why or None,
            "class": self.target_class,
            "grad_cam_layer": self.cam_layer or None,
            "norm": self.norm,
            "scale": self.scale,
            "seed": "all" if self.whole_map else "unit",
            "ledger": {
                "nodes": self.ledger.entries,
                "outside_the_paper": self.ledger.outside_the_paper,
                "text": str(self.ledger),
            },
            "computed_by": {"forward": "onnxruntime", "back": "tconv"},
            "tiles": tiles,
        }

    def arrays(self) -> dict[str, NDArray[Any]]:
        """Return all numbers, under the names of a saved .npz."""
        tiles = self.tiles
        found = {
            "projection": np.stack([tile.projection for tile in tiles]),
            "levels": np.stack(self.levels()),
            "photo": np.stack([tile.photo for tile in tiles]),
            "unit": np.array([tile.unit for tile in tiles]),
            "image": np.array([tile.image for tile in tiles]),
            "activation": np.array([tile.activation for tile in tiles]),
            "box": np.array([tile.box for tile in tiles]),
        }
        if self.cams:
            found["grad_cam"] = np.stack([self.cams[tile.image] for tile in tiles])
        if self.shuffled:
            found["shuffled_projection"] = np.stack([tile.projection for tile in self.shuffled])
            found["correlation"] = np.array(self.correlations)
        return found


def columns_of(count: int) -> int:
    """Return the number of columns of a square of so many tiles."""
    return int(np.ceil(np.sqrt(count)))


def title_of(seen: Projections, group: FeatureGroup) -> str:
    """Write whose tiles a group has: "feature 3 · max 17.2", or "class 3 · score 17.2"."""
    strongest = max(seen.tiles[n].activation for n in group.places)
    if seen.target_class is not None:
        return f"class {group.feature} · score {strongest:.3g}"
    return f"feature {group.feature} · max {strongest:.3g}"


def field_text(tile: UnitProjection) -> str:
    """Write the size of a unit's receptive field, and the row and column where the unit lies."""
    size = "×".join(str(last - first + 1) for first, last in tile.field)
    return f"{size} at ({','.join(str(int(each)) for each in tile.place)})" if tile.place else size


def rank_text(correlation: float) -> str:
    """Write a rank correlation; there is none if a projection is zero.

    >>> rank_text(0.25), rank_text(float("nan"))
    ('rank r 0.25', 'dead')
    """
    return "dead" if np.isnan(correlation) else f"rank r {correlation:.2f}"
