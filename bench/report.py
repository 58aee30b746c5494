"""Tables of layers, from a result file, as Markdown. ``python -m bench.report FILE``.

Ratios are a peer's time over tconv's: above 1 tconv is faster. "Best" is, case by case, the best of
PyTorch and ONNX Runtime, which counts with whichever of its two ways to run is faster there.
"""

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from itertools import chain
from math import inf
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from bench.cases import FAMILIES
from bench.peers import PEERS
from bench.store import Line
from bench.wants import WANTS

CAPS = {"float32": 4.0, "float64": 6.0, "float16": 4.0, "bfloat16": 4.0}
"""A ratio above counts as this one in every mean, so that no outlier carries it."""

NOISE = 0.3
"""If other programs kept more cores busy, a single case says little."""

NAMES = {
    "plan": "tconv, packed",
    "plan_new": "tconv, packed, new output",
    "functional": "tconv, plain call",
    "portable": "tconv, portable path",
    "torch": "PyTorch",
    "onnx_run": "ONNX Runtime",
    "onnx_bound": "ONNX Runtime, bound",
    "onnx_conv": "ONNX Runtime's Conv",
    "jax": "JAX",
    "tinyml": "tinyml",
}
NETWORK_NAMES = {"layers": "tconv's layers", "torch": "PyTorch", "onnx": "ONNX Runtime"}
BESIDE = ("portable", "onnx_conv", "jax", "tinyml")
"""Contenders that the summary compares with, besides the best peer."""

Row = dict[str, Any]
Statistic = Callable[[Iterable[float]], float]

# ---- numbers -------------------------------------------------------------------------------------


def seconds(row: Row, name: str, statistic: Statistic) -> float | None:
    """One contender's time of one case, from the samples of all rounds; None if it has none."""
    samples = list(chain(*row["contenders"].get(name, {}).get("us", [])))
    return statistic(samples) / 1e6 if samples else None


def best(row: Row, statistic: Statistic) -> tuple[float, str] | None:
    """The fastest peer's time and name."""
    times = [(time, name) for name in PEERS if (time := seconds(row, name, statistic)) is not None]
    return min(times, default=None)


def ratio(row: Row, ours: str, other: str, statistic: Statistic) -> float | None:
    """The time of another contender, or of the "best" peer, over that of one of tconv's."""
    if other == "best":
        found = best(row, statistic)
        theirs = found and found[0]
    else:
        theirs = seconds(row, other, statistic)
    own = seconds(row, ours, statistic)
    return theirs / own if theirs and own else None


def ours_in(part: Row) -> str:
    """The contender of tconv that a table is about."""
    return WANTS[part.get("want", "y")].ours


def ratios(
    part: Row, ours: str | None = None, other: str = "best", statistic: Statistic = min
) -> list[float]:
    """All ratios of a table that there are."""
    ours = ours or ours_in(part)
    found = (ratio(row, ours, other, statistic) for row in part["rows"])
    return [each for each in found if each is not None]


def mean(values: list[float], cap: float) -> float:
    """Geometric mean of ratios, each capped."""
    return geometric_mean([min(value, cap) for value in values])


# ---- tables --------------------------------------------------------------------------------------


def table(titles: list[str], rows: Iterable[list[str]], left: int = 1) -> list[str]:
    """Lay out a table whose first `left` columns are text."""
    marks = ["---" if n < left else "---:" for n in range(len(titles))]
    return ["| " + " | ".join(line) + " |" for line in ([*titles], marks, *rows)]


def show(value: float | None, digits: int = 2, missing: str = "–") -> str:
    """Format a number that may be missing."""
    return missing if value is None else f"{value:.{digits}f}"


def milliseconds(value: float | None) -> str:
    """Format a time, three digits of it."""
    return "–" if value is None else f"{value * 1e3:#.3g}".rstrip(".")


