"""The benchmark's cases are sound, no wrong answer is timed, and the report hides no loss."""

import copy
import json
from math import prod
from xml.etree import ElementTree

import numpy as np
import pytest

from bench import report
from bench.cases import (
    FAMILIES,
    GROUPS,
    LEAST_FLOPS,
    MOST_CELLS,
    MOST_FLOPS,
    PUBLISHED,
    Case,
    sampled,
)
from bench.machine import Watch, processor
from bench.peers import operands
from bench.picture import as_svg, as_text
from bench.report import best, lines, page, ratios, summary
from bench.rounds import Limits
from bench.run import Part, everything, installed, main, measure_part, quick
from bench.server import TOLERANCES, Contender, Failed
from bench.wants import WANTS
from slow import mostly_slow

ALL = [case for group in GROUPS.values() for case in group]
TINY = Case("tiny", 2, 3, 4, (5, 3), 4, 2, 1, 0, 1, 1, "made up")
TINY_3D = Case("tiny-3d", 1, 4, 4, (2, 3, 2), 2, 2, 0, 1, 1, 2, "made up")

# ---- cases ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("case", ALL, ids=lambda case: case.name)
def test_a_case_has_sound_sizes(case):
    geometry = case.geometry
    assert geometry.x_shape == case.x_shape
    assert geometry.weight_shape == case.weight_shape
    assert min(geometry.y_shape) >= 1
    pairs = case.C * case.M // case.G
    assert geometry.flops == 2 * case.N * pairs * prod(case.I) * case.K ** len(case.I)
    assert case.family in FAMILIES
    assert str(case.K) in str(case)


def test_there_are_31_published_cases_and_names_are_unique():
    assert len(PUBLISHED) == 31
    assert len({case.name for case in ALL}) == len(ALL)


def test_the_same_cases_are_drawn_again():
    assert sampled() == GROUPS["sampled"]
    assert len(sampled()) == 30
    assert sampled(40)[:30] == sampled()
    assert sampled(seed=1) != sampled()


@pytest.mark.parametrize("seed", range(5))
def test_what_is_drawn_lies_within_bounds(seed):
    for case in sampled(20, seed):
        assert LEAST_FLOPS <= case.geometry.flops <= MOST_FLOPS
        shapes = case.x_shape, case.weight_shape, case.geometry.y_shape
        assert max(map(prod, shapes)) <= MOST_CELLS
        assert 1 <= case.s <= 8
        assert case.K <= 9 or 2 * case.s == case.K
        assert case.a < max(case.s, case.d)


def test_what_is_drawn_has_every_rank_and_kind():
    cases = sampled(100)
    assert {len(case.I) for case in cases} == {1, 2, 3}
    assert {"depthwise", "k > s", "few output channels"} <= {case.family for case in cases}
    assert any(1 < case.G < case.C for case in cases)


def test_operands_are_the_same_in_every_process():
    first, second = operands(TINY, "float64", 3), operands(TINY, "float64", 3)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert all(a.dtype == np.float64 for a in first)
    assert not np.array_equal(first[0], operands(TINY, "float64", 4)[0])


# ---- a run ---------------------------------------------------------------------------------------

MADE_UP = """
import os, time
from bench.peers import Unsupported, portable

def wrong(case, arrays, threads):
    call = portable(case, arrays, threads)
    return lambda: call() * 1.001

def wrong_later(case, arrays, threads):
    call, count = portable(case, arrays, threads), iter(range(10**9))
    return lambda: call() + (next(count) > 3)

def not_a_number(case, arrays, threads):
    call = portable(case, arrays, threads)
    return lambda: call() * float("nan")

def other_shape(case, arrays, threads):
    call = portable(case, arrays, threads)
    return lambda: call()[:, :1]

def unable(case, arrays, threads):
    raise Unsupported("no such case")

def crashing(case, arrays, threads):
    os._exit(3)

def endless(case, arrays, threads):
    time.sleep(600)

def chatty(case, arrays, threads):
    print("this goes elsewhere")
    return portable(case, arrays, threads)
"""
FAILURES = {
    "wrong": "wrong: error 1.0e-03",
    "wrong_later": "not the second time: wrong: error",
    "not_a_number": "wrong: error nan",
    "other_shape": "wrong: float32 (2, 1",
    "unable": "no such case",
    "crashing": "its process ended with 3",
    "endless": "over 3 s",
    "missing": "ended with 1",
}


@pytest.fixture
def made_up(tmp_path, monkeypatch):
    (tmp_path / "made_up_contenders.py").write_text(MADE_UP)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    return lambda name: f"made_up_contenders:{name}"


