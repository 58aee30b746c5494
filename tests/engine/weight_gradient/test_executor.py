"""The engine's weight gradient equals the definition, with every plan, and keeps to its memory."""

import os
import subprocess
import sys
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from engine.plans import in_other_blocks, wide_geometries
from hypothesis import given, settings
from hypothesis import strategies as st

from slow import mostly_slow
from strategies import draws, integer_operands
from tconv import definition, engine
from tconv.engine.codegen.code import ElementType
from tconv.engine.plan.problem import Problem
from tconv.engine.runtime import job
from tconv.engine.target.target import target
from tconv.engine.weight_gradient.executor import WeightGradientPrimitive
from tconv.engine.weight_gradient.plan import all_gradient_plans, choose_gradient_plan
from tconv.geometry.geometry import Geometry
from tconv.nn.conv import Conv1d, ConvTranspose1d
from tconv.ops.dispatch import native
from tconv.ops.functional import conv_weight_gradient
from tconv.ops.gradients import conv_transpose_vjp

ROOT = Path(__file__).parents[3]
TYPES = st.sampled_from(["float32", "float64"])
PLANS = 5  # of each geometry


def operands(geometry, dtype):
    x, _, y = integer_operands(geometry)
    return x.astype(dtype), y.astype(dtype)


def plans(geometry, dtype, draw):
    """Some of all plans, also with smaller k-blocks and other splits than are chosen."""
    problem = Problem(engine._canonical(geometry), "x")
    found = all_gradient_plans(problem, dtype, target())
    for plan in found[:: max(1, len(found) // PLANS)]:
        yield problem, plan
        yield problem, in_other_blocks(plan, problem.geometry, draw)


# ---- what it computes ----------------------------------------------------------------------------


@pytest.mark.parametrize("padding", [3, 4])
def test_rows_whose_ends_reach_nothing_are_apart(padding):
    """Those of x in k-blocks that are followed by other channels."""
    size = (10 + 2 * padding, 9 + 2 * padding)
    geometry = Geometry.of((1, 2, *size), (2, 2, 1, 1), padding=padding)
    problem = Problem(geometry, "x")
    x, y = operands(geometry, "float32")
    expected = definition.contract(geometry, "w", x, y)
    for plan in all_gradient_plans(problem, "float32", target()):
        found = np.empty(geometry.weight_shape, np.float32)
        WeightGradientPrimitive(problem, "float32", target(), plan, 1)(x, y, found)
        assert np.array_equal(found, expected), plan


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("stride", [1, 2, 3, 8, 9])
def test_sizes_about_vectors(dtype, stride):
    lanes = ElementType(dtype, target()).lanes
    around = sorted({size + n for size in (lanes, 2 * lanes) for n in (-1, 0, 1)})
    for width, channels in product(around, [1, *around]):
        geometry = Geometry.of((2, channels, width), (channels, 2, 4), stride=stride, padding=1)
        x, y = operands(geometry, dtype)
        found = engine.contract(geometry, "w", x, y)
        assert np.array_equal(found, definition.contract(geometry, "w", x, y))


@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "stride", "groups"),
    [
        ((1, 3, 500), (3, 2, 40), 16, 1),
        ((1, 40, 9), (40, 1, 300), 75, 1),
        ((40, 30, 1, 1), (30, 6, 4, 4), 1, 1),
        ((70, 60, 1), (60, 5, 1), 1, 2),
        ((9, 24, 4, 4), (24, 5, 4, 4), 2, 1),
        ((1, 12, 20, 30), (12, 1, 4, 4), 2, 12),
        ((2, 2, 40, 40), (2, 3, 1, 1), 1, 1),
        ((1, 17, 5, 6, 7), (17, 3, 2, 2, 2), 2, 1),
    ],
)
def test_shapes_of_many_kinds(x_shape, weight_shape, stride, groups):
    geometry = Geometry.of(x_shape, weight_shape, stride=stride, groups=groups)
    x, y = operands(geometry, "float32")
    found = engine.contract(geometry, "w", x, y)
    assert np.array_equal(found, definition.contract(geometry, "w", x, y))


@draws(0.5)
@given(wide_geometries(), TYPES, st.data())
def test_threads_and_runs_give_the_same_bits(geometry, dtype, data):
    geometry = engine._canonical(geometry)
    rng = np.random.default_rng(0)
    x = rng.standard_normal(geometry.x_shape).astype(dtype)
    y = rng.standard_normal(geometry.y_shape).astype(dtype)
    for problem, plan in plans(geometry, dtype, data.draw):
        found = set()
        for threads in (1, 2, 3, 7, 2):
            dw = np.full(geometry.weight_shape, np.nan, dtype)
            WeightGradientPrimitive(problem, dtype, target(), plan, threads)(x, y, dw)
            found.add(dw.tobytes())
        assert len(found) == 1


