"""`tconv run --stream`: a model along time, its results, its report, and what is refused."""

import json
import re
import wave

import numpy as np
import pytest
from onnx import helper, save

from onnx_graphs import by_onnx_runtime, model_of
from strategies import integers_like
from tconv.cli import main
from tconv.cli.options import VERBS

FRAMES = 23
ENDS = {"z": [1, 4, None], "g": [1, 4, 1], "y": [1, 2, None]}


def decoder(ends=ENDS):
    """Two channels of sound, two samples for each frame; g is the same for all frames."""
    node = helper.make_node
    nodes = [
        node("Add", ["z", "g"], ["spoken"]),
        node("Conv", ["spoken", "a"], ["pre"], name="pre", pads=[1, 1]),
        node("LeakyRelu", ["pre"], ["bent"], alpha=0.25),
        node("ConvTranspose", ["bent", "b"], ["up"], name="up", strides=[2], pads=[1, 1]),
        node("Conv", ["up", "c"], ["branch"], name="res", pads=[2, 2], dilations=[2]),
        node("Add", ["up", "branch"], ["both"]),
        node("Tanh", ["both"], ["y"]),
    ]
    weights = {
        name: (integers_like(shape, "float32", seed) / 8).astype(np.float32)
        for seed, (name, shape) in enumerate(
            {"a": (4, 4, 3), "b": (4, 2, 4), "c": (2, 2, 3)}.items()
        )
    }
    given = {name: np.ones([size or 1 for size in ends[name]], np.float32) for name in ("z", "g")}
    model = model_of(nodes, given, ["y"], weights)
    for value in (*model.graph.input, *model.graph.output):
        made = helper.make_tensor_value_info(value.name, 1, ends[value.name])
        value.CopyFrom(made)
    return model


