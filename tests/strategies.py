"""Random calls for property tests: geometries of every kind, operands that make sums exact.

Operands are small integers stored as floats, so that every order of summation gives the same number
and laws can be written with ``==``. Sizes are small: the oracle builds W* densely.
"""

import zlib
from dataclasses import replace
from math import prod

import ml_dtypes  # noqa: F401  NumPy knows "bfloat16" from then on
import numpy as np
from hypothesis import settings
from hypothesis import strategies as st

from tconv.geometry.axis import Axis
from tconv.geometry.geometry import Geometry
from tconv.geometry.weight_formats import WEIGHT_FORMATS

__all__ = [
    "ENGINE_TYPES",
    "draws",
    "framed",
    "geometries",
    "integer_operands",
    "integers_like",
    "keywords_of",
    "named_paddings",
    "operands_of",
    "padded_calls",
    "same_numbers",
]

_MOST_CELLS = 1500  # of W* in one channel pair; beyond it the last axes shrink to one cell
_DATA_FORMATS = st.sampled_from(["channels_first", "channels_last"])
_WEIGHT_FORMATS = st.sampled_from(sorted(WEIGHT_FORMATS))
ENGINE_TYPES = ("float16", "bfloat16", "float32", "float64")


def draws(share=1.0):
    """Settings that draw a share of the profile's examples.

    A profile draws 30 ("quick"), 250 ("ci") or 5000 ("thorough") times. The laws of the core alone
    see more than 20 times as many geometries: over 5,000 under "ci", 100,000 under "thorough".
    """
    return settings(max_examples=max(5, round(settings().max_examples * share)))


@st.composite
def axes(draw):
    """One axis of the law: k < s, gaps, overlaps, crops, extensions, every legal output_padding."""
    size, kernel = draw(st.integers(1, 4)), draw(st.integers(1, 4))
    stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 3))
    extra = draw(st.integers(0, max(stride, dilation) - 1))
    axis = Axis(size, kernel, 0, stride, dilation, extra=extra)
    spare = axis.law - 1  # what may be cropped in all
    begin = draw(st.integers(-2, min(spare + 2, 4)))
    end = draw(st.integers(-2, min(spare - begin, 4)))
    axis = axis._replace(begin=begin, end=end)
    return axis._replace(output=axis.law)


@st.composite
def geometries(draw, ranks=(1, 2, 3, 4), batches=(0, 1, 2, 3), plain=False):
    """Geometry of any kind; `plain` keeps to channels first, "IO*" and an unflipped kernel."""
    rank = draw(st.sampled_from(ranks))
    found = [draw(axes()) for _ in range(rank)]
    while prod(axis.input * axis.output for axis in found) > _MOST_CELLS:
        largest = max(range(rank), key=lambda n: found[n].input * found[n].output)
        found[largest] = Axis(1, 1, 1)
    groups = draw(st.integers(1, 3))
    batch = draw(st.sampled_from([None, *batches]))
    geometry = Geometry(
        1 if batch is None else batch,
        groups * draw(st.integers(1, 3)),
        groups * draw(st.integers(1, 3)),
        groups,
        tuple(found),
        batched=batch is not None,
    )
    if plain:
        return geometry
    layout = draw(st.tuples(_DATA_FORMATS, _WEIGHT_FORMATS, st.booleans()))
    data_format, weight_format, flip = layout
    return replace(geometry, data_format=data_format, weight_format=weight_format, flip_kernel=flip)


def keywords_of(geometry, want="y"):
    """The keywords of `conv_transpose`, or of `conv` for want "x", that give this geometry."""
    leftover = {"output_padding": tuple(axis.extra for axis in geometry.axes)}
    if want == "x":
        leftover = {"input_size": geometry.input_size}
    return leftover | {
        "stride": tuple(axis.stride for axis in geometry.axes),
        "dilation": tuple(axis.dilation for axis in geometry.axes),
        "padding": tuple((axis.begin, axis.end) for axis in geometry.axes),
        "groups": geometry.groups,
        "data_format": geometry.data_format,
        "weight_format": geometry.weight_format,
        "flip_kernel": geometry.flip_kernel,
    }


def integers_like(shape, dtype="float64", seed=0, largest=4):
    """Integers from -largest (or 0) to largest, in any type."""
    rng = np.random.default_rng(seed)
    dtype = np.dtype(dtype)
    least = 0 if dtype.kind == "u" else -largest
    numbers = rng.integers(least, largest + 1, shape)
    if dtype.kind == "c":
        numbers = numbers + 1j * rng.integers(least, largest + 1, shape)
    return numbers.astype(dtype)


def integer_operands(geometry, dtype="float64"):
    """x, w and y of a geometry; the same geometry always has the same ones."""
    seed = zlib.crc32(repr(geometry).encode())
    return tuple(
        integers_like(geometry.shape_of(letter), dtype, seed + n) for n, letter in enumerate("xwy")
    )


@st.composite
def named_paddings(draw):
    """x's shape, weight's shape and keywords of a call with a named padding."""
    rank = draw(st.integers(1, 3))
    size = st.tuples(*[st.integers(1, 4)] * rank)
    keywords = {
        "stride": draw(size),
        "dilation": draw(st.tuples(*[st.integers(1, 3)] * rank)),
        "padding": draw(st.sampled_from(["valid", "same", "same_upper", "same_lower"])),
    }
    return (2, 2, *draw(size)), (2, 3, *draw(size)), keywords


@st.composite
def padded_calls(draw):
    """Geometry and keywords of a call with a padding mode other than zeros."""
    mode = draw(st.sampled_from(["circular", "reflect", "replicate"]))
    rank = draw(st.integers(1, 2))
    found = []
    for _ in range(rank):
        size, kernel = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        stride, dilation = draw(st.integers(1, 3)), draw(st.integers(1, 2))
        axis = Axis(size, kernel, 0, stride, dilation)
        begin = draw(st.integers(0, min(axis.law - 1, 3)))
        end = draw(st.integers(0, min(axis.law - 1 - begin, 3)))
        if mode != "circular":  # a mirror reaches no further than the samples there are
            while max(begin, end) >= axis.full - begin - end:
                begin, end = max(begin - 1, 0), max(end - 1, 0)
        axis = axis._replace(begin=begin, end=end)
        found.append(axis._replace(output=axis.law))
    groups = draw(st.integers(1, 2))
    layout = draw(st.tuples(_DATA_FORMATS, _WEIGHT_FORMATS, st.booleans()))
    batched = draw(st.booleans())
    geometry = Geometry(
        2 if batched else 1, groups, 2 * groups, groups, tuple(found), *layout, batched
    )
    return geometry, keywords_of(geometry) | {"padding_mode": mode}


def operands_of(want, x, w, y):
    """What `contract` takes to find the wanted letter, of x, w and y."""
    return {"y": (x, w), "x": (y, w), "w": (x, y)}[want]


def framed(array, canary):
    """A strided copy of an array amid canaries, and the whole of the memory that it lies in.

    Whoever reads outside of the copy meets a canary, whoever writes there kills one.
    """
    order = tuple(reversed(range(array.ndim)))
    shape = [size + 2 for size in array.shape]
    shape[0] = 2 * array.shape[0] + 1
    memory = np.full([shape[n] for n in order], canary, array.dtype)
    view = memory.transpose(order)[(slice(1, None, 2), *[slice(1, -1)] * (array.ndim - 1))]
    view[...] = array
    return view, memory


def same_numbers(a, b):
    """Whether two arrays have one shape and the same numbers."""
    a, b = np.asarray(a), np.asarray(b)
    return a.shape == b.shape and np.array_equal(a, b)
