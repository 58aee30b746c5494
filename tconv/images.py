"""Images: any array as a picture in [0, 255], and pictures from and to files."""

import math
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

import numpy as np
from numpy.typing import ArrayLike, NDArray

from tconv.errors import DTypeError, ParameterError, ShapeError, TConvError, UnsupportedError
from tconv.geometry.arguments import (
    DATA_FORMATS,
    as_array,
    as_choice,
    as_integer,
    entries_of,
    number_of,
)
from tconv.messages import show
from tconv.system.files import as_path, regular_file, whole_file
from tconv.system.fork_lock import importing
from tconv.system.memory import check_room

__all__ = ["picture_size", "read_picture", "renormalise", "write_picture"]

DataFormat = Literal["channels_first", "channels_last"]


def renormalise(
    x: ArrayLike,
    mode: Literal["zero", "minmax", "positive"] = "zero",
    *,
    within: tuple[float, float] | None = None,
) -> NDArray[np.uint8]:
    """Map the values of one picture to whole numbers in [0, 255].

    - ``"zero"``: ``127.5 + 127.5*x/m``, m the largest absolute value; 0 is always mid-grey (128)
    - ``"minmax"``: ``255*(x - min)/(max - min)``; full contrast, grey has no meaning
    - ``"positive"``: ``255*max(x, 0)/max(x)``; only what is above 0

    The value is computed in float64, rounded to ``floor(value + 0.5)`` and clipped. Minimum and
    maximum are those of the whole picture: a range for each channel would invent colours.

    Parameters
    ----------
    x : array (H, W), (C, H, W) or (H, W, C) of real numbers; one picture, with any number of
        channels. Several pictures need several calls, or they would share one range.
    mode : "zero", "minmax" or "positive"
    within : (min, max) to take in place of x's own, so that several pictures share one range;
        values beyond it are clipped

    Returns
    -------
    array of uint8, of the shape of x. The picture of a constant x, or in mode "positive" of an x
        without a positive value, is flat: a warning says so, and 0/0 in the formula counts as 0.

    Raises
    ------
    ParameterError : mode is none of the three, x holds NaN or infinity, or within is no range.
    ShapeError : x is not one picture, or has no cell.
    DTypeError : x is not of real numbers.

    >>> x = [[37, 121, 94], [178, 500, 342], [201, 499, 308]]
    >>> renormalise(x)
    array([[137, 158, 151],
           [173, 255, 215],
           [179, 255, 206]], dtype=uint8)
    >>> renormalise(x, "minmax")
    array([[  0,  46,  31],
           [ 78, 255, 168],
           [ 90, 254, 149]], dtype=uint8)
    >>> renormalise([[-3.0, 0.0, 3.0]])
    array([[  0, 128, 255]], dtype=uint8)
    >>> renormalise([[-3.0, 0.0, 3.0]], "positive")
    array([[  0,   0, 255]], dtype=uint8)
    >>> renormalise([[-3.0, 0.0, 3.0]], within=(-6, 6))
    array([[ 64, 128, 191]], dtype=uint8)
    """
    mode = as_choice(mode, "mode", ("zero", "minmax", "positive"))
    values = _finite_picture(x)
    if mode == "positive":
        values = np.maximum(values, 0.0)
    low, high = float(values.min()), float(values.max())
    if within is not None:
        low, high = _limits(within)
        low, high = (max(low, 0.0), max(high, 0.0)) if mode == "positive" else (low, high)
    elif low == high:
        what = "has no positive value" if mode == "positive" and low == 0 else "is constant"
        warnings.warn(f"x {what}, so its picture in mode {mode!r} is flat.", stacklevel=2)
    # A power of two brings max|x| into [1/2, 1). That changes no rounding, and then neither
    # max - min nor 127.5*x can overflow, nor do the digits of a tiny x get lost.
    exponent = -math.frexp(max(-low, high))[1]
    values = np.ldexp(values, exponent)
    low, high = math.ldexp(low, exponent), math.ldexp(high, exponent)
    if mode == "zero":
        values = 127.5 + 127.5 * values / (max(-low, high) or 1.0)
    elif mode == "minmax":
        values = 255.0 * (values - low) / (high - low or 1.0)
    else:
        values = 255.0 * values / (high or 1.0)
    return np.clip(np.floor(values + 0.5), 0, 255).astype(np.uint8)


def _limits(within: tuple[float, float]) -> tuple[float, float]:
    entries = entries_of(within) or ()
    low, high = map(number_of, entries) if len(entries) == 2 else (math.nan, math.nan)
    if not (math.isfinite(low) and math.isfinite(high) and low <= high):
        raise ParameterError(
            f"within={show(within)} must be two finite numbers, the smaller first; pass (-1, 1), "
            "say."
        )
    return low, high


