"""Long kernels by sums and by Fourier transforms. ``python -m bench.long_kernels``.

By ``method="direct"``, by ``method="fft"``, by `scipy.signal.oaconvolve` where there is one channel
and no stride, and by PyTorch, each in a process of its own. They take turns, and their answers are
compared with transforms in float64 before anything is timed.
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

SEED = 0
DIRECT, FFT, SCIPY, TORCH = "direct", "fft", "scipy", "torch"
TITLES = {DIRECT: "direct", FFT: "fft", SCIPY: "SciPy", TORCH: "PyTorch"}
LIMITS = Limits(rounds=4, slice_s=0.1, least_runs=1, case_cap_s=3)


class Case(NamedTuple):
    """Shapes of x and w, and the stride."""

    name: str
    x: tuple[int, ...]
    w: tuple[int, ...]
    stride: int = 1

    def operands(self, dtype: str) -> tuple[np.ndarray, np.ndarray]:
        """The same in every process."""
        rng = np.random.default_rng(SEED)
        x, w = (rng.standard_normal(shape, np.float32) for shape in (self.x, self.w))
        return x.astype(dtype), w.astype(dtype)


CASES = {
    case.name: case
    for case in (
        Case("63x63 on 512x512", (1, 1, 512, 512), (1, 1, 63, 63)),
        Case("63x63 on 256x256, 3 channels to 3", (1, 3, 256, 256), (3, 3, 63, 63)),
        Case("63x63 by 2 on 256x256", (1, 1, 256, 256), (1, 1, 63, 63), 2),
        Case("31x31 on 512x512", (1, 1, 512, 512), (1, 1, 31, 31)),
        Case("15x15 on 512x512", (1, 1, 512, 512), (1, 1, 15, 15)),
        Case("8192 on 100,000", (1, 1, 100_000), (1, 1, 8192)),
        Case("8192 by 4 on 50,000", (1, 1, 50_000), (1, 1, 8192), 4),
        Case("1024 on 20,000, 8 channels to 8", (1, 8, 20_000), (8, 8, 1024)),
        Case("256 on 20,000, 8 channels to 8", (1, 8, 20_000), (8, 8, 256)),
        Case("17x17x17 on 64x64x64", (1, 1, 64, 64, 64), (1, 1, 17, 17, 17)),
    )
}

# ---- contenders ----------------------------------------------------------------------------------


def __getattr__(name: str) -> Any:
    """A contender by "case/who"."""
    case, _, who = name.partition("/")
    if case not in CASES:
        raise AttributeError(name)
    return partial(SETUPS[who], CASES[case])


def tconv(method: str, case: Case, dtype: str, threads: int) -> Thunk:
    """A planned call."""
    from tconv import plan
    from tconv.engine import wait_for_optimised

    x, w = case.operands(dtype)
    call = plan(x.shape, w.shape, stride=case.stride, dtype=dtype, method=method, threads=threads)
    packed = call.pack(w)
    call(x, packed)
    wait_for_optimised()
    return lambda: call(x, packed)


def scipy(case: Case, dtype: str, threads: int) -> Thunk:
    """Overlap-add of SciPy, one channel, stride 1."""
    from scipy.signal import oaconvolve

    x, w = case.operands(dtype)
    if case.stride > 1 or x.shape[1] * w.shape[1] > 1:
        raise ValueError("SciPy convolves one channel with stride 1")
    return lambda: oaconvolve(x[0, 0], w[0, 0])[None, None]


def torch(case: Case, dtype: str, threads: int) -> Thunk:
    """`torch.nn.functional.conv_transpose1d` to 3d."""
    import torch

    torch.set_num_threads(threads)
    x, w = map(torch.from_numpy, case.operands(dtype))
    function = getattr(torch.nn.functional, f"conv_transpose{x.ndim - 2}d")
    return lambda: function(x, w, stride=case.stride)


SETUPS: dict[str, Callable[..., Thunk]] = {
    DIRECT: partial(tconv, DIRECT), FFT: partial(tconv, FFT), SCIPY: scipy, TORCH: torch,
}  # fmt: skip

# ---- measuring -----------------------------------------------------------------------------------


def measure(threads: int, names: Sequence[str], limits: Limits) -> dict[str, Any]:
    """Measure cases, and say where and with what."""

    def rows(_: str, count: int, folder: Path) -> list[dict[str, Any]]:
        return [_measure(CASES[name], count, folder, limits) for name in names]

    return measure_rows([("long kernels", threads)], rows)


def _measure(case: Case, threads: int, folder: Path, limits: Limits) -> dict[str, Any]:
    print(f"long kernels: {case.name}", file=sys.stderr, flush=True)
    cache, path = str(folder / "cache"), str(folder / str([*CASES].index(case.name)))
    order = {"dtype": "float32", "threads": threads, "reference": path}
    contenders = [
        Contender(name, f"bench.long_kernels:{case.name}/{name}", threads, cache) for name in SETUPS
    ]
    try:
        write_reference(f"bench.long_kernels:{case.name}/{FFT}", threads, cache, path)
        found, others = take_turns(contenders, "prepare_network", order, limits)
    except Failed as failure:
        found, others = {name: {"failed": str(failure)} for name in SETUPS}, None
    finally:
        for each in contenders:
            each.close()
    return {"case": case.name, "others": others, "contenders": found}


# ---- the table -----------------------------------------------------------------------------------


def page(results: dict[str, Any]) -> list[str]:
    """A row for each case: the time by transforms, and how many times as long others take."""
    (part,) = results["parts"]
    rows = []
    for row in part["rows"]:
        them = {name: each for name, each in row["contenders"].items() if each.get("us")}
        times = {
            name: [statistic([*chain(*each["us"])]) / 1e6 for statistic in (min, median)]
            for name, each in them.items()
        }
        cells = [" / ".join(map(milliseconds, times[FFT])) if FFT in times else "–"]
        for name in (DIRECT, SCIPY, TORCH):
            both = FFT in times and name in times
            pairs = zip(times[name], times[FFT], strict=True) if both else ()
            cells.append(" / ".join(show(a / b) for a, b in pairs) or "–")
        error = them[FFT]["error"] if FFT in them else None
        rows.append([row["case"], *cells, "–" if error is None else f"{error:.0e}",
                     show(row["others"], 1, "?")])  # fmt: skip
    titles = ["kernel", "fft, ms", *(TITLES[n] for n in (DIRECT, SCIPY, TORCH)), "error", "load"]
    return [
        *table(titles, rows, 1), "",
        f"float32, {part['threads']} threads. fft: milliseconds of the fastest run / of the median "
        "of a plan by method=\"fft\". Others: how many times as long they take; direct is a plan "
        "with packed weights. Error: of fft, of the largest value. Load: cores that other programs "
        "kept busy meanwhile.", "",
        where(results),
    ]  # fmt: skip


def main(words: Sequence[str] | None = None) -> None:
    """Measure and print the table."""
    parser = argparse.ArgumentParser(prog="python -m bench.long_kernels", description=__doc__)
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
