"""Implementations of `contract` on tensors and JAX arrays equal the definition, too."""

from dataclasses import replace

import dask.array as da
import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from hypothesis import strategies as st

from implementations import Implementation
from laws import equals_the_definition, forms_have_one_value
from strategies import geometries
from tconv.dask import contract as dask_contract
from tconv.portable import contract
from tconv.torch.contract import compute
from tconv.torch.custom_op import contract_op, op_arguments

EXACT = ("float32", "float64")
NATIVE_DTYPES = geometries(ranks=(1, 2, 3), batches=(1, 2, 3)).map(
    lambda geometry: replace(
        geometry,
        batched=True,
        data_format="channels_first",
        weight_format="IO*",
        flip_kernel=False,
    )
)


def as_tensor(array):
    return None if array is None else torch.asarray(np.ascontiguousarray(array))


def portable_on(convert, kind):
    """What prepares the portable path on arrays of another library."""

    def prepare(draw, geometry, want, dtype):
        def solve(a, b, bias, out):
            converted = [None if v is None else convert(v) for v in (a, b, bias)]
            result = contract.contract(geometry, want, *converted[:2], bias=converted[2])
            assert isinstance(result, kind)
            return np.asarray(result)

        return solve

    return prepare


def on_tensors(draw, geometry, want, dtype):
    """What tconv.torch computes with, without the graph."""

    def solve(a, b, bias, out):
        return compute(geometry, want, *map(as_tensor, (a, b, bias))).numpy()

    return solve


def by_operator(draw, geometry, want, dtype):
    """What compilers see."""

    def solve(a, b, bias, out):
        a, b, bias = map(as_tensor, (a, b, bias))
        return contract_op(*op_arguments(geometry, want, a, b, bias)).numpy()

    return solve


def on_chunks(draw, geometry, want, dtype):
    """Dask arrays in chunks of any size, computed by one thread."""
    step = draw(st.integers(1, 5))

    def solve(a, b, bias, out):
        a, b = (da.from_array(v, chunks=step) for v in (a, b))
        bias = None if bias is None else da.from_array(bias)
        lazy = dask_contract(geometry, want, a, b, bias=bias)
        return lazy.compute(scheduler="synchronous")

    return solve


HOSTED = {
    "tconv.dask": Implementation(
        on_chunks,
        dtypes=(*EXACT, "float16", "int8"),
        geometries=geometries(ranks=(1, 2, 3)),
        takes_out=False,
        takes_large=False,
        share=0.5,
    ),
    "portable on PyTorch": Implementation(
        portable_on(as_tensor, torch.Tensor), dtypes=EXACT, takes_out=False
    ),
    # Every new shape is compiled anew for every function, which takes JAX most of the time.
    "portable on JAX": Implementation(
        portable_on(jnp.asarray, jax.Array),
        dtypes=EXACT,
        geometries=geometries(ranks=(1, 2, 3)),
        takes_out=False,
        takes_large=False,
        share=0.15,
    ),
    "tconv.torch": Implementation(
        on_tensors, dtypes=EXACT, geometries=NATIVE_DTYPES, biased="y", takes_out=False
    ),
    "operator of tconv.torch": Implementation(
        by_operator, dtypes=EXACT, geometries=NATIVE_DTYPES, biased="y", takes_out=False, share=0.5
    ),
}


@pytest.fixture(autouse=True)
def _64_bits():
    with jax.enable_x64(True):
        yield


@pytest.mark.parametrize("name", HOSTED)
def test_equals_the_definition(name):
    equals_the_definition(HOSTED[name])


@pytest.mark.parametrize("name", [name for name, each in HOSTED.items() if each.has_forms])
def test_its_forms_have_one_value(name):
    forms_have_one_value(HOSTED[name])
