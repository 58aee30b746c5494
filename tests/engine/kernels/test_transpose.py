"""Channels last: transposed natively, nothing else is touched, and the elements are the same."""

import ctypes
import tracemalloc
from dataclasses import replace
from functools import partial
from math import prod

import numpy as np
import pytest
from engine.guarded import guarded
from hypothesis import given
from hypothesis import strategies as st

from strategies import ENGINE_TYPES, draws, geometries, integers_like
from tconv import engine
from tconv.engine.codegen.code import ElementType
from tconv.engine.compile.jit import assembly, load, load_kernel
from tconv.engine.kernels import transpose
from tconv.engine.kernels.transpose import empty_lines, run_transpose, transpose_arguments
from tconv.engine.runtime import thread_pool
from tconv.engine.target.target import named_target, target
from tconv.geometry.geometry import Geometry
from tconv.ops.functional import conv_transpose
from tconv.ops.planned_call import PackedWeights, plan
from tconv.portable import contract

TARGETS = ["haswell", "skylake-avx512", "x86-64", "neoverse-v1", "apple-m1"]
HERE = [target(), *(here for here in map(named_target, TARGETS) if here.runs_here)]
TYPES = st.sampled_from(ENGINE_TYPES)
MOVED = ["int16", "float32", "float64"]
SIDES = st.integers(1, 9) | st.integers(10, 70) | st.integers(250, 300)


def numbered(shape, dtype):
    """Numbers from 0 on; those of 16 bits begin again beyond the largest."""
    return np.arange(prod(shape)).astype(dtype).reshape(shape)


def transposed(x, to, threads, here, streams=False):
    """Write ``x.swapaxes(1, 2)`` to `to` by the kernel of a processor."""
    job = load_kernel("run_transpose", run_transpose, dtype=x.dtype.name, target=here)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(transpose, "_STREAMED_BYTES", 0 if streams else 2**40)
        values = transpose_arguments(*x.shape, x.itemsize)
    counter = ctypes.c_int64(0)
    values[:3] = x.ctypes.data, to.ctypes.data, ctypes.addressof(counter)
    thread_pool.run(job, values.ctypes.data, threads, partial(load, target=here))


# ---- the kernel ----------------------------------------------------------------------------------


@draws(4)
@given(
    st.tuples(st.integers(1, 3), SIDES, SIDES),
    st.sampled_from(MOVED),
    st.sampled_from(HERE),
    st.integers(1, 3),
    st.booleans(),
)
def test_nothing_is_touched_but_the_matrices(shape, dtype, here, threads, at_end):
    """On memory that begins or ends where nobody may read or write."""
    numbers = numbered(shape, dtype)
    x = guarded(numbers, at_end)
    to = guarded(np.full((shape[0], shape[2], shape[1]), -7, dtype), at_end)
    transposed(x, to, threads, here)
    assert np.array_equal(to, numbers.swapaxes(1, 2))
    assert np.array_equal(x, numbers)


@pytest.mark.parametrize("dtype", MOVED)
@pytest.mark.parametrize("here", HERE, ids=lambda here: here.cpu)
def test_sizes_about_vectors_and_blocks(here, dtype):
    lanes = ElementType(dtype, here).lanes
    sides = [1, 2, 3, 4, 5, lanes - 1, lanes, lanes + 1, 2 * lanes + 1, 64, 65, 257]
    for rows in sides:
        for columns in [*sides, 4096, 4099]:
            x = numbered((1, rows, columns), dtype)
            to = np.full((1, columns, rows), -7, dtype)
            transposed(x, to, 2, here)
            assert np.array_equal(to, x.swapaxes(1, 2)), (rows, columns)


