"""Streams: push some cells, get those results that follow from them."""

from collections.abc import Mapping, Sequence
from fractions import Fraction
from typing import Any, Self

import numpy as np
from numpy.typing import NDArray

from tconv.errors import DTypeError, ParameterError, ShapeError, TConvError, UnsupportedError
from tconv.geometry.arguments import as_array, as_integer
from tconv.messages import show
from tconv.streams.runner import Runner, along
from tconv.streams.schedule import Schedule
from tconv.streams.state import Counts, Flags, State
from tconv.system.memory import check_room

__all__ = ["Stream"]

_ENDLESS = 2**62  # cells of a value whose end is not known


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
        schedule = runner.schedule
        if frames is not None:
            frames = as_integer(frames, "frames", 1)
            if frames % schedule.period:
                raise ParameterError(
                    f"frames={frames} must be a multiple of {schedule.period}, since fewer cells "
                    "make no whole cell of some value; pass one."
                )
            if min(schedule.values[name].lag for name in schedule.outputs) < 0:
                raise ParameterError(
                    f"frames={frames} needs results that do not come before their input, but these "
                    "are ahead of it, by padding before the first cell; leave frames out."
                )
        self._runner, self._frames = runner, frames
        check_room("the state", State.byte_count(runner))
        self._state = State.of(runner)
        self.counts = np.zeros(runner.batch, np.int64)

    # ---- facts -----------------------------------------------------------------------------------

    @property
    def latency(self) -> int:
        """Cells of the result by which it lags behind the input: the least that is possible.

        After n cells of input, ``ratio*n - latency`` cells or more have been returned, from the
        first on.
        """
        return self._schedule.latency(self._schedule.outputs[0], self._frames is not None)

    @property
    def latency_parts(self) -> list[tuple[str, Fraction]]:
        """What the latency is made of: names of layers or nodes, each with its cells of it."""
        name, is_whole = self._schedule.outputs[0], self._frames is not None
        return self._schedule.parts_of_latency(name, is_whole)

    @property
    def ratio(self) -> Fraction:
        """Cells of the result for each cell of input."""
        return self._schedule.rates[self._schedule.outputs[0]]

    @property
    def state_bytes(self) -> int:
        """Bytes that the stream holds between two calls; always the same."""
        return sum(each.nbytes for each in self._state.arrays().values())

    @property
    def positions(self) -> Counts:
        """Cells of input that each stream of the batch has got since its beginning."""
        return self._state.positions.copy()

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
        if (self._state.ended & which).any():
            raise TConvError(
                f"push after flush: stream {int(np.flatnonzero(self._state.ended & which)[0])} has "
                "ended; call reset() for a new one."
            )
        count = arrays[0].shape[self._runner.axis(self._schedule.inputs[0])]
        if self._frames is not None and count != self._frames:
            raise ShapeError(
                f"x has {count} cells along time, the stream was made with frames={self._frames}; "
                "push so many, or make it without frames."
            )
        found = self._advance(arrays, which, np.where(which, self._state.positions + count, 0))
        if self._frames is not None:
            each_output = zip(self._schedule.outputs, found, self._counts, strict=True)
            found = [self._filled_up(name, y, counts) for name, y, counts in each_output]
        return found[0] if len(found) == 1 else found

    def flush(self, active: Any = None) -> Any:
        """Say that the input has ended; return the results that are left, as `push` does.

        After it, `reset` begins anew.
        """
        which = self._which(active) & ~self._state.ended
        ends = np.zeros_like(self._state.positions)
        for b in np.flatnonzero(which):
            ends[b] = self._schedule.flushed_after(int(self._state.positions[b]))
        empty = [
            np.zeros(self._runner.shape(name, 0), self._runner.dtype)
            for name in self._schedule.inputs
        ]
        self._state.ended |= which
        found = self._advance(empty, which, ends, is_end=True)
        return found[0] if len(found) == 1 else found

    def reset(self, active: Any = None) -> None:
        """Begin anew, with nothing held: all streams of the batch, or those of `active`."""
        which = self._which(active)
        self._state.reset(which)
        self.counts[which] = 0

    def warm(self, frames: int) -> None:
        """Compile and pack what pushes of so many cells need, and flush."""
        schedule, lengths = self._schedule, self._runner.lengths
        longest, frames = lengths.all[-1], as_integer(frames, "frames", 1)
        frames = min(frames, longest + frames % longest)  # more of them are more of the longest
        period, lead = schedule.period, schedule.lead
        # A push begins with what waits of others, the first one with the lead; but its first run is
        # no whole one then. The last runs have as many cells as are left.
        first = lengths.cut(frames + lead), lengths.cut(frames + lead + period - 1)
        whole = {*lengths.cut(frames), *lengths.cut(frames + period - 1)}
        whole.update(*(runs[1:] for runs in first))
        masked = {*first[0], *first[1]}
        for count in range(0, (period + lead + 1) * frames, frames):
            end = schedule.flushed_after(count)
            masked.update(lengths.cut(end + lead), lengths.cut(end - count // period * period))
        for count in whole:
            self._runner.prepare(count, False)
        for count in whole | masked:
            self._runner.prepare(count, True)

    # ---- states ----------------------------------------------------------------------------------

    def copy(self) -> Self:
        """Return a stream that goes on from here by itself."""
        made = object.__new__(type(self))
        vars(made).update(vars(self), _state=self._state.copy(), counts=self.counts.copy())
        return made

    def __copy__(self) -> Self:
        return self.copy()

    def __deepcopy__(self, memo: Any) -> Self:
        return self.copy()

    def __reduce__(self) -> Any:
        raise UnsupportedError(
            "a stream cannot be pickled, as its programs are of this process; pass what "
            "state_dict() returns, and load it into a stream of the same network."
        )

    def state_dict(self) -> dict[str, NDArray[Any]]:
        """Copies of all that the stream holds, as arrays by name."""
        return {name: array.copy() for name, array in self._state.arrays().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from a state that `state_dict` of a stream of the same network returned.

        Raises
        ------
        ParameterError : it is of another network or batch
        """
        self._state.load(state)

    def __repr__(self) -> str:
        lag = f"latency {self.latency}" if self.latency >= 0 else f"{-self.latency} ahead"
        return (
            f"{type(self).__name__}(batch={self._runner.batch}, {self._runner.dtype}, "
            f"ratio {self.ratio}, {lag}, {self.state_bytes:,} bytes of state)"
        )

    # ---- the work --------------------------------------------------------------------------------

    def _which(self, active: Any) -> Flags:
        batch = self._runner.batch
        if active is None:
            return np.ones(batch, np.bool_)
        found = as_array(active, "active")
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
            what = "x" if len(names) == 1 else name
            array = as_array(each, what)
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
        self, new: Sequence[NDArray[Any]], which: Flags, ends: Counts, is_end: bool = False
    ) -> list[NDArray[Any]]:
        """Bring the streams of `which` to the positions `ends`; return what they have made."""
        schedule, runner, state = self._schedule, self._runner, self._state
        rows, begins = np.flatnonzero(which), state.begins.copy()
        sizes = {}
        if is_end:
            sizes = {int(b): schedule.sizes(int(state.positions[b])) for b in rows}
        spans = [(name, self._span(name, rows, ends, sizes)) for name in schedule.outputs]
        made = [
            np.zeros(runner.shape(name, int((stops - starts).max())), runner.dtype)
            for name, (starts, stops) in spans
        ]
        self._counts = [stops - starts for _, (starts, stops) in spans]
        self.counts = self._counts[0]
        cells = np.where(which, ends - begins, 0)  # of each stream, with those that wait
        longest, gives = int(cells.max()), any(each.size for each in made)
        if not gives and (is_end or longest < schedule.period or (ends == state.positions).all()):
            if not is_end:
                state.wait(new, rows)
                state.positions[rows] = ends[rows]
            return made
        lengths = runner.lengths.cut(longest)
        chunks = state.joined(new, rows, sum(lengths))
        start = 0
        for length in lengths:
            at = begins + start
            moved = np.where(cells > start, length, 0)
            if not is_end:
                moved = np.clip(cells - start, 0, length) // schedule.period * schedule.period
            masks = None
            is_first = (at[rows] < schedule.starts_after).any()
            if is_end or is_first or (moved[rows] < length).any():
                masks = self._masks(length, at, sizes)
            axes = [runner.axis(name) for name in schedule.inputs]
            cut = [
                along(chunk, axis, start, start + length)
                for chunk, axis in zip(chunks, axes, strict=True)
            ]
            results, held = runner.run(length, cut, state.held, masks)
            if masks is None:
                state.hold(held, rows)
            else:
                state.hold_after(held, rows, moved)
            for (name, span), y, to in zip(spans, results, made, strict=True):
                self._put(name, y, to, rows, at, span)
            start += length
        if not is_end:
            left = cells % schedule.period
            state.positions[rows], state.begins[rows] = ends[rows], (ends - left)[rows]
            if schedule.period > 1:
                state.leave(chunks, rows, cells - left, left)
        return made

    def _span(
        self, name: str, rows: Counts, ends: Counts, sizes: Mapping[int, Mapping[str, int]]
    ) -> tuple[Counts, Counts]:
        """Of each stream, the cells of an output that `_advance` returns: first, and after last."""
        known, positions = self._schedule.known, self._state.positions
        starts = np.array([known(name, int(count)) for count in positions])
        stops = starts.copy()
        for b in rows:
            last = sizes[b][name] if b in sizes else known(name, int(ends[b]))
            stops[b] = max(last, starts[b])
        return starts, stops

    def _masks(
        self, length: int, at: Counts, sizes: Mapping[int, Mapping[str, int]]
    ) -> dict[str, NDArray[Any]]:
        """For every value that is looked at beyond its ends, 1 for each cell that exists."""
        found, runner = dict[str, NDArray[Any]](), self._runner
        for name, value in self._schedule.values.items():
            if value.fill is None:
                continue
            count = int(value.rate * length)
            shape = [1] * len(runner.shape(name, 0))
            shape[0], shape[runner.axis(name)] = runner.batch, count
            first = [int(value.rate * int(each)) - value.lag for each in at]
            cells = np.array(first)[:, np.newaxis] + np.arange(count)
            last = [sizes[b][name] if b in sizes else _ENDLESS for b in range(runner.batch)]
            exists = (cells >= 0) & (cells < np.array(last)[:, np.newaxis])
            found[name] = exists.astype(runner.dtype).reshape(shape)
        return found

    def _put(
        self,
        name: str,
        y: NDArray[Any],
        to: NDArray[Any],
        rows: Counts,
        at: Counts,
        span: tuple[Counts, Counts],
    ) -> None:
        """Copy new results to their places; those of a run that begins at cell `at` of input."""
        value, axis = self._schedule.values[name], self._runner.axis(name)
        for b in rows:
            first = int(value.rate * int(at[b])) - value.lag
            start = max(first, int(span[0][b]))
            stop = min(first + y.shape[axis], int(span[1][b]))
            if stop > start:
                place = start - int(span[0][b])
                part = along(self._row(y, b), axis, start - first, stop - first)
                along(self._row(to, b), axis, place, place + stop - start)[...] = part

    def _row(self, array: NDArray[Any], b: int) -> NDArray[Any]:
        """One stream of the batch, as a batch; a batch of one may have its axis anywhere."""
        return array if self._runner.batch == 1 else array[b : b + 1]

    def _filled_up(self, name: str, y: NDArray[Any], counts: Counts) -> NDArray[Any]:
        """Results of a push of fixed length: zeros stand for those before the first."""
        assert self._frames is not None
        axis, count = self._runner.axis(name), int(self._schedule.rates[name] * self._frames)
        if (counts == count).all():
            return y
        whole = np.zeros(self._runner.shape(name, count), self._runner.dtype)
        for b, own in enumerate(counts):
            part = along(self._row(y, b), axis, 0, int(own))
            along(self._row(whole, b), axis, count - int(own), count)[...] = part
        return whole
