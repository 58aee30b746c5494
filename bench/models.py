"""Whole models of PyTorch, accelerated and not. ``python -m bench.models``.

The same model with the same weights runs by PyTorch and accelerated, each in a process of its own:
a forward pass without gradients; the same frozen, where weights are not checked for changes; and a
step of training. Answers are compared with float64 before anything is timed. Transposed
convolutions are a few per cent of some models, and a shared machine changes its speed by more than
that within seconds: so single runs take turns, each is compared with its neighbour, and the ratio
is the median of these. Where a process's memory lies decides some per cent of its time as well, so
each has two processes, one after the other, and six if the ratio is near 1.
"""

import argparse
import sys
from collections.abc import Sequence
from itertools import cycle
from math import inf, pi, sqrt
from pathlib import Path
from statistics import NormalDist, geometric_mean, median, quantiles
from typing import Any

import numpy as np

from bench.machine import cores
from bench.peers import Thunk
from bench.report import milliseconds, ratio, seconds, show, table, threads_of, where
from bench.rounds import Limits, joined, take_turns
from bench.run import measure_rows
from bench.server import Contender, Failed, write_reference
from bench.store import Line, finish, parsed

MODELS = ("hifigan", "unet", "dcgan", "unet3d", "masks")
MODES = {"forward": "forward", "frozen": "forward, frozen", "training": "training step"}
WHO = {"layers": "accelerated", "torch": "torch"}
"""Contenders by their names in reports, and their names in functions here."""

PROCESSES, MORE_PROCESSES, ABOUT = 2, 6, 0.12
"""Processes of each contender, one after the other: more of them if a ratio is so close to 1."""

LEAST = 0.98
"""No model is to be slower than this."""


def __getattr__(name: str) -> Any:
    """Contenders by name: MODEL_MODE_WHO."""
    words = name.split("_")
    if len(words) != 3 or words[0] not in MODELS or words[1] not in MODES:
        raise AttributeError(name)
    return lambda dtype, threads: contender(words[0], words[1], words[2], dtype, threads)


def contender(model: str, mode: str, who: str, dtype: str, threads: int, **options: Any) -> Thunk:
    """Set a model up, accelerated or not, and return what calls it."""
    import torch

    from bench.decoders import made

    torch.set_num_threads(threads)
    network, x = made(model, getattr(torch, dtype), **options)
    if who == "accelerated":
        import tconv.torch

        left = tconv.torch.accelerate(network, frozen=mode == "frozen").left
        assert not left, left
    if mode != "training":
        network.eval()

        def forward() -> Any:
            with torch.no_grad():
                return network(x).numpy()

        return forward
    # At a rate of 0 every step computes the same. One number of each weight goes up and down by its
    # last bit, so that they are packed anew.
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


def measure_models(names: Sequence[str], threads: Sequence[int], limits: Limits) -> dict[str, Any]:
    """Measure models by name, and say where and with what."""
    modes = {title: mode for mode, title in MODES.items()}

    def rows(title: str, count: int, folder: Path) -> list[dict[str, Any]]:
        return [_measure(name, modes[title], count, folder, limits) for name in names]

    return measure_rows([(title, count) for title in modes for count in threads], rows)


def _measure(name: str, mode: str, threads: int, folder: Path, limits: Limits) -> dict[str, Any]:
    """Measure one model; a record in the form of a case."""
    from bench.decoders import DECODERS

    print(f"models: {name}, {mode}, {threads} threads", file=sys.stderr, flush=True)
    cache, path = str(folder / "cache"), str(folder / f"{name}-{mode}")
    functions = {own: f"bench.models:{name}_{mode}_{who}" for own, who in WHO.items()}
    order = {"dtype": "float32", "threads": threads, "reference": path}
    found: dict[str, Any] = {}
    busy: list[float] = []
    try:
        if not Path(path).exists():
            write_reference(functions["torch"], cores(), cache, path)
        for process in range(MORE_PROCESSES):
            if process >= PROCESSES and abs((beside(found) or inf) - 1) > ABOUT:
                break
            contenders = [Contender(own, each, threads, cache) for own, each in functions.items()]
            try:
                records, others = take_turns(contenders, "prepare_network", order, limits)
            finally:
                for each in contenders:
                    each.close()
            busy += [] if others is None else [others]
            timed = [record for record in records.values() if "us" in record]
            count = min((len(record["us"]) for record in timed), default=0)
            for record in timed:
                record["us"] = record["us"][:count]  # so that runs stay beside each other
            found = {own: joined(found.get(own), record) for own, record in records.items()}
    except Failed as failure:
        found = {own: {"failed": str(failure)} for own in functions}
    return {"case": DECODERS[name].title, "others": max(busy, default=None), "contenders": found}


