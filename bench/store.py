"""Result files: the newest of each suite and machine, and the history of their summaries.

A run of a whole suite takes the place of the one that its machine had, and the lines of its summary
join `history.csv`. Whatever else is measured goes to out/bench/, which is not kept.
"""

import csv
import json
import os
import re
import sys
from argparse import ArgumentParser, Namespace
from collections.abc import Iterable, Sequence
from io import StringIO
from pathlib import Path
from typing import Any, NamedTuple

from bench.server import ROOT

RESULTS = ROOT / "bench" / "results"
HISTORY = "history.csv"
SUITES = ("layers", "ladder", "models", "networks", "streams", "volumes", "convolutions")
COLUMNS = (
    "date", "commit", "tconv", "machine", "suite", "what", "who", "against", "cases",
    "by_minima", "by_medians", "least",
)  # fmt: skip

Row = dict[str, Any]


class Line(NamedTuple):
    """A line of a summary: who was compared with whom on what, and the other's time over ours.

    Means are geometric, of the fastest runs and of the medians; `least` is of the medians.
    """

    what: str
    who: str
    against: str
    cases: int
    by_minima: float
    by_medians: float
    least: float


# ---- files ---------------------------------------------------------------------------------------


def parsed(
    parser: ArgumentParser, words: Sequence[str] | None, drawn: Sequence[str] = ()
) -> tuple[Namespace, bool]:
    """The options, those that every suite has among them, and whether they mean the whole suite.

    They do if nothing else is asked for. `drawn` are options that change nothing that is measured.
    """
    parser.add_argument(
        "--output", type=Path, help="result file; a whole suite's is kept in bench/results"
    )
    found, usual = parser.parse_args(words), parser.parse_args([])
    others = vars(found).keys() - {"output", *drawn}
    is_whole = all(getattr(found, name) == getattr(usual, name) for name in others)
    return found, is_whole


def finish(
    results: Row, suite: str, lines: Iterable[Line], options: Namespace, is_whole: bool
) -> None:
    """Write results where they belong; ``python -m bench.publish`` puts them on the pages."""
    stamp = results["date"][:16].replace(":", "").replace("T", "-")
    output = options.output or ROOT / "out" / "bench" / f"{stamp}-{suite}.json"
    if is_whole and not options.output:
        output = keep(results, suite, lines, RESULTS)
    else:
        write_whole(output, compact(results))
    print(f"written to {output}", file=sys.stderr)


def keep(results: Row, suite: str, lines: Iterable[Line], folder: Path) -> Path:
    """Put results in the place of the last ones of this machine, and add their lines to history."""
    output = folder / f"{suite}-{_slug(machine(results))}.json"
    write_whole(output, compact(results))
    remember(folder / HISTORY, rows(results, suite, lines))
    return output


def is_measured(suite: str, folder: Path = RESULTS) -> bool:
    """Whether some machine has measured the whole suite."""
    return any(folder.glob(f"{suite}-*.json"))


def newest(suite: str, folder: Path = RESULTS) -> Row:
    """The newest results of a suite, of whichever machine."""
    files = sorted(folder.glob(f"{suite}-*.json"))
    found = [json.loads(path.read_text(encoding="utf-8")) for path in files]
    return max(found, key=lambda results: str(results["date"]))


def machine(results: Row) -> str:
    """The processor, by its own name and by LLVM's."""
    name = re.sub(r"\((R|TM)\)", "", results["processor"])
    return f"{name} ({results['target'].partition(':')[0]})"


def _slug(text: str) -> str:
    return re.sub(r"[^a-z0-9]+", "-", text.lower()).strip("-")


def write_whole(path: Path, text: str) -> None:
    """Write a file whole or not at all, in a folder that is made if need be."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f".{path.name}.{os.getpid()}")
    unfinished.write_text(text, encoding="utf-8")
    unfinished.replace(path)


# ---- history -------------------------------------------------------------------------------------


def rows(results: Row, suite: str, lines: Iterable[Line]) -> list[dict[str, str]]:
    """The lines of a summary as rows of the history."""
    facts = {
        "date": results["date"][:16], "commit": results.get("commit") or "",
        "tconv": results["versions"].get("tconv", ""), "machine": machine(results), "suite": suite,
    }  # fmt: skip
    return [
        facts
        | {n: f"{v:.3f}" if isinstance(v, float) else str(v) for n, v in line._asdict().items()}
        for line in lines
    ]


def remember(path: Path, more: Iterable[dict[str, str]]) -> None:
    """Add rows to the history, which is sorted by date; a run that is there already stays once."""
    known: list[dict[str, str]] = []
    if path.exists():
        with path.open(encoding="utf-8", newline="") as file:
            known = list(csv.DictReader(file))
    kept = {tuple(row[name] for name in COLUMNS): row for row in (*known, *more)}
    text = StringIO()
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(sorted(kept.values(), key=lambda row: row["date"]))
    write_whole(path, text.getvalue())


# ---- JSON ----------------------------------------------------------------------------------------


def compact(results: Row) -> str:
    """JSON with a line per contender and case, so that files can be read and compared."""
    parts = []
    for part in results["parts"]:
        found = []
        for row in part["rows"]:
            each = [f"{_json(name)}:{_json(record)}" for name, record in row["contenders"].items()]
            found.append(_opened(row, "contenders", "{", each) + "}}")
        parts.append(_opened(part, "rows", "[", found) + "]}")
    return _opened(results, "parts", "[", parts) + "]}\n"


def _opened(record: Row, key: str, bracket: str, lines: list[str]) -> str:
    """A record as JSON with one of its values last, a line for each part of it, not closed."""
    head = _json({name: value for name, value in record.items() if name != key})
    return f"{head[:-1]},{_json(key)}:{bracket}\n" + ",\n".join(lines)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, separators=(",", ":"))
