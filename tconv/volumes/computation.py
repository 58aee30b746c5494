"""Computation of a volume: what targets, schedulers and reports need to know of it."""

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from tconv.dask.source import Source
from tconv.dask.volume import Move
from tconv.geometry.parts import Box

__all__ = ["Computation", "Grid", "Tasks"]


class Computation(Protocol):
    """What is computed of a source."""

    @property
    def source(self) -> Source:
        """The array that is read."""

    @property
    def result_shape(self) -> tuple[int, ...]:
        """Shape of the target."""

    @property
    def result_dtype(self) -> "np.dtype[Any]":
        """Type of the target."""

    @property
    def new_axis(self) -> int | None:
        """The axis of channels of the target, if the source has none."""

    @property
    def moves(self) -> tuple[Move, ...]:
        """Where cells of the target stand in the source, for the axes along which they move."""

    def without_channels(self, entries: tuple[Any, ...]) -> tuple[Any, ...]:
        """The entries of the target's axes, from those of the axes that are computed."""


class Grid(Protocol):
    """The chunks of a result."""

    @property
    def shape(self) -> tuple[int, ...]:
        """Number of chunks along every axis."""

    def __len__(self) -> int: ...

    def index_of(self, number: int) -> tuple[int, ...]:
        """Index of the chunk of a number, counted in C order."""

    def box(self, index: tuple[int, ...]) -> Box:
        """Cells of the result that are in a chunk."""


class Tasks(Protocol):
    """A computation, and the chunks that its result is computed in."""

    @property
    def made(self) -> Computation:
        """What is computed."""

    @property
    def grid(self) -> Grid:
        """The chunks."""

    def compute(
        self,
        index: tuple[int, ...],
        weight: Any,
        bias: Any = None,
        read: Callable[[Box], NDArray[Any]] | None = None,
    ) -> NDArray[Any]:
        """Compute a chunk; `read` returns the cells of a box of the source."""
