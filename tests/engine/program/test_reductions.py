"""Reductions along rows and across rows: exact, whatever the sizes, and the same on all threads."""

import numpy as np
import pytest
from engine.program.loop_calls import CANARY, HERE, LANES, run_reduction
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws, integers_like

HOW = ("sum", "max", "min")
each_how = pytest.mark.parametrize("how", HOW)
each_target = pytest.mark.parametrize("here", HERE, ids=lambda here: here.cpu)


def reduced(how, x, divisor=1.0, **keywords):
    """The reduction of the middle axis, divided by a number, amid canaries that stay."""
    outer, _, inner = x.shape
    memory = np.full(outer * inner + 64, CANARY)
    y = memory[32:-32].reshape(outer, inner)
    run_reduction(how, x, y, divisor, **keywords)
    assert (memory[:32] == CANARY).all()
    assert (memory[-32:] == CANARY).all()
    return y.copy()


def defined(how, x, divisor=1.0):
    """The same by NumPy."""
    return getattr(np, how)(x, axis=1) / np.float32(divisor)


# ---- sizes ---------------------------------------------------------------------------------------


@each_target
@each_how
@pytest.mark.parametrize("along_rows", [True, False], ids=["along", "across"])
def test_every_tail(along_rows, how, here):
    """Along rows one to more than eight vectors of elements, across them so many columns."""
    for size in range(1, (9 if along_rows else 3) * LANES[here] + 2):
        shape = (2, size, 1) if along_rows else (2, 5, size)
        x = integers_like(shape, "float32", size, 99)
        assert np.array_equal(reduced(how, x, here=here), defined(how, x)), size


@draws(4)
@given(
    st.integers(1, 7),
    st.integers(1, 300) | st.integers(1, 5000),
    st.integers(1, 40) | st.just(1),
    st.sampled_from(HOW),
    st.sampled_from([1.0, 0.5, -2.0, 3.0, 49.0]),
    st.sampled_from(HERE),
    st.integers(1, 3),
)
def test_small_integers_are_exact(outer, size, inner, how, divisor, here, threads):
    x = integers_like((outer, size, inner), "float32", size)
    found = reduced(how, x, divisor, here=here, threads=threads, block=16)
    assert np.array_equal(found, defined(how, x, divisor))


@each_how
@pytest.mark.parametrize("block", [None, 1024, 16, 40, 1])
def test_columns_in_tasks(how, block):
    """Also where a task's columns are no whole vectors."""
    x = integers_like((3, 7, 2500 if block != 1 else 50), "float32")
    for threads in (1, 3):
        assert np.array_equal(reduced(how, x, block=block, threads=threads), defined(how, x))


@each_how
def test_operands_are_parts_of_larger_arrays(how):
    """Rows and images apart, amid NaN."""
    whole = np.full((5, 14, 60), np.nan, np.float32)
    across, along = whole[1:4, 2:11, 5:42], whole[1:4, 3:4, 8:40].transpose(0, 2, 1)
    across[...] = integers_like(across.shape, "float32")
    assert np.array_equal(reduced(how, across, block=16), defined(how, across))
    assert np.array_equal(reduced(how, along), defined(how, along))


@each_how
def test_one_element_is_its_own_reduction(how):
    x = np.float32([[[-3.5]], [[2.25]], [[np.inf]]])
    assert np.array_equal(reduced(how, x), x[:, 0])
    across = np.repeat(x, 21, 2)
    assert np.array_equal(reduced(how, across), across[:, 0])


# ---- values --------------------------------------------------------------------------------------


