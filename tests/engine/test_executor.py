"""How a plan is run: from arrays to addresses, and back to the plan for one thread."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given

from strategies import ENGINE_TYPES, geometries
from tconv import engine
from tconv.engine.choose import choose_plan
from tconv.engine.executor import create_primitive
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import target
from tconv.geometry.geometry import Geometry
from tconv.system import pointers
from tconv.system.allocator import Arena, lent


class Mine(np.ndarray):
    """A subclass with more in each object."""

    __slots__ = ("more",)


def read_only(array):
    array.flags.writeable = False
    return array


@pytest.mark.parametrize(
    "array",
    [
        np.zeros(5),
        np.zeros((2, 3, 4), "f4")[1:, ::2, 3],
        np.zeros((2, 3)).T,
        np.zeros(9)[::-1],
        np.zeros(0),
        np.zeros(()),
        np.zeros(3).view(Mine),
        np.ma.array(np.zeros(3)),
        read_only(np.zeros(3)),
        np.frombuffer(b"12345678", "u1")[3:],
        np.empty(2**25, "u1"),
        np.zeros(3, "f4,i2")["f1"],
    ],
    ids=lambda array: f"{type(array).__name__} {array.shape} {array.strides}",
)
def test_an_address_is_where_numpy_says(array):
    assert pointers.address(array) == array.ctypes.data
    assert pointers._ask_address(array) == array.ctypes.data


def test_it_is_read_where_that_is_known_to_be_right(monkeypatch):
    assert pointers._is_read_right()
    monkeypatch.setattr(pointers, "DATA_OFFSET", pointers.DATA_OFFSET + 8)
    assert not pointers._is_read_right()


def has_a_plan_for_one_thread(geometry, dtype, want="y"):
    return choose_plan(Problem(engine._canonical(geometry), want), dtype, target(), 1) is not None


@given(geometries(ranks=(1, 2, 3), batches=(1, 2, 3)))
def test_what_is_served_has_a_plan_for_one_thread(geometry):
    for dtype, want in product(ENGINE_TYPES, "yx"):
        if engine.serves(geometry, want, dtype):
            assert has_a_plan_for_one_thread(geometry, dtype, want)


@pytest.mark.parametrize(
    ("x", "weight", "keywords"),
    [
        ((1, 4, 4, 4), (4, 4, 4, 4), {"stride": 2}),
        ((4, 64, 64, 64), (64, 32, 4, 4), {"stride": 2}),
        ((1, 1, 3000, 3000), (1, 1, 3, 3), {}),
        ((1, 4, 100_000), (4, 4, 5), {"dilation": 30_000}),
        ((1, 8, 512, 512), (8, 8, 3, 3), {"dilation": 32}),
        ((1, 1, 600, 600), (1, 1, 3, 3), {"dilation": 250}),
        ((1, 1, 4_000_000), (1, 1, 2), {"dilation": 1_900_000}),
        ((1, 1, 64, 64, 64), (1, 1, 2, 2, 2), {"dilation": 60}),
        ((4, 128, 64, 64), (128, 1, 4, 4), {"stride": 2, "groups": 128}),
    ],
)
def test_whether_there_is_one_is_found_out_either_way(x, weight, keywords):
    geometry = Geometry.of(x, weight, **keywords)
    found = engine._has_plan(Problem(geometry), "float32")
    assert found == has_a_plan_for_one_thread(geometry, "float32")


# ---- where packed weights lie --------------------------------------------------------------------


def test_weights_are_packed_where_those_before_them_were():
    """But never where others still are."""
    shape = (64, 32, 4, 4)
    w = np.arange(64 * 32 * 16).reshape(1, *shape).astype("f4")
    made = create_primitive(
        Problem(Geometry.of((1, 64, 8, 8), shape, stride=2)), "float32", target(), 1
    )
    with lent(Arena(most_idle_bytes=2**24)):
        first, second = made.pack(w), made.pack(w + 1)
        assert not np.shares_memory(first, second)
        expected, place = second.copy(), first.ctypes.data
        del first
        third = made.pack(w)
        assert third.ctypes.data == place
        assert np.array_equal(second, expected)
        assert not np.array_equal(third, second)


def test_few_weights_are_packed_in_memory_of_numpys():
    shape = (4, 4, 2, 2)
    made = create_primitive(
        Problem(Geometry.of((1, 4, 8, 8), shape, stride=2)), "float32", target(), 1
    )
    arena = Arena(most_idle_bytes=2**24)
    with lent(arena):
        assert made.pack(np.ones((1, *shape), "f4")).flags.owndata
    assert arena.idle_bytes == 0
