"""Layers by tconv and by its peers, answers compared first. ``python -m bench.run``.

Without options: the published and the drawn cases in float32, the published ones with one thread,
in float64 and in the halves, their gradients, networks of the examples, and small measurements.
Any of --group, --want, --cases, --contenders, --dtype, --threads asks for one table instead, or one
for each want; --networks for these. The result file holds every sample.
"""

import argparse
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from bench.cases import GROUPS, Case
from bench.examples import NETWORKS
from bench.extras import extras
from bench.machine import commit, cores, nominal_ghz, processor
from bench.peers import CONTENDERS, PACKAGES, PEERS, SEED
from bench.picture import as_svg, as_text
from bench.report import lines, page
from bench.rounds import SHOWN_BESIDE, USE_BLAS, Limits, take_turns
from bench.server import TOLERANCES, Contender, Failed, write_reference
from bench.store import finish, parsed, write_whole
from bench.wants import WANTS

HALVES = ("float16", "bfloat16")
QUICK = ("hifigan-up3", "convtasnet", "dcgan-l4", "dcgan-l2-b1", "unet-up3", "fcn8s-dw",
         "fsrcnn-x3", "vgg-inv-mid", "groups4", "voxgan-last")  # fmt: skip
QUICKEST = ("hifigan-up3", "dcgan-l2-b1", "groups4", "voxgan-last")
"""For gradients and halves, in which PyTorch may need seconds for a call."""
QUICK_NETWORKS = ("autoencoder",)


def brief(rounds: int = 3, want: str = "y", dtype: str = "float32") -> Limits:
    """Limits for gradients and halves, in which PyTorch may need seconds for a call.

    The weight gradients of the halves are NumPy's matrix products.
    """
    cap_s = dict.fromkeys(SHOWN_BESIDE, 3.0) | {"torch": 20.0}
    is_portable = dtype in HALVES and want in ("w", "step")
    use_blas = (*USE_BLAS, "functional") if is_portable else USE_BLAS
    return Limits(rounds, 0.04, 1, 0.8, cap_s, use_blas)


@dataclass
class Part:
    """A table to be measured: its cases, contenders and settings."""

    title: str
    cases: Sequence[Case]
    contenders: dict[str, str]
    dtype: str = "float32"
    threads: int = 2
    want: str = "y"
    expects: bool = False  # ask the plan what it expects
    limits: Limits = field(default_factory=Limits)


def measure_part(part: Part, folder: Path, log: Any = sys.stderr) -> dict[str, Any]:
    """Measure a table."""
    cache, portable = str(folder / "cache"), WANTS[part.want].contenders["portable"]
    contenders = [
        Contender(name, function, part.threads, cache) for name, function in part.contenders.items()
    ]
    referee = Contender("reference", portable, cores(), cache)
    rows = []
    try:
        for case in part.cases:
            print(f"{part.title}, {part.dtype}: {case.name}", file=log, flush=True)
            path = folder / "reference"
            order = {"case": case, "dtype": part.dtype, "seed": SEED, "want": part.want}
            referee.ask("refer", **order, path=str(path))
            row = _measure_case(part, case, contenders, order | {"reference": str(path)})
            if part.expects and "error" in row["contenders"].get("plan", {}):
                order = {"case": case, "dtype": part.dtype, "threads": part.threads}
                row["expected_s"] = contenders[0].ask("expect", **order)
            rows.append(row)
            shutil.rmtree(path)
    finally:
        for each in (*contenders, referee):
            each.close()
    known = {"title": part.title, "want": part.want, "dtype": part.dtype, "threads": part.threads}
    return known | {"rows": rows}


def _measure_case(
    part: Part, case: Case, contenders: list[Contender], order: dict[str, Any]
) -> dict[str, Any]:
    """The record of one case."""
    order = order | {"threads": part.threads}
    found, others = take_turns(contenders, "prepare", order, part.limits)
    return {
        "case": case.name,
        "sizes": str(case),
        "family": case.family,
        "flops": case.geometry.flops * len(WANTS[part.want].letters),
        "others": others,
        "load": round(os.getloadavg()[0], 2),
        "contenders": found,
    }


