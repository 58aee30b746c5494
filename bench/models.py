"""Whole models of PyTorch, accelerated, compiled, and not. ``python -m bench.models``.

The same model with the same weights runs by PyTorch, by PyTorch a second time, accelerated, and
compiled by the backends "tconv" (with weights that are checked for changes, and frozen), "eager"
(what Dynamo itself costs) and "inductor" with freezing, where g++ is installed, each in a process
of its own: a forward pass without gradients, and a step of training. Answers are compared with
float64 before anything is timed. The processes take turns and start anew, five times, since where
their memory lies decides some per cent; the ratio is the median of theirs.
"""

import argparse
import os
import shutil
import sys
import tempfile
from collections.abc import Callable, Sequence
from itertools import chain, cycle
from math import inf
from pathlib import Path
from statistics import geometric_mean, median
from time import perf_counter
from typing import Any

import numpy as np

from bench.machine import cores
from bench.peers import Thunk
from bench.report import milliseconds, show, table, threads_of, where
from bench.rounds import Limits, joined, take_turns
from bench.run import measure_rows
from bench.server import Contender, Failed, write_reference
from bench.store import Line, finish, parsed

MODELS = {
    "hifigan": "HiFi-GAN V1 generator, 32 frames",
    "unet": "U-Net, 128 x 128",
    "dcgan": "DCGAN generator, batch 16",
    "unet3d": "3-D U-Net, 32 x 32 x 32",
    "masks": "SAM's mask decoder head",
    "encodec": "EnCodec's decoder, 1 s",
    "dac": "DAC's decoder, 0.5 s",
    "mimi": "Mimi's decoder, 2 s",
    "speech": "SpeechT5's HiFi-GAN, 60 frames",
}
"""Titles of the models of `bench.decoders` and `bench.codecs`, which need PyTorch."""
PLAIN, AGAIN, LAYERS, COMPILED = "torch", "again", "layers", "compiled"
FROZEN, DYNAMO, INDUCTOR = "frozen", "dynamo", "inductor"
MODES = {
    "forward": ("forward", (PLAIN, LAYERS, COMPILED, FROZEN, AGAIN, DYNAMO, INDUCTOR)),
    "training": ("training step", (PLAIN, LAYERS, AGAIN)),
}
"""Titles of the modes, and who takes part."""
WHO = {
    PLAIN: "torch", AGAIN: "torch", LAYERS: "accelerated", COMPILED: "compiled",
    FROZEN: "frozen", DYNAMO: "dynamo", INDUCTOR: "inductor",
}  # fmt: skip
"""Contenders by their names in reports, and their names in functions here."""

PAIRS = 5
LEAST = 0.98
"""A lower ratio is a loss, unless PyTorch against itself is as low."""
COMPILE_CAP_S = 900.0


def __getattr__(name: str) -> Any:
    """Contenders by name: MODEL_MODE_WHO."""
    words = name.split("_")
    if len(words) != 3 or words[0] not in MODELS or words[1] not in MODES:
        raise AttributeError(name)
    return lambda dtype, threads: contender(words[0], words[1], words[2], dtype, threads)


class Call:
    """A forward pass or a step of training, and seconds until it was ready."""

    def __init__(self, run: Callable[[], Any]) -> None:
        began = perf_counter()
        run()
        self._run, self.ready_s = run, perf_counter() - began

    def __call__(self) -> Any:
        return self._run()

    def describe(self) -> dict[str, Any]:
        """Seconds of the first call."""
        return {"ready_s": self.ready_s}


def made(model: str, dtype: Any, **options: Any) -> tuple[Any, Any]:
    """A model and its input."""
    from bench.codecs import CODECS, codec
    from bench.decoders import made as decoder

    return codec(model, dtype) if model in CODECS else decoder(model, dtype, **options)


def contender(model: str, mode: str, who: str, dtype: str, threads: int, **options: Any) -> Thunk:
    """Set a model up, accelerated, compiled or not, and return what calls it."""
    import torch

    torch.set_num_threads(threads)
    network, x = made(model, getattr(torch, dtype), **options)
    if mode != "training":
        network.eval()
    run = network
    if who == "accelerated":
        import tconv.torch

        tconv.torch.accelerate(network)
    elif who in ("compiled", "frozen"):
        run = torch.compile(network, backend="tconv", options={"frozen": who == "frozen"})
    elif who == "dynamo":
        run = torch.compile(network, backend="eager")
    elif who == "inductor":
        run = _by_inductor(network)
    call = Call(_step(network, x, dtype) if mode == "training" else _forward(run, x))
    if who in ("accelerated", "compiled", "frozen"):
        from tconv.engine import wait_for_optimised

        wait_for_optimised()
    return call


