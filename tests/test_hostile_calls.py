"""Hostile values in every place of every public call, in other processes: every error is ours.

`hostile_calls.py` has the calls and `hostile_values.py` the values. A failure names the call, the
places with their values, and the number that `hostile_calls.py` can repeat it by.
"""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from hostile_calls import CALLS, NOT_CALLED, public_callables
from hostile_values import VALUES, WRAPPINGS, Raised
from tconv.messages import show

PROGRAM = Path(__file__).with_name("hostile_calls.py")
PARTS, CALLS_OF_A_PART = {"ci": (4, 500), "thorough": (50, 1000)}.get(
    os.environ.get("HYPOTHESIS_PROFILE", "quick"), (2, 150)
)
SEED = "tconv"
MOST_SECONDS = 600  # of a process, on whatever machine: more is a hang that it has not seen itself


def complaints(start, stop, folder, *registries):
    """Everything that is wrong with the calls from START to STOP."""
    progress, report = folder / "progress", folder / "report"
    folders = PROGRAM.parents[1], PROGRAM.parent, PROGRAM.parent / "hosts" / "torch"
    paths = [*map(str, folders), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(paths)}
    report.touch()
    found = []
    while start < stop:
        progress.write_text(json.dumps({"number": start, "call": "the first", "values": {}}))
        order = [str(start), str(stop), SEED, str(progress), str(report), *registries]
        done = subprocess.run(
            [sys.executable, str(PROGRAM), *order],
            capture_output=True,
            text=True,
            errors="replace",
            env=environment,
            timeout=MOST_SECONDS,
        )
        if done.returncode == 0:
            break
        fatal = json.loads(progress.read_text())
        why = f"the process ended with {done.returncode}: {done.stderr[-2000:]}"
        found.append(fatal | {"why": why})
        start = fatal["number"] + 1
    found += map(json.loads, report.read_text().splitlines())
    return ["call {number}: {call} with {values}: {why}".format(**each) for each in found]


@pytest.mark.parametrize("part", range(PARTS))
def test_a_hostile_call_gives_a_result_or_an_error_of_ours(part, tmp_path):
    found = complaints(part * CALLS_OF_A_PART, (part + 1) * CALLS_OF_A_PART, tmp_path)
    assert not found, "\n".join(found)


def test_a_call_that_goes_wrong_is_found(tmp_path):
    """Of a process that dies, of an error that is not ours, and of none."""
    found = complaints(0, 8, tmp_path, "hostile_faults")
    assert len(found) == 8
    assert any("faults.foreign" in each and "ZeroDivisionError" in each for each in found)
    assert any("faults.fatal" in each and "the process ended with" in each for each in found)


@pytest.mark.parametrize("name", CALLS)
def test_good_arguments_work(name, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for make, *_ in CALLS[name]:
        make(tmp_path)()


def test_every_public_function_class_and_method_is_called():
    assert public_callables() - set(CALLS) == NOT_CALLED & public_callables()


@pytest.mark.filterwarnings("ignore::PendingDeprecationWarning")  # of np.matrix
@pytest.mark.parametrize("name", VALUES)
def test_every_value_can_be_made_and_shown(name):
    value = VALUES[name]()
    for each in (value, *(wrap(value) for wrap in WRAPPINGS.values())):
        try:
            text = show(each)
        except Raised:
            continue
        assert 0 < len(text) <= 80