def case_table(part: Row) -> list[str]:
    """One row per case: ours, the best peer and which it is, the ratios, and our error."""
    rows, own = [], ours_in(part)
    for row in part["rows"]:
        found, ours = best(row, min), seconds(row, own, min)
        result = row["contenders"].get(own, {})
        rows.append(
            [
                row["case"],
                row["sizes"],
                row["family"],
                show(row["flops"] / 1e9, 3),
                milliseconds(ours),
                show(ours and row["flops"] / ours / 1e9, 0),
                milliseconds(found and found[0]),
                NAMES[found[1]] if found else "–",
                show(ratio(row, own, "best", min)),
                show(ratio(row, own, "best", median)),
                f"{result['error']:.1e}" if "error" in result else "failed",
            ]
        )
    titles = ["case", "sizes", "family", "GFLOP", "tconv ms", "GF/s", "best ms", "best peer"]
    return table([*titles, "by minima", "by medians", "error"], rows, 3)


def contender_table(part: Row) -> list[str]:
    """Every contender's fastest run in milliseconds, or the reason why there is none."""
    names = [name for name in NAMES if any(name in row["contenders"] for row in part["rows"])]
    reasons: dict[str, str] = {}
    rows = []
    for row in part["rows"]:
        cells = []
        for name in names:
            failure = row["contenders"].get(name, {}).get("failed")
            if failure is None:
                cells.append(milliseconds(seconds(row, name, min)))
            else:
                mark = reasons.setdefault(failure.strip().splitlines()[0], f"({len(reasons) + 1})")
                cells.append(mark)
        rows.append([row["case"], *cells, show(row["others"], 1, "?")])
    lines = table(["minimum, ms", *(NAMES[name] for name in names), "others"], rows)
    noisy = sum((row["others"] or 0) > NOISE for row in part["rows"])
    lines += [
        "",
        f"Others: how many cores other programs kept busy meanwhile; more than {NOISE} in {noisy} "
        f"of {len(rows)} cases.",
    ]
    return lines + [f"{mark} {reason}. " for reason, mark in reasons.items()]


def family_table(part: Row) -> list[str]:
    """Geometric means of a table, as a whole and by family."""
    cap, rows = CAPS[part["dtype"]], []
    for family in ("all", *FAMILIES):
        members = [row for row in part["rows"] if family in ("all", row["family"])]
        least, middle = (
            ratios(part | {"rows": members}, statistic=statistic) for statistic in (min, median)
        )
        if least:
            counts = [str(sum(value < bound for value in least)) for bound in (1, 0.95)]
            means = [show(mean(least, cap)), show(mean(middle, cap))]
            rows.append([family, str(len(least)), *means, show(min(least)), *counts])
    titles = ["family", "cases", "by minima", "by medians", "worst", "below 1.0", "below 0.95"]
    return table(titles, rows)


# ---- pages ---------------------------------------------------------------------------------------


def lines(results: Row) -> list[Line]:
    """The means of every table, a line for each of those who are compared."""
    return [_line(*each) for each in _compared(results)] + _lines_of_networks(results)


def _line(part: Row, ours: str, other: str) -> Line:
    least, middle = (ratios(part, ours, other, each) for each in (min, median))
    cap = CAPS[part["dtype"]] if other == "best" else inf
    name = NAMES.get(other) or _name_of_best(part)
    means = mean(least, cap), mean(middle, cap)
    return Line(title_of(part), NAMES[ours], name, len(least), *means, min(middle))


def _compared(results: Row) -> Iterator[tuple[Row, str, str]]:
    """Each table with one of tconv's ways and whom it is compared with, where there is a ratio."""
    for part in results["parts"]:
        own = ours_in(part)
        pairs = [(own, "best"), ("functional", "best"), *((own, other) for other in BESIDE)]
        for ours, other in dict.fromkeys(pairs):
            if ratios(part, ours, other):
                yield part, ours, other


