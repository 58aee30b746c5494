"""The vocabulary of generated code does what Python does with the same words."""

import ctypes
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tconv.engine.codegen.code import begin
from tconv.engine.codegen.llvm import I64, PTR
from tconv.engine.compile.jit import load_kernel
from tconv.engine.target.target import read_target, target

CPU = target() if target().uses_engine else read_target({})
SIZES = st.integers(-3, 20)


def compiled(name, emit, *sizes):
    """A function of integers that returns what ``emit(code, arguments, out)`` writes to `out`."""

    def whole(module, name, element):
        code, a = begin(module, name, {"out": PTR} | dict.fromkeys(sizes, I64), element)
        emit(code, a, a["out"])
        code.end()

    address = load_kernel(f"test_{name}", whole, dtype="float32", target=CPU)
    function = ctypes.CFUNCTYPE(None, ctypes.c_void_p, *[ctypes.c_int64] * len(sizes))(address)

    def call(*values, length):
        out = np.zeros(length, np.int64)
        function(out.ctypes.data, *values)
        return out.tolist()

    return call


@given(SIZES, SIZES, st.integers(1, 5))
def test_a_loop_is_a_range(start, stop, step):
    def emit(code, a, out):
        with code.loop(a["stop"], a["start"], a["step"]) as n:
            count = code.load(out, 0, I64)
            code.store(n, out, code.add(count, 1))
            code.store(code.add(count, 1), out)

    found = compiled("loop", emit, "start", "stop", "step")(start, stop, step, length=40)
    expected = [*range(start, stop, step)]
    assert found[: 1 + len(expected)] == [len(expected), *expected]


@given(SIZES)
def test_a_loop_carries_values_or_keeps_those_before_it(count):
    def emit(code, a, out):
        start = [code.index(1), code.index(1)]
        with code.loop_carrying(a["count"], start) as ((one, other), following):
            following += [other, code.add(one, other)]
        for place, value in enumerate(following):
            code.store(value, out, place)

    one, other = 1, 1
    for _ in range(count):
        one, other = other, one + other
    assert compiled("carry", emit, "count")(count, length=2) == [one, other]


@given(st.integers(-50, 50), st.integers(-50, 50), st.integers(1, 9))
def test_indices_are_integers(a, b, c):
    def emit(code, v, out):
        x, y, z = v["a"], v["b"], v["c"]
        square = code.mul(x, x)
        quotient, rest = code.divmod(square, z)
        results = [
            *(code.add(x, y, 7), code.sub(x, y), code.mul(x, y, 3), quotient, rest),
            *(code.div(square, z), code.least(x, y), code.most(x, y)),
            *(code.pick(code.is_less(x, y), 1, 0), code.pick(code.is_equal(x, y), 1, 0)),
            code.pick(code.is_within(x, z), 1, 0),
            code.pick(code.both(code.is_less(x, 0), code.is_less(y, 0)), 1, 0),
        ]
        for place, value in enumerate(results):
            code.store(value, out, place)

    found = compiled("indices", emit, "a", "b", "c")(a, b, c, length=12)
    assert found == [
        *(a + b + 7, a - b, a * b * 3, *divmod(a * a, c), a * a // c, min(a, b), max(a, b)),
        *(a < b, a == b, 0 <= a < c, a < 0 and b < 0),
    ]


@given(SIZES, SIZES)
def test_branches_are_taken_as_their_conditions_say(a, b):
    def emit(code, v, out):
        with code.if_else(code.is_less(v["a"], v["b"])) as (then, otherwise):
            with then:
                code.store(code.index(1), out)
            with otherwise, code.when(code.is_equal(v["a"], v["b"])):
                code.store(code.index(2), out)

    expected = 1 if a < b else 2 if a == b else 0
    assert compiled("branches", emit, "a", "b")(a, b, length=1) == [expected]


@pytest.mark.parametrize("count", [0, 1, 7])
def test_tasks_are_taken_once_each(count):
    def emit(code, a, out):
        with code.tasks(out, a["count"]) as n:
            code.store(code.add(n, 1), out, code.add(n, 1))

    found = compiled("tasks", emit, "count")(count, length=9)
    assert found[1:] == [*range(1, count + 1)] + [0] * (8 - count)


@given(st.integers(0, 9), st.integers(0, 3))
def test_odd_threads_take_tasks_from_the_last_back(count, thread):
    def emit(code, a, out):
        with code.tasks(out, a["count"], a["thread"]) as n:
            place = code.add(code.load(out, 1, I64), 1)  # tasks that have been taken
            code.store(place, out, 1)
            code.store(n, out, code.add(place, 1))

    found = compiled("tasks_of_a_thread", emit, "count", "thread")(count, thread, length=12)
    expected = [*range(count)][:: -1 if thread % 2 else 1]
    assert found[1 : 2 + count] == [count, *expected]


@pytest.mark.parametrize("threads", [2, 5])
def test_threads_take_each_task_once(threads):
    def emit(module, name, element):
        kinds = {"out": PTR, "count": I64, "thread": I64}
        code, a = begin(module, name, kinds, element)
        with code.tasks(a["out"], a["count"], a["thread"]) as n:
            place = code.at(a["out"], code.add(n, 1), I64)
            code.builder.atomic_rmw("add", place, code.index(1), "acq_rel")
        code.end()

    address = load_kernel("test_shared_tasks", emit, dtype="float32", target=CPU)
    kinds = ctypes.c_void_p, ctypes.c_int64, ctypes.c_int64
    function, out = ctypes.CFUNCTYPE(None, *kinds)(address), np.zeros(20_001, np.int64)
    with ThreadPoolExecutor(threads) as pool:
        list(pool.map(lambda n: function(out.ctypes.data, 20_000, n), range(threads)))
    assert (out[1:] == 1).all()


@given(st.integers(0, 20), st.integers(-3, 20))
def test_a_loop_is_left_where_it_says(count, last):
    def emit(code, a, out):
        with code.forever() as done:
            n = code.load(out, 0, I64)
            code.leave_when(code.is_less(a["last"], n), done)
            code.leave_when(code.is_equal(n, a["count"]), done)
            code.store(code.add(n, 1), out)

    expected = min(count, max(last + 1, 0))
    assert compiled("forever", emit, "count", "last")(count, last, length=1) == [expected]
