"""What is compiled twice: the same bits from a draft, and better code afterwards."""

import gc
import os
import subprocess
import sys
import threading
import weakref
from importlib import import_module

import numpy as np
import pytest

from slow import mostly_slow
from tconv.arrays.activations import as_activation
from tconv.engine.choose import all_plans
from tconv.engine.codegen.abi import POINTERS
from tconv.engine.executor import Ready
from tconv.engine.plan.problem import Problem
from tconv.engine.plan_cache import known_plan
from tconv.engine.target.target import read_target, target
from tconv.errors import UnsupportedError
from tconv.geometry.geometry import Geometry

tiers = import_module("tconv.engine.compile.tiers")
executor = import_module("tconv.engine.executor")
CPU = target() if target().uses_engine else read_target({})

# What a process does first: a call. `waiting()` says how many drafts it has.
ONE_CALL = """
import os, sys, time, numpy as np, tconv
from importlib import import_module
tiers = import_module("tconv.engine.compile.tiers")
waiting = lambda: len(tiers._drafts)
def call():
    x = np.arange(288, dtype=np.float32).reshape(1, 8, 6, 6)
    w = np.ones((8, 4, 4, 4), np.float32)
    return tconv.conv_transpose(x, w, stride=2, padding=1)
def settled():
    end = time.monotonic() + 30
    while waiting() and time.monotonic() < end:
        time.sleep(0.01)
    return not waiting()
first = call()
"""


