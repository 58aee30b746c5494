"""Sound files: samples of 16 bits, as many channels as the array has."""

import warnings
import wave
from collections.abc import Sequence
from math import prod

import numpy as np
from numpy.typing import NDArray

from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.system.files import whole_file

__all__ = ["SAMPLE_RATE", "check_sound", "write_sound"]

SAMPLE_RATE = 22050  # Hz, that of most small voices; used where none is given
_LARGEST = 2**15 - 1  # of a sample: that of 1
_MOST_CHANNELS = 16  # more are features: no format of loudspeakers has as many
_MOST_BYTES = 2**32 - 64  # of samples, whose number has 32 bits, less the header


def check_sound(name: str, shape: Sequence[int | str | None], axis: int = -1) -> None:
    """Refuse a shape that is not one sound along an axis, as far as sizes are known.

    >>> check_sound("y", ("N", 2, None))
    >>> check_sound("y", (1, 1, 300, 1), axis=2)
    >>> check_sound("y", (1, 192, 300))
    Traceback (most recent call last):
    ...
    tconv.errors.ShapeError: output 'y' has shape (1, 192, 300), a sound (1, channels, n) or (n,)
    with at most 16 channels; write an .npy or .npz.
    """
    others = [size for n, size in enumerate(shape) if n != axis % max(len(shape), 1)]
    known = [size for size in others if isinstance(size, int)]
    is_single = not others or others[0] == 1 or not isinstance(others[0], int)
    wide = [size for size in known if size != 1]
    if not shape or not is_single or len(wide) > 1 or any(n > _MOST_CHANNELS for n in wide):
        sizes = ", ".join(str(size or "?") for size in shape)
        raise ShapeError(
            f"output {name!r} has shape ({sizes}), a sound (1, channels, n) or (n,) with at most "
            f"{_MOST_CHANNELS} channels; write an .npy or .npz."
        )


def write_sound(
    path: str, name: str, array: NDArray[np.floating], rate: int, axis: int = -1
) -> None:
    """Write samples from -1 to 1 along an axis, complete or not at all.

    Samples beyond are clipped, and a warning says how many.

    Raises
    ------
    ShapeError, DTypeError : the array is no sound
    ParameterError : a sample is not finite, or there are more than a WAV file holds
    """
    check_sound(name, array.shape, axis)
    if array.dtype.kind != "f":
        raise DTypeError(
            f"output {name!r} is {array.dtype}, a sound has floating-point samples from -1 to 1; "
            "write an .npy or .npz."
        )
    *others, count = np.moveaxis(array, axis, -1).shape
    channels = prod(others)
    if 2 * channels * max(count, rate) > _MOST_BYTES:
        raise ParameterError(
            f"output {name!r} has {channels} x {count} samples at {rate} Hz, more than a WAV file "
            "holds; write an .npy or .npz."
        )
    sound = np.moveaxis(array, axis, -1).reshape(channels, count)
    sound = sound.astype(np.result_type(sound, np.float32))
    if not np.isfinite(sound).all():
        channel, n = (int(each[0]) for each in np.nonzero(~np.isfinite(sound)))
        raise ParameterError(
            f"output {name!r} is {sound[channel, n]} at sample {n}, must be finite; write an .npy "
            "or .npz."
        )
    beyond = int((np.abs(sound) > 1).sum())
    if beyond:
        warnings.warn(
            f"{beyond:,} of {sound.size:,} samples are beyond -1 and 1 and were clipped; the "
            f"largest is {float(np.abs(sound).max()):.4g}.",
            stacklevel=2,
        )
    samples = np.rint(np.clip(sound, -1, 1) * _LARGEST).astype("<i2")
    with whole_file(path) as unfinished, unfinished.open("xb") as file, wave.open(file, "wb") as to:
        to.setnchannels(channels)
        to.setsampwidth(2)
        to.setframerate(rate)
        to.writeframes(samples.T.tobytes())
