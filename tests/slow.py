"""Slow tests, which `make test` leaves out and CI runs: each has a quicker one for the same law."""

import pytest

__all__ = ["mostly_slow", "unknown_quick"]


def mostly_slow(values, *quick):
    """Parameters of a test, or tuples of them, of which all but the quick ones are slow."""
    assert set(quick) < set(values)
    return [
        v
        if v in quick
        else pytest.param(*(v if isinstance(v, tuple) else (v,)), marks=pytest.mark.slow)
        for v in values
    ]


def unknown_quick(items):
    """Slow tests of which no quicker one is among the tests of its file.

    A slow test is one of several parameters, of which another is quick, or names what is:
    ``pytest.mark.slow(quick="test_file.py::test_name")``, as the path ends.
    """
    quick, files = set(), {item.path for item in items}
    for item in items:
        if not item.get_closest_marker("slow"):
            quick.add((item.path, getattr(item, "originalname", item.name)))
    return [item.nodeid for item in items if not _has_quick(item, quick, files)]


def _has_quick(item, quick, files):
    mark = item.get_closest_marker("slow")
    if mark is None:
        return True
    if "quick" not in mark.kwargs:
        return (item.path, item.originalname) in quick
    path, _, name = mark.kwargs["quick"].partition("::")
    here = [file for file in files if str(file).endswith(f"/{path}")]
    return not here or any((file, name) in quick for file in here)
