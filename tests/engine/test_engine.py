"""Plans of the engine: the same bits from each, any number of threads, no stray access."""

import os
import subprocess
import sys
import warnings
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from itertools import product
from pathlib import Path

import numpy as np
import pytest
from assemblies import TARGETS, inner_loop
from engine.plans import deep_geometries, in_smaller_tasks
from hypothesis import given, settings
from hypothesis import strategies as st

from slow import mostly_slow
from strategies import ENGINE_TYPES, draws, geometries, integer_operands
from tconv import definition, engine
from tconv.engine import executor
from tconv.engine.channel_lanes.driver import broadcast, run_channel_lanes
from tconv.engine.choose import all_plans, choose_plan
from tconv.engine.codegen.abi import ARGUMENTS
from tconv.engine.codegen.code import ElementType
from tconv.engine.compile.jit import assembly
from tconv.engine.depthwise.driver import run_depthwise
from tconv.engine.depthwise.kernel import Window, slide
from tconv.engine.direct import layout
from tconv.engine.direct.im2col import find_runs, gather
from tconv.engine.driver import run, run_col2im
from tconv.engine.kernels.gemm import micro_kernel
from tconv.engine.kernels.interleave import add_rows, interleave_row, stream
from tconv.engine.kernels.pack_input import pack_rows
from tconv.engine.kernels.transpose import transpose_out
from tconv.engine.plan import plan as plans
from tconv.engine.plan.plan import tile_rows
from tconv.engine.plan.problem import Problem
from tconv.engine.row_gemm.driver import run_row_gemm
from tconv.engine.row_gemm.kernel import RowKernel, row_kernel
from tconv.engine.row_gemm.panel import RowPanel, fill_row_panel
from tconv.engine.target.target import named_target, target
from tconv.geometry.geometry import Geometry
from tconv.ops import dispatch
from tconv.ops.functional import conv, conv_transpose
from tconv.ops.planned_call import PackedWeights

ROOT = Path(__file__).parents[2]
TYPES = st.sampled_from(ENGINE_TYPES)
WANTS = st.sampled_from("yx")


def operands(geometry, dtype, want="y"):
    """What is read, the weight and a bias."""
    x, w, y = integer_operands(geometry)
    bias = np.random.default_rng(0).integers(-3, 4, channels_of(geometry, want))
    return (x if want == "y" else y).astype(dtype), w.astype(dtype), bias.astype(dtype)


def channels_of(geometry, letter):
    return geometry.out_channels if letter == "y" else geometry.in_channels


def defined(geometry, want, read, w, bias=None):
    """What the definition says, rounded to the type of what is read."""
    wide = [None if v is None else v.astype(np.float64) for v in (read, w, bias)]
    return definition.contract(geometry, want, *wide[:2], bias=wide[2]).astype(read.dtype)


# ---- what it computes ----------------------------------------------------------------------------


def around(*sizes):
    return sorted({size + n for size in sizes for n in (-1, 0, 1)})


@pytest.mark.parametrize("dtype", ENGINE_TYPES)
@pytest.mark.parametrize("stride", mostly_slow([1, 2, 3, 8, 9], 1, 3, 9))
def test_sizes_about_vectors_and_tiles(dtype, stride):
    lanes = ElementType(dtype, target()).lanes
    for width, channels in product(around(lanes, 2 * lanes), around(1, 6, 14)):
        if channels:
            geometry = Geometry.of((1, 3, width), (3, channels, 4), stride=stride, padding=1)
            for want in "yx":
                read, w, bias = operands(geometry, dtype, want)
                found = engine.contract(geometry, want, read, w, bias=bias)
                assert np.array_equal(found, defined(geometry, want, read, w, bias))


