"""Measured plans, and the constants of the cost model that fit them. ``python -m bench.fit_costs``.

    python -m bench.fit_costs measure     # writes bench/costs/FAMILY.csv, in some ten minutes
    python -m bench.fit_costs fit         # prints constants for tconv/engine/plan/cost_constants.py
    python -m bench.fit_costs check       # how good choices by the constants in use are

Layers are drawn at random: no benchmark's own. For each the cheapest plans of every algorithm are
measured, one after the other in several turns, on one thread. A choice is as good as the time of
the plan that the model finds cheapest over that of the best one that was measured.
"""

import argparse
import csv
import json
import math
import random
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import fields, replace
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any, NamedTuple

import numpy as np

from tconv import Geometry
from tconv.engine import host_target, wait_for_optimised
from tconv.engine.choose import all_plans, costs_of
from tconv.engine.executor import Primitive
from tconv.engine.plan import cost_constants
from tconv.engine.plan.cost_constants import CostConstants
from tconv.engine.plan.plan import CYCLES_PER_US, KBlock, Plan
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import Target, named_target

FOLDER = Path(__file__).parent / "costs"
CPUS = {"zen5": ("znver5", {"l1_bytes": 49152, "l2_bytes": 2**20, "l3_bytes": 2**25})}
SEED, LAYERS, OF_ALGORITHM, TURNS, SLICE_S = 24, 198, 3, 3, 0.02
# Cycles of the model for one that passes on this family: constants of all algorithms, and of other
# libraries' times, are in the same unit, so a fit must not change it.
SCALE = {"zen5": 1.5}
ERROR_WEIGHT = 0.3  # of the mean error of a time, beside that of choices
CHANGE_WEIGHT = 0.02  # of the mean square of what a constant was multiplied by, as a logarithm
# What times of one thread, with packed weights and y in the caches, do not tell.
KEPT = {
    "gemm": ("wake_cycles", "piece_cycles", "pages_bytes", "pages", "clash_bytes", "weight_cycles"),
    "row_gemm": ("clash_cycles",),
    "winograd": ("memory_bytes", "filter_cycles", "weight_cycles"),
}
LEFT_OUT = 4  # of so many layers one is left out of the fit, to check it
KINDS = ("gemm", "winograd", "channel_lanes", "depthwise", "row_gemm")
COLUMNS = ("layer", "want", *Plan._fields[:-3], "us")


class Measured(NamedTuple):
    """A plan for a problem, and the microseconds that it took."""

    plan: Plan
    us: float


# ---- layers --------------------------------------------------------------------------------------


def drawn(count: int = LAYERS, seed: int = SEED) -> Iterator[dict[str, Any]]:
    """Layers of all kinds in turn: the sizes of `Geometry.of`, and the letter that is wanted."""
    rng = random.Random(seed)

    def between(low: float, high: float) -> int:
        return round(low * (high / low) ** rng.random())

    kinds = (
        "1x1",
        "k3",
        "k3s2",
        "first",
        "depthwise",
        "audio",
        "3d",
        "transposed",
        "up",
        "small",
        "few",
    )
    for n in range(count):
        kind = kinds[n % len(kinds)]
        channels, more, rank, groups = 8 * between(1, 48), 8 * between(1, 48), 2, 1
        kernel, stride, dilation, side, want = 3, 1, 1, between(8, 100), "x"
        if kind == "1x1":
            kernel, side = 1, between(7, 120)
        elif kind == "k3s2":
            stride = 2
        elif kind == "first":
            channels, kernel, stride = between(1, 4), 3 + 2 * between(0.6, 4), between(1, 3)
            side = between(24, 224)
        elif kind == "depthwise":
            kernel, stride = 3 + 2 * between(0.6, 2), between(1, 2)
            groups = more = channels
            want = rng.choice("xxy")
        elif kind == "audio":
            rank, kernel, dilation = 1, 3 + 2 * between(0.6, 4), between(1, 9)
            side = between(100, 20000)
        elif kind == "3d":
            rank, side = 3, between(6, 24)
        elif kind == "transposed":
            kernel, stride, want = *rng.choice(((4, 2), (2, 2), (3, 2), (3, 1))), "y"
        elif kind == "up":
            rank, side, want = 1, between(50, 3000), "y"
            stride = rng.choice((2, 4, 8))
            kernel = 2 * stride
        elif kind == "few":  # outputs, and a large x
            more, want = between(1, 4), rng.choice("xyy")
            rank, kernel, stride, side = rng.choice(
                ((2, 2, 2, between(60, 320)), (2, 3, 1, between(60, 320)), (2, 4, 2, 64),
                 (1, 16, 8, between(500, 8000)), (1, 7, 1, between(2000, 60000)))
            )  # fmt: skip
            stride = stride if want == "y" else 1
        elif kind == "small":
            side, want = between(2, 12), rng.choice("xy")
        products = channels * more // groups * (kernel * side) ** rank / stride**rank
        side = max(2, int(side * min(1.0, (3e8 / products) ** (1 / rank))))
        pad = dilation * (kernel - 1) // 2 if want == "x" else max(0, (kernel - stride) // 2)
        yield {
            "channels": channels, "more": more, "rank": rank, "groups": groups, "kernel": kernel,
            "stride": stride, "dilation": dilation, "side": side, "padding": pad, "want": want,
        }  # fmt: skip