def _name_of_best(part: Row) -> str:
    peers = {other for other in PEERS for row in part["rows"] if seconds(row, other, min)}
    return "best of PyTorch and ONNX Runtime" if len(peers) > 1 else "PyTorch"


def _lines_of_networks(results: Row) -> list[Line]:
    """The networks of the examples, a line for each of those who compute them."""
    networks, found = {"rows": results["extras"].get("networks", [])}, []
    for other, name in list(NETWORK_NAMES.items())[1:]:
        least, middle = (ratios(networks, "layers", other, each) for each in (min, median))
        if least:
            means = mean(least, inf), mean(middle, inf)
            what = "networks of the examples: float32"
            found.append(Line(what, NETWORK_NAMES["layers"], name, len(least), *means, min(middle)))
    return found


def title_of(part: Row) -> str:
    """What a table is about, its type and its threads."""
    return f"{part['title']}: {part['dtype']}, {threads_of(part)}"


def threads_of(part: Row) -> str:
    """How many threads, in words."""
    return f"{part['threads']} thread{'s' * (part['threads'] > 1)}"


def summary(results: Row) -> list[str]:
    """The means, one row each."""
    rows = []
    for part, ours, other in _compared(results):
        line = _line(part, ours, other)
        losses = [str(sum(v < bound for v in ratios(part, ours, other))) for bound in (1, 0.95)]
        means = [f"{value:.2f}" for value in (line.by_minima, line.by_medians)]
        rows.append([*line[:3], str(line.cases), *means, *losses])
    titles = ["cases", "who", "against", "number", "by minima", "by medians"]
    shown = table([*titles, "below 1.0", "below 0.95"], rows, 3)
    if not rows:
        return [where(results)]
    return [
        where(results), "", *shown, "",
        "Geometric means of the other's time over tconv's; those to the best peer with each ratio "
        f"capped at {CAPS['float32']:g} (float64: {CAPS['float64']:g}).",
    ]  # fmt: skip


def where(results: Row) -> str:
    """Machine and versions, one line."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    return (
        f"Measured {results['date'][:16]} on {results['processor']}, {results['cores']} cores "
        f"({results['target']}); {versions}. Load average at the start: {results['load']:.1f}."
    )


def details(results: Row) -> list[str]:
    """Every table."""
    found = []
    for part in results["parts"]:
        heading = title_of(part)
        found += ["", f"## {heading[0].upper()}{heading[1:]}", ""]
        found += [*family_table(part), ""] if ratios(part) else []
        found += [*case_table(part), "", *contender_table(part)]
        found += expectations(part)
    return found + small_sections(results["extras"])


def expectations(part: Row) -> list[str]:
    """How far the plans' expected times are from the measured ones."""
    factors, portable = [], []
    for row in part["rows"]:
        if "expected_s" in row:
            measured = seconds(row, "plan", min)
            if row["expected_s"] is None:
                portable.append(row["case"])
            elif measured:
                factors.append(measured / row["expected_s"])
    lines = []
    if factors:
        near = sum(0.5 <= factor <= 2 for factor in factors)
        lines += [
            "",
            f"The time that the printed plan expects is within a factor of 2 of the measured one "
            f"in {near} of {len(factors)} cases; measured over expected is {min(factors):.2f} to "
            f"{max(factors):.2f}, in the (geometric) mean {geometric_mean(factors):.2f}.",
        ]
    if portable:
        lines += ["", f"Computed by the portable path: {', '.join(portable)}."]
    return lines


