"""Reports of streams: whole results, and arithmetic on frames, samples and times."""

from fractions import Fraction

import numpy as np
import pytest

import tconv
from strategies import integers_like
from tconv.errors import ShapeError
from tconv.streams.report import Push, StreamReport, measure, shapes_of


def network():
    """Two samples for each frame; what a cell needs lies on both sides of it."""
    return tconv.Sequential(
        tconv.Conv1d(3, 4, 5, padding=2, rng=0),
        tconv.LeakyReLU(0.1),
        tconv.ConvTranspose1d(4, 1, 4, stride=2, padding=1, rng=1),
    )


@pytest.mark.parametrize("chunk", [1, 3, 8, 50])
def test_the_results_are_those_of_the_whole(chunk):
    layers, x = network(), integers_like((1, 3, 20), "float32", 1)
    told = []
    outputs, report = measure(layers.stream(), [x], chunk, 100, lambda *done: told.append(done))
    (y,) = outputs.values()
    assert np.array_equal(y, layers.predict(x))
    assert [push.frames for push in report.pushes] == [3] * 6 + [2] if chunk == 3 else True
    assert sum(push.frames for push in report.pushes) == 20
    assert sum(push.samples for push in (*report.pushes, report.flush)) == 40
    assert told[-1] == (20, 20)
    assert len(told) == len(report.pushes) == -(-20 // chunk)
    assert all(push.ms > 0 for push in report.pushes)


def test_the_axis_of_time_is_none_in_the_shapes():
    (x, y) = shapes_of(network().stream(batch=2)).values()
    assert (x, y) == ((2, 3, None), (2, 1, None))


def test_an_input_without_cells_is_refused():
    with pytest.raises(ShapeError, match="the input has no cells along time"):
        measure(network().stream(), [np.zeros((1, 3, 0), np.float32)], 4, 100)


def report(ratio=Fraction(2), latency=5, pushes=((4, 3, 10.0), (4, 8, 2.0), (3, 6, 3.0)), **more):
    made = tuple(Push(*push) for push in pushes)
    parts = tuple((f"layer {n}", Fraction(n)) for n in range(9))
    return StreamReport(latency, parts, ratio, 1234, 100, made, Push(0, 5, 1.0), 7.0)


def test_time_is_that_of_the_sound():
    made = report()  # 2 samples for each frame, 100 samples in a second
    assert (made.ms_of_samples(1), made.ms_of_frames(1)) == (10, 20)
    assert made.real_time_factor == pytest.approx(15 / (11 * 20))
    encoder = report(Fraction(1, 4))  # of sound that goes in
    assert (encoder.ms_of_samples(1), encoder.ms_of_frames(1)) == (40, 10)


@pytest.mark.parametrize(
    ("latency", "ratio", "frames"),
    [(5, 2, 3), (4, 2, 3), (3, 2, 2), (0, 2, 1), (-3, 2, 1), (2582, 256, 11),
     (3, Fraction(1, 4), 13)],
)  # fmt: skip
def test_the_first_sample_needs_more_than_the_latency(latency, ratio, frames):
    assert report(Fraction(ratio), latency).least_frames == frames


def test_the_first_sound_comes_with_the_first_push_that_returns_some():
    assert len(report().first_sound) == 1
    late = report(pushes=((1, 0, 1.0), (1, 0, 2.0), (1, 1, 4.0), (1, 2, 8.0)))
    assert [push.ms for push in late.first_sound] == [1, 2, 4]
    assert "came with push 3, after 3 frames, computed in 7.00 ms" in str(late.facts())
    never = report(pushes=((1, 0, 1.0),))
    assert never.first_sound == ()
    assert never.as_dict()["first_sound"]["frames"] is None


def test_the_largest_parts_of_the_latency_come_first_and_the_rest_is_summed():
    lines = str(report(latency=36)).splitlines()
    assert [line.split()[-2] for line in lines[1:]] == ["8", "7", "6", "5", "4", "3", "3", "36"]
    assert lines[-2].startswith("3 others")
    assert lines[-1].split() == ["latency", "36", "360.0"]


def test_a_stream_that_runs_ahead_has_a_negative_latency():
    layer = tconv.ConvTranspose1d(1, 1, 3, rng=0)
    x = integers_like((1, 1, 6), "float32", 2)
    outputs, made = measure(layer.stream(), [x], 2, 100)
    assert made.latency <= 0
    assert made.least_frames == 1
    assert np.array_equal(outputs[next(iter(outputs))], layer.predict(x))
    assert "latency" in str(made)


@pytest.mark.parametrize("shape", [(), (3,), (1, 3), (2, 3, 5), (1, 4, 5)])
def test_a_wrong_input_is_refused_before_anything_is_compiled(shape, monkeypatch):
    stream = network().stream()
    monkeypatch.setattr(stream, "warm", lambda frames: pytest.fail("it was compiled"))
    with pytest.raises(ShapeError, match=r"must have shape \(1, 3, n\)"):
        measure(stream, [np.zeros(shape, np.float32)], 4, 100)
