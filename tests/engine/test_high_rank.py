"""More than three axes equal the definition, in the same order of sums, within what they say."""

import tracemalloc
from math import prod

import numpy as np
import pytest
from engine.plans import in_blocks_of
from hypothesis import assume, given
from hypothesis import strategies as st

from strategies import (
    ENGINE_TYPES,
    draws,
    geometries,
    integers_like,
    operands_of,
)
from tconv import engine
from tconv.engine.plan.axis_folding import AxisFolding
from tconv.geometry.geometry import Geometry
from tconv.ops.functional import conv, conv_transpose
from tconv.ops.planned_call import plan
from tconv.portable import contract

TYPES = st.sampled_from(ENGINE_TYPES)
WANTS = st.sampled_from("yxw")
BLOCKS = st.sampled_from([0, 2**10, 2**14, 2**23])
IS_WASTEFUL = AxisFolding.is_wasteful


@pytest.fixture(autouse=True)
def every_geometry_is_folded(monkeypatch):
    """However small it is."""
    monkeypatch.setattr(AxisFolding, "is_wasteful", False)
    engine.serves.cache_clear()
    yield
    engine.serves.cache_clear()


# ---- what it computes ----------------------------------------------------------------------------


@draws(1)
@given(geometries(ranks=(4, 5), batches=(2, 3), plain=True), WANTS, TYPES)
def test_blocks_and_threads_give_the_same_bits(geometry, want, dtype):
    """Of w threads alone: blocks, which follow from sizes, are what is added up."""
    assume(engine.serves(geometry, want, dtype))
    rng = np.random.default_rng(0)
    x, w, y = (rng.standard_normal(geometry.shape_of(letter)).astype(dtype) for letter in "xwy")
    found = {}
    for size, threads in ((0, 1), (0, 3), (2**23, 2), (2**23, 1)):
        primitive = in_blocks_of(size, geometry, dtype, want, threads)
        bits = engine.contract(geometry, want, *operands_of(want, x, w, y), plan=primitive) + 0.0
        found.setdefault(size if want == "w" else 0, set()).add(bits.tobytes())
    assert {len(bits) for bits in found.values()} == {1}


@pytest.mark.parametrize("channels", [(37, 5), (19, 9), (300, 3)])
@pytest.mark.parametrize("stride", [1, 2])
def test_a_crop_of_the_input_gives_a_crop_of_the_output(stride, channels):
    rng = np.random.default_rng(0)
    x = rng.standard_normal((1, channels[0], 7, 6, 6, 7)).astype(np.float32)
    w = rng.standard_normal((*channels, 3, 3, 2, 3)).astype(np.float32)
    whole = conv_transpose(x, w, stride=stride, method="direct")
    crop = tuple(slice(1, n) for n in x.shape[2:])
    part = conv_transpose(np.ascontiguousarray(x[(..., *crop)]), w, stride=stride, method="direct")
    # Without the border, to which cells beside the crop contribute too.
    inner = tuple(slice(2, n - 2) for n in part.shape[2:])
    shifted = tuple(slice(2 + stride, stride + n - 2) for n in part.shape[2:])
    assert np.array_equal(part[(..., *inner)], whole[(..., *shifted)])


@pytest.mark.parametrize("stride", [1, 2])
def test_a_crop_of_what_is_convolved_gives_a_crop_of_it(stride):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((1, 19, 9, 7, 8, 9)).astype(np.float32)
    w = rng.standard_normal((5, 19, 3, 3, 2, 3)).astype(np.float32)
    whole = conv(y, w, stride=stride, method="direct")
    crop = (..., *[slice(stride, None)] * 4)
    part = conv(np.ascontiguousarray(y[crop]), w, stride=stride, method="direct")
    assert np.array_equal(part, whole[(..., *[slice(1, None)] * 4)])


