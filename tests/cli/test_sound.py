"""Sound files: what is written, what is clipped, and what is no sound."""

import wave

import numpy as np
import pytest

from tconv.cli.sound import check_sound, write_sound
from tconv.errors import DTypeError, ParameterError, ShapeError


def read(path):
    with wave.open(str(path)) as file:
        assert file.getsampwidth() == 2
        samples = np.frombuffer(file.readframes(file.getnframes()), "<i2")
        return file.getframerate(), samples.reshape(-1, file.getnchannels()).T


@pytest.mark.parametrize(
    ("shape", "axis", "channels"),
    [((6,), -1, 1), ((1, 6), -1, 1), ((1, 1, 6), -1, 1), ((1, 3, 6), -1, 3), ((1, 6, 2), 1, 2),
     ((1, 1, 1, 6), -1, 1), ((1, 16, 6), 2, 16)],
)  # fmt: skip
def test_a_sound_is_written_as_16_bits(tmp_path, shape, axis, channels):
    sound = np.linspace(-1, 1, int(np.prod(shape)), dtype=np.float32).reshape(shape)
    write_sound(str(tmp_path / "y.wav"), "y", sound, 11025, axis)
    rate, found = read(tmp_path / "y.wav")
    assert (rate, found.shape) == (11025, (channels, 6))
    expected = np.moveaxis(sound, axis, -1).reshape(channels, 6).astype(np.float64)
    assert np.array_equal(found, np.rint(expected * 32767))


@pytest.mark.parametrize("kind", ["float16", "float32", "float64"])
def test_what_is_beyond_is_clipped_and_counted(tmp_path, kind):
    sound = np.array([[-1.5, -1.0, 0.0, 0.5, 1.0, 2.0, 1.25]], kind)
    message = r"^3 of 7 samples are beyond -1 and 1 and were clipped; the largest is 2\.$"
    with pytest.warns(UserWarning, match=message):
        write_sound(str(tmp_path / "y.wav"), "y", sound, 8000)
    assert read(tmp_path / "y.wav")[1].tolist() == [[-32767, -32767, 0, 16384, 32767, 32767, 32767]]


def test_no_samples_are_a_sound(tmp_path):
    write_sound(str(tmp_path / "y.wav"), "y", np.zeros((1, 2, 0), np.float32), 8000)
    assert read(tmp_path / "y.wav")[1].shape == (2, 0)


@pytest.mark.parametrize(
    "shape", [(), (2, 6), (2, 1, 6), (1, 17, 6), (1, 2, 3, 6), ("N", 192, None), (3, None)]
)
def test_other_shapes_are_no_sound(shape):
    with pytest.raises(ShapeError, match=r"a sound \(1, channels, n\) or \(n,\) with at most 16"):
        check_sound("y", shape)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_what_is_not_finite_is_refused(tmp_path, value):
    sound = np.zeros((1, 2, 5), np.float32)
    sound[0, 1, 3] = value
    with pytest.raises(ParameterError, match=f"output 'y' is {value} at sample 3, must be finite"):
        write_sound(str(tmp_path / "y.wav"), "y", sound, 8000)
    assert not list(tmp_path.iterdir())


def test_whole_numbers_are_no_sound(tmp_path):
    with pytest.raises(DTypeError, match="output 'y' is int16, a sound has floating-point samples"):
        write_sound(str(tmp_path / "y.wav"), "y", np.zeros((1, 5), np.int16), 8000)


def test_more_than_the_format_holds_is_refused(tmp_path):
    huge = np.broadcast_to(np.zeros(1, np.float16), (1, 16, 2**27))
    with pytest.raises(ParameterError, match="more than a WAV file holds"):
        write_sound(str(tmp_path / "y.wav"), "y", huge, 8000)
    with pytest.raises(ParameterError, match="at 4000000000 Hz, more than a WAV file holds"):
        write_sound(str(tmp_path / "y.wav"), "y", np.zeros((1, 5), np.float32), 4_000_000_000)


def test_an_interrupted_file_leaves_nothing(tmp_path, monkeypatch):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(wave.Wave_write, "writeframes", stop)
    with pytest.raises(KeyboardInterrupt):
        write_sound(str(tmp_path / "y.wav"), "y", np.zeros((1, 5), np.float32), 8000)
    assert not list(tmp_path.iterdir())
