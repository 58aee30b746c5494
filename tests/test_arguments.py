"""What the keywords of a call may be; what they may not be is in test_bad_input.py."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws
from tconv.arguments import as_flag, as_integer, as_padding, as_per_axis, as_size, show
from tconv.errors import ParameterError

INTEGER_TYPES = [int, np.int8, np.uint8, np.int32, np.uint64, np.array]


@pytest.mark.parametrize("kind", INTEGER_TYPES)
def test_an_integer_of_any_type_becomes_pythons(kind):
    number = as_integer(kind(2), "stride", 1)
    assert number == 2
    assert type(number) is int


@pytest.mark.parametrize("value", [True, np.True_, np.array(True), 2.0, "2", None, [2], 1j])
def test_what_only_looks_like_an_integer_is_refused(value):
    with pytest.raises(ParameterError, match="must be an integer"):
        as_integer(value, "stride", 1)


@pytest.mark.parametrize("kind", [tuple, list, np.array])
def test_one_number_per_axis_may_come_in_any_sequence(kind):
    assert as_per_axis(kind([1, 2]), "stride", 2, 1) == (1, 2)
    assert as_per_axis(kind([3]), "stride", 2, 1) == as_per_axis(3, "stride", 2, 1) == (3, 3)
    assert as_padding(kind([1, 2]), 2) == ((1, 1), (2, 2))


@draws(0.2)
@given(st.lists(st.tuples(st.integers(-9, 9), st.integers(-9, 9)), min_size=1, max_size=4))
def test_padding_written_out_means_itself(pairs):
    pairs, rank = tuple(pairs), len(pairs)
    assert as_padding(pairs, rank) == as_padding(np.array(pairs), rank) == pairs
    assert as_padding([*map(list, pairs)], rank) == pairs
    assert as_padding(7, rank) == as_padding((7,), rank) == as_padding([(7, 7)] * rank, rank)


@pytest.mark.parametrize(
    ("name", "meaning"),
    [
        ("valid", ((0, 0), (0, 0))),
        ("same", "same_upper"),
        ("same_upper", "same_upper"),
        ("same_lower", "same_lower"),
    ],
)
def test_names_of_padding(name, meaning):
    assert as_padding(name, 2) == meaning


@pytest.mark.parametrize("size", [9, (9, 9), [9, 9], np.array([9, 9]), (2, 4, 9, 9)])
def test_a_size_may_be_one_number_spatial_or_full(size):
    assert as_size(size, "output_size", 2, (2, 4), channels_last=False) == (9, 9)


def test_a_full_size_puts_channels_where_the_data_format_does():
    assert as_size((2, 8, 9, 4), "output_size", 2, (2, 4), channels_last=True) == (8, 9)
    assert as_size((8, 9, 4), "output_size", 2, (4,), channels_last=True) == (8, 9)
    assert as_size((4, 8, 9), "output_size", 2, (4,), channels_last=False) == (8, 9)


def test_flags_are_pythons_or_numpys():
    assert as_flag(np.True_, "flip_kernel") is True
    assert as_flag(False, "flip_kernel") is False


def test_a_message_shows_at_most_80_characters_of_a_value():
    assert show([1, 2]) == "[1, 2]"
    assert len(show("x" * 1000)) == 80