def _by_inductor(network: Any) -> Any:
    """A model compiled to C++ with its weights as constants, once in a run of the benchmark."""
    if shutil.which("g++") is None:
        raise RuntimeError("inductor needs g++: apt-get install g++")
    folder = Path(tempfile.gettempdir()) / f"tconv-bench-inductor-{os.getppid()}"
    os.environ["TORCHINDUCTOR_CACHE_DIR"] = str(folder)
    import torch
    import torch._inductor.config as config

    config.freezing = True
    return torch.compile(network)


def _forward(network: Any, x: Any) -> Callable[[], Any]:
    import torch

    def forward() -> Any:
        with torch.no_grad():
            return network(x).numpy()

    return forward


def _step(network: Any, x: Any, dtype: str) -> Callable[[], Any]:
    """A step at a rate of 0, so that each computes the same.

    One number of each weight goes up and down by its last bit, so that they are packed anew.
    """
    import torch

    optimiser = torch.optim.SGD(network.parameters(), lr=0.0)
    ends = cycle([torch.tensor(inf, dtype=x.dtype), torch.tensor(-inf, dtype=x.dtype)])

    def step() -> Any:
        optimiser.zero_grad()
        loss = (network(x) ** 2).mean()
        loss.backward()
        optimiser.step()
        end = next(ends)
        with torch.no_grad():
            for each in network.parameters():
                each[(0,) * each.ndim].nextafter_(end)
        return np.array([loss.item()], dtype)  # gradients are compared by the tests

    return step


# ---- measuring -----------------------------------------------------------------------------------


def measure_models(
    names: Sequence[str], threads: Sequence[int], pairs: int, limits: Limits
) -> dict[str, Any]:
    """Measure models by name, and say where and with what."""
    modes = {title: mode for mode, (title, _) in MODES.items()}

    def rows(title: str, count: int, folder: Path) -> list[dict[str, Any]]:
        return [_measure(name, modes[title], count, pairs, folder, limits) for name in names]

    return measure_rows([(title, count) for title in modes for count in threads], rows)


def _measure(
    name: str, mode: str, threads: int, pairs: int, folder: Path, limits: Limits
) -> dict[str, Any]:
    """Measure one model; a record in the form of a case, of each process one list of times."""
    print(f"models: {name}, {mode}, {threads} threads", file=sys.stderr, flush=True)
    cache, path = str(folder / "cache"), str(folder / f"{name}-{mode}")
    functions = {own: f"bench.models:{name}_{mode}_{WHO[own]}" for own in MODES[mode][1]}
    order = {"dtype": "float32", "threads": threads, "reference": path}
    found: dict[str, Any] = {}
    busy: list[float] = []
    try:
        if not Path(path).exists():
            write_reference(functions[PLAIN], cores(), cache, path)
        for _ in range(pairs):
            contenders = [Contender(own, each, threads, cache) for own, each in functions.items()]
            try:
                records, others = take_turns(contenders, "prepare_network", order, limits)
                for each in contenders:
                    record = records[each.name]
                    if "us" in record:
                        record["us"] = [list(chain(*record["us"]))]
                        record["ready_s"] = [each.ask("describe")["ready_s"]]
            finally:
                for each in contenders:
                    each.close()
            busy += [] if others is None else [others]
            found = {own: joined(found.get(own), record) for own, record in records.items()}
    except Failed as failure:
        found = {own: {"failed": str(failure)} for own in functions}
    return {"case": MODELS[name], "others": max(busy, default=None), "contenders": found}


# ---- the table -----------------------------------------------------------------------------------


