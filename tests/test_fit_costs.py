"""Choices of plans by the cost model, held against plans that were measured."""

from statistics import geometric_mean

import pytest

from bench.fit_costs import CPUS, drawn, problem_of, quality, read, summary, target_of
from tconv.engine.plan.cost_constants import FAMILIES, cost_constants
from tconv.engine.target.target import named_target


@pytest.mark.parametrize("family", CPUS)
def test_chosen_plans_are_nearly_as_good_as_the_best_that_was_measured(family):
    layers, here = read(family), target_of(family)
    choices, errors = quality(family, layers, here)
    assert len(layers) > 100
    assert len(errors) > 10 * len(layers)
    assert geometric_mean(choices) <= 1.15, summary(choices, errors)
    assert max(choices) <= 1.6, summary(choices, errors)


@pytest.mark.parametrize("family", CPUS)
def test_the_constants_of_another_family_choose_worse(family, monkeypatch):
    """Else the fit would be worth nothing."""
    layers, here = read(family), target_of(family)
    fitted = geometric_mean(quality(family, layers, here)[0])
    monkeypatch.setitem(FAMILIES, family, FAMILIES["zen3"])
    assert geometric_mean(quality(family, layers, here)[0]) > fitted


def test_each_processor_has_the_constants_of_a_family():
    assert cost_constants(named_target("znver3")) is FAMILIES["zen3"]
    assert cost_constants(named_target("apple-m1")) is FAMILIES["zen3"]
    assert cost_constants(target_of("zen5")) is FAMILIES["zen5"]


def test_drawn_layers_are_the_same_every_time_and_of_both_letters():
    layers = list(drawn(60))
    assert layers == list(drawn(60))
    assert {problem_of(layer).want for layer in layers} == {"x", "y"}
