"""Baseline of a comparison: a process that runs a model by ONNX Runtime alone.

A script that imports nothing of tconv. It reads one request per line from standard input, a JSON
object whose "do" names a function below and whose other entries are its arguments, and answers each
with one line: ``{"answer": ...}`` or ``{"error": ...}``. It ends with its input.
"""

import json
import os
import sys
from collections.abc import Callable
from time import perf_counter
from typing import Any

import numpy as np
import onnxruntime

__all__: list[str] = []

_state: dict[str, Any] = {}


def load(model: str, feeds: str, names: list[str], threads: int) -> None:
    """Load a model and its inputs, arrays "0", "1", … of an npz file, and run it once."""
    with np.load(feeds) as file:
        _state["feeds"] = {name: _array(file[str(n)]) for n, name in enumerate(names)}
    _state["session"] = _session(model, threads)
    _run()


def save_outputs(model: str, to: str, threads: int, nudge: float, runs: int) -> list[str]:
    """Run a model with the same inputs, write its outputs to an npz file, return their names.

    They are the arrays "0", "1", … of the file; an output that is no array is not written. A
    `nudge` changes every floating element of the inputs by that relative amount, up or down, or by
    the smallest one that its type resolves. The outputs are those of the last of the `runs`: in the
    first run of every session random numbers are the same.
    """
    session, feeds = _session(model, threads), _state["feeds"]
    if nudge:
        rng = np.random.default_rng(0)
        feeds = {name: _nudged(value, nudge, rng) for name, value in feeds.items()}
    for _ in range(runs):
        found = session.run(None, feeds)
    arrays = {str(n): _saved(value) for n, value in enumerate(found)}
    np.savez(to, **{n: value for n, value in arrays.items() if value is not None})
    return [output.name for output in session.get_outputs()]


def time(seconds: float) -> list[float]:
    """Run for that many seconds; return the milliseconds of each run."""
    until = perf_counter() + seconds
    taken: list[float] = []
    while not taken or perf_counter() < until:
        began = perf_counter()
        _run()
        taken.append((perf_counter() - began) * 1e3)
    return taken


def load_profiled(model: str, threads: int, folder: str) -> None:
    """Load a model with ONNX Runtime's profiler on, and run it once as a warm-up."""
    _state["profiled"] = _session(model, threads, os.path.join(folder, "profile"))
    _state["profiled"].run(None, _state["feeds"])


def time_nodes(runs: int, seconds: float) -> int:
    """Run the profiled model that many times, or for that many seconds; return the runs."""
    until, count = perf_counter() + seconds, 0
    while not count or (count < runs and perf_counter() < until):
        _state["profiled"].run(None, _state["feeds"])
        count += 1
    return count


def node_times() -> dict[str, list[float]]:
    """Milliseconds of every ConvTranspose in each run of the profiled model, by node name."""
    with open(_state.pop("profiled").end_profiling(), encoding="utf-8") as file:
        events = json.load(file)
    found: dict[str, list[float]] = {}
    for event in events:
        if event.get("args", {}).get("op_name") == "ConvTranspose" and "dur" in event:
            name = event["name"].removesuffix("_kernel_time")
            found.setdefault(name, []).append(event["dur"] / 1e3)  # microseconds
    return {name: each[1:] for name, each in found.items()}  # without the warm-up


def _session(model: str, threads: int, profile_to: str = "") -> Any:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.log_severity_level = 4
    if profile_to:
        options.enable_profiling, options.profile_file_prefix = True, profile_to
    return onnxruntime.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _run() -> None:
    _state["session"].run(None, _state["feeds"])


def _nudged(value: Any, nudge: float, rng: np.random.Generator) -> Any:
    if value.dtype.kind != "f":
        return value
    signs = rng.integers(0, 2, value.shape) * 2 - 1
    by = max(nudge, float(np.finfo(value.dtype).eps)) if value.dtype.itemsize < 4 else nudge
    return (value.astype(np.float64) * (1 + by * signs)).astype(value.dtype)


def _array(value: Any) -> Any:
    return value.astype(object) if value.dtype.kind == "U" else value


def _saved(value: Any) -> Any:
    if not isinstance(value, np.ndarray):
        return None
    return value.astype(str) if value.dtype == object else value


_REQUESTS: dict[str, Callable[..., Any]] = {
    each.__name__: each
    for each in (load, save_outputs, time, load_profiled, time_nodes, node_times)
}


def _serve() -> None:
    """Answer requests on the original standard output, and send all other output to stderr."""
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        try:
            reply = {"answer": _REQUESTS[request.pop("do")](**request)}
        except Exception as error:
            reply = {"error": str(error)}
        print(json.dumps(reply), file=out, flush=True)


if __name__ == "__main__":
    _serve()
