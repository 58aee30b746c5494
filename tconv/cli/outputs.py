"""Output files of the verbs: checks before the computation, and a model's results."""

import os
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
from numpy.typing import NDArray

from tconv.cli.console import at
from tconv.cli.feeds import describe
from tconv.cli.options import UsageError, closest
from tconv.cli.sound import SAMPLE_RATE, check_sound, write_sound
from tconv.cli.standard_streams import DASH, write_npy
from tconv.errors import ShapeError, UnsupportedError
from tconv.images import renormalise, write_picture
from tconv.nn.state_files import write_state
from tconv.system.files import check_writable, whole_file

if TYPE_CHECKING:
    from tconv.onnx.model.model import NodeArg

__all__ = ["Output", "check_output"]


@dataclass(frozen=True)
class Output:
    """Output file of a model: all results in an .npz, or one as .npy, a sound or a picture.

    The path ``-`` is standard output, which takes an .npy.

    Raises
    ------
    OSError : the file may not be written: it is an input, exists, or its folder does not
    UsageError : an option does not go with this kind of file
    """

    path: str
    force: bool = False
    name: str | None = None
    norm: Literal["zero", "minmax", "positive"] | None = None
    protected: tuple[str, ...] = ()
    """Files that must stay as they are: the model and the inputs."""
    sample_rate: int | None = None
    """Of a sound, in Hz; None for the usual one."""

    def __post_init__(self) -> None:
        if self.path != DASH:
            with at(f"option -o/--output, file {self.path!r}"):
                self._check_path()
        if self.norm and not self._is_picture:
            raise UsageError(
                "--norm is for pictures only", "option --norm", "leave it out, or write a .png"
            )
        if self.name is not None and self._suffix == ".npz":
            raise UsageError(
                "--output-name does not go with an .npz, which takes all outputs",
                "option --output-name",
                "leave it out, or write an .npy",
            )

    @property
    def _suffix(self) -> str:
        return ".npy" if self.path == DASH else Path(self.path).suffix.lower()

    @property
    def is_sound(self) -> bool:
        """Whether it is a WAV file."""
        return self._suffix == ".wav"

    @property
    def _is_picture(self) -> bool:
        return self._suffix not in (".npy", ".npz", ".wav")

    def describe(self) -> str:
        """Name the file, and the sample rate of a sound.

        >>> Output("-").describe()
        'standard output'
        """
        if self.path == DASH:
            return "standard output"
        if not self.is_sound:
            return self.path
        if self.sample_rate is None:
            return f"{self.path} at {SAMPLE_RATE:,} Hz (--sample-rate sets another)"
        return f"{self.path} at {self.sample_rate:,} Hz"

    def _check_path(self) -> None:
        """Check before the model runs that the file can be written."""
        check_output(self.path, self.force, self.protected, "the model or an input")
        if self._is_picture and not _writes_pictures(self._suffix):
            raise OSError(
                f"{self._suffix or 'a name without a suffix'} is no format that tconv writes; "
                "end the name in .npz, .npy, .wav, .png or another picture format."
            )

    def choose(
        self, declared: Sequence["NodeArg"], time_axes: Mapping[str, int] | None = None
    ) -> str | None:
        """Return the name of the output to write, None for all of them.

        `time_axes` are the axes of outputs along time, the last unless that is told.

        Raises
        ------
        UsageError : the model has several outputs, or none of that name
        """
        if self._suffix == ".npz":
            return None
        by_name = {each.name: each for each in declared}
        name = next(iter(by_name)) if self.name is None and len(by_name) == 1 else self.name
        if name in by_name:
            if by_name[name].has_rank:
                with at(f"option -o/--output, file {self.path!r}"):
                    self._check_shape(name, by_name[name].shape, time_axes)
            return name
        listed, first = describe(declared), next(iter(by_name), "NAME")
        if name is None:
            raise UsageError(
                f"the model has several outputs, {listed}, and {self.path!r} takes one",
                "option -o/--output",
                f"choose one by --output-name, say --output-name {first}, or write an .npz",
            )
        close = closest(name, list(by_name))
        raise UsageError(
            f"there is no output {name!r}, the model gives {listed}",
            "option --output-name",
            f"did you mean {close!r}?" if close else "use one of these names",
        )

    def _check_shape(
        self,
        name: str,
        shape: Sequence[int | str | None],
        time_axes: Mapping[str, int] | None,
    ) -> None:
        """Refuse a shape that this kind of file cannot take, as far as sizes are known."""
        if self._is_picture:
            _check_picture(name, shape)
        elif self.is_sound:
            check_sound(name, shape, (time_axes or {}).get(name, -1))

    def write(
        self,
        arrays: Mapping[str, NDArray[Any]],
        chosen: str | None,
        time_axes: Mapping[str, int] | None = None,
    ) -> None:
        """Write the arrays, complete or not at all; `time_axes` as for `choose`."""
        with at(f"option -o/--output, file {self.path!r}"):
            if chosen is None:
                write_state(self.path, {name: _storable(name, a) for name, a in arrays.items()})
            elif self._is_picture:
                picture = arrays[chosen]
                _check_picture(chosen, picture.shape)
                picture = picture[0] if picture.ndim == 4 else picture  # (1, C, H, W) -> (C, H, W)
                write_picture(self.path, renormalise(picture, self.norm or "zero"))
            elif self.is_sound:
                axis = (time_axes or {}).get(chosen, -1)
                rate = self.sample_rate or SAMPLE_RATE
                write_sound(self.path, chosen, arrays[chosen], rate, axis)
            elif self.path == DASH:
                write_npy(_storable(chosen, arrays[chosen]))
            else:
                array = _storable(chosen, arrays[chosen])
                with whole_file(self.path) as unfinished, unfinished.open("xb") as file:
                    np.lib.format.write_array(file, array, allow_pickle=False)


