"""Comparison of a session with ONNX Runtime alone: outputs and times."""

import json
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from math import inf
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory, TemporaryFile
from time import perf_counter, sleep
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray
from onnx import ValueInfoProto

from tconv.errors import ModelError, UnsupportedError
from tconv.geometry.arguments import as_number, as_threads
from tconv.onnx.interleaved_timing import Rounds
from tconv.onnx.model.model import NodeArg, Source, as_source, read_model
from tconv.onnx.model.nodes import NotPartitionable, is_conv_transpose
from tconv.onnx.ort.sessions import clean_message
from tconv.onnx.report import (
    NUDGE,
    ROUNDING,
    Comparison,
    NodeComparison,
    OfflineComparison,
    ResultComparison,
)
from tconv.onnx.session import Session, checked_feed

__all__ = ["compare", "compare_results"]

_ROUNDS = 5  # of both contenders
_PAUSE_S = 0.05  # before each contender's turn, in which the other's threads go to sleep
_TIMED_NODES = 10  # runs of each round in which nodes are timed
_PREFIX = "tconv.compare."  # of the nodes' names in the profiled copy


def compare(
    model: Any,
    input_feed: Mapping[str, Any],
    *,
    threads: int | None = None,
    method: str = "auto",
    force: bool = False,
    seconds: float = 1.0,
) -> Comparison:
    """Run a model by `Session` and by ONNX Runtime alone; compare outputs and times.

    ONNX Runtime runs in a process of its own with its default options. The two run in interleaved
    rounds, never at the same time. ONNX Runtime's time of a single node comes from its profiler, in
    runs that are not counted. Other programs that keep the cores busy slow down both. So the time
    of a node is that of its fastest run, in which no thread waited, and a ratio is shown only if
    the same library was faster in every round.

    If the outputs differ by more than rounding explains, ONNX Runtime alone runs again with every
    floating input changed by 1e-7 of it, and with the same inputs. The comparison says how far its
    own output moves in both cases: a recurrent network may amplify rounding as much, and a model
    that draws random numbers never repeats an output.

    Parameters
    ----------
    model, threads, method, force : as for `Session`
    input_feed : as for `Session.run`
    seconds : float, how long each of the two is timed

    Returns
    -------
    Comparison, whose `outputs` are tconv's; ``print`` it for a table

    Raises
    ------
    ModelError : ONNX Runtime alone cannot run the model
    UnsupportedError : an input is no array
    as `Session` and `Session.run`

    >>> import tconv.onnx
    >>> layer = tconv.ConvTranspose2d(1, 1, 2, stride=2, rng=0)
    >>> x = np.ones((1, 1, 2, 3), np.float32)
    >>> both = tconv.onnx.compare(layer.to_onnx(), {"x": x}, force=True, seconds=0.01)
    >>> both.largest_difference < 1e-6, both.outputs["y"].shape, len(both.nodes)
    (True, (1, 1, 4, 6), 1)
    """
    threads = as_threads(threads)
    seconds = as_number(seconds, "seconds", 0)
    source = as_source(model)
    session = Session(source, threads=threads, method=method, force=force)
    input_feed = checked_feed(
        session.get_inputs(), session.get_overridable_initializers(), input_feed
    )
    outputs = _named(session.get_outputs(), session.run(None, input_feed))
    with TemporaryDirectory() as folder, _baseline() as ask:
        original, profiled = _files(source, Path(folder))
        alone = _Alone(ask, Path(folder), original, input_feed, threads or 0)
        ask(do="load_profiled", model=profiled, threads=threads or 0, folder=folder)
        times = _time_rounds(session, input_feed, ask, seconds)
        observer = Session(profiled, threads=threads, method=method, force=force)
        own = _named(observer.get_outputs(), observer.run(None, input_feed)) | outputs
        theirs = alone.outputs(profiled)
        apart = {name: _difference(own.get(name), theirs[name]) for name in theirs}
        results = _results(outputs, theirs, apart, alone)
    nodes = []
    for n, node in enumerate(session.report().nodes):
        difference, largest = apart.get(node.output, (None, None))
        ours = times.layers.get(node.output, Rounds([]))
        other = times.others.get(f"{_PREFIX}{n}", Rounds([]))
        nodes.append(
            NodeComparison(
                node.name,
                node.computed_by,
                node.reason,
                node.x_shape,
                np.shape(theirs[node.output]) if node.output in theirs else None,
                difference,
                largest,
                ours.fastest,
                other.fastest,
                node.folded,
                _faster(ours.faster_than(other, min)),
            )
        )
    runs = min(len(times.own), len(times.other))
    ms = times.own.median or 0.0, times.other.median or 0.0
    faster = _faster(times.own.faster_than(times.other, median))
    decision = session.report().decision
    return Comparison(tuple(nodes), results, *ms, runs, outputs, faster, decision)


