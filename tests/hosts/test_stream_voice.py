"""The example that speaks frame by frame: its sound, its picture, and what it prints."""

import re
import wave
from pathlib import Path

import numpy as np
import pytest

import tconv
import tconv.onnx
from loading import example
from tconv.cli import main
from tconv.images import read_picture

stream_voice = example("stream_voice")


def test_a_sentence_is_spoken_frame_by_frame(tmp_path, capsys):
    if not stream_voice.VOICE.is_file():
        pytest.fail(f"{stream_voice.VOICE} is missing: run `make test-hosts`, which fetches it.")
    stream_voice.main(["--output", str(tmp_path / "new"), "--chunk", "7"])
    printed = capsys.readouterr().out
    assert "The stream equals one call for all frames in each of its " in printed
    assert re.search(r"^latency +2,582 +117\.1$", printed, re.MULTILINE)
    apart, loud = re.search(r"differs from it by at most (\S+) of (\S+)\.\n", printed).groups()
    assert float(apart) < 1e-5 * float(loud)
    with wave.open(str(tmp_path / "new/voice.wav")) as file:
        assert file.getframerate() == 22050
        count = file.getnframes()
        sound = np.frombuffer(file.readframes(count), "<i2") / 32767
    frames = int(re.search(r"(\d+) frames of 192 latents", printed)[1])
    assert count == 256 * frames
    assert 0.1 < np.abs(sound).max() < 1
    assert 0.01 < np.sqrt((sound**2).mean()) < 0.3
    picture = read_picture(tmp_path / "new/stream_voice.png")
    assert picture.shape == (3, 14 + 4 * 174, 1128)
    assert picture[:, 44:160].std() > 20  # a curve, no blank page


def test_the_pages_show_what_is_printed_for_this_voice(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    docs = Path(stream_voice.ROOT) / "docs"
    page = (docs / "command_line.md").read_text("utf-8")
    shown = re.search(r"```text\n(layer +samples +ms\n.*?)```", page, re.DOTALL)[1]
    np.save("latents.npy", np.zeros((1, 192, 12), np.float32))
    command = re.search(r"^tconv (run voice.onnx latents.npy --stream .*)$", page, re.MULTILINE)[1]
    assert main(command.replace("voice.onnx", str(stream_voice.VOICE)).split()) == 0
    printed = capsys.readouterr().out
    assert printed.startswith(shown)
    assert "no more than another order of summation explains" in printed
    block = re.search(
        r"```python\n(stream = tconv.onnx.Stream\(\n.*?)```",
        (docs / "streams.md").read_text("utf-8"),
        re.DOTALL,
    )
    Path("en_US-joe-medium.onnx").symlink_to(stream_voice.VOICE)
    names = {"tconv": tconv}
    exec(block[1], names)
    assert (names["stream"].latency, names["stream"].ratio) == (2582, 256)


def test_signs_are_parted_by_blanks():
    signs = {"_": [0], "^": [1], "$": [2]} | {sign: [ord(sign)] for sign in stream_voice.SENTENCE}
    found = stream_voice.identifiers({"phoneme_id_map": signs})[0]
    assert found[:4].tolist() == [1, 0, ord("t"), 0]
    assert found[-3:].tolist() == [ord("."), 0, 2]
    assert len(found) == 2 * len(stream_voice.SENTENCE) + 3


def test_a_chunk_has_a_frame_at_least(capsys):
    with pytest.raises(SystemExit):
        stream_voice.main(["--chunk", "0"])
    assert "--chunk=0 must be at least 1" in capsys.readouterr().err
