"""Random plans of every kind, also those that are never the cheapest, for any problem."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume
from hypothesis import strategies as st

from strategies import geometries
from tconv import engine
from tconv.engine import executor
from tconv.engine.channel_lanes.candidates import MOST_ROWS
from tconv.engine.choose import all_plans
from tconv.engine.codegen.code import ElementType
from tconv.engine.high_rank import HighRankPrimitive, HighRankWeightGradient
from tconv.engine.plan import axis_folding
from tconv.engine.plan.axis_folding import AxisFolding
from tconv.engine.plan.phases import Phases
from tconv.engine.plan.plan import ONE_OUTPUT, KBlock, Plan
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import target
from tconv.engine.weight_gradient import executor as weight_gradient
from tconv.engine.weight_gradient.panel import ReductionBlock
from tconv.engine.weight_gradient.plan import all_gradient_plans
from tconv.engine.winograd.transform import WinogradTransform
from tconv.geometry.geometry import Geometry

# ---- geometries ----------------------------------------------------------------------------------


@st.composite
def deep_geometries(draw):
    """With so many channels that sums may go tap by tap, as col2im does."""
    geometry, channels = draw(geometries(ranks=(1, 2, 3))), draw(st.integers(512, 520))
    return _of_channels(geometry, channels, draw(st.integers(1, 8)))


@st.composite
def wide_geometries(draw):
    """Of channels that fill vectors and tiles, or a part of them."""
    geometry = draw(geometries(ranks=(1, 2, 3), batches=(1, 2, 3)))
    return _of_channels(geometry, draw(st.integers(1, 40)), draw(st.integers(1, 9)))


def _of_channels(geometry, channels, outputs):
    """The geometry with so many channels of x and y in a group."""
    groups = geometry.groups
    return replace(geometry, in_channels=groups * channels, out_channels=groups * outputs)


@st.composite
def cropped_geometries(draw):
    """With more padding: cells of x that no tap joins to y."""
    geometry, crop = draw(wide_geometries()), draw(st.integers(1, 6))
    axes = tuple(
        axis._replace(
            input=axis.input + 2 * crop,
            begin=axis.begin + crop * axis.stride,
            end=axis.end + crop * axis.stride,
        )
        for axis in geometry.axes
    )
    return replace(geometry, axes=axes)


@st.composite
def winograd_geometries(draw):
    """Of up to three taps a phase, so that outputs can share products."""
    rank, groups = draw(st.integers(1, 3)), draw(st.integers(1, 2))
    axes = [draw(st.tuples(*[st.integers(1, 3)] * 2, st.booleans())) for _ in range(rank)]
    odd = [stride == taps == 2 and is_odd for stride, taps, is_odd in axes]
    dilation = [1 if is_odd else draw(st.sampled_from((1, 1, 1, 2, 3))) for is_odd in odd]
    kernel = [stride * taps - is_odd for (stride, taps, _), is_odd in zip(axes, odd, strict=True)]
    size = [draw(st.integers(2, (40, 12, 6)[rank - 1])) for _ in range(rank)]
    x_shape = (draw(st.integers(1, 3)), groups * draw(st.integers(1, 6)), *size)
    return Geometry.of(
        x_shape,
        (x_shape[1], draw(st.integers(1, 7)), *kernel),
        stride=tuple(stride for stride, *_ in axes),
        dilation=tuple(dilation),
        padding=tuple(draw(st.integers(0, n // 2)) for n in kernel),
        groups=groups,
    )


# ---- plans ---------------------------------------------------------------------------------------


def any_plan(draw, problem, dtype, here=None, threads=1):
    """One of all plans; the tasks of col2im are of any size."""
    plan = draw(st.sampled_from(all_plans(problem, dtype, here or target(), threads)))
    return in_smaller_tasks(plan, problem.geometry, draw) if plan.algorithm == "col2im" else plan


def in_smaller_tasks(plan, geometry, draw):
    """A col2im plan whose tasks have any size."""
    z, y, x = Phases.of(geometry.axes).axes
    counts = [draw(st.integers(1, axis.count)) for axis in (z, y, x)]
    if y.count > 1 or z.count > 1 or y.input > 1 or z.input > 1:
        counts[2] = x.count
    return plan._replace(planes=counts[0], rows=counts[1], columns=counts[2])


def channel_lanes_plan(draw, problem, dtype):
    """Any plan whose lanes are channels."""
    tile, most = draw(st.sampled_from(target().isa.gemm_tiles))
    vectors, images = draw(st.integers(1, most)), draw(st.integers(1, problem.geometry.batch))
    return Plan(
        tile=min(tile, MOST_ROWS),
        vectors=vectors,
        algorithm="channel_lanes",
        panel="none",
        planes=images,
        rows=1,
        columns=1,
        block=vectors * ElementType(dtype, target()).lanes,
        k_block=KBlock.of_terms(problem.channels, draw(st.integers(1, 600)), draw(st.booleans())),
        threads=draw(st.integers(1, 3)),
    )


def winograd_plan(draw, problem):
    """Any Winograd plan, of up to three outputs along each axis."""
    geometry = problem.geometry
    taps = [-(-axis.kernel // axis.stride) for axis in geometry.axes]
    most = tuple(draw(st.integers(1, max(1, min(3, 5 - n)))) for n in taps)
    is_uncropped = draw(st.booleans())
    phases = problem.phases(is_uncropped, is_spaced=True)
    wanted = (1,) * (3 - geometry.rank) + most
    outputs = tuple(n if axis.count > 1 else 1 for n, axis in zip(wanted, phases.axes, strict=True))
    outputs = (1, 1, 2) if outputs == ONE_OUTPUT and phases.axes[2].count > 1 else outputs
    transform = WinogradTransform.of(phases, outputs)
    assume(transform is not None and outputs != ONE_OUTPUT and transform.input_points <= 256)
    z, y, x = phases.unrolled(outputs).axes
    is_im2col = draw(st.booleans())
    columns = x.count if is_im2col else draw(st.integers(1, x.count))
    rows = draw(st.integers(1, (geometry.batch * z.count if is_im2col else 1) * y.count))
    tile, most = draw(st.sampled_from(target().isa.gemm_tiles))
    return Plan(
        tile=tile,
        vectors=draw(st.integers(1, most)),
        is_uncropped=is_uncropped,
        algorithm="winograd",
        panel="im2col" if is_im2col else "padded",
        outputs=outputs,
        planes=1,
        rows=rows,
        columns=columns,
        block=draw(st.integers(1, problem.outputs)),
        splits=draw(st.integers(1, 2)),
        k_block=KBlock.of_terms(problem.channels, draw(st.integers(1, 100))),
        threads=draw(st.integers(1, 3)),
    )


@st.composite
def winograd_plans(draw):
    """A problem, and any Winograd plan for it."""
    problem = Problem(draw(winograd_geometries()), draw(st.sampled_from("yx")))
    return problem, winograd_plan(draw, problem)


def in_other_blocks(plan, geometry, draw):
    """A plan for w with k-blocks of any size, and any number of k-splits."""
    size = Problem(geometry, "x").written_size
    k_block = ReductionBlock.of(geometry.batch, size, draw(st.integers(1, 30)))
    counts = zip((geometry.batch, *size), k_block, strict=True)
    blocks = int(np.prod([-(-count // size) for count, size in counts]))
    return plan._replace(k_block=k_block, k_splits=draw(st.integers(1, min(blocks, 5))))


def weight_gradient_plan(draw, geometry, dtype):
    """One of all plans for w, as it is chosen or in k-blocks of any size."""
    plan = draw(st.sampled_from(all_gradient_plans(Problem(geometry, "x"), dtype, target())))
    return in_other_blocks(plan, geometry, draw) if draw(st.booleans()) else plan


def in_blocks_of(size, geometry, dtype, want="y", threads=None):
    """A plan for more than three axes whose blocks have so many bytes."""
    problem = Problem(engine._canonical(geometry), "y" if want == "y" else "x")
    kind, make = HighRankPrimitive, executor.create_primitive
    if want == "w":
        kind, make = HighRankWeightGradient, weight_gradient.create_weight_gradient
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(axis_folding, "_BLOCK_BYTES", size)
        AxisFolding.of.cache_clear()
        found = kind(problem, dtype, target(), threads or target().threads, make)
    AxisFolding.of.cache_clear()
    return found
