"""Keywords of a call: the values that each rule accepts; test_bad_input.py has the others."""

import ast
import dataclasses
import math
import subprocess
import sys
from array import array
from collections import deque
from ctypes import c_double
from decimal import Decimal
from fractions import Fraction
from itertools import product
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from ml_dtypes import bfloat16

import tconv
from slow import mostly_slow
from strategies import draws
from tconv import engine
from tconv.arrays.activations import as_activation
from tconv.arrays.dtypes import dtype_name
from tconv.errors import DTypeError, MemoryLimitError, ParameterError
from tconv.geometry import arguments
from tconv.geometry.arguments import (
    METHODS,
    MOST_THREADS,
    as_array,
    as_choice,
    as_flag,
    as_generator,
    as_integer,
    as_mapping,
    as_number,
    as_padding,
    as_per_axis,
    as_size,
    as_threads,
    is_cache_key,
)
from tconv.messages import show
from tconv.ops.dispatch import Call
from tconv.system.files import as_path

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


# ---- what a check returns is what counts ---------------------------------------------------------

NUMPY_INTEGERS = [np.dtype(code).type for code in "bBhHiIlLqQ"]


class Word(str):
    """Equal to everything, and in no place of its own among the keys of a cache."""

    __slots__ = ()

    def __eq__(self, other):
        return True

    def __hash__(self):
        return hash("auto")

    def __str__(self):
        return "measure"


class Number(int):
    """Says one thing to whoever asks for its value, and another to whoever computes with it."""

    def __index__(self):
        return 1

    __int__ = __trunc__ = __index__

    def __mul__(self, other):
        return 0

    __rmul__ = __mul__

    def __eq__(self, other):
        return True

    def __hash__(self):
        return 0


def leaves(value):
    """The parts of nested tuples."""
    return [part for each in value for part in leaves(each)] if type(value) is tuple else [value]


@pytest.mark.parametrize("kind", [*NUMPY_INTEGERS, Number])
def test_every_check_returns_values_of_exact_types(kind):
    found = (
        as_integer(kind(2), "n"),
        as_threads(kind(2)),
        as_per_axis(kind(2), "stride", 2, 1),
        as_per_axis([kind(2), kind(2)], "stride", 2, 1),
        as_padding(kind(2), 2),
        as_padding(((kind(2), kind(2)), kind(2)), 2),
        as_size((kind(2), kind(2)), "output_size", 1, (2,), False),
        Call("conv", threads=kind(2), max_bytes=kind(2)).threads,
        Call("conv", threads=kind(2), max_bytes=kind(2)).max_bytes,
        tconv.output_shape([kind(2)] * 3, [kind(2)] * 3, stride=1),
    )
    assert set(leaves(found)) <= {2, 3}
    assert {type(each) for each in leaves(found)} == {int}


@pytest.mark.parametrize("word", ["auto", Word("auto"), np.str_("auto")])
def test_a_word_becomes_a_plain_one(word):
    call = Call("conv", method=word)
    found = as_choice(word, "method", METHODS), call.method, dtype_name(word)
    assert found == ("auto",) * 3
    assert {type(each) for each in found} == {str}
    assert type(as_activation(type(word)("relu")).name) is str
    assert type(as_padding(type(word)("same"), 1)) is str
    with pytest.raises(ParameterError, match="must be one of"):
        as_choice(type(word)("nothing"), "method", METHODS)
    for flag in (np.True_, True):
        assert as_flag(flag, "flag") is True


def test_no_check_is_made_for_nothing():
    """What is passed on must be the value that a check returned, not the one that it looked at."""
    checks = {name for name in arguments.__all__ if name.startswith("as_")} | {"as_shape"}
    dropped, seen = [], 0
    for path in Path(tconv.__file__).parent.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text("utf-8"))):
            if isinstance(node, ast.Call):
                name = getattr(node.func, "id", getattr(node.func, "attr", ""))
                seen += name in checks
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Call):
                function = node.value.func
                if getattr(function, "id", getattr(function, "attr", "")) in checks:
                    dropped.append(f"{path.name}:{node.lineno}")
    assert not dropped
    assert seen > 50


@pytest.mark.parametrize("threads", [MOST_THREADS + 1, 2**40, 2**63, np.uint64(2**63)])
def test_threads_are_bounded(threads):
    x = np.ones((1, 1, 3), np.float32)
    with pytest.raises(ParameterError, match=r"threads=\d+ must be at most 1,024; pass fewer"):
        as_threads(threads)
    for call in (
        lambda: tconv.conv_transpose(x, x, threads=threads),
        lambda: tconv.plan((1, 1, 3), (1, 1, 3), threads=threads),
        lambda: tconv.conv_transpose_vjp(x, x, threads=threads),
    ):
        with pytest.raises(ParameterError, match="must be at most 1,024"):
            call()
    assert as_threads(None) is None
    assert as_threads(MOST_THREADS) == MOST_THREADS


