"""Scratch full of NaN, for every test of the engine."""

import pytest

from scratch import full_of_nan


@pytest.fixture(scope="package", autouse=True)
def _scratch_is_full_of_nan():
    with full_of_nan():
        yield
