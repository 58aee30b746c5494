"""The benchmark of networks hides no loss and no failure, and says who computed."""

import json
import sys

import numpy as np
import pytest

from bench import arena, networks
from bench.machine import peak_mib
from bench.rounds import joined
from bench.server import Contender, Server, function_of


def process(us, **more):
    """What one process found."""
    return {"error": 1e-7, "us": [us], "peak_mib": [64.0], **taken(2)} | more


def taken(count):
    return {"by": [{"taken": count, "nodes": 3}]}


def together(*records):
    found = None
    for record in records:
        found = joined(found, record)
    return found


def results_of(**rows):
    parts = [
        {
            "title": "networks", "dtype": "float32", "threads": 2,
            "rows": [
                {"case": name, "others": 0.25, "contenders": them} for name, them in rows.items()
            ],
        }
    ]  # fmt: skip
    return {
        "date": "2026-01-01T00:00", "processor": "P", "cores": 2, "target": "T", "load": 0.5,
        "versions": {"onnxruntime": "1"}, "parts": parts,
    }  # fmt: skip


PAIRS = [[1000.0, 3000.0, 1200.0], [2000.0, 2400.0, 4000.0], [500.0, 900.0, 600.0]]
PLAIN = together(*map(process, PAIRS))


def scaled(factors, **more):
    """Processes that took so many times as long as ONNX Runtime's, one after the other."""
    return together(
        *(
            process([factor * us for us in own], **more)
            for factor, own in zip(factors, PAIRS, strict=True)
        )
    )


# ---- the table -----------------------------------------------------------------------------------


def test_the_ratio_is_the_median_of_pairs():
    them = {"onnxruntime": PLAIN, "session": scaled([0.5, 2, 0.8]), "again": scaled([1, 1, 1.25])}
    for statistic in (min, np.median):
        assert networks.ratios(them, "session", statistic) == pytest.approx([2, 0.5, 1.25])
        assert networks.ratios(them, "again", statistic) == pytest.approx([1, 1, 0.8])
    text = "\n".join(networks.page(results_of(a=them)))
    assert "| a | 2 | 0.500 | 0.400 | 1.25 / 1.25 | 1.00 / 1.00 |" in text


def test_minima_and_medians_are_ratios_of_their_own():
    them = {"onnxruntime": process([100.0, 200.0, 300.0]), "session": process([50.0, 400.0, 400.0])}
    them["again"] = process([100.0, 100.0, 100.0])
    text = "\n".join(networks.page(results_of(a=them)))
    assert "| a | 2 | 0.100 | 0.0500 | 2.00 / 0.50 | 1.00 / 2.00 |" in text


def test_losses_stay_and_those_beyond_the_noise_are_counted():
    quiet, noisy = scaled([1, 1.01, 0.99]), scaled([1, 1.1, 0.9])
    ours = scaled([1.05, 1.05, 1.05], error=2e-6, peak_mib=[80.4])
    rows = {
        "lost": {"onnxruntime": PLAIN, "session": ours, "again": quiet},
        "who knows": {"onnxruntime": PLAIN, "session": ours, "again": noisy},
        "won": {"onnxruntime": PLAIN, "session": scaled([0.9] * 3), "again": quiet},
    }
    text = "\n".join(networks.page(results_of(**rows)))
    assert "| lost | 2 | 0.500 | 0.525 | 0.95 / 0.95 | 1.00 / 1.00 | 2 of 3 |" in text
    assert "| lost | 2 | 2.0e-06 | 64 | 80 | – | – | 0.2 |" in text
    assert "Ratios below 0.98: 4; of these below every A/A ratio of their row: 2." in text


def test_memory_of_values_is_told_where_it_is_known():
    plain = PLAIN | {"values_mib": 33.04}
    ours = scaled([0.9] * 3, by=[{"taken": 2, "nodes": 3, "values_mib": 9.4}])
    rows = {"a": {"onnxruntime": plain, "session": ours, "again": PLAIN}}
    text = "\n".join(networks.page(results_of(**rows)))
    assert "| 64 | 64 | 33.0 | 9.4 | 0.2 |" in text


@pytest.mark.parametrize(
    ("script", "mib"),
    [
        ("print('Total allocated bytes: 1\\nTotal allocated bytes: 3145728', file=sys.stderr)", 3),
        ("print('nothing of it', file=sys.stderr)", None),
        ("print('Total allocated bytes: 3145728', file=sys.stderr); sys.exit(1)", None),
    ],
)
def test_the_arena_is_what_the_log_says_last(script, mib, monkeypatch):
    def run(order, **options):
        assert order[-2:] == ["pupils", "2"]
        return original([sys.executable, "-c", f"import sys; {script}"], **options)

    original = arena.subprocess.run
    monkeypatch.setattr(arena.subprocess, "run", run)
    assert arena.arena_mib("pupils", 2) == mib


