"""Selection of tests: CI leaves none out, `make test` only slow ones that have a quick one."""

import os
import re
import shlex
import subprocess
from pathlib import Path
from types import SimpleNamespace

import pytest

from slow import mostly_slow, unknown_quick

ROOT = Path(__file__).parents[1]
CI = (ROOT / ".ci" / "run").read_text()


def command_of(target, *words):
    """The arguments of pytest in the recipe of a target."""
    outer = ("MAKEFLAGS", "MFLAGS", "MAKELEVEL", "SLOW", "PYTEST_ARGS")
    made = subprocess.run(
        ["make", "--dry-run", "--always-make", target, *words],
        env={name: value for name, value in os.environ.items() if name not in outer},
        cwd=ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    (line,) = re.findall(r"-m pytest (.*)", made.stdout)
    return shlex.split(line)


def test_ci_runs_every_test():
    assert command_of("test", "SLOW=1") == ["-n", "auto", "--ignore=tests/hosts"]
    hosts = ["tests/hosts", "tconv/torch", "tconv/scipy", "tconv/dask", "tconv/volumes"]
    assert command_of("test-hosts", "SLOW=1") == ["-n", "auto", *hosts]
    assert re.search(r"^export .*\bSLOW=1\b", CI, re.MULTILINE)
    for target in ("test", "test-hosts"):
        assert re.search(rf"^make {target}$", CI, re.MULTILINE)


def test_by_default_the_slow_ones_are_left_out_and_no_others():
    for target in ("test", "test-hosts"):
        words = command_of(target)
        place = words.index("-m")
        assert words[place : place + 2] == ["-m", "not slow"]
        assert words[:place] + words[place + 2 :] == command_of(target, "SLOW=1")


def test_the_files_that_ci_names_are_there():
    named = re.findall(r"\btests/[\w/.]+", CI)
    assert len(named) > 5
    assert all((ROOT / path).exists() for path in named)


def item(name, parameter=None, **mark):
    """A collected test; with `quick` or a slow parameter it is a slow one."""
    is_slow = bool(mark) or getattr(parameter, "marks", ())
    found = SimpleNamespace(kwargs=mark) if is_slow else None
    return SimpleNamespace(
        path=Path("tests/test_x.py"),
        originalname=name,
        name=f"{name}[{parameter}]",
        nodeid=f"test_x.py::{name}[{parameter}]",
        get_closest_marker=lambda _: found,
    )


def test_a_slow_test_has_a_quick_one():
    whole = [item("law", each) for each in mostly_slow([1, 2, 3], 2)]
    assert unknown_quick(whole) == []
    assert len(unknown_quick([each for each in whole if each.get_closest_marker("slow")])) == 2
    assert unknown_quick([*whole, item("long", quick="test_x.py::law")]) == []
    for quick in ("test_x.py::other", "test_x.py::long"):
        assert unknown_quick([*whole, item("long", quick=quick)]) == ["test_x.py::long[None]"]
    with pytest.raises(AssertionError):
        mostly_slow([1, 2], 3)
