"""Published tables are those of the newest results, and a row counts every case of its kind."""

import csv
import json
from argparse import ArgumentParser

import pytest
from test_bench import RESULTS

from bench import convolutions, publish, report, store
from bench.cases import FAMILIES
from bench.networks import NETWORKS
from bench.server import ROOT

# ---- pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", publish.pages())
def test_a_page_says_what_the_newest_results_say(name):
    text = (ROOT / name).read_text("utf-8")
    assert text == publish.pages()[name], "python -m bench.publish"


def test_what_is_published_changes_and_nothing_else(tmp_path, monkeypatch):
    (tmp_path / "docs").mkdir()
    for name in ("README.md", "docs/algorithms.md"):
        (tmp_path / name).write_text((ROOT / name).read_text("utf-8"), "utf-8")
    before = (tmp_path / "README.md").read_text("utf-8")
    text = publish.between(before, "layers", ["old"])
    (tmp_path / "README.md").write_text(text, "utf-8")
    assert set(publish.publish(tmp_path)) == {
        "README.md", "docs/speed.svg", *(f"docs/benchmarks/{n}.md" for n in SUITE_PAGES)
    }  # fmt: skip
    assert (tmp_path / "README.md").read_text("utf-8") == before
    assert publish.publish(tmp_path) == []


SUITE_PAGES = ("layers", "convolutions", "models", "networks", "streams", "volumes")


def test_convolutions_have_a_page_before_anybody_measured_them_all(tmp_path):
    (line,) = publish.page_of_convolutions(tmp_path)
    assert "`make bench-convolutions`" in line
    slow = {"plan": 400.0, "functional": 500.0, "torch": 100.0, "onnx": 300.0}
    row = {"case": "a", "sizes": "1×8→8", "family": "1x1", "flops": 10**6, "others": 0.0}
    row["contenders"] = {name: {"us": [[us]], "error": 0.0} for name, us in slow.items()}
    part = {"title": "published", "threads": 2, "dtype": "float32", "want": "x", "rows": [row]}
    results = RESULTS | {"parts": [part]}
    store.keep(results, "convolutions", convolutions.lines(results), tmp_path)
    page = publish.page_of_convolutions(tmp_path)
    assert page == convolutions.page(results)
    assert "## Published, 2 threads" in page
    assert any(line.startswith("| a |") and "0.25" in line for line in page)  # losses stay


def test_a_page_without_its_markers_is_refused():
    with pytest.raises(ValueError, match="has no <!-- bench:layers -->"):
        publish.between("nothing <!-- /bench:layers -->", "layers", ["a"])


# ---- the README's tables -------------------------------------------------------------------------


def test_every_family_and_every_network_counts_in_one_row():
    assert sorted(f for each in publish.LAYERS.values() for f in each) == sorted(FAMILIES)
    assert sorted(n for each in publish.TASKS.values() for n in each) == sorted(NETWORKS)


def test_the_tables_are_short_and_count_every_layer_and_every_loss():
    layers = store.newest("layers")
    table = publish.table_of_layers(layers)
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table[2:]]
    rows = [cell for cell in cells if len(cell) == 4]
    assert len(rows) <= 6
    published, drawn = (
        next(part for part in layers["parts"] if part["title"] == title)
        for title in ("published", "drawn at random")
    )
    assert sum(int(row[1]) for row in rows[:-1]) == len(report.ratios(published))
    assert int(rows[-1][1]) == len(report.ratios(drawn))
    for place, ours in ((2, "plan"), (3, "functional")):
        found = {each[place].partition(" (")[2].rstrip(")") for each in rows}
        for part in (published, drawn):
            assert f"{min(report.ratios(part, ours)):.2f}" in found
    models = publish.table_of_models(store.newest("models"), store.newest("networks"))
    assert sum(line.startswith("| ") for line in models) - 2 <= 8


def test_means_beyond_the_cap_are_not_told():
    assert publish._mean_and_least([2.0, 8.0]) == "2.83 (2.00)"
    assert publish._mean_and_least([5.0, 8.0]) == "over 4"


# ---- files ---------------------------------------------------------------------------------------


def test_a_machine_keeps_its_newest_results_and_the_history_all(tmp_path):
    folder = tmp_path / "results"
    again = RESULTS | {"date": "2000-01-02T00:00:00+00:00", "commit": "abc"}
    other = RESULTS | {"date": "2000-01-01T12:00:00+00:00", "target": "znver9: avx"}
    lines = report.lines(RESULTS)
    for results in (RESULTS, again, other, other):
        path = store.keep(results, "layers", lines, folder)
        assert json.loads(path.read_text("utf-8")) == results
    assert store.newest("layers", folder) == again
    assert len(list(folder.glob("layers-*.json"))) == 2
    assert [path.name for path in folder.glob(".*")] == []
    with (folder / store.HISTORY).open(newline="") as file:
        rows = list(csv.DictReader(file))
    dates = [row["date"] for row in rows]
    assert dates == sorted(dates)
    assert len(rows) == 3 * len(lines)  # the same run twice counts once
    assert rows[-1]["commit"] == "abc"
    assert rows[0] == {
        "date": "2000-01-01T00:00", "commit": "", "tconv": "", "machine": "a processor (a target)",
        "suite": "layers", "what": "published: float32, 2 threads", "who": "tconv, packed",
        "against": "best of PyTorch and ONNX Runtime", "cases": "4", "by_minima": "1.403",
        "by_medians": "1.403", "least": "0.500",
    }  # fmt: skip


def test_the_history_knows_every_result_that_is_kept():
    with (store.RESULTS / store.HISTORY).open(encoding="utf-8", newline="") as file:
        known = {(row["date"], row["machine"], row["suite"]) for row in csv.DictReader(file)}
    files = sorted(store.RESULTS.glob("*.json"))
    assert files
    for path in files:
        results = json.loads(path.read_text("utf-8"))
        suite = path.name.partition("-")[0]
        assert (results["date"][:16], store.machine(results), suite) in known


@pytest.mark.parametrize(
    ("words", "is_whole"),
    [("", True), ("--a 2", False), ("--bars b.svg", True), ("--a 1", True), ("one", False)],
)
def test_a_suite_is_whole_unless_something_else_is_asked_for(words, is_whole):
    parser = ArgumentParser()
    parser.add_argument("names", nargs="*")
    parser.add_argument("--a", type=int, default=1)
    parser.add_argument("--bars")
    assert store.parsed(parser, words.split(), drawn=["bars"])[1] is is_whole


@pytest.mark.parametrize("is_whole", [True, False])
def test_what_is_no_whole_suite_is_not_kept(tmp_path, monkeypatch, is_whole):
    monkeypatch.setattr(store, "ROOT", tmp_path)
    monkeypatch.setattr(store, "RESULTS", tmp_path / "kept")
    options, _ = store.parsed(ArgumentParser(), [])
    store.finish(RESULTS, "layers", report.lines(RESULTS), options, is_whole)
    files = {path.relative_to(tmp_path).as_posix() for path in tmp_path.rglob("*.*")}
    kept = {"kept/layers-a-processor-a-target.json", "kept/history.csv"}
    assert files == (kept if is_whole else {"out/bench/2000-01-01-0000-layers.json"})
