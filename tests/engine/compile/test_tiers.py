"""Tiered compilation: baseline code gives the same bits, and optimised code takes its place."""

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
from tconv.engine.codegen.abi import ARGUMENTS
from tconv.engine.executor import Primitive
from tconv.engine.plan.problem import Problem
from tconv.engine.plan_cache import cached_plan
from tconv.engine.target.target import read_target, target
from tconv.errors import UnsupportedError
from tconv.geometry.geometry import Geometry

tiers = import_module("tconv.engine.compile.tiers")
executor = import_module("tconv.engine.executor")
jit = import_module("tconv.engine.compile.jit")
CPU = target() if target().uses_engine else read_target({})

# What a process does first: a call. `waiting()` says how many functions have baseline code only.
ONE_CALL = """
import os, sys, time, numpy as np, tconv
from importlib import import_module
tiers = import_module("tconv.engine.compile.tiers")
waiting = lambda: len(tiers._baselines)
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
    forget(monkeypatch, tmp_path / "cache")
    monkeypatch.setattr(tiers, "_waiting", [])
    monkeypatch.setattr(tiers, "_start", lambda: None)


def forget(monkeypatch, cache):
    monkeypatch.setenv("TCONV_CACHE", str(cache))
    monkeypatch.setattr(jit, "_loaded", {})
    monkeypatch.setattr(executor, "_families", {})
    monkeypatch.setattr(tiers, "_baselines", {})


def ready_for(channels=3, size=4, dtype="float32"):
    geometry = Geometry.of((1, channels, size, size), (channels, 8, 4, 4), stride=2, padding=1)
    plan = cached_plan(Problem(geometry), dtype, CPU, 1)
    return Primitive(Problem(geometry), dtype, CPU, plan)


def functions(ready):
    interleave_row = int(ready._job.values[ARGUMENTS.place("interleave_row")])
    return ready._job.function, ready._packing.function, interleave_row


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
def test_baseline_code_gives_the_same_bits_and_gives_way(unknown, size, channels, dtype):
    ready = ready_for(channels, size, dtype)
    names = {*ready._lowered.kernels, *ready._lowered.drivers}
    is_tiny = ready.plan.cycles < executor._TINY_CYCLES
    well = {name for name in names if name.startswith(executor.INNER) and not is_tiny}
    assert {name for name, *_ in tiers._baselines} == names - well
    before, of_baseline = functions(ready), computed(ready)
    tiers.wait_for_optimised()
    assert not tiers._baselines
    changed = [a != b for a, b in zip(before, functions(ready), strict=True)]
    copies_rows = ready.plan.algorithm != "channel_lanes"
    assert changed == [True, True, copies_rows]
    assert np.array_equal(computed(ready), of_baseline)


@pytest.mark.parametrize("is_tiny", [False, True])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_kind_of_plan_computes_the_same_with_baseline_code(
    unknown, monkeypatch, tmp_path, dtype, is_tiny
):
    if is_tiny:
        monkeypatch.setattr(executor, "_TINY_CYCLES", 2**60)
    geometry = Geometry.of((2, 144, 13, 17), (144, 64, 4, 4), stride=2, padding=1)
    problem = Problem(geometry, activation=as_activation("tanh"))
    plans = all_plans(problem, dtype, CPU, 1)
    kinds = {(p.algorithm, p.panel): p for p in plans}
    assert {"padded", "im2col"} <= {panel for _, panel in kinds}
    assert any(algorithm == "winograd" for algorithm, _ in kinds) == (dtype == "float32")
    for plan in kinds.values():
        forget(monkeypatch, tmp_path / str(hash(plan)))
        ready = Primitive(problem, dtype, CPU, plan)
        of_baseline = computed(ready)
        tiers.wait_for_optimised()
        assert not tiers._baselines
        assert np.array_equal(computed(ready), of_baseline)


def test_longer_calls_have_baseline_drivers_only(unknown, monkeypatch):
    monkeypatch.setattr(executor, "_BRIEF_CYCLES", 0)
    ready = ready_for(64, 40)
    assert len(tiers._baselines) == 2
    before = functions(ready)
    tiers.wait_for_optimised()
    assert [a == b for a, b in zip(before, functions(ready), strict=True)] == [False, False, True]


def test_calls_under_way_keep_no_baseline_code_for_later(unknown):
    ready = ready_for(64, 40)
    job = ready._job
    computed(ready)
    (frame,) = frames = job._frames
    tiers.wait_for_optimised()
    frames.append(frame)  # as a call does that began before
    computed(ready)
    assert [each.values[ARGUMENTS.place("interleave_row")] for each in job._frames] == [
        functions(ready)[2]
    ]


def test_what_is_loaded_needs_no_baseline_code(unknown):
    ready_for()
    tiers.wait_for_optimised()
    ready_for()
    assert not tiers._baselines


def test_plans_share_baseline_code_and_all_get_the_optimised(unknown):
    one, other = ready_for(), ready_for(size=5)
    assert functions(one) == functions(other)
    tiers.wait_for_optimised()
    assert functions(one) == functions(other) == functions(ready_for())


@pytest.mark.parametrize("error", [UnsupportedError, RuntimeError, RuntimeWarning])
def test_baseline_code_that_cannot_be_optimised_goes_on(unknown, monkeypatch, error):
    def fail(*_, **__):
        raise error("no")

    ready = ready_for()
    before, of_baseline = functions(ready), computed(ready)
    monkeypatch.setattr(tiers._Baseline, "optimised", fail)
    tiers.wait_for_optimised()
    assert not tiers._waiting
    assert functions(ready) == functions(ready_for()) == before
    assert np.array_equal(computed(ready), of_baseline)
    gone = weakref.ref(ready)
    del ready
    gc.collect()
    assert gone() is None  # nobody is to be told, so nobody is kept


def test_plans_that_are_measured_have_none(unknown):
    geometry = Geometry.of((1, 3, 6, 6), (3, 8, 4, 4), stride=2, padding=1)
    executor.create_fastest.__wrapped__(Problem(geometry), "float32", CPU, 1)
    assert not tiers._baselines


def test_calls_go_on_while_code_is_replaced(unknown):
    ready = ready_for(64, 40)
    right, wrong, done = computed(ready), [], threading.Event()

    def call():
        while not done.is_set():
            if not np.array_equal(computed(ready), right):
                wrong.append(1)

    threads = [threading.Thread(target=call) for _ in range(3)]
    for thread in threads:
        thread.start()
    tiers.wait_for_optimised()
    done.set()
    for thread in threads:
        thread.join()
    assert not wrong


def test_a_thread_optimises_and_keeps(tmp_path):
    code = "print(waiting() > 0, settled(), np.array_equal(call(), first))"
    assert run(code, tmp_path) == ["True"] * 3
    assert run("print(waiting())", tmp_path) == ["0"]


def test_a_process_that_ends_at_once_leaves_its_baseline_code_and_does_not_wait(tmp_path):
    code = """
compiled = []
tiers._Baseline.optimised = lambda baseline: compiled.append(baseline.name)
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
def test_without_a_cache_code_is_optimised_all_the_same(cache):
    assert run("print(settled(), np.array_equal(call(), first))", cache) == ["True", "True"]


@pytest.mark.skipif(not hasattr(os, "fork"), reason="the system has no fork")
@pytest.mark.parametrize("delay_s", mostly_slow([0.0, 0.21, 0.25], 0.21))
def test_the_child_of_a_fork_optimises_its_own(tmp_path, delay_s):
    code = f"""
time.sleep({delay_s})
child = os.fork()
if child == 0:
    ok = settled() and np.array_equal(call(), first)
    sys.exit(0 if ok else 1)
print(os.waitpid(child, 0)[1], settled())
"""
    assert run(code, tmp_path) == ["0", "True"]
