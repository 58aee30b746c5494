"""Contractions as steps: the bits of their own calls, also beside steps with other scratch."""

import ctypes
import gc
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path

import numpy as np
import pytest
from engine.program.loop_calls import CANARY, CPU, expression_of
from engine.program.sequence_steps import (
    Layer,
    chain,
    loop_step,
    primitive_step,
    run,
    runner_of,
    winograd,
)
from processes import run_script

from strategies import integers_like
from tconv import definition, engine
from tconv.engine.choose import all_plans
from tconv.engine.executor import Primitive
from tconv.engine.plan.problem import Problem
from tconv.engine.program.loops import Expression
from tconv.engine.program.sequence import BLOCK
from tconv.engine.target.target import target
from tconv.geometry.geometry import Geometry

pytestmark = pytest.mark.skipif(not target().uses_engine, reason="machine code is off")

tiers, jit = (import_module(f"tconv.engine.compile.{name}") for name in ("tiers", "jit"))
executor = import_module("tconv.engine.executor")
COPY = Expression(1, (), (0,))
NEGATE = expression_of("neg", 1)
LAYERS = {
    "small": ((1, 8, 9), (8, 5, 4), {"stride": 2}),
    "plane": ((1, 16, 20, 20), (16, 8, 4, 4), {"stride": 2, "padding": 1}),
    "deep": ((1, 64, 12, 12), (64, 32, 4, 4), {"stride": 2}),
    "wide": ((1, 24, 24, 24), (24, 24, 3, 3), {"padding": 1}),
    "row": ((1, 32, 30), (32, 16, 5), {"stride": 3}),
    "one": ((1, 32, 16, 16), (32, 32, 1, 1), {}),
}


def layers(*names, **keywords):
    return [Layer(*LAYERS[name][:2], **LAYERS[name][2], **keywords) for name in names]


def side_by_side(made, threads):
    """A sequence of one stage: each layer reads and writes buffers of its own."""
    count = len(made)
    steps = [
        layer.step((n, 0), (count + n, 0), ends_stage=n + 1 == count)
        for n, layer in enumerate(made)
    ]
    return runner_of(steps, 1, threads)


# ---- scratch -------------------------------------------------------------------------------------


@pytest.mark.parametrize("threads", [2, 3, 4])
@pytest.mark.parametrize(
    "names",
    [("wide", "small", "deep"), ("small", "wide"), ("row", "plane", "one", "wide", "small")],
    ids="-".join,
)
def test_steps_of_one_stage_share_no_scratch(names, threads):
    """A thread may be in one of them while another is in the next, whose scratch is smaller."""
    made = layers(*names)
    assert len({layer.scratch_bytes for layer in made}) > 1
    runner = side_by_side(made * 4, threads)
    for _ in range(150):
        found = run(runner, [layer.x for layer in made] * 4, [layer.shape for layer in made] * 4)
        for y, layer in zip(found, made * 4, strict=True):
            assert np.array_equal(y, layer.y)


def test_plans_of_one_layer_side_by_side_sum_in_their_own_scratch():
    """Every kind of plan, of small integers, so that all sums are exact."""
    geometry = Geometry.of((1, 16, 12, 12), (16, 16, 3, 3), padding=1)
    problem, kinds = Problem(geometry), {}
    for plan in all_plans(problem, "float32", CPU, 2):
        kinds.setdefault((plan.algorithm, plan.panel, plan.tile), plan)
    x, w = integers_like(geometry.x_shape, "float32"), integers_like((16, 16, 3, 3), "float32", 1)
    expected = definition.contract(geometry, "y", x, w)
    some = [plan for _, plan in zip(range(12), kinds.values(), strict=False)]
    some = [Primitive(problem, "float32", CPU, plan) for plan in some]
    steps = [
        primitive_step(each, w, None, (0, 0), (1 + n, 0), ends_stage=n + 1 == len(some))
        for n, each in enumerate(some)
    ]
    assert len({step.scratch_bytes for step in steps}) > 3
    runner = runner_of(steps, 1, 3)
    for _ in range(100):
        found = run(runner, [x], [expected.shape] * len(steps))
        assert all(np.array_equal(y, expected) for y in found)


def test_what_scratch_held_before_does_not_matter():
    made = layers(*LAYERS)
    runner = side_by_side(made, 2)
    for _ in range(10):
        found = run(runner, [layer.x for layer in made], [layer.shape for layer in made])
        assert all(np.array_equal(y, layer.y) for y, layer in zip(found, made, strict=True))
        for arena in runner._arenas._free:
            arena.scratch[:] = 255  # NaN
            arena.block[:] = 255


