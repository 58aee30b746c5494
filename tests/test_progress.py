"""Progress bar: on a terminal from the first step on, elsewhere silent."""

import io

import pytest

import tconv.progress


@pytest.mark.parametrize("is_terminal", [True, False])
def test_the_bar_tells_of_the_first_step(monkeypatch, is_terminal):
    class Stream(io.StringIO):
        def isatty(self):
            return is_terminal

    stream = Stream()
    monkeypatch.setattr("sys.stderr", stream)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr(tconv.progress, "_PATIENCE_S", -1.0)
    with tconv.progress.progress_bar("images") as progress:
        assert (progress is not None) == is_terminal
        if progress is not None:
            progress(1, 3)
    assert ("images" in stream.getvalue() and "1/3" in stream.getvalue()) == is_terminal
