"""Input images: pictures and arrays prepared for a network, with their pixels."""

import os
from collections.abc import Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.geometry.arguments import as_array, entries_of, number_of
from tconv.images import picture_size, read_picture
from tconv.messages import show
from tconv.system.files import as_path
from tconv.system.memory import check_room

__all__ = ["Images", "InputImage", "Preparation", "check_picture_sizes", "picture_files"]

_MOST_CELLS = 4_000_000  # of a picture that nobody gave a size for
_USUAL_SIDE = 640  # pixels of the longer side, as detectors take them; a multiple of 32
_SUFFIXES = {".bmp", ".gif", ".jpeg", ".jpg", ".png", ".ppm", ".tif", ".tiff", ".webp"}


@dataclass(frozen=True)
class InputImage:
    """An image: its name, its pixels uint8 (C, *size), and the network's input (1, C, *size)."""

    name: str
    pixels: NDArray[np.uint8]
    values: NDArray[Any]


@dataclass(frozen=True)
class Preparation:
    """Preparation of pixels: 0 to 255 become low to high, less the mean, divided by the std.

    >>> prepare = Preparation((0.0, 1.0), (0.5,), (0.5,))
    >>> prepare(np.array([[[0, 255]]], np.uint8))
    array([[[[-1.,  1.]]]])
    >>> prepare.undo(np.array([[[-1.0, 1.0]]]))
    array([[[  0, 255]]], dtype=uint8)
    """

    limits: tuple[float, float] = (0.0, 1.0)
    mean: tuple[float, ...] = (0.0,)
    std: tuple[float, ...] = (1.0,)

    @classmethod
    def of(cls, limits: Any, mean: Any, std: Any, channels: int) -> "Preparation":
        """Check the arguments of `see`."""
        low, high = _numbers(limits, "value_range", (2,))
        if low == high:
            raise ParameterError(
                f"value_range={show(limits)} must be two different numbers; pass (0, 255), say."
            )
        many = _numbers(mean, "mean", (1, channels)), _numbers(std, "std", (1, channels))
        if 0 in many[1]:
            raise ParameterError(
                f"std={show(std)} must not hold 0, it divides; pass 1 to leave it out."
            )
        return cls((low, high), *many)

    def __call__(self, pixels: NDArray[np.uint8]) -> NDArray[np.float64]:
        """Return the numbers (1, C, *size) of pixels (C, *size)."""
        low, high = self.limits
        mean, std = self._per_channel(pixels)
        found: NDArray[np.float64] = (low + pixels * ((high - low) / 255) - mean) / std
        return found[np.newaxis]

    def undo(self, values: NDArray[Any]) -> NDArray[np.uint8]:
        """Return the pixels of numbers (C, *size), clipped to 0 to 255."""
        low, high = self.limits
        mean, std = self._per_channel(values)
        pixels = (values * std + mean - low) * (255 / (high - low))
        found: NDArray[np.uint8] = np.clip(np.floor(pixels + 0.5), 0, 255).astype(np.uint8)
        return found

    def _per_channel(self, array: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        axes = (-1, *[1] * (array.ndim - 1))
        return np.array(self.mean).reshape(axes), np.array(self.std).reshape(axes)


def picture_files(path: str | os.PathLike[str]) -> list[Path]:
    """Return the picture files of a folder, sorted by name; of a file, the file itself.

    Raises
    ------
    ParameterError : the folder holds none
    """
    folder = Path(as_path(path, "images"))
    if not folder.is_dir():
        return [folder]
    found = sorted(each for each in folder.iterdir() if each.suffix.lower() in _SUFFIXES)
    if not found:
        raise ParameterError(
            f"images={str(folder)!r} must hold a picture ({', '.join(sorted(_SUFFIXES))}), holds "
            "none; name another folder."
        )
    return found


class Images(Sequence[InputImage]):
    """The images of `see`, each of them read on demand.

    Pictures are resized to ``size``; None leaves their size.
    """

    def __init__(
        self,
        images: Any,
        channels: int,
        rank: int,
        size: tuple[int, ...] | None,
        prepare: Preparation,
    ) -> None:
        self._images = _listed(images)
        if size is None and rank == 2:
            check_picture_sizes(self._images)
        self._channels, self._rank, self._size, self._prepare = channels, rank, size, prepare
        self._last: tuple[int, InputImage] | None = None

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, n: Any) -> Any:
        if self._last is None or self._last[0] != n:
            photo = _photo(
                self._images[n],
                f"image {n}",
                self._channels,
                self._rank,
                self._size,
                self._prepare,
            )
            self._last = n, photo
        return self._last[1]

    def only(self, n: int) -> "Images":
        """Return one of these images."""
        return Images([self._images[n]], self._channels, self._rank, self._size, self._prepare)


