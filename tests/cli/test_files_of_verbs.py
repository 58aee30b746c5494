"""Files of the verbs: checks before reading and before the computation.

Advice is the line "help:", which is read here and followed.
"""

import os
import re
import shlex
import stat
import struct
import zlib
from itertools import product

import numpy as np
import pytest
from PIL import Image

from model_mutants import SOUND
from tconv.cli import main
from tconv.cli import see as see_verb
from tconv.system import memory

posix = pytest.mark.skipif(os.name != "posix", reason="kinds and modes of files are POSIX's")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Here are a model for 8x8 pixels, arrays and pictures."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "m.onnx").write_bytes(SOUND[0].SerializeToString())
    numbers = np.random.default_rng(0).integers(0, 9, (1, 3, 8, 8))
    np.save("x.npy", numbers.astype(np.float32))
    np.save("double.npy", numbers.astype(np.float64))
    np.save("whole.npy", numbers)
    np.save("huge.npy", numbers + 1e300)
    np.save("complex.npy", numbers + 1j)
    np.save("small.npy", np.ones((1, 3, 4, 4), np.float32))
    np.savez("double.npz", x=numbers.astype(np.float64))
    pixels = np.random.default_rng(0).integers(0, 256, (8, 8, 3), np.uint8)
    Image.fromarray(pixels).save("p.png")
    Image.fromarray(np.zeros((9, 5, 3), np.uint8)).save("other.png")
    (tmp_path / "bomb.png").write_bytes(bomb(9000))
    return tmp_path


