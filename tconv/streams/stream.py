"""Streams: push some cells, get those results that follow from them."""

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from copy import copy
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tconv.errors import DTypeError, ParameterError, ShapeError, TConvError
from tconv.geometry.arguments import as_array, as_integer, as_mapping
from tconv.messages import show
from tconv.streams.run_lengths import RunLengths
from tconv.streams.schedule import Schedule

__all__ = ["Runner", "Stream"]

Arrays = Mapping[str, NDArray[Any]]
_ENDLESS = 2**62  # cells of a value whose end is not known


class Runner(ABC):
    """What computes the runs of streams; several streams share one, on any threads.

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
        """Compute a run; return new cells of each output, and all cells of values that are held.

        `masks` are given for every value with a `fill`, or not at all: then all cells exist.
        """

    @abstractmethod
    def prepare(self, count: int, is_masked: bool) -> None:
        """Compile and pack what runs of a length need."""


class Stream:
    """A network along time, computed as its input arrives, with the bits of the whole.

    Made by ``layer.stream()``, `tconv.onnx.Stream` or `tconv.torch.stream`. `push` takes any number
    of cells along time and returns the results that they complete; `flush` says that the input
    ends, and returns the rest. Joined along time, all that is returned equals the results of the
    whole input, bit by bit, if these are computed with ``method="direct"``.

    A stream is for one thread at a time; streams of one network share weights and plans, and may
    run on threads of their own.

    >>> import tconv
    >>> layer = tconv.ConvTranspose1d(1, 1, 4, stride=2, padding=1, rng=0)
    >>> x = np.arange(5, dtype=np.float32).reshape(1, 1, 5)
    >>> stream = layer.stream()
    >>> parts = [stream.push(x[:, :, :3]), stream.push(x[:, :, 3:]), stream.flush()]
    >>> [part.shape[2] for part in parts], stream.latency, stream.ratio
    ([5, 4, 1], 1, Fraction(2, 1))
    >>> bool(np.array_equal(np.concatenate(parts, 2), layer.predict(x)))
    True
    """

    def __init__(self, runner: Runner, frames: int | None = None) -> None:
        self._runner, self._frames = runner, frames
        schedule = runner.schedule
        if frames is not None:
            as_integer(frames, "frames", 1)
            if frames % schedule.period:
                raise ParameterError(
                    f"frames={frames} must be a multiple of {schedule.period}, since fewer cells "
                    "make no whole cell of some value; pass one."
                )
        self._held = {
            name: np.full(runner.shape(name, value.held), value.fill or 0.0, runner.dtype)
            for name, value in schedule.values.items()
            if value.held
        }
        self._pending = [
            np.zeros(runner.shape(name, schedule.period - 1), runner.dtype)
            for name in schedule.inputs
        ]
        self._positions = np.zeros(runner.batch, np.int64)
        self._ended = np.zeros(runner.batch, np.bool_)
        self.counts = np.zeros(runner.batch, np.int64)

    # ---- facts -----------------------------------------------------------------------------------

    @property
    def latency(self) -> int:
        """Cells of the result by which it lags behind the input: the least that is possible.

        After n cells of input, ``ratio*n - latency`` cells have been returned, from the first on.
        """
        return self._schedule.latency(self._schedule.outputs[0])

    @property
    def latency_parts(self) -> list[tuple[str, Fraction]]:
        """What the latency is made of: names of layers or nodes, each with its cells of it."""
        return self._schedule.parts_of_latency(self._schedule.outputs[0])

    @property
    def ratio(self) -> Fraction:
        """Cells of the result for each cell of input."""
        return self._schedule.rates[self._schedule.outputs[0]]

    @property
    def state_bytes(self) -> int:
        """Bytes that the stream holds between two calls; always the same."""
        arrays = [*self._held.values(), *self._pending, self._positions, self._ended]
        return sum(each.nbytes for each in arrays)

    @property
    def positions(self) -> NDArray[np.int64]:
        """Cells of input that each stream of the batch has got since its beginning."""
        return self._positions.copy()

    @property
    def _schedule(self) -> Schedule:
        return self._runner.schedule

    # ---- running ---------------------------------------------------------------------------------

    def push(self, *x: Any, active: Any = None) -> Any:
        """Take cells of input; return the results that they complete.

        Parameters
        ----------
        x : array of shape (batch, channels, n), n >= 0; one for each input of the network
        active : array of batch flags, or None for all: streams of the batch that get these cells.
            The others stay as they are, whatever x holds for them.

        Returns
        -------
        array of shape (batch, channels, m); m may be 0. Where the streams of a batch have come
        differently far, the first ``counts[b]`` cells are those of stream b, and zeros follow. A
        list of arrays for a network with several outputs.

        Raises
        ------
        ShapeError, DTypeError : x is not of the input's shape and type
        TConvError : an active stream has been flushed
        """
        which = self._which(active)
        arrays = self._checked(x)
        if (self._ended & which).any():
            raise TConvError(
                f"push after flush: stream {int(np.flatnonzero(self._ended & which)[0])} has "
                "ended; call reset() for a new one."
            )
        count = arrays[0].shape[self._runner.axis(self._schedule.inputs[0])]
        if self._frames is not None and count != self._frames:
            raise ShapeError(
                f"x has {count} cells along time, the stream was made with frames={self._frames}; "
                "push so many, or make it without frames."
            )
        found = self._advance(arrays, which, np.where(which, self._positions + count, 0))
        if self._frames is not None:
            found = [self._filled_up(name, each) for name, each in zip(
                self._schedule.outputs, found, strict=True
            )]
        return found[0] if len(found) == 1 else found

    def flush(self, active: Any = None) -> Any:
        """Say that the input has ended; return the results that are left, as `push` does.

        After it, `reset` begins anew.
        """
        which = self._which(active) & ~self._ended
        ends = np.zeros_like(self._positions)
        for b in np.flatnonzero(which):
            ends[b] = self._schedule.flushed_after(int(self._positions[b]))
        empty = [
            np.zeros(self._runner.shape(name, 0), self._runner.dtype)
            for name in self._schedule.inputs
        ]
        self._ended |= which
        found = self._advance(empty, which, ends, is_end=True)
        return found[0] if len(found) == 1 else found

    def reset(self, active: Any = None) -> None:
        """Begin anew, with nothing held: all streams of the batch, or those of `active`."""
        which = self._which(active)
        for name, array in self._held.items():
            array[which] = self._schedule.values[name].fill or 0.0
        for array in self._pending:
            array[which] = 0
        self._positions[which], self._ended[which], self.counts[which] = 0, False, 0

    def warm(self, frames: int) -> None:
        """Compile and pack what pushes of so many cells need, and flush."""
        lengths = self._runner.lengths
        end = self._schedule.flushed_after(as_integer(frames, "frames", 1)) - frames
        for count in {*lengths.cut(frames + self._schedule.period - 1), *lengths.cut(frames)}:
            self._runner.prepare(count, False)
            self._runner.prepare(count, True)
        for count in {*lengths.cut(end)}:
            self._runner.prepare(count, True)

    # ---- states ----------------------------------------------------------------------------------

    def copy(self) -> Self:
        """Return a stream that goes on from here by itself."""
        made = copy(self)
        made._held = {name: array.copy() for name, array in self._held.items()}
        made._pending = [array.copy() for array in self._pending]
        made._positions, made._ended = self._positions.copy(), self._ended.copy()
        made.counts = self.counts.copy()
        return made

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Copies of all that the stream holds, as arrays by name."""
        return {name: array.copy() for name, array in self._state().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` of a stream of the same network returned.

        Raises
        ------
        ParameterError : it is of another network or batch
        """
        own = self._state()
        given = {name: as_array(each, name) for name, each in as_mapping(state, "state").items()}
        wrong = [name for name in {**own, **given} if name not in given or name not in own]
        wrong += [
            name
            for name, array in own.items()
            if name not in wrong
            and (given[name].shape != array.shape or given[name].dtype != array.dtype)
        ]
        if wrong:
            raise ParameterError(
                f"state must be that of a stream of this network and batch, but {show(wrong[0])} "
                "is missing, not of it, or has another shape or type; pass what state_dict() of "
                "such a stream returned."
            )
        for name, array in own.items():
            array[...] = given[name]

    def _state(self) -> dict[str, NDArray[Any]]:
        inputs = zip(self._schedule.inputs, self._pending, strict=True)
        return {
            "positions": self._positions,
            "ended": self._ended,
            **{f"held.{name}": array for name, array in self._held.items()},
            **{f"pending.{name}": array for name, array in inputs},
        }

    def __repr__(self) -> str:
        lag = f"latency {self.latency}" if self.latency >= 0 else f"{-self.latency} ahead"
        return (
            f"{type(self).__name__}(batch={self._runner.batch}, {self._runner.dtype}, "
            f"ratio {self.ratio}, {lag}, {self.state_bytes:,} bytes of state)"
        )

    # ---- the work --------------------------------------------------------------------------------

    def _which(self, active: Any) -> NDArray[np.bool_]:
        batch = self._runner.batch
        if active is None:
            return np.ones(batch, np.bool_)
        found = np.asarray(active)
        if found.shape != (batch,) or found.dtype != np.bool_:
            raise ParameterError(
                f"active={show(active)} must be {batch} flag{'s' * (batch > 1)}, one for each "
                "stream of the batch; pass an array of bool."
            )
        return found

    def _checked(self, x: Sequence[Any]) -> list[NDArray[Any]]:
        """The inputs as arrays of the right type and shape, of any and the same length."""
        runner, names = self._runner, self._schedule.inputs
        if len(x) != len(names):
            raise ParameterError(
                f"push takes {len(names)} arrays, for {', '.join(map(show, names))}, not {len(x)}; "
                "pass one for each input."
            )
        found = []
        for name, each in zip(names, x, strict=True):
            array, what = as_array(each, "x"), "x" if len(names) == 1 else name
            if array.dtype != runner.dtype:
                raise DTypeError(
                    f"{what} has dtype {array.dtype}, must be {runner.dtype}; convert it by "
                    f"astype({str(runner.dtype)!r})."
                )
            axis = runner.axis(name)
            count = array.shape[axis] if array.ndim > axis else 0
            if array.shape != runner.shape(name, count):
                shape = ["n" if n == axis else str(size)
                         for n, size in enumerate(runner.shape(name, 0))]  # fmt: skip
                raise ShapeError(
                    f"{what} has shape {array.shape}, must have shape ({', '.join(shape)}) with "
                    "any n; pass such an array."
                )
            found.append(np.asarray(array))
        if len({each.shape[runner.axis(n)] for n, each in zip(names, found, strict=True)}) > 1:
            raise ShapeError("the inputs must have the same number of cells along time; cut them.")
        return found

    def _advance(
        self,
        new: Sequence[NDArray[Any]],
        which: NDArray[np.bool_],
        ends: NDArray[np.int64],
        is_end: bool = False,
    ) -> list[NDArray[Any]]:
        """Bring the streams of `which` to the positions `ends`; return what they have made."""
        schedule, runner = self._schedule, self._runner
        period, outputs = schedule.period, schedule.outputs
        rows = np.flatnonzero(which)
        begins = self._positions - self._positions % period  # the first cell of the next run
        sizes = {int(b): schedule.sizes(int(self._positions[b])) for b in rows} if is_end else {}
        known = {
            name: np.array([
                max(schedule.known(name, int(p)), 0) for p in self._positions
            ]) for name in outputs
        }  # fmt: skip
        after = {
            name: np.array([
                known[name][b] if not which[b]
                else sizes[b][name] if is_end
                else max(schedule.known(name, int(ends[b])), 0)
                for b in range(runner.batch)
            ]) for name in outputs
        }  # fmt: skip
        counts = {name: np.maximum(after[name] - known[name], 0) for name in outputs}
        self.counts = counts[outputs[0]].copy()
        cells = np.where(which, ends - begins, 0)  # of each stream, those that were pending as well
        made = [
            np.zeros(runner.shape(name, int(counts[name].max(initial=0))), runner.dtype)
            for name in outputs
        ]
        whole = int(cells.max(initial=0))
        must = whole >= period or any(each.any() for each in counts.values())
        if not must:
            self._keep(new, rows)
            if not is_end:
                self._positions[rows] = ends[rows]
            return made
        lengths = runner.lengths.cut(whole)
        chunks = self._joined(new, rows, sum(lengths))
        start = 0
        for length in lengths:
            valid = np.clip(cells - start, 0, length)
            at = begins + start
            masks = None
            if is_end or (at[rows] < schedule.starts_after).any():
                masks = self._masks(length, at, sizes)
            cut = [_along(each, runner.axis(name), start, start + length)
                   for name, each in zip(schedule.inputs, chunks, strict=True)]  # fmt: skip
            results, every = runner.run(length, cut, self._held, masks)
            moved = valid - valid % period if not is_end else np.where(valid > 0, length, 0)
            self._take(every, rows, moved)
            for name, y, to in zip(outputs, results, made, strict=True):
                first = int(schedule.rates[name] * period) * (at // period)
                first = first - schedule.values[name].lag
                self._put(name, y, to, rows, (first, known[name], after[name]))
            start += length
        if not is_end:
            self._positions[rows] = ends[rows]
            left = cells % period
            if period > 1:
                self._left(chunks, rows, cells - left, left)
        return made

    def _joined(
        self, new: Sequence[NDArray[Any]], rows: NDArray[np.int64], length: int
    ) -> list[NDArray[Any]]:
        """Pending cells and new ones of every input, and zeros up to a length."""
        found = []
        period = self._schedule.period
        for name, pending, array in zip(self._schedule.inputs, self._pending, new, strict=True):
            axis = self._runner.axis(name)
            count = array.shape[axis]
            if period == 1 and count == length:
                found.append(array)
                continue
            chunk = np.zeros(self._runner.shape(name, length), self._runner.dtype)
            if period == 1:
                _along(chunk, axis, 0, count)[rows] = array[rows]
            else:
                for b in rows:
                    left = int(self._positions[b] % period)
                    one = chunk[b]
                    _along(one, axis - 1, 0, left)[...] = _along(pending[b], axis - 1, 0, left)
                    _along(one, axis - 1, left, left + count)[...] = array[b]
            found.append(chunk)
        return found

    def _keep(self, new: Sequence[NDArray[Any]], rows: NDArray[np.int64]) -> None:
        """Put new cells to those that are pending: nothing follows from them yet."""
        for name, pending, array in zip(self._schedule.inputs, self._pending, new, strict=True):
            axis = self._runner.axis(name)
            count = array.shape[axis]
            for b in rows:
                left = int(self._positions[b] % self._schedule.period)
                _along(pending[b], axis - 1, left, left + count)[...] = array[b]

    def _left(
        self,
        chunks: Sequence[NDArray[Any]],
        rows: NDArray[np.int64],
        starts: NDArray[np.int64],
        counts: NDArray[np.int64],
    ) -> None:
        """Keep the cells that make no whole period."""
        for name, pending, chunk in zip(self._schedule.inputs, self._pending, chunks, strict=True):
            axis = self._runner.axis(name) - 1
            for b in rows:
                start, count = int(starts[b]), int(counts[b])
                to = _along(pending[b], axis, 0, count)
                to[...] = _along(chunk[b], axis, start, start + count)

    def _masks(
        self, length: int, at: NDArray[np.int64], sizes: Mapping[int, Mapping[str, int]]
    ) -> dict[str, NDArray[Any]]:
        """For every value that is looked at beyond its ends, 1 for each cell that exists."""
        found, runner = dict[str, NDArray[Any]](), self._runner
        for name, value in self._schedule.values.items():
            if value.fill is None:
                continue
            count = int(value.rate * length)
            shape = [1] * len(runner.shape(name, 0))
            shape[0], shape[runner.axis(name)] = runner.batch, count
            per_period = int(value.rate * self._schedule.period)
            first = at // self._schedule.period * per_period - value.lag
            cells = first[:, np.newaxis] + np.arange(count)
            last = [sizes[b][name] if b in sizes else _ENDLESS for b in range(runner.batch)]
            exists = (cells >= 0) & (cells < np.array(last)[:, np.newaxis])
            found[name] = exists.astype(runner.dtype).reshape(shape)
        return found

    def _take(
        self, every: Arrays, rows: NDArray[np.int64], moved: NDArray[np.int64]
    ) -> None:
        """Hold the last of the cells that are known now."""
        is_alike = len(rows) == self._runner.batch and (moved == moved[0]).all()
        for name, held in self._held.items():
            value, axis, array = self._schedule.values[name], self._runner.axis(name), every[name]
            if is_alike:
                start = int(value.rate * int(moved[0]))
                held[...] = _along(array, axis, start, start + value.held)
                continue
            for b in rows:
                start = int(value.rate * int(moved[b]))
                held[b] = _along(array[b], axis - 1, start, start + value.held)

    def _put(
        self,
        name: str,
        y: NDArray[Any],
        to: NDArray[Any],
        rows: NDArray[np.int64],
        cells: tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]],
    ) -> None:
        """Copy new results: y begins at cell `first`; wanted are those from `known` to `after`."""
        axis, (firsts, knowns, afters) = self._runner.axis(name), cells
        for b in rows:
            first, known, after = int(firsts[b]), int(knowns[b]), int(afters[b])
            start = max(first, known)
            stop = min(first + y.shape[axis], after)
            if stop > start:
                part = _along(y[b], axis - 1, start - first, stop - first)
                _along(to[b], axis - 1, start - known, stop - known)[...] = part

    def _filled_up(self, name: str, y: NDArray[Any]) -> NDArray[Any]:
        """Results of a push of fixed length: zeros stand for those before the first."""
        assert self._frames is not None
        axis, count = self._runner.axis(name), int(self._schedule.rates[name] * self._frames)
        if y.shape[axis] == count:
            return y
        whole = np.zeros(self._runner.shape(name, count), self._runner.dtype)
        for b, own in enumerate(self.counts):
            _along(whole[b], axis - 1, count - int(own), count)[...] = _along(
                y[b], axis - 1, 0, int(own)
            )
        return whole


def _along(array: NDArray[Any], axis: int, start: int, stop: int) -> NDArray[Any]:
    """Cells of an axis, as a view."""
    return array[(slice(None),) * axis + (slice(start, stop),)]
