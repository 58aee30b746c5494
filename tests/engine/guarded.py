"""Run random plans on operands that begin and end where memory does; a stray access ends this.

python tests/engine/guarded.py PLANS [w]
"""

import ctypes
import mmap
import sys

import numpy as np

from tconv.arrays.dtypes import as_dtype
from tconv.engine.choose import all_plans
from tconv.engine.executor import Primitive
from tconv.engine.plan import plan as plans_of
from tconv.engine.plan.problem import Problem
from tconv.engine.target.target import target
from tconv.engine.weight_gradient.executor import WeightGradientPrimitive
from tconv.engine.weight_gradient.panel import ReductionBlock
from tconv.engine.weight_gradient.plan import all_gradient_plans
from tconv.geometry.geometry import Geometry

PAGE = mmap.PAGESIZE
TYPES = ("float32", "float16", "float64", "bfloat16")
libc = ctypes.CDLL(None, use_errno=True)


def guarded(array, at_end):
    """A copy between two pages that nobody may touch, close to the one or to the other."""
    pages = -(-array.nbytes // PAGE) + 2
    memory = mmap.mmap(-1, pages * PAGE)
    start = ctypes.addressof(ctypes.c_char.from_buffer(memory))
    for page in (0, pages - 1):
        forbidden = libc.mprotect(ctypes.c_void_p(start + page * PAGE), ctypes.c_size_t(PAGE), 0)
        assert forbidden == 0
    offset = (pages - 1) * PAGE - array.nbytes if at_end else PAGE
    copy = np.frombuffer(memory, array.dtype, array.size, offset).reshape(array.shape)
    copy[...] = array
    return copy


ALGORITHMS = ("direct", "im2col", "col2im", "winograd", "channel_lanes")
if target().isa.has_masks:
    ALGORITHMS += ("depthwise", "row_gemm")


def draw(rng, has_runs=False):
    rank = int(rng.integers(1, 4))

    def sizes(low, high):
        return tuple(int(n) for n in rng.integers(low, high, rank))

    groups = int(rng.integers(1, 3))
    # With many channels sums may go tap by tap, as col2im does; with runs of taps, Winograd.
    is_deep, has_runs = rng.random() < 0.3, has_runs or rng.random() < 0.3
    channels = groups * int(rng.integers(16, 24) if has_runs else rng.integers(1, 9))
    kernel, stride = sizes(1, 6), sizes(1, 5)
    if has_runs:
        stride = sizes(1, 3)
        kernel = tuple(s * k for s, k in zip(stride, sizes(2, 4), strict=True))
    if is_deep and not has_runs:
        channels = groups * int(rng.integers(512, 516))
        kernel = tuple(
            min(k, 2 * s) if n == 0 else min(k, s)
            for n, (k, s) in enumerate(zip(kernel, stride, strict=True))
        )
    size = sizes(4 if has_runs else 1, 40 if rank == 1 else 12 if rank == 2 else 6)
    outputs = int(rng.integers(8 if has_runs else 1, 9 if is_deep else 20))
    of_rows = 1 if is_deep or has_runs else rng.random()
    if of_rows < 0.4:  # one channel a group and taps for all phases, as depthwise kernels need
        channels = groups = int(rng.integers(2, 9))
        outputs, stride = int(rng.integers(1, 3)), tuple(min(s, 2) for s in stride)
        kernel = tuple(map(max, kernel, stride))
        if rank == 3:
            kernel, stride, size = (1, *kernel[1:]), (1, *stride[1:]), (1, *size[1:])
    elif of_rows < 0.6:  # one tap, which row GEMMs read in place where there is no stride
        kernel = (1,) * rank
        stride = stride if rng.random() < 0.5 else (1,) * rank
    dilation = (1,) * rank if has_runs or of_rows < 0.2 else sizes(1, 3)
    room = min(d * (k - 1) for d, k in zip(dilation, kernel, strict=True)) // 2
    return Geometry.of(
        (int(rng.integers(1, 4)), channels, *size),
        (channels, outputs, *kernel),
        stride=stride,
        dilation=dilation,
        padding=int(rng.integers(0, room + 1)),
        groups=groups,
    )


def main(count):
    rng, kinds = (
        np.random.default_rng(0),
        dict.fromkeys((*ALGORITHMS, "stream", "x"), 0),
    )
    streamed, plans_of.STREAMED_PIECE_BYTES = plans_of.STREAMED_BYTES, 0
    for n in range(count):
        if n % 5 == 0:  # for each geometry five plans
            name = TYPES[n // 5 % 4]
            geometry = draw(rng, name == "float32" and n // 40 % 2 == 1)
            want, read = ("yx", "xy")[n // 20 % 2]
            problem, dtype = Problem(geometry, want), as_dtype(np, name)
            plans = all_plans(problem, name, target(), 1 + n // 5 % 3)
        # In turn those that only some types and geometries have, and any of all.
        turn = {4: "winograd", 3: "channel_lanes", 2: "depthwise", 1: "row_gemm"}.get(n % 5)
        some = [plan for plan in plans if plan.algorithm == turn] or plans
        plan = some[int(rng.integers(len(some)))]
        plans_of.STREAMED_BYTES = 0 if n % 4 == 0 else streamed
        primitive = Primitive(problem, name, target(), plan)
        shape = (geometry.groups, -1, *geometry.weight_shape[1:])
        x = guarded(rng.standard_normal(geometry.shape_of(read)).astype(dtype), n % 3)
        w = guarded(rng.standard_normal(geometry.weight_shape).astype(dtype), n % 3)
        channels = geometry.out_channels if want == "y" else geometry.in_channels
        bias = rng.standard_normal(channels).astype(dtype)
        out = guarded(np.full(geometry.shape_of(want), np.nan, dtype), n % 3)
        packed = primitive.pack(w.reshape(shape))
        if plan.algorithm == "winograd":
            packed = packed._replace(transformed=guarded(packed.transformed, n % 3))
        else:
            packed = guarded(packed, n % 3)
        primitive(x, packed, primitive.pack_bias(bias), out)
        assert np.isfinite(out).all()
        kinds[plan.algorithm] += 1
        kinds["x"] += want == "x"
        kinds["stream"] += primitive.layout.fields["streams"]
    assert min(kinds.values()) > 0 or count < 100, kinds
    print(count, "plans")


def gradients(count):
    """The same for w."""
    rng, kinds = np.random.default_rng(0), {True: 0, False: 0}
    for n in range(count):
        if n % 4 == 0:  # for each geometry four plans
            geometry, dtype = draw(rng), ("float32", "float64")[n // 4 % 2]
            problem = Problem(geometry, "x")
            plans = all_gradient_plans(problem, dtype, target())
        plan = plans[int(rng.integers(len(plans)))]
        if n % 2:
            cells = int(rng.integers(1, 30))
            plan = plan._replace(
                k_block=ReductionBlock.of(geometry.batch, problem.written_size, cells)
            )
        primitive = WeightGradientPrimitive(
            problem, dtype, target(), plan._replace(k_splits=1), 1 + n % 3
        )
        x, y = (
            guarded(rng.standard_normal(shape).astype(dtype), n % 3)
            for shape in (geometry.x_shape, geometry.y_shape)
        )
        dw = guarded(np.full(geometry.weight_shape, np.nan, dtype), n % 3)
        primitive(x, y, dw)
        assert np.isfinite(dw).all()
        kinds[plan.is_dot] += 1
    assert min(kinds.values()) > 0, kinds
    print(count, "plans")


if __name__ == "__main__":
    (gradients if "w" in sys.argv else main)(int(sys.argv[1]))
