"""HOW IT IS MEASURED: contenders in turns, each in its own process, answers compared first.

Without options: the published and the drawn cases in float32, the published ones with one thread
and in float64, and the small sections. Any of --group, --cases, --contenders, --dtype, --threads
asks for one table instead. Every sample goes to bench/results/ as JSON, and beside it a page.
"""

import argparse
import json
import os
import platform
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.cases import GROUPS, Case
from bench.extras import extras
from bench.machine import Watch, cores, nominal_ghz, processor
from bench.peers import CONTENDERS, PACKAGES, PEERS, SEED
from bench.picture import as_svg, as_text
from bench.report import page, publish
from bench.server import ROOT, Contender, Failed

# Before each slice, so that no pool spins any more: PyTorch's does for 3 ms, ONNX Runtime's for 25,
# and OpenBLAS's for 100, so more after those who use it. (Xeon, 2 cores)
PAUSE_S, PAUSE_AFTER_BLAS_S = 0.035, 0.085
USE_BLAS = ("portable", "tinyml")
SLICE_S, LEAST_RUNS, SLICE_CAP_S = 0.06, 3, 0.4
CASE_CAP_S = 2.5  # of one contender, over all rounds
SHOWN_BESIDE = ("portable", "jax", "tinyml")
QUICK = ("hifigan-up3", "convtasnet", "dcgan-l4", "dcgan-l2-b1", "unet-up3", "fcn8s-dw",
         "fsrcnn-x3", "vgg-inv-mid", "groups4", "voxgan-last")  # fmt: skip


@dataclass
class Part:
    """One table: which cases, by whom, how."""

    title: str
    cases: Sequence[Case]
    contenders: dict[str, str]
    dtype: str = "float32"
    threads: int = 2
    rounds: int = 5
    expects: bool = False  # ask the plan what it expects
    prepare_cap_s: dict[str, float] = field(default_factory=lambda: dict.fromkeys(SHOWN_BESIDE, 5))


def measure_part(part: Part, folder: Path, log: Any = sys.stderr) -> dict[str, Any]:
    """Measure a table."""
    cache = str(folder / "cache")
    contenders = [
        Contender(name, function, part.threads, cache) for name, function in part.contenders.items()
    ]
    referee = Contender("reference", CONTENDERS["portable"], cores(), cache)
    rows = []
    try:
        for case in part.cases:
            print(f"{part.title}: {case.name}", file=log, flush=True)
            path = folder / "reference.npy"
            order = {"case": case, "dtype": part.dtype, "seed": SEED}
            referee.ask("refer", **order, path=str(path))
            row = _measure_case(part, case, contenders, order | {"reference": str(path)})
            if part.expects and "error" in row["contenders"].get("plan", {}):
                order = {"case": case, "dtype": part.dtype, "threads": part.threads}
                row["expected_s"] = contenders[0].ask("expect", **order)
            rows.append(row)
            path.unlink()
    finally:
        for each in (*contenders, referee):
            each.close()
    return {"title": part.title, "dtype": part.dtype, "threads": part.threads, "rows": rows}


def _measure_case(
    part: Part, case: Case, contenders: list[Contender], order: dict[str, Any]
) -> dict[str, Any]:
    """Compare the answers of one case, time the right ones in rounds, and compare once more."""
    found: dict[str, dict[str, Any]] = {}
    for each in contenders:
        cap_s = part.prepare_cap_s.get(each.name, 60)
        try:
            ready = each.ask("prepare", cap_s, **order, threads=part.threads)
        except Failed as failure:
            found[each.name] = {"failed": str(failure)}
        else:
            found[each.name] = {"error": ready["error"], "us": []}
    watch = Watch([each.process.pid for each in contenders if each.process])
    for turn in range(part.rounds):
        places = contenders[turn % len(contenders) :] + contenders[: turn % len(contenders)]
        for each in places if turn % 2 == 0 else places[::-1]:
            _time_slice(each, found)
    others = watch.others()
    for each in contenders:
        if "us" in found[each.name]:
            try:
                found[each.name]["error"] = max(found[each.name]["error"], each.ask("check"))
            except Failed as failure:
                found[each.name] = {"failed": f"not the second time: {failure}"}
    return {
        "case": case.name,
        "sizes": str(case),
        "family": case.family,
        "flops": case.geometry.flops,
        "others": others,
        "load": round(os.getloadavg()[0], 2),
        "contenders": found,
    }


