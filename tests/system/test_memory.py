"""Available memory, and calls that stay within it."""

import os
import subprocess
import sys
import tracemalloc
from contextlib import suppress
from math import prod

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from slow import mostly_slow
from strategies import draws, geometries, integer_operands, keywords_of, padded_calls
from tconv.engine import serves
from tconv.engine.compile.tiers import wait_for_optimised
from tconv.engine.executor import create_primitive
from tconv.engine.plan_cache import cached_candidates, cached_plan, cached_sized_plan
from tconv.engine.runtime import job
from tconv.engine.target.target import target
from tconv.engine.weight_gradient.executor import create_weight_gradient
from tconv.errors import MemoryLimitError, UnsupportedError
from tconv.geometry.geometry import Geometry
from tconv.ops import dispatch
from tconv.ops.functional import conv, conv_transpose, conv_weight_gradient
from tconv.portable.blocking import SCRATCH_BYTES, Blocks
from tconv.system import memory
from tconv.system.allocator import Arena, drop_idle, lent
from tconv.system.memory import available_bytes, check_addresses, check_room, has_room

MIB = 2**20
linux = pytest.mark.skipif(sys.platform != "linux", reason="Linux tells what is taken of a limit")


# ---- available_bytes -----------------------------------------------------------------------------


def system(root, meminfo=None, membership=None, groups=None):
    """Write a /proc and a /sys/fs/cgroup; `groups` maps files below the latter to their text."""
    proc, cgroup = root / "proc", root / "cgroup"
    (proc / "self").mkdir(parents=True)
    cgroup.mkdir()
    if meminfo is not None:
        (proc / "meminfo").write_text(f"MemTotal: 99999999 kB\nMemAvailable:   {meminfo} kB\n")
    if membership is not None:
        (proc / "self" / "cgroup").write_text(membership)
    for name, text in (groups or {}).items():
        (cgroup / name).parent.mkdir(parents=True, exist_ok=True)
        (cgroup / name).write_text(text)
    return proc, cgroup


def test_without_a_container_it_is_what_the_kernel_says(tmp_path):
    assert available_bytes(*system(tmp_path, 1000)) == 1000 * 1024


def limited(monkeypatch, **limits):
    """Limits of this process: addresses and data, in pages."""
    page = memory.resource.getpagesize()
    kinds = {getattr(memory.resource, f"RLIMIT_{name}"): most for name, most in limits.items()}
    none = memory.resource.RLIM_INFINITY
    monkeypatch.setattr(
        memory.resource,
        "getrlimit",
        lambda kind: (kinds[kind] * page if kind in kinds else none, none),
    )
    return page


@linux
def test_limits_of_addresses_and_data_count(tmp_path, monkeypatch):
    proc, cgroup = system(tmp_path, 10**6)
    (proc / "self/statm").write_text("300 200 100 10 0 50 0\n")
    assert available_bytes(proc, cgroup) == 10**6 * 1024
    page = limited(monkeypatch, AS=1000)
    assert available_bytes(proc, cgroup) == 700 * page
    limited(monkeypatch, DATA=1000)
    assert available_bytes(proc, cgroup) == 950 * page
    limited(monkeypatch, AS=1000, DATA=100)
    assert available_bytes(proc, cgroup) == 50 * page
    limited(monkeypatch, AS=200)
    assert available_bytes(proc, cgroup) == 0
    (proc / "self/statm").write_text("nonsense")
    assert available_bytes(proc, cgroup) == 10**6 * 1024


@linux
def test_room_is_what_the_limits_leave(monkeypatch):
    assert has_room(2**62)
    check_addresses(2**62)
    limited(monkeypatch, AS=2**40)
    assert has_room(2**20)
    assert not has_room(2**60)
    with pytest.raises(UnsupportedError, match=r"^the limits of this process leave [\d,]+ bytes, "):
        check_addresses(2**60)


