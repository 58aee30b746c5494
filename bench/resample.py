"""Upsampling by 2, beside SciPy, Pillow and PyTorch. ``python -m bench.resample``.

A volume of 128^3 and a plane of 1024^2 in float32, by each kernel of `tconv.upsample`. Each
contender has a process of its own; they take turns, and their answers are compared with the formula
in float64 before anything is timed. The exception is SciPy's order 3, a spline, which is compared
with itself in float64. SciPy and Pillow use one thread.
"""

import argparse
import sys
from collections.abc import Callable, Sequence
from functools import partial
from itertools import chain
from pathlib import Path
from statistics import median
from typing import Any, NamedTuple

import numpy as np

from bench.machine import cores
from bench.peers import Thunk
from bench.report import milliseconds, show, table, where
from bench.rounds import Limits, take_turns
from bench.run import measure_rows
from bench.server import Contender, Failed, write_reference
from bench.store import compact, write_whole

SEED, SCALE = 0, 2
OURS, SCIPY, PILLOW, TORCH = "tconv", "scipy", "pillow", "torch"
TITLES = {OURS: "tconv", SCIPY: "SciPy", PILLOW: "Pillow", TORCH: "PyTorch"}
ORDERS = {"nearest": 0, "linear": 1, "cubic": 3}
FILTERS = {"nearest": "NEAREST", "linear": "BILINEAR", "cubic": "BICUBIC", "lanczos3": "LANCZOS"}
LIMITS = Limits(rounds=6, slice_s=0.1, least_runs=2, case_cap_s=1.5)


class Case(NamedTuple):
    """An array, a kernel, and who computes it beside tconv."""

    array: str
    shape: tuple[int, ...]
    kernel: str
    others: tuple[str, ...]

    @property
    def name(self) -> str:
        """Array and kernel."""
        return f"{self.array} {self.kernel}"

    def operand(self, dtype: str) -> np.ndarray:
        """The same in every process."""
        return np.random.default_rng(SEED).random(self.shape, np.float32).astype(dtype)


VOLUME, PLANE = (128,) * 3, (1024, 1024)
CASES = {
    case.name: case
    for case in (
        Case("volume", VOLUME, "nearest", (SCIPY, TORCH)),
        Case("volume", VOLUME, "linear", (SCIPY, TORCH)),
        Case("volume", VOLUME, "cubic", (SCIPY,)),
        Case("volume", VOLUME, "lanczos3", ()),
        Case("plane", PLANE, "nearest", (SCIPY, PILLOW, TORCH)),
        Case("plane", PLANE, "linear", (SCIPY, PILLOW, TORCH)),
        Case("plane", PLANE, "cubic", (SCIPY, PILLOW, TORCH)),
        Case("plane", PLANE, "lanczos3", (PILLOW,)),
    )
}

# ---- contenders ----------------------------------------------------------------------------------


def __getattr__(name: str) -> Any:
    """A contender or a reference, by "case/who"."""
    case, _, who = name.partition("/")
    if case not in CASES:
        raise AttributeError(name)
    return partial(SETUPS[who], CASES[case])


def formula(case: Case, dtype: str, threads: int) -> Thunk:
    """The definition, a matrix for each axis; in float64 the reference."""
    from tconv.ops.interpolation import KERNELS

    width, function = KERNELS[case.kernel]
    x = case.operand("float32").astype(dtype)

    def compute() -> np.ndarray:
        y = x
        for axis, n in enumerate(case.shape):
            centres = (np.arange(SCALE * n) + 0.5) / SCALE - 0.5
            distances = np.abs(centres[:, np.newaxis] - np.arange(n))
            matrix = np.where(2 * distances < width, function(distances), 0)
            matrix /= matrix.sum(1, keepdims=True)
            y = np.moveaxis(np.tensordot(matrix, y, (1, axis)), 0, axis)
        return y

    return compute


def tconv(case: Case, dtype: str, threads: int) -> Thunk:
    """`tconv.upsample`."""
    from tconv import upsample
    from tconv.engine import wait_for_optimised

    x = case.operand(dtype)
    upsample(x, SCALE, case.kernel, threads=threads)  # type: ignore[arg-type]
    wait_for_optimised()
    return lambda: upsample(x, SCALE, case.kernel, threads=threads)  # type: ignore[arg-type]


def scipy(case: Case, dtype: str, threads: int) -> Thunk:
    """`scipy.ndimage.zoom` on the same grid."""
    from scipy.ndimage import zoom

    x = case.operand("float32").astype(dtype)
    return lambda: zoom(x, SCALE, order=ORDERS[case.kernel], mode="nearest", grid_mode=True)


def pillow(case: Case, dtype: str, threads: int) -> Thunk:
    """Pillow's `resize`, without the copies from and to NumPy."""
    from PIL import Image

    image = Image.fromarray(case.operand(dtype))
    size = (SCALE * image.width, SCALE * image.height)
    return lambda: image.resize(size, Image.Resampling[FILTERS[case.kernel]])


