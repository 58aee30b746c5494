"""Targets: Zarr arrays filled chunk by chunk, and taken up again where a run was stopped.

The metadata are written first, with the token. A chunk is finished when its key is in the store, so
chunks of zeros are written too. Zarr writes a key of a local store beside its place and renames it:
a killed process leaves whole keys, and files that the next run removes. A loss of power may leave
keys whose bytes never reached the disk: nothing waits for it.
"""

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from shutil import rmtree
from typing import Any
from uuid import uuid4

from numpy.typing import NDArray

from tconv.dask.source import local_path, zarr
from tconv.errors import ParameterError, UnsupportedError
from tconv.geometry.parts import Box, slices
from tconv.messages import show
from tconv.system.files import as_path
from tconv.volumes.computation import Computation
from tconv.volumes.ome import dimension_names, multiscales
from tconv.volumes.token import Token

__all__ = [
    "Target",
    "check_apart",
    "check_removable",
    "check_type",
    "create_target",
    "existing_target",
    "remove_target",
]

_ATTRIBUTE = "tconv"
_LEFTOVER = re.compile(r"\.[0-9a-f]{32}\.partial$")  # of a write by zarr's LocalStore
_METADATA = ("zarr.json", ".zarray", ".zgroup")


@dataclass(frozen=True)
class Target:
    """A target.

    Attributes
    ----------
    location : path, URL or store; `path` is that of the array below it
    run : a word of one run, for which a process keeps the array open
    """

    location: Any
    path: str = ""
    run: str = field(default_factory=lambda: uuid4().hex)

    def __str__(self) -> str:
        return _shown(self.location)

    @property
    def array(self) -> Any:
        """The array, open for reading and writing."""
        if isinstance(self.location, str):
            return _kept_open(self.location, self.path, self.run)
        return _open(self.location, self.path)

    @property
    def chunks(self) -> tuple[int, ...]:
        """Sizes of its chunks."""
        return tuple(self.array.chunks)

    @property
    def shards(self) -> tuple[int, ...] | None:
        """Sizes of its shards, if it has them."""
        return None if self.array.shards is None else tuple(self.array.shards)

    def finished(self) -> set[tuple[int, ...]]:
        """Indices of the chunks, or shards, whose key is in the store, by one listing."""
        array = self.array
        prefix, found = f"{array.path}/c/".removeprefix("/"), set()
        for key in _wait(_listed(array.store, prefix)):
            parts = key.removeprefix(prefix).split("/")
            if len(parts) == array.ndim and all(map(str.isdecimal, parts)):
                found.add(tuple(map(int, parts)))
        return found

    def write(self, box: Box, chunk: NDArray[Any]) -> None:
        """Write a whole chunk or shard."""
        self.array[slices(box)] = chunk

    def is_readable(self, box: Box) -> bool:
        """Whether a chunk that has a key can be decoded."""
        try:
            self.array[slices(box)]
        except MemoryError:
            raise
        except Exception:  # by whatever codec
            return False
        return True

    def forget(self, index: tuple[int, ...]) -> None:
        """Remove a damaged chunk, which a write of a part of it would read first."""
        array = self.array
        key = "/".join(["c", *map(str, index)])
        _wait(array.store.delete(f"{array.path}/{key}".removeprefix("/")))

    @property
    def is_complete(self) -> bool:
        """Whether it was marked complete, the last thing that a run writes."""
        return bool(self.array.attrs[_ATTRIBUTE].get("complete"))

    def mark(self, complete: bool) -> None:
        """Say in the metadata whether every chunk is there."""
        array = self.array
        if self.is_complete != complete:
            array.attrs[_ATTRIBUTE] = {**array.attrs[_ATTRIBUTE], "complete": complete}

    def remove_leftovers(self) -> None:
        """Remove what killed processes left half written; to be called when no task writes."""
        root = local_path(self.location)
        for each in () if root is None else _leftovers(root):
            each.unlink(missing_ok=True)


def existing_target(target: Any, made: Computation, token: Token) -> Target | None:
    """Return the target of the same token that is there; None if there is nothing yet.

    Raises
    ------
    ParameterError : there is something else, or the target of other numbers; both are named
    """
    location, name, fix = _location(target), _shown(target), "or choose another target"
    path = "0" if multiscales(made) else ""
    if _contents(location) == "nothing":
        return None
    if _contents(location) == "others":
        raise ParameterError(
            f"target={name!r} holds files that are no Zarr array; choose another target."
        )
    told = _attributes(location)
    if "token" not in told:
        raise ParameterError(
            f"target={name!r} is there, and tconv did not make it; pass overwrite=True (-f) to "
            f"replace it, {fix}."
        )
    if told["token"] != token.hash:
        raise ParameterError(
            f"target={name!r} is of another computation ({token.difference(told)}); pass "
            f"overwrite=True (-f) to replace it, {fix}."
        )
    found = Target(location, path)
    try:
        array = found.array
    except FileNotFoundError:  # the run was killed between the group and its array
        return None
    if tuple(array.shape) != made.result_shape or array.dtype != made.result_dtype:
        raise ParameterError(
            f"target={name!r} has shape {array.shape} and type {array.dtype}, must have "
            f"{made.result_shape} and {made.result_dtype}; pass overwrite=True (-f) to replace it, "
            f"{fix}."
        )
    return found


