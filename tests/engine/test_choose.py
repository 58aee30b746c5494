"""A plan follows from the sizes alone, it is about as good as any, and it computes the same."""

import os
import random
import subprocess
import sys
from dataclasses import replace
from functools import cache
from math import exp, log

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws, integers_like
from tconv import engine
from tconv.engine import choose
from tconv.engine.choose import all_plans, band_candidates, best_plans, choose_plan, lanes_of
from tconv.engine.plan.problem import Problem
from tconv.engine.plan.size_bands import band_of, samples_of
from tconv.engine.target.target import named_target, target
from tconv.engine.weight_gradient import plan as weight_gradient
from tconv.geometry.geometry import Geometry
from tconv.ops.functional import conv_transpose
from tconv.ops.planned_call import Packed, PackedWeights
from tconv.portable import contract

WANTS = st.sampled_from("yx")
CPUS = ["haswell", "skylake-avx512", "neoverse-v1"]


@st.composite
def larger_geometries(draw):
    """Of sizes that share plans with others."""
    rank = draw(st.sampled_from([1, 1, 2, 3]))
    most = {1: 400, 2: 40, 3: 18}[rank]
    size = [draw(st.integers(2, most)) for _ in range(rank)]
    kernel, stride = draw(st.integers(1, 5)), draw(st.integers(1, 4))
    groups, channels = draw(st.integers(1, 2)), draw(st.sampled_from([1, 3, 8, 20, 40]))
    return Geometry.of(
        (draw(st.integers(1, 2)), channels * groups, *size),
        (channels * groups, draw(st.sampled_from([1, 5, 16])), *[kernel] * rank),
        stride=stride,
        padding=draw(st.integers(0, kernel // 2)),
        output_padding=draw(st.integers(0, stride - 1)),
        groups=groups,
    )


@draws(2)
@given(larger_geometries(), st.sampled_from("yxw"), st.sampled_from(["float32", "float64"]))
def test_fitted_plans_equal_the_portable_path(geometry, want, dtype):
    if not engine.serves(geometry, want, dtype):
        return
    x, w, y = (
        integers_like(geometry.shape_of(letter), dtype, n, 2) for n, letter in enumerate("xwy")
    )
    a, b = {"y": (x, w), "x": (y, w), "w": (x, y)}[want]
    found = engine.contract(geometry, want, a, b, threads=2)
    assert np.array_equal(found, contract.contract(geometry, want, a, b))


LAYERS = [
    ((64, 32, 4), {"stride": 2, "padding": 1}, range(20, 400)),
    ((512, 256, 16), {"stride": 8, "padding": 4}, range(20, 400)),
    ((80, 64, 7), {"padding": 3}, range(20, 900)),
    ((64, 32, 4, 4), {"stride": 2, "padding": 1}, range(9, 90)),
    ((128, 64, 3, 3), {}, range(9, 70)),
    ((16, 24, 3, 3, 3), {"stride": 2}, range(5, 20)),
]


def sized(layer, size):
    weight, keywords, _ = layer
    rank = len(weight) - 2
    sizes = size if isinstance(size, tuple) else (size,) * rank
    return Geometry.of((1, weight[0], *sizes), weight, **keywords)


def random_problems(count):
    """Of sizes in no order."""
    rng = random.Random(0)
    for n in range(count):
        layer = LAYERS[n % len(LAYERS)]
        sizes = tuple(rng.choice(layer[2]) for _ in layer[0][2:])
        yield Problem(sized(layer, sizes), rng.choice("yyx"))


@pytest.mark.parametrize("cpu", CPUS)
@pytest.mark.parametrize("threads", [1, 2])
def test_by_the_model_they_cost_what_plans_of_their_own_would(cpu, threads):
    here, ratios = named_target(cpu), []
    for problem in random_problems(36):
        fitted = choose_plan(problem, "float32", here, threads)
        own = min(
            (p for p in all_plans(problem, "float32", here, threads) if p.order == fitted.order),
            key=lambda plan: plan.cycles,
        )
        ratios.append(log(fitted.cycles / own.cycles))
    assert exp(sum(ratios) / len(ratios)) <= 1.01
    assert exp(max(ratios)) <= 1.15


@draws(1)
@given(larger_geometries(), WANTS, st.sampled_from([2, 3, 7]))
def test_the_order_of_sums_is_one_for_any_number_of_threads(geometry, want, threads):
    problem, here = Problem(geometry, want), target()
    alone, together = (choose_plan(problem, "float32", here, n) for n in (1, threads))
    if alone is not None and together is not None:
        assert alone.order == together.order
        orders = {plan.order for plan in best_plans(problem, "float32", here, threads)}
        assert orders == {alone.order}


def forget():
    for cached in (
        *(choose.band_candidates, choose._cheapest, choose._order_of, choose._considered),
        *(weight_gradient.choose_gradient_plan, weight_gradient._cheapest),
    ):
        cached.cache_clear()


def test_a_choice_does_not_depend_on_what_was_chosen_before():
    here, problems = target(), [*random_problems(18)]
    found = []
    for seed in range(3):
        forget()
        order = random.Random(seed).sample(range(len(problems)), len(problems))
        chosen = {}
        for n in order:
            problem = problems[n]
            chosen[n] = (
                choose_plan(problem, "float32", here, 2),
                weight_gradient.choose_gradient_plan(
                    Problem(problem.geometry, "x"), "float32", here
                ),
            )
        found.append(chosen)
    assert found[0] == found[1] == found[2]


@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_candidates_are_few(layer):
    here, most = target(), 0
    for size in [*layer[2]][::7][:12]:
        band = band_of(Problem(sized(layer, size)), lanes_of("float32", here))
        most = max(most, len(band_candidates(band, "float32", here, 2)))
        assert len(samples_of(band, lanes_of("float32", here))) <= 6
    assert most <= 4


# ---- bits of processes with another history ------------------------------------------------------

LENGTHS = [*range(97, 129, 3), *range(129, 260, 11), *range(500, 640, 23)]
ONE_PROCESS = """
import hashlib, sys
import numpy as np
import tconv
rng = np.random.default_rng(0)
w = rng.standard_normal((96, 48, 4)).astype(np.float32)
x = rng.standard_normal((1, 96, 700)).astype(np.float32)
layer = tconv.ConvTranspose1d(96, 48, 4, stride=2, padding=1, bias=False)
layer.weight.value[...] = w
for length in map(int, sys.argv[1].split(",")):
    part = np.ascontiguousarray(x[..., :length])
    y = tconv.conv_transpose(part, w, stride=2, padding=1)
    again = layer.predict(part)
    dw = tconv.conv_weight_gradient(part, y, 4, stride=2, padding=1)
    of_length = y.tobytes() + again.tobytes() + dw.tobytes()
    print(length, hashlib.sha256(of_length).hexdigest())
"""


def digests(lengths, cache):
    environment = {**os.environ, "TCONV_CACHE": str(cache)}
    ended = subprocess.run(
        [sys.executable, "-c", ONE_PROCESS, ",".join(map(str, lengths))],
        env=environment,
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    return sorted(ended.stdout.splitlines(), key=lambda line: int(line.split()[0]))


def test_bits_do_not_depend_on_history(tmp_path):
    """On the order of sizes, on what other processes left on disk, or on a disk at all."""
    first = digests(LENGTHS, tmp_path)
    assert len(first) == len(LENGTHS)
    assert digests(LENGTHS[::-1], tmp_path) == first
    assert digests(random.Random(0).sample(LENGTHS, len(LENGTHS)), "off") == first
    assert digests(LENGTHS[::5], "off") == first[::5]


# ---- what sizes share ----------------------------------------------------------------------------


@cache
def wave(channels):
    return integers_like((1, channels, 700), "float32", 0, 3)


def test_many_lengths_of_a_layer_write_few_files(tmp_path, monkeypatch):
    monkeypatch.setenv("TCONV_CACHE", str(tmp_path))
    w = integers_like((24, 12, 4), "float32", 1, 3)
    for length in range(100, 400):
        conv_transpose(wave(24)[..., :length], w, stride=2, padding=1, threads=2)
    files = len([*tmp_path.rglob("*.kernel")])
    assert files <= 60  # kernels, their baseline code, and one for each of 14 bands


def test_lengths_of_a_layer_share_packed_weights():
    packed, w = PackedWeights(), integers_like((64, 32, 4), "float32", 1, 3)
    orders, plans = {}, set()
    for length in range(100, 260, 3):
        geometry = Geometry.of((1, 64, length), w.shape, stride=2, padding=1)
        if not engine.serves(geometry, "y", "float32", 1):
            return
        x = np.ascontiguousarray(wave(64)[..., :length])
        of_plan = packed.of(geometry, w, 1, 1)
        found = engine.contract(geometry, "y", x, of_plan)
        assert np.array_equal(found, contract.contract(geometry, "y", x, w))
        orders[id(of_plan.values)] = of_plan.values
        plans.add(of_plan.plan)
    assert len(plans) == len(range(100, 260, 3))
    assert len(orders) <= len(plans) // 6


@draws(1)
@given(larger_geometries(), WANTS, st.sampled_from(["float32", "float64", "float16"]), st.data())
def test_what_one_plan_packed_is_right_for_others_of_its_order(geometry, want, dtype, data):
    more = [data.draw(st.integers(0, 40)) for _ in geometry.axes]
    axes = tuple(
        axis._replace(input=axis.input + n, output=axis.output + n * axis.stride)
        for axis, n in zip(geometry.axes, more, strict=True)
    )
    other = replace(geometry, axes=axes)
    if not all(engine.serves(each, want, dtype) for each in (geometry, other)):
        return
    method = data.draw(st.sampled_from(["auto", "direct"]))
    one, another = (engine.prepare(each, dtype, 1, method, want) for each in (geometry, other))
    if one.packing != another.packing:
        return
    x, w, y = (integers_like(other.shape_of(n), dtype, seed, 2) for seed, n in enumerate("xwy"))
    share = (geometry.groups, -1, *geometry.weight_shape[1:])
    packed = Packed(w.shape, one.pack(w.reshape(share)), another)
    read = x if want == "y" else y
    found = engine.contract(other, want, read, packed)
    wide = (each.astype("float64") for each in (read, w))
    assert np.array_equal(found, contract.contract(other, want, *wide).astype(dtype))


@st.composite
def bordered_geometries(draw):
    """Small images amid borders, or crops, that are wider than they are."""
    rank = draw(st.integers(1, 2))

    def axes(least, most):
        return [draw(st.integers(least, most)) for _ in range(rank)]

    size, kernel, stride = axes(1, 6), axes(1, 3), axes(1, 4)
    padding = []
    for n in range(rank):
        full = (size[n] - 1) * stride[n] + kernel[n]
        begin = draw(st.integers(-14, full - 1))
        padding.append((begin, draw(st.integers(-14, min(full - 1, full - 1 - begin)))))
    return Geometry.of((1, 1, *size), (1, 3, *kernel), stride=stride, padding=tuple(padding))


@draws(8)
@given(bordered_geometries(), st.sampled_from("yx"), st.sampled_from(["float32", "float64"]))
def test_borders_wider_than_the_image_have_plans(geometry, want, dtype):
    if not engine.serves(geometry, want, dtype):
        return
    a, w = (
        integers_like(geometry.shape_of(letter), dtype, 3) for letter in ("xw", "yw")[want == "x"]
    )
    found = engine.contract(geometry, want, a, w, threads=1)
    assert np.array_equal(found, contract.contract(geometry, want, a, w))


def test_a_task_without_cells_has_a_plan():
    geometry = Geometry.of((1, 1, 3), (1, 3, 1), stride=1, padding=((-5, -12),))
    for dtype in ("float32", "float64"):
        assert choose_plan(Problem(geometry, "y"), dtype, target(), 1) is not None
