"""Lengths of runs: few of them, which sum to enough, at little more than the least cost."""

from hypothesis import given
from hypothesis import strategies as st

from tconv.streams.run_lengths import RunLengths

periods, mosts = st.integers(1, 12), st.integers(1, 5000)
costs = st.floats(0, 1e4, allow_subnormal=False)


@given(periods, mosts, costs, costs, st.integers(0, 20_000))
def test_runs_are_of_few_lengths_and_sum_to_enough(period, most, fixed, per_cell, count):
    lengths = RunLengths(period, most, fixed, per_cell)
    found = lengths.cut(count)
    assert {*found} <= {*lengths.all}
    assert 1 <= len(lengths.all) <= 8
    assert all(length % period == 0 for length in lengths.all)
    assert [2 * length for length in lengths.all[:-1]] == lengths.all[1:]
    assert lengths.all[-1] <= max(most, period) < 2 * lengths.all[-1] + period
    assert sum(found) >= count > sum(found[:-1]) if count else found == []
    assert found == sorted(found, reverse=True)


@given(st.integers(1, 300), costs, costs)
def test_few_cells_are_cut_as_cheaply_as_can_be(count, fixed, per_cell):
    """Against every way to fill them with lengths that grow by twos."""
    lengths = RunLengths(1, 64, fixed, per_cell)
    least = [0.0]
    for n in range(1, count % 64 + 1):
        least.append(min(fixed + per_cell * each + least[max(n - each, 0)] for each in lengths.all))
    rest = lengths.cut(count)[count // 64 :]
    assert sum(fixed + per_cell * each for each in rest) <= least[-1] * (1 + 1e-9)