@draws(1)
@given(
    st.tuples(st.integers(1, 2), SIDES, SIDES),
    st.sampled_from(MOVED),
    st.integers(0, 15),
    st.booleans(),
)
def test_large_arrays_are_written_by_non_temporal_stores(shape, dtype, start, is_round):
    """Wherever they begin, and whether or not their rows end at cache lines."""
    images, rows, columns = shape
    rows = -(-rows // 16) * 16 if is_round else rows
    x = numbered((images, rows, columns), dtype)
    memory = empty_lines((x.size + 32,), x.dtype)
    memory[...] = -7
    to = memory[start : start + x.size].reshape(images, columns, rows)
    transposed(x, to, 2, target(), streams=True)
    assert np.array_equal(to, x.swapaxes(1, 2))
    assert np.array_equal(memory[:start], np.full(start, -7))
    assert np.array_equal(memory[start + x.size :], np.full(32 - start, -7))


@pytest.mark.parametrize("cpu", TARGETS)
@pytest.mark.parametrize("dtype", MOVED)
def test_the_kernel_is_complete_and_keeps_a_tile_in_registers(cpu, dtype):
    here = named_target(cpu)
    emit = partial(run_transpose, name="kernel", element=ElementType(dtype, here))
    words = [line.split()[0] for line in assembly("kernel", emit, here).splitlines() if line]
    assert not {word for word in words if word in ("bl", "blr") or word.startswith("call")}


# ---- what it computes ----------------------------------------------------------------------------


def last(draw_from):
    return draw_from.map(lambda geometry: replace(geometry, data_format="channels_last"))


@draws(1)
@given(last(geometries()), TYPES)
def test_channels_first_gives_the_same_bits(geometry, dtype):
    rng = np.random.default_rng(0)
    x = rng.standard_normal(geometry.x_shape).astype(dtype)
    w = rng.standard_normal(geometry.weight_shape).astype(dtype)
    canonical = replace(geometry, data_format="channels_first")
    if not engine.serves(geometry, "y", dtype):
        return
    channel = int(geometry.batched)
    first = engine.contract(canonical, "y", np.ascontiguousarray(np.moveaxis(x, -1, channel)), w)
    found = engine.contract(geometry, "y", x, w)
    assert np.array_equal(np.moveaxis(first, channel, -1), found)


LAYERS = [
    ((2, 40, 30, 24), (24, 17, 4, 4), 2),
    ((1, 50, 60, 3), (3, 64, 3, 3), 1),
    ((1, 90, 70, 33), (33, 2, 3, 3), 1),
    ((3, 500, 5), (5, 16, 4), 3),
    ((1, 9, 10, 11, 18), (18, 20, 2, 2, 2), 2),
]


@pytest.mark.parametrize(("x_shape", "weight_shape", "stride"), LAYERS)
@pytest.mark.parametrize("dtype", ENGINE_TYPES)
def test_plans_layers_and_calls_agree(x_shape, weight_shape, stride, dtype):
    x, w = integers_like(x_shape, dtype), integers_like(weight_shape, dtype, 1)
    bias = integers_like(weight_shape[1:2], dtype, 2)
    keywords = {"stride": stride, "data_format": "channels_last"}
    geometry = Geometry.of(x_shape, weight_shape, **keywords)
    assert engine.serves(geometry, "y", dtype)
    expected = contract.contract(geometry, "y", x, w, bias=bias)
    for threads in (None, 1, 3):
        assert np.array_equal(conv_transpose(x, w, bias, threads=threads, **keywords), expected)
        call = plan(x_shape, weight_shape, dtype=dtype, threads=threads, **keywords)
        out = np.full(geometry.y_shape, np.nan, dtype)
        assert call(x, call.pack(w), bias, out) is out
        assert np.array_equal(out, expected)
        assert np.array_equal(call(x, call.pack(w), bias), expected)
    packed = PackedWeights().of(geometry, w, 1)
    assert np.array_equal(engine.contract(geometry, "y", x, packed, bias=bias), expected)


def test_who_computes_does_not_depend_on_the_size_of_the_image():
    thin = [
        engine.serves(
            Geometry.of((1, n, n, 64), (64, 1, 1, 1), data_format="channels_last"), "y", "float32"
        )
        for n in (3, 30, 300)
    ]
    assert thin == [False] * 3
    large = Geometry.of((1, 600, 600, 64), (64, 64, 3, 3), data_format="channels_last")
    assert engine.serves(large, "y", "float32")


@pytest.mark.parametrize("channels", [1, 24])
def test_the_copies_are_counted(channels):
    keywords = {"stride": 2, "data_format": "channels_last"}
    geometry = Geometry.of((2, 64, 64, channels), (channels, 17, 4, 4), **keywords)
    x, w = np.ones(geometry.x_shape, "float32"), np.ones(geometry.weight_shape, "float32")
    conv_transpose(x, w, **keywords)
    work = engine.workspace_bytes(geometry, engine.prepare(geometry, "float32"))
    canonical = replace(geometry, data_format="channels_first")
    copies = work - engine.workspace_bytes(canonical, engine.prepare(canonical, "float32"))
    assert copies == 4 * prod(geometry.y_shape) + (x.nbytes if channels > 1 else 0)
    tracemalloc.start()
    y = conv_transpose(x, w, max_bytes=work + 4 * prod(geometry.y_shape), **keywords)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak <= work + y.nbytes + 100_000
