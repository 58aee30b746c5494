"""`tconv run --volume`: reports, JSON, exit codes and errors in three lines."""

import json

import numpy as np
import pytest
import zarr

import tconv
from tconv.cli import main
from volume_files import make_source, weights

WORDS = ["run", "--volume", "x.zarr", "-w", "w.npy", "-s", "2", "-p", "0x0:1", "-o", "y.zarr"]


@pytest.fixture(autouse=True)
def source(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "250")
    np.save("w.npy", weights((2, 3, 3, 3)))
    np.save("b.npy", weights((3,)))
    return make_source("x.zarr", (2, 20, 20), (2, 8, 8))


def test_a_volume_is_converted_and_reported(source, capsys):
    assert main([*WORDS, "-b", "b.npy", "--memory", "1GB", "--workers", "1"]) == 0
    out, err = capsys.readouterr()
    assert err == ""
    lines = out.splitlines()
    assert lines[0].split() == ["array", "shape", "in", "chunks", "of"]
    assert "2×20×20" in lines[1]
    assert "3×41×40 float32  3×16×16" in lines[2]
    assert lines[3].startswith("9 chunks computed · 19.7 kB in ")
    assert lines[3].split(" · ")[3].startswith("1 worker, at most ")
    whole = tconv.conv_transpose(
        source,
        np.load("w.npy"),
        np.load("b.npy"),
        stride=2,
        padding=((0, 0), (0, 1)),
        method="direct",
    )
    np.testing.assert_array_equal(zarr.open_array("y.zarr")[...], whole)
    assert main([*WORDS, "-b", "b.npy"]) == 0
    assert capsys.readouterr().out.splitlines()[3] == (
        "all 9 chunks are there already; nothing was computed"
    )


def test_the_result_as_json(capsys):
    assert main([*WORDS, "--json"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert result["shape"] == [3, 41, 40]
    assert (result["computed"], result["found"]) == (9, 0)
    assert main([*WORDS, "--json", "--verify"]) == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert (result["computed"], result["found"], result["damaged"]) == (0, 9, 0)


def test_the_adjoint(source):
    words = ["run", "--volume", "x.zarr", "-w", "t.npy", "--adjoint", "-s", "2", "-o", "y.zarr"]
    np.save("t.npy", weights((4, 2, 3, 3)))
    assert main(words) == 0
    whole = tconv.conv(source, np.load("t.npy"), stride=2, method="direct")
    np.testing.assert_array_equal(zarr.open_array("y.zarr")[...], whole)


@pytest.mark.parametrize(
    ("words", "what", "where", "fix"),
    [
        (["-w", "z.npy"], "No such file or directory", "option --weight, file 'z.npy'", "did you"),
        (["--memory", "1MB"], "memory=1,000,000 must be", "option --memory", "pass --memory "),
        (["--memory", "?"], "memory='?' must be a number", "option --memory", "pass one"),
        (["--volume", "z.zarr"], "there is no Zarr array", "z.zarr'", "did you mean"),
        (["-s", "0"], "stride[0]=0 must be at least 1", "option --stride", "pass a positive"),
        (["--chunks", "5"], "chunks=(5,) must be 3 sizes", "option --chunks", "pass such"),
        (["--scheduler", "x"], "scheduler='x' must be an", "option --scheduler", "pass one"),
        (["-o", "x.zarr"], "target='x.zarr' must not be", "option -o/--output", "choose another"),
        (["-b", "w.npy"], "bias has shape (2, 3, 3, 3)", "option --bias", "pass such a bias"),
        (["--dtype", "float1"], "--dtype must be one of float16", "option --dtype", "did you"),
    ],
)
def test_errors_in_three_lines(words, what, where, fix, capsys):
    assert main([*WORDS, *words]) == 2
    out, err = capsys.readouterr()
    first, second, third = err.splitlines()
    assert out == ""
    assert what in first
    assert second.startswith("  at: ")
    assert where in second
    assert third.startswith(f"  help: {fix}")


def test_what_is_there_is_overwritten_only_where_that_is_asked_for(capsys):
    assert main(WORDS) == 0
    assert main([*WORDS, "-d", "2"]) == 2
    err = capsys.readouterr().err
    assert "dilation=(1, 1)" in err
    assert "pass -f to replace it" in err
    assert main([*WORDS, "-d", "2", "-f"]) == 0