@draws(1)
@given(geometries(ranks=(1, 2, 3)) | deep_geometries(), WANTS, TYPES, st.data())
def test_every_plan_gives_the_same_bits(geometry, want, dtype, data):
    """So does every number of threads: only Winograd changes the order of a sum."""
    if not engine.serves(geometry, want, dtype):
        return
    geometry = engine._canonical(geometry)
    problem, rng = Problem(geometry, want), np.random.default_rng(0)
    read = rng.standard_normal(geometry.shape_of(problem.read)).astype(dtype)
    w = rng.standard_normal((geometry.groups, *geometry.weight_shape)).astype(dtype)
    w = w[0].reshape(geometry.groups, -1, *geometry.weight_shape[1:])
    bias = rng.standard_normal(channels_of(geometry, want)).astype(dtype)
    found = {}
    for threads in (1, 3):
        plans = all_plans(problem, dtype, target(), threads)
        for plan in plans[:: max(1, len(plans) // 5)]:
            plan = (
                in_smaller_tasks(plan, geometry, data.draw) if plan.algorithm == "col2im" else plan
            )
            primitive = executor.Primitive(problem, dtype, target(), plan)
            written = np.full(geometry.shape_of(want), np.nan, dtype)
            primitive(read, primitive.pack(w), primitive.pack_bias(bias), written)
            bits = (written + 0.0).tobytes()  # + 0.0: the sign of zero is nobody's
            found.setdefault(plan.order, set()).add(bits)
    assert {len(bits) for bits in found.values()} == {1}


@pytest.mark.parametrize("channels", [(37, 5), (37, 9), (520, 3)])
@pytest.mark.parametrize("stride", [1, 2, 3])
@pytest.mark.parametrize("size", [(40,), (20, 30), (6, 7, 9)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_a_crop_of_the_input_gives_a_crop_of_the_output(size, stride, channels, dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, channels[0], *size)).astype(dtype)
    w = rng.standard_normal((*channels, *(3,) * len(size))).astype(dtype)
    whole = conv_transpose(x, w, stride=stride, method="direct")
    crop = tuple(slice(2, n - 1) for n in size)
    part = conv_transpose(np.ascontiguousarray(x[(..., *crop)]), w, stride=stride, method="direct")
    # Without the border, to which cells beside the crop contribute too.
    inner = tuple(slice(2, n - 2) for n in part.shape[2:])
    shifted = tuple(slice(2 + 2 * stride, 2 * stride + n - 2) for n in part.shape[2:])
    assert np.array_equal(part[(..., *inner)], whole[(..., *shifted)])


@pytest.mark.parametrize("channels", [(5, 37), (9, 300)])
@pytest.mark.parametrize("stride", [1, 2, 3, 9])
@pytest.mark.parametrize("size", [(90,), (31, 40), (12, 13, 14)])
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32"])
def test_so_does_a_convolution(size, stride, channels, dtype):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((1, channels[1], *size)).astype(dtype)
    w = rng.standard_normal((*channels, *(3,) * len(size))).astype(dtype)
    whole = conv(y, w, stride=stride, method="direct")
    crop = (..., *(slice(stride, None) for _ in size))
    part = conv(np.ascontiguousarray(y[crop]), w, stride=stride, method="direct")
    assert np.array_equal(part, whole[(..., *(slice(1, None) for _ in size))])


@pytest.mark.parametrize("solve", [conv_transpose, conv])
@pytest.mark.parametrize("dtype", ENGINE_TYPES)
def test_threads_compute_the_same(dtype, solve):
    rng = np.random.default_rng(0)
    a = rng.standard_normal((3, 64, 20, 20)).astype(dtype)
    w = rng.standard_normal((64, 64, 4, 4)).astype(dtype)
    results = [solve(a, w, stride=2, padding=1, threads=n) for n in (1, 2, 3, 7)]
    for result in results[1:]:
        assert np.array_equal(result, results[0])


def mixed_calls(count):
    """Operands of different sizes, and what comes out."""
    rng = np.random.default_rng(0)
    found = []
    for n in range(count):
        x = rng.integers(-3, 4, (1 + n % 3, 8, 5 + n, 9)).astype(np.float32)
        w = rng.integers(-3, 4, (8, 4 + n % 5, 3, 2 + n % 3)).astype(np.float32)
        geometry = Geometry.of(x.shape, w.shape, stride=1 + n % 3)
        found.append((x, w, 1 + n % 3, definition.contract(geometry, "y", x, w)))
    return found


def test_many_threads_may_call_at_once():
    calls = mixed_calls(12)

    def work(n):
        x, w, stride, expected = calls[n % len(calls)]
        return np.array_equal(conv_transpose(x, w, stride=stride, threads=1 + n % 4), expected)

    with ThreadPoolExecutor(32) as pool:
        assert all(pool.map(work, range(1000)))


FORK = """
import os, sys, threading
sys.path[:0] = sys.argv[1:3]
import numpy as np
from test_engine import mixed_calls
from tconv.ops.functional import conv, conv_transpose

calls, going = mixed_calls(6), True


def work():
    while going:
        for x, w, stride, _ in calls:
            conv_transpose(x, w, stride=stride)


threads = [threading.Thread(target=work) for _ in range(3)]
for thread in threads:
    thread.start()
codes = []
for _ in range(10):
    child = os.fork()
    if not child:
        right = [np.array_equal(conv_transpose(x, w, stride=s), y) for x, w, s, y in calls]
        os._exit(0 if all(right) else 1)
    codes.append(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
going = False
for thread in threads:
    thread.join()
assert codes == [0] * 10, codes
"""


def test_a_child_computes_whatever_its_parent_was_doing_at_the_fork():
    words = [sys.executable, "-c", FORK, str(ROOT / "tests" / "engine"), str(ROOT / "tests")]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr


def test_long_sums_are_exact_enough():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, 256, 30, 30)).astype(np.float32)
    w = rng.standard_normal((256, 32, 3, 3)).astype(np.float32)
    y = conv_transpose(x, w, padding=1)
    exact = conv_transpose(x.astype(np.float64), w.astype(np.float64), padding=1)
    assert np.abs(y - exact).max() <= 2e-6 * np.abs(exact).max()


# ---- where it reads and writes -------------------------------------------------------------------


def test_nothing_outside_of_the_operands_is_touched():
    """In a process of its own, with operands that end where memory does."""
    script, count = Path(__file__).with_name("guarded.py"), 4 * settings().max_examples
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, str(script), str(count)], env=environment, capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == [str(count), "plans"]


