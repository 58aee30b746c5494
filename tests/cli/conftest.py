"""Fixtures `command` and `terminal`: the command line in a process, and in a terminal."""

import os
import struct
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
# What a terminal or a continuous integration sets, and what changes how text is shown.
UNSET = {"COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE", "PYTHONIOENCODING"}


@pytest.fixture
def command(tmp_path):
    """Run ``tconv`` with some words; gives returncode, stdout and stderr."""

    def run(*words, code=None, **environment):
        start = ["-c", code] if code else ["-m", "tconv"]
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        kept = {name: value for name, value in os.environ.items() if name not in UNSET}
        return subprocess.run(
            [sys.executable, *start, *words],
            capture_output=True,
            encoding="utf-8",
            cwd=tmp_path,
            env={**kept, "PYTHONPATH": path, "PYTHONUTF8": "1", **environment},
            check=False,
        )

    return run


@pytest.fixture
def terminal(tmp_path):
    """Run ``tconv`` with some words in a terminal of some columns; gives all that it shows."""
    pty, termios, fcntl = (pytest.importorskip(name) for name in ("pty", "termios", "fcntl"))

    def run(*words, columns=80, code=None, **environment):
        start = ["-c", code] if code else ["-m", "tconv"]
        own, theirs = pty.openpty()
        fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
        path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
        kept = {name: value for name, value in os.environ.items() if name not in UNSET}
        settings = {"PYTHONPATH": path, "PYTHONUTF8": "1", "TERM": "xterm-256color", **environment}
        streams = {"stdin": theirs, "stdout": theirs, "stderr": theirs}
        process = subprocess.Popen(
            [sys.executable, *start, *words], **streams, cwd=tmp_path, env={**kept, **settings}
        )
        os.close(theirs)
        shown = b""
        try:
            while piece := os.read(own, 65536):
                shown += piece
        except OSError:  # Linux: the other end is closed
            pass
        os.close(own)
        process.wait()
        return shown.decode().replace("\r\n", "\n")

    return run
