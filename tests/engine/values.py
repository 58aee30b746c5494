"""Equality of records whose values are arrays, to the last bit and type."""

import numpy as np


def same(one, other):
    """Whether two values, of plain types, tuples, dictionaries and arrays, are the same."""
    if type(one) is not type(other):
        return False
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, dict):
        return one.keys() == other.keys() and all(same(one[key], other[key]) for key in one)
    if isinstance(one, tuple):
        return len(one) == len(other) and all(map(same, one, other))
    return one == other
