"""Top activations: the strongest features of a layer, and the units where each is strongest."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from heapq import heappush, heapreplace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.errors import ParameterError, ShapeError
from tconv.geometry.arguments import entries_of, integer_of
from tconv.messages import show

__all__ = ["TopActivation", "Unit", "as_features", "as_unit", "top_activations"]

FEATURES_OF_MANY = 4  # features that several images show by default


@dataclass(frozen=True)
class Unit:
    """A unit of a layer: its channel, and its position on the spatial axes."""

    channel: int
    position: tuple[int, ...]

    def __str__(self) -> str:
        return ",".join(map(str, (self.channel, *self.position)))


@dataclass(frozen=True, order=True)
class TopActivation:
    """Greatest activation of a feature in an image, and its unit."""

    activation: float
    image: int
    unit: Unit


def top_activations(
    maps: Iterable[NDArray[Any]],
    *,
    features: Sequence[int] | None,
    unit: Unit | None,
    top: int,
) -> list[tuple[int, list[TopActivation]]]:
    """Choose features and find the top activations of each, the strongest first.

    Of one image these are the `top` strongest features with one unit each, of several images the
    four strongest features, each in the `top` images where it is strongest. Of equals, the lowest
    channel, the first image and the first position in row-major order come first.

    Parameters
    ----------
    maps : activations (1, C, *size) of the layer, image by image
    features : channels to show, or None to choose
    unit : the one unit to show in every image, or None
    top : int

    >>> layer = np.array([[[0.0, 5.0], [7.0, 7.0], [1.0, 2.0]]])
    >>> for channel, found in top_activations([layer], features=None, unit=None, top=2):
    ...     print(channel, found[0].activation, found[0].unit)
    1 7.0 1,0
    0 5.0 0,1
    """
    found: dict[int, list[tuple[float, int, Unit]]] = {}
    count = 0
    for image, layer in enumerate(maps):
        count += 1
        flat = layer[0].reshape(layer.shape[1], -1)
        if unit is not None:
            at = int(np.ravel_multi_index(unit.position, layer.shape[2:])) if unit.position else 0
            places = {unit.channel: at}
        else:
            best = flat.argmax(axis=1)
            places = {c: int(best[c]) for c in features or range(len(flat))}
        for channel, at in places.items():
            position = tuple(map(int, np.unravel_index(at, layer.shape[2:])))
            # The earlier image is the greater entry, so that it stays among equals.
            entry = (float(flat[channel, at]), -image, Unit(channel, position))
            heap = found.setdefault(channel, [])
            if len(heap) < top:
                heappush(heap, _Entry(entry))
            elif _Entry(entry) > heap[0]:
                heapreplace(heap, _Entry(entry))
    tops = {
        channel: [
            TopActivation(value, -image, unit) for value, image, unit in sorted(heap, reverse=True)
        ]
        for channel, heap in found.items()
    }
    order = list(features) if features else sorted(tops)
    if features is None and unit is None:
        order.sort(key=lambda channel: -tops[channel][0].activation)  # stable: lowest first
        order = order[: top if count == 1 else FEATURES_OF_MANY]
    return [(channel, tops[channel]) for channel in order]


class _Entry(tuple):  # type: ignore[type-arg]
    """A top activation in a heap, compared by its activation and its image, never by its unit."""

    __slots__ = ()

    def __lt__(self, other: Any) -> bool:
        return bool(self[:2] < other[:2])

    def __gt__(self, other: Any) -> bool:
        return bool(self[:2] > other[:2])


def as_features(feature: Any, channels: int) -> list[int] | None:
    """Check the channels to show: one, or several."""
    if feature is None:
        return None
    many = entries_of(feature)
    many = [feature] if many is None and not isinstance(feature, str) else many
    if not many:
        raise ParameterError(
            f"feature={show(feature)} must be one channel or several; pass 0 or [0], say."
        )
    found = [_index(each, channels, f"feature={show(feature)}", "channel") for each in many]
    return list(dict.fromkeys(found))


def as_unit(unit: Any, shape: tuple[int, ...]) -> Unit | None:
    """Check a unit (channel, *position) of a layer of shape (1, C, *size)."""
    if unit is None:
        return None
    entries = entries_of(unit)
    if entries is None or len(entries) != len(shape) - 1:
        names = ("channel", "row", "column")[: len(shape) - 1]
        raise ShapeError(
            f"unit={show(unit)} must be ({', '.join(names)}) for a layer of shape {shape}; pass "
            f"{tuple(size // 2 for size in shape[1:])}, say."
        )
    axes = zip(entries, shape[1:], ("channel", "row", "column"), strict=False)
    channel, *position = (_index(e, size, f"unit={show(unit)}", what) for e, size, what in axes)
    return Unit(channel, tuple(position))


def _index(value: Any, size: int, what: str, of: str) -> int:
    number = integer_of(value)
    if number is None or not 0 <= number < size:
        raise ParameterError(
            f"{what} has {of} {show(value)}, must be from 0 to {size - 1}; pass one of these."
        )
    return number
