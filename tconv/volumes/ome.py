"""Metadata of OME-Zarr: axes, scales and translations of a source, and those of its result.

Scales and translations of a result follow from where its cells stand in the source, which the
computation says.

References
----------
OME-NGFF 0.4 and 0.5, multiscales metadata (ngff.openmicroscopy.org).
"""

from collections.abc import Mapping, Sequence
from typing import Any

from tconv.dask.source import zarr
from tconv.volumes.computation import Computation

__all__ = ["dimension_names", "multiscales"]

_MOST_LEVELS = 4  # of groups above an array that are asked
_AXES = {"name": "c", "type": "channel"}


def multiscales(made: Computation) -> dict[str, Any] | None:
    """Return the attributes of a group whose array "0" is the result; None without such metadata.

    Metadata that do not follow the specification count as none.
    """
    found = _described(made.source.location)
    if found is None:
        return None
    image, dataset = found
    axes, steps = image.get("axes"), dataset.get("coordinateTransformations")
    rank = len(made.source.shape)
    if not isinstance(axes, Sequence) or len(axes) != rank:
        return None
    axes = [axis if isinstance(axis, Mapping) else {"name": str(axis)} for axis in axes]
    scale, translation = (
        _numbers(steps, "scale", rank, 1.0),
        _numbers(steps, "translation", rank, 0),
    )
    scale, translation = _of_result(made, scale, translation)
    moves = [
        {"type": "scale", "scale": scale},
        {"type": "translation", "translation": translation},
    ]
    told = {
        "axes": _with_channels(made, [dict(axis) for axis in axes], dict(_AXES)),
        "datasets": [{"path": "0", "coordinateTransformations": moves}],
    }
    if isinstance(image.get("name"), str):
        told["name"] = image["name"]
    if outer := _numbers(image.get("coordinateTransformations"), "scale", rank, None):
        outer = _with_channels(made, outer, 1.0)
        told["coordinateTransformations"] = [{"type": "scale", "scale": outer}]
    return {"ome": {"version": "0.5", "multiscales": [told]}}


def dimension_names(made: Computation) -> tuple[str | None, ...] | None:
    """Names of the axes of the result; None if the source has none."""
    names = made.source.dimension_names
    if not any(names):
        return None
    return tuple(_with_channels(made, list(names), "c" if "c" not in names else None))


def _with_channels(made: Computation, entries: list[Any], of_channels: Any) -> list[Any]:
    """Insert the entry of the axis of channels, if the result has one and the source has not."""
    if made.new_axis is not None:
        entries.insert(made.new_axis, of_channels)
    return entries


def _of_result(
    made: Computation, scale: list[float], translation: list[float]
) -> tuple[list[float], list[float]]:
    """Scale and translation of every axis of the result."""
    scale = _with_channels(made, list(scale), 1.0)
    translation = _with_channels(made, list(translation), 0.0)
    for n, by, offset in made.moves:
        translation[n] += offset * scale[n]
        scale[n] *= by
    return scale, translation


def _described(location: Any) -> tuple[Mapping[str, Any], Mapping[str, Any]] | None:
    """The image and the dataset that describe an array, from a group above it."""
    for root, name in _groups_above(location):
        try:
            attributes = zarr().open_group(root, mode="r").attrs.asdict()
        except Exception:  # no group there
            continue
        told = attributes.get("ome", attributes)
        for image in _mappings(told, "multiscales"):
            for dataset in _mappings(image, "datasets"):
                if dataset.get("path") == name:
                    return image, dataset
    return None


def _mappings(told: Any, name: str) -> list[Mapping[str, Any]]:
    """The mappings in a list of some metadata, whatever else these hold."""
    found = told.get(name) if isinstance(told, Mapping) else None
    listed = found if isinstance(found, Sequence) else ()
    return [each for each in listed if isinstance(each, Mapping)]


def _groups_above(location: Any) -> list[tuple[Any, str]]:
    """Groups that may describe an array, the nearest first, and the path of the array in each."""
    if isinstance(location, str):
        path, store = location.rstrip("/"), None
    else:
        path, store = location.path, location.store
    found = []
    parts = path.split("/")
    for n in range(1, min(_MOST_LEVELS, len(parts)) + 1):
        root, name = "/".join(parts[:-n]), "/".join(parts[-n:])
        if store is not None:
            found.append((zarr().storage.StorePath(store, root), name))
        elif root:
            found.append((root, name))
    return found


def _numbers(steps: Any, kind: str, rank: int, default: Any) -> Any:
    """The last transformation of a kind; the default for every axis if there is none."""
    for step in reversed(steps if isinstance(steps, Sequence) else ()):
        numbers = step.get(kind) if isinstance(step, Mapping) and step.get("type") == kind else None
        if isinstance(numbers, Sequence) and len(numbers) == rank:
            return [float(each) for each in numbers]
    return None if default is None else [float(default)] * rank
