"""Random problems for the algorithms whose lanes are cells of a row of y, and any plans for them.

Sizes are below and above a vector, paddings longer than kernels, and of any two ends.
"""

from dataclasses import replace
from math import gcd, prod

import numpy as np
from hypothesis import strategies as st

from strategies import integers_like
from tconv.arrays.canonical import canonical
from tconv.engine import executor
from tconv.engine.choose import all_plans
from tconv.engine.depthwise import candidates as depthwise
from tconv.engine.plan.plan import KBlock, Plan
from tconv.engine.row_gemm import candidates as row_gemm
from tconv.engine.target.isa import INSTRUCTION_SETS
from tconv.engine.target.target import named_target, target
from tconv.geometry.axis import Axis
from tconv.geometry.geometry import Geometry

MASKED = [named_target(cpu) for cpu in ("haswell", "skylake-avx512")]
NOT_MASKED = [named_target(cpu) for cpu in ("x86-64", "neoverse-v1", "apple-m1")]
"""Targets of each instruction set with masks for loads and stores, and some of those without."""
assert {each.isa.name for each in MASKED} == {r.name for r in INSTRUCTION_SETS if r.has_masks}
assert not any(each.isa.has_masks for each in NOT_MASKED)
CYCLES = (0.0, 1e9)  # expected of a call: code that is used as it is at first, or optimised
_MOST_CELLS = 1_000_000  # of W* for all pairs of channels: the oracle lays it out

# ---- geometries ----------------------------------------------------------------------------------


@st.composite
def depthwise_geometries(draw):
    """Of few channels a group, with taps for all of few phases; one plane deep."""
    height, width = draw(st.sampled_from([(1, 1), (1, 2), (2, 1), (2, 2), (1, 3), (4, 1), (1, 4)]))
    kind, channels = draw(st.integers(0, 3)), draw(st.sampled_from(_FEW_CHANNELS))
    size = draw(st.sampled_from([(9, 12), (3, 40), (2, 70)]))
    axes = [draw(row_axes(size[1], width, least=width))]
    if kind:
        axes.insert(0, draw(row_axes(size[0], height, least=height)))
    if kind == 3:
        axes.insert(0, Axis(1, 1, 1))
    return _of(draw, axes, channels, groups=draw(st.integers(1, 4)))


_FEW_CHANNELS = ((1, 1), (1, 1), (1, 2), (3, 1), (2, 2), (4, 4), (2, 7))


@st.composite
def row_gemm_geometries(draw):
    """Of channels that fill tiles or a part of one; for x of any stride, for y mostly of none."""
    rank = draw(st.integers(1, 3))
    strides = [draw(st.sampled_from([1, 1, 2, 3, 4])) for _ in range(rank)]
    strides = [1] * rank if draw(st.booleans()) else strides
    most = ((70,), (5, 40), (3, 3, 24))[rank - 1]
    taps = draw(st.sampled_from([1, 4, 4]))  # with one tap x may be read in place
    axes = [draw(row_axes(n, s, most_taps=taps)) for n, s in zip(most, strides, strict=True)]
    channels = draw(st.integers(1, 9)), draw(st.integers(1, 9))
    if draw(st.booleans()):  # of long sums
        axes = [draw(row_axes(20, s, most_taps=taps)) for s in strides[-1:]]
        channels = draw(st.permutations((draw(st.integers(100, 600)), draw(st.integers(1, 3)))))
    return _of(draw, axes, channels, groups=draw(st.integers(1, 2)))