def _finite_picture(x: ArrayLike) -> NDArray[np.float64]:
    picture = as_array(x, "x")
    if not np.can_cast(picture.dtype, np.float64, "same_kind") or picture.dtype.kind == "m":
        raise DTypeError(
            f"x.dtype={picture.dtype} must be a type of real numbers; "
            "of complex values show numpy.abs(x), or x.real and x.imag."
        )
    if picture.ndim not in (2, 3) or picture.size == 0:
        raise ShapeError(
            f"x.shape={picture.shape} must be (H, W), (C, H, W) or (H, W, C) without an axis of 0; "
            "pass one picture at a time."
        )
    check_room("the picture of x", 4 * 8 * picture.size)
    with np.errstate(over="ignore"):  # a long double beyond float64 becomes an infinity
        values = picture.astype(np.float64)
    finite = np.isfinite(values)
    if not finite.all():
        at = [int(i) for i in np.argwhere(~finite)[0]]
        raise ParameterError(
            f"x{at}={values[tuple(at)]} must be finite; "
            "replace NaN and infinity first, for example by numpy.nan_to_num(x)."
        )
    return values


def read_picture(
    path: str | os.PathLike[str],
    *,
    channels: Literal[1, 3] = 3,
    data_format: DataFormat = "channels_first",
) -> NDArray[np.uint8]:
    """Read a picture file as an array of whole numbers in [0, 255].

    The result is 8-bit RGB or grey: palettes are looked up, 16-bit grey is rounded to 8 bits,
    transparent parts are laid on white, and a photo with an EXIF orientation is turned upright. A
    file with several pictures gives the first.

    Parameters
    ----------
    path : path of a file in any format that Pillow reads
    channels : 3 for red, green and blue; 1 for grey, the ITU-R 601 luma of a colour picture
    data_format : "channels_first" or "channels_last"

    Returns
    -------
    array of uint8, (channels, H, W) or, for "channels_last", (H, W, channels)

    Raises
    ------
    ParameterError : channels or data_format is none of its values, or the file is no picture.
    UnsupportedError : the file holds 32-bit integers or floats, which have no range of their own.
    MemoryLimitError : the pixels take more memory than there is; this is found before any is read.
    OSError : the file cannot be opened, or is damaged.
    ImportError : Pillow is not installed.

    >>> import tempfile
    >>> orange = np.array([[[255]], [[128]], [[0]]], np.uint8)
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_picture(f"{folder}/orange.png", orange)
    ...     read_picture(f"{folder}/orange.png").tolist()
    [[[255]], [[128]], [[0]]]
    """
    colours = as_integer(channels, "channels")
    if colours not in (1, 3):
        raise ParameterError(
            f"channels={colours} must be 1 (grey) or 3 (red, green, blue); pass 1 or 3."
        )
    last = as_choice(data_format, "data_format", DATA_FORMATS) == "channels_last"
    with _opened(path) as file:
        _check_room(file, colours)
        pixels = _read_pixels(file, os.fspath(path), colours)
    pixels = pixels.reshape(*pixels.shape[:2], colours)  # grey: (H, W) -> (H, W, 1)
    if last:
        return pixels
    return np.ascontiguousarray(np.moveaxis(pixels, -1, 0))


def picture_size(path: str | os.PathLike[str]) -> tuple[int, int]:
    """Height and width from the header of a picture file; no pixel is read.

    The EXIF orientation, which may turn the picture, is ignored.

    Raises
    ------
    ParameterError, OSError, ImportError : as `read_picture`

    >>> import tempfile
    >>> with tempfile.TemporaryDirectory() as folder:
    ...     write_picture(f"{folder}/grey.png", np.zeros((2, 3), np.uint8))
    ...     picture_size(f"{folder}/grey.png")
    (2, 3)
    """
    with _opened(path) as file:
        return file.height, file.width


@contextmanager
def _opened(path: str | os.PathLike[str]) -> Iterator[Any]:
    """Open a picture, and translate errors of Pillow meanwhile."""
    Image, _ = _pillow()
    name = as_path(path)
    try:
        with regular_file(path) as content, Image.open(content) as file:
            yield file
    except Image.UnidentifiedImageError:
        raise ParameterError(
            f"path={name!r} must be a picture in a format that Pillow reads; pass another file."
        ) from None
    except Image.DecompressionBombError:
        raise ParameterError(
            f"path={name!r} must have at most {2 * (Image.MAX_IMAGE_PIXELS or 0):,} pixels; make "
            "the picture smaller."
        ) from None
    except (TConvError, MemoryError):
        raise
    except OSError as error:
        if error.filename is not None or str(error).startswith("path="):
            raise
        raise _damaged(name, error) from error
    except Exception as error:  # Pillow's parsers raise exceptions of any kind
        raise _damaged(name, error) from error


def _damaged(name: str, error: Exception) -> OSError:
    reason = " ".join(str(error).split()).removesuffix(".").replace("; ", ", ")
    return OSError(
        f"path={name!r} is damaged: {reason or type(error).__name__}; copy or download it again."
    )


