"""Volumes on disk by `tconv.volumes.convert` and in memory. ``python -m bench.volumes``.

In memory means: load the source, call the function once, save the result in chunks of the same
sizes with the same codec. Both run in fresh processes that take turns, with as many workers as the
call has threads. After every turn random windows of both targets are compared, and times count only
if their bits are equal. Many small chunks show what one chunk costs, and whether the cost grows
faster than their number. Planning is what comes before the first chunk.
"""

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from hashlib import sha256
from importlib.metadata import version
from itertools import chain
from pathlib import Path
from shutil import rmtree
from statistics import geometric_mean, median
from time import perf_counter, process_time
from typing import Any, NamedTuple

import numpy as np

from bench.machine import Watch, cores, peak_mib
from bench.report import ratio, seconds, show, table, threads_of, where
from bench.rounds import joined
from bench.run import measure_rows
from bench.server import Contender, Failed
from bench.store import Line, finish, parsed

SEED = 0
THREADS = min(2, cores())
MEMORY = "512MiB"
ROUNDS = 3
LEAST = 0.7  # a lower ratio is a loss
PARTS = ("volumes", "chunks", "planning")
PACKAGES = ("zarr", "numcodecs", "dask")
OURS, PLAIN = "convert", "in_memory"
WINDOWS, WINDOW_SIDE = 16, 40  # that are compared, and how long each is along an axis

Row = dict[str, Any]


class Case(NamedTuple):
    """A volume on disk and a kernel: shapes, chunks of the source, keywords."""

    title: str
    source: tuple[int, ...]
    chunks: tuple[int, ...]
    weight: tuple[int, ...]
    settings: dict[str, int]
    adjoint: bool = False