def page(results: dict[str, Any]) -> list[str]:
    """A row for each model, mode and number of threads: PyTorch's time, and ratios to it."""
    rows, reasons, compiling = list[list[str]](), list[str](), list[list[str]]()
    losses = list[bool]()
    for part in results["parts"]:
        for row in part["rows"]:
            them = row["contenders"]
            head = [row["case"], part["title"], str(part["threads"])]
            cells = [
                f"{show(_middle(them, own, min))} / {show(_middle(them, own, median))}"
                if own in them
                else ""
                for own in (LAYERS, COMPILED, FROZEN, AGAIN, DYNAMO, INDUCTOR)
            ]
            rows.append([*head, milliseconds(time_of(them[PLAIN])), *cells,
                         show(row["others"], 1, "?")])  # fmt: skip
            if INDUCTOR in them:
                times = [them[own].get("ready_s") for own in (COMPILED, INDUCTOR)]
                compiling.append(
                    [row["case"], str(part["threads"]),
                     *[show(each[0] if each else None, 1) for each in times],
                     *[show(each[-1] if each else None, 1) for each in times]]
                )  # fmt: skip
            for own in (LAYERS, COMPILED):
                for statistic in (min, median):
                    ratio = _middle(them, own, statistic)
                    if ratio is not None and ratio < LEAST:
                        same = ratios(them, AGAIN, statistic)
                        losses.append(bool(same) and ratio < min(same))
            for name, each in them.items():
                if "failed" in each:
                    reasons += [f"{row['case']}, {name}: {each['failed']}.", ""]
    titles = ["model", "what", "threads", "PyTorch, ms", "accelerate", "compile"]
    titles += ["compile, frozen", "A/A", "Dynamo alone", "inductor", "others"]
    pairs = max(len(row["contenders"][PLAIN].get("us", ())) for row in _all_rows(results))
    shown = [
        *table(titles, rows, 2), "", *dict.fromkeys(reasons),
        "Ratios: PyTorch's time over the other's, above 1 where the other is faster: the median "
        f"over {pairs} pair{'s' * (pairs != 1)} of processes that took turns, of their fastest "
        "runs / of their medians. A/A: PyTorch and a second process of it. Dynamo alone: "
        "`torch.compile(backend=\"eager\")`. inductor: `torch.compile` with freezing, by g++. "
        "Ratios of accelerate and compile below "
        f"{LEAST:g}: {len(losses)}; of these below every A/A ratio of their row: {sum(losses)}. "
        "Times are minima. Others: cores that other programs kept busy meanwhile.",
        "",
    ]  # fmt: skip
    if compiling:
        heads = ["model", "threads", "compile, s", "inductor, s", "again, s", "inductor again, s"]
        shown += [
            *table(heads, compiling), "",
            "Seconds of a first call with empty caches on disk, and in a later process.", "",
        ]  # fmt: skip
    return [*shown, where(results)]


def _all_rows(results: dict[str, Any]) -> list[dict[str, Any]]:
    return [row for part in results["parts"] for row in part["rows"]]


def lines(results: dict[str, Any]) -> list[Line]:
    """The means of every part, for the history."""
    found = []
    for part in results["parts"]:
        for own, name in ((LAYERS, "accelerated"), (COMPILED, "compiled")):
            both = [
                [value for row in part["rows"] if (value := _middle(row["contenders"], own, how))]
                for how in (min, median)
            ]
            if both[1]:
                what = f"{part['title']}, {threads_of(part)}"
                means = geometric_mean(both[0]), geometric_mean(both[1])
                found.append(Line(what, name, "PyTorch", len(both[1]), *means, min(both[1])))
    return found


def ratios(
    contenders: dict[str, Any], own: str, statistic: Callable[[list[float]], float]
) -> list[float]:
    """PyTorch's time over another one's, for each pair of processes."""
    plain, other = (contenders.get(name, {}).get("us", []) for name in (PLAIN, own))
    pairs = zip(plain, other, strict=False)
    return [statistic(theirs) / statistic(ours) for theirs, ours in pairs]


def beside(contenders: dict[str, Any], own: str = LAYERS) -> float | None:
    """PyTorch's time over another one's, the median over pairs of processes of their medians."""
    return _middle(contenders, own, median)


def _middle(
    contenders: dict[str, Any], own: str, statistic: Callable[[list[float]], float]
) -> float | None:
    found = ratios(contenders, own, statistic)
    return median(found) if found else None


def time_of(record: dict[str, Any]) -> float | None:
    """Seconds of the fastest run of all processes."""
    return min(map(min, record["us"])) / 1e6 if "us" in record else None


def main(words: Sequence[str] | None = None) -> None:
    """Measure, write the samples, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.models", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=[*MODELS])
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, min(2, cores())}))
    parser.add_argument("--pairs", type=int, default=PAIRS, help="processes of each, in turns")
    arguments, is_whole = parsed(parser, words)
    limits = Limits(
        8, slice_s=0.0, least_runs=2, case_cap_s=4.0, prepare_cap_s={INDUCTOR: COMPILE_CAP_S}
    )
    results = measure_models(arguments.models, arguments.threads, arguments.pairs, limits)
    print("\n".join(page(results)))
    finish(results, "models", lines(results), arguments, is_whole)


if __name__ == "__main__":
    main()
