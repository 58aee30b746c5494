"""Operands and contenders of the benchmark: PyTorch's result in every type."""

import numpy as np
import pytest

from bench.cases import Case
from bench.examples import autoencoder, autoencoder_torch
from bench.peers import as_array, as_tensor, operands
from bench.server import TOLERANCES, Server, function_of
from bench.wants import WANTS

CASES = [
    Case("plain", 2, 3, 4, (5, 3), 4, 2, 1, 0, 1, 1, "made up"),
    Case("left over", 1, 2, 3, (6,), 3, 3, 1, 2, 1, 1, "made up"),
    Case("a position left over", 2, 2, 4, (5, 4), 3, 1, 2, 1, 2, 2, "made up"),
    Case("depthwise", 1, 4, 4, (2, 3, 2), 2, 2, 0, 1, 1, 4, "made up"),
]


@pytest.fixture(autouse=True)
def _autograd_as_it_was():
    import torch

    with torch.set_grad_enabled(torch.is_grad_enabled()):
        yield


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
@pytest.mark.parametrize("dtype", TOLERANCES)
@pytest.mark.parametrize("want", WANTS)
def test_pytorch_gives_the_answer(tmp_path, want, dtype, case):
    functions, path = WANTS[want].contenders, str(tmp_path / "reference")
    order = {"case": case, "dtype": dtype, "seed": 1, "want": want}
    Server(function_of(functions["portable"])).refer(**order, path=path)
    for name in (WANTS[want].ours, "torch"):
        server = Server(function_of(functions[name]))
        assert server.prepare(**order, threads=1, reference=path)["error"] <= TOLERANCES[dtype]


@pytest.mark.parametrize("dtype", TOLERANCES)
def test_tensors_hold_the_numbers_of_arrays(dtype):
    for array in operands(CASES[0], dtype, 0):
        tensor = as_tensor(array)
        assert str(tensor.dtype) == f"torch.{dtype}"
        assert as_array(tensor).dtype == array.dtype
        assert np.array_equal(as_array(tensor), array)


def test_an_epoch_ends_where_pytorch_ends():
    found, expected = (make("float64", 1)() for make in (autoencoder, autoencoder_torch))
    assert found.shape == (23,)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=0)
