"""Volumes: one contraction of an array on disk, of which each chunk is computed on its own."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.arrays.dtypes import TYPES, as_dtype, dtype_name
from tconv.arrays.operands import as_operands, library_of
from tconv.dask.chunk_grid import ChunkGrid
from tconv.dask.source import Source
from tconv.errors import UnsupportedError
from tconv.geometry.geometry import OPERANDS, Geometry, Letter
from tconv.geometry.parts import Box, sizes, slices
from tconv.ops.dispatch import Call, check_bias, check_rank, solve_for

__all__ = ["Contraction", "Move", "Volume", "keeps_order"]

Read = Callable[[Box], NDArray[Any]]
"""Returns the cells of a box."""


class Move(NamedTuple):
    """Where the cells of a result stand in the source, along one axis of the result.

    Cell n stands at ``scale*n + offset``, in cells of the source.
    """

    axis: int
    scale: float
    offset: float


@dataclass(frozen=True)
class Contraction:
    """What is computed of a source: sizes, types, and the call that each chunk makes.

    Attributes
    ----------
    geometry, want : of the whole, with an axis of channels
    dtype : of the operands, which the source is converted to
    lacks_channels : whether the source has no axis of channels, and so one channel
    drops_channels : whether the result has no axis of channels either
    """

    source: Source
    geometry: Geometry
    want: Letter
    dtype: str
    call: Call
    lacks_channels: bool = False
    drops_channels: bool = False

    @classmethod
    def of(
        cls, source: Source, weight: Any, bias: Any, adjoint: bool, settings: Mapping[str, Any]
    ) -> tuple["Contraction", NDArray[Any], NDArray[Any] | None]:
        """Check a source against a weight and the keywords of `conv_transpose`, or of `conv`.

        Returns
        -------
        the contraction, and weight and bias in its type; the adjoint's weight is the conjugate

        Raises
        ------
        ParameterError, ShapeError, DTypeError : as the function that computes the whole
        UnsupportedError : a padding mode, for which each cell may need those of the other end
        """
        keywords = dict(settings)
        if keywords.pop("padding_mode", "zeros") != "zeros":
            raise UnsupportedError(
                "volumes have padding_mode='zeros' only, of which no chunk needs the other end; "
                "pad the source first."
            )
        want: Letter = "x" if adjoint else "y"
        letter = "y" if adjoint else "x"
        call = Call(
            "conv" if adjoint else "conv_transpose",
            method=keywords.pop("method", "direct"),
            threads=keywords.pop("threads", None) or 1,
        )
        weight, bias = (v.compute() if library_of(v) == "dask" else v for v in (weight, bias))
        like = np.empty(0, np.dtype(source.dtype))
        _, (like, weight, bias) = as_operands(
            {letter: like, "weight": weight, "bias": bias}, keywords.pop("dtype", None)
        )
        dtype = dtype_name(like.dtype)
        shape, lacks = source.shape, len(source.shape) == weight.ndim - 2
        if lacks:
            last = keywords.get("data_format") == "channels_last"
            shape = (*shape, 1) if last else (1, *shape)
        make = Geometry.of_conv if adjoint else Geometry.of
        geometry = make(shape, weight.shape, **keywords)
        if adjoint and dtype.startswith("complex"):
            weight = weight.conj()
        check_bias(want, geometry, bias)
        check_rank(geometry)
        channels = geometry.in_channels if adjoint else geometry.out_channels
        found = cls(source, geometry, want, dtype, call, lacks, lacks and channels == 1)
        return found, weight, bias

    @property
    def result_dtype(self) -> np.dtype[Any]:
        """Type of the result."""
        found: np.dtype[Any] = as_dtype(np, TYPES[self.dtype].result)
        return found

    @property
    def channel_axis(self) -> int:
        """The axis of channels of operand and result, if they have one."""
        geometry = self.geometry
        if geometry.data_format == "channels_last":
            return geometry.rank + geometry.batched
        return int(geometry.batched)

    @property
    def result_shape(self) -> tuple[int, ...]:
        """Shape of the result."""
        return self.without_channels(self.geometry.shape_of(self.want))

    @property
    def new_axis(self) -> int | None:
        """The axis of channels of the result, if the source has none."""
        return self.channel_axis if self.lacks_channels and not self.drops_channels else None

    @property
    def moves(self) -> tuple[Move, ...]:
        """Where the cells of the result stand in the source.

        A cell o of y stands where ``(o + padding - (R - 1)/2) / stride`` stands in x, with R the
        kernel's reach: the middle of a kernel lies on the cell that it spreads.
        """
        kept = range(len(self.geometry.shape_of(self.want)))
        places = [n for n in kept if n >= self.geometry.batched and n != self.channel_axis]
        if self.drops_channels:
            places = [n - (n > self.channel_axis) for n in places]
        found = []
        for n, axis in zip(places, self.geometry.axes, strict=True):
            shift = axis.begin - (axis.reach - 1) / 2
            if self.want == "y":
                found.append(Move(n, 1 / axis.stride, shift / axis.stride))
            else:
                found.append(Move(n, axis.stride, -shift))
        return tuple(found)

    @property
    def source_chunks(self) -> tuple[int, ...] | None:
        """Chunks of the source, with an axis of channels; None of a file."""
        chunks = self.source.chunks
        if chunks is None or not self.lacks_channels:
            return chunks
        return (*chunks[: self.channel_axis], 1, *chunks[self.channel_axis :])

    def without_channels(self, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        """Leave out the entry for the axis of channels, if the result has none."""
        return _without(entries, self.channel_axis) if self.drops_channels else entries

    def of_source(self, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        """Leave out the entry for the axis of channels, if the source has none."""
        return _without(entries, self.channel_axis) if self.lacks_channels else entries

    def window(self, box: Box, read: Read) -> NDArray[Any]:
        """Read a box of the operand, and convert it to the type that is computed in."""
        name = OPERANDS[self.want][0]
        _, (found,) = as_operands({name: read(self.of_source(box))}, self.dtype)
        return found.reshape(sizes(box))  # type: ignore[no-any-return]


def _without(entries: tuple[Any, ...], n: int) -> tuple[Any, ...]:
    return (*entries[:n], *entries[n + 1 :])


def keeps_order(geometry: Geometry, dtype: str) -> bool:
    """Whether some channels of a result are summed in the order of all of them.

    Channels that come last, and complex numbers, which are computed so, take another way where they
    are few.
    """
    return geometry.data_format == "channels_first" and not dtype.startswith("complex")


@dataclass(frozen=True)
class Volume:
    """A contraction, and the chunks that its result is computed in."""

    made: Contraction
    grid: ChunkGrid

    def compute(
        self,
        index: tuple[int, ...],
        weight: NDArray[Any],
        bias: NDArray[Any] | None = None,
        read: Read | None = None,
    ) -> NDArray[Any]:
        """Read the window of a chunk and compute it; without an axis of channels if there is none.

        `read` returns the cells of a box of the source, which by default it reads itself.

        Raises
        ------
        OSError : the source cannot be read there
        DTypeError : integers could overflow, or do not fit the type they are converted to
        """
        made, part = self.made, self.grid.part(index)
        of_part = None if bias is None else bias[slice(*part.channels)]
        result: NDArray[Any] = solve_for(
            made.want,
            part.geometry,
            made.window(part.read, read or made.source.read),
            weight[slices(part.weight)],
            of_part,
            made.call,
        )
        return result.reshape(made.without_channels(result.shape))