# ---- the table -----------------------------------------------------------------------------------


def page(results: dict[str, Any]) -> list[str]:
    """A row for each model: both times and PyTorch's over ours, forward and training."""
    rows, reasons, ratios = list[list[str]](), list[str](), list[float]()
    for part in results["parts"]:
        for row in part["rows"]:
            times = [milliseconds(seconds(row, name, min)) for name in ("torch", "layers")]
            both = [beside(row["contenders"]), ratio(row, "layers", "torch", min)]
            ratios += [both[0]] if both[0] else []
            rows.append(
                [row["case"], part["title"], str(part["threads"]), *times, show(both[0]),
                 show(error_of(row["contenders"])), show(both[1]), show(row["others"], 1, "?")]
            )  # fmt: skip
            for name, each in row["contenders"].items():
                if "failed" in each:
                    reasons += [f"{row['case']}, {WHO[name]}: {each['failed']}.", ""]
    titles = ["model", "what", "threads", "PyTorch, ms", "accelerated, ms"]
    titles += ["ratio", "±", "by minima", "others"]
    shown = [*table(titles, rows, 2), "", *reasons]
    if ratios:
        slower = sum(each < LEAST for each in ratios)
        shown += [
            "Ratio: the median of PyTorch's time over that of the accelerated run beside it; ±: "
            f"its standard error. The geometric mean of these {len(ratios)} is "
            f"{geometric_mean(ratios):.2f}, the least is {min(ratios):.2f}; {slower} are below "
            f"{LEAST:g}. Times are minima. Others: cores that other programs kept busy meanwhile.",
            "",
        ]
    return [*shown, where(results)]


def lines(results: dict[str, Any]) -> list[Line]:
    """The means of every part, for the history."""
    found = []
    for part in results["parts"]:
        least = [value for row in part["rows"] if (value := ratio(row, "layers", "torch", min))]
        middle = [value for row in part["rows"] if (value := beside(row["contenders"]))]
        if middle:
            what = f"{part['title']}, {threads_of(part)}"
            means = geometric_mean(least), geometric_mean(middle)
            found.append(Line(what, "accelerated", "PyTorch", len(middle), *means, min(middle)))
    return found


def beside(contenders: dict[str, Any]) -> float | None:
    """PyTorch's time over ours, the median over runs that were beside each other."""
    found = _ratios(contenders)
    return median(found) if found else None


def error_of(contenders: dict[str, Any]) -> float | None:
    """The standard error of that median, if the ratios are spread as a normal distribution is."""
    found = _ratios(contenders)
    if len(found) < 4:
        return None
    low, _, high = quantiles(found, n=4)
    return sqrt(pi / 2) * (high - low) / (2 * NormalDist().inv_cdf(0.75)) / sqrt(len(found))


def _ratios(contenders: dict[str, Any]) -> list[float]:
    ours, theirs = (contenders[name].get("us", []) for name in ("layers", "torch"))
    return [b[0] / a[0] for a, b in zip(ours, theirs, strict=False)]


def main(words: Sequence[str] | None = None) -> None:
    """Measure, write the samples, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.models", description=__doc__)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    parser.add_argument("--threads", nargs="+", type=int, default=sorted({1, min(2, cores())}))
    parser.add_argument("--rounds", type=int, default=12, help="of each process")
    arguments, is_whole = parsed(parser, words)
    limits = Limits(arguments.rounds, slice_s=0.0, least_runs=1, case_cap_s=20.0)
    results = measure_models(arguments.models, arguments.threads, limits)
    print("\n".join(page(results)))
    finish(results, "models", lines(results), arguments, is_whole)


if __name__ == "__main__":
    main()