@each_target
@each_how
@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 77, 1), (3, 64, 1), (3, 9, 21), (3, 1, 32)])
def test_one_nan_makes_its_result_nan_and_no_other(shape, how, here):
    x = integers_like(shape, "float32")
    outer, size, inner = shape
    for place in range(size):
        for column in {0, inner // 2, inner - 1}:
            with_nan = x.copy()
            with_nan[outer // 2, place, column] = np.nan
            found, expected = reduced(how, with_nan, here=here), defined(how, with_nan)
            assert np.isnan(found).sum() == 1
            assert np.array_equal(found, expected, equal_nan=True)


@each_target
@each_how
@pytest.mark.parametrize("shape", [(1, 70, 1), (1, 9, 21)])
def test_infinities(shape, how, here):
    """The largest of -inf alone is -inf, and the sum of both is NaN."""
    size, some = shape[1], integers_like(shape, "float32")
    found = {}
    for name, numbers in {
        "high": [np.inf],
        "low": [-np.inf],
        "both": [np.inf, -np.inf],
        "largest": [np.finfo(np.float32).max],
    }.items():
        x = some.copy()
        x[0, :: max(1, size // len(numbers))] = 0
        for n, each in enumerate(numbers):
            x[0, 3 + 2 * n] = each
        with np.errstate(invalid="ignore"):
            expected = defined(how, x)
        found[name] = reduced(how, x, here=here)
        assert np.array_equal(found[name], expected, equal_nan=True)
    assert np.isnan(found["both"]).all() == (how == "sum")
    for value in (np.inf, -np.inf):
        assert (reduced(how, np.full(shape, value, np.float32), here=here) == value).all()


@each_how
def test_nan_wins_over_infinities(how):
    x = np.float32([np.inf, np.nan, -np.inf] * 30).reshape(1, 90, 1)
    assert np.isnan(reduced(how, x)).all()
    assert np.isnan(reduced(how, x.reshape(1, 3, 30)))[0, 1::3].all()


@pytest.mark.parametrize("divisor", [3.0, 1e-30, 1e30, np.inf, np.nan])
def test_the_rounded_result_is_divided_once(divisor):
    for shape in ((4, 50, 1), (4, 5, 33)):
        x = integers_like(shape, "float32", 1) + np.float32(5)  # no sum is 0
        for how in HOW:
            found, expected = reduced(how, x, divisor), defined(how, x, divisor)
            assert np.array_equal(found, expected, equal_nan=True)


@draws(1)
@given(st.integers(1, 5000), st.sampled_from(HERE), st.integers(0, 9))
def test_sums_of_any_numbers_are_near(size, here, seed):
    """Within the bound of summation in any order, which sums in many lanes stay well below."""
    x = np.random.default_rng(seed).standard_normal((2, size, 1)).astype("float32")
    for of in (x, np.repeat(x, 3, 2)):
        exact = of.astype(np.float64).sum(1)
        bound = size * np.finfo(np.float32).eps * np.abs(of).sum(1)
        assert (np.abs(reduced("sum", of, here=here) - exact) <= bound).all()


# ---- the same bits -------------------------------------------------------------------------------


@each_how
@pytest.mark.parametrize("shape", [(40, 3001, 1), (3, 50, 5000), (1, 700, 37), (64, 7, 129)])
def test_any_number_of_threads_gives_the_same_bits(shape, how):
    x = np.random.default_rng(0).standard_normal(shape).astype("float32")
    found = {
        reduced(how, x, 3, threads=threads, block=block).tobytes()
        for threads in (1, 2, 3, 4)
        for block in (64, 1024)
        for _ in range(3)
    }
    assert len(found) == 1


def test_a_column_does_not_depend_on_its_neighbours():
    """Nor on whether it lies in a whole vector or in a tail."""
    x = np.random.default_rng(0).standard_normal((2, 300, 40)).astype("float32")
    whole = reduced("sum", x)
    for first, last in [(0, 1), (3, 20), (7, 40), (39, 40)]:
        part = np.ascontiguousarray(x[:, :, first:last])
        if last - first > 1:
            assert np.array_equal(reduced("sum", part), whole[:, first:last])


@each_target
def test_rows_across_are_summed_in_order(here):
    """One after the other, so that all processors find the same bits."""
    x = np.random.default_rng(0).standard_normal((1, 300, 40)).astype("float32")
    total = np.zeros(40, np.float32)
    for row in x[0]:
        total += row
    assert np.array_equal(reduced("sum", x, here=here)[0], total)