def check_output(path: str, force: bool, protected: Iterable[str | Path], what: str) -> None:
    """Check before the computation that a file can be written.

    Parameters
    ----------
    path, force : the path, and whether it may be overwritten
    protected, what : files that must stay as they are, and a word for them

    Raises
    ------
    OSError, ParameterError : the file may not or cannot be written
    """
    place = Path(os.path.realpath(path))
    for other in protected:
        if os.path.exists(other) and (
            place == Path(os.path.realpath(other)) or (place.exists() and place.samefile(other))
        ):
            raise OSError(f"the output would overwrite {what}; choose another.")
    if place.is_dir():
        raise OSError("there is a folder of this name; choose another.")
    if not place.parent.is_dir():
        raise OSError(f"there is no folder {str(place.parent)!r}; create it first.")
    if not os.access(place.parent, os.W_OK):
        raise OSError(f"files cannot be written in {str(place.parent)!r}; choose another folder.")
    check_writable(path)  # -f does not change permissions
    if place.exists() and not force:
        raise OSError("the file exists already; pass -f to overwrite it, or choose another.")


def _check_picture(name: str, shape: Sequence[int | str | None]) -> None:
    """Refuse a shape that is not one picture, as far as sizes are known."""
    *leading, channels = (1, 1, *shape)[-4:-2]
    fits = 2 <= len(shape) <= 4 and not any(isinstance(n, int) and n != 1 for n in leading)
    if not fits or (isinstance(channels, int) and channels not in (1, 3)):
        sizes = ", ".join(str(size or "?") for size in shape)
        raise ShapeError(
            f"output {name!r} has shape ({sizes}), a picture (1, C, H, W), (C, H, W) or (H, W) "
            "with 1 or 3 channels C; write an .npy or .npz."
        )


def _storable(name: str, value: Any) -> NDArray[Any]:
    """Convert to a type that NumPy's format holds: no bfloat16, and no strings as objects."""
    if not isinstance(value, np.ndarray):
        raise UnsupportedError(
            f"output {name!r} is no array but a {type(value).__name__}; choose another by "
            "--output-name."
        )
    if value.dtype == object:
        return value.astype(str)
    return value.astype(np.float32) if value.dtype.name == "bfloat16" else value


def _writes_pictures(suffix: str) -> bool:
    try:
        from PIL import Image
    except ImportError:
        raise ImportError("Writing pictures needs Pillow: pip install pillow.") from None
    return Image.registered_extensions().get(suffix) in Image.SAVE
