"""Fixture `command`: the command line in a process and a folder of its own."""

import os
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