def compare_results(
    model: Any,
    input_feed: Mapping[str, NDArray[Any]],
    results: Mapping[str, NDArray[Any]],
    *,
    threads: int | None = None,
    seconds: float = 1.0,
) -> OfflineComparison:
    """Compare results that were computed in another way with those of ONNX Runtime alone.

    ONNX Runtime runs the model in a process of its own, as for `compare`.

    >>> import tconv
    >>> layer = tconv.ConvTranspose1d(1, 1, 2, stride=2, rng=0)
    >>> x = np.ones((1, 1, 3), np.float32)
    >>> found = compare_results(layer.to_onnx(), {"x": x}, {"y": layer(x)}, seconds=0.01)
    >>> found.results[0].shape, found.largest_difference < 1e-6, found.onnxruntime_ms > 0
    ((1, 1, 6), True, True)
    """
    threads, source = as_threads(threads), as_source(model)
    with TemporaryDirectory() as folder, _baseline() as ask:
        path = source
        if isinstance(source, bytes):
            path = str(Path(folder, "model.onnx"))
            Path(path).write_bytes(source)
        alone = _Alone(ask, Path(folder), str(path), input_feed, threads or 0)
        theirs = alone.outputs(alone.original)
        apart = {name: _difference(results.get(name), theirs[name]) for name in theirs}
        found = _results(results, theirs, apart, alone)
        return OfflineComparison(found, median(ask(do="time", seconds=seconds)))


class _Alone:
    """A model in the baseline's process, with its inputs in a file."""

    def __init__(
        self,
        ask: Callable[..., Any],
        folder: Path,
        original: str,
        feed: Mapping[str, Any],
        threads: int,
    ) -> None:
        self._ask, self._folder, self.original, self._threads = ask, folder, original, threads
        feeds, fed = str(folder / "feeds.npz"), list(feed)
        stored: Any = {str(n): _stored(name, feed[name]) for n, name in enumerate(fed)}
        np.savez(feeds, **stored)
        self.is_floating = any(value.dtype.kind == "f" for value in stored.values())
        ask(do="load", model=original, feeds=feeds, names=fed, threads=threads)

    def outputs(self, model: str, nudge: float = 0.0, runs: int = 1) -> dict[str, NDArray[Any]]:
        """The outputs of a model for these inputs, as `save_outputs` of baseline.py has them."""
        file = str(self._folder / "outputs.npz")
        how = {"to": file, "threads": self._threads, "nudge": nudge, "runs": runs}
        names = self._ask(do="save_outputs", model=model, **how)
        with np.load(file) as arrays:
            return {name: arrays[str(n)] for n, name in enumerate(names) if str(n) in arrays}


def _results(
    outputs: Mapping[str, Any],
    theirs: Mapping[str, NDArray[Any]],
    apart: Mapping[str, tuple[float, float]],
    alone: _Alone,
) -> tuple[ResultComparison, ...]:
    """Compare every output; beyond rounding, how far ONNX Runtime's own outputs move, too."""
    moved: dict[str, tuple[float, float]] = {}
    beyond = any(_is_beyond_rounding(theirs[n], *apart[n]) for n in theirs.keys() & outputs)
    if beyond and alone.is_floating:
        with suppress(ModelError):  # it may refuse other inputs
            before, again = alone.outputs(alone.original), alone.outputs(alone.original, runs=2)
            nudged = alone.outputs(alone.original, NUDGE)
            moved = {
                n: (
                    _difference(nudged.get(n), before[n])[0],
                    _difference(again.get(n), before[n])[0],
                )
                for n in before
            }
    return tuple(
        ResultComparison(name, np.shape(outputs[name]), *apart[name], *moved.get(name, ()))
        for name in outputs
        if name in apart
    )


class _Times(NamedTuple):
    """Times of the whole model by both, of tconv's layers by output, and of the other's nodes."""

    own: Rounds
    other: Rounds
    layers: dict[str, Rounds]
    others: dict[str, Rounds]


def _time_rounds(
    session: Session, feed: Mapping[str, Any], ask: Callable[..., Any], seconds: float
) -> _Times:
    own: list[list[float]] = []
    other: list[list[float]] = []
    layers: dict[str, list[list[float]]] = {}
    counts: list[int] = []
    for n in range(_ROUNDS):
        sleep(_PAUSE_S)
        own.append([])
        until = perf_counter() + seconds / _ROUNDS
        while not own[-1] or perf_counter() < until:
            session.run(None, feed)
            report = session.report()
            own[-1].append(report.elapsed_ms or 0.0)
            for node in report.nodes if len(own[-1]) <= _TIMED_NODES else ():
                if node.ms is not None:
                    runs = layers.setdefault(node.output, [[] for _ in range(_ROUNDS)])
                    runs[n].append(node.ms)
        sleep(_PAUSE_S)
        other.append(ask(do="time", seconds=seconds / _ROUNDS))
        sleep(_PAUSE_S)
        counts.append(ask(do="time_nodes", runs=_TIMED_NODES, seconds=seconds / _ROUNDS))
    others = {
        name: Rounds([each[sum(counts[:n]) : sum(counts[: n + 1])] for n in range(_ROUNDS)])
        for name, each in ask(do="node_times").items()
    }
    ours = {name: Rounds(each) for name, each in layers.items()}
    return _Times(Rounds(own), Rounds(other), ours, others)