def create_target(
    target: Any,
    made: Computation,
    token: Token,
    chunks: tuple[int, ...],
    shards: tuple[int, ...] | None,
    overwrite: bool,
) -> Target:
    """Write the metadata of a target: of a group, if the source is in an OME-Zarr, and an array."""
    location, ome = _location(target), multiscales(made)
    told = {"token": token.hash, **token.parts}
    if ome is not None and (overwrite or _contents(location) == "nothing"):
        attributes = {**ome, _ATTRIBUTE: told}
        zarr().create_group(location, attributes=attributes, overwrite=overwrite)
    zarr().create_array(
        location,
        name=None if ome is None else "0",
        shape=made.result_shape,
        chunks=chunks,
        shards=shards,
        dtype=made.result_dtype,
        fill_value=0,
        dimension_names=dimension_names(made),
        attributes={_ATTRIBUTE: {**told, "complete": False}},
        overwrite=overwrite,
    )
    return Target(location, "" if ome is None else "0")


def remove_target(target: Any) -> None:
    """Remove the array, or the group of an earlier target, that is where a target is to be.

    A local one gets another name first, so that a kill leaves no half of it in its place. In other
    stores `create_target` replaces it.
    """
    root = local_path(_location(target))
    if root is not None and root.exists():
        aside = root.with_name(f".{root.name}.{uuid4().hex}.partial")
        root.rename(aside)
        rmtree(aside)


def check_removable(target: Any) -> None:
    """Refuse to remove anything but one array, or the group that an earlier run made for it.

    Raises
    ------
    ParameterError : there are other files, or other arrays
    """
    location, name = _location(target), _shown(target)
    held = _contents(location)
    if held == "zarr":
        node = _node(location)
        others = sorted(set(node.keys()) - {"0"}) if isinstance(node, zarr().Group) else []
        if isinstance(node, zarr().Group) and (others or _ATTRIBUTE not in node.attrs):
            held = "others"
    if held == "others":
        raise ParameterError(
            f"target={name!r} holds more than one array that tconv made, and that is not removed; "
            "choose another target, or remove it yourself."
        )


def check_apart(target: Any, source: Any) -> None:
    """Refuse a target within its source, or around it.

    >>> check_apart("image.zarr", os.path.abspath("image.zarr/0"))
    Traceback (most recent call last):
    ...
    tconv.errors.ParameterError: target='image.zarr' must not be the source, hold it or lie in it; \
choose another target.
    """
    place, other = local_path(_location(target)), local_path(source)
    if place is None or other is None:
        is_same = place is other is None and _shown(target) == _shown(source)
    else:
        place, other = Path(os.path.realpath(place)), Path(os.path.realpath(other))
        is_same = place == other or place in other.parents or other in place.parents
    if is_same:
        raise ParameterError(
            f"target={_shown(target)!r} must not be the source, hold it or lie in it; choose "
            "another target."
        )


def check_type(made: Computation) -> None:
    """Refuse a type that Zarr does not store."""
    if made.result_dtype.name == "bfloat16":
        raise UnsupportedError('Zarr has no bfloat16; pass dtype="float32" or "float16".')


def _location(target: Any) -> Any:
    if isinstance(target, str | os.PathLike):
        name = as_path(target, "target")
        return name if "://" in name else os.path.abspath(name)
    if isinstance(target, zarr().abc.store.Store):
        return target
    raise ParameterError(
        f"target={show(target)} must be a path or URL, or a store of Zarr; pass one."
    )


def _shown(location: Any) -> str:
    return os.fspath(location) if isinstance(location, str | os.PathLike) else str(location)


def _contents(location: Any) -> str:
    """What is at a location: "nothing" but leftovers, "zarr", or "others"."""
    root = local_path(location)
    if root is None:
        try:
            zarr().open(location, mode="r")
        except FileNotFoundError:
            return "nothing"
        return "zarr"
    if not root.exists():
        return "nothing"
    if not root.is_dir():
        return "others"
    names = [each for each in os.listdir(root) if not _LEFTOVER.search(each)]
    if not names:
        return "nothing"
    return "zarr" if any(name in names for name in _METADATA) else "others"


def _attributes(location: Any) -> Mapping[str, Any]:
    """What tconv told of an array or group."""
    told = _node(location).attrs.get(_ATTRIBUTE)
    return told if isinstance(told, Mapping) else {}


def _node(location: Any) -> Any:
    """The array or group at a location."""
    try:
        return zarr().open(location, mode="r")
    except Exception as error:  # by whatever reads damaged metadata
        raise OSError(
            f"target {_shown(location)!r} has metadata that cannot be read ({error}); remove it, "
            "or choose another target."
        ) from error


@lru_cache(maxsize=8)
def _kept_open(location: str, path: str, run: str) -> Any:
    return _open(location, path)


def _open(location: Any, path: str) -> Any:
    # Not by Zarr's settings, which all threads share.
    library, settings = zarr(), {"write_empty_chunks": True}
    found = library.open_array(location, path=path, mode="r+")
    made = library.AsyncArray(metadata=found.metadata, store_path=found.store_path, config=settings)
    return library.Array(made)


def _leftovers(root: Path) -> Iterator[Path]:
    for folder, _, names in os.walk(root):
        for name in names:
            if _LEFTOVER.search(name):
                yield Path(folder, name)


async def _listed(store: Any, prefix: str) -> list[str]:
    return [key async for key in store.list_prefix(prefix)]


def _wait(coroutine: Any) -> Any:
    """Run what a store does on Zarr's own loop, which its remote stores belong to."""
    from zarr.core.sync import sync

    return sync(coroutine)
