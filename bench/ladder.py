"""Step-by-step gains, from single products to the engine. ``python -m bench.ladder``.

Every answer is compared with float64 before it is timed, and steps take turns in rounds, each in
its own process. There is one thread, BLAS included, until the step that takes all cores.
"""

import argparse
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, NamedTuple

from bench.cases import PUBLISHED, Case
from bench.machine import Watch, cores
from bench.peers import CONTENDERS, SEED
from bench.report import seconds, show, table, where
from bench.rounds import LEAST_RUNS, PAUSE_S, SLICE_CAP_S, SLICE_S
from bench.run import measure_rows
from bench.server import Contender, Failed, write_reference
from bench.steps import SAME
from bench.store import Line, finish, parsed

LAYERS = ("hifigan-up3", "dcgan-l4", "unet-up3", "dcgan-l2-b1", "convtasnet")
"""One dimension; a batch; kernel = stride; a small image with many weights; one channel out."""

POSSIBLE = [case for case in PUBLISHED if case.G == 1 and not case.a]
"""Layers that the short functions of the steps in NumPy compute."""

ROUNDS = 5
CASE_CAP_S = 2.0  # of one step, over all rounds


class Step(NamedTuple):
    """A function of steps.py, what it changes, and how much of a layer it is measured on."""

    name: str
    title: str
    takes_all_cores: bool = False
    most_flops: int | None = None  # a larger layer is cut down to this


STEPS = (
    Step("number_by_number", "one product at a time, in Python", most_flops=200_000),
    Step("cell_by_cell", "one cell of x at a time"),
    Step("inserted_zeros", "zeros inserted, then a convolution"),
    Step("scattered", "GEMM, then col2im"),
    Step("phases", "a GEMM for each phase"),
    Step("generated", "generated code: one row by one vector"),
    Step("tiles", "register tiles"),
    Step("tasks", "tasks and blocks that fit in the caches"),
    Step("interleaved", "phases interleaved in registers"),
    Step("im2col", "im2col panels for small images"),
    Step("col2im", "GEMM and col2im within the cache"),
    Step("channel_lanes", "channel-vectorised: lanes are output channels"),
    Step("all_cores", "all cores", takes_all_cores=True),
    Step("packed", "weights packed once", takes_all_cores=True),
    Step("winograd", "Winograd", takes_all_cores=True),
)

# ---- measuring -----------------------------------------------------------------------------------


def cut_down(case: Case, most_flops: int | None) -> Case:
    """A layer of the same kind with at most so many operations."""
    while most_flops is not None and case.geometry.flops > most_flops:
        sizes = {"N": case.N, "C": case.C, "M": case.M, "I": max(case.I)}
        largest = "N" if case.N > 1 else max(sizes, key=lambda name: sizes[name])
        half = 1 if largest == "N" else sizes[largest] // 2
        cells = tuple(min(size, half) for size in case.I) if largest == "I" else half
        case = case._replace(**{largest: cells})
    return case


def measure_layer(case: Case, folder: Path) -> dict[str, Any]:
    """Compare and time all steps of a layer, in rounds; the record has the form of bench.run."""
    found: dict[str, dict[str, Any]] = {}
    contenders = {}
    for step in STEPS:
        made, count = cut_down(case, step.most_flops), cores() if step.takes_all_cores else 1
        each = Contender(step.name, f"bench.steps:{step.name}", count, str(folder / "cache"))
        order = {"case": made, "dtype": "float32", "seed": SEED}
        try:
            path = _reference(made, order, folder)
            ready = each.ask("prepare", **order, threads=count, reference=str(path))
        except Failed as failure:
            found[step.name] = {"failed": str(failure)}
            each.close()
        else:
            facts = {"sizes": str(made), "flops": made.geometry.flops, "threads": count}
            found[step.name] = facts | {"error": ready["error"], "us": []}
            contenders[step] = each
    watch = Watch([each.process.pid for each in contenders.values() if each.process])
    for _ in range(ROUNDS):
        for step, each in contenders.items():
            samples = found[step.name]["us"]
            if sum(map(sum, samples)) / 1e6 < CASE_CAP_S:
                time.sleep(PAUSE_S)
                limits = {"runs": LEAST_RUNS, "seconds": SLICE_S, "most_s": SLICE_CAP_S}
                samples.append(each.ask("time", **limits))
    others = watch.others()
    for step, each in contenders.items():
        try:
            found[step.name]["error"] = max(found[step.name]["error"], each.ask("check"))
        except Failed as failure:
            found[step.name] = {"failed": f"not the second time: {failure}"}
        each.close()
    return {"case": case.name, "sizes": str(case), "others": others, "contenders": found}