def _time_slice(contender: Contender, found: dict[str, dict[str, Any]]) -> None:
    """Add one slice of samples, if the contender gave the right answer and has time left."""
    samples = found[contender.name].get("us")
    if samples is None or sum(map(sum, samples)) / 1e6 > CASE_CAP_S:
        return
    time.sleep(PAUSE_S)
    order = {"runs": LEAST_RUNS, "seconds": SLICE_S, "most_s": SLICE_CAP_S}
    try:
        samples.append(contender.ask("time", **order))
        if contender.name in USE_BLAS:
            time.sleep(PAUSE_AFTER_BLAS_S)
    except Failed as failure:
        found[contender.name] = {"failed": str(failure)}


# ---- what is asked for ---------------------------------------------------------------------------


def installed(names: Sequence[str]) -> dict[str, str]:
    """Those of the contenders whose packages are installed, with their functions."""
    return {n: CONTENDERS[n] for n in names if n not in PACKAGES or find_spec(PACKAGES[n])}


def everything(threads: int) -> list[Part]:
    """What is measured when nothing is asked for in particular."""
    published, drawn, tutorial = GROUPS["published"], GROUPS["sampled"], GROUPS["tutorial"]
    own, peers = installed(["plan", "functional", "portable"]), installed(PEERS)
    with_all = own | peers | installed(SHOWN_BESIDE)
    few = installed(["plan", *PEERS])
    both = {"dtype": "float64", "rounds": 4}
    return [
        Part("published", published, with_all, threads=threads, expects=True),
        Part("drawn at random", drawn, own | peers, threads=threads, expects=True),
        Part("published", published, few, threads=1, rounds=4),
        Part("published", published, installed(["plan", "torch"]), threads=threads, **both),
        Part("tutorial", tutorial, installed(["plan", "functional", "tinyml"]), threads=threads),
    ]


def quick(threads: int) -> list[Part]:
    """A taste of it."""
    cases = [case for case in GROUPS["published"] if case.name in QUICK]
    names = installed(["plan", "functional", *PEERS])
    return [Part("a few published", cases, names, threads=threads, rounds=3, expects=True)]


def asked_for(arguments: argparse.Namespace) -> tuple[list[Part], bool]:
    """Which tables the options mean, and whether the small sections belong to them."""
    threads = arguments.threads or cores()
    choices = (arguments.group, arguments.cases, arguments.contenders, arguments.dtype)
    if not any(choices) and arguments.threads is None:
        return quick(threads) if arguments.quick else everything(threads), True
    dtype = arguments.dtype or "float32"
    names = arguments.contenders or ["plan", "functional", "portable", *PEERS]
    group = arguments.group or ("published" if not arguments.cases else None)
    cases = [case for name in GROUPS if group in (None, name) for case in GROUPS[name]]
    if arguments.cases or (arguments.quick and not arguments.group):
        cases = [case for case in cases if case.name in (arguments.cases or QUICK)]
    rounds = 3 if arguments.quick else 5
    return [
        Part(group or "chosen", cases, installed(names), dtype, threads, rounds, expects=True)
    ], False