def bomb(size):
    """A black picture of size x size pixels in black and white."""

    def chunk(kind, data):
        body = kind + data
        return struct.pack(">I", len(data)) + body + struct.pack(">I", zlib.crc32(body))

    head = struct.pack(">IIBBBBB", size, size, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(((size + 7) // 8 + 1) * size))
    chunks = chunk(b"IHDR", head) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def told(line, capsys):
    """The code, the first line and the advice."""
    code = main(shlex.split(line))
    found = capsys.readouterr().err.splitlines()
    if not code:
        return 0, "", ""
    assert [each[:8] for each in found[1:]] == ["  at: " + found[1][6:8], "  help: "], found
    return code, found[0], found[2].removeprefix("  help: ")


# ---- advice --------------------------------------------------------------------------------------

# What is typed, and what is typed after the advice, which the pattern finds.
FOLLOWED = [
    ("run m.onnx double.npy", r"pass (--dtype \S+) to", "run m.onnx double.npy {}"),
    ("run m.onnx double.npz", r"pass (--dtype \S+) to", "run m.onnx double.npz {}"),
    ("run m.onnx x=whole.npy", r"pass (--dtype \S+) to", "run m.onnx x=whole.npy {}"),
    ("run m.onnx complex.npy", r"save it as (float32)", "run m.onnx {}.npy"),
    ("run m.onnx huge.npy --cast", r"save other numbers", "run m.onnx x.npy --cast"),
    ("run m.onnx small.npy", r"an array of that shape", "run m.onnx x.npy"),
    ("run m.onnx other.png", r"pass (--size \S+)", "run m.onnx other.png {}"),
    ("run m.onnx bomb.png", r"pass (--size \S+)", None),
    ("run m.onnx", r"add (x=)PATH", "run m.onnx {}x.npy"),
    ("run m.onnx xx=x.npy", r"did you mean '(x)'", "run m.onnx {}=x.npy"),
    ("run m.onnx x.npy x.npy", r"leave this one out", "run m.onnx x.npy"),
    ("run m.onnx x.npy --max-difference 9", r"add (--compare)",
     "run m.onnx x.npy --max-difference 9 {}"),
    ("run m.onnx x.npy --norm zero", r"add -o PATH", "run m.onnx p.png --size 8x8 -o out.npz"),
    ("run m.onnx x.npy -o a.txt", r"name in (.npz)", "run m.onnx x.npy -o a{}"),
    ("run m.onnx x.npy -o a.png", r"write an (.npy)", "run m.onnx x.npy -o a{}"),
    ("run m.onnx x.npy -o x2.npz --output-name y", r"leave it out", "run m.onnx x.npy -o x2.npz"),
    ("run m.onnx x.npy -o old.npy", r"pass (-f) to", "run m.onnx x.npy -o old.npy {}"),
    ("run m.onnx p.png --size 8x8 --mean 1,2", r"pass (\S+) for example",
     "run m.onnx p.png --size 8x8 --mean {}"),
    ("run m.onnx p.png --size 8x8 --std 0", r"pass (1) to", "run m.onnx p.png --size 8x8 --std {}"),
    ("run m.onnx p.png --size 0", r"write (--size \S+),", None),
    ("run m.onyx x.npy", r"did you mean '(\S+)'", "run {} x.npy"),
    ("see m.onnx", r"by tconv (see \S+ --list)", "{}"),
    ("see m.onnx other.png -o s.png", r"(--size 8x8)", "see m.onnx other.png -o s.png {}"),
    ("see m.onnx p.png -o s.jpg", r"write (-o seen.png)", "see m.onnx p.png {}"),
    ("see m.onnx p.png --layer 99", r"(--list) shows", "see m.onnx {}"),
    ("see m.onnx p.png -o s.npz --feature 99", r"pass one of these",
     "see m.onnx p.png -o s.npz --feature 1"),
    ("see m.onnx p.png -o s.npz --unit 1", r"pass (\d,\d,\d), say",
     "see m.onnx p.png -o s.npz --unit {}"),
    ("see m.onnx p.png -o s.npz --unit 0,1,1 --feature 0", r"leave one of the two out",
     "see m.onnx p.png -o s.npz --unit 0,1,1"),
    ("see free.onnx bomb.png -f -o s.npz", r"(--size \S+) to make it smaller",
     "see free.onnx bomb.png -f -o s.npz {}"),
    ("see m.onnx --list --size 9", r"(--size \S+),", "see m.onnx --list {}"),
    ("shape 4 -k 3 --op 1", r"pass at most (\d+)", "shape 4 -k 3 --op {}"),
    ("shape 4 -k 3 -p 9", r"to a sum of at most (\d+)", "shape 4 -k 3 -p 0:{}"),
    ("shape 4 -k 3 -p same --op 1", r"leave one of them out", "shape 4 -k 3 -p same"),
    ("shape 4", r"as in tconv (shape .*), or", "{}"),
    ("shape 4x4x4 -k 3x3", r"give one value for all axes, or (3)", "shape 4x4x4 -k {}"),
    ("shape 4 -k 3 --limit 2", r"leave --limit out", "shape 4 -k 3"),
    ("shpae 4 -k 3", r"did you mean tconv (\S+)\?", "{} 4 -k 3"),
    ("shape 4 -k 3 --strid 2", r"did you mean (\S+)\?", "shape 4 -k 3 {} 2"),
    ("explain", r"as in (-o page.html)", "explain {}"),
    ("explain -o a.txt", r"write (-o page.html)", "explain {}"),
    ("explain m.onnx -o e.html --pair 9,9", r"from (0,0) to", "explain m.onnx -o e.html --pair {}"),
    ("explain m.onnx -o e.html --layer upp", r"did you mean '(\S+)'",
     "explain m.onnx -o e.html --layer {}"),
]  # fmt: skip


@pytest.mark.parametrize(("line", "pattern", "then"), FOLLOWED)
@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.filterwarnings("ignore:the projection of unit")
def test_what_help_says_helps(folder, capsys, line, pattern, then):
    np.save("old.npy", np.ones(1))
    np.save("float32.npy", np.load("complex.npy").real.astype("float32"))
    (folder / "free.onnx").write_bytes(_free().SerializeToString())
    code, first, advice = told(line, capsys)
    assert code == 2, first
    found = re.search(pattern, advice)
    assert found, advice
    if then is not None:
        assert told(then.format(*found.groups()), capsys)[:2] == (0, "")


def _free():
    """The same network for images of any size."""
    model = type(SOUND[0])()
    model.CopyFrom(SOUND[0])
    for axis in (2, 3):
        model.graph.input[0].type.tensor_type.shape.dim[axis].Clear()
    return model


def test_a_conversion_is_that_of_numpy_and_loses_no_number_silently(folder, capsys):
    assert told("run m.onnx x.npy -o a.npy", capsys)[0] == 0
    for name, option in product(
        ("double.npy", "double.npz", "whole.npy"), ("--cast", "--dtype float32")
    ):
        assert told(f"run m.onnx {name} {option} -f -o b.npy", capsys)[0] == 0
        assert np.array_equal(np.load("a.npy"), np.load("b.npy"))
    for option in ("--cast", "--dtype float32"):
        code, first, _ = told(f"run m.onnx huge.npy {option}", capsys)
        assert (code, first) == (
            2, "error[dtype]: the array holds 1e+300, which float32 cannot hold"
        )  # fmt: skip
        first = told(f"run m.onnx complex.npy {option}", capsys)[1]
        assert first.endswith("takes float32, which has no imaginary part")


def test_a_conversion_is_to_a_type_that_the_model_takes(folder, capsys):
    code, first, advice = told("run m.onnx double.npy --dtype float16", capsys)
    assert (code, first) == (
        2, "error[dtype]: no input takes float16, the model takes x float (1, 3, 8, 8)"
    )  # fmt: skip
    assert told(f"run m.onnx double.npy {advice.removeprefix('pass ')}", capsys)[0] == 0
    first = told("run m.onnx p.png --dtype float32", capsys)[1]
    assert first == "error[usage]: --dtype is for arrays, and no input is one"


# ---- what is read --------------------------------------------------------------------------------

PLACES = [
    *("run {} x.npy", "see {} p.png", "see {} --list", "explain {} -o e.html", "info --warm {}"),
    *("run m.onnx {}", "run m.onnx x={}", "see m.onnx {}"),
]


@posix
@pytest.mark.parametrize("line", PLACES)
@pytest.mark.parametrize("name", ["pipe", "pipe.npy", "pipe.npz", "/dev/zero"])
def test_nobody_waits_for_a_pipe_or_fills_memory_from_a_device(folder, capsys, line, name):
    if name.startswith("pipe"):
        os.mkfifo(name)
    code, first, advice = told(line.format(name), capsys)
    assert code == 2
    assert first.startswith("error[file]: ")
    assert "must be a regular file" in first
    assert advice == "copy what it gives to one"


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
def test_no_pixel_is_read_of_a_picture_that_does_not_fit(folder, capsys, monkeypatch):
    def read(*_):
        raise AssertionError("a pixel was read")

    monkeypatch.setattr("tconv.images._read_pixels", read)
    assert "the picture is 9000x9000" in told("run m.onnx bomb.png", capsys)[1]
    monkeypatch.setattr(memory, "available_bytes", lambda: 2**30)
    assert "bomb.png has 9000x9000 pixels" in told("see m.onnx bomb.png", capsys)[1]
    for line in ("run m.onnx bomb.png --size 8x8", "see m.onnx bomb.png --size 8x8"):
        code, first, _ = told(line, capsys)
        assert (code, first[:14]) == (2, "error[memory]:")


def test_no_array_is_read_that_does_not_fit(folder, capsys, monkeypatch):
    monkeypatch.setattr(np.lib.format, "read_array", lambda *_, **__: 1 / 0)
    for name in ("small.npy", "double.npy", "double.npz", "x=small.npy"):
        assert told(f"run m.onnx {name}", capsys)[0] == 2


# ---- what is written -----------------------------------------------------------------------------


@posix
@pytest.mark.parametrize("line", ["run m.onnx x.npy", "see m.onnx p.png"])
def test_what_cannot_be_written_is_told_before_anything_is_computed(
    folder, capsys, monkeypatch, line
):
    def compute(*_, **__):
        raise AssertionError("something was computed")

    monkeypatch.setattr(see_verb, "see", compute)
    monkeypatch.setattr("tconv.onnx.Session.run", compute)
    os.mkfifo("pipe.npz")
    os.symlink(os.devnull, "device.npz")
    os.symlink("circle.npz", "circle.npz")
    before = sorted(os.listdir())
    for name, said in [
        ("n" * 252 + ".npz", "File name too long"),
        ("none/a.npz", "there is no folder"),
        ("pipe.npz", "must name a regular file"),
        ("device.npz", "must name a regular file"),
        ("circle.npz", "symbolic links"),
    ]:
        for force in ("", " -f"):
            code, first, _ = told(f"{line} -o {name}{force}", capsys)
            assert code == 2
            assert said in first
    assert sorted(os.listdir()) == before


def test_the_name_that_is_made_up_is_checked_before_the_network_runs(folder, capsys, monkeypatch):
    assert told("see m.onnx p.png", capsys)[0] == 0
    assert (folder / "see_m_y.png").is_file()
    monkeypatch.setattr(see_verb, "see", lambda *_, **__: 1 / 0)
    code, first, advice = told("see m.onnx p.png", capsys)
    assert (code, first) == (2, "error[file]: the file exists already")
    assert advice == "pass -f to overwrite it, or choose another"


def test_a_long_name_of_a_layer_makes_a_name_that_the_system_takes(folder, capsys):
    model = type(SOUND[0])()
    model.CopyFrom(SOUND[0])
    name = "block/" * 60 + "é" * 20 + "relu"
    model.graph.node[1].output[0] = model.graph.output[0].name = name
    (folder / "long.onnx").write_bytes(model.SerializeToString())
    assert told("see long.onnx p.png", capsys)[0] == 0
    (written,) = folder.glob("see_*.png")
    assert written.name.endswith("érelu.png")


@posix
@pytest.mark.parametrize(
    "line", ["run m.onnx x.npy -o a.npz", "run m.onnx x.npy -o a.npy", "see m.onnx p.png -o a.png",
             "see m.onnx p.png -o a.html", "see m.onnx p.png -o a.npz", "explain -o a.html",
             "explain -o a.png", "explain -o a.gif"],
)  # fmt: skip
def test_a_private_file_stays_private(folder, capsys, line):
    path = folder / line.split()[-1]
    path.write_text("older")
    path.chmod(0o600)
    assert told(f"{line} -f", capsys)[0] == 0
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert path.read_bytes() != b"older"
    assert not list(folder.glob(".*"))