def _listed(images: Any) -> list[Any]:
    if isinstance(images, str | os.PathLike):
        return list(picture_files(images))
    if isinstance(images, Sequence):
        if not images:
            raise ParameterError("images=[] must hold an image; pass a path or an array.")
        if isinstance(images[0], int | float):
            raise ParameterError(
                f"images[0]={show(images[0])} must be a path or an array; pass several of these, "
                "or one."
            )
        return [
            inner
            for each in images
            for inner in (picture_files(each) if isinstance(each, str | os.PathLike) else [each])
        ]
    return [images]


def check_picture_sizes(images: Sequence[Any]) -> None:
    """Check before anything is read or computed that no picture is larger than a network needs.

    Raises
    ------
    ParameterError : a picture has more than 4 megapixels
    """
    for n, image in enumerate(images):
        if isinstance(image, str | os.PathLike):
            name, sizes = Path(image).name, picture_size(image)
        elif isinstance(image, np.ndarray) and image.dtype == np.uint8 and image.ndim in (2, 3):
            colours_first = image.ndim == 3 and image.shape[0] in (1, 3)
            name, sizes = f"image {n}", image.shape[1:] if colours_first else image.shape[:2]
        else:
            continue
        high, wide = map(int, sizes)
        if high * wide > _MOST_CELLS:
            rate = _USUAL_SIDE / max(high, wide)
            size = tuple(max(32, round(each * rate / 32) * 32) for each in (high, wide))
            raise ParameterError(
                f"{name} has {high}x{wide} pixels, must have at most {_MOST_CELLS / 1e6:g} million "
                f"unless a size is given; pass size={size} to make it smaller, or "
                f"size={(high, wide)} to keep it."
            )


def _photo(
    image: Any,
    name: str,
    channels: int,
    rank: int,
    size: tuple[int, ...] | None,
    prepare: Preparation,
) -> InputImage:
    if isinstance(image, str | os.PathLike):
        if rank != 2:
            raise ShapeError(
                f"{os.fspath(image)!r} is a picture, but the network takes (1, {channels}, L); "
                "pass an array."
            )
        name = Path(image).name
        cells = prod(size or picture_size(image))
        check_room(f"{name} as numbers", 32 * channels * cells)
        image = read_picture(image, channels=3 if channels == 3 else 1)
    array = as_array(image, name)
    given = array.shape
    array = array[0] if array.ndim == rank + 2 and len(array) == 1 else array
    array = array[np.newaxis] if array.ndim == rank and channels == 1 else array
    if array.ndim == rank + 1 and len(array) != channels and array.shape[-1] == channels:
        array = np.moveaxis(array, -1, 0)
    if array.ndim != rank + 1 or len(array) != channels or array.size == 0:
        raise ShapeError(
            f"{name} has shape {given}, must be ({channels}, "
            f"{'H, W' if rank == 2 else 'L'}) for this network; pass one image of {channels} "
            "channels."
        )
    check_room(name, 16 * array.size)
    array = np.ascontiguousarray(array)
    if array.dtype == np.uint8:
        array = array if size is None else _resized(array, size)
        return InputImage(name, array, prepare(array))
    if array.dtype.kind != "f":
        raise DTypeError(
            f"{name} has dtype {array.dtype}, must be uint8 (pixels) or floating (what the network "
            "gets); convert it."
        )
    if size is not None and array.shape[1:] != size:
        raise ShapeError(
            f"{name} has size {array.shape[1:]}, must be {size}: numbers are not resized; pass "
            "pixels (uint8), or numbers of that size."
        )
    if not np.isfinite(array).all():
        raise ParameterError(f"{name} holds NaN or infinity, must be finite; replace them first.")
    return InputImage(name, prepare.undo(array), array[np.newaxis])


def _resized(pixels: NDArray[np.uint8], size: tuple[int, ...]) -> NDArray[np.uint8]:
    if pixels.shape[1:] == tuple(size):
        return pixels
    if len(size) != 2:
        raise ShapeError(
            f"size={size} must be that of the signal, {pixels.shape[1:]}: only pictures are "
            "resized; pass a signal of that size."
        )
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("Resizing pictures needs Pillow: pip install pillow.") from None
    height, width = size
    planes = [Image.fromarray(plane) for plane in pixels]
    filtered = [each.resize((width, height), Image.Resampling.BICUBIC) for each in planes]
    return np.stack([np.asarray(each) for each in filtered])


def _numbers(value: Any, name: str, counts: tuple[int, ...]) -> tuple[float, ...]:
    entries = entries_of(value)
    many = [value] if entries is None else entries
    found = tuple(map(number_of, many)) if len(many) in counts else ()
    if len(found) not in counts or not np.isfinite(found).all():
        numbers = " or ".join(map(str, dict.fromkeys(counts)))
        raise ParameterError(
            f"{name}={show(value)} must be {numbers} finite numbers; pass so many."
        )
    return found
