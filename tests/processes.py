"""Scripts in processes of their own, without the threads that a test runner has."""

import os
import subprocess
import sys
from pathlib import Path


def run_script(script, *words, timeout=200):
    """Run a script that imports this tconv; what it says of an error fails the test."""
    done = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
        capture_output=True,
        text=True,
        timeout=timeout,
    )
    assert done.returncode == 0, done.stderr
