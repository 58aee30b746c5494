"""Verb `run`: inputs from files, outputs to a file, and a table of every ConvTranspose."""

import json
import re
import sys
import warnings
import zipfile
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tconv.cli import main
from tconv.cli.feeds import PictureSettings, Source, read_feeds, sources
from tconv.cli.run.model import _with_layers
from tconv.errors import DTypeError, ParameterError, ShapeError
from tconv.images import read_picture, renormalise
from tconv.tables import Column, Table


def declared(name, shape, kind="float", has_rank=True):
    return SimpleNamespace(name=name, type=f"tensor({kind})", shape=shape, has_rank=has_rank)


X = declared("x", ["N", 3, "H", "W"])


class FakeSession:
    """A model that gives each of its inputs back; `ran` remembers what it was fed."""

    inputs = (X,)
    outputs = (declared("y", ["N", 3, "H", "W"]),)
    ran = None

    def __init__(self, model, *, threads=None, method="auto", force=False):
        type(self).made = (model, threads, method, force)

    def get_inputs(self):
        return list(self.inputs)

    def get_outputs(self):
        return list(self.outputs)

    def run(self, names, feeds):
        assert names is None
        type(self).ran = feeds
        return list(feeds.values())

    def report(self):
        return Report()


@dataclass(frozen=True)
class Report:
    nodes: tuple[Any, ...] = ()
    decision: Any = None

    def table(self):
        return Table((Column("layer"), Column("ms", right=True)), (("up", "1.5"),), "1 of 1")

    def as_dict(self):
        return {"elapsed_ms": 1.5}