@draws(1)
@given(
    geometries(ranks=(1, 2, 3)) | deep_geometries(),
    WANTS,
    TYPES,
    st.integers(20, 40),
    st.booleans(),
)
def test_nothing_beside_out_is_written(geometry, want, dtype, before, streams):
    """Also with non-temporal stores, which only a large y takes; wherever its cache lines end."""
    if not engine.serves(geometry, want, dtype):
        return
    geometry = engine._canonical(geometry)
    problem, shape = Problem(geometry, want), geometry.shape_of(want)
    read, w, bias = operands(geometry, dtype, want)
    memory = np.full(before + int(np.prod(shape)) + 32, -7, dtype)
    out = memory[before:-32].reshape(shape)
    plan = choose_plan(problem, dtype, target(), 2)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plans, "STREAMED_BYTES", 0 if streams else 2**25)
        patch.setattr(plans, "STREAMED_PIECE_BYTES", 0)
        primitive = executor.Primitive(problem, dtype, target(), plan)
    engine.contract(geometry, want, read, w, bias=bias, out=out, plan=primitive)
    assert np.array_equal(out, defined(geometry, want, read, w, bias))
    assert np.array_equal(memory[:before], np.full(before, -7))
    assert np.array_equal(memory[-32:], np.full(32, -7))


# ---- the code ------------------------------------------------------------------------------------