# ---- places --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", list(LAYERS))
@pytest.mark.parametrize("threads", [1, 3])
def test_a_step_gives_the_bits_of_its_call(name, threads):
    """From the block into the block, between loops."""
    (layer,) = layers(name)
    steps = [
        loop_step(COPY, [(0, 0)], [(BLOCK, 48)], layer.x.size),
        layer.step((BLOCK, 4 * 48), (BLOCK, 4 * (layer.x.size + 64))),
        loop_step(NEGATE, [(BLOCK, layer.x.size + 64)], [(1, 0)], layer.size),
    ]
    runner = runner_of(steps, layer.x.size + layer.size + 64, threads)
    for _ in range(30):
        assert np.array_equal(run(runner, [layer.x], [layer.shape])[0], -layer.y)


@pytest.mark.parametrize("has_residual", [False, True])
@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
def test_residuals_and_activations(has_residual, activation):
    for layer in layers(*LAYERS, activation=activation, has_residual=has_residual):
        residual = (1, 0) if has_residual else None
        runner = runner_of([layer.step((0, 0), (2, 0), residual)], 1, 2)
        second = layer.residual if has_residual else np.zeros(1, np.float32)
        for _ in range(3):
            assert np.array_equal(run(runner, [layer.x, second], [layer.shape])[0], layer.y)


@pytest.mark.parametrize("threads", [1, 2])
def test_images_may_be_written_apart(threads):
    """Into some channels of a larger array, which nothing else of changes."""
    for name in ("plane", "wide", "one"):
        x_shape, w_shape, keywords = LAYERS[name]
        layer = Layer((3, *x_shape[1:]), w_shape, **keywords)
        _, channels, *cells = layer.shape
        whole = np.full((3, channels + 5, *cells), CANARY)
        area = int(np.prod(cells))
        step = layer.step((0, 0), (1, 4 * 2 * area), None, (channels + 5) * area)
        runner = runner_of([step], 1, threads)
        for _ in range(3):
            whole[:, 2:-3] = np.nan
            runner.run([layer.x, whole])
            assert np.array_equal(whole[:, 2:-3], layer.y)
            assert (whole[:, :2] == CANARY).all()
            assert (whole[:, -3:] == CANARY).all()


def test_weights_and_biases_are_kept():
    """When the call, what it packed and the bias are nowhere else."""
    expected = [(layer.x, layer.y) for layer in layers(*LAYERS)]
    runner = side_by_side(layers(*LAYERS), 2)
    for _ in range(5):
        gc.collect()
        others = [np.full(n, np.nan, np.float32) for n in (16, 100, 2048, 12288, 32768) * 8]
        found = run(runner, [x for x, _ in expected], [y.shape for _, y in expected])
        assert all(
            np.array_equal(y, of_call) for y, (_, of_call) in zip(found, expected, strict=True)
        )
        del others


# ---- Winograd's flag -----------------------------------------------------------------------------

GEOMETRY = Geometry.of((3, 16, 12, 12), (16, 16, 3, 3), padding=1)
UNSAFE = [np.nan, np.inf, -np.inf, 2.0**120]


def operands(geometry):
    rng = np.random.default_rng(0)
    shapes = (geometry.x_shape, geometry.weight_shape, (16,), geometry.y_shape)
    return [rng.standard_normal(shape).astype("float32") for shape in shapes]


@pytest.mark.parametrize("threads", [1, 2])
@pytest.mark.parametrize("value", UNSAFE)
@pytest.mark.parametrize("y_batch", [0, 19 * 144])
def test_images_with_cells_that_winograd_would_spread(value, y_batch, threads):
    """They are computed directly, and steps that follow read what is right."""
    primitive, _ = winograd(GEOMETRY)
    x, w, bias, y = operands(GEOMETRY)
    x[1, 3, 5, 5] = value
    primitive(x, primitive.pack(w[np.newaxis]), primitive.pack_bias(bias), y)
    channels = y_batch // 144 or 16
    at = np.isfinite(x).all((1, 2, 3))
    assert np.isfinite(y[at]).all()
    assert np.isfinite(y[1]).any()  # the cell reaches few others
    size = 3 * channels * 144
    first = primitive_step(primitive, w, bias, (0, 0), (BLOCK, 64), y_batch=y_batch)
    steps = [first, loop_step(NEGATE, [(BLOCK, 16)], [(1, 0)], size)]
    runner = runner_of(steps, size + 16, threads)
    for n in range(4):
        (found,) = run(runner, [x], [(3, channels, 12, 12)])
        assert np.array_equal(found[:, :16], -y, equal_nan=True)
        calm = x if n % 2 else np.where(np.isfinite(x) & (np.abs(x) < 2), x, 0)
        (found,) = run(runner, [calm], [(3, channels, 12, 12)])  # the flag is gone again
        of_call = np.empty_like(y)
        primitive(calm, primitive.pack(w[np.newaxis]), primitive.pack_bias(bias), of_call)
        assert np.array_equal(found[:, :16], -of_call, equal_nan=True)


