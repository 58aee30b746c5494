"""Streams of a decoder, beside one call for the whole sound. ``python -m bench.streams``.

The decoder of Piper's voice, a HiFi-GAN that looks ahead, gets the same latents frame by frame, by
more frames at a time, by pushes of random lengths, and in one call: by tconv with
``method="direct"``, whose bits the streams have, and by ONNX Runtime. Each has a process of its
own; they take turns, and their sounds are compared before anything is timed. A sound is timed from
its first push to the end of the flush. Inside of the sound, pushes are timed one by one, and the
steps of their programs apart from them: what is left is Python and copies.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain, pairwise
from pathlib import Path
from statistics import geometric_mean, median
from time import perf_counter
from typing import Any

import numpy as np

from bench.machine import cores
from bench.networks import path_of
from bench.peers import Thunk
from bench.report import milliseconds, show, table, threads_of, where
from bench.rounds import Limits, joined, take_turns
from bench.run import measure_rows
from bench.server import Contender, Failed, write_reference
from bench.store import Line, finish, parsed

SEED, FRAMES, PAIRS = 0, 256, 5
CHANNELS, SAMPLES, SAMPLE_RATE = 192, 256, 22_050  # of a frame, and of a second
LATENTS, SOUND = "/Mul_7_output_0", "/dec/Tanh_output_0"  # where the decoder begins and ends
WHOLE, PLAIN, RANDOM = "whole", "onnxruntime", "random"
LENGTHS = (1, 2, 4, 8, 16, 64)
PUSHES = {f"push{n}": (n,) for n in LENGTHS} | {RANDOM: (1, 2, 3, 4, 5, 6, 7)}
"""Contenders that stream, and the lengths of their pushes; of several each one is drawn."""

LIMITS = Limits(rounds=8, slice_s=0.12, least_runs=1, case_cap_s=2.0)
TIMED = 40  # pushes inside of the sound


def latents() -> np.ndarray:
    """The same in every process."""
    return np.random.default_rng(SEED).standard_normal((1, CHANNELS, FRAMES), np.float32)


# ---- contenders ----------------------------------------------------------------------------------


def __getattr__(name: str) -> Any:
    """Contenders that stream, by name."""
    if name not in PUSHES:
        raise AttributeError(name)
    return partial(streamed, PUSHES[name])


def whole(dtype: str, threads: int) -> Thunk:
    """One call of tconv."""
    from tconv.engine import wait_for_optimised
    from tconv.graph import Programs
    from tconv.onnx.model_part import open_model, part_of_model

    part = part_of_model(open_model(path_of("piper")), [LATENTS], [SOUND], {})
    programs, x = Programs(part, threads, method="direct"), latents()
    programs([x])
    wait_for_optimised()
    return lambda: programs([x])[0]


def onnxruntime(dtype: str, threads: int) -> Thunk:
    """One call of ONNX Runtime, of the part of the model."""
    from onnx import load
    from onnx.utils import Extractor
    from onnxruntime import InferenceSession, SessionOptions

    part = Extractor(load(path_of("piper"))).extract_model([LATENTS], [SOUND])
    options = SessionOptions()
    options.intra_op_num_threads, options.log_severity_level = threads, 3
    session = InferenceSession(
        part.SerializeToString(), options, providers=["CPUExecutionProvider"]
    )
    feed = {LATENTS: latents()}
    return lambda: session.run(None, feed)[0].astype(dtype)


class Streamed:
    """A stream that gets all latents and is flushed, again and again."""

    def __init__(self, lengths: Sequence[int], threads: int) -> None:
        from tconv.engine import wait_for_optimised
        from tconv.onnx import Stream

        self.stream = Stream(path_of("piper"), inputs=LATENTS, outputs=SOUND, threads=threads)
        rng, x = np.random.default_rng(SEED), latents()
        ends = np.cumsum(rng.choice(lengths, FRAMES))
        ends = [0, *ends[ends < FRAMES].tolist(), FRAMES]
        self.parts = [x[:, :, a:b].copy() for a, b in pairwise(ends)]
        for each in lengths:
            self.stream.warm(each)
        self()
        wait_for_optimised()

    def __call__(self) -> np.ndarray:
        self.stream.reset()
        return np.concatenate([*map(self.stream.push, self.parts), self.stream.flush()], 2)

    def describe(self) -> dict[str, Any]:
        """Milliseconds of a push inside of the sound, and of the steps of its programs."""
        from tconv.streams.runner import along

        runner: Any = self.stream._runner
        self.stream.reset()
        self.stream.push(latents())
        taken, steps = list[float](), list[float]()
        inner = self.parts[1:-1] or self.parts
        for n in range(TIMED):
            part = inner[n % len(inner)]
            began = perf_counter()
            self.stream.push(part)
            taken.append(perf_counter() - began)
            total = 0.0
            for length in runner.lengths.cut(part.shape[2]):
                names, program = runner._program(length, False)
                given = [np.zeros(shape, np.float32) for shape in runner._shapes(names, length)]
                given[0][...] = along(latents(), 2, 0, length)
                total += sum(program.times(given, 3))
            steps.append(total)
        return {"push_ms": 1e3 * median(taken), "steps_ms": 1e3 * median(steps)}


def streamed(lengths: Sequence[int], dtype: str, threads: int) -> Thunk:
    """Pushes of these lengths."""
    return Streamed(lengths, threads)


# ---- measuring -----------------------------------------------------------------------------------


def measure_streams(threads: Sequence[int], pairs: int, limits: Limits) -> dict[str, Any]:
    """Measure all contenders, and say where and with what."""

    def rows(_: str, count: int, folder: Path) -> list[dict[str, Any]]:
        return [_measure(count, pairs, folder, limits)]

    return measure_rows([("streams", count) for count in threads], rows)


def _measure(threads: int, pairs: int, folder: Path, limits: Limits) -> dict[str, Any]:
    """A record in the form of a case, of each process one list of times."""
    print(f"streams: {threads} threads", file=sys.stderr, flush=True)
    cache, path = str(folder / "cache"), str(folder / f"streams-{threads}")
    functions = {name: f"bench.streams:{name}" for name in (WHOLE, PLAIN, *PUSHES)}
    order = {"dtype": "float32", "threads": threads, "reference": path}
    found: dict[str, Any] = {}
    busy: list[float] = []
    try:
        write_reference(functions[PLAIN], threads, cache, path)
        for _ in range(pairs):
            contenders = [Contender(name, each, threads, cache) for name, each in functions.items()]
            try:
                records, others = take_turns(contenders, "prepare_network", order, limits)
                for each in contenders:
                    if "us" in records[each.name]:
                        times = [list(chain(*records[each.name]["us"]))]
                        records[each.name] |= {"us": times, "by": [each.ask("describe")]}
            finally:
                for each in contenders:
                    each.close()
            busy += [] if others is None else [others]
            found = {name: joined(found.get(name), record) for name, record in records.items()}
    except Failed as failure:
        found = {name: {"failed": str(failure)} for name in functions}
    return {"case": "Piper's decoder", "others": max(busy, default=None), "contenders": found}


# ---- the table -----------------------------------------------------------------------------------


def page(results: dict[str, Any]) -> list[str]:
    """A row for each way and number of threads."""
    rows, reasons = list[list[str]](), list[str]()
    for part in results["parts"]:
        (row,) = part["rows"]
        them = row["contenders"]
        for name, record in them.items():
            if "failed" in record:
                reasons += [f"{title_of(name)}: {record['failed']}.", ""]
            rows.append(_row(str(part["threads"]), name, them, row["others"]))
    titles = [
        *("threads", "way", "ms", "one call", "of real time", "a push, ms", "its steps, ms"),
        *("others, %", "difference", "load"),
    ]
    return [
        *table(titles, rows, 2), "", *reasons,
        f"{FRAMES} frames, {FRAMES * SAMPLES / SAMPLE_RATE:.2f} s of sound. One call: how many "
        "times as long as one call of tconv, whose bits all streams have: by the fastest runs / by "
        "medians, each the median over pairs of processes that took turns. Of real time: the time "
        "of all pushes and the flush over that of the sound. A push: median inside of the sound; "
        "its steps: the native steps of its programs, timed one by one; others, %: what the rest "
        "of a push takes of it. Difference: from ONNX Runtime's sound, of the largest sample. "
        "Load: cores that other programs kept busy meanwhile.", "",
        where(results),
    ]  # fmt: skip


def title_of(name: str) -> str:
    """A contender in words."""
    if name in (WHOLE, PLAIN):
        return {WHOLE: "one call", PLAIN: "one call of ONNX Runtime"}[name]
    lengths = PUSHES[name]
    if len(lengths) > 1:
        return f"pushes of {lengths[0]} to {lengths[-1]} frames, drawn"
    return f"pushes of {lengths[0]} frame{'s' * (lengths[0] > 1)}"


def _row(threads: str, name: str, them: dict[str, Any], load: float | None) -> list[str]:
    record = them[name]
    if "us" not in record:
        return [threads, title_of(name), *["–"] * 8]
    fastest = min(map(min, record["us"]))
    both = [median(ratios(them, name, statistic)) for statistic in (min, median)]
    cells = [threads, title_of(name), milliseconds(fastest / 1e6), " / ".join(map(show, both))]
    cells.append(f"{fastest / 1e6 / (FRAMES * SAMPLES / SAMPLE_RATE):.3f}")
    pushes = [median(each[key] for each in record["by"] if each) if any(record["by"]) else None
              for key in ("push_ms", "steps_ms")]  # fmt: skip
    if None in pushes:
        cells += ["–"] * 3
    else:
        push, steps = pushes
        cells += [f"{push:.2f}", f"{steps:.2f}", f"{100 * (push - steps) / push:.0f}"]
    return [*cells, f"{record['error']:.0e}", show(load, 1, "?")]


def ratios(
    them: dict[str, Any], name: str, statistic: Callable[[list[float]], float]
) -> list[float]:
    """Time over that of one call, for each pair of processes."""
    pairs = zip(them[name].get("us", []), them[WHOLE].get("us", []), strict=False)
    return [statistic(ours) / statistic(one) for ours, one in pairs]


def lines(results: dict[str, Any]) -> list[Line]:
    """For the history: the time of one call over that of each way to stream."""
    found = []
    for part in results["parts"]:
        (row,) = part["rows"]
        for name in PUSHES:
            means = [
                [1 / value for value in ratios(row["contenders"], name, statistic)]
                for statistic in (min, median)
            ]
            if means[0]:
                what = f"{title_of(name)}, {threads_of(part)}"
                averages = [geometric_mean(each) for each in means]
                found.append(Line(what, "stream", "one call", 1, *averages, min(means[1])))
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Measure, write the samples, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.streams", description=__doc__)
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, min(2, cores())}))
    parser.add_argument("--pairs", type=int, default=PAIRS, help="processes of each, in turns")
    parser.add_argument("--quick", action="store_true", help="one process of each")
    arguments, is_whole = parsed(parser, words)
    path_of("piper")
    results = measure_streams(arguments.threads, 1 if arguments.quick else arguments.pairs, LIMITS)
    print("\n".join(page(results)))
    finish(results, "streams", lines(results), arguments, is_whole)


if __name__ == "__main__":
    main()
