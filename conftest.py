"""Names that every doctest may use without importing them: np and tconv."""

from importlib.util import find_spec
from typing import Any

import numpy as np
import pytest

collect_ignore = [] if find_spec("torch") else ["tconv/torch"]  # `make test` goes without


@pytest.fixture(autouse=True)
def _names_of_doctests(doctest_namespace: dict[str, Any]) -> None:
    import tconv

    doctest_namespace.update(np=np, tconv=tconv)
