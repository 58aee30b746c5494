"""Verb `info`: facts about the machine for a bug report."""

import json
import platform
import re
from argparse import Namespace
from importlib.metadata import version

import numpy as np
import pytest

import tconv
from tconv.cli import info, main
from tconv.engine.compile import tiers

OPTIONS = Namespace(model=None, size=None, cache=False, clear_cache=False, warm=None)


def test_the_versions_are_those_that_are_here(capsys):
    assert main(["info"]) == 0
    lines = capsys.readouterr().out.splitlines()
    facts = dict(re.split(r"  +", line, maxsplit=1) for line in lines[:12])
    assert list(facts) == [
        "what", "tconv", "Python", "NumPy", "platform", "processor", "cores usable",
        "memory available", "engine", "instruction set", "llvmlite", "kernel cache",
    ]  # fmt: skip
    assert facts["tconv"] == tconv.__version__
    assert facts["Python"] == platform.python_version()
    assert facts["NumPy"].startswith(np.__version__)
    assert re.fullmatch(r"\d+ of \d+ \(\d+ by affinity\)", facts["cores usable"])
    assert re.fullmatch(r"\d+\.\d GiB|–", facts["memory available"])
    assert f"cli          pillow       {version('pillow')}" in lines


def test_json_has_numbers_and_null_for_what_is_missing(capsys, monkeypatch):
    monkeypatch.setattr(info, "EXTRAS", {"cli": ("pillow",), "jax": ("no_such_library",)})
    assert main(["info", "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert list(result) == [
        "tconv", "python", "numpy", "blas", "platform", "processor", "cores_usable", "cores",
        "cores_by_affinity", "memory_available_bytes", "engine", "extras",
    ]  # fmt: skip
    assert result["extras"] == {
        "cli": {"pillow": version("pillow")},
        "jax": {"no_such_library": None},
    }


@pytest.mark.parametrize("width", [80, 200])
def test_what_is_missing_can_be_installed(monkeypatch, width):
    monkeypatch.setattr(info, "EXTRAS", {"cli": ("pillow",), "jax": ("no_such_library",)})
    _, extras = info.answer(OPTIONS).parts
    assert extras.plain(width) == (
        "extra  library          version\n"
        f"cli    pillow           {version('pillow')}\n"
        "jax    no_such_library  missing: pip install no_such_library"
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
    facts, _ = info.answer(OPTIONS).parts
    assert "memory available  –" in str(facts)


MISSING = """
import sys, warnings
class Hidden:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("llvmlite", "ml_dtypes"):
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Hidden())
import numpy as np, tconv
from tconv.cli import main
with warnings.catch_warnings(record=True) as caught:
    warnings.simplefilter("always")
    for _ in range(2):
        for dtype in ("float16", "float32", "float64", "int16", "complex64"):
            y = tconv.conv_transpose(np.ones((1, 1, 2), dtype), np.ones((1, 1, 3), dtype), stride=2)
            assert y.ravel().tolist() == [1, 1, 2, 1, 1]
assert len(caught) == 1 and "llvmlite does not load" in str(caught[0].message)
main(["info"])
"""


def test_without_llvmlite_the_portable_path_computes_and_one_warning_says_so(command):
    found = command(code=MISSING).stdout
    assert re.search(r"engine +not used: llvmlite does not load", found)


def test_the_cache_is_told_of_and_emptied(tmp_path, command):
    code = (
        "import numpy as np, tconv; from tconv.cli import main\n"
        "x, w = np.ones((1, 2, 9), np.float32), np.ones((2, 3, 4), np.float32)\n"
        "tconv.conv_transpose(x, w)\n"
        "main(['info', '--cache']); main(['info', '--clear-cache', '--json'])\n"
    )
    out = command(code=code, TCONV_CACHE=str(tmp_path)).stdout
    assert re.search(rf"folder +{re.escape(str(tmp_path))}", out)
    assert re.search(r"usable +yes", out)
    result = json.loads(out.splitlines()[-1])["result"]
    assert result["cache_files_removed"] >= 5
    assert result["cache"]["files"] == 0


def test_a_model_is_compiled_ahead(tmp_path, capsys):
    import onnx

    model = tconv.ConvTranspose2d(4, 3, 4, stride=2, rng=0).to_onnx()
    for name, size in (("free", None), ("fixed", 24)):
        if size:
            for n, dim in enumerate(model.graph.input[0].type.tensor_type.shape.dim):
                dim.dim_value = (1, 4, size, size)[n]
        onnx.save(model, tmp_path / f"{name}.onnx")
        assert main(["info", "--warm", str(tmp_path / f"{name}.onnx")]) == 0
        out = capsys.readouterr().out
        assert ("direct" in out) == bool(size)
        assert ("its sizes are not fixed" in out) != bool(size)
        assert not tiers._waiting


def test_what_the_engine_does_not_compute_is_not_compiled(tmp_path, capsys):
    import onnx

    model = tconv.ConvTranspose1d(4, 3, 4, stride=20_000, rng=0).to_onnx()
    for n, dim in enumerate(model.graph.input[0].type.tensor_type.shape.dim):
        dim.dim_value = (1, 4, 24)[n]
    onnx.save(model, tmp_path / "wide.onnx")
    assert main(["info", "--warm", str(tmp_path / "wide.onnx")]) == 0
    assert "portable path" in capsys.readouterr().out
