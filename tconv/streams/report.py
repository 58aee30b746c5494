"""Report of a stream: what its latency is made of, and the times of its pushes."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from math import floor, prod
from statistics import median
from time import perf_counter
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from tconv.engine import wait_for_optimised
from tconv.errors import ShapeError
from tconv.progress import Progress
from tconv.streams.runner import along
from tconv.streams.stream import Stream
from tconv.system.memory import check_room
from tconv.tables import Column, Table, Tabular

__all__ = ["Measured", "Push", "StreamReport", "measure", "shapes_of"]

_SHOWN_PARTS = 6  # of the latency; the others are summed


class Push(NamedTuple):
    """A push: cells of input, cells of the result that it returned, and its time."""

    frames: int
    samples: int
    ms: float


@dataclass(frozen=True)
class StreamReport(Tabular):
    """A stream's latency and state, and the times of its pushes once all code is compiled.

    Cells of the input are called frames, those of the result samples. `sample_rate` is of sound:
    the result, or the input where that has more cells. `latency_parts` are names of layers or nodes
    and the samples by which each adds to the latency. `warm_ms` is what preparation took.
    """

    latency: int
    latency_parts: tuple[tuple[str, Fraction], ...]
    ratio: Fraction
    state_bytes: int
    sample_rate: float
    pushes: tuple[Push, ...]
    flush: Push
    warm_ms: float

    # ---- time of the sound -----------------------------------------------------------------------

    def ms_of_frames(self, frames: float) -> float:
        """How long the sound of so many frames is."""
        return 1e3 * frames * max(float(self.ratio), 1.0) / self.sample_rate

    def ms_of_samples(self, samples: float) -> float:
        """How long the sound of so many samples is."""
        return self.ms_of_frames(samples / float(self.ratio))

    @property
    def real_time_factor(self) -> float:
        """Time of all pushes over the time of their sound; below 1 it is faster than the sound."""
        frames = sum(push.frames for push in self.pushes)
        return sum(push.ms for push in self.pushes) / self.ms_of_frames(frames)

    @property
    def least_frames(self) -> int:
        """Frames that the first sample needs."""
        return max(floor(self.latency / self.ratio) + 1, 1)

    @property
    def first_sound(self) -> tuple[Push, ...]:
        """The pushes up to the first that returned a sample; () if only the flush did."""
        for n, push in enumerate(self.pushes, 1):
            if push.samples:
                return self.pushes[:n]
        return ()

    # ---- the report ------------------------------------------------------------------------------

    def table(self) -> Table:
        """What the latency is made of, the largest parts first; below it the pushes."""
        ordered = sorted(self.latency_parts, key=lambda part: -abs(part[1]))
        shown, others = ordered[:_SHOWN_PARTS], ordered[_SHOWN_PARTS:]
        parts = [(name, float(samples)) for name, samples in shown]
        if others:
            parts.append((f"{len(others)} others", float(sum(each for _, each in others))))
        parts.append(("latency", self.latency))
        rows = tuple((n, _count(each), _ms(self.ms_of_samples(each))) for n, each in parts)
        columns = Column("layer", folds=True), Column("samples", right=True)
        return Table((*columns, Column("ms", right=True)), rows)

    def facts(self) -> Table:
        """Speed, first sound and state."""
        times = sorted(push.ms for push in self.pushes)
        frames, sound = max(push.frames for push in self.pushes), self.first_sound
        total = sum(push.frames for push in self.pushes)
        needs = (
            f"needs {_frames(self.least_frames)}, {_ms(self.ms_of_frames(self.least_frames))} ms"
        )
        if sound:
            arrived = sum(push.frames for push in sound)
            taken = _ms(sum(push.ms for push in sound))
            needs += (
                f"; came with push {len(sound)}, after {_frames(arrived)}, computed in {taken} ms"
            )
        else:
            needs += "; the input is shorter, all came with the flush"
        rows = (
            ("real-time factor", f"{self.real_time_factor:.3f}"),
            (
                "a push",
                f"{_ms(median(times))} ms, at most {_ms(times[-1])}, for {_frames(frames)}, "
                f"{_ms(self.ms_of_frames(frames))} ms of sound",
            ),
            ("first sound", needs),
            ("flush", f"{_ms(self.flush.ms)} ms for {_count(self.flush.samples)} samples"),
            ("pushed", f"{_frames(total)}, {_count(float(self.ratio))} samples each"),
            ("state", f"{self.state_bytes:,} bytes"),
            ("prepared", f"in {_ms(self.warm_ms)} ms (plans, compiles kernels, packs weights)"),
        )
        return Table((Column("stream"), Column("", folds=True)), rows)

    def as_dict(self) -> dict[str, Any]:
        """The report as plain values."""
        sound = self.first_sound
        return {
            "latency_samples": self.latency,
            "latency_ms": self.ms_of_samples(self.latency),
            "latency_parts": [
                {"name": name, "samples": float(samples)} for name, samples in self.latency_parts
            ],
            "samples_per_frame": float(self.ratio),
            "sample_rate": self.sample_rate,
            "state_bytes": self.state_bytes,
            "real_time_factor": self.real_time_factor,
            "first_sound": {
                "least_frames": self.least_frames,
                "least_ms": self.ms_of_frames(self.least_frames),
                "pushes": len(sound) or None,
                "frames": sum(push.frames for push in sound) or None,
                "computed_ms": sum(push.ms for push in sound) or None,
            },
            "pushes": [push._asdict() for push in self.pushes],
            "flush": self.flush._asdict(),
            "warm_ms": self.warm_ms,
        }


class Measured(NamedTuple):
    """The whole results of a stream by name, and its report."""

    outputs: dict[str, NDArray[Any]]
    report: StreamReport


def shapes_of(stream: Stream) -> dict[str, tuple[int | None, ...]]:
    """The shape of every input and output, with None along time."""
    runner, found = stream._runner, {}
    for name in (*runner.schedule.inputs, *runner.schedule.outputs):
        sizes = enumerate(runner.shape(name, 0))
        found[name] = tuple(None if n == runner.axis(name) else size for n, size in sizes)
    return found


def measure(
    stream: Stream,
    inputs: Sequence[NDArray[Any]],
    chunk: int,
    sample_rate: float,
    progress: Progress | None = None,
) -> Measured:
    """Push whole inputs chunk by chunk through a new stream, and flush it.

    Parameters
    ----------
    stream : Stream that has got nothing yet
    inputs : an array for each of its inputs, as `Stream.push` takes them
    chunk : int, frames of a push; the last push has those that are left
    sample_rate : of the sound, as for `StreamReport`
    progress : is told the frames that were pushed, and all

    >>> import tconv
    >>> layer = tconv.ConvTranspose1d(1, 1, 4, stride=2, padding=1, rng=0)
    >>> outputs, report = measure(layer.stream(), [np.ones((1, 1, 9), np.float32)], 4, 8000)
    >>> [push.samples for push in report.pushes], report.flush.samples
    ([7, 8, 2], 1)
    >>> [each.shape for each in outputs.values()], report.least_frames
    ([(1, 1, 18)], 1)
    """
    runner = stream._runner
    schedule = runner.schedule
    axes = {name: shape.index(None) for name, shape in shapes_of(stream).items()}
    arrays = stream._checked(inputs)
    total = arrays[0].shape[axes[schedule.inputs[0]]]
    if total < 1:
        raise ShapeError("the input has no cells along time; pass one with at least 1.")
    sizes = schedule.sizes(total)
    shapes = [runner.shape(name, sizes[name]) for name in schedule.outputs]
    room = sum(map(prod, shapes)) * runner.dtype.itemsize
    check_room("the result", 2 * room)
    began = perf_counter()
    for frames in {min(chunk, total), total % chunk or chunk}:
        stream.warm(frames)
    wait_for_optimised()
    warm_ms, pushes = 1e3 * (perf_counter() - began), list[Push]()
    parts: dict[str, list[NDArray[Any]]] = {name: [] for name in schedule.outputs}
    for start in range(0, total, chunk):
        stop = min(start + chunk, total)
        cut = [
            along(each, axes[name], start, stop)
            for name, each in zip(schedule.inputs, arrays, strict=True)
        ]
        pushes.append(_timed(partial(stream.push, *cut), stop - start, parts, axes))
        if progress is not None:
            progress(stop, total)
    flush = _timed(stream.flush, 0, parts, axes)
    report = StreamReport(
        stream.latency,
        tuple(stream.latency_parts),
        stream.ratio,
        stream.state_bytes,
        sample_rate,
        tuple(pushes),
        flush,
        warm_ms,
    )
    return Measured({n: np.concatenate(each, axes[n]) for n, each in parts.items()}, report)


def _timed(
    call: Callable[[], Any],
    frames: int,
    parts: Mapping[str, list[NDArray[Any]]],
    axes: Mapping[str, int],
) -> Push:
    """Call, keep the results, and return the times."""
    began = perf_counter()
    found = call()
    ms = 1e3 * (perf_counter() - began)
    for name, each in zip(parts, found if isinstance(found, list) else [found], strict=True):
        parts[name].append(each)
    first = next(iter(parts))
    return Push(frames, parts[first][-1].shape[axes[first]], ms)


def _ms(value: float) -> str:
    return f"{value:,.1f}" if abs(value) >= 10 else f"{value:.2f}"


def _count(value: float) -> str:
    """A number of cells, which may be a fraction.

    >>> _count(2582.0), _count(0.25)
    ('2,582', '0.25')
    """
    return f"{value:,.0f}" if value == round(value) else f"{value:.3g}"


def _frames(count: float) -> str:
    return f"{_count(count)} frame{'s' * (count != 1)}"
