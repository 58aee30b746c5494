"""What the keywords of a call may be; what they may not be is in test_bad_input.py."""

import math
from array import array
from collections import deque
from ctypes import c_double
from decimal import Decimal
from fractions import Fraction
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import bfloat16

from strategies import draws
from tconv.arguments import (
    as_array,
    as_flag,
    as_generator,
    as_integer,
    as_mapping,
    as_number,
    as_padding,
    as_path,
    as_per_axis,
    as_size,
    show,
)
from tconv.errors import DTypeError, MemoryLimitError, ParameterError

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


class Index:
    """What says that it is 10**5000."""

    def __index__(self):
        return 10**5000


@pytest.mark.parametrize("value", [10**5000, -(10**5000), 2**128, -(2**128), Index()], ids=type)
def test_no_setting_is_beyond_128_bits(value):
    with pytest.raises(
        ParameterError, match=r"^stride=.* must be between -2\*\*128 and 2\*\*128; "
    ):
        as_integer(value, "stride")
    with pytest.raises(ParameterError, match=r"^stride=.* must be"):
        as_integer(value, "stride", 1)
    assert as_integer(2**128 - 1, "seed", 0) == 2**128 - 1


@pytest.mark.parametrize(
    "value",
    [
        np.broadcast_to(0, (2**59,)),
        np.broadcast_to(1, (2, 2**50)),
        np.ones((2,) * 16, int),
        range(2**70),
        [1] * 10**6,
    ],
    ids=["long", "wide", "deep", "range", "list"],
)
def test_a_large_array_is_no_setting(value):
    for read in (as_padding, lambda each, rank: as_per_axis(each, "stride", rank, 1)):
        with pytest.raises(ParameterError, match=r"^(stride|padding)=.* must be"):
            read(value, 2)


@pytest.mark.parametrize(
    "value",
    [
        *("1", True, None, 1j, b"1", bytearray(b"1"), memoryview(b"1"), [1.0], np.ones(1), int),
        *(np.timedelta64(1), np.True_, np.complex64(1), math.nan, -math.inf, 10**400),
    ],
    ids=type,
)
def test_what_is_no_finite_number_is_refused(value):
    with pytest.raises(ParameterError, match=r"^lr=.* must be a finite number; pass one\.$"):
        as_number(value, "lr")


@pytest.mark.parametrize(
    "value",
    [2, 2.0, np.float32(2), np.int8(2), np.array(2.0), Fraction(2), Decimal(2), bfloat16(2)],
)
def test_a_number_of_any_type_becomes_pythons(value):
    number = as_number(value, "lr")
    assert number == 2
    assert type(number) is float


@pytest.mark.parametrize("value", [None, 3, b"name", ["name"], "a\0b", "\ud800", object()])
def test_what_names_no_file_is_refused(value):
    with pytest.raises(ParameterError, match=r"^path=.* must be a (string|path).*; pass "):
        as_path(value)


def test_a_path_is_a_string():
    assert as_path("a/b") == as_path(Path("a/b")) == "a/b"
    assert as_path("\udcff") == "\udcff"  # a byte that is no UTF-8


@pytest.mark.parametrize("value", [None, 3, [], [("x", 1)], "x", {1: 2}, {None: 1}])
def test_what_is_no_mapping_of_names_is_refused(value):
    with pytest.raises(ParameterError, match=r"^state"):
        as_mapping(value, "state")


class Odd:
    def __array__(self, *_, **__):
        return "no array"


class Pair:
    """A sequence that never ends, though it says that it has two entries."""

    def __len__(self):
        return 2

    def __getitem__(self, n):
        return 1.0


@pytest.mark.parametrize("value", [Odd(), Pair(), {}.keys, np.ma.ones(3)])
def test_what_numpy_makes_no_array_of_is_refused(value):
    if callable(value):
        assert as_array(value, "x").dtype == object  # for the caller to refuse
    else:
        with pytest.raises(DTypeError, match=r"^x.*; pass"):
            as_array(value, "x")


def test_lists_that_hold_lists_twice_are_not_written_out():
    found = [0.0]
    for _ in range(40):
        found = [found, found]
    with pytest.raises(MemoryLimitError, match=r"^x=.* must hold at most 268,435,456 numbers"):
        as_array(found, "x")
    with pytest.raises(MemoryLimitError, match="x is a range of more than 1,048,576 numbers"):
        as_array(range(2**60), "x")
    assert as_array(range(3), "x").tolist() == [0, 1, 2]


@pytest.mark.parametrize(
    "value",
    [array("d", [1, 2]), (c_double * 2)(1, 2), memoryview(np.array([1.0, 2.0])), deque([1, 2])],
)
def test_buffers_and_sequences_are_arrays(value):
    assert as_array(value, "x").tolist() == [1, 2]


@pytest.mark.parametrize(
    "rng",
    [
        np.random,
        np.random.PCG64,
        SimpleNamespace(capsule=1, lock=None, state={}),
        True,
        -1,
        1.5,
        "0",
        [None],
        [-1],
        [[1]],
        np.broadcast_to(0, 2**59),
        2**200,
        object(),
    ],
    ids=repr,
)
def test_what_is_no_seed_never_reaches_numpy(rng):
    with pytest.raises(
        ParameterError, match=r"^rng=.* must be a numpy\.random\.Generator or a seed"
    ):
        as_generator(rng)


@pytest.mark.parametrize("seed", [0, 7, 2**100, np.uint64(2**63), [1, 2], (3,), np.array([1, 2])])
def test_a_seed_means_what_it_means_to_numpy(seed):
    assert as_generator(seed).random() == np.random.default_rng(seed).random()


def test_generators_are_used_themselves():
    generator = np.random.default_rng(3)
    assert as_generator(generator) is generator
    bits = np.random.PCG64(3)
    assert as_generator(bits).bit_generator is bits
    for each in (np.random.SeedSequence(3), np.random.RandomState(3)):
        assert 0 <= as_generator(each).random() < 1
