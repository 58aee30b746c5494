"""Runner: what computes the runs of a network's streams."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.streams.run_lengths import RunLengths
from tconv.streams.schedule import Schedule

__all__ = ["Arrays", "Runner", "along"]

Arrays = Mapping[str, NDArray[Any]]
"""By the names of values."""


class Runner(ABC):
    """What computes runs; several streams share one, on any threads.

    Attributes
    ----------
    schedule : Schedule
    lengths : RunLengths
    batch : int
    dtype : numpy.dtype of all values
    """

    schedule: Schedule
    lengths: RunLengths
    batch: int
    dtype: np.dtype[Any]

    @abstractmethod
    def shape(self, name: str, count: int) -> tuple[int, ...]:
        """The shape of so many cells of a value; the first axis is that of the batch."""

    @abstractmethod
    def axis(self, name: str) -> int:
        """The axis of a value along time."""

    @abstractmethod
    def run(
        self, count: int, inputs: Sequence[NDArray[Any]], held: Arrays, masks: Arrays | None
    ) -> tuple[list[NDArray[Any]], Arrays]:
        """Compute a run; return new cells of each output, and those of values that are held.

        `masks` are given for every value with a `fill`, or not at all: then all cells exist, and
        every stream moves by the whole run. So what is returned of values that are held is what
        the next run reads, in arrays of their own; with masks it is all cells, since streams may
        move by less.
        """

    @abstractmethod
    def prepare(self, count: int, is_masked: bool) -> None:
        """Compile and pack what runs of a length need."""


def along(array: NDArray[Any], axis: int, start: int, stop: int) -> NDArray[Any]:
    """Cells of an axis, as a view.

    >>> along(np.arange(6).reshape(2, 3), 1, 1, 3)
    array([[1, 2],
           [4, 5]])
    """
    return array[(slice(None),) * axis + (slice(start, stop),)]