def _reference(case: Case, order: dict[str, Any], folder: Path) -> Path:
    """The answer in float64, which is made once for each size."""
    path = folder / f"{case.name}-{case.geometry.flops}"
    if not path.exists():
        write_reference(
            CONTENDERS["portable"], cores(), str(folder / "cache"), str(path), **order
        )  # fmt: skip
    return path


def measure_all(names: Sequence[str]) -> dict[str, Any]:
    """Measure the layers of these names, and say where and with what."""
    by_name = {case.name: case for case in POSSIBLE}

    def rows(title: str, _: int, folder: Path) -> list[dict[str, Any]]:
        found = []
        for case in map(by_name.__getitem__, names):
            print(f"{title}: {case.name}", file=sys.stderr, flush=True)
            found.append(measure_layer(case, folder))
        return found

    return measure_rows([("ladder", cores())], rows)


# ---- the table -----------------------------------------------------------------------------------


def page(results: dict[str, Any]) -> list[str]:
    """A row for each step: GFLOP/s of every layer, and by how much that is more than before."""
    layers = results["parts"][0]["rows"]
    before: list[float | None] = [None] * len(layers)
    rows = []
    for number, step in enumerate(STEPS, 1):
        cells = []
        for place, layer in enumerate(layers):
            rate = _rate(layer, step)
            is_same = layer["contenders"][step.name].get("failed") == SAME
            cells.append("=" if is_same else _cell(rate, before[place]))
            before[place] = rate or before[place]
        rows.append([str(number), step.title, *cells])
    titles = ["", "GFLOP/s, and times the step before", *(r["case"] for r in layers)]
    shown = table(titles, rows, 2)
    shown += ["", "The layers: " + "; ".join(f"{r['case']} {r['sizes']}" for r in layers) + "."]
    cut = [
        f"{layer['case']} {sizes}"
        for layer in layers
        for step in STEPS
        if (sizes := layer["contenders"][step.name].get("sizes", layer["sizes"])) != layer["sizes"]
    ]
    if cut:
        shown += [
            "",
            f"The first step would take too long and has less: {'; '.join(cut)}.",
        ]
    busy = ", ".join(show(layer["others"], 1, "?") for layer in layers)
    shown += ["", f"{where(results)} Cores that other programs kept busy meanwhile: {busy}."]
    for layer in layers:
        for name, each in layer["contenders"].items():
            if each.get("failed", SAME) != SAME:
                shown += ["", f"{layer['case']}, {name}: {each['failed']}."]
    return shown


def lines(results: dict[str, Any]) -> list[Line]:
    """What each step gains over the one before, in the mean of the layers that it changes."""
    found, layers = [], [layer for part in results["parts"] for layer in part["rows"]]
    gains = [{each: _gains(layer, each) for each in (min, median)} for layer in layers]
    for step in STEPS:
        least, middle = (
            [gain[each][step.name] for gain in gains if step.name in gain[each]]
            for each in (min, median)
        )
        if middle:
            means = geometric_mean(least), geometric_mean(middle)
            line = Line("ladder", step.title, "the step before", len(middle), *means, min(middle))
            found.append(line)
    return found


def _gains(
    layer: dict[str, Any], statistic: Callable[[Iterable[float]], float]
) -> dict[str, float]:
    """Rates of a layer over those of the step before, by the names of the steps."""
    rates = {step.name: _rate(layer, step, statistic) for step in STEPS}
    known = [(name, rate) for name, rate in rates.items() if rate]
    return {name: rate / before for (_, before), (name, rate) in pairwise(known)}


def _rate(
    layer: dict[str, Any], step: Step, statistic: Callable[[Iterable[float]], float] = min
) -> float | None:
    """GFLOP/s of a step, None where it has no time."""
    if step.name not in layer["contenders"]:  # an older ladder
        return None
    least = seconds(layer, step.name, statistic)
    return layer["contenders"][step.name]["flops"] / least / 1e9 if least else None


def _cell(rate: float | None, before: float | None) -> str:
    if rate is None:
        return "–"
    text = f"{rate:.0f}" if rate >= 10 else f"{rate:.2g}"
    if not before:
        return text
    gain = rate / before
    return f"{text} (×{gain:,.0f})" if gain >= 10 else f"{text} (×{gain:.2f})"


def main(words: Sequence[str] | None = None) -> None:
    """Measure, write the samples, and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.ladder", description=__doc__)
    parser.add_argument("--layers", nargs="+", choices=[c.name for c in POSSIBLE], default=LAYERS)
    arguments, is_whole = parsed(parser, words)
    results = measure_all(arguments.layers)
    print("\n".join(page(results)))
    finish(results, "ladder", lines(results), arguments, is_whole)


if __name__ == "__main__":
    main()
