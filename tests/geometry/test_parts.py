"""Parts of a contraction: boxes with the bits of the whole, weight gradients as sums of boxes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws, geometries, integer_operands
from tconv.errors import ParameterError
from tconv.geometry.geometry import OPERANDS, Geometry
from tconv.geometry.parts import channel_cuts, part_of, slices
from tconv.ops.dispatch import Call, solve_for

DIRECT = Call("part", method="direct")


def cut(draw, size):
    """Chunks that sum to a size."""
    ends = draw(st.sets(st.integers(1, max(size - 1, 1)), max_size=3))
    ends = sorted({*(end for end in ends if end < size), size} - {0})
    return [(start, end) for start, end in zip([0, *ends], ends, strict=False)]


@st.composite
def divided(draw, want, ranks=(1, 2, 3)):
    """A geometry, and cuts of its result's batch, channels and axes."""
    geometry = draw(geometries(ranks=ranks, batches=(1, 2, 3)))
    whole = geometry.in_channels if want == "x" else geometry.out_channels
    chunks = [end - start for start, end in cut(draw, whole)]
    sizes = geometry.input_size if want == "x" else geometry.output_size
    return (
        geometry,
        cut(draw, geometry.batch) if geometry.batched else [None],
        channel_cuts(geometry, want, chunks),
        [cut(draw, size) for size in sizes],
    )


def boxes(axes):
    if not axes:
        yield ()
        return
    for first in axes[0]:
        for rest in boxes(axes[1:]):
            yield (first, *rest)


def random_operands(geometry, want, dtype, seed):
    """Of values whose sums are rounded, so that another order gives other bits."""
    rng = np.random.default_rng(seed)
    names = OPERANDS[want]
    found = [rng.standard_normal(geometry.shape_of(name)) for name in names]
    if dtype.startswith("complex"):
        found = [a + 1j * rng.standard_normal(a.shape) for a in found]
    channels = geometry.in_channels if want == "x" else geometry.out_channels
    bias = None if want == "w" else rng.standard_normal(channels).astype(dtype)
    return [a.astype(dtype) for a in found], bias


def keeps_order(geometry, dtype):
    """Whether parts of the channels are summed in the order of all of them."""
    return geometry.data_format == "channels_first" and not dtype.startswith("complex")


@pytest.mark.parametrize("want", ["y", "x"])
@given(st.data(), st.sampled_from(["float32", "float64", "float16", "complex64"]))
@draws(2)
def test_boxes_have_the_bits_of_the_whole(want, data, dtype):
    geometry, images, channels, axes = data.draw(divided(want))
    if not keeps_order(geometry, dtype):
        channels = [(0, geometry.in_channels if want == "x" else geometry.out_channels)]
    (a, b), bias = random_operands(geometry, want, dtype, data.draw(st.integers(0, 99)))
    whole = solve_for(want, geometry, a, b, bias, DIRECT)
    seen = np.zeros(whole.shape, int)
    for batch in images:
        for of_channels in channels:
            for box in boxes(axes):
                part = part_of(geometry, want, box, batch=batch, channels=of_channels)
                pieces = a[slices(part.read)], b[slices(part.weight)], bias[slice(*part.channels)]
                found = solve_for(want, part.geometry, *pieces, DIRECT)
                np.testing.assert_array_equal(found, whole[slices(part.box)])
                if part.reads_nothing:
                    assert not a[slices(part.read)].size
                seen[slices(part.box)] += 1
    assert (seen == 1).all()


@given(st.data(), st.sampled_from(["float64", "int32"]))
@draws()
def test_a_weight_gradient_is_the_sum_over_boxes_of_y(data, dtype):
    geometry, images, _, axes = data.draw(divided("w"))
    x, _, y = (v.astype(dtype) for v in integer_operands(geometry))
    whole = solve_for("w", geometry, x, y, None, DIRECT)
    total = np.zeros_like(whole)
    for batch in images:
        for box in boxes(axes):
            part = part_of(geometry, "w", box, batch=batch)
            if not part.reads_nothing:
                operands = x[slices(part.read)], y[slices(part.box)]
                total += solve_for("w", part.geometry, *operands, None, DIRECT)
    np.testing.assert_array_equal(total, whole)


@given(st.data(), st.sampled_from("yx"))
@draws()
def test_a_part_reads_only_what_it_needs(data, want):
    """Every cell at the border of what is read counts: a change of it changes the box."""
    geometry, _, _, axes = data.draw(divided(want, ranks=(1,)))
    letter = OPERANDS[want][0]
    a, b = np.zeros(geometry.shape_of(letter)), np.ones(geometry.weight_shape)
    for box in boxes(axes):
        part = part_of(geometry, want, box)
        if part.reads_nothing:
            continue
        axis = a.ndim - (2 if geometry.data_format == "channels_last" else 1)
        for end in (part.read[axis][0], part.read[axis][1] - 1):
            a[...] = 0
            np.moveaxis(a, axis, 0)[end] = 1
            reached = solve_for(want, part.geometry, a[slices(part.read)], b, None, DIRECT).any()
            # With gaps between taps, the cells between may reach nothing.
            assert reached or geometry.axes[0].dilation > 1 or geometry.axes[0].stride > 1


@given(st.integers(1, 4), st.integers(1, 5), st.data())
def test_channel_cuts_keep_the_boundaries_of_chunks(groups, per, data):
    geometry = Geometry.of((1, groups, 4), (groups, per, 2), groups=groups)
    chunks = [end - start for start, end in cut(data.draw, groups * per)]
    cuts = channel_cuts(geometry, "y", chunks)
    assert [start for start, _ in cuts] == [0, *(stop for _, stop in cuts[:-1])]
    assert cuts[-1][1] == groups * per
    assert {sum(chunks[: n + 1]) for n in range(len(chunks))} <= {stop for _, stop in cuts}
    for interval in cuts:
        part_of(geometry, "y", [(0, 1)], channels=interval)


def test_a_cut_group_is_refused():
    geometry = Geometry.of((1, 2, 4), (2, 3, 2), groups=2)
    with pytest.raises(ParameterError, match=r"channels=\(1, 5\) must be of whole groups of 3"):
        part_of(geometry, "y", [(0, 1)], channels=(1, 5))
    with pytest.raises(ParameterError, match="must be left out for a weight gradient"):
        part_of(geometry, "w", [(0, 1)], channels=(0, 3))
