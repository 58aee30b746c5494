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
from tconv.engine.codegen.code import Number
from tconv.engine.high_rank import Folded, FoldedSums
from tconv.engine.plan import axis_folding
from tconv.engine.plan.axis_folding import Folds
from tconv.engine.plan.phases import Phases
from tconv.engine.plan.plan import DIRECT, TILES, Part, Plan
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import target
from tconv.engine.weight_gradient import executor as weight_gradient
from tconv.engine.weight_gradient.panel import Chunk
from tconv.engine.weight_gradient.plan import all_correlations
from tconv.engine.winograd.transform import Tiling
from tconv.geometry.geometry import Geometry

# ---- geometries ----------------------------------------------------------------------------------


@st.composite
def deep_geometries(draw):
    """Of so many channels that sums may be made tap by tap, and items spread."""
    geometry, channels = draw(geometries(ranks=(1, 2, 3))), draw(st.integers(512, 520))
    outputs = draw(st.integers(1, 8))
    return replace(
        geometry,
        in_channels=geometry.groups * channels,
        out_channels=geometry.groups * outputs,
    )


@st.composite
def wide_geometries(draw):
    """Of channels that fill vectors and tiles, or a part of them."""
    geometry = draw(geometries(ranks=(1, 2, 3), batches=(1, 2, 3)))
    channels, outputs = draw(st.integers(1, 40)), draw(st.integers(1, 9))
    return replace(
        geometry,
        in_channels=geometry.groups * channels,
        out_channels=geometry.groups * outputs,
    )


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
    """One of all plans; if its items are spread, they are of any size."""
    plan = draw(st.sampled_from(all_plans(problem, dtype, here or target(), threads)))
    return in_smaller_items(plan, problem.geometry, draw) if plan.is_spread else plan


def in_smaller_items(plan, geometry, draw):
    """A spread plan whose items are pieces of any size."""
    z, y, x = Phases.of(geometry.axes).axes
    counts = [draw(st.integers(1, axis.count)) for axis in (z, y, x)]
    if y.count > 1 or z.count > 1 or y.input > 1 or z.input > 1:
        counts[2] = x.count
    return plan._replace(planes=counts[0], rows=counts[1], columns=counts[2])


def channel_lanes_plan(draw, problem, dtype):
    """Any plan whose vectors are of channels."""
    tile, most = draw(st.sampled_from(TILES[target().instruction_set]))
    vectors, images = draw(st.integers(1, most)), draw(st.integers(1, problem.geometry.batch))
    part = Part.of_terms(problem.channels, draw(st.integers(1, 600)), draw(st.booleans()))
    block = vectors * Number(dtype, target()).lanes
    sizes = (min(tile, MOST_ROWS), vectors, False, False, False, DIRECT, images, 1, 1, block, 1)
    return Plan(*sizes, part, draw(st.integers(1, 3)), 0.0, is_turned=True)


def winograd_plan(draw, problem):
    """Any plan whose outputs share products, of up to three along each axis."""
    geometry = problem.geometry
    taps = [-(-axis.kernel // axis.stride) for axis in geometry.axes]
    most = tuple(draw(st.integers(1, max(1, min(3, 5 - n)))) for n in taps)
    is_uncropped = draw(st.booleans())
    phases = problem.phases(is_uncropped, is_spaced=True)
    wanted = (1,) * (3 - geometry.rank) + most
    outputs = tuple(n if axis.count > 1 else 1 for n, axis in zip(wanted, phases.axes, strict=True))
    outputs = (1, 1, 2) if outputs == DIRECT and phases.axes[2].count > 1 else outputs
    tiling = Tiling.of(phases, outputs)
    assume(tiling is not None and outputs != DIRECT and tiling.sums <= 256)
    z, y, x = phases.tiled(outputs).axes
    is_gathered = draw(st.booleans())
    columns = x.count if is_gathered else draw(st.integers(1, x.count))
    rows = draw(st.integers(1, (geometry.batch * z.count if is_gathered else 1) * y.count))
    tile, most = draw(st.sampled_from(TILES[target().instruction_set]))
    return Plan(
        *(tile, draw(st.integers(1, most)), is_uncropped, is_gathered, False, outputs, 1),
        *(rows, columns, draw(st.integers(1, problem.outputs)), draw(st.integers(1, 2))),
        *(Part.of_terms(problem.channels, draw(st.integers(1, 100))), draw(st.integers(1, 3)), 0.0),
    )


@st.composite
def winograd_plans(draw):
    """A problem, and any plan for it whose outputs share products."""
    problem = Problem(draw(winograd_geometries()), draw(st.sampled_from("yx")))
    return problem, winograd_plan(draw, problem)


def in_other_chunks(plan, geometry, draw):
    """A plan for w with chunks of any size, and any number of segments."""
    size = Problem(geometry, "x").written_size
    chunk = Chunk.of(geometry.batch, size, draw(st.integers(1, 30)))
    counts = zip((geometry.batch, *size), chunk, strict=True)
    chunks = int(np.prod([-(-count // size) for count, size in counts]))
    return plan._replace(chunk=chunk, segments=draw(st.integers(1, min(chunks, 5))))


def weight_gradient_plan(draw, geometry, dtype):
    """One of all plans for w, as it is chosen or in chunks of any size."""
    plan = draw(st.sampled_from(all_correlations(Problem(geometry, "x"), dtype, target())))
    return in_other_chunks(plan, geometry, draw) if draw(st.booleans()) else plan


def in_blocks_of(size, geometry, dtype, want="y", threads=None):
    """A plan for more than three axes whose blocks have so many bytes."""
    problem = Problem(engine._usual(geometry), "y" if want == "y" else "x")
    kind, make = Folded, executor.ready
    if want == "w":
        kind, make = FoldedSums, weight_gradient.correlated
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(axis_folding, "_BLOCK_BYTES", size)
        Folds.of.cache_clear()
        found = kind(problem, dtype, target(), threads or target().threads, make)
    Folds.of.cache_clear()
    return found
