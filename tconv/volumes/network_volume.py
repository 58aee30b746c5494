"""Network volume: a network over an array on disk, tile by tile."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.dask.chunk_grid import regular
from tconv.dask.source import Source
from tconv.dask.volume import Move
from tconv.errors import DTypeError, ShapeError, UnsupportedError
from tconv.geometry.parts import Box, Interval, sizes
from tconv.graph import Graph, UnknownOperator, simplified
from tconv.graph.lowering import lower
from tconv.graph.pieces.network import network_of
from tconv.graph.pieces.tiles import Tiles
from tconv.system.fork_lock import cached_property

__all__ = ["NetworkComputation", "NetworkVolume", "TileGrid"]

_PROBES = (64, 192, 960)  # sizes that are tried to learn which axes of values lie along which
_WORDS = "an axis of the volume"


@dataclass(frozen=True, eq=False)
class NetworkComputation:
    """A network of one input and one output, and the array that it is computed of.

    Attributes
    ----------
    graph : Graph, of float32
    rank : number of axes that tiles cut, the last of the input
    batched, lacks_channels : whether the source has an axis of images, and none of channels
    threads : of each tile
    """

    source: Source
    graph: Graph
    rank: int
    batched: bool
    lacks_channels: bool
    threads: int

    @classmethod
    def of(
        cls, source: Source, graph: Graph, channels: int | None, rank: int, threads: int
    ) -> "NetworkComputation":
        """Check a source against what a network takes.

        `channels` are None if the network does not say how many.

        Raises
        ------
        ShapeError, DTypeError : the source does not fit the network
        UnsupportedError : a node sees all of an axis, or tconv has no program for it
        """
        if np.dtype(source.dtype).kind == "c":
            raise DTypeError(
                f"source {str(source)!r} has dtype {source.dtype}, networks take real numbers; "
                "convert it, or pass its real and imaginary parts as channels."
            )
        axes = len(source.shape)
        if axes not in (rank, rank + 1, rank + 2):
            raise ShapeError(
                f"source {str(source)!r} has shape {source.shape}, the network takes {rank} axes "
                "in space, one of channels before them, and one of images before these; pass such "
                "an array."
            )
        found = cls(source, graph, rank, axes == rank + 2, axes == rank, threads)
        if channels is not None and found.input_shape[1] != channels:
            raise ShapeError(
                f"source {str(source)!r} has shape {source.shape}, so {found.input_shape[1]} "
                f"channels; the network takes {channels}. Pass an array of shape ({channels}, ...)."
            )
        found.tiles  # noqa: B018  # whose errors belong to the arguments
        return found

    def __getstate__(self) -> dict[str, Any]:
        return {each.name: getattr(self, each.name) for each in fields(self)}  # without tiles

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of the whole input, of one image."""
        shape = self.source.shape[self.batched :]
        return (1, *((1,) if self.lacks_channels else ()), *shape)

    @cached_property
    def tiles(self) -> Tiles:
        """The tiles of one image."""
        try:
            graph = simplified(self.graph)
        except UnknownOperator as error:
            raise UnsupportedError(f"the network has {error}.") from None
        name = graph.inputs[0].name
        open_shape = (*self.input_shape[:2], *[None] * self.rank)
        cut = [{name: 2 + n} for n in range(self.rank)]
        for n, probe in enumerate(_PROBES):
            try:
                network = network_of(graph, {name: open_shape}, cut, _WORDS, True, probe)
                break
            except UnsupportedError:
                if n + 1 == len(_PROBES):
                    raise
        try:
            shapes = lower(graph, {name: self.input_shape}, {}).shapes
        except UnknownOperator as error:
            raise ShapeError(
                f"the network cannot be computed for a source of shape {self.source.shape}: "
                f"{error}; pad the source, to a multiple of the network's strides for example."
            ) from None
        axes = network.extents.axes[graph.outputs[0]]
        if None in axes or list(axes) != sorted(axes, key=lambda axis: axis or 0):
            raise UnsupportedError(
                f"the network's result has shape {shapes[graph.outputs[0]]}, whose axes do not all "
                "lie along those of the source; end the model before that node."
            )
        return Tiles(network, shapes, self.threads)

    @property
    def whole_shape(self) -> tuple[int, ...]:
        """Shape of the result of one image, with its first axes."""
        return self.tiles.shape

    @property
    def drops_channels(self) -> bool:
        """Whether the result has no axis of channels, as the source, since it has one channel."""
        return self.lacks_channels and self.whole_shape[:2] == (1, 1)

    @property
    def result_shape(self) -> tuple[int, ...]:
        """Shape of the target."""
        shape = self.whole_shape[2 if self.drops_channels else 1 :]
        return (self.source.shape[0], *shape) if self.batched else shape

    @property
    def result_dtype(self) -> "np.dtype[Any]":
        """Type of the target."""
        return np.dtype(np.float32)

    @property
    def new_axis(self) -> int | None:
        """The axis of channels of the target, if the source has none."""
        return 0 if self.lacks_channels and not self.drops_channels else None

    @property
    def moves(self) -> tuple[Move, ...]:
        """Where the cells of the target stand in the source."""
        first = len(self.result_shape) - self.rank
        along = [self.tiles.place(n) for n in range(self.rank)]
        return tuple(Move(first + n, *each) for n, each in enumerate(along))

    def without_channels(self, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        """The entries of the target's axes."""
        return entries


@dataclass(frozen=True)
class TileGrid:
    """The chunks of a target, as intervals along each of its axes.

    >>> grid = TileGrid.regular((2, 7), (2, 3))
    >>> grid.shape, len(grid), grid.box(grid.index_of(2))
    ((1, 3), 3, ((0, 2), (6, 7)))
    """

    intervals: tuple[tuple[Interval, ...], ...]

    @classmethod
    def regular(cls, shape: Sequence[int], chunks: Sequence[int]) -> "TileGrid":
        """Chunks of one size, but for the last along each axis."""
        return cls(tuple(regular(*each) for each in zip(shape, chunks, strict=True)))

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of chunks along every axis."""
        return tuple(map(len, self.intervals))

    def __len__(self) -> int:
        return prod(self.shape)

    def index_of(self, number: int) -> tuple[int, ...]:
        """Index of the chunk of a number, counted in C order."""
        return tuple(int(n) for n in np.unravel_index(number, self.shape))

    def box(self, index: Sequence[int]) -> Box:
        """Cells of the result that are in a chunk."""
        return tuple(each[n] for each, n in zip(self.intervals, index, strict=True))


@dataclass(frozen=True, eq=False)
class NetworkVolume:
    """A network over a source, and the chunks that its result is computed in."""

    made: NetworkComputation
    grid: TileGrid

    def window(self, box: Box) -> Box:
        """The box of the source that a box of the target needs."""
        made = self.made
        found = made.tiles.window(self._of_image(box))[1 if not made.lacks_channels else 2 :]
        return (box[0], *found) if made.batched else found

    def compute(
        self,
        index: tuple[int, ...],
        weight: Any = None,
        bias: Any = None,
        read: Callable[[Box], NDArray[Any]] | None = None,
    ) -> NDArray[Any]:
        """Read the window of a chunk and compute it.

        Raises
        ------
        OSError : the source cannot be read there
        """
        made, box = self.made, self.grid.box(index)
        cells = (read or made.source.read)(self.window(box))
        of_image = self._of_image(box)
        x = np.ascontiguousarray(cells, np.float32).reshape(sizes(made.tiles.window(of_image)))
        return made.tiles.compute(of_image, x).reshape(sizes(box))

    def largest(self) -> Box:
        """The chunk that reads the most along every axis."""
        shape = self.grid.shape
        found = [0] * len(shape)
        for n in range(len(shape) - self.made.rank, len(shape)):
            # Chunks within lie alike; those at the ends may be shorter, or have less around them.
            places = {0, 1, shape[n] // 2, shape[n] - 2, shape[n] - 1} & {*range(shape[n])}
            along = n - len(shape)  # counted from the last axis, as of the window

            def reads(place: int, n: int = n, along: int = along) -> int:
                index = [*found[:n], place, *found[n + 1 :]]
                return sizes(self.window(self.grid.box(index)))[along]

            found[n] = max(sorted(places), key=reads)
        return self.grid.box(found)

    def computing_bytes(self, box: Box) -> int:
        """Bytes of the values between the nodes of a chunk, before anything is compiled."""
        return self.made.tiles.program(self._of_image(box)).block_bytes

    def _of_image(self, box: Box) -> Box:
        """A box of the target as one of the network's result for one image."""
        made = self.made
        inner = box[made.batched :]
        shape = made.whole_shape
        lost = len(shape) - len(inner)  # axes of one cell, or of all cells
        return (*((0, size) for size in shape[:lost]), *inner)