def torch(case: Case, dtype: str, threads: int) -> Thunk:
    """`torch.nn.functional.interpolate`."""
    import torch
    from torch.nn.functional import interpolate

    torch.set_num_threads(threads)
    x = torch.from_numpy(case.operand(dtype))[None, None]
    linear = "trilinear" if x.ndim == 5 else "bilinear"
    mode = {"nearest": "nearest", "linear": linear, "cubic": "bicubic"}[case.kernel]
    # With antialias the cubic is the one with a = -0.5, the taps at the borders renormalised.
    smooth = {"antialias": True} if mode == "bicubic" else {}
    return lambda: interpolate(x, scale_factor=SCALE, mode=mode, **smooth)[0, 0]


SETUPS: dict[str, Callable[..., Thunk]] = {
    "formula": formula, OURS: tconv, SCIPY: scipy, PILLOW: pillow, TORCH: torch,
}  # fmt: skip

# ---- measuring -----------------------------------------------------------------------------------


def measure(threads: int, names: Sequence[str], limits: Limits) -> dict[str, Any]:
    """Measure cases, and say where and with what."""

    def rows(_: str, count: int, folder: Path) -> list[dict[str, Any]]:
        return [_measure(CASES[name], count, folder, limits) for name in names]

    return measure_rows([("resample", threads)], rows)


def _measure(case: Case, threads: int, folder: Path, limits: Limits) -> dict[str, Any]:
    print(f"resample: {case.name}", file=sys.stderr, flush=True)
    cache, found, busy = str(folder / "cache"), dict[str, Any](), list[float]()
    spline = [SCIPY] if case.kernel == "cubic" and SCIPY in case.others else []
    groups = [("formula", [OURS, *(each for each in case.others if each not in spline)])]
    groups += [(SCIPY, spline)] if spline else []
    for n, (referee, them) in enumerate(groups):
        path = str(folder / f"{case.name}-{n}".replace(" ", "-"))
        order = {"dtype": "float32", "threads": threads, "reference": path}
        contenders = [
            Contender(name, f"bench.resample:{case.name}/{name}", threads, cache) for name in them
        ]
        try:
            write_reference(f"bench.resample:{case.name}/{referee}", threads, cache, path)
            records, others = take_turns(contenders, "prepare_network", order, limits)
            found |= records
            busy += [] if others is None else [others]
        except Failed as failure:
            found |= {name: {"failed": str(failure)} for name in them}
        finally:
            for each in contenders:
                each.close()
    return {"case": case.name, "others": max(busy, default=None), "contenders": found}


# ---- the table -----------------------------------------------------------------------------------


def page(results: dict[str, Any]) -> list[str]:
    """A row for each case: times, and how many times as long as tconv the others take."""
    (part,) = results["parts"]
    rows, reasons = list[list[str]](), list[str]()
    for row in part["rows"]:
        them = {name: each for name, each in row["contenders"].items() if each.get("us")}
        for name, each in row["contenders"].items():
            if "failed" in each:
                reasons += [f"{row['case']}, {TITLES[name]}: {each['failed']}.", ""]
        times = {
            name: [statistic([*chain(*each["us"])]) / 1e6 for statistic in (min, median)]
            for name, each in them.items()
        }
        cells = [" / ".join(map(milliseconds, times[OURS])) if OURS in times else "–"]
        for name in (SCIPY, PILLOW, TORCH):
            both = OURS in times and name in times
            pairs = zip(times[name], times[OURS], strict=True) if both else ()
            cells.append(" / ".join(show(a / b) for a, b in pairs) or "–")
        rows.append([row["case"], *cells, show(row["others"], 1, "?")])
    titles = ["array, kernel", "tconv, ms", *(TITLES[n] for n in (SCIPY, PILLOW, TORCH)), "load"]
    return [
        *table(titles, rows, 1), "", *reasons,
        f"By 2 along each axis, {part['threads']} threads, float32. tconv: milliseconds of the "
        "fastest run / of the median. Others: how many times as long they take, by the fastest "
        "runs / by medians. SciPy: zoom of order 0, 1 and 3; its cubic is a spline, that of the "
        "others Keys' with a = -0.5. Load: cores that other programs kept busy meanwhile.", "",
        where(results),
    ]  # fmt: skip


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.resample", description=__doc__)
    parser.add_argument("--threads", type=int, default=min(2, cores()))
    parser.add_argument("--cases", nargs="+", choices=[*CASES], default=[*CASES], metavar="CASE")
    parser.add_argument("--output", type=Path, help="file for all samples, as JSON")
    options = parser.parse_args(words)
    results = measure(options.threads, options.cases, LIMITS)
    print("\n".join(page(results)))
    if options.output:
        write_whole(options.output, compact(results))


if __name__ == "__main__":
    main()