@pytest.mark.parametrize("rows", [3, 4, 5])
def test_what_two_blocks_have_is_added_once(rows):
    """So an infinity stays one: it is not multiplied by zero where it was added before."""
    geometry = Geometry.of((3, 2, 7, 3, 4, 5), (2, 3, 3, 2, 2, 2), padding=(1, 0, 0, 0))
    x, y = np.ones(geometry.x_shape), np.ones(geometry.y_shape)
    for n in range(7):
        y[n % 3, 0, n, 1, 2, 2] = np.inf
    row_bytes = 8 * (2 * 60 + 3 * 3 * 120)
    primitive = in_blocks_of(rows * row_bytes, geometry, "float64", "w", 1)
    assert primitive.folding.rows == [3, 4, 4][rows - 3]
    found = engine.contract(geometry, "w", x, y, plan=primitive)
    met = contract.contract(geometry, "w", x, np.isinf(y).astype(float)) > 0
    expected = contract.contract(geometry, "w", x, np.ones_like(y))
    assert np.array_equal(found, np.where(met, np.inf, expected))


@pytest.mark.parametrize("data_format", ["channels_first", "channels_last"])
@pytest.mark.parametrize("groups", [1, 2])
def test_plans_and_calls_agree(data_format, groups):
    channels, size = 4 * groups, (3, 4, 5, 6)
    is_last = data_format == "channels_last"
    x_shape = (2, *size, channels) if is_last else (2, channels, *size)
    weight_shape = (channels, 3, 3, 2, 3, 4)
    x, w = integers_like(x_shape, "float32"), integers_like(weight_shape, "float32", 1)
    bias = integers_like((3 * groups,), "float32", 2)
    keywords = {"stride": (2, 1, 3, 2), "groups": groups, "data_format": data_format}
    geometry = Geometry.of(x_shape, weight_shape, **keywords)
    expected = contract.contract(geometry, "y", x, w, bias=bias)
    for method in ("auto", "measure"):
        call = plan(x_shape, weight_shape, method=method, **keywords)
        assert "folded" in str(call)
        assert np.array_equal(call(x, call.pack(w), bias), expected)
        assert np.array_equal(conv_transpose(x, w, bias, method=method, **keywords), expected)
    back = plan(x_shape, weight_shape, want="x", activation="relu", **keywords)
    assert "folded" in str(back)
    found = contract.contract(geometry, "x", expected, w)
    assert np.array_equal(conv(expected, w, **keywords), found)
    assert np.array_equal(back(expected, back.pack(w)), np.maximum(found, 0))


# ---- who is served -------------------------------------------------------------------------------


def test_what_is_one_product_is_portable_and_so_are_gradients_of_halves():
    geometry = Geometry.of((1, 4, 6, 6, 6, 6), (4, 4, 3, 1, 1, 1))
    plain = Geometry.of((1, 4, 6, 6, 6, 6), (4, 4, 1, 1, 1, 1))
    for want in "yx":
        found = [AxisFolding.of(each, 4, want) for each in (geometry, plain)]
        assert [IS_WASTEFUL.fget(each) for each in found] == [False, True]
        assert engine.serves(geometry, want, "float16")
    assert not engine.serves(geometry, "w", "float16")


# ---- what it takes -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 8, 12, 16, 16, 16), (3, 4, 3, 3, 20, 20, 20)])
@pytest.mark.parametrize("want", ["y", "x", "w"])
def test_a_call_takes_no_more_than_it_says(shape, want):
    geometry = Geometry.of(shape, (shape[1], 8, *[3] * (len(shape) - 2)), padding=1)
    a, b = operands_of(want, *(np.ones(geometry.shape_of(letter), "float32") for letter in "xwy"))
    primitive = engine.prepare(geometry, "float32", want=want)
    engine.contract(geometry, want, a, b, plan=primitive)
    tracemalloc.start()
    found = engine.contract(geometry, want, a, b, plan=primitive)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - found.nbytes <= engine.workspace_bytes(geometry, primitive) + 100_000


@draws(1)
@given(geometries(ranks=(4, 5, 6), batches=(1, 2)), st.sampled_from("yx"), BLOCKS)
def test_every_tap_belongs_to_one_phase_and_every_output_to_one(geometry, want, size):
    found = in_blocks_of(size, geometry, "float32", want).folding
    axes = geometry.axes[:-3]
    taps = sum(prod(map(len, taps)) for group in found.groups for _, taps in group.phases)
    if want == "x" or all(a.output >= a.stride for a in axes):
        assert taps == prod(a.kernel for a in axes)
    phases = [first for group in found.groups for first, _ in group.phases]
    many = prod(min(a.stride, a.output) for a in axes) if want == "y" else 1
    assert len(phases) == len(set(phases)) == many
    assert 1 <= found.images <= geometry.batch
    assert 1 <= found.rows <= found.counts[0]
