"""State of a stream: cells that are held, input that waits, and how far each stream has come."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tconv.errors import ParameterError
from tconv.geometry.arguments import as_array, as_mapping
from tconv.messages import show
from tconv.streams.runner import Runner, along

__all__ = ["Counts", "Flags", "State"]

Flags = NDArray[np.bool_]
Counts = NDArray[np.int64]


@dataclass
class State:
    """What a batch of streams holds between two calls; its size never changes.

    Attributes
    ----------
    held : of each value, the cells that later runs read
    waiting : of each input, the cells with which the next run begins: those that make no whole
        period, and before the first cell as many zeros as the first run begins with
    positions : cells of input that each stream has got
    begins : the first cell of each stream's next run, a multiple of the period
    ended : flags of the streams that have been flushed
    """

    runner: Runner
    held: dict[str, NDArray[Any]]
    waiting: list[NDArray[Any]]
    positions: Counts
    begins: Counts
    ended: Flags

    @classmethod
    def of(cls, runner: Runner) -> "State":
        """The state before the first cell."""
        schedule, batch, kind = runner.schedule, runner.batch, runner.dtype
        held = {
            name: np.full(runner.shape(name, value.held), value.fill or 0.0, kind)
            for name, value in schedule.values.items()
            if value.held
        }
        most = schedule.lead + schedule.period - 1
        waiting = [np.zeros(runner.shape(name, most), kind) for name in schedule.inputs]
        begins = np.full(batch, -schedule.lead, np.int64)
        return cls(runner, held, waiting, np.zeros(batch, np.int64), begins, np.zeros(batch, bool))

    @staticmethod
    def byte_count(runner: Runner) -> int:
        """Bytes of the cells that are held, and of those that wait."""
        schedule = runner.schedule
        most = schedule.lead + schedule.period - 1
        counts = {name: value.held for name, value in schedule.values.items()}
        counts |= {name: counts[name] + most for name in schedule.inputs}
        elements = sum(prod(runner.shape(name, count)) for name, count in counts.items())
        return elements * runner.dtype.itemsize

    # ---- as a whole ------------------------------------------------------------------------------

    def arrays(self) -> dict[str, NDArray[Any]]:
        """All arrays by name."""
        inputs = zip(self.runner.schedule.inputs, self.waiting, strict=True)
        return {
            "positions": self.positions,
            "begins": self.begins,
            "ended": self.ended,
            **{f"held.{name}": array for name, array in self.held.items()},
            **{f"waiting.{name}": array for name, array in inputs},
        }

    def copy(self) -> "State":
        """Return a state of its own."""
        made = State.of(self.runner)
        made.set(self.arrays())
        return made

    def set(self, arrays: Mapping[str, NDArray[Any]]) -> None:
        """Take all values from arrays of the same names, shapes and types."""
        for name, array in self.arrays().items():
            array[...] = arrays[name]

    def load(self, state: Any) -> None:
        """Take all values from a mapping that a user passes, or none of them.

        Raises
        ------
        ParameterError : it is of another network or batch
        """
        own, names = self.arrays(), as_mapping(state, "state")
        given = {name: as_array(each, show(name)) for name, each in names.items()}
        for name in {**own, **given}:
            fault = None
            if name not in given:
                fault = "is missing"
            elif name not in own:
                fault = "is none of them"
            elif (given[name].shape, given[name].dtype) != (own[name].shape, own[name].dtype):
                fault = (
                    f"has shape {given[name].shape} and type {given[name].dtype}, not "
                    f"{own[name].shape} and {own[name].dtype}"
                )
            if fault:
                raise ParameterError(
                    f"state must hold the arrays of a stream of this network and batch, but "
                    f"{show(name)} {fault}; pass what state_dict() of such a stream returned."
                )
        schedule, begins = self.runner.schedule, given["begins"]
        waits = given["positions"] - begins
        most = schedule.lead + schedule.period - 1
        if (
            (begins < -schedule.lead).any()
            or (begins % schedule.period).any()
            or ((waits < 0) | (waits > most)).any()
        ):
            raise ParameterError(
                f"state has positions={given['positions']} and begins={begins}, which no stream "
                "of this network has together; pass what state_dict() of such a stream returned."
            )
        self.set(given)

    def reset(self, rows: Flags) -> None:
        """Begin anew with some streams of the batch."""
        fresh = State.of(self.runner).arrays()
        if rows.all():  # a batch of one may have its axis anywhere
            self.set(fresh)
            return
        for name, array in self.arrays().items():
            array[rows] = fresh[name][rows]

    # ---- input -----------------------------------------------------------------------------------

    def joined(self, new: Sequence[NDArray[Any]], rows: Counts, length: int) -> list[NDArray[Any]]:
        """Of every input what waits and the new cells, and zeros up to a length."""
        found, before = [], self.positions - self.begins
        for name, waiting, array in self._each_input(new):
            axis = self.runner.axis(name)
            count = array.shape[axis]
            if count == length and not before.any():
                found.append(array)
                continue
            chunk = np.zeros(self.runner.shape(name, length), self.runner.dtype)
            for b in rows:
                first, to = int(before[b]), chunk[b]
                along(to, axis - 1, 0, first)[...] = along(waiting[b], axis - 1, 0, first)
                along(to, axis - 1, first, first + count)[...] = array[b]
            found.append(chunk)
        return found

    def wait(self, new: Sequence[NDArray[Any]], rows: Counts) -> None:
        """Put new cells to those that wait."""
        for name, waiting, array in self._each_input(new):
            axis = self.runner.axis(name)
            for b in rows:
                first = int(self.positions[b] - self.begins[b])
                last = first + array.shape[axis]
                along(waiting[b], axis - 1, first, last)[...] = array[b]

    def leave(
        self, chunks: Sequence[NDArray[Any]], rows: Counts, starts: Counts, counts: Counts
    ) -> None:
        """Let the cells wait that make no whole period."""
        for name, waiting, chunk in self._each_input(chunks):
            axis = self.runner.axis(name) - 1
            for b in rows:
                start, count = int(starts[b]), int(counts[b])
                part = along(chunk[b], axis, start, start + count)
                along(waiting[b], axis, 0, count)[...] = part

    def _each_input(
        self, arrays: Sequence[NDArray[Any]]
    ) -> "zip[tuple[str, NDArray[Any], NDArray[Any]]]":
        return zip(self.runner.schedule.inputs, self.waiting, arrays, strict=True)

    # ---- values ----------------------------------------------------------------------------------

    def hold(self, cells: Mapping[str, NDArray[Any]], rows: Counts) -> None:
        """Hold of each value the cells that the next run reads, in arrays of their own."""
        if len(rows) == self.runner.batch:
            self.held.update(cells)
            return
        for name, held in self.held.items():
            held[rows] = cells[name][rows]

    def hold_after(self, every: Mapping[str, NDArray[Any]], rows: Counts, moved: Counts) -> None:
        """Hold of all cells of each value what the next run reads, after moves of so many cells."""
        for name, held in self.held.items():
            value, axis = self.runner.schedule.values[name], self.runner.axis(name)
            for b in rows:
                start = int(value.rate * int(moved[b]))
                part = along(every[name], axis, start, start + value.held)
                row = b if self.runner.batch > 1 else ...  # a batch of one is on any axis
                held[row] = part[row]