@st.composite
def row_axes(draw, most, stride, least=1, most_taps=5):
    """An axis of up to so many cells of x, with more padding than kernel, or less than none."""
    size = draw(st.integers(1, most) | st.integers(-(-most // 2), most))
    kernel = draw(st.integers(least, max(least, most_taps)))
    dilation = draw(st.sampled_from([n for n in (1, 1, 2, 3) if gcd(n, stride) == 1]))
    if kernel == 1 and draw(st.booleans()):  # as the 1x1 kernels of networks
        return Axis(size, 1, stride * (size - 1) + 1, stride)
    axis = Axis(size, kernel, 0, stride, dilation)
    axis = axis._replace(extra=draw(st.integers(0, max(stride, dilation) - 1)))
    longest = axis.reach + 2
    axis = axis._replace(begin=draw(st.integers(-3, min(longest, axis.law - 1))))
    axis = axis._replace(end=draw(st.integers(-3, min(longest, axis.law - 1))))
    return axis._replace(output=axis.law)


def _of(draw, axes, channels, groups):
    """A geometry that the definition can lay out."""
    pairs = prod(channels) * groups**2
    while pairs * prod(axis.input * axis.output for axis in axes) > _MOST_CELLS:
        largest = max(range(len(axes)), key=lambda n: axes[n].input * axes[n].output)
        axes[largest] = _shorter(axes[largest])
    batch = draw(st.integers(1, 3))
    return Geometry(batch, *(groups * each for each in channels), groups, tuple(axes))


def _shorter(axis):
    """The axis with half of its cells, or with one tap if it has one cell."""
    if axis.input == 1:
        return Axis(1, 1, 1)
    begin = min(axis.begin, axis.reach - 1)
    axis = axis._replace(input=axis.input // 2, begin=begin, end=0)
    return axis._replace(output=axis.law)


# ---- plans ---------------------------------------------------------------------------------------


def depthwise_plan(draw, problem, dtype):
    """Any depthwise plan, in tasks of some planes or some rows of one; None if there is none."""
    here = target()
    found = depthwise.candidates(problem, dtype, here)
    if not found:
        return None
    plan, _, _ = draw(st.sampled_from(found))
    planes = depthwise.DepthwiseCosts(problem, dtype, here).planes
    rows, count = problem.phases().axes[1].count, draw(st.integers(1, planes))
    if count == 1:
        rows = min(rows, plan.tile * draw(st.integers(1, -(-rows // plan.tile))))
    threads, cycles = draw(st.integers(1, 3)), draw(st.sampled_from(CYCLES))
    return plan._replace(planes=count, rows=rows, threads=threads, cycles=cycles)


def row_gemm_plan(draw, problem, dtype, has_its_k_block=False):
    """Any row GEMM, in tasks of some rows or of whole tiles of one; None if there is none."""
    here = target()
    if not row_gemm.candidates(problem, dtype, here):
        return None
    costs = row_gemm.RowGemmCosts(problem, dtype, here)
    tile, most = draw(st.sampled_from(here.isa.gemm_tiles))
    vectors, columns = draw(st.integers(1, most)), costs.columns
    rows = draw(st.integers(1, costs.rows))
    if rows == 1:
        columns = min(columns, vectors * costs.lanes * draw(st.integers(1, 4)))
    k_block = KBlock.of(problem)
    if not has_its_k_block:
        k_block = KBlock.of_terms(problem.channels, draw(st.integers(1, 600)))
    return Plan(
        tile=min(tile, problem.outputs),
        vectors=vectors,
        algorithm="row_gemm",
        panel="none" if costs.copies else "rows",
        planes=1,
        rows=rows,
        columns=columns,
        block=draw(st.integers(1, problem.outputs)),
        k_block=k_block,
        threads=draw(st.integers(1, 3)),
        cycles=draw(st.sampled_from(CYCLES)),
    )


def plans_beside(problem, dtype, plan):
    """Plans of other algorithms that sum in the order of a plan."""
    return [
        other
        for other in all_plans(problem, dtype, target(), 1)
        if other.algorithm not in ("depthwise", "row_gemm") and other.order == plan.order
    ]


# ---- calls ---------------------------------------------------------------------------------------

_CANARY = 77


def computed(problem, plan, dtype, read, w, bias=None):
    """What a plan writes, from x amid NaN; it leaves what lies beside alone."""
    primitive = executor.Primitive(problem, dtype, target(), plan)
    batch = problem.geometry.batch
    around_x, memory = (
        np.full((batch + 2, *problem.geometry.shape_of(letter)[1:]), value, dtype)
        for letter, value in ((problem.read, np.nan), (problem.want, _CANARY))
    )
    x, out = around_x[1:-1], memory[1:-1]
    x[...], out[...] = read, np.nan
    packed = primitive.pack(np.ascontiguousarray(canonical(np, problem.geometry, "w", w)))
    primitive(x, packed, primitive.pack_bias(bias), out)
    assert (memory[[0, -1]] == _CANARY).all()
    return out


def operands(problem, dtype, seed=0):
    """What is read, the weight and a bias, whose sums depend on their order."""
    rng, geometry = np.random.default_rng(seed), problem.geometry
    shapes = (
        *(geometry.shape_of(problem.read), geometry.weight_shape),
        geometry.shape_of(problem.want)[1],
    )
    return [rng.standard_normal(shape).astype(dtype) for shape in shapes]


def exact_operands(problem, dtype):
    """The same of small integers, whose sums are exact."""
    geometry = problem.geometry
    shapes = (geometry.shape_of(problem.read), geometry.weight_shape)
    channels = (geometry.shape_of(problem.want)[1],)
    return [integers_like(shape, dtype, n) for n, shape in enumerate((*shapes, channels))]


def activated(problem, activation):
    """The problem with an activation."""
    return replace(problem, activation=activation)
