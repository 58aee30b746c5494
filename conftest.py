"""Names that every doctest may use without importing them: np and tconv."""

from typing import Any

import numpy as np
import pytest


@pytest.fixture(autouse=True)
def _names_of_doctests(doctest_namespace: dict[str, Any]) -> None:
    import tconv

    doctest_namespace.update(np=np, tconv=tconv)