@pytest.mark.parametrize("channels", [(24, 24), (1, 2), (80, 1)])
def test_long_sums_are_exact_enough(channels):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((2, channels[0], 150, 170)).astype(np.float32)
    y = rng.standard_normal((2, channels[1], 150, 170)).astype(np.float32)
    found = conv_weight_gradient(x, y, (3, 3), padding=1)
    exact = conv_weight_gradient(x.astype(float), y.astype(float), (3, 3), padding=1)
    assert np.abs(found - exact).max() <= 2e-6 * np.abs(exact).max()


def test_gradients_and_layers_use_it(monkeypatch):
    used = []
    call = WeightGradientPrimitive.__call__
    monkeypatch.setattr(
        WeightGradientPrimitive,
        "__call__",
        lambda self, *arrays: (used.append(1), call(self, *arrays))[0],
    )
    x, w = np.ones((2, 3, 5), np.float32), np.ones((3, 4, 3), np.float32)
    y, pull_back = conv_transpose_vjp(x, w, stride=2)
    pull_back(y)
    assert len(used) == 1
    for layer in (ConvTranspose1d(3, 4, 3, stride=2), Conv1d(3, 4, 3)):
        layer.backward(layer(x))
    assert len(used) == 3


# ---- where it reads and writes -------------------------------------------------------------------


def test_nothing_outside_of_the_operands_is_touched():
    """In a process of its own, with operands that end where memory does."""
    script, count = Path(__file__).parents[1] / "guarded.py", 2 * settings().max_examples
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script), str(count), "w"],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(count), "plans"]


def test_an_empty_batch_is_portable():
    geometry = Geometry.of((0, 2, 5), (2, 3, 3))
    assert native(geometry, "w", "float32", 1) is None
    found = conv_weight_gradient(np.ones((0, 2, 5)), np.ones((0, 3, 7)), 3)
    assert np.array_equal(found, np.zeros((2, 3, 3)))


@draws(0.5)
@given(wide_geometries(), TYPES, st.integers(1, 4))
def test_workspace_is_scratch_and_partial_sums(geometry, dtype, threads):
    geometry = engine._canonical(geometry)
    problem = Problem(geometry, "x")
    plan = choose_gradient_plan(problem, dtype, target())
    ready = WeightGradientPrimitive(problem, dtype, target(), plan, threads)
    itemsize = np.dtype(dtype).itemsize
    partial = plan.k_splits * int(np.prod(geometry.weight_shape)) * itemsize
    expected = threads * ready.scratch_size * itemsize + partial * (plan.k_splits > 1)
    assert engine.workspace_bytes(geometry, ready) == expected


# ---- other processors ----------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", mostly_slow(["x86-64", "haswell", "portable"], "x86-64"))
def test_other_processors_compute_the_same(cpu):
    code = (
        "import numpy as np\n"
        "from tconv import definition\n"
        "from tconv.geometry.geometry import Geometry\n"
        "from tconv.ops.functional import conv_weight_gradient\n"
        "rng = np.random.default_rng(0)\n"
        "for n in range(60):\n"
        "    rank, s, k, g = 1 + n % 3, 1 + n % 4, 1 + n % 5, 1 + n % 2\n"
        "    c = g * (1 + n % 13)\n"
        "    G = Geometry.of((2, c, *(5,) * rank), (c, 3, *(k,) * rank), stride=s, groups=g)\n"
        "    x = rng.integers(-3, 4, G.x_shape).astype('float32')\n"
        "    y = rng.integers(-3, 4, G.y_shape).astype('float32')\n"
        "    w = conv_weight_gradient(x, y, (k,) * rank, stride=s, groups=g)\n"
        "    assert np.array_equal(w, definition.contract(G, 'w', x, y)), G\n"
    )
    environment = {**os.environ, "TCONV_CPU": cpu, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("padding", [0, 3])
def test_what_was_in_the_scratch_does_not_matter(dtype, padding, monkeypatch):
    """Calls borrow from each other memory in which anything may be left, NaN too."""
    rng, size = np.random.default_rng(0), (9 - 2 * padding, 8 - 2 * padding)
    x = rng.integers(-3, 4, (2, 2, 9, 8)).astype(dtype)
    y = rng.integers(-3, 4, (2, 14, *size)).astype(dtype)
    found = []
    for left in (0, 255):
        scratch = job._Scratch(2**22)
        scratch.memory[:] = left
        monkeypatch.setattr(job, "_borrowed", lambda _, scratch=scratch: scratch)
        found.append(conv_weight_gradient(x, y, (1, 1), padding=padding, groups=2))
    assert np.isfinite(found[0]).all()
    assert np.array_equal(*found)