def _faster(is_own: bool | None) -> str | None:
    """Name of the faster contender; None if the rounds disagree."""
    return None if is_own is None else "tconv" if is_own else "onnxruntime"


def _is_beyond_rounding(theirs: NDArray[Any], difference: float, largest: float) -> bool:
    """Whether the difference is too large for another order of summation."""
    is_half = theirs.dtype == np.float16
    if difference == inf:  # different shapes, or NaN in one of the two
        return theirs.dtype.kind in "biufc"
    return difference > largest * (4 * float(np.finfo(np.float16).eps) if is_half else ROUNDING)


def _files(source: Source, folder: Path) -> tuple[str, str]:
    """Paths of the model, and of a copy whose outputs include those of every ConvTranspose."""
    path = source
    if isinstance(source, bytes):
        Path(folder, "model.onnx").write_bytes(source)
        path = str(Path(folder, "model.onnx"))
    try:
        model = read_model(source)
    except NotPartitionable:  # only ONNX Runtime can read it
        return str(path), str(path)
    own = {output.name for output in model.graph.output}
    layers = [node for node in model.graph.node if is_conv_transpose(node)]
    for n, node in enumerate(layers):
        node.name = f"{_PREFIX}{n}"
        if node.output[0] not in own:
            model.graph.output.append(ValueInfoProto(name=node.output[0]))
    profiled = folder / "profiled.onnx"
    profiled.write_bytes(model.SerializeToString())
    return str(path), str(profiled)


def _stored(name: str, value: Any) -> NDArray[Any]:
    """Convert an input to an array that a file can hold without pickling."""
    array = np.asarray(value)
    if array.dtype == object:
        array = array.astype(str)
    if isinstance(value, list | tuple) and any(np.ndim(each) for each in value):
        raise UnsupportedError(
            f"input_feed[{name!r}] is a sequence of arrays, which cannot be handed to another "
            "process; compare the outputs of Session.run and InferenceSession.run yourself."
        )
    return array


def _named(outputs: list[NodeArg], values: list[Any]) -> dict[str, Any]:
    return {output.name: value for output, value in zip(outputs, values, strict=True)}


def _difference(a: Any, b: Any) -> tuple[float, float]:
    """Largest absolute difference and value; NaN equals NaN, and unequal strings differ by inf."""
    a, b = np.asarray(a), np.asarray(b)
    if a.shape != b.shape:
        return inf, inf
    if a.dtype.kind not in "biufc":
        return (0.0 if np.array_equal(a.astype(str), b.astype(str)) else inf), inf
    if a.size == 0:
        return 0.0, 0.0
    kind = np.complex128 if a.dtype.kind == "c" else np.float64
    a, b = a.astype(kind), b.astype(kind)
    with np.errstate(invalid="ignore"):  # infinity minus infinity
        apart = np.where((a == b) | (np.isnan(a) & np.isnan(b)), 0.0, np.abs(a - b))
    apart[np.isnan(apart)] = inf
    return float(apart.max()), float(
        np.abs(np.nan_to_num(b, nan=0.0, posinf=inf, neginf=-inf)).max()
    )


@contextmanager
def _baseline() -> Iterator[Callable[..., Any]]:
    """Start the baseline's process and yield a function that sends it requests."""
    script = str(Path(__file__).with_name("baseline.py"))
    with TemporaryFile() as complaints:
        # -P keeps the script's folder off the path: its files are named like other packages.
        process = subprocess.Popen(
            [sys.executable, "-P", script],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=complaints,
            text=True,
            encoding="utf-8",
        )

        def ask(**request: Any) -> Any:
            try:
                print(json.dumps(request), file=process.stdin, flush=True)
                line = process.stdout.readline() if process.stdout else ""
            except OSError:
                line = ""
            if not line:
                complaints.seek(0)
                last = complaints.read().decode("utf-8", "replace").strip().splitlines()[-1:]
                raise ModelError(
                    f"the process of ONNX Runtime alone ended with code {process.wait()}"
                    f"{': ' if last else ''}{''.join(last)}; run without a comparison."
                )
            reply = json.loads(line)
            if "error" in reply:
                message = clean_message(RuntimeError(reply["error"]))
                raise ModelError(
                    f"ONNX Runtime alone cannot run the model: {message}; run without a comparison."
                )
            return reply["answer"]

        try:
            yield ask
        finally:
            process.kill()
            process.wait()
            for pipe in (process.stdin, process.stdout):
                if pipe:
                    with suppress(OSError):
                        pipe.close()
