"""Every step of the ladder gives the right answer, and its table hides none."""

import numpy as np
import pytest

from bench import steps
from bench.cases import Case
from bench.ladder import LAYERS, POSSIBLE, STEPS, cut_down, lines, page
from bench.peers import Unsupported, operands
from bench.steps import SAME
from tconv.portable import contract

LAYER = Case("layer", 2, 5, 3, (6, 7), 3, 2, 1, 0, 1, 1, "nobody's")
DILATED = Case("dilated", 1, 2, 19, (9,), 3, 1, 2, 0, 2, 1, "nobody's")
SMALL = Case("small", 8, 40, 40, (4, 4), 4, 2, 1, 0, 1, 1, "nobody's")
DEEP = Case("deep", 1, 512, 1, (700,), 16, 8, 0, 0, 1, 1, "nobody's")
MIDDLE = Case("middle", 1, 96, 96, (24, 24), 3, 1, 1, 0, 1, 1, "nobody's")
each_step = pytest.mark.parametrize("step", STEPS, ids=lambda step: step.name)


@each_step
def test_each_step_gives_the_answer(step):
    computed = 0
    for case in (MIDDLE,) if step.name == "winograd" else (LAYER, DILATED, SMALL, DEEP):
        if step.name == "number_by_number" and case.geometry.flops > 10**6:
            continue  # which takes Python seconds
        x, weight, bias = arrays = operands(case, "float32", 0)
        try:
            call = getattr(steps, step.name)(case, arrays, 1 + step.takes_all_cores)
        except Unsupported:  # the plan is that of the step before
            continue
        expected = contract.contract(case.geometry, "y", x, weight, bias=bias)
        for _ in range(2):
            assert np.allclose(call(), expected, atol=1e-5)
        computed += 1
    assert computed


@pytest.mark.parametrize("change", [{"G": 2, "C": 6, "M": 4}, {"a": 1}])
def test_what_the_first_steps_do_not_compute_is_refused(change):
    case = LAYER._replace(**change)
    with pytest.raises(Unsupported):
        steps.scattered(case, operands(case, "float32", 0), 1)()


@pytest.mark.parametrize("case", POSSIBLE, ids=lambda case: case.name)
def test_a_layer_that_is_cut_down_is_of_its_kind(case):
    small = cut_down(case, 10**5)
    assert small.geometry.flops <= 10**5
    assert (small.K, small.s, small.p, small.d) == (case.K, case.s, case.p, case.d)
    assert cut_down(case, None) == case


def layer(**times):
    found = {step.name: {"failed": "not measured"} for step in STEPS} | {"col2im": {"failed": SAME}}
    for name, (microseconds, sizes) in times.items():
        found[name] = {"sizes": sizes, "flops": 10**6, "us": [[microseconds + 1, microseconds]]}
    return {"case": "a layer", "sizes": "whole", "others": 0.04, "contenders": found}


def test_the_table_says_gains_losses_and_what_was_cut_or_failed():
    row = layer(number_by_number=(1e6, "a part"), scattered=(10.0, "whole"), phases=(20.0, "whole"))
    facts = {"date": "2026-11-22T12:00", "processor": "P", "cores": 2, "target": "T", "load": 0.1}
    text = "\n".join(page(facts | {"versions": {}, "parts": [{"rows": [row]}]}))
    assert "| 1 | one product at a time, in Python | 0.001 |" in text
    assert "| 4 | GEMM, then col2im | 100 (×100,000) |" in text
    assert "| 5 | a GEMM for each phase | 50 (×0.50) |" in text
    assert "| 11 | GEMM and col2im within the cache | = |" in text
    assert "| 14 | weights packed once | – |" in text
    assert "| 15 | Winograd | – |" in text
    assert "has less: a layer a part." in text
    assert "a layer, packed: not measured." in text
    assert SAME not in text


def test_the_history_has_the_mean_gain_of_each_step_over_the_one_before():
    one = layer(number_by_number=(100.0, "whole"), scattered=(10.0, "whole"), phases=(20, "whole"))
    two = layer(number_by_number=(40.0, "whole"), scattered=(10.0, "whole"))
    del two["contenders"]["winograd"]  # as in files of before there was this step
    scattered, phases = lines({"parts": [{"rows": [one, two]}]})
    assert scattered[:4] == ("ladder", "GEMM, then col2im", "the step before", 2)
    assert scattered.by_minima == pytest.approx((10 * 4) ** 0.5)
    assert scattered.least == pytest.approx(40.5 / 10.5)
    assert (phases.cases, phases.by_minima) == (1, pytest.approx(0.5))


def test_the_layers_are_possible():
    assert set(LAYERS) <= {case.name for case in POSSIBLE}