def _check_room(file: Any, channels: int) -> None:
    """Compare the bytes of the pixels with the free memory, before any is read."""
    depth = 4 if file.mode in ("I", "F") else 2 if file.mode.startswith("I;16") else 1
    needed = 2 * depth * len(file.getbands())  # as stored, and upright
    needed += 12 if file.has_transparency_data else 0  # with a white background, and blended
    needed += 3 * channels
    check_room(f"a picture of {file.height}x{file.width}", needed * file.height * file.width)


def _read_pixels(file: Any, name: str, channels: int) -> NDArray[np.uint8]:
    """Read a file as (H, W) or (H, W, 3), upright, on white, in 8 bits."""
    Image, ImageOps = _pillow()
    image = ImageOps.exif_transpose(file)
    # Pillow reads 16-bit grey as "I;16", and as "I" from a PGM file.
    if image.mode.startswith("I;16") or (image.mode == "I" and file.format == "PPM"):
        image = Image.fromarray(np.floor(np.asarray(image) / 257 + 0.5).astype(np.uint8))
    if image.mode in ("I", "F"):
        raise UnsupportedError(
            f"path={name!r} holds 32-bit values, whose range is not known; read it with "
            "numpy.asarray(PIL.Image.open(path)) and call renormalise."
        )
    if image.has_transparency_data:
        white = Image.new("RGBA", image.size, "white")
        image = Image.alpha_composite(white, image.convert("RGBA"))
    return np.array(image.convert("RGB" if channels == 3 else "L"))


def write_picture(
    path: str | os.PathLike[str],
    array: ArrayLike,
    *,
    data_format: DataFormat = "channels_first",
) -> None:
    """Write an array of whole numbers in [0, 255] as a picture file, complete or not at all.

    The suffix of path names the format; PNG keeps every value, JPEG does not. The file appears
    under its name only when it is complete, so a failure leaves an older file as it was.

    Parameters
    ----------
    path : path of the file, with the suffix of a format that Pillow writes
    array : array of uint8, (H, W), (1, H, W) or (3, H, W); for "channels_last" (H, W), (H, W, 1)
        or (H, W, 3). `renormalise` makes uint8 of other values.
    data_format : "channels_first" or "channels_last"

    Raises
    ------
    ParameterError : data_format is none of its values, the suffix names no format, or path is not
        that of a file in an existing folder.
    ShapeError : array is not one grey or RGB picture.
    DTypeError : array is not uint8.
    OSError : the file cannot be written.
    ImportError : Pillow is not installed.

    >>> write_picture("rgb.png", np.zeros((4, 6, 3), np.uint8))
    Traceback (most recent call last):
    ...
    tconv.errors.ShapeError: array.shape=(4, 6, 3) must be (H, W), (1, H, W) or (3, H, W), without \
an axis of 0, for data_format="channels_first"; pass data_format="channels_last".
    """
    Image, _ = _pillow()
    data_format = as_choice(data_format, "data_format", DATA_FORMATS)
    path = as_path(path)
    image = Image.fromarray(_pixels(array, data_format))
    kind = Image.registered_extensions().get(Path(path).suffix.lower())
    if kind not in Image.SAVE:
        raise ParameterError(
            f"path={show(path)} must end in the suffix of a picture format that Pillow "
            'writes, for example ".png".'
        )
    with whole_file(path) as unfinished, unfinished.open("xb") as file:
        image.save(file, format=kind)


def _pixels(array: ArrayLike, data_format: DataFormat) -> NDArray[np.uint8]:
    """Return the picture as Pillow takes it: (H, W) or (H, W, 3)."""
    pixels = as_array(array, "array")
    if pixels.dtype != np.uint8:
        raise DTypeError(
            f"array.dtype={pixels.dtype} must be uint8; pass renormalise(array) or, for values "
            "already in [0, 255], numpy.clip(numpy.rint(array), 0, 255).astype(numpy.uint8)."
        )
    first = data_format == "channels_first"
    channels, elsewhere = (0, -1) if first else (-1, 0)
    if pixels.size == 0 or not (
        pixels.ndim == 2 or (pixels.ndim == 3 and pixels.shape[channels] in (1, 3))
    ):
        layouts = "(1, H, W) or (3, H, W)" if first else "(H, W, 1) or (H, W, 3)"
        turned = pixels.ndim == 3 and pixels.shape[elsewhere] in (1, 3)
        fix = f'data_format="channels_{"last" if first else "first"}"' if turned else "one picture"
        raise ShapeError(
            f"array.shape={pixels.shape} must be (H, W), {layouts}, without an axis of 0, "
            f'for data_format="{data_format}"; pass {fix}.'
        )
    check_room("the picture", 8 * pixels.size)
    if pixels.ndim == 3:
        pixels = np.moveaxis(pixels, channels, -1)
        pixels = pixels[..., 0] if pixels.shape[-1] == 1 else pixels  # grey: (H, W, 1) -> (H, W)
    return np.ascontiguousarray(pixels)


def _pillow() -> tuple[Any, Any]:
    try:
        with importing:
            from PIL import Image, ImageOps
    except ImportError:
        raise ImportError(
            "Reading and writing pictures needs Pillow: pip install pillow."
        ) from None
    return Image, ImageOps
