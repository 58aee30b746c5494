"""The definition equals the sum in its docstring, and W* is the matrix of it."""

from itertools import product

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws, geometries, integer_operands, operands_of, same_numbers
from tconv.arrays.canonical import canonical, canonical_shape, from_canonical
from tconv.definition import contract, unrolled_filter
from tconv.errors import MemoryLimitError
from tconv.geometry.geometry import Geometry

W = np.array([[1, 2], [3, 4]]).reshape(1, 1, 2, 2)
Y = np.array([[37, 47], [67, 77]]).reshape(1, 1, 2, 2)
X = np.arange(1, 10).reshape(1, 1, 3, 3)
WORKED = Geometry.of(Y.shape, W.shape)


def test_the_worked_example():
    assert unrolled_filter(WORKED, W).tolist() == [
        [1, 2, 0, 3, 4, 0, 0, 0, 0],
        [0, 1, 2, 0, 3, 4, 0, 0, 0],
        [0, 0, 0, 1, 2, 0, 3, 4, 0],
        [0, 0, 0, 0, 1, 2, 0, 3, 4],
    ]
    assert contract(WORKED, "y", Y, W).ravel().tolist() == [
        *(37, 121, 94),
        *(178, 500, 342),
        *(201, 499, 308),
    ]
    assert contract(WORKED, "x", X, W).ravel().tolist() == [37, 47, 67, 77]


def summed(geometry, want, a, b):
    """F(x, w, y) term by term, with no other thought than the formula."""
    letters = {"y": "xw", "x": "yw", "w": "xy"}[want]
    found = {n: canonical(np, geometry, n, v) for n, v in zip(letters, (a, b), strict=True)}
    found[want] = np.zeros(canonical_shape(geometry, want))
    x, w, y = found["x"], found["w"], found["y"]
    for i, k in product(np.ndindex(geometry.input_size), np.ndindex(geometry.kernel_size)):
        o = tuple(
            at * axis.stride - axis.begin + tap * axis.dilation
            for at, tap, axis in zip(i, k, geometry.axes, strict=True)
        )
        if not all(0 <= at < size for at, size in zip(o, geometry.output_size, strict=True)):
            continue
        for n, g, c, m in np.ndindex(x.shape[0], *w.shape[:3]):
            if want == "y":
                y[n, g, m, *o] += x[n, g, c, *i] * w[g, c, m, *k]
            elif want == "x":
                x[n, g, c, *i] += y[n, g, m, *o] * w[g, c, m, *k]
            else:
                w[g, c, m, *k] += x[n, g, c, *i] * y[n, g, m, *o]
    return from_canonical(np, geometry, want, found[want])


@draws(0.2)  # the loops are slow
@given(geometries(ranks=(1, 2)), st.sampled_from("yxw"))
def test_the_definition_is_the_sum(geometry, want):
    operands = operands_of(want, *integer_operands(geometry))
    assert same_numbers(contract(geometry, want, *operands), summed(geometry, want, *operands))


@draws()
@given(geometries())
def test_the_form_has_one_value(geometry):
    x, w, y = integer_operands(geometry)
    energy = np.sum(contract(geometry, "y", x, w) * y)
    assert np.sum(contract(geometry, "x", y, w) * x) == energy
    assert np.sum(contract(geometry, "w", x, y) * w) == energy


@draws(0.2)
@given(geometries(batches=(1,)))
def test_every_row_of_the_unrolled_filter_is_one_position_of_the_filter(geometry):
    _, w, _ = integer_operands(geometry)
    matrix = unrolled_filter(geometry, w)
    x = np.zeros(geometry.x_shape)
    for row in range(min(len(matrix), 5)):
        one = x.copy()
        seen = canonical(np, geometry, "x", one)
        seen[np.unravel_index(row, seen.shape)] = 1
        y = contract(geometry, "y", one, w)
        assert same_numbers(canonical(np, geometry, "y", y).ravel(), matrix[row])


@pytest.mark.parametrize("want", ["y", "x"])
def test_a_matrix_beyond_the_memory_is_refused_before_anything_is_built(want):
    shapes = (1, 3, 512, 512), (3, 64, 4, 4)
    geometry = Geometry.of(*shapes, stride=2, padding=1)
    weight = np.ones(geometry.weight_shape)
    with pytest.raises(MemoryLimitError, match=r"^W\* of 786,432 x 67,108,864 needs 4\d\d,\d{3},"):
        unrolled_filter(geometry, weight)
    data = np.ones(geometry.x_shape if want == "y" else geometry.y_shape)
    with pytest.raises(MemoryLimitError, match=r"^W\* of"):
        contract(geometry, want, data, weight)
