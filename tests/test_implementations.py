"""Every implementation of `contract` equals the definition, and its three forms have one value."""

import pytest

from implementations import IMPLEMENTATIONS
from laws import equals_the_definition, forms_have_one_value
from scratch import full_of_nan


@pytest.fixture(autouse=True, scope="module")
def _scratch_is_full_of_nan():
    with full_of_nan():
        yield


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_equals_the_definition(name):
    equals_the_definition(IMPLEMENTATIONS[name])


@pytest.mark.parametrize("name", [name for name, each in IMPLEMENTATIONS.items() if each.has_forms])
def test_its_forms_have_one_value(name):
    forms_have_one_value(IMPLEMENTATIONS[name])
