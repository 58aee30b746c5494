"""Inputs in pushes of random lengths, and all that a stream returns of them."""

import numpy as np
from hypothesis import strategies as st

from tconv.streams.run_lengths import RunLengths

__all__ = ["LENGTHS", "all_of", "cuts", "in_runs", "piecewise", "same_bits"]

LENGTHS = st.sampled_from([None, 1, 2, 3, 8, 40])
"""Periods of the longest run, for `in_runs`."""


def in_runs(stream, most):
    """The stream, whose runs have at most so many periods; None for the lengths that it chose."""
    runner = stream._runner
    if most is not None:
        period = runner.schedule.period
        runner.lengths = RunLengths(period, most * period, fixed=2.0, per_cell=1.0)
    return stream


@st.composite
def cuts(draw, size, most=9):
    """Lengths of pushes that sum to a size; some are 0."""
    found = []
    while sum(found) < size and len(found) < 40:
        found.append(min(draw(st.integers(0, most)), size - sum(found)))
    return [*found, size - sum(found), *([0] if draw(st.booleans()) else [])]


def piecewise(stream, inputs, lengths):
    """What pushes of these lengths and a flush return, joined along time: a list of arrays."""
    parts, start = [], 0
    runner = stream._runner
    names = runner.schedule.inputs
    for length in lengths:
        pieces = [
            np.moveaxis(np.moveaxis(each, axis, 0)[start : start + length], 0, axis)
            for each, axis in zip(inputs, map(runner.axis, names), strict=True)
        ]
        parts.append(stream.push(*pieces))
        start += length
    parts.append(stream.flush())
    outputs = runner.schedule.outputs
    several = [each if len(outputs) > 1 else [each] for each in parts]
    axes = map(runner.axis, outputs)
    return [
        np.concatenate(each, axis)
        for each, axis in zip(zip(*several, strict=True), axes, strict=True)
    ]


def all_of(stream, x, lengths):
    """The same of a stream with one input and one output."""
    (found,) = piecewise(stream, [x], lengths)
    return found


def same_bits(found, expected):
    """Whether two arrays have one shape, one type and the same bytes."""
    alike = (found.shape, found.dtype) == (expected.shape, expected.dtype)
    return alike and found.tobytes() == expected.tobytes()
