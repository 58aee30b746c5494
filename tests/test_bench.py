"""The benchmark's cases are sound, and its report says what was measured, losses included."""

import numpy as np
import pytest

from bench.cases import CASES
from bench.peers import operands
from bench.report import report
from tconv import conv_transpose

RESULTS = {
    "date": "2000-01-01T00:00:00+00:00",
    "processor": "a processor",
    "threads": 2,
    "versions": {"python": "3.11"},
    "imports": {"numpy": [0.05, 0.07, 0.06], "tconv": [0.1, 0.1, 0.1]},
    "cases": [
        {"case": "dcgan-l1", "seconds": {"tconv": [0.002, 0.004], "torch": [0.008] * 2}},
        {"case": "dcgan-l5", "seconds": {"tconv": [0.004] * 2, "torch": [0.001] * 2}},
    ],
}  # fmt: skip


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_a_case_has_sound_sizes(case):
    geometry = case.geometry
    assert geometry.x_shape == case.x_shape
    assert min(geometry.y_shape) >= 1
    pairs = case.C * case.M // case.G
    cells = np.prod(case.I) * case.K ** len(case.I)
    assert geometry.flops == 2 * case.N * pairs * cells


def test_names_are_unique():
    assert len({case.name for case in CASES}) == len(CASES)


def test_operands_are_the_same_in_every_process():
    case = next(case for case in CASES if case.name == "dcgan-l5-b1")
    first, second = operands(case), operands(case)
    assert all(np.array_equal(a, b) for a, b in zip(first, second, strict=True))
    assert conv_transpose(*first, **case.keywords).shape == case.geometry.y_shape


def test_the_report_shows_ratios_means_and_losses():
    page = report(RESULTS)
    assert "| dcgan-l1 | 0.10 | 8.00 | 2.00 | 4.00 | 2.67 | 1.50 |" in page
    assert "| dcgan-l5 | 0.40 | 1.00 | 4.00 | 0.25 | 0.25 | 1.00 |" in page
    assert "| **geomean** | | | | **1.00** |" in page
    assert "Slower than PyTorch, by the minimums: 1 of 2 cases." in page
    assert "`import numpy` takes 60 ms, `import tconv` 100 ms" in page
