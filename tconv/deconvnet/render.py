"""Render projections: for each selected unit, project it to the image and crop."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from tconv.deconvnet.crops import UnitProjection, crop_to_box
from tconv.deconvnet.network.images import Images
from tconv.deconvnet.network.interruption import check_interrupted
from tconv.deconvnet.network.runtime import Values
from tconv.deconvnet.rules.backward import BackwardPass
from tconv.deconvnet.rules.receptive_field import receptive_field, unit_box
from tconv.deconvnet.rules.sparse_map import SparseMap
from tconv.deconvnet.rules.windows import Box
from tconv.deconvnet.units import FEATURES_OF_MANY, TopActivation, Unit, top_activations
from tconv.errors import ShapeError
from tconv.progress import Progress
from tconv.system.fork_lock import cached_property

__all__ = ["Projector"]


@dataclass(frozen=True, eq=False)
class Projector:
    """Projector of one layer's units under one rule.

    ``whole_map`` seeds the backward pass with the feature's whole map in place of one unit.
    """

    backward: BackwardPass
    photos: Images
    crop: bool
    whole_map: bool
    threads: int | None
    progress: Progress | None = None

    @cached_property
    def layer_shape(self) -> tuple[int, ...]:
        """Shape (1, C, *size) of the layer, by a run if shape inference does not find it.

        Raises
        ------
        ShapeError : the layer has no channels
        """
        network, layer = self.backward.network, self.backward.layer
        shape = network.shapes.get(layer)
        if shape is None:
            shape = network.recorder([layer], self.threads)(self._image(0))[layer].shape
        if len(shape) < 2 or shape[0] != 1:
            raise ShapeError(
                f"layer {layer!r} has shape {shape}, must be (1, C) or (1, C, *size) with channels "
                "C; choose another layer (see_layers shows them)."
            )
        return shape

    def project_same(
        self, others: Sequence[UnitProjection], unit: Unit | None
    ) -> list[UnitProjection]:
        """Project the same features in the same images, each at its maximum in this network."""
        found = []
        for image in dict.fromkeys(tile.image for tile in others):
            one = replace(self, photos=self.photos.only(image), progress=None)
            features = None if unit else [t.feature for t in others if t.image == image]
            tiles = one.project(features=features, unit=unit, top=1)
            found += [replace(tile, image=image) for tile in tiles]
        by_key = {(tile.feature, tile.image): tile for tile in found}
        return [by_key[tile.feature, tile.image] for tile in others]

    def project(
        self, *, features: Sequence[int] | None, unit: Unit | None, top: int
    ) -> list[UnitProjection]:
        """Project the top activations of some features, feature by feature.

        ``progress`` counts the images and then the tiles. The network runs on every image once to
        find the top activations. Of several images, it runs once more on those that hold one, to
        record the values that the backward pass reads.
        """
        network, layer, count = self.backward.network, self.backward.layer, len(self.photos)
        total = count + self._most_tiles(features, unit, top)
        recorder = network.recorder(self.backward.recorded, self.threads)
        recorded: dict[int, Values] = {}

        def maps() -> Any:
            for n in range(count):
                names = None if count == 1 else (layer,)
                values = recorder(self._image(n), names)
                if count == 1:
                    recorded[n] = values
                self._tell(n + 1, total)
                yield values[layer]

        chosen = top_activations(maps(), features=features, unit=unit, top=top)
        found: dict[tuple[int, int], UnitProjection] = {}
        by_image = sorted(
            (
                (each.image, place, rank, each)
                for place, (_, tops) in enumerate(chosen)
                for rank, each in enumerate(tops)
            ),
            key=lambda each: each[:3],
        )
        total = count + len(by_image)  # of fewer images than there were wanted, fewer tiles
        for done, (image, place, rank, activation) in enumerate(by_image, count + 1):
            if image not in recorded:
                recorded = {image: recorder(self._image(image))}
            found[place, rank] = self._project_one(activation, recorded[image])
            self._tell(done, total)
        return [found[key] for key in sorted(found)]

    def _most_tiles(self, features: Sequence[int] | None, unit: Unit | None, top: int) -> int:
        """Return how many tiles there will be."""
        count, channels = len(self.photos), self.layer_shape[1]
        if unit is not None:
            shown = 1
        elif features is not None:
            shown = len(features)
        else:
            shown = min(channels, top if count == 1 else FEATURES_OF_MANY)
        return shown * min(count, top)

    def _tell(self, done: int, total: int) -> None:
        check_interrupted()
        if self.progress is not None:
            self.progress(done, total)

    def _image(self, n: int) -> Any:
        return self.photos[n].values.astype(self.backward.network.dtype)

    def _project_one(self, top: TopActivation, values: Values) -> UnitProjection:
        network, layer = self.backward.network, self.backward.layer
        unit, value = top.unit, values[layer]
        seed = np.zeros((*value.shape[:2], *[1] * len(unit.position)), value.dtype)
        seed[0, unit.channel] = top.activation
        r = SparseMap(seed, unit.position, value.shape)
        if self.whole_map:
            seed = np.zeros_like(value)
            seed[0, unit.channel] = value[0, unit.channel]
            r = SparseMap.whole(seed)
        back = self.backward.project(r, values)
        shapes = {**network.shapes, **{name: each.shape for name, each in values.items()}}
        whole: Box = tuple((0, size - 1) for size in network.input_shape[2:])
        position = None if self.whole_map else unit_box(unit.position)
        seen = receptive_field(network, layer, position, shapes) if position else None
        box = seen if self.crop and seen is not None and _is_smaller(seen, whole) else whole
        photo = self.photos[top.image]
        projection, pixels, inside = crop_to_box(back, photo.pixels, box)
        return UnitProjection(
            unit.channel,
            top.image,
            (unit.channel, *unit.position),
            top.activation,
            box,
            seen or whole,
            () if self.whole_map else _place(seen, unit.position, value.shape[2:], whole),
            projection,
            pixels,
            inside,
        )


def _place(
    seen: Box | None, position: tuple[int, ...], layer: tuple[int, ...], whole: Box
) -> tuple[float, ...]:
    """Return the row and column of the image where a unit of a layer lies."""
    if seen is not None:
        return tuple((first + last + 1) / 2 for first, last in seen)
    if len(position) != len(whole):
        return ()
    sizes = zip(position, layer, whole, strict=True)
    return tuple((at + 0.5) / size * (last + 1) for at, size, (_, last) in sizes)


def _is_smaller(seen: Box, whole: Box) -> bool:
    return any(b - a < d - c for (a, b), (c, d) in zip(seen, whole, strict=True))
