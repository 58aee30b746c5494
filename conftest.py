"""Names that every doctest may use without importing them, and where tests keep kernels."""

import gc
import os
from collections.abc import Generator
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
import pytest

# Beside the project: the plans of some ten thousand shapes would drive out what its user has kept.
os.environ.setdefault("TCONV_CACHE", str(Path(__file__).parent / ".cache"))

# `make test` goes without these libraries.
_HOSTS = {
    "tconv/torch": "torch",
    "tconv/dask": "dask",
    "tconv/volumes": "dask",
    "tconv/scipy": "scipy",
    "tconv/scipy/pylops.py": "pylops",
}
collect_ignore = [folder for folder, library in _HOSTS.items() if not find_spec(library)]


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, Any, Any]:
    """Keep what thousands of tests are made of out of every later search for garbage."""
    gc.disable()
    found = yield
    gc.freeze()
    gc.enable()
    return found


@pytest.fixture(autouse=True)
def _names_of_doctests(doctest_namespace: dict[str, Any]) -> None:
    import tconv

    doctest_namespace.update(np=np, tconv=tconv)
