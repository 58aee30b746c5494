"""Models whose first input is an image, read from files."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tconv.deconvnet.network.runtime import session_of
from tconv.errors import ShapeError, TConvError, UnsupportedError
from tconv.system.files import regular_file

if TYPE_CHECKING:
    from onnx import ModelProto

__all__ = ["ImageModel", "blaming_the_model"]


@dataclass(frozen=True, eq=False)
class ImageModel:
    """A model as it is stored, whose first input is an image.

    ``spatial`` are the declared sizes of the image, None where any size fits.
    """

    name: str
    sha256: str
    proto: "ModelProto"
    input: str
    channels: int
    spatial: tuple[int | None, ...]

    @classmethod
    def of(cls, model: Any) -> "ImageModel":
        """Read a model.

        Parameters
        ----------
        model : path, bytes, onnx.ModelProto or ImageModel

        Raises
        ------
        ModelError : the model is damaged
        ShapeError : its first input is no image
        UnsupportedError : its weights are in files that only ONNX Runtime finds
        OSError : the file cannot be read
        ImportError : the ONNX tools are not installed
        """
        if isinstance(model, ImageModel):
            return model
        from tconv.onnx.model.model import as_source, read_model
        from tconv.onnx.model.nodes import NotPartitionable

        source = as_source(model)
        try:
            proto = read_model(source)
        except NotPartitionable as why:
            raise UnsupportedError(
                f"the model cannot be looked into: {why}; export it as an ordinary ONNX file."
            ) from None
        data = source
        if isinstance(data, str):
            with regular_file(data) as file:
                data = file.read()
        name = Path(source).stem if isinstance(source, str) else proto.graph.name or "model"
        return cls(name, sha256(data).hexdigest(), proto, *_image_of(proto))

    def sized(self, size: Sequence[int] | None) -> tuple[int, ...]:
        """Return the full shape of an image of a spatial size, by default of the declared one.

        Raises
        ------
        ShapeError : the model takes another size, or leaves it open and none is given
        """
        fixed = "x".join(str(each or "?") for each in self.spatial)
        if size is None:
            if None in self.spatial:
                example = tuple(each or 224 for each in self.spatial)
                raise ShapeError(
                    f"the network takes images of any size ({fixed}); pass size={example}, say."
                )
            size = tuple(each or 0 for each in self.spatial)
        fits = len(size) == len(self.spatial) and all(
            declared in (None, each) for declared, each in zip(self.spatial, size, strict=True)
        )
        if not fits:
            given = (*size, *[224] * len(self.spatial))
            right = tuple(a or int(b) for a, b in zip(self.spatial, given, strict=False))
            raise ShapeError(
                f"the image is {'x'.join(map(str, size))}, but the network takes {fixed}; pass "
                f"size={right}, and pictures are resized."
            )
        return (1, self.channels, *map(int, size))


@contextmanager
def blaming_the_model(model: ImageModel) -> Iterator[None]:
    """Turn an unforeseen error into a ModelError, if ONNX Runtime refuses the model.

    Raises
    ------
    ModelError : ONNX Runtime refuses the model; else the error itself
    """
    try:
        yield
    except (TConvError, OSError, MemoryError, ImportError):
        raise
    except Exception:
        session_of(model.proto, 1)
        raise


def _image_of(proto: "ModelProto") -> tuple[str, int, tuple[int | None, ...]]:
    """Return name, channels and declared size of the first input, which must be an image."""
    from tconv.onnx.model.model import node_arg

    stored = {tensor.name for tensor in proto.graph.initializer}
    first = next((value for value in proto.graph.input if value.name not in stored), None)
    if first is None:
        raise ShapeError("the model has no input, must have an image first; pass another model.")
    found = node_arg(first)
    sizes = ", ".join(str(each or "?") for each in found.shape) if found.has_rank else "any shape"
    what = f"the first input {found.name!r} is {found.type} ({sizes})"
    batch, channels = (*found.shape, None, None)[:2]
    if (
        len(found.shape) not in (3, 4)
        or channels not in (1, 3)
        or found.type not in ("tensor(float)", "tensor(double)")
    ):
        raise ShapeError(
            f"{what}, must be an image: float (N, C, H, W), or (N, C, L), with 1 or 3 channels C; "
            "pass a network that takes one."
        )
    if isinstance(batch, int) and batch != 1:
        raise ShapeError(f"{what}, must take one image at a time; export it for a batch of 1.")
    spatial = tuple(each if isinstance(each, int) else None for each in found.shape[2:])
    return found.name, int(channels or 0), spatial
