"""More than three axes equal the definition, in the same order of sums, within what they say."""

import tracemalloc
from math import prod

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from strategies import ENGINE_TYPES, draws, framed, geometries, integer_operands, integers_like
from tconv import definition, engine, portable
from tconv.engine import folds
from tconv.engine.folding import Folded
from tconv.engine.folds import Folds
from tconv.engine.problem import Problem
from tconv.engine.target import target
from tconv.geometry import Geometry
from tconv.ops import conv_transpose
from tconv.planned import plan

TYPES = st.sampled_from(ENGINE_TYPES)
BLOCKS = st.sampled_from([0, 2**10, 2**14, 2**23])


@pytest.fixture(autouse=True)
def every_geometry_is_folded(monkeypatch):
    """However small it is."""
    monkeypatch.setattr(Folds, "is_wasteful", False)
    engine.serves.cache_clear()
    yield
    engine.serves.cache_clear()


def in_blocks_of(size, geometry, dtype, threads=None):
    """A plan whose blocks have so many bytes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(folds, "_BLOCK_BYTES", size)
        Folds.of.cache_clear()
        make, threads = engine._makers()[0], threads or target().threads
        found = Folded(Problem(engine._usual(geometry)), dtype, target(), threads, make)
    Folds.of.cache_clear()
    return found


# ---- what it computes ----------------------------------------------------------------------------


@draws(2)
@given(geometries(ranks=(4, 5), batches=(1, 2, 3)), TYPES, st.booleans(), st.booleans(), BLOCKS)
def test_equals_the_definition(geometry, dtype, has_bias, is_framed, size):
    assume(engine.serves(geometry, "y", dtype))
    x, w, _ = (array.astype(dtype) for array in integer_operands(geometry))
    bias = integers_like((geometry.out_channels,), dtype) if has_bias else None
    to, memory = np.full(geometry.y_shape, np.nan, dtype), np.zeros(0)
    if is_framed:
        to, memory = framed(to, -7)
        x, _ = framed(x, np.nan)
    ready = in_blocks_of(size, geometry, dtype)
    found = engine.contract(geometry, "y", x, w, bias=bias, out=to, plan=ready)
    assert found is to or found.base is not None
    wide = [None if v is None else v.astype(np.float64) for v in (x, w, bias)]
    expected = definition.contract(geometry, "y", *wide[:2], bias=wide[2])
    assert np.array_equal(to, expected.astype(dtype))
    assert (memory == -7).sum() >= memory.size - to.size


@draws(1)
@given(geometries(ranks=(4, 5), batches=(2,), plain=True), TYPES)
def test_blocks_and_threads_give_the_same_bits(geometry, dtype):
    assume(engine.serves(geometry, "y", dtype))
    rng = np.random.default_rng(0)
    x = rng.standard_normal(geometry.x_shape).astype(dtype)
    w = rng.standard_normal(geometry.weight_shape).astype(dtype)
    plans = [in_blocks_of(size, geometry, dtype, n) for size, n in ((0, 1), (0, 3), (2**23, 2))]
    first, *others = (engine.contract(geometry, "y", x, w, plan=ready) + 0.0 for ready in plans)
    for other in others:
        assert first.tobytes() == other.tobytes()


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
    expected = portable.contract(geometry, "y", x, w, bias=bias)
    for method in ("auto", "measure"):
        call = plan(x_shape, weight_shape, method=method, **keywords)
        assert "folded" in str(call)
        assert np.array_equal(call(x, call.pack(w), bias), expected)
        assert np.array_equal(conv_transpose(x, w, bias, method=method, **keywords), expected)


# ---- what it takes -------------------------------------------------------------------------------


@pytest.mark.parametrize("shape", [(2, 8, 12, 16, 16, 16), (3, 4, 3, 3, 20, 20, 20)])
def test_a_call_takes_no_more_than_it_says(shape):
    rank = len(shape) - 2
    x, w = np.ones(shape, "float32"), np.ones((shape[1], 8, *[3] * rank), "float32")
    geometry = Geometry.of(x.shape, w.shape, padding=1)
    ready = engine.prepare(geometry, "float32")
    engine.contract(geometry, "y", x, w, plan=ready)
    tracemalloc.start()
    y = engine.contract(geometry, "y", x, w, plan=ready)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak - y.nbytes <= engine.workspace_bytes(geometry, ready) + 100_000


@draws(1)
@given(geometries(ranks=(4, 5, 6), batches=(1, 2)), BLOCKS)
def test_every_tap_belongs_to_one_phase_and_every_output_to_one(geometry, size):
    found = in_blocks_of(size, geometry, "float32").folds
    axes = geometry.axes[:-3]
    taps = sum(prod(map(len, taps)) for fold in found.folds for _, taps in fold.phases)
    if all(a.output >= a.stride for a in axes):
        assert taps == prod(a.kernel for a in axes)
    phases = [first for fold in found.folds for first, _ in fold.phases]
    assert len(phases) == len(set(phases)) == prod(min(a.stride, a.output) for a in axes)
    assert 1 <= found.images <= geometry.batch
    assert 1 <= found.rows <= found.counts[0]
