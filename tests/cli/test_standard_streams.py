"""Standard input and output in place of files: what goes through, and what cannot."""

import io
import os
import shlex
import subprocess
import sys
from types import SimpleNamespace
from xml.etree import ElementTree

import numpy as np
import pytest
from onnx import save

from networks import proto_of
from strategies import integers_like
from tconv.cli import main

NODES = [("Conv", "image a", "y", {})]
A = integers_like((2, 3, 1, 1), "float32", 1, largest=3)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Here lie m.onnx, x.npy, and p.txt, which is no array."""
    monkeypatch.chdir(tmp_path)
    save(proto_of(NODES, {"a": A}, (1, 3, 8, 8)), tmp_path / "m.onnx")
    np.save("x.npy", np.arange(192, dtype=np.float32).reshape(1, 3, 8, 8))
    (tmp_path / "p.txt").write_text("hello")
    return tmp_path


@pytest.fixture
def piped(folder):
    """Run ``tconv`` with bytes on standard input; gives returncode, stdout and stderr."""

    def run(line, given=b""):
        path = os.pathsep.join(sys.path)
        return subprocess.run(
            [sys.executable, "-m", "tconv", *shlex.split(line)],
            input=given,
            capture_output=True,
            env={**os.environ, "PYTHONPATH": path, "PYTHONUTF8": "1"},
            check=False,
        )

    return run


def test_an_array_goes_in_and_out(piped, folder):
    expected = np.einsum("mchw,nchw->nmhw", np.broadcast_to(A, (2, 3, 8, 8)), np.load("x.npy"))
    data = (folder / "x.npy").read_bytes()
    for words in ("-", "image=-"):
        done = piped(f"run m.onnx {words} -o -", data)
        assert done.returncode == 0, done.stderr
        assert np.array_equal(np.load(io.BytesIO(done.stdout)), expected)
        assert b"wrote y to standard output" in done.stderr
    done = piped("run m.onnx - --json", data)
    assert done.stderr == b""
    assert b'"shape": [1, 2, 8, 8]' in done.stdout


def test_a_picture_goes_out_as_svg(piped):
    done = piped("explain -i 2 -k 2 -s 2 -o -")
    assert ElementTree.fromstring(done.stdout).tag.endswith("svg")
    assert b"y[1,1] = 4\xc2\xb71 = 4\n" in done.stderr


FED = [
    (b"", "standard input is empty", "send an .npy into it, as in < x.npy"),
    (b"hello", "standard input gives no .npy", "name a file, which may be of another kind"),
    (b"\x93NUMPY\x01\x00", "'-' is no undamaged .npy file (", "write it again"),
]


@pytest.mark.parametrize(("given", "what", "fix"), FED)
def test_what_standard_input_lacks_is_told(piped, given, what, fix):
    done = piped("run m.onnx -", given)
    first, second, third = done.stderr.decode().splitlines()
    assert first.startswith(f"error[file]: {what}")
    assert (second, third) == ("  at: standard input", f"  help: {fix}")


def test_an_endless_stream_does_not_fill_the_memory(folder, capsys, monkeypatch):
    class Endless:
        count = 0

        def isatty(self):
            return False

        def read(self, size):
            self.count += 1
            return b"\x93NUMPY".ljust(size, b"\0")

    endless = Endless()
    monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=endless))
    monkeypatch.setattr("tconv.system.memory.available_bytes", lambda: 2**24)
    assert main(["run", "m.onnx", "-"]) == 2
    assert capsys.readouterr().err.startswith("error[memory]: ")
    assert endless.count < 9


REFUSED = [
    ("run - x.npy", "MODEL cannot be standard input", "tconv run", "name a file"),
    ("run --volume - -w w.npy -o y.zarr", "--volume cannot be standard input", "tconv run",
     "name a file"),
    ("run --volume x.zarr -w - -o -", "-o/--output cannot be standard output", "tconv run",
     "name a file"),
    ("run m.onnx - image=-", "standard input is given 2 times, and can be read once", "tconv run",
     "name files for the others"),
    ("run --volume x.zarr -w - -b -", "standard input is given 2 times, and can be read once",
     "tconv run", "name files for the others"),
    ("run m.onnx x.npy -o - --json", "-o - and --json both write to standard output",
     "option -o/--output", "name a file, or leave --json out"),
    ("see m.onnx -", "IMAGE cannot be standard input", "tconv see", "name a file"),
    ("see m.onnx p.png -o -", "-o/--output cannot be standard output", "tconv see", "name a file"),
    ("info --warm -", "--warm cannot be standard input", "tconv info", "name a file"),
    ("explain - -o a.svg", "MODEL cannot be standard input", "tconv explain", "name a file"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "what", "where", "fix"), REFUSED)
def test_where_a_file_is_needed_that_is_told(capsys, line, what, where, fix):
    assert main(line.split()) == 2
    assert capsys.readouterr() == ("", f"error[usage]: {what}\n  at: {where}\n  help: {fix}\n")


def test_a_terminal_neither_gives_nor_takes_an_array(folder, terminal):
    for words, what in [
        (["run", "m.onnx", "x.npy", "-o", "-"], "standard output is a terminal"),
        (["explain", "-o", "-"], "standard output is a terminal"),
        (["run", "m.onnx", "-"], "standard input is a terminal"),
    ]:
        assert f"]: {what}\n" in terminal(*words)


def test_a_layer_may_be_called_a_dash(folder, capsys):
    assert main(["see", "m.onnx", "--list", "--rule", "gradient"]) == 0
    assert main(["see", "m.onnx", "none.png", "--layer", "-"]) == 2
    assert "No such file" in capsys.readouterr().err