@pytest.mark.parametrize("cpu", TARGETS)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_inner_loop_keeps_its_sums_in_registers(cpu, dtype):
    here = named_target(cpu)
    number = ElementType(dtype, here)
    unrolls, ahead = (1, 2)[: 1 + here.has_fma], (False, True)
    for (rows, vectors), unroll, reads_ahead in product(here.isa.gemm_tiles, unrolls, ahead):
        if reads_ahead and rows < layout.ROWS_WITH_TIME:
            continue
        emit = partial(
            micro_kernel(rows, vectors, unroll, reads_ahead), name="kernel", element=number
        )
        loop = inner_loop(assembly("kernel", emit, here))
        if here.has_fma:
            multiplications = sum("fma" in line or "fmla" in line for line in loop)
            assert multiplications == rows * vectors * unroll, (rows, vectors)
        assert not [line for line in loop if "sp)" in line or "[sp" in line], (rows, vectors)


def of_rows():
    """The kernels whose lanes are cells of a row, of a convolution with a stride."""
    problem = Problem(Geometry.of((1, 2, 9, 40), (2, 1, 3, 3), stride=2, groups=2), "x")
    panel, shape = RowPanel.of(problem.phases(), 2), (3, 2, 2)
    kernels = [RowKernel(*shape, copies, True, False, "gelu", True) for copies in (False, True)]
    found = {kernel.name: row_kernel(kernel) for kernel in kernels}
    return found | {"slide": slide(Window.of(problem, 2, 2)), "fill": fill_row_panel(panel)}


@pytest.mark.parametrize("cpu", mostly_slow(TARGETS, "skylake-avx512", "apple-m1"))
def test_every_kernel_is_code_for_every_processor(cpu):
    """And calls nothing but the kernels whose addresses its arguments have."""
    here = named_target(cpu)
    kernels = {"find_runs": find_runs, "gather": gather, "add_rows": add_rows, "stream": stream}
    kernels |= {"broadcast": broadcast(3, 4), "transpose_out": transpose_out}
    kernels |= {f"pack_rows_{step}": pack_rows(step) for step in range(1, 10)}
    kernels |= {f"interleave_row_{stride}": interleave_row(stride) for stride in range(1, 10)}
    if here.isa.has_masks:
        kernels |= of_rows()
    drivers = {"run": run, "run_col2im": run_col2im, "run_channel_lanes": run_channel_lanes}
    drivers |= {"run_depthwise": run_depthwise, "run_row_gemm": run_row_gemm}
    for dtype in (*ENGINE_TYPES, "int16"):
        number = ElementType(dtype, here)
        emitted = {"stream": stream} if dtype == "int16" else kernels | drivers
        for name, emit in emitted.items():
            text = assembly(name, partial(emit, name=name, element=number), here)
            lines = [line.split() for line in text.splitlines() if line.startswith("\t")]
            assert lines
            if name in kernels:
                words = {line[0] for line in lines}
                assert not {each for each in words if each in ("bl", "blr") or "call" in each}


def test_tiles_are_nearly_equal():
    for rows, tile in product(range(1, 60), range(1, 17)):
        parts = tile_rows(rows, tile)
        assert sum(parts) == rows
        assert max(parts) <= tile
        assert max(parts) - min(parts) <= 1


# ---- weights that are kept -----------------------------------------------------------------------


def test_packed_weights_follow_their_version():
    geometry = Geometry.of((1, 2, 9), (2, 3, 4), stride=2)
    x, w, _ = operands(geometry, "float32")
    packed = PackedWeights()
    first = packed.of(geometry, w, 1)
    assert packed.of(geometry, w, 1) is first
    w += 1
    for version in (2, None, None):
        again = packed.of(geometry, w, version)
        assert again is not first
        found = engine.contract(geometry, "y", x, again)
        assert np.array_equal(found, definition.contract(geometry, "y", x, w))
        first, w = again, w + 1


# ---- when there is no code -----------------------------------------------------------------------