def test_no_wrong_answer_is_ever_timed(tmp_path, made_up):
    names = [*FAILURES, "chatty"]
    functions = {name: made_up(name) for name in names}
    part = Part("made up", [TINY], functions, limits=Limits(2, prepare_cap_s={"endless": 3}))
    (row,) = measure_part(part, tmp_path)["rows"]
    for name, reason in FAILURES.items():
        assert reason in row["contenders"][name]["failed"]
        assert "us" not in row["contenders"][name]
    assert len(row["contenders"]["chatty"]["us"]) == 2


def test_who_is_only_shown_beside_takes_part_in_two_rounds(tmp_path):
    limits = Limits(rounds=4, slice_s=0)
    part = Part("made up", [TINY], installed(["plan", "portable"]), limits=limits)
    (row,) = measure_part(part, tmp_path)["rows"]
    assert [len(row["contenders"][name]["us"]) for name in ("plan", "portable")] == [4, 2]


def test_a_case_that_is_not_set_up_is_not_timed(made_up):
    contender = Contender("chatty", made_up("chatty"), 1, "off")
    with pytest.raises(Failed, match="nothing is set up"):
        contender.ask("time", runs=1, seconds=0, most_s=1)
    contender.close()


@pytest.mark.parametrize("dtype", mostly_slow(["float32", "float64"], "float32"))
def test_a_small_run_from_end_to_end(tmp_path, dtype):
    names = installed(["plan", "functional", "portable", "onnx_run", "onnx_bound"])
    cases = [TINY, TINY_3D]
    part = Part("made up", cases, names, dtype, expects=True, limits=Limits(rounds=2))
    found = measure_part(part, tmp_path)
    rows = json.loads(json.dumps(found["rows"]))
    assert [row["case"] for row in rows] == ["tiny", "tiny-3d"]
    for row in rows:
        for name, result in row["contenders"].items():
            if name.startswith("onnx") and dtype == "float64":
                assert "NOT_IMPLEMENTED" in result["failed"]
            else:
                assert [len(each) >= 3 for each in result["us"]] == [True, True], name
                assert 0 <= result["error"] < 1e-5
        assert row["expected_s"] is None or row["expected_s"] > 0
    assert "tiny-3d" in page(RESULTS | {"parts": [found]})


def test_everything_fits_the_contenders_there_are():
    for part in (*everything(2), *quick(2)):
        assert part.contenders.items() <= WANTS[part.want].contenders.items()
        assert WANTS[part.want].ours in part.contenders
        assert part.dtype in TOLERANCES
    assert len({case.name for case in quick(1)[0].cases}) == 10


@pytest.mark.parametrize("parts", [everything, quick])
def test_every_want_and_every_type_is_measured(parts):
    found = {(part.want, part.dtype) for part in parts(2)}
    assert found >= {(want, "float32") for want in WANTS}
    assert found >= {("y", "float16"), ("y", "bfloat16")}
    whole = [part for part in everything(2) if part.cases is PUBLISHED]
    assert {(part.want, part.dtype) for part in whole} >= found


def test_the_options_make_one_table(tmp_path, capsys):
    output = tmp_path / "a.json"
    words = "--cases tinyml-3 --contenders plan portable --threads 1 --quick --output"
    main([*words.split(), str(output)])
    results = json.loads(output.read_text())
    assert page(results) in capsys.readouterr().out
    assert [row["case"] for row in results["parts"][0]["rows"]] == ["tinyml-3"]
    assert results["extras"] == {}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]


def test_how_busy_others_are_is_known_or_not():
    assert processor()
    others = Watch([]).others()
    assert others is None or others >= 0


# ---- the report ----------------------------------------------------------------------------------


def row(name, family, plan, torch, onnx, **more):
    samples = {"plan": plan, "torch": torch, "onnx_run": onnx}
    contenders = {
        name: {"error": 2e-7, "us": [[each * 1e6, 2e6 * each], [3e6 * each]]}
        for name, each in samples.items()
        if each
    }
    known = {"case": name, "sizes": "1×2", "family": family, "flops": 10**9, "others": 0.5}
    return known | {"load": 1.0, "contenders": contenders | more}


