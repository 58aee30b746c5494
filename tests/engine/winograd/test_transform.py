"""Winograd plans compute the definition's result, but for the last digits."""

import ctypes
from fractions import Fraction
from functools import partial
from itertools import product
from math import ceil, lcm

import numpy as np
import pytest
from engine.plans import winograd_plans
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws, integer_operands, keywords_of
from tconv import conv, conv_transpose, plan
from tconv.arrays.canonical import canonical
from tconv.engine import executor
from tconv.engine.choose import all_plans, choose_plan
from tconv.engine.codegen.code import write
from tconv.engine.compile.jit import load
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import target
from tconv.engine.winograd.kernels import flag_large
from tconv.engine.winograd.transform import LARGE, WinogradTransform, transform_matrices
from tconv.geometry.geometry import Geometry

WANTS = st.sampled_from("yx")
SIZES = [(outputs, taps) for outputs in (1, 2, 3) for taps in (1, 2, 3) if outputs + taps <= 5]


@pytest.mark.parametrize(("outputs", "taps"), SIZES)
def test_fewer_products_give_the_same_outputs(outputs, taps):
    a, g, b = (
        [[Fraction(c) for c in row] for row in matrix]
        for matrix in transform_matrices(outputs, taps)
    )
    assert len(g) == len(b) == outputs + taps - 1 if taps > 1 else outputs
    rng = np.random.default_rng(0)
    x, w = ([int(n) for n in rng.integers(-9, 10, len(m[0]))] for m in (b, g))
    products = [sum(p * q for p, q in zip(row, x, strict=True)) for row in b]
    of_w = [sum(p * q for p, q in zip(row, w, strict=True)) for row in g]
    products = [p * q for p, q in zip(products, of_w, strict=True)]
    found = [sum(p * q for p, q in zip(row, products, strict=True)) for row in a]
    assert found == [sum(x[j + k] * w[k] for k in range(taps)) for j in range(outputs)]


@pytest.mark.parametrize(("outputs", "taps"), SIZES)
def test_only_weights_are_multiplied_by_other_than_one(outputs, taps):
    a, g, b = transform_matrices(outputs, taps)
    assert {abs(c) for matrix in (a, b) for row in matrix for c in row} <= {0.0, 1.0}
    assert {abs(c) for row in g for c in row} <= {0.0, 0.5, 1.0}


# 2-D layers of three taps, of two taps in four phases, of odd sizes and strides, 1-D and 3-D ones,
# and dilated ones
LAYERS = [
    ((1, 256, 30, 30), (256, 32, 3, 3), {"padding": 1}),
    ((2, 144, 13, 17), (144, 64, 4, 4), {"stride": 2, "padding": 1}),
    ((1, 256, 21, 21), (256, 48, 3, 3), {"stride": 2}),
    ((1, 512, 200), (512, 64, 16), {"stride": 8, "padding": 4}),
    ((1, 85, 9, 9, 9), (85, 32, 3, 3, 3), {"padding": 1}),
    ((1, 256, 31, 30), (256, 48, 3, 3), {"padding": 2, "dilation": 2}),
    ((1, 256, 300), (256, 48, 3), {"padding": 8, "dilation": 8}),
]


@pytest.mark.parametrize("solve", [conv_transpose, conv])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_it_is_as_exact_as_was_promised(layer, solve):
    x_shape, weight_shape, keywords = layer
    geometry = Geometry.of(x_shape, weight_shape, **keywords)
    rng = np.random.default_rng(0)
    want = "y" if solve is conv_transpose else "x"
    read = rng.standard_normal(geometry.shape_of("x" if want == "y" else "y")).astype(np.float32)
    w = rng.standard_normal(weight_shape).astype(np.float32)
    exact = solve(read.astype(np.float64), w.astype(np.float64), **keywords)
    error = np.abs(solve(read, w, **keywords) - exact).max() / np.abs(exact).max()
    assert error <= 2e-6
    direct = solve(read, w, method="direct", **keywords)
    assert np.abs(direct - exact).max() / np.abs(exact).max() <= 2e-6


# ---- cells that are not finite -------------------------------------------------------------------

UNSAFE = [np.nan, np.inf, -np.inf, 2.0**100, -(2.0**127)]


