"""State files: named arrays in .npz and .safetensors."""

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.npy import read_npz
from tconv.errors import MemoryLimitError, ParameterError
from tconv.messages import show
from tconv.system.files import as_path, regular_file, whole_file
from tconv.system.fork_lock import importing
from tconv.system.memory import check_room

__all__ = ["read_state", "write_state"]

_SUFFIXES = (".npz", ".safetensors")


def write_state(path: str | os.PathLike[str], state: Mapping[str, NDArray[Any]]) -> None:
    """Write named arrays to a file, complete or not at all.

    The file appears under its name only when it is complete, so a failure leaves an older file as
    it was. Equal states make equal files. An .npz file has no bfloat16: such arrays are stored as
    float32, which holds them exactly.

    Parameters
    ----------
    path : path of the file; its suffix, .npz or .safetensors, names the format
    state : names and arrays

    Raises
    ------
    ParameterError : another suffix, or path is not a file in an existing folder
    ImportError : .safetensors without the package safetensors
    OSError : the file cannot be written

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_state(f"{folder}/state.npz", {"0.weight": np.ones(2)})
    ...     read_state(f"{folder}/state.npz")
    {'0.weight': array([1., 1.])}
    """
    write = _write_safetensors if _suffix(path) == ".safetensors" else _write_npz
    with whole_file(path) as unfinished:
        write(unfinished, {name: np.asarray(value, order="C") for name, value in state.items()})


def read_state(path: str | os.PathLike[str]) -> dict[str, NDArray[Any]]:
    """Read the arrays of a file by name. Nothing in the file is ever executed.

    Parameters
    ----------
    path : path of an .npz or .safetensors file, written by tconv or any other program

    Returns
    -------
    dict of names and arrays

    Raises
    ------
    ParameterError : another suffix, or the file is damaged or of another format
    ImportError : .safetensors without the package safetensors
    MemoryLimitError : the arrays take more memory than there is
    OSError : the file cannot be read
    """
    suffix = _suffix(path)
    library = _safetensors() if suffix == ".safetensors" else None
    with regular_file(path) as file:
        try:
            if library is None:
                return read_npz(file)
            check_room("the file", 3 * os.fstat(file.fileno()).st_size)  # with copies
            return {name: _array(entry) for name, entry in library.deserialize(file.read())}
        except MemoryLimitError:
            raise
        except Exception as error:  # the parsers raise any exception for a damaged file
            reason = " ".join(str(error).split()) or type(error).__name__
            raise ParameterError(
                f"path={os.fspath(path)!r} must be an undamaged {suffix} file of arrays "
                f"({reason}); pass a file that Layer.save wrote."
            ) from error


def _write_npz(path: Path, state: dict[str, NDArray[Any]]) -> None:
    # Not numpy.savez: its argument names could not name arrays, and it writes the time.
    with zipfile.ZipFile(path, "x", allowZip64=True) as archive:
        for name, value in state.items():
            if value.dtype.name == "bfloat16":
                value = value.astype(np.float32)
            entry = zipfile.ZipInfo(f"{name}.npy")
            with archive.open(entry, "w", force_zip64=True) as file:
                np.lib.format.write_array(file, value, allow_pickle=False)


def _write_safetensors(path: Path, state: dict[str, NDArray[Any]]) -> None:
    library = _safetensors()
    with path.open("xb") as file:
        file.write(library.numpy.save(dict(sorted(state.items()))))


def _array(entry: Mapping[str, Any]) -> NDArray[Any]:
    """Make an array from an entry of safetensors, whose loader has no bfloat16 for NumPy."""
    kinds = {"F": "float", "I": "int", "U": "uint", "C": "complex"}
    name = entry["dtype"]
    if name == "BF16":
        with importing:
            import ml_dtypes

        dtype = np.dtype(ml_dtypes.bfloat16)
    elif name == "BOOL":
        dtype = np.dtype(np.bool_)
    else:
        dtype = np.dtype(kinds.get(name[0], name) + name[1:])
    flat: NDArray[Any] = np.frombuffer(entry["data"], dtype.newbyteorder("<"))
    return flat.astype(dtype).reshape(entry["shape"])


def _suffix(path: str | os.PathLike[str]) -> str:
    name = as_path(path)
    suffix = Path(name).suffix.lower()
    if suffix not in _SUFFIXES:
        raise ParameterError(f"path={show(name)} must end in .npz or .safetensors; rename it.")
    return suffix


def _safetensors() -> Any:
    try:
        with importing:
            import safetensors
            import safetensors.numpy
    except ImportError:
        raise ImportError(
            "Reading and writing .safetensors needs safetensors: pip install safetensors."
        ) from None
    return safetensors