def problem_of(layer: dict[str, Any]) -> Problem:
    """The problem of a layer."""
    rank, groups, want = layer["rank"], layer["groups"], layer["want"]
    keywords = {name: layer[name] for name in ("stride", "padding", "dilation", "groups")}
    x_shape = (1, layer["channels"], *[layer["side"]] * rank)
    kernel = [layer["kernel"]] * rank
    if want == "x":
        weight = (layer["more"], layer["channels"] // groups, *kernel)
        return Problem(Geometry.of_conv(x_shape, weight, **keywords), "x")
    weight = (layer["channels"], layer["more"] // groups, *kernel)
    return Problem(Geometry.of(x_shape, weight, **keywords), "y")


# ---- measuring -----------------------------------------------------------------------------------


def candidates(problem: Problem, target: Target) -> list[Plan]:
    """The cheapest plans of every algorithm, for one thread."""
    found: dict[tuple[str, str], list[Plan]] = {}
    for plan in sorted(all_plans(problem, "float32", target, 1), key=lambda plan: plan.cycles):
        some = found.setdefault((plan.algorithm, plan.panel), [])
        if len(some) < OF_ALGORITHM:
            some.append(plan)
    return [plan for some in found.values() for plan in some]


def measure(problem: Problem, target: Target) -> list[Measured]:
    """The least time of each candidate, in turns."""
    rng, geometry = np.random.default_rng(0), problem.geometry
    shapes = (geometry.shape_of(problem.read), geometry.weight_shape, geometry.shape_of("y"))
    x, w = (rng.standard_normal(shape, np.float32) for shape in shapes[:2])
    bias = rng.standard_normal(geometry.shape_of(problem.want)[1], np.float32)
    y = np.empty(geometry.shape_of(problem.want), np.float32)
    of_groups = w.reshape(geometry.groups, -1, *geometry.weight_shape[1:])
    calls = []
    for plan in candidates(problem, target):
        made = Primitive(problem, "float32", target, plan, 1)
        calls.append((plan, made, made.pack(of_groups), made.pack_bias(bias)))
        made(x, *calls[-1][2:], y)
    wait_for_optimised()
    least = [math.inf] * len(calls)
    for _ in range(TURNS):
        for n, (_, made, packed, packed_bias) in enumerate(calls):
            end, runs = time.perf_counter() + SLICE_S, 0
            while runs < 3 or time.perf_counter() < end:
                began = time.perf_counter()
                made(x, packed, packed_bias, y)
                least[n], runs = min(least[n], time.perf_counter() - began), runs + 1
    return [Measured(call[0], 1e6 * us) for call, us in zip(calls, least, strict=True)]


def write(family: str, count: int) -> None:
    """Measure layers on this machine, and write what was found."""
    target = host_target()
    FOLDER.mkdir(exist_ok=True)
    with (FOLDER / f"{family}.csv").open("w", encoding="utf-8", newline="") as file:
        rows = csv.writer(file, lineterminator="\n")
        rows.writerow(COLUMNS)
        for n, layer in enumerate(drawn(count), 1):
            print(f"{n} of {count}: {layer}", file=sys.stderr, flush=True)
            text = json.dumps(list(layer.values())[:-1])
            for plan, us in measure(problem_of(layer), target):
                words = [json.dumps(each) for each in plan[:-3]]
                rows.writerow([text, layer["want"], *words, round(us, 2)])


def read(family: str) -> list[tuple[Problem, list[Measured]]]:
    """What was measured on a family of processors, layer by layer."""
    names = list(next(drawn(1)))
    found: dict[tuple[str, str], list[Measured]] = {}
    with (FOLDER / f"{family}.csv").open(encoding="utf-8", newline="") as file:
        for row in csv.DictReader(file):
            values = {name: json.loads(row[name]) for name in Plan._fields[:-3]}
            values |= {
                "k_block": KBlock(*values["k_block"]),
                "outputs": tuple(values["outputs"]),
            }
            measured = Measured(Plan(**values), float(row["us"]))
            found.setdefault((row["layer"], row["want"]), []).append(measured)
    return [
        (problem_of(dict(zip(names, [*json.loads(layer), want], strict=True))), some)
        for (layer, want), some in found.items()
    ]


# ---- the fit -------------------------------------------------------------------------------------


def target_of(family: str) -> Target:
    """A processor of a family, whatever runs this."""
    name, sizes = CPUS[family]
    here = host_target()
    return here if here.cpu == name else replace(named_target(name, 1), **sizes)


def quality(
    family: str, layers: Sequence[tuple[Problem, list[Measured]]], target: Target
) -> tuple[list[float], list[float]]:
    """How many times the least time the chosen plans take; and errors of times, as logarithms."""
    choices, errors = [], []
    for problem, plans in layers:
        cycles = []
        for plan, us in plans:
            read, work, count = costs_of(plan, problem, "float32", target).of(plan)
            cycles.append((read + work) * count)
            errors.append(math.log(cycles[-1] / CYCLES_PER_US / us / SCALE[family]))
        chosen = plans[min(range(len(plans)), key=cycles.__getitem__)]
        choices.append(chosen.us / min(us for _, us in plans))
    return choices, errors


def fit(family: str, steps: int, kinds: Sequence[str]) -> CostConstants:
    """Constants near those of Zen 3 with which choices and times are best."""
    layers, target, rng = read(family), target_of(family), random.Random(0)
    layers = [each for n, each in enumerate(layers) if n % LEFT_OUT]
    names = [
        (kind, each.name)
        for kind in kinds
        for each in fields(_of(family, kind))
        if each.name not in KEPT.get(kind, ())
    ]
    best, least = CostConstants(), math.inf
    for kind, kept in KEPT.items():
        values = {name: getattr(_of(family, kind), name) for name in kept}
        best = replace(best, **{kind: replace(getattr(best, kind), **values)})
    before = best
    for n in range(steps):
        tried = best
        for kind, name in names if n else ():
            if rng.random() < 4 / len(names):
                old = getattr(tried, kind)
                value = getattr(old, name) * math.exp(rng.gauss(0, 0.3))
                tried = replace(tried, **{kind: replace(old, **{name: value})})
        cost_constants.FAMILIES[family] = tried
        choices, errors = quality(family, layers, target)
        loss = sum(map(math.log, choices)) / len(choices)
        loss += ERROR_WEIGHT * sum(map(abs, errors)) / len(errors) + 0.02 * math.log(max(choices))
        changes = [math.log(_value(tried, *each) / _value(before, *each)) for each in names]
        loss += CHANGE_WEIGHT * sum(change**2 for change in changes) / len(changes)
        if loss < least:
            best, least = tried, loss
            print(n, round(loss, 4), summary(choices, errors), file=sys.stderr, flush=True)
    return best


def _value(constants: CostConstants, kind: str, name: str) -> float:
    return float(getattr(getattr(constants, kind), name))


def _of(family: str, kind: str) -> Any:
    return getattr(cost_constants.FAMILIES[family], kind)


def summary(choices: Sequence[float], errors: Sequence[float]) -> str:
    """Choices and errors on a line."""
    return (
        f"chosen plans take {geometric_mean(choices):.3f} of the best's time by geometric mean, "
        f"{max(choices):.2f} at most; times are wrong by {math.exp(median(map(abs, errors))):.2f} "
        "in the middle"
    )


def main(words: Sequence[str] | None = None) -> None:
    """Measure, fit or check."""
    parser = argparse.ArgumentParser(prog="python -m bench.fit_costs", description=__doc__)
    parser.add_argument("do", choices=("measure", "fit", "check"))
    parser.add_argument("--family", choices=tuple(CPUS), default="zen5")
    parser.add_argument("--layers", type=int, default=LAYERS)
    parser.add_argument("--steps", type=int, default=400)
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    arguments = parser.parse_args(words)
    if arguments.do == "measure":
        write(arguments.family, arguments.layers)
        return
    if arguments.do == "fit":
        found = fit(arguments.family, arguments.steps, arguments.kinds)
        for kind in arguments.kinds:
            values = {
                each.name: float(f"{getattr(getattr(found, kind), each.name):.3g}")
                for each in fields(getattr(found, kind))
            }
            print(kind, values)
        cost_constants.FAMILIES[arguments.family] = found
    layers, target = read(arguments.family), target_of(arguments.family)
    for name, some in (("all layers", layers), ("those left out of a fit", layers[::LEFT_OUT])):
        print(f"{name}: {summary(*quality(arguments.family, some, target))}")


if __name__ == "__main__":
    main()
