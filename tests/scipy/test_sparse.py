"""Sparse matrices: those of the definition, for any geometry, without a dense step."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import sparse
from scipy_operators import TYPES, dense, operators

from strategies import draws, geometries, integers_like, keywords_of
from tconv import definition
from tconv.errors import DTypeError, MemoryLimitError, ParameterError
from tconv.scipy import ConvTransposeOperator, matrix

FORMATS = st.sampled_from(["csr", "csc"])


def is_canonical(found):
    """Sorted indices, none of which stands twice."""
    again = found.copy()
    again.has_sorted_indices = again.has_canonical_format = False
    again.sum_duplicates()
    return again.nnz == found.nnz and np.array_equal(again.indices, found.indices)


@draws(0.8)
@given(geometries(batches=(1,), ranks=(1, 2, 3)), st.sampled_from(TYPES), FORMATS)
def test_it_is_the_matrix_of_the_definition(geometry, dtype, form):
    w = integers_like(geometry.weight_shape, dtype)
    w[w == 0] = 1
    keywords = keywords_of(geometry)
    unrolled = matrix(w, geometry.input_size, format=form, unrolled=True, **keywords)
    found = matrix(w, geometry.input_size, format=form, **keywords)
    if geometry.data_format == "channels_first":
        assert np.array_equal(unrolled.toarray(), definition.unrolled_filter(geometry, w))
    assert np.array_equal(found.toarray(), unrolled.toarray().T)
    pairs = geometry.in_channels * geometry.out_channels // geometry.groups
    assert found.nnz == len(geometry.unrolled_indices()[0]) * pairs
    for each in (found, unrolled):
        assert each.format == form
        assert each.dtype == dtype
        assert is_canonical(each)
        assert isinstance(each, sparse.sparray)


@draws(0.4)
@given(operators(), FORMATS)
def test_it_is_the_operator(op, form):
    geometry = op.geometry
    keywords = keywords_of(geometry) | {"padding_mode": op.padding_mode}
    if op.padding_mode != "zeros":
        keywords.pop("output_padding")
    one = ConvTransposeOperator(op.weight, geometry.input_size, **keywords)
    found = matrix(op.weight, geometry.input_size, format=form, **keywords)
    assert found.shape == one.shape
    assert np.array_equal(found.toarray(), dense(one))
    assert is_canonical(found)


def test_integers_become_floats_and_zeros_stay():
    found = matrix(np.array([[[1, 0, 2]]]), 2)
    assert found.dtype == np.float64
    assert found.nnz == 6
    assert found.indices.dtype == np.int32


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_types_that_scipy_has_not(dtype):
    w = np.ones((1, 1, 3)).astype(dtype)
    with pytest.raises(DTypeError, match=f"weight has dtype {dtype}, which scipy.sparse has no"):
        matrix(w, 3)


def test_bad_arguments():
    w = np.ones((1, 1, 3))
    with pytest.raises(ParameterError, match="format='coo' must be one of 'csr', 'csc'"):
        matrix(w, 3, format="coo")
    with pytest.raises(ParameterError, match="unrolled=2 must be"):
        matrix(w, 3, unrolled=2)
    with pytest.raises(MemoryLimitError, match=r"needs [\d,]+ bytes"):
        matrix(np.ones((64, 64, 8, 8)), 100_000)
