"""Inputs of a model from files: arrays and pictures."""

import os
from collections.abc import Container, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.npy import Header, HoldsObjectsError, read_npy, read_npz
from tconv.cli.console import at
from tconv.cli.options import closest
from tconv.cli.standard_streams import DASH, opened, place_of_file
from tconv.errors import DTypeError, ParameterError, ShapeError, TConvError
from tconv.images import picture_size, read_picture
from tconv.system.memory import check_room

if TYPE_CHECKING:
    from tconv.onnx.model.model import NodeArg

__all__ = [
    "PictureSettings",
    "Source",
    "describe",
    "is_picture",
    "read_array",
    "read_feeds",
    "sources",
]

_FLOATS = {"tensor(float)": "float32", "tensor(double)": "float64", "tensor(float16)": "float16"}


@dataclass(frozen=True)
class Source:
    """A file, or ``-`` for standard input, and the name of the input it is for, or None."""

    path: str
    name: str | None = None


@dataclass(frozen=True)
class PictureSettings:
    """Preprocessing of a picture: resize to `size`; 0 to 255 become `range`, then - mean, / std."""

    size: tuple[int, int] | None = None
    range: tuple[float, ...] = (0.0, 1.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    def __post_init__(self) -> None:
        if 0 in self.std:
            with at("option --std"):
                raise ParameterError("std=0 must not be 0, it divides; pass 1 to leave it out.")
        if len(self.range) != 2 or self.range[0] == self.range[1]:
            given = ",".join(f"{number:g}" for number in self.range)
            with at("option --range"):
                raise ParameterError(f"range={given} must be two different numbers; pass 0,255.")


def describe(declared: Sequence["NodeArg"]) -> str:
    """List inputs or outputs with type and shape.

    >>> from types import SimpleNamespace
    >>> x = SimpleNamespace(name="x", type="tensor(float)", shape=["N", 3, None], has_rank=True)
    >>> describe([x])
    'x float (N, 3, ?)'
    """
    listed = []
    for each in declared:
        kind = each.type.removeprefix("tensor(").removesuffix(")")
        sizes = ", ".join(str(size or "?") for size in each.shape) if each.has_rank else "any shape"
        listed.append(f"{each.name} {kind} ({sizes})")
    return ", ".join(listed) or "none"


def sources(words: Sequence[str], names: Sequence[str]) -> list[Source]:
    """Split NAME=PATH if NAME is an input; anything else is a path.

    >>> sources(["x=a.npy", "b.npy"], ["x"])
    [Source(path='a.npy', name='x'), Source(path='b.npy', name=None)]
    """
    found = []
    for word in words:
        # Names of inputs and paths may contain "=".
        cuts = [n for n, sign in enumerate(word) if sign == "="]
        cut = next((n for n in cuts if word[:n] in names), None)
        if cut is None and cuts and not os.path.exists(word):
            cut = cuts[0]
        found.append(Source(word) if cut is None else Source(word[cut + 1 :], word[:cut]))
    return found


def read_feeds(
    given: Sequence[Source],
    declared: Sequence["NodeArg"],
    picture: PictureSettings,
    *,
    cast: bool = False,
    dtype: str | None = None,
) -> dict[str, NDArray[Any]]:
    """Read every file, and assign its array or arrays to the inputs of a model.

    An .npz names its arrays. A file without a name goes to the first input that is not yet given.
    A file whose header does not fit its input is not read. Arrays are converted to the type of
    their input with `cast`, and where that type is `dtype`; their numbers may be rounded, but an
    imaginary part, a fraction, or a number beyond the type's range is never dropped.

    Raises
    ------
    ParameterError : a name is unknown, given twice or missing
    ShapeError, DTypeError : an array or a picture does not fit its input
    MemoryLimitError : a file holds more than there is memory for
    OSError : a file cannot be read, or is damaged
    """
    by_name = {each.name: each for each in declared}
    to = _targets(declared, cast, dtype)
    feeds: dict[str, NDArray[Any]] = {}
    named = {source.name for source in given if source.name is not None}
    for source in given:
        place = place_of_file(source.path)
        with at(place if source.name is None else f"{place}, for input {source.name!r}"):
            suffix = _suffix(source)
            if suffix == ".npz" and source.name is None:
                feeds |= _read_by_name(source.path, by_name, feeds, to)
                continue
            free = [each.name for each in declared if each.name not in {*feeds, *named}]
            if source.name is None and not free:
                raise ParameterError(
                    f"one input too many is given, the model takes {describe(declared)}; leave "
                    "this one out."
                )
            name = source.name if source.name is not None else free[0]
            _check_name(name, by_name, feeds)
            feeds[name] = _read(source.path, suffix, by_name[name], picture, to)
    missing = [each.name for each in declared if each.name not in feeds]
    if missing:
        raise ParameterError(
            f"input {', '.join(map(repr, missing))} is not given, the model takes "
            f"{describe(declared)}; add {' '.join(f'{name}=PATH' for name in missing)}."
        )
    return feeds


def _check_name(name: str, by_name: Mapping[str, "NodeArg"], feeds: Mapping[str, Any]) -> None:
    if name in feeds:
        raise ParameterError(f"input {name!r} is given twice; leave one of them out.")
    if name not in by_name:
        close = closest(name, list(by_name))
        fix = f"did you mean {close!r}?" if close else "use one of these names"
        listed = describe(list(by_name.values()))
        raise ParameterError(f"there is no input {name!r}, the model takes {listed}; {fix}")


# ---- arrays --------------------------------------------------------------------------------------


def _read(
    path: str, suffix: str, declared: "NodeArg", picture: PictureSettings, to: Container[str]
) -> NDArray[Any]:
    if suffix not in (".npy", ".npz"):
        return _read_picture(path, declared, picture)

    def accept(headers: Mapping[str, Header]) -> None:
        if len(headers) != 1:
            raise ParameterError(
                f"{path!r} holds {len(headers)} arrays, must hold one to be given as "
                f"{declared.name}={path}; pass it without a name, and its arrays go by theirs."
            )
        for header in headers.values():
            _check_array(header, declared, to)

    try:
        with opened(path) as file:
            found = read_npy(file, accept) if suffix == ".npy" else read_npz(file, accept)
    except Exception as error:  # a parser of damaged files may raise anything
        raise _damaged(path, suffix, error) from error
    return _cast(next(iter(found.values())) if isinstance(found, dict) else found, declared)


def read_array(path: str) -> NDArray[Any]:
    """Read an .npy file, or standard input if the path is ``-``.

    Raises
    ------
    OSError : it is missing or damaged
    MemoryLimitError : it holds more than there is memory for
    """
    try:
        with opened(path) as file:
            return read_npy(file)
    except Exception as error:  # a parser of damaged files may raise anything
        raise _damaged(path, ".npy", error) from error


def _read_by_name(
    path: str, by_name: Mapping[str, "NodeArg"], feeds: Mapping[str, Any], to: Container[str]
) -> dict[str, NDArray[Any]]:
    def accept(headers: Mapping[str, Header]) -> None:
        for name, header in headers.items():
            _check_name(name, by_name, feeds)
            _check_array(header, by_name[name], to)

    try:
        with opened(path) as file:
            arrays = read_npz(file, accept)
    except Exception as error:
        raise _damaged(path, ".npz", error) from error
    return {name: _cast(array, by_name[name]) for name, array in arrays.items()}


def _targets(declared: Sequence["NodeArg"], cast: bool, dtype: str | None) -> set[str]:
    """Names of the inputs whose arrays are converted."""
    types = {each.name: _dtype_of(each) for each in declared}
    if cast:
        return set(types)
    found = {name for name, kind in types.items() if kind is not None and kind.name == dtype}
    if dtype is not None and not found:
        takes = next((kind.name for kind in types.values() if kind is not None), None)
        with at("option --dtype"):
            raise DTypeError(
                f"no input takes {dtype}, the model takes {describe(declared)}; "
                + (f"pass --dtype {takes}." if takes else "leave it out.")
            )
    return found


def _check_array(header: Header, declared: "NodeArg", to: Container[str]) -> None:
    """Check shape and type of an array against its input, as far as these are known."""
    shape, sizes = header.shape, declared.shape
    fits = not declared.has_rank or (
        len(sizes) == len(shape)
        and all(size == n for size, n in zip(sizes, shape, strict=True) if isinstance(size, int))
    )
    if not fits:
        raise ShapeError(
            f"the array has shape {shape}, but input {describe([declared])} takes another; pass an "
            "array of that shape."
        )
    wanted = _dtype_of(declared)
    if wanted is None or wanted == header.dtype.newbyteorder("="):
        return
    fitting = header.dtype.kind in ("biufc" if wanted.kind == "c" else "biuf")
    if not (fitting and declared.name in to):
        what = f"the array is {header.dtype.name}, but input {describe([declared])} takes {wanted}"
        fix = f"pass --dtype {wanted} to convert it"
        if not fitting and header.dtype.kind == "c":
            what += ", which has no imaginary part"
        raise DTypeError(f"{what}; {fix if fitting else f'save it as {wanted} and pass that'}.")


def _dtype_of(declared: "NodeArg") -> np.dtype[Any] | None:
    """Return NumPy's type for an input, None if NumPy has none or the type is unknown."""
    kind = declared.type.removeprefix("tensor(").removesuffix(")")
    try:
        found = np.dtype({"float": "float32", "double": "float64"}.get(kind, kind))
    except TypeError:
        return None
    return found if found.kind in "biufc" else None


def _cast(array: NDArray[Any], declared: "NodeArg") -> NDArray[Any]:
    """Convert an array that `_check_array` accepted; refuse numbers that the type cannot hold.

    Those are fractions in whole numbers, and what is beyond its range; rounding is no such loss.
    """
    wanted = _dtype_of(declared)
    if wanted is None or wanted == array.dtype:
        return array
    with np.errstate(over="ignore", invalid="ignore"):
        found = array.astype(wanted)
    lost = np.isfinite(array) & ~np.isfinite(found) if wanted.kind in "fc" else found != array
    if lost.any():
        raise DTypeError(
            f"the array holds {array[lost].flat[0]!s}, which {wanted} cannot hold; save other "
            "numbers and pass those."
        )
    return found


def _damaged(path: str, suffix: str, error: Exception) -> Exception:
    """Return an error that calls the file damaged; tconv's and the system's errors stay."""
    if isinstance(error, TConvError | OSError | MemoryError):
        return error
    if isinstance(error, HoldsObjectsError):
        return OSError(
            f"{path!r} holds Python objects, which are not loaded because that can run any code; "
            "save arrays of numbers instead."
        )
    return OSError(f"{path!r} is no undamaged {suffix} file ({_reason(error)}); write it again.")


def _reason(error: Exception) -> str:
    """Return a parser's message as part of a sentence."""
    text = " ".join(str(error).split()) or type(error).__name__
    return text.removesuffix(".").replace("; ", ", ")


# ---- pictures ------------------------------------------------------------------------------------


def is_picture(source: Source) -> bool:
    """Whether a file is read as a picture.

    >>> is_picture(Source("photo.JPG")), is_picture(Source("x.npy"))
    (True, False)
    """
    return _suffix(source) not in (".npy", ".npz")


def _suffix(source: Source) -> str:
    return ".npy" if source.path == DASH else Path(source.path).suffix.lower()


def _read_picture(path: str, declared: "NodeArg", picture: PictureSettings) -> NDArray[Any]:
    """Read a picture as (1, channels, H, W), of the input's type."""
    shape = declared.shape
    if declared.type not in _FLOATS:
        raise DTypeError(
            f"input {describe([declared])} takes no picture, which becomes floating-point numbers; "
            "save what it takes as .npy and pass that."
        )
    if declared.has_rank and len(shape) != 4:
        raise ShapeError(
            f"input {describe([declared])} takes no picture, which has 4 axes (N, channels, H, W); "
            "save what it takes as .npy and pass that."
        )
    wanted = shape[1] if shape and isinstance(shape[1], int) else 3
    if wanted not in (1, 3):
        raise ShapeError(
            f"input {describe([declared])} takes {wanted} channels, a picture has 1 or 3; save "
            "what it takes as .npy and pass that."
        )
    channels: Literal[1, 3] = 1 if wanted == 1 else 3
    _check_size(path, declared, picture.size, channels)
    pixels = read_picture(path, channels=channels)
    if picture.size is not None:
        pixels = _resized(pixels, picture.size)
    _check_fits(pixels.shape[1:], declared)
    mean, std = (_per_channel(name, getattr(picture, name), channels) for name in ("mean", "std"))
    low, high = picture.range
    values = (low + pixels * ((high - low) / 255) - mean) / std
    return values[np.newaxis].astype(_FLOATS[declared.type])  # (1, channels, H, W)


def _check_size(
    path: str, declared: "NodeArg", size: tuple[int, int] | None, channels: int
) -> None:
    """Check the size of a picture against its input and the free memory, before it is read."""
    try:
        found = picture_size(path)
    except ParameterError as error:
        if "Pillow reads" not in str(error):
            raise
        raise OSError(
            f"{path!r} is no picture that Pillow reads; pass a picture, an .npy or an .npz file."
        ) from error
    height, width = size or found
    is_turned = size is None and _needed((width, height), declared) == (width, height)
    if not is_turned:  # a camera's mark may swap height and width
        _check_fits((height, width), declared)
    check_room(f"a picture of {height}x{width} as numbers", 32 * channels * height * width)


def _check_fits(size: tuple[int, ...], declared: "NodeArg") -> None:
    needed = _needed(size, declared)
    if needed != size:
        found, wanted = ("x".join(map(str, each)) for each in (size, needed))
        raise ShapeError(
            f"the picture is {found} (height x width), but input {describe([declared])} takes "
            f"{wanted}; pass --size {wanted}."
        )


def _needed(size: tuple[int, ...], declared: "NodeArg") -> tuple[int, ...]:
    """Height and width that an input takes; where it takes any, the given ones."""
    return tuple(
        wanted if isinstance(wanted, int) else found
        for wanted, found in zip(declared.shape[2:] or (None, None), size, strict=True)
    )


def _per_channel(name: str, numbers: tuple[float, ...], channels: int) -> NDArray[np.float64]:
    if len(numbers) not in (1, channels):
        with at(f"option --{name}"):
            raise ParameterError(
                f"{name}={','.join(map(str, numbers))} has {len(numbers)} numbers, must have 1 or "
                f"one per channel, {channels}; pass {','.join(['0.5'] * channels)} for example."
            )
    return np.array(numbers).reshape(-1, 1, 1)


def _resized(pixels: NDArray[np.uint8], size: tuple[int, int]) -> NDArray[np.uint8]:
    from PIL import Image

    height, width = size
    image = Image.fromarray(np.moveaxis(pixels, 0, -1) if len(pixels) == 3 else pixels[0])
    resized = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    return np.moveaxis(resized.reshape(height, width, len(pixels)), -1, 0)
