"""Results of `see`: projections as a table, as plain values and as arrays."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.deconvnet.crops import Norm, Range, UnitProjection, grey_levels_of, range_of
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
]

NORMS = ("zero", "minmax", "positive")
SCALES = ("tile", "row", "figure")

WARNING = (
    "these rules largely recover image edges whatever the weights (Nie 2018, Adebayo 2018); "
    "compare with --sanity"
)
NEGATIVE = "no ReLU after the last (image) filter, so negative pixels are right"


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
        """Lines below the figure: rule, norm and scale, reversed nodes, and warnings."""
        shown = {
            "zero": "zero: 0 is mid-grey",
            "minmax": "minmax: grey has no meaning",
            "positive": "positive: what excites",
        }
        what = (
            "all of the feature's map, joint, not in the paper"
            if self.whole_map
            else ("strongest unit")
        )
        first = f"rule {self.rule} · {what} · norm {shown[self.norm]} · scale {self.scale}"
        if not self.is_cropped:
            first += " · not cropped: a unit sees all of the image"
        lines = [first, str(self.ledger), NEGATIVE]
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
        footer = "\n".join([head, str(self.ledger)])
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
        if self.shuffled:
            found["shuffled_projection"] = np.stack([tile.projection for tile in self.shuffled])
            found["correlation"] = np.array(self.correlations)
        return found


def columns_of(count: int) -> int:
    """Return the number of columns of a square of so many tiles."""
    return int(np.ceil(np.sqrt(count)))


def field_text(tile: UnitProjection) -> str:
    """Write the size of a unit's receptive field, and the row and column of its middle."""
    size = "×".join(str(last - first + 1) for first, last in tile.field)
    middle = ",".join(str((first + last + 1) // 2) for first, last in tile.field)
    return f"{size} at ({middle})"


def rank_text(correlation: float) -> str:
    """Write a rank correlation; there is none if a projection is zero.

    >>> rank_text(0.25), rank_text(float("nan"))
    ('rank r 0.25', 'dead')
    """
    return "dead" if np.isnan(correlation) else f"rank r {correlation:.2f}"