# A limit of addresses, set at several times before a call.
SHORT = """
import resource, sys, time
import numpy as np
import tconv
mebibytes, when = int(sys.argv[1]), sys.argv[2]

def limit():
    size = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (size + mebibytes * 2**20,) * 2)

def call(channels, taps):
    x = np.ones((1, channels, 40, 40), np.float32)
    w = np.ones((channels, 8, taps, taps), np.float32)
    return tconv.conv_transpose(x, w, stride=taps)

tconv.conv_transpose
if when == "loaded":
    from tconv.engine.target.target import target
    target()
if when == "called":
    call(8, 4)
limit()
try:
    for channels, taps in ((16, 3), (16, 3), (70, 4)):
        assert (call(channels, taps) == channels).all()
    time.sleep(0.5)  # for what is compiled well after a first call
    print("right")
except tconv.MemoryLimitError:
    print("refused")
"""


@linux
@pytest.mark.parametrize("when", mostly_slow(["imported", "loaded", "called"], "called"))
@pytest.mark.parametrize(
    "mebibytes", mostly_slow([1, 10, 20, 35, 50, 75, 100, 150, 200, 300, 500], 10, 35, 100, 500)
)
def test_a_process_that_is_short_of_addresses_computes_or_refuses(when, mebibytes):
    pytest.importorskip("llvmlite")
    environment = {**os.environ, "TCONV_CACHE": "off", "TCONV_CPU": "", "TCONV_THREADS": "2"}
    done = subprocess.run(
        [sys.executable, "-c", SHORT, str(mebibytes), when],
        env=environment, capture_output=True, text=True, timeout=100, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stdout in ("right\n", "refused\n")
    assert done.stderr.count("RuntimeWarning") <= 1
    if mebibytes >= 500:
        assert (done.stdout, done.stderr) == ("right\n", "")


def test_a_container_of_version_2_leaves_its_limit_less_what_is_used(tmp_path):
    groups = {
        "a/b/memory.max": "max\n",
        "a/b/memory.current": "1\n",
        "a/memory.max": "5000\n",
        "a/memory.current": "3000\n",
        "a/memory.stat": "anon 1\ninactive_file 500\n",
    }
    assert available_bytes(*system(tmp_path, 1000, "0::/a/b\n", groups)) == 5000 - 3000 + 500


def test_a_container_of_version_1_too(tmp_path):
    groups = {
        "memory/job/memory.limit_in_bytes": "7000",
        "memory/job/memory.usage_in_bytes": "6000",
        "memory/job/memory.stat": "total_inactive_file 10\n",
    }
    lines = "3:cpu:/job\n2:pids,memory:/job\n"
    assert available_bytes(*system(tmp_path, 1000, lines, groups)) == 1010


def test_the_least_of_all_counts_and_never_less_than_nothing(tmp_path):
    groups = {"memory.max": "10\n", "memory.current": "30\n"}
    assert available_bytes(*system(tmp_path, 1000, "0::/\n", groups)) == 0
    assert available_bytes(*system(tmp_path / "b", 1, "0::/\n", {})) == 1024


def test_files_that_say_nothing_fall_back_to_the_machine(tmp_path):
    found = available_bytes(*system(tmp_path, membership="nonsense\n:\n0::/x"))
    assert found is None or found > 0
    assert available_bytes(tmp_path / "none", tmp_path / "none") in (None, found)


# ---- scratch -------------------------------------------------------------------------------------


def extra_bytes(function):
    """Most bytes held at a time besides the result, by a first call but for what compiles."""
    function()
    wait_for_optimised()
    caches = (
        cached_candidates,
        cached_plan,
        cached_sized_plan,
        create_primitive,
        create_weight_gradient,
    )
    for cached in caches:
        cached.cache_clear()
    drop_idle()
    job._scratch.clear()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TCONV_CACHE", "off")  # so that plans are chosen and lowered
        tracemalloc.start()
        try:
            result = function()
            return tracemalloc.get_traced_memory()[1] - result.nbytes
        finally:
            tracemalloc.stop()


def ones(*shapes, dtype="float32"):
    return [np.ones(shape, dtype) for shape in shapes]


def zeros(*shapes, dtype="float32"):
    return [np.zeros(shape, dtype) for shape in shapes]


#    name: function, shapes of its two operands, keywords
LARGE = {
    "2-D": (conv_transpose, (4, 64, 64, 64), (64, 32, 4, 4), {"stride": 2, "padding": 1}),
    "3-D": (conv_transpose, (1, 16, 24, 24, 24), (16, 16, 4, 4, 4), {"stride": 2}),
    "wide 1-D": (conv_transpose, (1, 8, 400_000), (8, 8, 16), {"stride": 4}),
    "wide kernel": (conv_transpose, (1, 2, 50_000), (2, 2, 201), {}),
    "kernel of a row": (conv_transpose, (1, 4, 1), (4, 4, 20_000), {}),
    "wide stride": (conv_transpose, (1, 4, 3), (4, 16, 5), {"stride": 500_000}),
    "large weight": (conv_transpose, (1, 1024, 4, 4), (1024, 512, 4, 4), {}),
    "one cell": (conv_transpose, (2, 64, 1, 1), (64, 64, 32, 32), {}),
    "wide dilation": (conv_transpose, (1, 4, 100_000), (4, 4, 5), {"dilation": 30_000}),
    "2-D dilation": (conv_transpose, (1, 8, 512, 512), (8, 8, 3, 3), {"dilation": 32}),
    "large batch": (conv_transpose, (512, 16, 32, 32), (16, 16, 3, 3), {"padding": 1}),
    "one by one": (conv_transpose, (64, 512, 8, 8), (512, 256, 1, 1), {"stride": 2}),
    "depthwise": (conv_transpose, (4, 128, 64, 64), (128, 1, 4, 4), {"stride": 2, "groups": 128}),
    "last": (
        conv_transpose,
        (4, 64, 64, 64),
        (4, 4, 32, 64),
        {"stride": 2, "data_format": "channels_last", "weight_format": "*OI"},
    ),
    "conv": (conv, (4, 64, 128, 128), (64, 64, 4, 4), {"stride": 2, "padding": 1}),
    "conv one channel": (conv, (1, 1, 3000, 3000), (1, 1, 3, 3), {"padding": 1}),
    "conv sparse": (conv, (1, 16, 1270, 1270), (8, 16, 1, 1), {"stride": 16, "padding": 1}),
    "conv sparse 1-D": (conv, (1, 16, 2_000_001), (8, 16, 1), {"stride": 16, "padding": 1}),
    "conv large weight": (conv, (1, 512, 7, 7), (1024, 512, 4, 4), {}),
    "weight": (conv_weight_gradient, (4, 64, 64, 64), (4, 64, 130, 130), {"stride": 2}),
    "weight sparse": (conv_weight_gradient, (1, 8, 80, 80), (1, 16, 1267, 1267), {"stride": 16}),
    "weight large": (conv_weight_gradient, (2, 1024, 4, 4), (2, 512, 7, 7), {}),
    "weight wide": (conv_weight_gradient, (1, 2, 100_000), (1, 2, 100_200), {}),
}


def bound(function, operands, keywords):
    """The portable path holds 64 MiB; the engine 2 MiB a thread, packed weights, other layouts.

    A Winograd plan has up to four times as many weights, twice while packed.
    Of complex numbers, which kernels do not know, the engine holds copies of their parts: of w
    there are twice as many, once as they are packed from.
    """
    if function is conv_transpose and keywords.get("padding_mode") is None:
        x, weight = operands
        geometry = Geometry.of(x.shape, weight.shape, **keywords)
        if serves(geometry, "y", weight.dtype.name):
            is_complex = weight.dtype.kind == "c"
            y = prod(geometry.y_shape) * weight.itemsize
            copies = x.nbytes + y if "data_format" in keywords or is_complex else 0
            copied = {2: 2.1, 4: 8.2}.get(weight.itemsize, 1.1)  # halves are packed as float32
            weights = (4.2 if is_complex else copied) * weight.nbytes
            return target().threads * 2**21 + weights + copies
    return SCRATCH_BYTES


@pytest.mark.parametrize("name", LARGE)
def test_at_most_64_mib_of_scratch_are_held(name):
    function, one, other, keywords = LARGE[name]
    operands = ones(one, other)
    if function is conv_weight_gradient:
        s = keywords.get("stride", 1)
        sizes = zip(one[2:], other[2:], strict=True)
        operands.append(tuple(o - (i - 1) * s for i, o in sizes))
    assert extra_bytes(lambda: function(*operands, **keywords)) <= bound(
        function, operands, keywords
    )


@pytest.mark.parametrize("want", ["y", "x", "w"])
def test_blocks_of_a_wide_kernel_are_not_single_rows(want):
    geometry = Geometry.of((1, 4, 400_000), (4, 4, 1000))
    assert Blocks.of(geometry, want, 4).rows[0] > 300


@pytest.mark.parametrize("dtype", ["float16", ml_dtypes.bfloat16, "float64", "complex128"])
@pytest.mark.parametrize("name", mostly_slow(["2-D", "wide 1-D", "large weight"], "2-D"))
def test_at_most_64_mib_of_scratch_are_held_in_other_types(name, dtype):
    function, one, other, keywords = LARGE[name]
    operands = ones(one, other, dtype=dtype)
    assert extra_bytes(lambda: function(*operands, **keywords)) <= bound(
        function, operands, keywords
    )


@pytest.mark.parametrize("dtype", ["int8", "int64"])
def test_at_most_64_mib_of_scratch_are_held_for_integers(dtype):
    x, w = ones((4, 32, 64, 64), (32, 32, 4, 4), dtype=dtype)
    assert extra_bytes(lambda: conv_transpose(x, w, stride=2)) <= SCRATCH_BYTES
    x, w = x[:1].astype("int64") * 2**48, w[:, :1].astype("int64")  # no floating type is exact
    assert extra_bytes(lambda: conv_transpose(x, w)) <= SCRATCH_BYTES


# ---- max_bytes -----------------------------------------------------------------------------------

SLACK = 300_000  # Python's own objects: tuples, slices, caches, arguments of threads


def needed(function, *operands, **keywords):
    """What a call says that it needs, from the message of its refusal."""
    with pytest.raises(MemoryLimitError) as raised:
        function(*operands, max_bytes=1, **keywords)
    return int(str(raised.value).split(" needs ")[1].split(" bytes")[0].replace(",", ""))


@pytest.mark.parametrize(
    "name", ["2-D", "wide 1-D", "depthwise", "one cell", "last", "conv", "conv sparse"]
)
@pytest.mark.parametrize("dtype", ["float32", "complex64", "int8"])
def test_a_call_takes_no_more_than_it_says(name, dtype):
    function, one, other, keywords = LARGE[name]
    operands = ones(one, other, dtype=dtype)
    total = needed(function, *operands, **keywords)
    function(*operands, **keywords)  # a first call also imports and emits code
    wait_for_optimised()
    with lent(Arena(most_idle_bytes=0)):  # which keeps nothing that the call gives back
        tracemalloc.start()
        function(*operands, max_bytes=total, **keywords)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
    assert peak <= total + SLACK


@pytest.mark.parametrize("mode", ["circular", "reflect", "replicate"])
@pytest.mark.parametrize("dtype", ["float16", "float32"])
@pytest.mark.parametrize("padding", [1, 40])
def test_a_call_with_a_padding_mode_takes_no_more_than_it_says(mode, dtype, padding):
    x, w, y = zeros((2, 16, 64, 64), (16, 16, 4, 4), (2, 16, 90, 90), dtype=dtype)
    keywords = {"stride": 2, "padding": padding, "padding_mode": mode}
    kernel = (
        conv_weight_gradient,
        (zeros((2, 16, 44 + padding, 44 + padding), dtype=dtype)[0], y, 4),
    )
    for function, operands in ((conv_transpose, (x, w)), (conv, (y, w)), kernel):
        total = needed(function, *operands, **keywords)
        tracemalloc.start()
        function(*operands, max_bytes=total, **keywords)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert peak <= total + SLACK


@draws(0.2)
@given(geometries(), st.integers(1, 2000))
def test_max_bytes_decides_nothing_but_whether(geometry, max_bytes):
    x, w, _ = integer_operands(geometry)
    keywords = keywords_of(geometry)
    expected = conv_transpose(x, w, **keywords)
    if max_bytes >= needed(conv_transpose, x, w, **keywords):
        assert np.array_equal(conv_transpose(x, w, **keywords, max_bytes=max_bytes), expected)
    else:
        with pytest.raises(MemoryLimitError):
            conv_transpose(x, w, **keywords, max_bytes=max_bytes)


@draws(0.2)
@given(padded_calls())
def test_a_padding_mode_needs_no_less_than_none(case):
    geometry, keywords = case
    x, w, _ = integer_operands(geometry)
    plain = {name: value for name, value in keywords.items() if name != "padding_mode"}
    assert needed(conv_transpose, x, w, **keywords) >= needed(conv_transpose, x, w, **plain)


HUGE = [2**31, 2**40, 2**63, 10**30]


@pytest.mark.parametrize(("huge", "available"), [(n, 2**31) for n in HUGE] + [(10**30, None)])
@pytest.mark.parametrize(
    ("function", "operands", "keywords"),
    [
        (conv_transpose, ones((1, 1, 2), (1, 1, 2)), {"stride": "huge"}),
        (conv_transpose, ones((1, 1, 2), (1, 1, 2)), {"dilation": "huge"}),
        (conv_transpose, ones((1, 1, 2), (1, 1, 2)), {"padding": "-huge"}),
        (conv_transpose, ones((1, 1, 0), (1, 1, 2)), {"output_size": "huge"}),
        (conv_transpose, ones((1, 1, 2, 2), (1, 1, 2, 2)), {"stride": "huge"}),
        (conv, ones((1, 1, 2), (1, 1, 2)), {"padding": "huge"}),
        (conv, ones((1, 1, 2), (1, 1, 2)), {"padding": "huge", "padding_mode": "circular"}),
        (
            conv,
            ones((1, 1, 2), (1, 1, 2)),
            {"padding": "huge", "padding_mode": "circular", "stride": "huge"},
        ),
    ],
)
def test_huge_results_are_refused_before_anything_is_allocated(
    huge, available, function, operands, keywords, monkeypatch
):
    monkeypatch.setattr(dispatch, "available_bytes", lambda: available)
    signs = {"huge": huge, "-huge": -huge}
    keywords = {name: signs.get(value, value) for name, value in keywords.items()}
    with pytest.raises(MemoryLimitError, match=f"^{function.__name__} needs "):
        function(*operands, **keywords)
    tracemalloc.start()
    with suppress(MemoryLimitError):
        function(*operands, **keywords)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < SLACK


def test_what_is_larger_than_the_memory_is_refused(monkeypatch):
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**30)
    check_room("x", 858_993_459)
    with pytest.raises(MemoryLimitError, match=r"^x needs 858,993,460 bytes but 858,993,459 may "):
        check_room("x", 858_993_460)
    monkeypatch.setattr(memory, "available_bytes", lambda: None)  # nobody tells
    check_room("x", 2**60)
