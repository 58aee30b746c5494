"""Run random plans on operands that begin and end where memory does; a stray access ends this.

python tests/engine/guarded.py CALLS
"""

import ctypes
import mmap
import sys

import numpy as np

from tconv import engine
from tconv.geometry import Geometry

PAGE = mmap.PAGESIZE
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


def draw(rng):
    rank = int(rng.integers(1, 4))

    def sizes(low, high):
        return tuple(int(n) for n in rng.integers(low, high, rank))

    groups = int(rng.integers(1, 3))
    channels = groups * int(rng.integers(1, 9))
    kernel, stride = sizes(1, 6), sizes(1, 5)
    size = sizes(1, 40 if rank == 1 else 12 if rank == 2 else 6)
    dilation = sizes(1, 3)
    room = min(d * (k - 1) for d, k in zip(dilation, kernel, strict=True)) // 2
    return Geometry.of(
        (int(rng.integers(1, 4)), channels, *size),
        (channels, int(rng.integers(1, 20)), *kernel),
        stride=stride,
        dilation=dilation,
        padding=int(rng.integers(0, room + 1)),
        groups=groups,
    )


def main(calls):
    rng = np.random.default_rng(0)
    for n in range(calls):
        geometry, dtype = draw(rng), ("float32", "float64")[n % 2]
        assert engine.serves(geometry, "y", dtype), geometry
        x = guarded(rng.standard_normal(geometry.x_shape).astype(dtype), n % 3)
        w = guarded(rng.standard_normal(geometry.weight_shape).astype(dtype), n % 3)
        bias = guarded(rng.standard_normal(geometry.out_channels).astype(dtype), n % 3)
        out = guarded(np.zeros(geometry.y_shape, dtype), n % 3)
        engine.contract(geometry, "y", x, w, bias=bias, out=out, threads=1 + n % 3)
        assert np.isfinite(out).all()
    print(calls, "calls")


if __name__ == "__main__":
    main(int(sys.argv[1]))
