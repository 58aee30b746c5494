"""WHAT CAME OUT: a result file as a Markdown page. ``python -m bench.report FILE``."""

import json
import sys
from pathlib import Path
from statistics import geometric_mean, median
from typing import Any

from bench.cases import CASES

CAP = 4.0  # a ratio above counts as this one in the capped mean, so that no outlier carries it


def report(results: dict[str, Any]) -> str:
    """Lay out the page: where it was measured, a row per case, means, and the time of importing."""
    versions = ", ".join(f"{name} {version}" for name, version in results["versions"].items())
    cases = {case.name: case for case in CASES}
    lines = [
        f"# Measured {results['date']}",
        "",
        f"{results['processor']}, {results['threads']} threads; {versions}.",
        "float32, bias included, a complete call each. Ratio: PyTorch's time over tconv's, above",
        "1 where tconv is faster. Spread: tconv's median over its minimum.",
        "",
        "| case | GFLOP | torch ms | tconv ms | ratio of minimums | of medians | spread |",
        "|---|---:|---:|---:|---:|---:|---:|",
    ]
    least: list[float] = []
    middle: list[float] = []
    for row in results["cases"]:
        ours, theirs = row["seconds"]["tconv"], row["seconds"]["torch"]
        least.append(min(theirs) / min(ours))
        middle.append(median(theirs) / median(ours))
        numbers = [cases[row["case"]].geometry.flops / 1e9, min(theirs) * 1e3, min(ours) * 1e3]
        numbers += [least[-1], middle[-1], median(ours) / min(ours)]
        lines.append(f"| {row['case']} | {' | '.join(f'{number:.2f}' for number in numbers)} |")
    for title, cap in (("geomean", float("inf")), (f"geomean, capped at {CAP:.0f}", CAP)):
        means = [geometric_mean([min(r, cap) for r in ratios]) for ratios in (least, middle)]
        lines.append(f"| **{title}** | | | | **{means[0]:.2f}** | **{means[1]:.2f}** | |")
    slower = sum(ratio < 1 for ratio in least)
    lines += ["", f"Slower than PyTorch, by the minimums: {slower} of {len(least)} cases."]
    numpy, tconv = (results["imports"][name] for name in ("numpy", "tconv"))
    lines += [
        "",
        f"`import numpy` takes {median(numpy) * 1e3:.0f} ms, `import tconv` "
        f"{median(tconv) * 1e3:.0f} ms (medians of {len(numpy)} fresh interpreters in turns).",
        "",
    ]
    return "\n".join(lines)


if __name__ == "__main__":
    print(report(json.loads(Path(sys.argv[1]).read_text())))