@pytest.fixture
def here(tmp_path, monkeypatch):
    """A folder with a decoder and its inputs; gives its result as a whole."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    rng = np.random.default_rng(0)
    feeds = {
        "z": rng.standard_normal((1, 4, FRAMES), np.float32),
        "g": rng.standard_normal((1, 4, 1), np.float32),
    }
    for name, array in feeds.items():
        np.save(f"{name}.npy", array)
    np.save("pre.npy", rng.standard_normal((1, 4, FRAMES), np.float32))
    model = decoder()
    save(model, "m.onnx")
    save(decoder({"z": [1, 4, FRAMES], "g": [1, 4, 1], "y": [1, 2, 2 * FRAMES]}), "fixed.onnx")
    return by_onnx_runtime(model, feeds)[0]


def run(words, model="m.onnx"):
    return main(["run", model, *words.split(), "--stream", "--threads", "1"])


def result_of(words, capsys):
    assert run(f"{words} --json") == 0
    return json.loads(capsys.readouterr().out)["result"]


# ---- results -------------------------------------------------------------------------------------


@pytest.mark.parametrize("chunk", ["--chunk 1", "--chunk 4", "--chunk 100", ""])
def test_chunks_of_any_length_give_the_whole(here, chunk):
    assert run("z.npy g=g.npy --chunk 7 -o seven.npy") == 0
    assert run(f"z.npy g=g.npy {chunk} -o y.npy") == 0
    y = np.load("y.npy")
    assert y.shape == here.shape
    np.testing.assert_allclose(y, here, rtol=0, atol=1e-6)
    assert np.array_equal(y, np.load("seven.npy"))


@pytest.mark.parametrize(
    "words", ["pre=pre.npy", "pre.npy --input-name pre", "pre=pre.npy --input-name pre"]
)
def test_a_model_is_cut_at_values_within_it(here, words, capsys):
    assert run(f"{words} --output-name up -o up.npz --compare --max-difference 1e-6") == 0
    with np.load("up.npz") as archive:
        assert list(archive.files) == ["up"]
        assert archive["up"].shape == (1, 2, 2 * FRAMES)
    assert "within --max-difference 1e-06" in capsys.readouterr().out


def test_an_input_of_one_size_stays_the_same(here, capsys):
    np.savez("both.npz", z=np.load("z.npy"), g=np.load("g.npy"))
    assert run("both.npz --chunk 5 -o y.npy") == 0
    np.testing.assert_allclose(np.load("y.npy"), here, rtol=0, atol=1e-6)


def test_two_inputs_arrive_together(here, tmp_path):
    nodes = [helper.make_node("Add", ["p", "q"], ["s"]), helper.make_node("Tanh", ["s"], ["y"])]
    p, q = (np.random.default_rng(n).standard_normal((1, 2, 9), np.float32) for n in (1, 2))
    model = model_of(nodes, {"p": p, "q": q}, ["y"])
    for value in model.graph.input:
        value.type.tensor_type.shape.dim[2].Clear()
    save(model, "two.onnx")
    np.save("p.npy", p)
    np.save("q.npy", q)
    assert run("p.npy q.npy --chunk 2 -o y.npy", "two.onnx") == 0
    np.testing.assert_allclose(np.load("y.npy"), np.tanh(p + q), rtol=0, atol=1e-6)


def test_a_model_of_one_size_takes_any_if_its_axis_is_told(here, capsys):
    words = "z=z.npy g=g.npy --input-name z"
    assert run(words, "fixed.onnx") == 2
    assert capsys.readouterr().err == (
        f"error[usage]: input 'z' has shape (1, 4, {FRAMES}) in the model, where None is any size: "
        "which axis is time is not clear\n"
        "  at: option --stream\n"
        "  help: give the axis by --time-axis N, counted from 0\n"
    )
    assert run(f"{words} --time-axis 2 -o y.npy", "fixed.onnx") == 0
    np.testing.assert_allclose(np.load("y.npy"), here, rtol=0, atol=1e-6)


def test_a_sound_is_written_with_both_channels(here, capsys):
    assert run("z.npy g.npy --chunk 4 -o y.wav --sample-rate 8000") == 0
    with wave.open("y.wav") as file:
        assert file.getparams()[:4] == (2, 2, 8000, 2 * FRAMES)
        found = np.frombuffer(file.readframes(2 * FRAMES), "<i2").reshape(-1, 2).T
    assert np.abs(found - 32767.0 * here[0]).max() < 1
    out, err = capsys.readouterr()
    assert "wrote y to y.wav at 8,000 Hz\n" in out
    assert err == ""


def test_without_a_sample_rate_the_usual_one_is_told(here, capsys):
    assert run("z.npy g.npy --chunk 4 -o y.wav") == 0
    out = capsys.readouterr().out
    assert "times of sound at 22,050 Hz, as --sample-rate is not given" in out
    assert "wrote y to y.wav at 22,050 Hz (--sample-rate sets another)\n" in out
    with wave.open("y.wav") as file:
        assert file.getframerate() == 22050


def test_a_result_of_fewer_samples_has_a_slower_rate(here, capsys):
    node = helper.make_node("Conv", ["x", "w"], ["y"], strides=[3])
    x, w = np.ones((1, 1, 30), np.float32), np.full((1, 1, 3), 0.25, np.float32)
    model = model_of([node], {"x": x}, ["y"], {"w": w})
    model.graph.input[0].type.tensor_type.shape.dim[2].Clear()
    save(model, "down.onnx")
    np.save("x.npy", x)
    assert run("x.npy --sample-rate 48000 -o y.wav", "down.onnx") == 0
    with wave.open("y.wav") as file:
        assert (file.getframerate(), file.getnframes()) == (16000, 10)
    capsys.readouterr()
    assert run("x.npy --sample-rate 44101 -o z.wav", "down.onnx") == 2
    assert capsys.readouterr().err.endswith("help: give a multiple of 3, or write an .npy\n")


# ---- the report ----------------------------------------------------------------------------------


def test_the_latency_is_told_with_its_parts_the_first_sound_and_the_speed(here, capsys):
    assert run("z.npy g.npy --chunk 4 --sample-rate 8000") == 0
    out, err = capsys.readouterr()
    assert err == ""
    latency, stream = out.split("\n\n")
    # A frame to the right, times the stride; one sample of the crop; two of the dilated kernel.
    assert latency.splitlines() == [
        "layer    samples    ms",
        "pre            2  0.25",
        "res            2  0.25",
        "up             1  0.12",
        "latency        5  0.62",
    ]
    *lines, rate, compared = stream.splitlines()
    titles = [re.split("  +", line)[0] for line in lines]
    assert titles == [
        *("stream", "real-time factor", "a push", "first sound", "flush", "pushed", "state"),
        "prepared",
    ]
    assert "needs 3 frames, 0.75 ms; came with push 1, after 4 frames, computed in " in stream
    assert f"pushed            {FRAMES} frames, 2 samples each" in stream
    assert rate == "times of sound at 8,000 Hz"
    assert compared == "not compared with the whole input; --compare runs ONNX Runtime on it"


def test_json_has_every_push(here, capsys):
    result = result_of("z.npy g.npy --chunk 4 --sample-rate 8000", capsys)
    assert [push["frames"] for push in result["pushes"]] == [4] * 5 + [3]
    assert [push["samples"] for push in result["pushes"]] == [3] + [8] * 4 + [6]
    assert result["flush"]["samples"] == 5
    assert (result["latency_samples"], result["samples_per_frame"]) == (5, 2.0)
    assert sum(part["samples"] for part in result["latency_parts"]) == 5
    assert result["latency_ms"] == 5 / 8
    ms = sum(push["ms"] for push in result["pushes"])
    assert result["real_time_factor"] == pytest.approx(ms / (2 * FRAMES / 8))
    assert (result["chunk"], result["written"]) == (4, None)
    assert result["outputs"] == [{"name": "y", "shape": [1, 2, 2 * FRAMES], "dtype": "float32"}]


def test_without_a_chunk_a_push_is_about_50_ms(here, capsys):
    assert result_of("z.npy g.npy --sample-rate 400", capsys)["chunk"] == 10
    assert result_of("z.npy g.npy --sample-rate 8", capsys)["chunk"] == 1


def test_an_input_that_is_too_short_for_a_sound_before_its_end(here, capsys):
    np.save("short.npy", np.ones((1, 4, 2), np.float32))
    result = result_of("short.npy g.npy --chunk 2", capsys)
    assert result["first_sound"]["pushes"] is None
    assert run("short.npy g.npy --chunk 2") == 0
    assert "; the input is shorter, all came with the flush" in capsys.readouterr().out


@pytest.mark.parametrize(("limit", "code"), [("1e-3", 0), ("0", 1)])
def test_a_comparison_is_with_onnx_runtime_of_the_whole(here, capsys, limit, code):
    words = f"z.npy g.npy --chunk 4 --compare --max-difference {limit}"
    assert run(words) == code
    out = capsys.readouterr().out
    assert re.search(r"^output +y +difference\ny +1×2×46 +\S+ of \S+$", out, re.MULTILINE)
    assert "from ONNX Runtime of the whole input" in out
    assert "no more than another order of summation explains" in out
    assert ("above --max-difference" in out) == bool(code)
    assert "not compared" not in out
    assert run(f"{words} --json") == code
    assert 0 < json.loads(capsys.readouterr().out)["result"]["largest_difference"] < 1e-5


@pytest.mark.parametrize("columns", [40, 80])
def test_the_report_fits_its_terminal_without_colours(here, terminal, columns):
    words = ["run", "m.onnx", "z.npy", "g.npy", "--stream", "--threads", "1"]
    shown = terminal(*words, columns=columns, NO_COLOR="1")
    assert "latency" in shown
    assert "\x1b" not in shown
    assert max(map(len, shown.splitlines())) <= columns


def test_the_example_of_the_help_is_a_stream():
    assert "--stream --chunk 4" in VERBS["run"].examples


# ---- what is refused -----------------------------------------------------------------------------

PICKS = "the model takes z float (1, 4, ?), g float (1, 4, 1)"
REFUSED = [
    ("z.npy g.npy --chunk 0", "usage", "--chunk must be a whole number of 1 or more, not '0'",
     "option --chunk", "write 2, say"),
    ("z.npy g.npy --sample-rate 0", "usage",
     "--sample-rate must be a whole number of 1 or more, not '0'", "option --sample-rate",
     "write 2, say"),
    ("z.npy g.npy --method measure", "usage", "--method excludes --stream", "option --method",
     "leave one of the two out"),
    ("z.npy g.npy --size 4", "usage", "--size excludes --stream", "option --size",
     "leave one of the two out"),
    ("z.npy g.npy --max-difference 1", "usage", "--max-difference needs --compare",
     "option --max-difference", "add --compare"),
    ("z.npy", "parameter", f"input 'g' is not given, {PICKS}", "model 'm.onnx'", "add g=PATH"),
    ("pre=z.npy --output-name upp", "usage", "the model has no value 'upp'",
     "option --output-name", "did you mean 'up'?"),
    ("z.npy g.npy --output-name zzzzzz", "usage", "the model has no value 'zzzzzz'",
     "option --output-name", "its outputs are y"),
    ("z.npy g.npy --input-name spokn", "usage", "the model has no value 'spokn'",
     "option --input-name", "did you mean 'spoken'?"),
    ("z.npy g.npy --input-name z --time-axis 3", "usage",
     "--time-axis 3 is no axis of 'z', which has shape (1, 4, 23)", "option --time-axis",
     "give one, counted from 0, that is not the first, which is the batch"),
    ("pre=g.npy --output-name pre", "parameter", "inputs has 'pre', which outputs do not depend on",
     "model 'm.onnx' with 'g.npy'", "drop it"),
    ("pre=wide.npy", "shape", "x has shape (1, 17, 9), must have shape (1, 4, n) with any n",
     "model 'm.onnx' with 'wide.npy'", "pass such an array"),
    ("pre=empty.npy", "shape", "the input has no cells along time", "model 'm.onnx' with",
     "pass one with at least 1"),
    ("z.npy g.npy -o y.mp3", "file", ".mp3 is no format that tconv writes",
     "option -o/--output, file 'y.mp3'",
     "end the name in .npz, .npy, .wav, .png or another picture format"),
    ("z.npy g.npy -o m.onnx -f", "file", "the output would overwrite the model or an input",
     "option -o/--output, file 'm.onnx'", "choose another"),
]  # fmt: skip


@pytest.mark.parametrize(("words", "code", "what", "where", "fix"), REFUSED)
def test_what_cannot_be_streamed_is_told(here, capsys, words, code, what, where, fix):
    np.save("wide.npy", np.ones((1, 17, 9), np.float32))
    np.save("empty.npy", np.ones((1, 4, 0), np.float32))
    assert run(words) == 2
    out, err = capsys.readouterr()
    assert out == ""
    first, second, third = err.splitlines()
    assert first.startswith(f"error[{code}]: {what}"), err
    assert second.startswith(f"  at: {where}"), err
    assert third == f"  help: {fix}"


def test_a_model_of_one_size_has_nothing_to_arrive_in_chunks(here, capsys):
    assert run("z.npy g.npy", "fixed.onnx") == 2
    first, second, third = capsys.readouterr().err.splitlines()
    assert first.startswith("error[usage]: no input may have any length along time, the model")
    assert second == "  at: option --stream"
    assert "--input-name" in third
    assert "--time-axis" in third


def test_an_operator_that_needs_all_of_time_is_named(here, capsys):
    node = helper.make_node("Softmax", ["x"], ["y"], name="over", axis=2)
    x = np.ones((1, 2, 3), np.float32)
    model = model_of([node], {"x": x}, ["y"])
    model.graph.input[0].type.tensor_type.shape.dim[2].Clear()
    save(model, "all.onnx")
    np.save("x.npy", x)
    assert run("x.npy", "all.onnx") == 2
    err = capsys.readouterr().err
    assert err.startswith("error[unsupported]: ")
    assert "Softmax over time" in err
    assert "'over'" in err


def test_features_are_no_sound(here, capsys):
    node = helper.make_node("Tanh", ["x"], ["y"])
    model = model_of([node], {"x": np.ones((1, 80, 3), np.float32)}, ["y"])
    model.graph.input[0].type.tensor_type.shape.dim[2].Clear()
    save(model, "mel.onnx")
    np.save("x.npy", np.ones((1, 80, 3), np.float32))
    assert run("x.npy -o y.wav", "mel.onnx") == 2
    assert capsys.readouterr().err == (
        "error[shape]: output 'y' has shape (1, 80, ?), a sound (1, channels, n) or (n,) with at "
        "most 16 channels\n"
        "  at: option -o/--output, file 'y.wav'\n"
        "  help: write an .npy or .npz\n"
    )


@pytest.mark.parametrize(
    ("words", "what", "where", "fix"),
    [
        ("run m.onnx z.npy --chunk 4", "--chunk is for streams", "option --chunk",
         "add --stream, or leave it out"),
        ("run m.onnx z.npy --input-name z", "--input-name is for streams", "option --input-name",
         "add --stream, or leave it out"),
        ("run m.onnx z.npy --sample-rate 8000", "--sample-rate is for sound",
         "option --sample-rate", "write a .wav, or add --stream"),
        ("run --volume x.zarr --stream", "--stream is for models", "option --stream",
         "leave it out"),
        ("run --volume x.zarr --time-axis 0", "--time-axis is for models", "option --time-axis",
         "leave it out"),
        ("run --stream", "MODEL is missing", "tconv run",
         "name an ONNX file, or a volume by --volume IN.zarr"),
    ],
)  # fmt: skip
def test_options_of_a_stream_are_for_streams(capsys, words, what, where, fix):
    assert main(words.split()) == 2
    assert capsys.readouterr() == ("", f"error[usage]: {what}\n  at: {where}\n  help: {fix}\n")


def test_the_result_of_a_whole_run_may_be_a_sound(here, capsys):
    assert main(["run", "m.onnx", "z.npy", "g.npy", "-o", "y.wav", "--sample-rate", "16000"]) == 0
    with wave.open("y.wav") as file:
        assert file.getparams()[:4] == (2, 2, 16000, 2 * FRAMES)
