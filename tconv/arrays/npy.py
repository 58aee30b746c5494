"""Arrays in .npy and .npz files, judged by their headers before they are read."""

import zipfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from io import BytesIO
from math import prod
from typing import Any, BinaryIO

import numpy as np
from numpy.typing import NDArray

from tconv.system.memory import check_room

__all__ = ["Header", "HoldsObjectsError", "read_npy", "read_npz"]

_MAGIC = b"\x93NUMPY"
_LENGTH_BYTES = {(1, 0): 2, (2, 0): 4}  # size of the header's length field, by version
_LONGEST_HEADER = 10_000  # bytes; NumPy's own limit, which it checks after reading


class HoldsObjectsError(ValueError):
    """A file of pickled Python objects; loading it could run any code."""


@dataclass(frozen=True)
class Header:
    """Shape and type of an array in a file; its elements begin at `start`."""

    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    start: int

    @property
    def size(self) -> int:
        """Bytes of header and elements together."""
        return self.start + prod(self.shape) * self.dtype.itemsize


Accept = Callable[[Mapping[str, Header]], None]
"""Looks at the headers of all arrays by name, and raises where they are not to be read."""


def read_npy(file: BinaryIO, accept: Accept | None = None) -> NDArray[Any]:
    """Read the first array of a regular file.

    Raises
    ------
    ValueError : the file is damaged
    MemoryLimitError : the array takes more memory than there is

    >>> file = BytesIO()
    >>> np.save(file, np.ones(3))
    >>> read_npy(file)
    array([1., 1., 1.])
    """
    size = file.seek(0, 2)
    file.seek(0)
    header = _header(file)
    if header.size > size:
        raise ValueError(f"it has {size:,} bytes, its header speaks of {header.size:,}")
    if accept is not None:
        accept({"": header})
    check_room("the array", header.size)
    file.seek(0)
    return np.lib.format.read_array(file, allow_pickle=False)


def read_npz(file: BinaryIO, accept: Accept | None = None) -> dict[str, NDArray[Any]]:
    """Read all arrays by name, after checks of all headers; verify the check sums.

    Raises
    ------
    ValueError, zipfile.BadZipFile, and whatever else a damaged archive leads to
    MemoryLimitError : the arrays take more memory than there is

    >>> file = BytesIO()
    >>> np.savez(file, x=np.ones(3))
    >>> read_npz(file)
    {'x': array([1., 1., 1.])}
    """
    found: dict[str, zipfile.ZipInfo] = {}
    headers: dict[str, Header] = {}
    with zipfile.ZipFile(file) as archive:
        for entry in archive.infolist():
            name = entry.filename.removesuffix(".npy")
            if name in found:
                raise ValueError(f"it holds two arrays {name!r}")
            with archive.open(entry) as member:
                header = _header(member)
            if header.size != entry.file_size:
                raise ValueError(
                    f"{name!r} has {entry.file_size:,} bytes, its header speaks of {header.size:,}"
                )
            found[name], headers[name] = entry, header
        if accept is not None:
            accept(headers)
        check_room("the arrays", sum(header.size for header in headers.values()))
        return {name: _member(archive, entry) for name, entry in found.items()}


def _member(archive: zipfile.ZipFile, entry: zipfile.ZipInfo) -> NDArray[Any]:
    with archive.open(entry) as member:
        array: NDArray[Any] = np.lib.format.read_array(member, allow_pickle=False)
        member.read()  # returns nothing, but verifies the check sum at the end
    return array


def _header(file: Any) -> Header:
    """Read at most the longest header: a damaged length could be huge, the data a zip bomb."""
    start = file.read(8)
    width = _LENGTH_BYTES.get(tuple(start[6:]))
    if start[:6] != _MAGIC or width is None:
        raise ValueError("no array of NumPy begins there")
    length = file.read(width)
    count = int.from_bytes(length, "little")
    if count > _LONGEST_HEADER:
        raise ValueError(f"its header is said to have {count:,} bytes")
    text = BytesIO(length + file.read(count))
    read = np.lib.format.read_array_header_1_0 if width == 2 else None
    try:
        shape, _, dtype = (read or np.lib.format.read_array_header_2_0)(text)
    except Exception as error:  # NumPy parses it as literals of Python
        raise ValueError("its header cannot be read") from error
    if min(shape, default=0) < 0:
        raise ValueError(f"its header speaks of the shape {shape}")
    if dtype.hasobject:
        raise HoldsObjectsError("it holds Python objects, which are not loaded")
    return Header(shape, dtype, 8 + width + count)
