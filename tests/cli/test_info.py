"""`tconv info`: what a report of a problem should say about the machine."""

import json
import platform
import re
from argparse import Namespace
from importlib.metadata import version

import numpy as np
import pytest

import tconv
from tconv.cli import info, main


def test_the_versions_are_those_that_are_here(capsys):
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in lines[:8])
    assert list(facts) == [
        "what", "tconv", "Python", "NumPy", "platform", "processor", "cores usable",
        "memory available",
    ]  # fmt: skip
    assert facts["tconv"] == tconv.__version__
    assert facts["Python"] == platform.python_version()
    assert facts["NumPy"].startswith(np.__version__)
    assert re.fullmatch(r"\d+ of \d+", facts["cores usable"])
    assert re.fullmatch(r"\d+\.\d GiB|–", facts["memory available"])
    assert f"cli          pillow       {version('pillow')}" in lines


def test_json_has_numbers_and_null_for_what_is_missing(capsys, monkeypatch):
    monkeypatch.setattr(info, "EXTRAS", {"cli": ("pillow",), "jax": ("no_such_library",)})
    assert main(["info", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert list(result) == [
        "tconv", "python", "numpy", "blas", "platform", "processor", "cores_usable", "cores",
        "memory_available_bytes", "extras",
    ]  # fmt: skip
    assert result["extras"] == {
        "cli": {"pillow": version("pillow")},
        "jax": {"no_such_library": None},
    }


@pytest.mark.parametrize("width", [80, 200])
def test_what_is_missing_can_be_installed(monkeypatch, width):
    monkeypatch.setattr(info, "EXTRAS", {"cli": ("pillow",), "jax": ("no_such_library",)})
    _, extras = info.answer(Namespace()).parts
    assert extras.plain(width) == (
        "extra  library          version\n"
        f"cli    pillow           {version('pillow')}\n"
        "jax    no_such_library  missing: pip install tconv[jax]"
    )


def test_looking_loads_no_optional_library(command):
    code = (
        "import sys; from tconv.cli import main; main(['info', '--json'])\n"
        "print(*{name.partition('.')[0] for name in sys.modules})"
    )
    loaded = set(command(code=code).stdout.splitlines()[-1].split())
    assert "numpy" in loaded
    libraries = {info._MODULES.get(name, name) for names in info.EXTRAS.values() for name in names}
    assert not loaded & libraries


def test_a_system_that_tells_nothing(monkeypatch):
    monkeypatch.setattr(info, "available_bytes", lambda: None)
    monkeypatch.setattr(info, "Path", lambda name: info.os)  # has no read_text
    monkeypatch.setattr(info, "_processor", lambda: "")
    facts, _ = info.answer(Namespace()).parts
    assert str(facts).endswith("memory available  –")
