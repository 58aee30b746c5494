"""Sources of volumes: Zarr arrays and .npy files, read by boxes and described by their metadata."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from hashlib import sha256
from math import ceil, prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.errors import DTypeError, ParameterError
from tconv.geometry.parts import Box, slices
from tconv.messages import show
from tconv.system.files import as_path, regular_file

__all__ = ["Source", "local_path", "open_source", "zarr"]

_MAPPED_BYTES = 2**17  # two times 64 KiB, of which Linux maps what is in its cache


def zarr() -> Any:
    """Return the module zarr, or say what to install."""
    try:
        import zarr
    except ImportError:
        raise ImportError("Zarr arrays need zarr: pip install 'zarr>=3.1'.") from None
    return zarr


@dataclass(frozen=True)
class Source:
    """An array on disk or in an object store.

    Attributes
    ----------
    location : path or URL, or a `zarr.Array`
    chunks : sizes of its chunks, which are decoded as a whole; None of a file
    has_shards : whether chunks are stored together in shards, of which those that are needed are
        read
    dimension_names : of its axes, None where there are none
    state : hash of what tells one state of the source from another without reading its cells:
        names, sizes and times of modification of local files, elsewhere the metadata
    """

    location: Any
    shape: tuple[int, ...]
    dtype: str
    chunks: tuple[int, ...] | None = None
    has_shards: bool = False
    dimension_names: tuple[str | None, ...] = ()
    state: str = ""

    def __str__(self) -> str:
        return _name_of(self.location)

    @property
    def chunk_bytes(self) -> int:
        """Bytes of a decoded chunk; 0 of a file."""
        return prod(self.chunks or (0,)) * np.dtype(self.dtype).itemsize

    def read_bytes(self, sizes: Sequence[int]) -> int:
        """Most bytes that `read` holds for a box of these sizes, besides the box itself.

        These are decoded and stored chunks, as many as Zarr's setting "async.concurrency" lets it
        read at once, or the pages of a file: of each plane of the box those of its rows, with what
        the system maps around them.
        """
        itemsize = np.dtype(self.dtype).itemsize
        if self.chunks is not None:
            met = prod(ceil((n - 1) / c) + 1 for n, c in zip(sizes, self.chunks, strict=True))
            at_once = min(met, zarr().config.get("async.concurrency") or met)
            stored = prod(sizes) * itemsize if self.has_shards else 0
            return 2 * at_once * self.chunk_bytes + stored
        *leading, rows, row = (1, 1, *sizes)
        pitch = self.shape[-1] * itemsize
        of_rows = rows * (row * itemsize + _MAPPED_BYTES)
        return prod(leading) * min(of_rows, rows * pitch + _MAPPED_BYTES)

    def read(self, box: Box) -> NDArray[Any]:
        """Return the cells of a box, in new memory.

        Raises
        ------
        OSError : they cannot be read: a chunk is damaged, or the source is no longer there
        """
        try:
            found = self._array()
            if found.shape != self.shape:
                raise ValueError(f"its shape is {found.shape} by now")
            cells = found[slices(box)]
            return np.ascontiguousarray(np.array(cells) if self.chunks is None else cells)
        except MemoryError:
            raise
        except Exception as error:
            raise OSError(
                f"source {str(self)!r} cannot be read at {list(box)}: {error}; restore it, then "
                "run again (with overwrite=True if it is in another state by then)."
            ) from error

    def has_changed(self) -> bool:
        """Whether the source is in another state than when it was opened."""
        return _state_of(self.location) != self.state

    def _array(self) -> Any:
        if self.chunks is None:
            return _memmap(self.location)
        if isinstance(self.location, str):
            return _kept_open(self.location, self.state)
        return self.location


def open_source(source: Any) -> Source:
    """Open the array that a path, a URL or a `zarr.Array` names, without reading its cells.

    Raises
    ------
    ParameterError : there is a group of arrays, and none of them is named, or it is no array
    DTypeError : it holds no numbers
    OSError : there is nothing
    """
    if isinstance(source, str | os.PathLike) and Path(as_path(source, "source")).suffix == ".npy":
        path = os.path.abspath(source)
        with regular_file(path):  # its errors are clearer
            pass
        found = _memmap(path)
        return Source(path, found.shape, found.dtype.str, state=_state_of(path))
    if isinstance(source, str | os.PathLike):
        name = as_path(source, "source")
        location: Any = name if "://" in name else os.path.abspath(name)
        array = _opened(location)
    elif isinstance(source, zarr().Array):
        location = array = source
    else:
        raise ParameterError(
            f"source={show(source)} must be a path or URL of a Zarr array or an .npy file, or a "
            "zarr.Array; pass one."
        )
    if array.ndim == 0:
        raise ParameterError(f"source {_name_of(location)!r} has no axes; pass an array that has.")
    if array.dtype.kind not in "biufc":
        raise DTypeError(
            f"source {_name_of(location)!r} has dtype {array.dtype}, which is no type of numbers; "
            "pass an array of integers, real or complex numbers."
        )
    names = getattr(array.metadata, "dimension_names", None)
    names = names or array.attrs.get("_ARRAY_DIMENSIONS") or (None,) * array.ndim
    return Source(
        location,
        tuple(array.shape),
        np.dtype(array.dtype).str,
        tuple(array.chunks),
        array.shards is not None,
        tuple(names),
        _state_of(location),
    )


@lru_cache(maxsize=64)
def _kept_open(location: str, state: str) -> Any:
    """An array that this process reads again and again."""
    return _opened(location)


def _opened(location: str) -> Any:
    library = zarr()
    try:
        return library.open_array(location, mode="r")
    except Exception as error:
        try:
            group = library.open_group(location, mode="r")
        except Exception:
            if _is_missing(location):
                raise FileNotFoundError(2, "there is no Zarr array", location) from None
            raise OSError(
                f"source {location!r} is no Zarr array ({error}); name one, or an .npy file."
            ) from error
    found = [name for name, _ in _arrays_in(group, "")]
    listed = ", ".join(repr(each) for each in found[:8]) or "none"
    raise ParameterError(
        f"source={location!r} is a group, with the arrays {listed}; name one of them, such as "
        f"{location.rstrip('/')}/{found[0] if found else 'NAME'}."
    )


def _arrays_in(group: Any, prefix: str) -> list[tuple[str, Any]]:
    found = [(prefix + name, each) for name, each in sorted(group.arrays())]
    for name, inner in sorted(group.groups()):
        found += _arrays_in(inner, f"{prefix}{name}/")
    return found


def _memmap(path: str) -> Any:
    """Map a file anew: when the map is dropped, the pages that were read leave this process."""
    try:
        return np.load(path, mmap_mode="r", allow_pickle=False)
    except ValueError as error:
        raise OSError(f"source {path!r} is no array of numbers in an .npy file: {error}") from error


def _name_of(location: Any) -> str:
    return location if isinstance(location, str) else str(location.store_path)


def local_path(location: Any) -> Path | None:
    """The file or folder of a path, a store or an array; None if it is not on a local disk."""
    if isinstance(location, str):
        is_local = "://" not in location or location.startswith("file://")
        return Path(location.removeprefix("file://")) if is_local else None
    root = getattr(getattr(location, "store", location), "root", None)
    return Path(root, getattr(location, "path", "")) if isinstance(root, Path) else None


def _is_missing(location: str) -> bool:
    path = local_path(location)
    return path is not None and not path.exists()


def _files(folder: Path) -> list[bytes]:
    """Every file below a folder: its path, size and time of modification."""
    start = os.fspath(folder)
    found, folders = [], [start]
    while folders:
        with os.scandir(folders.pop()) as entries:
            for entry in entries:
                if entry.is_dir():
                    folders.append(entry.path)
                else:
                    found.append(os.fsencode(entry.path[len(start) :]) + _times(entry.stat()))
    return found


def _state_of(location: Any) -> str:
    told, root = sha256(), local_path(location)
    if root is None:
        array = _opened(location) if isinstance(location, str) else location
        told.update(repr(array.metadata.to_dict()).encode())
    elif root.is_file():
        told.update(_times(root.stat()))
    else:
        for each in sorted(_files(root)):
            told.update(each)
    return told.hexdigest()


def _times(status: os.stat_result) -> bytes:
    return f" {status.st_size} {status.st_mtime_ns}\n".encode()
