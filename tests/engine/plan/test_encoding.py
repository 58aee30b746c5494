"""What is written comes back, of the same types; nothing else is ever made of other bytes."""

from contextlib import suppress

import numpy as np
import pytest
from engine.values import same
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from tconv.engine.plan.encoding import as_bytes, of_bytes

NUMBERS = st.integers(-(2**63), 2**63 - 1)
PLAIN = st.one_of(
    st.none(), st.booleans(), NUMBERS, st.floats(allow_nan=False), st.text(max_size=9)
)
ARRAYS = arrays.arrays(
    st.sampled_from(["i8", "i4", "i2", "u1", "f4", "f8"]),
    arrays.array_shapes(min_dims=0, min_side=0, max_side=4),
    elements={"allow_nan": False},
)
VALUES = st.recursive(
    st.one_of(PLAIN, ARRAYS),
    lambda inner: st.one_of(
        st.lists(inner, max_size=4).map(tuple),
        st.lists(NUMBERS, max_size=4).map(tuple),
        st.dictionaries(st.integers(0, 9), inner, max_size=3),
    ),
    max_leaves=8,
)


@given(VALUES)
def test_what_is_written_comes_back(value):
    found = of_bytes(as_bytes(value))
    assert type(found) is type(value)
    assert same(value, found)


@given(ARRAYS, st.text(max_size=9))
def test_arrays_are_aligned_and_read_only(array, before):
    """Machine code reads them by their addresses."""
    _, found = of_bytes(as_bytes((before, array)))
    assert found.flags.aligned
    assert not found.flags.writeable


@given(VALUES, st.data())
def test_bytes_that_are_not_whole_are_refused(value, data):
    whole = as_bytes(value)
    end = data.draw(st.integers(0, len(whole) - 1))
    for part in (whole[:end], whole + b"N"):
        with pytest.raises(ValueError, match=r"."):
            of_bytes(part)


@given(st.one_of(st.binary(max_size=60), VALUES.map(as_bytes)), st.data())
def test_any_bytes_are_a_value_or_refused(data, draw):
    data = bytearray(data)
    for _ in range(draw.draw(st.integers(0, 3))):
        if data:
            data[draw.draw(st.integers(0, len(data) - 1))] = draw.draw(st.integers(0, 255))
    with suppress(ValueError):
        of_bytes(bytes(data))


@pytest.mark.parametrize("data", [
    b"n\xff\xff\xff\xff", b"t\xff\xff\xff\xff", b"s\xff\xff\xff\xff", b"l\xff\xff\xff\xff",
    b"a<i8\x02" + b"\xff" * 7 + b"\x7f" + b"\x02" + bytes(7),
    b"t\x01\0\0\0" * 5000,
])  # fmt: skip
def test_what_says_that_it_is_huge_takes_neither_memory_nor_the_stack(data):
    with pytest.raises(ValueError, match=r"."):
        of_bytes(data)


def test_arrays_of_objects_are_neither_written_nor_read():
    with pytest.raises(KeyError):
        as_bytes(np.array([None]))
    with pytest.raises(ValueError, match="another type"):
        of_bytes(as_bytes(np.arange(1)).replace(b"<i8", b"|O8"))