def test_two_steps_are_mended_one_after_the_other():
    """The second reads what the first writes: both spread the cell."""
    primitive, _ = winograd(GEOMETRY)
    x, w, bias, y = operands(GEOMETRY)
    x[2, 0, 0, 0] = np.inf
    packed, of_bias = primitive.pack(w[np.newaxis]), primitive.pack_bias(bias)
    between, expected = np.empty_like(y), np.empty_like(y)
    primitive(x, packed, of_bias, between)
    primitive(between, packed, of_bias, expected)
    steps = [
        loop_step(COPY, [(0, 0)], [(BLOCK, 0)], x.size),
        primitive_step(primitive, w, bias, (BLOCK, 0), (BLOCK, 4 * x.size)),
        primitive_step(primitive, w, bias, (BLOCK, 4 * x.size), (1, 0)),
    ]
    runner = runner_of(steps, x.size + y.size, 2)
    for _ in range(3):
        (found,) = run(runner, [x], [y.shape])
        assert np.array_equal(found, expected, equal_nan=True)


# ---- the door ------------------------------------------------------------------------------------


def test_its_name_at_the_door_is_the_function_whoever_imports_its_module():
    """Also on another thread, between the import and what follows it."""
    run_script(
        "import tconv.engine.contraction_binding\n"
        "from tconv import engine\n"
        "assert callable(engine.contraction_step), engine.contraction_step\n"
    )


# ---- optimised code, and other threads -----------------------------------------------------------


@pytest.mark.parametrize("threads", [1, 2])
def test_optimised_code_takes_the_place_of_baseline_code(monkeypatch, tmp_path, threads):
    """Between two runs; the bits stay the same."""
    monkeypatch.setenv("TCONV_CACHE", str(tmp_path))
    monkeypatch.setattr(jit, "_loaded", {})
    monkeypatch.setattr(executor, "_families", {})
    for name, value in (("_baselines", {}), ("_waiting", []), ("_start", lambda: None)):
        monkeypatch.setattr(tiers, name, value)
    geometry = Geometry.of((1, 8, 10, 10), (8, 8, 4, 4), stride=2)
    problem = Problem(geometry)
    plan = next(p for p in all_plans(problem, "float32", CPU, 2) if p.algorithm == "direct")
    primitive = Primitive(problem, "float32", CPU, plan)
    rng = np.random.default_rng(0)
    x, w = (
        rng.standard_normal(shape).astype("float32")
        for shape in (geometry.x_shape, geometry.weight_shape)
    )
    step = primitive_step(primitive, w, None, (0, 0), (1, 0))
    runner = runner_of([step], 1, threads)
    before = step.function(), step.words()
    found = [run(runner, [x], [geometry.y_shape])[0] for _ in range(3)]
    assert tiers._baselines
    engine.wait_for_optimised()
    assert step.function() != before[0]
    assert step.words() is not before[1]
    found += [run(runner, [x], [geometry.y_shape])[0] for _ in range(3)]
    assert len({y.tobytes() for y in found}) == 1
    assert np.allclose(found[0], definition.contract(geometry, "y", x, w), atol=1e-4)


@pytest.fixture
def openmp():
    """The OpenMP runtime that scikit-learn brings with it, in place of the thread pool."""
    package = Path(find_spec("sklearn").origin).parent
    libraries = [
        *package.parent.glob("scikit_learn.libs/libgomp*"),
        *package.glob(".dylibs/libomp*"),
    ]
    engine.use_backend(engine.OpenMPBackend(ctypes.CDLL(str(libraries[0])), 2))
    yield
    engine.use_backend(None)


@pytest.mark.parametrize("threads", [1, 2, 4])
def test_an_openmp_runtime_runs_sequences(openmp, threads):
    runner = runner_of(chain(80, 3000), 6000, threads)
    x = integers_like((3000,), "float32")
    for _ in range(100):
        assert np.array_equal(run(runner, [x], [3000])[0], x - 10)
    made = layers("wide", "small", "row")
    runner = side_by_side(made, threads)
    for _ in range(50):
        found = run(runner, [layer.x for layer in made], [layer.shape for layer in made])
        assert all(np.array_equal(y, layer.y) for y, layer in zip(found, made, strict=True))