K2, K3 = {"stride": 2}, {"stride": 2, "padding": 1}
WHOLE = (
    Case("3-D, k3 s2 p1", (8, 408, 408, 408), (8, 48, 48, 48), (8, 1, 3, 3, 3), K3),
    Case("3-D, k2 s2", (8, 408, 408, 408), (8, 48, 48, 48), (8, 1, 2, 2, 2), K2),
    Case("2-D, k4 s2 p1", (16, 3072, 3072), (16, 256, 256), (16, 4, 4, 4), K3),
    Case("3-D, adjoint k3 s2 p1", (1, 511, 511, 511), (1, 64, 64, 64), (8, 1, 3, 3, 3), K3, True),
)
QUICK = tuple(
    case._replace(
        source=(case.source[0], *(n // 10 for n in case.source[1:])),
        chunks=(case.chunks[0], *(n // 3 for n in case.chunks[1:])),
    )
    for case in WHOLE
)
COUNTS, QUICK_COUNTS = (100, 1_000, 10_000, 100_000), (100, 1_000)
"""How many small chunks: all but the last are computed, the last two are planned."""


def small_chunks(count: int) -> Case:
    """A long volume of so many chunks, 8³ of the source and 16³ of the target.

    Its cross-section has 25 chunks, so that of few and of many chunks as many are at a border.
    """
    return Case(f"{count:,}", (1, 40, 40, 8 * count // 25), (1, 8, 8, 8), (1, 1, 3, 3, 3), K3)


# ---- sources -------------------------------------------------------------------------------------


def source_of(case: Case, folder: Path) -> Path:
    """Write counts as a microscope's, a smooth picture and noise, which can be compressed."""
    import zarr

    path = folder / "-".join(map(str, (*case.source, *case.chunks)))
    if path.exists():
        return path
    source = zarr.create_array(path, shape=case.source, chunks=case.chunks, dtype="float32")
    rng, (channels, rows, *others) = np.random.default_rng(SEED), case.source
    row, *waves = (np.sin(np.arange(size, dtype=np.float32) / 9) for size in (rows, *others))
    for begin in range(0, rows, case.chunks[1]):
        end = begin + case.chunks[1]
        smooth = 100 * row[begin:end]
        for wave in waves:
            smooth = smooth[..., np.newaxis] * wave
        noise = rng.integers(0, 16, (channels, *smooth.shape), np.uint8)
        source[:, begin:end] = np.rint(smooth) + noise
    return path


def weight_of(case: Case) -> np.ndarray:
    """Multiples of 1/16, so that results can be compressed, too."""
    return (np.random.default_rng(SEED).integers(-8, 9, case.weight) / 16).astype(np.float32)


def write_keys(root: Path, counts: Sequence[int]) -> None:
    """Write a key for each chunk that an array has: all one byte, for nothing reads them."""
    for index in np.ndindex(*counts[:-1]):
        folder = root.joinpath("c", *map(str, index))
        folder.mkdir(parents=True)
        (folder / "0").write_bytes(b"0")
        for last in range(1, counts[-1]):
            os.link(folder / "0", folder / str(last))


# ---- what a process does -------------------------------------------------------------------------


def convert(case: Case, source: str, target: str) -> Row:
    """Convert chunk by chunk."""
    import tconv.volumes

    weight, cpu, begin = weight_of(case), process_time(), perf_counter()
    report = tconv.volumes.convert(
        source, weight, target=target, adjoint=case.adjoint, memory=MEMORY, workers=THREADS,
        progress=False, **case.settings,
    )  # fmt: skip
    taken = {"s": perf_counter() - begin, "cpu_s": round(process_time() - cpu, 3)}
    planned = round(report.needed_bytes / 2**20, 1)
    return taken | {"tasks": report.computed, "planned_mib": planned}


def in_memory(case: Case, source: str, target: str, chunks: Sequence[int]) -> Row:
    """Load all, call once, save all."""
    import zarr

    import tconv

    call = tconv.conv if case.adjoint else tconv.conv_transpose
    weight, cpu, begin = weight_of(case), process_time(), perf_counter()
    x = zarr.open_array(source, mode="r")[:]
    loaded = perf_counter()
    y = call(x, weight, threads=THREADS, method="direct", **case.settings)
    called = perf_counter()
    saved = zarr.create_array(target, shape=y.shape, chunks=tuple(chunks), dtype=y.dtype)
    saved[:] = y
    end = perf_counter()
    taken = {"cpu": process_time() - cpu, "load": loaded - begin, "call": called - loaded}
    taken |= {"save": end - called}
    return {"s": end - begin} | {f"{name}_s": round(s, 3) for name, s in taken.items()}


def plan(case: Case, source: str, target: str) -> Row:
    """Plan a conversion, and write the keys of all its chunks in place of computing them."""
    import tconv.volumes
    from tconv.volumes.schedulers import Threads

    found: Row = {}

    def run(self: Any, work: Any, tasks: Sequence[Any], done: Any) -> None:
        found.update(_since(*start), tasks=len(work.volume.grid))
        write_keys(Path(target), work.volume.grid.shape)

    _load_libraries()
    Threads.run = run  # type: ignore[method-assign]
    weight, start = weight_of(case), (peak_mib(), perf_counter())
    tconv.volumes.convert(
        source, weight, target=target, workers=THREADS, progress=False, **case.settings
    )
    return found


def lazy(case: Case, source: str) -> Row:
    """Make a lazy array of Dask, and compute none of it."""
    from tconv.dask import from_zarr

    _load_libraries()
    weight, start = weight_of(case), (peak_mib(), perf_counter())
    result = from_zarr(source, weight, **case.settings)
    return _since(*start) | {"tasks": result.npartitions}


def _since(mib: float | None, begin: float) -> Row:
    """Seconds since the beginning, and the memory that was added."""
    taken, peak = perf_counter() - begin, peak_mib()
    return {"s": taken, "mib": None if mib is None or peak is None else round(peak - mib, 1)}


def _load_libraries() -> None:
    """Compute a single cell, so that what is measured loads nothing."""
    import zarr

    from tconv.dask import from_zarr

    cell = zarr.create_array({}, shape=(1, 1), chunks=(1, 1), dtype="float32")
    from_zarr(cell, np.ones((1, 1, 1), np.float32)).compute()


def again(case: Case, source: str, target: str) -> Row:
    """Time a whole process, Python's start and its imports too, that finds nothing left to do."""
    words = json.dumps([source, weight_of(case).tolist(), target, case.settings])
    command, begin = [sys.executable, "-c", _AGAIN, words], perf_counter()
    done = subprocess.run(command, stdout=subprocess.PIPE, check=True)
    taken, (computed, tasks) = perf_counter() - begin, json.loads(done.stdout)
    if computed:
        raise RuntimeError(f"wrong: {computed} chunks that were there were computed again")
    return {"s": taken, "tasks": tasks}


_AGAIN = """
import json, sys
import numpy as np
from tconv.volumes import convert
source, weight, target, settings = json.loads(sys.argv[1])
weight = np.array(weight, np.float32)
report = convert(source, weight, target=target, progress=False, **settings)
print(json.dumps([report.computed, report.found]))
"""
_ORDERS = {each.__name__: each for each in (convert, in_memory, plan, lazy, again)}


def answer() -> None:
    """Read an order, print what was found, and stay until the input is closed."""
    order = json.loads(sys.stdin.readline())
    do, case = order.pop("do"), Case(*order.pop("case"))
    try:
        found = _ORDERS[do](case, **order)
        reply = {"answer": found | {"peak_mib": peak_mib()}}
    except Exception as error:
        reply = {"error": f"{error}" or type(error).__name__}
    print(json.dumps(reply), flush=True)
    sys.stdin.read()


def ask(do: str, folder: Path, case: Case, **order: Any) -> tuple[Row, float | None]:
    """Let a fresh process follow an order; what it found, and how many cores others kept busy."""
    command = [sys.executable, "-c", "from bench.volumes import answer; answer()"]
    environment = Contender(do, "", THREADS, str(folder / "cache")).environment
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, env=environment, text=True, **pipes) as process:
        assert process.stdin is not None
        assert process.stdout is not None
        watch = Watch([process.pid])
        process.stdin.write(json.dumps({"do": do, "case": case, **order}) + "\n")
        process.stdin.flush()
        line = process.stdout.readline()
        others = watch.others()
        process.stdin.close()
        if not line:
            raise Failed(f"its process ended with {process.wait()}")
    reply = json.loads(line)
    if "error" in reply:
        raise Failed(reply["error"])
    return reply["answer"], others


# ---- measuring -----------------------------------------------------------------------------------


def measure_volumes(
    parts: Sequence[str], cases: Sequence[Case], counts: Sequence[int], rounds: int
) -> Row:
    """Measure parts of the suite, and say where and with what."""

    def rows(title: str, _: int, folder: Path) -> list[Row]:
        if title == "volumes":
            return [_measure(case, rounds, folder) for case in cases]
        if title == "chunks":
            # They are removed with the folder: where many files were just removed, ext4 without a
            # journal needs up to ten times as long for each new one.
            return [_measure(small_chunks(count), rounds, folder, True) for count in counts[:-1]]
        return [_measure_planning(small_chunks(count), rounds, folder) for count in counts[-2:]]

    results = measure_rows([(title, THREADS) for title in parts], rows)
    results["versions"] |= {name: version(name) for name in PACKAGES}
    return results


def _measure(case: Case, rounds: int, folder: Path, keeps_files: bool = False) -> Row:
    """Measure one volume; a record in the form of a case, of each process one list of times."""
    print(f"volumes: {case.title}", file=sys.stderr, flush=True)
    source, names, turns = source_of(case, folder), [OURS, PLAIN], []
    row: Row = {"case": case.title, "source": _described(source)}
    try:
        for turn in range(rounds):
            found, answers = {}, set()
            for name in names:
                os.sync()  # so that nobody waits for what others wrote
                target = folder / f"{case.title}-{turn}-{name}"
                order: Row = {} if name == OURS else {"chunks": row["target"]["chunks"]}
                order |= {"source": str(source), "target": str(target)}
                found[name] = ask(name, folder, case, **order)
                row["target"] = _described(target)
                answers.add(_windows(target))
                if not keeps_files:
                    rmtree(target)
            if len(answers) > 1:
                raise Failed("wrong: other bits than in memory")
            turns.append(found)
            names.reverse()
        row |= _joined(turns)
    except Failed as failure:
        row |= {"others": None, "contenders": {n: {"failed": str(failure)} for n in names}}
    return row


def _measure_planning(case: Case, rounds: int, folder: Path) -> Row:
    """Measure what comes before the first chunk; a record in the form of a case."""
    import zarr

    print(f"planning: {case.title} chunks", file=sys.stderr, flush=True)
    source = folder / f"{case.title}-planned"
    row: Row = {"case": case.title}
    try:
        made = zarr.create_array(source, shape=case.source, chunks=case.chunks, dtype="float32")
        write_keys(source, made.cdata_shape)
        turns = []
        for turn in range(rounds):
            both = {"source": str(source), "target": f"{source}-{turn}"}
            found = {name: ask(name, folder, case, **both) for name in ("plan", "again")}
            turns.append(found | {"lazy": ask("lazy", folder, case, source=str(source))})
        row |= _joined(turns)
    except Failed as failure:
        row |= {"others": None, "contenders": {"plan": {"failed": str(failure)}}}
    return row


def _joined(turns: Sequence[dict[str, tuple[Row, float | None]]]) -> Row:
    """What all turns found, by contender, each with a list of values; and the number of tasks."""
    contenders: Row = {}
    row: Row = {"others": None, "contenders": contenders}
    for name, (found, others) in chain(*(turn.items() for turn in turns)):
        if others is not None and name != "again":  # whose own process counts as another
            row["others"] = max(row["others"] or 0.0, others)
        row["tasks"] = found.pop("tasks", row.get("tasks"))
        record = {"error": 0.0, "us": [[round(found.pop("s") * 1e6)]]}  # equal bits
        record |= {key: [value] for key, value in found.items()}
        contenders[name] = joined(contenders.get(name), record)
    return row


def _described(path: Path) -> Row:
    """Shape, chunks and bytes of an array, and how many bytes are on disk."""
    import zarr

    array = zarr.open_array(path, mode="r")
    stored = sum(each.stat().st_size for each in path.rglob("*") if each.is_file())
    sizes = {"bytes": array.nbytes, "stored": stored}
    return {"shape": array.shape, "chunks": array.chunks, **sizes}


def _windows(path: Path) -> str:
    """A hash of an array's sizes and type, and of the cells in some windows, random but one."""
    import zarr

    array = zarr.open_array(path, mode="r")
    told = sha256(repr((array.shape, array.chunks, array.dtype)).encode())
    room = np.maximum(np.array(array.shape) - WINDOW_SIDE, 0)
    starts = np.random.default_rng(SEED).integers(0, room + 1, (WINDOWS, array.ndim))
    for start in (*starts, room):
        told.update(array[tuple(slice(n, n + WINDOW_SIDE) for n in map(int, start))].tobytes())
    return told.hexdigest()


# ---- the tables ----------------------------------------------------------------------------------


def page(results: Row) -> list[str]:
    """A table for each part."""
    makers = dict(zip(PARTS, (_volume_tables, _chunk_table, _planning_table), strict=True))
    found = list[str]()
    for part in results["parts"]:
        found += [*makers[part["title"]](part), ""]
        for row in part["rows"]:
            reasons = {each["failed"] for each in row["contenders"].values() if "failed" in each}
            found += [line for each in sorted(reasons) for line in (f"{row['case']}: {each}.", "")]
    return [*found, where(results)]


def _volume_tables(part: Row) -> list[str]:
    """Each volume in two tables: times and ratios; bytes."""
    rows, others, losses = list[list[str]](), list[list[str]](), 0
    for row in part["rows"]:
        both = [ratio(row, OURS, PLAIN, statistic) for statistic in (min, median)]
        losses += bool(both[1]) and both[1] < LEAST
        stages = [_value(row, PLAIN, f"{n}_s", median, 1) for n in ("load", "call", "save")]
        rates = [
            show(s and row["target"]["bytes"] / s / 1e6, 0)
            for s in (seconds(row, name, median) for name in (PLAIN, OURS))
        ]
        times = [_times(row, name, 1) for name in (PLAIN, OURS)]
        cells = [*times, " / ".join(map(show, both)), *rates, " + ".join(stages)]
        rows.append([row["case"], *cells, show(row["others"], 1, "?")])
        if "tasks" in row:
            arrays = row["source"], row["target"]
            shapes = ["×".join(map(str, each["shape"])) for each in arrays]
            sizes = [f"{each['bytes'] / 1e9:.2f} ({each['stored'] / 1e9:.2f})" for each in arrays]
            peaks = [_value(row, OURS, "planned_mib"), *_peaks(row)]
            others.append([row["case"], *shapes, f"{row['tasks']:,}", *sizes, *peaks])
    titles = [f"volume, {threads_of(part)}", "in memory, s", "convert, s", "ratio"]
    titles += ["in memory, MB/s", "convert, MB/s", "load + call + save, s", "others"]
    more = ["volume", "source", "target", "chunks", "source, GB", "target, GB", "planned, MiB"]
    return [
        *table(titles, rows), "",
        "Ratio: the time of loading the source, one call and saving the result over that of "
        "`convert`, above 1 where `convert` is faster; by minima / by medians, as times are. "
        f"Medians below {LEAST:g}: {losses}. MB/s: bytes of the target before compression, by "
        "medians. Load + call + save: of the time in memory. Others: the most cores that other "
        "programs kept busy during a run.", "",
        *table([*more, "convert, MiB", "in memory, MiB"], others, 3), "",
        "Chunks: tasks, one for each chunk of the target. GB: in memory (and on disk). Planned: "
        f'what `convert` says beforehand that it needs, with `memory="{MEMORY}"`. MiB: the most '
        "memory of any of the processes, with Python and its libraries.",
    ]  # fmt: skip


def _chunk_table(part: Row) -> list[str]:
    """What one small chunk costs."""
    rows = []
    for row in part["rows"]:
        scale, cells = 1e3 / row.get("tasks", 1), [row["case"]]
        for name in (OURS, PLAIN):
            cells += [_times(row, name, 2, scale), _value(row, name, "cpu_s", min, 2, scale)]
        rows.append([*cells, *_peaks(row), show(row["others"], 1, "?")])
    titles = ["small chunks", "convert, ms a chunk", "of CPU", "in memory, ms a chunk", "of CPU"]
    return [
        *table([*titles, "convert, MiB", "in memory, MiB", "others"], rows), "",
        "Chunks of 16×16×16 cells of the target, k3 s2 p1: the cost of tasks, keys and files, by "
        "minima / by medians. Of CPU: the least time of all cores together.",
    ]  # fmt: skip


def _planning_table(part: Row) -> list[str]:
    """What comes before the first chunk."""
    rows = []
    for row in part["rows"]:
        cells = [row["case"]]
        for name in ("plan", "lazy"):
            cells += [_times(row, name, 2), _value(row, name, "mib", max, 1)]
        rows.append([*cells, _times(row, "again", 2), show(row["others"], 1, "?")])
    titles = ["small chunks", "plan, s", "MiB", "`from_zarr`, s", "MiB", "nothing left, s"]
    return [
        *table([*titles, "others"], rows), "",
        "Plan: from the call of `convert` to its first task, where the source has a file for each "
        "chunk. `from_zarr`: the time to make the lazy array of Dask. MiB: the memory added by it. "
        "Nothing left: a process that converts again what is complete, with Python's start and all "
        "imports. By minima / by medians.",
    ]  # fmt: skip


def _times(row: Row, name: str, digits: int, scale: float = 1) -> str:
    """The least time and the median."""
    both = (seconds(row, name, statistic) for statistic in (min, median))
    return " / ".join(show(s and s * scale, digits) for s in both)


def _value(row: Row, name: str, key: str, of: Any = max, digits: int = 0, scale: float = 1) -> str:
    """The most, the least or the median of what the processes of a contender found."""
    known = [v for v in row["contenders"].get(name, {}).get(key, []) if v is not None]
    return show(of(known) * scale if known else None, digits)


def _peaks(row: Row) -> list[str]:
    return [_value(row, name, "peak_mib") for name in (OURS, PLAIN)]


def lines(results: Row) -> list[Line]:
    """The means over large volumes and over small chunks, for the history."""
    found = []
    for part in results["parts"]:
        values = [[ratio(row, OURS, PLAIN, each) for row in part["rows"]] for each in (min, median)]
        least, middle = ([value for value in each if value] for each in values)
        if middle:
            means = geometric_mean(least), geometric_mean(middle)
            what = f"{part['title']}, {threads_of(part)}"
            found.append(Line(what, "convert", "in memory", len(middle), *means, min(middle)))
    return found


def main(words: Sequence[str] | None = None) -> None:
    """Measure, write the samples, and print the tables."""
    parser = argparse.ArgumentParser(prog="python -m bench.volumes", description=__doc__)
    parser.add_argument("--parts", nargs="+", choices=PARTS, default=PARTS)
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="processes of each, in turns")
    parser.add_argument("--quick", action="store_true", help="small volumes, one process of each")
    arguments, is_whole = parsed(parser, words)
    what = (QUICK, QUICK_COUNTS, 1) if arguments.quick else (WHOLE, COUNTS, arguments.rounds)
    results = measure_volumes(arguments.parts, *what)
    print("\n".join(page(results)))
    finish(results, "volumes", lines(results), arguments, is_whole)


if __name__ == "__main__":
    main()
