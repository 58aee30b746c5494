"""Plans on disk are the ones that would be chosen, and nothing else is believed."""

import marshal
import os
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest
from engine.values import same

from tconv.arrays.activations import as_activation
from tconv.engine import executor, plan_cache
from tconv.engine.choose import choose_plan
from tconv.engine.compile import plan_log
from tconv.engine.plan.encoding import as_bytes, of_bytes
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import target
from tconv.geometry.geometry import Geometry

PROBLEMS = [
    Problem(Geometry.of((1, 64, 20), (64, 16, 8), stride=4)),
    Problem(Geometry.of((2, 32, 9, 9), (32, 32, 3, 3)), "x"),
    Problem(Geometry.of((1, 1, 2), (1, 1, 2), dilation=10**6)),  # for which there is none
]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.setenv("TCONV_CACHE", str(tmp_path))
    forget()
    yield tmp_path
    forget()


def forget():
    plan_cache._misses = 0
    for cached in (
        plan_cache.cached_plan,
        plan_cache.cached_candidates,
        plan_cache.cached_sized_plan,
    ):
        cached.cache_clear()


def asked_again(problem, threads=2):
    """As another process would ask."""
    forget()
    return plan_cache.cached_plan(problem, "float32", target(), threads)


@pytest.mark.parametrize("problem", PROBLEMS)
@pytest.mark.parametrize("threads", [1, 2])
def test_a_plan_comes_back_as_it_was_chosen(folder, problem, threads, monkeypatch):
    chosen = choose_plan(problem, "float32", target(), threads)
    assert asked_again(problem, threads) == chosen
    monkeypatch.setattr("tconv.engine.choose.band_candidates", None)  # it is not needed any more
    found = asked_again(problem, threads)
    assert found == chosen
    assert hash(found) == hash(chosen)
    assert type(found) is type(chosen)


def test_what_a_choice_follows_from_tells_plans_apart(folder):
    for problem in PROBLEMS[:2]:
        for threads in (1, 2):
            asked_again(problem, threads)
    kept = b"".join(file.read_bytes() for file in folder.rglob("*.plans"))
    assert kept.count(plan_log._MAGIC) == 4


def test_a_damaged_plan_is_chosen_again(folder, monkeypatch):
    chosen = asked_again(PROBLEMS[0])
    (shelf,) = folder.rglob("*.plans")
    whole = shelf.read_bytes()
    shelf.write_bytes(whole[:-1] + b"!")
    monkeypatch.setattr("tconv.engine.compile.disk_cache._has_warned", False)
    with pytest.warns(RuntimeWarning, match="is damaged"):
        assert asked_again(PROBLEMS[0]) == chosen
    assert shelf.read_bytes().endswith(whole)
    assert asked_again(PROBLEMS[0]) == chosen  # without a warning, which would be an error


PLAN = as_bytes(choose_plan(PROBLEMS[0], "float32", target(), 2))


@pytest.mark.parametrize(
    "data",
    [
        b"",
        marshal.dumps(tuple(of_bytes(PLAN)), 4),
        PLAN[:-1],
        as_bytes((1, 2, 3)),
        as_bytes(of_bytes(PLAN)[:-1]),
        as_bytes((*of_bytes(PLAN)[:-1], 1)),
        as_bytes((*of_bytes(PLAN)[:8], (1, 2, 3), *of_bytes(PLAN)[9:])),
        as_bytes("plan"),
    ],
    ids=range(8),
)
def test_what_is_whole_and_no_plan_is_chosen_again_with_a_warning(folder, data, monkeypatch):
    keys = []
    monkeypatch.setattr(plan_cache, "write_plan", lambda key, _: keys.append(key))
    chosen = asked_again(PROBLEMS[0])
    monkeypatch.undo()
    monkeypatch.setenv("TCONV_CACHE", str(folder))
    monkeypatch.setattr("tconv.engine.compile.disk_cache._has_warned", False)
    plan_log.write_plan(keys[0], data)
    with pytest.warns(RuntimeWarning, match="holds something else") as caught:
        assert asked_again(PROBLEMS[0]) == chosen
    assert len(caught) == 1
    assert asked_again(PROBLEMS[0]) == chosen


def test_without_a_cache_it_is_chosen_each_time(tmp_path, monkeypatch):
    monkeypatch.setenv("TCONV_CACHE", "off")
    assert asked_again(PROBLEMS[0]) == choose_plan(PROBLEMS[0], "float32", target(), 2)


# ---- sized plans ---------------------------------------------------------------------------------


def sized(problem, dtype="float32", threads=2):
    return plan_cache.cached_sized_plan(problem, dtype, target(), threads)


def remade(problem, dtype="float32", threads=2):
    """A primitive, as another process would make it."""
    forget()
    executor.create_primitive.cache_clear()
    return executor.create_primitive(problem, dtype, target(), threads)