def measure_examples(names: Sequence[str], folder: Path, log: Any = sys.stderr) -> list[Any]:
    """Measure networks of the examples; a record each, in the form of a case."""
    cache, threads = str(folder / "cache"), cores()
    rows: list[dict[str, Any]] = []
    for name in names:
        print(f"networks: {name}", file=log, flush=True)
        title, steps, functions = NETWORKS[name]
        contenders = [Contender(n, f, threads, cache) for n, f in _possible(functions).items()]
        path = str(folder / name)
        order = {"dtype": "float32", "threads": threads, "reference": path}
        limits = Limits(rounds=2)
        try:
            write_reference(functions["layers"], threads, cache, path)
            found, others = take_turns(contenders, "prepare_network", order, limits)
        except Failed as failure:
            found, others = {each.name: {"failed": str(failure)} for each in contenders}, None
        for each in contenders:
            each.close()
        rows.append({"case": title, "steps": steps, "others": others, "contenders": found})
    return rows


# ---- what is asked for ---------------------------------------------------------------------------


def installed(names: Sequence[str], want: str = "y") -> dict[str, str]:
    """Functions of the contenders that measure a want and whose packages are installed."""
    known = WANTS[want].contenders
    return _possible({name: known[name] for name in names if name in known})


def _possible(functions: dict[str, str]) -> dict[str, str]:
    return {n: f for n, f in functions.items() if n not in PACKAGES or find_spec(PACKAGES[n])}


def titled(name: str, want: str) -> str:
    """The title of a table."""
    return ", ".join(filter(None, (name, WANTS[want].title)))


def everything(threads: int) -> list[Part]:
    """All tables of the suite."""
    published, drawn, tutorial = GROUPS["published"], GROUPS["sampled"], GROUPS["tutorial"]
    own, peers = installed(["plan", "functional", "portable"]), installed(PEERS)
    with_all = own | peers | installed(SHOWN_BESIDE)
    few = installed(["plan", *PEERS])
    less = Limits(rounds=3)
    return [
        Part("published", published, with_all, threads=threads, expects=True),
        Part(
            "drawn at random",
            drawn,
            own | peers,
            threads=threads,
            expects=True,
            limits=less,
        ),
        Part("published", published, few, threads=1, limits=less),
        Part("published", published, installed(["plan", "torch"]), "float64", threads, limits=less),
        Part("tutorial", tutorial, installed(["plan", "functional", "tinyml"]), threads=threads),
        *others("published", published, threads),
        _gradient("upconv7", GROUPS["upconv7"], "x", threads),
    ]


def quick(threads: int) -> list[Part]:
    """A few cases of each kind."""
    published = GROUPS["published"]
    cases, few = ([c for c in published if c.name in names] for names in (QUICK, QUICKEST))
    names, limits = installed(["plan", "functional", *PEERS]), Limits(rounds=3)
    return [
        Part("a few published", cases, names, threads=threads, expects=True, limits=limits),
        *others("a few published", few, threads),
    ]


def others(name: str, cases: Sequence[Case], threads: int) -> list[Part]:
    """Gradients, steps of training and halves."""
    some = installed(["plan", "torch"])
    return [
        *(_gradient(name, cases, want, threads) for want in ("x", "w", "step")),
        *(
            Part(name, cases, some, dtype, threads, expects=True, limits=brief(rounds=2))
            for dtype in HALVES
        ),
    ]


def _gradient(name: str, cases: Sequence[Case], want: str, threads: int) -> Part:
    names = installed(["plan", "functional", "torch", "onnx_conv"], want)
    return Part(titled(name, want), cases, names, "float32", threads, want, limits=brief())


def asked_for(arguments: argparse.Namespace) -> tuple[list[Part], bool]:
    """The tables that the options ask for, and whether small measurements belong to them."""
    threads = arguments.threads or cores()
    choices = (arguments.group, arguments.cases, arguments.contenders, arguments.dtype)
    if not any((*choices, arguments.want, arguments.threads)):
        if arguments.networks:
            return [], False
        return quick(threads) if arguments.quick else everything(threads), True
    dtype, wants = arguments.dtype or "float32", arguments.want or ["y"]
    group = arguments.group or ("published" if not arguments.cases else None)
    cases = [case for name in GROUPS if group in (None, name) for case in GROUPS[name]]
    if arguments.cases or (arguments.quick and not arguments.group):
        cases = [case for case in cases if case.name in (arguments.cases or QUICK)]
    rounds, parts = 3 if arguments.quick else 5, []
    for want in wants:
        is_usual = want == "y" and dtype not in HALVES
        beside = ["onnx_conv"] if want == "x" else []
        names = arguments.contenders or ["plan", "functional", "portable", *PEERS, *beside]
        limits = Limits(rounds) if is_usual else brief(rounds, want, dtype)
        title = titled(group or "chosen", want)
        chosen = installed(names, want)
        parts.append(Part(title, cases, chosen, dtype, threads, want, want == "y", limits))
    return parts, False