@pytest.mark.parametrize("algorithm", ["direct", "depthwise", "row_gemm"])
def test_threads_may_take_tasks_from_one_end_or_from_both(algorithm):
    """From one where no cache holds the operands; the bits are the same."""
    shapes = {"direct": ((2, 3, 4000), (3, 5, 4)), "depthwise": ((2, 5, 40, 90), (5, 1, 3, 3))}
    x_shape, w_shape = shapes.get(algorithm, ((2, 3, 90, 80), (3, 5, 1, 1)))
    groups = 5 if algorithm == "depthwise" else 1
    geometry = engine._canonical(Geometry.of(x_shape, w_shape, groups=groups))
    x, w, _ = integer_operands(geometry, "float32")
    expected = definition.contract(geometry, "y", x, w)
    for l3_bytes in (0, 2**25):
        here = replace(target(), l3_bytes=l3_bytes)
        made = executor.create_primitive(Problem(geometry), "float32", here, 2)
        assert made.layout.arguments()[ARGUMENTS.place("both_ends")] == bool(l3_bytes)
        y = np.full(geometry.y_shape, np.nan, np.float32)
        share = (geometry.groups, -1, *w.shape[1:])
        made(x, made.pack(np.ascontiguousarray(w.reshape(share))), made.pack_bias(None), y)
        assert np.array_equal(y, expected)


def test_without_code_the_portable_path_computes_and_one_warning_says_so(monkeypatch):
    def refuse(*_, **__):
        raise RuntimeError("no code today")

    monkeypatch.setattr(executor, "load", refuse)
    monkeypatch.setattr(executor, "load_all", refuse)
    monkeypatch.setattr(executor, "held", lambda *_, **__: {})
    monkeypatch.setattr(executor, "find", lambda *_, **__: {})
    monkeypatch.setattr(executor, "_families", {})
    executor.create_primitive.cache_clear()
    monkeypatch.setattr(dispatch, "_has_warned", False)
    geometry = Geometry.of((1, 2, 17), (2, 3, 4), stride=2)
    x, w, _ = operands(geometry, "float32")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for _ in range(3):
            y = conv_transpose(x, w, stride=2)
            assert np.array_equal(y, definition.contract(geometry, "y", x, w))
    assert [str(w.message) for w in caught] == [
        "tconv computes without machine code of its own, which is slower: "
        "RuntimeError: no code today"
    ]
    executor.create_primitive.cache_clear()


@pytest.mark.slow(quick="test_implementations.py::test_equals_the_definition")
@pytest.mark.parametrize("cpu", ["x86-64", "haswell", "portable"])
def test_other_processors_compute_the_same(cpu):
    code = (
        "import sys; sys.path.insert(0, 'tests')\n"
        "from itertools import product\n"
        "import numpy as np\n"
        "from strategies import ENGINE_TYPES\n"
        "from tconv import definition\n"
        "from tconv.geometry.geometry import Geometry\n"
        "from tconv.ops.functional import conv, conv_transpose\n"
        "rng = np.random.default_rng(0)\n"
        "for n in range(60):\n"
        "    rank, s, k = 1 + n % 3, 1 + n % 4, 1 + n % 5\n"
        "    g = 1 + n % 2\n"
        "    x = rng.integers(-3, 4, (2, 2 * g, *(5,) * rank))\n"
        "    w = rng.integers(-3, 4, (2 * g, 3, *(k,) * rank))\n"
        "    G = Geometry.of(x.shape, w.shape, stride=s, groups=g)\n"
        "    v = rng.integers(-3, 4, G.y_shape)\n"
        "    pairs = (conv_transpose, 'y', x), (conv, 'x', v)\n"
        "    for (solve, want, a), dtype in product(pairs, ENGINE_TYPES):\n"
        "        found = solve(a.astype(dtype), w.astype(dtype), stride=s, groups=g)\n"
        "        exact = definition.contract(G, want, a, w).astype(dtype)\n"
        "        assert np.array_equal(found, exact), (G, want, dtype)\n"
    )
    environment = {**os.environ, "TCONV_CPU": cpu, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=environment, capture_output=True, text=True
    )
    if "must" in done.stderr and target().vector_bits < 256:
        pytest.fail(done.stderr)
    assert done.returncode == 0, done.stderr