@pytest.fixture
def unknown(monkeypatch, tmp_path):
    """Drivers that neither this process nor the disk has; nothing happens by itself."""
    monkeypatch.setenv("TCONV_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(executor, "VERSION", f"test {tmp_path}")
    monkeypatch.setattr(tiers, "_drafts", {})
    monkeypatch.setattr(tiers, "_waiting", [])
    monkeypatch.setattr(tiers, "_start", lambda: None)


def ready_for(channels=3, size=4, dtype="float32"):
    geometry = Geometry.of((1, channels, size, size), (channels, 8, 4, 4), stride=2, padding=1)
    plan = known_plan(Problem(geometry), dtype, CPU, 1)
    return Ready(Problem(geometry), dtype, CPU, plan)


def functions(ready):
    copy_row = int(ready._job.values[POINTERS.index("copy_row")])
    return ready._job.function, ready._packing.function, copy_row


def computed(ready):
    rng, geometry, dtype = np.random.default_rng(0), ready.problem.geometry, ready.dtype
    x = rng.standard_normal(geometry.x_shape).astype(dtype)
    share = (geometry.groups, -1, *geometry.weight_shape[1:])
    weight = rng.standard_normal(geometry.weight_shape).astype(dtype).reshape(share)
    y = np.empty(geometry.y_shape, dtype)
    ready(x, ready.pack(weight), ready.pack_bias(None), y)
    return y


def run(code, cache, **environment):
    """What a process prints that makes a call and then runs `code`."""
    environment = {**os.environ, "TCONV_CACHE": str(cache), **environment}
    ended = subprocess.run(
        [sys.executable, "-c", ONE_CALL + code],
        env=environment,
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return ended.stdout.split()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
@pytest.mark.parametrize("size", [4, 40])
@pytest.mark.parametrize("channels", [3, 64])
def test_drafts_give_the_same_bits_and_give_way(unknown, size, channels, dtype):
    ready = ready_for(channels, size, dtype)
    names = {*ready._laid.kernels, *ready._laid.drivers}
    is_tiny = ready.plan.cycles < executor._TINY_CYCLES
    well = {name for name in names if name.startswith(executor.INNER) and not is_tiny}
    assert {name for name, *_ in tiers._drafts} == names - well
    before, of_drafts = functions(ready), computed(ready)
    tiers.settle()
    assert not tiers._drafts
    changed = [a != b for a, b in zip(before, functions(ready), strict=True)]
    assert changed == [True, True, not ready.plan.is_turned]  # which has no rows to copy
    assert np.array_equal(computed(ready), of_drafts)


@pytest.mark.parametrize("is_tiny", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_kind_of_plan_computes_the_same_with_drafts(unknown, monkeypatch, dtype, is_tiny):
    if is_tiny:
        monkeypatch.setattr(executor, "_TINY_CYCLES", 2**60)
    geometry = Geometry.of((2, 144, 13, 17), (144, 64, 4, 4), stride=2, padding=1)
    problem = Problem(geometry, activation=as_activation("tanh"))
    plans = all_plans(problem, dtype, CPU, 1)
    kinds = {(p.is_tiled, p.is_gathered, p.is_spread, p.is_turned): p for p in plans}
    assert {kind[1] for kind in kinds} == {False, True}
    assert any(kind[0] for kind in kinds) == (dtype == "float32")
    for plan in kinds.values():
        monkeypatch.setattr(executor, "VERSION", f"{executor.VERSION} {plan}")
        ready = Ready(problem, dtype, CPU, plan)
        of_drafts = computed(ready)
        tiers.settle()
        assert not tiers._drafts
        assert np.array_equal(computed(ready), of_drafts)


def test_longer_calls_have_drafts_of_drivers_only(unknown, monkeypatch):
    monkeypatch.setattr(executor, "_BRIEF_CYCLES", 0)
    ready = ready_for(64, 40)
    assert len(tiers._drafts) == 2
    before = functions(ready)
    tiers.settle()
    assert [a == b for a, b in zip(before, functions(ready), strict=True)] == [False, False, True]


def test_calls_under_way_keep_no_draft_for_later(unknown):
    ready = ready_for(64, 40)
    job = ready._job
    computed(ready)
    (frame,) = frames = job._frames
    tiers.settle()
    frames.append(frame)  # as a call does that began before
    computed(ready)
    assert [each.values[POINTERS.index("copy_row")] for each in job._frames] == [
        functions(ready)[2]
    ]


def test_what_is_known_needs_no_draft(unknown):
    ready_for()
    tiers.settle()
    ready_for()
    assert not tiers._drafts


def test_plans_share_a_draft_and_all_of_them_get_what_follows(unknown):
    one, other = ready_for(), ready_for(size=5)
    assert functions(one) == functions(other)
    tiers.settle()
    assert functions(one) == functions(other) == functions(ready_for())


@pytest.mark.parametrize("error", [UnsupportedError, RuntimeError, RuntimeWarning])
def test_a_draft_that_cannot_be_improved_goes_on(unknown, monkeypatch, error):
    def fail(*_, **__):
        raise error("no")

    ready = ready_for()
    before, of_draft = functions(ready), computed(ready)
    monkeypatch.setattr(tiers._Draft, "compiled", fail)
    tiers.settle()
    assert not tiers._waiting
    assert functions(ready) == functions(ready_for()) == before
    assert np.array_equal(computed(ready), of_draft)
    gone = weakref.ref(ready)
    del ready
    gc.collect()
    assert gone() is None  # nobody is to be told, so nobody is kept


def test_plans_that_are_measured_have_none(unknown):
    geometry = Geometry.of((1, 3, 6, 6), (3, 8, 4, 4), stride=2, padding=1)
    executor.measured.__wrapped__(Problem(geometry), "float32", CPU, 1)
    assert not tiers._drafts


def test_calls_go_on_while_drafts_give_way(unknown):
    ready = ready_for(64, 40)
    right, wrong, done = computed(ready), [], threading.Event()

    def call():
        while not done.is_set():
            if not np.array_equal(computed(ready), right):
                wrong.append(1)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    tiers.settle()
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_thread_improves_them_and_keeps_them(tmp_path):
    code = "print(waiting() > 0, settled(), np.array_equal(call(), first))"
    assert run(code, tmp_path) == ["True"] * 3
    assert run("print(waiting())", tmp_path) == ["0"]


def test_a_process_that_ends_at_once_leaves_its_drafts_and_does_not_wait(tmp_path):
    code = """
compiled = []
tiers._Draft.compiled = lambda draft: compiled.append(draft.name)
tiers._leave()
time.sleep(0.5)
print(not compiled, waiting() > 0, tiers._has_thread)
"""
    assert run(code, tmp_path) == ["True", "True", "False"]
    kept = len(list((tmp_path / "kernels").iterdir()))
    assert run("print(waiting() > 0); tiers._leave()", tmp_path) == ["True"]
    assert len(list((tmp_path / "kernels").iterdir())) == kept


@pytest.mark.parametrize("delay_s", mostly_slow([0.0, 0.21, 0.23, 0.26, 0.3], 0.0, 0.23))
def test_a_process_may_end_whenever_it_likes(tmp_path, delay_s):
    assert run(f"time.sleep({delay_s}); print(1)", tmp_path) == ["1"]


# none, and two read-only
@pytest.mark.parametrize("cache", mostly_slow(["off", os.devnull, "/proc/tconv"], "/proc/tconv"))
def test_without_a_cache_they_are_improved_all_the_same(cache):
    assert run("print(settled(), np.array_equal(call(), first))", cache) == ["True", "True"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("delay_s", mostly_slow([0.0, 0.21, 0.25], 0.21))
def test_the_child_of_a_fork_improves_its_own(tmp_path, delay_s):
    code = f"""
time.sleep({delay_s})
child = os.fork()
if child == 0:
    ok = settled() and np.array_equal(call(), first)
    sys.exit(0 if ok else 1)
print(os.waitpid(child, 0)[1], settled())
"""
    assert run(code, tmp_path) == ["0", "True"]