def small_sections(extras: Row) -> list[str]:
    """Networks of the examples, tiny calls, long sums, first calls, imports."""
    lines = network_table(extras["networks"]) if "networks" in extras else []
    if "overhead" not in extras:
        return lines
    rows = []
    for name, samples in extras["overhead"].items():
        times = ["–", "–"]
        if isinstance(samples, list):
            times = [f"{statistic(samples) * 1e6:.1f}" for statistic in (min, median)]
        error = extras["error"].get(name)
        rows.append([NAMES[name], *times, f"{error:.1e}" if isinstance(error, float) else "–"])
    titles = ["", "tiny call, minimum us", "median us", "error at K = 2304"]
    imports = {name: median(samples) * 1e3 for name, samples in extras["imports"].items()}
    return [
        *lines, "", "## Small measurements", "", *table(titles, rows), "",
        "A tiny call: 4 channels of 4 x 4 to 4 channels of 8 x 8. Error: the largest difference "
        "from float64, of the largest value, where each sum has 2304 terms.",
        "", *first_calls(extras["fresh"]), "",
        *without_baseline_tier(extras.get("baseline_tier", [])),
        *(f"`import {name}` takes {time:.0f} ms." for name, time in imports.items()),
    ]  # fmt: skip


def network_table(rows: list[Row]) -> list[str]:
    """The networks of the examples: times of one step, and ratios to tconv's layers."""
    names = [name for name in NETWORK_NAMES if any(name in row["contenders"] for row in rows)]
    cells, reasons = list[list[str]](), list[str]()
    for row in rows:
        times = [seconds(row, name, min) for name in names]
        line = [row["case"], *(milliseconds(time and time / row["steps"]) for time in times)]
        for statistic in (min, median):
            line += [show(ratio(row, "layers", name, statistic)) for name in names[1:]]
        cells.append([*line, show(row["others"], 1, "?")])
        for name, each in row["contenders"].items():
            if "failed" in each:
                reasons.append(f"{row['case']}, {NETWORK_NAMES[name]}: {each['failed']}. ")
    shown = [NETWORK_NAMES[name] for name in names]
    titles = ["minimum, ms", *shown]
    titles += [f"{name}, by {each}" for each in ("minima", "medians") for name in shown[1:]]
    return ["", "## Networks of the examples", "", *table([*titles, "others"], cells), "", *reasons]


def first_calls(attempts: list[Row]) -> list[str]:
    """The cost of a process's first call, without its imports."""
    rows: list[list[str]] = []
    found: list[Row] = []
    for kind, title in (("compiled", "empty cache"), ("loaded", "kernels on disk")):
        found = [row[kind] for row in attempts if "failed" not in row[kind]]
        if found:
            first = [each["first"] * 1e3 for each in found]
            more = [(each["first"] - each["later"]) * 1e3 for each in found]
            files = [each["new_files"] for each in found]
            cells = [show(median(first), 1), show(median(more), 1), show(max(more), 1)]
            rows.append([title, str(len(found)), *cells, f"{min(files)} to {max(files)}"])
    titles = ["first call of a new process", "calls", "median ms", "beyond a later call: median ms"]
    lines = table([*titles, "longest ms", "files kept"], rows)
    failures = {row[k]["failed"] for row in attempts for k in row if "failed" in row[k]}
    lines += ["", *sorted(failures)]
    for module, name in (("llvmlite", "llvmlite"), ("engine", "tconv's engine")) if found else ():
        spent = median(each[f"import_{module}"] for each in found) * 1e3
        lines += [f"Importing {name} before that takes {spent:.1f} ms and is not counted."]
    return lines


def without_baseline_tier(rows: list[Row]) -> list[str]:
    """First calls with an empty cache, with the baseline tier and without it."""
    cells = []
    for row in rows:
        with_it, without = row.get("with"), row.get("without")
        if with_it and without:
            times = [show(each * 1e3, 1) for each in (with_it, without, without - with_it)]
            cells.append([row["case"], *times])
    if not cells:
        return []
    titles = ["first call, empty cache: least ms", "with the baseline tier", "without it", "saved"]
    return [*table(titles, cells), ""]


def page(results: Row) -> str:
    """Lay out one result file."""
    found = [f"# Measured {results['date']}", "", *summary(results), *details(results)]
    return "\n".join(line.rstrip() for line in found) + "\n"


if __name__ == "__main__":
    print(page(json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))))