@pytest.mark.parametrize("activation", [None, "relu"])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16"])
@pytest.mark.parametrize("want", "yx")
def test_a_sized_plan_comes_back_as_it_was_made(folder, want, dtype, activation):
    """Neither chosen nor lowered again, for sizes of one band, too; and it computes the same."""
    if not target().uses_engine:
        return
    for size in (17, 18, 40):  # two of a band, and one of another
        geometry = Geometry.of((2, 32, size, 9), (32, 24, 3, 3), stride=(2, 1), padding=1)
        problem = Problem(geometry, want, activation=as_activation(activation))
        made = remade(problem, dtype)
        assert sized(problem, dtype) is None  # what this process has found out
        forget()
        assert same(sized(problem, dtype), made.sized)
        again = remade(problem, dtype)
        assert again._layout.cache_info().currsize == 0
        assert again.plan == made.plan
        assert again.describe() == made.describe()
        rng = np.random.default_rng(0)
        read, w = (
            rng.integers(-4, 5, shape).astype(dtype)
            for shape in (geometry.shape_of(problem.read), geometry.weight_shape)
        )
        results = []
        for primitive in (made, again):
            y = np.full(geometry.shape_of(want), np.nan, dtype)
            primitive(read, primitive.pack(w[np.newaxis]), primitive.pack_bias(None), y)
            results.append(y)
        assert np.array_equal(*results)


def test_what_a_sized_plan_follows_from_tells_it_apart(folder, monkeypatch):
    keys = []
    monkeypatch.setattr(plan_cache, "write_record", lambda key, _: keys.append(key))
    for problem in (PROBLEMS[0], replace(PROBLEMS[0], activation=as_activation("relu"))):
        for dtype in ("float32", "float64"):
            for threads in (1, 2):
                remade(problem, dtype, threads)
    assert len(keys) == len(set(keys)) == 8


def test_a_process_that_meets_many_sizes_stops_looking_for_them(folder, monkeypatch):
    if not target().uses_engine:
        return
    read, written = [], []
    monkeypatch.setattr(plan_cache, "read_record", lambda kind, key: read.append(key))
    monkeypatch.setattr(plan_cache, "write_record", lambda key, _: written.append(key))
    monkeypatch.setattr(plan_cache, "_MOST_MISSES", 3)
    forget()
    for size in range(20, 26):
        problem = Problem(Geometry.of((1, 8, size), (8, 16, 4), stride=2))
        executor.create_primitive(problem, "float32", target(), 1)
    assert len(read) == 3
    assert written == read[:2]


# ---- processes that find all on disk -------------------------------------------------------------

LARGE = "x, w = np.ones((1, 64, 32, 32), 'f4'), np.ones((64, 32, 4, 4), 'f4')"
SMALL = "x, w = np.ones((1, 8, 6, 6), 'f4'), np.ones((8, 8, 2, 2), 'f4')"
ONCE = "tconv.conv_transpose(x, w, stride=2)"
# The second call of a small job goes through a stub; two threads make the pool.
TWICE = f"{ONCE}; {ONCE}"
BY_THREADS = "tconv.conv_transpose(x, w, stride=2, threads=2)"
PLANNED = "p = tconv.plan(x.shape, w.shape, stride=2); p(x, p.pack(w)); p(x, p.pack(w))"
EMITTING = (
    *("codegen", "kernels", "direct", "winograd", "channel_lanes", "depthwise", "row_gemm"),
    "weight_gradient",
    *("choose", "layouts", "lowering", "driver", "weight_tables", "compile.tiers"),
    *("plan.cost_model", "plan.size_bands", "runtime.thread_pool_code"),
)
MOST_ENTERED = 31


def outputs_of_processes(code, count=2):
    """The words that each of so many processes prints, one after the other on one disk cache."""
    code += "\nfrom tconv.engine import wait_for_optimised\nwait_for_optimised()\n"
    return [
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
        ).stdout.split()
        for _ in range(count)
    ]


@pytest.mark.parametrize(
    ("operands", "call"),
    [(LARGE, ONCE), (LARGE, BY_THREADS), (SMALL, TWICE), (SMALL, PLANNED)],
)
def test_a_process_that_finds_all_on_disk_loads_nothing_that_chooses_or_emits(
    operands, call, folder
):
    if not target().uses_engine:
        return
    code = f"import sys, numpy as np, tconv\n{operands}\n{call}\nprint(*sys.modules)"
    emitting = tuple(f"tconv.engine.{name}" for name in EMITTING)
    first, second = (
        {name for name in loaded if f"{name}.".startswith(tuple(f"{each}." for each in emitting))}
        for loaded in outputs_of_processes(code)
    )
    assert {f"tconv.engine.{name}" for name in ("codegen", "kernels", "choose", "lowering")} < first
    assert not second


def test_a_process_that_finds_all_on_disk_enters_few_files(folder):
    """Of tconv, by functions that run in its first call; imports alone enter none."""
    if not target().uses_engine:
        return
    code = f"""
import inspect, os, sys
import numpy as np
import tconv
entered, root = set(), os.path.dirname(tconv.__file__) + os.sep
def note(frame, event, _):
    code = frame.f_code
    is_function = code.co_flags & inspect.CO_NEWLOCALS and code.co_flags & inspect.CO_OPTIMIZED
    if event == "call" and is_function and code.co_filename.startswith(root):
        entered.add(code.co_filename.removeprefix(root))
{LARGE}
sys.setprofile(note)
{ONCE}
sys.setprofile(None)
print(*entered)
"""
    first, second = outputs_of_processes(code)
    assert os.path.join("engine", "executor.py") in second
    assert len(first) > len(second)
    assert len(second) <= MOST_ENTERED, sorted(second)