def measure(parts: list[Part], small: bool, quickly: bool, whole: bool = False) -> dict[str, Any]:
    """Measure tables, and record where and with which versions.

    `small` adds the small measurements, `whole` the networks of the examples.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results, begin = facts(folder), datetime.now(UTC)
        results["parts"] = [measure_part(part, folder) for part in parts]
        if small:
            results["extras"] = extras(folder, list(installed(list(CONTENDERS))), quickly)
        if whole:
            names = QUICK_NETWORKS if quickly else [*NETWORKS]
            results["extras"]["networks"] = measure_examples(names, folder)
    return results | {"minutes": _minutes_since(begin)}


def facts(folder: Path) -> dict[str, Any]:
    """The head of a result file: when and where, by which code, with which versions."""
    asked = Contender("versions", CONTENDERS["portable"], cores(), str(folder / "cache"))
    packages = sorted(
        {"numpy", "tconv", "llvmlite", "onnx", "jaxlib", "openvino", *PACKAGES.values()}
    )
    versions = asked.ask("versions", packages=packages)
    try:
        target = asked.ask("machine")
    except Failed as failure:
        target = str(failure)
    asked.close()
    return {
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "processor": processor(),
        "target": target,
        "nominal_ghz": nominal_ghz(),
        "cores": cores(),
        "load": os.getloadavg()[0],
        "versions": {"python": platform.python_version()} | versions,
        "parts": [],
        "extras": {},
    }


def _minutes_since(begin: datetime) -> float:
    return round((datetime.now(UTC) - begin).total_seconds() / 60, 1)


def measure_rows(
    parts: Iterable[tuple[str, int]], rows: Callable[[str, int, Path], list[dict[str, Any]]]
) -> dict[str, Any]:
    """Measure parts of a title and a number of threads, and record where and with which versions.

    `rows` makes the records of a part; it has a folder for all of them.
    """
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        results, begin = facts(folder), datetime.now(UTC)
        results["parts"] = [
            {
                "title": title, "dtype": "float32", "threads": threads,
                "rows": rows(title, threads, folder),
            }
            for title, threads in parts
        ]  # fmt: skip
    return results | {"minutes": _minutes_since(begin)}


def main(words: Sequence[str] | None = None) -> None:
    """Run as the arguments say."""
    parser = argparse.ArgumentParser(prog="python -m bench.run", description=__doc__)
    names = [case.name for group in GROUPS.values() for case in group]
    everybody = sorted({name for want in WANTS.values() for name in want.contenders})
    parser.add_argument("--quick", action="store_true", help="few cases, or fewer rounds")
    parser.add_argument("--group", choices=list(GROUPS))
    parser.add_argument("--want", nargs="+", choices=list(WANTS), help="y, x, w or step")
    parser.add_argument("--cases", nargs="+", choices=names, metavar="CASE")
    parser.add_argument("--contenders", nargs="+", choices=everybody, metavar="NAME")
    parser.add_argument("--dtype", choices=list(TOLERANCES))
    parser.add_argument("--threads", type=int)
    parser.add_argument("--networks", action="store_true", help="those of the examples")
    parser.add_argument("--bars", type=Path, metavar="SVG", help="draw the first table, print bars")
    arguments, is_whole = parsed(parser, words, drawn=["bars"])
    parts, is_all = asked_for(arguments)
    for part in parts:
        if not part.contenders:
            parser.error(f"--contenders: none of them computes the {part.title}")
    if not parts and arguments.bars:
        parser.error("--networks alone has no table to draw")
    results = measure(parts, is_all, arguments.quick, is_all or arguments.networks)
    if arguments.bars:
        write_whole(arguments.bars, as_svg(results["parts"][0]))
        print(as_text(results["parts"][0]))
    else:
        print(page(results))
    finish(results, "layers", lines(results), arguments, is_whole)


if __name__ == "__main__":
    main()