def measure(parts: list[Part], small: bool, quickly: bool) -> dict[str, Any]:
    """Measure everything that was asked for and say where and with what."""
    now = datetime.now(UTC)
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        asked = Contender("versions", CONTENDERS["portable"], 1, name)
        packages = sorted({"numpy", "tconv", "llvmlite", "onnx", "jaxlib", *PACKAGES.values()})
        versions = {"python": platform.python_version()} | asked.ask("versions", packages=packages)
        try:
            target = asked.ask("machine")
        except Failed as failure:
            target = str(failure)
        asked.close()
        results = {
            "date": now.isoformat(timespec="seconds"),
            "processor": processor(),
            "target": target,
            "nominal_ghz": nominal_ghz(),
            "cores": cores(),
            "load": os.getloadavg()[0],
            "versions": versions,
            "parts": [measure_part(part, folder) for part in parts],
            "extras": extras(folder, list(installed(list(CONTENDERS))), quickly) if small else {},
        }
    results["minutes"] = round((datetime.now(UTC) - now).total_seconds() / 60, 1)
    return results


def write(results: dict[str, Any], output: Path) -> str:
    """Write the results and their page, each whole or not at all; return the page."""
    text = page(results)
    for path, content in ((output, compact(results)), (output.with_suffix(".md"), text)):
        unfinished = path.with_name(f".{path.name}.{os.getpid()}")
        unfinished.write_text(content, encoding="utf-8")
        unfinished.replace(path)
    return text


def compact(results: dict[str, Any]) -> str:
    """JSON with a line per contender and case, so that files can be read and compared."""
    parts = []
    for part in results["parts"]:
        rows = []
        for row in part["rows"]:
            found = [f"{_json(name)}:{_json(each)}" for name, each in row["contenders"].items()]
            rows.append(_opened(row, "contenders", "{", found) + "}}")
        parts.append(_opened(part, "rows", "[", rows) + "]}")
    return _opened(results, "parts", "[", parts) + "]}\n"


def _opened(record: dict[str, Any], key: str, bracket: str, lines: list[str]) -> str:
    """A record as JSON with one of its values last, a line for each part of it, not closed."""
    head = _json({name: value for name, value in record.items() if name != key})
    return f"{head[:-1]},{_json(key)}:{bracket}\n" + ",\n".join(lines)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))


def main(words: Sequence[str] | None = None) -> None:
    """Run as the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    names = [case.name for group in GROUPS.values() for case in group]
    parser.add_argument("--quick", action="store_true", help="few cases, or fewer rounds")
    parser.add_argument("--group", choices=list(GROUPS))
    parser.add_argument("--cases", nargs="+", choices=names, metavar="CASE")
    parser.add_argument("--contenders", nargs="+", choices=list(CONTENDERS), metavar="NAME")
    parser.add_argument("--dtype", choices=["float32", "float64"])
    parser.add_argument("--threads", type=int)
    parser.add_argument("--output", type=Path, help="default: bench/results/<date>.json")
    parser.add_argument("--bars", type=Path, metavar="SVG", help="draw the first table, print bars")
    parser.add_argument(
        "--publish", action="store_true", help="write the tables into README.md and docs too"
    )
    arguments = parser.parse_args(words)
    parts, is_all = asked_for(arguments)
    results = measure(parts, is_all, arguments.quick)
    stamp = results["date"][:16].replace(":", "").replace("T", "-")
    output = arguments.output or ROOT / "bench" / "results" / f"{stamp}.json"
    output.parent.mkdir(parents=True, exist_ok=True)
    text = write(results, output)
    if arguments.bars:
        arguments.bars.parent.mkdir(parents=True, exist_ok=True)
        arguments.bars.write_text(as_svg(results["parts"][0]), encoding="utf-8")
        text = as_text(results["parts"][0])
    print(text)
    if arguments.publish:
        publish(results, ROOT)
        (ROOT / "docs" / "speed.svg").write_text(as_svg(results["parts"][0]), encoding="utf-8")
    print(f"written to {arguments.bars or output}", file=sys.stderr)


if __name__ == "__main__":
    main()