@draws(1)
@given(winograd_plans(), st.data())
def test_images_with_cells_that_would_spread_have_the_bits_of_direct(found, data):
    """Whatever the plan, and so for any number of threads; other images have those of Winograd."""
    problem, tiles = found
    geometry = problem.geometry
    x, w, y = (array.astype(np.float32) for array in integer_operands(geometry))
    read = x if problem.want == "y" else y
    bias = np.arange(problem.outputs * geometry.groups, dtype=np.float32)
    cells = data.draw(st.sets(st.integers(0, read.size - 1), max_size=3))
    hostile = read.copy()
    for cell in cells:
        hostile.flat[cell] = data.draw(st.sampled_from(UNSAFE))
    primitive = executor.Primitive(problem, "float32", target(), tiles)
    packed = primitive.pack(np.ascontiguousarray(canonical(np, geometry, "w", w)))
    written = np.full(geometry.shape_of(problem.want), -1, np.float32)
    primitive(hostile, packed, primitive.pack_bias(bias), written)
    images = {cell // (read.size // geometry.batch) for cell in cells}
    solve = conv_transpose if problem.want == "y" else conv
    with np.errstate(all="ignore"):
        for n in range(geometry.batch):
            one, keywords = hostile[n : n + 1], keywords_of(geometry)
            if problem.want == "x":
                keywords = {**keywords, "input_size": geometry.input_size}
            direct = solve(one, w, bias, method="direct", **keywords)
            same = np.array_equal(written[n : n + 1], direct, equal_nan=True)
            assert same or n not in images
            if n not in images:  # integers are exact in every order
                assert same


@pytest.mark.parametrize("solve", [conv_transpose, conv])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_a_cell_that_is_not_finite_spreads_no_further_than_its_taps(layer, solve):
    x_shape, weight_shape, keywords = layer
    geometry = Geometry.of(x_shape, weight_shape, **keywords)
    rng = np.random.default_rng(0)
    shape = geometry.shape_of("x" if solve is conv_transpose else "y")
    read, w = (rng.standard_normal(size).astype(np.float32) for size in (shape, weight_shape))
    read[(0, 5, *(n // 2 for n in shape[2:]))] = np.inf
    call = plan(x_shape, weight_shape, want="y" if solve is conv_transpose else "x", **keywords)
    packed = call.pack(w)
    kept = w.copy()
    w[...] = 0  # what was packed is a copy
    results = [call(read, packed), *(solve(read, kept, threads=n, **keywords) for n in (1, 2, 5))]
    direct = solve(read, kept, method="direct", **keywords)
    for result in results:
        assert np.array_equal(np.isfinite(result), np.isfinite(direct))
        assert np.array_equal(result[:1], direct[:1], equal_nan=True)


@pytest.mark.parametrize("solve", [conv_transpose, conv])
@pytest.mark.parametrize("layer", LAYERS, ids=str)
def test_the_error_is_bounded_by_the_cells_of_a_neighbourhood(layer, solve):
    """The bound of docs/algorithms.md; beyond the neighbourhood a large cell changes no bit."""
    x_shape, weight_shape, keywords = layer
    geometry = Geometry.of(x_shape, weight_shape, **keywords)
    rng, rank, is_y = np.random.default_rng(0), geometry.rank, solve is conv_transpose
    shape = geometry.shape_of("x" if is_y else "y")
    plain, w = (rng.standard_normal(size).astype(np.float32) for size in (shape, weight_shape))
    place = (5, *(n // 2 for n in shape[2:]))
    spiked, spike = plain.copy(), np.zeros((1, 1, *shape[2:]))
    spiked[(slice(None), *place)], spike[(0, 0, *place[1:])] = 1e6, 1
    near = solve(spike, np.ones((1, 1, *geometry.kernel_size)), **keywords) > 0
    for n, axis in enumerate(geometry.axes, 2):
        apart = lcm(axis.stride, axis.dilation) // (1 if is_y else axis.stride)
        near = np.any([shifted(near, n, by) for by in range(-2 * apart, 2 * apart + 1)], axis=0)
    found = solve(spiked, w, **keywords)
    same = found == solve(plain, w, **keywords)
    assert np.all(same | near)
    assert not np.all(same)
    exact = solve(spiked.astype(np.float64), w.astype(np.float64), **keywords)
    most = np.where(near, 1e6, np.abs(plain).max())
    axes = (0, *range(2, rank + 2)) if is_y else range(1, rank + 2)
    sums = np.abs(w).sum(axis=tuple(axes)).reshape(-1, *[1] * rank)
    terms = geometry.terms("y" if is_y else "x")
    assert np.all(np.abs(found - exact) <= (terms + 32) * 2.0**-24 * 4**rank * most * sums)


def shifted(mask, axis, by):
    """A mask moved along an axis; nothing comes in."""
    moved = np.roll(mask, by, axis)
    gone = [slice(None)] * mask.ndim
    gone[axis] = slice(0, by) if by >= 0 else slice(by, None)
    moved[tuple(gone)] = False
    return moved


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_every_large_cell_is_flagged_and_no_other(dtype):
    """At every place of runs of every length, with large cells and unreadable memory around."""
    if not target().uses_engine:
        return
    name = f"flag_large_{dtype}"
    found = load(name, partial(write, flag_large, name, dtype, target()), target())
    flagged = ctypes.CFUNCTYPE(None, *[ctypes.c_void_p] * 2, ctypes.c_int64)(found)
    large = LARGE[np.dtype(dtype).itemsize]
    less = np.nextafter(np.array(large, dtype), np.array(0, dtype))
    flag = np.zeros(1, np.int64)
    for count in [*range(70), 129, 200]:
        cells = np.full(count + 2, np.nan, dtype)
        cells[1 : count + 1] = (-less, less)[count % 2]

        def is_found(cells=cells, count=count):
            flag[0] = 0
            flagged(flag.ctypes.data, cells[1:].ctypes.data, count)
            return bool(flag[0])

        assert not is_found()
        for place in range(1, count + 1):
            kept, cells[place] = cells[place], (large, -large, np.inf, -np.nan)[place % 4]
            assert is_found()
            cells[place] = kept


def test_layers_that_winograd_plans_are_chosen_for():
    """Winograd is chosen where it saves much, for float32 alone, and never where it is excluded."""
    if not target().uses_engine:
        return

    def is_winograd(geometry, want="y", dtype="float32", **options):
        plan = choose_plan(Problem(geometry, want, **options), dtype, target(), 2)
        return plan.algorithm == "winograd"

    middle = Geometry.of((1, 256, 56, 56), (256, 256, 3, 3), padding=1)
    dilated = Geometry.of((1, 256, 56, 56), (256, 256, 3, 3), padding=2, dilation=2)
    assert is_winograd(middle)
    assert is_winograd(middle, "x")
    assert is_winograd(dilated)
    assert is_winograd(dilated, "x")
    assert not is_winograd(middle, without_winograd=True)
    assert not is_winograd(middle, dtype="float64")
    assert not is_winograd(Geometry.of((1, 256, 56, 56), (256, 256, 1, 1)))
    assert not is_winograd(Geometry.of((1, 2, 56, 56), (2, 1, 3, 3)))


def test_the_order_of_sums_does_not_depend_on_threads():
    rng = np.random.default_rng(0)
    for x_shape, weight_shape, keywords in LAYERS:
        x = rng.standard_normal(x_shape).astype(np.float32)
        w = rng.standard_normal(weight_shape).astype(np.float32)
        first, *others = (conv_transpose(x, w, threads=n, **keywords) for n in (1, 2, 3, 7))
        for other in others:
            assert np.array_equal(first, other)


def test_measured_plans_sum_in_the_order_of_the_chosen_one():
    x_shape, weight_shape, keywords = LAYERS[0]
    rng = np.random.default_rng(0)
    x = rng.standard_normal(x_shape).astype(np.float32)
    w = rng.standard_normal(weight_shape).astype(np.float32)
    measured = conv_transpose(x, w, method="measure", **keywords)
    assert np.array_equal(measured, conv_transpose(x, w, **keywords))


@pytest.mark.parametrize(("taps", "products"), [(4, 6), (5, 7), (7, 10), (9, 12), (11, 15)])
def test_more_than_three_taps_are_pieces(taps, products):
    """Of two outputs at a time; and there are none of too many taps to be worth their sums."""
    problem = Problem(Geometry.of((1, 1, 40), (1, 1, taps)), "x")
    transform = WinogradTransform.of(problem.phases(), (1, 1, 2))
    assert transform.transformed_weights == products
    many = Problem(Geometry.of((1, 1, 40), (1, 1, 65)), "x")
    assert WinogradTransform.of(many.phases(), (1, 1, 2)) is None


def test_residue_classes_are_pieces_of_several_lengths():
    problem = Problem(Geometry.of((1, 1, 20, 20), (1, 1, 3, 3), stride=2), "x")
    assert WinogradTransform.of(problem.phases(), (1, 2, 2)).transformed_weights == 5 * 5


@pytest.mark.parametrize("want", ["y", "x"])
def test_plans_of_every_size_are_considered(want):
    """So that the laws of all plans, in test_engine.py and guarded.py, are laws of these, too."""
    if not target().uses_engine:
        return
    geometry = Geometry.of((2, 16, 9, 11), (16, 16, 4, 4), stride=2, padding=1)
    plans = all_plans(Problem(geometry, want), "float32", target(), 2)
    plans = [plan for plan in plans if plan.algorithm == "winograd"]
    kinds = {(p.panel, p.outputs) for p in plans}
    assert kinds == set(product(("padded", "im2col"), ((1, 2, 2), (1, 3, 3))))
    for each in plans:
        assert each.block <= 16
        assert ceil(16 / each.block) >= each.splits
