"""Packed weights lie in the order that `Layout` defines, on every processor's kernel."""

import ctypes
from functools import partial

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import ENGINE_TYPES, draws
from tconv.engine.choose import all_plans
from tconv.engine.codegen.code import ElementType
from tconv.engine.compile.jit import assembly, load, load_kernel
from tconv.engine.kernels.pack_weights import PACK_ARGUMENTS, run_packing, run_transformed_packing
from tconv.engine.layouts import layout_of
from tconv.engine.plan.problem import Problem
from tconv.engine.runtime import thread_pool
from tconv.engine.target.target import named_target, target
from tconv.engine.weight_tables import pack_arguments
from tconv.geometry.geometry import Geometry

TARGETS = ["haswell", "skylake-avx512", "x86-64", "neoverse-v1", "apple-m1"]
HERE = [target(), *(here for here in map(named_target, TARGETS) if here.runs_here)]
UNTOUCHED = -1.0


@st.composite
def layouts(draw, most_channels=70):
    """A layout by any plan, with channels enough for whole vectors, and with too few of them."""
    rank = draw(st.integers(1, 3))
    size = st.tuples(*[st.integers(1, 6 if rank > 1 else 20)] * rank)
    groups = draw(st.integers(1, 3))
    channels = groups * draw(st.integers(1, most_channels // groups))
    geometry = Geometry.of(
        (draw(st.integers(1, 2)), channels, *draw(size)),
        (channels, draw(st.integers(1, 20)), *draw(size)),
        stride=draw(st.tuples(*[st.integers(1, 5)] * rank)),
        dilation=draw(st.tuples(*[st.integers(1, 3)] * rank)),
        groups=groups,
    )
    problem = Problem(geometry, draw(st.sampled_from("yx")))
    dtype, here = draw(st.sampled_from(ENGINE_TYPES)), draw(st.sampled_from(HERE))
    plans = list(all_plans(problem, dtype, here, draw(st.sampled_from([1, 2]))))
    return layout_of(problem, draw(st.sampled_from(plans)), np.dtype(dtype), here)


def packed_by_definition(layout, w):
    """What `Layout` says of the order, as one index expression for each tile."""
    shape = (w.shape[0], layout.blocks, layout.weight_block)
    found = np.full(shape, UNTOUCHED, layout.computed)
    w = w.reshape(*w.shape[:3], -1)  # (groups, channels, outputs, taps of the kernel)
    w = w if layout.problem.want == "y" else w.swapaxes(1, 2)
    taps = list(layout.taps())
    for block in range(layout.blocks):
        is_last = block == layout.blocks - 1
        for tile in layout.last_tiles if is_last else layout.block_tiles:
            rows = range(tile.first, tile.first + tile.rows)
            of_channel = taps[tile.kind].shape[1]
            outputs = [block * layout.plan.block + row // of_channel for row in rows]
            of_rows = taps[tile.kind][:, [row % of_channel for row in rows]]  # (taps, rows)
            elements = w[:, :, outputs, of_rows]  # (groups, channels, taps, rows)
            elements = elements.swapaxes(1, 2) if layout.plan.k_block.per_tap else elements
            elements = elements.reshape(len(w), -1)
            found[:, block, tile.weight : tile.weight + elements.shape[1]] = elements
    return found


def as_packed(layout, w):
    """The elements that are packed: for Winograd, the filter transform of the weights."""
    rows = w.reshape(*w.shape[:3], -1)
    return rows if layout.weight_matrix is None else rows @ layout.weight_matrix


def packed_natively(layout, w, threads):
    """The same by `run_packing`, and the cells around it."""
    dtype, here = layout.dtype.name, layout.target
    pack = run_packing if layout.weight_matrix is None else run_transformed_packing
    job = load_kernel(pack.__name__, pack, dtype=dtype, target=here)
    shape, margin = (w.shape[0], layout.blocks, layout.weight_block), 100
    memory = np.full(int(np.prod(shape)) + 2 * margin, UNTOUCHED, layout.computed)
    packed = memory[margin:-margin].reshape(shape)
    values, kept, scratch_bytes = pack_arguments(layout)
    for name, array in kept.items():
        values[PACK_ARGUMENTS.place(name)] = array.ctypes.data
    counter, scratch = (
        ctypes.c_int64(0),
        np.zeros(scratch_bytes // layout.plan.threads * threads, np.uint8),
    )
    addresses = w.ctypes.data, packed.ctypes.data, ctypes.addressof(counter), scratch.ctypes.data
    values[:4] = addresses
    thread_pool.run(job, values.ctypes.data, threads, partial(load, target=here))
    assert kept
    return packed, np.concatenate([memory[:margin], memory[-margin:]])


@draws(4)
@given(layouts(), st.sampled_from([1, 2]))
def test_equals_the_definition_and_nothing_else_is_written(layout, threads):
    geometry = layout.problem.geometry
    shape = (geometry.groups, -1, *geometry.weight_shape[1:])
    w = np.arange(np.prod(geometry.weight_shape))
    if layout.dtype.itemsize == 2:  # which hold no larger integers exactly
        w = np.random.default_rng(0).permutation(w % 257)
    w = w.astype(layout.dtype).reshape(shape)
    packed, around = packed_natively(layout, w, threads)
    assert np.array_equal(packed, packed_by_definition(layout, as_packed(layout, w)))
    assert (around == UNTOUCHED).all()


@pytest.mark.parametrize("dtype", ENGINE_TYPES)
@pytest.mark.parametrize(
    ("shape", "stride"),
    [
        ((33, 5, 2, 2), 2),  # few elements of a channel in a tile, so several channels together
        ((80, 2, 300), 100),  # long runs
        ((1026, 1, 64), 16),  # one block
        ((3, 7, 11, 13), 1),  # more taps than a table has for several channels
    ],
)
def test_layers_of_every_kind(shape, stride, dtype):
    geometry = Geometry.of((1, shape[0], *[9] * len(shape[2:])), shape, stride=stride)
    w = np.random.default_rng(0).integers(-9, 10, (1, *shape)).astype(dtype)
    for problem in (Problem(geometry), Problem(geometry, "x")):
        for plan in list(all_plans(problem, dtype, target(), 2))[::5]:
            layout = layout_of(problem, plan, np.dtype(dtype), target())
            expected = packed_by_definition(layout, as_packed(layout, w))
            for threads in (1, 2):
                assert np.array_equal(packed_natively(layout, w, threads)[0], expected)


@draws(1)
@given(layouts(most_channels=2000))
def test_tasks_are_many_enough_for_the_threads(layout):
    """Unless a vector takes all channels of a task."""
    values, kept, _ = pack_arguments(layout)
    fields = dict(zip(PACK_ARGUMENTS, values.tolist(), strict=True))
    tasks, channel_block = fields["tasks"], fields["channel_block"]
    most = max(
        (
            int(channels)
            for table in (kept["tiles"], kept["last_tiles"])
            for channels in table[:, 3]
        ),
        default=1,
    )
    assert channel_block % most == 0
    assert tasks >= layout.plan.threads or channel_block == most


@pytest.mark.parametrize("dtype", ENGINE_TYPES)
@pytest.mark.parametrize("outputs", [64, 60, 62, 63])
def test_what_a_task_reads_of_an_output_stays_in_a_cache(outputs, dtype):
    """Of 4096 bytes that the cache tells apart, no place is read for more than eight channels."""
    geometry = Geometry.of((1, 512, 9), (512, outputs, 16), stride=8)
    problem = Problem(geometry, without_winograd=True)
    for plan in list(all_plans(problem, dtype, target(), 1))[::5]:
        layout = layout_of(problem, plan, np.dtype(dtype), target())
        fields = dict(zip(PACK_ARGUMENTS, pack_arguments(layout)[0].tolist(), strict=True))
        steps = np.arange(fields["channel_block"]) * outputs * 16 * np.dtype(dtype).itemsize
        assert np.unique(steps % 4096, return_counts=True)[1].max() <= 8


@pytest.mark.parametrize("cpu", TARGETS)
@pytest.mark.parametrize("dtype", ENGINE_TYPES)
def test_the_kernel_is_complete_and_gathers_where_the_processor_can(cpu, dtype):
    here = named_target(cpu)
    text = assembly(
        "kernel", partial(run_packing, name="kernel", element=ElementType(dtype, here)), here
    )
    words = [line.split()[0] for line in text.splitlines() if line.startswith("\t")]
    assert not {word for word in words if word in ("bl", "blr") or word.startswith("call")}
    can_gather = here.isa.has_gather and dtype in ("float32", "float64")
    assert any("gather" in word for word in words) == can_gather
