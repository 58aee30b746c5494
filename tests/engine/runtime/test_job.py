"""How a job is entered makes no difference to what it computes."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
from hypothesis import strategies as st

from tconv import definition
from tconv.engine.runtime import job as jobs
from tconv.errors import UnsupportedError
from tconv.ops.planned_call import plan

WANTS = st.sampled_from("yxw")


@pytest.fixture
def entries(monkeypatch):
    """How many operands each call had that was entered by native code."""
    seen, make = [], jobs._stub

    def counting(count, load):
        enter = make(count, load)

        def entered(*arguments):
            seen.append(count)
            enter(*arguments)

        return entered

    monkeypatch.setattr(jobs, "_stub", counting)
    return seen


def test_small_jobs_on_one_thread_are_entered_by_native_code(entries, monkeypatch):
    x, weight = np.ones((1, 3, 5), np.float32), np.ones((3, 2, 4), np.float32)
    call = plan(x.shape, weight.shape, stride=3, dilation=2)
    for job in (call._plan._packing, call._plan._job):
        monkeypatch.setattr(job, "_stub", None)
        monkeypatch.setattr(job, "_frames", [])
    for seen in ([], [2, 4]):  # from the second call on
        y = call(x, call.pack(weight))
        assert entries == seen
        assert np.array_equal(y, definition.contract(call.geometry, "y", x, weight))


def test_without_native_code_to_enter_them_they_are_entered_as_larger_ones_are(monkeypatch):
    def refuse(count, load):
        raise UnsupportedError("no code")

    x, weight = np.ones((1, 3, 5), np.float32), np.ones((3, 2, 4), np.float32)
    call = plan(x.shape, weight.shape, stride=3, dilation=3)
    job = call._plan._job
    assert job._is_small
    monkeypatch.setattr(jobs, "_stub", refuse)
    monkeypatch.setattr(job, "_stub", None)
    monkeypatch.setattr(job, "_is_small", True)
    for _ in range(3):
        y = call(x, call.pack(weight))
        assert np.array_equal(y, definition.contract(call.geometry, "y", x, weight))
    assert not job._is_small


@pytest.mark.parametrize("threads", [1, 2])
def test_larger_jobs_and_those_of_more_threads_are_not(threads, entries, monkeypatch):
    x, weight = np.ones((1, 64, 300), np.float32), np.ones((64, 64, 8), np.float32)
    call = plan(x.shape, weight.shape, stride=4, threads=threads)
    assert call._plan.plan.threads == threads
    monkeypatch.setattr(call._plan._job, "_stub", None)
    if threads == 2:
        monkeypatch.setattr(call._plan._job, "_is_small", True)
    call(x, call.pack(weight))
    assert 4 not in entries


def test_threads_that_call_one_plan_have_arguments_of_their_own():
    call = plan((1, 2, 3, 3), (2, 2, 2, 2), stride=2)
    packed = call.pack(np.ones((2, 2, 2, 2), np.float32))

    def is_right(number):
        x = np.full((1, 2, 3, 3), number, np.float32)
        return all((call(x, packed) == 2 * number).all() for _ in range(300))

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(is_right, range(8)))