def test_what_failed_is_told():
    them = {
        "onnxruntime": PLAIN,
        "session": together(process([1.0]), {"failed": "wrong: error 1.0e-03"}, process([1.0])),
        "again": PLAIN,
    }
    text = "\n".join(networks.page(results_of(a=them)))
    assert "| a | 2 | 0.500 | – | – / – | 1.00 / 1.00 | – |" in text
    assert "| a | 2 | – | 64 | – | – | – | 0.2 |" in text
    assert "a, session: wrong: error 1.0e-03." in text


@pytest.mark.parametrize(
    ("counts", "shown"), [([3, 3], "3 of 3"), ([0, 3, 0], "0 of 3, 3 of 3"), ([], "–")]
)
def test_processes_that_decided_differently_are_told_apart(counts, shown):
    record = together(*(process([1.0], **taken(count)) for count in counts)) or {}
    assert networks.who_computes(record) == shown


# ---- what is measured ----------------------------------------------------------------------------


def test_the_names_of_networks_are_those_of_contenders():
    assert len(networks.NETWORKS) == len({each.title for each in networks.NETWORKS.values()}) == 9
    for name in networks.NETWORKS:
        for who in networks.WHO.values():
            found = function_of(f"bench.networks:{name}_{who}")
            assert (found.func, found.args) == (getattr(networks, who), (name,))
    for name in ("piper", "piper_", "piper_torch", "vgg_plain", "_plain"):
        with pytest.raises(AttributeError):
            function_of(f"bench.networks:{name}")


@pytest.mark.parametrize("name", networks.NETWORKS)
def test_inputs_are_the_same_in_every_process(name):
    first, second = networks.feed_of(name), networks.feed_of(name)
    assert first.keys() == second.keys()
    for key, array in first.items():
        assert array.dtype in (np.float32, np.int64)
        assert np.array_equal(array, second[key])


def test_a_page_of_any_size_is_that_of_scikit_image_again_and_again():
    [small], [large] = networks.printed(100, 384)["x"], networks.printed(400, 800)["x"]
    assert large.shape == (3, 400, 800)
    assert (large.min(), large.max()) == pytest.approx((-1, 1), abs=0.3)
    assert np.array_equal(large[:, :100, :384], small)
    assert np.array_equal(large[:, 191:291, 384:768], small)


class Made:
    """A session of either kind."""

    def __init__(self, report=None):
        if report is not None:
            self.report = lambda: report

    def run(self, names, feed):
        return [feed["x"], 2 * feed["x"]]


class Node:
    def __init__(self, by):
        self.computed_by = by


class Reported:
    nodes = (Node("tconv"), Node("ONNX Runtime"), Node("tconv"))


class Decided(Reported):
    decision = ("handed over", 1.5)


def test_a_run_gives_all_answers_and_says_who_computed():
    x = np.ones(3, np.float32)
    alone, ours, decided = (
        networks.Run(Made(report), {"x": x}) for report in (None, Reported(), Decided())
    )
    assert [each.tolist() for each in alone()] == [[1] * 3, [2] * 3]
    assert alone.describe() == {}
    assert ours.describe() == {"taken": 2, "nodes": 3}
    assert decided.describe()["decision"] == "('handed over', 1.5)"
    json.dumps(decided.describe())


# ---- the parts that benchmarks share -------------------------------------------------------------


def test_a_process_that_failed_leaves_no_times():
    good, bad = process([1.0, 2.0]), {"failed": "over 60 s"}
    assert joined(None, good) == good
    assert joined(good, process([3.0], error=5e-7)) == {
        "error": 5e-7, "us": [[1.0, 2.0], [3.0]], "peak_mib": [64.0] * 2, "by": 2 * taken(2)["by"],
    }  # fmt: skip
    assert joined(good, bad) == joined(bad, good) == joined(None, bad) == bad


def test_the_most_memory_is_that_of_the_process_itself(tmp_path):
    held = np.ones(64 * 2**20 // 8)  # here and not there
    contender = Contender("plan", "bench.peers:plan", 1, str(tmp_path))
    try:
        there = contender.ask("peak_mib")
    finally:
        contender.close()
    here = peak_mib()
    assert (here is None) == (there is None)
    if here is not None:
        assert here > held.nbytes / 2**20 + 20
        assert 10 < there < here


def test_a_contender_may_say_nothing_about_itself(tmp_path):
    np.save(tmp_path / "0.npy", np.ones(3, np.float32))
    silent = Server(lambda dtype, threads: lambda: np.ones(3, np.float32))
    with pytest.raises(RuntimeError, match="nothing is set up"):
        silent.describe()
    silent.prepare_network("float32", 1, str(tmp_path))
    assert silent.describe() == {}


def test_unknown_networks_are_refused(capsys):
    with pytest.raises(SystemExit):
        networks.main(["piper", "vgg"])
    assert "vgg: no network of piper, ppocr5" in capsys.readouterr().err
