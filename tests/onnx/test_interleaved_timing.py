"""Who is faster of two that take turns is told where every turn says so."""

from statistics import median

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws
from tconv.onnx.interleaved_timing import Turns

times = st.lists(st.lists(st.floats(0.01, 100), min_size=1, max_size=4), min_size=1, max_size=5)
either = st.sampled_from([min, median])


@draws()
@given(times)
def test_the_fastest_and_the_median_are_of_all_turns(turns):
    every, found = [run for turn in turns for run in turn], Turns(turns)
    assert len(found) == len(every)
    assert found.fastest == min(every)
    assert min(every) <= found.middle <= max(every)
    assert sum(median(turn) <= found.middle for turn in turns) * 2 >= len(turns)
    assert sum(median(turn) >= found.middle for turn in turns) * 2 >= len(turns)


def test_nothing_has_no_time():
    for nothing in (Turns([]), Turns([[]])):
        assert (len(nothing), nothing.fastest, nothing.middle) == (0, None, None)
        assert nothing.faster_than(nothing, min) is None
        assert nothing.faster_than(Turns([[1.0]]), median) is None


@draws()
@given(times, st.floats(1.05, 3), either)
def test_the_faster_one_is_told_both_ways(turns, factor, of_turn):
    own, slower = Turns(turns), Turns([[run * factor for run in turn] for turn in turns])
    assert own.faster_than(slower, of_turn) is True
    assert slower.faster_than(own, of_turn) is False
    assert own.faster_than(own, of_turn) is None


@draws()
@given(times, st.floats(1.05, 3), either, st.data())
def test_one_turn_that_disagrees_is_enough_to_tell_nothing(turns, factor, of_turn, data):
    odd = data.draw(st.integers(0, len(turns) - 1))
    other = [
        [run / factor if n == odd else run * factor for run in turn] for n, turn in enumerate(turns)
    ]
    if len(turns) > 1:
        assert Turns(turns).faster_than(Turns(other), of_turn) is None


@draws()
@given(times, st.data())
def test_runs_that_waited_change_nothing(turns, data):
    """What a loaded machine does to all runs of a turn but the fastest."""
    waited = [
        [run * (1 if run == min(turn) else data.draw(st.floats(1, 1000))) for run in turn]
        for turn in turns
    ]
    twice = [[2 * run for run in turn] for turn in turns]
    assert Turns(waited).fastest == pytest.approx(Turns(turns).fastest)
    assert Turns(waited).faster_than(Turns(twice), min) is True


@draws()
@given(times, times)
def test_what_is_shown_agrees_with_who_is_told_to_be_faster(turns, others):
    """The ratio of the fastest runs, and that of the middles."""
    pair = Turns(turns[: len(others)]), Turns(others[: len(turns)])
    for of_turn, name in ((min, "fastest"), (median, "middle")):
        own, other = (getattr(each, name) for each in pair)
        is_faster = pair[0].faster_than(pair[1], of_turn)
        assert is_faster is None or is_faster == (own < other)
