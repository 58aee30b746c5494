"""Interleaved timings: one contender is faster only if every round says so."""

from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws
from tconv.onnx.interleaved_timing import Rounds

times = st.lists(st.lists(st.floats(0.01, 100), min_size=1, max_size=4), min_size=1, max_size=5)
either = st.sampled_from([min, median])


@draws()
@given(times)
def test_the_fastest_and_the_median_are_of_all_rounds(rounds):
    every, found = [run for each in rounds for run in each], Rounds(rounds)
    assert len(found) == len(every)
    assert found.fastest == min(every)
    assert min(every) <= found.median <= max(every)
    assert sum(median(each) <= found.median for each in rounds) * 2 >= len(rounds)
    assert sum(median(each) >= found.median for each in rounds) * 2 >= len(rounds)


def test_nothing_has_no_time():
    for nothing in (Rounds([]), Rounds([[]])):
        assert (len(nothing), nothing.fastest, nothing.median) == (0, None, None)
        assert nothing.faster_than(nothing, min) is None
        assert nothing.faster_than(Rounds([[1.0]]), median) is None


@draws()
@given(times, st.floats(1.05, 3), either)
def test_the_faster_one_is_told_both_ways(rounds, factor, of_round):
    own, slower = Rounds(rounds), Rounds([[run * factor for run in each] for each in rounds])
    assert own.faster_than(slower, of_round) is True
    assert slower.faster_than(own, of_round) is False
    assert own.faster_than(own, of_round) is None


@draws()
@given(times, st.floats(1.05, 3), either, st.data())
def test_one_round_that_disagrees_is_enough_to_tell_nothing(rounds, factor, of_round, data):
    odd = data.draw(st.integers(0, len(rounds) - 1))
    other = [
        [run / factor if n == odd else run * factor for run in each]
        for n, each in enumerate(rounds)
    ]
    if len(rounds) > 1:
        assert Rounds(rounds).faster_than(Rounds(other), of_round) is None


@draws()
@given(times, st.data())
def test_runs_that_waited_change_nothing(rounds, data):
    """A loaded machine slows all runs of a round but the fastest."""
    waited = [
        [run * (1 if run == min(each) else data.draw(st.floats(1, 1000))) for run in each]
        for each in rounds
    ]
    twice = [[2 * run for run in each] for each in rounds]
    assert Rounds(waited).fastest == pytest.approx(Rounds(rounds).fastest)
    assert Rounds(waited).faster_than(Rounds(twice), min) is True


@draws()
@given(times, times)
def test_what_is_shown_agrees_with_who_is_told_to_be_faster(rounds, others):
    """The ratio of the fastest runs, and that of the medians."""
    pair = Rounds(rounds[: len(others)]), Rounds(others[: len(rounds)])
    for of_round, name in ((min, "fastest"), (median, "median")):
        own, other = (getattr(each, name) for each in pair)
        is_faster = pair[0].faster_than(pair[1], of_round)
        assert is_faster is None or is_faster == (own < other)
