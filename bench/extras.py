"""Small measurements: tiny calls, the first call of a process, imports, and long sums.

Run as ``python -m bench.extras CASE`` this file is such a process.
"""

import json
import os
import subprocess
import sys
from importlib import import_module
from pathlib import Path
from time import perf_counter
from typing import Any

from bench.cases import PUBLISHED, Case
from bench.machine import cores
from bench.peers import CONTENDERS, PEERS, SEED, functional, operands
from bench.server import ROOT, Contender, Failed, as_case, write_reference

TINY = Case("tiny", 1, 4, 4, (4, 4), 4, 2, 1, 0, 1, 1, "what a call costs besides its work")
LONG_SUM = Case("K = 2304", 1, 256, 64, (32, 32), 3, 1, 1, 0, 1, 1, "256 channels, 9 taps")
NEW_SHAPES = (
    "hifigan-up4", "dcgan-l2-b1", "dcgan-l5-b1", "fsrcnn-x3", "centernet-dw", "groups4",
    "voxgan-last",
)  # fmt: skip


def extras(folder: Path, contenders: list[str], quickly: bool) -> dict[str, Any]:
    """Make all small measurements; `folder` is for temporary files."""
    known = ("plan", "plan_new", "functional", *PEERS)
    return {
        "overhead": _overhead(folder, [name for name in known if name in contenders]),
        "error": _errors(folder, [name for name in known if name in contenders]),
        "fresh": _fresh(folder, quickly),
        "baseline_tier": baseline_tier(folder, quickly),
        "imports": import_times(folder, 3 if quickly else 9),
    }


def _set_up(case: Case, contender: Contender, folder: Path, threads: int) -> float:
    """Prepare a contender for a case; return its error."""
    path = folder / case.name
    order = {"case": case, "dtype": "float32", "seed": SEED}
    if not path.exists():
        write_reference(
            CONTENDERS["portable"], threads, str(folder / "cache"), str(path), **order
        )  # fmt: skip
    return float(contender.ask("prepare", **order, threads=threads, reference=str(path))["error"])


def _overhead(folder: Path, names: list[str]) -> dict[str, Any]:
    """Seconds per call of `TINY`, in loops of 100 calls, contenders in turns."""
    found: dict[str, Any] = {}
    contenders = [Contender(n, CONTENDERS[n], cores(), str(folder / "cache")) for n in names]
    for each in contenders:
        try:
            _set_up(TINY, each, folder, cores())
            found[each.name] = []
        except Failed as failure:
            found[each.name] = {"failed": str(failure)}
    for _ in range(5):
        for each in contenders:
            if isinstance(found[each.name], list):
                found[each.name] += each.ask("loop", calls=100, repeats=10)
    for each in contenders:
        each.close()
    return found


def _errors(folder: Path, names: list[str]) -> dict[str, Any]:
    """Largest error of `LONG_SUM`, of its largest value."""
    found: dict[str, Any] = {}
    for name in names:
        contender = Contender(name, CONTENDERS[name], cores(), str(folder / "cache"))
        try:
            found[name] = _set_up(LONG_SUM, contender, folder, cores())
        except Failed as failure:
            found[name] = {"failed": str(failure)}
        contender.close()
    return found


def import_times(folder: Path, repeats: int) -> dict[str, list[float]]:
    """Seconds that a fresh interpreter takes for each import, in turns, after one more each."""
    samples: dict[str, list[float]] = {"numpy": [], "numpy, tconv": []}
    for turn in range(repeats + 1):
        for modules, found in samples.items():
            code = (
                "import time; start = time.perf_counter(); "
                f"import {modules}; print(time.perf_counter() - start)"
            )
            done = subprocess.run(
                [sys.executable, "-c", code], capture_output=True, check=True, cwd=ROOT,
                env=_as_installed(folder),
            )  # fmt: skip
            if turn:
                found.append(round(float(done.stdout), 4))
    return samples