@dataclass(frozen=True)
class Comparison(Report):
    outputs = {"y": np.ones((1, 3, 2, 2), np.float32)}  # noqa: RUF012 (nobody changes it)
    largest_difference = 1e-5

    def table(self):
        return Table((Column("layer"), Column("difference", right=True)), (("up", "1e-05"),))

    def as_dict(self):
        return {"largest_difference": self.largest_difference}


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a model, arrays and a picture; the model is a fake."""
    monkeypatch.chdir(tmp_path)

    class Session(FakeSession):
        pass

    def compare(model, feeds, *, threads=None, method="auto", force=False):
        Session.ran = feeds
        return Comparison()

    fake = SimpleNamespace(Session=Session, compare=compare, check_weights=lambda model: None)
    monkeypatch.setitem(sys.modules, "tconv.onnx", fake)
    (tmp_path / "m.onnx").write_bytes(b"model")
    np.save("x.npy", np.arange(12, dtype=np.float32).reshape(1, 3, 2, 2))
    np.savez("named.npz", x=np.ones((1, 3, 2, 2), np.float32))
    np.savez("wrong.npz", xs=np.ones((1, 3, 2, 2), np.float32))
    np.savez("two.npz", x=np.ones(1), z=np.ones(1))
    np.save("objects.npy", np.array([{}], object), allow_pickle=True)
    np.savez("objects.npz", x=np.array([{}], object))
    pixels = np.random.default_rng(0).integers(0, 256, (4, 6, 3), np.uint8)
    Image.fromarray(pixels).save("p.png")
    (tmp_path / "text.png").write_text("hello")
    (tmp_path / "cut.npy").write_bytes((tmp_path / "x.npy").read_bytes()[:-8])
    (tmp_path / "cut.npz").write_bytes((tmp_path / "named.npz").read_bytes()[:-30])
    (tmp_path / "cut.png").write_bytes((tmp_path / "p.png").read_bytes()[:-40])
    (tmp_path / "folder.npy").mkdir()
    monkeypatch.delenv("COLUMNS", raising=False)
    return Session


def run(words):
    return main(["run", "m.onnx", *words.split()])


# ---- what is printed -----------------------------------------------------------------------------


def test_the_table_and_what_was_written(here, capsys):
    assert run("x.npy -o y.npz") == 0
    out, err = capsys.readouterr()
    assert err == ""
    table, written = out.split("\n\n")
    table, _, times = table.rpartition("\n")
    assert table == "layer   ms\nup     1.5\n1 of 1"
    assert re.fullmatch(r"first run [\d.]+ ms \(.*\) · times above: of a second run", times)
    assert written == "wrote y to y.npz\n"


@pytest.mark.parametrize("is_long", [False, True])
def test_the_times_are_of_a_second_run_unless_the_first_is_long(here, capsys, monkeypatch, is_long):
    runs = []

    def timed(self, names, feeds):
        runs.append(feeds)
        return [next(iter(feeds.values())) + len(runs) - 1]

    monkeypatch.setattr(here, "run", timed)
    monkeypatch.setattr("tconv.cli.run.model._LONG_S", -1.0 if is_long else 10.0)
    assert run("x.npy -o y.npy") == 0
    assert len(runs) == (1 if is_long else 2)
    assert ("times above: of the first run, " in capsys.readouterr().out) == is_long
    assert np.array_equal(np.load("y.npy"), np.load("x.npy"))  # what the first run gave
    assert run("x.npy --json") == 0
    result = json.loads(capsys.readouterr().out)["result"]
    assert result["is_first_run"] == is_long
    assert result["first_run_ms"] > 0


def test_json_describes_the_outputs(here, capsys):
    assert run("x.npy -o y.npy --json") == 0
    shown = json.loads(capsys.readouterr().out)
    assert (shown["verb"], shown["schema"]) == ("run", 1)
    assert shown["result"].pop("first_run_ms") > 0
    assert shown["result"] == {
        "elapsed_ms": 1.5,
        "is_first_run": False,
        "outputs": [{"name": "y", "shape": [1, 3, 2, 2], "dtype": "float32"}],
        "written": "y.npy",
    }


@pytest.mark.parametrize(
    ("words", "made"),
    [
        ("", (None, "auto", False)),
        ("--threads 3", (3, "auto", False)),
        ("--every-node", (None, "auto", True)),
        ("--method measure", (None, "measure", False)),
        ("--method onnxruntime", (None, "onnxruntime", False)),
    ],
)
def test_options_reach_the_session(here, words, made):
    assert run(f"x.npy {words}") == 0
    assert here.made == ("m.onnx", *made)


@pytest.mark.parametrize(
    ("limit", "code", "verdict"),
    [
        ("", 0, ""),
        (
            "--max-difference 1e-4",
            0,
            "\nlargest difference 1e-05, within --max-difference 0.0001\n",
        ),
        ("--max-difference 1e-6", 1, "\nlargest difference 1e-05, above --max-difference 1e-06\n"),
        ("--max-difference 0", 1, "\nlargest difference 1e-05, above --max-difference 0\n"),
    ],
)
def test_a_comparison_may_be_held_against_a_limit(here, capsys, limit, code, verdict):
    assert run(f"x.npy --compare {limit}") == code
    assert capsys.readouterr().out == f"layer  difference\nup          1e-05\n{verdict}"
    assert run(f"x.npy --compare {limit} --json -o y.npy -f") == code
    assert np.load("y.npy").shape == (1, 3, 2, 2)
    assert json.loads(capsys.readouterr().out)["result"]["largest_difference"] == 1e-5


def test_a_difference_that_is_no_number_is_too_large(here, monkeypatch, capsys):
    monkeypatch.setattr(Comparison, "largest_difference", float("nan"))
    assert run("x.npy --compare --max-difference 1e9") == 1
    assert run("x.npy --compare --max-difference 1e9 --json") == 1
    assert json.loads(capsys.readouterr().out.splitlines()[-1])["result"] == {
        "largest_difference": None,
        "outputs": [{"name": "y", "shape": [1, 3, 2, 2], "dtype": "float32"}],
        "written": None,
    }


# ---- inputs --------------------------------------------------------------------------------------


@pytest.mark.parametrize("words", ["x.npy", "x=x.npy"])
def test_an_array_is_fed_as_it_is(here, words):
    assert run(words) == 0
    assert here.ran["x"].dtype == np.float32
    assert here.ran["x"].ravel().tolist() == list(range(12))


@pytest.mark.parametrize("words", ["named.npz", "x=wrong.npz"])
def test_an_archive_names_its_arrays_or_holds_a_single_one(here, words):
    assert run(words) == 0
    assert np.array_equal(here.ran["x"], np.ones((1, 3, 2, 2)))


def test_files_without_a_name_fill_what_is_left_in_the_order_of_the_model(here, tmp_path):
    here.inputs = (declared("a", [1]), declared("b=c", [1]), declared("d", [1]))
    here.outputs = here.inputs
    for n in range(3):
        np.save(f"{n}.npy", np.array([n], np.float32))
    for words, order in [("0.npy 1.npy 2.npy", "012"), ("0.npy a=1.npy b=c=2.npy", "120")]:
        assert run(words) == 0
        values = [f"{here.ran[name][0]:.0f}" for name in ("a", "b=c", "d")]
        assert "".join(values) == order


def test_a_path_may_hold_an_equals_sign(here, tmp_path):
    (tmp_path / "v=1.npy").write_bytes((tmp_path / "x.npy").read_bytes())
    assert run("v=1.npy") == 0
    assert run("x=v=1.npy") == 0
    assert sources(["v=1.npy", "x=v=1.npy", "w=2.npy"], ["x"]) == [
        Source("v=1.npy"),
        Source("v=1.npy", "x"),
        Source("2.npy", "w"),
    ]


def test_a_picture_becomes_numbers(here):
    pixels = read_picture("p.png").astype(np.float64)
    assert run("p.png") == 0
    x = here.ran["x"]
    assert (x.dtype, x.shape) == (np.float32, (1, 3, 4, 6))
    assert np.array_equal(x, (pixels[np.newaxis] / 255).astype(np.float32))
    assert run("p.png --scale 2 --mean 1,2,3 --std 0.5") == 0
    mean = np.array([1, 2, 3]).reshape(3, 1, 1)
    assert np.array_equal(here.ran["x"][0], (pixels * 2 - mean) / 0.5)
    assert run("p.png --range 0,510 --mean 1,2,3 --std 0.5") == 0  # the same in see's words
    assert np.array_equal(here.ran["x"][0], (pixels * 2 - mean) / 0.5)
    assert run("p.png --range=-1,1") == 0
    assert np.allclose(here.ran["x"][0], pixels / 127.5 - 1, atol=1e-6)


@pytest.mark.parametrize(("channels", "size"), [(1, "8x3"), (3, "8x3"), (3, "5")])
def test_a_picture_is_resized_if_asked(here, channels, size):
    here.inputs = (declared("x", [1, channels, "H", "W"]),)
    assert run(f"p.png --size {size} --scale 1") == 0
    height, width = (8, 3) if size == "8x3" else (5, 5)
    with Image.open("p.png") as image:
        image = image.convert("L" if channels == 1 else "RGB")
        expected = np.asarray(image.resize((width, height), Image.Resampling.BICUBIC))
    assert here.ran["x"].shape == (1, channels, height, width)
    assert np.array_equal(
        np.moveaxis(here.ran["x"][0], 0, -1), expected.reshape(height, width, channels)
    )


@pytest.mark.parametrize(
    ("shape", "has_rank", "kind", "dtype", "channels"),
    [
        ([None, None, None, None], True, "float", "float32", 3),
        ([], False, "float", "float32", 3),
        (["N", 1, 4, 6], True, "float16", "float16", 1),
        ([1, 3, 4, 6], True, "double", "float64", 3),
    ],
)
def test_a_picture_takes_the_form_that_the_input_declares(
    here, shape, has_rank, kind, dtype, channels
):
    here.inputs = (declared("x", shape, kind, has_rank),)
    assert run("p.png") == 0
    assert (here.ran["x"].dtype, here.ran["x"].shape) == (dtype, (1, channels, 4, 6))


@pytest.mark.parametrize(
    ("each", "error", "message"),
    [
        (declared("x", [1, 3, 8, 6]), ShapeError,
         "the picture is 4x6 (height x width), but input x float (1, 3, 8, 6) takes 8x6; pass "
         "--size 8x6."),
        (declared("x", [1, 3, "H", 9]), ShapeError, "takes 4x9; pass --size 4x9."),
        (declared("x", [1, 4, 4, 6]), ShapeError,
         "input x float (1, 4, 4, 6) takes 4 channels, a picture has 1 or 3; save what it takes "
         "as .npy and pass that."),
        (declared("x", [1, 3, 4]), ShapeError,
         "input x float (1, 3, 4) takes no picture, which has 4 axes (N, channels, H, W); save"),
        (declared("x", [1, 3, 4, 6], "uint8"), DTypeError,
         "input x uint8 (1, 3, 4, 6) takes no picture, which becomes floating-point numbers; sav"),
    ],
)  # fmt: skip
def test_a_picture_that_does_not_fit_is_never_made_to(here, each, error, message):
    with pytest.raises(error, match=re.escape(message)):
        read_feeds([Source("p.png")], [each], PictureSettings())


@pytest.mark.parametrize(
    ("given", "kind", "lost"),
    [
        ([1.0, 2.5], "int64", "2.5"),
        ([1.0, float("nan")], "int64", "nan"),
        ([300], "uint8", "300"),
        ([-1], "uint8", "-1"),
        ([2], "bool", "2"),
        ([70000.0], "float16", "70000.0"),
        ([3.0, -7.0], "int64", None),
        ([2**24 + 1], "float", None),  # rounding is no loss
        ([True], "float", None),
    ],
)
def test_a_cast_keeps_numbers_but_for_rounding(here, given, kind, lost):
    np.save("given.npy", np.array(given))
    each = declared("x", [len(given)], kind)
    wanted = np.dtype("float32" if kind == "float" else kind)
    how = {"dtype": wanted.name}
    if lost is None:
        found = read_feeds([Source("given.npy")], [each], PictureSettings(), **how)["x"]
        assert found.dtype == wanted
        assert np.allclose(found, given, rtol=1e-6, atol=0)
        return
    with pytest.raises(DTypeError, match=rf"the array holds {re.escape(lost)}, which {wanted} can"):
        read_feeds([Source("given.npy")], [each], PictureSettings(), **how)


def test_a_cast_is_of_the_inputs_of_that_type(here):
    np.save("a.npy", np.ones(1))
    np.save("b.npy", np.ones(1))
    pair = [declared("a", [1]), declared("b", [1], "int64")]
    both = [Source("a.npy"), Source("b.npy")]
    with pytest.raises(DTypeError, match=r"but input b int64 .* takes int64; pass --dtype int64"):
        read_feeds(both, pair, PictureSettings(), dtype="float32")
    found = read_feeds(both, pair, PictureSettings(), cast=True)
    assert [array.dtype.name for array in found.values()] == ["float32", "int64"]


def test_a_division_by_0_is_refused():
    with pytest.raises(ParameterError, match=r"std=0 must not be 0, it divides; pass 1 to leave"):
        PictureSettings(std=(1.0, 0.0, 1.0))


TAKES = "the model takes x float (N, 3, H, W)"


@pytest.mark.parametrize(
    ("words", "code", "what", "where", "fix"),
    [
        ("", "parameter", f"input 'x' is not given, {TAKES}", "model 'm.onnx'", "add x=PATH"),
        ("x.npy p.png", "parameter", f"one input too many is given, {TAKES}", "file 'p.png'",
         "leave this one out"),
        ("xs=x.npy", "parameter", f"there is no input 'xs', {TAKES}",
         "file 'x.npy', for input 'xs'", "did you mean 'x'?"),
        ("latent=x.npy", "parameter", f"there is no input 'latent', {TAKES}",
         "file 'x.npy', for input 'latent'", "use one of these names"),
        ("x=x.npy x=x.npy", "parameter", "input 'x' is given twice",
         "file 'x.npy', for input 'x'", "leave one of them out"),
        ("wrong.npz", "parameter", f"there is no input 'xs', {TAKES}", "file 'wrong.npz'",
         "did you mean 'x'?"),
        ("x=two.npz", "parameter",
         "'two.npz' holds 2 arrays, must hold one to be given as x=two.npz",
         "file 'two.npz', for input 'x'",
         "pass it without a name, and its arrays go by theirs"),
        ("none.npy", "file", "No such file or directory", "file 'none.npy'", "check the path"),
        ("folder.npy", "file", "Is a directory", "file 'folder.npy'", "name a file, not a folder"),
        ("objects.npy", "file",
         "'objects.npy' holds Python objects, which are not loaded because that can run any code",
         "file 'objects.npy'", "save arrays of numbers instead"),
        ("objects.npz", "file",
         "'objects.npz' holds Python objects, which are not loaded because that can run any code",
         "file 'objects.npz'", "save arrays of numbers instead"),
        ("cut.npy", "file", "'cut.npy' is no undamaged .npy file (", "file 'cut.npy'",
         "write it again"),
        ("cut.npz", "file", "'cut.npz' is no undamaged .npz file (File is not a zip file)",
         "file 'cut.npz'", "write it again"),
        ("cut.png", "file", "path='cut.png' is damaged: ", "file 'cut.png'",
         "copy or download it again"),
        ("text.png", "file", "'text.png' is no picture that Pillow reads", "file 'text.png'",
         "pass a picture, an .npy or an .npz file"),
        ("m.onnx", "file", "'m.onnx' is no picture that Pillow reads", "file 'm.onnx'",
         "pass a picture, an .npy or an .npz file"),
        ("p.png --std 0", "parameter", "std=0 must not be 0, it divides", "option --std",
         "pass 1 to leave it out"),
        ("p.png --range 1,1", "parameter", "range=1,1 must be two different numbers",
         "option --range", "pass 0,255"),
        ("p.png --range 255", "parameter", "range=255 must be two different numbers",
         "option --range", "pass 0,255"),
        ("p.png --mean 1,2", "parameter",
         "mean=1.0,2.0 has 2 numbers, must have 1 or one per channel, 3", "option --mean",
         "pass 0.5,0.5,0.5 for example"),
        ("p.png --size 1x2x3", "usage", "--size 1x2x3 is no height and width", "option --size",
         "write --size 256x256, say"),
        ("p.png --size 0", "usage", "--size 0 is no height and width", "option --size",
         "write --size 256x256, say"),
        ("x.npy --size 3", "usage", "--size is for pictures, and no input is one",
         "option --size", "leave it out, or give a picture"),
        ("x.npy --max-difference 1", "usage", "--max-difference needs --compare",
         "option --max-difference", "add --compare"),
        ("x.npy --every-node --method measure", "usage", "--every-node excludes --method measure",
         "option --every-node", "leave one of the two out"),
        ("x.npy --norm zero", "usage", "--norm needs -o/--output", "option --norm", "add -o PATH"),
        ("x.npy --output-name y", "usage", "--output-name needs -o/--output",
         "option --output-name", "add -o PATH"),
    ],
)  # fmt: skip
def test_what_cannot_be_fed_is_told_before_the_model_runs(
    here, capsys, words, code, what, where, fix
):
    assert run(words) == 2
    assert here.ran is None
    out, err = capsys.readouterr()
    assert out == ""
    first, second, third = err.splitlines()
    assert first.startswith(f"error[{code}]: {what}")
    assert [second, third] == [f"  at: {where}", f"  help: {fix}"]


# ---- outputs -------------------------------------------------------------------------------------


def test_an_archive_holds_every_output_under_its_name(here, monkeypatch):
    names = ["y", "decoder/out:0", "../z.npy", "file"]
    here.inputs = tuple(declared(name, [1]) for name in names)
    here.outputs = here.inputs
    for n in range(4):
        np.save(f"{n}.npy", np.array([n], np.float32))
    assert run("0.npy 1.npy 2.npy 3.npy -o all.npz") == 0
    with np.load("all.npz") as archive:
        assert {name: archive[name].tolist() for name in archive.files} == {
            "y": [0],
            "decoder/out:0": [1],
            "../z.npy": [2],
            "file": [3],
        }
    with zipfile.ZipFile("all.npz") as archive:
        assert archive.testzip() is None


def test_one_output_goes_to_an_npy(here):
    assert run("x.npy -o y.NPY") == 0
    assert np.array_equal(np.load("y.NPY"), np.load("x.npy"))


@pytest.mark.parametrize("mode", ["", "--norm zero", "--norm minmax", "--mode positive"])
def test_one_output_goes_to_a_picture(here, mode):
    x = np.load("x.npy")
    assert run(f"x.npy -o y.png {mode}") == 0
    expected = renormalise(x[0], mode[7:] or "zero")
    assert np.array_equal(read_picture("y.png"), expected)


@pytest.mark.parametrize("shape", [(1, 1, 2, 3), (1, 2, 3), (2, 3), (3, 2, 3)])
def test_pictures_of_other_shapes(here, shape):
    here.inputs = here.outputs = (declared("x", [], has_rank=False),)
    np.save("a.npy", np.arange(np.prod(shape), dtype=np.float32).reshape(shape))
    assert run("a.npy -o y.png") == 0
    assert read_picture("y.png", channels=1).shape == (1, 2, 3)


def test_a_flat_picture_is_written_with_a_warning(here, capsys):
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        assert run("named.npz -o y.png --mode minmax") == 0
    assert capsys.readouterr().err == (
        "warning: x is constant, so its picture in mode 'minmax' is flat.\n"
    )


def test_an_output_is_chosen_by_name(here, capsys):
    here.inputs = here.outputs = (declared("a", [1]), declared("b", [1]))
    for n in range(2):
        np.save(f"{n}.npy", np.array([n], np.float32))
    assert run("0.npy 1.npy -o y.npy --output-name b") == 0
    assert np.load("y.npy").tolist() == [1]
    assert "wrote b to y.npy\n" in capsys.readouterr().out
    gives = "a float (1), b float (1)"
    for words, what, where, fix in [
        ("-o z.npy", f"the model has several outputs, {gives}, and 'z.npy' takes one",
         "option -o/--output",
         "choose one by --output-name, say --output-name a, or write an .npz"),
        ("-o z.npy --output-name bb", f"there is no output 'bb', the model gives {gives}",
         "option --output-name", "did you mean 'b'?"),
        ("-o z.npz --output-name b",
         "--output-name does not go with an .npz, which takes all outputs",
         "option --output-name", "leave it out, or write an .npy"),
        ("-o z.npy --output-name b --norm zero", "--norm is for pictures only",
         "option --norm", "leave it out, or write a .png"),
    ]:  # fmt: skip
        here.ran = None
        assert run(f"0.npy 1.npy {words}") == 2
        assert here.ran is None
        assert capsys.readouterr().err == (f"error[usage]: {what}\n  at: {where}\n  help: {fix}\n")


@pytest.mark.parametrize(
    ("path", "what", "fix"),
    [
        ("m.onnx", "the output would overwrite the model or an input", "choose another"),
        ("x.npy", "the output would overwrite the model or an input", "choose another"),
        ("link.npy", "the output would overwrite the model or an input", "choose another"),
        ("hard.npy", "the output would overwrite the model or an input", "choose another"),
        ("folder.npy", "there is a folder of this name", "choose another"),
        ("none/y.npy", "there is no folder '", "create it first"),
        ("y.txt", ".txt is no format that tconv writes",
         "end the name in .npz, .npy, .wav, .png or another picture format"),
        ("y", "a name without a suffix is no format that tconv writes",
         "end the name in .npz, .npy, .wav, .png or another picture format"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("force", ["", " -f"])
def test_what_may_not_be_written_is_told_before_the_model_runs(
    here, capsys, tmp_path, path, what, fix, force
):
    (tmp_path / "link.npy").symlink_to("x.npy")
    (tmp_path / "hard.npy").hardlink_to(tmp_path / "x.npy")
    before = {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()}
    assert run(f"x=x.npy -o {path}{force}") == 2
    assert here.ran is None
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.startswith(f"error[file]: {what}")
    assert [second, third] == [
        f"  at: option -o/--output, file {path!r}", f"  help: {fix}"
    ]  # fmt: skip
    assert {file: file.read_bytes() for file in tmp_path.iterdir() if file.is_file()} == before


def test_an_existing_file_is_overwritten_only_if_asked(here, capsys, tmp_path):
    (tmp_path / "y.npy").write_text("old")
    assert run("x.npy -o y.npy") == 2
    assert here.ran is None
    assert capsys.readouterr().err == (
        "error[file]: the file exists already\n"
        "  at: option -o/--output, file 'y.npy'\n"
        "  help: pass -f to overwrite it, or choose another\n"
    )
    assert (tmp_path / "y.npy").read_text() == "old"
    assert run("x.npy -o y.npy -f") == 0
    assert np.array_equal(np.load("y.npy"), np.load("x.npy"))


@pytest.mark.parametrize(
    ("shape", "text"),
    [((1, 8, 2, 2), "1, 8, 2, 2"), ((2, 3, 2, 2), "2, 3, 2, 2"), ((4,), "4")],
)
@pytest.mark.parametrize("known", [True, False])
def test_what_is_no_picture_is_not_made_one(here, capsys, tmp_path, shape, text, known):
    here.inputs = here.outputs = (declared("x", list(shape) if known else [], has_rank=known),)
    np.save("a.npy", np.ones(shape, np.float32))
    assert run("a.npy -o y.png") == 2
    assert (here.ran is None) == known
    assert capsys.readouterr().err == (
        f"error[shape]: output 'x' has shape ({text}), a picture (1, C, H, W), (C, H, W) or "
        "(H, W) with 1 or 3 channels C\n"
        "  at: option -o/--output, file 'y.png'\n"
        "  help: write an .npy or .npz\n"
    )
    assert not (tmp_path / "y.png").exists()


def test_a_picture_of_what_is_not_finite_is_refused(here, capsys, tmp_path):
    here.inputs = here.outputs = (declared("y", [1, 1, 2, 2]),)
    np.save("a.npy", np.full((1, 1, 2, 2), np.nan, np.float32))
    assert run("a.npy -o y.png") == 2
    assert capsys.readouterr().err.startswith("error[parameter]: x[0, 0, 0]=nan must be finite\n")
    assert not (tmp_path / "y.png").exists()


def test_words_are_written_as_words(here):
    here.inputs = here.outputs = (declared("x", [2], "string"),)
    np.save("a.npy", np.array(["a", "bc"]))
    assert run("a.npy -o y.npy") == 0
    assert np.load("y.npy").tolist() == ["a", "bc"]


def test_pictures_without_pillow_are_an_error_before_the_model_runs(here, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL", None)
    assert run("x.npy -o y.png") == 2
    assert here.ran is None
    assert capsys.readouterr().err == (
        "error[missing-extra]: Writing pictures needs Pillow\n"
        "  at: option -o/--output, file 'y.png'\n"
        "  help: pip install pillow\n"
    )


@pytest.mark.parametrize("name", ["y.npy", "y.npz", "y.png"])
@pytest.mark.parametrize(("error", "code"), [(KeyboardInterrupt(), 130), (OSError("full"), 2)])
def test_an_interrupted_output_leaves_nothing(here, monkeypatch, tmp_path, name, error, code):
    before = sorted(file.name for file in tmp_path.iterdir())

    def write(file, array, **options):
        file.write(b"half")
        raise error

    monkeypatch.setattr(np.lib.format, "write_array", write)
    monkeypatch.setattr(Image.Image, "save", lambda image, file, **_: write(file, image))
    assert run(f"x.npy -o {name}") == code
    assert sorted(file.name for file in tmp_path.iterdir()) == before


# ---- models, in processes of their own -----------------------------------------------------------


@pytest.fixture
def model(tmp_path):
    """A real model: double, then a ReLU."""
    import onnx
    from onnx import TensorProto, helper, numpy_helper

    w = np.random.default_rng(0).normal(size=(3, 3, 4, 4)).astype(np.float32)
    graph = helper.make_graph(
        [
            helper.make_node(
                "ConvTranspose", ["x", "w"], ["h"], name="up", strides=[2, 2], pads=[1, 1, 1, 1]
            ),
            helper.make_node("Relu", ["h"], ["y"]),
        ],
        "double",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N", 3, "H", "W"])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["N", 3, None, None])],
        [numpy_helper.from_array(w, "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=9)
    onnx.save(made, tmp_path / "m.onnx")
    np.save(tmp_path / "x.npy", np.ones((1, 3, 64, 64), np.float32))
    np.save(tmp_path / "double.npy", np.ones((1, 3, 8, 8)))
    return tmp_path


def test_a_model_runs(model, command):
    done = command("run", "m.onnx", "x.npy", "-o", "y.png", "--mode", "positive", "--every-node")
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.startswith("layer ")
    assert "\nup " in done.stdout
    assert done.stdout.endswith("\n\nwrote y to y.png\n")
    assert read_picture(model / "y.png").shape == (3, 128, 128)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--every-node"], "cut for tconv: --every-node leaves no ConvTranspose to ONNX Runtime"),
        (["--method", "onnxruntime"], "left to ONNX Runtime: --method onnxruntime"),
    ],
)
@pytest.mark.parametrize("compares", [False, True])
def test_a_report_names_the_option_that_was_typed(model, command, words, said, compares):
    done = command("run", "m.onnx", "x.npy", *words, *["--compare"] * compares)
    assert said in done.stdout
    assert not re.search(r"\b\w+=(True|')", done.stdout)
    shown = command("run", "m.onnx", "x.npy", "--json", *words, *["--compare"] * compares).stdout
    assert said.partition(": ")[2] in json.loads(shown)["result"]["decision"]["reason"]


@pytest.mark.parametrize("words", [[], ["--method", "onnxruntime"], ["--every-node"]])
def test_the_table_has_the_sizes_of_every_layer(model, command, words):
    result = json.loads(command("run", "m.onnx", "x.npy", "--json", *words).stdout)["result"]
    (node,) = result["nodes"]
    assert node["x_shape"] == [1, 3, 64, 64]
    assert node["weight_shape"] == [3, 3, 4, 4]
    assert node["y_shape"] == [1, 3, 128, 128]


@pytest.mark.parametrize("is_timed", [False, True])
def test_layers_of_a_program_have_the_times_of_its_steps(model, is_timed):
    from tconv.onnx import NodeReport, Report, StepReport, StepTimes

    steps = (
        StepReport("conv_transpose", ("up",), (1, 3, 128, 128), 1.0, 2.0),
        StepReport("relu", ("y", "up"), (1, 3, 128, 128), 1.0, 0.5),
    )
    session = SimpleNamespace(profile=lambda feeds, runs: StepTimes(steps, runs))
    nodes = (NodeReport("up", "h", "", "tconv"), NodeReport("other", "z", "", "tconv"))
    feeds = {"x": np.ones((1, 3, 8, 8), np.float32)}
    path = str(model / "m.onnx")
    first, other = _with_layers(Report(nodes, 0), session, feeds, path, is_timed).nodes
    assert first.ms == (2.5 if is_timed else None)
    assert (first.x_shape, first.y_shape) == ((1, 3, 8, 8), (1, 3, 16, 16))
    assert other == nodes[1]


def test_a_comparison_runs(model, command):
    done = command("run", "m.onnx", "x.npy", "--compare", "--max-difference", "1e-3", "--json")
    assert (done.returncode, done.stderr) == (0, "")
    result = json.loads(done.stdout)["result"]
    assert result["nodes"][0]["name"] == "up"
    assert 0 <= result["largest_difference"] < 1e-3


def test_errors_of_a_model_have_three_lines(model, command):
    (model / "broken.onnx").write_bytes(b"not a model")
    for words, first in [
        (("broken.onnx", "x.npy"), "error[model]: "),
        (
            ("m.onnx", "double.npy"),
            "error[dtype]: the array is float64, but input x float (N, 3, H, W)",
        ),
        (("none.onnx",), "error[file]: No such file or directory"),
    ]:
        done = command("run", *words)
        assert (done.returncode, done.stdout) == (2, "")
        lines = done.stderr.splitlines()
        assert lines[0].startswith(first)
        assert [line[:6] for line in lines[1:]] == ["  at: ", "  help"]


def test_a_missing_library_is_one_error(model, command):
    start = (
        "import sys; sys.modules['onnxruntime'] = None\n"
        "from tconv.cli import main; sys.exit(main(['run', 'm.onnx', 'x.npy']))"
    )
    done = command(code=start)
    assert done.returncode == 2
    assert done.stderr == (
        "error[missing-extra]: The ONNX tools need onnx and onnxruntime\n"
        "  at: tconv run m.onnx x.npy\n"
        "  help: pip install onnx onnxruntime\n"
    )
