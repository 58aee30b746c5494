"""Laws of an implementation of `contract`: it equals the definition, and its forms agree."""

import numpy as np
from hypothesis import assume, given
from hypothesis import strategies as st

from strategies import draws, framed, integer_operands, integers_like, operands_of, same_numbers
from tconv import definition
from tconv.arrays.dtypes import TYPES
from tconv.geometry.axis import Axis
from tconv.geometry.geometry import Geometry

__all__ = ["equals_the_definition", "forms_have_one_value"]

FLOATS = ("float16", "bfloat16", "float32", "float64", "complex64", "complex128")


def extremes(shape, dtype, seed):
    """The largest and smallest integers of a type, and some between."""
    info = np.iinfo(dtype)
    some = [info.min, info.min, info.max, info.max, 0, 1, info.max // 2]
    return np.random.default_rng(seed).choice(np.array(some, dtype), shape)


def operand(shape, dtype, seed):
    """Of small integers, or of the extremes of narrow integers."""
    is_narrow = dtype in ("int8", "uint8", "int16", "uint16")
    return (extremes if is_narrow else integers_like)(shape, dtype, seed)


def wide(array):
    """The same numbers in a type in which the definition sums them exactly."""
    if array is None or array.dtype.kind == "c":
        return array
    return array.astype("int64" if array.dtype.kind in "iu" else "float64")


@st.composite
def calls(draw, implementation):
    """What solves, for which geometry, letter and type."""
    geometry = draw(implementation.geometries)
    want = draw(st.sampled_from(implementation.wants))
    dtype = draw(st.sampled_from(implementation.dtypes))
    solve = implementation.prepare(draw, geometry, want, dtype)
    assume(solve is not None)
    return solve, geometry, want, dtype


def canary_of(dtype):
    return np.iinfo(dtype).max if dtype.kind in "iu" else np.nan


def equals_the_definition(implementation):
    """With and without bias and `out`; nothing beside the operands is read, or written beside it.

    Operands and `out` are new arrays, or lie apart in memory that is full of canaries: NaN, or
    the largest integers, between the samples of the operands.
    """
    memory_of_out = [None, "whole", "framed"] if implementation.takes_out else [None]

    @draws(implementation.share)
    @given(calls(implementation), st.booleans(), st.booleans(), st.sampled_from(memory_of_out))
    def law(call, has_bias, is_framed, kind):
        solve, geometry, want, dtype = call
        a, b = (
            operand(geometry.shape_of(letter), dtype, seed)
            for seed, letter in enumerate(operands_of(want, "x", "w", "y"))
        )
        bias, result = None, TYPES[dtype].result
        if has_bias and want in implementation.biased:
            channels = geometry.out_channels if want == "y" else geometry.in_channels
            bias = integers_like((channels,), result if dtype not in FLOATS else dtype, 2)
        exact = definition.contract(geometry, want, wide(a), wide(b), bias=wide(bias))
        out, memory = None, None
        if kind == "whole":
            out = np.full(exact.shape, 99, result)
        elif kind == "framed":
            out, memory = framed(np.full(exact.shape, 99, result), 77)
        if is_framed:
            a, b = (framed(v, canary_of(v.dtype))[0] for v in (a, b))
        before = a.copy(), b.copy()
        found = solve(a, b, bias, out)
        assert found.dtype == result
        assert same_numbers(found, exact.astype(result))
        assert out is None or found is out
        assert all(map(same_numbers, (a, b), before))
        if memory is not None:
            out[...] = 77
            assert (memory == 77).all()

    law()


@st.composite
def large_geometries(draw):
    """Beyond the sizes that the definition can lay out: of many samples, taps and channels."""
    rank = draw(st.integers(1, 3))
    size, taps = ((200, 30), (30, 9), (10, 5))[rank - 1]
    axes = []
    for _ in range(rank):
        stride, dilation = draw(st.integers(1, 9)), draw(st.integers(1, 4))
        axis = Axis(draw(st.integers(1, size)), draw(st.integers(1, taps)), 0, stride, dilation)
        axis = axis._replace(extra=draw(st.integers(0, max(stride, dilation) - 1)))
        begin = draw(st.integers(-3, max(-3, min(axis.law // 2, 9))))
        axis = axis._replace(begin=begin, end=draw(st.integers(-3, max(-3, min(axis.law // 3, 9)))))
        assume(axis.law > 0)
        axes.append(axis._replace(output=axis.law))
    groups = draw(st.integers(1, 3))
    channels = (groups * draw(st.integers(1, 40 // groups)) for _ in range(2))
    return Geometry(draw(st.integers(1, 3)), *channels, groups, tuple(axes))


def forms_have_one_value(implementation):
    """Of larger sizes: <y, v> = <x, x'> = <w, w'> for the three letters that are solved for."""

    @draws(0.15 * implementation.share)
    @given(large_geometries(), st.data())
    def law(geometry, data):
        x, w, v = integer_operands(geometry)
        solves = [
            implementation.prepare(data.draw, geometry, want, "float64")
            for want in implementation.wants
        ]
        assume(None not in solves)
        found = {}
        for want, solve in zip(implementation.wants, solves, strict=True):
            solved = solve(*operands_of(want, x, w, v), None, None)
            found[want] = np.vdot({"y": v, "x": x, "w": w}[want], solved)
        assert len(set(found.values())) == 1, found

    law()