RESULTS = {
    "date": "2000-01-01T00:00:00+00:00",
    "processor": "a processor",
    "target": "a target",
    "cores": 2,
    "load": 0.5,
    "versions": {"python": "3.11"},
    "parts": [
        {
            "title": "published",
            "dtype": "float32",
            "threads": 2,
            "rows": [
                row("won", "1-D", 0.001, 0.002, 0.008) | {"expected_s": 0.0009},
                row("far", "3-D", 0.001, 0.1, None, onnx_bound={"failed": "cannot"}),
                row("lost", "1-D", 0.004, 0.009, 0.002) | {"expected_s": 0.1},
                row("near", "k = s", 0.1, 0.097, None) | {"expected_s": None},
            ],
        }
    ],
    "extras": {
        "overhead": {"plan": [5e-6, 7e-6, 6e-6], "torch": {"failed": "cannot"}},
        "error": {"plan": 3e-7},
        "fresh": [
            {
                "case": "won",
                "compiled": {"first": 0.08, "later": 0.001, "import_llvmlite": 0.05,
                             "import_engine": 0.01, "new_files": 5},
                "loaded": {"failed": "it broke"},
            }
        ],
        "imports": {"numpy": [0.05, 0.07, 0.06]},
    },
}  # fmt: skip


def test_the_best_peer_counts_and_means_are_capped():
    (part,) = RESULTS["parts"]
    assert best(part["rows"][2], min) == (0.002, "onnx_run")
    assert ratios(part) == pytest.approx([2, 100, 0.5, 0.97])
    capped = (2 * 4 * 0.5 * 0.97) ** 0.25
    assert f"| 4 | {capped:.2f} | {capped:.2f} | 2 | 1 |" in "\n".join(summary(RESULTS))
    double = copy.deepcopy(RESULTS)
    double["parts"][0]["dtype"] = "float64"
    assert f"| {(2 * 6 * 0.5 * 0.97) ** 0.25:.2f} |" in "\n".join(summary(double))


def test_the_page_shows_losses_families_failures_and_small_things():
    text = page(RESULTS)
    assert "| lost | 1×2 | 1-D | 1.000 | 4.00 | 250 | 2.00 | ONNX Runtime | 0.50 | 0.50 |" in text
    assert "| far | 1×2 | 3-D | 1.000 | 1.00 | 1000 | 100 | PyTorch | 100.00 | 100.00 |" in text
    assert "| 1-D | 2 | 1.00 | 1.00 | 0.50 | 1 | 1 |" in text
    assert "| k = s | 1 | 0.97 | 0.97 | 0.97 | 1 | 0 |" in text
    assert "(1) cannot" in text
    assert "more than 0.3 in 4 of 4 cases" in text
    assert "in 1 of 2 cases" in text
    assert "Computed by the portable path: near." in text
    assert "| tconv, packed | 5.0 | 6.0 | 3.0e-07 |" in text
    assert "| PyTorch | – | – | – |" in text
    assert "| empty cache | 1 | 80.0 | 79.0 | 79.0 | 5 to 5 |" in text
    assert "it broke" in text
    assert "`import numpy` takes 60 ms." in text


def test_the_lines_of_the_history_are_those_of_the_summary():
    found = lines(RESULTS)
    text = "\n".join(summary(RESULTS))
    for line in found:
        head = " | ".join((*line[:3], str(line.cases)))
        assert f"| {head} | {line.by_minima:.2f} | {line.by_medians:.2f} |" in text
    assert len(found) == text.count("\n| published")
    assert found[0].least == pytest.approx(0.5)


def test_bars_show_losses_and_are_cut_where_they_are_long():
    part = RESULTS["parts"][0]
    drawing = ElementTree.fromstring(as_svg(part))
    tag = "{http://www.w3.org/2000/svg}rect"
    bars = {each.get("class"): [] for each in drawing.iter(tag)}
    for each in drawing.iter(tag):
        bars[each.get("class")].append(int(each.get("width")))
    assert len(bars["loss"]) == sum(value < 1 for value in ratios(part))
    assert len(bars["win"]) == sum(value >= 1 for value in ratios(part))
    assert max(bars["win"]) == 4 * 130
    lines = {line.split()[0]: line for line in as_text(part).splitlines() if line}
    assert "0.50x  ████" in lines["lost"]
    assert lines["far"].endswith("█ ›")
    assert "slower in 2" in lines["Geometric"]


def test_first_calls_without_the_baseline_tier_stand_beside_those_with_it():
    rows = [{"case": "a", "with": 0.1, "without": 0.15}, {"case": "failed", "with": 0.1}]
    lines = report.without_baseline_tier(rows)
    assert lines[-2] == "| a | 100.0 | 150.0 | 50.0 |"
    assert report.without_baseline_tier([]) == []
