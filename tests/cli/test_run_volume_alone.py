"""`tconv run --volume` where Dask and Zarr are not installed: what is missing, what to install."""

import sys

import numpy as np
import pytest

from tconv.cli import main


@pytest.fixture(autouse=True)
def without_libraries(tmp_path, monkeypatch):
    for name in [name for name in sys.modules if name.startswith(("tconv.volumes", "tconv.dask"))]:
        monkeypatch.delitem(sys.modules, name)
    for name in ("dask", "dask.array", "zarr"):
        monkeypatch.setitem(sys.modules, name, None)
    monkeypatch.chdir(tmp_path)
    np.save("w.npy", np.ones((1, 1, 2), np.float32))
    np.save("x.npy", np.ones((1, 5), np.float32))


def test_the_command_line_says_what_to_install(capsys):
    assert main(["run", "--volume", "x.npy", "-w", "w.npy", "-o", "y.zarr"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert err.splitlines() == [
        "error[missing-extra]: tconv.volumes needs Dask and Zarr",
        "  at: tconv run --volume x.npy -w w.npy -o y.zarr",
        "  help: pip install 'dask[array]' zarr",
    ]


@pytest.mark.parametrize("name", ["tconv.volumes", "tconv.dask"])
def test_the_modules_say_what_to_install(name):
    from importlib import import_module

    with pytest.raises(ImportError, match=rf"^{name} needs Dask.*: pip install 'dask\[array\]'"):
        import_module(name)
