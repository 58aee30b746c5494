"""Plans: what tells packed weights and orders of sums apart, and sizes of tiles and blocks."""

from collections import Counter
from itertools import combinations

from hypothesis import given
from hypothesis import strategies as st

from tconv.engine.choose import all_plans
from tconv.engine.plan.plan import even_size, tile_heights, tile_rows
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import named_target
from tconv.geometry.geometry import Geometry

counts = st.integers(1, 2000)


@given(counts, counts)
def test_tile_heights_count_tile_rows(rows, tile):
    assert Counter(tile_rows(rows, tile)) == Counter(dict(tile_heights(rows, tile)))
    assert sum(tile_rows(rows, tile)) == rows
    assert max(tile_rows(rows, tile)) <= tile


@given(counts, st.floats(0, 3000), st.integers(1, 64))
def test_even_parts_are_as_few_as_there_can_be_and_nearly_equal(count, most, step):
    size = even_size(count, most, step)
    assert 1 <= size <= count
    assert size <= max(most, step)
    assert size % step == 0 or size == count
    largest = max(1, int(most / step)) * step
    assert -(-count // size) == -(-count // largest)


def test_direct_and_im2col_read_weights_in_one_order_and_the_others_in_their_own():
    problem = Problem(Geometry.of((2, 32, 12, 12), (32, 48, 4, 4), stride=2, padding=1))
    plans = all_plans(problem, "float32", named_target("haswell"), 1)
    shared = set()
    for one, other in combinations(plans[::3], 2):
        if one.packing == other.packing:
            shared.add(frozenset((one.algorithm, other.algorithm)))
            assert one.k_block == other.k_block
            assert one.block == other.block
            assert one.is_uncropped == other.is_uncropped
    assert frozenset(("direct", "im2col")) in shared
    assert all(len(pair) == 1 or pair == {"direct", "im2col"} for pair in shared)
