"""Every layout is a view of the canonical one, and the inverse restores it."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from strategies import draws, geometries, integer_operands, same_numbers
from tconv.arrays.canonical import canonical, canonical_shape, from_canonical
from tconv.geometry.geometry import Geometry
from tconv.geometry.weight_formats import WEIGHT_FORMATS, WeightLayout


@draws()
@given(geometries(), st.sampled_from("xwy"))
def test_there_and_back(geometry, letter):
    array = dict(zip("xwy", integer_operands(geometry), strict=True))[letter]
    seen = canonical(np, geometry, letter, array)
    assert seen.shape == canonical_shape(geometry, letter)
    assert same_numbers(from_canonical(np, geometry, letter, seen), array)


@draws()
@given(geometries(batches=(1, 2)), st.sampled_from("xwy"))
def test_numpy_arrays_are_seen_not_copied(geometry, letter):
    array = np.zeros(geometry.shape_of(letter))
    seen = canonical(np, geometry, letter, array[::-1].T[::-1].T)
    assert np.shares_memory(seen, array)
    seen[...] = 1
    assert array.all()


GROUPED_SHAPES = {
    "IO*": (8, 3, 4, 5),  # in: 8 channels, out: 6, in 2 groups, kernel (4, 5)
    "*OI": (4, 5, 3, 8),
    "*IO": (4, 5, 4, 6),
    "OI*": (6, 4, 4, 5),
    "O*I": (6, 4, 5, 4),
}


@pytest.mark.parametrize("weight_format", WEIGHT_FORMATS)
def test_shapes_of_grouped_weights(weight_format):
    layout = WeightLayout.of(weight_format, 2)
    assert layout.shape(8, 6, 2, (4, 5)) == GROUPED_SHAPES[weight_format]
    geometry = Geometry.of(
        (1, 8, 3, 3), GROUPED_SHAPES[weight_format], groups=2, weight_format=weight_format
    )
    assert (geometry.in_channels, geometry.out_channels) == (8, 6)
    assert canonical_shape(geometry, "w") == (2, 4, 3, 4, 5)