SPOILING = """
import numpy as np
from tconv import conv, conv_transpose, conv_transpose_vjp, conv_weight_gradient, plan

def integers(*shape, seed=0):
    return np.random.default_rng(seed).integers(-3, 4, shape).astype(np.float32)

x, w, y = integers(2, 16, 24, 24), integers(16, 24, 4, 4), integers(2, 24, 48, 48)
sizes = dict(stride=2, padding=1)

def planned(threads, want, read):
    call = plan(x.shape, w.shape, want=want, threads=threads, **sizes)
    return call(read, call.pack(w))

CALLS = (
    lambda n: conv_transpose(x, w, threads=n, **sizes),
    lambda n: conv(y, w, threads=n, **sizes),
    lambda n: conv_weight_gradient(x, y, 4, threads=n, **sizes),
    lambda n: conv_transpose_vjp(x, w, threads=n, **sizes)[1](y)[0],
    lambda n: planned(n, "y", x),
    lambda n: planned(n, "x", y),
    lambda n: conv_transpose(x.astype(np.complex64), w.astype(np.complex64), threads=n, **sizes),
    lambda n: conv_transpose(x.astype(np.int16), w.astype(np.int16), threads=n, **sizes),
)
expected = [call(1) for call in CALLS]
for n in NUMBERS:
    for kind in map(np.dtype, CODES):
        for call, exact in zip(CALLS, expected):
            for threads in (kind.type(n), n):  # the second is what the first may have spoilt
                found = call(threads)
                assert found.dtype == exact.dtype and np.array_equal(found, exact), (kind, threads)
print("done")
"""


@pytest.mark.parametrize("codes", mostly_slow(["bBh", "HiI", "lLqQ"], "lLqQ"))
def test_integers_of_numpy_are_numbers_of_threads_as_pythons_are(codes):
    """In a process of its own: scratch that is too short is memory of somebody else."""
    code = SPOILING.replace("NUMBERS", "(2, 5, 64)").replace("CODES", repr(codes))
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == "done\n"


@draws(0.3)
@given(st.integers(1, 4), st.integers(1, 4), st.sampled_from(NUMPY_INTEGERS), st.sampled_from("yx"))
def test_sizes_of_numpys_types_are_those_of_pythons(stride, kernel, kind, want):
    """Also on what comes after: equal keys of a cache are one."""
    x = np.ones((1, 2, 40), np.float32)
    w, solve = np.ones((2, 2, kernel), np.float32), {"y": tconv.conv_transpose, "x": tconv.conv}
    first = solve[want](x, w, stride=kind(stride), threads=kind(1), groups=kind(1))
    again = solve[want](x, w, stride=stride, threads=1, groups=1)
    assert np.array_equal(first, again)
    for value in (True, np.True_, float(stride), np.float32(stride)):
        with pytest.raises(ParameterError, match="must be an integer"):
            solve[want](x, w, stride=value, threads=1, groups=1)
        with pytest.raises(ParameterError, match="must be an integer"):
            solve[want](x, w, stride=stride, threads=value, groups=1)


@pytest.mark.parametrize("kind", [np.int8, np.uint64, Number])
def test_the_engine_is_asked_with_plain_values_only(kind, monkeypatch):
    """They are the keys of its caches."""
    asked = []

    def noted(name):
        function = getattr(engine, name)
        return lambda *given: asked.append(given) or function(*given)

    for name in ("serves", "prepare"):
        monkeypatch.setattr(engine, name, noted(name))
    x, w = np.ones((1, 2, 9), np.float32), np.ones((2, 4, 2), np.float32)
    sizes = {"stride": kind(2), "padding": ((kind(1), kind(0)),), "groups": kind(2)}
    how = {"threads": kind(1), "method": Word("auto")}
    layout = {"data_format": Word("channels_first"), "weight_format": Word("IO*")}
    y = tconv.conv_transpose(x, w, **sizes, **how, **layout, max_bytes=10**6)
    tconv.conv(y, w, **sizes, **how, **layout)
    tconv.conv_weight_gradient(x, y, kind(2), **sizes, **how, **layout)
    tconv.conv_transpose_vjp(x, w, **sizes, **how, **layout)[1](y)
    tconv.plan([kind(n) for n in x.shape], w.shape, want=Word("y"), **sizes, **how, **layout)
    tconv.ConvTranspose1d(2, 8, kind(2), rng=0, padding_mode=Word("zeros"), **sizes)(x)
    assert len(asked) > 10
    for geometry, *others in asked:
        fields = (*dataclasses.astuple(geometry), *others)
        for leaf in leaves(tuple(map(tuple_of, fields))):
            assert type(leaf) in (int, str, bool, type(None)), (leaf, type(leaf))


def tuple_of(value):
    """Tuples of any kind as plain ones."""
    return tuple(map(tuple_of, value)) if isinstance(value, tuple) else value


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
    ids=lambda each: type(each).__name__,
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


def test_keys_of_a_cache_that_are_equal_mean_the_same():
    scalars = [0, 1, 2, -1, True, False, 1.0, 0.0, np.int64(1), np.float32(0), "1", None]
    values = [*scalars, *((s,) for s in scalars), *((2, (1, s)) for s in scalars), [1], ([1],)]
    keys = [value for value in values if is_cache_key(value)]
    assert {0, 1, "1", None, (2,), (2, (1, 0))}.issubset(keys)
    for one, other in product(keys, repeat=2):
        hash(one)  # which a key has
        if type(one) is type(other) and one == other:
            assert repr(one) == repr(other)
