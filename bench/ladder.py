"""WHAT EACH STEP GAINS, from single multiplications to the engine. ``python -m bench.ladder``.

Every answer is held against float64 before it is timed, and steps take turns in rounds, each in its
own process. There is one thread, BLAS included, until the step that takes all cores.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from bench.cases import PUBLISHED, Case
from bench.machine import Watch, cores
from bench.peers import CONTENDERS, SEED
from bench.report import between, seconds, show, table, where
from bench.rounds import LEAST_RUNS, PAUSE_S, SLICE_CAP_S, SLICE_S
from bench.run import compact, measure, result_file, write_whole
from bench.server import ROOT, Contender, Failed
from bench.steps import SAME

LAYERS = ("hifigan-up3", "dcgan-l4", "unet-up3", "dcgan-l2-b1", "convtasnet")
"""One dimension; a batch; kernels side by side; a small image, many weights; one output."""

POSSIBLE = [case for case in PUBLISHED if case.G == 1 and not case.a]
"""What the steps in NumPy compute; each is short."""

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
    Step("scattered", "one matrix product, then copies added into place"),
    Step("phases", "matrix products by phases"),
    Step("generated", "generated code: one row by one vector"),
    Step("tiles", "tiles in registers"),
    Step("items", "items and blocks that stay in the caches"),
    Step("interleaved", "phases interleaved in registers"),
    Step("gathered", "cells of small images gathered"),
    Step("spread", "taps multiplied before they are added"),
    Step("turned", "vectors of channels where images are small"),
    Step("all_cores", "all cores", takes_all_cores=True),
    Step("packed", "weights packed once", takes_all_cores=True),
    Step("fewer", "fewer products", takes_all_cores=True),
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
        referee = Contender("reference", CONTENDERS["portable"], cores(), str(folder / "cache"))
        referee.ask("refer", **order, path=str(path))
        referee.close()
    return path


def measure_all(names: Sequence[str]) -> dict[str, Any]:
    """Measure the layers of these names, and say where and with what."""
    begin = datetime.now(UTC)
    results = measure([], small=False, quickly=False)
    with tempfile.TemporaryDirectory() as folder:
        rows = []
        by_name = {case.name: case for case in POSSIBLE}
        for case in map(by_name.__getitem__, names):
            print(f"ladder: {case.name}", file=sys.stderr, flush=True)
            rows.append(measure_layer(case, Path(folder)))
    results["minutes"] = round((datetime.now(UTC) - begin).total_seconds() / 60, 1)
    return results | {"parts": [{"title": "ladder", "dtype": "float32", "rows": rows}]}


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
    lines = table(["", "GFLOP/s, and times the step before", *(r["case"] for r in layers)], rows, 2)
    lines += ["", "The layers: " + "; ".join(f"{r['case']} {r['sizes']}" for r in layers) + "."]
    cut = [
        f"{layer['case']} {sizes}"
        for layer in layers
        for step in STEPS
        if (sizes := layer["contenders"][step.name].get("sizes", layer["sizes"])) != layer["sizes"]
    ]
    if cut:
        lines += [
            "",
            f"The first step would take too long and has less: {'; '.join(cut)}.",
        ]
    busy = ", ".join(show(layer["others"], 1, "?") for layer in layers)
    lines += ["", f"{where(results)} Cores that other programs kept busy meanwhile: {busy}."]
    for layer in layers:
        for name, each in layer["contenders"].items():
            if each.get("failed", SAME) != SAME:
                lines += ["", f"{layer['case']}, {name}: {each['failed']}."]
    return lines


def _rate(layer: dict[str, Any], step: Step) -> float | None:
    """GFLOP/s of the fastest run."""
    least = seconds(layer, step.name, min)
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
    parser.add_argument("--publish", action="store_true", help="write docs/algorithms.md too")
    arguments = parser.parse_args(words)
    results = measure_all(arguments.layers)
    output = result_file(results, "ladder")
    write_whole(output, compact(results))
    print("\n".join(page(results)))
    if arguments.publish:
        path = ROOT / "docs" / "algorithms.md"
        text = between(path.read_text(encoding="utf-8"), "ladder", page(results))
        path.write_text(text, encoding="utf-8")
    print(f"written to {output}", file=sys.stderr)


if __name__ == "__main__":
    main()
