"""Values in messages: their repr if it is short, and never slow."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws
from tconv.messages import show

SIMPLE = st.none() | st.booleans() | st.integers(-999, 999) | st.floats() | st.text(max_size=9)
VALUES = st.recursive(
    SIMPLE,
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(inner, inner)
        | st.dictionaries(st.text(max_size=3), inner, max_size=2)
    ),
    max_leaves=5,
)


@draws(1)
@given(VALUES)
def test_a_short_value_is_shown_by_its_repr(value):
    text = repr(value)
    if len(text) <= 80 and sum(map(text.count, "[({")) <= 6:
        assert show(value) == text
    assert len(show(value)) <= 80


def itself():
    found = []
    found.append(found)
    return found


def nested(depth):
    found = []
    for _ in range(depth):
        found = [found]
    return found


def doubled(levels):
    found = [0]
    for _ in range(levels):
        found = [found, found]
    return found


def holding(value):
    found = np.empty(1, object)
    found[0] = value
    return found


class Silent:
    def __repr__(self):
        raise ValueError


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (10**5000, "<integer of 16,610 bits>"),
        ([-(10**5000)], "[<integer of 16,610 bits>]"),
        (itself(), "[[[[[[[...]]]]]]]"),
        (nested(100_000), "[[[[[[[...]]]]]]]"),
        (
            doubled(100),
            "[[[[[[[...], [...]], [[...], [...]]], [[[...], [...]], [[...], [...]]]], [[[[...",
        ),
        ("no" * 10**6, "'" + "no" * 38 + "..."),
        (b"no" * 10**6, "b'" + "no" * 37 + "n..."),
        ([1] * 10**6, "[" + "1, " * 25 + "1..."),
        (np.zeros(10**6), "<array of shape (1000000,), float64>"),
        (np.broadcast_to(0.0, (2**30, 2**20)), "<array of shape (1073741824, 1048576), float64>"),
        (holding(doubled(100)), "<array of shape (1,), object>"),
        (np.array([1, 2]), "array([1, 2])"),
        (Silent(), "<Silent>"),
        ([Silent()], "[<Silent>]"),
    ],
    ids=range(14),
)
def test_what_is_large_or_odd_is_shown_in_short(value, text):
    assert show(value) == text
