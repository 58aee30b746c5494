"""Who is faster of two that take turns is told where every turn says so."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws
from tconv.onnx.turns import Turns

times = st.lists(st.lists(st.floats(0.01, 100), min_size=1, max_size=4), min_size=1, max_size=5)


@draws()
@given(times)
def test_the_fastest_and_the_median_are_of_all_turns(turns):
    every = sorted(run for turn in turns for run in turn)
    found, middle = Turns(turns), len(every) // 2
    assert len(found) == len(every)
    assert found.fastest == every[0]
    assert found.median == (every[middle] + every[~middle]) / 2


def test_nothing_has_no_time():
    for nothing in (Turns([]), Turns([[]])):
        assert (len(nothing), nothing.fastest, nothing.median) == (0, None, None)
        assert nothing.faster_than(nothing) is None
        assert nothing.faster_than(Turns([[1.0]])) is None


@draws()
@given(times, st.floats(1.05, 3))
def test_the_faster_one_is_told_both_ways(turns, factor):
    own, slower = Turns(turns), Turns([[run * factor for run in turn] for turn in turns])
    assert own.faster_than(slower) is True
    assert slower.faster_than(own) is False
    assert own.faster_than(own) is None


@draws()
@given(times, st.floats(1.05, 3), st.data())
def test_one_turn_that_disagrees_is_enough_to_tell_nothing(turns, factor, data):
    odd = data.draw(st.integers(0, len(turns) - 1))
    other = [
        [run / factor if n == odd else run * factor for run in turn] for n, turn in enumerate(turns)
    ]
    if len(turns) > 1:
        assert Turns(turns).faster_than(Turns(other)) is None


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
    assert Turns(waited).faster_than(Turns(twice)) is True