def _as_installed(folder: Path) -> dict[str, str]:
    """An environment in which Python keeps the bytecode of modules, as where tconv is installed."""
    environment = {k: v for k, v in os.environ.items() if k != "PYTHONDONTWRITEBYTECODE"}
    return environment | {"PYTHONPYCACHEPREFIX": str(folder / "bytecode")}


# ---- the first call of a process -----------------------------------------------------------------


def _fresh(folder: Path, quickly: bool) -> list[dict[str, Any]]:
    """Calls of `NEW_SHAPES` in new processes: an empty cache, then what was written there."""
    rows, environment = [], _as_installed(folder)
    _in_a_new_process(PUBLISHED[0], folder / "first", environment)
    for case in PUBLISHED:
        if case.name in (NEW_SHAPES[:3] if quickly else NEW_SHAPES):
            for attempt in range(1 if quickly else 2):
                cache = folder / f"{case.name}-{attempt}"
                rows.append(
                    {
                        "case": case.name,
                        "compiled": _in_a_new_process(case, cache, environment),
                        "loaded": _in_a_new_process(case, cache, environment),
                    }
                )
    return rows


def baseline_tier(folder: Path, quickly: bool) -> list[dict[str, Any]]:
    """First calls of `NEW_SHAPES` with an empty cache, with and without the baseline tier.

    Without it a first call compiles all of its code with optimisation. The least of some processes,
    in turns.
    """
    rows, environment = [], _as_installed(folder)
    for case in PUBLISHED:
        if case.name in (NEW_SHAPES[:3] if quickly else NEW_SHAPES):
            found: dict[str, float] = {}
            for attempt in range(1 if quickly else 5):
                for tier in ("with", "without"):
                    cache = folder / f"{case.name}-{tier}-{attempt}"
                    seconds = _in_a_new_process(case, cache, environment, tier)
                    if "failed" not in seconds:
                        found[tier] = min(found.get(tier, seconds["first"]), seconds["first"])
            rows.append({"case": case.name, **found})
    return rows


def _in_a_new_process(
    case: Case, cache: Path, environment: dict[str, str], tier: str = "with"
) -> dict[str, Any]:
    before = set(cache.rglob("*.kernel"))
    done = subprocess.run(
        [sys.executable, "-m", "bench.extras", json.dumps(case), tier],
        capture_output=True, text=True, cwd=ROOT, env=environment | {"TCONV_CACHE": str(cache)},
        check=False,
    )  # fmt: skip
    if done.returncode:
        return {"failed": (done.stderr.strip().splitlines() or [str(done.returncode)])[-1]}
    return json.loads(done.stdout) | {"new_files": len(set(cache.rglob("*.kernel")) - before)}


def _call_for_the_first_time(case: Case, tier: str) -> dict[str, float]:
    """Seconds of the first and of a later functional call, and of the imports before.

    A thread count of 1 keeps the start of threads out, which happens once and not per shape. All
    results are kept, so that a later call writes to memory that is new to it, too.
    """
    import tconv

    begin = perf_counter()
    import_module("llvmlite.binding")
    llvmlite = perf_counter() - begin
    begin = perf_counter()
    import_module("tconv.engine.lowering")  # for shapes whose layout is not on disk
    import_module("tconv.engine.executor")
    engine = perf_counter() - begin
    if tier == "without":
        tiers, jit = map(import_module, ("tconv.engine.compile.tiers", "tconv.engine.compile.jit"))
        tiers.load_tiered = lambda emits, here, *, use: use(jit.load_all(emits, here))
    arrays = operands(case, "float32", SEED)
    tconv.conv_transpose  # noqa: B018  names are imported when they are first asked for
    call, taken, kept = functional(case, arrays, 1), [], []
    for _ in range(5):
        begin = perf_counter()
        kept.append(call())
        taken.append(perf_counter() - begin)
    found = {"import_llvmlite": llvmlite, "import_engine": engine}
    return found | {"first": taken[0], "later": min(taken[1:])}


if __name__ == "__main__":
    print(json.dumps(_call_for_the_first_time(as_case(json.loads(sys.argv[1])), sys.argv[2])))
